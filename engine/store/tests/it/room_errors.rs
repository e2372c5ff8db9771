//! Passes that give room back on a disk that errs, and what must not rest on
//! what nobody made sure of.

use std::io::Write;
use std::time::Duration;

use futures_util::FutureExt;
use orlop_disk::sim::{Crash, Fault, Plan, Verb};
use orlop_disk::{Disk, Kind};
use orlop_engine::{Error, MemoryIndex, Reclaimed};
use orlop_format::location::Home;
use orlop_format::row;
use orlop_format::segment::file_name;
use orlop_index::{Index, Table};

use crate::space::{
    CATALOG, digests, files, holds, keep, layers, new, open, put, reclaim, scrubbed, sealed, small,
};
use crate::support::{content, folder, sha256};
use crate::upkeep::until;

#[tokio::test]
async fn a_file_that_refuses_to_be_punched_costs_its_own_room_alone() {
    let (sim, _, store) = new(41).await;
    let (live, dead) = layers(&store).await;
    sealed(&sim, &store).await;
    let bad = files(&sim, "raw").into_iter().nth(2).unwrap();
    let bad = folder().join("data/raw").join(bad);
    // One hole lands, the second does not.
    let refuses = Plan::new(Fault::Fail(Kind::Io)).on(Verb::Punch).under(&bad);
    sim.plan(refuses.after(1).sticky());
    let all = store.space().await.unwrap();
    let done = reclaim(&store).await.unwrap();
    assert_eq!((done.segments, done.failed), (1, 1), "{done:?}");
    let space = store.space().await.unwrap();
    assert!(space.dead > 0 && space.released > 0, "{space:?}");
    assert!(
        space.dead < all.dead / 2,
        "the others were punched: {space:?}"
    );
    assert_eq!(store.health().await.poisoned, None);
    // It is not asked on and on; others still come back.
    let struck = sim.struck();
    assert_eq!(reclaim(&store).await.unwrap(), Reclaimed::default());
    keep(&store, &digests(&live[1..])).await;
    let more = reclaim(&store).await.unwrap();
    assert_eq!(sim.struck(), struck);
    holds(&store, &live[1..], &[&dead[..], &live[..1]].concat()).await;
    drop(store);

    // After a restart it is tried again, and the accounts were right.
    sim.clear_plans();
    let sim = sim.crash(Crash::Lost);
    let store = open(&sim, &MemoryIndex::default()).await.unwrap();
    let again = reclaim(&store).await.unwrap();
    assert!(
        again.bytes + more.bytes >= space.dead,
        "{again:?} {more:?} {space:?}"
    );
    assert_eq!((again.failed, store.space().await.unwrap().dead), (0, 0));
    holds(&store, &live[1..], &dead).await;
    scrubbed(&store).await;
}

#[tokio::test]
async fn a_seal_of_an_old_segment_that_fails_ends_its_pass_and_no_write() {
    for verb in [Verb::SetLen, Verb::Write, Verb::Sync] {
        let (sim, index, store) = new(42).await;
        let blobs = put(&store, 0..3, 700_000).await;
        drop(store);
        let sim = sim.crash(Crash::Killed);
        let store = open(&sim, &index).await.unwrap();
        keep(&store, &digests(&blobs[1..])).await;
        let raw = folder().join("data/raw");
        sim.plan(Plan::new(Fault::Fail(Kind::Io)).on(verb).under(raw));
        let done = reclaim(&store).await.unwrap();
        assert_eq!((done.failed, sim.struck()), (1, 1), "{verb:?}: {done:?}");
        assert_eq!(store.health().await.poisoned, None, "{verb:?}");
        let done = reclaim(&store).await.unwrap();
        assert!(done.failed == 0 && done.bytes >= 700_000, "{done:?}");
        holds(&store, &blobs[1..], &blobs[..1]).await;
        put(&store, 9..10, 700_000).await;
        scrubbed(&store).await;
    }
}

/// The names that a start finds gone are gone for good: what is let go next
/// rests on it.
#[tokio::test]
async fn a_kill_between_an_unlink_and_its_sync_brings_no_name_back() {
    let (sim, _, store) = new(43).await;
    small(&store).await;
    keep(&store, &[]).await;
    store.close().await.unwrap();
    drop(store);
    let mut gone = 0;
    for last in 0.. {
        let sim = sim.crash(Crash::Killed);
        let store = open(&sim, &MemoryIndex::default()).await.unwrap();
        // The process dies behind an unlink: the sync of its folder never comes.
        let never = Plan::new(Fault::PowerOff).on(Verb::SyncDir);
        sim.plan(never.under(folder().join("data")).after(last));
        let before = ["small", "meta"].map(|class| files(&sim, class));
        let _ = reclaim(&store).await;
        let is_over = sim.struck() == 0;
        drop(store);
        let sim = sim.crash(Crash::Killed);
        let store = open(&sim, &MemoryIndex::default()).await.unwrap();
        let after = ["small", "meta"].map(|class| files(&sim, class));
        gone += u64::from(before != after);
        let cut = sim.crash(Crash::Lost);
        assert_eq!(after, ["small", "meta"].map(|class| files(&cut, class)));
        drop(store);
        if is_over {
            break;
        }
    }
    assert!(gone > 1);
}

