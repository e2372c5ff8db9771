//! The whole of a collection, from a push to the end of its bytes: registry,
//! catalog, store and job are the real ones.

#![expect(
    clippy::print_stdout,
    reason = "random tests print their seeds, counting ones their counts"
)]

mod beside;
mod crossed;
mod failed;
mod faults;
mod further;
mod kills;
mod operators;
mod purge;
mod races;
mod refused;
mod scale;
mod told;
mod undelete;
mod watched;
mod wrongly;

use std::future::ready;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream;

use super::*;
use crate::collection::{GC, Outcome};
use crate::registry::{Digest, Error, Reference, Registry, RepositoryName, Subject};

const WHO: Subject = Subject::Anonymous;
/// Leases of these tests.
const LEASE: Duration = Duration::from_millis(50);
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

async fn open_with(folder: &Path, change: impl FnOnce(&mut Settings)) -> Storage {
    let mut settings = Settings {
        gc_lease: LEASE,
        undelete_window: Duration::ZERO,
        ..settings(folder)
    };
    change(&mut settings);
    let (disk, lock) = (Blocking::new(2).unwrap(), lock(folder).unwrap());
    let progress = Progress::default();
    let opened = Storage::open(&settings, lock, disk, &progress);
    opened.await.unwrap()
}

/// A storage whose jobs run.
struct Running {
    storage: Arc<Storage>,
    maintenance: Maintenance,
    registry: Registry,
    watch: tokio::task::JoinHandle<()>,
}

impl Running {
    async fn start(folder: &Path, change: impl FnOnce(&mut Settings)) -> Running {
        Running::of(open_with(folder, change).await)
    }

    /// Runs the jobs of a storage.
    fn of(storage: Storage) -> Running {
        let storage = Arc::new(storage);
        let maintenance = Maintenance::default();
        let (watched, obeyed) = (Arc::clone(&storage), maintenance.clone());
        let watch = tokio::spawn(async move {
            watched.watch(&obeyed, &Supervisor::default()).await;
        });
        Running {
            registry: storage.registry(),
            storage,
            maintenance,
            watch,
        }
    }

    async fn stop(self) {
        self.storage.close(ready(())).await.unwrap();
        self.watch.await.unwrap();
    }

    /// Ends it, and asks fsck whether all that is named is there.
    async fn ends_clean(self, folder: &Path) {
        self.stop().await;
        let report = orlop_fsck::check_with(folder, &orlop_fsck::Options::default()).unwrap();
        assert!(report.clean(), "{report}");
        assert!(report.counts.manifests > 0, "{report}");
        let is_reference = |note: &&orlop_fsck::Finding| note.code.name().starts_with("reference.");
        let found = report.notes().iter().find(is_reference);
        assert_eq!(found, None);
    }

    async fn start_job(&self, params: &str) -> i64 {
        let jobs = self.storage.jobs().unwrap();
        jobs.start(GC, params).await.unwrap().id
    }

