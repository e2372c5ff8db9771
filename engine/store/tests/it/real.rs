//! The store on real files with RocksDB, on the ring where the system has one
//! and on the pool everywhere.

use std::path::Path;
use std::sync::Arc;

use orlop_disk::blocking::Blocking;
use orlop_disk::uring::Uring;
use orlop_disk::{Backend, Disk, probe};
use orlop_engine::{Config, Error, Invalid, Progress, RocksIndex, Store, System};

use orlop_engine::{Digest, IndexFactory, Trailer};
use orlop_format::location::{Class, Extent, Home, Place, SegmentId};
use orlop_format::row::{self, Form, State};
use orlop_index::{Batch, Table};

use crate::support::{SIZES, content, pull, push, sha256};

/// The disks this machine has.
fn disks() -> Vec<Arc<dyn Disk>> {
    let mut disks = vec![Blocking::new(4).unwrap()];
    match probe::ring() {
        Ok(()) => disks.push(Uring::new(1).unwrap()),
        Err(reason) => println!("skipped: io_uring is not usable here: {reason}"),
    }
    disks
}

async fn open(folder: &Path, disk: &Arc<dyn Disk>) -> Result<Store, Error> {
    let mut config = Config::new(folder.to_owned());
    config.journal_file = 4 << 20;
    config.segment = 32 << 20;
    config.reserve = Some(0);
    let index = RocksIndex {
        options: Default::default(),
    };
    Store::open(
        config,
        System::start(),
        Arc::clone(disk),
        &index,
        &Progress::default(),
    )
    .await
}

async fn close(store: Store) {
    store.close().await.unwrap();
}

#[tokio::test]
async fn real_files_keep_blobs_through_restarts_and_a_lost_or_damaged_index() {
    for disk in disks() {
        let folder = tempfile::tempdir().unwrap();
        let before = disk.counters();
        let store = open(folder.path(), &disk).await.unwrap();
        let mut all = Vec::new();
        for (seed, size) in SIZES.into_iter().enumerate() {
            all.push(content(seed as u64, size));
        }
        all.extend((0..400).map(|seed| content(1000 + seed, 50_000)));
        for bytes in &all {
            push(&store, bytes, sha256(bytes)).await.unwrap();
        }
        close(store).await;

        for round in 0..3 {
            let index = folder.path().join("index");
            match round {
                1 => std::fs::remove_dir_all(&index).unwrap(),
                2 => std::fs::write(index.join("CURRENT"), b"garbage").unwrap(),
                _ => {}
            }
            let store = open(folder.path(), &disk).await.unwrap();
            for bytes in &all {
                assert_eq!(
                    &pull(&store, &sha256(bytes)).await.unwrap(),
                    bytes,
                    "round {round}"
                );
            }
            close(store).await;
        }
        let after = disk.counters();
        if disk.backend() == Backend::Uring {
            assert!(
                after.writes > before.writes + 20,
                "the ring carried no writes"
            );
            assert!(after.reads > before.reads + 20, "the ring carried no reads");
        }
    }
}

#[tokio::test]
async fn a_folder_of_a_newer_version_is_refused_and_left_alone() {
    let disk = Blocking::new(2).unwrap();
    let folder = tempfile::tempdir().unwrap();
    close(open(folder.path(), &disk).await.unwrap()).await;
    for name in ["superblock.0", "superblock.1"] {
        let path = folder.path().join(name);
        let mut bytes = std::fs::read(&path).unwrap();
        for slot in bytes.chunks_mut(4096).filter(|slot| slot[0] != 0) {
            slot[4] = 2;
            let crc = crc32fast::hash(&slot[..104]);
            slot[104..108].copy_from_slice(&crc.to_le_bytes());
        }
        std::fs::write(&path, bytes).unwrap();
    }
    let error = open(folder.path(), &disk).await.err().unwrap();
    assert!(
        matches!(error, Error::Invalid(Invalid::Newer { .. })),
        "{error}"
    );
}

