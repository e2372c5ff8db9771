//! Collection where the index cannot be read while blobs die, and the further
//! digests that garbage has.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use orlop_disk::Disk;
use orlop_engine::{
    Algorithm, Collected, Digest, Error, IndexFactory, MemoryIndex, Progress, Store, System,
    Trailer,
};
use orlop_index::{Batch, Index, IndexError, Table, Visit};

use crate::support::{config, content, disk, pull, push, sha256};

const CATALOG: [u8; 16] = [7; 16];

/// What the index has been asked, and what it does not tell.
#[derive(Default)]
struct Told {
    /// Names of blobs whose rows cannot be read.
    bad: Mutex<BTreeSet<Vec<u8>>>,
    /// Rows that were read, or looked for.
    rows: AtomicU64,
}

struct Watched(Arc<dyn Index>, Arc<Told>);

impl Watched {
    fn look(&self, table: Table, key: &[u8]) -> Result<(), IndexError> {
        self.1.rows.fetch_add(1, Ordering::SeqCst);
        if table == Table::Blob && self.1.bad.lock().unwrap().contains(key) {
            return Err(IndexError::Io {
                path: "/store/index".into(),
                reason: "EIO".to_owned(),
            });
        }
        Ok(())
    }
}

impl Index for Watched {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        self.look(table, key)?;
        self.0.get(table, key)
    }
    fn multi_get(
        &self,
        table: Table,
        keys: &[Vec<u8>],
    ) -> Result<Vec<Option<Vec<u8>>>, IndexError> {
        keys.iter().try_for_each(|key| self.look(table, key))?;
        self.0.multi_get(table, keys)
    }
    fn apply(&self, batch: Batch) -> Result<(), IndexError> {
        self.0.apply(batch)
    }
    fn scan(&self, table: Table, from: &[u8], visit: &mut Visit<'_>) -> Result<(), IndexError> {
        self.0.scan(table, from, &mut |key, value| {
            self.1.rows.fetch_add(1, Ordering::SeqCst);
            visit(key, value)
        })
    }
    fn watermark(&self) -> Result<u64, IndexError> {
        self.0.watermark()
    }
    fn flush(&self) -> Result<u64, IndexError> {
        self.0.flush()
    }
    fn clear(&self, table: Table) -> Result<(), IndexError> {
        self.0.clear(table)
    }
}

struct Factory(MemoryIndex, Arc<Told>);

impl IndexFactory for Factory {
    fn open(&self, folder: &Path) -> Result<Arc<dyn Index>, IndexError> {
        Ok(Arc::new(Watched(self.0.open(folder)?, Arc::clone(&self.1))))
    }
    fn destroy(&self, folder: &Path) -> Result<(), IndexError> {
        self.0.destroy(folder)
    }
}

/// A store whose leases do not last, over an index that is watched.
async fn store(seed: u64) -> (Store, Arc<Told>) {
    let mut config = config();
    config.lease = Duration::ZERO;
    let told = Arc::new(Told::default());
    let factory = Factory(MemoryIndex::default(), Arc::clone(&told));
    let disk = disk(seed) as Arc<dyn Disk>;
    let progress = Progress::default();
    let store = Store::open(config, System::start(), disk, &factory, &progress);
    let store = store.await.unwrap();
    store.catalog_seen(CATALOG, 1).await.unwrap();
    (store, told)
}

async fn put(store: &Store, seed: u64, algorithm: Algorithm) -> Digest {
    let bytes = content(seed, 60);
    let digest = Digest::of(algorithm, &bytes);
    push(store, &bytes, digest).await.unwrap();
    digest
}

/// A cycle, with what it skipped and the further digests of what died.
async fn cycle(
    store: &Store,
    live: &[Digest],
) -> Result<(Collected, Vec<Digest>, BTreeMap<Digest, Vec<Digest>>), Error> {
    let mut collector = store.collect().await?;
    collector.mark(live)?;
    let trailer = Trailer {
        digests: live.len() as u64,
        catalog: CATALOG,
        sequence: 1,
    };
    let mut sweep = collector.whole(trailer, true)?;
    let mut died = BTreeMap::new();
    while let Some(garbage) = sweep.step()? {
        for blob in sweep.end(&garbage, true).await? {
            died.insert(blob.digest, sweep.further(&blob).to_vec());
        }
    }
    let skipped = sweep.skipped().to_vec();
    Ok((sweep.finish()?, skipped, died))
}

