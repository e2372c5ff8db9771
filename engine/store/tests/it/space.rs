//! Room that comes back: what is removed or punched, what stays, and that a
//! crash, a failure or a reader at any moment loses nothing.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use orlop_disk::sim::{Crash, Fault, Plan, Sim, Verb};
use orlop_disk::{Disk, Kind};
use orlop_engine::{
    Digest, Error, IndexFactory, MemoryIndex, Progress, Reclaimed, Store, System, Trailer,
};
use orlop_figures as figures;
use orlop_format::superblock::{FILES, RELEASES, Superblock};

use crate::support::{config, content, disk, folder, pull, push, sha256};
use crate::upkeep::{names, until};

pub(crate) const CATALOG: [u8; 16] = [7; 16];
pub(crate) const SEGMENT: u64 = 4 << 20;

/// A store with small segments, whose leases do not last.
pub(crate) async fn open(sim: &Arc<Sim>, index: &dyn IndexFactory) -> Result<Store, Error> {
    open_kept(sim, index, SEGMENT, 0).await
}

/// With so many bytes in reserve.
pub(crate) async fn open_kept(
    sim: &Arc<Sim>,
    index: &dyn IndexFactory,
    segment: u64,
    reserve: u64,
) -> Result<Store, Error> {
    let mut config = config();
    config.lease = Duration::ZERO;
    config.segment = segment;
    config.reserve = Some(reserve);
    config.background_rate = 1 << 40;
    let disk: Arc<dyn Disk> = Arc::clone(sim) as Arc<dyn Disk>;
    Store::open(config, System::start(), disk, index, &Progress::default()).await
}

pub(crate) async fn new(seed: u64) -> (Arc<Sim>, MemoryIndex, Store) {
    let (sim, index) = (disk(seed), MemoryIndex::default());
    let store = open(&sim, &index).await.unwrap();
    store.catalog_seen(CATALOG, 1).await.unwrap();
    (sim, index, store)
}

/// Blobs of these seeds.
pub(crate) async fn put(
    store: &Store,
    seeds: impl IntoIterator<Item = u64>,
    len: usize,
) -> Vec<Bytes> {
    let mut blobs = Vec::new();
    for seed in seeds {
        let bytes = content(seed, len);
        push(store, &bytes, sha256(&bytes)).await.unwrap();
        blobs.push(bytes);
    }
    blobs
}

pub(crate) fn digests<'a>(blobs: impl IntoIterator<Item = &'a Bytes>) -> Vec<Digest> {
    blobs.into_iter().map(|bytes| sha256(bytes)).collect()
}

/// Ends everything but what is live.
pub(crate) async fn keep(store: &Store, live: &[Digest]) {
    for _ in 0..2 {
        let mut collector = store.collect().await.unwrap();
        collector.mark(live).unwrap();
        let trailer = Trailer {
            digests: live.len() as u64,
            catalog: CATALOG,
            sequence: 1,
        };
        let mut sweep = collector.whole(trailer, false).unwrap();
        while let Some(garbage) = sweep.step().unwrap() {
            sweep.end(&garbage, true).await.unwrap();
        }
        sweep.finish().unwrap();
    }
}

pub(crate) async fn reclaim(store: &Store) -> Result<Reclaimed, Error> {
    let mut pass = store.reclaim().await?;
    while pass.step().await?.is_some() {}
    Ok(pass.total())
}

pub(crate) async fn holds(store: &Store, live: &[Bytes], dead: &[Bytes]) {
    for bytes in live {
        assert!(pull(store, &sha256(bytes)).await.unwrap() == bytes);
    }
    for bytes in dead {
        let found = store.read(&sha256(bytes));
        assert!(matches!(found, Err(Error::NotFound { .. })), "{found:?}");
    }
}

pub(crate) fn used(sim: &Sim) -> u64 {
    let space = sim.space(&folder()).unwrap();
    space.total - space.available
}

pub(crate) fn files(sim: &Sim, class: &str) -> BTreeSet<String> {
    names(sim, &format!("data/{class}")).into_iter().collect()
}

