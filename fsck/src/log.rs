//! Takes the records of the log as they are read, in any order, and sorts what
//! they say. What there are few of (segments, copies of the catalog) is kept
//! here as it is.
//!
//! Which records count is the rule of a rebuild: those of small and meta
//! segments up to the recycled LSN, and the journal's from there on.

use std::collections::BTreeMap;

use orlop_format::Malformed;
use orlop_format::group::Entry;
use orlop_format::location::{Home, Place, SegmentId};
use orlop_format::record::{Commit, Moved, Record};
use orlop_format::row::{self, Form};

use crate::content::{Crew, Mismatch, Small};
use crate::event::{BlobEvent, UploadEvent};
use crate::file::Source;
use crate::finding::{Code, Object};
use crate::options::{Choice, Position};
use crate::release::Released;
use crate::report::Report;
use crate::scratch::Scratch;
use crate::sort::Sorter;
use crate::trouble::{Result, Trouble};

/// Memory for events of blobs, bytes.
const BLOBS: usize = 40 << 20;
/// Memory for further digests and for uploads, each, bytes.
const OTHERS: usize = 8 << 20;
/// Copies of the catalog that count.
const COPIES: usize = 2;

/// What the log says of a sealed segment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seal {
    pub(crate) lsn: u64,
    pub(crate) used: u32,
    pub(crate) hash: [u8; 32],
}

/// What the log says of names, at some point of it.
#[derive(Debug, Default, Clone)]
pub(crate) struct Names {
    /// LSN of the last note.
    pub(crate) notes: u64,
    /// The newest copies of the catalog, the newest last.
    pub(crate) copies: Vec<row::Copy>,
    /// One above the highest ordinal.
    pub(crate) next_ordinal: u64,
}

impl Names {
    fn copy(&mut self, copy: row::Copy) {
        if self.copies.iter().any(|known| known.lsn == copy.lsn) {
            return;
        }
        self.copies.push(copy);
        self.copies.sort_by_key(|copy| copy.lsn);
        let extra = self.copies.len().saturating_sub(COPIES);
        self.copies.drain(..extra);
    }
}

/// The log, sorted by whom its records concern.
#[derive(Debug)]
pub(crate) struct Log {
    pub(crate) blobs: Sorter,
    pub(crate) aliases: Sorter,
    pub(crate) uploads: Sorter,
    pub(crate) seals: BTreeMap<SegmentId, Seal>,
    pub(crate) released: Released,
    /// At the end.
    pub(crate) names: Names,
    /// Where the index ends.
    pub(crate) names_there: Names,
    pub(crate) choice: Choice,
    pub(crate) crew: Crew,
    recycled: u64,
    watermark: u64,
    /// LSN of the last record.
    pub(crate) end: u64,
    /// Whether the last record says that the store was closed in order.
    pub(crate) closed: bool,
}

impl Log {
    /// An empty log of a store that recycled records up to `recycled`, whose
    /// index has reached `watermark`.
    pub(crate) fn new(
        scratch: &Scratch,
        choice: Choice,
        crew: Crew,
        recycled: u64,
        watermark: u64,
    ) -> Self {
        Self {
            blobs: Sorter::new(scratch, BLOBS),
            aliases: Sorter::new(scratch, OTHERS),
            uploads: Sorter::new(scratch, OTHERS),
            seals: BTreeMap::new(),
            released: Released::default(),
            names: Names::default(),
            names_there: Names::default(),
            choice,
            crew,
            recycled,
            watermark,
            end: recycled,
            closed: false,
        }
    }

