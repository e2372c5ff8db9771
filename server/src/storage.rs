//! What is behind the registry: data folder, disk, blob store and catalog,
//! opened in their order, watched over while they run, and closed in the
//! reverse one.
//!
//! Invariants: the folder's lock is held before anything is opened; a store
//! that has names is not served without its catalog; a catalog that is not the
//! store's, or is older than one seen before, serves pulls, but takes no push
//! and never decides what may be collected; the store is told within moments
//! how far the catalog is, and never a number below one it was told before;
//! upkeep that dies is started again, and has ended before anything is closed,
//! unless it hangs: then it is broken off.

mod ballast;
mod opening;
mod pulls;
mod upkeep;

pub use opening::{StartError, is_store, lock, own, prepare};
pub use pulls::Written;

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::{self, Arc};
use std::time::{Duration, Instant};

use orlop_disk::Disk;
use orlop_disk::lock::Lock;
use orlop_engine::{Progress, Store};
use tokio::sync::{Mutex, watch};
use tokio::time::timeout;

use crate::catalog::{Catalog, Counters};
use crate::collection::{self, Gc};
use crate::jobs::{self, Jobs, Scrub, Work};
use crate::registry::{Registry, Unpaired};
use crate::settings::Settings;
use pulls::PullWriter;
use upkeep::{COPY_YOUNG, Stage};

/// The lock file within the data folder.
pub const LOCK: &str = "LOCK";
/// The catalog within the data folder.
pub const CATALOG: &str = "catalog.db";
/// The socket for operator commands within the data folder.
pub const CONTROL_SOCKET: &str = "control.sock";
/// Where a copy of the catalog stands before it goes into the store.
const CATALOG_COPY: &str = "catalog-copy.tmp";
/// How long a stop waits for the end of upkeep, and for what it writes last.
const STOP_TIME: Duration = Duration::from_secs(10);
/// How long the catalog may take to say how jobs are.
const JOBS_TIME: Duration = Duration::from_secs(2);

/// An open store and its catalog.
pub struct Storage {
    store: Store,
    catalog: Catalog,
    folder: PathBuf,
    upload_expiry: Duration,
    /// What keeps the catalog from being the store's, if anything. While it is
    /// not, no copies of it are kept.
    unpaired: Option<Unpaired>,
    /// The newest copy. Held while one is made.
    copied: Mutex<Copied>,
    /// The sequence of the catalog that the store was told last. Held while it
    /// is told, so that it never hears a lower one after a higher.
    marked: Mutex<Marked>,
    /// When uploads could last not be gone on with, since an operator had
    /// writes switched off. Here, and not in the loop that asks, which may die.
    refused: sync::Mutex<Option<Instant>>,
    /// Writes pulls down.
    pulls: PullWriter,
    /// Names and blobs: what requests and jobs do goes by one.
    registry: Registry,
    /// Work in the background. While the catalog is not the store's there is
    /// none: it could not be kept.
    jobs: Jobs,
    gc: Arc<Gc>,
    stage: watch::Sender<Stage>,
    /// Held as long as there is upkeep.
    upkeep: Mutex<()>,
    stop_time: Duration,
}

/// What the store was told of the catalog.
struct Marked {
    sequence: u64,
    /// Whether the last time failed, which is logged once.
    is_failing: bool,
}

