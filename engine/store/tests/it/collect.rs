//! Collection through the store's front: what dies, what lives, and that every
//! doubt keeps all of it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use orlop_disk::Disk;
use orlop_disk::sim::{Crash, Sim};
use orlop_engine::{
    Algorithm, Collected, Collector, Digest, Error, Garbage, IndexFactory, Invalid, MemoryIndex,
    Progress, Store, System, Trailer,
};
use orlop_index::{Batch, Index, IndexError, Table, Visit};

use crate::support::{config, content, disk, pull, push, sha256};

const CATALOG: [u8; 16] = [7; 16];

/// A store whose leases do not last.
async fn open_with(sim: &Arc<Sim>, index: &dyn IndexFactory) -> Store {
    let mut config = config();
    config.lease = Duration::ZERO;
    let disk: Arc<dyn Disk> = Arc::clone(sim) as Arc<dyn Disk>;
    let progress = Progress::default();
    let store = Store::open(config, System::start(), disk, index, &progress);
    let store = store.await.unwrap();
    store.catalog_seen(CATALOG, 1).await.unwrap();
    store
}

async fn store(seed: u64) -> (Arc<Sim>, MemoryIndex, Store) {
    let (sim, index) = (disk(seed), MemoryIndex::default());
    let store = open_with(&sim, &index).await;
    (sim, index, store)
}

/// Stores a blob of this seed; its digest.
async fn put(store: &Store, seed: u64) -> Digest {
    let bytes = content(seed, 40 + seed as usize * 7_001 % 90_000);
    push(store, &bytes, sha256(&bytes)).await.unwrap();
    sha256(&bytes)
}

fn trailer(digests: &[Digest]) -> Trailer {
    Trailer {
        digests: digests.len() as u64,
        catalog: CATALOG,
        sequence: 1,
    }
}

/// One whole cycle, in which everything that may die does.
async fn cycle(store: &Store, live: &[Digest]) -> Collected {
    let mut collector = store.collect().await.unwrap();
    collector.mark(live).unwrap();
    swept(collector, live, true).await.unwrap()
}

async fn swept(collector: Collector, live: &[Digest], explained: bool) -> Result<Collected, Error> {
    let mut sweep = collector.whole(trailer(live), false)?;
    while let Some(garbage) = sweep.step()? {
        sweep.end(&garbage, explained).await?;
    }
    sweep.finish()
}

fn is_here(store: &Store, digest: &Digest) -> bool {
    match store.stat(digest) {
        Ok(_) => true,
        Err(Error::NotFound { .. }) => false,
        Err(error) => panic!("{digest}: {error}"),
    }
}

#[tokio::test]
async fn a_blob_dies_after_two_live_sets_that_do_not_name_it() {
    let (sim, index, store) = store(1).await;
    let mut live = Vec::new();
    let mut dead = Vec::new();
    for seed in 0..40 {
        let digest = put(&store, seed).await;
        if seed % 3 == 0 { &mut live } else { &mut dead }.push(digest);
    }
    let first = cycle(&store, &live).await;
    assert_eq!((first.blobs, first.live), (40, live.len() as u64));
    assert_eq!((first.condemned, first.dead), (dead.len() as u64, 0));
    let garbage = &dead[0];
    assert!(
        pull(&store, garbage).await.is_ok(),
        "what is condemned answers"
    );

    let second = cycle(&store, &live).await;
    assert_eq!(
        (second.condemned, second.dead),
        (0, dead.len() as u64),
        "{second:?}"
    );
    assert_eq!(store.health().await.counts.collected, dead.len() as u64);
    let holds = |store: Store, live: Vec<Digest>, dead: Vec<Digest>| async move {
        for digest in &live {
            assert!(pull(&store, digest).await.is_ok());
        }
        for digest in &dead {
            assert!(!is_here(&store, digest));
            assert!(matches!(store.read(digest), Err(Error::NotFound { .. })));
            let (_, sizes) = store.pin(&[*digest]).unwrap();
            assert_eq!(sizes, [None]);
        }
    };
    holds(store.clone(), live.clone(), dead.clone()).await;

    // What comes again is a new life, and stays over a power cut and a lost index.
    assert_eq!(put(&store, 1).await, dead[0]);
    let again = dead.remove(0);
    live.push(again);
    holds(store.clone(), live.clone(), dead.clone()).await;
    drop(store);
    let after = sim.crash(Crash::Lost);
    let store = open_with(&after, &index).await;
    holds(store.clone(), live.clone(), dead.clone()).await;
    drop(store);
    let store = open_with(&after.crash(Crash::Lost), &MemoryIndex::default()).await;
    holds(store, live, dead).await;
}

