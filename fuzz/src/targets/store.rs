//! The engine against a model: operations of the input on a simulated disk.
//!
//! What was acknowledged is read back byte for byte, after a stop, a kill, a
//! power cut in any of its forms, a lost index and a fault of the disk. What was
//! not is there in full or not at all. An upload goes on where its last
//! checkpoint was. No fault and no order of operations makes it panic.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arbitrary::{Result, Unstructured};
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use orlop_disk::sim::{Crash, Fault, Plan, Sim, Verb};
use orlop_disk::{Disk, Kind};
use orlop_engine::{
    Algorithm, Config, Digest, Error, MemoryIndex, Progress, Runtime, Store, UploadId,
};

use tokio::time::Instant;

use crate::mutate::Random;

/// Most operations of one input.
const OPERATIONS: usize = 32;
/// Most uploads at a time.
const UPLOADS: usize = 4;
/// What a fault strikes. Not the sync of a folder: a name that the system takes
/// for durable after such a sync failed cannot be written again, and a journaling
/// file system stops writing then.
const VERBS: [Verb; 5] = [
    Verb::Write,
    Verb::Sync,
    Verb::Read,
    Verb::Allocate,
    Verb::Open,
];
const OWNER: &str = "team/app";

/// Runs the target.
pub fn run(data: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut u = Unstructured::new(data);
        let mut run = Run::new().await;
        for _ in 0..OPERATIONS {
            if u.is_empty() || run.step(&mut u).await.is_err() {
                break;
            }
        }
        run.end().await;
    });
}

/// One thread, a clock that jumps to the next thing to do, random numbers from
/// a fixed seed: what an input does, it does again.
struct Simulated {
    start: Instant,
    random: Mutex<Random>,
}

impl Simulated {
    /// The runtime of a store's life with this number: no life draws the ids and
    /// salts of another.
    fn start(life: u64) -> Arc<dyn Runtime> {
        Arc::new(Simulated {
            start: Instant::now(),
            random: Mutex::new(Random::new(life << 32)),
        })
    }
}

impl Runtime for Simulated {
    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn fill_random(&self, bytes: &mut [u8]) {
        let mut random = self.random.lock().unwrap();
        for part in bytes.chunks_mut(8) {
            let word = random.number().to_le_bytes();
            part.copy_from_slice(&word[..part.len()]);
        }
    }

    fn spawn(&self, _: &'static str, task: BoxFuture<'static, ()>) -> std::io::Result<()> {
        self.task(task);
        Ok(())
    }

    fn task(&self, task: BoxFuture<'static, ()>) {
        drop(tokio::spawn(task));
    }

    fn sleep(&self, time: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(time))
    }
}

/// An upload that goes on: what it will be, how far it is durable.
struct Pending {
    id: UploadId,
    bytes: Bytes,
    offset: usize,
}

struct Run {
    sim: Arc<Sim>,
    index: MemoryIndex,
    store: Store,
    blobs: BTreeMap<Digest, Bytes>,
    /// Not acknowledged, and so there or not.
    perhaps: BTreeSet<Digest>,
    uploads: Vec<Pending>,
    /// How often it was started.
    life: u64,
    /// A fault was planned since the last start.
    faulty: bool,
}

async fn open(sim: &Arc<Sim>, index: &MemoryIndex, life: u64) -> std::result::Result<Store, Error> {
    let mut config = Config::new(PathBuf::from("/store"));
    config.journal_file = 4 << 20;
    config.segment = 16 << 20;
    config.reserve = Some(0);
    let disk: Arc<dyn Disk> = Arc::clone(sim) as Arc<dyn Disk>;
    Store::open(
        config,
        Simulated::start(life),
        disk,
        index,
        &Progress::default(),
    )
    .await
}

/// Sizes at the borders of the layout, and between them.
fn content(u: &mut Unstructured<'_>) -> Result<Bytes> {
    let size = match u.int_in_range(0..=5)? {
        0 => u.int_in_range(0..=200)?,
        1 => u.int_in_range(4000..=4200)?,
        2 => u.int_in_range(65_400..=65_600)?,
        3 => u.int_in_range(0..=70_000)?,
        4 => u.int_in_range(262_000..=262_300)?,
        _ => u.int_in_range(0..=700_000)?,
    };
    let seed = u64::from(u.arbitrary::<u8>()? % 4);
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(size);
    Ok(bytes.into())
}

fn algorithm(u: &mut Unstructured<'_>) -> Result<Option<Algorithm>> {
    Ok(*u.choose(&[None, Some(Algorithm::Sha512), Some(Algorithm::Blake3), None])?)
}