#[tokio::test]
async fn i25_a_blob_whose_row_cannot_be_read_is_passed_over_and_named() {
    let (store, told) = store(31).await;
    let mut all = Vec::new();
    for seed in 0..60 {
        all.push(put(&store, seed, Algorithm::Sha256).await);
    }
    let live = &all[..20];
    assert_eq!(cycle(&store, live).await.unwrap().0.condemned, 40);
    // Garbage of two kinds: what can be read dies.
    let bad = [all[30], all[45]];
    let of = |digest: &Digest| digest.bytes().to_vec();
    *told.bad.lock().unwrap() = bad.iter().map(of).collect();
    let (done, skipped, died) = cycle(&store, live).await.unwrap();
    assert_eq!((done.dead, done.skipped), (38, 2), "{done:?}");
    assert_eq!(BTreeSet::from_iter(skipped), BTreeSet::from(bad));
    assert!(bad.iter().all(|digest| !died.contains_key(digest)));
    told.bad.lock().unwrap().clear();
    for digest in live.iter().chain(&bad) {
        assert!(pull(&store, digest).await.is_ok());
    }
    // They were not looked at, so that two cycles are needed again.
    let again = cycle(&store, live).await.unwrap().0;
    assert_eq!((again.dead, again.condemned), (0, 2), "{again:?}");
    assert_eq!(cycle(&store, live).await.unwrap().0.dead, 2);
}

/// In the mark phase the same error ends the cycle (contrast I25).
#[tokio::test]
async fn i19_a_named_blob_whose_row_cannot_be_read_ends_the_cycle() {
    let (store, told) = store(32).await;
    let mut all = Vec::new();
    for seed in 0..20 {
        all.push(put(&store, seed, Algorithm::Sha256).await);
    }
    cycle(&store, &all[..10]).await.unwrap();
    *told.bad.lock().unwrap() = BTreeSet::from([all[3].bytes().to_vec()]);
    let ended = cycle(&store, &all[..10]).await;
    assert!(matches!(ended, Err(Error::Io { .. })), "{ended:?}");
    told.bad.lock().unwrap().clear();
    for digest in &all {
        assert!(pull(&store, digest).await.is_ok());
    }
}

/// An index of which nothing can be read is no place to go on.
#[tokio::test]
async fn i25_more_than_so_many_unreadable_rows_end_the_sweep() {
    let (store, told) = store(33).await;
    let mut all = BTreeSet::new();
    for seed in 0..1_100 {
        let digest = put(&store, seed, Algorithm::Sha256).await;
        all.insert(digest.bytes().to_vec());
    }
    *told.bad.lock().unwrap() = all;
    let ended = cycle(&store, &[]).await;
    assert!(matches!(ended, Err(Error::Io { .. })), "{ended:?}");
    told.bad.lock().unwrap().clear();
    assert_eq!(cycle(&store, &[]).await.unwrap().0.condemned, 1_100);
}

#[tokio::test]
async fn garbage_has_all_its_digests() {
    let (store, _) = store(34).await;
    let mut wanted = BTreeMap::new();
    for seed in 0..300u64 {
        let plain = sha256(&content(seed, 60));
        let mut further = Vec::new();
        let named: &[Algorithm] = match seed % 4 {
            0 => &[Algorithm::Sha256],
            1 => &[Algorithm::Sha512],
            2 => &[Algorithm::Blake3, Algorithm::Sha512],
            _ => &[Algorithm::Sha256, Algorithm::Sha512],
        };
        for algorithm in named {
            let digest = put(&store, seed, *algorithm).await;
            further.extend((digest != plain).then_some(digest));
        }
        further.sort();
        wanted.insert(plain, further);
    }
    // What lives has names too, which are not garbage's.
    let live = [put(&store, 1_000, Algorithm::Sha512).await];
    cycle(&store, &live).await.unwrap();
    let (done, _, died) = cycle(&store, &live).await.unwrap();
    assert_eq!(done.dead, 300);
    assert_eq!(died, wanted);
}

/// What a cycle reads of the index grows as the number of blobs does, and not
/// faster.
#[tokio::test]
async fn i17_i36_a_cycle_reads_as_many_rows_as_there_are_blobs() {
    let mut costs = Vec::new();
    for count in [500, 2_000, 8_000u64] {
        let (store, told) = store(35).await;
        let mut live = Vec::new();
        for seed in 0..count {
            let algorithm = match seed % 8 {
                0 => Algorithm::Sha512,
                _ => Algorithm::Sha256,
            };
            let digest = put(&store, seed, algorithm).await;
            if seed % 2 == 0 {
                live.push(digest);
            }
        }
        cycle(&store, &live).await.unwrap();
        told.rows.store(0, Ordering::SeqCst);
        let done = cycle(&store, &live).await.unwrap().0;
        assert_eq!(done.dead, count / 2);
        costs.push(told.rows.load(Ordering::SeqCst) as f64 / count as f64);
    }
    println!("rows of the index that a cycle reads, for each blob: {costs:.2?}");
    assert!(costs[2] < costs[0] * 1.3, "{costs:?}");
    assert!(costs[2] < 12.0, "{costs:?}");
}
