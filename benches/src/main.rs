//! `orlop-bench`: Orlop beside its peers, in figures. docs/benchmarks.md says
//! what each one means.
//!
//! This file runs the command that `cli` reads. It measures nothing itself.

mod cli;
mod client;
mod contender;
mod copy;
mod document;
mod error;
mod gc;
mod herd;
mod http;
mod lists;
mod load;
mod loopback;
mod machine;
mod pages;
mod payload;
mod populate;
mod process;
mod push;
mod quick;
mod report;
mod rows;
mod server;
mod start;
mod stats;
mod stop;
mod table;
mod template;
mod workers;

use clap::Parser as _;
use cli::{Cli, Command, GcArgs, HerdArgs, ListsArgs, Output, QuickArgs, StartArgs};
use document::{Populations, QuickSettings};
use error::{Error, Result};
use populate::Population;
use server::Kind;
use std::process::ExitCode;

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Quick(args) => quick(args),
        Command::Start(args) => start(args),
        Command::Lists(args) => lists(args),
        Command::Herd(args) => herd(args),
        Command::Gc(args) => collect(args),
        Command::Loopback { listen } => loopback::run(listen).map(|()| true),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("orlop-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs `quick`; false when a server failed in a row.
fn quick(args: QuickArgs) -> Result<bool> {
    check_seconds(args.seconds)?;
    stop::watch()?;
    let folder = args.common.folder()?;
    let quick = quick::Quick {
        programs: args.common.programs()?,
        kinds: Kind::ALL
            .into_iter()
            .filter(|kind| args.only.is_empty() || args.only.contains(kind))
            .collect(),
        rows: args.rows,
        root: folder.path().to_owned(),
        settings: QuickSettings {
            rounds: usize::from(args.rounds),
            seconds: args.seconds,
            client_threads: usize::from(args.client_threads),
            limit: args
                .limit
                .map_or_else(|| usual_limit(args.populated), f64::from),
            max_disk: args.max_disk * 1_000_000_000,
            populated: args.populated.then_some(Populations {
                orlop: Population {
                    manifests: args.manifests,
                    tags: args.tags,
                },
                peers: Population {
                    manifests: args.peer_manifests,
                    tags: args.peer_manifests,
                },
            }),
        },
        print: args.common.output == Output::Table,
    };
    let report = quick.run()?;
    args.common.deliver(&report, &report.machine)?;
    let failed = |row: &report::RowReport| row.sides.iter().any(|side| side.error.is_some());
    Ok(!report.rows.iter().any(failed))
}

/// Planned length of `quick`, in seconds.
fn usual_limit(populated: bool) -> f64 {
    if populated { 900.0 } else { 280.0 }
}

fn start(args: StartArgs) -> Result<bool> {
    check_orlop(args.only)?;
    stop::watch()?;
    let folder = args.common.folder()?;
    let start = start::Start {
        programs: args.common.programs()?,
        kind: args.only,
        root: folder.path().to_owned(),
        blobs: args.blobs,
        size: args.blob_size,
        connections: usize::from(args.connections),
        restarts: usize::from(args.restarts),
    };
    let report = start.run()?;
    if args.common.output == Output::Table {
        print!("{}", table::start(&report));
    }
    args.common.deliver(&report, &report.machine)?;
    Ok(true)
}

/// Runs `lists`; false when a list could not be measured.
fn lists(args: ListsArgs) -> Result<bool> {
    check_orlop(args.only)?;
    check_seconds(args.seconds)?;
    stop::watch()?;
    let folder = args.common.folder()?;
    let lists = lists::Lists {
        programs: args.common.programs()?,
        kind: args.only,
        root: folder.path().to_owned(),
        entries: args.entries,
        repositories: args.repositories,
        seconds: args.seconds,
    };
    let report = lists.run()?;
    if args.common.output == Output::Table {
        print!("{}", table::lists(&report));
    }
    args.common.deliver(&report, &report.machine)?;
    Ok(report.failures.is_empty())
}

fn herd(args: HerdArgs) -> Result<bool> {
    check_orlop(args.only)?;
    check_seconds(args.seconds)?;
    stop::watch()?;
    let folder = args.common.folder()?;
    let herd = herd::Herd {
        programs: args.common.programs()?,
        kind: args.only,
        root: folder.path().to_owned(),
        clients: usize::from(args.clients),
        size: args.size << 20,
        rate: args.rate * 1000,
        seconds: args.seconds,
        cache: args.cache << 20,
    };
    let report = herd.run()?;
    if args.common.output == Output::Table {
        print!("{}", table::herd(&report));
    }
    args.common.deliver(&report, &report.machine)?;
    Ok(true)
}

/// Runs `gc`; false when a peer failed.
fn collect(args: GcArgs) -> Result<bool> {
    check_orlop(args.only)?;
    check_seconds(args.seconds)?;
    stop::watch()?;
    let folder = args.common.folder()?;
    let gc = gc::Gc {
        programs: args.common.programs()?,
        kind: args.only,
        root: folder.path().to_owned(),
        manifests: args.manifests,
        peer_manifests: args.peer_manifests,
        pairs: usize::from(args.pairs),
        limit: args.limit,
        seconds: args.seconds,
        max_disk: args.max_disk * 1_000_000_000,
        store: args.store,
    };
    let report = gc.run()?;
    if args.common.output == Output::Table {
        print!("{}", table::gc(&report));
    }
    args.common.deliver(&report, &report.machine)?;
    Ok(report.failed.is_empty())
}

fn check_seconds(seconds: f64) -> Result<()> {
    if (0.05..=3600.0).contains(&seconds) {
        return Ok(());
    }
    let message = "--seconds must lie between 0.05 and 3600";
    Err(Error::Usage(message.to_owned()))
}

fn check_orlop(kind: Kind) -> Result<()> {
    if kind.is_orlop() {
        return Ok(());
    }
    let message = "only orlop is measured here: --only uring or --only pool";
    Err(Error::Usage(message.to_owned()))
}
