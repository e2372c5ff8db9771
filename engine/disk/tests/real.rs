//! What only disks over the operating system's files can show: a full file
//! system, one without direct I/O, and threads that end.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]
#![allow(
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod support;

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use orlop_disk::blocking::Blocking;
use orlop_disk::uring::Uring;
use orlop_disk::{
    Access, BLOCK, Backend, Choice, Disk, File, Kind, OpenOptions, Pool, probe, select,
};
use support::{B, INLINE, SHARED, block_on, filled, read, real_benches, write};

/// A mounted file system that goes away with it.
struct Mount(tempfile::TempDir);

impl Mount {
    /// `None`, with the reason printed, where mounting is not allowed.
    fn new(kind: &str, options: &str) -> Option<Mount> {
        let folder = tempfile::tempdir().unwrap();
        let result = Command::new("mount")
            .args(["-t", kind, "-o", options, "orlop-test"])
            .arg(folder.path())
            .output();
        match result {
            Ok(output) if output.status.success() => Some(Mount(folder)),
            Ok(output) => {
                let why = String::from_utf8_lossy(&output.stderr);
                println!("skipped: {kind} cannot be mounted: {}", why.trim());
                None
            }
            Err(error) => {
                println!("skipped: mount cannot be run: {error}");
                None
            }
        }
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        wait_until("the test mount to be free", || {
            let unmounted = Command::new("umount").arg(self.path()).output();
            unmounted.is_ok_and(|output| output.status.success())
        });
    }
}

