//! What a purge takes, what it leaves, and what the live set says.

use std::collections::{BTreeMap, BTreeSet};

use orlop::catalog::{
    Catalog, CatalogError, ChangeKind, DEAD_MAX, Dead, Edge, EdgeKind, LinkedBlob, PurgedRows,
    PutManifest,
};
use orlop_oci::Digest;

use crate::cases::{Dice, digest, lookup, manifest, seed, tag};
use crate::place::Place;

/// Later than any row.
const ALL: i64 = i64::MAX;

pub(crate) async fn live(
    catalog: &Catalog,
    without: Option<i64>,
) -> Result<Vec<Digest>, CatalogError> {
    let mut live = catalog.live_set(without);
    let mut all = Vec::new();
    while let Some(mut digests) = live.next().await? {
        all.append(&mut digests);
    }
    assert_eq!(live.end().await?, catalog.sequence());
    Ok(all)
}

pub(crate) async fn purge(catalog: &Catalog, until: i64) -> PurgedRows {
    let mut all = PurgedRows::default();
    let mut purge = catalog.purge(until);
    while let Some(rows) = purge.next().await.unwrap() {
        all += rows;
    }
    all
}

/// Indexes are listed in no repository's tags here: an index of these.
pub(crate) fn index(repository: &str, name: &str, children: &[&str], tags: &[&str]) -> PutManifest {
    let edges = children
        .iter()
        .map(|child| Edge {
            digest: digest(child),
            kind: EdgeKind::Child,
            size: 500,
            media_type: "application/vnd.oci.image.manifest.v1+json".to_owned(),
        })
        .collect();
    PutManifest {
        edges,
        children: children.iter().map(|child| digest(child)).collect(),
        ..manifest(repository, name, tags)
    }
}

pub(crate) fn about(repository: &str, name: &str, subject: &str) -> PutManifest {
    PutManifest {
        subject: Some(digest(subject)),
        ..manifest(repository, name, &[])
    }
}

pub(crate) async fn purges_leave_what_is_not_deleted_and_the_totals_right(place: &Place) {
    let catalog = place.open().await;
    let seed = seed();
    eprintln!("purges_leave_what_is_not_deleted: ORLOP_SEED={seed}");
    let mut dice = Dice(seed);
    // What names what, by a model of its own.
    let mut rows: BTreeMap<(String, String), bool> = BTreeMap::new();
    for _ in 0..300 {
        let repository = format!("r{}", dice.below(3));
        let name = format!("m{}", dice.below(30));
        let key = (repository.clone(), name.clone());
        match dice.below(8) {
            0 | 1 => {
                let was = rows.get(&key).copied().unwrap_or(false);
                let deleted = catalog.delete_manifest(&repository, &digest(&name)).await;
                assert_eq!(deleted.unwrap(), was);
                rows.entry(key).and_modify(|is_live| *is_live = false);
            }
            2 => {
                purge(&catalog, ALL).await;
                rows.retain(|_, is_live| *is_live);
            }
            3 => {
                let was = rows.get(&key) == Some(&false);
                let reference = tag(&digest(&name).to_string());
                let back = catalog.undelete(&repository, &reference).await.unwrap();
                assert_eq!(back.is_some(), was);
                rows.entry(key).and_modify(|is_live| *is_live = true);
            }
            _ => {
                let put = manifest(&repository, &name, &["latest"]);
                catalog.put_manifest(put).await.unwrap();
                rows.insert(key, true);
            }
        }
        if dice.below(10) > 0 {
            continue;
        }
        let mut expected: Vec<Digest> = Vec::new();
        for (_, name) in rows.keys() {
            for of in ["", "config of ", "layer of "] {
                expected.push(digest(&format!("{of}{name}")));
            }
        }
        let mut found = live(&catalog, None).await.unwrap();
        found.sort();
        expected.sort();
        assert_eq!(found, expected);
    }
    for name in ["r0", "r1", "r2"] {
        if let Some((kept, counted)) = catalog.totals(name).await.unwrap() {
            assert_eq!(kept, counted);
        }
    }
    purge(&catalog, ALL).await;
    rows.retain(|_, is_live| *is_live);
    let manifests = place.number("SELECT count(*) FROM manifest").await;
    assert_eq!(manifests, rows.len() as i64);
    let hidden = "SELECT count(*) FROM tag WHERE deleted_at IS NOT NULL";
    assert_eq!(place.number(hidden).await, 0);
    catalog.close().await;
}

