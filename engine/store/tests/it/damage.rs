//! Damage that hardware did, case by case: named where it is, never served as
//! good, and told apart from a torn tail. `tests/sim` sweeps over every byte.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use orlop_disk::sim::{Crash, Sim};
use orlop_engine::{Error, MemoryIndex};

use crate::support::{content, disk, folder, open, pull, push, sha256};

fn journal() -> PathBuf {
    folder().join("journal/J-0000000000000001")
}

/// A store of small blobs that was cut from power.
async fn store_of(blobs: &[Bytes]) -> Arc<Sim> {
    let sim = disk(77);
    let store = open(&sim, &MemoryIndex::default()).await.unwrap();
    for bytes in blobs {
        push(&store, bytes, sha256(bytes)).await.unwrap();
    }
    sim.crash(Crash::Lost)
}

fn small(count: u64) -> Vec<Bytes> {
    (0..count).map(|seed| content(seed, 3_000)).collect()
}

fn find(image: &[u8], bytes: &[u8]) -> u64 {
    image
        .windows(64)
        .position(|window| window == &bytes[..64])
        .unwrap() as u64
}

#[tokio::test]
async fn i03_a_damaged_payload_in_the_proven_journal_costs_that_blob_only() {
    let blobs = small(6);
    let sim = store_of(&blobs).await;
    let at = find(&sim.peek(&journal()).unwrap(), &blobs[2]);
    assert!(sim.poke(&journal(), at + 100, &[0xff, 0xee, 0xdd]));
    for index in [MemoryIndex::default(), MemoryIndex::default()] {
        let store = open(&sim, &index).await.unwrap();
        for (number, bytes) in blobs.iter().enumerate() {
            let digest = sha256(bytes);
            if number == 2 {
                assert!(matches!(store.read(&digest), Err(Error::Corrupt { .. })));
                assert!(matches!(store.stat(&digest), Err(Error::NotFound { .. })));
            } else {
                assert_eq!(&pull(&store, &digest).await.unwrap(), bytes);
            }
        }
        store.close().await.unwrap();
    }
    let store = open(&sim, &MemoryIndex::default()).await.unwrap();
    assert!(
        push(&store, &blobs[2], sha256(&blobs[2])).await.unwrap(),
        "a push heals it"
    );
    store.close().await.unwrap();
    let store = open(&sim, &MemoryIndex::default()).await.unwrap();
    assert_eq!(pull(&store, &sha256(&blobs[2])).await.unwrap(), blobs[2]);
}

#[tokio::test]
async fn a_damaged_header_in_the_proven_journal_refuses_the_start_and_names_the_place() {
    let blobs = small(6);
    let sim = store_of(&blobs).await;
    let image = sim.peek(&journal()).unwrap();
    // The group that holds the third blob begins at the start of its block.
    let group = find(&image, &blobs[2]) / 4096 * 4096;
    assert_eq!(&image[group as usize..group as usize + 4], b"ORLR");
    for byte in [0, 9, 40, 70, 90, 130] {
        let sim = sim.crash(Crash::Kept);
        let old = image[(group + byte) as usize];
        assert!(sim.poke(&journal(), group + byte, &[old ^ 0x20]));
        let error = open(&sim, &MemoryIndex::default()).await.err().unwrap();
        assert!(
            matches!(error, Error::Corrupt { .. }),
            "byte {byte}: {error}"
        );
        let text = error.to_string();
        assert!(
            text.contains("journal file 1 at offset"),
            "byte {byte}: {text}"
        );
        assert_eq!(
            sim.peek(&journal()).unwrap().len(),
            image.len(),
            "nothing was changed"
        );
    }
}

#[tokio::test]
async fn a_torn_last_group_is_cut_and_stays_cut() {
    let blobs = small(4);
    let mut sim = store_of(&blobs).await;
    let image = sim.peek(&journal()).unwrap();
    let last = find(&image, &blobs[3]) / 4096 * 4096;
    // The last blob's own group never reached the disk whole, nor did a mark.
    let len = image.len() as u64 - last - 4096;
    assert!(sim.poke(&journal(), last + 4096, &vec![0; len as usize]));
    assert!(sim.poke(&journal(), last + 200, &[0; 512]));
    for round in 0..3 {
        let store = open(&sim, &MemoryIndex::default()).await.unwrap();
        for bytes in &blobs[..3] {
            assert_eq!(
                &pull(&store, &sha256(bytes)).await.unwrap(),
                bytes,
                "round {round}"
            );
        }
        assert!(
            matches!(store.stat(&sha256(&blobs[3])), Err(Error::NotFound { .. })),
            "round {round}"
        );
        let more = content(100 + round, 2_000);
        push(&store, &more, sha256(&more)).await.unwrap();
        sim = sim.crash(Crash::Killed);
    }
    let store = open(&sim, &MemoryIndex::default()).await.unwrap();
    for round in 0..3 {
        let more = content(100 + round, 2_000);
        assert_eq!(pull(&store, &sha256(&more)).await.unwrap(), more);
    }
}

#[tokio::test]
async fn i33_zeros_never_pass_for_content() {
    let sim = disk(5);
    let index = MemoryIndex::default();
    let store = open(&sim, &index).await.unwrap();
    let bytes = content(1, 600_000);
    push(&store, &bytes, sha256(&bytes)).await.unwrap();
    store.close().await.unwrap();
    drop(store);
    let segment = folder().join("data/raw/S-0000000000000001.00000000");
    assert!(sim.poke(&segment, 8192, &vec![0; 600_000]));
    let store = open(&sim, &index).await.unwrap();
    let error = pull(&store, &sha256(&bytes)).await.unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
}
