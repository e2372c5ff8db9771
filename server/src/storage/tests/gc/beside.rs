//! Purges by operators beside what others do meanwhile: collections, pushes and
//! repositories that come back.

use super::*;
use crate::collection::{ExpungeError, Target};

const HOUR: Duration = Duration::from_secs(3600);
/// Time for a purge to look at all there is, and to wait for its turn then.
const LOOKED: Duration = Duration::from_millis(700);

fn patient(settings: &mut Settings) {
    settings.gc_lease = HOUR;
    settings.undelete_window = HOUR;
}

fn target(digest: Digest) -> Target {
    Target {
        repository: None,
        digest,
    }
}

fn name(of: &str) -> RepositoryName {
    RepositoryName::parse(of).unwrap()
}

impl Running {
    /// A whole collection, whatever is leased.
    async fn collects(&self) -> Outcome {
        let id = self.start_job("{}").await;
        let job = self.ended(id).await;
        assert_eq!(job.state.name(), "done", "{}", job.outcome);
        serde_json::from_str(&job.outcome).unwrap()
    }
}

/// A cycle that had read the names before a purge forgot, with what is named, what
/// the purge had just said: its leases held then, and the command said "gone".
#[tokio::test(flavor = "multi_thread")]
async fn a_cycle_that_runs_forgets_nothing_of_a_purge() {
    let folder = tempfile::tempdir().unwrap();
    let running = Arc::new(Running::start(folder.path(), patient).await);
    running.image("kept", "v1", "kept").await;
    let until = Instant::now() + Duration::from_secs(4);
    let collector = {
        let running = Arc::clone(&running);
        tokio::spawn(async move {
            let mut jobs = 0u32;
            while Instant::now() < until + Duration::from_secs(1) {
                // Whatever they find: a cycle is to run all the while.
                running.image("kept", "v1", &format!("kept {jobs}")).await;
                running.collects().await;
                jobs += 1;
            }
            jobs
        })
    };
    let mut secrets = Vec::new();
    let mut round = 0u32;
    while Instant::now() < until {
        let secret = format!("a secret {round}");
        let image = running.image("a", "v1", &secret).await;
        running.storage.gc().expunge(&target(image)).await.unwrap();
        secrets.push(layer(&secret));
        secrets.push(image);
        round += 1;
    }
    assert!(collector.await.unwrap() > 1 && round > 1);
    running.collects().await;
    let left: Vec<&Digest> = secrets.iter().filter(|of| running.has(of)).collect();
    assert!(left.is_empty(), "{} of {round} rounds stay", left.len());
    let running = Arc::into_inner(running).unwrap();
    running.ends_clean(folder.path()).await;
}

/// Between a purge's look and its turn the repository came back: what it had as
/// deleted is needed again.
#[tokio::test(flavor = "multi_thread")]
async fn a_repository_that_comes_back_while_a_purge_waits_is_not_broken() {
    let folder = tempfile::tempdir().unwrap();
    let running = Arc::new(Running::start(folder.path(), patient).await);
    running.image("kept", "v1", "kept").await;
    for (round, back) in ["r", "another"].into_iter().enumerate() {
        let child = running.image("r", "", &format!("child {round}")).await;
        let index = running.index("r", "v1", &[child]).await;
        let r = name("r");
        let deleted = running.registry.repository_delete(Subject::Operator, &r);
        deleted.await.unwrap();
        let turn = running.registry.alone(Subject::Operator, &r).await.unwrap();
        let undelete = {
            let registry = running.registry.clone();
            tokio::spawn(async move {
                let (r, back) = (name("r"), name(back));
                let is_back = registry.repository_undelete(Subject::Operator, &r, &back);
                is_back.await
            })
        };
        tokio::time::sleep(LOOKED / 4).await;
        let gc = running.storage.gc();
        let purge = tokio::spawn(async move { gc.expunge(&target(child)).await });
        tokio::time::sleep(LOOKED).await;
        assert!(!purge.is_finished() && !undelete.is_finished());
        drop(turn);
        undelete.await.unwrap().unwrap();
        let refused = purge.await.unwrap();
        let Err(ExpungeError::Needed(by)) = refused else {
            panic!("{refused:?}");
        };
        assert_eq!((by[0].repository.as_str(), by[0].manifest), (back, index));
        assert!(running.pulls(back, "v1").await, "{back}");
        assert!(running.pulls(back, &child.to_string()).await, "{back}");
    }
    let running = Arc::into_inner(running).unwrap();
    running.ends_clean(folder.path()).await;
}