pub(crate) async fn only_what_was_deleted_long_enough_ago_is_purged(place: &Place) {
    let catalog = place.open().await;
    for name in ["old", "young", "kept"] {
        let put = manifest("r", name, &[name]);
        catalog.put_manifest(put).await.unwrap();
    }
    for name in ["old", "young"] {
        catalog.delete_manifest("r", &digest(name)).await.unwrap();
    }
    let text = hex(place, &digest("old"));
    place
        .raw(&format!(
            "UPDATE manifest SET deleted_at = 1000 WHERE digest = {text}; \
             UPDATE tag SET deleted_at = 1000 WHERE manifest = {text}"
        ))
        .await;
    assert_eq!(catalog.purge(999).next().await.unwrap(), None);
    // As a plan sees it.
    let without = live(&catalog, Some(1000)).await.unwrap();
    assert!(!without.contains(&digest("old")));
    assert!(!without.contains(&digest("layer of old")));
    assert!(without.contains(&digest("young")));
    let all = live(&catalog, None).await.unwrap();
    assert_eq!(all.len(), without.len() + 3);
    let purged = purge(&catalog, 1000).await;
    assert_eq!((purged.manifests, purged.repositories), (1, 0));
    let last = catalog.changes(catalog.sequence() - 1, 10).await.unwrap();
    assert_eq!(last[0].kind, ChangeKind::ManifestPurged);
    let id = place.number("SELECT id FROM repository").await;
    assert_eq!(last[0].repository, id);
    let mut left = live(&catalog, None).await.unwrap();
    let mut without = without;
    left.sort();
    without.sort();
    assert_eq!(left, without);
    assert_eq!(lookup(&catalog, "r", "kept").await, Some(digest("kept")));
    catalog.close().await;
}

pub(crate) async fn i04_a_plan_keeps_a_deleted_child_that_an_index_lists(place: &Place) {
    let catalog = place.open().await;
    for name in ["child", "other"] {
        let put = manifest("r", name, &[name]);
        catalog.put_manifest(put).await.unwrap();
    }
    let put = index("r", "index", &["child"], &["v1"]);
    catalog.put_manifest(put).await.unwrap();
    for name in ["child", "other"] {
        catalog.delete_manifest("r", &digest(name)).await.unwrap();
    }
    let mut without = live(&catalog, Some(i64::MAX - 1)).await.unwrap();
    assert!(without.contains(&digest("layer of child")));
    assert!(!without.contains(&digest("layer of other")));
    // As the purge does.
    assert_eq!(purge(&catalog, i64::MAX - 1).await.manifests, 1);
    let mut left = live(&catalog, None).await.unwrap();
    left.sort();
    without.sort();
    assert_eq!(left, without);
    catalog.close().await;
}

pub(crate) async fn a_repository_goes_whole_and_in_steps(place: &Place) {
    let catalog = place.open().await;
    for number in 0..250 {
        let name = format!("m{number}");
        let put = manifest("gone", &name, &[&name]);
        catalog.put_manifest(put).await.unwrap();
    }
    let shared = manifest("stays", "m1", &["latest"]);
    catalog.put_manifest(shared).await.unwrap();
    for name in ["gone", "stays"] {
        let blob = digest("blob");
        catalog.link_blob(name, &blob, (7, 1)).await.unwrap();
    }
    catalog.unlink_blob("gone", &digest("blob")).await.unwrap();
    catalog.delete_repository("gone").await.unwrap();
    let first = catalog.purge(ALL).next().await.unwrap().unwrap();
    assert!(first.manifests > 0 && first.manifests < 250, "{first:?}");
    // Whoever is killed in between leaves totals that are right.
    catalog.close().await;
    let catalog = place.open().await;
    live(&catalog, None).await.unwrap();
    let rest = purge(&catalog, ALL).await;
    assert_eq!(first.manifests + rest.manifests, 250);
    assert_eq!(rest.repositories, 1);
    let left = live(&catalog, None).await.unwrap();
    assert_eq!(left.len(), 3);
    for table in ["repository", "manifest", "tag", "link"] {
        let count = place.number(&format!("SELECT count(*) FROM {table}")).await;
        assert_eq!(count, 1, "{table}");
    }
    assert_eq!(place.number("SELECT count(*) FROM unlinked").await, 0);
    assert!(catalog.blob_linked("stays", &digest("blob")).await.unwrap());
    catalog.close().await;
}