    /// Takes a record. Damage that a checksum missed is a finding, a newer
    /// kind ends the check.
    pub(crate) fn take(
        &mut self,
        entry: &Entry<'_>,
        source: &Source,
        report: &mut Report,
    ) -> Result<()> {
        let record = match entry.record() {
            Ok(record) => record,
            Err(Malformed::Newer(what)) => {
                let offset = entry.place.offset;
                return Err(Trouble::Newer(format!(
                    "the {what} in {} at {offset}",
                    source.path().display()
                )));
            }
            Err(error) => {
                let object = Object::file(source.name()).at(entry.place.offset);
                let expected = format!("a body of kind {:?}", entry.kind);
                report.find(Code::RecordBody, object, expected, error);
                return Ok(());
            }
        };
        report.counts.records = report.counts.records.saturating_add(1);
        let segment = matches!(entry.place.home, Home::Segment(_));
        match (segment, entry.lsn <= self.recycled) {
            (true, true) => self.apply(entry, record),
            (false, false) => {
                self.end = self.end.max(entry.lsn);
                self.closed = matches!(record, Record::Mark { clean: true });
                self.apply(entry, record)
            }
            // A copy of a record that the journal still has, or the other way
            // round: moves may point at it.
            _ => self.copy(entry, &record),
        }
    }

    fn blob(
        &mut self,
        sha256: &[u8; 32],
        lsn: u64,
        sequence: u32,
        event: &BlobEvent,
    ) -> Result<()> {
        self.blobs.push(&event.item(sha256, lsn, sequence))
    }

    fn upload(
        &mut self,
        id: &[u8; 16],
        lsn: u64,
        sequence: u32,
        event: &UploadEvent,
    ) -> Result<()> {
        self.uploads.push(&event.item(id, lsn, sequence))
    }

    /// Does something to the names at the end, and to those where the index
    /// ends if that is not before.
    fn name(&mut self, lsn: u64, change: impl Fn(&mut Names)) {
        change(&mut self.names);
        if lsn <= self.watermark {
            change(&mut self.names_there);
        }
    }

    fn noted(&mut self, lsn: u64) {
        self.name(lsn, |names| names.notes = names.notes.max(lsn));
    }

    fn apply(&mut self, entry: &Entry<'_>, record: Record) -> Result<()> {
        let (lsn, place) = (entry.lsn, entry.place);
        match record {
            Record::Open {
                upload,
                owner,
                also,
            } => self.upload(&upload.0, lsn, 0, &UploadEvent::Open { owner, also }),
            Record::Checkpoint(checkpoint) => {
                let id = checkpoint.upload.0;
                let event = UploadEvent::Checkpoint {
                    good: entry.payload_good,
                    place,
                    checkpoint,
                };
                self.upload(&id, lsn, 0, &event)
            }
            Record::Abandon { upload } => self.upload(&upload.0, lsn, 0, &UploadEvent::End),
            Record::Commit(commit) => self.commit(entry, commit),
            Record::Alias { sha256, alias } => self.alias(lsn, &alias.encode(), &sha256),
            Record::Tombstone { sha256, birth } => {
                self.blob(&sha256, lsn, 0, &BlobEvent::Tombstone { birth })
            }
            Record::Quarantine { sha256, birth } => {
                self.blob(&sha256, lsn, 0, &BlobEvent::Quarantine { birth })
            }
            Record::Move(moves) => {
                for (sequence, item) in (0..).zip(moves) {
                    let (from, to) = (item.from, item.to);
                    match item.what {
                        Moved::Blob(sha256, birth) => {
                            let event = BlobEvent::Move { birth, from, to };
                            self.blob(&sha256, lsn, sequence, &event)?;
                        }
                        Moved::Upload(id) => {
                            self.upload(&id.0, lsn, sequence, &UploadEvent::Move { from, to })?;
                        }
                    }
                }
                Ok(())
            }
            Record::Seal {
                segment,
                used,
                hash,
            } => {
                self.seals.insert(segment, Seal { lsn, used, hash });
                Ok(())
            }
            Record::Punch { segment, holes } => {
                self.released.punch(segment, lsn, holes, self.watermark);
                Ok(())
            }
            Record::Remove { segment } => {
                self.released.remove(segment, lsn);
                Ok(())
            }
            Record::Remap {
                sha256,
                birth,
                extents,
            } => self.blob(&sha256, lsn, 0, &BlobEvent::Remap { birth, extents }),
            Record::Note(_) => {
                self.noted(lsn);
                Ok(())
            }
            Record::Mark { .. } => Ok(()),
            Record::Copy {
                sha256,
                catalog,
                sequence,
            } => {
                let copy = row::Copy {
                    sha256,
                    catalog,
                    sequence,
                    lsn,
                };
                self.name(lsn, |names| names.copy(copy));
                Ok(())
            }
        }
    }

