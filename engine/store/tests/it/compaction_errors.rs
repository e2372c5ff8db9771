//! Raw segments are joined on a disk that is full or errs, beside seals, readers
//! and uploads: what is given up, and that it is no more than that.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use orlop_disk::Kind;
use orlop_disk::sim::{Crash, Fault, Plan, Sim, Verb};
use orlop_engine::{Error, MemoryIndex, Reclaimed, Store};
use orlop_format::location::{Class, SegmentId};
use orlop_format::row;
use orlop_format::segment::file_name;
use orlop_index::{Index, Table};

use crate::compaction::{FOOTPRINT, LEN, blobs, find, without_holes};
use crate::space::{
    CATALOG, SEGMENT, digests, files, holds, keep, layers, new, open, open_kept, put, reclaim,
    scrubbed, sealed, small, used,
};
use crate::support::{content, disk, folder, push, sha256};
use crate::upkeep::until;

/// What the index says of segments.
fn rows(index: &MemoryIndex) -> BTreeMap<SegmentId, row::Segment> {
    let mut rows = BTreeMap::new();
    let index = index.current();
    let scanned = index.scan(Table::Segment, &[], &mut |_, value| {
        let row = row::Segment::decode(value).unwrap();
        rows.insert(row.segment, row);
        ControlFlow::Continue(())
    });
    scanned.unwrap();
    rows
}

#[tokio::test]
async fn where_there_is_no_room_to_join_segments_they_are_punched() {
    let (sim, _, store) = new(61).await;
    let (live, dead) = blobs(&store, 9, 1).await;
    sealed(&sim, &store).await;
    let space = store.space().await.unwrap();
    sim.set_capacity(used(&sim));
    let done = reclaim(&store).await.unwrap();
    assert_eq!(done.failed, 0, "{done:?}");
    assert!(done.bytes >= space.dead, "{done:?} of {space:?}");
    assert_eq!(store.space().await.unwrap().dead, 0);
    assert_eq!(store.health().await.poisoned, None);
    holds(&store, &live, &dead).await;
}

#[tokio::test]
async fn what_was_copied_before_the_disk_was_full_is_moved() {
    let (sim, store, live, dead) = without_holes(62, 3, 2).await;
    // The second segment of moves finds no room.
    let raw = folder().join("data/raw");
    let full = Plan::new(Fault::Fail(Kind::Full)).on(Verb::Allocate);
    sim.plan(full.under(raw).after(1).sticky());
    let done = reclaim(&store).await.unwrap();
    assert_eq!((done.segments, done.failed), (2, 0), "{done:?}");
    assert_eq!(done.moved, 5 * FOOTPRINT, "{done:?}");
    assert_eq!(sim.struck(), 1, "it is not asked on and on");
    assert_eq!(store.health().await.poisoned, None);
    holds(&store, &live, &dead).await;
    sim.clear_plans();
    let done = reclaim(&store).await.unwrap();
    assert_eq!((done.segments, done.moved), (1, FOOTPRINT), "{done:?}");
    holds(&store, &live, &dead).await;
    scrubbed(&store).await;
}

