//! A collection while clients push, mount, name and read what it condemned.
//!
//! A set of digests stands for the catalog: a transaction that adds one is seen
//! by every snapshot that is opened after it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use orlop_engine::{CatalogMatch, Collected, Digest, Error, Store, Trailer};

use shuttle::rand::Rng as _;

use crate::explore::{Times, explore};
use crate::step::point;
use crate::world::{
    Image, LEASE, World, assert_holds, large, pull, push, sha256, small, spawn, with_store,
};

const CATALOG: [u8; 16] = [5; 16];

/// What the catalog names.
#[derive(Clone, Default)]
pub(crate) struct Names(Arc<Mutex<BTreeSet<Digest>>>);

impl Names {
    pub(crate) fn add(&self, digest: Digest) {
        point();
        self.0.lock().unwrap().insert(digest);
        point();
    }

    fn snapshot(&self) -> Vec<Digest> {
        self.0.lock().unwrap().iter().copied().collect()
    }
}

/// A cycle in which everything that may die does.
pub(crate) async fn cycle(store: &Store, names: &Names) -> Result<Collected, Error> {
    let mut collector = store.collect().await?;
    point();
    let live = names.snapshot();
    for digest in &live {
        collector.mark(&[*digest])?;
        point();
    }
    let trailer = Trailer {
        digests: live.len() as u64,
        catalog: CATALOG,
        sequence: 1,
    };
    let mut sweep = collector.whole(trailer, false)?;
    while let Some(garbage) = sweep.step()? {
        point();
        sweep.end(&garbage, true).await?;
    }
    sweep.finish()
}

/// Gives the others some turns.
pub(crate) fn wander(most: usize) {
    for _ in 0..shuttle::rand::thread_rng().gen_range(0..most) {
        point();
    }
}

/// The store knows its catalog.
pub(crate) async fn known(store: &Store) {
    let seen = store.catalog_seen(CATALOG, 1).await.unwrap();
    assert_eq!(seen, CatalogMatch::Same);
}

/// All leases have ended, and both blobs of the image are condemned.
pub(crate) async fn condemned(world: &World, store: &Store, names: &Names) {
    known(store).await;
    world.clock.pass(LEASE * 3);
    let done = cycle(store, names).await.unwrap();
    assert_eq!((done.condemned, done.dead), (2, 0));
}

/// When all leases have ended, only names keep anything.
pub(crate) async fn later(world: &World, store: &Store, names: &Names) {
    world.clock.pass(LEASE * 3);
    for _ in 0..2 {
        cycle(store, names).await.unwrap();
    }
}

/// The collections that run beside the scenario's clients.
fn collect(store: &Store, names: &Names, dead: &'static Times) -> shuttle::future::JoinHandle<()> {
    let (store, names) = (store.clone(), names.clone());
    spawn(async move {
        for _ in 0..2 {
            let done = cycle(&store, &names).await.unwrap();
            dead.add(done.dead);
        }
    })
}

#[test]
fn i06_pushes_meet_the_collection_of_what_they_push() {
    static DEAD: Times = Times::new("a blob died");
    static NEW: Times = Times::new("a push made a new life");
    static PRESENT: Times = Times::new("a push found the blob here");
    explore(
        "i06_pushes_meet_the_collection_of_what_they_push",
        &[&DEAD, &NEW, &PRESENT],
        || {
            with_store(Image::fresh(), |world, store, acknowledged| async move {
                let names = Names::default();
                condemned(&world, &store, &names).await;
                let collection = collect(&store, &names, &DEAD);
                let pushers = [small(), large()].map(|bytes: Bytes| {
                    let (store, names) = (store.clone(), names.clone());
                    let acknowledged = acknowledged.clone();
                    spawn(async move {
                        let digest = sha256(&bytes);
                        wander(40);
                        let new = push(&store, &bytes).await.unwrap();
                        if new { &NEW } else { &PRESENT }.add(1);
                        // The manifest comes a moment later, within the lease.
                        let (pin, found) = store.pin(&[digest]).unwrap();
                        let size = found[0].map(|found| found.size);
                        assert_eq!(size, Some(bytes.len() as u64), "a push is a promise");
                        names.add(digest);
                        acknowledged.blob(digest, &bytes);
                        drop(pin);
                        assert_holds(&store, &digest, &bytes).await;
                    })
                });
                for pusher in pushers {
                    pusher.await.unwrap();
                }
                collection.await.unwrap();
                later(&world, &store, &names).await;
                for bytes in [small(), large()] {
                    assert_holds(&store, &sha256(&bytes), &bytes).await;
                }
                store.close().await.unwrap();
            });
        },
    );
}

