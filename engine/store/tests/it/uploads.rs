//! Uploads that are many, slow, abandoned, or broken off in the middle.

use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{BoxFuture, join_all, poll_immediate};
use orlop_disk::Disk;
use orlop_disk::sim::Sim;
use orlop_engine::config::{MAX_SESSIONS, MIN_BUFFERS, WARM_SESSIONS};
use orlop_engine::{
    Algorithm, Digest, Error, MemoryIndex, Progress, Runtime, Store, System, UploadId,
};

use crate::support::{config, content, disk, open, pull, push, sha256};

/// Fails instead of waiting for ever.
async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    let limit = Duration::from_secs(60);
    let done = tokio::time::timeout(limit, future).await;
    done.unwrap_or_else(|_| panic!("{what}: nothing happens any more"))
}

/// A store with few buffers.
async fn open_small(sim: &Arc<Sim>, runtime: Arc<dyn Runtime>) -> Store {
    let mut config = config();
    config.buffers = MIN_BUFFERS;
    let disk: Arc<dyn Disk> = Arc::clone(sim) as Arc<dyn Disk>;
    let index = MemoryIndex::default();
    Store::open(config, runtime, disk, &index, &Progress::default())
        .await
        .unwrap()
}

/// A runtime whose short tasks wait until they are let go: writes that were
/// started do not end.
struct Stuck {
    system: Arc<dyn Runtime>,
    waiting: Mutex<Option<Vec<BoxFuture<'static, ()>>>>,
}

impl Stuck {
    fn start() -> Arc<Self> {
        Arc::new(Self {
            system: System::start(),
            waiting: Mutex::new(Some(Vec::new())),
        })
    }

    fn let_go(&self) {
        for task in self.waiting.lock().unwrap().take().unwrap() {
            self.system.task(task);
        }
    }
}

impl Runtime for Stuck {
    fn now(&self) -> Duration {
        self.system.now()
    }

    fn fill_random(&self, bytes: &mut [u8]) {
        self.system.fill_random(bytes);
    }

    fn spawn(&self, name: &'static str, task: BoxFuture<'static, ()>) -> std::io::Result<()> {
        self.system.spawn(name, task)
    }

    fn task(&self, task: BoxFuture<'static, ()>) {
        match &mut *self.waiting.lock().unwrap() {
            Some(waiting) => waiting.push(task),
            None => self.system.task(task),
        }
    }

    fn sleep(&self, time: Duration) -> BoxFuture<'static, ()> {
        self.system.sleep(time.min(Duration::from_millis(200)))
    }
}

#[tokio::test]
async fn more_uploads_than_there_are_buffers_finish_on_a_slow_disk() {
    let sim = disk(1);
    let store = open_small(&sim, System::start()).await;
    sim.delay(100);
    let uploads = (0..80u64).map(|seed| {
        let store = store.clone();
        async move {
            let bytes = content(seed, 2_300_000);
            push(&store, &bytes, sha256(&bytes)).await.unwrap();
            sha256(&bytes)
        }
    });
    let digests = soon(
        "80 uploads of 2.3 MB with 32 MiB of buffers",
        join_all(uploads),
    )
    .await;
    for digest in digests {
        assert_eq!(sha256(&pull(&store, &digest).await.unwrap()), digest);
    }
}

#[tokio::test]
async fn slow_clients_block_neither_a_small_put_nor_a_push() {
    let store = open_small(&disk(2), System::start()).await;
    const PART: usize = 100_000;
    let mut slow = Vec::new();
    for seed in 0..600u64 {
        let bytes = content(seed, 2 * PART);
        let id = store.upload_open("slow", None).unwrap();
        let mut upload = store.upload_resume(id, "slow").await.unwrap();
        soon("the first part", upload.append(bytes.slice(..PART)))
            .await
            .unwrap();
        slow.push((upload, bytes));
    }
    let small = content(1_000, 2_000);
    let put = store.put(small.clone(), sha256(&small), None);
    assert!(soon("a small put", put).await.unwrap().new);
    let large = content(1_001, 5 << 20);
    assert!(
        soon("a push", push(&store, &large, sha256(&large)))
            .await
            .unwrap()
    );
    // None of the slow ones has lost anything.
    for (mut upload, bytes) in slow {
        soon("the second part", upload.append(bytes.slice(PART..)))
            .await
            .unwrap();
        upload.commit(sha256(&bytes), None).await.unwrap();
        assert_eq!(pull(&store, &sha256(&bytes)).await.unwrap(), bytes);
    }
}

