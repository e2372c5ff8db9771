//! What an operator takes away for good at once, and what an undelete brings
//! back of it: units, blockers, repositories.

use std::collections::BTreeSet;
use std::sync::Arc;

use orlop::catalog::{Catalog, ChangeKind, GcPause, Leaving, Lives, PurgeUnit, Seen};
use orlop_oci::Digest;

use crate::cases::{digest, lookup, manifest, tag};
use crate::collection::{about, index, live, purge};
use crate::place::Place;

/// Later than any row.
const ALL: i64 = i64::MAX;

fn set(names: &[&str]) -> BTreeSet<Digest> {
    names.iter().map(|name| digest(name)).collect()
}

fn manifests(unit: &PurgeUnit) -> BTreeSet<Digest> {
    unit.manifests.iter().map(|of| of.digest).collect()
}

fn blockers(unit: &PurgeUnit) -> BTreeSet<Digest> {
    unit.blockers.iter().map(|of| of.manifest).collect()
}

/// What goes with a digest from the one repository that has it.
async fn unit(catalog: &Catalog, of: &str) -> PurgeUnit {
    let places = catalog
        .purge_places(&digest(of), None, &mut Seen::default())
        .await
        .unwrap();
    assert_eq!(places.len(), 1, "{places:?}");
    let place = places.into_iter().next().unwrap();
    catalog
        .purge_unit(place, &digest(of), &mut Seen::default())
        .await
        .unwrap()
}

/// Takes it, and says what is left in the live set.
async fn take(catalog: &Catalog, unit: &PurgeUnit) -> BTreeSet<Digest> {
    let lives: Lives = unit
        .blobs
        .iter()
        .zip(100..)
        .map(|((blob, _), birth)| (*blob, Arc::new(Leaving::of(birth))))
        .collect();
    let lives = Arc::new(lives);
    for manifest in &unit.manifests {
        let purged = catalog.expunge_manifest(&unit.place, &manifest.digest, &lives);
        purged.await.unwrap();
    }
    for blob in &unit.unlinked {
        let unlinked = catalog.expunge_link(&unit.place, blob, lives.get(blob));
        unlinked.await.unwrap();
    }
    let left = live(catalog, None).await.unwrap();
    if let Some((kept, counted)) = catalog.totals("r").await.unwrap() {
        assert_eq!(kept, counted);
    }
    left.into_iter().collect()
}

