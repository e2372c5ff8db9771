//! One simulated machine: a disk, what stands for RocksDB, and a clock.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use orlop_disk::Disk;
use orlop_disk::sim::{Crash, Sim};
use orlop_engine::{Config, Digest, Error, MemoryIndex, Progress, Runtime, Store};
use orlop_index::Index as _;

use super::clock::{Clock, Handle};
use super::random::Random;

/// The data folder on every simulated disk.
pub fn folder() -> PathBuf {
    PathBuf::from("/store")
}

/// How long "it is here" holds in simulations.
pub const LEASE: Duration = Duration::from_secs(3600);

/// What the index has left after a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// What it had flushed.
    Flushed,
    /// All of it: it flushed just before.
    Whole,
    /// Nothing: it is made again.
    Nothing,
}

/// A machine.
pub struct World {
    pub sim: Arc<Sim>,
    pub index: MemoryIndex,
    pub clock: Arc<Clock>,
    /// Bytes of one segment.
    pub segment: u64,
}

impl World {
    /// A new disk with the data folder. Only inside [`super::clock::simulate`].
    pub fn new(seed: u64) -> World {
        let sim = Sim::new(seed);
        sim.create_dir(&folder()).unwrap();
        sim.sync_dir(Path::new("/")).unwrap();
        World::on(sim, MemoryIndex::default(), seed)
    }

    /// A machine with this disk and index.
    pub fn on(sim: Arc<Sim>, index: MemoryIndex, seed: u64) -> World {
        World {
            sim,
            index,
            clock: Clock::start(seed ^ 0x7177),
            segment: 2 << 20,
        }
    }

    /// Opens the store.
    pub async fn open(&self) -> Result<Store, Error> {
        let mut config = Config::new(folder());
        config.journal_file = 4 << 20;
        config.segment = self.segment;
        config.reserve = Some(0);
        config.lease = LEASE;
        config.buffers = 32 << 20;
        config.cache = 1 << 20;
        let runtime: Arc<dyn Runtime> = Arc::new(Handle(Arc::clone(&self.clock)));
        let disk: Arc<dyn Disk> = Arc::clone(&self.sim) as Arc<dyn Disk>;
        Store::open(config, runtime, disk, &self.index, &Progress::default()).await
    }

    /// Time since the machine's start.
    pub fn now(&self) -> Duration {
        Handle(Arc::clone(&self.clock)).now()
    }

    /// The machine stops; what the next start finds is in its place. Whoever
    /// holds the store must let go of it.
    pub fn crash(&mut self, crash: Crash, left: Left) {
        self.sim = self.sim.crash(crash);
        self.index = match left {
            Left::Flushed => MemoryIndex::new(self.index.current().crash()),
            Left::Whole => {
                self.index.current().flush().unwrap();
                MemoryIndex::new(self.index.current().crash())
            }
            Left::Nothing => MemoryIndex::default(),
        };
    }
}

/// Any of the ways to stop.
pub fn some_crash(random: &mut Random) -> Crash {
    match random.below(6) {
        0 => Crash::Killed,
        1 => Crash::Lost,
        2 => Crash::Kept,
        3 => Crash::Prefix(random.number()),
        _ => Crash::Torn(random.number()),
    }
}

/// Any of the states an index may be left in.
pub fn some_left(random: &mut Random) -> Left {
    *random.pick(&[Left::Flushed, Left::Flushed, Left::Whole, Left::Nothing])
}

/// Pushes `bytes` as one upload in pieces.
pub async fn push(store: &Store, bytes: &Bytes, digest: Digest) -> Result<bool, Error> {
    let id = store.upload_open("pusher", None)?;
    let mut upload = store.upload_resume(id, "pusher").await?;
    for piece in bytes.chunks(300_000) {
        upload.append(bytes.slice_ref(piece)).await?;
    }
    Ok(upload.commit(digest, None).await?.new)
}

/// All bytes of a blob.
pub async fn pull(store: &Store, digest: &Digest) -> Result<Bytes, Error> {
    store.read(digest)?.bytes(1 << 30).await
}
