//! A store on a simulated disk, with an index in memory.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use orlop_disk::Disk;
use orlop_disk::sim::Sim;
use orlop_engine::{Algorithm, Config, Digest, Error, MemoryIndex, Progress, Store, System};

/// Bytes that depend on `seed` and never repeat.
pub(crate) fn content(seed: u64, len: usize) -> Bytes {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes.into()
}

pub(crate) fn sha256(bytes: &[u8]) -> Digest {
    Digest::of(Algorithm::Sha256, bytes)
}

pub(crate) fn folder() -> PathBuf {
    PathBuf::from("/store")
}

pub(crate) fn config() -> Config {
    let mut config = Config::new(folder());
    config.journal_file = 4 << 20;
    config.segment = 16 << 20;
    config.reserve = Some(0);
    config
}

/// A simulated disk with the store's folder.
pub(crate) fn disk(seed: u64) -> Arc<Sim> {
    let sim = Sim::new(seed);
    sim.create_dir(&folder()).unwrap();
    sim.sync_dir(&PathBuf::from("/")).unwrap();
    sim
}

pub(crate) async fn open(sim: &Arc<Sim>, index: &MemoryIndex) -> Result<Store, Error> {
    let disk: Arc<dyn Disk> = Arc::clone(sim) as Arc<dyn Disk>;
    Store::open(config(), System::start(), disk, index, &Progress::default()).await
}

/// Pushes `bytes` as one upload, in pieces.
pub(crate) async fn push(store: &Store, bytes: &Bytes, digest: Digest) -> Result<bool, Error> {
    let id = store.upload_open("a/b", None)?;
    let mut upload = store.upload_resume(id, "a/b").await?;
    for piece in bytes.chunks(300_000) {
        upload.append(Bytes::copy_from_slice(piece)).await?;
    }
    Ok(upload.commit(digest, None).await?.new)
}

/// Everything of a blob.
pub(crate) async fn pull(store: &Store, digest: &Digest) -> Result<Bytes, Error> {
    store.read(digest)?.bytes(1 << 30).await
}

/// Sizes on every side of every border.
pub(crate) const SIZES: [usize; 12] = [
    0,
    1,
    4095,
    4096,
    61_439,
    65_536,
    65_537,
    262_145,
    1 << 20,
    (1 << 20) + 1,
    3_333_333,
    20 << 20,
];
