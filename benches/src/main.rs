//! `orlop-bench`: Orlop beside its peers, in figures. docs/benchmarks.md says
//! what each one means.
//!
//! This file owns the command line, the folder of a run and where results
//! go. It measures nothing itself.

mod client;
mod contender;
mod document;
mod error;
mod http;
mod load;
mod loopback;
mod machine;
mod payload;
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

use clap::{Args, Parser, Subcommand, ValueEnum};
use document::QuickSettings;
use error::{Context as _, Error, Result};
use machine::Machine;

use serde::Serialize;
use server::{Kind, Programs};
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tempfile::TempDir;

/// Benchmarks of Orlop.
#[derive(Debug, Parser)]
#[command(name = "orlop-bench", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Orlop (ring and pool) beside docker-registry and bare loopback.
    Quick(QuickArgs),
    /// Start time of a store full of small blobs.
    Start(StartArgs),
    /// The server without storage that the others are compared with.
    #[command(hide = true)]
    Loopback {
        /// Address to listen on.
        #[arg(long)]
        listen: SocketAddr,
    },
}

#[derive(Debug, Args)]
struct Common {
    /// Folder below which the run's data is put and deleted (default: beside
    /// this program).
    #[arg(long)]
    dir: Option<PathBuf>,
    /// The program `orlop` (default: beside this program).
    #[arg(long)]
    orlop: Option<PathBuf>,
    /// The program `docker-registry` (default: found on PATH).
    #[arg(long)]
    registry: Option<PathBuf>,
    /// How results are printed.
    #[arg(long, value_enum, default_value = "table")]
    output: Output,
    /// Also write the document to RUNS/DATE-CPU-NAME.json.
    #[arg(long, value_name = "NAME")]
    save: Option<String>,
    /// Folder of stored runs.
    #[arg(long, value_name = "RUNS", default_value = "benches/runs")]
    runs: PathBuf,
}

#[derive(Debug, Args)]
struct QuickArgs {
    #[command(flatten)]
    common: Common,
    /// Only these servers (default: all).
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Kind>,
    /// Only rows whose name contains one of these, e.g. `push` or `1 MiB`.
    #[arg(long, value_delimiter = ',')]
    rows: Vec<String>,
    /// Rounds per row and server.
    #[arg(long, default_value = "3", value_parser = clap::value_parser!(u16).range(1..=1000))]
    rounds: u16,
    /// Length of a round, in seconds.
    #[arg(long, default_value = "2")]
    seconds: f64,
    /// Client threads.
    #[arg(long, default_value = "1", value_parser = clap::value_parser!(u16).range(1..=256))]
    client_threads: u16,
    /// Planned length of the whole run, in seconds; rounds get shorter when
    /// it would not suffice.
    #[arg(long, default_value = "280", value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// Most that all servers together may store in a row, in GB.
    #[arg(long, default_value = "30", value_parser = clap::value_parser!(u64).range(1..=100_000))]
    max_disk: u64,
}

#[derive(Debug, Args)]
struct StartArgs {
    #[command(flatten)]
    common: Common,
    /// Which server.
    #[arg(long, value_enum, default_value = "uring")]
    only: Kind,
    /// Blobs to push.
    #[arg(long, default_value = "1000000")]
    blobs: u64,
    /// Size of each blob, in bytes.
    #[arg(long, default_value = "64", value_parser = clap::value_parser!(u64).range(32..=1_048_576))]
    blob_size: u64,
    /// Connections that push.
    #[arg(long, default_value = "256", value_parser = clap::value_parser!(u16).range(1..=4096))]
    connections: u16,
    /// Starts after a clean stop, and as many after a kill.
    #[arg(long, default_value = "3", value_parser = clap::value_parser!(u16).range(1..=100))]
    restarts: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// Text for people.
    Table,
    /// One JSON document.
    Json,
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Quick(args) => quick(args),
        Command::Start(args) => start(args),
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
    if !(0.05..=3600.0).contains(&args.seconds) {
        return Err(Error::Usage(
            "--seconds must lie between 0.05 and 3600".to_owned(),
        ));
    }
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
            limit: f64::from(args.limit),
            max_disk: args.max_disk * 1_000_000_000,
        },
        print: args.common.output == Output::Table,
    };
    let report = quick.run()?;
    args.common.deliver(&report, &report.machine)?;
    let failed = |row: &report::RowReport| row.sides.iter().any(|side| side.error.is_some());
    Ok(!report.rows.iter().any(failed))
}

fn start(args: StartArgs) -> Result<bool> {
    if !args.only.is_orlop() {
        return Err(Error::Usage(
            "`start` measures orlop: --only uring or --only pool".to_owned(),
        ));
    }
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

impl Common {
    /// A new folder that is deleted when the value is dropped.
    fn folder(&self) -> Result<TempDir> {
        let parent = match &self.dir {
            Some(dir) => dir.clone(),
            None => beside_own("")?,
        };
        fs::create_dir_all(&parent).context(|| format!("create {}", parent.display()))?;
        tempfile::Builder::new()
            .prefix("orlop-bench-")
            .tempdir_in(&parent)
            .context(|| format!("create a folder in {}", parent.display()))
    }

    fn programs(&self) -> Result<Programs> {
        Ok(Programs {
            orlop: match &self.orlop {
                Some(path) => path.clone(),
                None => beside_own("orlop")?,
            },
            registry: self
                .registry
                .clone()
                .unwrap_or_else(|| on_path("docker-registry")),
            own: std::env::current_exe().context(|| "find this program".to_owned())?,
        })
    }

    /// Prints and stores the document as asked.
    fn deliver(&self, document: &impl Serialize, machine: &Machine) -> Result<()> {
        let text = serde_json::to_string_pretty(document)
            .map_err(std::io::Error::from)
            .context(|| "write the results as JSON".to_owned())?;
        if self.output == Output::Json {
            println!("{text}");
        }
        if let Some(name) = &self.save {
            let path = self.runs.join(machine.run_name(name));
            fs::create_dir_all(&self.runs).context(|| format!("create {}", self.runs.display()))?;
            fs::write(&path, text + "\n").context(|| format!("write {}", path.display()))?;
            eprintln!("orlop-bench: saved {}", path.display());
        }
        Ok(())
    }
}

/// `name` in the folder of this program.
fn beside_own(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe().context(|| "find this program".to_owned())?;
    Ok(own.parent().unwrap_or(Path::new(".")).join(name))
}

/// The first `name` on PATH, or the bare name where there is none.
fn on_path(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|candidate| candidate.is_file())
        .unwrap_or_else(|| PathBuf::from(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
        let parse = |line: &str| Cli::try_parse_from(line.split(' '));
        let Command::Quick(quick) = parse("b quick --only registry,loopback --rows push")
            .unwrap()
            .command
        else {
            panic!("not quick");
        };
        assert_eq!(quick.only, [Kind::Registry, Kind::Loopback]);
        assert_eq!(quick.rows, ["push"]);
        assert!(parse("b quick --rounds 0").is_err());
        assert!(parse("b start --blob-size 8").is_err());
    }
}
