//! Upload sessions over memory.

use super::super::memory::{Memory, body};
use super::super::note::{Deletion, Note};
use super::super::seam::{BodyFault, Fault};
use super::*;
use crate::registry::{Reference, Unpaired};
use bytes::Bytes;
use futures_util::stream;
use std::task::Poll;

const WHO: Subject = Subject::Anonymous;

fn name(text: &str) -> RepositoryName {
    RepositoryName::parse(text).unwrap()
}

fn sha256(content: &[u8]) -> Digest {
    Digest::of(Algorithm::Sha256, content)
}

#[tokio::test]
async fn pieces_become_a_blob() {
    let memory = Memory::default();
    let (registry, a) = (memory.registry(), name("a"));
    let id = registry.upload_start(WHO, &a, None).unwrap();
    let offset = registry
        .upload_append(WHO, &a, id, None, body(&[b"one", b"two"], None))
        .await
        .unwrap();
    assert_eq!(offset, 6);
    assert_eq!(registry.upload_status(WHO, &a, id), Ok(6));
    let digest = sha256(b"onetwothree");
    registry
        .upload_finish(WHO, &a, id, None, body(&[b"three"], None), digest)
        .await
        .unwrap();
    assert_eq!(registry.blob_stat(WHO, &a, &digest).await, Ok(11));
    assert_eq!(
        registry.upload_status(WHO, &a, id),
        Err(Error::UploadUnknown)
    );
}

#[tokio::test]
async fn a36_chunks_must_follow_each_other() {
    let memory = Memory::default();
    let (registry, a) = (memory.registry(), name("a"));
    let id = registry.upload_start(WHO, &a, None).unwrap();
    let chunk = |start, text: &'static [u8], len| {
        let span = Some(Span { start, len });
        registry.upload_append(WHO, &a, id, span, body(&[text], None))
    };
    assert_eq!(chunk(0, b"0123", 4).await, Ok(4));
    for start in [0, 3, 5, u64::MAX] {
        assert_eq!(
            chunk(start, b"xx", 2).await,
            Err(Error::OutOfOrder { offset: 4 }),
            "start {start}"
        );
    }
    for (declared, received) in [(1, 2), (3, 2)] {
        assert_eq!(
            chunk(4, b"xx", declared).await,
            Err(Error::ChunkSize { declared, received })
        );
        assert_eq!(registry.upload_status(WHO, &a, id), Ok(4));
    }
    assert_eq!(chunk(4, b"45", 2).await, Ok(6));
}

#[tokio::test]
async fn a37_a_cut_body_keeps_what_came() {
    let memory = Memory::default();
    let (registry, a) = (memory.registry(), name("a"));
    let id = registry.upload_start(WHO, &a, None).unwrap();
    let cut = body(&[b"first", b"second"], Some(BodyFault::Cut));
    assert_eq!(
        registry.upload_append(WHO, &a, id, None, cut).await,
        Err(Error::Body(BodyFault::Cut))
    );
    assert_eq!(registry.upload_status(WHO, &a, id), Ok(11));
    let digest = sha256(b"firstsecondthird");
    let cut = body(&[b"th"], Some(BodyFault::Cut));
    assert_eq!(
        registry.upload_finish(WHO, &a, id, None, cut, digest).await,
        Err(Error::Body(BodyFault::Cut))
    );
    assert_eq!(registry.upload_status(WHO, &a, id), Ok(13));
    registry
        .upload_finish(WHO, &a, id, None, body(&[b"ird"], None), digest)
        .await
        .unwrap();
    assert!(memory.has(&digest));
}

#[tokio::test]
async fn a41_digest_mismatch_links_nothing() {
    let memory = Memory::default();
    let (registry, a) = (memory.registry(), name("a"));
    let (expected, actual) = (sha256(b"good"), sha256(b"evil"));
    let id = registry.upload_start(WHO, &a, None).unwrap();
    assert_eq!(
        registry
            .upload_finish(WHO, &a, id, None, body(&[b"evil"], None), expected)
            .await,
        Err(Error::mismatch(expected, actual))
    );
    for digest in [expected, actual] {
        assert_eq!(
            registry.blob_stat(WHO, &a, &digest).await,
            Err(Error::BlobUnknown(digest))
        );
    }
    assert_eq!(memory.uploads(), 0);
}