/// It has another name by then, and is found under that; and where it was pushed
/// anew, that goes too.
#[tokio::test(flavor = "multi_thread")]
async fn a_purge_finds_what_got_another_name_or_came_anew_meanwhile() {
    let folder = tempfile::tempdir().unwrap();
    let running = Arc::new(Running::start(folder.path(), patient).await);
    running.image("kept", "v1", "kept").await;
    let image = running.image("r", "v1", "a secret").await;
    let r = name("r");
    let deleted = running.registry.repository_delete(Subject::Operator, &r);
    deleted.await.unwrap();
    let turn = running.registry.alone(Subject::Operator, &r).await.unwrap();
    let others = {
        let running = Arc::clone(&running);
        tokio::spawn(async move {
            let (r, s) = (name("r"), name("s"));
            let is_back = running
                .registry
                .repository_undelete(Subject::Operator, &r, &s);
            is_back.await.unwrap();
            assert!(running.pulls("s", "v1").await, "so that caches have it");
        })
    };
    tokio::time::sleep(LOOKED / 4).await;
    let gc = running.storage.gc();
    let purge = tokio::spawn(async move { gc.expunge(&target(image)).await });
    tokio::time::sleep(LOOKED).await;
    drop(turn);
    others.await.unwrap();
    let took = purge.await.unwrap().unwrap();
    assert_eq!((took.manifest_count, took.tag_count), (1, 1), "{took:?}");
    assert_eq!(took.repositories.iter().next().unwrap(), "s");
    assert!(!running.pulls("s", "v1").await);
    assert_eq!(running.collects().await.at_once, 3);
    assert!(!running.has(&layer("a secret")) && !running.has(&image));
    let running = Arc::into_inner(running).unwrap();
    running.ends_clean(folder.path()).await;
}

/// It was said by digest that no lease keeps a blob, and that stayed said when the
/// blob was pushed again: its layers died under a push that had been told of them.
#[tokio::test(flavor = "multi_thread")]
async fn a_push_after_a_purge_keeps_its_layers_until_its_manifest() {
    let folder = tempfile::tempdir().unwrap();
    let running = Running::start(folder.path(), patient).await;
    running.image("kept", "v1", "kept").await;
    let image = running.image("a", "v1", "content").await;
    // It is in use, so that the life that was purged is here still.
    let pinned = running.storage.store.pin(&[layer("content")]).unwrap();
    running.storage.gc().expunge(&target(image)).await.unwrap();
    let outcome = running.collects().await;
    assert_eq!((outcome.at_once, outcome.at_once_left), (2, 1));
    running.blob("a", "content").await;
    drop(pinned);
    for _ in 0..2 {
        let outcome = running.collects().await;
        assert_eq!((outcome.at_once, outcome.at_once_left), (0, 0));
        assert!(running.has(&layer("content")), "{outcome:?}");
    }
    // What was said of a life that ended holds for no other one.
    let other = layer("other");
    let catalog = &running.storage.catalog;
    catalog
        .begin_at_once(&other, &Arc::new(crate::catalog::Leaving::of(1)))
        .await
        .unwrap();
    running.blob("a", "other").await;
    for _ in 0..2 {
        running.collects().await;
        assert!(running.has(&other));
    }
    assert_eq!(catalog.at_once(0).await.unwrap(), []);
    running.ends_clean(folder.path()).await;
}

/// A connection that breaks takes no half of a purge along.
#[tokio::test(flavor = "multi_thread")]
async fn a_purge_that_nobody_waits_for_comes_to_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let running = Running::start(folder.path(), patient).await;
    running.image("kept", "v1", "kept").await;
    let image = running.image("a", "v1", "a secret").await;
    let a = name("a");
    let turn = running.registry.alone(Subject::Operator, &a).await.unwrap();
    let gc = running.storage.gc();
    let purge = tokio::spawn(async move { gc.expunge(&target(image)).await });
    tokio::time::sleep(LOOKED).await;
    purge.abort();
    assert!(purge.await.unwrap_err().is_cancelled());
    drop(turn);
    running.registry.settle().await;
    assert!(!running.pulls("a", "v1").await);
    assert_eq!(running.collects().await.at_once, 3);
    running.ends_clean(folder.path()).await;
}

/// Whoever asks whether it is paused set what the others see by what it had read
/// before, over a pause, or the end of one, that came between.
#[tokio::test(flavor = "multi_thread")]
async fn a_pause_and_its_end_are_not_lost_to_those_who_ask() {
    let folder = tempfile::tempdir().unwrap();
    let running = Running::start(folder.path(), |_| {}).await;
    running.image("kept", "v1", "kept").await;
    let mut asking = Vec::new();
    for _ in 0..4 {
        let gc = running.storage.gc();
        asking.push(tokio::spawn(async move {
            loop {
                gc.pause_that_is().await.unwrap();
            }
        }));
    }
    let gc = running.storage.gc();
    for round in 0..100 {
        gc.hold_up(format!("{round}")).await.unwrap();
        for _ in 0..10 {
            assert!(gc.observe().is_paused, "round {round}");
            tokio::task::yield_now().await;
        }
        assert!(gc.resume().await.unwrap());
        for _ in 0..10 {
            assert!(!gc.observe().is_paused, "round {round}");
            tokio::task::yield_now().await;
        }
    }
    for task in asking {
        task.abort();
        let _ = task.await;
    }
    drop(gc);
    running.ends_clean(folder.path()).await;
}
