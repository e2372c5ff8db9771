//! Scrub: reads what is stored, from the disk and past every cache, at a set
//! rate, and finds what does not hold before somebody needs it.
//!
//! It walks the journal, then the meta, small and raw segments there were when
//! it began, and if asked the content of each blob once more against its
//! digest. Every frame's checksums are verified, and footers against frames.
//! A blob whose damage is proven is put into quarantine, as a read would.
//!
//! Invariants: nothing is called damaged that a second read finds good, that
//! nothing refers to, or that was moved or recycled meanwhile; an error of the
//! disk that passes is told and condemns nothing; each frame is walked once,
//! also over restarts, by the cursor that the caller keeps; memory is bounded
//! by the largest frame and one read.
//!
//! Refuses to know: who uses a blob, when to run.

mod blame;
mod cursor;
mod digest;
mod groups;
mod inspect;
mod read;
mod walk;

use std::sync::Arc;

use orlop_disk::Pool;
use orlop_format::BLOCK;
use orlop_format::digest::Digest;
use orlop_format::location::{Class, SegmentId};
use orlop_format::row::{self, State};
use orlop_index::Table;
use std::ops::ControlFlow;

use crate::core::Core;
use crate::error::{Error, Invalid, Result};
use crate::inventory::is_needed;
use crate::view::unreadable;
use blame::Blame;
use cursor::{Cursor, Stage};
use digest::Hashing;
use inspect::Inspector;
use walk::{Ends, Walk};

/// What kind of thing was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FindingCode {
    /// Bytes of a blob are damaged or cannot be read.
    Blob,
    /// A blob's bytes hold by their checksums and are not those of its digest.
    Digest,
    /// Bytes of an upload under way are damaged: its client has to begin again.
    Upload,
    /// A header of a group or record: pulls go on, but a start or a rebuild
    /// that needs it would be refused.
    Group,
    /// The footer of a sealed segment.
    Footer,
    /// A segment's file: it is missing, cannot be opened or is short, or its first
    /// block does not hold.
    Segment,
    /// A read failed, or gave other bytes, and was good when done again.
    ReadError,
}

impl FindingCode {
    /// Every code.
    pub const ALL: [FindingCode; 7] = [
        FindingCode::Blob,
        FindingCode::Digest,
        FindingCode::Upload,
        FindingCode::Group,
        FindingCode::Footer,
        FindingCode::Segment,
        FindingCode::ReadError,
    ];

    /// Its stable name.
    pub fn name(self) -> &'static str {
        match self {
            FindingCode::Blob => "blob",
            FindingCode::Digest => "digest",
            FindingCode::Upload => "upload",
            FindingCode::Group => "group",
            FindingCode::Footer => "footer",
            FindingCode::Segment => "segment",
            FindingCode::ReadError => "read-error",
        }
    }
}

/// Something that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What kind of thing.
    pub code: FindingCode,
    /// The file, below the data folder.
    pub file: String,
    /// Where in it, bytes.
    pub offset: u64,
    /// The blob, where it is one that is damaged.
    pub blob: Option<Digest>,
    /// Whether the blob was put into quarantine for this; false when it is in
    /// there already.
    pub quarantined: bool,
    /// What is wrong with it.
    pub reason: String,
}

/// How far a scrub is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScrubPosition {
    /// Bytes that were walked.
    pub done: u64,
    /// Bytes there are to walk; an estimate until the end.
    pub total: u64,
    /// Extents and groups that were verified.
    pub frames: u64,
    /// Findings so far.
    pub findings: u64,
}

/// What is being read.
enum At {
    /// Nothing: the cursor says what is next.
    Between,
    Walk(Box<Walk>),
    Blame(Box<Blame>),
    Digest(Box<Hashing>),
}

/// A scrub under way: called again and again until it is done, and dropped to
/// cancel it.
pub struct Scrub {
    inspector: Inspector,
    digests: bool,
    cursor: Cursor,
    /// The cursor from which what is under suspicion is found again.
    safe: Option<Cursor>,
    at: At,
}

