//! One transfer or sync on its way to the thread that carries it out.
//!
//! Invariant: whoever holds a request owns its buffer, and answers by sending
//! the buffer back. When nobody waits any more, the buffer goes to its pool.
//! Refuses to know: which thread that is.

use std::io;
use std::sync::Arc;

use tokio::sync::oneshot;

use crate::system::{self, Handle};
use crate::tally::Tally;
use crate::{Buffer, DiskError, Moved};

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
    /// Counts it, if it succeeded. Called before the answer is sent.
    pub(crate) fn count(&self, tally: &Tally) {
        if self.result.is_ok() {
            tally.count(self.request.verb, self.request.buf.len() as u64);
        }
    }

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
