//! Store and catalog together, on a real folder.

mod gc;

use std::future::{pending, ready};

use orlop_disk::blocking::Blocking;

use super::*;

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
    let watched = Arc::clone(&storage);
    let watch = tokio::spawn(async move {
        watched
            .watch(&Maintenance::default(), &Supervisor::default())
            .await
    });
    link(&storage, b"one").await;
    let sequence = storage.catalog.sequence();
    let began = Instant::now();
    while storage.store.names().await.unwrap().sequence < sequence {
        assert!(began.elapsed() < MARK_EVERY * 5, "never told");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    storage.close(ready(())).await.unwrap();
    watch.await.unwrap();
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
    let storage = Arc::new(open(folder.path()).await.unwrap());
    let supervisor = Supervisor::default();
    let watched = (Arc::clone(&storage), supervisor.clone());
    let watch = tokio::spawn(async move {
        let (storage, supervisor) = watched;
        storage.watch(&Maintenance::default(), &supervisor).await;
    });
    // The store is being told how far the catalog is, and that takes a while.
    let telling = storage.marked.lock().await;
    link(&storage, b"one").await;
    tokio::time::sleep(MARK_EVERY * 2).await;
    let names = supervisor.restarts();
    let names: Vec<_> = names.into_iter().map(|(name, _)| name).collect();
    let all = [
        "copies",
        "expiry",
        "gc",
        "marks",
        "pulls",
        "schedules",
        "scrub",
    ];
    assert_eq!(names, all, "each is supervised");
    let closed = Arc::clone(&storage);
    let close = tokio::spawn(async move { closed.close(ready(())).await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!watch.is_finished() && !close.is_finished());
    link(&storage, b"two").await;
    assert!(storage.store.names().await.is_ok());
    drop(telling);
    let ended = tokio::time::timeout(Duration::from_secs(20), watch);
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
    let closed = tokio::time::timeout(Duration::from_secs(20), storage.close(give_up));
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
    let watched = Arc::clone(&storage);
    let watch = tokio::spawn(async move {
        watched
            .watch(&Maintenance::default(), &Supervisor::default())
            .await
    });
    pull(&storage, 4).await;
    let began = Instant::now();
    while pulled(&storage).await.0 < 4 {
        assert!(began.elapsed() < Duration::from_secs(20), "not written");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
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