/// Waits until every segment that was filled is sealed.
pub(crate) async fn sealed(sim: &Sim, store: &Store) {
    let wait = || async {
        let raw = files(sim, "raw").len() as u64;
        let space = store.space().await.unwrap();
        space.dead + space.released > 0 || raw <= 1
    };
    until("a seal", async || wait().await).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
}

pub(crate) async fn scrubbed(store: &Store) {
    let mut scrub = store.scrub(true, None).await.unwrap();
    while let Some(found) = scrub.step().await.unwrap() {
        assert!(found.is_empty(), "{found:?}");
    }
}

/// 24 blobs in four segments: of the first segment nothing lives, of the others
/// every third. The open one behind them lives.
pub(crate) async fn layers(store: &Store) -> (Vec<Bytes>, Vec<Bytes>) {
    let blobs = put(store, 0..26, 700_000).await;
    let (mut live, mut dead) = (Vec::new(), Vec::new());
    for (number, bytes) in blobs.into_iter().enumerate() {
        let lives = number > 6 && number % 3 == 0 || number >= 24;
        if lives { &mut live } else { &mut dead }.push(bytes);
    }
    keep(store, &digests(&live)).await;
    (live, dead)
}

#[tokio::test]
async fn what_is_dead_in_raw_segments_comes_back_and_nothing_else() {
    let (sim, index, store) = new(1).await;
    let (live, dead) = layers(&store).await;
    sealed(&sim, &store).await;
    let (before, full) = (files(&sim, "raw"), used(&sim));
    assert!(before.len() >= 5, "{before:?}");
    let space = store.space().await.unwrap();
    assert!(space.dead > 10 << 20 && space.released == 0, "{space:?}");
    assert_eq!(flags(&sim), 0, "nothing was given back yet");

    let done = reclaim(&store).await.unwrap();
    assert_eq!(
        (done.segments, done.held, done.failed),
        (1, 0, 0),
        "{done:?}"
    );
    let after = files(&sim, "raw");
    let first = before.first().unwrap();
    assert!(!after.contains(first) && after.len() + 1 == before.len());
    let now = store.space().await.unwrap();
    assert_eq!((now.dead, now.live), (0, space.live), "{now:?}");
    assert!(now.released > 8 << 20, "{now:?}");
    // To the block: what the disk has more is what was said to come back.
    let freed = full - used(&sim);
    assert!(
        freed >= done.bytes && freed < done.bytes + (1 << 20),
        "{freed} {done:?}"
    );
    assert_eq!(store.health().await.counts.released_bytes, done.bytes);
    assert_eq!(flags(&sim), RELEASES);
    let again = reclaim(&store).await.unwrap();
    assert_eq!(again, Reclaimed::default());
    holds(&store, &live, &dead).await;
    scrubbed(&store).await;

    // What comes again is a new life, somewhere else.
    push(&store, &dead[0], sha256(&dead[0])).await.unwrap();
    let live: Vec<Bytes> = live.iter().chain(&dead[..1]).cloned().collect();
    holds(&store, &live, &dead[1..]).await;
    let space = store.space().await.unwrap();
    drop(store);
    let store = open(&sim.crash(Crash::Killed), &index).await.unwrap();
    holds(&store, &live, &dead[1..]).await;
    drop(store);
    for crash in [Crash::Killed, Crash::Lost, Crash::Torn(5)] {
        let sim = sim.crash(crash);
        let store = open(&sim.crash(Crash::Killed), &MemoryIndex::default()).await;
        let store = store.unwrap();
        holds(&store, &live, &dead[1..]).await;
        let rebuilt = store.space().await.unwrap();
        assert_eq!(
            (rebuilt.live, rebuilt.released),
            (space.live, space.released)
        );
        scrubbed(&store).await;
    }
}

/// The features of the newest superblock slot.
pub(crate) fn flags(sim: &Sim) -> u64 {
    let files = FILES.map(|file| sim.peek(&folder().join(file)).unwrap());
    let slots = files.iter().flat_map(|file| file.chunks(4096));
    let slots = slots.filter_map(|slot| Superblock::decode(slot).ok());
    slots.max_by_key(|slot| slot.sequence).unwrap().features
}

