//! Up to when what was read of a key is untrue, without a lock.
//!
//! Invariant: a mark never falls. A change raises its mark before its sequence
//! counts as committed and before it is answered; so a row that was read at a
//! committed sequence not below the mark was read after the change.

use std::hash::{BuildHasher, Hash};

use super::atomic::{AtomicU64, Ordering};

/// Marks of keys, which share one when their hashes are equal.
#[derive(Debug)]
pub(super) struct Marks<S> {
    hash: S,
    marks: Box<[AtomicU64]>,
}

impl<S: BuildHasher> Marks<S> {
    /// So many marks, at most 65,536.
    pub(super) fn new(count: usize, hash: S) -> Marks<S> {
        Marks {
            hash,
            marks: (0..count).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// What was read of `key` before `sequence` was committed is not true any
    /// more.
    pub(super) fn raise(&self, key: &impl Hash, sequence: u64) {
        if let Some(mark) = self.slot(key) {
            mark.fetch_max(sequence, Ordering::AcqRel);
        }
    }

    /// What was read of `key` below this sequence is not true.
    pub(super) fn of(&self, key: &impl Hash) -> u64 {
        self.slot(key)
            .map_or(u64::MAX, |mark| mark.load(Ordering::Acquire))
    }

    fn slot(&self, key: &impl Hash) -> Option<&AtomicU64> {
        let [low, high, ..] = self.hash.hash_one(key).to_le_bytes();
        let place = usize::from(u16::from_le_bytes([low, high]));
        self.marks.get(place.checked_rem(self.marks.len())?)
    }
}

/// The last sequence that is committed and whose marks are raised.
#[derive(Debug)]
pub(super) struct Committed(AtomicU64);

impl Committed {
    pub(super) fn new(sequence: u64) -> Committed {
        Committed(AtomicU64::new(sequence))
    }

    /// All up to this sequence is committed, and its marks are raised.
    pub(super) fn reach(&self, sequence: u64) {
        self.0.fetch_max(sequence, Ordering::AcqRel);
    }

    /// Asked before a read begins: what is committed later may not be in it.
    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}
