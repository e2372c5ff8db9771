//! `orlop-fsck`: says whether a stopped store is what the format says.

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    orlop_fsck::Args::parse().run()
}
