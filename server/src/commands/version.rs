//! `orlop version`: what this is.

use std::process::ExitCode;

use serde_json::json;

use super::Output;

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
    match args.output {
        Output::Text => println!("orlop {VERSION}"),
        Output::Json => println!("{}", json!({ "name": "orlop", "version": VERSION })),
    }
    ExitCode::SUCCESS
}
