//! What a purge says is gone for good, and what it leaves to others: while it runs
//! they push what it has taken, or name what it is about to take.

use super::purge::{of, patient};
use super::refused::parsed;
use super::*;

/// Time for a purge, or for a push, to come to where it waits.
const WAITS: Duration = Duration::from_millis(700);

fn text_of(content: &str, config: &str) -> String {
    let descriptor = |kind: &str, content: &str| {
        serde_json::json!({
            "mediaType": format!("application/vnd.oci.image.{kind}"),
            "digest": layer(content).to_string(),
            "size": content.len(),
        })
    };
    serde_json::json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor("config.v1+json", config),
        "layers": [descriptor("layer.v1.tar", content)],
    })
    .to_string()
}

/// A name, after "a" in order, for which nobody waits who waits for "a".
async fn apart(running: &Running) -> RepositoryName {
    for name in ["m", "n", "o", "p", "q"] {
        let (a, other) = (parsed("a"), parsed(name));
        let held = running.registry.alone(Subject::Operator, &other).await;
        let alone = running.registry.alone(Subject::Operator, &a);
        let alone = tokio::time::timeout(WAITS, alone).await;
        let is_apart = alone.is_ok();
        drop((alone, held));
        if is_apart {
            return other;
        }
    }
    panic!("all names have one lock");
}

/// Rows that a push had written again were passed over like those that the purge had
/// taken: it said "gone" of them, and took the link of somebody it had nothing to do
/// with.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_pushed_again_inside_a_purge_stays_and_is_told() {
    for is_late in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let running = Running::start(folder.path(), patient).await;
        running.image("a", "kept", "kept").await;
        let other = apart(&running).await;
        let image = running.image("a", "v1", "content").await;
        match is_late {
            // It waits for this one last, when all is read.
            true => _ = running.blob(other.as_str(), "content").await,
            false => _ = running.image(other.as_str(), "v1", "content").await,
        }
        running.blob("b", "content").await;
        let held = running.registry.alone(Subject::Operator, &other).await;
        let gc = running.storage.gc();
        let purge = tokio::spawn(async move { gc.expunge(&of(None, image)).await });
        until(async || !running.pulls("a", "v1").await).await;
        tokio::time::sleep(WAITS).await;
        assert!(!purge.is_finished());
        assert_eq!(running.image("a", "v1", "content").await, image);
        drop(held);
        let took = purge.await.unwrap().unwrap();
        let manifests = if is_late { 1 } else { 2 };
        assert_eq!(took.manifest_count, manifests, "{took:?}");
        assert_eq!((took.blobs.len(), took.bytes), (0, 0), "{took:?}");
        assert_eq!(took.left_count, 3, "{took:?}");
        for (blob, by) in &took.left {
            assert_eq!(by.len(), 1, "{blob}: {took:?}");
            assert_eq!((by[0].repository.as_str(), by[0].manifest), ("a", image));
        }
        if !is_late {
            assert!(running.has_blob("b", &layer("content")).await, "{took:?}");
        }
        assert_eq!(running.storage.catalog.at_once(0).await.unwrap(), []);
        let outcome = running.collect_now().await;
        assert_eq!((outcome.at_once, outcome.at_once_left), (0, 0));
        assert!(running.pulls("a", "v1").await);
        running.ends_clean(folder.path()).await;
    }
}

/// It was counted as gone all the same.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_named_after_a_purge_has_looked_is_not_told_as_gone() {
    let folder = tempfile::tempdir().unwrap();
    let running = Running::start(folder.path(), patient).await;
    running.image("a", "kept", "kept").await;
    let image = running.image("a", "v1", "content").await;
    let sizes = [image, layer("config of content")];
    let sizes = sizes.map(|of| running.storage.store.look(&of).unwrap().unwrap().size);
    running.blob("c", "content").await;
    running.blob("c", "another config").await;
    let name = parsed("c");
    let held = running.registry.alone(Subject::Operator, &name).await;
    let text = text_of("content", "another config");
    // It waits for the name before the purge does.
    let pushing = running.put("c", "v1", (MANIFEST, text));
    let gc = running.storage.gc();
    let purging = async {
        tokio::time::sleep(WAITS / 2).await;
        gc.expunge(&of(None, image)).await
    };
    let letting_go = async {
        tokio::time::sleep(WAITS * 2).await;
        drop(held);
    };
    let (pushed, took, ()) = tokio::join!(pushing, purging, letting_go);
    let took = took.unwrap();
    assert_eq!(took.left_count, 1, "{took:?}");
    assert_eq!(took.left[0].0, layer("content"), "{took:?}");
    assert_eq!(took.left[0].1[0].manifest, pushed.unwrap(), "{took:?}");
    assert_eq!(took.blobs.len(), 2, "{took:?}");
    assert_eq!(took.bytes, sizes[0] + sizes[1], "{took:?}");
    let outcome = running.collect_now().await;
    assert_eq!((outcome.at_once, outcome.at_once_left), (2, 0));
    assert!(running.pulls("c", "v1").await);
    drop(gc);
    running.ends_clean(folder.path()).await;
}
