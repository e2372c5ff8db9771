//! The store that is damaged: small in bytes, with something of every kind,
//! grown over several lives so that its first journal files were recycled.

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use orlop_disk::Disk as _;
use orlop_disk::sim::{Crash, Sim};
use orlop_engine::{Algorithm, MemoryIndex, Store, UploadId};
use orlop_index::Index as _;
use orlop_index::mem::Memory;

use crate::map::{self, Spot};
use crate::support::clock::simulate;
use crate::support::contents::{Content, fresh};
use crate::support::world::{Left, World, folder, push};

/// Owner of the upload that stays open.
pub const OWNER: &str = "owner";

/// The store and what is known of it.
pub struct Base {
    pub sim: Arc<Sim>,
    index: Memory,
    /// Every file that counts, by its path below the data folder.
    pub files: Vec<(String, Vec<u8>)>,
    pub blobs: Vec<Content>,
    pub upload: UploadId,
    pub durable: u64,
    pub spots: Vec<Spot>,
}

impl Base {
    /// What the index has at a start: everything, or nothing.
    pub fn index(&self, whole: bool) -> MemoryIndex {
        if whole {
            MemoryIndex::new(self.index.crash())
        } else {
            MemoryIndex::default()
        }
    }
}

/// Made once.
pub fn base() -> &'static Base {
    static BASE: OnceLock<Base> = OnceLock::new();
    BASE.get_or_init(|| simulate(build()))
}

/// Sizes of the blobs of each life.
const LIVES: [&[usize]; 6] = [
    &[0, 90, 3_000, 70_000],
    &[150, 40_000, 66_000],
    &[700, 5_000, 140_000],
    &[60, 65_536, 1_000],
    &[400, 80_000, 2_000],
    &[30, 9_000],
];

async fn build() -> Base {
    let mut world = World {
        segment: 256 << 10,
        ..World::new(9)
    };
    let mut blobs = Vec::new();
    let mut upload = None;
    for (life, sizes) in LIVES.iter().enumerate() {
        let store = world.open().await.unwrap();
        for (number, size) in sizes.iter().enumerate() {
            let content = fresh((life * 10 + number) as u64 + 1, *size);
            push(&store, &content.bytes, content.sha256).await.unwrap();
            blobs.push(content);
        }
        let further = &blobs[life * 2];
        let algorithm = [Algorithm::Sha512, Algorithm::Blake3][life % 2];
        let note = Some(format!("note {life}").into_bytes());
        let again = store.put(further.bytes.clone(), further.digest(algorithm), note);
        assert!(!again.await.unwrap().new);
        uploads(&store, life, &mut upload).await;
        names(&store, life, &mut blobs).await;
        // A mark follows, and what recycling has to do.
        tokio::time::sleep(Duration::from_secs(12)).await;
        if life + 1 == LIVES.len() {
            assert!(
                store.health().await.counts.recycled > 0,
                "nothing was recycled"
            );
            store.close().await.unwrap();
        } else {
            drop(store);
            world.crash(Crash::Killed, Left::Flushed);
            tear(&world.sim);
        }
    }
    let (upload, durable) = upload.unwrap();
    world.index.current().flush().unwrap();
    let files = files(&world.sim);
    let spots = map::spots(&files);
    Base {
        sim: world.sim.crash(Crash::Kept),
        index: world.index.current().crash(),
        files,
        blobs,
        upload,
        durable,
        spots,
    }
}

/// One upload stays open over all lives; each life abandons another.
async fn uploads(store: &Store, life: usize, open: &mut Option<(UploadId, u64)>) {
    let content = fresh(999, 400_000);
    let ends = [100_000, 100_400, 180_000, 180_500, 181_000, 183_000];
    let (id, from) = open.unwrap_or_else(|| (store.upload_open(OWNER, None).unwrap(), 0));
    let mut taken = store.upload_resume(id, OWNER).await.unwrap();
    let part = content.bytes.slice(from as usize..ends[life]);
    taken.append(part).await.unwrap();
    *open = Some((id, taken.checkpoint().await.unwrap()));
    let id = store.upload_open(OWNER, None).unwrap();
    let mut taken = store.upload_resume(id, OWNER).await.unwrap();
    taken.append(content.bytes.slice(..500)).await.unwrap();
    taken.checkpoint().await.unwrap();
    taken.cancel().await.unwrap();
}

/// Copies of the catalog, and the sequence that was seen.
async fn names(store: &Store, life: usize, blobs: &mut Vec<Content>) {
    if life % 2 == 1 {
        let content = fresh(500 + life as u64, 4_000);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &content.bytes).unwrap();
        let sequence = life as u64;
        let copied = store.catalog_copy(file.path(), [3; 16], sequence).await;
        copied.unwrap();
        blobs.push(content);
    }
    store.catalog_seen([3; 16], life as u64).await.unwrap();
}

/// Tears the last group of the journal, a mark, so that the next start cuts it
/// and begins another file.
fn tear(sim: &Sim) {
    let files = files(sim);
    let last = files
        .iter()
        .filter(|(name, _)| name.starts_with("journal/J-"));
    let (name, bytes) = last.max_by_key(|(name, _)| name.clone()).unwrap();
    let (at, records) = map::last_group(bytes);
    assert_eq!(records, 1, "the last group must be a mark");
    let at = at + 100;
    let torn = [bytes[at] ^ 1];
    assert!(sim.poke(&folder().join(name), at as u64, &torn));
}

/// Every file that counts.
fn files(sim: &Sim) -> Vec<(String, Vec<u8>)> {
    let mut names = vec!["superblock.0".to_owned(), "superblock.1".to_owned()];
    for below in ["journal", "data/raw", "data/small", "data/meta"] {
        let listed = sim.list(&folder().join(below)).unwrap();
        let used = listed
            .iter()
            .filter(|name| name.starts_with("J-") || name.starts_with("S-"));
        names.extend(used.map(|name| format!("{below}/{name}")));
    }
    let read = |name: String| {
        let bytes = sim.peek(&folder().join(Path::new(&name))).unwrap();
        (name, bytes)
    };
    names.into_iter().map(read).collect()
}
