//! What the sorted events come to: the state that the log stands for, at its
//! end and where the index ends, one blob, digest and upload after the other.
//!
//! The rules are those of a rebuild ("Rebuild" in docs/format.md). A row of
//! the index is a function of the events up to its watermark, so both states
//! come out of one pass. Knows no files.

use orlop_format::Malformed;
use orlop_format::digest::Digest;
use orlop_format::location::Place;
use orlop_format::record::{Checkpoint, MAX_EXTENTS, UploadId};
use orlop_format::row::{self, Form, State};

use crate::event::{BlobEvent, UploadEvent, split};
use crate::sort::Sorted;
use crate::trouble::Result;

/// Copies of one record that are kept; a store writes two at most.
const MAX_COPIES: usize = 16;

/// A record with payload and its copies.
#[derive(Debug, Default, Clone)]
pub(crate) struct Copies {
    /// All that are known, and whether their payload holds.
    known: Vec<(Place, bool)>,
    /// Those that it may be read from: more than one after an interrupted
    /// pass of recycling.
    pub(crate) places: Vec<Place>,
}

impl Copies {
    fn one(place: Place, good: bool) -> Self {
        Self {
            known: vec![(place, good)],
            places: vec![place],
        }
    }

    fn know(&mut self, place: Place, good: bool) {
        if self.known.len() < MAX_COPIES {
            self.known.push((place, good));
        }
    }

    fn relocate(&mut self, from: &Place, to: Place) {
        if self.places.contains(from) {
            self.places = vec![to];
        }
    }

    /// Whether the payload at a place holds; `None` when no record was found
    /// there.
    pub(crate) fn holds(&self, place: &Place) -> Option<bool> {
        self.known
            .iter()
            .find(|(known, _)| known == place)
            .map(|(_, good)| *good)
    }

    /// The place to read from: one that holds, if any does.
    pub(crate) fn best(&self) -> Option<Place> {
        self.places
            .iter()
            .find(|place| self.holds(place) == Some(true))
            .or(self.places.first())
            .copied()
    }

    /// Whether no copy holds.
    pub(crate) fn lost(&self) -> bool {
        self.best()
            .is_none_or(|best| self.holds(&best) != Some(true))
    }
}

/// Bytes under a good checksum that are not those of a digest.
#[derive(Debug, Clone)]
pub(crate) struct Wrong {
    pub(crate) place: Place,
    pub(crate) wanted: Digest,
    pub(crate) found: Digest,
}

/// A blob.
#[derive(Debug, Clone)]
pub(crate) struct Blob {
    /// As the index would have it. An inline form names one of `copies`.
    pub(crate) row: row::Blob,
    /// Of the record with its bytes, if they lie in one.
    pub(crate) copies: Copies,
    /// Further digests that its commit names.
    pub(crate) further: Vec<Digest>,
    /// What the comparison with its digests found.
    pub(crate) wrong: Vec<Wrong>,
}

impl Blob {
    fn dead(lsn: u64) -> Self {
        Self {
            row: row::Blob {
                state: State::Dead,
                internal: false,
                ordinal: 0,
                size: 0,
                birth: lsn,
                form: Form::Extents(Vec::new()),
            },
            copies: Copies::default(),
            further: Vec::new(),
            wrong: Vec::new(),
        }
    }

