//! Mishaps that other registries reported, at the engine. What needs a real
//! process is in `tests/it`, and damage to single bytes in `flips`.

#[path = "support/mod.rs"]
mod support;

use std::path::PathBuf;
use std::time::Duration;

use futures_util::future::{join_all, poll_immediate};
use orlop_disk::sim::{Crash, Fault, Plan, Verb};
use orlop_disk::{Create, Disk as _, Lane, OpenOptions};
use orlop_engine::{Error, Store, UploadId};

use crate::support::clock::simulate;
use crate::support::contents::fresh;
use crate::support::world::{Left, World, folder, pull, push};

const WRITE: OpenOptions = OpenOptions {
    create: Create::IfMissing,
    lane: Lane::Inline,
    direct: true,
    write: true,
};

fn segment(number: u64) -> PathBuf {
    folder().join(format!("data/raw/S-{number:016x}.00000000"))
}

/// An upload with its first bytes durable.
async fn begun(store: &Store, bytes: &bytes::Bytes, durable: usize) -> UploadId {
    let id = store.upload_open("a", None).unwrap();
    let mut upload = store.upload_resume(id, "a").await.unwrap();
    upload.append(bytes.slice(..durable)).await.unwrap();
    upload.checkpoint().await.unwrap();
    id
}

#[test]
fn i02_a_file_that_lost_its_length_is_never_served_as_an_empty_blob() {
    simulate(async {
        let world = World::new(2);
        let store = world.open().await.unwrap();
        let (large, other) = (fresh(1, 300_000), fresh(2, 2_000));
        for content in [&large, &other] {
            push(&store, &content.bytes, content.sha256).await.unwrap();
        }
        store.close().await.unwrap();
        drop(store);
        for len in [0, 4096, 8192, 4096 * 70] {
            let sim = world.sim.crash(Crash::Killed);
            let file = sim.open(&segment(1), WRITE).unwrap();
            file.set_len(len).unwrap();
            let damaged = World::on(sim, Default::default(), len);
            let store = damaged.open().await.unwrap();
            let read = pull(&store, &large.sha256).await;
            assert!(
                matches!(read, Err(Error::Corrupt { .. })),
                "{len}: {read:?}"
            );
            let stat = store.stat(&large.sha256);
            assert!(
                matches!(stat, Err(Error::NotFound { .. })),
                "{len}: {stat:?}"
            );
            assert_eq!(pull(&store, &other.sha256).await.unwrap(), other.bytes);
            assert!(push(&store, &large.bytes, large.sha256).await.unwrap());
            assert_eq!(pull(&store, &large.sha256).await.unwrap(), large.bytes);
        }
    });
}

#[test]
fn i03_one_broken_record_is_reported_and_everything_else_goes_on() {
    simulate(async {
        let mut world = World::new(3);
        let store = world.open().await.unwrap();
        let contents: Vec<_> = (0..400).map(|seed| fresh(seed, 60_000)).collect();
        let broken = &contents[20];
        for content in &contents[..40] {
            push(&store, &content.bytes, content.sha256).await.unwrap();
        }
        let id = begun(&store, &contents[0].bytes, 1_000).await;
        let journal = folder().join("journal/J-0000000000000001");
        let image = world.sim.peek(&journal).unwrap();
        let mut windows = image.windows(64);
        let at = windows.position(|window| window == &broken.bytes[..64]);
        assert!(
            world
                .sim
                .poke(&journal, at.unwrap() as u64 + 99, &[1, 2, 3])
        );
        drop(store);
        world.crash(Crash::Killed, Left::Nothing);
        let store = world.open().await.unwrap();
        // Pushes, recycling and the reaper go on.
        for content in &contents[40..] {
            push(&store, &content.bytes, content.sha256).await.unwrap();
        }
        tokio::time::sleep(Duration::from_secs(60)).await;
        let health = store.health().await;
        assert!(health.counts.recycled >= 2 && health.counts.quarantined >= 1);
        assert_eq!(health.poisoned, None);
        assert_eq!(
            store.upload_expire(Duration::from_secs(30)).await.unwrap(),
            1
        );
        assert!(store.upload_status(id, "a").is_err());
        // It is named, and a push heals it.
        let read = store.read(&broken.sha256);
        assert!(matches!(read, Err(Error::Corrupt { .. })));
        assert!(push(&store, &broken.bytes, broken.sha256).await.unwrap());
        store.close().await.unwrap();
        drop(store);
        let store = world.open().await.unwrap();
        for content in &contents {
            assert_eq!(pull(&store, &content.sha256).await.unwrap(), content.bytes);
        }
    });
}

