//! Room that comes back while clients read, push and upload.

use orlop_engine::{Error, Store};

use crate::collect::{Names, condemned, cycle, known, later, wander};
use crate::explore::{Times, explore};
use crate::step::point;
use crate::world::{
    Image, OWNER, World, assert_holds, content, large, push, put, sha256, small, spawn, with_store,
};

/// A pass. How many segments went, and how many were held back.
async fn reclaim(store: &Store) -> (u64, u64) {
    let mut pass = store.reclaim().await.unwrap();
    while pass.step().await.unwrap().is_some() {
        point();
    }
    let total = pass.total();
    assert_eq!(total.failed, 0, "{total:?}");
    (total.segments, total.held)
}

/// A reader that found the blob reads all of it, however long that takes.
async fn read(store: Store, read: &'static Times) {
    wander(160);
    let digest = sha256(&large());
    let blob = match store.read(&digest) {
        Ok(blob) => blob,
        Err(Error::NotFound { .. }) => return,
        Err(error) => panic!("{error}"),
    };
    wander(200);
    let bytes = blob.bytes(1 << 20).await;
    assert_eq!(bytes.unwrap_or_else(|error| panic!("{error}")), large());
    read.add(1);
}

/// An upload that is made durable on the way.
async fn upload(store: &Store) {
    let bytes = content(77, 90_000);
    let id = store.upload_open(OWNER, None).unwrap();
    let mut upload = store.upload_resume(id, OWNER).await.unwrap();
    upload.append(bytes.slice(..70_000)).await.unwrap();
    upload.checkpoint().await.unwrap();
    drop(upload);
    wander(40);
    let mut upload = store.upload_resume(id, OWNER).await.unwrap();
    upload.append(bytes.slice(70_000..)).await.unwrap();
    upload.commit(sha256(&bytes), None).await.unwrap();
    assert_holds(store, &sha256(&bytes), &bytes).await;
}

#[test]
fn readers_pushes_and_uploads_meet_room_that_comes_back() {
    static GONE: Times = Times::new("a segment was removed");
    static HELD: Times = Times::new("a segment was held back");
    static READ: Times = Times::new("a reader got all of it");
    static NEW: Times = Times::new("a push made a new life");
    explore(
        "readers_pushes_and_uploads_meet_room_that_comes_back",
        &[&GONE, &HELD, &READ, &NEW],
        || {
            with_store(
                Image::fresh(),
                |world: World, store, acknowledged| async move {
                    let names = Names::default();
                    condemned(&world, &store, &names).await;
                    let collection = {
                        let (store, names) = (store.clone(), names.clone());
                        spawn(async move {
                            cycle(&store, &names).await.unwrap();
                            for _ in 0..2 {
                                let (gone, held) = reclaim(&store).await;
                                GONE.add(gone);
                                HELD.add(held);
                            }
                        })
                    };
                    let readers = [0, 1].map(|_| spawn(read(store.clone(), &READ)));
                    let uploader = {
                        let store = store.clone();
                        spawn(async move { upload(&store).await })
                    };
                    let pusher = {
                        let (store, names) = (store.clone(), names.clone());
                        let acknowledged = acknowledged.clone();
                        spawn(async move {
                            let digest = sha256(&large());
                            wander(200);
                            if push(&store, &large()).await.unwrap() {
                                NEW.add(1);
                            }
                            let (pin, sizes) = store.pin(&[digest]).unwrap();
                            assert!(sizes[0].is_some(), "a push is a promise");
                            names.add(digest);
                            acknowledged.blob(digest, &large());
                            drop(pin);
                            assert_holds(&store, &digest, &large()).await;
                        })
                    };
                    for reader in readers {
                        reader.await.unwrap();
                    }
                    uploader.await.unwrap();
                    pusher.await.unwrap();
                    collection.await.unwrap();
                    later(&world, &store, &names).await;
                    let (_, held) = reclaim(&store).await;
                    assert_eq!(held, 0, "nobody reads any more");
                    assert_holds(&store, &sha256(&large()), &large()).await;
                    store.close().await.unwrap();
                },
            );
        },
    );
}

/// Segments that recycling makes come beside those that a pass takes away.
#[test]
fn recycling_meets_room_that_comes_back() {
    static GONE: Times = Times::new("a segment was removed");
    static RECYCLED: Times = Times::new("a journal file was recycled");
    explore(
        "recycling_meets_room_that_comes_back",
        &[&GONE, &RECYCLED],
        || {
            with_store(Image::worn(), |_, store, acknowledged| async move {
                let passes = {
                    let store = store.clone();
                    spawn(async move {
                        for _ in 0..6 {
                            wander(60);
                            GONE.add(reclaim(&store).await.0);
                        }
                    })
                };
                let mut blobs = vec![small(), large()];
                blobs.extend((1000..1022).map(|seed| content(seed, 100)));
                for bytes in &blobs {
                    acknowledged.blob(sha256(bytes), bytes);
                }
                for seed in 2000..2006 {
                    let bytes = content(seed, 3_000);
                    put(&store, &bytes).await.unwrap();
                    acknowledged.blob(sha256(&bytes), &bytes);
                    blobs.push(bytes);
                }
                passes.await.unwrap();
                RECYCLED.add(store.health().await.counts.recycled);
                for bytes in &blobs {
                    assert_holds(&store, &sha256(bytes), bytes).await;
                }
                store.close().await.unwrap();
            });
        },
    );
}

/// What lives in a segment that is half dead moves while clients read and push it.
#[test]
fn readers_and_pushes_meet_what_moves() {
    static MOVED: Times = Times::new("a blob was moved");
    static HELD: Times = Times::new("a segment was held back");
    static GONE: Times = Times::new("a segment was removed");
    explore(
        "readers_and_pushes_meet_what_moves",
        &[&MOVED, &HELD, &GONE],
        || {
            with_store(
                Image::thin(),
                |world: World, store, acknowledged| async move {
                    let names = Names::default();
                    for bytes in [large(), small()] {
                        names.add(sha256(&bytes));
                        acknowledged.blob(sha256(&bytes), &bytes);
                    }
                    known(&store).await;
                    later(&world, &store, &names).await;
                    let moves = {
                        let store = store.clone();
                        spawn(async move {
                            for _ in 0..2 {
                                wander(60);
                                let mut pass = store.reclaim().await.unwrap();
                                while pass.step().await.unwrap().is_some() {
                                    point();
                                }
                                let total = pass.total();
                                assert_eq!(total.failed, 0, "{total:?}");
                                MOVED.add(u64::from(total.moved > 0));
                                HELD.add(total.held);
                                GONE.add(total.segments);
                            }
                        })
                    };
                    let readers = [0, 1].map(|_| {
                        let store = store.clone();
                        spawn(async move {
                            wander(160);
                            let blob = store.read(&sha256(&large())).unwrap();
                            wander(200);
                            assert_eq!(blob.bytes(1 << 20).await.unwrap(), large());
                        })
                    });
                    let pusher = {
                        let store = store.clone();
                        spawn(async move {
                            wander(200);
                            let is_new = push(&store, &large()).await.unwrap();
                            assert!(!is_new, "it is here all the time");
                            upload(&store).await;
                        })
                    };
                    for reader in readers {
                        reader.await.unwrap();
                    }
                    pusher.await.unwrap();
                    moves.await.unwrap();
                    let (_, held) = reclaim(&store).await;
                    assert_eq!(held, 0, "nobody reads any more");
                    assert_holds(&store, &sha256(&large()), &large()).await;
                    store.close().await.unwrap();
                },
            );
        },
    );
}
