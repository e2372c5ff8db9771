//! What is pushed: incompressible bytes, every blob unlike any other.
//!
//! Blobs of one size share a random prefix and differ in a short tail. The
//! hash of the prefix is computed once, so a digest costs the client one
//! block of SHA-256 and not the whole blob: the client must not be what a
//! push benchmark measures.

use sha2::{Digest as _, Sha256};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Length of the part that differs, in bytes.
pub(crate) const TAIL: usize = 32;

/// Numbers of blobs and manifests made in this process, each used once.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// A number no other caller in this process gets.
pub(crate) fn unique() -> u64 {
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A generator of bytes that do not compress (SplitMix64). Not for secrets.
pub(crate) struct Noise(u64);

impl Noise {
    /// The same seed gives the same bytes.
    pub(crate) fn new(seed: u64) -> Noise {
        Noise(seed)
    }

    /// The next 64 bits.
    pub(crate) fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// `length` bytes of noise.
    pub(crate) fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(length + 8);
        while bytes.len() < length {
            bytes.extend_from_slice(&self.word().to_le_bytes());
        }
        bytes.truncate(length);
        bytes
    }
}

/// Maker of blobs of one size.
pub(crate) struct Payload {
    prefix: Vec<u8>,
    hasher: Sha256,
    run: u64,
}

impl Payload {
    /// Blobs of `size` bytes, at least [`TAIL`].
    pub(crate) fn new(size: u64) -> Payload {
        let run = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |now| now.as_nanos() as u64);
        let length = usize::try_from(size).unwrap_or(usize::MAX).max(TAIL) - TAIL;
        let prefix = Noise::new(size ^ run).bytes(length);
        let hasher = Sha256::new().chain_update(&prefix);
        Payload {
            prefix,
            hasher,
            run,
        }
    }

    /// Size of each blob, in bytes.
    pub(crate) fn size(&self) -> u64 {
        (self.prefix.len() + TAIL) as u64
    }

    /// The part all blobs share.
    pub(crate) fn prefix(&self) -> &[u8] {
        &self.prefix
    }

    /// A tail never used before, and the digest of prefix and tail.
    pub(crate) fn fresh(&self) -> ([u8; TAIL], String) {
        let mut noise = Noise::new(self.run ^ unique().rotate_left(40));
        let mut tail = [0; TAIL];
        for chunk in tail.chunks_exact_mut(8) {
            chunk.copy_from_slice(&noise.word().to_le_bytes());
        }
        let digest = self.hasher.clone().chain_update(tail).finalize();
        (tail, format!("sha256:{}", hex(&digest)))
    }
}

/// SHA-256 of `bytes` as `sha256:…`.
pub(crate) fn digest_of(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(&Sha256::digest(bytes)))
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: [char; 16] = [
        '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f',
    ];
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .filter_map(|nibble| DIGITS.get(usize::from(nibble)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn the_digest_is_that_of_prefix_and_tail() {
        for size in [32, 33, 4096, 70_001] {
            let payload = Payload::new(size);
            let (tail, digest) = payload.fresh();
            let blob = [payload.prefix(), &tail].concat();
            assert_eq!(blob.len() as u64, size);
            assert_eq!(payload.size(), size);
            assert_eq!(digest, digest_of(&blob));
        }
    }

    #[test]
    fn no_blob_is_made_twice() {
        let payload = Payload::new(64);
        let digests: HashSet<String> = (0..1000).map(|_| payload.fresh().1).collect();
        assert_eq!(digests.len(), 1000);
    }

    #[test]
    fn a_known_digest() {
        assert_eq!(
            digest_of(b"abc"),
            "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }
}