/// Waits for what happens soon.
fn wait_until(what: &str, mut happened: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !happened() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_full_file_system_is_told_as_full_and_reads_go_on() {
    let Some(mount) = Mount::new("tmpfs", "size=1m") else {
        return;
    };
    for bench in real_benches() {
        for options in [SHARED, INLINE] {
            let path = mount.path().join("file");
            // The ring lets go of a closed file a moment after its last answer.
            wait_until("the room of the last round", || {
                bench.disk.space(mount.path()).unwrap().available == 1 << 20
            });
            let file = bench.disk.open(&path, options).unwrap();
            block_on(async {
                let mut offset = 0;
                let error = loop {
                    match write(&file, offset, bench.fill(64 * BLOCK, 3)).await {
                        Ok(()) => offset += 64 * B,
                        Err(error) => break error,
                    }
                    assert!(
                        offset <= 1 << 20,
                        "{}: more than the file system holds",
                        bench.name
                    );
                };
                assert_eq!(error.kind, Kind::Full, "{}: {error}", bench.name);
                assert!(error.to_string().starts_with("cannot write "), "{error}");
                assert_eq!(
                    read(&file, &bench.pool, 0, BLOCK).await.unwrap(),
                    [3; BLOCK]
                );
                let allocated = file.allocate(0, 8 << 20).unwrap_err();
                assert_eq!(allocated.kind, Kind::Full, "{}: {allocated}", bench.name);
            });
            bench.disk.remove(&path).unwrap();
        }
        assert_eq!(bench.pool.in_use(), 0, "{}", bench.name);
    }
}

#[test]
fn the_best_access_that_is_offered_is_taken_and_told() {
    use rustix::fs::{Mode, OFlags};
    for bench in real_benches() {
        let direct = bench.open("file", SHARED).access();
        let flags = OFlags::RDWR | OFlags::DIRECT;
        let offered = rustix::fs::open(bench.path("file"), flags, Mode::empty()).is_ok();
        println!("{}: {direct:?}; O_DIRECT offered: {offered}", bench.name);
        match bench.name.rsplit(' ').next().unwrap() {
            "Direct" => assert_eq!(direct == Access::Direct, offered),
            "DontCache" => assert_ne!(direct, Access::Direct),
            _ => assert_eq!(direct, Access::Buffered),
        }
        let loose = bench.open(
            "file",
            OpenOptions {
                direct: false,
                ..SHARED
            },
        );
        assert_eq!(loose.access(), Access::Buffered, "{}", bench.name);
    }
}

#[test]
fn a_file_system_without_direct_io_gets_the_page_cache() {
    let Some(mount) = Mount::new("ramfs", "mode=700") else {
        return;
    };
    let mut seen = Vec::new();
    for bench in real_benches() {
        let path = mount.path().join("file");
        let new = OpenOptions {
            create: orlop_disk::Create::New,
            ..SHARED
        };
        let file = bench.disk.open(&path, new).unwrap();
        seen.push(file.access());
        block_on(async {
            write(&file, 0, bench.fill(2 * BLOCK, 8)).await.unwrap();
            assert_eq!(
                read(&file, &bench.pool, B, BLOCK).await.unwrap(),
                [8; BLOCK]
            );
            let error = write(&file, 1, bench.fill(BLOCK, 8)).await.unwrap_err();
            assert_eq!(
                error.kind,
                Kind::Invalid,
                "alignment does not depend on the access"
            );
        });
        let report = probe::inspect(bench.disk.as_ref(), mount.path()).unwrap();
        assert_eq!(
            (report.file_system.as_str(), report.access),
            ("ramfs", file.access())
        );
        assert!(
            report.notes.iter().any(|note| note.contains("in memory")),
            "{report:?}"
        );
        bench.disk.remove(&path).unwrap();
        assert_eq!(bench.disk.list(mount.path()).unwrap(), [""; 0]);
    }
    assert!(
        seen.contains(&Access::Buffered),
        "ramfs took O_DIRECT: {seen:?}"
    );
}

#[test]
fn the_ring_carries_what_was_asked() {
    if let Err(why) = probe::ring() {
        println!("skipped: the ring: {why}");
        return;
    }
    let disk = Uring::new(1).unwrap();
    assert_eq!(disk.backend(), Backend::Uring);
    let folder = tempfile::tempdir().unwrap();
    let file = disk.open(&folder.path().join("file"), SHARED).unwrap();
    let pool = Pool::new(16 << 20);
    block_on(async {
        for block in 0..32 {
            write(&file, block * B, filled(&pool, BLOCK, 1))
                .await
                .unwrap();
        }
        for block in 0..16 {
            read(&file, &pool, block * 2 * B, 2 * BLOCK).await.unwrap();
        }
        Arc::clone(&file).sync_data().await.unwrap();
    });
    let counters = disk.counters();
    assert_eq!(
        (counters.writes, counters.reads, counters.syncs),
        (32, 16, 1)
    );
    assert_eq!(
        (counters.bytes_written, counters.bytes_read),
        (32 * B, 32 * B)
    );
}

#[test]
fn the_last_owner_waits_for_what_is_in_flight() {
    for mut bench in real_benches() {
        const COUNT: u8 = 60;
        let file = bench.open("file", SHARED);
        for number in 0..COUNT {
            let buf = bench.fill(64 * BLOCK, number);
            let mut writing = Arc::clone(&file).write_at(u64::from(number) * 64 * B, buf);
            drop(writing.as_mut().now_or_never());
        }
        drop(file);
        // The threads hold the last of it; a disk of the same kind takes over.
        bench.disk = Blocking::new(1).unwrap();
        assert_eq!(
            bench.pool.in_use(),
            0,
            "{}: left with work in flight",
            bench.name
        );
        let bytes = std::fs::read(bench.path("file")).unwrap();
        assert_eq!(bytes.len(), usize::from(COUNT) * 64 * BLOCK);
        for (number, part) in bytes.chunks(64 * BLOCK).enumerate() {
            assert!(
                part.iter().all(|&byte| usize::from(byte) == number),
                "{}",
                bench.name
            );
        }
    }
}

#[test]
fn a_caller_that_waits_for_room_can_be_dropped() {
    let disk = Blocking::new(1).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    let file: Arc<dyn File> = disk.open(&path, SHARED).unwrap();
    let pool = Pool::new(64 << 20);
    let mut futures: Vec<_> = (0..2_000u64)
        .map(|block| Arc::clone(&file).write_at(block * B, filled(&pool, BLOCK, 1)))
        .collect();
    for future in &mut futures {
        drop(future.as_mut().now_or_never());
    }
    drop(futures);
    wait_until("the buffers", || pool.in_use() == 0);
    block_on(async {
        write(&file, 0, filled(&pool, BLOCK, 2)).await.unwrap();
        assert_eq!(read(&file, &pool, 0, BLOCK).await.unwrap(), [2; BLOCK]);
    });
}

#[test]
fn a_choice_is_kept_or_refused() {
    let (pool, why) = select(Choice::Pool).unwrap();
    assert_eq!(pool.backend(), Backend::Pool);
    assert!(!why.is_empty());
    let (auto, why): (Arc<dyn Disk>, String) = select(Choice::Auto).unwrap();
    match probe::ring() {
        Ok(()) => {
            assert_eq!(auto.backend(), Backend::Uring, "{why}");
            assert_eq!(select(Choice::Uring).unwrap().0.backend(), Backend::Uring);
        }
        Err(reason) => {
            assert_eq!(auto.backend(), Backend::Pool);
            assert!(why.contains(&reason), "{why}");
            assert!(select(Choice::Uring).is_err());
        }
    }
    assert_eq!("uring".parse(), Ok(Choice::Uring));
    assert!("ring".parse::<Choice>().is_err());
}

#[test]
fn a_probe_leaves_nothing_and_survives_an_earlier_one() {
    let folder = tempfile::tempdir().unwrap();
    let left = folder.path().join(".orlop-probe");
    std::fs::create_dir(&left).unwrap();
    std::fs::write(left.join("old"), "from a process that was killed").unwrap();
    let disk = Blocking::new(1).unwrap();
    probe::folder(disk.as_ref(), folder.path()).unwrap();
    assert_eq!(disk.list(folder.path()).unwrap(), [""; 0]);
    let missing = probe::inspect(disk.as_ref(), &folder.path().join("missing")).unwrap_err();
    assert_eq!(missing.kind, Kind::NotFound);
}
