//! What a panic of the catalog's tasks leaves.

use super::*;

/// Nothing here takes so long, on any machine that is alive.
const LONG: Duration = Duration::from_secs(120);

/// More than the queue and one transaction take.
const CHANGES: u32 = 2_000;

async fn open(folder: &Path) -> Catalog {
    let options = Options {
        create: true,
        ..Options::default()
    };
    let location = Location::Sqlite(folder.join("catalog.db"));
    Catalog::open(location, options).await.unwrap()
}

fn digest(of: u32) -> Digest {
    Digest::of(orlop_format::digest::Algorithm::Sha256, &of.to_le_bytes())
}

fn panic_at(catalog: &Catalog, places: &[&'static str]) {
    catalog.shared().panics.lock().unwrap().extend(places);
}

/// Waits for what has to come.
async fn until(is_so: impl Fn() -> bool) {
    let began = std::time::Instant::now();
    while !is_so() {
        assert!(began.elapsed() < LONG, "it never came to it");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn i13_a_writer_that_panics_answers_everybody_ends_all_changes_and_leaves_reads() {
    for place in ["transaction", "answers"] {
        let folder = tempfile::tempdir().unwrap();
        let catalog = open(folder.path()).await;
        let before = digest(0);
        catalog
            .link_blob("some/name", &before, (1, 1))
            .await
            .unwrap();
        panic_at(&catalog, &[place]);
        // Some are in the transaction that panics, most wait for another, and
        // more than fit the queue wait for a place in it.
        let changes = (1..CHANGES).map(|number| {
            let catalog = catalog.clone();
            tokio::spawn(async move {
                catalog
                    .link_blob("some/name", &digest(number), (1, 1))
                    .await
            })
        });
        for change in Vec::from_iter(changes) {
            let answer = tokio::time::timeout(LONG, change).await;
            let error = answer.expect("no answer").unwrap().unwrap_err();
            let CatalogError::Poisoned(why) = &error else {
                panic!("{error:?}");
            };
            assert!(why.contains("writer") && why.contains(place), "{why}");
        }
        assert!(catalog.poisoned().is_some_and(|why| why.contains(place)));
        assert_eq!(catalog.writing(), Duration::ZERO);
        let later = catalog.delete_tag("some/name", "latest").await;
        assert!(matches!(later, Err(CatalogError::Poisoned(_))), "{later:?}");
        assert!(catalog.blob_linked("some/name", &before).await.unwrap());
        tokio::time::timeout(LONG, catalog.close())
            .await
            .expect("a close has no end");
        // What was committed without an answer is there, what was not is not.
        let catalog = open(folder.path()).await;
        let mut kept = 0;
        for number in 1..CHANGES {
            let blob = digest(number);
            kept += u32::from(catalog.blob_linked("some/name", &blob).await.unwrap());
        }
        assert_eq!(kept > 0, place == "answers", "{kept}");
        catalog
            .link_blob("some/name", &digest(1), (1, 1))
            .await
            .unwrap();
        catalog.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn i13_checkpoints_that_panic_are_started_again_and_that_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let catalog = open(folder.path()).await;
    panic_at(&catalog, &["checkpoints", "checkpoints"]);
    catalog
        .link_blob("some/name", &digest(1), (1, 1))
        .await
        .unwrap();
    until(|| catalog.restarts() == [("checkpoints", 1)]).await;
    // Changes go on while they pause.
    catalog
        .link_blob("some/name", &digest(2), (1, 1))
        .await
        .unwrap();
    until(|| catalog.restarts() == [("checkpoints", 2)]).await;
    assert_eq!(catalog.poisoned(), None);
    // One that pauses does not hold up the end, nor keep the file from being
    // emptied there.
    tokio::time::timeout(LONG, catalog.close())
        .await
        .expect("a close has no end");
    let wal = folder.path().join("catalog.db-wal").metadata();
    assert!(wal.map_or(0, |data| data.len()) == 0);
}
