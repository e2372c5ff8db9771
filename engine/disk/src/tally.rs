//! Counts what the shared lane has carried.
//!
//! Invariant: a request is counted before its answer is sent, so whoever has
//! the answer sees the count. The numbers of different requests have no order.

#[cfg(feature = "loom")]
use loom::sync::atomic::{AtomicU64, Ordering};
#[cfg(not(feature = "loom"))]
use std::sync::atomic::{AtomicU64, Ordering};

use crate::Counters;
use crate::request::Verb;

/// Finished requests that succeeded, and their bytes.
#[derive(Default)]
pub(crate) struct Tally {
    reads: AtomicU64,
    writes: AtomicU64,
    syncs: AtomicU64,
    bytes_read: AtomicU64,
    bytes_written: AtomicU64,
}

impl Tally {
    pub(crate) fn count(&self, verb: Verb, len: u64) {
        let (times, bytes) = match verb {
            Verb::Read => (&self.reads, Some(&self.bytes_read)),
            Verb::Write => (&self.writes, Some(&self.bytes_written)),
            Verb::Sync => (&self.syncs, None),
        };
        times.fetch_add(1, Ordering::Relaxed);
        if let Some(bytes) = bytes {
            bytes.fetch_add(len, Ordering::Relaxed);
        }
    }

    pub(crate) fn counters(&self) -> Counters {
        Counters {
            reads: self.reads.load(Ordering::Relaxed),
            writes: self.writes.load(Ordering::Relaxed),
            syncs: self.syncs.load(Ordering::Relaxed),
            bytes_read: self.bytes_read.load(Ordering::Relaxed),
            bytes_written: self.bytes_written.load(Ordering::Relaxed),
        }
    }
}
