//! Blobs that go before their leases end, since an operator purged them: which
//! they are, until when, and what becomes of purges that are cut short or meet.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use orlop::catalog::{Catalog, ChangeKind, GcPause, Leaving, Lives, PurgePlace, Seen};
use orlop_oci::Digest;

use crate::cases::{digest, manifest};
use crate::collection::live;
use crate::place::Place;

/// Of every blob here that has one.
const BIRTH: u64 = 5;

async fn at_once(catalog: &Catalog) -> BTreeSet<(Digest, u64)> {
    catalog.at_once(0).await.unwrap().into_iter().collect()
}

async fn place_of(catalog: &Catalog, name: &str) -> PurgePlace {
    let places = catalog
        .purge_places(&digest(name), None, &mut Seen::default())
        .await
        .unwrap();
    assert_eq!(places.len(), 1, "{places:?}");
    places.into_iter().next().unwrap()
}

fn life(birth: u64) -> Arc<Leaving> {
    Arc::new(Leaving::of(birth))
}

/// Lives of an image's manifest, config and layer: their births follow each other.
fn lives(name: &str) -> Arc<Lives> {
    let parts = ["", "config of ", "layer of "];
    let of = (BIRTH..).zip(parts);
    let of = of.map(|(birth, part)| (digest(&format!("{part}{name}")), life(birth)));
    Arc::new(of.collect())
}

/// A cycle that runs reads names, an operator purges one of them, and the cycle
/// forgets what is named: not what was purged since it began.
pub(crate) async fn what_is_purged_while_a_live_set_is_read_is_not_forgotten_with_it(
    place: &Place,
) {
    let catalog = place.open().await;
    for name in ["one", "two"] {
        catalog
            .put_manifest(manifest("r", name, &[name]))
            .await
            .unwrap();
    }
    let of = place_of(&catalog, "one").await;
    let lives = lives("one");
    let all: BTreeSet<(Digest, u64)> = lives.iter().map(|(of, at)| (*of, at.birth)).collect();
    let since = catalog.sequence();
    let named = live(&catalog, None).await.unwrap();
    catalog
        .expunge_manifest(&of, &digest("one"), &lives)
        .await
        .unwrap();
    catalog.forget_departed(&named, since).await.unwrap();
    assert_eq!(at_once(&catalog).await, all);
    let why = catalog.departed(&[digest("layer of one")]).await.unwrap();
    assert!(why[0].is_some());
    // The next one, in which it is named again.
    catalog
        .put_manifest(manifest("r", "one", &["one"]))
        .await
        .unwrap();
    let since = catalog.sequence();
    let named = live(&catalog, None).await.unwrap();
    catalog.forget_departed(&named, since).await.unwrap();
    assert_eq!(at_once(&catalog).await, BTreeSet::new());
    // A row that was there before, of which that is said anew.
    catalog
        .expunge_manifest(&of, &digest("one"), &Arc::default())
        .await
        .unwrap();
    catalog
        .put_manifest(manifest("r", "other", &[]))
        .await
        .unwrap();
    let since = catalog.sequence();
    let layer = digest("layer of one");
    catalog.begin_at_once(&layer, &life(BIRTH)).await.unwrap();
    catalog.forget_departed(&[layer], since).await.unwrap();
    assert_eq!(at_once(&catalog).await, BTreeSet::from([(layer, BIRTH)]));
    catalog.close().await;
}

pub(crate) async fn a_push_after_a_purge_has_its_leases_and_another_life_too(place: &Place) {
    let catalog = place.open().await;
    let (blob, other) = (digest("blob"), digest("other"));
    catalog.begin_at_once(&blob, &life(7)).await.unwrap();
    catalog.begin_at_once(&other, &life(8)).await.unwrap();
    assert_eq!(catalog.still_at_once(&[7, 8, 9]).await.unwrap().len(), 2);
    // Pushed again before it died.
    catalog.link_blob("r", &blob, (7, 7)).await.unwrap();
    assert_eq!(at_once(&catalog).await, BTreeSet::from([(other, 8)]));
    assert!(catalog.still_at_once(&[7]).await.unwrap().is_empty());
    // One that has links is not said to go.
    catalog.begin_at_once(&blob, &life(7)).await.unwrap();
    assert_eq!(at_once(&catalog).await, BTreeSet::from([(other, 8)]));
    // The same link once more.
    let r = place_of(&catalog, "blob").await;
    catalog
        .expunge_link(&r, &blob, Some(&life(7)))
        .await
        .unwrap();
    assert_eq!(at_once(&catalog).await.len(), 2);
    catalog.link_blob("s", &blob, (7, 7)).await.unwrap();
    assert_eq!(at_once(&catalog).await, BTreeSet::from([(other, 8)]));
    // That a life has ended is said of that one alone.
    catalog.begin_at_once(&other, &life(9)).await.unwrap();
    catalog.end_at_once(vec![8]).await.unwrap();
    assert_eq!(at_once(&catalog).await, BTreeSet::from([(other, 9)]));
    catalog.end_at_once(vec![9]).await.unwrap();
    assert_eq!(at_once(&catalog).await, BTreeSet::new());
    catalog.close().await;
}

