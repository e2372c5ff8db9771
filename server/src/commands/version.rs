//! `orlop version`: what this is.

use std::process::ExitCode;

use serde_json::json;

use super::{Output, print};

/// Flags of `orlop version`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// How to report
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    output: Output,
}

/// Version of this release.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Prints it.
pub fn run(args: &Args) -> ExitCode {
    let report = match args.output {
        Output::Text => format!("orlop {VERSION}\n"),
        Output::Json => format!("{}\n", json!({ "name": "orlop", "version": VERSION })),
    };
    print(&report, ExitCode::SUCCESS)
}
