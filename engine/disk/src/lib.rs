//! Moving aligned bytes: the disk as the engine sees it.
//!
//! Owns: the contract of [`Disk`] and [`File`], the memory that goes to the
//! kernel ([`Buffer`], [`Pool`]), and three disks that keep the contract:
//! io_uring ([`uring`]), a thread pool ([`blocking`]) and a simulated disk
//! ([`sim`]). One suite, `tests/suite.rs`, runs against all three.
//!
//! Invariants:
//! - A buffer goes in by value and comes back with the result. A dropped
//!   future never frees memory the kernel still owns: the operation goes on
//!   and its buffer returns to the pool when it is done.
//! - Exactly the asked number of bytes moves, or the answer is an error.
//! - A failed sync is reported and never tried again here.
//! - Every queue is bounded: see [`blocking::QUEUE`], [`uring::QUEUE`],
//!   [`uring::IN_FLIGHT`] and the limit of a [`Pool`].
//!
//! Refuses to know: formats, checksums, records, digests, and what a file is
//! for. This is the only crate that may use `unsafe`.

mod buffer;
mod error;
mod pool;
mod real;
mod request;
mod system;
mod tally;

pub mod blocking;
pub mod lock;
#[cfg(feature = "loom")]
pub mod model;
pub mod probe;
pub mod select;
pub mod sim;
pub mod uring;

use std::path::Path;
use std::sync::Arc;

pub use futures_util::future::BoxFuture;

pub use crate::buffer::Buffer;
pub use crate::error::{DiskError, Kind, Result};
pub use crate::pool::Pool;
pub use crate::select::{Choice, select};

/// The unit of alignment of direct I/O in bytes: of memory, offsets and lengths.
pub const BLOCK: usize = 4096;

/// What a finished transfer gives back: how it went, and the buffer.
pub type Moved = (Result<()>, Buffer);

/// What [`Disk::open`] does about a file that is or is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Create {
    /// The file must exist.
    Never,
    /// The file must not exist.
    New,
    /// The file is created when it does not exist.
    IfMissing,
}

/// Which thread carries the reads, writes and syncs of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// The disk's own threads: the ring or the pool.
    Shared,
    /// System calls on the thread that polls. The future is ready at its first
    /// poll. Only dedicated threads may use it: it blocks.
    Inline,
}

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenOptions {
    /// What to do about a missing or existing file. Creating needs `write`.
    pub create: Create,
    /// Which thread carries the transfers.
    pub lane: Lane,
    /// Transfers bypass the page cache where the file system allows it (see
    /// [`Access`]), and must be aligned to [`BLOCK`] whether it does or not.
    pub direct: bool,
    /// The file may be written.
    pub write: bool,
}

/// How the bytes of an open file travel. Asked for direct I/O, a disk takes
/// the first of these that the file system offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Access {
    /// Through the page cache.
    Buffered,
    /// Through the page cache, which drops the pages at once (`RWF_DONTCACHE`).
    DontCache,
    /// Past the page cache (`O_DIRECT`).
    Direct,
}

/// Which disk carries the shared lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// io_uring.
    Uring,
    /// A pool of threads that block in system calls.
    Pool,
    /// The simulated disk.
    Sim,
}

impl std::fmt::Display for Backend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Backend::Uring => "uring",
            Backend::Pool => "pool",
            Backend::Sim => "sim",
        })
    }
}

/// Room on the file system that holds a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Size in bytes.
    pub total: u64,
    /// Bytes that this process may still use.
    pub available: u64,
}

/// What the shared lane has carried since the disk was made. Only finished
/// operations that succeeded are counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Reads.
    pub reads: u64,
    /// Writes.
    pub writes: u64,
    /// Data syncs.
    pub syncs: u64,
    /// Bytes read.
    pub bytes_read: u64,
    /// Bytes written.
    pub bytes_written: u64,
}

/// A place for files. Its own methods are short and block the caller; the
/// transfers of an open [`File`] are futures. Dropping a disk and its files
/// waits for what is in flight.
pub trait Disk: Send + Sync + 'static {
    /// Opens a file. A created file's name is durable after [`Disk::sync_dir`]
    /// of its folder.
    fn open(&self, path: &Path, options: OpenOptions) -> Result<Arc<dyn File>>;
    /// Creates one folder; one that is there already is no error.
    fn create_dir(&self, path: &Path) -> Result<()>;
    /// The names in a folder, sorted. Bytes that are not UTF-8 are replaced, so
    /// such a name can be reported but not opened.
    fn list(&self, path: &Path) -> Result<Vec<String>>;
    /// Renames a file or folder, replacing a file of the new name. Within one
    /// folder a crash leaves the old or the new state. Durable after
    /// [`Disk::sync_dir`] of both folders.
    fn rename(&self, from: &Path, to: &Path) -> Result<()>;
    /// Removes a file or an empty folder.
    fn remove(&self, path: &Path) -> Result<()>;
    /// Makes the names in a folder durable.
    fn sync_dir(&self, path: &Path) -> Result<()>;
    /// Whether the path exists. An error is never read as "missing".
    fn exists(&self, path: &Path) -> Result<bool>;
    /// Room on the file system of the path.
    fn space(&self, path: &Path) -> Result<Space>;
    /// Which disk this is.
    fn backend(&self) -> Backend;
    /// What the shared lane has carried.
    fn counters(&self) -> Counters;
}

/// An open file.
///
/// Transfers begin at the first poll. One that was dropped has either not
/// begun (it was still waiting for room in a queue) or is carried to its end.
/// Operations in flight together have no order. A sync covers the writes that
/// had finished before it was first polled.
#[expect(clippy::len_without_is_empty, reason = "the length of a file can fail")]
pub trait File: Send + Sync + 'static {
    /// Fills `buf` up to its length from `offset`. Past the end of the file
    /// the answer is [`Kind::Io`] with `UnexpectedEof`, never zeros; what the
    /// buffer holds after an error is unspecified.
    fn read_at(self: Arc<Self>, offset: u64, buf: Buffer) -> BoxFuture<'static, Moved>;
    /// Writes all of `buf` at `offset`. After an error any part may have been
    /// written.
    fn write_at(self: Arc<Self>, offset: u64, buf: Buffer) -> BoxFuture<'static, Moved>;
    /// Makes finished writes and the length durable (`fdatasync`). After an
    /// error what was written since the last sync may never become durable,
    /// even if a later sync succeeds.
    fn sync_data(self: Arc<Self>) -> BoxFuture<'static, Result<()>>;
    /// Reserves room for `len` bytes from `offset` and extends the length to
    /// their end. New bytes read as zeros. [`Kind::Full`] when there is no room.
    fn allocate(&self, offset: u64, len: u64) -> Result<()>;
    /// Gives back the room of `len` bytes from `offset`, which read as zeros
    /// from then on. The length stays.
    fn punch(&self, offset: u64, len: u64) -> Result<()>;
    /// Cuts or extends the file. New bytes read as zeros.
    fn set_len(&self, len: u64) -> Result<()>;
    /// The length in bytes.
    fn len(&self) -> Result<u64>;
    /// The path it was opened by.
    fn path(&self) -> &Path;
    /// How its bytes travel.
    fn access(&self) -> Access;
}
