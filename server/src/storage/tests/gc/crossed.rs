//! A purge by digest that something else crosses, before each of its reads and changes
//! of the catalog: both come to their ends, nothing that is named is broken, a pause
//! does not wait, and a repair makes of the notes what the catalog has.

use std::sync::atomic::{AtomicBool, AtomicU64};

use orlop_figures as figures;

use super::purge::{made_again, of, patient};
use super::refused::{names_of, parsed};
use super::watched::Gate;
use super::*;
use crate::collection::ExpungeError;

/// How long what crosses a purge has for itself before that goes on.
const CROSSED: Duration = Duration::from_millis(250);
/// More steps than a purge has.
const STEPS_MAX: u64 = 200;
const NAMES: [&str; 4] = ["a", "b", "c", "back"];

/// What crosses it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Other {
    Push,
    Index,
    Mount,
    Undelete,
    DeleteRepository,
    UndeleteRepository,
    Pause,
    Settle,
}

const OTHERS: [Other; 8] = [
    Other::Push,
    Other::Index,
    Other::Mount,
    Other::Undelete,
    Other::DeleteRepository,
    Other::UndeleteRepository,
    Other::Pause,
    Other::Settle,
];

async fn perform(running: &Running, other: Other, image: Digest) {
    let registry = &running.registry;
    match other {
        Other::Push => {
            assert_eq!(running.image("a", "again", "content").await, image);
        }
        Other::Index => {
            let child = Reference::Digest(image);
            let row = registry.manifest_stat(WHO, &parsed("a"), &child).await;
            let Ok(row) = row else { return };
            let text = serde_json::json!({
                "schemaVersion": 2, "mediaType": INDEX, "manifests": [{
                    "mediaType": row.media_type,
                    "digest": row.digest.to_string(),
                    "size": row.size,
                }],
            });
            // Its tag was another's.
            running.put("a", "moves", (INDEX, text.to_string())).await;
        }
        Other::Mount => {
            let (a, c, blob) = (parsed("a"), parsed("c"), layer("content"));
            let mounted = registry.blob_mount(WHO, &c, Some(&a), &blob);
            match mounted.await {
                Ok(_) | Err(Error::BlobUnknown(_)) => {}
                Err(error) => panic!("{error}"),
            }
        }
        Other::Undelete => {
            let (a, by_digest) = (parsed("a"), Reference::Digest(image));
            let back = registry.undelete(Subject::Operator, &a, &by_digest);
            match back.await {
                Ok(_) | Err(Error::ManifestUnknown) => {}
                Err(error) => panic!("{error}"),
            }
        }
        Other::DeleteRepository => {
            let a = parsed("a");
            let deleted = registry.repository_delete(Subject::Operator, &a);
            deleted.await.unwrap();
        }
        Other::UndeleteRepository => {
            let (b, back) = (parsed("b"), parsed("back"));
            let undeleted = registry.repository_undelete(Subject::Operator, &b, &back);
            undeleted.await.unwrap();
        }
        Other::Pause => {
            let gc = running.storage.gc();
            let paused = gc.hold_up("moving disks".to_owned());
            paused.await.unwrap();
        }
        Other::Settle => registry.settle().await,
    }
}

/// Everything that is named can be pulled.
async fn is_whole(running: &Running, image: Digest, case: &str) {
    let catalog = &running.storage.catalog;
    for name in NAMES {
        let tags = catalog.tags(name, None, 100).await.unwrap();
        for tag in tags.unwrap_or_default() {
            assert!(running.pulls(name, &tag).await, "{case}: {name}:{tag}");
        }
        let by_digest = Reference::Digest(image);
        let row = catalog.manifest(name, &by_digest).await.unwrap();
        let pulls = running.pulls(name, &image.to_string()).await;
        assert_eq!(row.is_some(), pulls, "{case}: {name}");
    }
}

