//! The indexes a store can be opened with.

use std::path::Path;
use std::sync::Arc;

use orlop_index::mem::Memory;
#[cfg(feature = "rocks")]
use orlop_index::rocks::{Options, Rocks};
use orlop_index::{Index, IndexError};

use crate::recover::IndexFactory;

/// RocksDB, the index of every real store.
#[cfg(feature = "rocks")]
#[derive(Debug, Clone)]
pub struct RocksIndex {
    /// How it is opened.
    pub options: Options,
}

#[cfg(feature = "rocks")]
impl IndexFactory for RocksIndex {
    fn open(&self, folder: &Path) -> Result<Arc<dyn Index>, IndexError> {
        Ok(Arc::new(Rocks::open(folder, &self.options)?))
    }

    fn destroy(&self, folder: &Path) -> Result<(), IndexError> {
        Rocks::destroy(folder)
    }
}

/// An index in memory that every start finds as it is given here: for
/// simulations, which decide what of it survives a crash.
#[derive(Debug, Default)]
pub struct MemoryIndex {
    current: crate::sync::Mutex<Arc<Memory>>,
}

impl MemoryIndex {
    /// A factory that finds `index`.
    pub fn new(index: Memory) -> Self {
        Self {
            current: crate::sync::Mutex::new(Arc::new(index)),
        }
    }

    /// The index as it is now.
    pub fn current(&self) -> Arc<Memory> {
        Arc::clone(&self.current.lock())
    }
}

impl IndexFactory for MemoryIndex {
    fn open(&self, _folder: &Path) -> Result<Arc<dyn Index>, IndexError> {
        Ok(self.current())
    }

    fn destroy(&self, _folder: &Path) -> Result<(), IndexError> {
        *self.current.lock() = Arc::default();
        Ok(())
    }
}
