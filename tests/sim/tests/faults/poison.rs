//! What follows a failed sync, step by step.

use std::sync::Arc;

use orlop_disk::Kind;
use orlop_disk::sim::{Crash, Fault, Plan, Verb};
use orlop_engine::{Error, MemoryIndex, Store};

use crate::support::clock::simulate;
use crate::support::contents::{self, fresh};
use crate::support::world::{Left, World, folder, pull, push};

#[test]
fn g4_a_failed_sync_poisons_writes_and_leaves_reads() {
    simulate(async {
        let world = World::new(1);
        let store = world.open().await.unwrap();
        let before = &contents::all()[19];
        push(&store, &before.bytes, before.sha256).await.unwrap();
        world
            .sim
            .plan(Plan::new(Fault::Fail(Kind::Io)).on(Verb::Sync));
        let refused = &contents::all()[20];
        let error = push(&store, &refused.bytes, refused.sha256)
            .await
            .unwrap_err();
        assert!(matches!(error, Error::Poisoned { .. }), "{error}");
        world.sim.clear_plans();
        // The disk is well again, the store must not believe it.
        let another = &contents::all()[4];
        let put = store.put(another.bytes.clone(), another.sha256, None).await;
        assert!(matches!(put, Err(Error::Poisoned { .. })), "{put:?}");
        assert!(store.health().await.poisoned.is_some());
        assert_eq!(pull(&store, &before.sha256).await.unwrap(), before.bytes);
        assert!(store.close().await.is_err(), "a poisoned store says so");
        drop(store);
        let store = world.open().await.unwrap();
        assert_eq!(pull(&store, &before.sha256).await.unwrap(), before.bytes);
        push(&store, &refused.bytes, refused.sha256).await.unwrap();
    });
}

/// Reopens what a program left that ended now.
fn restarted(world: &World) -> World {
    let left = world.index.current().crash();
    World::on(Arc::clone(&world.sim), MemoryIndex::new(left), 2)
}

#[test]
fn g4_what_a_failed_sync_left_is_not_lost_by_a_power_cut_after_the_restart() {
    simulate(async {
        let world = World::new(2);
        let store = world.open().await.unwrap();
        let (refused, after) = (&contents::all()[20], &contents::all()[21]);
        let journal = folder().join("journal");
        let plan = Plan::new(Fault::Fail(Kind::Io)).on(Verb::Sync);
        world.sim.plan(plan.under(&journal));
        let put = store.put(refused.bytes.clone(), refused.sha256, None).await;
        assert!(matches!(put, Err(Error::Poisoned { .. })), "{put:?}");
        world.sim.clear_plans();
        drop(store);
        // The kernel shows what it could not make durable, and a sync of it
        // succeeds. The store says "it is here", which is a promise.
        let mut world = restarted(&world);
        let store = world.open().await.unwrap();
        for content in [refused, after] {
            push(&store, &content.bytes, content.sha256).await.unwrap();
        }
        drop(store);
        world.crash(Crash::Lost, Left::Flushed);
        let store = world.open().await.unwrap();
        for content in [refused, after] {
            let found = pull(&store, &content.sha256).await.unwrap();
            assert_eq!(found, content.bytes);
        }
    });
}

/// A store whose journal file is nearly full.
async fn nearly_full(world: &World) -> Store {
    let store = world.open().await.unwrap();
    for _ in 0..66 {
        store.note(vec![1; 60_000]).unwrap();
        tokio::task::yield_now().await;
    }
    let small = &contents::all()[2];
    store
        .put(small.bytes.clone(), small.sha256, None)
        .await
        .unwrap();
    store
}

#[test]
fn g4_a_new_journal_file_whose_name_is_not_durable_takes_nothing_acknowledged() {
    simulate(async {
        let world = World::new(3);
        let store = nearly_full(&world).await;
        let journal = folder().join("journal");
        let plan = Plan::new(Fault::PowerOff).on(Verb::SyncDir).under(&journal);
        world.sim.plan(plan);
        let large = fresh(1, 62_000);
        let mut failed = false;
        for seed in 0..4 {
            let more = fresh(seed, 62_000);
            let put = store.put(more.bytes.clone(), more.sha256, None).await;
            failed |= put.is_err();
        }
        assert!(failed && world.sim.struck() == 1, "the file was never full");
        drop(store);
        // The program is killed, its machine is not; then the power fails.
        let left = MemoryIndex::new(world.index.current().crash());
        let mut world = World::on(world.sim.crash(Crash::Killed), left, 4);
        let store = world.open().await.unwrap();
        push(&store, &large.bytes, large.sha256).await.unwrap();
        drop(store);
        world.crash(Crash::Lost, Left::Flushed);
        let store = world.open().await.unwrap();
        let found = pull(&store, &large.sha256).await.unwrap();
        assert_eq!(found, large.bytes);
    });
}

#[test]
fn g4_a_journal_file_that_may_have_a_successor_takes_no_more() {
    for verb in [Verb::Sync, Verb::SyncDir, Verb::Write] {
        simulate(async {
            let world = World::new(4);
            let store = nearly_full(&world).await;
            // The new file is there; only this fails, for want of room.
            let journal = folder().join("journal");
            let next = journal.join("J-0000000000000002");
            let under = if verb == Verb::SyncDir { journal } else { next };
            let fault = if verb == Verb::Write {
                Fault::Partial(Kind::Full)
            } else {
                Fault::Fail(Kind::Full)
            };
            world.sim.plan(Plan::new(fault).on(verb).under(under));
            let mut acknowledged = Vec::new();
            for seed in 0..8 {
                let size = if seed % 2 == 0 { 62_000 } else { 300 };
                let more = fresh(seed, size);
                let put = store.put(more.bytes.clone(), more.sha256, None).await;
                if put.is_ok() {
                    acknowledged.push(more);
                }
            }
            assert_eq!(world.sim.struck(), 1, "{verb:?}");
            world.sim.clear_plans();
            drop(store);
            let store = restarted(&world).open().await.unwrap();
            for content in &acknowledged {
                let found = pull(&store, &content.sha256).await.unwrap();
                assert_eq!(found, content.bytes, "{verb:?}");
            }
        });
    }
}

#[test]
fn g4_a_superblock_slot_that_cannot_be_read_for_once_is_not_passed_over() {
    for (kind, sticky) in [(Kind::Io, false), (Kind::Interrupted, true)] {
        for nth in 0..4 {
            simulate(async {
                let world = World::new(5);
                let store = world.open().await.unwrap();
                for sequence in 1..=nth {
                    store.catalog_seen([1; 16], sequence).await.unwrap();
                }
                store.catalog_seen([1; 16], 9).await.unwrap();
                store.close().await.unwrap();
                drop(store);
                // The slot that was written last, wherever it is.
                let mut plan = Plan::new(Fault::Fail(kind)).on(Verb::Read).after(nth);
                if sticky {
                    plan = plan.sticky();
                }
                world.sim.plan(plan);
                let opened = world.open().await;
                world.sim.clear_plans();
                let store = match opened {
                    Ok(store) => store,
                    Err(Error::Io { .. }) if sticky => world.open().await.unwrap(),
                    Err(error) => panic!("{kind:?} at read {nth}: {error}"),
                };
                assert_eq!(store.names().await.unwrap().sequence, 9);
            });
        }
    }
}
