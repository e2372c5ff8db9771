//! Raw segments of which little lives are joined: what moves, what stays, and that
//! a crash, a failure or a reader at any moment loses nothing.

use std::sync::Arc;

use bytes::Bytes;
use orlop_disk::Kind;
use orlop_disk::sim::{Crash, Fault, Plan, Sim};
use orlop_engine::{Error, MemoryIndex, Reclaimed, Store};
use orlop_figures as figures;
use orlop_format::superblock::{RELEASES, REMAPS};

use crate::space::{
    digests, files, flags, holds, keep, new, open, opened, put, reclaim, scrubbed, sealed, used,
};
use crate::support::{content, folder, sha256};
use crate::upkeep::until;

/// Bytes of a blob of [`blobs`], and what it takes in a segment.
pub(crate) const LEN: usize = 700_000;
pub(crate) const FOOTPRINT: u64 = 171 * 4096 + 4096;

/// Five blobs in each of so many segments, and one in the open one. Of each segment
/// so many live, and of the open one.
pub(crate) async fn blobs(
    store: &Store,
    segments: usize,
    live_of_5: usize,
) -> (Vec<Bytes>, Vec<Bytes>) {
    let all = put(store, 0..segments as u64 * 5 + 1, LEN).await;
    let (mut live, mut dead) = (Vec::new(), Vec::new());
    for (number, bytes) in all.into_iter().enumerate() {
        let lives = number % 5 < live_of_5;
        if lives { &mut live } else { &mut dead }.push(bytes);
    }
    keep(store, &digests(&live)).await;
    (live, dead)
}

/// A disk without holes, with sealed segments of [`blobs`] on it.
pub(crate) async fn without_holes(
    seed: u64,
    segments: usize,
    live_of_5: usize,
) -> (Arc<Sim>, Store, Vec<Bytes>, Vec<Bytes>) {
    let (sim, _, store) = new(seed).await;
    sim.without_holes();
    let (live, dead) = blobs(&store, segments, live_of_5).await;
    sealed(&sim, &store).await;
    (sim, store, live, dead)
}

#[tokio::test]
async fn segments_of_which_little_lives_are_joined() {
    let (sim, index, store) = new(51).await;
    let (live, dead) = blobs(&store, 9, 1).await;
    sealed(&sim, &store).await;
    let (before, full) = (store.space().await.unwrap(), used(&sim));
    assert_eq!(before.segments, 10);
    let done = reclaim(&store).await.unwrap();
    assert_eq!(
        (done.segments, done.held, done.failed),
        (9, 0, 0),
        "{done:?}"
    );
    assert_eq!(done.moved, 9 * FOOTPRINT);
    assert_eq!(store.health().await.counts.moved_bytes, done.moved);
    let after = store.space().await.unwrap();
    // Nine blobs fill two segments, beside the open one of clients.
    assert_eq!((after.live, after.segments), (before.live, 3), "{after:?}");
    assert!(full - used(&sim) > 20 << 20);
    assert_eq!(flags(&sim), RELEASES | REMAPS);
    holds(&store, &live, &dead).await;
    scrubbed(&store).await;
    assert_eq!(reclaim(&store).await.unwrap(), Reclaimed::default());

    // Less than eight are not worth it: holes are enough.
    keep(&store, &digests(&live[1..])).await;
    let done = reclaim(&store).await.unwrap();
    assert!(done.moved == 0 && done.failed == 0, "{done:?}");
    holds(&store, &live[1..], &live[..1]).await;
    // What moved may die, be pushed again, and move through the journal.
    let again = put(&store, 0..1, LEN).await;
    put(&store, 3000..3400, 60_000).await;
    until("recycling", async || {
        store.health().await.counts.recycled >= 3
    })
    .await;
    let live = [&again[..], &live[1..]].concat();
    drop(store);
    let store = open(&sim.crash(Crash::Killed), &index).await.unwrap();
    holds(&store, &live, &dead).await;
    for crash in [Crash::Killed, Crash::Lost, Crash::Torn(5)] {
        // The index is made again: commits say the first place, remaps the last.
        let again = open(&sim.crash(crash), &MemoryIndex::default())
            .await
            .unwrap();
        holds(&again, &live, &dead).await;
        // Both recycle on their own for a while.
        let account = async |store: &Store| {
            let space = store.space().await.unwrap();
            (space.live, space.released)
        };
        until("the same account", async || {
            account(&store).await == account(&again).await
        })
        .await;
        scrubbed(&again).await;
    }
}

