//! The raw segments that take extents, and those that were filled.
//!
//! Owns: which segments are open, one for what clients send and one for what a
//! pass moves, so that bytes that have lived long are not mixed with young ones.
//! Invariants: a segment that was closed takes no more; it waits here until its
//! seal is in the log, whoever writes that. One seal is written at a time. One of
//! moves is not sealed while a pass has copies in it that it has not synced: of a
//! sync that fails only one of both would hear. While one that could not be sealed
//! waits, no more are made for moves.

use std::sync::Arc;

use orlop_format::BLOCK;
use orlop_format::location::{Class, SegmentId};
use orlop_format::record::Record;

use super::{Full, Open, SegmentFile, Segments, filled};
use crate::error::Result;
use crate::holds::Writing;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Mutex, TaskMutex};

/// Whose bytes a segment takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Intake {
    /// Those that clients send.
    Clients,
    /// Those that a pass moves.
    Moves,
}

impl Intake {
    pub(crate) const ALL: [Intake; 2] = [Intake::Clients, Intake::Moves];
}

#[derive(Default)]
pub(super) struct Raw {
    clients: TaskMutex<Option<Open>>,
    moves: TaskMutex<Option<Open>>,
    full: Mutex<Vec<Waiting>>,
    sealing: TaskMutex<()>,
    /// Whether a write or sync of a segment of moves failed.
    gave_up: AtomicBool,
}

/// A segment that waits to be sealed.
#[derive(Clone)]
pub(crate) struct Waiting {
    pub(crate) intake: Intake,
    pub(crate) full: Arc<Full>,
    /// Whether that was tried in vain.
    pub(crate) failed: bool,
}

impl Waiting {
    fn id(&self) -> SegmentId {
        self.full.segment.id()
    }
}

impl Raw {
    fn open(&self, intake: Intake) -> &TaskMutex<Option<Open>> {
        match intake {
            Intake::Clients => &self.clients,
            Intake::Moves => &self.moves,
        }
    }
}

/// Room for one frame.
pub(crate) struct Slot {
    pub(crate) segment: Arc<SegmentFile>,
    pub(crate) offset: u32,
    /// Keeps the segment until the log knows what is written here.
    pub(crate) hold: Arc<Writing>,
}

impl Segments {
    /// Room for an extent of `len` bytes, whole blocks, in an open raw segment.
    /// `crc` is the checksum of the extent's body, for the footer.
    pub(crate) async fn allocate(&self, intake: Intake, len: u64, crc: u32) -> Result<Slot> {
        let mut raw = self.raw.open(intake).lock().await;
        let mut open = match raw.take() {
            Some(open) if self.fits(&open, len) => open,
            full => {
                if let Some(open) = full {
                    self.wait(intake, open);
                }
                self.create(Class::Raw, 0).await?
            }
        };
        let result = self.extend(&mut open, len);
        let slot = Slot {
            segment: Arc::clone(&open.segment),
            offset: u32::try_from(open.tail).unwrap_or(u32::MAX),
            hold: Arc::new(self.holds.write(open.segment.id())),
        };
        if result.is_ok() {
            open.frames.push((slot.offset, crc));
            open.tail = open.tail.saturating_add(len);
        }
        *raw = Some(open);
        result.map(|()| slot)
    }

    /// The segment that is open, and the bytes of its frames.
    pub(crate) async fn taking(&self, intake: Intake) -> Option<(SegmentId, u64)> {
        let raw = self.raw.open(intake).lock().await;
        raw.as_ref().map(|open| {
            let frames = open.tail.saturating_sub(BLOCK as u64);
            (open.segment.id(), frames)
        })
    }

    /// Lets a segment take no more, if it is the open one. The next extent opens
    /// another; uploads that write to this one go on.
    pub(crate) async fn close(&self, intake: Intake, id: &SegmentId) {
        let mut raw = self.raw.open(intake).lock().await;
        if let Some(open) = raw.take_if(|open| open.segment.id() == *id) {
            self.wait(intake, open);
        }
    }

    fn wait(&self, intake: Intake, open: Open) {
        self.raw.full.lock().push(Waiting {
            intake,
            full: Arc::new(filled(open)),
            failed: false,
        });
    }

    /// Lets a segment of moves go as it is, after a failed write or sync of a copy:
    /// nothing more is written to it, its seal too, until a later process seals it.
    pub(crate) async fn give_up_moves(&self, id: &SegmentId) {
        self.raw.gave_up.store(true, Ordering::Release);
        let mut raw = self.raw.open(Intake::Moves).lock().await;
        raw.take_if(|open| open.segment.id() == *id);
        self.sealed(id);
    }

    /// Whether segments may be joined: not in this process once one of moves was
    /// given up, which stays as it is until a restart, and not while one could not
    /// be sealed. So a disk that errs gets no more of them.
    pub(crate) fn may_move(&self) -> bool {
        let is_stopped = |waiting: &Waiting| waiting.intake == Intake::Moves && waiting.failed;
        !self.raw.gave_up.load(Ordering::Acquire) && !self.raw.full.lock().iter().any(is_stopped)
    }

    /// The segments that wait to be sealed and may be, in order. Each of them waits
    /// until [`Segments::sealed`].
    pub(crate) fn full(&self) -> Vec<Waiting> {
        let mut full = self.raw.full.lock().clone();
        full.retain(|waiting| {
            waiting.intake == Intake::Clients || !self.holds.is_written(&waiting.id())
        });
        full
    }

    /// Whether a segment waits to be sealed for the first time, and may be.
    pub(crate) fn has_full(&self) -> bool {
        self.full().iter().any(|waiting| !waiting.failed)
    }

    /// A segment could not be sealed, and is to be tried again. True the first time.
    pub(crate) fn not_sealed(&self, id: &SegmentId) -> bool {
        let mut full = self.raw.full.lock();
        let waiting = full.iter_mut().find(|waiting| waiting.id() == *id);
        waiting.is_some_and(|waiting| !std::mem::replace(&mut waiting.failed, true))
    }

    /// A segment waits no more: its seal is in the log, or it gets none.
    pub(crate) fn sealed(&self, id: &SegmentId) {
        let mut full = self.raw.full.lock();
        full.retain(|waiting| waiting.id() != *id);
    }

    /// Held by the one that seals what waits.
    pub(crate) fn sealing(&self) -> &TaskMutex<()> {
        &self.raw.sealing
    }

    /// Writes a filled segment's footer, durable on return.
    pub(crate) async fn seal(&self, full: &Full, lsn: u64) -> Result<Record> {
        let bytes = full.footer.encode(&full.segment.header, lsn);
        let end = u64::from(full.used).saturating_add(bytes.len() as u64);
        full.segment.file.set_len(end)?;
        let mut buf = self.pool.take_now(bytes.len());
        buf.clear();
        buf.extend(&bytes);
        Arc::clone(&full.segment.file)
            .write_at(u64::from(full.used), buf)
            .await
            .0?;
        full.segment.sync().await?;
        Ok(Record::Seal {
            segment: full.segment.id(),
            used: full.used,
            hash: full.footer.hash(),
        })
    }
}
