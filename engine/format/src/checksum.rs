//! Checksums: CRC-32 (IEEE 802.3, as in zlib) for headers, bodies and each
//! 64 KiB of payload; BLAKE3 over a segment's table of them.

/// Bytes of payload that one checksum covers.
pub const SPAN: usize = 64 * 1024;

/// CRC-32 of `bytes`.
pub fn crc(bytes: &[u8]) -> u32 {
    crc32fast::hash(bytes)
}

/// CRC-32 of a header under its file's salt. The salt is random for each
/// file and each time it is recycled, so that neither stale blocks nor bytes
/// that a client made up can pass for a header of this file.
pub fn salted(salt: u64, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&salt.to_le_bytes());
    hasher.update(bytes);
    hasher.finalize()
}

/// One CRC-32 for each [`SPAN`] of `payload`, the last one shorter.
pub fn table(payload: &[u8]) -> Vec<u32> {
    payload.chunks(SPAN).map(crc).collect()
}

/// BLAKE3 of a segment's frame checksums, in order of their offsets.
pub fn seal(frames: impl IntoIterator<Item = u32>) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    for frame in frames {
        hasher.update(&frame.to_le_bytes());
    }
    *hasher.finalize().as_bytes()
}
