//! The reference index: ordered maps in memory.
//!
//! Owns: nothing on disk. [`Memory::crash`] and [`Memory::crash_at`] give what a
//! crash would leave, so that simulations see the same rule as with RocksDB:
//! everything up to the last flush, and of what was applied after it a prefix,
//! since RocksDB may flush on its own at any time.
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

/// Something that was applied.
#[derive(Debug, Clone)]
enum Change {
    Batch(Batch),
    Clear(Table),
}

impl State {
    fn apply(&mut self, change: &Change) {
        match change {
            Change::Batch(batch) => {
                for step in &batch.steps {
                    let rows = self.rows_mut(step.table);
                    match &step.value {
                        Some(value) => rows.insert(step.key.clone(), value.clone()),
                        None => rows.remove(&step.key),
                    };
                }
                if let Some(lsn) = batch.watermark {
                    self.watermark = lsn;
                }
            }
            Change::Clear(table) => drop(self.tables.remove(table)),
        }
    }
}

#[derive(Debug, Clone, Default)]
struct Inner {
    now: State,
    flushed: State,
    /// What was applied since the last flush.
    since: Vec<Arc<Change>>,
    flushes: u64,
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
        self.crash_keeping(0)
    }

    /// What may be left after a crash: the state of the last flush and a prefix
    /// of what was applied since, whose length `seed` chooses.
    #[must_use]
    pub fn crash_at(&self, seed: u64) -> Memory {
        let count = self.read().since.len() as u64;
        // Fibonacci hashing: near seeds give far lengths, and the ends come up.
        let mixed = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
        let kept = mixed.checked_rem(count.saturating_add(1)).unwrap_or(0);
        self.crash_keeping(usize::try_from(kept).unwrap_or(usize::MAX))
    }

    fn crash_keeping(&self, count: usize) -> Memory {
        let inner = self.read();
        let mut left = inner.flushed.clone();
        for change in inner.since.iter().take(count) {
            left.apply(change);
        }
        Memory {
            inner: RwLock::new(Inner {
                now: left.clone(),
                flushed: left,
                since: Vec::new(),
                flushes: inner.flushes,
            }),
        }
    }

    /// The index as it is at this moment, with what of it is durable.
    #[must_use]
    pub fn snapshot(&self) -> Memory {
        Memory {
            inner: RwLock::new(self.read().clone()),
        }
    }

    /// How often it was flushed.
    #[must_use]
    pub fn flushes(&self) -> u64 {
        self.read().flushes
    }

    // No code panics while it holds the lock, so a poisoned one is whole.
    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: Change) {
        let mut inner = self.write();
        inner.now.apply(&change);
        inner.since.push(Arc::new(change));
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
        self.change(Change::Batch(batch));
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
        inner.since.clear();
        inner.flushes = inner.flushes.saturating_add(1);
        Ok(inner.flushed.watermark)
    }

    fn clear(&self, table: Table) -> Result<()> {
        self.change(Change::Clear(table));
        Ok(())
    }
}
