//! The contract of `Disk` and `File`, kept by every disk.
//!
//! Each check runs on all of them, and fails too when it leaves a file behind
//! or a buffer does not come back.

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
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use futures_util::future::join_all;
use orlop_disk::{BLOCK, Backend, Buffer, Create, Kind, Lane, OpenOptions};
use support::{B, Bench, INLINE, SHARED, benches, block_on, now, read, write};

/// Runs a check on every disk.
fn each(check: impl AsyncFn(&Bench)) {
    for bench in benches() {
        println!("on {}", bench.name);
        block_on(check(&bench));
        let left = bench.disk.list(&bench.dir).unwrap();
        assert!(left.is_empty(), "{}: left behind: {left:?}", bench.name);
        assert_eq!(
            bench.pool.in_use(),
            0,
            "{}: a buffer did not come back",
            bench.name
        );
    }
}

#[test]
fn names_appear_move_and_vanish() {
    each(async |bench| {
        let disk = &bench.disk;
        let (folder, a, b) = (bench.path("f"), bench.path("f/a"), bench.path("f/b"));
        assert_eq!(disk.list(&folder).unwrap_err().kind, Kind::NotFound);
        assert_eq!(disk.open(&a, SHARED).err().unwrap().kind, Kind::NotFound);
        disk.create_dir(&folder).unwrap();
        disk.create_dir(&folder).unwrap();
        assert!(!disk.exists(&a).unwrap());
        let never = OpenOptions {
            create: Create::Never,
            ..SHARED
        };
        assert_eq!(disk.open(&a, never).err().unwrap().kind, Kind::NotFound);
        let new = OpenOptions {
            create: Create::New,
            ..SHARED
        };
        drop(disk.open(&b, new).unwrap());
        assert_eq!(disk.open(&b, new).err().unwrap().kind, Kind::Exists);
        drop(disk.open(&a, SHARED).unwrap());
        assert_eq!(disk.create_dir(&a).unwrap_err().kind, Kind::Exists);
        assert_eq!(disk.open(&folder, never).err().unwrap().kind, Kind::Invalid);
        assert_eq!(disk.list(&folder).unwrap(), ["a", "b"]);
        assert_eq!(disk.remove(&folder).unwrap_err().kind, Kind::Exists);
        disk.open(&a, never).unwrap().set_len(5).unwrap();
        disk.rename(&a, &b).unwrap();
        assert_eq!(disk.list(&folder).unwrap(), ["b"]);
        assert_eq!(disk.open(&b, never).unwrap().len().unwrap(), 5);
        assert_eq!(disk.rename(&a, &b).unwrap_err().kind, Kind::NotFound);
        disk.rename(&b, &bench.path("c")).unwrap();
        disk.sync_dir(&folder).unwrap();
        disk.sync_dir(&bench.dir).unwrap();
        disk.remove(&bench.path("c")).unwrap();
        assert_eq!(disk.remove(&b).unwrap_err().kind, Kind::NotFound);
        assert_eq!(disk.sync_dir(&b).unwrap_err().kind, Kind::NotFound);
        disk.remove(&folder).unwrap();
        assert!(!disk.exists(&folder).unwrap());
    });
}

#[test]
fn an_error_is_never_read_as_missing() {
    each(async |bench| {
        drop(bench.open("file", SHARED));
        let below = bench.path("file/below");
        assert!(bench.disk.exists(&below).is_err());
        assert_eq!(
            bench.disk.list(&bench.path("file")).unwrap_err().kind,
            Kind::Invalid
        );
        bench.disk.remove(&bench.path("file")).unwrap();
    });
}

#[test]
fn bytes_come_back_on_both_lanes() {
    each(async |bench| {
        for options in [SHARED, INLINE] {
            let file = bench.open("file", options);
            assert_eq!(file.path(), bench.path("file"));
            for (offset, len, byte) in [(0, 1, 1), (3 * B, 2, 2), (B, 1, 3), (8 * B, 2304, 4)] {
                write(&file, offset, bench.fill(len * BLOCK, byte))
                    .await
                    .unwrap();
                Arc::clone(&file).sync_data().await.unwrap();
                let back = read(&file, &bench.pool, offset, len * BLOCK).await.unwrap();
                assert!(back.iter().all(|&found| found == byte), "{}", bench.name);
            }
            let hole = read(&file, &bench.pool, 2 * B, BLOCK).await.unwrap();
            assert!(hole.iter().all(|&found| found == 0), "{}", bench.name);
            let (result, buf) = Arc::clone(&file).write_at(0, Buffer::empty()).await;
            result.unwrap();
            assert!(buf.is_empty());
            bench.disk.remove(&bench.path("file")).unwrap();
        }
    });
}

