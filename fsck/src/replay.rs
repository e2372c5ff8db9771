//! What the log says when it is replayed: blobs, digests, uploads, seals.
//!
//! The order is that of a rebuild: records of small and meta segments up to the
//! recycled LSN, in order of LSN, then the journal from there. All of it is in
//! memory, about 200 bytes a blob. Knows no files.

use std::collections::BTreeMap;

use orlop_format::digest::Digest;
use orlop_format::location::{Extent, Place, SegmentId};
use orlop_format::record::{Checkpoint, Commit, Moved, Record, Relocation, UploadId};

use crate::journal::Item;

/// Whether a blob can be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Life {
    Live,
    Quarantined,
    Dead,
}

/// Where a blob's bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Form {
    Inline(Place),
    Extents(Vec<Extent>),
}

/// A blob.
#[derive(Debug)]
pub(crate) struct Blob {
    pub(crate) life: Life,
    /// LSN of its commit, or of the tombstone that ended it.
    pub(crate) birth: u64,
    pub(crate) size: u64,
    pub(crate) form: Form,
}

/// An upload that may go on.
#[derive(Debug, Default)]
pub(crate) struct Upload {
    pub(crate) offset: u64,
    pub(crate) extents: Vec<Extent>,
    pub(crate) tail: Option<Place>,
}

/// What the log says of a sealed segment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seal {
    pub(crate) used: u32,
    pub(crate) hash: [u8; 32],
}

/// The state that the log stands for.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) blobs: BTreeMap<[u8; 32], Blob>,
    /// Further digests and the SHA-256 they mean.
    pub(crate) aliases: BTreeMap<Digest, [u8; 32]>,
    pub(crate) uploads: BTreeMap<UploadId, Upload>,
    pub(crate) seals: BTreeMap<SegmentId, Seal>,
}

/// Replays the log.
pub(crate) fn replay(mut segments: Vec<Item>, journal: Vec<Item>, recycled: u64) -> State {
    segments.retain(|item| item.lsn <= recycled);
    // Of two copies of a record the good one counts.
    segments.sort_by_key(|item| (item.lsn, !item.good));
    segments.dedup_by_key(|item| item.lsn);
    let mut state = State::default();
    for item in segments
        .into_iter()
        .chain(journal.into_iter().filter(|item| item.lsn > recycled))
    {
        state.apply(item);
    }
    state
}

impl State {
    fn apply(&mut self, item: Item) {
        let Item {
            lsn, place, record, ..
        } = item;
        match record {
            Record::Open { upload, .. } => {
                self.uploads.entry(upload).or_default();
            }
            Record::Checkpoint(checkpoint) => self.checkpoint(checkpoint, place),
            Record::Abandon { upload } => {
                self.uploads.remove(&upload);
            }
            Record::Commit(commit) => self.commit(lsn, commit, place),
            Record::Alias { sha256, alias } => {
                self.aliases.insert(alias, sha256);
            }
            Record::Tombstone { sha256, birth } => {
                if self
                    .blobs
                    .get(&sha256)
                    .is_none_or(|blob| blob.birth <= birth)
                {
                    let form = Form::Extents(Vec::new());
                    self.blobs.insert(
                        sha256,
                        Blob {
                            life: Life::Dead,
                            birth: lsn,
                            size: 0,
                            form,
                        },
                    );
                }
            }
            Record::Move(moves) => moves.iter().for_each(|item| self.relocate(item)),
            Record::Seal {
                segment,
                used,
                hash,
            } => {
                self.seals.insert(segment, Seal { used, hash });
            }
            Record::Quarantine { sha256, birth } => {
                if let Some(blob) = self.blobs.get_mut(&sha256)
                    && blob.birth == birth
                    && blob.life == Life::Live
                {
                    blob.life = Life::Quarantined;
                }
            }
            Record::Note(_) | Record::Mark { .. } | Record::Copy { .. } => {}
        }
    }

    fn checkpoint(&mut self, checkpoint: Checkpoint, place: Place) {
        // One of an upload that is unknown or was applied before says nothing.
        let Some(upload) = self.uploads.get_mut(&checkpoint.upload) else {
            return;
        };
        if checkpoint.extents_before as usize != upload.extents.len()
            || checkpoint.offset < upload.offset
        {
            return;
        }
        upload.offset = checkpoint.offset;
        upload.extents.extend(checkpoint.extents);
        upload.tail = (place.payload > 0).then_some(place);
    }

    fn commit(&mut self, lsn: u64, commit: Commit, place: Place) {
        if let Some(upload) = commit.upload {
            self.uploads.remove(&upload);
        }
        if self
            .blobs
            .get(&commit.sha256)
            .is_some_and(|blob| blob.birth >= lsn)
        {
            return;
        }
        let form = if commit.extents.is_empty() {
            Form::Inline(place)
        } else {
            Form::Extents(commit.extents)
        };
        let blob = Blob {
            life: Life::Live,
            birth: lsn,
            size: commit.size,
            form,
        };
        self.blobs.insert(commit.sha256, blob);
        for alias in commit.aliases {
            self.aliases.insert(alias, commit.sha256);
        }
    }

    /// A move holds only if the bytes still are where it says they were.
    fn relocate(&mut self, item: &Relocation) {
        match &item.what {
            Moved::Blob(sha256, birth) => {
                if let Some(blob) = self.blobs.get_mut(sha256)
                    && blob.birth == *birth
                    && blob.form == Form::Inline(item.from)
                {
                    blob.form = Form::Inline(item.to);
                }
            }
            Moved::Upload(id) => {
                if let Some(upload) = self.uploads.get_mut(id)
                    && upload.tail == Some(item.from)
                {
                    upload.tail = Some(item.to);
                }
            }
        }
    }
}

impl crate::catalog::blobs::Blobs for State {
    fn find(
        &self,
        digest: &Digest,
    ) -> crate::finding::Result<Option<crate::catalog::blobs::Known>> {
        use crate::catalog::blobs::{At, Known, Life as Is};
        let sha256 = match digest.algorithm() {
            orlop_format::digest::Algorithm::Sha256 => digest.bytes().try_into().ok(),
            _ => self.aliases.get(digest).copied(),
        };
        let known = sha256.and_then(|sha256: [u8; 32]| {
            let blob = self.blobs.get(&sha256)?;
            Some(Known {
                sha256,
                life: match blob.life {
                    Life::Live => Is::Live,
                    Life::Quarantined => Is::Quarantined,
                    Life::Dead => Is::Dead,
                },
                birth: blob.birth,
                size: blob.size,
                at: match &blob.form {
                    Form::Inline(place) => At::Record(*place),
                    Form::Extents(extents) => At::Extents(extents.clone()),
                },
            })
        });
        Ok(known)
    }
}
