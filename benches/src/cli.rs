//! The command line, the folder of a run, and where results go.

use crate::error::{Context as _, Result};
use crate::machine::Machine;
use crate::server::{Kind, Programs};
use clap::{Args, Parser, Subcommand, ValueEnum};
use serde::Serialize;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Benchmarks of Orlop.
#[derive(Debug, Parser)]
#[command(name = "orlop-bench", version)]
pub(crate) struct Cli {
    /// What is to be measured.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Orlop (ring and pool) beside docker-registry and bare loopback.
    Quick(QuickArgs),
    /// Start time of a store full of small blobs.
    Start(StartArgs),
    /// Pages of long lists: tags, referrers, repositories.
    Lists(ListsArgs),
    /// Memory under many slow pulls of one large blob.
    Herd(HerdArgs),
    /// Collection of garbage: its time, and what it costs pulls and pushes.
    Gc(GcArgs),
    /// The server without storage that the others are compared with.
    #[command(hide = true)]
    Loopback {
        /// Address to listen on.
        #[arg(long)]
        listen: SocketAddr,
    },
}

/// Options of all commands.
#[derive(Debug, Args)]
pub(crate) struct Common {
    /// Folder below which the run's data is put and deleted (default: beside
    /// this program).
    #[arg(long)]
    pub(crate) dir: Option<PathBuf>,
    /// The program `orlop` (default: beside this program).
    #[arg(long)]
    pub(crate) orlop: Option<PathBuf>,
    /// The program `docker-registry` (default: found on PATH).
    #[arg(long)]
    pub(crate) registry: Option<PathBuf>,
    /// The program `registry` of distribution 3 (default: found on PATH).
    #[arg(long)]
    pub(crate) registry3: Option<PathBuf>,
    /// How results are printed.
    #[arg(long, value_enum, default_value = "table")]
    pub(crate) output: Output,
    /// Also write the document to RUNS/DATE-CPU-NAME.json.
    #[arg(long, value_name = "NAME")]
    pub(crate) save: Option<String>,
    /// Folder of stored runs.
    #[arg(long, value_name = "RUNS", default_value = "benches/runs")]
    pub(crate) runs: PathBuf,
}

/// Options of `quick`.
#[derive(Debug, Args)]
pub(crate) struct QuickArgs {
    /// What all commands have.
    #[command(flatten)]
    pub(crate) common: Common,
    /// Only these servers (default: all).
    #[arg(long, value_enum, value_delimiter = ',')]
    pub(crate) only: Vec<Kind>,
    /// Only rows whose name contains one of these, e.g. `push` or `1 MiB`.
    #[arg(long, value_delimiter = ',')]
    pub(crate) rows: Vec<String>,
    /// Rounds per row and server.
    #[arg(long, default_value = "3", value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) rounds: u16,
    /// Length of a round, in seconds.
    #[arg(long, default_value = "2")]
    pub(crate) seconds: f64,
    /// Client threads.
    #[arg(long, default_value = "1", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) client_threads: u16,
    /// Planned length of the whole run, in seconds; rounds get shorter when
    /// it would not suffice (default: 280, with --populated 900).
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) limit: Option<u32>,
    /// Most that all servers together may store in a row, in GB.
    #[arg(long, default_value = "30", value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub(crate) max_disk: u64,
    /// Run each server twice, side by side: with an empty repository and with
    /// a full one.
    #[arg(long)]
    pub(crate) populated: bool,
    /// Manifests in the full repository.
    #[arg(long, default_value = "10000", requires = "populated",
          value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub(crate) manifests: u64,
    /// Tags in the full repository.
    #[arg(long, default_value = "100000", requires = "populated",
          value_parser = clap::value_parser!(u64).range(0..=10_000_000))]
    pub(crate) tags: u64,
    /// Manifests in the full repository of a peer, each with one tag.
    #[arg(long, default_value = "1500", requires = "populated",
          value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub(crate) peer_manifests: u64,
}

/// Options of `start`.
#[derive(Debug, Args)]
pub(crate) struct StartArgs {
    /// What all commands have.
    #[command(flatten)]
    pub(crate) common: Common,
    /// Which server.
    #[arg(long, value_enum, default_value = "uring")]
    pub(crate) only: Kind,
    /// Blobs to push.
    #[arg(long, default_value = "1000000")]
    pub(crate) blobs: u64,
    /// Size of each blob, in bytes.
    #[arg(long, default_value = "64", value_parser = clap::value_parser!(u64).range(32..=1_048_576))]
    pub(crate) blob_size: u64,
    /// Connections that push.
    #[arg(long, default_value = "256", value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub(crate) connections: u16,
    /// Starts after a clean stop, and as many after a kill.
    #[arg(long, default_value = "3", value_parser = clap::value_parser!(u16).range(1..=100))]
    pub(crate) restarts: u16,
}

