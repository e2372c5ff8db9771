//! Purges that are refused when others have named what would go, that fail in the
//! middle, and that find a blob by another of its digests: what is left of them, and
//! what a repair makes of their notes.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicI64;

use orlop_format::digest::Algorithm;

use super::purge::{made_again, of, patient};
use super::*;
use crate::collection::{ExpungeError, Target};

pub(super) fn parsed(name: &str) -> RepositoryName {
    RepositoryName::parse(name).unwrap()
}

/// What the catalog says of these digests in these repositories, and of their tags.
pub(super) async fn names_of(
    running: &Running,
    repositories: &[&str],
    digests: &[Digest],
) -> BTreeMap<String, String> {
    let catalog = &running.storage.catalog;
    let mut names = BTreeMap::new();
    for name in repositories {
        let tags = catalog.tags(name, None, 10_000).await.unwrap();
        for tag in tags.unwrap_or_default() {
            let by_tag = Reference::parse(&tag).unwrap();
            let row = catalog.manifest(name, &by_tag);
            let row = row.await.unwrap().unwrap();
            names.insert(format!("{name}:{tag}"), row.digest.to_string());
        }
        for digest in digests {
            let by_digest = Reference::Digest(*digest);
            let is_there = catalog.manifest(name, &by_digest).await.unwrap().is_some();
            let hidden = catalog.hidden(name, &by_digest).await.unwrap();
            let is_linked = catalog.blob_linked(name, digest).await.unwrap();
            // Of tags that go one after the other a repair may know more.
            let is_hidden = hidden.is_some();
            let says = format!("manifest {is_there}, hidden {is_hidden}, linked {is_linked}");
            names.insert(format!("{name}@{digest}"), says);
        }
    }
    names
}

/// The purge took links of other repositories before it saw that it is refused.
#[tokio::test(flavor = "multi_thread")]
async fn a_purge_that_a_push_overtakes_leaves_the_links_of_others() {
    let folder = tempfile::tempdir().unwrap();
    let running = Running::start(folder.path(), patient).await;
    let child = running.image("a", "", "content").await;
    running.image("a", "kept", "kept").await;
    // Mounted, and no manifest names it there yet.
    running.blob("c", "content").await;
    let name = parsed("a");
    let held = running.registry.alone(Subject::Operator, &name).await;
    let held = held.unwrap();
    // All is checked, and it waits for the name; then so does the purge.
    let pushing = async { running.index("a", "all", &[child]).await };
    let gc = running.storage.gc();
    let purging = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        gc.expunge(&of(None, child)).await
    };
    let letting_go = async {
        tokio::time::sleep(Duration::from_millis(1500)).await;
        drop(held);
    };
    let (index, purged, ()) = tokio::join!(pushing, purging, letting_go);
    let Err(ExpungeError::Needed(by)) = purged else {
        panic!("{purged:?}");
    };
    assert_eq!(by[0].manifest, index);
    assert!(running.has_blob("c", &layer("content")).await);
    assert!(running.pulls("a", "all").await);
    // Whoever was told of it keeps it: no lease was ended.
    running.collect_now().await;
    assert!(running.has_blob("c", &layer("content")).await);
    assert_eq!(running.storage.catalog.at_once(0).await.unwrap(), []);
    drop(gc);
    running.ends_clean(folder.path()).await;
}

/// A repository that has a blob by another digest was not asked: its leases ended.
#[tokio::test(flavor = "multi_thread")]
async fn a_link_by_another_digest_of_the_blob_keeps_its_leases() {
    for algorithm in [Algorithm::Sha512, Algorithm::Blake3] {
        let folder = tempfile::tempdir().unwrap();
        let running = Running::start(folder.path(), patient).await;
        let image = running.image("a", "v1", "content").await;
        running.image("a", "kept", "kept").await;
        let other = Digest::of(algorithm, b"content");
        let stored = async |name: &str| {
            let name = parsed(name);
            let body = stream::iter([Ok(Bytes::from_static(b"content"))]).boxed();
            let stored = running.registry.upload_whole(WHO, &name, body, other);
            stored.await.unwrap();
        };
        stored("c").await;
        let took = running.storage.gc().expunge(&of(Some("a"), image)).await;
        let took = took.unwrap();
        assert_eq!(took.left, [(layer("content"), Vec::new())], "{took:?}");
        let outcome = running.collect_now().await;
        assert_eq!((outcome.at_once, outcome.dead), (2, 2), "{outcome:?}");
        assert!(running.has_blob("c", &other).await);
        // From all repositories: that link goes too, and the bytes at once.
        let image = running.image("a", "v1", "content").await;
        stored("a").await;
        let took = running
            .storage
            .gc()
            .expunge(&of(None, image))
            .await
            .unwrap();
        assert_eq!((took.blobs.len(), took.left_count), (3, 0), "{took:?}");
        for name in ["a", "c"] {
            assert!(!running.has_blob(name, &other).await, "{name}");
        }
        let outcome = running.collect_now().await;
        assert_eq!(
            (outcome.at_once, outcome.at_once_left),
            (3, 0),
            "{outcome:?}"
        );
        assert!(!running.has(&layer("content")));
        // A manifest that names it by its other digest keeps it, and is told.
        let image = running.image("a", "v1", "content").await;
        stored("b").await;
        let config = running.blob("b", "config").await;
        let text = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": config.to_string(), "size": 6,
            },
            "layers": [{
                "mediaType": "application/vnd.oci.image.layer.v1.tar",
                "digest": other.to_string(), "size": 7,
            }],
        });
        let put = running.put("b", "v1", (MANIFEST, text.to_string())).await;
        let took = running
            .storage
            .gc()
            .expunge(&of(None, image))
            .await
            .unwrap();
        assert_eq!(took.left_count, 1, "{took:?}");
        assert_eq!(took.left[0].1[0].manifest, put.unwrap());
        running.collect_now().await;
        assert!(running.pulls("b", "v1").await);
        running.ends_clean(folder.path()).await;
    }
}

