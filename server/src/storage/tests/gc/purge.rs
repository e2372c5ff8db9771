//! What an operator purges goes at once, with its bytes, whatever leases and
//! windows say; what is in use, or needed, does not.

use super::*;
use crate::collection::{ExpungeError, Expunged, Target};

const HOUR: Duration = Duration::from_secs(3600);

pub(super) fn patient(settings: &mut Settings) {
    settings.gc_lease = HOUR;
    settings.undelete_window = HOUR;
}

pub(super) fn of(repository: Option<&str>, digest: Digest) -> Target {
    let repository = repository.map(str::to_owned);
    Target { repository, digest }
}

impl Running {
    async fn expunge(&self, target: &Target) -> Result<Expunged, ExpungeError> {
        let gc = self.storage.gc();
        let would = gc.would_expunge(target).await;
        let did = gc.expunge(target).await;
        if let (Ok(would), Ok(did)) = (would, &did) {
            assert_eq!(would, *did, "a dry run says what would go");
        }
        did
    }

    /// Collects now, whatever is leased.
    pub(super) async fn collect_now(&self) -> Outcome {
        let id = self.start_job("{}").await;
        let job = self.ended(id).await;
        assert_eq!(job.state.name(), "done", "{}", job.outcome);
        serde_json::from_str(&job.outcome).unwrap()
    }

