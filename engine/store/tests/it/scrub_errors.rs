//! Scrub on a disk that errs, at its rate, and when it is told to end.

use bytes::Bytes;
use orlop_disk::Kind;
use orlop_disk::sim::{Fault, Plan, Verb};
use orlop_engine::{Error, Finding, FindingCode, MemoryIndex, Scrub};

use crate::clock::Clock;
use crate::scrub::{flip, full, place, scrub, segment};
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
    let (error, before) = failure(&mut scrub).await;
    assert_eq!(before, []);
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

#[tokio::test(start_paused = true)]
async fn a_device_that_reads_nothing_is_not_taken_for_damage_to_everything() {
    let sim = disk(9);
    let index = MemoryIndex::default();
    let store = Clock::start().open(config(), &sim, &index).await;
    let blobs: Vec<Bytes> = (0..300).map(|seed| content(seed, 70_000)).collect();
    for bytes in &blobs {
        push(&store, bytes, sha256(bytes)).await.unwrap();
    }
    let plan = Plan::new(Fault::Fail(Kind::Io)).on(Verb::Read);
    sim.plan(plan.under(folder().join("data/raw")).sticky());
    let mut scrub = store.scrub(false, None).await.unwrap();
    let (error, _) = failure(&mut scrub).await;
    assert!(error.to_string().contains("look at the device"), "{error}");
    let there = blobs
        .iter()
        .filter(|bytes| store.stat(&sha256(bytes)).is_ok());
    assert_eq!(there.count(), 300 - 256);
}

/// The error that ends a scrub, and what steps found before it.
async fn failure(scrub: &mut Scrub) -> (Error, Vec<Finding>) {
    let mut before = Vec::new();
    loop {
        match scrub.step().await {
            Ok(Some(found)) => before.extend(found),
            Ok(None) => panic!("it went on to the end"),
            Err(error) => return (error, before),
        }
    }
}

#[tokio::test]
async fn a_scrub_goes_on_behind_a_file_that_cannot_be_opened() {
    let sim = disk(15);
    let index = MemoryIndex::default();
    let (store, blobs) = full(&sim, &index).await;
    let (path, at) = place(&sim, "data/raw", &blobs[23]);
    let first = segment("raw", 1);
    assert_ne!(path, first);
    flip(&sim, &path, at);
    let plan = Plan::new(Fault::Fail(Kind::Io)).on(Verb::Open);
    sim.plan(plan.under(&first).sticky());
    let (found, _) = scrub(&store, true).await;
    assert!(sim.struck() > 1);
    sim.clear_plans();
    assert_eq!(found.len(), 2, "{found:#?}");
    assert_eq!(found[0].code, FindingCode::Segment);
    assert_eq!(folder().join(&found[0].file), first);
    assert_eq!(found[1].blob, Some(sha256(&blobs[23])));
    // It says nothing about the bytes.
    assert_eq!(store.health().await.counts.quarantined, 1);
    for (number, bytes) in blobs.iter().enumerate().filter(|(number, _)| *number != 23) {
        let pulled = pull(&store, &sha256(bytes)).await;
        assert_eq!(pulled.as_ref().ok(), Some(bytes), "{number}: {pulled:?}");
    }
}

#[tokio::test]
async fn a_scrub_that_fails_tells_what_the_step_had_found_before() {
    let sim = disk(16);
    let index = MemoryIndex::default();
    let (store, blobs) = full(&sim, &index).await;
    let hurt = [2, 3];
    for number in hurt {
        let (path, at) = place(&sim, "data/raw", &blobs[number]);
        assert_eq!(path, segment("raw", 1));
        flip(&sim, &path, at);
    }
    // One step judges both: it opens the file for the first, and for the
    // second the machine is out of handles.
    let mut told = None;
    for after in 1..8 {
        let mut scrub = store.scrub(false, None).await.unwrap();
        let plan = Plan::new(Fault::Fail(Kind::Exhausted)).on(Verb::Open);
        sim.plan(plan.under(segment("raw", 1)).after(after));
        let mut steps = 0;
        while let Ok(Some(found)) = scrub.step().await {
            steps += found.len();
        }
        sim.clear_plans();
        let rest = scrub.take_findings();
        if steps == 0 && !rest.is_empty() {
            told = Some((rest, scrub.cursor()));
            break;
        }
    }
    let (told, cursor) = told.expect("no step failed behind its first finding");
    assert_eq!(told.len(), 1, "{told:#?}");
    assert!(
        told[0].quarantined
            && hurt
                .map(|n| Some(sha256(&blobs[n])))
                .contains(&told[0].blob)
    );
    // The next one goes on and finds both.
    let mut scrub = store.scrub(false, Some(&cursor)).await.unwrap();
    let mut found = Vec::new();
    while let Some(more) = scrub.step().await.unwrap() {
        found.extend(more);
    }
    assert_eq!(found.len(), 2, "{found:#?}");
}

#[tokio::test]
async fn a_read_that_is_wrong_once_among_the_digests_condemns_no_blob() {
    let sim = disk(17);
    let index = MemoryIndex::default();
    let (store, blobs) = full(&sim, &index).await;
    let (_, whole) = scrub(&store, false).await;
    for after in 0..12 {
        let mut scrub = store.scrub(true, None).await.unwrap();
        while scrub.position().done < whole.done {
            assert_eq!(scrub.step().await.unwrap(), Some(Vec::new()));
        }
        let struck = sim.struck();
        let plan = Plan::new(Fault::Flip).on(Verb::Read);
        sim.plan(plan.under(folder().join("data")).after(after));
        while let Some(found) = scrub.step().await.unwrap() {
            assert_eq!(found, [], "{after}");
        }
        assert_eq!(sim.struck(), struck + 1);
    }
    assert_eq!(store.health().await.counts.quarantined, 0);
    for bytes in &blobs {
        assert_eq!(&pull(&store, &sha256(bytes)).await.unwrap(), bytes);
    }
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

#[tokio::test(start_paused = true)]
async fn a_scrub_keeps_to_its_rate_and_pulls_do_not_wait_for_it() {
    let sim = disk(13);
    let start = tokio::time::Instant::now();
    let mut config = config();
    config.background_rate = 1 << 20;
    let clock = Clock::start();
    let store = clock.open(config, &sim, &MemoryIndex::default()).await;
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