impl std::fmt::Debug for Scrub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scrub")
            .field("cursor", &self.cursor)
            .finish_non_exhaustive()
    }
}

impl Scrub {
    /// A scrub that goes on where `cursor` says, or begins.
    pub(crate) async fn start(
        core: &Arc<Core>,
        digests: bool,
        cursor: Option<&[u8]>,
    ) -> Result<Self> {
        let cursor = match cursor {
            Some(bytes) => Cursor::decode(bytes).map_err(|error| {
                let what = format!("the cursor of a scrub cannot be read: {error}; begin again");
                Error::from(Invalid::Folder(what))
            })?,
            None => {
                let below = core.segments.next_id();
                // Everything up to this record is durable.
                let last_lsn = core.index.watermark()?;
                let total = estimate(core, below, digests)?;
                Cursor::begin(below, last_lsn, total)
            }
        };
        let store = core.superblock.lock().await.get().store;
        Ok(Self {
            inspector: Inspector::new(Arc::clone(core), Pool::new(BLOCK), store),
            digests,
            cursor,
            safe: None,
            at: At::Between,
        })
    }

    /// Verifies the next frame. None: all is done.
    ///
    /// # Errors
    /// When something cannot be read for a reason that says nothing about the
    /// bytes, or so much cannot be read that the device is at fault. The cursor
    /// stays where it was: a later scrub goes on from it.
    pub async fn step(&mut self) -> Result<Option<Vec<Finding>>> {
        if self.inspector.core.closing() {
            return Err(Error::Cancelled);
        }
        // What fails is begun again from the cursor.
        self.at = match std::mem::replace(&mut self.at, At::Between) {
            At::Between if self.cursor.stage == Stage::End => return Ok(None),
            At::Between => self.next().await?,
            At::Walk(walk) => self.walk(walk).await?,
            At::Blame(mut blame) => {
                if blame.step(&mut self.inspector).await? {
                    At::Blame(blame)
                } else {
                    self.safe = None;
                    At::Between
                }
            }
            At::Digest(mut hashing) => {
                self.count(hashing.len(), 1);
                if hashing.step(&mut self.inspector).await? {
                    At::Digest(hashing)
                } else {
                    self.cursor.key = Some(hashing.sha256);
                    self.safe = None;
                    At::Between
                }
            }
        };
        let found = std::mem::take(&mut self.inspector.found);
        let count = found.len() as u64;
        self.cursor.findings = self.cursor.findings.saturating_add(count);
        if self.cursor.stage == Stage::End {
            self.cursor.total = self.cursor.done;
        }
        Ok(Some(found))
    }

    /// What a step that failed had found by then.
    pub fn take_findings(&mut self) -> Vec<Finding> {
        std::mem::take(&mut self.inspector.found)
    }

    /// Where it is: handed to a later [`crate::Store::scrub`] it goes on there.
    pub fn cursor(&self) -> Vec<u8> {
        self.safe.as_ref().unwrap_or(&self.cursor).encode()
    }

    /// How far it is.
    pub fn position(&self) -> ScrubPosition {
        ScrubPosition {
            done: self.cursor.done,
            total: self.cursor.total.max(self.cursor.done),
            frames: self.cursor.frames,
            findings: self.cursor.findings,
        }
    }

    fn count(&mut self, bytes: u64, frames: u64) {
        self.cursor.done = self.cursor.done.saturating_add(bytes);
        self.cursor.frames = self.cursor.frames.saturating_add(frames);
        self.inspector.core.metrics.scrub_frames(frames);
    }

    /// One frame of a file, or its end.
    async fn walk(&mut self, mut walk: Box<Walk>) -> Result<At> {
        let (before, at) = (self.cursor, walk.offset());
        let frames = walk.frames();
        let more = walk.step(&mut self.inspector).await?;
        if self.safe.is_none() && walk.is_suspicious() {
            self.safe = Some(before);
        }
        let (bytes, frames) = (
            walk.offset().saturating_sub(at),
            walk.frames().saturating_sub(frames),
        );
        self.count(bytes, frames);
        self.cursor.offset = walk.offset();
        if more {
            return Ok(At::Walk(walk));
        }
        match walk.ends() {
            Ends::File => self.cursor.turn_file(walk.number()),
            Ends::Stage => self.turn(),
        }
        Ok(match walk.into_blame() {
            Some(blame) => At::Blame(Box::new(blame)),
            None => {
                self.safe = None;
                At::Between
            }
        })
    }