#[tokio::test]
async fn a_filled_segment_of_moves_is_not_sealed_under_the_pass_that_fills_it() {
    let (sim, store, live, dead) = without_holes(63, 3, 2).await;
    let store = Arc::new(store);
    let (disk, clients) = (Arc::clone(&sim), Arc::clone(&store));
    // Five copies fill the first one. While the second one is made, the next sync
    // of the first fails, and a push wakes who seals.
    let stall = Plan::stall(move || {
        let (sim, store) = (Arc::clone(&disk), Arc::clone(&clients));
        async move {
            let raw = folder().join("data/raw");
            let first = raw.join(files(&sim, "raw").iter().nth_back(1).unwrap());
            let sync = Plan::new(Fault::Fail(Kind::Io)).on(Verb::Sync);
            sim.plan(sync.under(first));
            let bytes = content(700, 1000);
            push(&store, &bytes, sha256(&bytes)).await.unwrap();
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        .boxed()
    });
    let raw = folder().join("data/raw");
    sim.plan(stall.on(Verb::Write).under(raw).after(6));
    let done = reclaim(&store).await.unwrap();
    assert_eq!(sim.struck(), 2, "{done:?}");
    assert_eq!(done.failed, 1, "the pass hears of it: {done:?}");
    assert_eq!(done.moved, 4 * FOOTPRINT, "{done:?}");
    put(&store, 800..802, LEN).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(store.health().await.poisoned, None);
    holds(&store, &live, &dead).await;
    drop(store);
    let sim = sim.crash(Crash::Lost);
    let store = open(&sim, &MemoryIndex::default()).await.unwrap();
    holds(&store, &live, &dead).await;
    let done = reclaim(&store).await.unwrap();
    assert!(done.failed == 0 && done.segments > 0, "{done:?}");
    holds(&store, &live, &dead).await;
    scrubbed(&store).await;
}

/// A segment of moves cannot be sealed, for lack of room or since the disk errs:
/// clients' segments behind it are, nothing is joined meanwhile, and it is tried
/// again without a restart.
#[tokio::test]
async fn a_seal_of_moved_blobs_that_fails_holds_up_no_other_and_is_tried_again() {
    for (kind, verb) in [
        (Kind::Full, Verb::SetLen),
        (Kind::Io, Verb::Write),
        (Kind::Io, Verb::Sync),
    ] {
        let (sim, index, store) = new(64).await;
        sim.without_holes();
        let (live, dead) = blobs(&store, 3, 2).await;
        sealed(&sim, &store).await;
        let of = |id| SegmentId {
            volume: 0,
            class: Class::Raw,
            generation: 0,
            id,
        };
        let newest = rows(&index).into_keys().map(|id| id.id).max().unwrap();
        let moves = of(newest + 1);
        let path = folder().join("data/raw").join(file_name(&moves));
        // Behind its header and copies, and the syncs of these.
        let before = match verb {
            Verb::Write => 6,
            Verb::Sync => 4,
            _ => 0,
        };
        let seal = Plan::new(Fault::Fail(kind)).on(verb).under(&path);
        sim.plan(seal.after(before).sticky());
        let done = reclaim(&store).await.unwrap();
        assert_eq!((done.segments, done.failed), (3, 0), "{verb:?}: {done:?}");
        until("the seal", async || sim.struck() > 0).await;
        let more = put(&store, 600..611, LEN).await;
        let behind = |row: &row::Segment| row.sealed && row.segment.id > moves.id;
        until("a seal behind it", async || {
            rows(&index).values().any(behind)
        })
        .await;
        assert!(!rows(&index).get(&moves).unwrap().sealed);
        assert_eq!(store.health().await.poisoned, None);
        // Nothing more is moved for now.
        let live = [&live[..], &more[..2], &more[10..]].concat();
        keep(&store, &digests(&live)).await;
        let done = reclaim(&store).await.unwrap();
        assert_eq!((done.moved, done.failed), (0, 0), "{verb:?}: {done:?}");
        holds(&store, &live, &dead).await;
        sim.clear_plans();
        // The next one that is filled wakes who seals.
        let live = [live, put(&store, 700..706, LEN).await].concat();
        until("its seal", async || {
            rows(&index).get(&moves).unwrap().sealed
        })
        .await;
        let done = reclaim(&store).await.unwrap();
        assert!(done.failed == 0 && done.moved > 0, "{verb:?}: {done:?}");
        holds(&store, &live, &dead).await;
        scrubbed(&store).await;
        drop(store);
        let sim = sim.crash(Crash::Lost);
        let store = open(&sim, &MemoryIndex::default()).await.unwrap();
        holds(&store, &live, &dead).await;
        scrubbed(&store).await;
    }
}

/// Where holes cannot be made joining is all that gives room back: at the reserve it
/// may use half of that, since it frees more than it takes.
#[tokio::test]
async fn at_the_reserve_segments_are_joined_where_holes_cannot_be_made() {
    const RESERVE: u64 = 16 << 20;
    for (available, is_joined) in [(RESERVE - (1 << 20), true), (RESERVE / 2, false)] {
        let (sim, index) = (disk(72), MemoryIndex::default());
        let store = open_kept(&sim, &index, SEGMENT, RESERVE).await.unwrap();
        store.catalog_seen(CATALOG, 1).await.unwrap();
        sim.without_holes();
        let (live, dead) = blobs(&store, 3, 2).await;
        sealed(&sim, &store).await;
        sim.set_capacity(used(&sim) + available);
        // Answers about room are a second old at most.
        tokio::time::sleep(Duration::from_millis(1100)).await;
        let more = content(900, LEN);
        let refused = push(&store, &more, sha256(&more)).await;
        assert!(matches!(refused, Err(Error::Full { .. })), "{refused:?}");
        let done = reclaim(&store).await.unwrap();
        assert_eq!(done.failed, 0, "{done:?}");
        assert_eq!(
            (done.segments, done.moved > 0),
            (if is_joined { 3 } else { 0 }, is_joined)
        );
        holds(&store, &live, &dead).await;
        if is_joined {
            assert!(done.bytes > 2 * done.moved, "{done:?}");
            push(&store, &more, sha256(&more)).await.unwrap();
            scrubbed(&store).await;
        }
    }
}

#[tokio::test]
async fn a_reader_does_not_blame_a_blob_for_what_rots_behind_it() {
    let (sim, store, live, dead) = without_holes(65, 3, 1).await;
    let reader = store.read(&sha256(&live[1])).unwrap();
    let left = files(&sim, "raw").into_iter().nth(1).unwrap();
    let left = folder().join("data/raw").join(left);
    let done = reclaim(&store).await.unwrap();
    assert_eq!((done.segments, done.held), (2, 1), "{done:?}");
    let at = find(&sim.peek(&left).unwrap(), &live[1][..64]).unwrap();
    assert!(sim.poke(&left, at as u64, &[!live[1][0]]));
    assert!(reader.bytes(1 << 20).await.unwrap() == live[1]);
    assert_eq!(store.health().await.counts.quarantined, 0);
    holds(&store, &live, &dead).await;
}

#[tokio::test]
async fn a_segment_that_cannot_move_costs_one_look_until_it_can() {
    let (sim, _, store) = new(66).await;
    sim.without_holes();
    let bytes = content(90, 1_500_000);
    let id = store.upload_open("a/b", None).unwrap();
    let mut upload = store.upload_resume(id, "a/b").await.unwrap();
    upload.append(bytes.slice(..1_200_000)).await.unwrap();
    upload.checkpoint().await.unwrap();
    drop(upload);
    let (live, dead) = blobs(&store, 2, 1).await;
    sealed(&sim, &store).await;
    let first = files(&sim, "raw").into_iter().next().unwrap();
    reclaim(&store).await.unwrap();
    assert!(files(&sim, "raw").contains(&first));
    let mut pass = store.reclaim().await.unwrap();
    assert_eq!(
        pass.step().await.unwrap(),
        None,
        "nothing is to be looked at"
    );
    drop(pass);
    let mut upload = store.upload_resume(id, "a/b").await.unwrap();
    upload.append(bytes.slice(1_200_000..)).await.unwrap();
    upload.commit(sha256(&bytes), None).await.unwrap();
    let done = reclaim(&store).await.unwrap();
    assert!(done.moved > 0 && done.segments == 1, "{done:?}");
    assert!(!files(&sim, "raw").contains(&first));
    holds(&store, &[&live[..], &[bytes]].concat(), &dead).await;
}

#[tokio::test]
async fn a_sector_that_is_not_read_fails_one_segment_and_condemns_no_blob() {
    let (sim, store, live, dead) = without_holes(67, 4, 1).await;
    let before = files(&sim, "raw");
    let bad = folder()
        .join("data/raw")
        .join(before.iter().nth(1).unwrap());
    let fails = Plan::new(Fault::Fail(Kind::Io)).on(Verb::Read);
    sim.plan(fails.under(&bad).sticky());
    let done = reclaim(&store).await.unwrap();
    assert_eq!(done.failed, 1, "{done:?}");
    assert_eq!(store.health().await.counts.quarantined, 0);
    let struck = sim.struck();
    // The others come with the next pass; this one is not asked on and on.
    let done = reclaim(&store).await.unwrap();
    assert_eq!((done.failed, sim.struck()), (0, struck), "{done:?}");
    let after = files(&sim, "raw");
    let left: Vec<_> = before.intersection(&after).collect();
    assert_eq!(left.len(), 2, "it, and the open one: {left:?}");
    sim.clear_plans();
    holds(&store, &live, &dead).await;
    assert_eq!(store.health().await.counts.quarantined, 0);
}

#[tokio::test]
async fn what_an_earlier_process_left_open_is_sealed_where_holes_cannot_be_made() {
    let (sim, index, store) = new(68).await;
    sim.without_holes();
    let live = put(&store, 0..3, LEN).await;
    let is_sealed = |index: &MemoryIndex| {
        let rows = rows(index);
        rows.values().all(|row| row.sealed)
    };
    drop(store);
    let sim = sim.crash(Crash::Killed);
    let store = open(&sim, &index).await.unwrap();
    assert!(!is_sealed(&index));
    let done = reclaim(&store).await.unwrap();
    assert_eq!(done, Reclaimed::default());
    assert!(is_sealed(&index));
    holds(&store, &live, &[]).await;
    scrubbed(&store).await;
}

/// The file of the newest punch cannot be opened: it may not have been done.
#[tokio::test]
async fn a_punch_that_cannot_be_done_again_holds_up_no_other() {
    let (sim, _, store) = new(69).await;
    let (live, dead) = layers(&store).await;
    sealed(&sim, &store).await;
    // One more than the look whether there are holes.
    let off = Plan::new(Fault::PowerOff).on(Verb::Punch);
    sim.plan(off.after(1));
    let _ = reclaim(&store).await;
    drop(store);
    let (sim, index) = (sim.crash(Crash::Killed), MemoryIndex::default());
    let store = open(&sim, &index).await.unwrap();
    let rows = rows(&index);
    let punched: Vec<_> = rows.values().filter(|row| row.punched > 0).collect();
    let [begun] = punched[..] else {
        panic!("{punched:?}");
    };
    let dead_before = store.space().await.unwrap().dead;
    let path = folder().join("data/raw").join(file_name(&begun.segment));
    let fails = Plan::new(Fault::Fail(Kind::Io)).on(Verb::Open);
    sim.plan(fails.under(path).sticky());
    let done = reclaim(&store).await.unwrap();
    assert_eq!(done.failed, 1, "{done:?}");
    let space = store.space().await.unwrap();
    assert!(space.released > 0, "{space:?}");
    assert_eq!(space.dead, begun.dead() + begun.released(), "{dead_before}");
    drop(store);
    let (sim, index) = (sim.crash(Crash::Lost), MemoryIndex::default());
    let store = open(&sim, &index).await.unwrap();
    assert_eq!(reclaim(&store).await.unwrap().failed, 0);
    assert_eq!(store.space().await.unwrap().dead, 0);
    holds(&store, &live, &dead).await;
    scrubbed(&store).await;
}

/// Whoever begins again finds what was moved elsewhere, and would not make up for
/// the seal.
#[tokio::test]
async fn no_small_segment_is_moved_to_that_the_log_does_not_call_sealed() {
    let (base, store) = {
        let (sim, _, store) = new(70).await;
        small(&store).await;
        (sim, store)
    };
    store.close().await.unwrap();
    drop(store);
    let mut cuts = 0;
    for record in 0.. {
        let sim = base.crash(Crash::Killed);
        let store = open(&sim, &MemoryIndex::default()).await.unwrap();
        let cut = Plan::new(Fault::PowerOff).on(Verb::Sync);
        sim.plan(cut.under(folder().join("journal")).after(record));
        let _ = reclaim(&store).await;
        let is_over = sim.struck() == 0;
        drop(store);
        let (sim, index) = (sim.crash(Crash::Killed), MemoryIndex::default());
        let store = open(&sim, &index).await.unwrap();
        let is_bare =
            |row: &row::Segment| row.segment.class == Class::Small && row.live > 0 && !row.sealed;
        let bare: Vec<_> = rows(&index).into_values().filter(is_bare).collect();
        assert!(bare.is_empty(), "cut at record {record}: {bare:?}");
        drop(store);
        cuts += 1;
        if is_over {
            break;
        }
    }
    assert!(cuts > 3, "{cuts}");
}

/// A file that refused a punch is not written about again.
#[tokio::test]
async fn a_segment_that_refused_a_punch_is_not_joined() {
    let (sim, _, store) = new(71).await;
    let (live, dead) = blobs(&store, 7, 1).await;
    sealed(&sim, &store).await;
    let bad = files(&sim, "raw").into_iter().nth(2).unwrap();
    let bad = folder().join("data/raw").join(bad);
    let refuses = Plan::new(Fault::Fail(Kind::Io)).on(Verb::Punch);
    sim.plan(refuses.under(&bad).sticky());
    let done = reclaim(&store).await.unwrap();
    assert_eq!((done.moved, done.failed), (0, 1), "{done:?}");
    let more = put(&store, 600..606, LEN).await;
    let live = [&live[..], &more[..1], &more[5..]].concat();
    let dead = [&dead[..], &more[1..5]].concat();
    keep(&store, &digests(&live)).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    reclaim(&store).await.unwrap();
    assert!(sim.peek(&bad).is_some(), "left alone until a restart");
    holds(&store, &live, &dead).await;
    drop(store);
    let sim: Arc<Sim> = sim.crash(Crash::Lost);
    let store: Store = open(&sim, &MemoryIndex::default()).await.unwrap();
    let done = reclaim(&store).await.unwrap();
    assert!(done.failed == 0 && done.moved > 0, "{done:?}");
    holds(&store, &live, &dead).await;
}