    fn alias(&mut self, lsn: u64, alias: &[u8], sha256: &[u8; 32]) -> Result<()> {
        let item = [alias, &lsn.to_be_bytes(), sha256].concat();
        self.aliases.push(&item)
    }

    fn commit(&mut self, entry: &Entry<'_>, commit: Commit) -> Result<()> {
        let lsn = entry.lsn;
        if let Some(upload) = &commit.upload {
            self.upload(&upload.0, lsn, 0, &UploadEvent::End)?;
        }
        if !commit.note.is_empty() {
            self.noted(lsn);
        }
        let next = commit.ordinal.saturating_add(1);
        self.name(lsn, |names| {
            names.next_ordinal = names.next_ordinal.max(next)
        });
        for alias in &commit.aliases {
            self.alias(lsn, &alias.encode(), &commit.sha256)?;
        }
        let good = whole(entry, &commit);
        self.hash(entry, &commit)?;
        let form = if commit.extents.is_empty() {
            Form::Inline(entry.place)
        } else {
            Form::Extents(commit.extents)
        };
        let event = BlobEvent::Commit {
            good,
            ordinal: commit.ordinal,
            size: commit.size,
            internal: commit.internal,
            form,
            further: commit.aliases,
        };
        self.blob(&commit.sha256, lsn, 0, &event)
    }

    fn copy(&mut self, entry: &Entry<'_>, record: &Record) -> Result<()> {
        let place = entry.place;
        match record {
            Record::Commit(commit) if commit.extents.is_empty() => {
                self.hash(entry, commit)?;
                let good = whole(entry, commit);
                self.blob(
                    &commit.sha256,
                    entry.lsn,
                    0,
                    &BlobEvent::Copy { place, good },
                )
            }
            Record::Checkpoint(checkpoint) => {
                let good = entry.payload_good;
                let event = UploadEvent::Copy { place, good };
                self.upload(&checkpoint.upload.0, entry.lsn, 0, &event)
            }
            _ => Ok(()),
        }
    }

    /// Has the bytes of a small blob compared with its digests while they are
    /// at hand.
    fn hash(&mut self, entry: &Entry<'_>, commit: &Commit) -> Result<()> {
        let position = Position::new(entry.place.home, u64::from(entry.place.offset));
        if !commit.extents.is_empty()
            || !whole(entry, commit)
            || !self.choice.chosen(&commit.sha256)
            || !self.choice.due(&position)
        {
            return Ok(());
        }
        let small = Small {
            sha256: commit.sha256,
            lsn: entry.lsn,
            place: entry.place,
            further: commit.aliases.clone(),
        };
        self.crew.small(small, entry.payload)?;
        self.mismatches()
    }

    fn mismatches(&mut self) -> Result<()> {
        for mismatch in self.crew.mismatches() {
            let Mismatch {
                small,
                wanted,
                found,
            } = mismatch;
            let place = small.place;
            let event = BlobEvent::Mismatch {
                place,
                wanted,
                found,
            };
            self.blob(&small.sha256, small.lsn, 0, &event)?;
        }
        Ok(())
    }

    /// Waits for the comparisons that are under way.
    pub(crate) fn settle(&mut self) -> Result<()> {
        self.crew.settle()?;
        self.mismatches()
    }
}

/// Whether a commit's bytes are there as its record says.
fn whole(entry: &Entry<'_>, commit: &Commit) -> bool {
    let there = |place: &Place| u64::from(place.payload) == commit.size;
    !commit.extents.is_empty() || (entry.payload_good && there(&entry.place))
}
