//! Pushes of what lies in a segment file that is missing, short or empty: never
//! acknowledged without all bytes, never dropped as "here already".

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use orlop_disk::sim::Sim;
use orlop_disk::{Create, Disk, Lane, OpenOptions};
use orlop_engine::{Error, MemoryIndex, Store, UploadId};

use crate::mounts::{assert_all, elsewhere, mount, restarted, unmount};
use crate::scrub::{full, segment};
use crate::support::{content, disk, folder, open, pull, push, sha256};

const OWNER: &str = "a/b";

/// Cuts a file, or makes an empty one.
fn cut(sim: &Arc<Sim>, path: &Path, len: u64) {
    let options = OpenOptions {
        create: Create::IfMissing,
        lane: Lane::Inline,
        direct: true,
        write: true,
    };
    sim.open(path, options).unwrap().set_len(len).unwrap();
}

fn take_away(sim: &Sim, path: &Path) -> PathBuf {
    if !sim.exists(&elsewhere()).unwrap() {
        sim.create_dir(&elsewhere()).unwrap();
    }
    let away = elsewhere().join(path.file_name().unwrap());
    sim.rename(path, &away).unwrap();
    away
}

/// An upload of which `bytes` are durable, in the first raw segment.
async fn begun(store: &Store, bytes: &Bytes) -> UploadId {
    let id = store.upload_open(OWNER, None).unwrap();
    let mut upload = store.upload_resume(id, OWNER).await.unwrap();
    upload.append(bytes.clone()).await.unwrap();
    assert_eq!(upload.checkpoint().await.unwrap(), bytes.len() as u64);
    id
}

async fn goes_on(store: &Store, id: UploadId, bytes: &Bytes, from: usize) -> Result<bool, Error> {
    let mut upload = store.upload_resume(id, OWNER).await?;
    assert_eq!(upload.offset(), from as u64);
    upload.append(bytes.slice(from..)).await?;
    Ok(upload.commit(sha256(bytes), None).await?.new)
}

#[tokio::test]
async fn an_upload_with_a_part_in_a_lost_or_short_file_is_not_committed() {
    let sim = disk(90);
    let index = MemoryIndex::default();
    let bytes = content(1, 6_000_000);
    let begin = bytes.slice(..3_000_000);
    let store = open(&sim, &index).await.unwrap();
    let id = begun(&store, &begin).await;
    let store = restarted(&sim, &index, store).await;
    // The folder is the right one: another file is in it.
    let other = content(2, 900_000);
    push(&store, &other, sha256(&other)).await.unwrap();
    let raw = segment("raw", 1);
    let away = take_away(&sim, &raw);
    let store = restarted(&sim, &index, store).await;
    for _ in 0..2 {
        let error = goes_on(&store, id, &bytes, begin.len()).await.unwrap_err();
        assert!(matches!(error, Error::Io { .. }), "{error}");
        let name = raw.file_name().unwrap().to_str().unwrap();
        assert!(error.to_string().contains(name), "{error}");
        let read = pull(&store, &sha256(&bytes)).await;
        assert!(matches!(read, Err(Error::NotFound { .. })), "{read:?}");
    }
    assert_eq!(store.health().await.poisoned, None);

    let whole = sim.peek(&away).unwrap();
    sim.rename(&away, &raw).unwrap();
    for len in [0, 4096, 2_000_000 / 4096 * 4096] {
        cut(&sim, &raw, len);
        let store = restarted(&sim, &index, open(&sim, &index).await.unwrap()).await;
        let error = goes_on(&store, id, &bytes, begin.len()).await.unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }), "{len}: {error}");
        let read = pull(&store, &sha256(&bytes)).await;
        assert!(matches!(read, Err(Error::NotFound { .. })), "{read:?}");
        store.close().await.unwrap();
        cut(&sim, &raw, whole.len() as u64);
        assert!(sim.poke(&raw, 0, &whole));
    }
    let store = open(&sim, &index).await.unwrap();
    assert!(goes_on(&store, id, &bytes, begin.len()).await.unwrap());
    assert_all(&store, &[bytes, other]).await;
}

#[tokio::test]
async fn a_start_without_the_files_that_only_uploads_lie_in_is_refused() {
    let sim = disk(91);
    let index = MemoryIndex::default();
    let bytes = content(1, 3_000_000);
    let store = open(&sim, &index).await.unwrap();
    let id = begun(&store, &bytes).await;
    store.close().await.unwrap();
    drop(store);
    unmount(&sim, "raw");
    for again in [&index, &MemoryIndex::default()] {
        let error = open(&sim, again).await.err().unwrap().to_string();
        assert!(
            error.contains("mount") && error.contains("data/raw"),
            "{error}"
        );
    }
    mount(&sim, "raw");
    let store = open(&sim, &index).await.unwrap();
    assert!(goes_on(&store, id, &bytes, bytes.len()).await.unwrap());
    assert_all(&store, &[bytes]).await;
}