#[tokio::test]
async fn a_reader_that_began_before_the_death_reads_on_and_holds_its_segments_alone() {
    let (sim, _, store) = new(2).await;
    let blobs = put(&store, 0..20, 700_000).await;
    // One blob in the first segment and one in the second are being read.
    let readers: Vec<_> = [0, 7]
        .map(|number| store.read(&sha256(&blobs[number])).unwrap())
        .into();
    let mut streams: Vec<_> = readers
        .iter()
        .map(|reader| reader.stream(0..reader.size()))
        .collect();
    drop(readers);
    let mut read = vec![Vec::new(), Vec::new()];
    for (stream, read) in streams.iter_mut().zip(&mut read) {
        read.extend_from_slice(&stream.next().await.unwrap().unwrap());
    }
    let live: Vec<Bytes> = vec![blobs[8].clone(), blobs[19].clone()];
    keep(&store, &digests(&live)).await;
    sealed(&sim, &store).await;
    let done = reclaim(&store).await.unwrap();
    assert_eq!(done.held, 2, "{done:?}");
    assert_eq!(done.segments, 1, "the third goes: {done:?}");
    for ((stream, mut read), number) in streams.iter_mut().zip(read).zip([0, 7]) {
        while let Some(piece) = stream.next().await {
            read.extend_from_slice(&piece.unwrap());
        }
        assert!(read == blobs[number]);
    }
    assert_eq!(store.health().await.counts.quarantined, 0);
    assert_eq!(reclaim(&store).await.unwrap().held, 2, "streams are there");
    drop(streams);
    let done = reclaim(&store).await.unwrap();
    assert_eq!((done.held, done.segments), (0, 1), "{done:?}");
    assert_eq!(store.space().await.unwrap().dead, 0);
    holds(&store, &live, &[]).await;
}

#[tokio::test]
async fn a_reader_of_a_small_blob_keeps_its_segment_when_that_moves_on() {
    let (sim, _, store) = new(12).await;
    let (live, dead) = small(&store).await;
    let readers: Vec<_> = live
        .iter()
        .map(|bytes| store.read(&sha256(bytes)).unwrap())
        .collect();
    let before = files(&sim, "small");
    let done = reclaim(&store).await.unwrap();
    assert!(done.held > 0, "{done:?}");
    for (reader, bytes) in readers.iter().zip(&live) {
        assert!(reader.bytes(1 << 20).await.unwrap() == bytes);
    }
    drop(readers);
    let done = reclaim(&store).await.unwrap();
    assert!(done.held == 0 && done.segments > 0, "{done:?}");
    let after = files(&sim, "small");
    assert!(after.intersection(&before).count() + 2 < before.len());
    holds(&store, &live, &dead).await;
    assert_eq!(store.health().await.counts.quarantined, 0);
}

#[tokio::test]
async fn a_large_file_goes_in_steps_and_is_counted_once() {
    let (sim, index) = (disk(13), MemoryIndex::default());
    let store = open_kept(&sim, &index, 40 << 20, 0).await.unwrap();
    store.catalog_seen(CATALOG, 1).await.unwrap();
    let blobs = put(&store, 0..24, 2_000_000).await;
    let live = vec![blobs[3].clone(), blobs[23].clone()];
    keep(&store, &digests(&live)).await;
    sealed(&sim, &store).await;
    let full = used(&sim);
    let mut pass = store.reclaim().await.unwrap();
    let mut steps = Vec::new();
    while let Some(done) = pass.step().await.unwrap() {
        steps.push(done.bytes);
    }
    assert_eq!(pass.total().segments, 0);
    drop(pass);
    keep(&store, &digests(&live[1..])).await;
    let mut pass = store.reclaim().await.unwrap();
    while let Some(done) = pass.step().await.unwrap() {
        steps.push(done.bytes);
    }
    assert_eq!(pass.total().segments, 1);
    let all = steps.iter().sum::<u64>();
    let freed = full - used(&sim);
    assert!(freed.abs_diff(all) < 1 << 20, "{freed} by {steps:?}");
    assert!(files(&sim, "raw").len() == 1 && all > 39 << 20, "{steps:?}");
    holds(&store, &live[1..], &live[..1]).await;
}

