//! Blobs that are named by another digest than SHA-256 only: the store tells
//! their garbage by SHA-256, and the catalog knows them by the other.

use orlop_format::digest::Algorithm;

use super::*;

/// Pushes an image whose layer and config are named by this algorithm.
async fn image(running: &Running, tag: &str, content: &str, algorithm: Algorithm) -> Digest {
    let name = RepositoryName::parse("a").unwrap();
    let config = format!("config of {content}");
    let mut parts = Vec::new();
    for content in [content, &config] {
        let digest = Digest::of(algorithm, content.as_bytes());
        let body = stream::iter([Ok(Bytes::from(content.to_owned()))]).boxed();
        let stored = running.registry.upload_whole(WHO, &name, body, digest);
        stored.await.unwrap();
        parts.push((digest.to_string(), content.len()));
    }
    let descriptor = |kind: &str, (digest, size): &(String, usize)| {
        serde_json::json!({
            "mediaType": format!("application/vnd.oci.image.{kind}"),
            "digest": digest,
            "size": size,
        })
    };
    let text = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor("config.v1+json", &parts[1]),
        "layers": [descriptor("layer.v1.tar", &parts[0])],
    });
    running
        .put("a", tag, (MANIFEST, text.to_string()))
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_named_by_another_digest_only_dies_explained_and_leaves_no_link() {
    for algorithm in [Algorithm::Sha512, Algorithm::Blake3] {
        let folder = tempfile::tempdir().unwrap();
        let running = Running::start(folder.path(), |_| {}).await;
        let gone = image(&running, "gone", "only in gone", algorithm).await;
        image(&running, "kept", "kept", algorithm).await;
        // By SHA-256 too, and by a name that nothing tells of.
        running.image("a", "both", "both").await;
        let both = image(&running, "also", "both", algorithm).await;
        running.delete("a", &gone).await;
        running.delete("a", &both).await;
        let outcome = running.collect("{}").await;
        assert_eq!((outcome.dead, outcome.bounded), (4, 0), "{outcome:?}");
        let state = running.storage.catalog.gc_state().await.unwrap();
        assert_eq!(state.unexplained, 0, "{algorithm}");
        let layer = Digest::of(algorithm, b"only in gone");
        assert!(!running.has(&layer));
        assert!(running.pulls("a", "kept").await && running.pulls("a", "both").await);
        // Its name is not the blob's: a push of it is a new life.
        let again = image(&running, "gone", "only in gone", algorithm).await;
        assert_eq!(again, gone);
        assert!(running.pulls("a", "gone").await);
        running.delete("a", &again).await;
        assert_eq!(running.collect("{}").await.dead, 3);
        running.stop().await;
        // Two of what is kept by its other digest, two of the image that is by
        // SHA-256, and two links by the other digest to what lives by that, which
        // is no garbage, so that nothing explains it.
        let left = Catalog::links_on_file(&folder.path().join("catalog.db")).await;
        assert_eq!(left.unwrap(), (6, 0), "{algorithm}");
    }
}

/// What nothing ever named is unexplained, by whatever digest, and its link goes.
#[tokio::test(flavor = "multi_thread")]
async fn a_loose_blob_by_another_digest_leaves_no_link() {
    let folder = tempfile::tempdir().unwrap();
    let running = Running::start(folder.path(), |_| {}).await;
    let name = RepositoryName::parse("a").unwrap();
    let content = Bytes::from_static(b"loose");
    let digest = Digest::of(Algorithm::Sha512, &content);
    let body = stream::iter([Ok(content)]).boxed();
    let stored = running.registry.upload_whole(WHO, &name, body, digest);
    stored.await.unwrap();
    assert_eq!(running.collect("{}").await.dead, 1);
    let state = running.storage.catalog.gc_state().await.unwrap();
    assert_eq!(state.unexplained, 1);
    running.stop().await;
    let left = Catalog::links_on_file(&folder.path().join("catalog.db")).await;
    assert_eq!(left.unwrap(), (0, 0));
}

/// A referrer keeps the bytes of what it is about, whose row goes before its own.
#[tokio::test]
async fn a_manifest_whose_last_name_was_a_referrer_is_explained() {
    let folder = tempfile::tempdir().unwrap();
    let running = Running::start(folder.path(), |_| {}).await;
    let image = running.image("a", "", "of an image").await;
    let name = RepositoryName::parse("a").unwrap();
    let of = Reference::Digest(image);
    let row = running.registry.manifest_stat(WHO, &name, &of).await;
    let text = serde_json::json!({
        "schemaVersion": 2, "mediaType": INDEX, "manifests": [],
        "subject": { "mediaType": MANIFEST, "digest": image.to_string(), "size": row.unwrap().size },
    });
    let about = running.put("a", "about", (INDEX, text.to_string())).await;
    running.image("a", "stays", "what stays").await;
    running.delete("a", &image).await;
    let first = running.collect("{}").await;
    running.delete("a", &about.unwrap()).await;
    let mut dead = first.dead;
    for _ in 0..2 {
        dead += running.collect("{}").await.dead;
    }
    assert_eq!(dead, 4, "{first:?}");
    let state = running.storage.catalog.gc_state().await.unwrap();
    assert_eq!(state.unexplained, 0, "{first:?}");
    running.ends_clean(folder.path()).await;
}