    async fn ended(&self, id: i64) -> crate::catalog::Job {
        let jobs = self.storage.jobs().unwrap();
        for _ in 0..6000 {
            let job = jobs.show(id).await.unwrap();
            if job.ended_at.is_some() {
                return job;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the job did not end");
    }

    /// Collects, after leases have ended.
    async fn collect(&self, params: &str) -> Outcome {
        tokio::time::sleep(LEASE * 3).await;
        let id = self.start_job(params).await;
        let job = self.ended(id).await;
        assert_eq!(job.state.name(), "done", "{}", job.outcome);
        serde_json::from_str(&job.outcome).unwrap()
    }

    async fn blob(&self, repository: &str, content: &str) -> Digest {
        let name = RepositoryName::parse(repository).unwrap();
        let digest = digest(content.as_bytes());
        let body = stream::iter([Ok(Bytes::from(content.to_owned()))]).boxed();
        let id = self.registry.upload_start(WHO, &name, None).unwrap();
        let finished = self
            .registry
            .upload_finish(WHO, &name, id, None, body, digest);
        finished.await.unwrap();
        digest
    }

    /// Pushes a manifest. None: something that it names is not here.
    async fn put(
        &self,
        repository: &str,
        reference: &str,
        (kind, text): (&str, String),
    ) -> Option<Digest> {
        let name = RepositoryName::parse(repository).unwrap();
        let reference = Reference::parse(reference).unwrap();
        let room = self.registry.manifest_room(WHO, &name, text.len()).unwrap();
        let pushed = self.registry.manifest_push(
            WHO,
            &name,
            (&reference, &[]),
            Some(kind),
            (text.into(), room),
        );
        match pushed.await {
            Ok(pushed) => Some(pushed.digest),
            Err(Error::ReferencesUnknown { .. }) => None,
            Err(error) => panic!("{error}"),
        }
    }

    /// Pushes an image of one layer of this content.
    async fn image(&self, repository: &str, reference: &str, content: &str) -> Digest {
        let config = format!("config of {content}");
        self.image_of(repository, reference, (content, &config))
            .await
    }

    /// As clients do: from the beginning, when a lease was over before its end.
    async fn image_of(
        &self,
        repository: &str,
        reference: &str,
        (content, config): (&str, &str),
    ) -> Digest {
        let descriptor = |kind: &str, content: &str| {
            serde_json::json!({
                "mediaType": format!("application/vnd.oci.image.{kind}"),
                "digest": digest(content.as_bytes()).to_string(),
                "size": content.len(),
            })
        };
        let text = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": descriptor("config.v1+json", config),
            "layers": [descriptor("layer.v1.tar", content)],
        })
        .to_string();
        let by_digest = digest(text.as_bytes()).to_string();
        let reference = if reference.is_empty() {
            &by_digest
        } else {
            reference
        };
        for _ in 0..100 {
            self.blob(repository, content).await;
            self.blob(repository, config).await;
            if let Some(digest) = self
                .put(repository, reference, (MANIFEST, text.clone()))
                .await
            {
                return digest;
            }
        }
        panic!("a lease is always over");
    }

    async fn index(&self, repository: &str, tag: &str, children: &[Digest]) -> Digest {
        let name = RepositoryName::parse(repository).unwrap();
        let mut manifests = Vec::new();
        for child in children {
            let child = Reference::Digest(*child);
            let row = self
                .registry
                .manifest_stat(WHO, &name, &child)
                .await
                .unwrap();
            manifests.push(serde_json::json!({
                "mediaType": row.media_type,
                "digest": row.digest.to_string(),
                "size": row.size,
            }));
        }
        let text = serde_json::json!({
            "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests,
        });
        self.put(repository, tag, (INDEX, text.to_string()))
            .await
            .unwrap()
    }

    async fn delete(&self, repository: &str, digest: &Digest) {
        let name = RepositoryName::parse(repository).unwrap();
        let deleted = self.registry.manifest_delete(WHO, &name, digest);
        deleted.await.unwrap();
    }

    async fn untag(&self, repository: &str, tag: &str) {
        let name = RepositoryName::parse(repository).unwrap();
        let tag = crate::registry::Tag::parse(tag).unwrap();
        self.registry.tag_delete(WHO, &name, &tag).await.unwrap();
    }

    /// Whether a manifest can be pulled with all that it names.
    async fn pulls(&self, repository: &str, reference: &str) -> bool {
        let name = RepositoryName::parse(repository).unwrap();
        let reference = Reference::parse(reference).unwrap();
        let Ok(pulled) = self.registry.manifest_pull(WHO, &name, &reference).await else {
            return false;
        };
        let bytes = pulled.content.bytes(1 << 20).await.unwrap();
        let manifest = orlop_oci::Manifest::parse(&bytes, None).unwrap();
        for named in manifest.references() {
            let digest = named.descriptor.digest;
            let content = match named.kind {
                orlop_oci::RefKind::Child | orlop_oci::RefKind::Subject => {
                    let child = Reference::Digest(digest);
                    let pulled = self.registry.manifest_pull(WHO, &name, &child).await;
                    pulled.unwrap().content
                }
                _ => self.registry.blob_open(WHO, &name, &digest).await.unwrap(),
            };
            let bytes = content.bytes(1 << 20).await.unwrap();
            assert_eq!(Digest::of(digest.algorithm(), &bytes), digest);
        }
        true
    }

