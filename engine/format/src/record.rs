//! What the log says: every kind of record and its body.
//!
//! A record is a [`crate::header`], a body (below) and, for some kinds, a
//! payload. Bodies are read only after header and body checksums held, so an
//! error here is damage that a checksum missed or a newer writer.
//! Knows nothing of files or of what a record does to the index.

use crate::Malformed;
pub use crate::checkpoint::{Checkpoint, HashState, MAX_STATE, UploadId};
use crate::checkpoint::{decode_checkpoint, encode_checkpoint};
use crate::codec::{Reader, Writer};
pub use crate::commit::Commit;
use crate::commit::{decode_commit, decode_digest, encode_commit};
use crate::digest::Digest;
pub use crate::hole::Hole;
use crate::hole::{decode_holes, encode_holes};
use crate::location::{Extent, Place, SegmentId};
use crate::remap::{decode_remaps, encode_remaps};

/// Payload up to this many bytes lies in the record itself.
pub const INLINE_LIMIT: usize = 64 * 1024;
/// Most extents of one blob.
pub const MAX_EXTENTS: usize = 16_384;
/// Most bytes of a note.
pub const MAX_NOTE: usize = 64 * 1024;
/// Most bytes of an upload's owner.
pub const MAX_OWNER: usize = 512;
/// Most digests of one blob beside its SHA-256.
pub const MAX_ALIASES: usize = 8;
/// Most moves in one record.
pub const MAX_MOVES: usize = 4096;

/// The kinds of records. The numbers are on disk and are never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Starts a group (see [`crate::group`]).
    Group = 1,
    /// An upload was opened.
    Open = 2,
    /// An upload is durable up to an offset.
    Checkpoint = 3,
    /// An upload ended without a blob.
    Abandon = 4,
    /// A blob is complete.
    Commit = 5,
    /// A blob has one more digest.
    Alias = 6,
    /// A blob is no more.
    Tombstone = 7,
    /// Bytes have a new place.
    Move = 8,
    /// Ranges of a segment are holes from now on.
    Punch = 9,
    /// A segment takes no more.
    Seal = 10,
    /// A collection began.
    CollectBegin = 11,
    /// A collection ended.
    CollectEnd = 12,
    /// A snapshot holds what is here.
    Pin = 13,
    /// Opaque bytes of the layer above.
    Note = 14,
    /// All before this is durable.
    Mark = 15,
    /// A blob's payload is damaged.
    Quarantine = 16,
    /// A copy of the catalog is in the store.
    Copy = 17,
    /// A segment's file is removed.
    Remove = 18,
    /// Extents of a blob have a new place.
    Remap = 19,
    /// Header of a run of an upload's bytes in a raw segment.
    Extent = 32,
    /// End of a sealed segment.
    Footer = 33,
}

impl Kind {
    const ALL: [Kind; 21] = [
        Kind::Group,
        Kind::Open,
        Kind::Checkpoint,
        Kind::Abandon,
        Kind::Commit,
        Kind::Alias,
        Kind::Tombstone,
        Kind::Move,
        Kind::Punch,
        Kind::Seal,
        Kind::CollectBegin,
        Kind::CollectEnd,
        Kind::Pin,
        Kind::Note,
        Kind::Mark,
        Kind::Quarantine,
        Kind::Copy,
        Kind::Remove,
        Kind::Remap,
        Kind::Extent,
        Kind::Footer,
    ];

    /// Its number on disk.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// The kind with this number.
    pub fn from_code(code: u8) -> Result<Self, Malformed> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.code() == code)
            .ok_or(Malformed::Newer("record kind"))
    }
}

/// What a [`Record::Move`] moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moved {
    /// The record of a small blob: its SHA-256 and birth.
    Blob([u8; 32], u64),
    /// The tail of an open upload.
    Upload(UploadId),
}

/// One move of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Relocation {
    /// Whose bytes.
    pub what: Moved,
    /// Where they were; the move holds only if they still are there.
    pub from: Place,
    /// Where they are.
    pub to: Place,
}

