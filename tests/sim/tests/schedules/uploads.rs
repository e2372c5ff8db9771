//! Sessions of uploads that more than one task wants.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use orlop_engine::{Error, Invalid, Store, UploadId};

use crate::explore::{Times, explore};
use crate::world::{Image, OWNER, assert_holds, content, pull, push_to, sha256, spawn, with_store};

/// Tries until the session is free.
async fn hold(store: &Store, id: UploadId, refused: &Times) -> orlop_engine::Upload {
    loop {
        match store.upload_resume(id, OWNER).await {
            Ok(upload) => return upload,
            Err(Error::Busy { .. }) => refused.add(1),
            Err(other) => panic!("the upload is refused by another error: {other}"),
        }
        shuttle::future::yield_now().await;
    }
}

#[test]
fn one_session_is_held_by_one_request_at_a_time() {
    static REFUSED: Times = Times::new("a request found the session held");
    explore(
        "one_session_is_held_by_one_request_at_a_time",
        &[&REFUSED],
        || {
            with_store(Image::fresh(), |_, store, acknowledged| async move {
                let id = store.upload_open(OWNER, None).unwrap();
                let holders = Arc::new(AtomicU64::new(0));
                let requests = [100, 65_600].map(|len| {
                    let (store, holders) = (store.clone(), Arc::clone(&holders));
                    spawn(async move {
                        let mut upload = hold(&store, id, &REFUSED).await;
                        assert_eq!(holders.fetch_add(1, Ordering::SeqCst), 0, "two hold it");
                        let from = upload.offset();
                        upload.append(content(from, len)).await.unwrap();
                        let durable = upload.checkpoint().await.unwrap();
                        assert_eq!(durable, from + len as u64);
                        holders.fetch_sub(1, Ordering::SeqCst);
                        drop(upload);
                        from
                    })
                });
                let mut from = Vec::new();
                for request in requests {
                    from.push(request.await.unwrap());
                }
                // Either may have come first; the second went on where it ended.
                let bytes = if from == [0, 100] {
                    [content(0, 100), content(100, 65_600)].concat()
                } else {
                    assert_eq!(from, [65_600, 0]);
                    [content(0, 65_600), content(65_600, 100)].concat()
                };
                assert_eq!(store.upload_status(id, OWNER).unwrap(), 65_700);
                let upload = store.upload_resume(id, OWNER).await.unwrap();
                let bytes = bytes::Bytes::from(bytes);
                upload.commit(sha256(&bytes), None).await.unwrap();
                acknowledged.blob(sha256(&bytes), &bytes);
                assert_holds(&store, &sha256(&bytes), &bytes).await;
                store.close().await.unwrap();
            });
        },
    );
}

/// How a request for an upload that another one ends may fail.
fn is_gone(error: &Error) -> bool {
    matches!(error, Error::Busy { .. } | Error::NotFound { .. })
}

#[test]
fn a_cancel_meets_a_commit() {
    static CANCELLED: Times = Times::new("the cancel came first");
    static COMMITTED: Times = Times::new("the commit came first");
    let events = [&CANCELLED, &COMMITTED];
    explore("a_cancel_meets_a_commit", &events, || {
        with_store(Image::fresh(), |world, store, acknowledged| async move {
            let bytes = content(30, 66_000);
            let id = store.upload_open(OWNER, None).unwrap();
            let mut upload = store.upload_resume(id, OWNER).await.unwrap();
            upload.append(bytes.slice(..100)).await.unwrap();
            upload.checkpoint().await.unwrap();
            drop(upload);
            let canceller = store.clone();
            let cancel = spawn(async move {
                let upload = canceller.upload_resume(id, OWNER).await?;
                upload.cancel().await
            });
            let commit = async {
                let mut upload = store.upload_resume(id, OWNER).await?;
                upload.append(bytes.slice(100..)).await?;
                upload.commit(sha256(&bytes), None).await
            };
            let committed = commit.await;
            let cancelled = cancel.await.unwrap();
            match (&committed, &cancelled) {
                (Ok(_), Ok(())) => panic!("it was committed and cancelled"),
                (Ok(_), Err(error)) if is_gone(error) => {
                    COMMITTED.add(1);
                    acknowledged.blob(sha256(&bytes), &bytes);
                }
                (Err(error), Ok(())) if is_gone(error) => CANCELLED.add(1),
                other => panic!("neither came through: {other:?}"),
            }
            store.close().await.unwrap();
            let again = world.cut().open().await;
            for store in [&store, &again] {
                let here = store.stat(&sha256(&bytes)).is_ok();
                assert_eq!(here, committed.is_ok());
                let gone = store.upload_status(id, OWNER);
                assert!(matches!(gone, Err(Error::NotFound { .. })), "{gone:?}");
            }
            again.close().await.unwrap();
        });
    });
}