#[tokio::test]
async fn a_use_between_two_live_sets_or_during_the_second_revives() {
    let (_, _, store) = store(2).await;
    let mut blobs = Vec::new();
    for seed in 0..6 {
        blobs.push(put(&store, seed).await);
    }
    cycle(&store, &[]).await;
    // Named again: by a live set.
    assert_eq!(cycle(&store, &blobs[..1]).await.dead, 5);
    assert!(is_here(&store, &blobs[0]));

    for seed in 1..6 {
        put(&store, seed).await;
    }
    cycle(&store, &[]).await;
    let mut collector = store.collect().await.unwrap();
    store.stat(&blobs[1]).unwrap();
    let reader = store.read(&blobs[2]).unwrap();
    let (pin, _) = store.pin(&blobs[3..4]).unwrap();
    drop(pin);
    collector.mark(&[]).unwrap();
    let mut sweep = collector.whole(trailer(&[]), false).unwrap();
    let garbage = sweep.step().unwrap().unwrap();
    let named: Vec<Digest> = garbage.iter().map(|blob| blob.digest).collect();
    assert_eq!(
        named,
        [blobs[0], blobs[4], blobs[5]],
        "in order of their numbers"
    );
    // And one between its look and its end.
    store.stat(&blobs[4]).unwrap();
    let dead: Vec<Garbage> = sweep.end(&garbage, true).await.unwrap();
    let dead: Vec<Digest> = dead.iter().map(|blob| blob.digest).collect();
    assert_eq!(dead, [blobs[0], blobs[5]]);
    while sweep.step().unwrap().is_some() {}
    let done = sweep.finish().unwrap();
    assert_eq!((done.dead, done.condemned), (2, 0));
    for digest in &blobs[1..5] {
        assert!(is_here(&store, digest));
    }
    assert!(reader.bytes(1 << 20).await.is_ok());
}

#[tokio::test]
async fn a_blob_whose_lease_was_revoked_dies_unless_it_is_used_again() {
    let (sim, index) = (disk(12), MemoryIndex::default());
    let disk: Arc<dyn Disk> = Arc::clone(&sim) as Arc<dyn Disk>;
    let mut config = config();
    config.lease = Duration::from_secs(3600);
    let progress = Progress::default();
    let store = Store::open(config, System::start(), disk, &index, &progress);
    let store = store.await.unwrap();
    store.catalog_seen(CATALOG, 1).await.unwrap();
    let mut blobs = Vec::new();
    for seed in 0..4 {
        blobs.push(put(&store, seed).await);
    }
    for _ in 0..2 {
        assert_eq!(cycle(&store, &[]).await.condemned, 0);
    }
    store.revoke(&blobs[1..]).unwrap();
    store.stat(&blobs[1]).unwrap();
    let (pin, _) = store.pin(&blobs[2..3]).unwrap();
    assert_eq!(cycle(&store, &[]).await.condemned, 1);
    store.revoke(&blobs[2..]).unwrap();
    assert_eq!(cycle(&store, &[]).await.dead, 1);
    let here: Vec<bool> = blobs.iter().map(|blob| is_here(&store, blob)).collect();
    assert_eq!(here, [true, true, true, false]);
    // Gone while a collection runs: what was used since it began stays.
    drop(pin);
    store.revoke(&blobs).unwrap();
    let collector = store.collect().await.unwrap();
    store.stat(&blobs[0]).unwrap();
    store.revoke(&blobs).unwrap();
    assert_eq!(swept(collector, &[], true).await.unwrap().condemned, 2);
    assert_eq!(cycle(&store, &[]).await.dead, 2);
    assert!(is_here(&store, &blobs[0]));
}