#[test]
fn mounts_and_manifests_meet_a_collection() {
    static DEAD: Times = Times::new("a blob died");
    static HERE: Times = Times::new("a client was told that it is here");
    static ABSENT: Times = Times::new("a client was told that it is not");
    explore(
        "mounts_and_manifests_meet_a_collection",
        &[&DEAD, &HERE, &ABSENT],
        || {
            with_store(Image::fresh(), |world, store, acknowledged| async move {
                let names = Names::default();
                condemned(&world, &store, &names).await;
                let collection = collect(&store, &names, &DEAD);
                // One asks first, the other names it at once.
                let clients = [(small(), true), (large(), false)].map(|(bytes, asks)| {
                    let (store, names) = (store.clone(), names.clone());
                    let acknowledged = acknowledged.clone();
                    spawn(async move {
                        let digest = sha256(&bytes);
                        wander(120);
                        let promised = asks && store.stat(&digest).is_ok();
                        point();
                        let (pin, sizes) = store.pin(&[digest]).unwrap();
                        assert!(!promised || sizes[0].is_some(), "an answer is a promise");
                        if sizes[0].is_none() {
                            ABSENT.add(1);
                            return false;
                        }
                        HERE.add(1);
                        names.add(digest);
                        acknowledged.blob(digest, &bytes);
                        drop(pin);
                        assert_holds(&store, &digest, &bytes).await;
                        true
                    })
                });
                let mut here = Vec::new();
                for client in clients {
                    here.push(client.await.unwrap());
                }
                collection.await.unwrap();
                later(&world, &store, &names).await;
                for (here, bytes) in here.into_iter().zip([small(), large()]) {
                    if here {
                        assert_holds(&store, &sha256(&bytes), &bytes).await;
                    }
                }
                store.close().await.unwrap();
            });
        },
    );
}

#[test]
fn readers_and_a_close_meet_a_collection() {
    static READ: Times = Times::new("a reader got all of it");
    static ABSENT: Times = Times::new("a reader was told that it is not here");
    static ENDED: Times = Times::new("a collection was ended by the close");
    explore(
        "readers_and_a_close_meet_a_collection",
        &[&READ, &ABSENT, &ENDED],
        || {
            with_store(Image::fresh(), |world, store, _| async move {
                let names = Names::default();
                condemned(&world, &store, &names).await;
                let (collector, named) = (store.clone(), names.clone());
                let collection = spawn(async move {
                    match cycle(&collector, &named).await {
                        Ok(_) => {}
                        Err(Error::Busy { .. }) => ENDED.add(1),
                        Err(error) => panic!("{error}"),
                    }
                });
                let readers = [small(), large()].map(|bytes| {
                    let store = store.clone();
                    spawn(async move {
                        wander(120);
                        match pull(&store, &sha256(&bytes)).await {
                            Ok(found) => {
                                assert_eq!(found, bytes);
                                READ.add(1);
                            }
                            Err(Error::NotFound { .. }) => ABSENT.add(1),
                            Err(error) => panic!("{error}"),
                        }
                    })
                });
                wander(60);
                store.close().await.unwrap();
                collection.await.unwrap();
                for reader in readers {
                    reader.await.unwrap();
                }
            });
        },
    );
}