#[tokio::test]
async fn a80_sessions_belong_to_their_repository() {
    let memory = Memory::default();
    let (registry, a, b) = (memory.registry(), name("a"), name("b"));
    let id = registry.upload_start(WHO, &a, None).unwrap();
    assert_eq!(
        registry.upload_status(WHO, &b, id),
        Err(Error::UploadUnknown)
    );
    assert_eq!(
        registry
            .upload_append(WHO, &b, id, None, body(&[b"x"], None))
            .await,
        Err(Error::UploadUnknown)
    );
    assert_eq!(
        registry.upload_cancel(WHO, &b, id).await,
        Err(Error::UploadUnknown)
    );
    assert_eq!(registry.upload_cancel(WHO, &a, id).await, Ok(()));
    assert_eq!(memory.uploads(), 0);
}

#[tokio::test]
async fn one_request_at_a_time() {
    let memory = Memory::default();
    let (registry, a) = (memory.registry(), name("a"));
    let id = registry.upload_start(WHO, &a, None).unwrap();
    let held = registry.resume(WHO, &a, id).await.unwrap();
    assert_eq!(
        registry
            .upload_append(WHO, &a, id, None, body(&[b"x"], None))
            .await,
        Err(Error::UploadBusy)
    );
    drop(held);
    assert_eq!(registry.upload_cancel(WHO, &a, id).await, Ok(()));
}

#[tokio::test]
async fn a_failed_whole_upload_leaves_no_session() {
    let memory = Memory::default();
    let (registry, a) = (memory.registry(), name("a"));
    let digest = sha256(b"whole");
    for (pieces, end) in [(b"wrong".as_slice(), None), (b"who", Some(BodyFault::Idle))] {
        registry
            .upload_whole(WHO, &a, body(&[pieces], end), digest)
            .await
            .unwrap_err();
        assert_eq!(memory.uploads(), 0);
    }
    registry
        .upload_whole(WHO, &a, body(&[b"whole"], None), digest)
        .await
        .unwrap();
    assert_eq!(registry.blob_stat(WHO, &a, &digest).await, Ok(5));
}

#[tokio::test]
async fn a_whole_upload_that_cannot_be_committed_leaves_no_session() {
    let memory = Memory::default();
    let (registry, a) = (memory.registry(), name("a"));
    let full = Fault::Full("no room".into());
    let failing = memory.clone();
    let fails_at_its_end = stream::once(async { Ok(Bytes::from_static(b"whole")) })
        .chain(stream::poll_fn(move |_| {
            failing.fail_writes(Some(Fault::Full("no room".into())));
            Poll::Ready(None)
        }))
        .boxed();
    let stored = registry.upload_whole(WHO, &a, fails_at_its_end, sha256(b"whole"));
    assert_eq!(stored.await, Err(Error::Storage(full)));
    assert_eq!(memory.uploads(), 0);
}

#[tokio::test]
async fn a_catalog_that_is_not_the_stores_takes_no_push() {
    let memory = Memory::default();
    let (a, b) = (name("a"), name("b"));
    let digest = memory.add("a", b"here");
    let id = memory.registry().upload_start(WHO, &a, None).unwrap();
    let registry = memory.registry().without_writes(Unpaired::Older);
    let refused = Error::Unpaired(Unpaired::Older);
    let empty = || body(&[], None);
    assert_eq!(registry.upload_start(WHO, &a, None), Err(refused.clone()));
    let appended = registry.upload_append(WHO, &a, id, None, empty());
    assert_eq!(appended.await, Err(refused.clone()));
    let finished = registry.upload_finish(WHO, &a, id, None, empty(), digest);
    assert_eq!(finished.await, Err(refused.clone()));
    let whole = registry.upload_whole(WHO, &a, empty(), digest);
    assert_eq!(whole.await, Err(refused.clone()));
    let mounted = registry.blob_mount(WHO, &b, Some(&a), &digest);
    assert_eq!(mounted.await, Err(refused.clone()));
    let latest = Reference::parse("latest").unwrap();
    let room = registry.manifest_room(WHO, &a, 1).map(|_| ());
    assert_eq!(room, Err(refused.clone()));
    let room = memory.registry().manifest_room(WHO, &a, 1).unwrap();
    let bytes = (Bytes::new(), room);
    let pushed = registry.manifest_push(WHO, &a, (&latest, &[]), None, bytes);
    assert_eq!(pushed.await, Err(refused));
    // Pulls go on, and so does cleaning up.
    assert_eq!(registry.blob_stat(WHO, &a, &digest).await, Ok(4));
    assert_eq!(registry.upload_cancel(WHO, &a, id).await, Ok(()));
}

#[tokio::test]
async fn work_goes_on_when_nobody_waits() {
    let memory = Memory::default();
    let (registry, a) = (memory.registry(), name("a"));
    let id = registry.upload_start(WHO, &a, None).unwrap();
    let (send, receive) = tokio::sync::oneshot::channel();
    let late = futures_util::stream::once(async move {
        receive.await.unwrap();
        Ok(bytes::Bytes::from_static(b"late"))
    });
    let digest = sha256(b"late");
    {
        let finish = registry.upload_finish(WHO, &a, id, None, late.boxed(), digest);
        tokio::pin!(finish);
        assert!(futures_util::poll!(&mut finish).is_pending());
    }
    send.send(()).unwrap();
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(registry.blob_stat(WHO, &a, &digest).await, Ok(4));
}