#[tokio::test]
async fn what_is_pinned_or_younger_than_the_barrier_is_passed_over() {
    let (_, _, store) = store(3).await;
    let old = put(&store, 1).await;
    let (pin, _) = store.pin(&[old]).unwrap();
    cycle(&store, &[]).await;
    // The pin is let go after the barrier rose: its names came too late for
    // the snapshot.
    let collector = store.collect().await.unwrap();
    drop(pin);
    let young = put(&store, 2).await;
    assert_eq!(swept(collector, &[], true).await.unwrap().condemned, 0);
    assert!(is_here(&store, &old) && is_here(&store, &young));
}

#[tokio::test]
async fn a_live_set_that_is_not_whole_or_not_the_stores_kills_nothing() {
    let (_, _, store) = store(4).await;
    let blob = put(&store, 1).await;
    cycle(&store, &[]).await;
    let wrong: [(&str, Trailer); 4] = [
        (
            "2 digests, and 1 came",
            Trailer {
                digests: 2,
                ..trailer(&[blob])
            },
        ),
        ("0 digests, and 1 came", trailer(&[])),
        (
            "its catalog is not the store's",
            Trailer {
                catalog: [8; 16],
                ..trailer(&[blob])
            },
        ),
        (
            "change 0, and change 1 was seen",
            Trailer {
                sequence: 0,
                ..trailer(&[blob])
            },
        ),
    ];
    for (reason, trailer) in wrong {
        let mut collector = store.collect().await.unwrap();
        assert!(matches!(store.collect().await, Err(Error::Busy { .. })));
        collector.mark(&[sha256(b"not here")]).unwrap();
        let refused = collector.whole(trailer, false).unwrap_err();
        assert!(matches!(refused, Error::Invalid(Invalid::LiveSet { .. })));
        assert!(refused.to_string().contains(reason), "{refused}");
    }
    // A server that goes away in the middle, and a sweep that was not ended.
    drop(store.collect().await.unwrap());
    let collector = store.collect().await.unwrap();
    let sweep = collector.whole(trailer(&[]), false).unwrap();
    assert!(matches!(sweep.finish(), Err(Error::Cancelled)));
    assert!(is_here(&store, &blob));
}

/// What a whole live set named, or was used meanwhile, is condemned no more, also
/// if that cycle did not come to its end: a death needs two in a row that saw
/// neither.
#[tokio::test]
async fn a_cycle_that_was_dropped_takes_back_the_verdict_on_what_it_saw() {
    let whole = async |store: &Store, live: &[Digest]| {
        let mut collector = store.collect().await.unwrap();
        collector.mark(live).unwrap();
        drop(collector.whole(trailer(live), false).unwrap());
    };
    let used = async |store: &Store, live: &[Digest]| {
        let collector = store.collect().await.unwrap();
        store.stat(&live[0]).unwrap();
        drop(collector);
    };
    for way in 0..2 {
        let (_, _, store) = store(20 + way).await;
        let (blob, other) = (put(&store, 1).await, put(&store, 2).await);
        assert_eq!(cycle(&store, &[]).await.condemned, 2);
        match way {
            0 => whole(&store, &[blob]).await,
            _ => used(&store, &[blob]).await,
        }
        let third = cycle(&store, &[]).await;
        assert_eq!((third.dead, third.condemned), (1, 1), "way {way}");
        assert!(is_here(&store, &blob) && !is_here(&store, &other));
        assert_eq!(cycle(&store, &[]).await.dead, 1, "way {way}");
    }
}

