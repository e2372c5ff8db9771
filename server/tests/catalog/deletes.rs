//! What deletes hide, and what they leave.

use std::collections::BTreeSet;

use crate::cases::{digest, lookup, manifest};
use crate::place::Place;

pub(crate) async fn takes_blobs_from_one_repository_alone(place: &Place) {
    let catalog = place.open().await;
    let blob = digest("blob");
    for name in ["r", "s"] {
        catalog.link_blob(name, &blob, (7, 1)).await.unwrap();
    }
    let holders = async || {
        let names = catalog.holders(&blob, 10).await.unwrap();
        names.into_iter().collect::<BTreeSet<_>>()
    };
    let set = |names: &[&str]| names.iter().map(ToString::to_string).collect();
    assert_eq!(holders().await, set(&["r", "s"]));
    assert_eq!(catalog.holders(&blob, 1).await.unwrap().len(), 1);
    assert!(catalog.blob_linked("r", &blob).await.unwrap());
    assert!(catalog.unlink_blob("r", &blob).await.unwrap());
    // At once, also from memory.
    assert!(!catalog.blob_linked("r", &blob).await.unwrap());
    assert!(catalog.blob_linked("s", &blob).await.unwrap());
    assert_eq!(holders().await, set(&["s"]));
    assert!(!catalog.unlink_blob("r", &blob).await.unwrap());
    assert!(!catalog.unlink_blob("absent", &blob).await.unwrap());
    // The row is kept apart; a push of the same makes a new one.
    let kept = "SELECT count(*) FROM unlinked WHERE deleted_at > 0 AND size = 7";
    assert_eq!(place.number(kept).await, 1);
    catalog.link_blob("r", &blob, (7, 1)).await.unwrap();
    assert!(catalog.blob_linked("r", &blob).await.unwrap());
    assert!(catalog.unlink_blob("r", &blob).await.unwrap());
    assert_eq!(place.number(kept).await, 1);
    catalog.link_blob("r", &blob, (7, 1)).await.unwrap();
    assert!(catalog.delete_repository("s").await.unwrap());
    assert_eq!(holders().await, set(&["r"]));
    catalog.close().await;
}

pub(crate) async fn a_manifest_with_many_tags_goes_in_steps(place: &Place) {
    let catalog = place.open().await;
    let many: Vec<String> = (0..2500).map(|number| format!("t{number}")).collect();
    for tags in many.chunks(500) {
        let tags: Vec<&str> = tags.iter().map(String::as_str).collect();
        catalog
            .put_manifest(manifest("r", "one", &tags))
            .await
            .unwrap();
    }
    let elsewhere = manifest("s", "one", &["t0"]);
    catalog.put_manifest(elsewhere).await.unwrap();
    catalog
        .put_manifest(manifest("r", "two", &["kept"]))
        .await
        .unwrap();
    for reference in ["t0", "t2499"] {
        assert_eq!(lookup(&catalog, "r", reference).await, Some(digest("one")));
    }
    assert!(catalog.delete_manifest("r", &digest("one")).await.unwrap());
    assert!(!catalog.delete_manifest("r", &digest("one")).await.unwrap());
    for reference in ["t0", "t2499", &digest("one").to_string()] {
        assert_eq!(lookup(&catalog, "r", reference).await, None);
    }
    assert_eq!(
        catalog.tags("r", None, 10).await.unwrap().unwrap(),
        ["kept"]
    );
    assert_eq!(lookup(&catalog, "s", "t0").await, Some(digest("one")));
    catalog.close().await;
}

pub(crate) async fn hides_manifests_and_repositories(place: &Place) {
    let catalog = place.open().await;
    catalog
        .put_manifest(manifest("r", "one", &["x", "y"]))
        .await
        .unwrap();
    catalog
        .put_manifest(manifest("r", "two", &["z"]))
        .await
        .unwrap();
    catalog
        .link_blob("r", &digest("blob"), (1, 1))
        .await
        .unwrap();
    let by_digest = digest("one").to_string();
    for reference in ["x", "y", "z", &by_digest] {
        assert!(lookup(&catalog, "r", reference).await.is_some());
    }
    assert!(catalog.delete_manifest("r", &digest("one")).await.unwrap());
    assert!(!catalog.delete_manifest("r", &digest("one")).await.unwrap());
    for reference in ["x", "y", &by_digest] {
        assert_eq!(lookup(&catalog, "r", reference).await, None, "{reference}");
    }
    assert_eq!(lookup(&catalog, "r", "z").await, Some(digest("two")));
    assert_eq!(catalog.tags("r", None, 10).await.unwrap().unwrap(), ["z"]);
    // Pushed again it is back, without the tags it had.
    catalog
        .put_manifest(manifest("r", "one", &["x"]))
        .await
        .unwrap();
    assert_eq!(lookup(&catalog, "r", "x").await, Some(digest("one")));
    assert_eq!(lookup(&catalog, "r", "y").await, None);

    assert!(catalog.blob_linked("r", &digest("blob")).await.unwrap());
    assert!(catalog.delete_repository("r").await.unwrap());
    assert!(!catalog.delete_repository("r").await.unwrap());
    assert_eq!(lookup(&catalog, "r", "x").await, None);
    assert!(!catalog.blob_linked("r", &digest("blob")).await.unwrap());
    assert_eq!(catalog.tags("r", None, 10).await.unwrap(), None);
    assert!(catalog.repositories(None, 10).await.unwrap().is_empty());
    // The name is free again and starts empty.
    catalog
        .put_manifest(manifest("r", "three", &["z"]))
        .await
        .unwrap();
    assert_eq!(lookup(&catalog, "r", "z").await, Some(digest("three")));
    assert_eq!(catalog.tags("r", None, 10).await.unwrap().unwrap(), ["z"]);
    assert!(!catalog.blob_linked("r", &digest("blob")).await.unwrap());
    assert_eq!(place.number("SELECT count(*) FROM repository").await, 2);
    catalog.close().await;
}
