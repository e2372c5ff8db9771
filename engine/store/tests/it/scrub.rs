//! Scrub: what it finds, what it leaves alone, how it goes on.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use orlop_disk::Disk;
use orlop_disk::sim::{Crash, Sim};
use orlop_engine::{Error, Finding, FindingCode, IndexFactory, MemoryIndex, ScrubPosition, Store};
use orlop_format::location::Class;
use orlop_format::row;
use orlop_index::{Batch, Table};

use crate::support::{content, disk, folder, open, pull, push, sha256};

pub(crate) fn segment(class: &str, id: u64) -> PathBuf {
    folder().join(format!("data/{class}/S-{id:016x}.00000000"))
}

/// The first offset in any file of the store at which these bytes lie.
pub(crate) fn place(sim: &Sim, below: &str, bytes: &[u8]) -> (PathBuf, u64) {
    let sample = &bytes[bytes.len() / 2..bytes.len() / 2 + 64];
    for name in sim.list(&folder().join(below)).unwrap() {
        let path = folder().join(below).join(name);
        let image = sim.peek(&path).unwrap();
        if let Some(at) = memchr(&image, sample) {
            return (path, at as u64);
        }
    }
    panic!("nothing below {below} holds it");
}

fn memchr(image: &[u8], sample: &[u8]) -> Option<usize> {
    let (first, rest) = sample.split_first().unwrap();
    let mut at = 0;
    loop {
        at += image[at..].iter().position(|byte| byte == first)?;
        if image[at + 1..].starts_with(rest) {
            return Some(at);
        }
        at += 1;
    }
}

pub(crate) fn flip(sim: &Sim, path: &Path, at: u64) {
    let old = sim.peek(path).unwrap()[at as usize];
    assert!(sim.poke(path, at, &[old ^ 0x10]));
}

/// A whole scrub.
pub(crate) async fn scrub(store: &Store, digests: bool) -> (Vec<Finding>, ScrubPosition) {
    let mut scrub = store.scrub(digests, None).await.unwrap();
    let mut found = Vec::new();
    while let Some(findings) = scrub.step().await.unwrap() {
        found.extend(findings);
    }
    (found, scrub.position())
}

