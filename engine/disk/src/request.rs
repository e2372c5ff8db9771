//! One transfer or sync on its way to the thread that carries it out.
//!
//! Invariant: whoever holds a request owns its buffer, and answers by sending
//! the buffer back. When nobody waits any more, the buffer goes to its pool.
//! Refuses to know: which thread that is.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::oneshot;

use crate::system::{self, Handle};
use crate::{Buffer, Counters, DiskError, Moved};

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Read,
    Write,
    Sync,
}

impl Verb {
    /// The verb of an error message.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Verb::Read => "read",
            Verb::Write => "write",
            Verb::Sync => "sync",
        }
    }
}

/// An operation with everything it needs.
pub(crate) struct Request {
    pub(crate) verb: Verb,
    pub(crate) handle: Arc<Handle>,
    /// Unused by a sync.
    pub(crate) offset: u64,
    /// Without memory for a sync.
    pub(crate) buf: Buffer,
}

impl Request {
    /// Carries it out by system calls on this thread.
    pub(crate) fn run(mut self) -> Done {
        let result = match self.verb {
            Verb::Read => system::read(&self.handle, self.offset, &mut self.buf),
            Verb::Write => system::write(&self.handle, self.offset, &self.buf),
            Verb::Sync => system::sync_data(&self.handle),
        };
        Done {
            request: self,
            result,
        }
    }
}

/// A request with its outcome.
pub(crate) struct Done {
    pub(crate) request: Request,
    pub(crate) result: io::Result<()>,
}

impl Done {
    pub(crate) fn into_moved(self) -> Moved {
        let Done { request, result } = self;
        let wrap = |error| DiskError::new(request.verb.name(), &request.handle.path, error);
        (result.map_err(wrap), request.buf)
    }
}

/// A request and where its answer goes.
pub(crate) struct Envelope {
    pub(crate) request: Request,
    pub(crate) reply: oneshot::Sender<Done>,
}

/// Counts what the shared lane has carried.
#[derive(Default)]
pub(crate) struct Tally {
    reads: AtomicU64,
    writes: AtomicU64,
    syncs: AtomicU64,
    bytes_read: AtomicU64,
    bytes_written: AtomicU64,
}

impl Tally {
    /// Counts a finished request. Called before its answer is sent, so that
    /// who has the answer sees the count.
    pub(crate) fn count(&self, done: &Done) {
        if done.result.is_err() {
            return;
        }
        let len = done.request.buf.len() as u64;
        let (times, bytes) = match done.request.verb {
            Verb::Read => (&self.reads, Some(&self.bytes_read)),
            Verb::Write => (&self.writes, Some(&self.bytes_written)),
            Verb::Sync => (&self.syncs, None),
        };
        times.fetch_add(1, Ordering::Relaxed);
        if let Some(bytes) = bytes {
            bytes.fetch_add(len, Ordering::Relaxed);
        }
    }

    pub(crate) fn counters(&self) -> Counters {
        Counters {
            reads: self.reads.load(Ordering::Relaxed),
            writes: self.writes.load(Ordering::Relaxed),
            syncs: self.syncs.load(Ordering::Relaxed),
            bytes_read: self.bytes_read.load(Ordering::Relaxed),
            bytes_written: self.bytes_written.load(Ordering::Relaxed),
        }
    }
}
