//! Contents of blobs with all their digests, made once: sizes on every side of
//! every border, so that the sweeps spend their time in the store.

use std::sync::OnceLock;

use bytes::Bytes;
use orlop_engine::{Algorithm, Digest};

use super::random::Random;

/// Bytes from which all contents are cut.
const STOCK: usize = 8 << 20;

/// Bytes and their names.
#[derive(Debug, Clone)]
pub struct Content {
    pub bytes: Bytes,
    pub sha256: Digest,
    pub sha512: Digest,
    pub blake3: Digest,
}

impl Content {
    fn new(bytes: Bytes) -> Content {
        let of = |algorithm| Digest::of(algorithm, &bytes);
        Content {
            sha256: of(Algorithm::Sha256),
            sha512: of(Algorithm::Sha512),
            blake3: of(Algorithm::Blake3),
            bytes,
        }
    }

    /// Its name by this algorithm.
    pub fn digest(&self, algorithm: Algorithm) -> Digest {
        match algorithm {
            Algorithm::Sha256 => self.sha256,
            Algorithm::Sha512 => self.sha512,
            Algorithm::Blake3 => self.blake3,
        }
    }

    pub fn len(&self) -> u64 {
        self.bytes.len() as u64
    }
}

fn stock() -> &'static Bytes {
    static STOCKED: OnceLock<Bytes> = OnceLock::new();
    STOCKED.get_or_init(|| {
        let mut random = Random::new(0x0c0d_e5ee_d000_0001);
        let words = (0..STOCK / 8).flat_map(|_| random.number().to_le_bytes());
        words.collect::<Vec<_>>().into()
    })
}

/// Bytes that depend on `seed` and do not repeat in themselves.
pub fn bytes(seed: u64, len: usize) -> Bytes {
    let from = Random::new(seed).below((STOCK - len) as u64) as usize;
    stock().slice(from..from + len)
}

/// Contents, the small ones first.
pub fn all() -> &'static [Content] {
    const SIZES: [usize; 34] = [
        0, 1, 2, 100, 200, 511, 512, 1_000, 2_000, 2_000, 3_000, 4_032, 4_095, 4_096, 4_097, 5_000,
        9_000, 20_000, 30_000, 50_000, 61_439, 65_535, 65_536, 65_537, 70_000, 90_000, 131_072,
        131_073, 200_000, 262_144, 262_145, 400_000, 1_048_577, 2_200_000,
    ];
    static ALL: OnceLock<Vec<Content>> = OnceLock::new();
    ALL.get_or_init(|| {
        let sizes = SIZES.iter().enumerate();
        sizes
            .map(|(seed, len)| Content::new(bytes(seed as u64 + 1, *len)))
            .collect()
    })
}

/// A content that no other seed has.
pub fn fresh(seed: u64, len: usize) -> Content {
    let mut own = seed.to_le_bytes().to_vec();
    own.extend_from_slice(&bytes(seed, len.saturating_sub(8)));
    Content::new(own.into())
}
