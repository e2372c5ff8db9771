//! What is behind the registry: data folder, disk, blob store and catalog,
//! opened in their order, watched over while they run, and closed in the
//! reverse one.
//!
//! Invariants: the folder's lock is held before anything is opened; a store
//! that has names is not served without its catalog; a catalog that is not the
//! store's, or is older than one seen before, serves pulls, but takes no push
//! and never decides what may be collected; the store is told within moments
//! how far the catalog is, and never a number below one it was told before;
//! upkeep that dies is started again, and has ended before anything is closed.

mod ballast;
mod opening;
mod pulls;

pub use opening::{StartError, is_store, lock, own, prepare};
pub use pulls::Written;

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use orlop_disk::Disk;
use orlop_disk::lock::Lock;
use orlop_engine::{CatalogMatch, Progress, Store};
use tokio::sync::{Mutex, watch};
use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::catalog::{Catalog, Counters};
use crate::collection::{self, Gc};
use crate::jobs::{self, Jobs, Scrub, Work};
use crate::registry::{Maintenance, Registry, Unpaired};
use crate::settings::Settings;
use crate::supervisor::Supervisor;
use pulls::PullWriter;

/// The lock file within the data folder.
pub const LOCK: &str = "LOCK";
/// The catalog within the data folder.
pub const CATALOG: &str = "catalog.db";
/// The socket for operator commands within the data folder.
pub const CONTROL_SOCKET: &str = "control.sock";
/// Where a copy of the catalog stands before it goes into the store.
const CATALOG_COPY: &str = "catalog-copy.tmp";
/// How often the catalog is copied into the store, if it changed.
const COPY_EVERY: Duration = Duration::from_secs(15 * 60);
/// A copy younger than this is not made again when the storage is closed.
const COPY_YOUNG: Duration = Duration::from_secs(60);
/// How often it is looked for uploads that nobody goes on with.
const EXPIRE_EVERY: Duration = Duration::from_secs(5 * 60);
/// How often the store is told how far the catalog is, if it went on.
const MARK_EVERY: Duration = Duration::from_secs(1);

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
    marked: Mutex<u64>,
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
}

