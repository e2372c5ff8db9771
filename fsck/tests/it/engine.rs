//! Stores that the real engine made, with RocksDB on real files: whole ones
//! are clean, index and all, after recycling, restarts, kills, a rebuild and
//! uploads under way.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use orlop_disk::Disk;
use orlop_disk::blocking::Blocking;
use orlop_engine::{Config, Progress, RocksIndex, Store, System};
use orlop_format::digest::{Algorithm, Digest};
use orlop_fsck::{Code, Content, Options, Report};

use crate::v1::content;

async fn open(folder: &Path) -> Store {
    tried(folder).await.unwrap()
}

/// What a start comes to.
pub(crate) async fn tried(folder: &Path) -> Result<Store, orlop_engine::Error> {
    opened(config(folder)).await
}

pub(crate) fn config(folder: &Path) -> Config {
    let mut config = Config::new(folder.to_owned());
    config.journal_file = 4 << 20;
    config.segment = 16 << 20;
    config.reserve = Some(0);
    config
}

pub(crate) async fn opened(config: Config) -> Result<Store, orlop_engine::Error> {
    let index = RocksIndex {
        options: Default::default(),
    };
    let disk: Arc<dyn Disk> = Blocking::new(2).unwrap();
    Store::open(config, System::start(), disk, &index, &Progress::default()).await
}

/// Opens the store in a folder, does something and closes it. Upkeep may go on
/// for a moment behind that; it ends with the runtime.
pub(crate) fn during(folder: &Path, work: impl AsyncFnOnce(&Store)) {
    with(open(folder), work);
}

/// The same of a store that is opened like this.
pub(crate) fn with(store: impl Future<Output = Store>, work: impl AsyncFnOnce(&Store)) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let store = store.await;
        work(&store).await;
        store.close().await.unwrap();
    });
}

fn sha256(bytes: &[u8]) -> Digest {
    Digest::of(Algorithm::Sha256, bytes)
}

pub(crate) async fn push(store: &Store, bytes: &[u8], digest: Digest) {
    let id = store.upload_open("a/b", None).unwrap();
    let mut upload = store.upload_resume(id, "a/b").await.unwrap();
    for piece in bytes.chunks(300_000) {
        upload.append(Bytes::copy_from_slice(piece)).await.unwrap();
    }
    upload.commit(digest, None).await.unwrap();
}

/// Bytes of the blob that a seed gives.
fn length(seed: u64) -> usize {
    match seed % 10 {
        0 => 70_000 + seed as usize * 331,
        1 => 1_500_000,
        2 => 0,
        _ => 20_000 + (seed as usize * 7919) % 45_000,
    }
}

/// Blobs of many sizes, some known by a further digest, some uploads that go
/// on, some that came to nothing, and enough of it for some recycling.
pub(crate) async fn fill(store: &Store, seeds: std::ops::Range<u64>) {
    for seed in seeds {
        let bytes = content(seed + 1, length(seed));
        let digest = if seed % 7 == 0 {
            Digest::of(Algorithm::Sha512, &bytes)
        } else {
            sha256(&bytes)
        };
        if seed % 7 == 0 {
            let id = store.upload_open("a/b", Some(Algorithm::Sha512)).unwrap();
            let mut upload = store.upload_resume(id, "a/b").await.unwrap();
            upload.append(Bytes::from(bytes)).await.unwrap();
            upload.commit(digest, None).await.unwrap();
        } else {
            push(store, &bytes, digest).await;
        }
        if seed % 25 == 3 {
            let id = store.upload_open("a/c", None).unwrap();
            let mut upload = store.upload_resume(id, "a/c").await.unwrap();
            let part = content(seed + 1_000_000, 400_000);
            upload.append(Bytes::from(part)).await.unwrap();
            upload.checkpoint().await.unwrap();
        }
    }
}

fn check(folder: &Path) -> Report {
    orlop_fsck::check(folder).unwrap()
}

#[track_caller]
fn clean(report: &Report) {
    assert!(report.clean(), "{report}");
    assert!(report.index.compared, "{report}");
}

#[test]
fn what_the_engine_writes_is_clean_with_its_index() {
    let folder = tempfile::tempdir().unwrap();
    during(folder.path(), async |store| {
        fill(store, 0..700).await;
        recycled(store, 2).await;
    });
    let report = check(folder.path());
    clean(&report);
    assert!(
        report.counts.blobs > 500 && report.counts.index_rows > 1_200,
        "{report}"
    );

    // Opened again, and the index made again from the log.
    std::fs::remove_dir_all(folder.path().join("index")).unwrap();
    let report = check(folder.path());
    assert!(report.clean(), "{report}");
    let mut notes = report.notes().iter();
    assert!(
        notes.any(|note| note.code == Code::IndexMissing),
        "{report}"
    );
    during(folder.path(), async |store| fill(store, 700..760).await);
    clean(&check(folder.path()));
}

