//! The program `orlop`: reads the command line and runs one command.

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use orlop::commands::{
    catalog, completions, config, delete, doctor, fsck, gc, jobs, maintenance, purge, serve,
    version,
};

/// Gives memory back that a peak took, also what RocksDB allocates.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// A container registry on its own storage engine.
#[derive(Parser)]
#[command(name = "orlop", version, about)]
struct Line {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve the registry
    Serve(Box<serve::Args>),
    /// Check whether this machine and data folder can keep the promises
    Doctor(doctor::Args),
    /// Check or show the settings
    Config(config::Args),
    /// Work on the catalog of a stopped store
    Catalog(catalog::Args),
    /// Check a stopped store, as the program orlop-fsck does
    Fsck(fsck::Args),
    /// Collect garbage now, say what would go, show what was done
    Gc(gc::Args),
    /// Delete a repository
    Delete(delete::Args),
    /// Bring a deleted tag, manifest or repository back
    Undelete(delete::UndeleteArgs),
    /// Take a manifest or blob away for good, now: a leaked secret, a legal demand
    Purge(purge::Args),
    /// Ask about a blob
    Blob(gc::BlobArgs),
    /// Print a script that completes commands and flags in a shell
    Completions(completions::Args),
    /// List, show and end the jobs of a server
    Jobs(jobs::Args),
    /// Switch a server into maintenance and out of it
    Maintenance(maintenance::Args),
    /// Look for damage in what a server has stored
    Scrub(jobs::ScrubArgs),
    /// Print the version
    Version(version::Args),
}

fn main() -> ExitCode {
    match Line::parse().command {
        Command::Serve(args) => serve::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Config(args) => config::run(&args),
        Command::Catalog(args) => catalog::run(&args),
        Command::Fsck(args) => fsck::run(&args),
        Command::Gc(args) => gc::run(&args),
        Command::Delete(args) => delete::run(&args),
        Command::Undelete(args) => delete::run_undelete(&args),
        Command::Purge(args) => purge::run(&args),
        Command::Blob(args) => gc::run_blob(&args),
        Command::Completions(args) => completions::run(&args, Line::command()),
        Command::Jobs(args) => jobs::run(&args),
        Command::Maintenance(args) => maintenance::run(&args),
        Command::Scrub(args) => jobs::run_scrub(&args),
        Command::Version(args) => version::run(&args),
    }
}