/// A record's body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// An upload was opened, by whom and with which digest asked for beside
    /// SHA-256 (0 = none).
    Open {
        /// The upload.
        upload: UploadId,
        /// Opaque name of who may go on with it.
        owner: Vec<u8>,
        /// Algorithm by its number, 0 for none.
        also: u8,
    },
    /// Payload: the bytes behind the last extent, at most
    /// [`INLINE_LIMIT`].
    Checkpoint(Checkpoint),
    /// The upload ended without a blob.
    Abandon {
        /// The upload.
        upload: UploadId,
    },
    /// A blob is complete. Payload: the whole blob, when `extents` is empty.
    Commit(Commit),
    /// A blob has one more digest.
    Alias {
        /// The blob's SHA-256.
        sha256: [u8; 32],
        /// The other digest.
        alias: Digest,
    },
    /// A blob is no more.
    Tombstone {
        /// The blob's SHA-256.
        sha256: [u8; 32],
        /// LSN of the commit that this ends.
        birth: u64,
    },
    /// Records have new places.
    Move(Vec<Relocation>),
    /// A segment takes no more.
    Seal {
        /// The segment.
        segment: SegmentId,
        /// Bytes used, without the footer.
        used: u32,
        /// BLAKE3 over the table of frame checksums.
        hash: [u8; 32],
    },
    /// Every hole that a segment has from now on; nothing refers to a byte in
    /// one.
    Punch {
        /// The segment.
        segment: SegmentId,
        /// In order, apart from each other; at most
        /// [`crate::segment::MAX_FRAMES`].
        holes: Vec<Hole>,
    },
    /// A segment's file is removed: nothing in it matters any more.
    Remove {
        /// The segment.
        segment: SegmentId,
    },
    /// Extents of a blob have new places.
    Remap {
        /// The blob's SHA-256.
        sha256: [u8; 32],
        /// LSN of its commit.
        birth: u64,
        /// What it had, and has instead; at most [`MAX_EXTENTS`].
        extents: Vec<(Extent, Extent)>,
    },
    /// Opaque bytes of the layer above.
    Note(Vec<u8>),
    /// All before this is durable. `clean` at an orderly stop.
    Mark {
        /// Whether the store was closed.
        clean: bool,
    },
    /// The payload of a blob failed its checksum.
    Quarantine {
        /// The blob's SHA-256.
        sha256: [u8; 32],
        /// LSN of the commit whose bytes are damaged.
        birth: u64,
    },
    /// A copy of the catalog is in the store.
    Copy {
        /// The copy, an internal blob.
        sha256: [u8; 32],
        /// Which catalog.
        catalog: [u8; 16],
        /// Its sequence when it was copied.
        sequence: u64,
    },
}

impl Record {
    /// Its kind.
    pub fn kind(&self) -> Kind {
        match self {
            Record::Open { .. } => Kind::Open,
            Record::Checkpoint(_) => Kind::Checkpoint,
            Record::Abandon { .. } => Kind::Abandon,
            Record::Commit(_) => Kind::Commit,
            Record::Alias { .. } => Kind::Alias,
            Record::Tombstone { .. } => Kind::Tombstone,
            Record::Move(_) => Kind::Move,
            Record::Seal { .. } => Kind::Seal,
            Record::Punch { .. } => Kind::Punch,
            Record::Remove { .. } => Kind::Remove,
            Record::Remap { .. } => Kind::Remap,
            Record::Note(_) => Kind::Note,
            Record::Mark { .. } => Kind::Mark,
            Record::Quarantine { .. } => Kind::Quarantine,
            Record::Copy { .. } => Kind::Copy,
        }
    }

