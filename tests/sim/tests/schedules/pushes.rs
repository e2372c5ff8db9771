//! Pushes that meet pushes, a close, a failing disk, a stalled one.

use bytes::Bytes;
use orlop_disk::Kind;
use orlop_disk::sim::{Fault, Plan, Verb};
use orlop_engine::{Algorithm, Digest, Error, Store};

use crate::explore::{Times, explore};
use crate::step::folder;
use crate::world::{
    Acknowledged, Image, assert_holds, content, large, pull, push, put, sha256, small, spawn,
    with_store,
};

/// Pushes of one blob at once.
const PUSHERS: usize = 64;

#[test]
fn i08_64_pushers_of_one_blob_leave_one_copy() {
    explore("i08_64_pushers_of_one_blob_leave_one_copy", &[], || {
        with_store(Image::fresh(), |_, store, acknowledged| async move {
            let bytes = content(7, 200);
            let before = store.health().await.counts;
            let pushers: Vec<_> = (0..PUSHERS)
                .map(|_| {
                    let (store, bytes) = (store.clone(), bytes.clone());
                    let acknowledged = acknowledged.clone();
                    spawn(async move {
                        let new = put(&store, &bytes).await.expect("every push succeeds");
                        acknowledged.blob(sha256(&bytes), &bytes);
                        usize::from(new)
                    })
                })
                .collect();
            let mut new = 0;
            for pusher in pushers {
                new += pusher.await.unwrap();
            }
            assert_eq!(new, 1, "one push brings the blob, the others find it");
            let after = store.health().await.counts;
            assert_eq!(after.duplicates - before.duplicates, PUSHERS as u64 - 1);
            assert_holds(&store, &sha256(&bytes), &bytes).await;
            store.close().await.unwrap();
        });
    });
}

#[test]
fn i08_pushers_of_one_large_blob_leave_one_copy() {
    explore("i08_pushers_of_one_large_blob_leave_one_copy", &[], || {
        with_store(Image::fresh(), |_, store, acknowledged| async move {
            let bytes = content(8, 66_000);
            let other = spawn(pushed(&store, &bytes, &acknowledged));
            let new = pushed(&store, &bytes, &acknowledged).await;
            let other = other.await.unwrap();
            assert!(new != other, "exactly one of two is new");
            assert_holds(&store, &sha256(&bytes), &bytes).await;
            store.close().await.unwrap();
        });
    });
}

/// A push as an upload, and whether it was new.
fn pushed(
    store: &Store,
    bytes: &Bytes,
    acknowledged: &Acknowledged,
) -> impl Future<Output = bool> + Send + 'static {
    let (store, bytes, acknowledged) = (store.clone(), bytes.clone(), acknowledged.clone());
    async move {
        let new = push(&store, &bytes).await.expect("the push succeeds");
        acknowledged.blob(sha256(&bytes), &bytes);
        new
    }
}

#[test]
fn commits_of_one_blob_by_three_algorithms_are_one_blob() {
    explore(
        "commits_of_one_blob_by_three_algorithms_are_one_blob",
        &[],
        || {
            with_store(Image::fresh(), |_, store, acknowledged| async move {
                let bytes = content(9, 500);
                let digests = Algorithm::ALL.map(|algorithm| Digest::of(algorithm, &bytes));
                let commits = digests.map(|digest| {
                    let (store, bytes) = (store.clone(), bytes.clone());
                    let acknowledged = acknowledged.clone();
                    spawn(async move {
                        let committed = store.put(bytes.clone(), digest, None).await.unwrap();
                        acknowledged.blob(digest, &bytes);
                        // Whoever was told so finds it by the name it used.
                        store.stat(&digest).unwrap();
                        usize::from(committed.new)
                    })
                });
                let mut new = 0;
                for commit in commits {
                    new += commit.await.unwrap();
                }
                assert_eq!(new, 1);
                let births = digests.map(|digest| store.stat(&digest).unwrap().birth);
                assert!(births.iter().all(|birth| *birth == births[0]), "{births:?}");
                store.close().await.unwrap();
            });
        },
    );
}

#[test]
fn a_close_meets_pushes() {
    static PUSHED: Times = Times::new("a push came before the close");
    static REFUSED: Times = Times::new("a push came too late");
    explore("a_close_meets_pushes", &[&PUSHED, &REFUSED], || {
        with_store(Image::fresh(), |_, store, acknowledged| async move {
            let pushers = [content(10, 100), content(11, 66_000), content(12, 200)].map(|bytes| {
                let (store, acknowledged) = (store.clone(), acknowledged.clone());
                spawn(async move {
                    match push(&store, &bytes).await {
                        Ok(_) => {
                            acknowledged.blob(sha256(&bytes), &bytes);
                            PUSHED.add(1);
                        }
                        Err(Error::Busy { .. }) => REFUSED.add(1),
                        Err(other) => panic!("refused by another error: {other}"),
                    }
                })
            });
            store.close().await.unwrap();
            for pusher in pushers {
                pusher.await.unwrap();
            }
            // Nothing moves any more, and what is there can be read.
            assert!(push(&store, &content(13, 10)).await.is_err());
            assert_eq!(pull(&store, &sha256(&small())).await.unwrap(), small());
        });
    });
}

