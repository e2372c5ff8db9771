//! What only a catalog in a file goes through: crashes, copies, damage, full
//! devices, failed writes.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use orlop::catalog::{Catalog, CatalogError, JobProgress, JobState};
use orlop::jobs::{Jobs, Run, Stop, Work};
use orlop::supervisor::Supervisor;
use sqlx::{Connection, Executor as _};
use tempfile::TempDir;

use crate::cases::{digest, lookup, manifest};
use crate::place::{Place, sqlite};

/// Copies with a process of its own: closing the file in this one would drop
/// SQLite's locks.
fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg(from).arg(to).status().unwrap();
    assert!(copied.success());
}

fn wal(folder: &Path) -> PathBuf {
    folder.join("catalog.db-wal")
}

/// Puts manifests until the test ends it; every answered one must be found.
async fn put_numbers(catalog: &Catalog, numbers: std::ops::Range<u32>) {
    for number in numbers {
        let name = format!("m{number}");
        catalog
            .put_manifest(manifest("r", &name, &[&name]))
            .await
            .unwrap();
    }
}

async fn check_numbers(catalog: &Catalog, numbers: std::ops::Range<u32>) {
    for number in numbers {
        let name = format!("m{number}");
        assert_eq!(lookup(catalog, "r", &name).await, Some(digest(&name)));
    }
    let (kept, counted) = catalog.totals("r").await.unwrap().unwrap();
    assert_eq!(kept, counted);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_survives_a_crash() {
    let folder = TempDir::new().unwrap();
    let catalog = Place::file(folder.path()).open().await;
    for round in 1..=5 {
        put_numbers(&catalog, (round - 1) * 20..round * 20).await;
        let crashed = TempDir::new().unwrap();
        copy(&folder.path().join("catalog.db"), crashed.path());
        copy(&wal(folder.path()), crashed.path());
        let after = Place::file(crashed.path()).try_open(false).await.unwrap();
        assert_eq!(after.id(), catalog.id());
        assert_eq!(after.sequence(), catalog.sequence());
        check_numbers(&after, 0..round * 20).await;
        after.close().await;
    }
    catalog.close().await;
}

/// A write-ahead file cut anywhere holds a prefix of the commits.
#[tokio::test(flavor = "multi_thread")]
async fn a_torn_commit_is_no_commit() {
    let folder = TempDir::new().unwrap();
    let catalog = Place::file(folder.path()).open().await;
    put_numbers(&catalog, 0..30).await;
    let whole = TempDir::new().unwrap();
    copy(&folder.path().join("catalog.db"), whole.path());
    copy(&wal(folder.path()), whole.path());
    let bytes = std::fs::read(wal(whole.path())).unwrap();
    let mut sequences = Vec::new();
    for part in 0..=12 {
        let torn = TempDir::new().unwrap();
        copy(&whole.path().join("catalog.db"), torn.path());
        std::fs::write(wal(torn.path()), &bytes[..bytes.len() * part / 12]).unwrap();
        let place = Place::file(torn.path());
        let after = place.try_open(false).await.unwrap();
        let manifests = after
            .totals("r")
            .await
            .unwrap()
            .map_or(0, |(kept, counted)| {
                assert_eq!(kept, counted);
                kept.manifests as u32
            });
        // One repository, then a manifest and a tag each.
        let expected = if manifests == 0 {
            0
        } else {
            1 + 2 * u64::from(manifests)
        };
        assert_eq!(after.sequence(), expected);
        if manifests > 0 {
            check_numbers(&after, 0..manifests).await;
        }
        sequences.push(after.sequence());
        after.close().await;
    }
    assert!(sequences.is_sorted() && sequences[0] == 0, "{sequences:?}");
    assert_eq!(sequences[12], catalog.sequence());
    catalog.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_without_closing_loses_nothing() {
    let folder = TempDir::new().unwrap();
    let place = Place::file(folder.path());
    for round in 0..3 {
        let catalog = place.open().await;
        put_numbers(&catalog, round * 10..round * 10 + 10).await;
        drop(catalog);
    }
    let catalog = place.open().await;
    check_numbers(&catalog, 0..30).await;
    catalog.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_are_whole_and_checked() {
    let folder = TempDir::new().unwrap();
    let catalog = Place::file(folder.path()).open().await;
    put_numbers(&catalog, 0..50).await;
    let target = TempDir::new().unwrap();
    let place = Place::file(target.path());
    let path = target.path().join("catalog.db");
    // Changes go on meanwhile.
    let writer = tokio::spawn({
        let catalog = catalog.clone();
        async move { put_numbers(&catalog, 50..120).await }
    });
    let before = catalog.sequence();
    let sequence = catalog.copy_to(&path).await.unwrap();
    assert!(sequence >= before);
    writer.await.unwrap();
    let names: Vec<_> = std::fs::read_dir(target.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names, ["catalog.db"], "something was left behind");
    let error = catalog.copy_to(&path).await.unwrap_err();
    assert!(error.to_string().contains("it is there"), "{error}");
    let copied = place.try_open(false).await.unwrap();
    assert_eq!((copied.id(), copied.sequence()), (catalog.id(), sequence));
    check_numbers(&copied, 0..50).await;
    copied.close().await;
    let nowhere = target.path().join("absent/catalog.db");
    catalog.copy_to(&nowhere).await.unwrap_err();
    catalog.close().await;
}

/// A copy of a damaged catalog is refused and not left behind.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_catalog_is_not_copied() {
    let folder = TempDir::new().unwrap();
    let place = Place::file(folder.path());
    let catalog = place.open().await;
    put_numbers(&catalog, 0..200).await;
    catalog.close().await;
    let path = folder.path().join("catalog.db");
    let mut bytes = std::fs::read(&path).unwrap();
    let pages = bytes.len() / 4096;
    // The later pages hold rows; those that opening reads come first.
    for page in (pages / 2..pages).step_by(2) {
        bytes[page * 4096 + 8..page * 4096 + 200].fill(0xa5);
    }
    std::fs::write(&path, bytes).unwrap();
    let catalog = place.try_open(false).await.unwrap();
    let target = folder.path().join("copy.db");
    let error = catalog.copy_to(&target).await.unwrap_err();
    assert!(matches!(error, CatalogError::Damaged(_)), "{error:?}");
    assert!(!target.exists() && !folder.path().join("copy.db.part").exists());
    catalog.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_catalog_is_refused() {
    let folder = TempDir::new().unwrap();
    let place = Place::file(folder.path());
    let path = folder.path().join("catalog.db");
    let cases: [(&str, Vec<u8>); 3] = [
        ("empty", Vec::new()),
        (
            "text",
            b"not a database, but long enough to be looked at".repeat(200),
        ),
        ("zeros", vec![0; 8192]),
    ];
    for (what, bytes) in cases {
        std::fs::write(&path, &bytes).unwrap();
        for create in [true, false] {
            let error = place.try_open(create).await.unwrap_err();
            assert!(
                matches!(error, CatalogError::Damaged(_)),
                "{what}: {error:?}"
            );
        }
        let _ = std::fs::remove_file(wal(folder.path()));
        let _ = std::fs::remove_file(folder.path().join("catalog.db-shm"));
        std::fs::remove_file(&path).unwrap();
    }
    // Another program's database.
    std::fs::write(&path, b"").unwrap();
    let mut connection = sqlite(&path).await;
    sqlx::raw_sql("CREATE TABLE catalog (one INTEGER)")
        .execute(&mut connection)
        .await
        .unwrap();
    connection.close().await.unwrap();
    let error = place.try_open(true).await.unwrap_err();
    assert!(
        error.to_string().contains("not a catalog of Orlop"),
        "{error}"
    );
    std::fs::remove_file(&path).unwrap();
    // A write-ahead file without its catalog may hold names.
    std::fs::write(wal(folder.path()), b"frames").unwrap();
    let error = place.try_open(true).await.unwrap_err();
    assert!(error.to_string().contains("may hold names"), "{error}");
    std::fs::remove_file(wal(folder.path())).unwrap();
    // What a crash while it was made leaves behind is in nobody's way.
    std::fs::write(folder.path().join("catalog.db.new"), b"half").unwrap();
    place.open().await.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_write_ahead_file_stays_small() {
    let folder = TempDir::new().unwrap();
    let catalog = Place::file(folder.path()).open().await;
    let mut largest = 0;
    for number in 0..2000 {
        let name = format!("m{number}");
        let mut put = manifest("r", &name, &[&name]);
        put.annotations = Some(format!("{{\"k\":\"{}\"}}", "x".repeat(50_000)));
        catalog.put_manifest(put).await.unwrap();
        largest = largest.max(wal(folder.path()).metadata().unwrap().len());
    }
    eprintln!(
        "largest write-ahead file: {largest} bytes, {:?}",
        catalog.counters()
    );
    // 100 MB were written. The checkpointer runs beside: give it some slack.
    assert!(
        catalog.counters().checkpoints >= 2,
        "{:?}",
        catalog.counters()
    );
    assert!(largest < 60 << 20, "{largest} bytes");
    check_numbers(&catalog, 0..2000).await;
    catalog.close().await;
    let left = wal(folder.path()).metadata().map_or(0, |data| data.len());
    assert_eq!(left, 0, "the last checkpoint empties it");
}

/// A device of 3 MiB: `Full` until something goes, then on as before.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_device_refuses_and_recovers() {
    let folder = TempDir::new().unwrap();
    let device = folder.path().join("device");
    std::fs::create_dir(&device).unwrap();
    let mount = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=3m", "tmpfs"])
        .arg(&device)
        .output();
    if !mount.is_ok_and(|output| output.status.success()) {
        eprintln!("a_full_device_refuses_and_recovers: skipped, cannot mount a tmpfs here");
        return;
    }
    let filled = tokio::spawn(fill_and_recover(device.clone())).await;
    let unmounted = Command::new("umount").arg("-l").arg(&device).status();
    assert!(unmounted.unwrap().success());
    filled.unwrap();
}

async fn fill_and_recover(device: PathBuf) {
    let catalog = Place::file(&device).open().await;
    let ballast = device.join("ballast");
    std::fs::write(&ballast, vec![0; 1 << 20]).unwrap();
    let mut next = 0;
    let error = loop {
        let name = format!("m{next}");
        match catalog.put_manifest(manifest("r", &name, &[&name])).await {
            Ok(()) => next += 1,
            Err(error) => break error,
        }
        assert!(next < 20_000, "the device never filled");
    };
    assert!(matches!(error, CatalogError::Full(_)), "{error:?}");
    assert_eq!(catalog.poisoned(), None, "a full device is no poison");
    check_numbers(&catalog, 0..next).await;
    std::fs::remove_file(&ballast).unwrap();
    put_numbers(&catalog, next..next + 20).await;
    catalog.close().await;
    let catalog = Place::file(&device).try_open(false).await.unwrap();
    check_numbers(&catalog, 0..next + 20).await;
    catalog.close().await;
}

/// Runs the test below in a process whose files may not grow: writing fails.
#[test]
fn a_failed_write_ends_all_writing() {
    let test = std::env::current_exe().unwrap();
    let run = Command::new("sh")
        .args([
            "-c",
            "trap '' XFSZ; ulimit -f 512; exec \"$0\" --ignored --exact \"$1\" --nocapture",
        ])
        .arg(test)
        .arg("file::in_a_process_whose_files_may_not_grow")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&run.stdout);
    let errors = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{text}\n{errors}");
    assert!(text.contains("1 passed"), "{text}\n{errors}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by a_failed_write_ends_all_writing, in a process of its own"]
async fn in_a_process_whose_files_may_not_grow() {
    let folder = TempDir::new().unwrap();
    let place = Place::file(folder.path());
    let catalog = place.open().await;
    let mut next = 0;
    let error = loop {
        let name = format!("m{next}");
        match catalog.put_manifest(manifest("r", &name, &[&name])).await {
            Ok(()) => next += 1,
            Err(error) => break error,
        }
        assert!(next < 20_000, "no write failed");
    };
    assert!(matches!(error, CatalogError::Poisoned(_)), "{error:?}");
    assert!(catalog.poisoned().is_some());
    // Nothing is tried again, not even what would fit; reads go on.
    tokio::time::sleep(Duration::from_millis(50)).await;
    let again = catalog.delete_tag("r", "m0").await.unwrap_err();
    assert_eq!(again, error);
    check_numbers(&catalog, 0..next).await;
    catalog.close().await;
    let catalog = place.try_open(false).await.unwrap();
    check_numbers(&catalog, 0..next).await;
    catalog.close().await;
}

/// Another process holds the file for longer than a statement waits: the batch
/// fails, and its changes are run again.
#[tokio::test(flavor = "multi_thread")]
async fn changes_of_a_failed_batch_are_run_again() {
    let folder = TempDir::new().unwrap();
    let catalog = Place::file(folder.path()).open().await;
    put_numbers(&catalog, 0..1).await;
    let mut other = sqlite(&folder.path().join("catalog.db")).await;
    sqlx::raw_sql("BEGIN IMMEDIATE")
        .execute(&mut other)
        .await
        .unwrap();
    let tasks: Vec<_> = (1..6)
        .map(|number| {
            let catalog = catalog.clone();
            tokio::spawn(async move { put_numbers(&catalog, number..number + 1).await })
        })
        .collect();
    // Reads go on meanwhile.
    assert_eq!(lookup(&catalog, "r", "m0").await, Some(digest("m0")));
    tokio::time::sleep(Duration::from_millis(6500)).await;
    assert_eq!(catalog.counters().verbs, 1);
    sqlx::raw_sql("ROLLBACK").execute(&mut other).await.unwrap();
    other.close().await.unwrap();
    for task in tasks {
        task.await.unwrap();
    }
    check_numbers(&catalog, 0..6).await;
    assert_eq!(catalog.sequence(), 1 + 6 * 2);
    catalog.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i18_how_long_a_transaction_hangs_is_told_until_it_comes_back() {
    let folder = TempDir::new().unwrap();
    let catalog = Place::file(folder.path()).open().await;
    assert_eq!(catalog.writing(), Duration::ZERO);
    // As a sync that does not come back, for less than the writer waits.
    let mut other = sqlite(&folder.path().join("catalog.db")).await;
    other.execute("BEGIN IMMEDIATE").await.unwrap();
    let putting = catalog.clone();
    let putting = tokio::spawn(async move { put_numbers(&putting, 0..1).await });
    let began = Instant::now();
    while catalog.writing() < Duration::from_millis(200) {
        assert!(began.elapsed() < Duration::from_secs(4), "not told");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(!putting.is_finished());
    other.execute("ROLLBACK").await.unwrap();
    putting.await.unwrap();
    assert_eq!(catalog.writing(), Duration::ZERO);
    other.close().await.unwrap();
    check_numbers(&catalog, 0..1).await;
    catalog.close().await;
}

/// Work that says one thing and is done.
struct Talker;

fn ten() -> JobProgress {
    JobProgress {
        done: 10,
        total: 10,
        unit: "steps".to_owned(),
    }
}

impl Work for Talker {
    fn kind(&self) -> &'static str {
        "talker"
    }

    fn run(self: Arc<Self>, run: Arc<Run>) -> BoxFuture<'static, Result<String, Stop>> {
        async move {
            run.report(ten(), b"the end".to_vec());
            run.log("the last words".to_owned());
            Ok("all of it".to_owned())
        }
        .boxed()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_job_reported_last_outlives_an_end_that_could_not_be_written() {
    let folder = TempDir::new().unwrap();
    let place = Place::file(folder.path());
    let catalog = place.open().await;
    // What a runner says is refused; that a job is taken is not.
    place
        .raw(
            "CREATE TRIGGER refuse BEFORE UPDATE OF done ON job \
             BEGIN SELECT RAISE(ABORT, 'not now'); END",
        )
        .await;
    let clock = Arc::new(|| 1_000);
    let jobs = Jobs::new(catalog.clone(), "one".to_owned(), clock).with(Arc::new(Talker), None);
    let running = jobs.clone();
    let running = tokio::spawn(async move { running.run(&Supervisor::default()).await });
    let id = jobs.start("talker", "{}").await.unwrap().id;
    let began = Instant::now();
    while jobs.show(id).await.unwrap().state == JobState::Queued {
        assert!(began.elapsed() < Duration::from_secs(20), "never taken");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // Its work is done within moments, and its end is refused at least once.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let job = catalog.job(id).await.unwrap().unwrap();
    assert_eq!((job.state, job.progress.done), (JobState::Running, 0));
    assert_eq!(jobs.log(id).await.unwrap(), []);
    place.raw("DROP TRIGGER refuse").await;
    while jobs.show(id).await.unwrap().state == JobState::Running {
        assert!(began.elapsed() < Duration::from_secs(20), "never ended");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let job = jobs.show(id).await.unwrap();
    assert_eq!(job.state, JobState::Done, "{job:?}");
    assert_eq!(job.outcome, "all of it");
    assert_eq!(job.progress, ten());
    assert_eq!(job.place.as_deref(), Some(&b"the end"[..]));
    let log = jobs.log(id).await.unwrap();
    assert_eq!(log.len(), 1, "{log:?}");
    assert_eq!(log[0].text, "the last words");
    jobs.stop().await;
    running.await.unwrap();
    catalog.close().await;
}
