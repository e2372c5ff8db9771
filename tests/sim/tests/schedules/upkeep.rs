//! What the store does on its own, recycling its journal above all, while
//! clients push and read.

use std::path::PathBuf;
use std::sync::OnceLock;

use orlop_engine::CatalogMatch;

use crate::explore::{Times, explore};
use crate::world::{Image, OWNER, assert_holds, content, put, sha256, small, spawn, with_store};

#[test]
fn rotating_and_recycling_meet_pushes() {
    static RECYCLED: Times = Times::new("a file was recycled meanwhile");
    explore("rotating_and_recycling_meet_pushes", &[&RECYCLED], || {
        with_store(Image::worn(), |_, store, acknowledged| async move {
            let pushers = [50, 60, 70].map(|first| {
                let (store, acknowledged) = (store.clone(), acknowledged.clone());
                spawn(async move {
                    for seed in first..first + 4 {
                        let bytes = content(seed, 100);
                        put(&store, &bytes).await.unwrap();
                        acknowledged.blob(sha256(&bytes), &bytes);
                    }
                })
            });
            for pusher in pushers {
                pusher.await.unwrap();
            }
            RECYCLED.add(store.health().await.counts.recycled);
            assert_holds(&store, &sha256(&small()), &small()).await;
            for seed in 1000..1022 {
                let bytes = content(seed, 100);
                assert_holds(&store, &sha256(&bytes), &bytes).await;
            }
            store.close().await.unwrap();
        });
    });
}

#[test]
fn a_close_meets_recycling() {
    static RECYCLED: Times = Times::new("a file was recycled");
    explore("a_close_meets_recycling", &[&RECYCLED], || {
        with_store(Image::worn(), |_, store, acknowledged| async move {
            for seed in 50..54 {
                let bytes = content(seed, 100);
                put(&store, &bytes).await.unwrap();
                acknowledged.blob(sha256(&bytes), &bytes);
            }
            // Ends by itself: no time passes any more.
            store.close().await.unwrap();
            RECYCLED.add(store.health().await.counts.recycled);
        });
    });
}

#[test]
fn readers_meet_the_recycling_of_what_they_read() {
    static RECYCLED: Times = Times::new("a file was recycled meanwhile");
    explore(
        "readers_meet_the_recycling_of_what_they_read",
        &[&RECYCLED],
        || {
            with_store(Image::worn(), |_, store, acknowledged| async move {
                let readers = [1000, 1007, 1012].map(|first| {
                    let store = store.clone();
                    spawn(async move {
                        for seed in first..first + 6 {
                            let bytes = content(seed, 100);
                            assert_holds(&store, &sha256(&bytes), &bytes).await;
                        }
                    })
                });
                for seed in 50..60 {
                    let bytes = content(seed, 100);
                    put(&store, &bytes).await.unwrap();
                    acknowledged.blob(sha256(&bytes), &bytes);
                }
                for reader in readers {
                    reader.await.unwrap();
                }
                let counts = store.health().await.counts;
                RECYCLED.add(counts.recycled);
                assert_eq!(counts.quarantined, 0, "what moved is not damaged");
                store.close().await.unwrap();
            });
        },
    );
}

#[test]
fn a_checkpoint_meets_recycling() {
    static RECYCLED: Times = Times::new("a file was recycled meanwhile");
    explore("a_checkpoint_meets_recycling", &[&RECYCLED], || {
        with_store(Image::worn(), |world, store, acknowledged| async move {
            let bytes = content(80, 900);
            let id = store.upload_open(OWNER, None).unwrap();
            let pusher = store.clone();
            let pusher = spawn(async move {
                for seed in 50..62 {
                    put(&pusher, &content(seed, 100)).await.unwrap();
                }
            });
            for part in 0..3 {
                let mut upload = store.upload_resume(id, OWNER).await.unwrap();
                assert_eq!(upload.offset(), part * 300);
                let from = usize::try_from(part * 300).unwrap();
                upload.append(bytes.slice(from..from + 300)).await.unwrap();
                upload.checkpoint().await.unwrap();
                drop(upload);
                // Its state cools down, and comes from the log the next time.
                world.clock.pass(orlop_engine::config::WARM_TIME);
            }
            pusher.await.unwrap();
            RECYCLED.add(store.health().await.counts.recycled);
            let again = world.cut().open().await;
            assert_eq!(again.upload_status(id, OWNER).unwrap(), 900);
            again.close().await.unwrap();
            let upload = store.upload_resume(id, OWNER).await.unwrap();
            upload.commit(sha256(&bytes), None).await.unwrap();
            acknowledged.blob(sha256(&bytes), &bytes);
            store.close().await.unwrap();
        });
    });
}

/// A file that stands for a catalog.
fn catalog() -> &'static PathBuf {
    static FILE: OnceLock<PathBuf> = OnceLock::new();
    FILE.get_or_init(|| {
        let path = std::env::temp_dir().join(format!("orlop-catalog-{}", std::process::id()));
        std::fs::write(&path, content(90, 700)).unwrap();
        path
    })
}

#[test]
fn a_copy_of_the_catalog_meets_pushes() {
    explore("a_copy_of_the_catalog_meets_pushes", &[], || {
        with_store(Image::fresh(), |world, store, acknowledged| async move {
            let pushers = [91, 92].map(|seed| {
                let (store, acknowledged) = (store.clone(), acknowledged.clone());
                spawn(async move {
                    let bytes = content(seed, 100);
                    let note = Some(vec![u8::try_from(seed).unwrap(); 20]);
                    store
                        .put(bytes.clone(), sha256(&bytes), note)
                        .await
                        .unwrap();
                    acknowledged.blob(sha256(&bytes), &bytes);
                })
            });
            let seer = store.clone();
            let seer = spawn(async move {
                for sequence in 1..=2 {
                    let seen = seer.catalog_seen([7; 16], sequence).await.unwrap();
                    assert_eq!(seen, CatalogMatch::Same);
                }
            });
            for sequence in 1..=2 {
                store
                    .catalog_copy(catalog(), [7; 16], sequence)
                    .await
                    .unwrap();
            }
            for task in pushers.into_iter().chain([seer]) {
                task.await.unwrap();
            }
            store.close().await.unwrap();
            let again = world.cut().open().await;
            let copy = sha256(&content(90, 700));
            for store in [&store, &again] {
                let names = store.names().await.unwrap();
                assert_eq!(names.copies, [(copy, 1), (copy, 2)]);
                assert!(names.any);
                assert_eq!((names.catalog, names.sequence), (Some([7; 16]), 2));
            }
            assert_holds(&again, &copy, &content(90, 700)).await;
            again.close().await.unwrap();
        });
    });
}