    /// Whether the store has a blob, without a lease on it.
    fn has(&self, digest: &Digest) -> bool {
        self.storage.store.look(digest).unwrap().is_some()
    }
}

fn layer(content: &str) -> Digest {
    digest(content.as_bytes())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_deleted_goes_and_all_else_stays() {
    let folder = tempfile::tempdir().unwrap();
    let running = Running::start(folder.path(), |_| {}).await;
    let gone = running.image("a", "gone", "only in gone").await;
    let shared = running.image("a", "kept", "in both").await;
    running.image("b", "kept", "in both").await;
    running.delete("a", &gone).await;
    running.delete("a", &shared).await;
    let outcome = running.collect("{}").await;
    assert_eq!(outcome.purged[1], 2);
    // Manifest, config and layer of one; the rest is the other repository's.
    assert_eq!((outcome.dead, outcome.bounded, outcome.absent), (3, 0, 0));
    assert!(outcome.cycles >= 2, "{outcome:?}");
    for of in [gone, layer("only in gone"), layer("config of only in gone")] {
        assert!(!running.has(&of), "{of}");
    }
    assert!(!running.pulls("a", "gone").await);
    assert!(!running.pulls("a", "kept").await);
    assert!(running.pulls("b", "kept").await);
    // The link went with it; a push of the same starts anew.
    let name = RepositoryName::parse("a").unwrap();
    let only = layer("only in gone");
    let missing = running.registry.blob_open(WHO, &name, &only);
    assert!(missing.await.is_err());
    running.image("a", "gone", "only in gone").await;
    assert!(running.pulls("a", "gone").await);
    running.ends_clean(folder.path()).await;
    // And after a restart, and another collection.
    let running = Running::start(folder.path(), |_| {}).await;
    let outcome = running.collect("{}").await;
    assert_eq!((outcome.dead, outcome.condemned), (0, 0), "{outcome:?}");
    assert!(running.pulls("a", "gone").await);
    assert!(running.pulls("b", "kept").await);
    let outcome = running.collect("{}").await;
    assert!(outcome.idle, "{outcome:?}");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn within_the_window_everything_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let hour = |settings: &mut Settings| settings.undelete_window = Duration::from_secs(3600);
    let running = Running::start(folder.path(), hour).await;
    let image = running.image("a", "v1", "content").await;
    running.delete("a", &image).await;
    let outcome = running.collect("{}").await;
    assert_eq!((outcome.purged, outcome.dead), ([0; 4], 0));
    let plan = running
        .collect(r#"{"plan":true,"undelete_window":0}"#)
        .await;
    assert_eq!(plan.condemned + plan.dead, 3, "{plan:?}");
    assert_eq!(plan.purged, [0; 4]);
    let (name, v1) = (
        RepositoryName::parse("a").unwrap(),
        Reference::parse("v1").unwrap(),
    );
    let back = running.registry.undelete(Subject::Operator, &name, &v1);
    assert_eq!(back.await.unwrap().digest, image);
    assert!(running.pulls("a", "v1").await);
    running.delete("a", &image).await;
    let outcome = running.collect(r#"{"undelete_window":0}"#).await;
    assert_eq!((outcome.purged[1], outcome.dead), (1, 3), "{outcome:?}");
    let again = running.registry.undelete(Subject::Operator, &name, &v1);
    assert!(again.await.is_err());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i04_children_of_an_index_live_with_it_and_go_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let running = Running::start(folder.path(), |_| {}).await;
    let amd = running.image("a", "", "amd").await;
    let arm = running.image("a", "", "arm").await;
    let both = running.image("a", "", "both").await;
    let tagged = running.image("a", "tagged", "tagged").await;
    let v1 = running.index("a", "v1", &[amd, arm, both, tagged]).await;
    running.index("a", "v2", &[both]).await;
    let outcome = running.collect("{}").await;
    assert_eq!((outcome.dead, outcome.retired), (0, 0), "{outcome:?}");
    assert!(running.pulls("a", "v1").await);
    running.delete("a", &v1).await;
    // One goes to see that nothing reaches them, one since their own window.
    let mut retired = 0;
    for _ in 0..2 {
        retired += running.collect("{}").await.retired;
    }
    assert_eq!(retired, 2);
    for (content, stays) in [
        ("amd", false),
        ("arm", false),
        ("both", true),
        ("tagged", true),
    ] {
        assert_eq!(running.has(&layer(content)), stays, "{content}");
    }
    assert!(running.pulls("a", "v2").await);
    assert!(running.pulls("a", "tagged").await);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn untagged_manifests_stay_unless_a_rule_says_otherwise() {
    let folder = tempfile::tempdir().unwrap();
    let running = Running::start(folder.path(), |_| {}).await;
    let image = running.image("a", "latest", "first").await;
    running.image("a", "latest", "second").await;
    running.image("a", "other", "third").await;
    running.untag("a", "other").await;
    assert_eq!(running.collect("{}").await.dead, 0);
    assert!(running.pulls("a", &image.to_string()).await);
    running.stop().await;
    let rule = |settings: &mut Settings| settings.untagged = Some(LEASE).into();
    let running = Running::start(folder.path(), rule).await;
    let mut dead = 0;
    for _ in 0..2 {
        dead += running.collect("{}").await.dead;
    }
    assert_eq!(dead, 6);
    assert!(!running.pulls("a", &image.to_string()).await);
    assert!(running.pulls("a", "latest").await);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_that_no_manifest_ever_named_go_after_their_lease() {
    let folder = tempfile::tempdir().unwrap();
    let long = |settings: &mut Settings| settings.gc_lease = Duration::from_secs(3600);
    let running = Running::start(folder.path(), long).await;
    let lost = running.blob("a", "of a push that failed").await;
    running.image("a", "v1", "content").await;
    let outcome = running.collect("{}").await;
    assert_eq!((outcome.dead, outcome.condemned), (0, 0));
    assert!(running.has(&lost));
    running.stop().await;
    let running = Running::start(folder.path(), |_| {}).await;
    assert_eq!(running.collect("{}").await.dead, 1);
    assert!(!running.has(&lost));
    assert!(running.pulls("a", "v1").await);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i03_a_repository_with_other_rows_than_were_written_ends_the_cycle() {
    let folder = tempfile::tempdir().unwrap();
    let running = Running::start(folder.path(), |_| {}).await;
    running.image("good", "v1", "good").await;
    let bad = running.image("bad", "v1", "bad").await;
    running.stop().await;
    // As if a page had rotted: a row is gone and nothing says so.
    let hex: String = bad
        .encode()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let sql = format!(
        "PRAGMA foreign_keys = OFF; DELETE FROM tag WHERE manifest = x'{hex}'; \
         DELETE FROM edge WHERE manifest = x'{hex}'; DELETE FROM manifest WHERE digest = x'{hex}'"
    );
    Catalog::run_on_file(&folder.path().join("catalog.db"), sql)
        .await
        .unwrap();
    let running = Running::start(folder.path(), |_| {}).await;
    for _ in 0..3 {
        tokio::time::sleep(LEASE * 3).await;
        let id = running.start_job("{}").await;
        let job = running.ended(id).await;
        assert_eq!(job.state.name(), "failed");
        assert!(job.outcome.contains("repository bad"), "{}", job.outcome);
    }
    assert!(running.has(&layer("bad")));
    assert!(running.pulls("good", "v1").await);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_writes_are_switched_off_nothing_is_collected() {
    let folder = tempfile::tempdir().unwrap();
    let running = Running::start(folder.path(), |_| {}).await;
    let image = running.image("a", "v1", "content").await;
    running.delete("a", &image).await;
    tokio::time::sleep(LEASE * 3).await;
    let why = crate::registry::ReadOnly::asked(Some("backup")).unwrap();
    running.maintenance.set(Some(why));
    let id = running.start_job("{}").await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let jobs = running.storage.jobs().unwrap();
    assert_eq!(jobs.show(id).await.unwrap().ended_at, None);
    assert!(running.has(&layer("content")));
    running.maintenance.set(None);
    assert_eq!(running.ended(id).await.state.name(), "done");
    assert!(!running.has(&layer("content")));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pushes_and_pulls_beside_collections_lose_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let running = Arc::new(Running::start(folder.path(), |_| {}).await);
    let until = Instant::now() + Duration::from_secs(6);
    let mut pushers = Vec::new();
    for pusher in 0..4 {
        let running = Arc::clone(&running);
        pushers.push(tokio::spawn(async move {
            let mut round = 0u32;
            while Instant::now() < until {
                // Few contents, so that what dies is pushed again at once.
                let content = format!("content {}", (round + pusher) % 3);
                let repository = format!("r{}", round % 2);
                let tag = format!("t{pusher}");
                let config = format!("config {pusher} {round}");
                let parts = (content.as_str(), config.as_str());
                let image = running.image_of(&repository, &tag, parts).await;
                assert!(running.pulls(&repository, &tag).await, "{content}");
                if !round.is_multiple_of(3) {
                    running.untag(&repository, &tag).await;
                    let name = RepositoryName::parse(&repository).unwrap();
                    let deleted = running.registry.manifest_delete(WHO, &name, &image);
                    deleted.await.unwrap();
                }
                round += 1;
            }
            round
        }));
    }
    let mut dead = 0;
    while Instant::now() < until {
        dead += running.collect("{}").await.dead;
    }
    for pusher in pushers {
        assert!(pusher.await.unwrap() > 0);
    }
    assert!(dead > 0, "nothing died");
    for repository in ["r0", "r1"] {
        let tags = running.storage.catalog.tags(repository, None, 100).await;
        for tag in tags.unwrap().unwrap_or_default() {
            assert!(running.pulls(repository, &tag).await, "{repository}:{tag}");
        }
    }
    let running = Arc::into_inner(running).unwrap();
    running.ends_clean(folder.path()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i15_what_nothing_explains_dies_so_many_a_day_also_across_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let mut running = Running::start(folder.path(), |_| {}).await;
    let mut pushers = Vec::new();
    for pusher in 0..8 {
        let registry = running.registry.clone();
        pushers.push(tokio::spawn(async move {
            let name = RepositoryName::parse("lost").unwrap();
            for number in 0..150 {
                let content = Bytes::from(format!("{pusher} {number}"));
                let digest = digest(&content);
                let body = stream::iter([Ok(content)]).boxed();
                let pushed = registry.upload_whole(WHO, &name, body, digest);
                pushed.await.unwrap();
            }
        }));
    }
    for pusher in pushers {
        pusher.await.unwrap();
    }
    let image = running.image("kept", "v1", "kept").await;
    let first = running.collect("{}").await;
    assert_eq!((first.dead, first.bounded), (1000, 200), "{first:?}");
    running.delete("kept", &image).await;
    for _ in 0..2 {
        running.stop().await;
        running = Running::start(folder.path(), |_| {}).await;
        let again = running.collect("{}").await;
        assert_eq!(again.bounded, 200, "{again:?}");
    }
    assert!(!running.has(&image), "what a delete explains has no bound");
    let rest = running.collect(r#"{"unlimited":true}"#).await;
    assert_eq!((rest.dead, rest.bounded), (200, 0), "{rest:?}");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collection_that_is_held_begins_again_when_it_is_released() {
    let folder = tempfile::tempdir().unwrap();
    let running = Running::start(folder.path(), |_| {}).await;
    let image = running.image("a", "v1", "content").await;
    running.delete("a", &image).await;
    running.stop().await;
    let sql = "UPDATE catalog SET gc_hold = 'names are missing'".to_owned();
    Catalog::run_on_file(&folder.path().join("catalog.db"), sql)
        .await
        .unwrap();
    let running = Running::start(folder.path(), |_| {}).await;
    tokio::time::sleep(LEASE * 3).await;
    for params in ["{}", r#"{"undelete_window":0,"unlimited":true}"#] {
        let id = running.start_job(params).await;
        let job = running.ended(id).await;
        assert_eq!(job.state.name(), "failed");
        assert!(job.outcome.contains("names are missing"), "{}", job.outcome);
        assert!(job.outcome.contains("--release"), "{}", job.outcome);
    }
    assert!(running.has(&image));
    assert_eq!(running.collect(r#"{"release":true}"#).await.dead, 3);
    running.stop().await;
}