#[tokio::test]
async fn an_upload_that_gets_no_buffer_is_told_so_and_small_ones_go_on() {
    let runtime = Stuck::start();
    let store = open_small(&disk(3), Arc::clone(&runtime) as Arc<dyn Runtime>).await;
    // Writes do not end: each upload keeps up to 8 MiB of buffers busy.
    let bytes = content(1, 7 << 20);
    let mut uploads = Vec::new();
    let refused = soon("appending", async {
        loop {
            assert!(uploads.len() < 8, "the buffers never run out");
            let id = store.upload_open("a", None).unwrap();
            let mut upload = store.upload_resume(id, "a").await.unwrap();
            let appended = upload.append(bytes.clone()).await;
            uploads.push((id, upload));
            if let Err(error) = appended {
                break error;
            }
        }
    })
    .await;
    assert!(matches!(refused, Error::Busy { .. }), "{refused}");
    let small = content(2, 60_000);
    let put = store.put(small.clone(), sha256(&small), None);
    assert!(soon("a small put", put).await.unwrap().new);

    runtime.let_go();
    // The refused one cannot go on as if it had all its bytes, but anew.
    let (id, mut upload) = uploads.pop().unwrap();
    let error = upload.checkpoint().await.unwrap_err();
    assert!(matches!(error, Error::Busy { .. }), "{error}");
    drop(upload);
    let mut upload = store.upload_resume(id, "a").await.unwrap();
    assert_eq!(upload.offset(), 0);
    upload.append(bytes.clone()).await.unwrap();
    upload.commit(sha256(&bytes), None).await.unwrap();
    assert_eq!(pull(&store, &sha256(&bytes)).await.unwrap(), bytes);
    // The others were complete.
    let (_, upload) = uploads.pop().unwrap();
    assert!(!upload.commit(sha256(&bytes), None).await.unwrap().new);
}

#[tokio::test]
async fn an_append_that_was_not_awaited_is_not_gone_on_with() {
    let runtime = Stuck::start();
    let store = open_small(&disk(4), Arc::clone(&runtime) as Arc<dyn Runtime>).await;
    let bytes = content(1, 20 << 20);
    let id = store.upload_open("a", None).unwrap();
    let mut upload = store.upload_resume(id, "a").await.unwrap();
    upload.append(bytes.slice(..10)).await.unwrap();
    upload.checkpoint().await.unwrap();
    let pending = poll_immediate(upload.append(bytes.slice(10..))).await;
    assert!(
        pending.is_none(),
        "more is under way than an upload may have"
    );
    runtime.let_go();
    assert!(matches!(
        upload.append(bytes.slice(10..)).await,
        Err(Error::Busy { .. })
    ));
    let commit = upload.commit(sha256(&bytes), None).await;
    assert!(matches!(commit, Err(Error::Busy { .. })));
    let mut upload = store.upload_resume(id, "a").await.unwrap();
    assert_eq!(upload.offset(), 10);
    upload.append(bytes.slice(10..)).await.unwrap();
    upload.commit(sha256(&bytes), None).await.unwrap();
    assert_eq!(pull(&store, &sha256(&bytes)).await.unwrap(), bytes);
}

#[tokio::test]
async fn abandoned_uploads_never_refuse_a_new_one() {
    let store = open(&disk(5), &MemoryIndex::default()).await.unwrap();
    let bytes = content(1, 3_000);
    let durable = store.upload_open("a", None).unwrap();
    let mut upload = store.upload_resume(durable, "a").await.unwrap();
    upload.append(bytes.slice(..1_000)).await.unwrap();
    upload.checkpoint().await.unwrap();
    drop(upload);
    let in_use = store.upload_open("a", None).unwrap();
    let mut held = store.upload_resume(in_use, "a").await.unwrap();
    let first = store.upload_open("a", None).unwrap();
    let mut last = first;
    for _ in 0..MAX_SESSIONS + 10 {
        last = store.upload_open("a", None).unwrap();
    }
    // The oldest that never got a byte is gone; the newest is there.
    assert!(matches!(
        store.upload_status(first, "a"),
        Err(Error::NotFound { .. })
    ));
    assert_eq!(store.upload_status(last, "a").unwrap(), 0);
    // What is durable and what is in use went nowhere.
    assert_eq!(store.upload_status(durable, "a").unwrap(), 1_000);
    let other = store.upload_resume(durable, "b").await;
    assert!(matches!(other, Err(Error::NotFound { .. })));
    let mut upload = store.upload_resume(durable, "a").await.unwrap();
    upload.append(bytes.slice(1_000..)).await.unwrap();
    assert!(upload.commit(sha256(&bytes), None).await.unwrap().new);
    let again = store.upload_resume(in_use, "a").await;
    assert!(matches!(again, Err(Error::Busy { .. })));
    held.append(bytes.clone()).await.unwrap();
    assert!(!held.commit(sha256(&bytes), None).await.unwrap().new);
}

