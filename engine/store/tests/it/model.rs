//! The store against a map (G1): random sequences of pushes, uploads in parts,
//! reads, restarts and power cuts. Every message carries the seed; set
//! `ORLOP_MODEL_SEED` to run one sequence again.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use orlop_disk::sim::{Crash, Sim};
use orlop_engine::{Digest, Error, MemoryIndex, Store, UploadId};

use crate::support::{content, disk, open, pull, push, sha256};

const SEQUENCES: u64 = 60;
const STEPS: u32 = 60;

/// A small random number generator, so that a seed is the whole input.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ (x >> 31)) % bound
    }
}

struct Run {
    seed: u64,
    random: Random,
    sim: Arc<Sim>,
    index: MemoryIndex,
    store: Store,
    blobs: BTreeMap<Digest, Bytes>,
    uploads: Vec<(UploadId, Bytes, u64)>,
}

impl Run {
    async fn new(seed: u64) -> Self {
        let sim = disk(seed);
        let index = MemoryIndex::default();
        let store = open(&sim, &index).await.unwrap();
        let (blobs, uploads) = (BTreeMap::new(), Vec::new());
        Self {
            seed,
            random: Random(seed),
            sim,
            index,
            store,
            blobs,
            uploads,
        }
    }

    fn some(&mut self) -> Bytes {
        let size = match self.random.below(4) {
            0 => self.random.below(200),
            1 => self.random.below(70_000),
            2 => 60_000 + self.random.below(12_000),
            _ => self.random.below(2_500_000),
        };
        content(self.random.below(8), size as usize)
    }

    async fn step(&mut self) {
        match self.random.below(12) {
            0..4 => {
                let bytes = self.some();
                let digest = sha256(&bytes);
                let new = push(&self.store, &bytes, digest).await.unwrap();
                assert_eq!(
                    new,
                    self.blobs.insert(digest, bytes).is_none(),
                    "seed {}",
                    self.seed
                );
            }
            4 => {
                let bytes = self.some();
                let id = self.store.upload_open("owner", None).unwrap();
                self.uploads.push((id, bytes, 0));
            }
            5 | 6 => self.append().await,
            7 => self.finish().await,
            8 | 9 => self.read().await,
            10 => self.restart(None).await,
            _ => {
                let cut = self.random.below(3);
                let seed = self.random.below(u64::MAX);
                let crash = [Crash::Lost, Crash::Kept, Crash::Torn(seed)][cut as usize];
                self.restart(Some(crash)).await;
            }
        }
    }

    /// Sends a part of an upload, durable or not.
    async fn append(&mut self) {
        if self.uploads.is_empty() {
            return;
        }
        let at = self.random.below(self.uploads.len() as u64) as usize;
        let part = self.random.below(400_000);
        let durable = self.random.below(4) > 0;
        let (id, bytes, offset) = &mut self.uploads[at];
        let mut upload = self.store.upload_resume(*id, "owner").await.unwrap();
        assert_eq!(upload.offset(), *offset, "seed {}", self.seed);
        let end = (*offset + part).min(bytes.len() as u64);
        upload
            .append(bytes.slice(*offset as usize..end as usize))
            .await
            .unwrap();
        if durable {
            assert_eq!(
                upload.checkpoint().await.unwrap(),
                end,
                "seed {}",
                self.seed
            );
            *offset = end;
        }
        drop(upload);
        assert_eq!(
            self.store.upload_status(*id, "owner").unwrap(),
            *offset,
            "seed {}",
            self.seed
        );
    }

    async fn finish(&mut self) {
        if self.uploads.is_empty() {
            return;
        }
        let at = self.random.below(self.uploads.len() as u64) as usize;
        let (id, bytes, offset) = self.uploads.swap_remove(at);
        let mut upload = self.store.upload_resume(id, "owner").await.unwrap();
        if self.random.below(5) == 0 {
            upload.cancel().await.unwrap();
        } else {
            upload.append(bytes.slice(offset as usize..)).await.unwrap();
            let digest = sha256(&bytes);
            upload.commit(digest, None).await.unwrap();
            self.blobs.insert(digest, bytes);
        }
        assert!(
            self.store.upload_status(id, "owner").is_err(),
            "seed {}",
            self.seed
        );
    }

    async fn read(&mut self) {
        if self.blobs.is_empty() {
            return;
        }
        let at = self.random.below(self.blobs.len() as u64) as usize;
        let (digest, bytes) = self.blobs.iter().nth(at).unwrap();
        let from = self.random.below(bytes.len() as u64 + 1);
        let to = from + self.random.below(bytes.len() as u64 + 1 - from);
        let mut stream = self.store.read(digest).unwrap().stream(from..to);
        let mut got = Vec::new();
        while let Some(piece) = stream.next().await {
            got.extend_from_slice(&piece.unwrap());
        }
        assert_eq!(
            got,
            bytes[from as usize..to as usize],
            "seed {}: {from}..{to}",
            self.seed
        );
    }

    async fn restart(&mut self, crash: Option<Crash>) {
        match crash {
            None => self.store.close().await.unwrap(),
            Some(crash) => {
                self.sim = self.sim.crash(crash);
                let kept = self.random.below(3) > 0;
                let left = if kept {
                    self.index.current().crash()
                } else {
                    Default::default()
                };
                self.index = MemoryIndex::new(left);
            }
        }
        self.store = open(&self.sim, &self.index)
            .await
            .unwrap_or_else(|error| panic!("seed {}: {error}", self.seed));
        // What never became durable is gone with a restart, and says so.
        for (id, bytes, offset) in std::mem::take(&mut self.uploads) {
            match self.store.upload_status(id, "owner") {
                Ok(durable) => assert_eq!(durable, offset, "seed {}", self.seed),
                Err(Error::NotFound { .. }) => assert_eq!(offset, 0, "seed {}", self.seed),
                Err(error) => panic!("seed {}: {error}", self.seed),
            }
            if offset > 0 {
                self.uploads.push((id, bytes, offset));
            }
        }
        self.check().await;
    }

    async fn check(&self) {
        for (digest, bytes) in &self.blobs {
            let found = pull(&self.store, digest).await;
            let found = found.unwrap_or_else(|error| panic!("seed {}: {error}", self.seed));
            assert_eq!(&found, bytes, "seed {}", self.seed);
        }
    }
}

#[tokio::test]
async fn g1_random_sequences_behave_like_a_map() {
    let one: Option<u64> = std::env::var("ORLOP_MODEL_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let seeds = one.map_or(0..SEQUENCES, |seed| seed..seed + 1);
    for seed in seeds {
        let mut run = Run::new(seed).await;
        for _ in 0..STEPS {
            run.step().await;
        }
        run.check().await;
    }
}