    fn turn(&mut self) {
        self.cursor.turn();
        if self.cursor.stage == Stage::Digests && !self.digests {
            self.cursor.turn();
        }
    }

    /// Opens what the cursor says is next.
    async fn next(&mut self) -> Result<At> {
        let opened = match self.cursor.stage {
            Stage::End => None,
            Stage::Journal => {
                let walk = Walk::journal(&self.inspector, &self.cursor);
                if let Some(walk) = &walk {
                    (self.cursor.file, self.cursor.offset) = (walk.number(), walk.offset());
                }
                walk
            }
            Stage::Segments(class) => match self.next_segment(class)? {
                None => None,
                Some(id) => {
                    if id.id != self.cursor.file {
                        self.cursor.offset = 0;
                    }
                    self.cursor.file = id.id;
                    let offset = self.cursor.offset;
                    let walk = Walk::segment(&mut self.inspector, &id, offset).await?;
                    if walk.is_none() {
                        self.cursor.turn_file(id.id);
                        return Ok(At::Between);
                    }
                    walk
                }
            },
            Stage::Digests => {
                return Ok(
                    match Hashing::next(&self.inspector, &mut self.cursor.key)? {
                        Some(hashing) => {
                            // A blob is read from its first byte or not at all.
                            self.safe = Some(self.cursor);
                            At::Digest(Box::new(hashing))
                        }
                        None if self.cursor.key == Some([0xff; 32]) => {
                            self.turn();
                            At::Between
                        }
                        None => At::Between,
                    },
                );
            }
        };
        Ok(match opened {
            Some(walk) => At::Walk(Box::new(walk)),
            None => {
                self.turn();
                At::Between
            }
        })
    }

    /// The first segment of a class at or behind the cursor: one that is there,
    /// or one that the index says must be.
    fn next_segment(&self, class: Class) -> Result<Option<SegmentId>> {
        let core = &self.inspector.core;
        let is_next = |id: &SegmentId| (self.cursor.file..self.cursor.below).contains(&id.id);
        let listed = core.segments.list(class)?.into_iter().filter(is_next);
        let listed = listed.min_by_key(|id| id.id);
        let mut known = None;
        let from = row::Segment::key(class, self.cursor.file);
        let mut failed = Ok(());
        core.index.scan(Table::Segment, &from, &mut |_, value| {
            match row::Segment::decode(value) {
                Ok(row) if row.segment.class != class => return ControlFlow::Break(()),
                Ok(row) if !is_needed(&row) => return ControlFlow::Continue(()),
                Ok(row) => known = Some(row.segment),
                Err(error) => failed = Err(unreadable(Table::Segment, error)),
            }
            ControlFlow::Break(())
        })?;
        failed?;
        let known = known.filter(is_next);
        Ok(listed.into_iter().chain(known).min_by_key(|id| id.id))
    }
}

/// Bytes that there are to walk, about.
fn estimate(core: &Core, below: u64, digests: bool) -> Result<u64> {
    let mut total = 0u64;
    for file in core.files.all() {
        total = total.saturating_add(u64::from(file.header.previous_end));
    }
    core.index.scan(Table::Segment, &[], &mut |_, value| {
        if let Ok(row) = row::Segment::decode(value)
            && row.segment.id < below
        {
            let again = if digests { row.live } else { 0 };
            total = total.saturating_add(row.used).saturating_add(again);
        }
        ControlFlow::Continue(())
    })?;
    Ok(total)
}

/// Whether a row stands for bytes that somebody may ask for.
fn is_wanted(row: &row::Blob) -> bool {
    row.state != State::Dead
}
