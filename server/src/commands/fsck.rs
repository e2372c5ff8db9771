//! `orlop fsck`: the program `orlop-fsck` under another name, on the folder
//! that the other commands take.
//!
//! The only place of the server that knows the checker: a check that shared
//! code with what it checks would share its mistakes.

use std::process::ExitCode;

use super::fail;
use crate::settings::{self, DataArgs};

/// Flags of `orlop fsck`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Exit status: 0 clean, 1 findings, 2 could not look.")]
pub struct Args {
    #[command(flatten)]
    data: DataArgs,

    #[command(flatten)]
    flags: orlop_fsck::Flags,
}

/// Checks the store and prints the report.
pub fn run(args: &Args) -> ExitCode {
    match settings::data_folder(&args.data) {
        Ok(folder) => args.flags.run(&folder, "orlop fsck"),
        Err(error) => {
            fail(&error);
            ExitCode::from(2)
        }
    }
}