#[tokio::test]
async fn extents_of_uploads_come_back_when_they_end_and_not_before() {
    let (sim, index, store) = new(3).await;
    // Each upload writes all over the segments.
    let bytes: Vec<Bytes> = (0..4).map(|seed| content(100 + seed, 5_000_000)).collect();
    let mut ids = Vec::new();
    let mut uploads = Vec::new();
    for _ in &bytes {
        let id = store.upload_open("a/b", None).unwrap();
        ids.push(id);
        uploads.push(store.upload_resume(id, "a/b").await.unwrap());
    }
    for part in 0..4 {
        for (upload, bytes) in uploads.iter_mut().zip(&bytes) {
            let from = part * 1_200_000;
            upload
                .append(bytes.slice(from..from + 1_200_000))
                .await
                .unwrap();
        }
    }
    let mut uploads = uploads.into_iter();
    let (mut durable, mut under_way) = (uploads.next().unwrap(), uploads.next().unwrap());
    durable.checkpoint().await.unwrap();
    drop(durable);
    uploads.next().unwrap().cancel().await.unwrap();
    drop(uploads.next().unwrap()); // what no record ever named
    sealed(&sim, &store).await;
    // What is under way holds the segments that it wrote to.
    let before = reclaim(&store).await.unwrap().bytes;
    assert!(before < 4_000_000, "{before}");
    under_way.checkpoint().await.unwrap();
    let after = reclaim(&store).await.unwrap().bytes;
    assert!(after > 3_000_000, "{before}, then {after}");

    for (upload, number) in [(Some(under_way), 1), (None, 0)] {
        let (id, bytes) = (ids[number], &bytes[number]);
        let mut upload = match upload {
            Some(upload) => upload,
            None => store.upload_resume(id, "a/b").await.unwrap(),
        };
        let from = upload.offset() as usize;
        upload.append(bytes.slice(from..)).await.unwrap();
        upload.commit(sha256(bytes), None).await.unwrap();
    }
    holds(&store, &bytes[..2], &bytes[2..]).await;
    drop(store);
    let store = open(&sim.crash(Crash::Lost), &index).await.unwrap();
    holds(&store, &bytes[..2], &bytes[2..]).await;
}

/// Small blobs that went from the journal to segments, most of which die.
pub(crate) async fn small(store: &Store) -> (Vec<Bytes>, Vec<Bytes>) {
    let blobs = put(store, 1000..1400, 60_000).await;
    until("recycling", async || {
        store.health().await.counts.recycled >= 3
    })
    .await;
    let (mut live, mut dead) = (Vec::new(), Vec::new());
    for (number, bytes) in blobs.into_iter().enumerate() {
        let lives = number >= 70 && number % 10 == 0;
        if lives { &mut live } else { &mut dead }.push(bytes);
    }
    keep(store, &digests(&live)).await;
    (live, dead)
}

#[tokio::test]
async fn small_segments_go_and_what_lives_in_them_moves() {
    let (sim, index, store) = new(4).await;
    let (live, dead) = small(&store).await;
    let before = files(&sim, "small");
    let full = used(&sim);
    let done = reclaim(&store).await.unwrap();
    assert!(done.segments >= 3 && done.failed == 0, "{done:?}");
    let after = files(&sim, "small");
    let left: Vec<&String> = after.intersection(&before).collect();
    assert!(left.len() + 2 < before.len(), "{before:?} became {after:?}");
    assert!(full - used(&sim) > 6 << 20, "{full} to {}", used(&sim));
    holds(&store, &live, &dead).await;
    scrubbed(&store).await;
    assert_eq!(store.health().await.counts.quarantined, 0);
    drop(store);
    let store = open(&sim.crash(Crash::Killed), &index).await.unwrap();
    holds(&store, &live, &dead).await;
    drop(store);
    for crash in [Crash::Killed, Crash::Lost] {
        let sim = sim.crash(crash);
        let store = open(&sim.crash(Crash::Killed), &MemoryIndex::default()).await;
        let store = store.unwrap();
        holds(&store, &live, &dead).await;
        // What died may come again, and the journal go round.
        push(&store, &dead[3], sha256(&dead[3])).await.unwrap();
        put(&store, 5000..5300, 60_000).await;
        holds(&store, &live, &dead[4..]).await;
    }
}

