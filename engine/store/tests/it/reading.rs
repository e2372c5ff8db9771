//! Reading while others read slowly, and from a disk that errs.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::poll_immediate;
use orlop_disk::Kind;
use orlop_disk::sim::{Fault, Plan, Sim, Verb};
use orlop_engine::{Error, MemoryIndex, Store};
use orlop_format::row;
use orlop_index::{Batch, Index, Table};

use crate::support::{content, disk, folder, open, pull, push, sha256};

fn segment() -> PathBuf {
    folder().join("data/raw/S-0000000000000001.00000000")
}

fn journal() -> PathBuf {
    folder().join("journal/J-0000000000000001")
}

fn find(sim: &Sim, path: &Path, bytes: &[u8]) -> u64 {
    let image = sim.peek(path).unwrap();
    image
        .windows(64)
        .position(|window| window == &bytes[..64])
        .unwrap() as u64
}

/// A store that has `blobs` and nothing in its cache.
async fn cold(seed: u64, blobs: &[&Bytes]) -> (Arc<Sim>, MemoryIndex, Store) {
    let sim = disk(seed);
    let index = MemoryIndex::default();
    let store = open(&sim, &index).await.unwrap();
    for bytes in blobs {
        push(&store, bytes, sha256(bytes)).await.unwrap();
    }
    store.close().await.unwrap();
    drop(store);
    let store = open(&sim, &index).await.unwrap();
    (sim, index, store)
}

#[tokio::test]
async fn a_reader_that_stops_holds_up_no_other_reader() {
    let large = content(1, 3_000_000);
    let small = content(2, 9_000);
    let (sim, _, store) = cold(1, &[&large, &small]).await;
    sim.delay(100);
    // Each has begun a fetch and takes nothing of it, ever.
    let mut stopped = Vec::new();
    for (bytes, range) in [
        (&large, 700_000..700_100),
        (&large, 0..3_000_000),
        (&small, 0..9_000),
    ] {
        let mut stream = store.read(&sha256(bytes)).unwrap().stream(range);
        assert!(poll_immediate(stream.next()).await.is_none());
        stopped.push(stream);
    }
    for bytes in [&large, &small] {
        let digest = sha256(bytes);
        let pulled = pull(&store, &digest);
        let pulled = tokio::time::timeout(Duration::from_secs(20), pulled).await;
        assert_eq!(
            &pulled.expect("the other reader is held up").unwrap(),
            bytes
        );
    }
    // And who goes on after all gets what is right.
    let mut got = Vec::new();
    while let Some(piece) = stopped[1].next().await {
        got.extend_from_slice(&piece.unwrap());
    }
    assert_eq!(got, large);
}

#[tokio::test]
async fn one_fetch_serves_all_who_wait_for_a_page() {
    let bytes = content(1, 2_000_000);
    let (sim, _, store) = cold(2, &[&bytes]).await;
    sim.delay(100);
    let digest = sha256(&bytes);
    let pulls = (0..30).map(|_| pull(&store, &digest));
    let before = store.health().await.counts.page_reads;
    for pulled in futures_util::future::join_all(pulls).await {
        assert_eq!(pulled.unwrap(), bytes);
    }
    let reads = store.health().await.counts.page_reads - before;
    assert!(reads <= 12, "{reads} reads for 8 pages and 2 headers");
}

#[tokio::test]
async fn a_read_that_errs_once_costs_nothing() {
    let blobs = [content(1, 700_000), content(2, 5_000)];
    for fault in [Fault::Flip, Fault::Fail(Kind::Io), Fault::Partial(Kind::Io)] {
        for nth in 0..4 {
            let (sim, _, store) = cold(nth, &[&blobs[0], &blobs[1]]).await;
            sim.plan(Plan::new(fault).on(Verb::Read).after(nth));
            for bytes in &blobs {
                assert_eq!(
                    &pull(&store, &sha256(bytes)).await.unwrap(),
                    bytes,
                    "{fault:?} at {nth}"
                );
                store.stat(&sha256(bytes)).unwrap();
            }
            assert_eq!(sim.struck(), 1, "{fault:?} at {nth}");
            assert_eq!(store.health().await.counts.quarantined, 0);
        }
    }
}