#[tokio::test]
async fn uploads_that_nobody_asks_for_expire() {
    let (sim, index) = (disk(12), MemoryIndex::default());
    let store = open(&sim, &index).await.unwrap();
    let long = Duration::from_millis(300);
    let begin = async |seed: u64| {
        let id = store.upload_open("a", None).unwrap();
        let mut upload = store.upload_resume(id, "a").await.unwrap();
        upload.append(content(seed, 200_000)).await.unwrap();
        upload.checkpoint().await.unwrap();
        (id, upload)
    };
    let (durable, upload) = begin(1).await;
    drop(upload);
    let (in_use, held) = begin(2).await;
    let empty = store.upload_open("a", None).unwrap();
    assert_eq!(store.upload_expire(long).await.unwrap(), 0);
    tokio::time::sleep(long).await;
    let (fresh, upload) = begin(3).await;
    drop(upload);
    assert_eq!(store.upload_expire(long).await.unwrap(), 2);
    for id in [durable, empty] {
        let status = store.upload_status(id, "a");
        assert!(matches!(status, Err(Error::NotFound { .. })));
        let resumed = store.upload_resume(id, "a").await;
        assert!(matches!(resumed, Err(Error::NotFound { .. })));
    }
    let committed = held.commit(sha256(&content(2, 200_000)), None).await;
    assert!(committed.unwrap().new);
    assert_eq!(store.upload_status(fresh, "a").unwrap(), 200_000);
    store.close().await.unwrap();
    drop(store);

    // A restart counts from anew, and knows which ended.
    let store = open(&sim, &index).await.unwrap();
    assert_eq!(store.upload_expire(long).await.unwrap(), 0);
    for id in [durable, in_use] {
        let status = store.upload_status(id, "a");
        assert!(matches!(status, Err(Error::NotFound { .. })));
    }
    assert_eq!(store.upload_status(fresh, "a").unwrap(), 200_000);
    tokio::time::sleep(long).await;
    assert_eq!(store.upload_expire(long).await.unwrap(), 1);
    assert!(store.upload_status(fresh, "a").is_err());
}

/// The request that ended it went away before it heard so, and left a session
/// behind that may or may not be in the log.
#[tokio::test]
async fn a_session_that_the_log_may_know_and_does_not_expires_too() {
    let store = open(&disk(14), &MemoryIndex::default()).await.unwrap();
    let bytes = content(1, 2_000);
    for cancelled in [false, true] {
        // The journal's thread may be so quick that the request hears of it.
        let mut is_left = false;
        for _ in 0..1_000 {
            let id = begun(&store, &bytes, 1_000).await;
            let mut upload = store.upload_resume(id, "a").await.unwrap();
            upload.append(bytes.slice(1_000..)).await.unwrap();
            is_left = if cancelled {
                let cancel = poll_immediate(Box::pin(upload.cancel())).await;
                cancel.is_none()
            } else {
                let commit = upload.commit(sha256(&bytes), None);
                poll_immediate(Box::pin(commit)).await.is_none()
            };
            if is_left {
                break;
            }
        }
        assert!(is_left, "every request was answered at once");
    }
    // What comes behind it in the log was answered.
    let other = content(2, 100);
    push(&store, &other, sha256(&other)).await.unwrap();
    assert_eq!(store.health().await.uploads, 2);
    assert_eq!(store.upload_expire(Duration::ZERO).await.unwrap(), 2);
    assert_eq!(store.health().await.uploads, 0);
    assert_eq!(pull(&store, &sha256(&bytes)).await.unwrap(), bytes);
}

#[tokio::test]
async fn an_upload_that_was_asked_about_does_not_expire() {
    let store = open(&disk(13), &MemoryIndex::default()).await.unwrap();
    let long = Duration::from_millis(300);
    let id = store.upload_open("a", None).unwrap();
    let mut upload = store.upload_resume(id, "a").await.unwrap();
    upload.append(content(1, 200_000)).await.unwrap();
    upload.checkpoint().await.unwrap();
    drop(upload);
    tokio::time::sleep(long).await;
    // The client hears that it may go on.
    assert_eq!(store.upload_status(id, "a").unwrap(), 200_000);
    assert_eq!(store.upload_expire(long).await.unwrap(), 0);
    store.upload_resume(id, "a").await.unwrap();
}

