//! What a person types, and what is printed for it.
//!
//! Exit status: 0 clean, 1 findings, 2 when it could not look.

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Parser, ValueEnum};

use crate::check;
use crate::options::{Content, Options, Position};
use crate::progress::Progress;
use crate::repair::RepairArgs;
use crate::report::Report;

/// Threads that are used without being asked for, at most.
const MAX_THREADS: usize = 8;

/// Check a stopped Orlop store.
///
/// Reads superblock, journal and segments, compares the index with the log and
/// every live blob with its digests, the catalog with both. Changes nothing
/// unless it is asked to repair: each finding says what to do.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Exit status: 0 clean, 1 findings, 2 could not look."
)]
pub struct Args {
    /// The data folder
    #[arg(value_name = "DIR")]
    folder: PathBuf,

    #[command(flatten)]
    flags: Flags,
}

/// How a check is done and shown.
#[derive(Debug, clap::Args)]
pub struct Flags {
    /// How the report is printed
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    output: Output,

    /// Which content is compared with its digests: all, none, or sample=PERCENT of the blobs
    #[arg(long, value_name = "WHICH", default_value = "all")]
    content: Content,

    /// Begin no more content after this time, such as 10m
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    budget: Option<Duration>,

    /// Pass over content before this position, which an earlier report gave
    #[arg(long, value_name = "POSITION")]
    from: Option<Position>,

    /// Draw the sample by this number; without it by a new one, which is printed
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,

    /// Folder for what does not fit into memory [default: TMPDIR, /var/tmp or /tmp]
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,

    /// Threads that read and hash; 0 for one that does it all [default: one for each processor, at most 8]
    #[arg(long, value_name = "COUNT")]
    threads: Option<usize>,

    /// Do not compare the index with the log
    #[arg(long)]
    no_index: bool,

    /// Do not compare the catalog with the store
    #[arg(long, conflicts_with = "repair")]
    no_catalog: bool,

    /// Show how far it is, also where standard error is no terminal
    #[arg(long, conflicts_with = "quiet")]
    progress: bool,

    /// Do not show how far it is
    #[arg(long)]
    quiet: bool,

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
        self.flags.run(&self.folder, "orlop-fsck")
    }
}

impl Flags {
    /// Checks a folder and prints the report; errors begin with the program's
    /// name.
    #[must_use]
    pub fn run(&self, folder: &Path, program: &str) -> ExitCode {
        let fail = |error: &dyn std::fmt::Display| {
            // Nobody has to listen.
            let _ = writeln!(std::io::stderr(), "{program}: {error}");
            ExitCode::from(2)
        };
        if self.repair.wanted() {
            let json = matches!(self.output, Output::Json);
            return match self.repair.run(folder, self.options(), json) {
                Ok(true) => ExitCode::SUCCESS,
                Ok(false) => ExitCode::from(1),
                Err(trouble) => fail(&trouble),
            };
        }
        let report = match check::with(folder, &self.options()) {
            Ok(report) => report,
            Err(trouble) => return fail(&trouble),
        };
        let text = match self.output {
            Output::Text => report.to_string(),
            Output::Json => match serde_json::to_string_pretty(&report) {
                Ok(json) => json + "\n",
                Err(error) => return fail(&format_args!("cannot print the report: {error}")),
            },
        };
        if let Err(error) = std::io::stdout().write_all(text.as_bytes()) {
            return fail(&format_args!("cannot print the report: {error}"));
        }
        status(&report)
    }

    fn options(&self) -> Options {
        let shown = self.progress || (!self.quiet && std::io::stderr().is_terminal());
        let progress = if shown {
            Progress::shown()
        } else {
            Progress::default()
        };
        Options {
            content: self.content,
            seed: self.seed.unwrap_or_else(draw),
            from: self.from,
            budget: self.budget,
            scratch: self.scratch.clone(),
            threads: self.threads.unwrap_or_else(threads),
            index: !self.no_index,
            catalog: !self.no_catalog,
            progress: Arc::new(progress),
        }
    }
}

/// A number to draw a sample by that is another one each time.
fn draw() -> u64 {
    let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    time.map_or(0, |time| time.as_micros() as u64 % 1_000_000_000)
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, |count| count.get().min(MAX_THREADS))
}

fn status(report: &Report) -> ExitCode {
    if report.clean() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(1)
    }
}