impl Run {
    async fn new() -> Run {
        let sim = Sim::new(1);
        sim.create_dir(Path::new("/store")).unwrap();
        sim.sync_dir(Path::new("/")).unwrap();
        let index = MemoryIndex::default();
        let store = open(&sim, &index, 0).await.unwrap();
        Run {
            sim,
            index,
            store,
            blobs: BTreeMap::new(),
            perhaps: BTreeSet::new(),
            uploads: Vec::new(),
            life: 0,
            faulty: false,
        }
    }

    async fn step(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        match u.int_in_range(0..=15)? {
            0..=2 => self.put(u).await?,
            3 | 4 => self.begin(u)?,
            5..=7 => self.append(u).await?,
            8 | 9 => self.finish(u).await?,
            10 | 11 => self.read(u).await?,
            12 => self.restart(None, true).await,
            13 | 14 => {
                let seed = u64::from(u.arbitrary::<u16>()?);
                let crash = *u.choose(&[
                    Crash::Killed,
                    Crash::Lost,
                    Crash::Kept,
                    Crash::Prefix(seed),
                    Crash::Torn(seed),
                ])?;
                self.restart(Some(crash), u.arbitrary()?).await;
            }
            _ => self.fault(u)?,
        }
        Ok(())
    }

    /// Plans a fault. What fails from here on is not acknowledged.
    fn fault(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        let faults = [
            Fault::Fail(Kind::Io),
            Fault::Fail(Kind::Full),
            Fault::Fail(Kind::Exhausted),
            Fault::Fail(Kind::Interrupted),
            Fault::Partial(Kind::Io),
            Fault::PowerOff,
        ];
        let (fault, after) = (*u.choose(&faults)?, u.int_in_range(0..=20u64)?);
        let verb = VERBS[usize::try_from(after).unwrap() % VERBS.len()];
        let plan = Plan::new(fault).on(verb).after(after);
        let plan = if u.ratio(1, 4)? { plan.sticky() } else { plan };
        self.sim.plan(plan);
        self.faulty = true;
        Ok(())
    }

    /// Takes note of what a commit said.
    fn committed(
        &mut self,
        digest: Digest,
        bytes: Bytes,
        said: std::result::Result<orlop_engine::Committed, Error>,
    ) {
        match said {
            Ok(committed) => {
                assert_eq!(committed.digest, digest);
                assert_eq!(committed.size, bytes.len() as u64);
                // Another digest of the same bytes names the same blob.
                let known = self.blobs.values().any(|other| *other == bytes);
                if !self.perhaps.contains(&sha256(&bytes)) {
                    assert_eq!(committed.new, !known, "{digest}");
                }
                self.blobs.insert(digest, bytes.clone());
                self.blobs.insert(sha256(&bytes), bytes);
            }
            Err(error) => {
                assert!(self.faulty, "{digest}: {error}");
                self.perhaps.insert(sha256(&bytes));
            }
        }
    }

    async fn put(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        let bytes = content(u)?;
        let algorithm = algorithm(u)?.unwrap_or(Algorithm::Sha256);
        let digest = Digest::of(algorithm, &bytes);
        if u.ratio(1, 8)? {
            let wrong = sha256(b"something else");
            let said = self.store.put(bytes, wrong, None).await;
            assert!(self.faulty || matches!(said, Err(Error::Invalid(_))));
            assert!(said.is_err() && !self.blobs.contains_key(&wrong));
            return Ok(());
        }
        let said = self.store.put(bytes.clone(), digest, None).await;
        self.committed(digest, bytes, said);
        Ok(())
    }

    fn begin(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        let (bytes, also) = (content(u)?, algorithm(u)?);
        if self.uploads.len() < UPLOADS {
            match self.store.upload_open(OWNER, also) {
                Ok(id) => self.uploads.push(Pending {
                    id,
                    bytes,
                    offset: 0,
                }),
                Err(error) => assert!(self.faulty, "{error}"),
            }
        }
        Ok(())
    }

    async fn append(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        if self.uploads.is_empty() {
            return Ok(());
        }
        let at = u.choose_index(self.uploads.len())?;
        let rest = self.uploads[at].bytes.len() - self.uploads[at].offset;
        let part = u.int_in_range(0..=rest)?;
        let durable = u.ratio(3, 4)?;
        let Pending { id, bytes, offset } = &mut self.uploads[at];
        let strange = self.store.upload_resume(*id, "somebody else").await;
        assert!(strange.is_err(), "an upload was given to another owner");
        let done = async {
            let mut upload = self.store.upload_resume(*id, OWNER).await?;
            assert_eq!(upload.offset(), *offset as u64);
            upload.append(bytes.slice(*offset..*offset + part)).await?;
            if durable {
                assert_eq!(upload.checkpoint().await?, (*offset + part) as u64);
                *offset += part;
            }
            drop(upload);
            assert_eq!(self.store.upload_status(*id, OWNER)?, *offset as u64);
            Ok::<_, Error>(())
        };
        if let Err(error) = done.await {
            assert!(self.faulty, "{error}");
            // How much of it is durable, nobody said.
            self.uploads.swap_remove(at);
        }
        Ok(())
    }