/// What was used after it was condemned, in the same cycle, is not.
#[tokio::test]
async fn a_use_in_the_cycle_that_condemns_revives() {
    let (_, _, store) = store(23).await;
    let blob = put(&store, 1).await;
    let collector = store.collect().await.unwrap();
    let mut sweep = collector.whole(trailer(&[]), false).unwrap();
    while sweep.step().unwrap().is_some() {}
    store.stat(&blob).unwrap();
    assert_eq!(sweep.finish().unwrap().condemned, 0);
    assert_eq!(cycle(&store, &[]).await.dead, 0);
    assert!(is_here(&store, &blob));
}

#[tokio::test]
async fn garbage_of_another_sweep_is_not_believed() {
    let (_, _, store) = store(24).await;
    let (named, again) = (put(&store, 1).await, put(&store, 2).await);
    cycle(&store, &[]).await;
    let collector = store.collect().await.unwrap();
    let mut first = collector.whole(trailer(&[]), false).unwrap();
    let old = first.step().unwrap().unwrap();
    assert_eq!(old.len(), 2);
    drop(first);
    // The next one names the first of them, and condemns neither.
    let mut collector = store.collect().await.unwrap();
    collector.mark(&[named]).unwrap();
    let mut second = collector.whole(trailer(&[named]), false).unwrap();
    let dead = second.end(&old[..1], true).await.unwrap();
    assert_eq!(dead, []);
    second.keep(&old[..1]);
    while second.step().unwrap().is_some() {}
    drop(second);
    // One that starts anew has condemned nothing: a verdict is no one's to bring.
    let collector = store.collect().await.unwrap();
    let mut third = collector.whole(trailer(&[]), false).unwrap();
    while let Some(garbage) = third.step().unwrap() {
        assert!(garbage.iter().all(|blob| blob.digest == again));
    }
    assert_eq!(third.end(&old[..1], true).await.unwrap(), []);
    third.finish().unwrap();
    assert!(is_here(&store, &named) && is_here(&store, &again));
}

#[tokio::test]
async fn a_blob_is_kept_by_any_of_its_digests() {
    let (_, _, store) = store(5).await;
    let mut named = Vec::new();
    for (seed, algorithm) in [(1, Algorithm::Sha512), (2, Algorithm::Blake3)] {
        let bytes = content(seed, 70_000);
        let digest = Digest::of(algorithm, &bytes);
        push(&store, &bytes, digest).await.unwrap();
        named.push(digest);
    }
    for _ in 0..3 {
        assert_eq!(cycle(&store, &named).await.live, 2);
    }
    assert!(named.iter().all(|digest| is_here(&store, digest)));
    cycle(&store, &named[..1]).await;
    assert_eq!(cycle(&store, &named[..1]).await.dead, 1);
    assert!(is_here(&store, &named[0]) && !is_here(&store, &named[1]));
    // The same bytes under their other name.
    let bytes = content(2, 70_000);
    assert!(push(&store, &bytes, sha256(&bytes)).await.unwrap());
    assert!(is_here(&store, &named[1]));
}

#[tokio::test]
async fn the_two_newest_copies_of_the_catalog_live_and_older_ones_die() {
    let (_, _, store) = store(6).await;
    let mut copies = Vec::new();
    for sequence in 1..5 {
        let bytes = content(100 + sequence, 200_000);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &bytes).unwrap();
        let copied = store.catalog_copy(Path::new(file.path()), CATALOG, sequence);
        copied.await.unwrap();
        copies.push(sha256(&bytes));
    }
    cycle(&store, &[]).await;
    let collector = store.collect().await.unwrap();
    // The store made them, which explains them.
    assert_eq!(swept(collector, &[], false).await.unwrap().dead, 2);
    let here: Vec<bool> = copies.iter().map(|copy| is_here(&store, copy)).collect();
    assert_eq!(here, [false, false, true, true]);
}