/// Lets so many changes be written and no more, until it is told otherwise.
fn limit(running: &Running, changes: i64) {
    let left = AtomicI64::new(changes);
    running.storage.catalog.tell(Arc::new(move |place| {
        place != "commit" || left.fetch_sub(1, Ordering::SeqCst) > 0
    }));
}

/// Whether the purge came to its end, when the catalog took so many changes of it.
async fn cut_short(changes: i64) -> bool {
    let folder = tempfile::tempdir().unwrap();
    let running = Running::start(folder.path(), patient).await;
    running.image("a", "kept", "kept").await;
    let child = running.image("a", "", "content").await;
    let index = running.index("a", "all", &[child]).await;
    // More than are told of one manifest, and than one change removes.
    for number in 0..130 {
        running.index("a", &format!("t{number}"), &[child]).await;
    }
    // One tag was deleted before.
    running.untag("a", "t7").await;
    assert_eq!(running.image("b", "", "content").await, child);
    assert_eq!(running.index("b", "all", &[child]).await, index);
    let (b, back) = (parsed("b"), parsed("back"));
    let registry = &running.registry;
    let deleted = registry.repository_delete(Subject::Operator, &b).await;
    deleted.unwrap();
    let target = Target {
        repository: None,
        digest: index,
    };
    limit(&running, changes);
    let purged = running.storage.gc().expunge(&target).await;
    running.storage.catalog.tell(Arc::new(|_| true));
    let undeleted = registry.repository_undelete(Subject::Operator, &b, &back);
    undeleted.await.unwrap();
    let digests = [index, child, layer("content"), layer("config of content")];
    let names = ["a", "b", "back"];
    let before = names_of(&running, &names, &digests).await;
    let image_of = made_again(running, folder.path()).await;
    let running = Running::start(image_of.path(), patient).await;
    let after = names_of(&running, &names, &digests).await;
    let broken = format!("back@{index}");
    for (name, was) in before {
        // That it is hidden there no note can say: it is gone.
        if name != broken || was == after[&name] {
            assert_eq!(was, after[&name], "{changes} changes, {name}, {purged:?}");
        } else {
            assert!(was.contains("hidden true"), "{changes} changes, {was}");
            assert!(after[&name].contains("manifest false, hidden false"));
        }
    }
    // Done again it goes on.
    match running.storage.gc().expunge(&target).await {
        Ok(_) => {}
        Err(ExpungeError::Unknown(_)) => assert!(purged.is_ok()),
        Err(error) => panic!("{error}"),
    }
    assert!(running.pulls("a", "kept").await);
    running.ends_clean(image_of.path()).await;
    purged.is_ok()
}

/// Of a purge that failed some tags were noted again, and nothing that was hidden or
/// in a deleted repository: a repair took what was there.
#[tokio::test(flavor = "multi_thread")]
async fn a_repair_makes_of_a_purge_that_failed_what_was_there() {
    // The first one hides it, as any delete does: that one is as noted.
    let mut changes = 1;
    while !cut_short(changes).await {
        changes += 1;
        assert!(changes < 40);
    }
    println!("cut short at {changes} changes");
    assert!(changes > 4);
}

