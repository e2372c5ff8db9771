//! How the store reaches the journal: a bounded queue of requests.
//!
//! Owns: the sending end and the store's poison. Requests of one caller are
//! answered in order; the answer comes after the group that holds them is
//! durable and in the index.

use std::sync::Arc;

use bytes::Bytes;
use orlop_format::record::Record;

use crate::config::JOURNAL_QUEUE;
use crate::error::{Error, Result};
use crate::segment::SegmentFile;
use crate::sync::{OnceLock, mpsc, oneshot};

/// What became of one record of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is in the log and in the index.
    Written {
        /// Its LSN.
        lsn: u64,
    },
    /// A commit of a blob that is there already: nothing was written for it.
    Present,
    /// The tombstone of a blob that was used meanwhile or has ended, the move of
    /// one that is not whole or lies elsewhere, or the removal of a segment that is
    /// in use or removed: nothing was written.
    Spared,
}

/// Records to append together.
pub(crate) struct Request {
    /// Records with their payloads.
    pub(crate) records: Vec<(Record, Bytes)>,
    /// Segments that hold data which the records refer to.
    pub(crate) data: Vec<Arc<SegmentFile>>,
    /// Who waits; nobody for a note that rides along.
    pub(crate) reply: Option<oneshot::Sender<Result<Vec<Fate>>>>,
}

/// What the writer takes.
pub(crate) enum Command {
    /// Append records.
    Append(Request),
    /// Write a clean mark, stop, answer.
    Close(oneshot::Sender<Result<()>>),
}

/// Why writes are refused until a restart, once that is so.
#[derive(Debug, Default, Clone)]
pub(crate) struct Poison(Arc<OnceLock<Arc<str>>>);

impl Poison {
    /// Refuses writes from now on. The first reason stays.
    pub(crate) fn set(&self, reason: &dyn std::fmt::Display) -> Error {
        let reason = self.0.get_or_init(|| {
            tracing::error!(%reason, "a write failed: the store takes no more writes until it is restarted");
            Arc::from(reason.to_string())
        });
        Error::Poisoned {
            reason: Arc::clone(reason),
        }
    }

    /// An error if writes are refused.
    pub(crate) fn check(&self) -> Result<()> {
        match self.0.get() {
            None => Ok(()),
            Some(reason) => Err(Error::Poisoned {
                reason: Arc::clone(reason),
            }),
        }
    }

    /// The reason, if writes are refused.
    pub(crate) fn reason(&self) -> Option<Arc<str>> {
        self.0.get().cloned()
    }
}

/// The sending end.
#[derive(Clone)]
pub(crate) struct Queue {
    sender: mpsc::Sender<Command>,
    poison: Poison,
}

impl Queue {
    pub(crate) fn new(poison: Poison) -> (Self, mpsc::Receiver<Command>) {
        let (sender, receiver) = mpsc::channel(JOURNAL_QUEUE);
        (Self { sender, poison }, receiver)
    }

    /// Appends records and waits until they are durable and in the index.
    /// Once queued they are written even if the caller goes away.
    pub(crate) async fn append(
        &self,
        records: Vec<(Record, Bytes)>,
        data: Vec<Arc<SegmentFile>>,
    ) -> Result<Vec<Fate>> {
        self.poison.check()?;
        let (reply, answer) = oneshot::channel();
        self.sender
            .send(Command::Append(Request {
                records,
                data,
                reply: Some(reply),
            }))
            .await
            .map_err(|_| closed())?;
        answer
            .await
            .map_err(|_| self.poison.check().err().unwrap_or_else(closed))?
    }

    /// Appends a record without waiting.
    pub(crate) fn post(&self, record: Record) -> Result<()> {
        self.poison.check()?;
        let request = Request {
            records: vec![(record, Bytes::new())],
            data: Vec::new(),
            reply: None,
        };
        self.sender
            .try_send(Command::Append(request))
            .map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => Error::Busy {
                    what: "the journal".to_owned(),
                },
                mpsc::error::TrySendError::Closed(_) => closed(),
            })
    }

    /// Ends the journal with a clean mark.
    pub(crate) async fn close(&self) -> Result<()> {
        let (reply, answer) = oneshot::channel();
        self.sender
            .send(Command::Close(reply))
            .await
            .map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?
    }
}

fn closed() -> Error {
    Error::Busy {
        what: "the store: it is shutting down".to_owned(),
    }
}