/// Options of `lists`.
#[derive(Debug, Args)]
pub(crate) struct ListsArgs {
    /// What all commands have.
    #[command(flatten)]
    pub(crate) common: Common,
    /// Which server.
    #[arg(long, value_enum, default_value = "uring")]
    pub(crate) only: Kind,
    /// Tags of one repository, and referrers of one manifest.
    #[arg(long, default_value = "100000", value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub(crate) entries: u64,
    /// Repositories in the catalog.
    #[arg(long, default_value = "10000", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub(crate) repositories: u64,
    /// Length of each measurement, in seconds.
    #[arg(long, default_value = "3")]
    pub(crate) seconds: f64,
}

/// Options of `herd`.
#[derive(Debug, Args)]
pub(crate) struct HerdArgs {
    /// What all commands have.
    #[command(flatten)]
    pub(crate) common: Common,
    /// Which server.
    #[arg(long, value_enum, default_value = "uring")]
    pub(crate) only: Kind,
    /// Clients at once.
    #[arg(long, default_value = "500", value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) clients: u16,
    /// Size of the blob, in MiB.
    #[arg(long, default_value = "1024", value_parser = clap::value_parser!(u64).range(1..=16_384))]
    pub(crate) size: u64,
    /// What each client takes, in kB per second.
    #[arg(long, default_value = "2000", value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub(crate) rate: u64,
    /// How long each crowd pulls, in seconds.
    #[arg(long, default_value = "10")]
    pub(crate) seconds: f64,
    /// Limit of the server's cache, in MiB.
    #[arg(long, default_value = "256", value_parser = clap::value_parser!(u64).range(8..=1_048_576))]
    pub(crate) cache: u64,
}

/// Options of `gc`.
#[derive(Debug, Args)]
pub(crate) struct GcArgs {
    /// What all commands have.
    #[command(flatten)]
    pub(crate) common: Common,
    /// Which server.
    #[arg(long, value_enum, default_value = "uring")]
    pub(crate) only: Kind,
    /// Images to push, of which every other one is deleted.
    #[arg(long, default_value = "10000", value_parser = clap::value_parser!(u64).range(2..=10_000_000))]
    pub(crate) manifests: u64,
    /// Images that are pushed to each peer for its own collector; 0 leaves
    /// the peers out.
    #[arg(long, default_value = "1000", value_parser = clap::value_parser!(u64).range(0..=1_000_000))]
    pub(crate) peer_manifests: u64,
    /// Collections beside load, and as many without; each pair waits for a
    /// lease of a minute.
    #[arg(long, default_value = "1", value_parser = clap::value_parser!(u16).range(1..=100))]
    pub(crate) pairs: u16,
    /// Time after which a collection leaves the rest, in seconds. One that is cut
    /// says less: the garbage is not looked for that it should have ended.
    #[arg(long, value_parser = clap::value_parser!(u64).range(60..=86_400))]
    pub(crate) limit: Option<u64>,
    /// Length of the load before a collection, in seconds.
    #[arg(long, default_value = "10")]
    pub(crate) seconds: f64,
    /// Most that the pushes of one pair may store, in GB.
    #[arg(long, default_value = "30", value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub(crate) max_disk: u64,
    /// Folder of a filled store that another run kept. Where there is none,
    /// this one fills it there and keeps it.
    #[arg(long)]
    pub(crate) store: Option<PathBuf>,
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// Text for people.
    Table,
    /// One JSON document.
    Json,
}

impl Common {
    /// A new folder that is deleted when the value is dropped.
    pub(crate) fn folder(&self) -> Result<TempDir> {
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

    /// Where the programs are, whether there or not.
    pub(crate) fn programs(&self) -> Result<Programs> {
        Ok(Programs {
            orlop: match &self.orlop {
                Some(path) => path.clone(),
                None => beside_own("orlop")?,
            },
            registry: self
                .registry
                .clone()
                .unwrap_or_else(|| on_path("docker-registry")),
            registry3: self
                .registry3
                .clone()
                .unwrap_or_else(|| on_path("registry")),
            own: std::env::current_exe().context(|| "find this program".to_owned())?,
        })
    }

    /// Prints and stores the document as asked.
    pub(crate) fn deliver(&self, document: &impl Serialize, machine: &Machine) -> Result<()> {
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
        assert!(parse("b quick --tags 5").is_err());
        assert!(parse("b quick --populated --tags 5").is_ok());
        assert!(parse("b lists --entries 0").is_err());
        assert!(parse("b herd --clients 1001").is_err());
        assert!(parse("b start --blob-size 8").is_err());
    }
}
