//! Power cuts (G2): at every I/O operation of a workload, with everything
//! unsynced lost, kept, cut to a prefix or torn, what was acknowledged is there
//! and nothing else is visible.

use std::sync::Arc;

use bytes::Bytes;
use orlop_disk::sim::{Crash, Fault, Plan, Sim};
use orlop_engine::{Digest, Error, MemoryIndex, Store, UploadId};

use crate::support::{content, disk, open, pull, push, sha256};

/// What the store has answered for.
#[derive(Default)]
struct Oracle {
    acknowledged: Vec<(Digest, Bytes)>,
    attempted: Vec<(Digest, Bytes)>,
    upload: Option<(UploadId, u64)>,
}

const PART: usize = 150_000;

/// Small and large blobs, an upload in two parts, a restart in the middle.
async fn workload(sim: &Arc<Sim>, index: &MemoryIndex, oracle: &mut Oracle) -> Result<(), Error> {
    let store = open(sim, index).await?;
    steps(&store, oracle, 0).await?;
    store.close().await?;
    drop(store);
    let store = open(sim, index).await?;
    steps(&store, oracle, 100).await
}

async fn steps(store: &Store, oracle: &mut Oracle, seed: u64) -> Result<(), Error> {
    for (step, size) in [700, 90_000, 0, 30_000, 1_300_000].into_iter().enumerate() {
        let bytes = content(seed + step as u64, size);
        let digest = sha256(&bytes);
        oracle.attempted.push((digest, bytes.clone()));
        push(store, &bytes, digest).await?;
        oracle.acknowledged.push((digest, bytes));
    }
    let bytes = content(seed + 50, 2 * PART);
    let id = store.upload_open("a", None)?;
    let mut upload = store.upload_resume(id, "a").await?;
    upload.append(bytes.slice(..PART)).await?;
    let durable = upload.checkpoint().await?;
    oracle.upload = Some((id, durable));
    drop(upload);
    let manifest = content(seed + 60, 2_000);
    let digest = sha256(&manifest);
    oracle.attempted.push((digest, manifest.clone()));
    store
        .put(manifest.clone(), digest, Some(b"note".to_vec()))
        .await?;
    oracle.acknowledged.push((digest, manifest));
    Ok(())
}

/// Opens what a crash left and compares it with the oracle.
async fn verify(image: &Arc<Sim>, index: &MemoryIndex, oracle: &Oracle, what: &str) {
    let store = open(image, index)
        .await
        .unwrap_or_else(|error| panic!("{what}: {error}"));
    for (digest, bytes) in &oracle.acknowledged {
        let found = pull(&store, digest).await;
        assert_eq!(
            &found.unwrap_or_else(|error| panic!("{what}: lost {digest}: {error}")),
            bytes,
            "{what}"
        );
    }
    for (digest, bytes) in &oracle.attempted {
        match pull(&store, digest).await {
            Ok(found) => assert_eq!(&found, bytes, "{what}: partial"),
            Err(Error::NotFound { .. }) => {}
            Err(error) => panic!("{what}: {digest}: {error}"),
        }
    }
    if let Some((id, durable)) = oracle.upload {
        assert_eq!(
            store.upload_status(id, "a").unwrap(),
            durable,
            "{what}: the upload's offset"
        );
    }
    // The store goes on: what comes now is kept too.
    let bytes = content(7_777, 100_000);
    push(&store, &bytes, sha256(&bytes))
        .await
        .unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!(
        pull(&store, &sha256(&bytes)).await.unwrap(),
        bytes,
        "{what}"
    );
}

#[tokio::test]
async fn g2_a_power_cut_at_any_operation_loses_nothing_acknowledged() {
    let sim = disk(0);
    workload(&sim, &MemoryIndex::default(), &mut Oracle::default())
        .await
        .unwrap();
    let operations = sim.operations();
    assert!(operations > 60, "the workload is too small: {operations}");
    let mut images = 0;
    for cut in 0..operations {
        let sim = disk(cut);
        let index = MemoryIndex::default();
        let mut oracle = Oracle::default();
        sim.plan(Plan::new(Fault::PowerOff).after(cut));
        let _ = workload(&sim, &index, &mut oracle).await;
        let modes = [
            Crash::Lost,
            Crash::Kept,
            Crash::Prefix(cut),
            Crash::Torn(cut),
            Crash::Torn(!cut),
        ];
        for mode in modes {
            let image = sim.crash(mode);
            // The index loses what it had not flushed, or is gone altogether.
            let left = if images % 3 == 0 {
                MemoryIndex::default()
            } else {
                MemoryIndex::new(index.current().crash())
            };
            verify(
                &image,
                &left,
                &oracle,
                &format!("cut at {cut} of {operations}, {mode:?}"),
            )
            .await;
            images += 1;
        }
    }
    println!("g2: {images} crash images of {operations} operations");
}

#[tokio::test]
async fn g3_a_power_cut_during_recovery_loses_nothing_either() {
    let sim = disk(500);
    let index = MemoryIndex::default();
    let mut oracle = Oracle::default();
    workload(&sim, &index, &mut oracle).await.unwrap();
    let torn = sim.crash(Crash::Torn(500));
    let mut cut = 0;
    loop {
        let image = torn.crash(Crash::Kept);
        image.plan(Plan::new(Fault::PowerOff).after(cut));
        let left = MemoryIndex::new(index.current().crash());
        let opened = open(&image, &left).await;
        let done = opened.is_ok();
        drop(opened);
        let again = image.crash(Crash::Torn(cut));
        let left = MemoryIndex::new(left.current().crash());
        verify(&again, &left, &oracle, &format!("recovery cut at {cut}")).await;
        if done {
            break;
        }
        cut += 1;
    }
    assert!(cut > 10, "recovery has only {cut} operations");
}