/// Absent to all who ask, and stored anew by a push.
async fn healed(store: &Store, blobs: &[Bytes]) {
    for bytes in blobs {
        let digest = sha256(bytes);
        let stat = store.stat(&digest);
        assert!(matches!(stat, Err(Error::NotFound { .. })), "{stat:?}");
        assert_eq!(store.pin(&[digest]).unwrap().1, [None]);
        assert!(push(store, bytes, digest).await.unwrap(), "it was dropped");
        assert_eq!(&pull(store, &digest).await.unwrap(), bytes);
        assert_eq!(store.stat(&digest).unwrap().size, bytes.len() as u64);
        assert!(!push(store, bytes, digest).await.unwrap());
    }
}

#[tokio::test]
async fn a_push_of_a_blob_whose_file_is_missing_is_stored_anew() {
    let sim = disk(92);
    let index = MemoryIndex::default();
    let (store, blobs) = full(&sim, &index).await;
    let store = restarted(&sim, &index, store).await;
    let other = content(2, 900_000);
    push(&store, &other, sha256(&other)).await.unwrap();
    let store = restarted(&sim, &index, store).await;
    // The first of the large ones; of the small ones those that left the journal.
    let away = [segment("raw", 1)].map(|path| (take_away(&sim, &path), path));
    let small = folder().join("data/small");
    let names = sim.list(&small).unwrap();
    let gone: Vec<_> = names
        .iter()
        .map(|name| (take_away(&sim, &small.join(name)), small.join(name)))
        .collect();
    // Nobody has read them before they are pushed.
    healed(&store, &[blobs[0].clone(), blobs[24].clone()]).await;
    let lost = |bytes: &&Bytes| matches!(store.stat(&sha256(bytes)), Err(Error::NotFound { .. }));
    let rest: Vec<Bytes> = blobs.iter().filter(lost).cloned().collect();
    assert!(rest.iter().any(|bytes| bytes.len() > 65_536));
    assert!(rest.iter().any(|bytes| bytes.len() < 65_536));
    for bytes in &rest {
        let read = pull(&store, &sha256(bytes)).await;
        assert!(matches!(read, Err(Error::Io { .. })), "{read:?}");
    }
    assert_eq!(store.health().await.counts.quarantined, 0);
    healed(&store, &rest).await;
    assert_all(&store, &blobs).await;

    // They come back with other files, whichever index there is.
    for (away, path) in gone.into_iter().chain(away) {
        sim.rename(&away, &path).unwrap();
    }
    for index in [index, MemoryIndex::default()] {
        let store = open(&sim, &index).await.unwrap();
        assert_all(&store, &blobs).await;
        store.close().await.unwrap();
    }
}

#[tokio::test]
async fn without_its_folder_a_push_fails_rather_than_be_answered_as_present() {
    let sim = disk(93);
    let index = MemoryIndex::default();
    let (store, blobs) = full(&sim, &index).await;
    let store = restarted(&sim, &index, store).await;
    unmount(&sim, "raw");
    let raw = folder().join("data/raw");
    for bytes in &blobs[..3] {
        let digest = sha256(bytes);
        assert!(matches!(store.stat(&digest), Err(Error::NotFound { .. })));
        let error = push(&store, bytes, digest).await.unwrap_err();
        assert!(error.to_string().contains("data/raw"), "{error}");
        assert_eq!(sim.list(&raw).unwrap(), Vec::<String>::new());
    }
    mount(&sim, "raw");
    // All is as before, at once and without a restart.
    for bytes in &blobs {
        assert_eq!(store.stat(&sha256(bytes)).unwrap().size, bytes.len() as u64);
        assert!(!push(&store, bytes, sha256(bytes)).await.unwrap());
    }
    assert_all(&store, &blobs).await;
}

/// An operator who gives a file up puts an empty one there. The first push of
/// what was in it must not be dropped, though no read has found the damage yet.
#[tokio::test]
async fn a_push_of_a_blob_whose_file_is_empty_or_short_is_stored_anew() {
    for len in [0, 4096, 500_000 / 4096 * 4096] {
        let sim = disk(94);
        let index = MemoryIndex::default();
        let store = open(&sim, &index).await.unwrap();
        let bytes = content(1, 900_000);
        push(&store, &bytes, sha256(&bytes)).await.unwrap();
        store.close().await.unwrap();
        drop(store);
        cut(&sim, &segment("raw", 1), len);
        let store = open(&sim, &index).await.unwrap();
        assert!(push(&store, &bytes, sha256(&bytes)).await.unwrap(), "{len}");
        assert_eq!(pull(&store, &sha256(&bytes)).await.unwrap(), bytes);
    }
}
