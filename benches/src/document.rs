//! The documents that `--output json` prints and `--save` stores. A change
//! that readers of stored runs would notice raises [`SCHEMA`].

use crate::machine::Machine;
use crate::process::Memory;
use crate::report::RowReport;
use crate::server::Kind;
use serde::Serialize;

/// Layout version of the JSON documents.
pub(crate) const SCHEMA: u32 = 1;

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