pub(crate) async fn a_unit_is_a_manifest_with_what_is_about_it_and_what_nothing_else_reaches(
    place: &Place,
) {
    let catalog = place.open().await;
    let names = ["amd", "arm", "tagged", "shared", "hidden"];
    for name in names {
        let tags: &[&str] = if name == "tagged" { &["arch"] } else { &[] };
        let put = manifest("r", name, tags);
        catalog.put_manifest(put).await.unwrap();
        let layer = digest(&format!("layer of {name}"));
        catalog.link_blob("r", &layer, (7, 5)).await.unwrap();
    }
    catalog
        .put_manifest(index("r", "first", &names, &["v1", "v2"]))
        .await
        .unwrap();
    catalog
        .put_manifest(index("r", "second", &["shared"], &["v3"]))
        .await
        .unwrap();
    for (name, of) in [
        ("signature", "first"),
        ("of it", "signature"),
        ("sbom", "amd"),
    ] {
        let mut put = about("r", name, of);
        if name == "of it" {
            put.tags.push("a-tag-of-what-is-about-it".to_owned());
        }
        catalog.put_manifest(put).await.unwrap();
    }
    catalog
        .delete_manifest("r", &digest("hidden"))
        .await
        .unwrap();
    assert_eq!(lookup(&catalog, "r", "v1").await, Some(digest("first")));

    let first = unit(&catalog, "first").await;
    let goes = [
        "first",
        "amd",
        "arm",
        "hidden",
        "signature",
        "of it",
        "sbom",
    ];
    assert_eq!(manifests(&first), set(&goes));
    assert_eq!(first.manifests.last().unwrap().digest, digest("first"));
    assert_eq!(first.manifests.last().unwrap().tags, ["v1", "v2"]);
    assert_eq!(first.blockers, []);
    let unlinked: BTreeSet<Digest> = first.unlinked.iter().copied().collect();
    assert!(unlinked.contains(&digest("layer of amd")));
    assert!(!unlinked.contains(&digest("layer of shared")));
    let left = take(&catalog, &first).await;
    let mut stays = Vec::new();
    for name in ["tagged", "shared"] {
        for of in ["", "config of ", "layer of "] {
            stays.push(format!("{of}{name}"));
        }
    }
    stays.push("second".to_owned());
    let stays: Vec<&str> = stays.iter().map(String::as_str).collect();
    assert_eq!(left, set(&stays));
    for reference in ["v1", "v2", "a-tag-of-what-is-about-it"] {
        assert_eq!(lookup(&catalog, "r", reference).await, None, "{reference}");
    }
    for (name, is_linked) in [("amd", false), ("hidden", false), ("shared", true)] {
        let layer = digest(&format!("layer of {name}"));
        let found = catalog.blob_linked("r", &layer).await.unwrap();
        assert_eq!(found, is_linked, "{name}");
    }
    // What it named needs no lease, and is explained by the manifest that went.
    let at_once = catalog.at_once(0).await.unwrap();
    let at_once: BTreeSet<Digest> = at_once.into_iter().map(|(of, _)| of).collect();
    assert!(at_once.is_superset(&unlinked));
    let why = catalog.departed(&[digest("layer of amd")]).await.unwrap();
    let why = why.into_iter().next().flatten().unwrap();
    assert_eq!(why.manifest, Some(digest("amd")));
    // Once more finds nothing, and takes nothing.
    let again = catalog
        .purge_places(&digest("first"), None, &mut Seen::default())
        .await
        .unwrap();
    assert_eq!(again, []);
    take(&catalog, &first).await;
    // Named again, it has leases as others have.
    catalog
        .forget_departed(&[digest("layer of amd")], u64::MAX)
        .await
        .unwrap();
    let left = catalog.at_once(0).await.unwrap();
    assert!(left.iter().all(|(of, _)| *of != digest("layer of amd")));
    catalog.close().await;
}

pub(crate) async fn what_needs_it_blocks_a_purge_unless_it_was_deleted(place: &Place) {
    let catalog = place.open().await;
    for name in ["child", "other"] {
        let put = manifest("r", name, &[name]);
        catalog.put_manifest(put).await.unwrap();
    }
    catalog
        .put_manifest(index("r", "index", &["child", "other"], &["v1"]))
        .await
        .unwrap();
    catalog
        .put_manifest(index("r", "outer", &["index"], &["v2"]))
        .await
        .unwrap();
    assert_eq!(blockers(&unit(&catalog, "child").await), set(&["index"]));
    let of_layer = unit(&catalog, "layer of child").await;
    assert_eq!(blockers(&of_layer), set(&["child"]));
    // One that is hidden, and is listed by one that is not.
    catalog
        .delete_manifest("r", &digest("index"))
        .await
        .unwrap();
    assert_eq!(blockers(&unit(&catalog, "child").await), set(&["outer"]));
    catalog
        .delete_manifest("r", &digest("outer"))
        .await
        .unwrap();
    let child = unit(&catalog, "child").await;
    assert_eq!(child.blockers, []);
    assert_eq!(manifests(&child), set(&["child", "index", "outer"]));
    // A blob whose manifests are hidden takes those along.
    catalog
        .delete_manifest("r", &digest("child"))
        .await
        .unwrap();
    let layer = unit(&catalog, "layer of child").await;
    assert_eq!(layer.blockers, []);
    assert_eq!(manifests(&layer), set(&["child", "index", "outer"]));
    let left = take(&catalog, &layer).await;
    assert_eq!(left, set(&["other", "config of other", "layer of other"]));
    assert_eq!(lookup(&catalog, "r", "other").await, Some(digest("other")));
    catalog.close().await;
}

