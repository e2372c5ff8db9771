//! What a collection is asked for, and what it says of itself. Data only.

use std::time::Duration;

use orlop_engine::Collected;
use serde::{Deserialize, Serialize};

use super::Untagged;
use crate::catalog::{Departed, Reason};

/// What goes when.
#[derive(Clone, Debug)]
pub struct Rules {
    /// What was deleted can be brought back for this long.
    pub undelete_window: Duration,
    /// What nothing reaches and nobody used for so long is deleted.
    pub untagged: Untagged,
    /// A job ends after this long, with what it has done; None: when it is done.
    pub limit: Option<Duration>,
}

/// What one job is asked for beside the rules.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Wanted {
    /// Only say what would go.
    pub plan: bool,
    /// Another undelete window, in milliseconds.
    pub undelete_window: Option<u64>,
    /// Without the bound on what nothing explains.
    pub unlimited: bool,
    /// Although something holds collection up, which this ends.
    pub release: bool,
}

/// What came of a job.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Outcome {
    /// Nothing had changed since a job that left no garbage.
    #[serde(skip_serializing_if = "is_false")]
    pub idle: bool,
    /// It found collection paused, and did nothing.
    #[serde(skip_serializing_if = "is_false")]
    pub paused: bool,
    /// Whether it was a plan: then what follows would go, and did not.
    #[serde(skip_serializing_if = "is_false")]
    pub plan: bool,
    /// Repositories, manifests, tags and deleted blobs whose rows were purged.
    pub purged: [u64; 4],
    /// Manifests that were deleted since nothing reached them.
    pub retired: u64,
    /// Full cycles.
    pub cycles: u32,
    /// Blobs before the last cycle.
    pub blobs: u64,
    /// Those that are named.
    pub live: u64,
    /// Those that are named and not here.
    pub absent: u64,
    /// Those that nothing names, and that are kept for now: leased or in use.
    pub held: u64,
    /// Those that die in the next cycle unless somebody uses them.
    pub condemned: u64,
    /// Their bytes.
    pub condemned_bytes: u64,
    /// Those that died.
    pub dead: u64,
    /// Their bytes.
    pub dead_bytes: u64,
    /// Those that died although leases would have kept them, since somebody purged
    /// them.
    #[serde(skip_serializing_if = "is_zero")]
    pub at_once: u64,
    /// Those that somebody purged and that are here, since they are in use.
    #[serde(skip_serializing_if = "is_zero")]
    pub at_once_left: u64,
    /// Those that nothing explains and the bound kept.
    pub bounded: u64,
    /// Blobs and manifests that were passed over, since reading or ending them
    /// failed, each as often as that was. They live until it is tried again.
    #[serde(skip_serializing_if = "is_zero")]
    pub skipped: u64,
    /// Bytes that went back to the file system.
    pub freed: u64,
    /// Segments that were removed.
    pub freed_segments: u64,
    /// Whether the time was up before all was done.
    #[serde(skip_serializing_if = "is_false")]
    pub cut: bool,
    /// How long purges and deletes took, in milliseconds.
    pub purge_ms: u64,
    /// How long each cycle marked.
    pub mark_ms: Vec<u64>,
    /// How long each cycle swept.
    pub sweep_ms: Vec<u64>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_false(value: &bool) -> bool {
    !value
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_zero(value: &u64) -> bool {
    *value == 0
}

/// What keeps a blob.
#[derive(Clone, Debug)]
pub struct Why {
    /// Bytes; None: it is not here.
    pub size: Option<u64>,
    /// Whether somebody was told of it lately, or it is in use.
    pub held: bool,
    /// Rows that keep it, some of them if there are many.
    pub kept_by: Vec<Reason>,
    /// What named it last and is purged.
    pub departed: Option<Departed>,
}

/// How collection is, for whoever publishes it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Observed {
    /// What the last full cycle came to.
    pub last: Collected,
    /// Full cycles since the start.
    pub cycles: u64,
    /// When the last one ended, in milliseconds since 1970; 0: none did.
    pub ended_at: i64,
    /// How long it took.
    pub took: Duration,
    /// Manifests that were purged since the start.
    pub purged: u64,
    /// Bytes that were given back since the start.
    pub freed: u64,
    /// Whether an operator has paused it.
    pub is_paused: bool,
}
