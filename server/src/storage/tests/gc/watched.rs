//! A storage on a simulated disk, over an index that a test is told of.

use std::sync::Condvar;

use orlop_engine::IndexFactory;
use orlop_index::{Batch, Index, IndexError, Table, Visit};

use super::*;

/// A read of the index.
pub(super) enum Read<'a> {
    /// Rows by their keys.
    Rows(Table, &'a [&'a [u8]]),
    /// The begin of a walk.
    Scan(Table),
    /// How far the index is, which a cycle asks when it begins.
    Watermark,
}

/// Told of each read before it is done; an error is the index's.
pub(super) type Look = Arc<dyn Fn(Read<'_>) -> Result<(), IndexError> + Send + Sync>;

/// The error of a read that failed.
pub(super) fn unreadable() -> IndexError {
    IndexError::Io {
        path: "/store/index".into(),
        reason: "EIO".to_owned(),
    }
}

struct Watched(Arc<dyn Index>, Look);

impl Index for Watched {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        (self.1)(Read::Rows(table, &[key]))?;
        self.0.get(table, key)
    }
    fn multi_get(
        &self,
        table: Table,
        keys: &[Vec<u8>],
    ) -> Result<Vec<Option<Vec<u8>>>, IndexError> {
        let of: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
        (self.1)(Read::Rows(table, &of))?;
        self.0.multi_get(table, keys)
    }
    fn apply(&self, batch: Batch) -> Result<(), IndexError> {
        self.0.apply(batch)
    }
    fn scan(&self, table: Table, from: &[u8], visit: &mut Visit<'_>) -> Result<(), IndexError> {
        (self.1)(Read::Scan(table))?;
        self.0.scan(table, from, visit)
    }
    fn watermark(&self) -> Result<u64, IndexError> {
        (self.1)(Read::Watermark)?;
        self.0.watermark()
    }
    fn flush(&self) -> Result<u64, IndexError> {
        self.0.flush()
    }
    fn clear(&self, table: Table) -> Result<(), IndexError> {
        self.0.clear(table)
    }
}

struct Factory(MemoryIndex, Look);

impl IndexFactory for Factory {
    fn open(&self, folder: &Path) -> Result<Arc<dyn Index>, IndexError> {
        Ok(Arc::new(Watched(self.0.open(folder)?, Arc::clone(&self.1))))
    }
    fn destroy(&self, folder: &Path) -> Result<(), IndexError> {
        self.0.destroy(folder)
    }
}

impl Running {
    /// On a simulated disk, with the catalog in a folder.
    pub(super) async fn watched(folder: &Path, look: Look) -> (Arc<Sim>, Running) {
        let sim = Sim::new(1);
        let place = Path::new("/store");
        sim.create_dir(place).unwrap();
        let mut config = Config::new(place.to_owned());
        (config.journal_file, config.segment) = (4 << 20, 16 << 20);
        (config.reserve, config.lease) = (Some(0), LEASE);
        let disk = Arc::clone(&sim) as Arc<dyn Disk>;
        let factory = Factory(MemoryIndex::default(), look);
        let progress = Progress::default();
        let store = Store::open(config, System::start(), disk, &factory, &progress);
        let store = store.await.unwrap();
        let settings = Settings {
            gc_lease: LEASE,
            undelete_window: Duration::ZERO,
            ..settings(folder)
        };
        let storage = Storage::beside(&store, &settings).await.unwrap();
        (sim, Running::of(storage))
    }

    /// So many images without a tag, several pushed at once.
    pub(super) async fn images(&self, of: &str, count: usize) -> Vec<Digest> {
        let pushes = (0..count)
            .map(|number| async move { self.image("a", "", &format!("{of} {number}")).await });
        stream::iter(pushes).buffered(8).collect().await
    }
}

/// A gate at which threads wait while it is shut.
#[derive(Default)]
pub(super) struct Gate {
    /// Whether it is shut, and how many wait.
    state: std::sync::Mutex<(bool, u32)>,
    changed: Condvar,
}

impl Gate {
    pub(super) fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        state.1 += 1;
        let mut state = self.changed.wait_while(state, |state| state.0).unwrap();
        state.1 -= 1;
    }

    pub(super) fn set(&self, shut: bool) {
        self.state.lock().unwrap().0 = shut;
        self.changed.notify_all();
    }

    pub(super) fn waiting(&self) -> u32 {
        self.state.lock().unwrap().1
    }
}