pub(crate) async fn a_purge_finds_deleted_repositories_and_says_what_names_the_rest(place: &Place) {
    let catalog = place.open().await;
    for repository in ["r", "s"] {
        catalog
            .put_manifest(manifest(repository, "one", &["latest"]))
            .await
            .unwrap();
    }
    let mut shares = manifest("t", "two", &["latest"]);
    shares.edges[1].digest = digest("layer of one");
    catalog.put_manifest(shares).await.unwrap();
    catalog.delete_repository("s").await.unwrap();
    catalog
        .put_manifest(manifest("s", "one", &["again"]))
        .await
        .unwrap();
    let places = catalog
        .purge_places(&digest("one"), None, &mut Seen::default())
        .await
        .unwrap();
    let found: Vec<(&str, bool)> = places
        .iter()
        .map(|place| (place.name.as_str(), place.is_deleted))
        .collect();
    assert_eq!(found, [("r", false), ("s", true), ("s", false)]);
    let named = catalog
        .purge_places(&digest("one"), Some("s"), &mut Seen::default())
        .await;
    assert_eq!(named.unwrap().len(), 2);
    let mut units = Vec::new();
    for place in places {
        units.push(
            catalog
                .purge_unit(place, &digest("one"), &mut Seen::default())
                .await
                .unwrap(),
        );
    }
    let namers = catalog.named_beside(&units, &[]).await.unwrap();
    assert_eq!(namers.len(), 1, "{namers:?}");
    let by = &namers[&digest("layer of one")];
    assert_eq!((by.len(), by[0].repository.as_str()), (1, "t"));
    assert_eq!(by[0].tags, ["latest"]);
    // Of one repository: the others name all of it.
    let namers = catalog.named_beside(&units[..1], &[]).await.unwrap();
    assert_eq!(namers.len(), 3);
    for unit in &units {
        assert_eq!(unit.blockers, []);
        take(&catalog, unit).await;
    }
    let left: BTreeSet<Digest> = live(&catalog, None).await.unwrap().into_iter().collect();
    assert_eq!(left, set(&["two", "config of two", "layer of one"]));
    assert_eq!(lookup(&catalog, "s", "again").await, None);
    catalog.close().await;
}

pub(crate) async fn a_purged_manifest_with_many_tags_is_gone_from_every_cache(place: &Place) {
    let catalog = place.open().await;
    let tags: Vec<String> = (0..250).map(|number| format!("t{number}")).collect();
    let names: Vec<&str> = tags.iter().map(String::as_str).collect();
    catalog
        .put_manifest(manifest("r", "one", &names))
        .await
        .unwrap();
    catalog
        .put_manifest(manifest("r", "two", &["other"]))
        .await
        .unwrap();
    for name in &names {
        assert!(lookup(&catalog, "r", name).await.is_some());
    }
    let of = unit(&catalog, "one").await;
    assert_eq!(of.manifests[0].tags.len(), 100);
    assert_eq!(of.manifests[0].tag_count, 250, "all are counted");
    take(&catalog, &of).await;
    for name in &names {
        assert_eq!(lookup(&catalog, "r", name).await, None);
    }
    let deleted = catalog.changes(0, 1000).await.unwrap();
    let of_tags = deleted
        .iter()
        .filter(|change| change.kind == ChangeKind::TagDeleted);
    assert_eq!(of_tags.count(), 250);
    assert_eq!(lookup(&catalog, "r", "other").await, Some(digest("two")));
    catalog.close().await;
}

