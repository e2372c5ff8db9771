//! Segment files that are missing: a file system that is not mounted, or one
//! file. That is no damage to what is in them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use orlop_disk::Disk;
use orlop_disk::Kind;
use orlop_disk::sim::{Crash, Fault, Plan, Sim, Verb};
use orlop_engine::{Error, FindingCode, MemoryIndex, Store};

use crate::scrub::{full, scrub, segment};
use crate::support::{content, disk, folder, open, pull, push, sha256};
use crate::upkeep::{fill, until};

/// Where what is not mounted is.
pub(crate) fn elsewhere() -> PathBuf {
    PathBuf::from("/elsewhere")
}

/// Takes a class's file system away, or brings it back.
pub(crate) fn unmount(sim: &Sim, class: &str) {
    if !sim.exists(&elsewhere()).unwrap() {
        sim.create_dir(&elsewhere()).unwrap();
    }
    shift(sim, &folder().join("data").join(class), &elsewhere());
}

pub(crate) fn mount(sim: &Sim, class: &str) {
    shift(sim, &elsewhere(), &folder().join("data").join(class));
}

fn shift(sim: &Sim, from: &Path, to: &Path) {
    for name in sim.list(from).unwrap() {
        sim.rename(&from.join(&name), &to.join(&name)).unwrap();
    }
    sim.sync_dir(from).unwrap();
    sim.sync_dir(to).unwrap();
}

/// Without the handles that a running store has.
pub(crate) async fn restarted(sim: &Arc<Sim>, index: &MemoryIndex, store: Store) -> Store {
    store.close().await.unwrap();
    drop(store);
    open(sim, index).await.unwrap()
}

pub(crate) async fn assert_all(store: &Store, blobs: &[Bytes]) {
    for (number, bytes) in blobs.iter().enumerate() {
        let pulled = pull(store, &sha256(bytes)).await;
        assert_eq!(pulled.as_ref().ok(), Some(bytes), "{number}: {pulled:?}");
    }
    assert_eq!(store.health().await.counts.quarantined, 0);
}

#[tokio::test]
async fn segment_files_that_go_missing_put_no_blob_into_quarantine() {
    let sim = disk(70);
    let index = MemoryIndex::default();
    let (store, blobs) = full(&sim, &index).await;
    let store = restarted(&sim, &index, store).await;
    let count = |class: &str| sim.list(&folder().join("data").join(class)).unwrap().len();
    let files = count("raw");
    unmount(&sim, "raw");
    let (found, _) = scrub(&store, true).await;
    assert_eq!(found.len(), files, "{found:#?}");
    for finding in &found {
        assert_eq!(finding.code, FindingCode::Segment);
        assert!(finding.reason.contains("missing"), "{finding:?}");
    }
    for (number, bytes) in blobs.iter().enumerate() {
        let digest = sha256(bytes);
        let stat = store.stat(&digest);
        let pulled = pull(&store, &digest).await;
        if number < 24 {
            // Absent, so that a client pushes it; a pull says why.
            assert!(matches!(stat, Err(Error::NotFound { .. })), "{stat:?}");
            assert!(matches!(pulled, Err(Error::Io { .. })), "{pulled:?}");
        } else {
            assert_eq!(stat.unwrap().size, bytes.len() as u64);
            assert_eq!(&pulled.unwrap(), bytes);
        }
    }
    assert_eq!(store.health().await.counts.quarantined, 0);
    mount(&sim, "raw");
    assert_all(&store, &blobs).await;
    let (found, _) = scrub(&store, true).await;
    assert_eq!(found, []);
}

#[tokio::test]
async fn no_segment_is_made_in_a_folder_whose_files_are_gone() {
    let sim = disk(71);
    let index = MemoryIndex::default();
    let (store, mut blobs) = full(&sim, &index).await;
    unmount(&sim, "raw");
    let raw = folder().join("data/raw");
    // The open one goes on by its handle until it is full.
    let mut refused = None;
    for seed in 2_000..2_040 {
        let bytes = content(seed, 900_000);
        match push(&store, &bytes, sha256(&bytes)).await {
            Ok(_) => blobs.push(bytes),
            Err(error) => refused = Some(error),
        }
    }
    let refused = refused.expect("it never was full");
    assert!(matches!(refused, Error::Io { .. }), "{refused}");
    assert!(refused.to_string().contains("mount"), "{refused}");
    assert_eq!(sim.list(&raw).unwrap(), Vec::<String>::new());
    assert_eq!(store.health().await.poisoned, None);
    mount(&sim, "raw");
    let bytes = content(3_000, 900_000);
    push(&store, &bytes, sha256(&bytes)).await.unwrap();
    blobs.push(bytes);

    // What recycling would make the only copy of neither.
    unmount(&sim, "small");
    let recycled = store.health().await.counts.recycled;
    for seed in 4_000..4_400 {
        let bytes = content(seed, 40_000);
        push(&store, &bytes, sha256(&bytes)).await.unwrap();
        blobs.push(bytes);
    }
    let small = folder().join("data/small");
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    assert_eq!(store.health().await.counts.recycled, recycled);
    assert_eq!(sim.list(&small).unwrap(), Vec::<String>::new());
    mount(&sim, "small");
    until("recycling", async || {
        store.health().await.counts.recycled > recycled
    })
    .await;
    assert_all(&store, &blobs).await;
    let store = restarted(&sim, &MemoryIndex::default(), store).await;
    assert_all(&store, &blobs).await;
}

