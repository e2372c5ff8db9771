//! What a store of a scenario runs on: disk, index, clock, random numbers,
//! tasks; and what was acknowledged, to be found again after a power cut.
//!
//! Invariant: equal schedules give equal runs. Nothing here switches while it
//! holds one of its own locks.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use orlop_disk::sim::{Crash, Sim};
use orlop_disk::{BoxFuture, Disk};
use orlop_engine::config::MARK_AFTER;
use orlop_engine::{
    Algorithm, Config, Digest, Error, IndexFactory, Progress, Runtime, Store, UploadId,
};
use orlop_index::mem::Memory;
use orlop_index::{Index, IndexError};
use shuttle::rand::Rng as _;
use shuttle::scheduler::RandomScheduler;
use shuttle::{FailurePersistence, Runner};

use crate::explore::config;
use crate::step::{Stall, Stepped, SteppedIndex, folder, point};

/// Who pushes.
pub(crate) const OWNER: &str = "a/b";
/// How long a lease holds.
pub(crate) const LEASE: Duration = Duration::from_secs(10);

/// A store that was closed, on its disk.
pub(crate) struct Image {
    sim: Arc<Sim>,
    memory: Memory,
    journal_file: u64,
}

/// What a store runs on.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) sim: Arc<Sim>,
    pub(crate) clock: Arc<Clock>,
    pub(crate) stall: Arc<Stall>,
    memory: Arc<Memory>,
    journal_file: u64,
}

impl Image {
    /// A store with the blobs that scenarios expect: [`small`] and [`large`].
    pub(crate) fn fresh() -> &'static Image {
        static IMAGE: OnceLock<Image> = OnceLock::new();
        IMAGE.get_or_init(|| Image::make(128 * 1024, 0, None))
    }

    /// The same with a journal of tiny files, all in use: the next few pushes
    /// go on in a new one, and the oldest is recycled.
    pub(crate) fn worn() -> &'static Image {
        static IMAGE: OnceLock<Image> = OnceLock::new();
        IMAGE.get_or_init(|| Image::make(32 * 1024, 22, None))
    }

    /// As [`Image::fresh`], with a [`larger`] blob beside the large one, on a file
    /// system without holes: when that dies the other is worth a move.
    pub(crate) fn thin() -> &'static Image {
        static IMAGE: OnceLock<Image> = OnceLock::new();
        IMAGE.get_or_init(|| Image::make(128 * 1024, 0, Some(larger())))
    }

    /// Makes every image, which takes runs of their own.
    pub(crate) fn make_all() {
        Image::fresh();
        Image::worn();
        Image::thin();
    }

    fn make(journal_file: u64, pushes: u64, beside: Option<Bytes>) -> Image {
        let made: Arc<Mutex<Option<Image>>> = Arc::default();
        let out = Arc::clone(&made);
        let scheduler = RandomScheduler::new_from_seed(1, 1);
        Runner::new(scheduler, config(FailurePersistence::Print)).run(move || {
            let beside = beside.clone();
            let sim = Sim::new(1);
            sim.create_dir(&folder()).unwrap();
            sim.sync_dir(Path::new("/")).unwrap();
            if beside.is_some() {
                sim.without_holes();
            }
            let world = World::over(sim, Memory::new(), journal_file);
            shuttle::future::block_on(async {
                let store = world.open().await;
                push(&store, &large()).await.unwrap();
                push(&store, &small()).await.unwrap();
                if let Some(bytes) = &beside {
                    push(&store, bytes).await.unwrap();
                }
                for number in 0..pushes {
                    put(&store, &content(1000 + number, 100)).await.unwrap();
                }
                store.close().await.unwrap();
            });
            *out.lock().unwrap() = Some(Image {
                sim: world.sim.crash(Crash::Kept),
                memory: world.memory.crash(),
                journal_file,
            });
        });
        let image = made.lock().unwrap().take();
        image.expect("the first run ends")
    }

    /// A world of its own that begins with this image.
    pub(crate) fn world(&self) -> World {
        let sim = self.sim.crash(Crash::Kept);
        World::over(sim, self.memory.crash(), self.journal_file)
    }
}

impl World {
    fn over(sim: Arc<Sim>, memory: Memory, journal_file: u64) -> World {
        World {
            sim,
            clock: Arc::default(),
            stall: Arc::default(),
            memory: Arc::new(memory),
            journal_file,
        }
    }