    pub(super) async fn has_blob(&self, repository: &str, digest: &Digest) -> bool {
        let name = RepositoryName::parse(repository).unwrap();
        self.registry.blob_stat(WHO, &name, digest).await.is_ok()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_purged_goes_at_once_also_while_everything_is_leased() {
    let folder = tempfile::tempdir().unwrap();
    let mut running = Running::start(folder.path(), patient).await;
    for round in 0..2 {
        let secret = format!("a secret {round}");
        let config = format!("config of {secret}");
        let image = running.image("a", "leaked", &secret).await;
        assert_eq!(running.image("b", "copy", &secret).await, image);
        let parts = (secret.as_str(), "another config");
        running.image_of("c", "shares", parts).await;
        running.image("a", "kept", "kept").await;
        running.untag("a", "leaked").await;
        if round == 1 {
            // Everything is leased for a term after a start.
            running.stop().await;
            running = Running::start(folder.path(), patient).await;
        }
        // Another image has the layer: that one stays until it is purged too.
        let took = running.expunge(&of(None, image)).await.unwrap();
        assert_eq!((took.manifest_count, took.tag_count), (2, 1), "{took:?}");
        assert_eq!(took.repositories.len(), 2);
        assert_eq!(took.blobs.len(), 2, "manifest and config: {took:?}");
        assert_eq!((took.left_count, took.left[0].0), (1, layer(&secret)));
        assert_eq!(took.left[0].1[0].repository, "c");
        for (repository, reference) in [("a", image.to_string()), ("b", "copy".to_owned())] {
            assert!(!running.pulls(repository, &reference).await);
            assert!(!running.has_blob(repository, &layer(&config)).await);
            assert!(!running.has_blob(repository, &layer(&secret)).await);
        }
        assert!(running.pulls("c", "shares").await);
        let outcome = running.collect_now().await;
        assert_eq!((outcome.at_once, outcome.dead), (2, 2), "{outcome:?}");
        assert_eq!(outcome.at_once_left, 0, "{outcome:?}");
        assert!(!running.has(&image) && !running.has(&layer(&config)));
        assert!(running.has(&layer(&secret)));
        // By the layer itself: refused as long as an image needs it.
        let refused = running.expunge(&of(None, layer(&secret))).await;
        let Err(ExpungeError::Needed(by)) = refused else {
            panic!("{refused:?}");
        };
        assert_eq!(
            (by.len(), by[0].tags.as_slice()),
            (1, &["shares".to_owned()][..])
        );
        assert!(running.pulls("c", "shares").await);
        running.delete("c", &by[0].manifest).await;
        let took = running.expunge(&of(None, layer(&secret))).await.unwrap();
        assert_eq!((took.manifest_count, took.left_count), (1, 0), "{took:?}");
        let outcome = running.collect_now().await;
        assert_eq!(outcome.at_once, 3, "{outcome:?}");
        assert!(!running.has(&layer(&secret)));
        let name = RepositoryName::parse("c").unwrap();
        let shares = Reference::Digest(by[0].manifest);
        let back = running
            .registry
            .undelete(Subject::Operator, &name, &shares)
            .await;
        assert!(back.is_err(), "no undelete brings it back");
        assert!(running.pulls("a", "kept").await);
        // It can be pushed again.
        running.image("a", "leaked", &secret).await;
        assert!(running.pulls("a", "leaked").await);
    }
    running.ends_clean(folder.path()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_use_is_purged_by_name_and_dies_when_it_is_let_go() {
    let folder = tempfile::tempdir().unwrap();
    let running = Running::start(folder.path(), patient).await;
    let image = running.image("a", "v1", "content").await;
    running.image("a", "kept", "kept").await;
    // A push under way pins what it names.
    let pinned = running.storage.store.pin(&[layer("content")]).unwrap();
    running.expunge(&of(None, image)).await.unwrap();
    assert!(!running.pulls("a", "v1").await);
    let outcome = running.collect_now().await;
    assert_eq!((outcome.at_once, outcome.at_once_left), (2, 1));
    assert!(running.has(&layer("content")));
    drop(pinned);
    let outcome = running.collect_now().await;
    assert_eq!((outcome.at_once, outcome.at_once_left), (1, 0));
    assert!(!running.has(&layer("content")));
    // Whoever asks for what a repository has not keeps nothing alive.
    let image = running.image("a", "v1", "content").await;
    running.expunge(&of(Some("a"), image)).await.unwrap();
    let registry = running.registry.clone();
    let asking = tokio::spawn(async move {
        let name = RepositoryName::parse("a").unwrap();
        loop {
            let stat = registry.blob_stat(WHO, &name, &layer("content")).await;
            assert!(stat.is_err());
            tokio::task::yield_now().await;
        }
    });
    let outcome = running.collect_now().await;
    asking.abort();
    assert_eq!((outcome.at_once, outcome.at_once_left), (3, 0));
    running.ends_clean(folder.path()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_from_one_repository_leaves_the_others_theirs() {
    let folder = tempfile::tempdir().unwrap();
    let running = Running::start(folder.path(), patient).await;
    let image = running.image("a", "v1", "content").await;
    running.image("b", "v1", "content").await;
    // Mounted, and no manifest names it there yet.
    running.blob("c", "of the config").await;
    let other = running
        .image_of("a", "v2", ("another", "of the config"))
        .await;
    let took = running.expunge(&of(Some("a"), image)).await.unwrap();
    assert_eq!((took.manifest_count, took.blobs.len()), (1, 0), "{took:?}");
    assert_eq!(took.left_count, 3);
    let took = running.expunge(&of(Some("a"), other)).await.unwrap();
    assert_eq!((took.manifest_count, took.blobs.len()), (1, 2), "{took:?}");
    assert_eq!(took.left[0], (layer("of the config"), Vec::new()));
    running.collect_now().await;
    assert!(!running.pulls("a", "v1").await);
    assert!(running.pulls("b", "v1").await);
    assert!(running.has_blob("c", &layer("of the config")).await);
    assert!(!running.has_blob("a", &layer("of the config")).await);
    let unknown = running.expunge(&of(Some("a"), image)).await;
    assert!(
        matches!(unknown, Err(ExpungeError::Unknown(_))),
        "{unknown:?}"
    );
    let unknown = running.expunge(&of(None, digest(b"nobody"))).await;
    assert!(
        matches!(unknown, Err(ExpungeError::Unknown(_))),
        "{unknown:?}"
    );
    running.ends_clean(folder.path()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pushes_of_what_is_purged_again_and_again_end_whole_or_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let running = Arc::new(Running::start(folder.path(), patient).await);
    running.image("kept", "v1", "kept").await;
    let until = Instant::now() + Duration::from_secs(3);
    let mut pushers = Vec::new();
    for pusher in 0..3 {
        let running = Arc::clone(&running);
        pushers.push(tokio::spawn(async move {
            let repository = format!("r{}", pusher % 2);
            while Instant::now() < until {
                let image = running.image(&repository, "v1", "a secret").await;
                let name = RepositoryName::parse(&repository).unwrap();
                let image = Reference::Digest(image);
                // It may be purged by now, and is whole if not.
                let _ = running.registry.manifest_pull(WHO, &name, &image).await;
            }
        }));
    }
    let image = running.image("r0", "v1", "a secret").await;
    while Instant::now() < until {
        match running.storage.gc().expunge(&of(None, image)).await {
            Ok(_) | Err(ExpungeError::Unknown(_) | ExpungeError::Needed(_)) => {}
            Err(error) => panic!("{error}"),
        }
        running.collect_now().await;
    }
    for pusher in pushers {
        pusher.await.unwrap();
    }
    for repository in ["r0", "r1"] {
        let tags = running.storage.catalog.tags(repository, None, 10).await;
        for tag in tags.unwrap().unwrap_or_default() {
            assert!(running.pulls(repository, &tag).await, "{repository}:{tag}");
        }
    }
    match running.storage.gc().expunge(&of(None, image)).await {
        Ok(_) | Err(ExpungeError::Unknown(_)) => {}
        Err(error) => panic!("{error}"),
    }
    running.collect_now().await;
    assert!(!running.has(&image) && !running.has(&layer("a secret")));
    let running = Arc::into_inner(running).unwrap();
    running.ends_clean(folder.path()).await;
}

/// A catalog that is made again from the notes: what was purged stays away.
#[tokio::test(flavor = "multi_thread")]
async fn a_repair_of_the_catalog_brings_nothing_back_that_was_purged() {
    let folder = tempfile::tempdir().unwrap();
    let running = Running::start(folder.path(), patient).await;
    let image = running.image("a", "leaked", "a secret").await;
    running.image("a", "kept", "kept").await;
    running.image("b", "v1", "of b").await;
    running.image("c", "v1", "of c").await;
    let b = RepositoryName::parse("b").unwrap();
    let c = RepositoryName::parse("c").unwrap();
    running.expunge(&of(None, image)).await.unwrap();
    for name in [&b, &c] {
        let deleted = running.registry.repository_delete(Subject::Operator, name);
        deleted.await.unwrap();
    }
    let back = running
        .registry
        .repository_undelete(Subject::Operator, &c, &c);
    assert_eq!(back.await.unwrap(), 1);
    let image_of = made_again(running, folder.path()).await;
    let running = Running::start(image_of.path(), patient).await;
    assert!(!running.pulls("a", "leaked").await);
    assert!(running.pulls("a", "kept").await);
    assert!(!running.pulls("b", "v1").await);
    assert!(running.pulls("c", "v1").await);
    let a = RepositoryName::parse("a").unwrap();
    let leaked = Reference::parse("leaked").unwrap();
    let back = running
        .registry
        .undelete(Subject::Operator, &a, &leaked)
        .await;
    assert!(matches!(back, Err(Error::ManifestUnknown)), "{back:?}");
    let back = running
        .registry
        .repository_undelete(Subject::Operator, &b, &b);
    assert_eq!(back.await.unwrap(), 1);
    assert!(running.pulls("b", "v1").await);
    running.ends_clean(image_of.path()).await;
}

/// Of two repositories of a name one loses what the other keeps.
#[tokio::test(flavor = "multi_thread")]
async fn a_purge_of_what_a_deleted_repository_of_the_name_keeps_is_noted_too() {
    let folder = tempfile::tempdir().unwrap();
    let running = Running::start(folder.path(), patient).await;
    let (a, old) = ("a", RepositoryName::parse("old").unwrap());
    let name = RepositoryName::parse(a).unwrap();
    let child = running.image(a, "v1", "content").await;
    let deleted = running.registry.repository_delete(Subject::Operator, &name);
    deleted.await.unwrap();
    assert_eq!(running.image(a, "", "content").await, child);
    let index = running.index(a, "all", &[child]).await;
    let purged = running.expunge(&of(None, index)).await.unwrap();
    assert_eq!(purged.manifest_count, 2, "{purged:?}");
    let child = child.to_string();
    assert!(!running.pulls(a, &child).await);
    let image_of = made_again(running, folder.path()).await;
    let running = Running::start(image_of.path(), patient).await;
    assert!(!running.pulls(a, &child).await);
    let back = running
        .registry
        .repository_undelete(Subject::Operator, &name, &old);
    assert_eq!(back.await.unwrap(), 1);
    assert!(running.pulls("old", "v1").await);
    running.ends_clean(image_of.path()).await;
}

/// The folder as a power cut would leave it, with a catalog that is made again
/// from the notes alone: no copy of it has any of that.
pub(super) async fn made_again(running: Running, folder: &Path) -> tempfile::TempDir {
    let image_of = tempfile::tempdir().unwrap();
    let synced = running
        .storage
        .store
        .put(Bytes::from("synced"), layer("synced"), None);
    synced.await.unwrap();
    copy_tree(folder, image_of.path());
    running.stop().await;
    for name in ["catalog.db", "catalog.db-wal", "catalog.db-shm"] {
        let _ = std::fs::remove_file(image_of.path().join(name));
    }
    let plan = orlop_fsck::repair::plan(image_of.path(), Default::default()).unwrap();
    let outcome = orlop_fsck::repair::apply(&plan, &mut |_| Ok(())).unwrap();
    assert!(outcome.after.clean(), "{outcome:#?}");
    image_of
}

fn copy_tree(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            std::fs::create_dir_all(&to).unwrap();
            copy_tree(&entry.path(), &to);
        } else if entry.file_type().unwrap().is_file() {
            std::fs::copy(entry.path(), &to).unwrap();
        }
    }
}