#[tokio::test]
async fn i15_deaths_that_nothing_explains_are_bounded_in_a_cycle() {
    let (_, _, store) = store(7).await;
    for seed in 0..1_100u64 {
        let bytes = Bytes::from(seed.to_le_bytes().to_vec());
        push(&store, &bytes, sha256(&bytes)).await.unwrap();
    }
    let run = async |explained: bool| {
        let collector = store.collect().await.unwrap();
        swept(collector, &[], explained).await.unwrap()
    };
    assert_eq!(run(false).await.condemned, 1_100);
    let done = run(false).await;
    assert_eq!((done.dead, done.bounded, done.condemned), (1_000, 100, 100));
    let done = run(true).await;
    assert_eq!((done.dead, done.bounded, done.condemned), (100, 0, 0));
}

#[tokio::test]
async fn everything_counts_as_leased_for_one_term_after_a_start() {
    let sim = disk(8);
    let index = MemoryIndex::default();
    let store = open_with(&sim, &index).await;
    let blob = put(&store, 1).await;
    store.close().await.unwrap();
    drop(store);
    let disk: Arc<dyn Disk> = Arc::clone(&sim) as Arc<dyn Disk>;
    let progress = Progress::default();
    let store = Store::open(config(), System::start(), disk, &index, &progress);
    let store = store.await.unwrap();
    for _ in 0..3 {
        let done = cycle(&store, &[]).await;
        assert_eq!((done.condemned, done.dead), (0, 0));
    }
    assert!(is_here(&store, &blob));
}

/// An index that cannot be read at one moment.
struct Failing {
    inner: Arc<dyn Index>,
    /// Reads until one fails; `u64::MAX` for none.
    left: Arc<AtomicU64>,
}

impl Failing {
    fn look(&self) -> Result<(), IndexError> {
        if self.left.load(Ordering::SeqCst) == u64::MAX {
            return Ok(());
        }
        match self.left.fetch_sub(1, Ordering::SeqCst) {
            0 => Err(IndexError::Io {
                path: "/store/index".into(),
                reason: "EIO".to_owned(),
            }),
            _ => Ok(()),
        }
    }
}

impl Index for Failing {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        self.look()?;
        self.inner.get(table, key)
    }
    fn multi_get(
        &self,
        table: Table,
        keys: &[Vec<u8>],
    ) -> Result<Vec<Option<Vec<u8>>>, IndexError> {
        self.look()?;
        self.inner.multi_get(table, keys)
    }
    fn apply(&self, batch: Batch) -> Result<(), IndexError> {
        self.inner.apply(batch)
    }
    fn scan(&self, table: Table, from: &[u8], visit: &mut Visit<'_>) -> Result<(), IndexError> {
        self.look()?;
        self.inner.scan(table, from, visit)
    }
    fn watermark(&self) -> Result<u64, IndexError> {
        self.look()?;
        self.inner.watermark()
    }
    fn flush(&self) -> Result<u64, IndexError> {
        self.inner.flush()
    }
    fn clear(&self, table: Table) -> Result<(), IndexError> {
        self.inner.clear(table)
    }
}

struct FailingFactory(MemoryIndex, Arc<AtomicU64>);

impl IndexFactory for FailingFactory {
    fn open(&self, folder: &Path) -> Result<Arc<dyn Index>, IndexError> {
        Ok(Arc::new(Failing {
            inner: self.0.open(folder)?,
            left: Arc::clone(&self.1),
        }))
    }
    fn destroy(&self, folder: &Path) -> Result<(), IndexError> {
        self.0.destroy(folder)
    }
}

