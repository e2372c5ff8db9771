//! Store and catalog together, on a real folder.

mod gc;

use std::future::{pending, ready};
use std::sync::atomic::{AtomicBool, Ordering};

use orlop_disk::blocking::Blocking;
use orlop_disk::sim::{Plan, Sim, Verb};
use orlop_engine::{Config, MemoryIndex, System};
use orlop_format::superblock;
use tokio::sync::Semaphore;

use super::*;
use crate::registry::{Maintenance, ReadOnly};
use crate::supervisor::Supervisor;

/// Nothing here takes so long, on any machine that is alive.
const LONG: Duration = Duration::from_secs(120);

/// Waits for what has to come.
async fn until(is_so: impl AsyncFn() -> bool) {
    let began = Instant::now();
    while !is_so().await {
        assert!(began.elapsed() < LONG, "it never came to it");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Runs upkeep until the storage is closed.
fn watch(storage: &Arc<Storage>, supervisor: &Supervisor) -> tokio::task::JoinHandle<()> {
    let (storage, supervisor) = (Arc::clone(storage), supervisor.clone());
    tokio::spawn(async move { storage.watch(&Maintenance::default(), &supervisor).await })
}

/// A storage whose store is on a simulated disk, and its catalog in a folder.
async fn simulated(folder: &Path) -> (Arc<Sim>, Storage) {
    let sim = Sim::new(1);
    let place = Path::new("/store");
    sim.create_dir(place).unwrap();
    let mut config = Config::new(place.to_owned());
    (config.journal_file, config.segment) = (4 << 20, 16 << 20);
    config.reserve = Some(0);
    let disk = Arc::clone(&sim) as Arc<dyn Disk>;
    let (index, progress) = (MemoryIndex::default(), Progress::default());
    let store = Store::open(config, System::start(), disk, &index, &progress);
    let store = store.await.unwrap();
    let storage = Storage::beside(&store, &settings(folder)).await.unwrap();
    (sim, storage)
}

/// The disk of the superblock hangs from now on, until it has a permit. Says
/// whether somebody waits for it.
fn stall(sim: &Sim, gate: &Arc<Semaphore>) -> Arc<AtomicBool> {
    let reached = Arc::new(AtomicBool::new(false));
    for file in superblock::FILES {
        let (gate, reached) = (Arc::clone(gate), Arc::clone(&reached));
        let hold = move || -> orlop_disk::BoxFuture<'static, ()> {
            reached.store(true, Ordering::SeqCst);
            let gate = Arc::clone(&gate);
            Box::pin(async move { drop(gate.acquire_owned().await) })
        };
        let path = Path::new("/store").join(file);
        sim.plan(Plan::stall(hold).on(Verb::Write).under(path).sticky());
    }
    reached
}

fn settings(folder: &Path) -> Settings {
    Settings {
        space_reserve: Some(0),
        ..Settings::stopped(folder.to_owned())
    }
}

async fn open(folder: &Path) -> Result<Storage, StartError> {
    let disk = Blocking::new(2).unwrap();
    let lock = lock(folder).unwrap();
    Storage::open(&settings(folder), lock, disk, &Progress::default()).await
}

/// What the store knows of its catalog, which is not looked at.
async fn names(folder: &Path) -> orlop_engine::Names {
    let disk = Blocking::new(2).unwrap();
    let lock = lock(folder).unwrap();
    let store = opening::store(&settings(folder), lock, disk, &Progress::default()).await;
    let store = store.unwrap();
    let names = store.names().await.unwrap();
    store.close().await.unwrap();
    names
}

fn digest(of: &[u8]) -> orlop_format::digest::Digest {
    orlop_format::digest::Digest::of(orlop_format::digest::Algorithm::Sha256, of)
}

async fn link(storage: &Storage, content: &[u8]) {
    let digest = digest(content);
    let linked = storage
        .catalog
        .link_blob("some/name", &digest, (1, 1))
        .await;
    linked.unwrap();
}

fn remove_catalog(folder: &Path) {
    for name in ["catalog.db", "catalog.db-wal", "catalog.db-shm"] {
        remove(&folder.join(name));
    }
}

fn journal_files(folder: &Path) -> usize {
    std::fs::read_dir(folder.join("journal")).unwrap().count()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_hears_how_far_the_catalog_is_within_moments() {
    let folder = tempfile::tempdir().unwrap();
    let storage = Arc::new(open(folder.path()).await.unwrap());
    let watch = watch(&storage, &Supervisor::default());
    link(&storage, b"one").await;
    let sequence = storage.catalog.sequence();
    until(async || storage.store.names().await.unwrap().sequence == sequence).await;
    storage.close(ready(())).await.unwrap();
    watch.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn i18_telling_the_store_blocks_no_thread_that_serves() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Blocking::new(2).unwrap();
    let lock = lock(folder.path()).unwrap();
    let (settings, carrier) = (settings(folder.path()), Arc::clone(&disk));
    let storage = Storage::open(&settings, lock, carrier, &Progress::default()).await;
    let storage = storage.unwrap();
    link(&storage, b"one").await;
    // Syncs of the disk's own threads; those of a thread that polls are none.
    let before = disk.counters().syncs;
    storage.mark().await;
    assert!(disk.counters().syncs > before);
    storage.close(ready(())).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_hears_how_far_the_catalog_is_at_close() {
    let folder = tempfile::tempdir().unwrap();
    let storage = open(folder.path()).await.unwrap();
    link(&storage, b"one").await;
    let sequence = storage.catalog.sequence();
    // Without a copy, which would tell it too.
    storage.close(ready(())).await.unwrap();
    drop(storage);
    let names = names(folder.path()).await;
    assert!(sequence > 0 && names.sequence == sequence, "{names:?}");
    assert!(names.copies.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn upkeep_has_ended_before_anything_is_closed() {
    let folder = tempfile::tempdir().unwrap();
    let (sim, mut storage) = simulated(folder.path()).await;
    storage.stop_time = LONG;
    let storage = Arc::new(storage);
    let supervisor = Supervisor::default();
    let watch = watch(&storage, &supervisor);
    // The store is being told how far the catalog is, and that takes a while.
    let gate = Arc::new(Semaphore::new(0));
    let telling = stall(&sim, &gate);
    link(&storage, b"one").await;
    until(async || telling.load(Ordering::SeqCst)).await;
    let all = [
        "copies",
        "expiry",
        "gc",
        "marks",
        "pulls",
        "schedules",
        "scrub",
    ];
    let supervised = async || {
        let names = supervisor.restarts();
        names.into_iter().map(|(name, _)| name).eq(all)
    };
    until(supervised).await;
    let closed = Arc::clone(&storage);
    let close = tokio::spawn(async move { closed.close(ready(())).await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!watch.is_finished() && !close.is_finished());
    link(&storage, b"two").await;
    pull(&storage, 1).await;
    gate.add_permits(Semaphore::MAX_PERMITS);
    let ended = tokio::time::timeout(LONG, watch);
    ended.await.expect("upkeep has no end").unwrap();
    close.await.unwrap().unwrap();
    assert!(
        storage
            .catalog
            .link_blob("a/b", &digest(b"x"), (1, 1))
            .await
            .is_err()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn i18_upkeep_that_hangs_does_not_keep_a_stop_from_writing_the_last_pulls() {
    let folder = tempfile::tempdir().unwrap();
    let (sim, mut storage) = simulated(folder.path()).await;
    storage.stop_time = Duration::from_millis(200);
    let storage = Arc::new(storage);
    let watch = watch(&storage, &Supervisor::default());
    let hangs = stall(&sim, &Arc::new(Semaphore::new(0)));
    pull(&storage, 3).await;
    until(async || hangs.load(Ordering::SeqCst)).await;
    // One more, that nobody has written by then.
    pull(&storage, 1).await;
    let opening = storage.store.health().await.epoch;
    let closed = tokio::time::timeout(LONG, storage.close(ready(())));
    closed.await.expect("the close waited").unwrap();
    let ended = tokio::time::timeout(LONG, watch);
    ended.await.expect("upkeep has no end").unwrap();
    drop(storage);
    let location = crate::catalog::Location::Sqlite(folder.path().join(CATALOG));
    let catalog = Catalog::open(location, Default::default()).await.unwrap();
    let latest = crate::registry::Reference::parse("latest").unwrap();
    let found = catalog.pulls("some/pulled", &latest).await.unwrap();
    assert_eq!(found.unwrap().pulls, 4);
    assert_eq!(catalog.pulls_through().await.unwrap(), Some(opening));
    catalog.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn i13_upkeep_that_blocks_a_thread_holds_up_nothing_else_and_no_stop() {
    let folder = tempfile::tempdir().unwrap();
    let mut storage = open(folder.path()).await.unwrap();
    storage.stop_time = Duration::from_millis(200);
    let storage = Arc::new(storage);
    // Expiry asks this before anything else.
    let (held, (release, wait)) = (Arc::clone(&storage), std::sync::mpsc::channel::<()>());
    let (locked, is_locked) = tokio::sync::oneshot::channel();
    let holder = std::thread::spawn(move || {
        let _refused = held.refused.lock().unwrap();
        locked.send(()).unwrap();
        let _ = wait.recv();
    });
    is_locked.await.unwrap();
    let watch = watch(&storage, &Supervisor::default());
    tokio::time::sleep(Duration::from_millis(100)).await;
    link(&storage, b"one").await;
    let sequence = storage.catalog.sequence();
    until(async || storage.store.names().await.unwrap().sequence == sequence).await;
    let closed = tokio::time::timeout(LONG, storage.close(ready(())));
    closed.await.expect("the close waited").unwrap();
    drop(release);
    holder.join().unwrap();
    let ended = tokio::time::timeout(LONG, watch);
    ended.await.expect("upkeep has no end").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_store_was_not_told_to_the_end_it_is_told_again() {
    let folder = tempfile::tempdir().unwrap();
    let (sim, storage) = simulated(folder.path()).await;
    link(&storage, b"one").await;
    let sequence = storage.catalog.sequence();
    let telling = stall(&sim, &Arc::new(Semaphore::new(0)));
    tokio::select! {
        () = storage.mark() => panic!("the disk hangs"),
        () = until(async || telling.load(Ordering::SeqCst)) => {}
    }
    // Its loop has died there. The next one has nothing new to tell.
    sim.clear_plans();
    assert!(storage.store.names().await.unwrap().sequence < sequence);
    storage.mark().await;
    assert_eq!(storage.store.names().await.unwrap().sequence, sequence);
    storage.close(ready(())).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn i13_expiry_that_died_knows_how_long_uploads_could_not_be_gone_on_with() {
    let folder = tempfile::tempdir().unwrap();
    let mut storage = open(folder.path()).await.unwrap();
    storage.upload_expiry = LONG;
    let maintenance = Maintenance::default();
    assert!(storage.may_expire(&maintenance));
    maintenance.set(Some(ReadOnly {
        reason: "new disks".into(),
        since: "now".into(),
    }));
    tokio::select! {
        () = storage.expiry(&maintenance) => panic!("it ended"),
        () = until(async || storage.refused.lock().unwrap().is_some()) => {}
    }
    maintenance.set(None);
    assert!(!storage.may_expire(&maintenance), "clients had no time yet");
    storage.upload_expiry = Duration::ZERO;
    tokio::time::sleep(Duration::from_millis(2)).await;
    assert!(storage.may_expire(&maintenance));
    storage.close(ready(())).await.unwrap();
}

/// A server that serves.
struct Serving(Registry);

impl crate::api::Readiness for Serving {
    fn state(&self) -> crate::api::State {
        crate::api::State::Ready(self.0.clone())
    }

    fn is_stopping(&self) -> bool {
        false
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn i18_metrics_tell_of_a_write_that_hangs_while_the_catalog_does_not_answer() {
    use http_body_util::BodyExt as _;
    let folder = tempfile::tempdir().unwrap();
    let storage = Arc::new(open(folder.path()).await.unwrap());
    let ops = crate::ops::Ops::new(crate::ops::Backend {
        name: String::new(),
        why: String::new(),
    });
    ops.watch(Some(Arc::clone(&storage)));
    let serving = Serving(storage.registry());
    let page = async || {
        let (head, ()) = http::Request::get("/metrics")
            .body(())
            .unwrap()
            .into_parts();
        let Ok(answer) = ops.handle(&serving, &head).await else {
            panic!("no metrics");
        };
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        String::from_utf8(body.to_vec()).unwrap()
    };
    let always = [
        "orlop_ready 1",
        "orlop_write_under_way_seconds{part=\"catalog\"}",
        "orlop_job_heartbeat_age_seconds{kind=\"scrub\"} 0",
        "orlop_upkeep_restarts_total{task=\"checkpoints\"} 0",
    ];
    let of_catalog = "orlop_jobs{kind=\"scrub\",state=\"failed\"} 0";
    let taken = storage.catalog.take_readers().await;
    let text = page().await;
    for line in always {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    assert!(
        !text.contains("orlop_jobs{"),
        "what is not known is not told"
    );
    drop(taken);
    until(async || page().await.contains(of_catalog)).await;
    storage.close(ready(())).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_at_close_is_made_unless_a_young_one_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let storage = open(folder.path()).await.unwrap();
    link(&storage, b"one").await;
    storage.copy_catalog(Duration::ZERO).await;
    let copies = storage.store.names().await.unwrap().copies;
    assert_eq!(copies.len(), 1);
    link(&storage, b"two").await;
    storage.close(pending()).await.unwrap();
    drop(storage);
    let storage = open(folder.path()).await.unwrap();
    assert_eq!(storage.store.names().await.unwrap().copies, copies);
    // This process made none, so it makes one.
    storage.close(pending()).await.unwrap();
    drop(storage);
    let storage = open(folder.path()).await.unwrap();
    assert_eq!(storage.store.names().await.unwrap().copies.len(), 2);
    storage.close(pending()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_close_does_not_wait_for_a_copy_that_hangs() {
    let folder = tempfile::tempdir().unwrap();
    let storage = open(folder.path()).await.unwrap();
    link(&storage, b"one").await;
    // As long as somebody makes a copy, nobody else does.
    let copying = storage.copied.lock().await;
    let give_up = tokio::time::sleep(Duration::from_millis(50));
    let closed = tokio::time::timeout(LONG, storage.close(give_up));
    closed.await.expect("the close waited").unwrap();
    drop(copying);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_catalog_without_names_is_made_again() {
    let folder = tempfile::tempdir().unwrap();
    open(folder.path())
        .await
        .unwrap()
        .close(pending())
        .await
        .unwrap();
    for _ in 0..2 {
        remove_catalog(folder.path());
        let storage = open(folder.path()).await.unwrap();
        assert_eq!(storage.unpaired, None);
        storage.close(pending()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_catalog_with_names_is_refused_and_costs_no_journal_file() {
    let folder = tempfile::tempdir().unwrap();
    let storage = open(folder.path()).await.unwrap();
    link(&storage, b"one").await;
    storage.close(ready(())).await.unwrap();
    drop(storage);
    remove_catalog(folder.path());
    let mut files = Vec::new();
    for _ in 0..5 {
        let Err(error) = open(folder.path()).await else {
            panic!("opened without its catalog");
        };
        assert!(
            matches!(error, StartError::CatalogMissing { .. }),
            "{error}"
        );
        assert!(error.to_string().contains("orlop-fsck"), "{error}");
        files.push(journal_files(folder.path()));
    }
    assert_eq!(files.first(), files.last(), "{files:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_stores_catalog_takes_no_push_until_it_is_adopted() {
    let [a, b] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    for folder in [&a, &b] {
        let storage = open(folder.path()).await.unwrap();
        link(&storage, b"one").await;
        storage.close(pending()).await.unwrap();
    }
    remove_catalog(a.path());
    std::fs::copy(b.path().join(CATALOG), a.path().join(CATALOG)).unwrap();
    for _ in 0..2 {
        let storage = open(a.path()).await.unwrap();
        assert_eq!(storage.unpaired, Some(Unpaired::Other));
        let health = storage.registry().health().await;
        assert_eq!(health.unpaired, Some(Unpaired::Other));
        storage.close(pending()).await.unwrap();
    }
    let mut storage = open(a.path()).await.unwrap();
    assert_eq!(storage.adopt().await.unwrap(), Some(Unpaired::Other));
    assert_eq!(storage.adopt().await.unwrap(), None);
    storage.close(pending()).await.unwrap();
    drop(storage);
    let storage = open(a.path()).await.unwrap();
    assert_eq!(storage.unpaired, None);
    // The one of the catalog that was lost, and one of what was adopted.
    assert_eq!(storage.store.names().await.unwrap().copies.len(), 2);
    storage.close(pending()).await.unwrap();
}

/// Pushes an index that names nothing, under `latest`, and pulls it so often.
async fn pull(storage: &Storage, times: u32) {
    use crate::registry::{Reference, RepositoryName, Subject};
    let registry = storage.registry();
    let name = RepositoryName::parse("some/pulled").unwrap();
    let latest = Reference::parse("latest").unwrap();
    let kind = "application/vnd.oci.image.index.v1+json";
    let index = format!("{{\"schemaVersion\":2,\"mediaType\":\"{kind}\",\"manifests\":[]}}");
    let who = Subject::Anonymous;
    let room = registry.manifest_room(who, &name, index.len()).unwrap();
    registry
        .manifest_push(who, &name, (&latest, &[]), Some(kind), (index.into(), room))
        .await
        .unwrap();
    for _ in 0..times {
        let pulled = registry.manifest_pull(Subject::Anonymous, &name, &latest);
        pulled.await.unwrap();
        let looked_at = registry.manifest_stat(Subject::Anonymous, &name, &latest);
        looked_at.await.unwrap();
    }
}

/// How often the tag was pulled, and when last.
async fn pulled(storage: &Storage) -> (u64, Option<i64>) {
    let latest = crate::registry::Reference::parse("latest").unwrap();
    let found = storage.catalog.pulls("some/pulled", &latest).await.unwrap();
    let found = found.unwrap();
    (found.pulls, found.last)
}

#[tokio::test(flavor = "multi_thread")]
async fn pulls_are_written_and_what_is_lost_counts_as_pulled_at_the_next_start() {
    use crate::registry::pulls::now;
    let folder = tempfile::tempdir().unwrap();
    let storage = open(folder.path()).await.unwrap();
    let began = now();
    pull(&storage, 3).await;
    assert_eq!(pulled(&storage).await, (0, None), "not on the pull path");
    storage.close(ready(())).await.unwrap();
    drop(storage);
    let ended = now();

    // After a clean stop every count is there, and nothing was lost.
    tokio::time::sleep(Duration::from_millis(5)).await;
    let storage = open(folder.path()).await.unwrap();
    let (pulls, last) = pulled(&storage).await;
    assert_eq!(pulls, 3);
    assert!((began..=ended).contains(&last.unwrap()), "{last:?}");
    pull(&storage, 2).await;
    // As after a kill: these two are not written.
    storage.catalog.close().await;
    storage.store.close().await.unwrap();
    drop(storage);
    let restarted = now();
    let storage = open(folder.path()).await.unwrap();
    let (pulls, last) = pulled(&storage).await;
    assert_eq!(pulls, 3);
    assert!(last.unwrap() >= restarted, "{last:?} before {restarted}");
    storage.close(ready(())).await.unwrap();
    drop(storage);

    // The next clean one leaves that time alone.
    let storage = open(folder.path()).await.unwrap();
    assert_eq!(pulled(&storage).await, (3, last));
    storage.close(ready(())).await.unwrap();
    drop(storage);

    // A start in between that counted nothing, as a release before this one
    // does: a gap.
    names(folder.path()).await;
    let restarted = now();
    let storage = open(folder.path()).await.unwrap();
    let (_, last) = pulled(&storage).await;
    assert!(last.unwrap() >= restarted, "{last:?} before {restarted}");
    storage.close(ready(())).await.unwrap();
    drop(storage);
}

#[tokio::test(flavor = "multi_thread")]
async fn pulls_are_written_within_seconds_while_it_runs() {
    let folder = tempfile::tempdir().unwrap();
    let storage = Arc::new(open(folder.path()).await.unwrap());
    let watch = watch(&storage, &Supervisor::default());
    pull(&storage, 4).await;
    until(async || pulled(&storage).await.0 == 4).await;
    assert_eq!(storage.observe().await.pulls.written, 4);
    storage.close(ready(())).await.unwrap();
    watch.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_catalog_is_copied_into_the_store_before_it_is_brought_up_to_date() {
    let folder = tempfile::tempdir().unwrap();
    let storage = open(folder.path()).await.unwrap();
    link(&storage, b"one").await;
    let (id, sequence) = storage.catalog();
    storage.close(pending()).await.unwrap();
    drop(storage);
    let before = names(folder.path()).await.copies;
    // One that is up to date is not copied at the start.
    let storage = open(folder.path()).await.unwrap();
    storage.close(pending()).await.unwrap();
    drop(storage);
    assert_eq!(names(folder.path()).await.copies, before);
    let path = folder.path().join(CATALOG);
    remove_catalog(folder.path());
    Catalog::make_first(&path, id, sequence).await.unwrap();
    let storage = open(folder.path()).await.unwrap();
    assert_eq!(storage.catalog(), (id, sequence));
    storage.close(ready(())).await.unwrap();
    drop(storage);
    let after = names(folder.path()).await.copies;
    assert_eq!(after.last().map(|(_, sequence)| *sequence), Some(sequence));
    assert_ne!(after, before);
    // Another store's is not.
    remove_catalog(folder.path());
    Catalog::make_first(&path, [9; 16], sequence).await.unwrap();
    let storage = open(folder.path()).await.unwrap();
    assert_eq!(storage.unpaired, Some(Unpaired::Other));
    storage.close(ready(())).await.unwrap();
    drop(storage);
    assert_eq!(names(folder.path()).await.copies, after);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_of_pulls_that_was_broken_off_counts_as_lost() {
    use futures_util::FutureExt as _;
    let folder = tempfile::tempdir().unwrap();
    let storage = open(folder.path()).await.unwrap();
    pull(&storage, 3).await;
    // It has taken the counts, and panics, or whoever runs it goes.
    let broken = storage.pulls.write(&storage.catalog).now_or_never();
    assert_eq!(broken, None);
    tokio::time::sleep(Duration::from_millis(5)).await;
    let before = crate::registry::pulls::now();
    assert!(storage.pulls.write(&storage.catalog).await);
    let (_, last) = pulled(&storage).await;
    assert!(last.unwrap() >= before, "{last:?} before {before}");
    storage.close(ready(())).await.unwrap();
}
