//! The body of a commit: a blob is complete.
//!
//! Knows nothing of what it does to the index.

use crate::Malformed;
use crate::checkpoint::UploadId;
use crate::codec::{Reader, Writer};
use crate::digest::Digest;
use crate::location::{Extent, decode_extents, encode_extents};
use crate::record::{MAX_ALIASES, MAX_NOTE};

/// The body of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// The blob's SHA-256, its name inside the store.
    pub sha256: [u8; 32],
    /// Other digests of the same bytes.
    pub aliases: Vec<Digest>,
    /// The blob's number, for bitmaps; never used again.
    pub ordinal: u64,
    /// Bytes of the blob.
    pub size: u64,
    /// Whether the store itself made it (a catalog copy).
    pub internal: bool,
    /// The upload that ends with this, if one was durable.
    pub upload: Option<UploadId>,
    /// Where the bytes are; empty when they are this record's payload.
    pub extents: Vec<Extent>,
    /// Opaque bytes of the layer above, empty for none.
    pub note: Vec<u8>,
}

pub(crate) fn decode_digest(r: &mut Reader<'_>) -> Result<Digest, Malformed> {
    let bytes = r.bytes(65)?;
    let (digest, used) = Digest::decode(bytes).map_err(|_| Malformed::Field("digest"))?;
    if used == bytes.len() {
        Ok(digest)
    } else {
        Err(Malformed::Field("digest"))
    }
}

pub(crate) fn encode_commit(commit: &Commit, w: &mut Writer) {
    w.raw(&commit.sha256)
        .u64(commit.ordinal)
        .u64(commit.size)
        .u8(u8::from(commit.internal));
    w.u8(u8::from(commit.upload.is_some()))
        .raw(&commit.upload.map_or([0; 16], |upload| upload.0));
    w.u8(commit.aliases.len().min(255) as u8);
    for alias in &commit.aliases {
        w.bytes(&alias.encode());
    }
    encode_extents(&commit.extents, w);
    w.bytes(&commit.note);
}

pub(crate) fn decode_commit(r: &mut Reader<'_>) -> Result<Commit, Malformed> {
    let (sha256, ordinal, size, internal) = (r.array()?, r.u64()?, r.u64()?, r.u8()? != 0);
    let durable = r.u8()? != 0;
    let upload = UploadId(r.array()?);
    let count = usize::from(r.u8()?);
    if count > MAX_ALIASES {
        return Err(Malformed::Field("count of digests"));
    }
    let aliases = (0..count)
        .map(|_| decode_digest(r))
        .collect::<Result<_, _>>()?;
    let extents = decode_extents(r)?;
    let note = r.bytes(MAX_NOTE)?.to_vec();
    Ok(Commit {
        sha256,
        aliases,
        ordinal,
        size,
        internal,
        upload: durable.then_some(upload),
        extents,
        note,
    })
}