/// The row that a purge is found by goes in the change that says what goes at once.
pub(crate) async fn a_purge_that_is_cut_short_has_said_what_goes_at_once(place: &Place) {
    let catalog = place.open().await;
    for name in ["one", "two"] {
        catalog
            .put_manifest(manifest("r", name, &[name]))
            .await
            .unwrap();
    }
    for part in ["config", "layer"] {
        let blob = digest(&format!("{part} of one"));
        catalog.link_blob("r", &blob, (7, 5)).await.unwrap();
    }
    // Somebody else has the config, and pushes with it.
    let config = digest("config of one");
    catalog.link_blob("s", &config, (7, 5)).await.unwrap();
    let of = place_of(&catalog, "one").await;
    let lives = lives("one");
    catalog
        .expunge_manifest(&of, &digest("one"), &lives)
        .await
        .unwrap();
    // It does not count while a repository has it, as where the purge ends here.
    let (one, layer) = (digest("one"), digest("layer of one"));
    let birth = |of: &Digest| lives[of].birth;
    assert_eq!(
        at_once(&catalog).await,
        BTreeSet::from([(one, birth(&one))])
    );
    let births = [&one, &layer, &config].map(birth);
    let still = catalog.still_at_once(&births).await.unwrap();
    assert_eq!(still, HashSet::from([birth(&one)]));
    for blob in [&layer, &config] {
        catalog.expunge_link(&of, blob, None).await.unwrap();
    }
    let expected = [&one, &layer].map(|of| (*of, birth(of)));
    assert_eq!(at_once(&catalog).await, BTreeSet::from(expected));
    let still = catalog.still_at_once(&births).await.unwrap();
    assert_eq!(still, HashSet::from([&one, &layer].map(birth)));
    catalog.close().await;
}

/// A purge that held a connection while it waited for another one stood still
/// with as many of its kind as there are connections, until all failed.
pub(crate) async fn as_many_purges_as_readers_do_not_wait_for_each_other(place: &Place) {
    let catalog = place.open().await;
    catalog
        .put_manifest(manifest("r", "one", &["latest"]))
        .await
        .unwrap();
    let purges = (0..64).map(|_| {
        let catalog = catalog.clone();
        tokio::spawn(async move {
            for _ in 0..4 {
                let places = catalog
                    .purge_places(&digest("one"), None, &mut Seen::default())
                    .await
                    .unwrap();
                let place = places.into_iter().next().unwrap();
                let unit = catalog
                    .purge_unit(place, &digest("one"), &mut Seen::default())
                    .await
                    .unwrap();
                assert_eq!(unit.manifests.len(), 1);
                catalog.named_beside(&[unit], &[]).await.unwrap();
            }
        })
    });
    let purges: Vec<_> = purges.collect();
    let all = async {
        for purge in purges {
            purge.await.unwrap();
        }
    };
    let all = tokio::time::timeout(Duration::from_secs(60), all).await;
    assert!(all.is_ok(), "purges wait for each other");
    catalog.close().await;
}

pub(crate) async fn a_plan_counts_no_manifests_of_deleted_repositories(place: &Place) {
    let catalog = place.open().await;
    for (repository, name) in [("r", "one"), ("r", "two"), ("s", "three"), ("s", "four")] {
        let put = manifest(repository, name, &[name]);
        catalog.put_manifest(put).await.unwrap();
        let hidden = catalog.delete_manifest(repository, &digest(name)).await;
        assert!(hidden.unwrap());
    }
    catalog.delete_repository("s").await.unwrap();
    let (count, first) = catalog.doomed(i64::MAX, 10).await.unwrap();
    assert_eq!((count, first.len()), (2, 2));
    let (count, first) = catalog.doomed_repositories(i64::MAX, 10).await.unwrap();
    assert_eq!((count, first[0].manifests), (1, 2));
    catalog.close().await;
}

/// A copy of the catalog is made when its sequence has changed.
pub(crate) async fn a_pause_and_its_end_are_changes(place: &Place) {
    let catalog = place.open().await;
    let before = catalog.sequence();
    let pause = GcPause {
        since: 1_700_000_000_000,
        why: "moving disks".to_owned(),
    };
    catalog.pause_gc(Some(pause)).await.unwrap();
    catalog.pause_gc(None).await.unwrap();
    assert_eq!(catalog.sequence(), before + 2);
    let changes = catalog.changes(before, 10).await.unwrap();
    let told: Vec<_> = changes
        .iter()
        .map(|change| (change.kind, change.repository, change.object.as_str()))
        .collect();
    assert_eq!(
        told,
        [
            (ChangeKind::CollectionPaused, 0, "moving disks"),
            (ChangeKind::CollectionResumed, 0, ""),
        ]
    );
    catalog.close().await;
}
