//! What a record of the log does to one blob, digest or upload, as an item
//! that sorts by whom it concerns and then in the order of the log.
//!
//! That makes replaying bounded: whoever reads the sorted events has all of
//! one blob together and needs no other's state. Knows no files.

use orlop_format::Malformed;
use orlop_format::codec::{Reader, Writer};
use orlop_format::digest::Digest;
use orlop_format::location::{Extent, Place, decode_extents, encode_extents};
use orlop_format::record::{Checkpoint, Kind, MAX_ALIASES, MAX_OWNER, Record};
use orlop_format::remap::{decode_remaps, encode_remaps};
use orlop_format::row::Form;

/// What happened to a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum BlobEvent {
    /// It was committed.
    Commit {
        /// Whether its payload's checksum held, and it has one if it must.
        good: bool,
        ordinal: u64,
        size: u64,
        internal: bool,
        form: Form,
        /// Further digests that the commit names.
        further: Vec<Digest>,
    },
    /// The same record lies here, too.
    Copy { place: Place, good: bool },
    /// The bytes that lie here have another digest than the commit says.
    Mismatch {
        place: Place,
        wanted: Digest,
        found: Digest,
    },
    /// The life that began at this LSN ended.
    Tombstone { birth: u64 },
    /// The bytes of the life that began at this LSN are damaged.
    Quarantine { birth: u64 },
    /// Its record has a new place.
    Move { birth: u64, from: Place, to: Place },
    /// Extents of it have new places.
    Remap {
        birth: u64,
        extents: Vec<(Extent, Extent)>,
    },
}

/// What happened to an upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum UploadEvent {
    /// It became durable.
    Open { owner: Vec<u8>, also: u8 },
    /// It is durable up to an offset; its tail lies in the record.
    Checkpoint {
        good: bool,
        place: Place,
        checkpoint: Checkpoint,
    },
    /// The same record lies here, too.
    Copy { place: Place, good: bool },
    /// It ended.
    End,
    /// The record with its tail has a new place.
    Move { from: Place, to: Place },
}

/// The order among events of one LSN.
fn front(key: &[u8], lsn: u64, rank: u8, sequence: u32) -> Writer {
    let mut w = Writer::new();
    w.raw(key)
        .raw(&lsn.to_be_bytes())
        .u8(rank)
        .raw(&sequence.to_be_bytes());
    w
}

/// Key, LSN and what follows of an item whose key has `N` bytes.
pub(crate) fn split<const N: usize>(item: &[u8]) -> Result<([u8; N], u64, Reader<'_>), Malformed> {
    let mut r = Reader::new(item);
    let key = r.array()?;
    let lsn = u64::from_be_bytes(r.array()?);
    let _rank = r.raw(5)?;
    Ok((key, lsn, r))
}

fn digest(r: &mut Reader<'_>) -> Result<Digest, Malformed> {
    let (digest, _) = Digest::decode(r.bytes(65)?).map_err(|_| Malformed::Field("digest"))?;
    Ok(digest)
}

impl BlobEvent {
    /// The item for the blob with this SHA-256.
    pub(crate) fn item(&self, sha256: &[u8; 32], lsn: u64, sequence: u32) -> Vec<u8> {
        let start = |rank| front(sha256, lsn, rank, sequence);
        let w = match self {
            BlobEvent::Commit {
                good,
                ordinal,
                size,
                internal,
                form,
                further,
            } => {
                // Of two copies of a record the good one counts.
                let mut w = start(u8::from(!good));
                w.u8(1)
                    .u8(u8::from(*good))
                    .u64(*ordinal)
                    .u64(*size)
                    .u8(u8::from(*internal))
                    .u8(u8::try_from(further.len()).unwrap_or(u8::MAX));
                for alias in further {
                    w.bytes(&alias.encode());
                }
                match form {
                    Form::Inline(place) => {
                        w.u8(1);
                        place.encode(&mut w);
                    }
                    Form::Extents(extents) => {
                        w.u8(2);
                        encode_extents(extents, &mut w);
                    }
                }
                w
            }
            BlobEvent::Copy { place, good } => {
                let mut w = start(2);
                w.u8(2).u8(u8::from(*good));
                place.encode(&mut w);
                w
            }
            BlobEvent::Mismatch {
                place,
                wanted,
                found,
            } => {
                let mut w = start(3);
                w.u8(3).bytes(&wanted.encode()).bytes(&found.encode());
                place.encode(&mut w);
                w
            }
            BlobEvent::Tombstone { birth } => {
                let mut w = start(0);
                w.u8(4).u64(*birth);
                w
            }
            BlobEvent::Quarantine { birth } => {
                let mut w = start(0);
                w.u8(5).u64(*birth);
                w
            }
            BlobEvent::Move { birth, from, to } => {
                let mut w = start(0);
                w.u8(6).u64(*birth);
                from.encode(&mut w);
                to.encode(&mut w);
                w
            }
            BlobEvent::Remap { birth, extents } => {
                let mut w = start(0);
                w.u8(7).u64(*birth);
                encode_remaps(extents, &mut w);
                w
            }
        };
        w.finish()
    }