async fn until(what: &str, mut done: impl AsyncFnMut() -> bool) {
    for _ in 0..400 {
        if done().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{what} did not happen");
}

fn is_sealed(index: &MemoryIndex, class: Class, id: u64) -> bool {
    let index = index.open(&folder().join("index")).unwrap();
    let key = row::Segment::key(class, id);
    let row = index.get(Table::Segment, &key).unwrap();
    row.is_some_and(|bytes| row::Segment::decode(&bytes).unwrap().sealed)
}

/// A store with something everywhere: a sealed and an open raw segment, small
/// and meta segments, and a journal with inline blobs.
pub(crate) async fn full(sim: &Arc<Sim>, index: &MemoryIndex) -> (Store, Vec<Bytes>) {
    let store = open(sim, index).await.unwrap();
    let mut blobs = Vec::new();
    for seed in 0..24 {
        blobs.push(content(1_000 + seed, 900_000 + seed as usize));
    }
    for seed in 0..400 {
        blobs.push(content(seed, 40_000 + seed as usize));
    }
    for bytes in &blobs {
        push(&store, bytes, sha256(bytes)).await.unwrap();
    }
    until("recycling and sealing", async || {
        store.health().await.counts.recycled >= 1 && is_sealed(index, Class::Raw, 1)
    })
    .await;
    (store, blobs)
}

#[tokio::test]
async fn a_good_store_has_no_findings_and_all_of_it_is_walked() {
    let sim = disk(1);
    let index = MemoryIndex::default();
    let (store, blobs) = full(&sim, &index).await;
    let bytes: u64 = blobs.iter().map(|bytes| bytes.len() as u64).sum();
    let (found, position) = scrub(&store, false).await;
    assert_eq!(found, []);
    assert!(position.done > bytes, "{position:?}");
    assert_eq!(position.done, position.total);
    assert!(position.frames > 24, "{position:?}");
    let counts = store.health().await.counts;
    assert_eq!(counts.scrub_frames, position.frames);
    assert!(counts.scrub_bytes > bytes, "{counts:?}");
    let (found, twice) = scrub(&store, true).await;
    assert_eq!(found, []);
    assert!(twice.done > position.done + bytes, "{twice:?}");
    // Also as an earlier process left it.
    let sim = sim.crash(Crash::Lost);
    let store = open(&sim, &MemoryIndex::default()).await.unwrap();
    let (found, _) = scrub(&store, true).await;
    assert_eq!(found, []);
}

#[tokio::test]
async fn flipped_bytes_of_blobs_are_found_set_aside_and_healed_by_a_push() {
    let sim = disk(2);
    let index = MemoryIndex::default();
    let (store, blobs) = full(&sim, &index).await;
    // In a sealed and the open raw segment, a small segment, and the journal.
    let sealed = segment("raw", 1);
    let hurt: Vec<(usize, PathBuf, u64)> = [
        (0, "data/raw"),
        (23, "data/raw"),
        (24, "data/small"),
        (423, "journal"),
    ]
    .into_iter()
    .map(|(number, below)| {
        let (path, at) = place(&sim, below, &blobs[number]);
        (number, path, at)
    })
    .collect();
    assert_eq!(hurt[0].1, sealed);
    assert_ne!(hurt[1].1, sealed);
    for (_, path, at) in &hurt {
        flip(&sim, path, *at);
    }
    // In memory it may still be good: the disk is what counts.
    assert_eq!(pull(&store, &sha256(&blobs[1])).await.unwrap(), blobs[1]);
    let (found, _) = scrub(&store, false).await;
    let found: HashMap<_, _> = found
        .into_iter()
        .map(|finding| (finding.blob.unwrap(), finding))
        .collect();
    assert_eq!(found.len(), hurt.len(), "{found:#?}");
    for (number, path, at) in &hurt {
        let finding = &found[&sha256(&blobs[*number])];
        assert_eq!(finding.code, FindingCode::Blob, "{finding:?}");
        assert!(finding.quarantined, "{finding:?}");
        assert_eq!(folder().join(&finding.file), *path);
        assert!(finding.offset < *at && finding.offset + 1_000_000 > *at);
    }
    let counts = store.health().await.counts;
    assert_eq!(counts.quarantined, 4);
    assert_eq!(counts.scrub_findings[FindingCode::Blob as usize], 4);
    let is_hurt = |number: usize| hurt.iter().any(|(n, _, _)| *n == number);
    for (number, bytes) in blobs
        .iter()
        .enumerate()
        .filter(|(number, _)| is_hurt(*number))
    {
        let digest = sha256(bytes);
        assert!(
            matches!(store.stat(&digest), Err(Error::NotFound { .. })),
            "{number}"
        );
        assert!(
            matches!(store.read(&digest), Err(Error::Corrupt { .. })),
            "{number}"
        );
    }
    // It is durable: a start after a power cut knows it without reading.
    drop(store);
    let sim = sim.crash(Crash::Lost);
    let index = MemoryIndex::default();
    let store = open(&sim, &index).await.unwrap();
    for (number, bytes) in blobs.iter().enumerate() {
        let stat = store.stat(&sha256(bytes));
        assert_eq!(stat.is_err(), is_hurt(number), "{number}: {stat:?}");
    }
    // Found again as what it is: in quarantine already.
    let (again, _) = scrub(&store, false).await;
    assert_eq!(again.len(), 4, "{again:#?}");
    assert!(again.iter().all(|finding| !finding.quarantined));
    for (number, _, _) in &hurt {
        let bytes = &blobs[*number];
        assert!(
            push(&store, bytes, sha256(bytes)).await.unwrap(),
            "{number} is new"
        );
    }
    for bytes in &blobs {
        assert_eq!(&pull(&store, &sha256(bytes)).await.unwrap(), bytes);
    }
    // The bytes that rotted are nobody's now.
    let (found, _) = scrub(&store, true).await;
    assert_eq!(found, []);
    store.close().await.unwrap();
    let store = open(&sim, &MemoryIndex::default()).await.unwrap();
    for (number, _, _) in &hurt {
        let bytes = &blobs[*number];
        assert_eq!(&pull(&store, &sha256(bytes)).await.unwrap(), bytes);
    }
}

#[tokio::test]
async fn flipped_headers_and_footers_are_found_and_cost_no_blob_that_can_be_read() {
    let sim = disk(3);
    let index = MemoryIndex::default();
    let (store, blobs) = full(&sim, &index).await;
    let footer = |path: &Path| sim.peek(path).unwrap().len() as u64 - 4096 + 70;
    let raw = segment("raw", 1);
    flip(&sim, &raw, footer(&raw));
    let meta = sim.list(&folder().join("data/meta")).unwrap();
    let meta = folder().join("data/meta").join(&meta[0]);
    flip(&sim, &meta, 4096 + 20); // the first group's own header
    flip(&sim, &meta, footer(&meta));
    let (small, at) = place(&sim, "data/small", &blobs[30]);
    let image = sim.peek(&small).unwrap();
    let record = image[..at as usize]
        .windows(4)
        .rposition(|window| window == b"ORLR")
        .unwrap() as u64;
    flip(&sim, &small, record + 16); // the LSN of one record
    let (found, _) = scrub(&store, false).await;
    let of = |code| {
        let all = found.iter().filter(move |finding| finding.code == code);
        all.map(|finding| folder().join(&finding.file))
            .collect::<Vec<_>>()
    };
    let mut footers = of(FindingCode::Footer);
    footers.sort();
    assert_eq!(footers, [meta.clone(), raw], "{found:#?}");
    assert_eq!(of(FindingCode::Group), [meta, small], "{found:#?}");
    // Of the blobs only the one whose own record it was.
    let damaged: Vec<_> = found.iter().filter_map(|finding| finding.blob).collect();
    assert_eq!(damaged, [sha256(&blobs[30])], "{found:#?}");
    for (number, bytes) in blobs.iter().enumerate() {
        let pulled = pull(&store, &sha256(bytes)).await;
        assert_eq!(pulled.is_ok(), number != 30, "{number}");
    }
}

#[tokio::test]
async fn a_lost_first_block_costs_its_blobs_and_a_push_heals_them() {
    let sim = disk(4);
    let index = MemoryIndex::default();
    let (store, blobs) = full(&sim, &index).await;
    let raw = segment("raw", 1);
    let inside: Vec<usize> = (0..24)
        .filter(|number| place(&sim, "data/raw", &blobs[*number]).0 == raw)
        .collect();
    flip(&sim, &raw, 9);
    let (found, _) = scrub(&store, false).await;
    assert_eq!(found[0].code, FindingCode::Segment, "{found:#?}");
    assert_eq!(folder().join(&found[0].file), raw);
    assert_eq!(found.len(), inside.len() + 1, "{found:#?}");
    for (number, bytes) in blobs.iter().enumerate().take(24) {
        let digest = sha256(bytes);
        assert_eq!(store.stat(&digest).is_err(), inside.contains(&number));
        let is_new = push(&store, bytes, digest).await.unwrap();
        assert_eq!(is_new, inside.contains(&number), "{number}");
        assert_eq!(&pull(&store, &digest).await.unwrap(), bytes);
    }
}

#[tokio::test]
async fn a_damaged_journal_header_is_named_before_a_start_trips_over_it() {
    let sim = disk(5);
    let index = MemoryIndex::default();
    let store = open(&sim, &index).await.unwrap();
    let blobs: Vec<Bytes> = (0..8).map(|seed| content(seed, 3_000)).collect();
    for bytes in &blobs {
        push(&store, bytes, sha256(bytes)).await.unwrap();
    }
    let (file, at) = place(&sim, "journal", &blobs[3]);
    flip(&sim, &file, at / 4096 * 4096 + 40);
    let (found, _) = scrub(&store, false).await;
    assert_eq!(found.len(), 1, "{found:#?}");
    assert_eq!(found[0].code, FindingCode::Group);
    assert_eq!(found[0].offset, at / 4096 * 4096);
    for bytes in &blobs {
        assert_eq!(&pull(&store, &sha256(bytes)).await.unwrap(), bytes);
    }
}

/// A scrub from this cursor to its end, in pieces of a few steps, each by a
/// process of its own. Also says how many those were.
async fn in_pieces(
    sim: &Arc<Sim>,
    index: &MemoryIndex,
    mut cursor: Vec<u8>,
    steps: usize,
) -> (Vec<Finding>, ScrubPosition, usize) {
    let mut found = Vec::new();
    for pieces in 1..100 {
        let store = open(sim, index).await.unwrap();
        let mut scrub = store.scrub(true, Some(&cursor)).await.unwrap();
        for _ in 0..steps {
            match scrub.step().await.unwrap() {
                Some(findings) => found.extend(findings),
                None => return (found, scrub.position(), pieces),
            }
        }
        cursor = scrub.cursor();
        drop(scrub);
        store.close().await.unwrap();
    }
    panic!("it never came to its end");
}

#[tokio::test]
async fn a_scrub_goes_on_at_its_cursor_after_a_restart_and_walks_each_frame_once() {
    let sim = disk(6);
    let index = MemoryIndex::default();
    let (store, blobs) = full(&sim, &index).await;
    let mut whole = store.scrub(true, None).await.unwrap();
    let start = whole.cursor();
    while let Some(found) = whole.step().await.unwrap() {
        assert_eq!(found, []);
    }
    let whole = whole.position();
    store.close().await.unwrap();
    drop(store);
    let (found, position, pieces) = in_pieces(&sim, &index, start.clone(), 61).await;
    assert_eq!(found, []);
    assert_eq!((position.done, position.frames), (whole.done, whole.frames));
    assert!(pieces > 10, "{pieces}");

    // What is under suspicion when a process ends is looked at by the next.
    let hurt = [2, 12, 25];
    for number in hurt {
        let below = if number < 24 {
            "data/raw"
        } else {
            "data/small"
        };
        let (path, at) = place(&sim, below, &blobs[number]);
        flip(&sim, &path, at);
    }
    let (found, _, pieces) = in_pieces(&sim, &index, start, 301).await;
    assert!(pieces > 2, "{pieces}");
    let mut damaged: Vec<_> = found.iter().filter_map(|finding| finding.blob).collect();
    let mut expected: Vec<_> = hurt.map(|number| sha256(&blobs[number])).into();
    for digests in [&mut damaged, &mut expected] {
        digests.sort_by_key(|digest| digest.bytes().to_vec());
        digests.dedup();
    }
    assert_eq!(damaged, expected, "{found:#?}");
}

#[tokio::test]
async fn content_that_is_not_that_of_its_digest_is_found_by_reading_it() {
    let sim = disk(10);
    let index = MemoryIndex::default();
    let (store, blobs) = full(&sim, &index).await;
    // Rows that lead to other bytes, all of whose checksums hold.
    for (number, other) in [(3, 4), (410, 411)] {
        let rows = index.open(&folder().join("index")).unwrap();
        let get = |number: usize| {
            let key = sha256(&blobs[number]).bytes().to_vec();
            let bytes = rows.get(Table::Blob, &key).unwrap().unwrap();
            row::Blob::decode(&bytes).unwrap()
        };
        let (mut row, elsewhere) = (get(number), get(other));
        row.form = elsewhere.form;
        row.size = elsewhere.size;
        let mut batch = Batch::new();
        batch.put(Table::Blob, sha256(&blobs[number]).bytes(), row.encode());
        rows.apply(batch).unwrap();
    }
    let (found, _) = scrub(&store, false).await;
    assert_eq!(found, []);
    let (found, _) = scrub(&store, true).await;
    let mut damaged: Vec<_> = found.iter().filter_map(|finding| finding.blob).collect();
    damaged.sort_by_key(|digest| digest.bytes().to_vec());
    let mut expected: Vec<_> = [3, 410].map(|n| sha256(&blobs[n])).into();
    expected.sort_by_key(|digest| digest.bytes().to_vec());
    assert_eq!(damaged, expected, "{found:#?}");
    assert!(
        found
            .iter()
            .all(|finding| finding.code == FindingCode::Digest)
    );
    for number in [3, 410] {
        assert!(
            push(&store, &blobs[number], sha256(&blobs[number]))
                .await
                .unwrap()
        );
    }
    for bytes in &blobs {
        assert_eq!(&pull(&store, &sha256(bytes)).await.unwrap(), bytes);
    }
}

#[tokio::test]
async fn what_is_pushed_moved_and_recycled_meanwhile_is_no_finding() {
    let sim = disk(11);
    sim.delay(20);
    let index = MemoryIndex::default();
    let (store, _) = full(&sim, &index).await;
    let pushing = {
        let store = store.clone();
        tokio::spawn(async move {
            let mut kept = Vec::new();
            for seed in 5_000..5_500 {
                let len = if seed % 20 == 0 { 700_000 } else { 50_000 };
                let bytes = content(seed, len);
                push(&store, &bytes, sha256(&bytes)).await.unwrap();
                kept.push(bytes);
            }
            kept
        })
    };
    let mut scrubs = 0;
    while !pushing.is_finished() || scrubs < 2 {
        let mut scrub = store.scrub(scrubs % 2 == 1, None).await.unwrap();
        while let Some(found) = scrub.step().await.unwrap() {
            assert_eq!(found, []);
            tokio::task::yield_now().await;
        }
        scrubs += 1;
    }
    for bytes in pushing.await.unwrap() {
        assert_eq!(pull(&store, &sha256(&bytes)).await.unwrap(), bytes);
    }
    assert!(store.health().await.counts.recycled >= 3);
    assert_eq!(store.health().await.counts.quarantined, 0);
    println!("{scrubs} scrubs beside 500 pushes");
}