#[test]
fn an_expiry_meets_appends_and_a_commit() {
    static EXPIRED: Times = Times::new("the upload was reaped");
    static COMMITTED: Times = Times::new("the upload was finished");
    let events = [&EXPIRED, &COMMITTED];
    explore("an_expiry_meets_appends_and_a_commit", &events, || {
        with_store(Image::fresh(), |world, store, acknowledged| async move {
            let bytes = content(31, 300);
            let id = store.upload_open(OWNER, None).unwrap();
            let reaper = store.clone();
            let reaper = spawn(async move {
                let mut expired = 0;
                for _ in 0..2 {
                    expired += reaper.upload_expire(Duration::ZERO).await.unwrap();
                }
                expired
            });
            let mut durable = 0;
            let push = async {
                for piece in [&bytes[..100], &bytes[100..200]] {
                    let mut upload = store.upload_resume(id, OWNER).await?;
                    assert_eq!(upload.offset(), durable, "what was durable is there");
                    upload.append(bytes.slice_ref(piece)).await?;
                    durable = upload.checkpoint().await?;
                }
                let mut upload = store.upload_resume(id, OWNER).await?;
                upload.append(bytes.slice(200..)).await?;
                upload.commit(sha256(&bytes), None).await
            };
            let pushed = push.await;
            let expired = reaper.await.unwrap();
            match &pushed {
                Ok(_) => {
                    COMMITTED.add(1);
                    assert_eq!(expired, 0, "it was reaped, and finished all the same");
                    acknowledged.blob(sha256(&bytes), &bytes);
                }
                // Busy: the reaper held it just then.
                Err(error) => {
                    assert!(is_gone(error), "{error}");
                    assert!(store.stat(&sha256(&bytes)).is_err());
                    EXPIRED.add(expired);
                }
            }
            assert!(expired <= 1, "one upload ends once");
            let left = store.upload_status(id, OWNER);
            assert_eq!(left.is_err(), pushed.is_ok() || expired == 1, "{left:?}");
            store.close().await.unwrap();
            let again = world.cut().open().await;
            let status = again.upload_status(id, OWNER);
            if left.is_err() || durable == 0 {
                assert!(status.is_err(), "it is back after a restart");
            } else {
                assert_eq!(status.unwrap(), durable);
            }
            assert_eq!(again.stat(&sha256(&bytes)).is_ok(), pushed.is_ok());
            again.close().await.unwrap();
        });
    });
}

#[test]
fn i35_a_request_that_goes_away_leaves_its_session_to_the_next() {
    static DROPPED: Times = Times::new("a request went away in the middle");
    explore(
        "i35_a_request_that_goes_away_leaves_its_session_to_the_next",
        &[&DROPPED],
        || {
            with_store(Image::fresh(), |_, store, acknowledged| async move {
                let bytes = content(32, 400);
                let id = store.upload_open(OWNER, None).unwrap();
                let first = {
                    let (store, bytes) = (store.clone(), bytes.clone());
                    async move {
                        let mut upload = store.upload_resume(id, OWNER).await?;
                        upload.append(bytes.slice(..150)).await?;
                        upload.checkpoint().await
                    }
                };
                // The client goes away after some polls of its request.
                let polls = {
                    use shuttle::rand::Rng as _;
                    shuttle::rand::thread_rng().gen_range(0..4)
                };
                let mut first = Box::pin(first);
                let mut answered = None;
                for _ in 0..polls {
                    if let Some(done) = futures_util::future::poll_immediate(&mut first).await {
                        answered = Some(done.unwrap());
                        break;
                    }
                    shuttle::future::yield_now().await;
                }
                DROPPED.add(u64::from(answered.is_none()));
                drop(first);
                let mut upload = store.upload_resume(id, OWNER).await.unwrap();
                let from = upload.offset();
                assert!(from == 0 || from == 150, "{from}");
                assert!(answered.is_none_or(|durable| durable == from));
                let from = usize::try_from(from).unwrap();
                upload.append(bytes.slice(from..)).await.unwrap();
                let committed = upload.commit(sha256(&bytes), None).await;
                match committed {
                    Ok(_) => {}
                    // The log took the first request's bytes after all.
                    Err(Error::Busy { .. } | Error::Invalid(Invalid::Stale)) => {
                        panic!("what was queued before is waited for")
                    }
                    Err(other) => panic!("{other}"),
                }
                acknowledged.blob(sha256(&bytes), &bytes);
                assert_eq!(pull(&store, &sha256(&bytes)).await.unwrap(), bytes);
                let id = store.upload_open(OWNER, None).unwrap();
                assert!(!push_to(&store, id, &bytes).await.unwrap());
                store.close().await.unwrap();
            });
        },
    );
}
