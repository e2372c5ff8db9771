//! Counts of pulls, on either database.

use orlop::catalog::{Catalog, CatalogError, PULLS_MAX, Pull, PullCount, PullOf};

use crate::cases::{digest, lookup, manifest, tag};
use crate::place::Place;

fn pull(repository: &str, of: PullOf, count: u64, last: i64) -> Pull {
    let repository = repository.to_owned();
    Pull {
        repository,
        of,
        count,
        last,
    }
}

fn of_tag(name: &str) -> PullOf {
    PullOf::Tag(name.to_owned())
}

async fn count(catalog: &Catalog, repository: &str, reference: &str) -> Option<(u64, Option<i64>)> {
    let found = catalog.pulls(repository, &tag(reference)).await.unwrap();
    found.map(|PullCount { pulls, last }| (pulls, last))
}

pub(crate) async fn pulls_add_up_and_change_no_name(place: &Place) {
    let catalog = place.open().await;
    let one = digest("one");
    for repository in ["a", "b"] {
        let put = manifest(repository, "one", &["latest", "v1"]);
        catalog.put_manifest(put).await.unwrap();
    }
    let sequence = catalog.sequence();
    let by_digest = one.to_string();
    assert_eq!(count(&catalog, "a", "latest").await, Some((0, None)));
    assert_eq!(count(&catalog, "a", &by_digest).await, Some((0, None)));
    let counts = vec![
        pull("a", PullOf::Manifest(one), 5, 2000),
        pull("a", of_tag("latest"), 3, 2000),
        // What is gone is passed over, and takes nothing along.
        pull("a", of_tag("gone"), 1, 9000),
        pull("gone", PullOf::Manifest(one), 1, 9000),
        pull("b", PullOf::Manifest(digest("gone")), 1, 9000),
        pull("b", of_tag("v1"), 1, 1000),
    ];
    catalog.add_pulls(counts).await.unwrap();
    // The newest counts as the last, whichever is written last.
    let counts = vec![
        pull("a", PullOf::Manifest(one), 1, 1500),
        pull("a", of_tag("latest"), 1, 2500),
    ];
    catalog.add_pulls(counts).await.unwrap();
    for catalog in [&catalog, &place.open().await] {
        assert_eq!(count(catalog, "a", &by_digest).await, Some((6, Some(2000))));
        assert_eq!(count(catalog, "a", "latest").await, Some((4, Some(2500))));
        assert_eq!(count(catalog, "a", "v1").await, Some((0, None)));
        assert_eq!(count(catalog, "b", "v1").await, Some((1, Some(1000))));
        assert_eq!(count(catalog, "b", &by_digest).await, Some((0, None)));
        assert_eq!(count(catalog, "a", "gone").await, None);
        assert_eq!(count(catalog, "gone", "latest").await, None);
    }
    assert_eq!(catalog.sequence(), sequence);
    let changes = place.number("SELECT count(*) FROM change").await;
    assert_eq!(changes.unsigned_abs(), sequence);
    // A push keeps what was counted; a hidden row answers nothing.
    let put = manifest("a", "two", &["latest"]);
    catalog.put_manifest(put).await.unwrap();
    assert_eq!(count(&catalog, "a", "latest").await, Some((4, Some(2500))));
    assert!(catalog.delete_tag("a", "latest").await.unwrap());
    assert_eq!(count(&catalog, "a", "latest").await, None);
    // Bounded.
    let many = vec![pull("a", of_tag("v1"), 1, 1); PULLS_MAX + 1];
    let error = catalog.add_pulls(many).await.unwrap_err();
    assert!(matches!(error, CatalogError::Refused(_)), "{error:?}");
    let many = vec![pull("a", of_tag("v1"), 1, 1); PULLS_MAX];
    catalog.add_pulls(many).await.unwrap();
    assert_eq!(count(&catalog, "a", "v1").await, Some((256, Some(1))));
    catalog.close().await;
}

