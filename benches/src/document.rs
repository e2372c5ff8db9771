//! The documents that `--output json` prints and `--save` stores. A change
//! that readers of stored runs would notice raises [`SCHEMA`].

use crate::machine::Machine;
use crate::populate::Population;
use crate::process::Memory;
use crate::report::RowReport;
use crate::server::Kind;
use serde::Serialize;

/// Layout version of the JSON documents.
pub(crate) const SCHEMA: u32 = 2;

/// A server that was left out of a run.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Skipped {
    /// Which server.
    pub(crate) server: Kind,
    /// Why.
    pub(crate) reason: String,
}

/// A server without requests, shortly after its start on an empty folder.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Idle {
    /// Which server.
    pub(crate) server: Kind,
    /// Its memory.
    pub(crate) memory: Memory,
    /// From process start to ready, in seconds.
    pub(crate) start_seconds: f64,
}

/// Versions of what was measured, as the programs tell them.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Versions {
    /// Of this program.
    pub(crate) bench: &'static str,
    /// Of `orlop`.
    pub(crate) orlop: Option<String>,
    /// Of `docker-registry`.
    pub(crate) registry: Option<String>,
    /// Of distribution 3.
    pub(crate) registry3: Option<String>,
}

/// A server whose repository was filled before the rows.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Filled {
    /// The server that filled it; others of the same format got copies.
    pub(crate) server: Kind,
    /// With what.
    #[serde(flatten)]
    pub(crate) population: Population,
    /// Blobs that the manifests name.
    pub(crate) blobs: u64,
    /// How long that took.
    pub(crate) seconds: f64,
}

/// How full repositories are made.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Populations {
    /// Orlop's.
    pub(crate) orlop: Population,
    /// That of the peers, which would take too long to fill.
    pub(crate) peers: Population,
}

impl Populations {
    /// What `kind` is filled with.
    pub(crate) fn of(self, kind: Kind) -> Population {
        if kind.is_orlop() {
            self.orlop
        } else {
            self.peers
        }
    }
}

/// How `quick` was run.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct QuickSettings {
    /// Rounds per row and server.
    pub(crate) rounds: usize,
    /// Planned length of a round, in seconds.
    pub(crate) seconds: f64,
    /// Client threads.
    pub(crate) client_threads: usize,
    /// Planned length of the whole run, in seconds.
    pub(crate) limit: f64,
    /// Most that all servers together may store in a row, in bytes.
    pub(crate) max_disk: u64,
    /// Whether full repositories run beside empty ones.
    pub(crate) populated: Option<Populations>,
}

/// The document of `quick`.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct QuickReport {
    /// Layout version.
    pub(crate) schema: u32,
    /// Always `quick`.
    pub(crate) kind: &'static str,
    /// Where it ran.
    pub(crate) machine: Machine,
    /// What it ran.
    pub(crate) versions: Versions,
    /// How it ran.
    pub(crate) settings: QuickSettings,
    /// What a reader has to know to judge the figures.
    pub(crate) notes: Vec<String>,
    /// Servers left out.
    pub(crate) skipped: Vec<Skipped>,
    /// Memory without requests.
    pub(crate) idle: Vec<Idle>,
    /// Repositories that were filled.
    pub(crate) filled: Vec<Filled>,
    /// The rows.
    pub(crate) rows: Vec<RowReport>,
    /// Length of the whole run, in seconds.
    pub(crate) seconds: f64,
}

/// The document of `start`.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct StartReport {
    /// Layout version.
    pub(crate) schema: u32,
    /// Always `start`.
    pub(crate) kind: &'static str,
    /// Where it ran.
    pub(crate) machine: Machine,
    /// What it ran.
    pub(crate) versions: Versions,
    /// Which server.
    pub(crate) server: Kind,
    /// Blobs in the store.
    pub(crate) blobs: u64,
    /// Size of each, in bytes.
    pub(crate) blob_bytes: u64,
    /// Time the pushes took, in seconds.
    pub(crate) fill_seconds: f64,
    /// Start times after a clean stop, in seconds.
    pub(crate) after_stop: Vec<f64>,
    /// Start times after a kill with pushes since the last start, in seconds.
    pub(crate) after_kill: Vec<f64>,
    /// Median of `after_stop`.
    pub(crate) after_stop_median: Option<f64>,
    /// Median of `after_kill`.
    pub(crate) after_kill_median: Option<f64>,
    /// Blobs read back and compared after the starts.
    pub(crate) verified: usize,
    /// Memory of the server after its last start.
    pub(crate) memory: Memory,
    /// Time of a cleanly stopped start that is asked for, in seconds.
    pub(crate) target_seconds: f64,
}

