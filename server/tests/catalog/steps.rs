//! Steps of a collection's changes that have much to do at once.

use std::collections::{BTreeMap, BTreeSet};

use orlop::catalog::{
    Catalog, ChangeKind, DEAD_MAX, Dead, Edge, EdgeKind, PurgedRows, PutManifest,
};
use orlop_oci::Digest;

use crate::cases::{digest, manifest, tag};
use crate::place::Place;

/// Later than any row.
const ALL: i64 = i64::MAX;

/// A manifest with so many layers, the first of which all have in common.
fn layered(repository: &str, name: &str, layers: usize, tags: &[&str]) -> PutManifest {
    let edges = (0..layers).map(|number| Edge {
        digest: match number {
            0 => digest("common layer"),
            _ => digest(&format!("layer {number} of {name}")),
        },
        kind: EdgeKind::Layer,
        size: 7,
        media_type: "application/octet-stream".to_owned(),
    });
    PutManifest {
        edges: edges.collect(),
        ..manifest(repository, name, tags)
    }
}

/// All that rows name; fails where totals are not those of the rows.
async fn live(catalog: &Catalog) -> BTreeSet<Digest> {
    let mut live = catalog.live_set(None);
    let mut all = BTreeSet::new();
    while let Some(digests) = live.next().await.unwrap() {
        all.extend(digests);
    }
    live.end().await.unwrap();
    all
}

pub(crate) async fn a_purge_takes_manifests_of_any_size_together(place: &Place) {
    let catalog = place.open().await;
    let mut named: BTreeMap<String, BTreeSet<Digest>> = BTreeMap::new();
    let mut kept = BTreeSet::new();
    for repository in ["r", "s"] {
        for (number, layers) in [0, 1, 499, 500, 501, 1300, 250, 250, 250, 3, 0, 0]
            .into_iter()
            .chain(std::iter::repeat_n(2, 60))
            .enumerate()
        {
            let name = format!("{repository}{number}");
            let put = layered(repository, &name, layers, &[&name]);
            let names: BTreeSet<Digest> = put.edges.iter().map(|edge| edge.digest).collect();
            let names = names.into_iter().chain([put.digest]);
            match number % 8 {
                7 => kept.extend(names),
                _ => named.entry(name.clone()).or_default().extend(names),
            }
            catalog.put_manifest(put).await.unwrap();
        }
    }
    // More tags than go in one step.
    let tags: Vec<String> = (0..250).map(|number| format!("t{number}")).collect();
    let tags: Vec<&str> = tags.iter().map(String::as_str).collect();
    let put = layered("r", "r0", 0, &tags);
    catalog.put_manifest(put).await.unwrap();
    for name in named.keys() {
        let deleted = catalog.delete_manifest(&name[..1], &digest(name)).await;
        assert!(deleted.unwrap(), "{name}");
    }
    let mut all = PurgedRows::default();
    let mut purge = catalog.purge(ALL);
    while let Some(rows) = purge.next().await.unwrap() {
        assert_ne!(rows, PurgedRows::default());
        all += rows;
        live(&catalog).await;
    }
    assert_eq!(all.manifests, named.len() as u64);
    assert_eq!(live(&catalog).await, kept);
    // What went explains all that is gone, and what stays, as much of it as it
    // named too.
    let (mut latest, mut of_common) = (0, 0);
    for (name, digests) in &named {
        let digests: Vec<Digest> = digests.iter().copied().collect();
        let departed = catalog.departed(&digests).await.unwrap();
        assert_eq!(departed.len(), digests.len());
        for (of, why) in digests.iter().zip(departed) {
            let why = why.ok_or((of, name)).unwrap();
            latest = latest.max(why.deleted_at);
            if *of == digest("common layer") {
                of_common = why.deleted_at;
            } else {
                assert_eq!(why.repository, name[..1]);
                assert_eq!(why.manifest, Some(digest(name)));
            }
        }
    }
    // What named it last.
    assert_eq!(of_common, latest);
    let missing: Vec<Digest> = (0..100).map(|number| digest(&number.to_string())).collect();
    let departed = catalog.departed(&missing).await.unwrap();
    assert_eq!(departed, vec![None; 100]);
    for table in ["tag", "manifest"] {
        let count = place.number(&format!("SELECT count(*) FROM {table}")).await;
        assert_eq!(count, 18, "{table}");
    }
    catalog.close().await;
}

