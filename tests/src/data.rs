//! Content for tests: reproducible bytes and their digests.
//!
//! Owns: the generator and the digests. The digests come from a hash crate,
//! never from Orlop's own code.

use std::io::Read;

use sha2::{Digest, Sha256, Sha512};

/// Returns `len` bytes that depend only on `seed` and compress badly.
#[must_use]
pub fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    Stream::new(seed, len as u64)
        .read_exact(&mut out)
        .expect("the generator yields what was asked");
    out
}

/// Bytes made at once.
const BLOCK: usize = 64 << 10;
/// How far apart the marks are that tell one block from the next.
const PAGE: usize = 4 << 10;

/// The same bytes as [`bytes`], as a reader, for sizes that do not fit in memory.
///
/// One block is made by SplitMix64; the next are copies of it with a mark of
/// their own in every page. That is as fast as copying, and no page is like
/// another.
#[derive(Debug, Clone)]
pub struct Stream {
    seed: u64,
    block: Vec<u8>,
    /// Number of the block that `block` holds.
    number: u64,
    used: usize,
    left: u64,
}

impl Stream {
    /// A reader of `len` bytes made from `seed`.
    #[must_use]
    pub fn new(seed: u64, len: u64) -> Stream {
        let mut state = seed;
        let size = usize::try_from(len).unwrap_or(usize::MAX).min(BLOCK);
        let words = size.div_ceil(8);
        Stream {
            seed,
            block: (0..words).flat_map(|_| split_mix(&mut state)).collect(),
            number: 0,
            used: 0,
            left: len,
        }
    }

    /// Turns the block into the next one.
    fn advance(&mut self) {
        self.number += 1;
        self.used = 0;
        let mut state = self.seed ^ self.number.rotate_left(32);
        for page in self.block.chunks_mut(PAGE) {
            page[..8].copy_from_slice(&split_mix(&mut state));
        }
    }
}

/// One step of SplitMix64.
fn split_mix(state: &mut u64) -> [u8; 8] {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ (z >> 31)).to_le_bytes()
}

impl Read for Stream {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let want = usize::try_from(self.left)
            .unwrap_or(usize::MAX)
            .min(out.len());
        let mut done = 0;
        while done < want {
            if self.used == self.block.len() {
                self.advance();
            }
            let n = (self.block.len() - self.used).min(want - done);
            out[done..done + n].copy_from_slice(&self.block[self.used..self.used + n]);
            self.used += n;
            done += n;
        }
        self.left -= want as u64;
        Ok(want)
    }
}

/// `sha256:…` of the bytes.
#[must_use]
pub fn sha256(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(&Sha256::digest(bytes)))
}

/// `sha512:…` of the bytes.
#[must_use]
pub fn sha512(bytes: &[u8]) -> String {
    format!("sha512:{}", hex(&Sha512::digest(bytes)))
}

/// `blake3:…` of the bytes.
#[must_use]
pub fn blake3(bytes: &[u8]) -> String {
    format!("blake3:{}", ::blake3::hash(bytes).to_hex())
}

/// A digest algorithm that the registry takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// The one every registry takes.
    Sha256,
    /// The other one of the image specification's release.
    Sha512,
    /// Registered by the image specification's main branch.
    Blake3,
}

impl Algorithm {
    /// As it stands in front of a digest.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Sha256 => "sha256",
            Algorithm::Sha512 => "sha512",
            Algorithm::Blake3 => "blake3",
        }
    }

    /// The digest of these bytes.
    #[must_use]
    pub fn of(self, bytes: &[u8]) -> String {
        match self {
            Algorithm::Sha256 => sha256(bytes),
            Algorithm::Sha512 => sha512(bytes),
            Algorithm::Blake3 => blake3(bytes),
        }
    }
}

/// Reads to the end; returns the number of bytes and their `sha256:…`.
pub fn sha256_of_reader(mut from: impl Read) -> (u64, String) {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    let mut total = 0;
    loop {
        let n = from.read(&mut buffer).expect("read to hash");
        if n == 0 {
            return (total, format!("sha256:{}", hex(&hash.finalize())));
        }
        hash.update(&buffer[..n]);
        total += n as u64;
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_read_in_odd_pieces_is_the_same_content() {
        let size = 3 * BLOCK + 1001;
        let whole = bytes(7, size);
        let mut from = Stream::new(7, size as u64);
        let mut pieces = Vec::new();
        for n in 1.. {
            let mut piece = vec![0; n];
            let got = from.read(&mut piece).unwrap();
            if got == 0 {
                break;
            }
            pieces.extend_from_slice(&piece[..got]);
        }
        assert_eq!(pieces, whole);
        assert_ne!(bytes(8, size), whole);
        let mut pages: Vec<&[u8]> = whole.chunks_exact(PAGE).collect();
        let count = pages.len();
        pages.sort_unstable();
        pages.dedup();
        assert_eq!(pages.len(), count, "two pages are alike");
    }

    #[test]
    fn digests_match_published_vectors() {
        assert_eq!(
            sha256(b"abc"),
            "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert!(sha512(b"abc").starts_with("sha512:ddaf35a193617abacc417349ae204131"));
        assert!(blake3(b"abc").starts_with("blake3:6437b3ac38465133ffb63b75273a8db5"));
        assert_eq!(sha256_of_reader(&b"abc"[..]), (3, sha256(b"abc")));
    }
}