#[tokio::test]
async fn where_holes_cannot_be_made_what_is_half_dead_is_joined() {
    let (sim, store, live, dead) = without_holes(52, 3, 2).await;
    let (before, full) = (store.space().await.unwrap(), used(&sim));
    let done = reclaim(&store).await.unwrap();
    assert_eq!((done.segments, done.failed), (3, 0), "{done:?}");
    // Each byte that was moved gave one back.
    assert!(done.bytes >= done.moved * 2, "{done:?}");
    let after = store.space().await.unwrap();
    assert_eq!((after.live, after.released), (before.live, 0));
    assert_eq!(after.dead, 0, "{after:?}");
    assert!(used(&sim) < full);
    holds(&store, &live, &dead).await;

    // Of which more lives than is dead, stay.
    let (more, _) = blobs_from(&store, &live, 3).await;
    let done = reclaim(&store).await.unwrap();
    assert_eq!((done.moved, done.failed), (0, 0), "{done:?}");
    holds(&store, &more, &[]).await;
}

/// As [`blobs`] of one more segment, beside what lives already.
async fn blobs_from(store: &Store, live: &[Bytes], live_of_5: usize) -> (Vec<Bytes>, Vec<Bytes>) {
    let mut all = put(store, 500..506, LEN).await;
    let dead = all.split_off(live_of_5);
    let live = [live, &all[..]].concat();
    keep(store, &digests(&live)).await;
    (live, dead)
}

#[tokio::test]
async fn what_is_damaged_or_an_uploads_stays_where_it_is() {
    let (sim, _, store) = new(53).await;
    // An upload has an extent in the first segment, and goes on later.
    let bytes = content(90, 1_500_000);
    let id = store.upload_open("a/b", None).unwrap();
    let mut upload = store.upload_resume(id, "a/b").await.unwrap();
    upload.append(bytes.slice(..1_200_000)).await.unwrap();
    upload.checkpoint().await.unwrap();
    drop(upload);
    sim.without_holes();
    let (live, _) = blobs(&store, 4, 1).await;
    sealed(&sim, &store).await;
    let raw = folder().join("data/raw");
    let before = files(&sim, "raw");
    // Of the blob that lives in the third segment a bit is wrong.
    let third = raw.join(before.iter().nth(2).unwrap());
    let hurt = live
        .iter()
        .position(|bytes| find(&sim.peek(&third).unwrap(), &bytes[..64]).is_some())
        .unwrap();
    let at = find(&sim.peek(&third).unwrap(), &live[hurt][..64]).unwrap();
    assert!(sim.poke(&third, at as u64, &[!live[hurt][0]]));

    let done = reclaim(&store).await.unwrap();
    assert_eq!(done.failed, 1, "{done:?}");
    let after = files(&sim, "raw");
    let stays: Vec<&String> = before.intersection(&after).collect();
    assert!(
        stays.contains(&before.first().unwrap()),
        "the upload's: {stays:?}"
    );
    assert!(stays.contains(&before.iter().nth(2).unwrap()), "{stays:?}");
    assert!(done.segments >= 1 && done.moved > 0, "{done:?}");
    assert_eq!(store.health().await.counts.quarantined, 1);
    let damaged = store.stat(&sha256(&live[hurt]));
    assert!(
        matches!(damaged, Err(Error::NotFound { .. })),
        "{damaged:?}"
    );
    // Pushed again it is whole; the upload goes on where it was.
    put(&store, [hurt as u64 * 5], LEN).await;
    let mut upload = store.upload_resume(id, "a/b").await.unwrap();
    upload.append(bytes.slice(1_200_000..)).await.unwrap();
    upload.commit(sha256(&bytes), None).await.unwrap();
    holds(&store, &[&live[..], &[bytes]].concat(), &[]).await;
    let done = reclaim(&store).await.unwrap();
    assert_eq!(done.failed, 0, "{done:?}");
    holds(&store, &live, &[]).await;
}

pub(crate) fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    let mut windows = bytes.chunks(4096).enumerate();
    windows.find_map(|(block, bytes)| bytes.starts_with(wanted).then_some(block * 4096))
}