pub(crate) async fn deletes_explain_garbage_until_it_is_gone(place: &Place) {
    let catalog = place.open().await;
    let put = manifest("r", "one", &["latest"]);
    catalog.put_manifest(put).await.unwrap();
    let layer = digest("layer of one");
    catalog.link_blob("r", &layer, (7, 5)).await.unwrap();
    catalog.link_blob("s", &layer, (7, 5)).await.unwrap();
    let explained = async |of: Digest| catalog.departed(&[of]).await.unwrap().remove(0);
    assert_eq!(explained(layer).await, None);
    catalog.delete_manifest("r", &digest("one")).await.unwrap();
    assert_eq!(explained(layer).await, None, "it can come back");
    purge(&catalog, ALL).await;
    for of in [layer, digest("one"), digest("config of one")] {
        let why = explained(of).await.unwrap();
        assert_eq!(why.repository, "r");
        assert_eq!(why.manifest, Some(digest("one")));
    }
    // Pushed again meanwhile: the new life's link stays.
    catalog.link_blob("s", &layer, (7, 9)).await.unwrap();
    let dead = |birth| {
        let digest = layer;
        vec![Dead { digest, birth }]
    };
    assert!(catalog.blob_linked("r", &layer).await.unwrap());
    catalog.forget_dead(dead(5)).await.unwrap();
    assert!(!catalog.blob_linked("r", &layer).await.unwrap());
    assert!(catalog.blob_linked("s", &layer).await.unwrap());
    assert_eq!(explained(layer).await, None);
    // An older word takes nothing away, nor does it make the link older.
    catalog.link_blob("s", &layer, (7, 5)).await.unwrap();
    catalog.forget_dead(dead(8)).await.unwrap();
    assert!(catalog.blob_linked("s", &layer).await.unwrap());
    let many = vec![dead(1).remove(0); DEAD_MAX + 1];
    assert!(catalog.forget_dead(many).await.is_err());
    catalog.close().await;
}

pub(crate) async fn what_was_deleted_comes_back_with_what_belongs_to_it(place: &Place) {
    let catalog = place.open().await;
    let put = manifest("r", "one", &["a", "b", "c"]);
    catalog.put_manifest(put).await.unwrap();
    let by_digest = tag(&digest("one").to_string());
    assert_eq!(catalog.hidden("r", &by_digest).await.unwrap(), None);
    assert_eq!(catalog.undelete("r", &by_digest).await.unwrap(), None);
    // This one was deleted by itself, before.
    catalog.delete_tag("r", "c").await.unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(3)).await;
    catalog.delete_manifest("r", &digest("one")).await.unwrap();
    let hidden = catalog.hidden("r", &by_digest).await.unwrap().unwrap();
    assert_eq!(hidden.tags, ["a", "b"]);
    let back = catalog.undelete("r", &by_digest).await.unwrap();
    assert_eq!(back.unwrap(), ["a", "b"]);
    assert_eq!(lookup(&catalog, "r", "a").await, Some(digest("one")));
    assert_eq!(lookup(&catalog, "r", "c").await, None);
    // A tag brings its manifest back.
    catalog.delete_manifest("r", &digest("one")).await.unwrap();
    assert!(catalog.undelete("r", &tag("c")).await.unwrap().is_some());
    assert_eq!(lookup(&catalog, "r", "c").await, Some(digest("one")));
    assert_eq!(lookup(&catalog, "r", "a").await, None);
    // One that was given to something else stays with that.
    let two = manifest("r", "two", &["a"]);
    catalog.put_manifest(two).await.unwrap();
    assert_eq!(catalog.undelete("r", &tag("a")).await.unwrap(), None);
    assert_eq!(lookup(&catalog, "r", "a").await, Some(digest("two")));
    catalog.delete_manifest("r", &digest("one")).await.unwrap();
    purge(&catalog, ALL).await;
    assert_eq!(catalog.undelete("r", &by_digest).await.unwrap(), None);
    catalog.close().await;
}

