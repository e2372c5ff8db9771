//! Faults of the store's own, planted by the simulator to prove that it would
//! find them.
//!
//! Invariants: without the feature `planted` nothing can plant one and every
//! question is a constant "no"; with it a fault is planted on one thread, so
//! that simulations beside each other do not see it. No crate outside
//! `tests/sim` enables the feature; a test sees to that.

/// A way to be wrong, each against one invariant of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(
    not(feature = "planted"),
    expect(unreachable_pub, reason = "it is public where it can be planted")
)]
pub enum Planted {
    /// The sync of a group of the journal is left out.
    SkipSync,
    /// The index learns of a group before the log has it.
    IndexBeforeLog,
    /// What a read brings is checked against checksums, not against the length
    /// it must have.
    ChecksumWithoutLength,
    /// A group is answered before its sync.
    AckBeforeDurable,
    /// A journal file is let go without a flush of the index that covers it.
    RecycleBeforeFlush,
    /// A segment's file goes before the log says so.
    UnlinkBeforeRecord,
    /// Room is given back without asking what uploads refer to.
    ReclaimWithoutUploads,
    /// The log says that an extent moved before its copy is durable.
    MoveWithoutSync,
}

#[cfg(feature = "planted")]
mod thread {
    use std::cell::Cell;

    use super::Planted;

    thread_local! {
        static PLANTED: Cell<Option<Planted>> = const { Cell::new(None) };
    }

    /// Whether this one is planted on this thread.
    pub(crate) fn is(planted: Planted) -> bool {
        PLANTED.get() == Some(planted)
    }

    /// Takes the planted fault out again when it is dropped.
    #[derive(Debug)]
    pub struct Guard(Option<Planted>);

    impl Drop for Guard {
        fn drop(&mut self) {
            PLANTED.set(self.0);
        }
    }

    /// Plants a fault, or none, in all stores of this thread.
    #[must_use]
    pub fn plant(planted: Option<Planted>) -> Guard {
        Guard(PLANTED.replace(planted))
    }
}

#[cfg(feature = "planted")]
pub use thread::{Guard, plant};

#[cfg(feature = "planted")]
pub(crate) use thread::is;

/// Nothing is planted in what is shipped.
#[cfg(not(feature = "planted"))]
pub(crate) const fn is(_: Planted) -> bool {
    false
}