#[tokio::test]
async fn a_lost_superblock_or_journal_file_is_named_and_nothing_is_made_new() {
    let disk = Blocking::new(2).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), &disk).await.unwrap();
    let bytes = content(1, 100_000);
    push(&store, &bytes, sha256(&bytes)).await.unwrap();
    close(store).await;
    let hide = |name: &str| {
        let path = folder.path().join(name);
        std::fs::rename(&path, folder.path().join("hidden")).unwrap();
        path
    };
    for name in ["superblock.0", "journal/J-0000000000000001"] {
        let path = hide(name);
        let error = open(folder.path(), &disk).await.err().unwrap();
        assert!(matches!(error, Error::Corrupt { .. }), "{name}: {error}");
        std::fs::rename(folder.path().join("hidden"), path).unwrap();
    }
    let store = open(folder.path(), &disk).await.unwrap();
    assert_eq!(pull(&store, &sha256(&bytes)).await.unwrap(), bytes);
}

/// Rows of blobs like those of a real store, three of four small.
fn fill_index(folder: &Path, digests: &[Digest]) {
    let factory = RocksIndex {
        options: Default::default(),
    };
    let index = factory.open(&folder.join("index")).unwrap();
    let segment = SegmentId {
        volume: 0,
        class: Class::Raw,
        generation: 0,
        id: 1,
    };
    let extent = Extent {
        segment,
        offset: 4096,
        len: 900_000,
        body: 7,
    };
    let place = Place {
        home: Home::Journal(1),
        offset: 4096,
        prefix: 100,
        payload: 4_000,
    };
    for (page, digests) in digests.chunks(10_000).enumerate() {
        let mut batch = Batch::new();
        for (number, digest) in digests.iter().enumerate() {
            let ordinal = (page * 10_000 + number + 1) as u64;
            let row = row::Blob {
                state: State::Live,
                internal: false,
                ordinal,
                size: 4_000,
                birth: 1,
                form: match number % 4 {
                    0 => Form::Extents(vec![extent; 1 + number / 4 % 8]),
                    _ => Form::Inline(place),
                },
            };
            batch.put(Table::Blob, digest.bytes(), row.encode());
            batch.put(Table::Ordinal, ordinal.to_be_bytes(), digest.bytes());
        }
        index.apply(batch).unwrap();
    }
    index.flush().unwrap();
}

/// How fast a collection marks and sweeps: three million blobs, named in an
/// order that is not that of the index. Takes minutes, and a gigabyte of disk.
#[tokio::test]
#[ignore = "a measurement: cargo test --release -p orlop-engine --test it -- --ignored --nocapture marks"]
async fn three_million_marks_take_less_than_a_minute() {
    const BLOBS: u64 = 3_000_000;
    let disk: Arc<dyn Disk> = Blocking::new(2).unwrap();
    let folder = tempfile::tempdir().unwrap();
    close(open(folder.path(), &disk).await.unwrap()).await;
    let digests: Vec<Digest> = (0..BLOBS).map(|seed| sha256(&seed.to_le_bytes())).collect();
    fill_index(folder.path(), &digests);
    let store = open(folder.path(), &disk).await.unwrap();
    store.catalog_seen([7; 16], 1).await.unwrap();

    let rate = |what: &str, count: u64, began: std::time::Instant| {
        let took = began.elapsed();
        let each = count as f64 / took.as_secs_f64();
        println!("{what}: {count} in {took:.1?}, {each:.0} a second");
        took
    };
    let mut collector = store.collect().await.unwrap();
    let began = std::time::Instant::now();
    for page in digests.chunks(1_000) {
        collector.mark(page).unwrap();
    }
    let trailer = Trailer {
        digests: BLOBS,
        catalog: [7; 16],
        sequence: 1,
    };
    let mut sweep = collector.whole(trailer, false).unwrap();
    let marked = rate("marked", BLOBS, began);
    let began = std::time::Instant::now();
    while sweep.step().unwrap().is_some() {}
    let done = sweep.finish().unwrap();
    rate("swept", BLOBS, began);
    assert_eq!((done.live, done.blobs, done.absent), (BLOBS, BLOBS, 0));
    assert!(marked.as_secs() < 60, "{marked:?}");
    close(store).await;
}