#[tokio::test]
async fn an_upload_that_expired_unseen_is_not_committed() {
    let (sim, _, store) = new(44).await;
    let bytes = content(1, 1_000_000);
    let id = store.upload_open("a/b", None).unwrap();
    let mut upload = store.upload_resume(id, "a/b").await.unwrap();
    upload.append(bytes.clone()).await.unwrap();
    upload.checkpoint().await.unwrap();
    drop(upload);
    // Whoever let it expire does not wait for the answer.
    let slow = || async { std::thread::sleep(Duration::from_millis(200)) }.boxed();
    let slow = Plan::stall(slow).on(Verb::Write);
    sim.plan(slow.under(folder().join("journal")));
    assert!(store.upload_expire(Duration::ZERO).now_or_never().is_none());
    let found = store.upload_resume(id, "a/b").await;
    assert!(matches!(found, Err(Error::NotFound { .. })), "{found:?}");
    keep(&store, &[]).await;
    let done = reclaim(&store).await.unwrap();
    assert!(done.bytes > 0, "what it held comes back: {done:?}");
    // Small ones, which the log never knew, are committed as ever.
    let small = content(2, 1_000);
    let id = store.upload_open("a/b", None).unwrap();
    let mut upload = store.upload_resume(id, "a/b").await.unwrap();
    upload.append(small.clone()).await.unwrap();
    upload.commit(sha256(&small), None).await.unwrap();
    holds(&store, &[small], &[bytes]).await;
}

/// Where the index ends it knows of every death whose records are let go.
#[tokio::test]
async fn what_died_is_durable_before_its_records_go() {
    let (_sim, index, store) = new(46).await;
    let (live, dead) = small(&store).await;
    let done = reclaim(&store).await.unwrap();
    assert!(done.segments >= 3 && done.failed == 0, "{done:?}");
    let durable = index.current().crash();
    for bytes in &dead {
        let row = durable.get(Table::Blob, sha256(bytes).bytes()).unwrap();
        let row = row.map(|row| row::Blob::decode(&row).unwrap());
        assert_eq!(row.map(|row| row.state), Some(row::State::Dead));
    }
    holds(&store, &live, &dead).await;
}

/// Where the index ends, what it names lies in files that are there.
#[tokio::test]
async fn what_moved_is_durable_before_its_segment_goes() {
    let (sim, index, store) = new(47).await;
    let (live, dead) = small(&store).await;
    let mut pass = store.reclaim().await.unwrap();
    let mut removed = 0;
    while let Some(done) = pass.step().await.unwrap() {
        removed += done.segments;
        let durable = index.current().crash();
        for bytes in &live {
            let row = durable.get(Table::Blob, sha256(bytes).bytes()).unwrap();
            let row = row::Blob::decode(&row.unwrap()).unwrap();
            if let row::Form::Inline(place) = row.form
                && let Home::Segment(id) = place.home
            {
                let there = files(&sim, "small").contains(&file_name(&id));
                assert!(there, "{id:?} is gone behind {removed} removals");
            }
        }
    }
    assert!(removed >= 3, "{removed}");
    drop(pass);
    holds(&store, &live, &dead).await;
}

/// A damaged copy of the catalog is no reason to let go of what it would tell.
#[tokio::test]
async fn notes_stay_in_the_log_while_a_copy_of_the_catalog_is_damaged() {
    for damaged in [false, true] {
        let (sim, _, store) = new(45).await;
        let note = b"a note that matters".to_vec();
        let mark = content(7, 10_000);
        let id = store.upload_open("a/b", None).unwrap();
        let mut upload = store.upload_resume(id, "a/b").await.unwrap();
        upload.append(mark.clone()).await.unwrap();
        upload.commit(sha256(&mark), None).await.unwrap();
        store.note(note.clone()).unwrap();
        let copies = [content(8, 300_000), content(9, 300_000)];
        for (sequence, copy) in (1..).zip(&copies) {
            let mut file = tempfile::NamedTempFile::new().unwrap();
            file.write_all(copy).unwrap();
            store
                .catalog_copy(file.path(), CATALOG, sequence)
                .await
                .unwrap();
        }
        if damaged {
            let raw = folder().join("data/raw");
            let path = raw.join(files(&sim, "raw").first().unwrap());
            assert!(sim.poke(&path, 3 * 4096, &[1, 2, 3]));
            let read = store
                .read(&sha256(&copies[0]))
                .unwrap()
                .bytes(1 << 20)
                .await;
            assert!(read.is_err());
        }
        put(&store, 2000..2400, 60_000).await;
        until("recycling", async || {
            store.health().await.counts.recycled >= 3
        })
        .await;
        let meta = folder().join("data/meta");
        let kept = files(&sim, "meta").iter().any(|name| {
            let bytes = sim.peek(&meta.join(name)).unwrap();
            bytes.windows(note.len()).any(|window| window == note)
        });
        assert_eq!(kept, damaged);
        sim.exists(&meta).unwrap();
    }
}