#[test]
fn i07_a_client_that_sends_again_learns_the_offset_and_doubles_nothing() {
    simulate(async {
        let mut world = World::new(7);
        let content = fresh(7, 500_000);
        let mut store = world.open().await.unwrap();
        let id = begun(&store, &content.bytes, 100_000).await;
        // The answer to a chunk is lost and the client sends it again, from
        // the offset that it believes: what it may send is told every time.
        for round in 0..6 {
            let told = store.upload_status(id, "a").unwrap();
            let mut upload = store.upload_resume(id, "a").await.unwrap();
            // A request that went away may have come further since.
            let offset = upload.offset();
            assert!(offset >= told && (offset - told).is_multiple_of(60_000));
            let end = (offset as usize + 60_000).min(500_000);
            let part = content.bytes.slice(offset as usize..end);
            upload.append(part).await.unwrap();
            if round % 2 == 0 {
                let _ = poll_immediate(upload.checkpoint()).await;
            } else {
                upload.checkpoint().await.unwrap();
            }
            // Another request while this one runs waits for its turn.
            let second = store.upload_resume(id, "a").await;
            assert!(matches!(second, Err(Error::Busy { .. })));
            drop(upload);
            if round == 3 {
                drop(store);
                world.crash(Crash::Lost, Left::Nothing);
                store = world.open().await.unwrap();
            }
        }
        let mut upload = store.upload_resume(id, "a").await.unwrap();
        let rest = content.bytes.slice(upload.offset() as usize..);
        upload.append(rest).await.unwrap();
        upload.commit(content.sha256, None).await.unwrap();
        assert_eq!(pull(&store, &content.sha256).await.unwrap(), content.bytes);
    });
}

#[test]
fn i09_ten_thousand_abandoned_uploads_refuse_no_push_and_are_all_ended() {
    const ABANDONED: u64 = 10_000;
    simulate(async {
        let mut world = World::new(9);
        let mut store = world.open().await.unwrap();
        let content = fresh(9, 300);
        for _ in 0..ABANDONED / 100 {
            let begin = (0..100).map(|_| begun(&store, &content.bytes, 200));
            join_all(begin).await;
        }
        assert_eq!(store.health().await.uploads, ABANDONED);
        for restarted in [false, true] {
            if restarted {
                drop(store);
                world.crash(Crash::Lost, Left::Nothing);
                store = world.open().await.unwrap();
            }
            let more = fresh(10 + u64::from(restarted), 200_000);
            assert!(push(&store, &more.bytes, more.sha256).await.unwrap());
            assert_eq!(pull(&store, &more.sha256).await.unwrap(), more.bytes);
        }
        let day = Duration::from_secs(24 * 3600);
        assert_eq!(store.upload_expire(day).await.unwrap(), 0);
        tokio::time::advance(day).await;
        assert_eq!(store.upload_expire(day).await.unwrap(), ABANDONED);
        assert_eq!(store.health().await.uploads, 0);
        store.close().await.unwrap();
        drop(store);
        let store = world.open().await.unwrap();
        tokio::time::advance(day).await;
        assert_eq!(
            store.upload_expire(day).await.unwrap(),
            0,
            "they stay ended"
        );
    });
}

