//! `orlop maintenance`: switches writes off and on again.
//!
//! Asks the server that runs on the data folder. Where none runs, it takes the
//! folder's lock and sets what the next start finds.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::Serialize;

use super::Output;
use crate::control::client::{self, AskError};
use crate::control::{Status, Verb, kept};
use crate::registry::ReadOnly;
use crate::settings::{self, DataArgs};
use crate::storage::{self, StartError};

/// Flags of `orlop maintenance`.
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand, Debug)]
enum Command {
    /// Refuse writes, with the reason for everyone to read, while pulls go on
    ReadOnly(ReadOnlyArgs),
}

#[derive(clap::Args, Debug)]
struct ReadOnlyArgs {
    /// What to do
    to: To,

    /// Why, for everyone to read
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,

    #[command(flatten)]
    data: DataArgs,

    /// How to report
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum To {
    /// Refuse writes
    On,
    /// Take writes again
    Off,
    /// Say how it is
    Status,
}

/// How it is now.
#[derive(Debug, Serialize)]
struct Report {
    data: PathBuf,
    /// Whether a server was asked.
    running: bool,
    read_only: Option<ReadOnly>,
}

/// Runs the command.
pub fn run(args: &Args) -> ExitCode {
    let Command::ReadOnly(args) = &args.command;
    let outcome = settings::data_folder(&args.data)
        .map_err(|error| error.to_string())
        .and_then(|folder| read_only(&folder, args));
    match (outcome, args.output) {
        (Ok(report), Output::Text) => {
            print_text(&report);
            ExitCode::SUCCESS
        }
        (Ok(report), Output::Json) => {
            println!("{}", serde_json::json!(report));
            ExitCode::SUCCESS
        }
        (Err(error), Output::Text) => {
            eprintln!("orlop: {error}");
            ExitCode::FAILURE
        }
        (Err(error), Output::Json) => {
            println!("{}", serde_json::json!({ "error": error }));
            ExitCode::FAILURE
        }
    }
}

fn print_text(report: &Report) {
    let whose = if report.running {
        format!("the server on {}", report.data.display())
    } else {
        format!(
            "no server is running on {}; the next one",
            report.data.display()
        )
    };
    match &report.read_only {
        Some(why) => println!(
            "{whose} is read-only since {}: {}\n`orlop maintenance read-only off` takes writes again",
            why.since, why.reason
        ),
        None => println!("{whose} takes writes"),
    }
}

fn read_only(folder: &Path, args: &ReadOnlyArgs) -> Result<Report, String> {
    if args.to != To::On && args.reason.is_some() {
        return Err("--reason goes with `on`".to_owned());
    }
    let reason = args.reason.clone();
    let verb = match args.to {
        To::On => Verb::ReadOnlyOn { reason },
        To::Off => Verb::ReadOnlyOff {},
        To::Status => Verb::ReadOnlyStatus {},
    };
    let report = |running, read_only| Report {
        data: folder.to_owned(),
        running,
        read_only,
    };
    match client::ask(folder, verb) {
        Ok(Status { read_only }) => Ok(report(true, read_only)),
        Err(AskError::Nobody) => {
            let read_only = stopped(folder, args).map_err(|error| error.to_string())?;
            Ok(report(false, read_only))
        }
        Err(error) => Err(error.to_string()),
    }
}

/// Sets what the next start finds.
fn stopped(folder: &Path, args: &ReadOnlyArgs) -> io::Result<Option<ReadOnly>> {
    if !folder.try_exists()? {
        let text = format!(
            "there is no data folder {}; pass the right --data",
            folder.display()
        );
        return Err(io::Error::new(io::ErrorKind::NotFound, text));
    }
    if args.to != To::Status {
        let _lock = storage::lock(folder).map_err(|error| match error {
            StartError::Locked(held) => io::Error::other(format!(
                "the control socket does not answer, but {held}, or wait until it has started"
            )),
            other => io::Error::other(other.to_string()),
        })?;
        let wanted = match args.to {
            To::On => Some(ReadOnly::asked(args.reason.as_deref()).map_err(io::Error::other)?),
            To::Off | To::Status => None,
        };
        kept::write(folder, wanted.as_ref())?;
    }
    kept::read(folder)
}
