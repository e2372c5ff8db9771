//! The reference index: ordered maps in memory.
//!
//! Owns: nothing on disk. [`Memory::crash`] gives what a crash would leave, so
//! that simulations see the same rule as with RocksDB: everything up to the
//! last flush, nothing after it.
//!
//! Invariant: a table's map is shared with the scans that read it and copied
//! by the first change made meanwhile, so a scan sees one state and holds no
//! lock.
//!
//! Refuses to know: disks and errors; it has none.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::{Batch, Index, Result, Table, Visit};

type Rows = Arc<BTreeMap<Vec<u8>, Vec<u8>>>;

#[derive(Debug, Clone, Default)]
struct State {
    tables: BTreeMap<Table, Rows>,
    watermark: u64,
}

impl State {
    fn rows_mut(&mut self, table: Table) -> &mut BTreeMap<Vec<u8>, Vec<u8>> {
        Arc::make_mut(self.tables.entry(table).or_default())
    }
}

#[derive(Debug, Default)]
struct Inner {
    now: State,
    flushed: State,
}

/// An index in memory.
#[derive(Debug, Default)]
pub struct Memory {
    inner: RwLock<Inner>,
}

impl Memory {
    /// An empty index.
    #[must_use]
    pub fn new() -> Memory {
        Memory::default()
    }

    /// What would be left after a crash: the state of the last flush.
    #[must_use]
    pub fn crash(&self) -> Memory {
        let flushed = self.read().flushed.clone();
        Memory {
            inner: RwLock::new(Inner {
                now: flushed.clone(),
                flushed,
            }),
        }
    }

    // No code panics while it holds the lock, so a poisoned one is whole.
    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn rows(&self, table: Table) -> Option<Rows> {
        self.read().now.tables.get(&table).cloned()
    }
}

impl Index for Memory {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let inner = self.read();
        Ok(inner
            .now
            .tables
            .get(&table)
            .and_then(|rows| rows.get(key).cloned()))
    }

    fn multi_get(&self, table: Table, keys: &[Vec<u8>]) -> Result<Vec<Option<Vec<u8>>>> {
        let rows = self.rows(table);
        let value = |key: &Vec<u8>| rows.as_ref().and_then(|rows| rows.get(key).cloned());
        Ok(keys.iter().map(value).collect())
    }

    fn apply(&self, batch: Batch) -> Result<()> {
        let mut inner = self.write();
        for step in batch.steps {
            let rows = inner.now.rows_mut(step.table);
            match step.value {
                Some(value) => rows.insert(step.key, value),
                None => rows.remove(&step.key),
            };
        }
        if let Some(lsn) = batch.watermark {
            inner.now.watermark = lsn;
        }
        Ok(())
    }

    fn scan(&self, table: Table, from: &[u8], visit: &mut Visit<'_>) -> Result<()> {
        let Some(rows) = self.rows(table) else {
            return Ok(());
        };
        for (key, value) in rows.range::<[u8], _>((Bound::Included(from), Bound::Unbounded)) {
            if visit(key, value) == ControlFlow::Break(()) {
                break;
            }
        }
        Ok(())
    }

    fn watermark(&self) -> Result<u64> {
        Ok(self.read().now.watermark)
    }

    fn flush(&self) -> Result<u64> {
        let mut inner = self.write();
        inner.flushed = inner.now.clone();
        Ok(inner.flushed.watermark)
    }

    fn clear(&self, table: Table) -> Result<()> {
        self.write().now.tables.remove(&table);
        Ok(())
    }
}