    fn apply(state: &mut Option<Self>, lsn: u64, event: BlobEvent) {
        match event {
            BlobEvent::Commit {
                good,
                ordinal,
                size,
                internal,
                form,
                further,
            } => {
                if let Some(blob) = state.as_mut().filter(|blob| blob.row.birth >= lsn) {
                    if let (true, Form::Inline(place)) = (blob.row.birth == lsn, form) {
                        blob.copies.know(place, good);
                        blob.copies.places.push(place);
                        blob.copies.places.truncate(MAX_COPIES);
                    }
                    return;
                }
                let copies = match &form {
                    Form::Inline(place) => Copies::one(*place, good),
                    Form::Extents(_) => Copies::default(),
                };
                *state = Some(Self {
                    row: row::Blob {
                        state: State::Live,
                        internal,
                        ordinal,
                        size,
                        birth: lsn,
                        form,
                    },
                    copies,
                    further,
                    wrong: Vec::new(),
                });
            }
            BlobEvent::Copy { place, good } => {
                if let Some(blob) = state.as_mut().filter(|blob| blob.row.birth == lsn) {
                    blob.copies.know(place, good);
                }
            }
            BlobEvent::Mismatch {
                place,
                wanted,
                found,
            } => {
                if let Some(blob) = state.as_mut().filter(|blob| blob.row.birth == lsn)
                    && blob.wrong.len() < MAX_COPIES
                {
                    blob.wrong.push(Wrong {
                        place,
                        wanted,
                        found,
                    });
                }
            }
            BlobEvent::Tombstone { birth } => {
                if state.as_ref().is_none_or(|blob| blob.row.birth <= birth) {
                    *state = Some(Self::dead(lsn));
                }
            }
            BlobEvent::Quarantine { birth } => {
                if let Some(blob) = state
                    .as_mut()
                    .filter(|blob| blob.row.birth == birth && blob.row.state == State::Live)
                {
                    blob.row.state = State::Quarantined;
                }
            }
            // A move holds only if the bytes still are where it says they were.
            BlobEvent::Move { birth, from, to } => {
                if let Some(blob) = state.as_mut().filter(|blob| blob.row.birth == birth) {
                    blob.copies.relocate(&from, to);
                }
            }
            BlobEvent::Remap { birth, extents } => {
                if let Some(blob) = state
                    .as_mut()
                    .filter(|blob| blob.row.birth == birth && blob.row.state != State::Dead)
                    && let Form::Extents(has) = &mut blob.row.form
                {
                    row::remap(has, &extents);
                }
            }
        }
    }

    /// Lets the row name the best of the copies.
    fn choose(mut self) -> Self {
        if let Some(best) = self.copies.best() {
            self.row.form = Form::Inline(best);
        }
        self
    }
}

/// An upload that may go on.
#[derive(Debug, Clone)]
pub(crate) struct Upload {
    /// As the index would have it. A tail is one of `copies`.
    pub(crate) row: row::Upload,
    /// Of the record with its tail, if it has one.
    pub(crate) copies: Copies,
    /// LSN of its last checkpoint.
    last: u64,
}

impl Upload {
    fn apply(id: &UploadId, state: &mut Option<Self>, lsn: u64, event: UploadEvent) {
        match event {
            UploadEvent::Open { owner, also } => {
                state.get_or_insert_with(|| Self {
                    row: row::Upload {
                        owner,
                        also,
                        tail: None,
                        checkpoint: Checkpoint {
                            upload: *id,
                            offset: 0,
                            extents_before: 0,
                            extents: Vec::new(),
                            hashes: Vec::new(),
                        },
                    },
                    copies: Copies::default(),
                    last: 0,
                });
            }
            UploadEvent::End => *state = None,
            UploadEvent::Checkpoint {
                good,
                place,
                checkpoint,
            } => {
                if let Some(upload) = state {
                    upload.checkpoint(lsn, good, place, checkpoint);
                }
            }
            UploadEvent::Copy { place, good } => {
                if let Some(upload) = state.as_mut().filter(|upload| upload.last == lsn) {
                    upload.copies.know(place, good);
                }
            }
            UploadEvent::Move { from, to } => {
                if let Some(upload) = state {
                    upload.copies.relocate(&from, to);
                }
            }
        }
    }

    fn checkpoint(&mut self, lsn: u64, good: bool, place: Place, checkpoint: Checkpoint) {
        if self.last == lsn {
            if place.payload > 0 {
                self.copies.know(place, good);
                self.copies.places.push(place);
                self.copies.places.truncate(MAX_COPIES);
            }
            return;
        }
        // One that was applied before says nothing.
        let row = &mut self.row.checkpoint;
        let before = checkpoint.extents_before as usize;
        if before != row.extents.len() || checkpoint.offset < row.offset {
            return;
        }
        row.offset = checkpoint.offset;
        row.extents.extend(checkpoint.extents);
        row.extents.truncate(MAX_EXTENTS);
        row.hashes = checkpoint.hashes;
        self.last = lsn;
        self.copies = if place.payload > 0 {
            Copies::one(place, good)
        } else {
            Copies::default()
        };
    }

    fn choose(mut self) -> Self {
        self.row.tail = self.copies.best();
        self
    }
}

