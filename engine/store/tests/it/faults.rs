//! Every operation of the disk fails once (G4): no panic, nothing acknowledged
//! is lost, no wrong byte is served, and a failed sync is never passed over.

use orlop_disk::Kind;
use orlop_disk::sim::{Crash, Fault, Plan, Verb};
use orlop_engine::{Error, MemoryIndex};

use crate::support::{content, disk, open, pull, push, sha256};

#[tokio::test]
async fn g4_any_operation_may_fail_once() {
    let (mut failures, mut struck) = (0, 0);
    for kind in [Kind::Io, Kind::Full, Kind::Exhausted] {
        for nth in 0.. {
            let sim = disk(nth);
            let index = MemoryIndex::default();
            sim.plan(Plan::new(Fault::Fail(kind)).after(nth));
            let mut kept = Vec::new();
            if let Ok(store) = open(&sim, &index).await {
                for size in [900, 120_000, 40_000, 1_200_000] {
                    let bytes = content(nth * 10 + size, size as usize);
                    match push(&store, &bytes, sha256(&bytes)).await {
                        Ok(_) => kept.push(bytes),
                        Err(_) => failures += 1,
                    }
                }
                for bytes in &kept {
                    match pull(&store, &sha256(bytes)).await {
                        Ok(found) => assert_eq!(&found, bytes),
                        Err(Error::NotFound { .. }) => {
                            panic!("{kind:?} at {nth}: unsure was reported as missing")
                        }
                        Err(_) => failures += 1,
                    }
                }
            }
            let hit = sim.struck() > 0;
            sim.clear_plans();
            let image = sim.crash(Crash::Lost);
            let store = open(&image, &MemoryIndex::default()).await.unwrap();
            for bytes in &kept {
                assert_eq!(
                    &pull(&store, &sha256(bytes)).await.unwrap(),
                    bytes,
                    "{kind:?} at {nth}"
                );
            }
            if !hit {
                break;
            }
            struck += 1;
        }
    }
    assert!(
        struck > 100 && failures > 0,
        "{struck} faults, {failures} failures"
    );
    println!("g4: {struck} faults, {failures} answers were errors");
}

#[tokio::test]
async fn a_failed_sync_poisons_writes_and_leaves_reads() {
    let sim = disk(1);
    let index = MemoryIndex::default();
    let store = open(&sim, &index).await.unwrap();
    let before = content(1, 50_000);
    push(&store, &before, sha256(&before)).await.unwrap();
    sim.plan(Plan::new(Fault::Fail(Kind::Io)).on(Verb::Sync));
    let refused = content(2, 50_000);
    let error = push(&store, &refused, sha256(&refused)).await.unwrap_err();
    assert!(matches!(error, Error::Poisoned { .. }), "{error}");
    sim.clear_plans();
    // The disk is well again, the store must not believe it.
    let error = push(&store, &content(3, 10), sha256(&content(3, 10)))
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Poisoned { .. }), "{error}");
    assert!(store.health().await.poisoned.is_some());
    assert_eq!(
        pull(&store, &sha256(&before)).await.unwrap(),
        before,
        "reads go on"
    );
    assert!(store.close().await.is_err(), "a poisoned store says so");
    drop(store);
    let store = open(&sim, &index).await.unwrap();
    assert_eq!(pull(&store, &sha256(&before)).await.unwrap(), before);
    push(&store, &refused, sha256(&refused)).await.unwrap();
}

/// A sync fails, a supervisor starts the server again on the running machine,
/// the power fails later. Found by fuzzing: the group of the failed sync was
/// read from memory, gone on behind, and missing after the power cut.
#[tokio::test]
async fn a_group_whose_sync_failed_is_durable_after_a_restart_that_read_it() {
    let mut struck = 0;
    for nth in 0..20 {
        let sim = disk(nth);
        let index = MemoryIndex::default();
        let store = open(&sim, &index).await.unwrap();
        let before = content(1, 3_000);
        push(&store, &before, sha256(&before)).await.unwrap();
        let journal = std::path::PathBuf::from("/store/journal");
        let plan = Plan::new(Fault::Fail(Kind::Io)).on(Verb::Sync);
        sim.plan(plan.under(journal).after(nth));
        for seed in 2..5 {
            let bytes = content(seed, 3_000);
            let _ = push(&store, &bytes, sha256(&bytes)).await;
        }
        let _ = store.close().await;
        drop(store);
        struck += sim.struck();
        sim.clear_plans();
        let sim = sim.crash(Crash::Killed);
        let store = open(&sim, &index).await.unwrap();
        let after = content(9, 3_000);
        push(&store, &after, sha256(&after)).await.unwrap();
        let sim = sim.crash(Crash::Lost);
        let store = open(&sim, &MemoryIndex::default()).await.unwrap();
        for bytes in [before, after] {
            assert_eq!(pull(&store, &sha256(&bytes)).await.unwrap(), bytes, "{nth}");
        }
    }
    assert!(struck > 3, "{struck} faults");
}