#[tokio::test]
async fn uploads_that_went_cold_go_on_where_they_were() {
    let store = open(&disk(6), &MemoryIndex::default()).await.unwrap();
    let count = WARM_SESSIONS as u64 + 100;
    let parts = |seed: u64| {
        let len = if seed.is_multiple_of(50) { 90_000 } else { 900 };
        (content(seed, 2 * len), len)
    };
    let begin = (0..count).map(|seed| {
        let store = &store;
        async move {
            let (bytes, len) = parts(seed);
            let also = [None, Some(Algorithm::Sha512), Some(Algorithm::Blake3)][seed as usize % 3];
            let id = store.upload_open("a", also).unwrap();
            let mut upload = store.upload_resume(id, "a").await.unwrap();
            upload.append(bytes.slice(..len)).await.unwrap();
            assert_eq!(upload.checkpoint().await.unwrap(), len as u64);
            (id, also)
        }
    });
    let begun = join_all(begin).await;
    for (seed, (id, also)) in begun.into_iter().enumerate() {
        let (bytes, len) = parts(seed as u64);
        assert_eq!(store.upload_status(id, "a").unwrap(), len as u64);
        let mut upload = store.upload_resume(id, "a").await.unwrap();
        assert_eq!(upload.offset(), len as u64, "{seed}");
        upload.append(bytes.slice(len..)).await.unwrap();
        let digest = Digest::of(also.unwrap_or(Algorithm::Sha256), &bytes);
        upload.commit(digest, None).await.unwrap();
        assert_eq!(pull(&store, &digest).await.unwrap(), bytes, "{seed}");
    }
}

#[tokio::test]
async fn a_digest_that_was_not_announced_is_made_after_checkpoints_too() {
    let store = open(&disk(7), &MemoryIndex::default()).await.unwrap();
    // A checkpoint of the running upload has a tail, which later bytes follow.
    let bytes = content(1, (64 << 20) + 123_457);
    let id = store.upload_open("a", None).unwrap();
    let mut upload = store.upload_resume(id, "a").await.unwrap();
    for piece in bytes.chunks(30_011) {
        upload.append(Bytes::copy_from_slice(piece)).await.unwrap();
    }
    assert!(store.upload_status(id, "a").unwrap() >= 64 << 20);
    let digest = Digest::of(Algorithm::Sha512, &bytes);
    assert!(upload.commit(digest, None).await.unwrap().new);
    assert_eq!(pull(&store, &digest).await.unwrap(), bytes);
}

/// An upload of two parts, the first durable.
async fn begun(store: &Store, bytes: &Bytes, first: usize) -> UploadId {
    let id = store.upload_open("a", None).unwrap();
    let mut upload = store.upload_resume(id, "a").await.unwrap();
    upload.append(bytes.slice(..first)).await.unwrap();
    if first > 0 {
        upload.checkpoint().await.unwrap();
    }
    id
}

#[tokio::test]
async fn a_request_that_goes_away_while_its_checkpoint_is_queued_loses_nothing() {
    let store = open(&disk(8), &MemoryIndex::default()).await.unwrap();
    for round in 0..50 {
        for (first, second) in [(0, 500), (500, 40_000), (100_000, 30_000)] {
            let bytes = content(round, first + second + 9_000);
            let id = begun(&store, &bytes, first).await;
            let mut upload = store.upload_resume(id, "a").await.unwrap();
            let sent = first + second;
            upload.append(bytes.slice(first..sent)).await.unwrap();
            let _ = poll_immediate(upload.checkpoint()).await;
            drop(upload);
            // It was queued, so it was written.
            let mut upload = store.upload_resume(id, "a").await.unwrap();
            assert_eq!(upload.offset(), sent as u64, "round {round}");
            assert_eq!(store.upload_status(id, "a").unwrap(), sent as u64);
            upload.append(bytes.slice(sent..)).await.unwrap();
            upload.checkpoint().await.unwrap();
            upload.commit(sha256(&bytes), None).await.unwrap();
            assert_eq!(pull(&store, &sha256(&bytes)).await.unwrap(), bytes);
        }
    }
}

#[tokio::test]
async fn a_request_that_goes_away_while_its_end_is_queued_leaves_no_session_behind() {
    let store = open(&disk(9), &MemoryIndex::default()).await.unwrap();
    for round in 0..50 {
        let bytes = content(round, 2_000);
        let id = begun(&store, &bytes, 1_000).await;
        let mut upload = store.upload_resume(id, "a").await.unwrap();
        upload.append(bytes.slice(1_000..)).await.unwrap();
        let _ = poll_immediate(Box::pin(upload.commit(sha256(&bytes), None))).await;
        let resumed = store.upload_resume(id, "a").await;
        assert!(
            matches!(resumed, Err(Error::NotFound { .. })),
            "{resumed:?}"
        );
        assert_eq!(pull(&store, &sha256(&bytes)).await.unwrap(), bytes);

        let id = begun(&store, &bytes, 1_000).await;
        let upload = store.upload_resume(id, "a").await.unwrap();
        let _ = poll_immediate(Box::pin(upload.cancel())).await;
        let resumed = store.upload_resume(id, "a").await;
        assert!(
            matches!(resumed, Err(Error::NotFound { .. })),
            "{resumed:?}"
        );
    }
}
