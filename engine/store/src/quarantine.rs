//! Blobs whose damage was just seen, until the log and the index know of it.
//!
//! From the moment a checksum fails the blob counts as quarantined for
//! everyone, so that no answer after it says "it is here" and a push of it is
//! kept. An entry goes when its record is in the index.

use std::collections::HashSet;

use crate::sync::Mutex;
use crate::sync::atomic::{AtomicUsize, Ordering};

/// Entries kept. One that finds no room is found again by the next read.
const MAX: usize = 65_536;

/// Blobs by SHA-256 and birth.
#[derive(Debug, Default)]
pub(crate) struct Quarantine {
    /// Spares every lookup the lock while all is well.
    count: AtomicUsize,
    blobs: Mutex<HashSet<([u8; 32], u64)>>,
}

impl Quarantine {
    /// Puts a blob in. False when it was in already.
    pub(crate) fn add(&self, sha256: [u8; 32], birth: u64) -> bool {
        let mut blobs = self.blobs.lock();
        if blobs.len() >= MAX {
            return true;
        }
        let new = blobs.insert((sha256, birth));
        self.count.store(blobs.len(), Ordering::Release);
        new
    }

    /// Whether no blob is in.
    pub(crate) fn is_empty(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }

    /// Whether a blob is in.
    pub(crate) fn contains(&self, sha256: &[u8; 32], birth: u64) -> bool {
        !self.is_empty() && self.blobs.lock().contains(&(*sha256, birth))
    }

    /// Forgets a blob whose row says it now.
    pub(crate) fn settle(&self, sha256: &[u8; 32], birth: u64) {
        let mut blobs = self.blobs.lock();
        blobs.remove(&(*sha256, birth));
        self.count.store(blobs.len(), Ordering::Release);
    }
}