#[test]
fn a_sync_that_fails_lets_no_push_through() {
    static FAILED: Times = Times::new("a push was refused");
    static PUSHED: Times = Times::new("a push came before the failure");
    let events = [&FAILED, &PUSHED];
    explore("a_sync_that_fails_lets_no_push_through", &events, || {
        with_store(Image::fresh(), |world, store, acknowledged| async move {
            let plan = Plan::new(Fault::Fail(Kind::Io)).on(Verb::Sync);
            world
                .sim
                .plan(plan.under(folder().join("journal")).after(1));
            let pushers = [content(14, 100), content(15, 66_000), content(16, 200)].map(|bytes| {
                let (store, acknowledged) = (store.clone(), acknowledged.clone());
                spawn(async move {
                    match push(&store, &bytes).await {
                        Ok(_) => {
                            acknowledged.blob(sha256(&bytes), &bytes);
                            PUSHED.add(1);
                        }
                        Err(Error::Poisoned { .. }) => {
                            FAILED.add(1);
                            let again = push(&store, &bytes).await;
                            assert!(matches!(again, Err(Error::Poisoned { .. })));
                        }
                        Err(other) => panic!("refused by another error: {other}"),
                    }
                })
            });
            let reader = store.clone();
            let reader = spawn(async move { pull(&reader, &sha256(&large())).await.unwrap() });
            for pusher in pushers {
                pusher.await.unwrap();
            }
            assert_eq!(reader.await.unwrap(), large(), "reads go on");
            let _ = store.close().await;
        });
    });
}

#[test]
fn i18_a_stalled_write_holds_up_no_other_request() {
    static STALLED: Times = Times::new("a write was held up");
    explore(
        "i18_a_stalled_write_holds_up_no_other_request",
        &[&STALLED],
        || {
            with_store(Image::fresh(), |world, store, acknowledged| async move {
                // Opens the segment that takes extents.
                push(&store, &content(17, 66_000)).await.unwrap();
                world.stall.hold(Verb::Write, "raw", 1);
                let stalled = spawn(pushed(&store, &content(18, 66_000), &acknowledged));
                world.stall.reached().await;
                STALLED.add(1);
                // Each of these would wait for ever if it needed what the other holds.
                for bytes in [content(19, 100), content(20, 67_000)] {
                    push(&store, &bytes).await.unwrap();
                    acknowledged.blob(sha256(&bytes), &bytes);
                    assert_holds(&store, &sha256(&bytes), &bytes).await;
                }
                assert_holds(&store, &sha256(&large()), &large()).await;
                let health = store.health().await;
                assert_eq!(health.poisoned, None);
                world.stall.release();
                stalled.await.unwrap();
                store.close().await.unwrap();
            });
        },
    );
}

#[test]
fn i18_a_stalled_sync_holds_up_no_read() {
    static STALLED: Times = Times::new("a sync was held up");
    explore("i18_a_stalled_sync_holds_up_no_read", &[&STALLED], || {
        with_store(Image::fresh(), |world, store, acknowledged| async move {
            world.stall.hold(Verb::Sync, "journal", 1);
            let stalled = spawn(pushed(&store, &content(21, 100), &acknowledged));
            world.stall.reached().await;
            STALLED.add(1);
            for bytes in [small(), large()] {
                assert_holds(&store, &sha256(&bytes), &bytes).await;
                store.pin(&[sha256(&bytes)]).unwrap();
            }
            // Bytes are taken in, and wait for the log only in the end.
            let id = store.upload_open("a/b", None).unwrap();
            let mut upload = store.upload_resume(id, "a/b").await.unwrap();
            upload.append(content(22, 66_000)).await.unwrap();
            assert_eq!(store.health().await.poisoned, None);
            world.stall.release();
            stalled.await.unwrap();
            upload.cancel().await.unwrap();
            store.close().await.unwrap();
        });
    });
}

#[test]
fn i18_a_stalled_read_holds_up_no_other_request() {
    static STALLED: Times = Times::new("a read was held up");
    explore(
        "i18_a_stalled_read_holds_up_no_other_request",
        &[&STALLED],
        || {
            with_store(Image::fresh(), |world, store, acknowledged| async move {
                let other = content(23, 66_000);
                push(&store, &other).await.unwrap();
                world.stall.hold(Verb::Read, "raw", 1);
                let reader = store.clone();
                let stalled = spawn(async move { pull(&reader, &sha256(&large())).await.unwrap() });
                world.stall.reached().await;
                STALLED.add(1);
                for bytes in [other, small()] {
                    assert_holds(&store, &sha256(&bytes), &bytes).await;
                }
                for bytes in [content(24, 100), content(25, 67_000)] {
                    push(&store, &bytes).await.unwrap();
                    acknowledged.blob(sha256(&bytes), &bytes);
                }
                world.stall.release();
                assert_eq!(stalled.await.unwrap(), large());
                store.close().await.unwrap();
            });
        },
    );
}
