//! The commands of `orlop`, one file each.

mod asking;
pub mod catalog;
pub mod completions;
pub mod config;
pub mod delete;
pub mod doctor;
pub mod fsck;
pub mod gc;
pub mod jobs;
pub mod maintenance;
pub mod purge;
pub mod serve;
mod service;
pub mod version;

use std::fmt::Display;
use std::io::{ErrorKind, Write};
use std::process::ExitCode;

use clap::ValueEnum;

/// How a command reports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    #[default]
    Text,
    /// One JSON document.
    Json,
}

/// Says why a command failed, and ends it. Nobody has to listen.
pub(crate) fn fail(error: &impl Display) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "orlop: {error}");
    ExitCode::FAILURE
}

/// Prints what a command found and ends it with this code. A reader that has
/// gone is no failure.
pub(crate) fn print(text: &str, code: ExitCode) -> ExitCode {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            fail(&format_args!("cannot write to standard output: {error}"))
        }
        _ => code,
    }
}