/// A state where the index ends and at the end of the log.
#[derive(Debug, Clone)]
pub(crate) struct Folded<T> {
    /// `None` in it: nothing there.
    pub(crate) there: Option<T>,
    pub(crate) end: Option<T>,
}

/// Folds events of one kind, whose keys have `N` bytes.
fn fold<const N: usize, T: Clone>(
    sorted: &mut Sorted,
    watermark: u64,
    mut apply: impl FnMut(&[u8; N], &mut Option<T>, u64, &[u8]) -> std::result::Result<(), Malformed>,
    mut choose: impl FnMut(T) -> T,
    mut visit: impl FnMut([u8; N], Folded<T>) -> Result<()>,
) -> Result<()> {
    let mut current: Option<[u8; N]> = None;
    let mut state: Option<T> = None;
    let mut there: Option<Option<T>> = None;
    loop {
        let item = sorted.next()?;
        // Items were made by this program; one that cannot be read is none.
        let item = item.and_then(|item| split::<N>(item).ok());
        let key = item.as_ref().map(|(key, _, _)| *key);
        if key != current {
            if let Some(done) = current.take() {
                let end = state.take().map(&mut choose);
                let there = match there.take() {
                    Some(there) => there.map(&mut choose),
                    None => end.clone(),
                };
                visit(done, Folded { there, end })?;
            }
            current = key;
        }
        let Some((key, lsn, rest)) = item else {
            return Ok(());
        };
        if lsn > watermark && there.is_none() {
            there = Some(state.clone());
        }
        let _ = apply(&key, &mut state, lsn, rest.rest());
    }
}

/// Every blob that the log names, by SHA-256.
pub(crate) fn blobs(
    sorted: &mut Sorted,
    watermark: u64,
    visit: impl FnMut([u8; 32], Folded<Blob>) -> Result<()>,
) -> Result<()> {
    let apply = |_: &[u8; 32], state: &mut Option<Blob>, lsn: u64, bytes: &[u8]| {
        let event = BlobEvent::decode(&mut orlop_format::codec::Reader::new(bytes))?;
        Blob::apply(state, lsn, event);
        Ok::<(), Malformed>(())
    };
    fold(sorted, watermark, apply, Blob::choose, visit)
}

/// Every upload that the log names, by id.
pub(crate) fn uploads(
    sorted: &mut Sorted,
    watermark: u64,
    mut visit: impl FnMut(UploadId, Folded<Upload>) -> Result<()>,
) -> Result<()> {
    let apply = |id: &[u8; 16], state: &mut Option<Upload>, lsn: u64, bytes: &[u8]| {
        let event = UploadEvent::decode(&mut orlop_format::codec::Reader::new(bytes))?;
        Upload::apply(&UploadId(*id), state, lsn, event);
        Ok::<(), Malformed>(())
    };
    fold(sorted, watermark, apply, Upload::choose, |id, folded| {
        visit(UploadId(id), folded)
    })
}

/// Every further digest that the log names: the SHA-256 that it means where
/// the index ends and at the end.
pub(crate) fn aliases(
    sorted: &mut Sorted,
    watermark: u64,
    mut visit: impl FnMut(Digest, Folded<[u8; 32]>) -> Result<()>,
) -> Result<()> {
    let mut current: Option<(Digest, Folded<[u8; 32]>)> = None;
    loop {
        let item = sorted.next()?.and_then(alias);
        let changed = match (&current, &item) {
            (Some((known, _)), Some((digest, _, _))) => known != digest,
            (known, _) => known.is_some(),
        };
        if changed && let Some((digest, folded)) = current.take() {
            visit(digest, folded)?;
        }
        let Some((digest, lsn, sha256)) = item else {
            return Ok(());
        };
        let nothing = Folded {
            there: None,
            end: None,
        };
        let (_, folded) = current.get_or_insert((digest, nothing));
        folded.end = Some(sha256);
        if lsn <= watermark {
            folded.there = Some(sha256);
        }
    }
}

fn alias(item: &[u8]) -> Option<(Digest, u64, [u8; 32])> {
    let (digest, used) = Digest::decode(item).ok()?;
    let (lsn, sha256) = item.get(used..)?.split_first_chunk::<8>()?;
    Some((digest, u64::from_be_bytes(*lsn), sha256.try_into().ok()?))
}