pub(crate) async fn lost_pulls_count_as_pulled_then(place: &Place) {
    let catalog = place.open().await;
    assert_eq!(catalog.pulls_through().await.unwrap(), None);
    let put = manifest("a", "one", &["latest", "v1"]);
    catalog.put_manifest(put).await.unwrap();
    let counts = vec![
        pull("a", of_tag("latest"), 1, 3000),
        pull("a", of_tag("v1"), 1, 1000),
    ];
    catalog.add_pulls(counts).await.unwrap();
    catalog.lost_pulls(2000).await.unwrap();
    assert_eq!(count(&catalog, "a", "latest").await, Some((1, Some(3000))));
    assert_eq!(count(&catalog, "a", "v1").await, Some((1, Some(2000))));
    let by_digest = digest("one").to_string();
    assert_eq!(
        count(&catalog, "a", &by_digest).await,
        Some((0, Some(2000)))
    );
    // It never falls, as with a clock that was set back.
    catalog.lost_pulls(500).await.unwrap();
    assert_eq!(count(&catalog, "a", "v1").await, Some((1, Some(2000))));
    catalog.end_pulls(7).await.unwrap();
    catalog.close().await;
    let catalog = place.open().await;
    assert_eq!(catalog.pulls_through().await.unwrap(), Some(7));
    assert_eq!(count(&catalog, "a", "v1").await, Some((1, Some(2000))));
    catalog.close().await;
}

/// The first release's catalog: brought up to date with all that is in it.
pub(crate) async fn a_catalog_of_the_first_form_is_brought_up_to_date(place: &Place) {
    place.make_first(&[7; 16]).await;
    place
        .raw(
            "INSERT INTO repository (name, created_at) VALUES ('a', 1); \
             UPDATE catalog SET sequence = 41",
        )
        .await;
    let catalog = place.try_open(false).await.unwrap();
    assert_eq!((catalog.id(), catalog.sequence()), ([7; 16], 41));
    let put = manifest("a", "one", &["latest"]);
    catalog.put_manifest(put).await.unwrap();
    let counts = vec![pull("a", of_tag("latest"), 2, 5)];
    catalog.add_pulls(counts).await.unwrap();
    assert_eq!(count(&catalog, "a", "latest").await, Some((2, Some(5))));
    catalog.close().await;
    // The release before may still open it, and writes its rows as ever.
    assert_eq!(place.number("SELECT needs FROM catalog").await, 1);
    assert!(place.number("SELECT schema FROM catalog").await >= 2);
    place
        .raw(
            "INSERT INTO tag (repository, name, manifest, updated_at) \
             SELECT repository, 'old', digest, 1 FROM manifest",
        )
        .await;
    let catalog = place.try_open(false).await.unwrap();
    assert_eq!(lookup(&catalog, "a", "old").await, Some(digest("one")));
    assert_eq!(count(&catalog, "a", "old").await, Some((0, None)));
    catalog.close().await;
}

/// The release before this one must see what is deleted here as gone, and what
/// it is given again must be there afterwards.
pub(crate) async fn the_release_before_can_push_a_deleted_blob_again(place: &Place) {
    let blob = digest("blob");
    let catalog = place.open().await;
    catalog.link_blob("a", &blob, (7, 1)).await.unwrap();
    assert!(catalog.unlink_blob("a", &blob).await.unwrap());
    catalog.close().await;
    // What it runs to link a blob, word for word but for the values.
    place
        .raw(
            "INSERT INTO link (repository, digest, size, linked_at) \
             SELECT repository, digest, size, 9 FROM unlinked WHERE true \
             ON CONFLICT (repository, digest) DO UPDATE SET \
             size = excluded.size, linked_at = excluded.linked_at \
             WHERE link.size <> excluded.size",
        )
        .await;
    let catalog = place.try_open(false).await.unwrap();
    assert!(
        catalog.blob_linked("a", &blob).await.unwrap(),
        "answered with 201, and lost"
    );
    catalog.close().await;
}
