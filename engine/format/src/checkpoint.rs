//! Uploads in the log: their ids, and what is durable of one.

use crate::Malformed;
use crate::codec::{Reader, Writer};
use crate::location::{Extent, decode_extents, encode_extents};

/// Most bytes of one saved hash state.
pub const MAX_STATE: usize = 1024;

/// 128 random bits that name an upload.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UploadId(pub [u8; 16]);

impl std::fmt::Display for UploadId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl std::fmt::Debug for UploadId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "UploadId({self})")
    }
}

impl UploadId {
    /// Reads 32 lower-case hex digits.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        if bytes.len() != 32 {
            return None;
        }
        let mut id = [0u8; 16];
        for (byte, pair) in id.iter_mut().zip(bytes.chunks_exact(2)) {
            let &[high, low] = pair else { return None };
            *byte = nibble(high)?.checked_mul(16)?.checked_add(nibble(low)?)?;
        }
        Some(Self(id))
    }
}

fn nibble(c: u8) -> Option<u8> {
    match c {
        b'0'..=b'9' => c.checked_sub(b'0'),
        b'a'..=b'f' => c.checked_sub(b'a')?.checked_add(10),
        _ => None,
    }
}

/// The saved state of a hash at an offset: a hint, made again from the
/// durable bytes when it cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HashState {
    /// [`crate::digest::Algorithm`] by its number.
    pub algorithm: u8,
    /// Version of the state's own layout.
    pub version: u8,
    /// The state, empty when the algorithm cannot save one.
    pub state: Vec<u8>,
}

/// What an upload was at its last checkpoint. Also the body of a checkpoint,
/// where `extents` are only those since the one before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The upload.
    pub upload: UploadId,
    /// Bytes that are durable, tail included.
    pub offset: u64,
    /// How many extents came before those listed here.
    pub extents_before: u32,
    /// Extents, in order of the upload's bytes.
    pub extents: Vec<Extent>,
    /// Hash states at `offset`.
    pub hashes: Vec<HashState>,
}

pub(crate) fn encode_checkpoint(checkpoint: &Checkpoint, w: &mut Writer) {
    w.raw(&checkpoint.upload.0)
        .u64(checkpoint.offset)
        .u32(checkpoint.extents_before);
    encode_extents(&checkpoint.extents, w);
    w.u8(checkpoint.hashes.len().min(255) as u8);
    for hash in &checkpoint.hashes {
        w.u8(hash.algorithm).u8(hash.version).bytes(&hash.state);
    }
}

pub(crate) fn decode_checkpoint(r: &mut Reader<'_>) -> Result<Checkpoint, Malformed> {
    let (upload, offset, extents_before) = (UploadId(r.array()?), r.u64()?, r.u32()?);
    let extents = decode_extents(r)?;
    let count = r.u8()?;
    let hashes = (0..count)
        .map(|_| {
            let (algorithm, version) = (r.u8()?, r.u8()?);
            Ok(HashState {
                algorithm,
                version,
                state: r.bytes(MAX_STATE)?.to_vec(),
            })
        })
        .collect::<Result<_, Malformed>>()?;
    Ok(Checkpoint {
        upload,
        offset,
        extents_before,
        extents,
        hashes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upload_ids_are_32_lower_case_hex_digits() {
        let id = UploadId([0xab; 16]);
        assert_eq!(UploadId::parse(&id.to_string()), Some(id));
        for bad in [
            "",
            "ab",
            "AB".repeat(16).as_str(),
            "../..",
            &"zz".repeat(16),
        ] {
            assert_eq!(UploadId::parse(bad), None, "{bad}");
        }
    }
}
