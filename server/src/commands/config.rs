//! `orlop config`: looks at the settings without starting anything.
//!
//! `check` names every problem, `show` every value and where it comes from,
//! `schema` what a file may have. All of them read what `orlop serve` with the
//! same flags would read, and change nothing.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::{Output, fail, print};
use crate::settings::{self, Loaded, ServeArgs, SettingsError, Shown};

/// Flags of `orlop config`.
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand, Debug)]
enum Command {
    /// Name every problem of the settings; exits 1 if there is one
    Check(LookArgs),
    /// Show every setting, its value and where that comes from
    Show(LookArgs),
    /// Print the JSON schema of the file, for editors
    Schema,
}

#[derive(clap::Args, Debug)]
struct LookArgs {
    #[command(flatten)]
    settings: ServeArgs,

    /// How to report
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    output: Output,
}

/// Runs the command.
pub fn run(args: &Args) -> ExitCode {
    match &args.command {
        Command::Check(args) => check(&Loaded::new(&args.settings), args.output),
        Command::Show(args) => show(&Loaded::new(&args.settings), args.output),
        Command::Schema => print(&format!("{:#}\n", settings::schema()), ExitCode::SUCCESS),
    }
}

fn check(loaded: &Loaded, output: Output) -> ExitCode {
    let is_well = loaded.problems.is_empty();
    let report = match output {
        Output::Text => {
            let notes = loaded.notes.iter().map(|note| format!("note  {note}\n"));
            let problems = loaded.problems.iter();
            let problems = problems.map(|problem| format!("FAIL  {problem}\n"));
            let well = is_well.then(|| format!("ok    {}\n", what_was_read(loaded)));
            notes.chain(problems).chain(well).collect()
        }
        Output::Json => line(&json!({
            "ok": is_well,
            "file": loaded.file(),
            "problems": loaded.problems,
            "notes": loaded.notes,
        })),
    };
    let code = if is_well {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    };
    print(&report, code)
}

fn what_was_read(loaded: &Loaded) -> String {
    match loaded.file() {
        Some(file) => format!("{} can be used", file.display()),
        None => "there is no file of settings; flags and variables can be used".to_owned(),
    }
}

/// Values of settings that cannot be used would mislead, so that there are
/// none then.
fn show(loaded: &Loaded, output: Output) -> ExitCode {
    if let Err(error) = loaded.checked() {
        return refuse(&error, output);
    }
    let shown = loaded.show();
    let report = match output {
        Output::Text => table(&shown),
        Output::Json => line(&json!({ "file": loaded.file(), "settings": shown })),
    };
    print(&report, ExitCode::SUCCESS)
}

fn refuse(error: &SettingsError, output: Output) -> ExitCode {
    match output {
        Output::Text => fail(error),
        Output::Json => {
            let report = json!({ "error": error.to_string(), "problems": error.0 });
            print(&line(&report), ExitCode::FAILURE)
        }
    }
}

fn line(report: &Value) -> String {
    format!("{report}\n")
}

fn table(shown: &[Shown]) -> String {
    let key = shown.iter().map(|shown| shown.key.len()).max();
    let value = shown.iter().map(|shown| shown.text.chars().count()).max();
    let (key, value) = (key.unwrap_or(0), value.unwrap_or(0));
    shown
        .iter()
        .map(|shown| {
            let (name, text, origin) = (shown.key, &shown.text, shown.origin.short());
            format!("{name:key$}  {text:value$}  {origin}\n")
        })
        .collect()
}
