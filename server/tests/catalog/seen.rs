//! What a purge has seen of references before, and goes on from.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use orlop::catalog::{Catalog, Dead, Leaving, Lives, PurgePlace, PurgeUnit, Seen};
use orlop_oci::Digest;

use crate::cases::{Dice, digest, manifest, seed};
use crate::collection::{about, index};
use crate::place::Place;

async fn place_of(catalog: &Catalog) -> PurgePlace {
    let row = catalog.repository_row("r").await.unwrap().unwrap();
    catalog.purge_place(row).await.unwrap().unwrap()
}

/// The parts of a unit, whatever the order in which they were found.
fn sorted(unit: PurgeUnit) -> (BTreeSet<Digest>, Vec<Digest>, BTreeSet<Digest>) {
    (
        unit.manifests.iter().map(|of| of.digest).collect(),
        unit.unlinked,
        unit.blockers.iter().map(|of| of.manifest).collect(),
    )
}

/// With what was seen before whatever changed since, a purge finds what one finds that
/// reads all.
pub(crate) async fn what_was_seen_before_and_what_changed_is_what_a_whole_read_finds(
    place: &Place,
) {
    let catalog = place.open().await;
    let seed = seed();
    eprintln!("what_was_seen_before: ORLOP_SEED={seed}");
    let mut dice = Dice(seed);
    catalog
        .put_manifest(manifest("r", "m0", &[]))
        .await
        .unwrap();
    let r = place_of(&catalog).await;
    let mut kept: Vec<(String, Seen)> = Vec::new();
    for round in 0..400 {
        let name = format!("m{}", dice.below(12));
        let other = format!("m{}", dice.below(12));
        match dice.below(10) {
            0 | 1 => {
                catalog
                    .put_manifest(manifest("r", &name, &[]))
                    .await
                    .unwrap();
            }
            2 => {
                let put = index("r", &format!("index {name}"), &[&name, &other], &[]);
                let _ = catalog.put_manifest(put).await;
            }
            3 => {
                let put = about("r", &format!("about {name}"), &name);
                catalog.put_manifest(put).await.unwrap();
            }
            4 | 5 => {
                let of = ["", "index ", "about "][dice.below(3) as usize];
                let hidden = digest(&format!("{of}{name}"));
                let hidden = catalog.delete_manifest("r", &hidden);
                hidden.await.unwrap();
            }
            6 => {
                let of = ["", "index ", "about "][dice.below(3) as usize];
                let gone = digest(&format!("{of}{name}"));
                let lives = Arc::<Lives>::default();
                catalog.expunge_manifest(&r, &gone, &lives).await.unwrap();
            }
            7 => {
                let by_digest = orlop_oci::Reference::Digest(digest(&name));
                catalog.undelete("r", &by_digest).await.unwrap();
            }
            8 => kept.push((name, Seen::default())),
            _ => {
                let mut purge = catalog.purge(i64::MAX);
                while purge.next().await.unwrap().is_some() {}
            }
        }
        if kept.is_empty() || dice.below(3) > 0 {
            continue;
        }
        let which = dice.below(kept.len() as u64) as usize;
        let (name, seen) = &mut kept[which];
        // What it is asked for may be more than it was asked for before.
        let of = ["", "layer of ", "config of ", "index "][dice.below(4) as usize];
        let target = digest(&format!("{of}{name}"));
        let with = catalog.purge_unit(r.clone(), &target, seen).await.unwrap();
        let mut unseen = Seen::default();
        let fresh = catalog.purge_unit(r.clone(), &target, &mut unseen);
        let fresh = fresh.await.unwrap();
        assert_eq!(sorted(with), sorted(fresh), "round {round}: {of}{name}");
    }
    assert!(!kept.is_empty());
    catalog.close().await;
}