/// Waits for so many files to be recycled.
pub(crate) async fn recycled(store: &Store, count: u64) {
    for _ in 0..400 {
        if store.health().await.counts.recycled >= count {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("nothing was recycled");
}

#[test]
fn a_blob_whose_record_rotted_is_in_quarantine_after_recycling_and_no_row_differs() {
    let folder = tempfile::tempdir().unwrap();
    during(folder.path(), async |store| fill(store, 0..30).await);
    let small = content(4, length(3));
    flip(&folder.path().join("journal"), &small[100..140]);
    let report = check(folder.path());
    assert_eq!(report.findings().len(), 1, "{report}");
    assert_eq!(report.findings()[0].code, Code::RecordPayload);
    during(folder.path(), async |store| {
        fill(store, 100..800).await;
        recycled(store, 2).await;
    });
    let report = check(folder.path());
    clean(&report);
    assert_eq!(report.counts.quarantined, 1, "{report}");
    // And with an index that was made again.
    std::fs::remove_dir_all(folder.path().join("index")).unwrap();
    during(folder.path(), async |_| {});
    let report = check(folder.path());
    clean(&report);
    assert_eq!(report.counts.quarantined, 1, "{report}");
}

/// The runtime's threads are gone, nothing was closed or flushed: what a kill
/// leaves, short of what the system had not written yet.
#[test]
fn what_a_kill_leaves_is_clean_with_an_index_that_lags() {
    let folder = tempfile::tempdir().unwrap();
    let runtime = || {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap()
    };
    for round in 0..3u64 {
        let running = runtime();
        let copy = tempfile::tempdir().unwrap();
        running.block_on(async {
            let store = open(folder.path()).await;
            fill(&store, round * 100..round * 100 + 100).await;
            // As the files are while the store is open.
            copy_tree(folder.path(), copy.path());
            store.close().await.unwrap();
        });
        let report = check(copy.path());
        clean(&report);
        let unclean = report
            .notes()
            .iter()
            .any(|note| note.code == Code::JournalUnclean);
        assert!(unclean, "{report}");
        clean(&check(folder.path()));
    }
}

pub(crate) fn copy_tree(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            copy_tree(&entry.path(), &to);
        } else if kind.is_file() && entry.file_name() != "LOCK" {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

#[test]
fn threads_and_a_budget_change_what_is_covered_and_not_what_is_found() {
    let folder = tempfile::tempdir().unwrap();
    during(folder.path(), async |store| fill(store, 0..150).await);
    // A byte of a large blob, and one of a small one in the journal.
    flip(
        &folder.path().join("data/raw"),
        &content(2, 1_500_000)[700_000..700_040],
    );
    let small = content(4, length(3));
    flip(&folder.path().join("journal"), &small[100..140]);
    let look = |options: &Options| orlop_fsck::check_with(folder.path(), options).unwrap();
    let alone = look(&Options::default());
    let codes = |report: &Report| -> Vec<String> {
        report
            .findings()
            .iter()
            .map(|f| format!("{} {}", f.code, f.about))
            .collect()
    };
    assert_eq!(alone.findings().len(), 2, "{alone}");
    let threads = look(&Options {
        threads: 3,
        ..Options::default()
    });
    assert_eq!(codes(&alone), codes(&threads));
    assert_eq!(alone.counts, threads.counts);
    assert_eq!(alone.coverage, threads.coverage);
    assert!(threads.coverage.complete);

    let none = look(&Options {
        content: Content::None,
        ..Options::default()
    });
    assert_eq!((none.coverage.blobs, none.coverage.complete), (0, false));
    assert_eq!(none.coverage.blobs_of, alone.coverage.blobs_of);

    // No time at all: the metadata is looked at, and the report says where to
    // go on. All the way from there is all of it.
    let hurried = look(&Options {
        budget: Some(Duration::ZERO),
        ..Options::default()
    });
    assert_eq!(
        (hurried.coverage.blobs, hurried.coverage.complete),
        (0, false)
    );
    let next = hurried.coverage.next.clone().unwrap();
    let rest = look(&Options {
        from: Some(next.parse().unwrap()),
        ..Options::default()
    });
    assert_eq!(codes(&rest), codes(&alone));
    assert_eq!(rest.coverage.blobs, alone.coverage.blobs);
    // From the raw segments on, what lies before is passed over.
    let raw = look(&Options {
        from: Some("data/raw/S-0000000000000000.00000000@0".parse().unwrap()),
        ..Options::default()
    });
    assert!(
        raw.coverage.blobs > 0 && raw.coverage.blobs < alone.coverage.blobs,
        "{raw}"
    );
    let sample = |seed| {
        look(&Options {
            content: Content::Sample(30.0),
            seed,
            ..Options::default()
        })
        .coverage
    };
    let (one, two) = (sample(1), sample(2));
    assert_eq!(one, sample(1));
    assert_ne!(one.bytes, two.bytes);
    assert!((10..90).contains(&one.blobs), "{one:?}");
}

/// Flips a bit of `needle` in whichever file of a folder has it.
pub(crate) fn flip(folder: &Path, needle: &[u8]) {
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let mut bytes = std::fs::read(&path).unwrap();
        let mut windows = bytes.windows(needle.len());
        if let Some(at) = windows.position(|window| window == needle) {
            bytes[at] ^= 1;
            std::fs::write(path, bytes).unwrap();
            count += 1;
        }
    }
    assert_eq!(count, 1);
}