#[tokio::test]
async fn an_unreadable_sector_is_damage_that_a_push_heals() {
    let large = content(1, 900_000);
    let small = content(2, 5_000);
    let (sim, _, store) = cold(3, &[&large, &small]).await;
    for (path, bytes, at) in [(segment(), &large, 500_000), (journal(), &small, 0)] {
        let at = find(&sim, &path, &bytes[at..]);
        assert!(sim.spoil(&path, at / 512 * 512, 512));
    }
    for bytes in [&large, &small] {
        let digest = sha256(bytes);
        store.stat(&digest).unwrap();
        let error = pull(&store, &digest).await.unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }), "{error}");
        assert!(error.to_string().contains(&digest.to_string()), "{error}");
        assert!(matches!(store.stat(&digest), Err(Error::NotFound { .. })));
        assert!(matches!(store.read(&digest), Err(Error::Corrupt { .. })));
        assert!(push(&store, bytes, digest).await.unwrap(), "kept anew");
        assert_eq!(&pull(&store, &digest).await.unwrap(), bytes);
    }
}

#[tokio::test]
async fn a_short_range_of_an_unreadable_sector_is_damage_too() {
    let bytes = content(1, 900_000);
    let (sim, _, store) = cold(4, &[&bytes]).await;
    let at = find(&sim, &segment(), &bytes[500_000..]);
    assert!(sim.spoil(&segment(), at / 512 * 512, 512));
    let digest = sha256(&bytes);
    let mut fine = store.read(&digest).unwrap().stream(0..100);
    assert_eq!(fine.next().await.unwrap().unwrap(), bytes[..100]);
    let mut spoiled = store.read(&digest).unwrap().stream(500_000..500_010);
    let error = spoiled.next().await.unwrap().unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    assert!(matches!(store.stat(&digest), Err(Error::NotFound { .. })));
}

#[tokio::test]
async fn a_machine_out_of_handles_says_nothing_about_a_blob() {
    let blobs = [content(1, 700_000), content(2, 5_000)];
    let (sim, _, store) = cold(5, &[&blobs[0], &blobs[1]]).await;
    sim.plan(
        Plan::new(Fault::Fail(Kind::Exhausted))
            .on(Verb::Read)
            .sticky(),
    );
    for bytes in &blobs {
        let error = pull(&store, &sha256(bytes)).await.unwrap_err();
        assert!(matches!(error, Error::Io { .. }), "{error}");
        store.stat(&sha256(bytes)).unwrap();
    }
    assert!(sim.struck() >= 2);
    sim.clear_plans();
    for bytes in &blobs {
        assert_eq!(&pull(&store, &sha256(bytes)).await.unwrap(), bytes);
    }
}

#[tokio::test]
async fn an_inline_blob_of_another_length_than_its_row_says_is_not_served() {
    for wrong in [2_999, 3_001] {
        let bytes = content(1, 3_000);
        let digest = sha256(&bytes);
        let (_sim, index, store) = cold(6, &[&bytes]).await;
        let index = index.current();
        let found = index.get(Table::Blob, digest.bytes()).unwrap().unwrap();
        let mut blob = row::Blob::decode(&found).unwrap();
        blob.size = wrong;
        let mut batch = Batch::new();
        batch.put(Table::Blob, digest.bytes(), blob.encode());
        batch.set_watermark(index.watermark().unwrap());
        index.apply(batch).unwrap();
        let mut stream = store.read(&digest).unwrap().stream(0..10);
        let error = stream.next().await.unwrap().unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }), "{wrong}: {error}");
        let error = pull(&store, &digest).await.unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }), "{wrong}: {error}");
        assert!(matches!(store.stat(&digest), Err(Error::NotFound { .. })));
        assert!(push(&store, &bytes, digest).await.unwrap());
        assert_eq!(pull(&store, &digest).await.unwrap(), bytes);
    }
}
