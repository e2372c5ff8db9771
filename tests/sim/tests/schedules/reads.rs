//! Readers that meet damage, quarantine, healing, and each other; leases.

use bytes::Bytes;
use futures_util::StreamExt as _;
use orlop_engine::{Error, Runtime as _};

use crate::explore::{Times, explore};
use crate::world::{
    Image, LEASE, assert_holds, content, damage, large, pull, push, put, sha256, small, spawn,
    with_store,
};

/// A reader of a damaged blob gets nothing wrong: an error, or what was cached.
fn assert_not_wrong(read: &Result<Bytes, Error>, bytes: &Bytes) {
    match read {
        Ok(read) => assert_eq!(read, bytes, "wrong bytes were served"),
        Err(Error::Corrupt { .. }) => {}
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn readers_meet_the_quarantine_of_their_blob() {
    static QUARANTINED: Times = Times::new("the blob was quarantined");
    explore(
        "readers_meet_the_quarantine_of_their_blob",
        &[&QUARANTINED],
        || {
            with_store(Image::fresh(), |world, store, _| async move {
                let (bytes, digest) = (large(), sha256(&large()));
                damage(&world, &bytes);
                let readers = [0, 1].map(|_| {
                    let (store, bytes) = (store.clone(), bytes.clone());
                    spawn(async move {
                        let read = pull(&store, &digest).await;
                        assert_not_wrong(&read, &bytes);
                        assert!(read.is_err(), "nothing of it was ever cached");
                        // No answer after that says "it is here".
                        assert!(matches!(store.stat(&digest), Err(Error::NotFound { .. })));
                        assert!(matches!(store.read(&digest), Err(Error::Corrupt { .. })));
                    })
                });
                let healthy = store.clone();
                let healthy = spawn(async move { pull(&healthy, &sha256(&small())).await });
                for reader in readers {
                    reader.await.unwrap();
                }
                assert_eq!(healthy.await.unwrap().unwrap(), small());
                let counts = store.health().await.counts;
                assert_eq!(counts.quarantined, 1, "it is quarantined once");
                QUARANTINED.add(1);
                store.close().await.unwrap();
                let again = world.cut().open().await;
                assert!(pull(&again, &digest).await.is_err());
                assert!(again.stat(&digest).is_err());
                assert_holds(&again, &sha256(&small()), &small()).await;
                again.close().await.unwrap();
            });
        },
    );
}

#[test]
fn a_push_meets_the_quarantine_of_its_blob_and_heals_it() {
    static HEALED: Times = Times::new("the push that met the quarantine kept its copy");
    static PRESENT: Times = Times::new("the push came before the quarantine");
    let name = "a_push_meets_the_quarantine_of_its_blob_and_heals_it";
    explore(name, &[&HEALED, &PRESENT], || {
        with_store(Image::fresh(), |world, store, acknowledged| async move {
            let (bytes, digest) = (large(), sha256(&large()));
            damage(&world, &bytes);
            let (reader, again) = (store.clone(), bytes.clone());
            let reader = spawn(async move {
                let read = pull(&reader, &digest).await;
                assert_not_wrong(&read, &again);
                if read.is_err() {
                    // Pushed by who knows of the damage: it must be whole then.
                    push(&reader, &again).await.unwrap();
                    assert_eq!(pull(&reader, &digest).await.unwrap(), again);
                }
            });
            let new = push(&store, &bytes).await;
            reader.await.unwrap();
            // Unless it saw the damaged blob as one that is here, which then
            // was quarantined before the lease was taken.
            match new {
                Ok(true) => HEALED.add(1),
                Ok(false) | Err(Error::NotFound { .. }) => PRESENT.add(1),
                Err(other) => panic!("{other}"),
            }
            assert_holds(&store, &digest, &bytes).await;
            acknowledged.blob(digest, &bytes);
            store.close().await.unwrap();
        });
    });
}

#[test]
fn readers_share_a_fetch_and_one_goes_away() {
    static LEFT: Times = Times::new("a reader went away before its bytes came");
    explore("readers_share_a_fetch_and_one_goes_away", &[&LEFT], || {
        with_store(Image::fresh(), |_, store, _| async move {
            let (bytes, digest) = (large(), sha256(&large()));
            let leaver = store.clone();
            let leaver = spawn(async move {
                let blob = leaver.read(&digest).unwrap();
                let mut stream = blob.stream(0..blob.size());
                let first = futures_util::future::poll_immediate(stream.next()).await;
                LEFT.add(u64::from(first.is_none()));
            });
            let readers = [0..70_000u64, 1_000..66_000, 69_000..70_000].map(|range| {
                let (store, bytes) = (store.clone(), bytes.clone());
                spawn(async move {
                    let mut stream = store.read(&digest).unwrap().stream(range.clone());
                    let mut got = Vec::new();
                    while let Some(piece) = stream.next().await {
                        got.extend_from_slice(&piece.unwrap());
                    }
                    let range =
                        usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap();
                    assert_eq!(got, bytes[range]);
                })
            });
            leaver.await.unwrap();
            for reader in readers {
                reader.await.unwrap();
            }
            store.close().await.unwrap();
        });
    });
}

#[test]
fn a_cache_fill_meets_the_quarantine_and_the_next_life() {
    static SERVED: Times = Times::new("a reader had the bytes before the damage");
    static FAILED: Times = Times::new("a reader saw the damage");
    let name = "a_cache_fill_meets_the_quarantine_and_the_next_life";
    explore(name, &[&SERVED, &FAILED], || {
        with_store(Image::fresh(), |world, store, acknowledged| async move {
            let (bytes, digest) = (large(), sha256(&large()));
            let readers = [0, 1].map(|_| {
                let (store, bytes) = (store.clone(), bytes.clone());
                spawn(async move {
                    for _ in 0..2 {
                        let read = pull(&store, &digest).await;
                        assert_not_wrong(&read, &bytes);
                        let event = if read.is_ok() { &SERVED } else { &FAILED };
                        event.add(1);
                    }
                })
            });
            crate::world::points(40);
            damage(&world, &bytes);
            for reader in readers {
                reader.await.unwrap();
            }
            // Whatever the cache holds now, a push leads to the right bytes.
            if store.stat(&digest).is_err() {
                push(&store, &bytes).await.unwrap();
                acknowledged.blob(digest, &bytes);
            }
            assert_not_wrong(&pull(&store, &digest).await, &bytes);
            store.close().await.unwrap();
        });
    });
}

#[test]
fn leases_and_pins_hold_while_time_goes_on() {
    static HELD: Times = Times::new("a lease held for its term");
    static ENDED: Times = Times::new("a lease had ended");
    explore(
        "leases_and_pins_hold_while_time_goes_on",
        &[&HELD, &ENDED],
        || {
            with_store(Image::fresh(), |world, store, _| async move {
                // Everything is leased for a term after the start.
                world.clock.pass(LEASE * 3);
                let (leased, pinned) = (sha256(&large()), sha256(&small()));
                let pinner = store.clone();
                let pinner = spawn(async move {
                    let to_come = content(40, 100);
                    let digests = [pinned, sha256(&to_come)];
                    let (pin, found) = pinner.pin(&digests).unwrap();
                    let sizes: Vec<_> = found.iter().map(|of| of.map(|of| of.size)).collect();
                    assert_eq!(sizes, [Some(300), None]);
                    put(&pinner, &to_come).await.unwrap();
                    for _ in 0..3 {
                        for digest in &digests {
                            assert!(pinner.held(digest).unwrap(), "a pin holds it");
                        }
                        crate::step::point();
                    }
                    drop(pin);
                });
                let (holder, clock) = (store.clone(), world.clock.clone());
                let holder = spawn(async move {
                    let taken = clock.now();
                    holder.stat(&leased).unwrap();
                    for _ in 0..3 {
                        let held = holder.held(&leased).unwrap();
                        // Asked after: what was in time was held.
                        if clock.now() < taken + LEASE {
                            assert!(held, "the lease was given up within its term");
                            HELD.add(1);
                        } else if !held {
                            ENDED.add(1);
                        }
                        crate::step::point();
                    }
                });
                let clock = world.clock.clone();
                let time = spawn(async move {
                    for _ in 0..8 {
                        crate::step::point();
                        clock.pass(LEASE / 3);
                    }
                });
                for _ in 0..2 {
                    // Turns the table under the others.
                    store.stat(&pinned).unwrap();
                    crate::step::point();
                }
                for task in [pinner, holder, time] {
                    task.await.unwrap();
                }
                world.clock.pass(LEASE * 3);
                assert!(!store.held(&leased).unwrap(), "a lease ends");
                assert!(!store.held(&pinned).unwrap(), "a pin ends with its drop");
                store.close().await.unwrap();
            });
        },
    );
}