/// Whether the purge had so many steps.
async fn crossed(other: Other, repository: Option<&str>, step: u64) -> bool {
    let case = format!("{other:?}, {repository:?}, step {step}");
    let folder = tempfile::tempdir().unwrap();
    let running = Running::start(folder.path(), patient).await;
    running.image("a", "moves", "kept").await;
    running.image("b", "kept", "kept").await;
    let image = running.image("a", "v1", "content").await;
    running.image("b", "v1", "content").await;
    running.blob("c", "config of content").await;
    let parts = [image, layer("content"), layer("config of content")];
    let sizes = parts.map(|of| (of, running.storage.store.look(&of).unwrap().unwrap().size));
    running.image("c", "kept", "kept").await;
    if other == Other::Undelete {
        running.delete("a", &image).await;
    }
    if other == Other::UndeleteRepository {
        let b = parsed("b");
        let deleted = running.registry.repository_delete(Subject::Operator, &b);
        deleted.await.unwrap();
    }
    // Nothing is in the catalog's cache.
    running.stop().await;
    let running = Arc::new(Running::start(folder.path(), patient).await);
    let gate = Arc::new(Gate::default());
    gate.set(true);
    let (steps, is_change) = (AtomicU64::new(0), Arc::new(AtomicBool::new(false)));
    let (waits, at_change) = (Arc::clone(&gate), Arc::clone(&is_change));
    let is_on = Arc::new(AtomicBool::new(false));
    let on = Arc::clone(&is_on);
    running.storage.catalog.tell(Arc::new(move |place| {
        let is_step = matches!(place, "read" | "commit") && on.load(Ordering::SeqCst);
        if is_step && steps.fetch_add(1, Ordering::SeqCst) == step {
            at_change.store(place == "commit", Ordering::SeqCst);
            match place {
                // The writer has a thread of its own.
                "commit" => waits.pass(),
                _ => tokio::task::block_in_place(|| waits.pass()),
            }
        }
        true
    }));
    let (gc, target) = (running.storage.gc(), of(repository, image));
    is_on.store(true, Ordering::SeqCst);
    let purge = tokio::spawn(async move { gc.expunge(&target).await });
    until(async || gate.waiting() > 0 || purge.is_finished()).await;
    let is_crossed = gate.waiting() > 0;
    let doing = Arc::clone(&running);
    let mut doing = tokio::spawn(async move { perform(&doing, other, image).await });
    let done = tokio::time::timeout(CROSSED, &mut doing).await;
    let is_between = is_crossed && done.is_ok();
    if other == Other::Pause && is_crossed && !is_change.load(Ordering::SeqCst) {
        assert!(done.is_ok(), "{case}: a pause waits for a purge");
    }
    gate.set(false);
    let purged = tokio::time::timeout(Duration::from_secs(60), purge).await;
    let purged = purged.expect(&case).unwrap();
    match done {
        Ok(done) => done.unwrap(),
        Err(_) => {
            let done = tokio::time::timeout(Duration::from_secs(60), doing).await;
            done.expect(&case).unwrap();
        }
    }
    match &purged {
        Ok(_) | Err(ExpungeError::Needed(_) | ExpungeError::Unknown(_)) => {}
        Err(error) => panic!("{case}: {error}"),
    }
    is_whole(&running, image, &case).await;
    if other == Other::Pause {
        running.storage.gc().resume().await.unwrap();
    }
    // What was named again just before it was said to go is not, a cycle later.
    running.collect_now().await;
    let outcome = running.collect_now().await;
    assert_eq!(outcome.at_once_left, 0, "{case}: {outcome:?}");
    is_whole(&running, image, &case).await;
    // What came to its end while the purge ran is in what that says.
    if let Ok(took) = &purged
        && (is_between || matches!(other, Other::Pause | Other::Settle))
    {
        let is_gone = |of: &&(Digest, u64)| took.blobs.contains(&of.0);
        for (blob, _) in sizes.iter().filter(is_gone) {
            assert!(!running.has(blob), "{case}: {blob} of {took:?}");
        }
        let bytes: u64 = sizes.iter().filter(is_gone).map(|(_, size)| size).sum();
        assert_eq!(took.bytes, bytes, "{case}: {took:?}");
        for (blob, by) in took.left.iter().filter(|(_, by)| !by.is_empty()) {
            assert!(running.has(blob), "{case}: {blob} by {by:?}");
        }
    }
    let is_alone = matches!(other, Other::Pause | Other::Settle);
    if is_alone && repository.is_none() {
        assert!(purged.is_ok() && !running.has(&image), "{case}: {purged:?}");
    }
    let digests = [
        image,
        layer("content"),
        layer("config of content"),
        layer("kept"),
    ];
    let names = names_of(&running, &NAMES, &digests).await;
    let running = Arc::into_inner(running).unwrap();
    let image_of = made_again(running, folder.path()).await;
    let running = Running::start(image_of.path(), patient).await;
    let again = names_of(&running, &NAMES, &digests).await;
    assert_eq!(names, again, "{case}: {purged:?}");
    is_whole(&running, image, &case).await;
    running.ends_clean(image_of.path()).await;
    is_crossed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whatever_crosses_a_purge_at_any_step_nothing_is_broken() {
    let stride = figures::choose(41, 17, 1);
    // Each crosses one kind of purge, or both.
    let kinds = figures::choose(1, 2, 2);
    for (first, other) in (0..).zip(OTHERS) {
        let mut targets = [None, Some("a")];
        targets.rotate_left(usize::from(first % 2 == 1));
        for repository in targets.into_iter().take(kinds) {
            let mut step = first * 5 % stride;
            while crossed(other, repository, step).await {
                step += stride;
                assert!(step < STEPS_MAX);
            }
            println!("{other:?} crossed a purge of {repository:?} up to step {step}");
        }
    }
}