#[test]
fn a_read_past_the_end_is_an_error_and_never_zeros() {
    each(async |bench| {
        for options in [SHARED, INLINE] {
            let file = bench.open("file", options);
            write(&file, 0, bench.fill(2 * BLOCK, 7)).await.unwrap();
            for len in [2 * B, B + 904, B, 0] {
                file.set_len(len).unwrap();
                let (result, buf) = Arc::clone(&file).read_at(B, bench.fill(2 * BLOCK, 0)).await;
                let error = result.unwrap_err();
                assert_eq!(error.kind, Kind::Io, "{}: {error}", bench.name);
                assert_eq!(error.source.kind(), std::io::ErrorKind::UnexpectedEof);
                assert_eq!(buf.len(), 2 * BLOCK, "the buffer comes back as it went");
            }
            bench.disk.remove(&bench.path("file")).unwrap();
        }
    });
}

#[test]
fn direct_files_want_whole_blocks_and_others_do_not() {
    each(async |bench| {
        for lane in [Lane::Shared, Lane::Inline] {
            let file = bench.open("file", OpenOptions { lane, ..SHARED });
            file.set_len(4 * B).unwrap();
            for (offset, len) in [
                (512, BLOCK),
                (0, 512),
                (B, BLOCK + 1),
                (u64::MAX - B + 1, BLOCK),
            ] {
                let written = write(&file, offset, bench.fill(len, 1)).await.unwrap_err();
                assert_eq!(written.kind, Kind::Invalid, "{}: {written}", bench.name);
                let read = read(&file, &bench.pool, offset, len).await.unwrap_err();
                assert_eq!(read.kind, Kind::Invalid, "{}: {read}", bench.name);
            }
            let loose = bench.open(
                "file",
                OpenOptions {
                    lane,
                    direct: false,
                    ..SHARED
                },
            );
            write(&loose, 4_000, bench.fill(1_000, 9)).await.unwrap();
            let back = read(&loose, &bench.pool, 3_999, 1_002).await.unwrap();
            assert_eq!((back[0], back[1001]), (0, 0), "{}", bench.name);
            assert!(
                back[1..1001].iter().all(|&byte| byte == 9),
                "{}",
                bench.name
            );
            bench.disk.remove(&bench.path("file")).unwrap();
        }
    });
}

#[test]
fn lengths_and_holes() {
    each(async |bench| {
        let file = bench.open("file", SHARED);
        let all = async |len| read(&file, &bench.pool, 0, len).await.unwrap();
        file.allocate(0, 4 * B).unwrap();
        assert_eq!(file.len().unwrap(), 4 * B);
        assert!(all(4 * BLOCK).await.iter().all(|&byte| byte == 0));
        write(&file, 0, bench.fill(4 * BLOCK, 5)).await.unwrap();
        file.allocate(B, B).unwrap();
        assert!(
            all(4 * BLOCK).await.iter().all(|&byte| byte == 5),
            "{}",
            bench.name
        );
        file.punch(B, B).unwrap();
        assert_eq!(file.len().unwrap(), 4 * B);
        let bytes = all(4 * BLOCK).await;
        let (hole, rest): (Vec<_>, Vec<_>) = bytes
            .chunks(BLOCK)
            .enumerate()
            .partition(|(block, _)| *block == 1);
        assert!(
            hole.iter()
                .all(|(_, block)| block.iter().all(|&byte| byte == 0))
        );
        assert!(
            rest.iter()
                .all(|(_, block)| block.iter().all(|&byte| byte == 5))
        );
        file.set_len(2 * B + 10).unwrap();
        file.set_len(4 * B).unwrap();
        let bytes = all(4 * BLOCK).await;
        assert!(
            bytes[2 * BLOCK..2 * BLOCK + 10]
                .iter()
                .all(|&byte| byte == 5)
        );
        assert!(
            bytes[2 * BLOCK + 10..].iter().all(|&byte| byte == 0),
            "{}",
            bench.name
        );
        assert_eq!(file.punch(0, 0).unwrap_err().kind, Kind::Invalid);
        bench.disk.remove(&bench.path("file")).unwrap();
        assert_eq!(
            file.len().unwrap(),
            4 * B,
            "a removed file lives while it is open"
        );
    });
}

#[test]
fn a_file_opened_for_reading_cannot_be_changed() {
    each(async |bench| {
        write(&bench.open("file", SHARED), 0, bench.fill(BLOCK, 1))
            .await
            .unwrap();
        let wrong = OpenOptions {
            write: false,
            ..SHARED
        };
        let error = bench.disk.open(&bench.path("file"), wrong).err().unwrap();
        assert_eq!(error.kind, Kind::Invalid, "creating needs write");
        let file = bench.open(
            "file",
            OpenOptions {
                create: Create::Never,
                ..wrong
            },
        );
        write(&file, 0, bench.fill(BLOCK, 2)).await.unwrap_err();
        file.set_len(0).unwrap_err();
        assert_eq!(
            read(&file, &bench.pool, 0, BLOCK).await.unwrap(),
            [1; BLOCK]
        );
        bench.disk.remove(&bench.path("file")).unwrap();
    });
}

