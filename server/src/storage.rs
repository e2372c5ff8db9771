//! What is behind the registry: data folder, disk, blob store and catalog,
//! opened in their order, watched over while they run, and closed in the
//! reverse one.
//!
//! Invariants: the folder's lock is held before anything is opened; a store
//! that has names is not served without its catalog; a catalog that is not the
//! store's, or is older than one seen before, serves pulls but never decides
//! what may be collected.

mod opening;

pub use opening::{StartError, lock, prepare};

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use orlop_disk::Disk;
use orlop_disk::lock::Lock;
use orlop_engine::{Progress, Store};

use crate::catalog::Catalog;
use crate::registry::Registry;
use crate::settings::Settings;

/// The lock file within the data folder.
pub const LOCK: &str = "LOCK";
/// The catalog within the data folder.
pub const CATALOG: &str = "catalog.db";
/// The socket for operator commands within the data folder.
pub const CONTROL_SOCKET: &str = "control.sock";
/// Where a copy of the catalog stands before it goes into the store.
const CATALOG_COPY: &str = "catalog-copy.tmp";
/// How often the catalog is copied into the store, if it changed.
pub const COPY_EVERY: Duration = Duration::from_secs(15 * 60);

/// An open store and its catalog.
pub struct Storage {
    store: Store,
    catalog: Catalog,
    folder: PathBuf,
    /// Sequence of the catalog in the newest copy.
    copied: AtomicU64,
    /// Whether the catalog is the store's, so that copies of it are kept.
    is_paired: bool,
}

impl Storage {
    /// Opens the store, then the catalog, and compares the two.
    pub async fn open(
        settings: &Settings,
        lock: Lock,
        disk: Arc<dyn Disk>,
        progress: &Progress,
    ) -> Result<Storage, StartError> {
        let store = opening::store(settings, lock, disk, progress).await?;
        let catalog = opening::catalog(&store, &settings.data).await?;
        let is_paired = opening::pair(&store, &catalog).await?;
        let newest = store
            .names()
            .await?
            .copies
            .last()
            .map(|(_, sequence)| *sequence);
        Ok(Storage {
            store,
            catalog,
            folder: settings.data.clone(),
            copied: AtomicU64::new(newest.unwrap_or_default()),
            is_paired,
        })
    }

    /// The registry over this store and catalog.
    pub fn registry(&self) -> Registry {
        Registry::new(Arc::new(self.store.clone()), Arc::new(self.catalog.clone()))
    }

    /// Puts a copy of the catalog into the store if it changed since the last
    /// one. A failure is logged and tried again next time: the catalog itself
    /// is not touched by it.
    pub async fn copy_catalog(&self) {
        let sequence = self.catalog.sequence();
        if !self.is_paired || sequence == self.copied.load(Ordering::Relaxed) {
            return;
        }
        match self.copy().await {
            Ok(sequence) => {
                self.copied.store(sequence, Ordering::Relaxed);
                tracing::debug!(sequence, "the catalog was copied into the store");
            }
            Err(error) => {
                tracing::warn!(%error, "the catalog could not be copied into the store; trying again later");
            }
        }
    }

    /// Copies the catalog and says at which sequence.
    async fn copy(&self) -> Result<u64, StartError> {
        let copy = self.folder.join(CATALOG_COPY);
        remove(&copy);
        let copied = self.copy_by_way_of(&copy).await;
        remove(&copy);
        copied
    }

    async fn copy_by_way_of(&self, copy: &Path) -> Result<u64, StartError> {
        let sequence = self.catalog.copy_to(copy).await?;
        let id = self.catalog.id();
        self.store.catalog_copy(copy, id, sequence).await?;
        self.store.catalog_seen(id, sequence).await?;
        Ok(sequence)
    }

    /// Copies the catalog if it changed, then closes catalog and store.
    /// Everything acknowledged is durable already.
    pub async fn close(self) -> Result<(), StartError> {
        self.copy_catalog().await;
        self.catalog.close().await;
        self.store.close().await?;
        Ok(())
    }
}

/// Removes a file that may be there.
fn remove(path: &Path) {
    match std::fs::remove_file(path) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => {
            tracing::warn!(%error, path = %path.display(), "cannot remove a leftover file");
        }
    }
}
