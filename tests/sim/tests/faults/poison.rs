//! What follows a failed sync, step by step.

use orlop_disk::Kind;
use orlop_disk::sim::{Fault, Plan, Verb};
use orlop_engine::Error;

use crate::support::clock::simulate;
use crate::support::contents;
use crate::support::world::{World, pull, push};

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
