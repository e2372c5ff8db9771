//! The simulated disk at one moment, from which any crash can be taken.
//!
//! Invariant: a snapshot costs a copy of the names and of what waits for a
//! sync; pages are shared. Taking one is no operation.

use std::sync::Arc;

use super::tree::Tree;
use super::{Crash, Sim, State};

/// Sees the disk before each operation that may change it.
pub(super) type Observer = Box<dyn FnMut(Snapshot) + Send>;

/// A disk at one moment.
#[derive(Clone)]
pub struct Snapshot {
    operation: u64,
    seed: u64,
    capacity: u64,
    is_holeless: bool,
    tree: Tree,
}

impl Snapshot {
    /// How many operations came before.
    #[must_use]
    pub fn operation(&self) -> u64 {
        self.operation
    }

    /// Tells this state of the disk from any other of its life: bytes, lengths,
    /// names, and which of them are durable.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.tree.version()
    }

    /// The disk that the next start would find.
    #[must_use]
    pub fn crash(&self, crash: Crash) -> Arc<Sim> {
        let seed = match crash {
            Crash::Killed | Crash::Lost | Crash::Kept | Crash::Parts(_) => self.seed,
            Crash::Prefix(seed) | Crash::Torn(seed) => self.seed ^ seed,
        };
        let tree = self.tree.after(crash);
        let sim = Sim::with_tree(seed.wrapping_add(1), tree, self.capacity);
        sim.lock().is_holeless = self.is_holeless;
        sim
    }
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Snapshot")
            .field("operation", &self.operation)
            .field("version", &self.version())
            .finish_non_exhaustive()
    }
}

impl Sim {
    /// The disk as it is now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let state = self.lock();
        state.snapshot(state.operations)
    }

    /// Shows the disk to `observer` right before each operation that may change
    /// what it holds or what is durable. The observer must not use the disk.
    pub fn observe(&self, observer: impl FnMut(Snapshot) + Send + 'static) {
        self.lock().observer = Some(Box::new(observer));
    }

    /// Ends [`Sim::observe`].
    pub fn unobserve(&self) {
        self.lock().observer = None;
    }
}

impl State {
    fn snapshot(&self, operation: u64) -> Snapshot {
        Snapshot {
            operation,
            seed: self.seed,
            capacity: self.capacity,
            is_holeless: self.is_holeless,
            tree: self.tree.clone(),
        }
    }

    /// Shows the disk to the observer, if there is one.
    pub(super) fn show(&mut self, operation: u64) {
        if let Some(mut observer) = self.observer.take() {
            observer(self.snapshot(operation));
            self.observer = Some(observer);
        }
    }
}