pub(crate) async fn what_a_purged_manifest_leaves_is_found(place: &Place) {
    let catalog = place.open().await;
    let names = ["amd", "arm", "tagged", "shared"];
    for name in names {
        let tags: &[&str] = if name == "tagged" { &["arch"] } else { &[] };
        let put = manifest("r", name, tags);
        catalog.put_manifest(put).await.unwrap();
    }
    let first = index("r", "first", &names, &["v1"]);
    catalog.put_manifest(first).await.unwrap();
    let second = index("r", "second", &["shared"], &["v2"]);
    catalog.put_manifest(second).await.unwrap();
    let signature = about("r", "signature", "first");
    catalog.put_manifest(signature).await.unwrap();
    let of_it = about("r", "signature of it", "signature");
    catalog.put_manifest(of_it).await.unwrap();
    let unreached = async || {
        let (found, more) = catalog.untagged(None).await.unwrap();
        assert_eq!(more, None);
        found.into_iter().map(|row| row.1).collect::<BTreeSet<_>>()
    };
    let set = |names: &[&str]| {
        names
            .iter()
            .map(|name| digest(name))
            .collect::<BTreeSet<_>>()
    };
    assert_eq!(unreached().await, set(&[]));
    catalog
        .delete_manifest("r", &digest("first"))
        .await
        .unwrap();
    // As long as it can come back, it is to come back whole.
    assert_eq!(unreached().await, set(&[]));
    let orphans = async || {
        let (orphans, more) = catalog.orphans(None).await.unwrap();
        assert_eq!(more, None);
        orphans
    };
    assert!(orphans().await.is_empty());
    purge(&catalog, ALL).await;
    assert_eq!(unreached().await, set(&["amd", "arm", "signature"]));
    let found = orphans().await;
    let marked: BTreeSet<_> = found.iter().map(|row| row.1).collect();
    assert_eq!(
        marked,
        set(&["amd", "arm", "tagged", "shared", "signature"])
    );
    for (repository, digest, unreached) in found {
        assert_eq!(repository, "r");
        let is_loose = !set(&["tagged", "shared"]).contains(&digest);
        assert_eq!(unreached.is_some(), is_loose);
        if let Some(unreached) = unreached {
            let orphaned_at = unreached.orphaned_at.unwrap();
            assert!(unreached.used_at <= orphaned_at, "{unreached:?}");
        }
    }
    let kept = ["tagged", "shared"].map(|name| ("r".to_owned(), digest(name)));
    catalog.settle(kept.to_vec()).await.unwrap();
    assert_eq!(orphans().await.len(), 3);
    // One is pushed again: it is no orphan any more.
    let put = manifest("r", "arm", &[]);
    catalog.put_manifest(put).await.unwrap();
    assert_eq!(orphans().await.len(), 2);
    // A tag that is gone or given away counts as use.
    let before = catalog.unreached("r", &digest("arm")).await.unwrap();
    for name in ["arm", "amd"] {
        let put = manifest("r", name, &["moves"]);
        catalog.put_manifest(put).await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(3)).await;
    }
    let after = catalog.unreached("r", &digest("arm")).await.unwrap();
    assert!(after.unwrap().used_at > before.unwrap().used_at);
    catalog.close().await;
}