#[test]
fn i13_foreign_and_odd_files_stop_neither_start_nor_recycling_nor_the_reaper() {
    simulate(async {
        let world = World::new(13);
        world.open().await.unwrap().close().await.unwrap();
        let files = [
            "journal/notes.txt",
            "journal/J-zz",
            "journal/J-00000000000000011",
            "journal/.J-0000000000000001.swp",
            "data/raw/backup.tar",
            "data/raw/S-0000000000000001",
            "data/small/S-zz",
            "data/meta/S-0000000000000001.00000000~",
            "data/chunk/core",
            "quarantine/readme",
            "stray",
        ];
        for name in files {
            world.sim.open(&folder().join(name), WRITE).unwrap();
        }
        let folders = [
            "journal/lost+found",
            "data/raw/lost+found",
            "data/small/old",
        ];
        for name in folders {
            world.sim.create_dir(&folder().join(name)).unwrap();
        }
        let store = world.open().await.unwrap();
        let contents: Vec<_> = (0..400).map(|seed| fresh(seed, 60_000)).collect();
        for content in &contents {
            push(&store, &content.bytes, content.sha256).await.unwrap();
        }
        begun(&store, &contents[0].bytes, 1_000).await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(store.health().await.counts.recycled >= 2);
        assert_eq!(
            store.upload_expire(Duration::from_secs(30)).await.unwrap(),
            1
        );
        store.close().await.unwrap();
        drop(store);
        let again = World::on(world.sim.crash(Crash::Lost), Default::default(), 1);
        let store = again.open().await.unwrap();
        for content in &contents {
            assert_eq!(pull(&store, &content.sha256).await.unwrap(), content.bytes);
        }
        for name in files {
            let left = world.sim.peek(&folder().join(name));
            assert!(left.is_some(), "{name} is still there");
        }
    });
}

#[test]
fn i35_a_cancel_or_a_cut_in_the_middle_of_an_append_never_doubles_bytes() {
    let content = fresh(35, 1_500_000);
    for cut in 0..40 {
        simulate(async {
            let mut world = World::new(cut);
            let store = world.open().await.unwrap();
            let id = begun(&store, &content.bytes, 90_000).await;
            world.sim.delay(50);
            world
                .sim
                .plan(Plan::new(Fault::PowerOff).on(Verb::Write).after(cut / 4));
            let mut upload = store.upload_resume(id, "a").await.unwrap();
            // Data lands, the offset may not: the machine stops, or the
            // request goes away after a few polls.
            let sent = async {
                upload
                    .append(content.bytes.slice(90_000..1_400_000))
                    .await?;
                upload.checkpoint().await
            };
            let answer = if cut % 4 == 0 {
                poll_immediate(sent).await
            } else {
                Some(sent.await)
            };
            drop(upload);
            world.sim.clear_plans();
            if cut % 4 != 0 {
                drop(store);
                world.crash(
                    [Crash::Lost, Crash::Kept, Crash::Torn(cut)][cut as usize % 3],
                    Left::Flushed,
                );
            } else {
                world.sim.delay(0);
                tokio::time::sleep(Duration::from_secs(1)).await;
                drop(store);
                world.crash(Crash::Lost, Left::Flushed);
            }
            let store = world.open().await.unwrap();
            let offset = store.upload_status(id, "a").unwrap();
            let right = match answer {
                Some(Ok(durable)) => offset == durable,
                _ => offset == 90_000 || offset == 1_400_000,
            };
            assert!(right, "cut {cut}: {answer:?}, then {offset}");
            let mut upload = store.upload_resume(id, "a").await.unwrap();
            assert_eq!(upload.offset(), offset, "cut {cut}");
            let rest = content.bytes.slice(offset as usize..);
            upload.append(rest).await.unwrap();
            let done = upload.commit(content.sha256, None).await.unwrap();
            assert_eq!(done.size, 1_500_000, "cut {cut}");
            assert_eq!(pull(&store, &content.sha256).await.unwrap(), content.bytes);
        });
    }
}
