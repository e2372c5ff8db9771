//! The store through its front, on a simulated disk: blobs, uploads, ranges,
//! restarts, damage.

use std::path::Path;

use crate::support::{SIZES, content, disk, folder, open, pull, push, sha256};
use bytes::Bytes;
use futures_util::StreamExt;
use orlop_disk::sim::Crash;
use orlop_engine::{Algorithm, CatalogMatch, Digest, Error, Invalid, MemoryIndex};

#[tokio::test]
async fn blobs_of_every_size_come_back_also_after_a_restart() {
    let sim = disk(1);
    let index = MemoryIndex::default();
    let store = open(&sim, &index).await.unwrap();
    for (seed, size) in SIZES.into_iter().enumerate() {
        let bytes = content(seed as u64, size);
        let digest = sha256(&bytes);
        assert!(
            matches!(store.stat(&digest), Err(Error::NotFound { .. })),
            "{size}"
        );
        assert!(push(&store, &bytes, digest).await.unwrap(), "{size} is new");
        assert!(
            !push(&store, &bytes, digest).await.unwrap(),
            "{size} is known"
        );
        assert_eq!(store.stat(&digest).unwrap().size, size as u64);
        assert_eq!(pull(&store, &digest).await.unwrap(), bytes, "{size}");
    }
    store.close().await.unwrap();
    drop(store);
    let store = open(&sim, &index).await.unwrap();
    for (seed, size) in SIZES.into_iter().enumerate() {
        let bytes = content(seed as u64, size);
        assert_eq!(
            pull(&store, &sha256(&bytes)).await.unwrap(),
            bytes,
            "{size} after a restart"
        );
    }
}