/// How store and catalog are, for whoever publishes it.
#[derive(Debug)]
pub struct Observed {
    /// The store.
    pub store: orlop_engine::Health,
    /// What the catalog has done.
    pub catalog: Counters,
    /// Its last change.
    pub sequence: u64,
    /// How long it has been at the transaction that it is at.
    pub catalog_writing: Duration,
    /// Whether it takes no changes until a restart.
    pub is_catalog_poisoned: bool,
    /// Whether it is not the store's.
    pub is_unpaired: bool,
    /// What became of counts of pulls.
    pub pulls: Written,
    /// Collection.
    pub gc: collection::Observed,
    /// How the bytes of segments are used, if that is known.
    pub space: Option<orlop_engine::Space>,
    /// How often the catalog's tasks panicked and were started again.
    pub catalog_restarts: Vec<(&'static str, u64)>,
    /// Seconds since the last sign of life of what runs in the background, by
    /// kind; 0 where nothing does.
    pub job_ages: Vec<(&'static str, u64)>,
    /// Work in the background, if the catalog tells it in time.
    pub jobs: Option<jobs::Observed>,
}

/// The newest copy of the catalog.
struct Copied {
    /// Its sequence; 0 when there is none of this catalog, as of an empty one.
    sequence: u64,
    /// When this process made it, if it did.
    at: Option<Instant>,
}

impl Storage {
    /// Opens the store, then the catalog, and compares the two. On a full disk
    /// the room that is kept for that is used.
    pub async fn open(
        settings: &Settings,
        lock: Lock,
        disk: Arc<dyn Disk>,
        progress: &Progress,
    ) -> Result<Storage, StartError> {
        let folder = settings.data.as_path();
        let opened = match Storage::attempt(settings, lock, Arc::clone(&disk), progress).await {
            Err(error) if ballast::release(folder) => {
                tracing::warn!(%error, "no room to start; using what is kept for that");
                let lock = opening::lock(folder)?;
                Storage::attempt(settings, lock, disk, progress).await
            }
            opened => opened,
        };
        if opened.is_ok() {
            ballast::keep(folder);
        }
        opened
    }

    /// Opens both. What was opened is closed again when it fails.
    async fn attempt(
        settings: &Settings,
        lock: Lock,
        disk: Arc<dyn Disk>,
        progress: &Progress,
    ) -> Result<Storage, StartError> {
        let store = opening::store(settings, lock, disk, progress).await?;
        let opened = Storage::beside(&store, settings).await;
        if opened.is_err()
            && let Err(error) = store.close().await
        {
            tracing::warn!(%error, "the store did not close well");
        }
        opened
    }

    async fn beside(store: &Store, settings: &Settings) -> Result<Storage, StartError> {
        let folder = settings.data.as_path();
        let catalog = opening::catalog(store, folder).await?;
        let compared = async {
            let unpaired = opening::pair(store, &catalog).await?;
            let copies = store.names().await?.copies;
            let newest = copies.last().map(|(_, sequence)| *sequence);
            let opening = store.health().await.epoch;
            let pulls = PullWriter::begin(&catalog, opening, unpaired.is_none()).await?;
            let registry = Registry::new(Arc::new(store.clone()), Arc::new(catalog.clone()))
                .with_sparse_manifests(settings.sparse_manifests)
                .remembering(pulls.pulls());
            let gc = gc_of(store, &catalog, &registry, settings);
            gc.pause_that_is().await?;
            let newest = newest.unwrap_or_default();
            Ok((unpaired, newest, pulls, opening, (registry, gc)))
        };
        match compared.await {
            Ok((unpaired, sequence, pulls, opening, (registry, gc))) => Ok({
                Storage {
                    jobs: jobs_of(store, &catalog, opening, settings, &gc),
                    gc,
                    registry,
                    pulls,
                    store: store.clone(),
                    folder: folder.to_owned(),
                    upload_expiry: settings.upload_expiry,
                    unpaired,
                    copied: Mutex::new(Copied { sequence, at: None }),
                    marked: Mutex::new(Marked {
                        sequence: catalog.sequence(),
                        is_failing: false,
                    }),
                    refused: sync::Mutex::default(),
                    catalog,
                    stage: watch::Sender::new(Stage::Open),
                    upkeep: Mutex::default(),
                    stop_time: STOP_TIME,
                }
            }),
            Err(error) => {
                catalog.close().await;
                Err(error)
            }
        }
    }

    /// The registry over this store and catalog.
    pub fn registry(&self) -> Registry {
        let registry = self.registry.clone();
        match self.unpaired {
            Some(why) => registry.without_writes(why),
            None => registry,
        }
    }

    /// Work in the background; None while the catalog is not the store's.
    pub fn jobs(&self) -> Option<Jobs> {
        self.unpaired.is_none().then(|| self.jobs.clone())
    }

    async fn space(&self) -> Option<orlop_engine::Space> {
        let space = self.store.space().await;
        let told = space.inspect_err(|error| {
            tracing::warn!(%error, "how the bytes of segments are used is not known");
        });
        told.ok()
    }

    /// Collection of garbage.
    pub fn gc(&self) -> Arc<Gc> {
        Arc::clone(&self.gc)
    }

    /// The catalog's id and the sequence it is at.
    pub fn catalog(&self) -> ([u8; 16], u64) {
        (self.catalog.id(), self.catalog.sequence())
    }

    /// How store and catalog are. What has to be read from a disk is left out
    /// if that takes long: the rest is wanted most just then.
    pub async fn observe(&self) -> Observed {
        let jobs = match timeout(JOBS_TIME, self.jobs.observe()).await {
            Ok(Ok(jobs)) => Some(jobs),
            Ok(Err(error)) => {
                tracing::warn!(%error, "how jobs are is not known");
                None
            }
            Err(_) => {
                tracing::warn!("how jobs are is not known: the catalog does not answer");
                None
            }
        };
        Observed {
            store: self.store.health().await,
            catalog: self.catalog.counters(),
            sequence: self.catalog.sequence(),
            catalog_writing: self.catalog.writing(),
            is_catalog_poisoned: self.catalog.poisoned().is_some(),
            is_unpaired: self.unpaired.is_some(),
            pulls: self.pulls.written(),
            gc: self.gc.observe(),
            space: self.space().await,
            catalog_restarts: self.catalog.restarts(),
            job_ages: self.jobs.ages(),
            jobs,
        }
    }

    /// Makes the catalog the store's, and says what kept it from being that;
    /// None when it was already.
    pub async fn adopt(&mut self) -> Result<Option<Unpaired>, StartError> {
        let Some(why) = self.unpaired else {
            return Ok(None);
        };
        let (id, sequence) = self.catalog();
        self.store.catalog_adopt(id, sequence).await?;
        self.unpaired = None;
        self.pulls.adopt();
        self.marked.get_mut().sequence = sequence;
        // What copies there are, are of another catalog.
        self.copied.get_mut().sequence = 0;
        Ok(Some(why))
    }

    /// Ends upkeep, writes the last pulls down and copies the catalog if it
    /// changed, unless that is given up, then closes catalog and store.
    /// Everything acknowledged is durable already: a copy that is not made loses
    /// nothing. Upkeep that hangs is broken off.
    pub async fn close(&self, give_up: impl Future<Output = ()>) -> Result<(), StartError> {
        self.stage.send_replace(Stage::Ending);
        self.jobs.stop().await;
        tokio::select! {
            biased;
            () = give_up => {
                tracing::warn!("the last copy of the catalog was given up; nothing is lost by that");
            }
            () = self.copy_catalog(COPY_YOUNG) => {}
        }
        self.stage.send_replace(Stage::Over);
        self.end_upkeep().await;
        if timeout(self.stop_time, self.pulls.end(&self.catalog))
            .await
            .is_err()
        {
            tracing::error!(
                "the last counts of pulls could not be written: the catalog hangs; the next start counts everything as pulled"
            );
        }
        self.catalog.close().await;
        if timeout(self.stop_time, self.mark()).await.is_err() {
            tracing::error!("the store was not told how far the catalog is: its disk hangs");
        }
        match self.store.close().await {
            // What is not in the index is in the journal.
            Err(error @ orlop_engine::Error::Full { .. }) => {
                tracing::warn!(%error, "the index was not written to its end; the next start replays the journal for it");
                Ok(())
            }
            closed => closed.map_err(StartError::Close),
        }
    }
}

/// The jobs of this opening of a store.
fn jobs_of(
    store: &Store,
    catalog: &Catalog,
    opening: u64,
    settings: &Settings,
    gc: &Arc<Gc>,
) -> Jobs {
    let scrub = Scrub::new(store.clone(), catalog.clone(), settings.scrub_digests);
    Jobs::new(catalog.clone(), format!("opening {opening}"), Arc::new(now))
        .with(Arc::new(scrub), settings.scrub_schedule.clone())
        .with(
            Arc::clone(gc) as Arc<dyn Work>,
            settings.gc_schedule.clone(),
        )
}

fn gc_of(store: &Store, catalog: &Catalog, registry: &Registry, settings: &Settings) -> Arc<Gc> {
    let rules = collection::Rules {
        undelete_window: settings.undelete_window,
        untagged: settings.untagged.clone().at_least(settings.gc_lease),
        limit: settings.gc_limit,
    };
    let parts = (store.clone(), catalog.clone(), registry.clone());
    Arc::new(Gc::new(parts, rules, Arc::new(now)))
}

/// Milliseconds since 1970.
fn now() -> i64 {
    let since = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
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

#[cfg(test)]
mod tests;
