//! What died in the segment that is open for extents: it comes back for many
//! bytes, or when all room is wanted, and uploads there go on.

use std::time::Duration;

use orlop_disk::sim::Crash;
use orlop_engine::{Error, MemoryIndex, Reclaimed, Store};

use crate::space::{
    CATALOG, digests, files, holds, keep, new, open, open_kept, put, reclaim, scrubbed, used,
};
use crate::support::{content, disk, sha256};

/// A pass that wants all room.
async fn reclaim_all(store: &Store) -> Result<Reclaimed, Error> {
    let mut pass = store.reclaim_all().await?;
    while pass.step().await?.is_some() {}
    Ok(pass.total())
}

#[tokio::test]
async fn what_died_in_the_open_segment_comes_back_when_all_room_is_wanted() {
    let (sim, index) = (disk(31), MemoryIndex::default());
    let store = open_kept(&sim, &index, 64 << 20, 0).await.unwrap();
    store.catalog_seen(CATALOG, 1).await.unwrap();
    let blobs = put(&store, 0..4, 700_000).await;
    keep(&store, &digests(&blobs[3..])).await;
    let full = used(&sim);
    assert_eq!(reclaim(&store).await.unwrap(), Reclaimed::default());
    assert_eq!(used(&sim), full, "a few bytes are not worth a segment");

    let done = reclaim_all(&store).await.unwrap();
    assert!(done.bytes > 2_000_000 && done.failed == 0, "{done:?}");
    // What was allocated ahead came back as well: what is left is what lives.
    let left = used(&sim);
    assert!(full - left > 7 << 20, "{full} to {left}");
    let space = store.space().await.unwrap();
    assert_eq!((space.dead, space.segments), (0, 1), "{space:?}");
    holds(&store, &blobs[3..], &blobs[..3]).await;

    // Nothing died since: no segment is closed again and again.
    let more = put(&store, 10..12, 700_000).await;
    for _ in 0..5 {
        assert_eq!(reclaim_all(&store).await.unwrap(), Reclaimed::default());
    }
    assert_eq!(files(&sim, "raw").len(), 2);
    scrubbed(&store).await;

    // Of which nothing lives: the file goes.
    keep(&store, &digests(&blobs[3..])).await;
    let done = reclaim_all(&store).await.unwrap();
    assert_eq!(done.segments, 1, "{done:?}");
    holds(&store, &blobs[3..], &more).await;
    assert_eq!(files(&sim, "raw").len(), 1);
    drop(store);
    for crash in [Crash::Killed, Crash::Lost, Crash::Torn(7)] {
        let sim = sim.crash(crash);
        let store = open(&sim, &MemoryIndex::default()).await.unwrap();
        holds(&store, &blobs[3..], &more).await;
    }
}

#[tokio::test]
async fn an_open_segment_is_closed_for_many_dead_bytes_alone() {
    let (sim, _, store) = new(32).await;
    let blobs = put(&store, 0..4, 300_000).await;
    keep(&store, &digests(&blobs[1..])).await;
    let before = store.space().await.unwrap();
    assert_eq!(reclaim(&store).await.unwrap(), Reclaimed::default());
    assert_eq!(store.space().await.unwrap(), before);

    keep(&store, &digests(&blobs[2..])).await;
    let done = reclaim(&store).await.unwrap();
    assert!(done.bytes >= 600_000, "{done:?}");
    put(&store, 4..5, 300_000).await;
    assert_eq!(files(&sim, "raw").len(), 2);
    holds(&store, &blobs[2..], &blobs[..2]).await;
}

#[tokio::test]
async fn an_upload_goes_on_while_its_segment_is_closed_under_it() {
    let (sim, _, store) = new(33).await;
    let bytes = content(90, 3_000_000);
    let id = store.upload_open("a/b", None).unwrap();
    let mut upload = store.upload_resume(id, "a/b").await.unwrap();
    upload.append(bytes.slice(..1_500_000)).await.unwrap();
    let dead = put(&store, 0..1, 700_000).await;
    upload
        .append(bytes.slice(1_500_000..2_000_000))
        .await
        .unwrap();
    keep(&store, &[]).await;

    // Held for now, by nobody's fault.
    assert_eq!(reclaim(&store).await.unwrap().bytes, 0);
    assert_eq!(files(&sim, "raw").len(), 1, "uploads write there");
    let ends = async {
        tokio::time::sleep(Duration::from_millis(400)).await;
        upload.append(bytes.slice(2_000_000..)).await.unwrap();
        upload.commit(sha256(&bytes), None).await.unwrap();
    };
    let (done, ()) = tokio::join!(reclaim_all(&store), ends);
    let done = done.unwrap();
    assert!(done.bytes >= 700_000 && done.held == 0, "{done:?}");
    assert!(
        files(&sim, "raw").len() > 1,
        "it was closed under the upload"
    );
    holds(&store, &[bytes], &dead).await;
    scrubbed(&store).await;
}

#[tokio::test]
async fn a_reader_is_waited_for_when_all_room_is_wanted() {
    let (_sim, _, store) = new(34).await;
    let blobs = put(&store, 0..8, 700_000).await;
    let reader = store.read(&sha256(&blobs[0])).unwrap();
    keep(&store, &digests(&blobs[7..])).await;
    let ends = async {
        tokio::time::sleep(Duration::from_millis(400)).await;
        drop(reader);
    };
    let (done, ()) = tokio::join!(reclaim_all(&store), ends);
    let done = done.unwrap();
    assert_eq!((done.segments, done.held), (1, 0), "{done:?}");
    assert_eq!(store.space().await.unwrap().dead, 0);
    holds(&store, &blobs[7..], &blobs[..7]).await;
}
