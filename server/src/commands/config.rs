//! `orlop config`: looks at the settings without starting anything.
//!
//! `check` names every problem, `show` every value and where it comes from,
//! `schema` what a file may have. All of them read what `orlop serve` with the
//! same flags would read, and change nothing.

use std::process::ExitCode;

use serde_json::json;

use super::Output;
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
        Command::Schema => {
            println!("{:#}", settings::schema());
            ExitCode::SUCCESS
        }
    }
}

fn check(loaded: &Loaded, output: Output) -> ExitCode {
    let is_well = loaded.problems.is_empty();
    match output {
        Output::Text => {
            for note in &loaded.notes {
                println!("note  {note}");
            }
            for problem in &loaded.problems {
                println!("FAIL  {problem}");
            }
            if is_well {
                println!("ok    {}", what_was_read(loaded));
            }
        }
        Output::Json => {
            let report = json!({
                "ok": is_well,
                "file": loaded.file(),
                "problems": loaded.problems,
                "notes": loaded.notes,
            });
            println!("{report}");
        }
    }
    if is_well {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn what_was_read(loaded: &Loaded) -> String {
    match loaded.file() {
        Some(file) => format!("{} can be used", file.display()),
        None => "no file of settings; flags and variables can be used".to_owned(),
    }
}

/// Values of settings that cannot be used would mislead, so that there are
/// none then.
fn show(loaded: &Loaded, output: Output) -> ExitCode {
    if let Err(error) = loaded.checked() {
        return refuse(&error, output);
    }
    let shown = loaded.show();
    match output {
        Output::Text => print_table(&shown),
        Output::Json => println!("{}", json!({ "file": loaded.file(), "settings": shown })),
    }
    ExitCode::SUCCESS
}

fn refuse(error: &SettingsError, output: Output) -> ExitCode {
    match output {
        Output::Text => eprintln!("orlop: {error}"),
        Output::Json => println!(
            "{}",
            json!({ "error": error.to_string(), "problems": error.0 })
        ),
    }
    ExitCode::FAILURE
}

fn print_table(shown: &[Shown]) {
    let width = |lengths: &dyn Fn(&Shown) -> usize| shown.iter().map(lengths).max().unwrap_or(0);
    let key = width(&|shown| shown.key.len());
    let value = width(&|shown| shown.text.chars().count());
    for Shown {
        key: name,
        text,
        origin,
        ..
    } in shown
    {
        println!("{name:key$}  {text:value$}  {}", origin.short());
    }
}