#[tokio::test]
async fn records_of_releases_outlive_the_journal_and_ids_are_never_given_out_again() {
    let (sim, _, store) = new(5).await;
    let (live, dead) = layers(&store).await;
    sealed(&sim, &store).await;
    // The newest segment goes too.
    store.close().await.unwrap();
    drop(store);
    let store = open(&sim, &MemoryIndex::default()).await.unwrap();
    keep(&store, &[]).await;
    let ever = files(&sim, "raw");
    let done = reclaim(&store).await.unwrap();
    assert_eq!(done.segments as usize, ever.len(), "{done:?}");
    assert!(files(&sim, "raw").is_empty());
    for round in 0..5u64 {
        put(&store, (0..90).map(|seed| 9000 + round * 90 + seed), 60_000).await;
    }
    until("recycling", async || {
        store.health().await.counts.recycled >= 2
    })
    .await;
    store.close().await.unwrap();
    drop(store);
    // The index is made again: only meta segments know of the removals.
    let store = open(&sim, &MemoryIndex::default()).await.unwrap();
    holds(&store, &[], &[live, dead].concat()).await;
    put(&store, [77], 700_000).await;
    let new = files(&sim, "raw");
    assert_eq!(new.len(), 1);
    assert!(new.first() > ever.last(), "{new:?} after {ever:?}");
    assert!(reclaim(&store).await.is_ok());
}

#[tokio::test]
async fn a_file_system_that_cannot_punch_gives_whole_segments_back() {
    let (sim, _, store) = new(6).await;
    let (live, dead) = layers(&store).await;
    sealed(&sim, &store).await;
    let cannot = Plan::new(Fault::Fail(Kind::Unsupported)).on(Verb::Punch);
    sim.plan(cannot.sticky());
    let done = reclaim(&store).await.unwrap();
    // What lives in the others moves, which gives more back than it takes.
    assert_eq!((done.segments, done.failed), (5, 0), "{done:?}");
    assert!(done.moved > 0 && done.bytes > 2 * done.moved, "{done:?}");
    let space = store.space().await.unwrap();
    assert_eq!((space.released, space.dead), (0, 0), "{space:?}");
    let struck = sim.struck();
    reclaim(&store).await.unwrap();
    assert_eq!(sim.struck(), struck, "it is not asked again");
    holds(&store, &live, &dead).await;
}

#[tokio::test]
async fn a_full_disk_is_no_reason_not_to_give_room_back() {
    let (sim, _, store) = new(7).await;
    let (live, dead) = layers(&store).await;
    sealed(&sim, &store).await;
    sim.set_capacity(used(&sim));
    let done = reclaim(&store).await.unwrap();
    assert_eq!((done.segments, done.failed), (1, 0), "{done:?}");
    assert_eq!(store.health().await.poisoned, None);
    put(&store, 50..60, 700_000).await;
    holds(&store, &live, &dead).await;
}

#[tokio::test]
async fn two_passes_do_not_run_at_a_time_and_one_that_is_dropped_is_gone_on_with() {
    let (sim, _, store) = new(8).await;
    let (live, dead) = layers(&store).await;
    sealed(&sim, &store).await;
    for steps in 0..12 {
        let mut pass = store.reclaim().await.unwrap();
        let second = store.reclaim().await;
        assert!(matches!(second, Err(Error::Busy { .. })), "{second:?}");
        for _ in 0..steps {
            pass.step().await.unwrap();
        }
    }
    reclaim(&store).await.unwrap();
    assert_eq!(store.space().await.unwrap().dead, 0);
    holds(&store, &live, &dead).await;
}

