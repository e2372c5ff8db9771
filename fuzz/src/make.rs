//! Values of the byte format, made of arbitrary bytes within the bounds that
//! their writers keep.

use arbitrary::{Result, Unstructured};
use orlop_format::digest::{Algorithm, Digest};
use orlop_format::location::{Class, Extent, Home, Place, SegmentId};
use orlop_format::record::{
    Checkpoint, Commit, HashState, Hole, MAX_ALIASES, Moved, Record, Relocation, UploadId,
};

/// Most entries of a list that is made.
const MANY: usize = 6;

pub(crate) fn list<T>(
    u: &mut Unstructured<'_>,
    most: usize,
    mut one: impl FnMut(&mut Unstructured<'_>) -> Result<T>,
) -> Result<Vec<T>> {
    let count = u.int_in_range(0..=most)?;
    (0..count).map(|_| one(u)).collect()
}

pub(crate) fn bytes(u: &mut Unstructured<'_>, most: usize) -> Result<Vec<u8>> {
    let len = u.int_in_range(0..=most)?.min(u.len());
    Ok(u.bytes(len)?.to_vec())
}

pub(crate) fn upload(u: &mut Unstructured<'_>) -> Result<UploadId> {
    Ok(UploadId(u.arbitrary()?))
}

pub(crate) fn segment(u: &mut Unstructured<'_>) -> Result<SegmentId> {
    Ok(SegmentId {
        volume: u.arbitrary()?,
        class: *u.choose(&Class::ALL)?,
        generation: u.arbitrary()?,
        id: u.arbitrary()?,
    })
}

pub(crate) fn place(u: &mut Unstructured<'_>) -> Result<Place> {
    let home = if u.arbitrary()? {
        Home::Journal(u.arbitrary()?)
    } else {
        Home::Segment(segment(u)?)
    };
    Ok(Place {
        home,
        offset: u.arbitrary()?,
        prefix: u.arbitrary()?,
        payload: u.arbitrary()?,
    })
}

pub(crate) fn extent(u: &mut Unstructured<'_>) -> Result<Extent> {
    Ok(Extent {
        segment: segment(u)?,
        offset: u.arbitrary()?,
        len: u.arbitrary()?,
        body: u.arbitrary()?,
    })
}

pub(crate) fn digest(u: &mut Unstructured<'_>) -> Result<Digest> {
    let algorithm = *u.choose(&Algorithm::ALL)?;
    let bytes: [u8; 64] = u.arbitrary()?;
    Ok(Digest::new(algorithm, &bytes[..algorithm.digest_len()]).unwrap())
}

pub(crate) fn checkpoint(u: &mut Unstructured<'_>) -> Result<Checkpoint> {
    Ok(Checkpoint {
        upload: upload(u)?,
        offset: u.arbitrary()?,
        extents_before: u.arbitrary()?,
        extents: list(u, MANY, extent)?,
        hashes: list(u, 3, |u| {
            Ok(HashState {
                algorithm: u.arbitrary()?,
                version: u.arbitrary()?,
                state: bytes(u, 256)?,
            })
        })?,
    })
}

fn commit(u: &mut Unstructured<'_>) -> Result<Commit> {
    Ok(Commit {
        sha256: u.arbitrary()?,
        aliases: list(u, MAX_ALIASES, digest)?,
        ordinal: u.arbitrary()?,
        size: u.arbitrary()?,
        internal: u.arbitrary()?,
        upload: if u.arbitrary()? {
            Some(upload(u)?)
        } else {
            None
        },
        extents: list(u, MANY, extent)?,
        note: bytes(u, 300)?,
    })
}

fn relocation(u: &mut Unstructured<'_>) -> Result<Relocation> {
    let what = if u.arbitrary()? {
        Moved::Blob(u.arbitrary()?, u.arbitrary()?)
    } else {
        Moved::Upload(upload(u)?)
    };
    Ok(Relocation {
        what,
        from: place(u)?,
        to: place(u)?,
    })
}

/// Holes in order, at least a block apart.
pub(crate) fn holes(u: &mut Unstructured<'_>) -> Result<Vec<Hole>> {
    let mut behind = 4096u32;
    list(u, MANY, |u| {
        let offset = behind + u.int_in_range(0..=1000)? * 4096;
        let len = u.int_in_range(1..=1000)? * 4096;
        behind = offset + len + 4096;
        Ok(Hole { offset, len })
    })
}

/// A record of any kind.
pub(crate) fn record(u: &mut Unstructured<'_>) -> Result<Record> {
    Ok(match u.int_in_range(0..=14)? {
        0 => Record::Open {
            upload: upload(u)?,
            owner: bytes(u, 512)?,
            also: u.arbitrary()?,
        },
        1 => Record::Checkpoint(checkpoint(u)?),
        2 => Record::Abandon { upload: upload(u)? },
        3 => Record::Commit(commit(u)?),
        4 => Record::Alias {
            sha256: u.arbitrary()?,
            alias: digest(u)?,
        },
        5 => Record::Tombstone {
            sha256: u.arbitrary()?,
            birth: u.arbitrary()?,
        },
        6 => Record::Move(list(u, MANY, relocation)?),
        7 => Record::Seal {
            segment: segment(u)?,
            used: u.arbitrary()?,
            hash: u.arbitrary()?,
        },
        8 => Record::Note(bytes(u, 1000)?),
        9 => Record::Mark {
            clean: u.arbitrary()?,
        },
        10 => Record::Quarantine {
            sha256: u.arbitrary()?,
            birth: u.arbitrary()?,
        },
        11 => Record::Punch {
            segment: segment(u)?,
            holes: holes(u)?,
        },
        12 => Record::Remove {
            segment: segment(u)?,
        },
        13 => Record::Remap {
            sha256: u.arbitrary()?,
            birth: u.arbitrary()?,
            extents: list(u, MANY, |u| {
                let from = extent(u)?;
                let (segment, offset) = (segment(u)?, u.arbitrary()?);
                let to = Extent {
                    segment,
                    offset,
                    ..from
                };
                Ok((from, to))
            })?,
        },
        _ => Record::Copy {
            sha256: u.arbitrary()?,
            catalog: u.arbitrary()?,
            sequence: u.arbitrary()?,
        },
    })
}

/// Flips one bit among the first `covered` bytes; says which.
pub(crate) fn flip(u: &mut Unstructured<'_>, bytes: &mut [u8], covered: usize) -> Result<usize> {
    let bit = u.int_in_range(0..=covered.min(bytes.len()) * 8 - 1)?;
    bytes[bit / 8] ^= 1 << (bit % 8);
    Ok(bit / 8)
}
