//! What a person types to repair a store, and what is printed for it.
//!
//! Exit status: 0 when nothing is wrong any more, 1 when something is left or
//! would be done, 2 when it could not look or a step failed.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::{Options, Outcome, Plan, apply, plan};
use crate::finding::Result;

/// Flags of a repair.
#[derive(Debug, clap::Args)]
pub(crate) struct RepairArgs {
    /// Say what a repair would do, and do it only with --apply
    #[arg(long)]
    pub(crate) repair: bool,

    /// Do what the plan says
    #[arg(long, requires = "repair")]
    apply: bool,

    /// Where lost blobs may come from: the folder of another store or of an OCI
    /// layout, or <https://HOST/REPOSITORY> (ORLOP_SOURCE_USER and
    /// ORLOP_SOURCE_PASSWORD in the environment); may be given again
    #[arg(long, value_name = "FROM", requires = "repair")]
    source: Vec<String>,

    /// Where a repair puts its scratch files
    #[arg(long, value_name = "DIR", requires = "repair")]
    scratch: Option<PathBuf>,
}

impl RepairArgs {
    /// Plans, shows, and applies if that was asked for.
    pub(crate) fn run(&self, folder: &Path, json: bool) -> ExitCode {
        match self.try_run(folder, json) {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::from(1),
            Err(trouble) => {
                eprintln!("orlop-fsck: {trouble}");
                ExitCode::from(2)
            }
        }
    }

    /// Whether nothing is wrong.
    fn try_run(&self, folder: &Path, json: bool) -> Result<bool> {
        let options = Options {
            sources: self.source.clone(),
            scratch: self.scratch.clone(),
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