#[test]
fn more_transfers_than_any_queue_holds() {
    each(async |bench| {
        const COUNT: u8 = 250;
        const ROUNDS: u64 = 4;
        let file = bench.open("file", SHARED);
        let place = |round, number| (round * u64::from(COUNT) + u64::from(number)) * B;
        let all = || (0..ROUNDS).flat_map(|round| (0..COUNT).map(move |number| (round, number)));
        let writes = all().map(|(round, number)| {
            let buf = bench.fill(BLOCK, number);
            Arc::clone(&file).write_at(place(round, number), buf)
        });
        for (result, buf) in join_all(writes).await {
            result.unwrap();
            assert_eq!(buf.len(), BLOCK);
        }
        Arc::clone(&file).sync_data().await.unwrap();
        let reads = all().map(|(round, number)| {
            let read = read(&file, &bench.pool, place(round, number), BLOCK);
            async move { assert_eq!(read.await.unwrap(), [number; BLOCK]) }
        });
        join_all(reads).await;
        bench.disk.remove(&bench.path("file")).unwrap();
    });
}

#[test]
fn counters_count_the_shared_lane_only() {
    each(async |bench| {
        let before = bench.disk.counters();
        let inline = bench.open("file", INLINE);
        let (result, buf) = now(Arc::clone(&inline).write_at(0, bench.fill(3 * BLOCK, 1)));
        result.unwrap();
        now(Arc::clone(&inline).read_at(0, buf)).0.unwrap();
        now(Arc::clone(&inline).sync_data()).unwrap();
        assert_eq!(bench.disk.counters(), before, "{}", bench.name);
        let shared = bench.open("file", SHARED);
        write(&shared, 0, bench.fill(3 * BLOCK, 1)).await.unwrap();
        for _ in 0..2 {
            read(&shared, &bench.pool, 0, BLOCK).await.unwrap();
        }
        Arc::clone(&shared).sync_data().await.unwrap();
        read(&shared, &bench.pool, 9 * B, BLOCK).await.unwrap_err();
        let after = bench.disk.counters();
        assert_eq!(
            (after.reads, after.writes, after.syncs),
            (2, 1, 1),
            "{}",
            bench.name
        );
        assert_eq!(
            (after.bytes_read, after.bytes_written),
            (2 * B, 3 * B),
            "{}",
            bench.name
        );
        bench.disk.remove(&bench.path("file")).unwrap();
    });
}

#[test]
fn a_transfer_that_was_begun_is_carried_to_its_end() {
    each(async |bench| {
        const LEN: usize = 1 << 20;
        let file = bench.open("file", SHARED);
        for number in 1..=20 {
            let mut writing = Arc::clone(&file).write_at(0, bench.fill(LEN, number));
            // Ready at once is fine too: then it has ended.
            drop(writing.as_mut().now_or_never());
            drop(writing);
            let mut reading = Arc::clone(&file).read_at(0, bench.fill(LEN, 0));
            drop(reading.as_mut().now_or_never());
            drop(reading);
            // This memory would be the kernel's to overwrite, had the dropped
            // futures freed it.
            let mut other = bench.pool.take_now(LEN);
            other.as_mut_slice().fill(0xDD);
            let deadline = Instant::now() + Duration::from_secs(20);
            while bench.pool.in_use() > LEN + BLOCK {
                assert!(
                    Instant::now() < deadline,
                    "{}: a buffer is lost",
                    bench.name
                );
                tokio::task::yield_now().await;
            }
            assert!(
                other.as_mut_slice().iter().all(|&byte| byte == 0xDD),
                "{}",
                bench.name
            );
            drop(other);
            assert_eq!(
                read(&file, &bench.pool, 0, LEN).await.unwrap(),
                vec![number; LEN]
            );
        }
        bench.disk.remove(&bench.path("file")).unwrap();
    });
}

#[test]
fn a_transfer_that_was_never_polled_has_no_effect() {
    each(async |bench| {
        let file = bench.open("file", SHARED);
        drop(Arc::clone(&file).write_at(0, bench.fill(BLOCK, 1)));
        drop(bench.fill(BLOCK, 1));
        write(&file, B, bench.fill(BLOCK, 2)).await.unwrap();
        assert_eq!(
            read(&file, &bench.pool, 0, BLOCK).await.unwrap(),
            [0; BLOCK]
        );
        bench.disk.remove(&bench.path("file")).unwrap();
    });
}

#[test]
fn space_is_counted() {
    each(async |bench| {
        let space = bench.disk.space(&bench.dir).unwrap();
        assert!(
            space.available > 0 && space.available <= space.total,
            "{space:?}"
        );
        let missing = bench
            .disk
            .space(Path::new("/nonexistent/folder"))
            .unwrap_err();
        assert_eq!(missing.kind, Kind::NotFound);
    });
}

#[test]
fn a_folder_under_test_passes_its_own_probe() {
    each(async |bench| {
        let report = orlop_disk::probe::folder(bench.disk.as_ref(), &bench.dir).unwrap();
        assert!(report.refusals.is_empty());
        assert_eq!(report.access, bench.open("file", INLINE).access());
        bench.disk.remove(&bench.path("file")).unwrap();
        if bench.disk.backend() != Backend::Sim {
            assert!(!report.file_system.is_empty());
        }
    });
}
