//! `orlop maintenance`: switches writes off and on again.
//!
//! Asks the server that runs on the data folder. Where none runs, it takes the
//! folder's lock and sets what the next start finds.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::Serialize;

use super::{Output, fail, print};
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
    let folder = match settings::data_folder(&args.data) {
        Ok(folder) => folder,
        Err(error) => return fail(&error),
    };
    match (read_only(&folder, args), args.output) {
        (Ok(report), Output::Text) => print(&as_text(&report), ExitCode::SUCCESS),
        (Ok(report), Output::Json) => {
            let report = format!("{}\n", serde_json::json!(report));
            print(&report, ExitCode::SUCCESS)
        }
        (Err(error), Output::Text) => {
            fail(&format_args!("data folder {}: {error}", folder.display()))
        }
        (Err(error), Output::Json) => {
            let report = serde_json::json!({ "data": folder, "error": error });
            print(&format!("{report}\n"), ExitCode::FAILURE)
        }
    }
}

fn as_text(report: &Report) -> String {
    let whose = if report.running {
        format!("the server on {}", report.data.display())
    } else {
        format!(
            "no server is running on {}; the next one",
            report.data.display()
        )
    };
    match &report.read_only {
        Some(why) => format!(
            "{whose} is read-only since {}: {}\n`orlop maintenance read-only off` takes writes again\n",
            why.since, why.reason
        ),
        None => format!("{whose} takes writes\n"),
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
        Ok(Status { read_only, .. }) => Ok(report(true, read_only)),
        Err(AskError::Nobody) => {
            let read_only = stopped(folder, args)?;
            Ok(report(false, read_only))
        }
        Err(error) => Err(error.to_string()),
    }
}

/// Sets what the next start finds.
fn stopped(folder: &Path, args: &ReadOnlyArgs) -> Result<Option<ReadOnly>, String> {
    if !storage::is_store(folder).map_err(|error| error.to_string())? {
        return Err("no server is running on it and there is no store in it; pass the --data that the server has".to_owned());
    }
    if args.to != To::Status {
        storage::own(folder).map_err(|error| error.to_string())?;
        let _lock = storage::lock(folder).map_err(|error| match error {
            StartError::Locked(held) => format!(
                "the control socket does not answer, but {held}, or wait until it has started"
            ),
            other => other.to_string(),
        })?;
        let wanted = match args.to {
            To::On => Some(ReadOnly::asked(args.reason.as_deref())?),
            To::Off | To::Status => None,
        };
        kept::write(folder, wanted.as_ref()).map_err(|error| error.to_string())?;
    }
    kept::read(folder).map_err(|error| error.to_string())
}