/// Leases of what others have ended with a purge that never came to their links.
#[tokio::test(flavor = "multi_thread")]
async fn a_purge_that_fails_leaves_leases_to_those_who_have_links() {
    let mut stayed = 0;
    for changes in 1..40 {
        let folder = tempfile::tempdir().unwrap();
        let running = Running::start(folder.path(), patient).await;
        running.image("a", "kept", "kept").await;
        let image = running.image("a", "v1", "content").await;
        running.blob("c", "content").await;
        // The same bytes by another digest.
        let other = Digest::of(Algorithm::Sha512, b"content");
        let body = stream::iter([Ok(Bytes::from_static(b"content"))]).boxed();
        let d = parsed("d");
        let stored = running.registry.upload_whole(WHO, &d, body, other);
        stored.await.unwrap();
        limit(&running, changes);
        let purged = running.storage.gc().expunge(&of(None, image)).await;
        running.storage.catalog.tell(Arc::new(|_| true));
        let catalog = &running.storage.catalog;
        let mut is_linked = false;
        for (name, digest) in [("c", layer("content")), ("d", other)] {
            is_linked |= catalog.blob_linked(name, &digest).await.unwrap();
        }
        running.collect_now().await;
        let is_here = running.has(&layer("content"));
        assert!(is_here || !is_linked, "{changes} changes: {purged:?}");
        stayed += u64::from(is_linked);
        // Done again it goes on, and what it took goes at once.
        match running.storage.gc().expunge(&of(None, image)).await {
            Ok(_) | Err(ExpungeError::Unknown(_)) => {}
            Err(error) => panic!("{error}"),
        }
        running.collect_now().await;
        assert!(!running.has(&image), "{changes} changes");
        running.ends_clean(folder.path()).await;
        if purged.is_ok() {
            assert!(!is_here);
            assert!(stayed > 3);
            return;
        }
    }
    panic!("a purge has no end");
}

/// A rule's delete held up a pause while it waited for a name that a purge had.
#[tokio::test(flavor = "multi_thread")]
async fn a_pause_does_not_wait_for_who_has_a_name() {
    let folder = tempfile::tempdir().unwrap();
    let rule = |settings: &mut Settings| settings.untagged = Some(LEASE).into();
    let running = Running::start(folder.path(), rule).await;
    let image = running.image("a", "", "content").await;
    running.image("a", "kept", "kept").await;
    tokio::time::sleep(LEASE * 3).await;
    let name = parsed("a");
    let held = running.registry.alone(Subject::Operator, &name).await;
    let held = held.unwrap();
    let id = running.start_job("{}").await;
    let jobs = running.storage.jobs().unwrap();
    until(async || jobs.show(id).await.unwrap().started_at.is_some()).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let gc = running.storage.gc();
    let paused = gc.hold_up("moving disks".to_owned());
    let paused = tokio::time::timeout(Duration::from_secs(5), paused).await;
    paused.expect("it waits for the name").unwrap();
    drop(held);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(running.pulls("a", &image.to_string()).await, "it is paused");
    gc.resume().await.unwrap();
    until(async || jobs.show(id).await.unwrap().ended_at.is_some()).await;
    assert!(!running.pulls("a", &image.to_string()).await);
    assert!(running.pulls("a", "kept").await);
    // A job that waits for a name ends when somebody wants that.
    running.image("a", "", "more").await;
    tokio::time::sleep(LEASE * 3).await;
    drop((gc, jobs));
    running.stop().await;
    let running = Running::start(folder.path(), rule).await;
    let held = running.registry.alone(Subject::Operator, &name).await;
    let held = held.unwrap();
    let id = running.start_job("{}").await;
    let jobs = running.storage.jobs().unwrap();
    until(async || jobs.show(id).await.unwrap().started_at.is_some()).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    jobs.cancel(id).await.unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(5), running.ended(id)).await;
    assert_eq!(
        ended.expect("it waits for the name").state.name(),
        "cancelled"
    );
    drop((held, jobs));
    running.ends_clean(folder.path()).await;
}

/// A sweep that was given up in the middle did not count what had died by then.
#[tokio::test(flavor = "multi_thread")]
async fn what_goes_at_once_is_counted_also_when_the_sweep_is_given_up() {
    let folder = tempfile::tempdir().unwrap();
    let running = Running::start(folder.path(), patient).await;
    running.image("a", "kept", "kept").await;
    let mut children = Vec::new();
    for number in 0..100 {
        children.push(running.image("a", "", &format!("content {number}")).await);
    }
    let index = running.index("a", "all", &children).await;
    let took = running
        .storage
        .gc()
        .expunge(&of(None, index))
        .await
        .unwrap();
    assert_eq!(took.blobs.len(), 301, "{took:?}");
    // When the first of them have died.
    let (store, blobs) = (running.storage.store.clone(), took.blobs);
    let maintenance = running.maintenance.clone();
    let is_done = std::sync::atomic::AtomicBool::new(false);
    running.storage.catalog.tell(Arc::new(move |place| {
        let is_gone = |blob: &Digest| store.look(blob).unwrap().is_none();
        if place == "commit" && blobs.iter().any(is_gone) && !is_done.swap(true, Ordering::SeqCst) {
            maintenance.set(crate::registry::ReadOnly::asked(None).ok());
        }
        true
    }));
    let id = running.start_job("{}").await;
    until(async || running.maintenance.read_only().is_some()).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    running.maintenance.set(None);
    let job = running.ended(id).await;
    let outcome: Outcome = serde_json::from_str(&job.outcome).unwrap();
    assert_eq!(
        (outcome.at_once, outcome.at_once_left),
        (301, 0),
        "{outcome:?}"
    );
    running.ends_clean(folder.path()).await;
}