#[tokio::test]
async fn a_reader_of_what_moved_reads_it_where_it_was() {
    let (sim, store, live, dead) = without_holes(54, 3, 1).await;
    let reader = store.read(&sha256(&live[1])).unwrap();
    let before = files(&sim, "raw");
    let done = reclaim(&store).await.unwrap();
    assert_eq!((done.segments, done.held), (2, 1), "{done:?}");
    assert!(files(&sim, "raw").contains(before.iter().nth(1).unwrap()));
    assert!(reader.bytes(1 << 20).await.unwrap() == live[1]);
    holds(&store, &live, &dead).await;
    drop(reader);
    assert_eq!(reclaim(&store).await.unwrap().segments, 1);
    holds(&store, &live, &dead).await;
    assert_eq!(store.health().await.counts.quarantined, 0);
}

/// What dies, or is pushed anew, between two steps of a pass.
#[tokio::test]
async fn what_dies_while_it_is_moved_stays_dead() {
    let (sim, store, live, dead) = without_holes(55, 3, 1).await;
    let mut pass = store.reclaim().await.unwrap();
    // Behind the look at all rows, before anything is copied.
    for _ in 0..3 {
        pass.step().await.unwrap();
    }
    keep(&store, &digests(&live[1..])).await;
    while pass.step().await.unwrap().is_some() {}
    assert_eq!(pass.total().failed, 0);
    drop(pass);
    holds(&store, &live[1..], &[&dead[..], &live[..1]].concat()).await;
    scrubbed(&store).await;
    let store = {
        drop(store);
        let sim = sim.crash(Crash::Lost);
        open(&sim, &MemoryIndex::default()).await.unwrap()
    };
    holds(&store, &live[1..], &[&dead[..], &live[..1]].concat()).await;
}

/// A disk on which a pass has segments to join.
async fn ready(seed: u64) -> (Arc<Sim>, Vec<Bytes>, Vec<Bytes>) {
    let (sim, store, live, dead) = without_holes(seed, 2, 2).await;
    store.close().await.unwrap();
    drop(store);
    (sim, live, dead)
}

#[tokio::test]
async fn a_power_cut_at_every_operation_of_a_move_costs_nothing() {
    let (base, live, dead) = ready(56).await;
    let whole = {
        let (sim, store) = opened(&base).await;
        let begin = sim.operations();
        let done = reclaim(&store).await.unwrap();
        assert!(done.segments >= 2 && done.moved > 0, "{done:?}");
        sim.operations() - begin
    };
    for operation in (0..whole).step_by(figures::choose(3, 1, 1)) {
        let (sim, store) = opened(&base).await;
        sim.plan(Plan::new(Fault::PowerOff).after(operation));
        let _ = reclaim(&store).await;
        drop(store);
        let crash = match operation % 4 {
            0 => Crash::Lost,
            1 => Crash::Kept,
            2 => Crash::Prefix(operation),
            _ => Crash::Torn(operation),
        };
        let (sim, store) = opened(&sim.crash(crash)).await;
        holds(&store, &live, &dead).await;
        let done = reclaim(&store).await.unwrap();
        assert_eq!((done.held, done.failed), (0, 0), "cut at {operation}");
        holds(&store, &live, &dead).await;
        assert_eq!(store.space().await.unwrap().dead, 0, "cut at {operation}");
        drop(sim);
    }
}

#[tokio::test]
async fn every_operation_of_a_move_may_fail_once_or_come_short() {
    let (base, live, dead) = ready(57).await;
    let whole = {
        let (sim, store) = opened(&base).await;
        let begin = sim.operations();
        reclaim(&store).await.unwrap();
        sim.operations() - begin
    };
    assert!(whole > 20, "{whole}");
    for fault in [Fault::Fail(Kind::Io), Fault::Short, Fault::Fail(Kind::Full)] {
        for operation in (0..whole).step_by(figures::choose(3, 1, 1)) {
            let (sim, store) = opened(&base).await;
            sim.plan(Plan::new(fault).after(operation));
            let _ = reclaim(&store).await;
            sim.clear_plans();
            holds(&store, &live, &dead).await;
            let health = store.health().await;
            assert_eq!(health.counts.quarantined, 0, "{fault:?} {operation}");
            if health.poisoned.is_none() {
                let again = reclaim(&store).await.unwrap();
                assert_eq!(again.failed, 0, "{fault:?} {operation}: {again:?}");
                holds(&store, &live, &dead).await;
            }
            drop(store);
            let (_sim, store) = opened(&sim.crash(Crash::Lost)).await;
            holds(&store, &live, &dead).await;
            assert_eq!(reclaim(&store).await.unwrap().failed, 0);
            holds(&store, &live, &dead).await;
        }
    }
}
