//! Stores that gave room back, on real files with RocksDB: what is removed or
//! punched by a record is no loss, and what is missing without one is.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use orlop_engine::{Config, Digest, Store, Trailer};
use orlop_format::digest::Algorithm;
use orlop_fsck::{Code, Report};

use crate::engine;
use crate::v1::content;

/// A store whose leases do not last.
async fn open(folder: &Path) -> Store {
    let config = Config {
        lease: Duration::ZERO,
        segment: 8 << 20,
        background_rate: 1 << 30,
        ..engine::config(folder)
    };
    let store = engine::opened(config).await.unwrap();
    store.catalog_seen([7; 16], 1).await.unwrap();
    store
}

fn during(folder: &Path, work: impl AsyncFnOnce(&Store)) {
    engine::with(open(folder), work);
}

async fn push(store: &Store, seed: u64, len: usize) -> Digest {
    let bytes = content(seed, len);
    let digest = Digest::of(Algorithm::Sha256, &bytes);
    engine::push(store, &bytes, digest).await;
    digest
}

async fn keep(store: &Store, live: &[Digest]) {
    for _ in 0..2 {
        let mut collector = store.collect().await.unwrap();
        collector.mark(live).unwrap();
        let trailer = Trailer {
            digests: live.len() as u64,
            catalog: [7; 16],
            sequence: 1,
        };
        let mut sweep = collector.whole(trailer, false).unwrap();
        while let Some(garbage) = sweep.step().unwrap() {
            sweep.end(&garbage, true).await.unwrap();
        }
        sweep.finish().unwrap();
    }
}

async fn reclaim(store: &Store) -> u64 {
    let mut pass = store.reclaim().await.unwrap();
    while pass.step().await.unwrap().is_some() {}
    assert_eq!((pass.total().held, pass.total().failed), (0, 0));
    pass.total().bytes
}

/// The files of a class, and what they take on the disk.
fn files(folder: &Path, class: &str) -> Vec<(PathBuf, u64)> {
    let names = std::fs::read_dir(folder.join("data").join(class)).unwrap();
    let mut files: Vec<_> = names
        .map(|entry| {
            let entry = entry.unwrap();
            (entry.path(), entry.metadata().unwrap().blocks() * 512)
        })
        .collect();
    files.sort();
    files
}

fn room(folder: &Path) -> u64 {
    let classes = ["raw", "small", "meta"].into_iter();
    let files = classes.flat_map(|class| files(folder, class));
    files.map(|(_, blocks)| blocks).sum()
}

/// A store that gave back all it could: large and small blobs, of which some
/// live, and uploads.
fn given_back(folder: &Path) {
    let mut live = Vec::new();
    during(folder, async |store| {
        let mut all = Vec::new();
        for seed in 0..40 {
            all.push(push(store, seed, 900_000).await);
        }
        for seed in 100..400 {
            all.push(push(store, seed, 60_000).await);
        }
        engine::recycled(store, 2).await;
        let lives = |number: &usize| *number > 8 && number.is_multiple_of(4);
        live = (0..all.len())
            .filter(lives)
            .map(|number| all[number])
            .collect();
        keep(store, &live).await;
    });
    let full = room(folder);
    let mut freed = 0;
    during(folder, async |store| {
        for _ in 0..2 {
            freed += reclaim(store).await;
        }
        assert_eq!(reclaim(store).await, 0);
        for digest in &live {
            assert!(store.read(digest).unwrap().bytes(1 << 20).await.is_ok());
        }
        // More of it, so that records of releases leave the journal.
        for seed in 500..800 {
            push(store, seed, 60_000).await;
        }
        engine::recycled(store, 3).await;
    });
    assert!(
        freed > 20 << 20 && full > room(folder) + (5 << 20),
        "{freed} of {full}"
    );
}