    /// Its body.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        match self {
            Record::Open {
                upload,
                owner,
                also,
            } => {
                w.raw(&upload.0).u8(*also).bytes(owner);
            }
            Record::Checkpoint(checkpoint) => encode_checkpoint(checkpoint, &mut w),
            Record::Abandon { upload } => {
                w.raw(&upload.0);
            }
            Record::Commit(commit) => encode_commit(commit, &mut w),
            Record::Alias { sha256, alias } => {
                w.raw(sha256).bytes(&alias.encode());
            }
            Record::Tombstone { sha256, birth } | Record::Quarantine { sha256, birth } => {
                w.raw(sha256).u64(*birth);
            }
            Record::Move(moves) => encode_moves(moves, &mut w),
            Record::Seal {
                segment,
                used,
                hash,
            } => {
                segment.encode(&mut w);
                w.u32(*used).raw(hash);
            }
            Record::Punch { segment, holes } => {
                segment.encode(&mut w);
                encode_holes(holes, &mut w);
            }
            Record::Remove { segment } => segment.encode(&mut w),
            Record::Remap {
                sha256,
                birth,
                extents,
            } => {
                w.raw(sha256).u64(*birth);
                encode_remaps(extents, &mut w);
            }
            Record::Note(note) => {
                w.raw(note);
            }
            Record::Mark { clean } => {
                w.u8(u8::from(*clean));
            }
            Record::Copy {
                sha256,
                catalog,
                sequence,
            } => {
                w.raw(sha256).raw(catalog).u64(*sequence);
            }
        }
        w.finish()
    }

    /// Reads the body of a record of `kind`.
    pub fn decode(kind: Kind, body: &[u8]) -> Result<Self, Malformed> {
        let mut r = Reader::new(body);
        let record = match kind {
            Kind::Open => Record::Open {
                upload: UploadId(r.array()?),
                also: r.u8()?,
                owner: r.bytes(MAX_OWNER)?.to_vec(),
            },
            Kind::Checkpoint => Record::Checkpoint(decode_checkpoint(&mut r)?),
            Kind::Abandon => Record::Abandon {
                upload: UploadId(r.array()?),
            },
            Kind::Commit => Record::Commit(decode_commit(&mut r)?),
            Kind::Alias => Record::Alias {
                sha256: r.array()?,
                alias: decode_digest(&mut r)?,
            },
            Kind::Tombstone => Record::Tombstone {
                sha256: r.array()?,
                birth: r.u64()?,
            },
            Kind::Quarantine => Record::Quarantine {
                sha256: r.array()?,
                birth: r.u64()?,
            },
            Kind::Move => Record::Move(decode_moves(&mut r)?),
            Kind::Seal => Record::Seal {
                segment: SegmentId::decode(&mut r)?,
                used: r.u32()?,
                hash: r.array()?,
            },
            Kind::Punch => Record::Punch {
                segment: SegmentId::decode(&mut r)?,
                holes: decode_holes(&mut r)?,
            },
            Kind::Remove => Record::Remove {
                segment: SegmentId::decode(&mut r)?,
            },
            Kind::Remap => Record::Remap {
                sha256: r.array()?,
                birth: r.u64()?,
                extents: decode_remaps(&mut r)?,
            },
            Kind::Note => {
                let note = r.rest();
                return if note.len() <= MAX_NOTE {
                    Ok(Record::Note(note.to_vec()))
                } else {
                    Err(Malformed::Field("length of a note"))
                };
            }
            Kind::Mark => Record::Mark {
                clean: r.u8()? != 0,
            },
            Kind::Copy => Record::Copy {
                sha256: r.array()?,
                catalog: r.array()?,
                sequence: r.u64()?,
            },
            Kind::Group
            | Kind::CollectBegin
            | Kind::CollectEnd
            | Kind::Pin
            | Kind::Extent
            | Kind::Footer => return Err(Malformed::Newer("record kind")),
        };
        r.end()?;
        Ok(record)
    }
}

fn encode_moves(moves: &[Relocation], w: &mut Writer) {
    w.u32(u32::try_from(moves.len()).unwrap_or(u32::MAX));
    for item in moves {
        match &item.what {
            Moved::Blob(sha256, birth) => w.u8(0).raw(sha256).u64(*birth),
            Moved::Upload(id) => w.u8(1).raw(&id.0),
        };
        item.from.encode(w);
        item.to.encode(w);
    }
}

