//! What a person types to repair a store, and what is printed for it.

use std::io::Write as _;
use std::path::Path;

use super::{Options, Outcome, Plan, apply, plan};
use crate::trouble::Result;

/// Flags of a repair.
#[derive(Debug, clap::Args)]
pub(crate) struct RepairArgs {
    /// Say what a repair would do, and do it only with --apply
    #[arg(long)]
    repair: bool,

    /// Do what the plan says
    #[arg(long, requires = "repair")]
    apply: bool,

    /// Where lost blobs may come from: the folder of another store or of an OCI layout, or <https://HOST/REPOSITORY>; may be given again
    #[arg(long, value_name = "FROM", requires = "repair")]
    source: Vec<String>,
}

impl RepairArgs {
    /// Whether a repair was asked for.
    pub(crate) fn wanted(&self) -> bool {
        self.repair
    }

    /// Plans, shows, and applies if that was asked for. True when nothing is
    /// wrong.
    pub(crate) fn run(
        &self,
        folder: &Path,
        check: crate::options::Options,
        json: bool,
    ) -> Result<bool> {
        let options = Options {
            sources: self.source.clone(),
            check,
        };
        let plan = plan(folder, options)?;
        if !json {
            print(&plan.to_string());
        }
        if !self.apply {
            if json {
                print_json(&serde_json::json!({ "plan": plan, "applied": false }));
            } else if !plan.is_empty() {
                print("nothing was changed; add --apply to do this\n");
            }
            return Ok(plan.is_empty() && plan.before().clean());
        }
        let outcome = apply(&plan, &mut |_| Ok(()))?;
        let clean = outcome.after.clean() && outcome.left.is_empty();
        if json {
            print_json(&serde_json::json!({ "plan": plan, "applied": true, "outcome": outcome }));
        } else {
            print(&said(&plan, &outcome));
        }
        Ok(clean)
    }
}

fn said(plan: &Plan, outcome: &Outcome) -> String {
    let mut text = String::new();
    for line in &outcome.done {
        text.push_str(&format!("done: {line}\n"));
    }
    for line in &outcome.left {
        text.push_str(&format!("not restored: {line}\n"));
    }
    if !plan.is_empty() {
        text.push_str("the store was checked again:\n");
    }
    text.push_str(&outcome.after.to_string());
    text
}

fn print_json(value: &serde_json::Value) {
    print(&format!("{value:#}\n"));
}

/// A closed pipe is its reader's choice.
fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}
