//! The index: a view of the log that answers "where is it" by key.
//!
//! Owns: the trait [`Index`], its tables, its batches and its errors, and two
//! implementations, `rocks::Rocks` (feature `rocks`) and [`mem::Memory`].
//!
//! Invariants: a batch is applied whole or not at all, and its watermark with
//! it. What survives a crash is a prefix of the batches that were applied, and
//! the watermark tells which. A read that cannot be answered truthfully is an
//! error, never "absent".
//!
//! Refuses to know: what keys and values mean, the journal, when to flush. It
//! is never an authority: whoever finds it missing or damaged makes it again.

use std::fmt;
use std::ops::ControlFlow;
use std::path::PathBuf;

pub mod mem;
#[cfg(feature = "rocks")]
pub mod rocks;

/// A table of the index: an ordered map from bytes to bytes, apart from the
/// others but written in the same batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// Cursors and counters of the store.
    Meta,
    /// Blobs by digest.
    Blob,
    /// Further digests of a blob.
    Alias,
    /// Open uploads.
    Upload,
    /// Segments.
    Segment,
    /// Chunks of the cold tier.
    Chunk,
    /// Blobs by ordinal.
    Ordinal,
    /// Rows of a rebuild under way.
    Scratch,
}

impl Table {
    /// Every table.
    pub const ALL: [Table; 8] = [
        Table::Meta,
        Table::Blob,
        Table::Alias,
        Table::Upload,
        Table::Segment,
        Table::Chunk,
        Table::Ordinal,
        Table::Scratch,
    ];

    /// The table's name, which is also part of its name on disk.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Table::Meta => "meta",
            Table::Blob => "blob",
            Table::Alias => "alias",
            Table::Upload => "upload",
            Table::Segment => "segment",
            Table::Chunk => "chunk",
            Table::Ordinal => "ordinal",
            Table::Scratch => "scratch",
        }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One step of a batch: a value puts the key, no value deletes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) table: Table,
    pub(crate) key: Vec<u8>,
    pub(crate) value: Option<Vec<u8>>,
}

/// Changes that are applied together, in the order they were added.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    pub(crate) steps: Vec<Step>,
    pub(crate) watermark: Option<u64>,
}

impl Batch {
    /// An empty batch.
    #[must_use]
    pub fn new() -> Batch {
        Batch::default()
    }

    /// Sets `key` to `value`.
    pub fn put(&mut self, table: Table, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) {
        self.steps.push(Step {
            table,
            key: key.into(),
            value: Some(value.into()),
        });
    }

    /// Removes `key`; a key that is not there is no error.
    pub fn delete(&mut self, table: Table, key: impl Into<Vec<u8>>) {
        self.steps.push(Step {
            table,
            key: key.into(),
            value: None,
        });
    }

    /// Names the last log sequence number this batch brings the index to. It
    /// becomes the index's watermark with the batch; the last call counts.
    pub fn set_watermark(&mut self, lsn: u64) {
        self.watermark = Some(lsn);
    }

    /// How many puts and deletes the batch holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.steps.len()
    }

    /// Whether applying the batch changes nothing, the watermark included.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty() && self.watermark.is_none()
    }
}

/// Why the index did not do what was asked, grouped by what the caller does.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IndexError {
    /// The index cannot be opened, or part of it cannot be read. The caller
    /// makes it again from the log. A damage found while reading is noted in
    /// the folder, so that the next open reports it as well.
    #[error("the index in {} is damaged: {reason}; restart to rebuild it from the log", path.display())]
    Damaged {
        /// Folder of the index.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
    /// The operating system refused. After a failed write or flush every
    /// further one is refused with the first failure, until the index is
    /// opened again; reads go on.
    #[error("cannot use the index in {}: {reason}", path.display())]
    Io {
        /// Folder of the index.
        path: PathBuf,
        /// What failed.
        reason: String,
    },
    /// No room on the device. Nothing is poisoned: writes are taken again
    /// after space was freed.
    #[error("no room for the index in {}: {reason}; free space on its device", path.display())]
    Full {
        /// Folder of the index.
        path: PathBuf,
        /// What failed.
        reason: String,
    },
    /// A later release wrote this index.
    #[error(
        "the index in {} has {found}, this release reads up to format {supported}; start the release that wrote it", path.display()
    )]
    Newer {
        /// Folder of the index.
        path: PathBuf,
        /// What was found: a format or a table.
        found: String,
        /// Highest format this release reads.
        supported: u32,
    },
}

/// The result of an index operation.
pub type Result<T> = std::result::Result<T, IndexError>;

/// What [`Index::scan`] calls for every row: key and value, in key order.
/// `Break` ends the scan.
pub type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'a;

/// An ordered, transactional view of the log.
///
/// Calls block; they are short unless they reach the disk. One caller applies
/// batches, any number read.
pub trait Index: Send + Sync + 'static {
    /// The value of `key`, or none.
    ///
    /// # Errors
    /// `Damaged` or `Io` when it cannot be known.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>>;

    /// The values of `keys`, in their order.
    ///
    /// # Errors
    /// `Damaged` or `Io` when one of them cannot be known.
    fn multi_get(&self, table: Table, keys: &[Vec<u8>]) -> Result<Vec<Option<Vec<u8>>>>;

    /// Applies a batch: all of it, its watermark included, is visible when
    /// this returns. It is durable after the next [`Index::flush`].
    ///
    /// # Errors
    /// `Full`: nothing of it was applied, try again later. `Io`, `Damaged`:
    /// nothing more is applied until the index is opened again.
    fn apply(&self, batch: Batch) -> Result<()>;

    /// Visits the rows of `table` from key `from` on, in byte order, as they
    /// were when the call began. Never holds the table in memory.
    ///
    /// # Errors
    /// `Damaged` or `Io`: rows visited until then are right, later ones are
    /// unknown.
    fn scan(&self, table: Table, from: &[u8], visit: &mut Visit<'_>) -> Result<()>;

    /// The log sequence number of the last batch that set one, 0 before.
    ///
    /// # Errors
    /// `Damaged` or `Io` when it cannot be known.
    fn watermark(&self) -> Result<u64>;

    /// Makes all batches applied so far durable, all tables together, and
    /// returns the watermark that is durable now.
    ///
    /// # Errors
    /// As [`Index::apply`].
    fn flush(&self) -> Result<u64>;

    /// Removes every row of `table`, as one batch would.
    ///
    /// # Errors
    /// As [`Index::apply`].
    fn clear(&self, table: Table) -> Result<()>;

    /// Memory that its caches and buffers hold now, in bytes; 0 of one that has
    /// none.
    fn memory(&self) -> u64 {
        0
    }
}
