//! `orlop completions`: a script that completes commands and flags in a shell.

use std::process::ExitCode;

use clap_complete::Shell;

use super::print;

/// Flags of `orlop completions`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// For which shell
    shell: Shell,
}

/// Prints the script for a command line.
pub fn run(args: &Args, mut command: clap::Command) -> ExitCode {
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, name, &mut script);
    print(&String::from_utf8_lossy(&script), ExitCode::SUCCESS)
}