pub(crate) async fn what_a_push_has_checked_is_there_when_it_ends(place: &Place) {
    let catalog = place.open().await;
    let child = manifest("r", "child", &[]);
    catalog.put_manifest(child).await.unwrap();
    catalog
        .delete_manifest("r", &digest("child"))
        .await
        .unwrap();
    let listing = || index("r", "index", &["child"], &["v1"]);
    catalog.put_manifest(listing()).await.unwrap();
    let by_digest = digest("child").to_string();
    let found = lookup(&catalog, "r", &by_digest).await;
    assert_eq!(found, Some(digest("child")));
    // One that was purged cannot come back: the push is refused, whole.
    for name in ["index", "child"] {
        catalog.delete_manifest("r", &digest(name)).await.unwrap();
    }
    purge(&catalog, ALL).await;
    let sequence = catalog.sequence();
    let refused = catalog.put_manifest(listing()).await;
    assert_eq!(refused, Err(CatalogError::Gone(digest("child"))));
    assert_eq!(catalog.sequence(), sequence);
    assert_eq!(lookup(&catalog, "r", "v1").await, None);
    // A blob whose link a collection took for that of a life before.
    let layer = digest("layer of one");
    catalog.link_blob("r", &layer, (7, 1)).await.unwrap();
    let linked = |birth| {
        let mut one = manifest("r", "one", &["one"]);
        let (digest, size) = (layer, 7);
        one.links = vec![LinkedBlob {
            digest,
            size,
            birth,
        }];
        one
    };
    let forget = async || {
        let dead = vec![Dead {
            digest: layer,
            birth: 1,
        }];
        catalog.forget_dead(dead).await.unwrap();
    };
    catalog.put_manifest(linked(9)).await.unwrap();
    forget().await;
    assert!(catalog.blob_linked("r", &layer).await.unwrap());
    catalog.unlink_blob("r", &layer).await.unwrap();
    forget().await;
    catalog.put_manifest(linked(9)).await.unwrap();
    assert!(catalog.blob_linked("r", &layer).await.unwrap());
    catalog.close().await;
}

pub(crate) async fn a_listed_manifest_is_not_purged_before_its_index(place: &Place) {
    let catalog = place.open().await;
    let child = manifest("r", "child", &[]);
    catalog.put_manifest(child).await.unwrap();
    let index = index("r", "index", &["child"], &["v1"]);
    catalog.put_manifest(index).await.unwrap();
    catalog
        .link_blob("r", &digest("layer of child"), (7, 1))
        .await
        .unwrap();
    // As a script that deletes what has no tag, and then its layers.
    catalog
        .delete_manifest("r", &digest("child"))
        .await
        .unwrap();
    catalog
        .unlink_blob("r", &digest("layer of child"))
        .await
        .unwrap();
    assert_eq!(purge(&catalog, 0).await, PurgedRows::default());
    let purged = purge(&catalog, ALL).await;
    assert_eq!((purged.manifests, purged.blobs), (0, 1));
    let live = live(&catalog, None).await.unwrap();
    assert!(live.contains(&digest("layer of child")));
    catalog
        .delete_manifest("r", &digest("index"))
        .await
        .unwrap();
    let v1 = tag("v1");
    assert!(catalog.undelete("r", &v1).await.unwrap().is_some());
    let by_digest = digest("child").to_string();
    let found = lookup(&catalog, "r", &by_digest).await;
    assert_eq!(found, Some(digest("child")), "it comes back whole");
    catalog.close().await;
}

pub(crate) async fn undelete_brings_blobs_back_that_were_deleted_too(place: &Place) {
    let catalog = place.open().await;
    let layer = digest("layer of one");
    catalog.link_blob("r", &layer, (7, 3)).await.unwrap();
    let put = manifest("r", "one", &["v1"]);
    catalog.put_manifest(put).await.unwrap();
    catalog.delete_manifest("r", &digest("one")).await.unwrap();
    catalog.unlink_blob("r", &layer).await.unwrap();
    assert!(catalog.undelete("r", &tag("v1")).await.unwrap().is_some());
    assert!(catalog.blob_linked("r", &layer).await.unwrap());
    assert_eq!(place.number("SELECT count(*) FROM unlinked").await, 0);
    // It counts as used now.
    catalog.delete_tag("r", "v1").await.unwrap();
    let unreached = catalog.unreached("r", &digest("one")).await.unwrap();
    let pushed = place.number("SELECT max(pushed_at) FROM manifest").await;
    assert!(unreached.unwrap().used_at >= pushed);
    catalog.close().await;
}