    /// Reads what follows the front of an item.
    pub(crate) fn decode(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(match r.u8()? {
            1 => {
                let (good, ordinal, size, internal) =
                    (r.u8()? != 0, r.u64()?, r.u64()?, r.u8()? != 0);
                let count = usize::from(r.u8()?).min(MAX_ALIASES);
                let further = (0..count).map(|_| digest(r)).collect::<Result<_, _>>()?;
                let form = match r.u8()? {
                    1 => Form::Inline(Place::decode(r)?),
                    _ => Form::Extents(decode_extents(r)?),
                };
                BlobEvent::Commit {
                    good,
                    ordinal,
                    size,
                    internal,
                    form,
                    further,
                }
            }
            2 => BlobEvent::Copy {
                good: r.u8()? != 0,
                place: Place::decode(r)?,
            },
            3 => BlobEvent::Mismatch {
                wanted: digest(r)?,
                found: digest(r)?,
                place: Place::decode(r)?,
            },
            4 => BlobEvent::Tombstone { birth: r.u64()? },
            5 => BlobEvent::Quarantine { birth: r.u64()? },
            6 => BlobEvent::Move {
                birth: r.u64()?,
                from: Place::decode(r)?,
                to: Place::decode(r)?,
            },
            7 => BlobEvent::Remap {
                birth: r.u64()?,
                extents: decode_remaps(r)?,
            },
            _ => return Err(Malformed::Field("event")),
        })
    }
}

impl UploadEvent {
    /// The item for the upload with this id.
    pub(crate) fn item(&self, id: &[u8; 16], lsn: u64, sequence: u32) -> Vec<u8> {
        let start = |rank| front(id, lsn, rank, sequence);
        let w = match self {
            UploadEvent::Open { owner, also } => {
                let mut w = start(0);
                w.u8(1).u8(*also).bytes(owner);
                w
            }
            UploadEvent::Checkpoint {
                good,
                place,
                checkpoint,
            } => {
                let mut w = start(u8::from(!good));
                w.u8(2).u8(u8::from(*good));
                place.encode(&mut w);
                w.raw(&Record::Checkpoint(checkpoint.clone()).encode());
                w
            }
            UploadEvent::Copy { place, good } => {
                let mut w = start(2);
                w.u8(3).u8(u8::from(*good));
                place.encode(&mut w);
                w
            }
            UploadEvent::End => {
                let mut w = start(0);
                w.u8(4);
                w
            }
            UploadEvent::Move { from, to } => {
                let mut w = start(0);
                w.u8(5);
                from.encode(&mut w);
                to.encode(&mut w);
                w
            }
        };
        w.finish()
    }

    /// Reads what follows the front of an item.
    pub(crate) fn decode(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(match r.u8()? {
            1 => UploadEvent::Open {
                also: r.u8()?,
                owner: r.bytes(MAX_OWNER)?.to_vec(),
            },
            2 => {
                let (good, place) = (r.u8()? != 0, Place::decode(r)?);
                match Record::decode(Kind::Checkpoint, r.rest())? {
                    Record::Checkpoint(checkpoint) => UploadEvent::Checkpoint {
                        good,
                        place,
                        checkpoint,
                    },
                    _ => return Err(Malformed::Field("event")),
                }
            }
            3 => UploadEvent::Copy {
                good: r.u8()? != 0,
                place: Place::decode(r)?,
            },
            4 => UploadEvent::End,
            5 => UploadEvent::Move {
                from: Place::decode(r)?,
                to: Place::decode(r)?,
            },
            _ => return Err(Malformed::Field("event")),
        })
    }
}
