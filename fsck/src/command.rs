//! What a person types, and what is printed for it.
//!
//! Exit status: 0 clean, 1 findings, 2 when it could not look.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};

use crate::check;
use crate::finding::Report;
use crate::repair::RepairArgs;

/// Check a stopped Orlop store.
///
/// Reads superblock, journal and segments, replays the log, compares every live
/// blob with its digests, and the catalog with both. Changes nothing unless it
/// is asked to repair.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Exit status: 0 clean, 1 findings, 2 could not look."
)]
pub struct Args {
    /// The data folder
    #[arg(value_name = "DIR")]
    folder: PathBuf,

    /// How the report is printed
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    output: Output,

    #[command(flatten)]
    repair: RepairArgs,
}

/// How the report is printed.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Output {
    /// For people.
    Text,
    /// One JSON document.
    Json,
}

impl Args {
    /// Does what was asked and prints it.
    #[must_use]
    pub fn run(&self) -> ExitCode {
        run(self)
    }
}

fn run(args: &Args) -> ExitCode {
    if args.repair.repair {
        return args
            .repair
            .run(&args.folder, matches!(args.output, Output::Json));
    }
    let report = match check::store(&args.folder) {
        Ok(report) => report,
        Err(trouble) => {
            eprintln!("orlop-fsck: {trouble}");
            return ExitCode::from(2);
        }
    };
    let text = match args.output {
        Output::Text => report.to_string(),
        Output::Json => match serde_json::to_string_pretty(&report) {
            Ok(json) => json + "\n",
            Err(error) => {
                eprintln!("orlop-fsck: cannot print the report: {error}");
                return ExitCode::from(2);
            }
        },
    };
    if let Err(error) = std::io::stdout().write_all(text.as_bytes()) {
        eprintln!("orlop-fsck: cannot print the report: {error}");
        return ExitCode::from(2);
    }
    status(&report)
}

fn status(report: &Report) -> ExitCode {
    if report.clean() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(1)
    }
}