pub(crate) async fn links_of_dead_blobs_go_however_many_they_are(place: &Place) {
    let catalog = place.open().await;
    let dead: Vec<Dead> = (0..DEAD_MAX)
        .map(|number| Dead {
            digest: digest(&format!("blob {number}")),
            birth: 10,
        })
        .collect();
    let mut old = 0;
    // One in many repositories, some with links of a later life, the rest in
    // one or two.
    for (number, blob) in dead.iter().enumerate() {
        let places = match number {
            3 => 600,
            4 => 300,
            _ => 1 + number % 2,
        };
        for at in 0..places {
            let is_later = number > 2 && at % 50 == 1;
            let birth = if is_later { 11 } else { 10 };
            let name = format!("r{at}");
            let linked = catalog.link_blob(&name, &blob.digest, (7, birth));
            linked.await.unwrap();
            old += u64::from(!is_later);
        }
    }
    let count = "SELECT count(*) FROM link";
    let before = place.number(count).await.unsigned_abs();
    let sequence = catalog.sequence();
    catalog.forget_dead(dead.clone()).await.unwrap();
    assert_eq!(place.number(count).await.unsigned_abs(), before - old);
    let later = "SELECT count(*) FROM link WHERE birth = 11";
    assert_eq!(place.number(later).await.unsigned_abs(), before - old);
    assert!(!catalog.blob_linked("r0", &dead[3].digest).await.unwrap());
    assert!(catalog.blob_linked("r1", &dead[3].digest).await.unwrap());
    // Each of them is a change, for whoever follows.
    assert_eq!(catalog.sequence(), sequence + old);
    let mut told = BTreeSet::new();
    let mut at = sequence;
    loop {
        let changes = catalog.changes(at, 1000).await.unwrap();
        let Some(last) = changes.last() else { break };
        at = last.sequence;
        for change in changes {
            assert_eq!(change.kind, ChangeKind::BlobUnlinked);
            assert!(told.insert((change.repository, change.object)));
        }
    }
    assert_eq!(told.len() as u64, old);
    // Only links of later lives are left: that is the end too.
    catalog.forget_dead(dead).await.unwrap();
    assert_eq!(catalog.sequence(), sequence + old);
    catalog.close().await;
}

pub(crate) async fn what_comes_back_while_a_purge_looks_ahead_stays(place: &Place) {
    let catalog = place.open().await;
    let names: Vec<String> = (0..200).map(|number| format!("m{number}")).collect();
    for name in &names {
        let put = manifest("r", name, &[name]);
        catalog.put_manifest(put).await.unwrap();
    }
    for name in &names {
        catalog.delete_manifest("r", &digest(name)).await.unwrap();
    }
    let mut purge = catalog.purge(ALL);
    let first = purge.next().await.unwrap().unwrap();
    assert!(first.manifests > 0 && first.manifests < 200, "{first:?}");
    // What it has looked at already is asked for again before it goes.
    let mut back = 0;
    for name in &names {
        back += u64::from(catalog.undelete("r", &tag(name)).await.unwrap().is_some());
    }
    assert_eq!(back, 200 - first.manifests);
    assert_eq!(purge.next().await.unwrap(), None);
    let manifests = place.number("SELECT count(*) FROM manifest").await;
    assert_eq!(manifests.unsigned_abs(), back);
    for name in names.iter().rev().take(3) {
        catalog.delete_manifest("r", &digest(name)).await.unwrap();
    }
    let mut gone = 0;
    while let Some(rows) = purge.next().await.unwrap() {
        gone += rows.manifests;
    }
    assert!(gone <= 3);
    assert_eq!(live(&catalog).await.len() as u64, 3 * (back - gone));
    catalog.close().await;
}