#[tokio::test]
async fn a_start_without_a_file_system_that_it_needs_is_refused_and_changes_nothing() {
    for class in ["raw", "small", "meta"] {
        let sim = disk(72);
        let index = MemoryIndex::default();
        let (store, blobs) = full(&sim, &index).await;
        store.close().await.unwrap();
        drop(store);
        unmount(&sim, class);
        for again in [&index, &MemoryIndex::default()] {
            // The second of two starts finds what the first one left.
            for _ in 0..2 {
                let error = open(&sim, again).await.err().unwrap();
                let text = error.to_string();
                assert!(text.contains("mount"), "{class}: {text}");
                assert!(text.contains(&format!("data/{class}")), "{class}: {text}");
            }
            let below = folder().join("data").join(class);
            assert_eq!(sim.list(&below).unwrap(), Vec::<String>::new());
        }
        mount(&sim, class);
        for index in [index, MemoryIndex::default()] {
            let store = open(&sim, &index).await.unwrap();
            assert_all(&store, &blobs).await;
            store.close().await.unwrap();
        }
    }
}

#[tokio::test]
async fn an_index_is_not_made_again_without_a_segment_that_was_sealed() {
    for class in ["small", "meta"] {
        let sim = disk(73);
        let index = MemoryIndex::default();
        let (store, mut blobs) = full(&sim, &index).await;
        store.note(vec![7; 100]).unwrap();
        blobs.extend(fill(&store, 9_000..9_400).await);
        let below = folder().join("data").join(class);
        until("a second pass", async || {
            sim.list(&below).unwrap().len() > 1
        })
        .await;
        store.close().await.unwrap();
        drop(store);
        let names = sim.list(&below).unwrap();
        let (here, away) = (below.join(&names[0]), elsewhere().join(&names[0]));
        sim.create_dir(&elsewhere()).unwrap();
        sim.rename(&here, &away).unwrap();
        let lost = MemoryIndex::default();
        for _ in 0..2 {
            let error = open(&sim, &lost).await.err().unwrap();
            let is_named = error.to_string().contains(&names[0]);
            assert!(
                matches!(error, Error::Corrupt { .. }) && is_named,
                "{error}"
            );
        }
        // The index that was there goes on without it.
        let store = open(&sim, &index).await.unwrap();
        assert_eq!(pull(&store, &sha256(&blobs[0])).await.unwrap(), blobs[0]);
        store.close().await.unwrap();
        drop(store);
        sim.rename(&away, &here).unwrap();
        let store = open(&sim, &lost).await.unwrap();
        assert_all(&store, &blobs).await;
    }
}

#[tokio::test]
async fn an_empty_file_in_the_place_of_one_that_is_lost_gives_its_blobs_up() {
    let sim = disk(74);
    let index = MemoryIndex::default();
    let store = open(&sim, &index).await.unwrap();
    let blobs = [content(1, 900_000), content(2, 40_000)];
    for bytes in &blobs {
        push(&store, bytes, sha256(bytes)).await.unwrap();
    }
    store.close().await.unwrap();
    drop(store);
    let raw = segment("raw", 1);
    sim.remove(&raw).unwrap();
    assert!(open(&sim, &index).await.is_err());
    let options = orlop_disk::OpenOptions {
        create: orlop_disk::Create::New,
        lane: orlop_disk::Lane::Inline,
        direct: true,
        write: true,
    };
    drop(sim.open(&raw, options).unwrap());
    let store = open(&sim, &index).await.unwrap();
    let read = pull(&store, &sha256(&blobs[0])).await;
    assert!(matches!(read, Err(Error::Corrupt { .. })), "{read:?}");
    assert!(push(&store, &blobs[0], sha256(&blobs[0])).await.unwrap());
    for bytes in &blobs {
        assert_eq!(&pull(&store, &sha256(bytes)).await.unwrap(), bytes);
    }
}

