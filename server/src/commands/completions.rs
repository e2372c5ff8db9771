//! `orlop completions`: a script that completes commands and flags in a shell.

use std::io::Write;
use std::process::ExitCode;

use clap_complete::Shell;

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
    match std::io::stdout().write_all(&script) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("orlop: cannot write the script: {error}");
            ExitCode::FAILURE
        }
    }
}