/// Small blobs move and die, uploads end, and the process is killed behind the pass:
/// the index then ends before or behind all of it, not between.
#[test]
fn what_a_kill_behind_a_pass_over_small_segments_leaves_is_clean() {
    let (folder, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut all = Vec::new();
    let mut uploads = Vec::new();
    during(folder.path(), async |store| {
        for seed in 0..300 {
            all.push(push(store, seed, 60_000).await);
            if seed % 20 == 0 {
                let id = store.upload_open("a/c", None).unwrap();
                let mut upload = store.upload_resume(id, "a/c").await.unwrap();
                let part = content(seed + 1_000_000, 50_000);
                upload.append(part.into()).await.unwrap();
                upload.checkpoint().await.unwrap();
                uploads.push(id);
            }
        }
        engine::recycled(store, 2).await;
    });
    let live: Vec<Digest> = all.iter().step_by(5).copied().collect();
    during(folder.path(), async |store| {
        keep(store, &live).await;
        // The deaths are flushed with the first pass; nothing dies behind it.
        let mut pass = store.reclaim().await.unwrap();
        let mut removed = 0;
        while let Some(done) = pass.step().await.unwrap() {
            if removed == 0 && done.segments > 0 {
                for id in &uploads {
                    let upload = store.upload_resume(*id, "a/c").await.unwrap();
                    upload.cancel().await.unwrap();
                }
            }
            removed += done.segments;
        }
        assert!(removed > 2, "{:?}", pass.total());
        drop(pass);
        tokio::time::sleep(Duration::from_millis(300)).await;
        engine::copy_tree(folder.path(), copy.path());
    });
    for folder in [&copy, &folder] {
        let report = check(folder.path());
        assert!(report.clean() && report.index.compared, "{report}");
    }
    during(copy.path(), async |store| {
        for digest in &live {
            assert!(store.read(digest).unwrap().bytes(1 << 20).await.is_ok());
        }
    });
}

fn check(folder: &Path) -> Report {
    orlop_fsck::check(folder).unwrap()
}

#[test]
fn a_store_that_gave_room_back_is_clean_and_one_that_lost_a_file_is_not() {
    let folder = tempfile::tempdir().unwrap();
    given_back(folder.path());
    let report = check(folder.path());
    assert!(report.clean() && report.index.compared, "{report}");
    // Made again from the log, the index says the same.
    std::fs::remove_dir_all(folder.path().join("index")).unwrap();
    during(folder.path(), async |store| {
        push(store, 1, 900_000).await;
        reclaim(store).await;
    });
    let report = check(folder.path());
    assert!(report.clean() && report.index.compared, "{report}");

    for class in ["raw", "small", "meta"] {
        let (file, _) = &files(folder.path(), class)[0];
        let aside = folder.path().join("aside");
        std::fs::rename(file, &aside).unwrap();
        let report = check(folder.path());
        let missing = |finding: &orlop_fsck::Finding| finding.code == Code::SegmentMissing;
        assert!(report.findings.iter().any(missing), "{class}: {report}");
        std::fs::rename(&aside, file).unwrap();
    }
}

#[test]
fn a_hole_under_a_blob_is_found() {
    let folder = tempfile::tempdir().unwrap();
    given_back(folder.path());
    let (file, _) = &files(folder.path(), "raw")[0];
    let bytes = std::fs::read(file).unwrap();
    // The first block that is no hole begins an extent that lives.
    let extent = (1..).find(|at| bytes[at * 4096..][..4096].iter().any(|byte| *byte != 0));
    let mut damaged = bytes.clone();
    damaged[(extent.unwrap() + 1) * 4096..][..8192].fill(0);
    std::fs::write(file, damaged).unwrap();
    let report = check(folder.path());
    let found = |finding: &orlop_fsck::Finding| finding.code == Code::ExtentPayload;
    assert!(report.findings.iter().any(found), "{report}");
}

/// Real files with nothing but large blobs: so many segments of nine, of which so
/// many live.
fn large(folder: &Path, segments: usize, live_of_9: usize) -> Vec<Digest> {
    let mut live = Vec::new();
    during(folder, async |store| {
        for number in 0..segments * 9 {
            let digest = push(store, number as u64, 900_000).await;
            if number % 9 < live_of_9 {
                live.push(digest);
            }
        }
        keep(store, &live).await;
    });
    live
}

/// Segments of which little lives are joined: log, index and files agree, also
/// when the index is made again.
#[test]
fn segments_that_were_joined_are_clean() {
    let folder = tempfile::tempdir().unwrap();
    let live = large(folder.path(), 9, 1);
    let all = files(folder.path(), "raw").len();
    during(folder.path(), async |store| {
        let mut pass = store.reclaim().await.unwrap();
        while pass.step().await.unwrap().is_some() {}
        let total = pass.total();
        assert!(total.moved > 8 * 900_000 && total.failed == 0, "{total:?}");
        // Records of moves leave the journal.
        for seed in 500..900 {
            push(store, seed, 60_000).await;
        }
        engine::recycled(store, 2).await;
    });
    assert!(all >= 9 && files(folder.path(), "raw").len() <= 3);
    let report = check(folder.path());
    assert!(report.clean() && report.index.compared, "{report}");
    std::fs::remove_dir_all(folder.path().join("index")).unwrap();
    during(folder.path(), async |store| {
        for digest in &live {
            assert!(store.read(digest).unwrap().bytes(1 << 20).await.is_ok());
        }
    });
    let report = check(folder.path());
    assert!(report.clean() && report.index.compared, "{report}");
}

/// What the store says of its bytes is what the check adds up from the log, and
/// what the file system has given.
#[test]
fn the_accounts_are_those_of_the_check_and_of_the_disk_to_the_block() {
    const BLOCK: u64 = 4096;
    let folder = tempfile::tempdir().unwrap();
    large(folder.path(), 3, 5);
    let space = |all: bool| {
        let mut space = None;
        during(folder.path(), async |store| {
            if all {
                let mut pass = store.reclaim_all().await.unwrap();
                while pass.step().await.unwrap().is_some() {}
                assert_eq!(pass.total().failed, 0);
            }
            space = Some(store.space().await.unwrap());
        });
        space.unwrap()
    };
    // Before anything came back: those that were sealed are what the check sees.
    let before = space(false);
    let report = check(folder.path());
    assert_eq!(before.live, report.counts.live_bytes);
    assert!(
        before.dead >= 12 * 900_000 && before.released == 0,
        "{before:?}"
    );

    let after = space(true);
    assert_eq!((after.live, after.dead), (before.live, 0), "{after:?}");
    assert!(after.released >= 12 * 900_000, "{after:?}");
    let report = check(folder.path());
    assert!(report.clean(), "{report}");
    assert_eq!(after.live, report.counts.live_bytes);
    assert_eq!(report.counts.unowned_extents, 0);
    let raw = files(folder.path(), "raw");
    assert_eq!(after.segments, raw.len() as u64);
    // A first block and a footer of one block each.
    let frames = after.live + after.dead + after.released;
    let lens = raw.iter().map(|(file, _)| file.metadata().unwrap().len());
    assert_eq!(lens.sum::<u64>(), frames + after.segments * 2 * BLOCK);
    let given: u64 = raw.iter().map(|(_, blocks)| *blocks).sum();
    let wanted = after.live + after.segments * 2 * BLOCK;
    // The file system itself may need a block for the map of a file with holes.
    let most = wanted + after.segments * BLOCK;
    assert!(
        (wanted..=most).contains(&given),
        "{given}, {wanted}: {after:?}"
    );
}