/// One kind of page, asked for again and again.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct PageFigures {
    /// Which pages.
    pub(crate) name: String,
    /// Connections that ask.
    pub(crate) connections: usize,
    /// Different pages asked for, in turns.
    pub(crate) pages: usize,
    /// Entries of the first of them.
    pub(crate) entries: usize,
    /// Bytes of the first of them.
    pub(crate) bytes: u64,
    /// Requests finished.
    pub(crate) requests: u64,
    /// Requests per second.
    pub(crate) rate: f64,
    /// Median latency in milliseconds.
    pub(crate) p50_ms: f64,
    /// 99th percentile of latency in milliseconds.
    pub(crate) p99_ms: f64,
    /// Greatest latency in milliseconds.
    pub(crate) max_ms: f64,
    /// Server CPU seconds per 1,000 requests.
    pub(crate) cpu_per_thousand: f64,
}

/// A list that could not be measured.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct ListFailure {
    /// Which list.
    pub(crate) list: &'static str,
    /// Why.
    pub(crate) reason: String,
}

/// The document of `lists`.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct ListsReport {
    /// Layout version.
    pub(crate) schema: u32,
    /// Always `lists`.
    pub(crate) kind: &'static str,
    /// Where it ran.
    pub(crate) machine: Machine,
    /// What it ran.
    pub(crate) versions: Versions,
    /// Which server.
    pub(crate) server: Kind,
    /// Tags of one repository, and referrers of one manifest.
    pub(crate) entries: u64,
    /// Repositories in the catalog, beside those of the other lists.
    pub(crate) repositories: u64,
    /// Length of each measurement, in seconds.
    pub(crate) seconds: f64,
    /// Time the pushes took, in seconds.
    pub(crate) fill_seconds: f64,
    /// The figures.
    pub(crate) pages: Vec<PageFigures>,
    /// Lists without figures.
    pub(crate) failures: Vec<ListFailure>,
    /// Greatest resident memory while pages were asked for, in bytes.
    pub(crate) peak_memory: u64,
    /// 99th percentile that is asked for, in milliseconds.
    pub(crate) target_ms: f64,
}

/// One crowd of throttled clients.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Crowd {
    /// Where in the blob its clients start.
    pub(crate) start: &'static str,
    /// Resident memory of the fresh server, in bytes.
    pub(crate) before: u64,
    /// Greatest resident memory during the pulls, in bytes.
    pub(crate) peak: u64,
    /// The greatest part of it that is not file pages, of what was seen every
    /// tenth of a second.
    pub(crate) peak_own: u64,
    /// `peak` less the cache's limit.
    pub(crate) above_cache: i64,
    /// Bytes that all clients took.
    pub(crate) bytes: u64,
    /// Bytes of the client that got least.
    pub(crate) least: u64,
    /// Bytes of the client that got most.
    pub(crate) most: u64,
    /// From the first request to the end.
    pub(crate) seconds: f64,
    /// CPU time of the server, in seconds.
    pub(crate) server_cpu_seconds: f64,
}

/// The document of `herd`.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct HerdReport {
    /// Layout version.
    pub(crate) schema: u32,
    /// Always `herd`.
    pub(crate) kind: &'static str,
    /// Where it ran.
    pub(crate) machine: Machine,
    /// What it ran.
    pub(crate) versions: Versions,
    /// Which server.
    pub(crate) server: Kind,
    /// Clients at once.
    pub(crate) clients: usize,
    /// Bytes per second of each.
    pub(crate) rate: u64,
    /// Size of the blob, in bytes.
    pub(crate) blob_bytes: u64,
    /// Limit of the server's cache, in bytes.
    pub(crate) cache: u64,
    /// The crowds.
    pub(crate) crowds: Vec<Crowd>,
    /// Most memory above the cache that is asked for, in bytes.
    pub(crate) target: u64,
}