#[tokio::test]
async fn what_a_file_lacks_without_a_record_stays_a_loss() {
    let (sim, index, store) = new(9).await;
    let (live, _) = layers(&store).await;
    sealed(&sim, &store).await;
    reclaim(&store).await.unwrap();
    store.close().await.unwrap();
    drop(store);
    let raw = files(&sim, "raw");
    let lost = folder().join("data/raw").join(raw.first().unwrap());
    sim.remove(&lost).unwrap();
    let store = open(&sim, &index).await.unwrap();
    let mut gone = 0;
    for bytes in &live {
        match pull(&store, &sha256(bytes)).await {
            Ok(found) => assert!(found == bytes),
            Err(error) => {
                assert!(matches!(error, Error::Io { .. }), "{error}");
                gone += 1;
            }
        }
    }
    assert!(gone > 0);
}

/// A disk on which a pass has something to do of every kind.
async fn ready(seed: u64) -> (Arc<Sim>, Vec<Bytes>, Vec<Bytes>) {
    let (sim, _, store) = new(seed).await;
    let (small_live, small_dead) = small(&store).await;
    let blobs = put(&store, 0..20, 700_000).await;
    let (mut live, mut dead) = (small_live, small_dead);
    for (number, bytes) in blobs.into_iter().enumerate() {
        let lives = number > 6 && number % 3 == 0;
        if lives { &mut live } else { &mut dead }.push(bytes);
    }
    keep(&store, &digests(&live)).await;
    sealed(&sim, &store).await;
    store.close().await.unwrap();
    drop(store);
    (sim, live, dead)
}

/// The newest index of a disk: made again, then kept beside each copy of it.
pub(crate) async fn opened(sim: &Arc<Sim>) -> (Arc<Sim>, Store) {
    let sim = sim.crash(Crash::Killed);
    let store = open(&sim, &MemoryIndex::default()).await.unwrap();
    (sim, store)
}

#[tokio::test]
async fn a_power_cut_at_every_operation_of_a_pass_costs_nothing() {
    let (base, live, dead) = ready(10).await;
    let whole = {
        let (sim, store) = opened(&base).await;
        let begin = sim.operations();
        let done = reclaim(&store).await.unwrap();
        assert!(done.segments >= 4 && done.failed == 0, "{done:?}");
        sim.operations() - begin
    };
    assert!(whole > 60, "{whole}");
    for operation in (0..whole).step_by(figures::choose(7, 3, 1)) {
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
        let sim = sim.crash(crash);
        let store = open(&sim, &MemoryIndex::default()).await;
        let store = store.unwrap_or_else(|error| panic!("cut at {operation}, {crash:?}: {error}"));
        holds(&store, &live, &dead).await;
        let done = reclaim(&store).await.unwrap();
        assert_eq!((done.held, done.failed), (0, 0), "cut at {operation}");
        holds(&store, &live, &dead).await;
        let again = reclaim(&store).await.unwrap();
        assert_eq!(again, Reclaimed::default(), "cut at {operation}");
    }
}

#[tokio::test]
async fn every_operation_of_a_pass_may_fail_once() {
    let (base, live, dead) = ready(11).await;
    let mut struck = 0;
    for operation in (0..).step_by(figures::choose(7, 3, 1)) {
        let (sim, store) = opened(&base).await;
        sim.plan(Plan::new(Fault::Fail(Kind::Io)).after(operation));
        let done = reclaim(&store).await;
        if sim.struck() == 0 {
            break;
        }
        struck += 1;
        sim.clear_plans();
        holds(&store, &live, &dead).await;
        if store.health().await.poisoned.is_none() {
            let again = reclaim(&store).await.unwrap();
            assert_eq!(again.failed, 0, "{operation}: {done:?}, then {again:?}");
            holds(&store, &live, &dead).await;
        }
        drop(store);
        let sim = sim.crash(Crash::Lost);
        let store = open(&sim, &MemoryIndex::default()).await.unwrap();
        holds(&store, &live, &dead).await;
        assert_eq!(reclaim(&store).await.unwrap().failed, 0);
        holds(&store, &live, &dead).await;
    }
    assert!(struck > figures::choose(20, 50, 150), "{struck}");
}