/// Each read of the second cycle fails once: whatever that ends, no blob that a
/// live set names dies, and a cycle after it does its work.
#[tokio::test]
async fn i19_an_error_at_any_read_of_a_cycle_kills_nothing_that_lives() {
    let mut failed = 0;
    for nth in 0..200 {
        let left = Arc::new(AtomicU64::new(u64::MAX));
        let factory = FailingFactory(MemoryIndex::default(), Arc::clone(&left));
        let store = open_with(&disk(9), &factory).await;
        let (mut live, mut garbage) = (Vec::new(), Vec::new());
        for seed in 0..8 {
            let digest = put(&store, seed).await;
            if seed % 2 == 0 {
                live.push(digest);
            } else {
                garbage.push(digest);
            }
        }
        cycle(&store, &live).await;
        left.store(nth, Ordering::SeqCst);
        let done = async {
            let mut collector = store.collect().await?;
            collector.mark(&live)?;
            swept(collector, &live, true).await
        };
        let done = done.await;
        let struck = left.swap(u64::MAX, Ordering::SeqCst) > 200;
        assert!(struck || done.is_ok(), "{done:?}");
        for digest in &live {
            assert!(pull(&store, digest).await.is_ok(), "read {nth}");
        }
        failed += u64::from(done.is_err());
        let last = cycle(&store, &live).await;
        assert_eq!(
            (last.blobs, last.condemned),
            (last.dead + 4, 0),
            "read {nth}"
        );
        for digest in &garbage {
            assert!(!is_here(&store, digest), "read {nth}: {last:?}");
        }
        if !struck {
            assert!(failed > 8, "{failed}");
            return;
        }
    }
    panic!("a cycle of eight blobs reads more than 200 times");
}

/// Each read from the begin of a cycle to the end of its live set fails, once
/// or for good: the cycle is over and has deleted nothing, and neither has one
/// whose server goes on after the error.
#[tokio::test]
async fn i19_an_error_at_any_read_of_the_mark_phase_deletes_nothing() {
    let mut failed = 0;
    for nth in 0..100 {
        let left = Arc::new(AtomicU64::new(u64::MAX));
        let factory = FailingFactory(MemoryIndex::default(), Arc::clone(&left));
        let store = open_with(&disk(10), &factory).await;
        let mut all = Vec::new();
        for seed in 0..8 {
            all.push(put(&store, seed).await);
        }
        let bytes = content(50, 70_000);
        let further = Digest::of(Algorithm::Sha512, &bytes);
        push(&store, &bytes, further).await.unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content(60, 9_000)).unwrap();
        let copied = store.catalog_copy(file.path(), CATALOG, 1);
        copied.await.unwrap();
        let (pin, _) = store.pin(&all[..1]).unwrap();
        // More than one batch, so that an error can come behind a part that
        // was marked.
        let mut live: Vec<Digest> = all[..4].to_vec();
        live.extend((0..5_000u64).map(|seed| sha256(&seed.to_le_bytes())));
        live.push(further);
        cycle(&store, &live).await;

        left.store(nth, Ordering::SeqCst);
        let marked = async {
            let mut collector = store.collect().await?;
            let marked = collector.mark(&live);
            let refused = collector.whole(trailer(&live), true);
            match (marked, refused) {
                (Ok(()), refused) => refused.map(drop),
                // It is not whole for the store either.
                (Err(error), Err(Error::Invalid(Invalid::LiveSet { .. }))) => Err(error),
                (Err(error), refused) => panic!("{error}, then {refused:?}"),
            }
        };
        let marked = marked.await;
        let struck = left.swap(u64::MAX, Ordering::SeqCst) > 200;
        assert_eq!(struck, marked.is_err(), "read {nth}: {marked:?}");
        failed += u64::from(struck);
        assert_eq!(store.health().await.counts.collected, 0, "read {nth}");
        for digest in all.iter().chain([&further]) {
            assert!(pull(&store, digest).await.is_ok(), "read {nth}");
        }
        drop(pin);
        if !struck {
            assert!(failed > 5, "{failed}");
            return;
        }
    }
    panic!("the mark of nine blobs reads more than 100 times");
}