/// More changed than is kept, or than is read one by one.
pub(crate) async fn what_changed_too_much_is_read_again(place: &Place) {
    let catalog = place.open().await;
    catalog
        .put_manifest(manifest("r", "m0", &[]))
        .await
        .unwrap();
    let r = place_of(&catalog).await;
    let layer = digest("layer of m0");
    let mut seen = Seen::default();
    let first = catalog.purge_unit(r.clone(), &layer, &mut seen).await;
    assert_eq!(first.unwrap().blockers.len(), 1);
    let mut put = manifest("r", "late", &[]);
    for edge in &mut put.edges {
        if edge.digest == digest("layer of late") {
            edge.digest = layer;
        }
    }
    catalog.put_manifest(put).await.unwrap();
    // Nobody knows any more what changed first.
    let last = catalog.sequence();
    catalog.close().await;
    place
        .raw(&format!("DELETE FROM change WHERE sequence <= {last}"))
        .await;
    let catalog = place.open().await;
    let again = catalog.purge_unit(r.clone(), &layer, &mut seen).await;
    assert_eq!(again.unwrap().blockers.len(), 2);
    catalog
        .put_manifest(manifest("r", "m1", &[]))
        .await
        .unwrap();
    let again = catalog.purge_unit(r, &layer, &mut seen).await;
    assert_eq!(again.unwrap().blockers.len(), 2);
    catalog.close().await;
}

/// The end of one life of a blob took along what was said of the next one.
pub(crate) async fn what_was_said_of_a_later_life_outlasts_the_end_of_an_earlier_one(
    place: &Place,
) {
    let catalog = place.open().await;
    let blob = digest("blob");
    let later = Arc::new(Leaving::of(9));
    catalog.begin_at_once(&blob, &later).await.unwrap();
    let dead = |birth| {
        vec![Dead {
            digest: blob,
            birth,
        }]
    };
    catalog.forget_dead(dead(7)).await.unwrap();
    assert_eq!(catalog.at_once(0).await.unwrap(), [(blob, 9)]);
    catalog.forget_dead(dead(9)).await.unwrap();
    assert_eq!(catalog.at_once(0).await.unwrap(), []);
    assert_eq!(catalog.departed(&[blob]).await.unwrap(), [None]);
    catalog.close().await;
}

/// Links of the same life by another digest, and links that go in the same purge.
pub(crate) async fn leases_keep_a_life_that_is_linked_by_any_of_its_digests(place: &Place) {
    let catalog = place.open().await;
    let (blob, other) = (digest("blob"), digest("the same by another algorithm"));
    catalog.link_blob("s", &other, (7, 5)).await.unwrap();
    let s = catalog.repository_row("s").await.unwrap().unwrap();
    let mut life = Leaving {
        further: vec![other],
        ..Leaving::of(5)
    };
    catalog
        .begin_at_once(&blob, &Arc::new(life.clone()))
        .await
        .unwrap();
    assert_eq!(catalog.at_once(0).await.unwrap(), []);
    life.places.insert(s);
    let going = Arc::new(life.clone());
    catalog.begin_at_once(&blob, &going).await.unwrap();
    assert_eq!(catalog.at_once(0).await.unwrap(), []);
    // One by the same digest that goes: it does not count until that is gone.
    catalog.link_blob("t", &blob, (7, 4)).await.unwrap();
    let t = catalog.repository_row("t").await.unwrap().unwrap();
    let of_t = Leaving {
        places: HashSet::from([t]),
        ..Leaving::of(5)
    };
    let of_t = Arc::new(of_t);
    catalog.begin_at_once(&blob, &of_t).await.unwrap();
    assert_eq!(catalog.at_once(0).await.unwrap(), []);
    let t = catalog.purge_place(t).await.unwrap().unwrap();
    catalog.expunge_link(&t, &blob, None).await.unwrap();
    assert_eq!(catalog.at_once(0).await.unwrap(), [(blob, 5)]);
    // It did not go.
    life.places.clear();
    catalog.begin_at_once(&blob, &Arc::new(life)).await.unwrap();
    assert_eq!(catalog.at_once(0).await.unwrap(), []);
    let s = catalog.purge_place(s).await.unwrap().unwrap();
    catalog
        .expunge_link(&s, &other, Some(&going))
        .await
        .unwrap();
    assert_eq!(catalog.at_once(0).await.unwrap(), [(other, 5)]);
    catalog.close().await;
}
