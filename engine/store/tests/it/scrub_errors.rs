//! Scrub on a disk that errs, at its rate, and when it is told to end.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use orlop_disk::sim::{Fault, Plan, Verb};
use orlop_disk::{Disk, Kind};
use orlop_engine::{Error, FindingCode, MemoryIndex, Progress, Runtime, Store, System};

use crate::scrub::{full, place, scrub, segment};
use crate::support::{config, content, disk, folder, open, pull, push, sha256};

#[tokio::test]
async fn an_error_that_passes_is_told_and_condemns_nothing() {
    let sim = disk(7);
    let index = MemoryIndex::default();
    let (store, blobs) = full(&sim, &index).await;
    let raw = segment("raw", 1);
    for faults in [1, 2] {
        for _ in 0..faults {
            let plan = Plan::new(Fault::Fail(Kind::Io)).on(Verb::Read);
            sim.plan(plan.under(&raw).after(2));
        }
        let (found, _) = scrub(&store, false).await;
        assert_eq!(found.len(), 1, "{found:#?}");
        assert_eq!(found[0].code, FindingCode::ReadError);
        assert_eq!(folder().join(&found[0].file), raw);
        assert_eq!(found[0].blob, None);
    }
    // A bit that was wrong on its way is no damage either.
    for after in 0..6 {
        let plan = Plan::new(Fault::Flip).on(Verb::Read);
        sim.plan(plan.under(folder().join("data")).after(after));
        let (found, _) = scrub(&store, false).await;
        assert!(
            found.iter().all(|finding| finding.blob.is_none()),
            "{found:#?}"
        );
    }
    assert_eq!(store.health().await.counts.quarantined, 0);
    // A machine short of something says nothing about the bytes, and the
    // cursor stays good.
    let mut scrub = store.scrub(false, None).await.unwrap();
    let plan = Plan::new(Fault::Fail(Kind::Exhausted)).on(Verb::Read);
    sim.plan(plan.under(&raw).after(3));
    let error = loop {
        match scrub.step().await {
            Ok(Some(found)) => assert_eq!(found, []),
            Ok(None) => panic!("nothing failed"),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::Io { .. }), "{error}");
    while let Some(found) = scrub.step().await.unwrap() {
        assert_eq!(found, []);
    }
    for bytes in &blobs {
        assert_eq!(&pull(&store, &sha256(bytes)).await.unwrap(), bytes);
    }
}

#[tokio::test]
async fn a_sector_that_stays_unreadable_costs_the_blob_it_is_in() {
    let sim = disk(8);
    let index = MemoryIndex::default();
    let (store, blobs) = full(&sim, &index).await;
    let (path, at) = place(&sim, "data/raw", &blobs[5]);
    assert!(sim.spoil(&path, at / 512 * 512, 512));
    let (found, _) = scrub(&store, false).await;
    assert_eq!(found.len(), 1, "{found:#?}");
    assert_eq!(found[0].blob, Some(sha256(&blobs[5])));
    assert!(found[0].reason.contains("cannot be read"), "{found:?}");
    assert!(push(&store, &blobs[5], sha256(&blobs[5])).await.unwrap());
    for bytes in &blobs {
        assert_eq!(&pull(&store, &sha256(bytes)).await.unwrap(), bytes);
    }
}

#[tokio::test]
async fn a_device_that_reads_nothing_is_not_taken_for_damage_to_everything() {
    let sim = disk(9);
    let index = MemoryIndex::default();
    let store = open(&sim, &index).await.unwrap();
    let blobs: Vec<Bytes> = (0..300).map(|seed| content(seed, 70_000)).collect();
    for bytes in &blobs {
        push(&store, bytes, sha256(bytes)).await.unwrap();
    }
    let raw = folder().join("data/raw");
    for name in sim.list(&raw).unwrap() {
        sim.remove(&raw.join(name)).unwrap();
    }
    let mut scrub = store.scrub(false, None).await.unwrap();
    let error = loop {
        match scrub.step().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("it went on to the end"),
            Err(error) => break error.to_string(),
        }
    };
    assert!(error.contains("look at the device"), "{error}");
    let there = blobs
        .iter()
        .filter(|bytes| store.stat(&sha256(bytes)).is_ok());
    assert_eq!(there.count(), 300 - 256);
}

#[tokio::test]
async fn a_scrub_that_is_dropped_or_outlived_by_its_store_ends() {
    let sim = disk(12);
    let index = MemoryIndex::default();
    let (store, blobs) = full(&sim, &index).await;
    let mut dropped = store.scrub(false, None).await.unwrap();
    dropped.step().await.unwrap();
    drop(dropped);
    let mut scrub = store.scrub(false, None).await.unwrap();
    scrub.step().await.unwrap();
    store.close().await.unwrap();
    assert!(matches!(scrub.step().await, Err(Error::Cancelled)));
    assert!(store.scrub(false, Some(b"no cursor")).await.is_err());
    drop((store, scrub));
    let store = open(&sim, &index).await.unwrap();
    assert_eq!(pull(&store, &sha256(&blobs[0])).await.unwrap(), blobs[0]);
}

/// The clock of tokio, which a test can stop.
struct Paused {
    system: Arc<dyn Runtime>,
    start: tokio::time::Instant,
}

impl Runtime for Paused {
    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn fill_random(&self, bytes: &mut [u8]) {
        self.system.fill_random(bytes);
    }

    fn spawn(
        &self,
        _: &'static str,
        task: futures_util::future::BoxFuture<'static, ()>,
    ) -> std::io::Result<()> {
        tokio::spawn(task);
        Ok(())
    }

    fn task(&self, task: futures_util::future::BoxFuture<'static, ()>) {
        tokio::spawn(task);
    }

    fn sleep(&self, time: Duration) -> futures_util::future::BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(time))
    }
}

#[tokio::test(start_paused = true)]
async fn a_scrub_keeps_to_its_rate_and_pulls_do_not_wait_for_it() {
    let sim = disk(13);
    let start = tokio::time::Instant::now();
    let system = System::start();
    let runtime = Arc::new(Paused { system, start });
    let mut config = config();
    config.background_rate = 1 << 20;
    let store = Store::open(
        config,
        runtime,
        Arc::clone(&sim) as Arc<dyn Disk>,
        &MemoryIndex::default(),
        &Progress::default(),
    )
    .await
    .unwrap();
    let blobs: Vec<Bytes> = (0..20).map(|seed| content(seed, 1_500_000)).collect();
    for bytes in &blobs {
        push(&store, bytes, sha256(bytes)).await.unwrap();
    }
    let begun = start.elapsed();
    let mut scrub = store.scrub(false, None).await.unwrap();
    let mut steps = 0;
    while let Some(found) = scrub.step().await.unwrap() {
        assert_eq!(found, []);
        // Takes no time by this clock: it waits for nothing.
        let before = start.elapsed();
        let bytes = &blobs[steps % blobs.len()];
        assert_eq!(&pull(&store, &sha256(bytes)).await.unwrap(), bytes);
        assert_eq!(start.elapsed(), before);
        steps += 1;
    }
    let took = (start.elapsed() - begun).as_secs_f64();
    let read = store.health().await.counts.scrub_bytes as f64 / f64::from(1 << 20);
    assert!(read > 28.0, "{read} MiB");
    assert!(
        (took - read).abs() < 9.0 && took > read - 9.0,
        "{read} MiB in {took} s"
    );
    println!("{read:.1} MiB in {took:.1} s at 1 MiB/s");
}