    /// Opens the store.
    pub(crate) async fn open(&self) -> Store {
        let disk: Arc<dyn Disk> = Arc::new(Stepped {
            sim: Arc::clone(&self.sim),
            stall: Arc::clone(&self.stall),
        });
        let mut config = Config::new(folder());
        config.journal_file = self.journal_file;
        config.segment = 256 * 1024;
        config.cache = 8 << 20;
        config.reserve = Some(0);
        config.lease = LEASE;
        // Time stands still: what is paid for with it must not wait.
        config.background_rate = u64::MAX;
        let runtime: Arc<dyn Runtime> = Arc::clone(&self.clock) as Arc<dyn Runtime>;
        Store::open(config, runtime, disk, self, &Progress::default())
            .await
            .expect("the store opens")
    }

    /// What a power cut would leave now.
    pub(crate) fn cut(&self) -> World {
        let sim = self.sim.crash(Crash::Lost);
        World::over(sim, self.memory.crash(), self.journal_file)
    }
}

impl IndexFactory for World {
    fn open(&self, _folder: &Path) -> Result<Arc<dyn Index>, IndexError> {
        Ok(Arc::new(SteppedIndex(Arc::clone(&self.memory))))
    }

    fn destroy(&self, _folder: &Path) -> Result<(), IndexError> {
        panic!("no index is made again here");
    }
}

/// Time that goes on when a scenario says so.
#[derive(Default)]
pub(crate) struct Clock(Arc<Mutex<Time>>);

#[derive(Default)]
struct Time {
    now: Duration,
    random: u64,
    sleepers: Vec<(Duration, Waker)>,
}

impl Clock {
    /// Lets time pass.
    pub(crate) fn pass(&self, time: Duration) {
        let awake: Vec<Waker> = {
            let mut clock = self.0.lock().unwrap();
            clock.now += time;
            let now = clock.now;
            let due = clock.sleepers.extract_if(.., |(until, _)| *until <= now);
            due.map(|(_, waker)| waker).collect()
        };
        awake.into_iter().for_each(Waker::wake);
    }
}

impl Runtime for Clock {
    fn now(&self) -> Duration {
        self.0.lock().unwrap().now
    }

    fn fill_random(&self, bytes: &mut [u8]) {
        let mut clock = self.0.lock().unwrap();
        for byte in bytes {
            clock.random = clock
                .random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            *byte = clock.random.to_be_bytes()[0];
        }
    }

    fn spawn(&self, _name: &'static str, task: BoxFuture<'static, ()>) -> std::io::Result<()> {
        drop(shuttle::future::spawn(task));
        Ok(())
    }

    fn task(&self, task: BoxFuture<'static, ()>) {
        drop(shuttle::future::spawn(task));
    }

    fn sleep(&self, time: Duration) -> BoxFuture<'static, ()> {
        let until = self.now() + time;
        let clock = Arc::clone(&self.0);
        Box::pin(std::future::poll_fn(move |context| {
            let mut time = clock.lock().unwrap();
            if time.now >= until {
                return Poll::Ready(());
            }
            time.sleepers.push((until, context.waker().clone()));
            Poll::Pending
        }))
    }
}

/// What was acknowledged, and what of it a power cut at some moment must leave.
#[derive(Clone, Default)]
pub(crate) struct Acknowledged(Arc<Mutex<Log>>);

#[derive(Default)]
struct Log {
    blobs: BTreeMap<Digest, Bytes>,
    cut: Option<(World, BTreeMap<Digest, Bytes>)>,
}

impl Acknowledged {
    /// A blob was said to be here.
    pub(crate) fn blob(&self, digest: Digest, bytes: &Bytes) {
        self.0.lock().unwrap().blobs.insert(digest, bytes.clone());
    }

    /// Cuts the power, in another world, now: the explorer chooses when this
    /// runs.
    pub(crate) fn cut(&self, world: &World) {
        point();
        let mut log = self.0.lock().unwrap();
        let blobs = log.blobs.clone();
        log.cut = Some((world.cut(), blobs));
    }

