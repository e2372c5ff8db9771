//! A push that a whole collection overtakes, before every one of its reads of the
//! catalog and before its change: what it had checked by then may be deleted, purged or dead before it
//! goes on. It is refused, or all that it names is there.
//!
//! The oracle met such a push once, by chance (an index whose child went between
//! the check and the row).

use std::sync::atomic::AtomicU64;

use super::watched::Gate;
use super::*;

/// How long a push is held for the collections.
const OVERTAKEN: Duration = Duration::from_secs(4);
/// More steps than a push has.
const STEPS_MAX: u64 = 40;

/// What a push names, and what goes meanwhile unless it is held.
#[derive(Debug, Clone, Copy)]
enum Push {
    /// A child that no tag reaches and that the rule about untagged ones takes.
    Index,
    /// A layer and a config that nothing named so far.
    Image,
}

/// Whether the push had so many steps, and whether it was taken.
async fn overtaken(push: Push, step: u64) -> (bool, bool) {
    let folder = tempfile::tempdir().unwrap();
    let rule = |settings: &mut Settings| settings.untagged = Some(LEASE).into();
    let running = Running::start(folder.path(), rule).await;
    running.image("a", "other", "other").await;
    let part = |digest: Digest, size: usize, kind: &str| {
        serde_json::json!({
            "mediaType": kind,
            "digest": digest.to_string(),
            "size": size,
        })
    };
    let content = match push {
        Push::Index => {
            let child = running.image("a", "", "child").await;
            let name = RepositoryName::parse("a").unwrap();
            let reference = Reference::Digest(child);
            let row = running.registry.manifest_stat(WHO, &name, &reference).await;
            let listed = part(child, row.unwrap().size.try_into().unwrap(), MANIFEST);
            let value = serde_json::json!({
                "schemaVersion": 2, "mediaType": INDEX, "manifests": [listed],
            });
            (INDEX, value.to_string())
        }
        Push::Image => {
            let layer = running.blob("a", "layer").await;
            let config = running.blob("a", "config").await;
            let value = serde_json::json!({
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": part(config, 6, "application/vnd.oci.image.config.v1+json"),
                "layers": [part(layer, 5, "application/vnd.oci.image.layer.v1.tar")],
            });
            (MANIFEST, value.to_string())
        }
    };
    // Nothing is in the catalog's cache.
    running.stop().await;
    let running = Arc::new(Running::start(folder.path(), rule).await);
    tokio::time::sleep(LEASE * 3).await;
    let gate = Arc::new(Gate::default());
    gate.set(true);
    let (go, went) = tokio::sync::oneshot::channel::<()>();
    let pushing = Arc::clone(&running);
    let task = tokio::spawn(async move {
        went.await.unwrap();
        pushing.put("a", "pushed", content).await
    });
    let (steps, waits) = (AtomicU64::new(0), Arc::clone(&gate));
    running.storage.catalog.tell(Arc::new(move |place| {
        // No other request comes before the gate is reached.
        let is_push = matches!(place, "row" | "answered" | "push");
        if is_push && steps.fetch_add(1, Ordering::SeqCst) == step {
            tokio::task::block_in_place(|| waits.pass());
        }
        true
    }));
    go.send(()).unwrap();
    until(async || gate.waiting() > 0 || task.is_finished()).await;
    let is_overtaken = gate.waiting() > 0;
    // One deletes, the next purges, and blobs die. Where the push has begun to
    // write, a delete waits for it: then they end behind it.
    let mut collections = Box::pin(async {
        for _ in 0..3 {
            running.collect("{}").await;
        }
    });
    let mut are_over = !is_overtaken;
    if is_overtaken {
        let ended = tokio::time::timeout(OVERTAKEN, &mut collections).await;
        are_over = ended.is_ok();
    }
    gate.set(false);
    let pushed = task.await.unwrap();
    if !are_over {
        collections.as_mut().await;
    }
    drop(collections);
    for _ in 0..2 {
        if let Some(digest) = pushed {
            assert!(running.pulls("a", "pushed").await, "{push:?}, step {step}");
            assert!(running.pulls("a", &digest.to_string()).await);
            if matches!(push, Push::Index) {
                let name = RepositoryName::parse("a").unwrap();
                let tag = Reference::parse("pushed").unwrap();
                let pulled = running.registry.manifest_pull(WHO, &name, &tag).await;
                let bytes = pulled.unwrap().content.bytes(1 << 20).await.unwrap();
                let index = orlop_oci::Manifest::parse(&bytes, None).unwrap();
                for named in index.references() {
                    let child = named.descriptor.digest.to_string();
                    assert!(running.pulls("a", &child).await, "{push:?}, step {step}");
                }
            }
        }
        assert!(running.pulls("a", "other").await);
        running.collect("{}").await;
    }
    let running = Arc::into_inner(running).unwrap();
    running.ends_clean(folder.path()).await;
    (is_overtaken, pushed.is_some())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn i20_a_push_that_a_whole_collection_overtakes_at_any_step_is_refused_or_whole() {
    for push in [Push::Index, Push::Image] {
        let (mut steps, mut taken, mut refused) = (0, 0, 0);
        loop {
            let (is_overtaken, is_taken) = overtaken(push, steps).await;
            if !is_overtaken {
                assert!(
                    is_taken,
                    "{push:?}: nothing overtook it, and it was refused"
                );
                break;
            }
            (taken, refused) = match is_taken {
                true => (taken + 1, refused),
                false => (taken, refused + 1),
            };
            steps += 1;
            assert!(steps < STEPS_MAX);
        }
        println!("{push:?}: overtaken at {steps} steps, {taken} taken, {refused} refused");
        // Once before its change at least, when all was checked.
        assert!(steps > 1 && taken > 0);
    }
}
