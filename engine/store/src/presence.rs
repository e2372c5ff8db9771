//! Is this blob here? The lock under which the answer, the promises that follow
//! from it and a blob's death change together.
//!
//! Invariants: whoever is told "here" under the lock holds a lease or a pin
//! before it is let go; a life that is doomed is absent for all who ask under
//! the lock from then on, and only the journal's writer dooms. Nobody waits for
//! anything while holding it.

use std::collections::HashSet;
use std::sync::Arc;

use crate::lease::Leases;
use crate::sync::{Mutex, MutexGuard};

/// Locks, by digest.
const SHARDS: usize = 64;

/// A life of a blob: its SHA-256 and birth.
pub(crate) type Life = ([u8; 32], u64);

/// The blobs that are here, as far as memory decides.
#[derive(Debug)]
pub(crate) struct Presence {
    pub(crate) leases: Arc<Leases>,
    shards: Vec<Mutex<Shard>>,
    spare: Mutex<Shard>,
}

/// Blobs of one lock.
#[derive(Debug, Default)]
pub(crate) struct Shard {
    /// Lives whose tombstone is on its way to the log and the index.
    doomed: HashSet<Life>,
}

impl Shard {
    /// Whether a life counts as ended.
    pub(crate) fn is_doomed(&self, sha256: &[u8; 32], birth: u64) -> bool {
        !self.doomed.is_empty() && self.doomed.contains(&(*sha256, birth))
    }

    /// Ends a life for all who ask from now on.
    pub(crate) fn doom(&mut self, life: Life) {
        self.doomed.insert(life);
    }
}

impl Presence {
    pub(crate) fn new(leases: Leases) -> Self {
        Self {
            leases: Arc::new(leases),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            spare: Mutex::default(),
        }
    }

    /// The lock of a blob.
    pub(crate) fn shard(&self, sha256: &[u8; 32]) -> MutexGuard<'_, Shard> {
        let [first, ..] = sha256;
        self.shards
            .get(usize::from(*first) % SHARDS)
            .unwrap_or(&self.spare)
            .lock()
    }

    /// Forgets a doomed life: its row says it now, or no tombstone was written.
    pub(crate) fn settle(&self, life: &Life) {
        self.shard(&life.0).doomed.remove(life);
    }
}