    /// Opens what the power cut left, and what one now would: each must have
    /// what was acknowledged before it.
    pub(crate) async fn check(&self, world: &World) {
        let (cut, now) = {
            let mut log = self.0.lock().unwrap();
            (log.cut.take(), (world.cut(), log.blobs.clone()))
        };
        for (world, blobs) in cut.into_iter().chain([now]) {
            let store = world.open().await;
            for (digest, bytes) in &blobs {
                assert_holds(&store, digest, bytes).await;
            }
            store.close().await.unwrap();
        }
    }
}

/// The blob is here, whole, and what it should be.
pub(crate) async fn assert_holds(store: &Store, digest: &Digest, bytes: &Bytes) {
    let stat = store.stat(digest).expect("an acknowledged blob is here");
    assert_eq!(stat.size, bytes.len() as u64);
    assert_eq!(pull(store, digest).await.unwrap(), *bytes);
}

/// Bytes that depend on `seed` and do not repeat.
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

/// The blob of every image that lies in the journal.
pub(crate) fn small() -> Bytes {
    content(1, 300)
}

/// The blob of every image that lies in a segment.
pub(crate) fn large() -> Bytes {
    static LARGE: OnceLock<Bytes> = OnceLock::new();
    LARGE.get_or_init(|| content(2, 70_000)).clone()
}

/// A blob that nobody needs.
pub(crate) fn larger() -> Bytes {
    content(3, 100_000)
}

pub(crate) fn sha256(bytes: &[u8]) -> Digest {
    Digest::of(Algorithm::Sha256, bytes)
}

/// Everything of a blob.
pub(crate) async fn pull(store: &Store, digest: &Digest) -> Result<Bytes, Error> {
    store.read(digest)?.bytes(1 << 20).await
}

/// Pushes in one go.
pub(crate) async fn put(store: &Store, bytes: &Bytes) -> Result<bool, Error> {
    let committed = store.put(bytes.clone(), sha256(bytes), None).await?;
    Ok(committed.new)
}

/// Pushes as an upload.
pub(crate) async fn push(store: &Store, bytes: &Bytes) -> Result<bool, Error> {
    let id = store.upload_open(OWNER, None)?;
    push_to(store, id, bytes).await
}

/// Pushes to an upload that is open.
pub(crate) async fn push_to(store: &Store, id: UploadId, bytes: &Bytes) -> Result<bool, Error> {
    let mut upload = store.upload_resume(id, OWNER).await?;
    upload.append(bytes.clone()).await?;
    Ok(upload.commit(sha256(bytes), None).await?.new)
}

/// A task of the scenario.
pub(crate) fn spawn<T: Send + 'static>(
    task: impl Future<Output = T> + Send + 'static,
) -> shuttle::future::JoinHandle<T> {
    shuttle::future::spawn(task)
}

/// Runs `body` on the open store of an image, beside a task that lets a little
/// time pass and cuts the power when the explorer wants it. `body` closes the
/// store. Then looks for what was acknowledged.
pub(crate) fn with_store<F>(image: &Image, body: impl FnOnce(World, Store, Acknowledged) -> F)
where
    F: Future<Output = ()>,
{
    let world = image.world();
    shuttle::future::block_on(async {
        let store = world.open().await;
        let acknowledged = Acknowledged::default();
        let weather = spawn({
            let (world, acknowledged) = (world.clone(), acknowledged.clone());
            async move {
                points(24);
                world.clock.pass(MARK_AFTER);
                points(48);
                acknowledged.cut(&world);
            }
        });
        body(world.clone(), store, acknowledged.clone()).await;
        weather.await.unwrap();
        acknowledged.check(&world).await;
    });
}

/// Gives way up to so many times.
pub(crate) fn points(most: usize) {
    let count = shuttle::rand::thread_rng().gen_range(0..=most);
    for _ in 0..count {
        point();
    }
}

/// Flips a bit of the place on the disk where `bytes` begin.
pub(crate) fn damage(world: &World, bytes: &Bytes) {
    let needle = &bytes[..64];
    for place in ["journal", "data/raw"] {
        let place = folder().join(place);
        for name in world.sim.list(&place).unwrap() {
            let path = place.join(name);
            let content = world.sim.peek(&path).unwrap();
            let found = content.windows(64).position(|window| window == needle);
            if let Some(at) = found {
                let offset = u64::try_from(at).unwrap();
                assert!(world.sim.poke(&path, offset, &[content[at] ^ 1]));
                return;
            }
        }
    }
    panic!("the bytes are nowhere on the disk");
}
