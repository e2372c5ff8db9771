//! `orlop-fsck`: says whether a stopped store is what the format says.
//!
//! Reads the data folder with `orlop-format` and plain files, never with the
//! engine, and changes nothing. Exit status: 0 clean, 1 findings, 2 when it
//! could not look.
//!
//! Reading order: `check` puts the questions in order; `superblock`, `journal`
//! and `segment` ask them of files; `replay` makes the state the log stands
//! for; `content` reads every live blob; `finding` is what comes out.

mod check;
mod content;
mod file;
mod finding;
mod journal;
mod lock;
mod replay;
mod segment;
mod superblock;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use finding::Report;

/// Check a stopped Orlop store.
///
/// Reads superblock, journal and segments, replays the log in memory and
/// compares every live blob with its digests. Repairs nothing yet: each finding
/// says what to do.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Exit status: 0 clean, 1 findings, 2 could not look."
)]
struct Args {
    /// The data folder
    #[arg(value_name = "DIR")]
    folder: PathBuf,

    /// How the report is printed
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    output: Output,
}

/// How the report is printed.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Output {
    /// For people.
    Text,
    /// One JSON document.
    Json,
}

fn main() -> ExitCode {
    let args = Args::parse();
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
