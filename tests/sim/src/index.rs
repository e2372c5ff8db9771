//! The model of the index, and what a crash leaves of it.
//!
//! RocksDB does its own I/O, so the simulated disk does not carry it. Its rule
//! is kept instead: a batch is there whole or not at all, a flush makes all
//! before it durable, and a crash loses any suffix of what came after.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use orlop_engine::IndexFactory;
use orlop_index::mem::Memory;
use orlop_index::{Index, IndexError};

/// An index that every start finds as it was left.
#[derive(Default)]
pub struct Indexes {
    state: Mutex<State>,
}

struct State {
    current: Arc<Memory>,
    destroyed: u64,
    /// It has been there since the log began: it lacks nothing but what a crash
    /// may take.
    whole: bool,
}

impl Default for State {
    fn default() -> State {
        State {
            current: Arc::default(),
            destroyed: 0,
            whole: true,
        }
    }
}

impl Indexes {
    /// Starts will find `index`, which is whole or may have to be made again.
    #[must_use]
    pub fn new(index: Memory, whole: bool) -> Indexes {
        Indexes {
            state: Mutex::new(State {
                current: Arc::new(index),
                destroyed: 0,
                whole,
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The index as it is now.
    #[must_use]
    pub fn current(&self) -> Arc<Memory> {
        Arc::clone(&self.lock().current)
    }

    /// The next start finds this one: what a crash left.
    pub fn replace(&self, index: Memory) {
        self.lock().current = Arc::new(index);
    }

    /// The next start finds none.
    pub fn lose(&self) {
        let mut state = self.lock();
        state.current = Arc::default();
        state.whole = false;
    }

    /// Whether it needs nothing but the end of the log: it was never lost, or
    /// was made again and flushed.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        let state = self.lock();
        state.whole || state.current.flushes() > 0
    }

    /// How often a start threw it away to make it again.
    #[must_use]
    pub fn destroyed(&self) -> u64 {
        self.lock().destroyed
    }
}

impl IndexFactory for Indexes {
    fn open(&self, _folder: &Path) -> Result<Arc<dyn Index>, IndexError> {
        Ok(self.current())
    }

    fn destroy(&self, _folder: &Path) -> Result<(), IndexError> {
        let mut state = self.lock();
        state.destroyed += 1;
        state.current = Arc::default();
        state.whole = false;
        Ok(())
    }
}