    async fn finish(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        if self.uploads.is_empty() {
            return Ok(());
        }
        let at = u.choose_index(self.uploads.len())?;
        let Pending { id, bytes, offset } = self.uploads.swap_remove(at);
        let cancel = u.ratio(1, 6)?;
        let digest = Digest::of(algorithm(u)?.unwrap_or(Algorithm::Sha256), &bytes);
        let mut upload = match self.store.upload_resume(id, OWNER).await {
            Ok(upload) => upload,
            Err(error) => {
                assert!(self.faulty, "{error}");
                return Ok(());
            }
        };
        assert_eq!(upload.offset(), offset as u64);
        if cancel {
            let said = upload.cancel().await;
            assert!(self.faulty || said.is_ok());
        } else {
            let said = match upload.append(bytes.slice(offset..)).await {
                Ok(()) => upload.commit(digest, None).await,
                Err(error) => Err(error),
            };
            self.committed(digest, bytes, said);
        }
        if !self.faulty {
            assert!(self.store.upload_status(id, OWNER).is_err());
        }
        Ok(())
    }

    async fn read(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        let absent = Digest::of(Algorithm::Sha256, b"never pushed");
        assert!(matches!(
            self.store.read(&absent),
            Err(Error::NotFound { .. })
        ));
        if self.blobs.is_empty() {
            return Ok(());
        }
        let at = u.choose_index(self.blobs.len())?;
        let (digest, bytes) = self.blobs.iter().nth(at).unwrap();
        let from = u.int_in_range(0..=bytes.len())?;
        let to = u.int_in_range(from..=bytes.len())?;
        let read = async {
            assert_eq!(self.store.stat(digest)?.size, bytes.len() as u64);
            let mut got = Vec::new();
            let mut stream = self.store.read(digest)?.stream(from as u64..to as u64);
            while let Some(piece) = stream.next().await {
                got.extend_from_slice(&piece?);
            }
            Ok::<_, Error>(got)
        };
        match read.await {
            Ok(got) => assert!(got == bytes[from..to], "{digest}: {from}..{to}"),
            Err(error) => assert!(self.faulty, "{digest}: {error}"),
        }
        Ok(())
    }

    async fn restart(&mut self, crash: Option<Crash>, keep: bool) {
        let faulty = std::mem::take(&mut self.faulty);
        match crash {
            None => {
                let closed = self.store.close().await;
                assert!(faulty || closed.is_ok());
                if faulty {
                    // After an error a stop is no better than a kill.
                    self.sim = self.sim.crash(Crash::Killed);
                }
            }
            Some(crash) => {
                self.sim = self.sim.crash(crash);
                let left = if keep {
                    self.index.current().crash()
                } else {
                    Default::default()
                };
                self.index = MemoryIndex::new(left);
            }
        }
        self.life += 1;
        self.store = match open(&self.sim, &self.index, self.life).await {
            Ok(store) => store,
            Err(error) => panic!("after {crash:?} it does not open: {error}"),
        };
        for pending in std::mem::take(&mut self.uploads) {
            let found = self.store.upload_status(pending.id, OWNER);
            let expected = pending.offset as u64;
            match found {
                Ok(found) => assert!(
                    found == expected || (faulty && found > expected),
                    "after {crash:?} {found} bytes are durable, not {expected} (faults: {faulty})"
                ),
                Err(Error::NotFound { .. }) => assert_eq!(expected, 0),
                Err(error) => panic!("{error}"),
            }
            if expected > 0 && !faulty {
                self.uploads.push(pending);
            }
        }
        self.check().await;
    }

    async fn check(&mut self) {
        for (digest, bytes) in &self.blobs {
            let found = match self.store.read(digest) {
                Ok(blob) => blob.bytes(1 << 20).await,
                Err(error) => Err(error),
            };
            match found {
                Ok(found) => assert!(found == *bytes, "{digest} has other bytes"),
                Err(error) => panic!("{digest} was acknowledged: {error}"),
            }
        }
        for digest in &self.perhaps {
            match self.store.read(digest) {
                Ok(blob) => {
                    let bytes = blob.bytes(1 << 20).await.unwrap();
                    assert!(sha256(&bytes) == *digest, "{digest} has other bytes");
                }
                Err(Error::NotFound { .. }) => {}
                Err(error) => panic!("{digest}: {error}"),
            }
        }
    }

    async fn end(&mut self) {
        self.restart(Some(Crash::Lost), false).await;
        let _ = self.store.close().await;
    }
}

fn sha256(bytes: &[u8]) -> Digest {
    Digest::of(Algorithm::Sha256, bytes)
}