#[tokio::test]
async fn a_lost_index_is_made_again_from_journal_and_segments() {
    let sim = disk(2);
    let index = MemoryIndex::default();
    let store = open(&sim, &index).await.unwrap();
    // Far more than the journal keeps, so that much was recycled.
    let mut blobs = Vec::new();
    for seed in 0..900u64 {
        let bytes = content(seed, 30_000 + (seed as usize * 37) % 60_000);
        push(&store, &bytes, sha256(&bytes)).await.unwrap();
        blobs.push(sha256(&bytes));
    }
    let big = content(99_999, 5 << 20);
    push(&store, &big, sha256(&big)).await.unwrap();
    for _ in 0..200 {
        if store.health().await.counts.recycled >= 3 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert!(
        store.health().await.counts.recycled >= 3,
        "journal files were recycled"
    );
    for digest in &blobs {
        assert_eq!(sha256(&pull(&store, digest).await.unwrap()), *digest);
    }
    store.close().await.unwrap();
    drop(store);

    let fresh = MemoryIndex::default();
    let store = open(&sim, &fresh).await.unwrap();
    for digest in &blobs {
        assert_eq!(
            sha256(&pull(&store, digest).await.unwrap()),
            *digest,
            "after a rebuild"
        );
    }
    assert_eq!(pull(&store, &sha256(&big)).await.unwrap(), big);
    assert!(!push(&store, &big, sha256(&big)).await.unwrap());
}

#[tokio::test]
async fn ranges_give_exactly_their_bytes() {
    let sim = disk(3);
    let store = open(&sim, &MemoryIndex::default()).await.unwrap();
    for size in [100, 70_000, 2_500_000] {
        let bytes = content(size as u64, size);
        let digest = sha256(&bytes);
        push(&store, &bytes, digest).await.unwrap();
        let last = size as u64;
        for (from, to) in [
            (0, 1),
            (0, last),
            (last - 1, last),
            (last / 3, last / 2),
            (65_535.min(last), 65_537.min(last)),
            (5, 5),
            (last, last + 10),
            (last / 2, u64::MAX),
        ] {
            let mut stream = store.read(&digest).unwrap().stream(from..to);
            let mut got = Vec::new();
            while let Some(piece) = stream.next().await {
                got.extend_from_slice(&piece.unwrap());
            }
            let (from, to) = (from.min(last) as usize, to.min(last) as usize);
            assert_eq!(got, bytes[from..to], "{from}..{to} of {size}");
        }
    }
}

#[tokio::test]
async fn a41_a_wrong_digest_stores_nothing_and_ends_the_upload() {
    let sim = disk(4);
    let store = open(&sim, &MemoryIndex::default()).await.unwrap();
    for size in [10, 200_000] {
        let bytes = content(1, size);
        let wrong = sha256(b"something else");
        let id = store.upload_open("a", None).unwrap();
        let mut upload = store.upload_resume(id, "a").await.unwrap();
        upload.append(bytes.clone()).await.unwrap();
        upload.checkpoint().await.unwrap();
        let error = upload.commit(wrong, None).await.unwrap_err();
        assert!(
            matches!(error, Error::Invalid(Invalid::DigestMismatch { .. })),
            "{error}"
        );
        assert!(matches!(store.stat(&wrong), Err(Error::NotFound { .. })));
        assert!(matches!(
            store.stat(&sha256(&bytes)),
            Err(Error::NotFound { .. })
        ));
        assert!(matches!(
            store.upload_status(id, "a"),
            Err(Error::NotFound { .. })
        ));
    }
}

#[tokio::test]
async fn a42_every_algorithm_serves_the_same_bytes_and_costs_no_second_copy() {
    let sim = disk(5);
    let index = MemoryIndex::default();
    let store = open(&sim, &index).await.unwrap();
    for size in [20, 300_000] {
        let bytes = content(8, size);
        for (round, algorithm) in Algorithm::ALL.into_iter().enumerate() {
            let digest = Digest::of(algorithm, &bytes);
            // Not announced when the upload was opened: made from the bytes.
            assert_eq!(
                push(&store, &bytes, digest).await.unwrap(),
                round == 0,
                "{algorithm}"
            );
            assert_eq!(pull(&store, &digest).await.unwrap(), bytes);
        }
    }
    store.close().await.unwrap();
    drop(store);
    let store = open(&sim, &index).await.unwrap();
    for algorithm in Algorithm::ALL {
        let bytes = content(8, 300_000);
        assert_eq!(
            pull(&store, &Digest::of(algorithm, &bytes)).await.unwrap(),
            bytes,
            "{algorithm}"
        );
    }
}

#[tokio::test]
async fn an_upload_goes_on_after_a_power_cut_at_its_durable_offset() {
    let sim = disk(6);
    let store = open(&sim, &MemoryIndex::default()).await.unwrap();
    let bytes = content(9, 3_000_000);
    for (part, also) in [
        (10, None),
        (70_000, Some(Algorithm::Sha512)),
        (2_500_000, Some(Algorithm::Blake3)),
    ] {
        let id = store.upload_open("a", also).unwrap();
        let mut upload = store.upload_resume(id, "a").await.unwrap();
        upload.append(bytes.slice(..part)).await.unwrap();
        assert_eq!(upload.checkpoint().await.unwrap(), part as u64);
        upload.append(bytes.slice(part..part + 5)).await.unwrap();
        drop(upload);
        assert_eq!(store.upload_status(id, "a").unwrap(), part as u64);
        assert!(matches!(
            store.upload_status(id, "other"),
            Err(Error::NotFound { .. })
        ));

        let after = sim.crash(Crash::Lost);
        let store = open(&after, &MemoryIndex::default()).await.unwrap();
        assert_eq!(store.upload_status(id, "a").unwrap(), part as u64, "{part}");
        let mut upload = store.upload_resume(id, "a").await.unwrap();
        assert!(matches!(
            store.upload_resume(id, "a").await,
            Err(Error::Busy { .. })
        ));
        upload.append(bytes.slice(part..)).await.unwrap();
        let digest = Digest::of(also.unwrap_or(Algorithm::Sha256), &bytes);
        assert!(upload.commit(digest, None).await.unwrap().new);
        assert_eq!(pull(&store, &digest).await.unwrap(), bytes);
    }
}

#[tokio::test]
async fn i08_64_pushers_of_one_blob_leave_one_copy() {
    for size in [5_000, 400_000] {
        let sim = disk(7);
        let store = open(&sim, &MemoryIndex::default()).await.unwrap();
        let bytes = content(3, size);
        let digest = sha256(&bytes);
        let pushes = (0..64).map(|_| push(&store, &bytes, digest));
        let new = futures_util::future::join_all(pushes).await;
        assert_eq!(
            new.into_iter().filter(|new| *new.as_ref().unwrap()).count(),
            1
        );
        assert_eq!(pull(&store, &digest).await.unwrap(), bytes);
    }
}

#[tokio::test]
async fn i02_a_damaged_blob_is_never_served_and_a_push_heals_it() {
    let sim = disk(8);
    let index = MemoryIndex::default();
    let store = open(&sim, &index).await.unwrap();
    let bytes = content(4, 900_000);
    let digest = sha256(&bytes);
    let other = content(5, 900_000);
    push(&store, &bytes, digest).await.unwrap();
    push(&store, &other, sha256(&other)).await.unwrap();
    store.close().await.unwrap();
    drop(store);

    let segment = folder().join("data/raw/S-0000000000000001.00000000");
    let image = sim.peek(&segment).unwrap();
    let at = image
        .windows(64)
        .position(|window| window == &bytes[500_000..500_064])
        .unwrap();
    assert!(sim.poke(&segment, at as u64, &[image[at] ^ 1]));

    let store = open(&sim, &index).await.unwrap();
    let error = pull(&store, &digest).await.unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    // A range that does not touch the damage is served until it is known.
    assert_eq!(
        pull(&store, &sha256(&other)).await.unwrap(),
        other,
        "its neighbour is not touched"
    );
    assert!(
        matches!(store.stat(&digest), Err(Error::NotFound { .. })),
        "HEAD says absent"
    );
    assert!(
        matches!(store.read(&digest), Err(Error::Corrupt { .. })),
        "GET names the damage"
    );
    assert!(
        push(&store, &bytes, digest).await.unwrap(),
        "the push keeps the new copy"
    );
    assert_eq!(pull(&store, &digest).await.unwrap(), bytes);
}

#[tokio::test]
async fn a_leased_blob_is_held_and_a_pinned_one_too() {
    let sim = disk(9);
    let store = open(&sim, &MemoryIndex::default()).await.unwrap();
    let bytes = content(1, 100);
    push(&store, &bytes, sha256(&bytes)).await.unwrap();
    let absent = sha256(b"absent");
    let (pin, found) = store.pin(&[sha256(&bytes), absent]).unwrap();
    assert_eq!(found, [Some(store.stat(&sha256(&bytes)).unwrap()), None]);
    assert!(store.held(&sha256(&bytes)).unwrap());
    assert!(!store.held(&absent).unwrap());
    drop(pin);
}

#[tokio::test]
async fn the_store_knows_its_catalog() {
    let sim = disk(10);
    let index = MemoryIndex::default();
    let store = open(&sim, &index).await.unwrap();
    assert!(!store.names().await.unwrap().any);
    assert_eq!(
        store.catalog_seen([1; 16], 5).await.unwrap(),
        CatalogMatch::Same
    );
    assert_eq!(
        store.catalog_seen([1; 16], 4).await.unwrap(),
        CatalogMatch::Older { seen: 5 }
    );
    assert_eq!(
        store.catalog_seen([2; 16], 9).await.unwrap(),
        CatalogMatch::Other
    );
    let manifest = Bytes::from_static(b"{}");
    store
        .put(
            manifest.clone(),
            sha256(&manifest),
            Some(b"a/b:latest".to_vec()),
        )
        .await
        .unwrap();

    let copy = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(copy.path(), content(77, 300_000)).unwrap();
    for sequence in 6..9 {
        store
            .catalog_copy(Path::new(copy.path()), [1; 16], sequence)
            .await
            .unwrap();
    }
    let after = sim.crash(Crash::Lost);
    let store = open(&after, &MemoryIndex::default()).await.unwrap();
    let names = store.names().await.unwrap();
    assert!(names.any);
    assert_eq!((names.catalog, names.sequence), (Some([1; 16]), 5));
    assert_eq!(
        names
            .copies
            .iter()
            .map(|(_, sequence)| *sequence)
            .collect::<Vec<_>>(),
        [7, 8]
    );
    assert_eq!(
        pull(&store, &names.copies[1].0).await.unwrap(),
        content(77, 300_000)
    );
}

#[tokio::test]
async fn a_full_disk_refuses_pushes_and_loses_nothing() {
    let sim = disk(11);
    sim.set_capacity(64 << 20);
    let store = open(&sim, &MemoryIndex::default()).await.unwrap();
    let mut kept = Vec::new();
    let refused = loop {
        let bytes = content(kept.len() as u64, 3 << 20);
        match push(&store, &bytes, sha256(&bytes)).await {
            Ok(_) => kept.push(sha256(&bytes)),
            Err(error) => break error,
        }
        assert!(kept.len() < 64, "the disk is never full");
    };
    assert!(matches!(refused, Error::Full { .. }), "{refused}");
    assert_eq!(
        store.health().await.poisoned,
        None,
        "a full disk is not poison"
    );
    assert!(kept.len() > 5);
    for digest in &kept {
        assert_eq!(sha256(&pull(&store, digest).await.unwrap()), *digest);
    }
}