/// How far the end of upkeep is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Open,
    /// What is under way is finished, nothing begins.
    Ending,
    /// A copy under way is not finished either.
    Over,
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
    /// Work in the background.
    pub jobs: jobs::Observed,
    /// Collection.
    pub gc: collection::Observed,
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
            Ok((unpaired, newest.unwrap_or_default(), pulls, opening))
        };
        match compared.await {
            Ok((unpaired, sequence, pulls, opening)) => Ok({
                let registry = Registry::new(Arc::new(store.clone()), Arc::new(catalog.clone()))
                    .with_sparse_manifests(settings.sparse_manifests)
                    .remembering(pulls.pulls());
                let gc = gc_of(store, &catalog, &registry, settings);
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
                    marked: Mutex::new(catalog.sequence()),
                    catalog,
                    stage: watch::Sender::new(Stage::Open),
                    upkeep: Mutex::default(),
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

    /// Collection of garbage.
    pub fn gc(&self) -> Arc<Gc> {
        Arc::clone(&self.gc)
    }

    /// The catalog's id and the sequence it is at.
    pub fn catalog(&self) -> ([u8; 16], u64) {
        (self.catalog.id(), self.catalog.sequence())
    }

    /// How store and catalog are.
    pub async fn observe(&self) -> Observed {
        Observed {
            store: self.store.health().await,
            catalog: self.catalog.counters(),
            sequence: self.catalog.sequence(),
            catalog_writing: self.catalog.writing(),
            is_catalog_poisoned: self.catalog.poisoned().is_some(),
            is_unpaired: self.unpaired.is_some(),
            pulls: self.pulls.written(),
            gc: self.gc.observe(),
            jobs: self.jobs.observe().await.unwrap_or_else(|error| {
                tracing::warn!(%error, "how jobs are is not known");
                jobs::Observed::default()
            }),
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
        *self.marked.get_mut() = sequence;
        // What copies there are, are of another catalog.
        self.copied.get_mut().sequence = 0;
        Ok(Some(why))
    }

    /// Tells the store how far the catalog is, copies the catalog into it, ends
    /// uploads that nobody goes on with, writes pulls down, and runs jobs, again
    /// and again until [`Storage::close`]. Each is a loop of its own, and is
    /// started again when it panics.
    pub async fn watch(&self, maintenance: &Maintenance, supervisor: &Supervisor) {
        let _upkeep = self.upkeep.lock().await;
        self.gc.obey(maintenance);
        let ending = || self.reached(Stage::Ending);
        let jobs = async {
            if let Some(jobs) = self.jobs() {
                jobs.run(supervisor).await;
            }
        };
        tokio::join!(
            supervisor.keep("marks", ending(), || self.marks()),
            supervisor.keep("copies", ending(), || self.copies()),
            supervisor.keep("expiry", ending(), || self.expiry(maintenance)),
            supervisor.keep("pulls", ending(), || self
                .pulls
                .run(&self.catalog, ending())),
            jobs
        );
    }

    /// Ready when the end of upkeep is so far.
    async fn reached(&self, stage: Stage) {
        let mut stages = self.stage.subscribe();
        let _ = stages.wait_for(|now| *now >= stage).await;
    }

    /// Waits for the next time. False: there is none.
    async fn goes_on(&self, ticks: &mut Interval) -> bool {
        tokio::select! {
            biased;
            () = self.reached(Stage::Ending) => false,
            _ = ticks.tick() => true,
        }
    }

    async fn marks(&self) {
        let mut ticks = every(MARK_EVERY);
        while self.goes_on(&mut ticks).await {
            self.mark().await;
        }
    }

    async fn copies(&self) {
        let mut ticks = every(COPY_EVERY);
        ticks.reset();
        while self.goes_on(&mut ticks).await {
            tokio::select! {
                biased;
                () = self.reached(Stage::Over) => {}
                () = self.copy_catalog(Duration::ZERO) => {}
            }
        }
    }

    async fn expiry(&self, maintenance: &Maintenance) {
        let mut ticks = every(EXPIRE_EVERY);
        let mut refused: Option<Instant> = None;
        while self.goes_on(&mut ticks).await {
            ballast::keep(&self.folder);
            // Nobody could go on with an upload meanwhile.
            if maintenance.read_only().is_some() {
                refused = Some(Instant::now());
            }
            if refused.is_some_and(|at| at.elapsed() <= self.upload_expiry) {
                continue;
            }
            // There may be many.
            tokio::select! {
                biased;
                () = self.reached(Stage::Ending) => {}
                () = self.expire_uploads() => {}
            }
        }
    }

    /// Ends the uploads that nobody went on with. A failure is logged and tried
    /// again next time.
    async fn expire_uploads(&self) {
        match self.store.upload_expire(self.upload_expiry).await {
            Ok(0) => {}
            Ok(uploads) => tracing::info!(uploads, "uploads that nobody went on with were ended"),
            Err(error) => tracing::warn!(%error, "uploads could not be ended; trying again later"),
        }
    }

    /// Tells the store how far the catalog is, if it went on since.
    async fn mark(&self) {
        let mut marked = self.marked.lock().await;
        let (id, sequence) = self.catalog();
        if self.unpaired.is_some() || sequence == *marked {
            return;
        }
        *marked = sequence;
        match self.store.catalog_seen(id, sequence).await {
            Ok(CatalogMatch::Same) => {}
            Ok(found) => {
                tracing::error!(?found, sequence, "the store was told of another catalog");
            }
            Err(error) => {
                tracing::warn!(%error, sequence, "the store was not told how far the catalog is");
            }
        }
    }

    /// Puts a copy of the catalog into the store if it changed since the last
    /// one and that is at least this old. A failure is logged and tried again
    /// next time: the catalog itself is not touched by it.
    async fn copy_catalog(&self, age: Duration) {
        let mut copied = self.copied.lock().await;
        let is_young = copied.at.is_some_and(|at| at.elapsed() < age);
        let is_same = copied.sequence == self.catalog.sequence();
        if self.unpaired.is_some() || is_young || is_same {
            return;
        }
        match self.copy().await {
            Ok(sequence) => {
                let at = Some(Instant::now());
                *copied = Copied { sequence, at };
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
        self.store
            .catalog_copy(copy, self.catalog.id(), sequence)
            .await?;
        Ok(sequence)
    }

    /// Ends upkeep, writes the last pulls down and copies the catalog if it
    /// changed, unless that is given up, then closes catalog and store.
    /// Everything acknowledged is durable already: a copy that is not made loses
    /// nothing.
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
        drop(self.upkeep.lock().await);
        self.pulls.end(&self.catalog).await;
        self.catalog.close().await;
        self.mark().await;
        self.store.close().await?;
        Ok(())
    }
}

/// So often, and the first time now. What was missed is not made up for.
fn every(time: Duration) -> Interval {
    let mut ticks = interval(time);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
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
        untagged: settings.untagged.map(|time| time.max(settings.gc_lease)),
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