fn decode_moves(r: &mut Reader<'_>) -> Result<Vec<Relocation>, Malformed> {
    let count = r.u32()? as usize;
    if count > MAX_MOVES {
        return Err(Malformed::Field("count of moves"));
    }
    (0..count)
        .map(|_| {
            let what = match r.u8()? {
                0 => Moved::Blob(r.array()?, r.u64()?),
                1 => Moved::Upload(UploadId(r.array()?)),
                _ => return Err(Malformed::Field("what was moved")),
            };
            Ok(Relocation {
                what,
                from: Place::decode(r)?,
                to: Place::decode(r)?,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Algorithm;
    use crate::location::{Class, Extent, Home};

    fn segment() -> SegmentId {
        SegmentId {
            volume: 0,
            class: Class::Raw,
            generation: 3,
            id: 9,
        }
    }

    fn samples() -> Vec<Record> {
        let upload = UploadId([7; 16]);
        let extent = Extent {
            segment: segment(),
            offset: 8192,
            len: 70_000,
            body: 5,
        };
        let place = Place {
            home: Home::Journal(4),
            offset: 4096,
            prefix: 100,
            payload: 33,
        };
        let to = Place {
            home: Home::Segment(segment()),
            ..place
        };
        vec![
            Record::Open {
                upload,
                owner: b"library/app".to_vec(),
                also: 2,
            },
            Record::Checkpoint(Checkpoint {
                upload,
                offset: 70_010,
                extents_before: 1,
                extents: vec![extent],
                hashes: vec![HashState {
                    algorithm: 1,
                    version: 1,
                    state: vec![1, 2, 3],
                }],
            }),
            Record::Abandon { upload },
            Record::Commit(Commit {
                sha256: [1; 32],
                aliases: vec![Digest::of(Algorithm::Sha512, b"x")],
                ordinal: 12,
                size: 70_000,
                internal: false,
                upload: Some(upload),
                extents: vec![extent],
                note: b"note".to_vec(),
            }),
            Record::Alias {
                sha256: [1; 32],
                alias: Digest::of(Algorithm::Blake3, b"x"),
            },
            Record::Tombstone {
                sha256: [1; 32],
                birth: 5,
            },
            Record::Move(vec![
                Relocation {
                    what: Moved::Blob([1; 32], 5),
                    from: place,
                    to,
                },
                Relocation {
                    what: Moved::Upload(upload),
                    from: place,
                    to,
                },
            ]),
            Record::Seal {
                segment: segment(),
                used: 4096,
                hash: [2; 32],
            },
            Record::Punch {
                segment: segment(),
                holes: vec![
                    Hole {
                        offset: 4096,
                        len: 8192,
                    },
                    Hole {
                        offset: 16_384,
                        len: 4096,
                    },
                ],
            },
            Record::Remove { segment: segment() },
            Record::Remap {
                sha256: [1; 32],
                birth: 5,
                extents: vec![(
                    extent,
                    Extent {
                        offset: 4096,
                        ..extent
                    },
                )],
            },
            Record::Note(b"opaque".to_vec()),
            Record::Mark { clean: true },
            Record::Quarantine {
                sha256: [1; 32],
                birth: 5,
            },
            Record::Copy {
                sha256: [1; 32],
                catalog: [2; 16],
                sequence: 6,
            },
        ]
    }

    #[test]
    fn every_record_comes_back() {
        for record in samples() {
            let body = record.encode();
            assert_eq!(Record::decode(record.kind(), &body), Ok(record.clone()));
            assert_eq!(Kind::from_code(record.kind().code()), Ok(record.kind()));
        }
    }

    #[test]
    fn a_cut_body_is_refused_at_every_length() {
        for record in samples() {
            if matches!(record, Record::Note(_)) {
                continue;
            }
            let body = record.encode();
            for len in 0..body.len() {
                assert!(
                    Record::decode(record.kind(), &body[..len]).is_err(),
                    "{record:?} cut at {len}"
                );
            }
        }
    }

    #[test]
    fn the_largest_commit_fits_a_body() {
        let extent = Extent {
            segment: segment(),
            offset: 0,
            len: 1,
            body: 0,
        };
        let commit = Record::Commit(Commit {
            sha256: [0; 32],
            aliases: vec![Digest::of(Algorithm::Sha512, b""); MAX_ALIASES],
            ordinal: 0,
            size: 0,
            internal: false,
            upload: None,
            extents: vec![extent; MAX_EXTENTS],
            note: vec![0; MAX_NOTE],
        });
        assert!(commit.encode().len() <= crate::header::MAX_BODY as usize);
    }
}