#[tokio::test]
async fn the_id_of_a_segment_that_is_missing_is_not_given_out_again() {
    let sim = disk(75);
    let index = MemoryIndex::default();
    let (store, blobs) = full(&sim, &index).await;
    let raw = folder().join("data/raw");
    let newest = |sim: &Sim| {
        let classes = ["raw", "small", "meta"].map(|class| folder().join("data").join(class));
        let names = classes.iter().flat_map(|below| sim.list(below).unwrap());
        names.max().unwrap()
    };
    for seed in 5_000..5_100 {
        if sim.exists(&raw.join(newest(&sim))).unwrap() {
            break;
        }
        let bytes = content(seed, 900_000);
        push(&store, &bytes, sha256(&bytes)).await.unwrap();
    }
    store.close().await.unwrap();
    drop(store);
    let name = newest(&sim);
    let here = raw.join(&name);
    sim.create_dir(&elsewhere()).unwrap();
    sim.rename(&here, &elsewhere().join(&name)).unwrap();
    let store = open(&sim, &index).await.unwrap();
    let bytes = content(6_000, 900_000);
    push(&store, &bytes, sha256(&bytes)).await.unwrap();
    assert!(!sim.exists(&here).unwrap(), "{name} was given out again");
    store.close().await.unwrap();
    drop(store);
    sim.rename(&elsewhere().join(&name), &here).unwrap();
    let store = open(&sim, &index).await.unwrap();
    assert_all(&store, &blobs).await;
    assert_eq!(pull(&store, &sha256(&bytes)).await.unwrap(), bytes);
}

/// One file that is lost says nothing about the folder: the others are there.
#[tokio::test]
async fn the_loss_of_a_newest_segment_file_stops_neither_pushes_nor_recycling() {
    let sim = disk(77);
    let index = MemoryIndex::default();
    let (store, mut blobs) = full(&sim, &index).await;
    blobs.extend(fill(&store, 9_000..9_400).await);
    for class in ["small", "meta"] {
        let below = folder().join("data").join(class);
        until("a second pass", async || {
            sim.list(&below).unwrap().len() > 1
        })
        .await;
    }
    let store = restarted(&sim, &index, store).await;
    for class in ["small", "meta", "raw"] {
        let below = folder().join("data").join(class);
        let newest = sim.list(&below).unwrap().into_iter().max().unwrap();
        sim.remove(&below.join(&newest)).unwrap();
    }
    let bytes = content(7_000, 900_000);
    push(&store, &bytes, sha256(&bytes)).await.unwrap();
    let recycled = store.health().await.counts.recycled;
    let more = fill(&store, 10_000..10_400).await;
    until("recycling", async || {
        store.health().await.counts.recycled > recycled + 1
    })
    .await;
    assert_eq!(pull(&store, &sha256(&bytes)).await.unwrap(), bytes);
    assert_all(&store, &more).await;
    // What was pushed before and is lost, a push brings back.
    for bytes in &blobs {
        push(&store, bytes, sha256(bytes)).await.unwrap();
    }
    assert_all(&store, &blobs).await;
}

/// Nobody uses a file whose name may not be durable.
#[tokio::test]
async fn g4_a_segment_whose_folder_could_not_be_synced_is_never_used() {
    for verb in [Verb::SyncDir, Verb::Sync] {
        let sim = disk(76);
        let store = open(&sim, &MemoryIndex::default()).await.unwrap();
        let raw = folder().join("data/raw");
        let plan = Plan::new(Fault::Fail(Kind::Io)).on(verb);
        sim.plan(plan.under(&raw));
        let first = content(1, 900_000);
        let error = push(&store, &first, sha256(&first)).await.unwrap_err();
        assert_eq!(sim.struck(), 1);
        assert!(matches!(error, Error::Io { .. }), "{error}");
        assert_eq!(sim.list(&raw).unwrap(), Vec::<String>::new());
        assert_eq!(store.health().await.poisoned, None);
        let blobs: Vec<Bytes> = (1..40).map(|seed| content(seed, 900_000)).collect();
        for bytes in &blobs {
            push(&store, bytes, sha256(bytes)).await.unwrap();
        }
        assert!(!sim.exists(&segment("raw", 1)).unwrap());
        drop(store);
        for crash in [Crash::Lost, Crash::Kept, Crash::Torn(4)] {
            let sim = sim.crash(crash);
            let store = open(&sim, &MemoryIndex::default()).await.unwrap();
            assert_all(&store, &blobs).await;
        }
    }
}