pub(crate) async fn a_repository_comes_back_whole_or_not_at_all(place: &Place) {
    let catalog = place.open().await;
    for number in 0..150 {
        let name = format!("m{number}");
        let put = manifest("team/app", &name, &[&name]);
        catalog.put_manifest(put).await.unwrap();
    }
    assert_eq!(lookup(&catalog, "team/app", "m1").await, Some(digest("m1")));
    let found = async |name: &str, new: &str| catalog.hidden_repository(name, new).await.unwrap();
    let hidden = async |name: &str, new: &str| {
        let hidden = found(name, new).await;
        hidden.map(|hidden| (hidden.manifests, hidden.in_the_way))
    };
    let undelete = async |name: &str, new: &str| {
        let row = found(name, new).await.unwrap().row;
        catalog.undelete_repository(row, new).await.unwrap()
    };
    assert_eq!(hidden("team/app", "team/app").await, None);
    assert!(catalog.delete_repository("team/app").await.unwrap());
    assert_eq!(lookup(&catalog, "team/app", "m1").await, None);
    // One that has only links makes way.
    let blob = digest("blob");
    catalog.link_blob("team/app", &blob, (7, 1)).await.unwrap();
    assert_eq!(hidden("team/app", "team/app").await, Some((150, 0)));
    let row = found("team/app", "team/app").await.unwrap();
    let live = catalog.repository_row("team/app").await.unwrap();
    assert!(live.is_some() && live == row.makes_way && live != Some(row.row));
    assert!(undelete("team/app", "team/app").await);
    let live = catalog.repository_row("team/app").await.unwrap();
    assert_eq!(live, Some(row.row));
    // It is not deleted any more.
    let again = catalog.undelete_repository(row.row, "team/other").await;
    assert!(!again.unwrap());
    assert!(!catalog.blob_linked("team/app", &blob).await.unwrap());
    assert_eq!(lookup(&catalog, "team/app", "m1").await, Some(digest("m1")));
    let last = catalog.changes(catalog.sequence() - 1, 1).await.unwrap();
    assert_eq!(last[0].kind, ChangeKind::RepositoryUndeleted);
    // One with manifests does not, and the old one takes another name.
    assert!(catalog.delete_repository("team/app").await.unwrap());
    catalog
        .put_manifest(manifest("team/app", "new", &["latest"]))
        .await
        .unwrap();
    assert_eq!(hidden("team/app", "team/app").await, Some((150, 1)));
    assert!(!undelete("team/app", "team/app").await);
    assert!(undelete("team/app", "team/old").await);
    assert_eq!(lookup(&catalog, "team/old", "m7").await, Some(digest("m7")));
    assert_eq!(
        lookup(&catalog, "team/app", "latest").await,
        Some(digest("new"))
    );
    // Once a purge has begun with it, not at all.
    assert!(catalog.delete_repository("team/old").await.unwrap());
    let first = catalog.purge(ALL).next().await.unwrap().unwrap();
    assert!(first.manifests < 150, "{first:?}");
    let mut rest = hidden("team/old", "team/old").await;
    // The empty one that made way may have been the first that was due.
    if rest.is_some() {
        catalog.purge(ALL).next().await.unwrap();
        rest = hidden("team/old", "team/old").await;
    }
    assert_eq!(rest, None);
    let back = catalog.undelete_repository(row.row, "team/old").await;
    assert!(!back.unwrap());
    purge(&catalog, ALL).await;
    assert_eq!(place.number("SELECT count(*) FROM repository").await, 1);
    catalog.close().await;
}

pub(crate) async fn a_pause_of_collection_survives_a_restart(place: &Place) {
    let catalog = place.open().await;
    assert_eq!(catalog.gc_state().await.unwrap().pause, None);
    let pause = GcPause {
        since: 1_700_000_000_000,
        why: "moving disks".to_owned(),
    };
    catalog.pause_gc(Some(pause.clone())).await.unwrap();
    catalog.close().await;
    let catalog = place.open().await;
    assert_eq!(catalog.gc_state().await.unwrap().pause, Some(pause));
    catalog.pause_gc(None).await.unwrap();
    assert_eq!(catalog.gc_state().await.unwrap().pause, None);
    catalog.close().await;
}

pub(crate) async fn an_undelete_tells_only_tags_that_came_back(place: &Place) {
    let catalog = place.open().await;
    catalog
        .put_manifest(manifest("r", "child", &["a", "b"]))
        .await
        .unwrap();
    catalog
        .put_manifest(index("r", "index", &["child"], &["v1"]))
        .await
        .unwrap();
    catalog
        .delete_manifest("r", &digest("child"))
        .await
        .unwrap();
    let by_digest = tag(&digest("child").to_string());
    let hidden = catalog.hidden("r", &by_digest).await.unwrap().unwrap();
    assert_eq!(hidden.tags, ["a", "b"]);
    // A purge takes the tags, and leaves the manifest, which an index lists.
    purge(&catalog, ALL).await;
    let back = catalog.undelete("r", &by_digest).await.unwrap();
    assert_eq!(back.unwrap(), Vec::<String>::new());
    assert_eq!(lookup(&catalog, "r", "a").await, None);
    catalog.close().await;
}
