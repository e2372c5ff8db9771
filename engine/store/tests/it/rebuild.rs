//! An index that is made again from what recycling kept agrees with the one
//! that was lost.

use bytes::Bytes;
use orlop_disk::sim::{Crash, Fault, Plan, Verb};
use orlop_engine::{Algorithm, Digest, Error, MemoryIndex, Store};

use crate::scrub::{flip, place};
use crate::support::{content, disk, folder, open, pull, push, sha256};
use crate::upkeep::{fill, until};

/// All digests of `bytes`.
fn digests(bytes: &Bytes) -> [Digest; 3] {
    [Algorithm::Sha256, Algorithm::Sha512, Algorithm::Blake3]
        .map(|algorithm| Digest::of(algorithm, bytes))
}

async fn assert_named(store: &Store, blobs: &[Bytes], when: &str) {
    for bytes in blobs {
        for digest in digests(bytes) {
            let found = pull(store, &digest).await;
            assert_eq!(found.as_ref().ok(), Some(bytes), "{when}: {found:?}");
        }
    }
}

/// The push that heals a blob knows its SHA-256 alone.
#[tokio::test]
async fn further_digests_of_a_life_that_ended_name_the_blob_in_an_index_made_again() {
    let sim = disk(50);
    let index = MemoryIndex::default();
    let store = open(&sim, &index).await.unwrap();
    let blobs = [content(50, 5_000), content(51, 300_000)];
    for bytes in &blobs {
        let [_, sha512, blake3] = digests(bytes);
        // In the commit, and in a record of its own.
        assert!(push(&store, bytes, sha512).await.unwrap());
        assert!(!push(&store, bytes, blake3).await.unwrap());
    }
    store.close().await.unwrap();
    drop(store);
    for (bytes, below) in blobs.iter().zip(["journal", "data/raw"]) {
        let (path, at) = place(&sim, below, bytes);
        flip(&sim, &path, at);
    }
    let store = open(&sim, &index).await.unwrap();
    for bytes in &blobs {
        let [sha256, sha512, _] = digests(bytes);
        let read = pull(&store, &sha512).await;
        assert!(matches!(read, Err(Error::Corrupt { .. })), "{read:?}");
        assert!(push(&store, bytes, sha256).await.unwrap());
    }
    assert_named(&store, &blobs, "healed").await;
    fill(&store, 0..400).await;
    until("recycling", async || {
        store.health().await.counts.recycled >= 2
    })
    .await;
    assert_named(&store, &blobs, "recycled").await;
    store.close().await.unwrap();
    drop(store);
    let store = open(&sim, &MemoryIndex::default()).await.unwrap();
    assert_named(&store, &blobs, "made again").await;
}

/// A pass that moved a commit and went no further leaves it to the next one to
/// say that its upload ended, under the same LSN.
#[tokio::test]
async fn an_abandon_does_not_hide_the_damaged_commit_that_it_stands_for() {
    let sim = disk(52);
    let index = MemoryIndex::default();
    let store = open(&sim, &index).await.unwrap();
    let bytes = content(52, 5_000);
    let id = store.upload_open("a", None).unwrap();
    let mut upload = store.upload_resume(id, "a").await.unwrap();
    upload.append(bytes.slice(..1_000)).await.unwrap();
    upload.checkpoint().await.unwrap();
    upload.append(bytes.slice(1_000..)).await.unwrap();
    upload.commit(sha256(&bytes), None).await.unwrap();
    for file in ["superblock.0", "superblock.1"] {
        let plan = Plan::new(Fault::PowerOff).on(Verb::Write);
        sim.plan(plan.under(folder().join(file)));
    }
    for seed in 0..400 {
        let more = content(seed, 60_000);
        if push(&store, &more, sha256(&more)).await.is_err() {
            break;
        }
    }
    until("a pass", async || sim.struck() > 0).await;
    drop(store);
    let sim = sim.crash(Crash::Lost);
    let index = MemoryIndex::new(index.current().crash());
    let store = open(&sim, &index).await.unwrap();
    until("recycling", async || {
        store.health().await.counts.recycled >= 1
    })
    .await;
    assert_eq!(pull(&store, &sha256(&bytes)).await.unwrap(), bytes);
    store.close().await.unwrap();
    drop(store);
    let (path, at) = place(&sim, "data/small", &bytes);
    flip(&sim, &path, at);
    let store = open(&sim, &MemoryIndex::default()).await.unwrap();
    let read = store.read(&sha256(&bytes));
    assert!(matches!(read, Err(Error::Corrupt { .. })), "{read:?}");
    let status = store.upload_status(id, "a");
    assert!(matches!(status, Err(Error::NotFound { .. })), "{status:?}");
    assert!(push(&store, &bytes, sha256(&bytes)).await.unwrap());
}
