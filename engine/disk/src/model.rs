//! Parts without locks, for the models of `tests/sim/tests/loom.rs`.

use crate::Counters;
use crate::request::Verb;

/// What the shared lane has carried.
#[derive(Default)]
pub struct Tally(crate::tally::Tally);

impl Tally {
    /// Counts a read of so many bytes.
    pub fn read(&self, len: u64) {
        self.0.count(Verb::Read, len);
    }

    /// Counts a write of so many bytes.
    pub fn write(&self, len: u64) {
        self.0.count(Verb::Write, len);
    }

    /// What was counted.
    pub fn counters(&self) -> Counters {
        self.0.counters()
    }
}

impl std::fmt::Debug for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tally").finish_non_exhaustive()
    }
}