#[tokio::test]
async fn mounts_need_a_readable_source() {
    let memory = Memory::default();
    let (registry, a, b) = (memory.registry(), name("a"), name("b"));
    let linked = memory.add("a", b"linked");
    let stray = memory.store(b"stray");
    let absent = sha256(b"absent");
    for digest in [stray, absent] {
        assert_eq!(
            registry.blob_mount(WHO, &b, Some(&a), &digest).await,
            Ok(false)
        );
    }
    assert_eq!(
        registry
            .blob_mount(WHO, &b, Some(&name("c")), &linked)
            .await,
        Ok(false)
    );
    assert!(registry.blob_stat(WHO, &b, &linked).await.is_err());
    assert!(memory.notes().is_empty());
    assert_eq!(
        registry.blob_mount(WHO, &b, Some(&a), &linked).await,
        Ok(true)
    );
    assert_eq!(registry.blob_stat(WHO, &b, &linked).await, Ok(6));
    assert_eq!(memory.notes().len(), 1);
}

#[tokio::test]
async fn a_full_disk_is_told_as_such() {
    let memory = Memory::default();
    let (registry, a) = (memory.registry(), name("a"));
    let id = registry.upload_start(WHO, &a, None).unwrap();
    let full = Fault::Full("reserve".into());
    memory.fail_writes(Some(full.clone()));
    assert_eq!(
        registry
            .upload_append(WHO, &a, id, None, body(&[b"x"], None))
            .await,
        Err(Error::Storage(full.clone()))
    );
    assert_eq!(
        registry.upload_start(WHO, &a, None),
        Err(Error::Storage(full))
    );
}

#[tokio::test]
async fn a_mount_without_a_source_takes_any() {
    let memory = Memory::default();
    let (registry, a, b) = (memory.registry(), name("a"), name("b"));
    let linked = memory.add("a", b"linked");
    let stray = memory.store(b"stray");
    assert_eq!(registry.blob_mount(WHO, &b, None, &linked).await, Ok(true));
    assert_eq!(registry.blob_stat(WHO, &b, &linked).await, Ok(6));
    assert_eq!(registry.blob_mount(WHO, &b, None, &stray).await, Ok(false));
    let gone = [&a, &b].map(|name| registry.blob_delete(WHO, name, &linked));
    for gone in gone {
        assert_eq!(gone.await, Ok(()));
    }
    assert_eq!(registry.blob_mount(WHO, &b, None, &linked).await, Ok(false));
}

#[tokio::test]
async fn a_blob_is_deleted_from_one_repository() {
    let memory = Memory::default();
    let (registry, a, b) = (memory.registry(), name("a"), name("b"));
    let digest = memory.add("a", b"blob");
    memory.add("b", b"blob");
    assert_eq!(registry.blob_delete(WHO, &a, &digest).await, Ok(()));
    let absent = Error::BlobUnknown(digest);
    assert_eq!(
        registry.blob_stat(WHO, &a, &digest).await,
        Err(absent.clone())
    );
    assert_eq!(registry.blob_stat(WHO, &b, &digest).await, Ok(4));
    let unlink = Note::Deletion(Deletion::Blob {
        repository: a.clone(),
        digest,
    });
    assert_eq!(memory.notes(), [unlink]);
    memory.add("a", b"other");
    assert_eq!(registry.blob_delete(WHO, &a, &digest).await, Err(absent));
    assert_eq!(
        registry.blob_delete(WHO, &name("c"), &digest).await,
        Err(Error::NameUnknown)
    );
}

/// The notes tell what a repository has after the newest copy of the catalog:
/// whoever replays them must not end with the blob deleted.
#[tokio::test]
async fn a_blob_that_is_pushed_again_after_its_delete_is_noted() {
    let memory = Memory::default();
    let (registry, a) = (memory.registry(), name("a"));
    let digest = memory.add("a", b"blob");
    registry.blob_delete(WHO, &a, &digest).await.unwrap();
    let again = body(&[b"blob"], None);
    registry.upload_whole(WHO, &a, again, digest).await.unwrap();
    assert_eq!(registry.blob_stat(WHO, &a, &digest).await, Ok(4));
    let link = Note::Link {
        repository: a,
        digest,
        size: 4,
    };
    assert_eq!(memory.notes().last(), Some(&link));
}
