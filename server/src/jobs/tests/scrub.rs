//! The scrub on a disk that is slow, and on one that hangs.

use std::future::pending;
use std::path::Path;

use orlop_disk::sim::{Plan, Sim, Verb};
use orlop_disk::{BLOCK, BoxFuture, Disk};
use orlop_engine::{Config, MemoryIndex, Progress, Store, System};
use orlop_format::digest::{Algorithm, Digest};

use super::*;

/// How long these jobs may be silent: longer than a busy machine stands still.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a read takes.
const READ: Duration = Duration::from_millis(100);
/// Blocks of the extent: read one by one it takes longer than [`PATIENCE`].
const BLOCKS: usize = 80;

/// A store with one extent.
async fn store(sim: &Arc<Sim>) -> Store {
    let folder = Path::new("/store");
    sim.create_dir(folder).unwrap();
    let mut config = Config::new(folder.to_owned());
    (config.journal_file, config.segment) = (4 << 20, 16 << 20);
    config.reserve = Some(0);
    let disk = Arc::clone(sim) as Arc<dyn Disk>;
    let (index, progress) = (MemoryIndex::default(), Progress::default());
    let opened = Store::open(config, System::start(), disk, &index, &progress);
    let store = opened.await.unwrap();
    let bytes = vec![7; BLOCKS * BLOCK];
    let digest = Digest::of(Algorithm::Sha256, &bytes);
    store.put(bytes.into(), digest, None).await.unwrap();
    store
}

/// Holds up every read of a segment of blobs.
fn stall(sim: &Sim, hold: fn() -> BoxFuture<'static, ()>) {
    let raw = Path::new("/store/data/raw");
    sim.plan(Plan::stall(hold).on(Verb::Read).under(raw).sticky());
}

struct Scrubs {
    _folder: tempfile::TempDir,
    sim: Arc<Sim>,
    store: Store,
    catalog: Catalog,
    jobs: Jobs,
    running: tokio::task::JoinHandle<()>,
}

impl Scrubs {
    async fn start() -> Scrubs {
        let folder = tempfile::tempdir().unwrap();
        let catalog = catalog(folder.path()).await;
        let sim = Sim::new(1);
        let store = store(&sim).await;
        let scrub = Arc::new(Scrub::new(store.clone(), catalog.clone(), false));
        let jobs = jobs(&catalog, "one")
            .with(scrub, None)
            .with_patience(PATIENCE);
        let running = run(&jobs);
        Scrubs {
            _folder: folder,
            sim,
            store,
            catalog,
            jobs,
            running,
        }
    }

    async fn end(self) {
        self.jobs.stop().await;
        self.running.await.unwrap();
        self.catalog.close().await;
        self.store.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scrub_that_reads_slowly_is_not_taken_for_one_that_hangs() {
    let scrubs = Scrubs::start().await;
    let raw = scrubs.sim.files(Path::new("/store/data/raw"));
    let [(segment, _)] = raw.as_slice() else {
        panic!("{raw:?}");
    };
    // One bad sector: the scrub goes on block by block, in one step.
    assert!(scrubs.sim.spoil(segment, 8 * BLOCK as u64, 512));
    stall(&scrubs.sim, || Box::pin(tokio::time::sleep(READ)));
    let id = scrubs.jobs.start(SCRUB, "{}").await.unwrap().id;
    let began = Instant::now();
    while scrubs.store.scrub_reads() < BLOCKS as u64 {
        let job = scrubs.jobs.show(id).await.unwrap();
        assert!(job.state <= JobState::Running, "{job:?}");
        tokio::time::sleep(READ).await;
    }
    let took = began.elapsed();
    assert!(took > PATIENCE, "{took:?}");
    scrubs.sim.clear_plans();
    let job = until(&scrubs.jobs, id, JobState::Done).await;
    assert!(job.outcome.contains("\"findings\":1"), "{job:?}");
    let log = scrubs.jobs.log(id).await.unwrap();
    assert!(log[0].text.starts_with("blob "), "{log:?}");
    scrubs.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scrub_whose_read_hangs_has_failed_and_the_next_one_runs() {
    let mut scrubs = Scrubs::start().await;
    stall(&scrubs.sim, || Box::pin(pending()));
    let id = scrubs.jobs.start(SCRUB, "{}").await.unwrap().id;
    let job = until(&scrubs.jobs, id, JobState::Failed).await;
    assert!(job.outcome.contains("no sign of life"), "{job:?}");
    scrubs.sim.clear_plans();
    // The next one by jobs that are as patient as the server's.
    scrubs.jobs.stop().await;
    scrubs.running.await.unwrap();
    let scrub = Scrub::new(scrubs.store.clone(), scrubs.catalog.clone(), false);
    scrubs.jobs = jobs(&scrubs.catalog, "two").with(Arc::new(scrub), None);
    scrubs.running = run(&scrubs.jobs);
    let id = scrubs.jobs.start(SCRUB, "{}").await.unwrap().id;
    until(&scrubs.jobs, id, JobState::Done).await;
    scrubs.end().await;
}