pub(crate) async fn rows_get_no_time_before_the_one_that_is_believed(place: &Place) {
    let catalog = place.open().await;
    let put = manifest("r", "one", &["v1"]);
    catalog.put_manifest(put).await.unwrap();
    // As if the clock had been set back by a century since.
    let later = 4_000_000_000_000;
    catalog.set_clock(later).await.unwrap();
    catalog.set_clock(5).await.unwrap();
    catalog.delete_manifest("r", &digest("one")).await.unwrap();
    assert_eq!(purge(&catalog, later - 1).await, PurgedRows::default());
    catalog.close().await;
    let catalog = place.open().await;
    assert_eq!(catalog.gc_state().await.unwrap().clock, Some(later));
    let put = manifest("r", "two", &["v2"]);
    catalog.put_manifest(put).await.unwrap();
    catalog.delete_manifest("r", &digest("two")).await.unwrap();
    assert_eq!(purge(&catalog, later - 1).await, PurgedRows::default());
    assert_eq!(purge(&catalog, later).await.manifests, 2);
    // Unexplained deaths are counted by the day that they are told.
    catalog.add_unexplained(3, 10).await.unwrap();
    catalog.add_unexplained(4, 10).await.unwrap();
    assert_eq!(catalog.gc_state().await.unwrap().unexplained, 7);
    catalog.add_unexplained(2, 20).await.unwrap();
    let state = catalog.gc_state().await.unwrap();
    assert_eq!((state.unexplained, state.unexplained_since), (2, Some(20)));
    catalog.close().await;
}

pub(crate) async fn what_purged_rows_named_is_forgotten_when_it_is_named(place: &Place) {
    let catalog = place.open().await;
    let put = manifest("r", "one", &["v1"]);
    catalog.put_manifest(put).await.unwrap();
    catalog.delete_manifest("r", &digest("one")).await.unwrap();
    purge(&catalog, ALL).await;
    let all = catalog.departed_after(None).await.unwrap();
    assert_eq!(all.len(), 3);
    assert_eq!(
        catalog.departed_after(Some(all[1])).await.unwrap(),
        all[2..]
    );
    catalog.forget_departed(&all[..2], u64::MAX).await.unwrap();
    assert_eq!(catalog.departed_after(None).await.unwrap(), all[2..]);
    catalog.close().await;
}

pub(crate) async fn a_live_set_of_other_rows_than_were_written_is_refused(place: &Place) {
    let catalog = place.open().await;
    for name in ["one", "two"] {
        let put = manifest("r", name, &[name]);
        catalog.put_manifest(put).await.unwrap();
    }
    let whole = live(&catalog, None).await.unwrap();
    assert_eq!(whole.len(), 6);
    let one = hex(place, &digest("one"));
    let layer = hex(place, &digest("layer of one"));
    let other = hex(place, &digest("other"));
    for (break_it, mend_it) in [
        (
            format!("UPDATE edge SET digest = {other} WHERE digest = {layer}"),
            format!("UPDATE edge SET digest = {layer} WHERE digest = {other}"),
        ),
        (
            "UPDATE repository SET manifests = manifests + 1".to_owned(),
            "UPDATE repository SET manifests = manifests - 1".to_owned(),
        ),
        (
            format!("UPDATE edge SET kind = 2 WHERE manifest = {one} AND kind = 1"),
            format!("UPDATE edge SET kind = 1 WHERE manifest = {one} AND digest <> {layer}"),
        ),
    ] {
        place.raw(&break_it).await;
        let error = live(&catalog, None).await.unwrap_err();
        assert!(error.to_string().contains("repository r "), "{error}");
        place.raw(&mend_it).await;
        assert_eq!(live(&catalog, None).await.unwrap(), whole);
    }
    catalog.close().await;
}

fn hex(place: &Place, digest: &Digest) -> String {
    let hex: String = digest.encode().iter().map(|b| format!("{b:02x}")).collect();
    if place.is_sqlite() {
        format!("x'{hex}'")
    } else {
        format!("'\\x{hex}'::bytea")
    }
}
