//! A machine with a disk, an index, a catalog and clients who remember.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use orlop_disk::Disk;
use orlop_disk::sim::{Sim, Snapshot};
use orlop_engine::{Config, Error, Progress, Runtime, Store};
use orlop_index::mem::Memory;

use crate::catalog::Catalog;
use crate::index::Indexes;
use crate::model::Ledger;
use crate::random::{Random, mix};
use crate::runtime::{Machine, Virtual};

/// Bytes of a journal file and of a segment: small, so that files come and go.
pub const FILE: u64 = 4 << 20;
/// Bytes of cache: enough that nothing is ever dropped from it, since what the
/// cache drops, and when, is not a function of the seed.
const CACHE: u64 = 64 << 20;

/// How long "it is here" holds: short, so that collections find something.
pub const LEASE: Duration = Duration::from_secs(1);

/// The folder of the store.
#[must_use]
pub fn folder() -> PathBuf {
    PathBuf::from("/store")
}

/// How a simulated store is opened.
#[must_use]
pub fn config() -> Config {
    let mut config = Config::new(folder());
    config.journal_file = FILE;
    config.segment = FILE;
    config.cache = CACHE;
    config.reserve = Some(0);
    config.lease = LEASE;
    config
}

/// Opens the store on a disk.
///
/// # Errors
/// The store's own.
pub async fn open(sim: &Arc<Sim>, index: &Indexes, runtime: &Arc<Virtual>) -> Result<Store, Error> {
    let disk: Arc<dyn Disk> = Arc::clone(sim) as Arc<dyn Disk>;
    let runtime: Arc<dyn Runtime> = Arc::clone(runtime) as Arc<dyn Runtime>;
    Store::open(config(), runtime, disk, index, &Progress::default()).await
}

/// An empty disk with the store's folder.
///
/// # Panics
/// Never: an empty disk refuses nothing.
#[must_use]
pub fn disk(seed: u64) -> Arc<Sim> {
    let sim = Sim::new(seed);
    let made = sim
        .create_dir(&folder())
        .and_then(|()| sim.sync_dir(Path::new("/")));
    assert!(made.is_ok(), "an empty disk takes a folder");
    sim
}

/// The state of everything right before an operation of the disk.
pub struct Moment {
    /// The disk.
    pub snapshot: Snapshot,
    /// The index, with what of it is durable.
    pub index: Memory,
    /// The index as it was a moment before, if it was flushed since, and whether
    /// it was whole: the disk was the same then.
    pub unflushed: Option<(Memory, bool)>,
    /// Whether the index was whole.
    pub whole: bool,
    /// Events that had happened.
    pub events: usize,
    /// Changes of names that were acknowledged, and begun.
    pub names: (usize, usize),
}

/// The moments of a run, in order.
pub type Moments = Arc<Mutex<Vec<Moment>>>;

/// Everything a workload runs on.
pub struct World {
    /// The seed of it all.
    pub seed: u64,
    /// The machine.
    pub machine: Machine,
    /// Its disk.
    pub sim: Arc<Sim>,
    /// The index on it.
    pub index: Arc<Indexes>,
    /// The catalog on it.
    pub catalog: Arc<Catalog>,
    /// What the clients remember.
    pub ledger: Arc<Ledger>,
    /// What decides about the workload.
    pub random: Mutex<Random>,
}

impl World {
    /// A new world.
    #[must_use]
    pub fn new(seed: u64) -> World {
        let machine = Machine::new(mix(&[seed, 1]));
        let catalog = Arc::new(Catalog::new(machine.runtime(), mix(&[seed, 2])));
        let sim = disk(mix(&[seed, 3]));
        // With odd seeds transfers take turns, so that more lies between a
        // write and the next.
        sim.delay(if seed % 2 == 1 { 30 } else { 0 });
        World {
            seed,
            machine,
            sim,
            index: Arc::default(),
            catalog,
            ledger: Arc::default(),
            random: Mutex::new(Random::new(mix(&[seed, 4]))),
        }
    }

    /// Decides something.
    pub fn draw<T>(&self, draw: impl FnOnce(&mut Random) -> T) -> T {
        draw(&mut self.random.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Opens the store.
    ///
    /// # Errors
    /// The store's own.
    pub async fn open(&self) -> Result<Store, Error> {
        open(&self.sim, &self.index, &self.machine.runtime()).await
    }

    /// The process is killed: its tasks end, and the index loses what it likes
    /// of what it had not flushed. The store must have been dropped.
    pub fn kill(&self) {
        self.machine.runtime().kill();
        let left = self.index.current().crash_at(self.draw(Random::number));
        self.index.replace(left);
    }

    /// Keeps every moment from now on. Of moments between which the disk did not
    /// change only the last is kept: then the clients know most.
    #[must_use]
    pub fn record(&self) -> Moments {
        let moments: Moments = Arc::default();
        let (index, ledger) = (Arc::clone(&self.index), Arc::clone(&self.ledger));
        let (catalog, kept) = (Arc::clone(&self.catalog), Arc::clone(&moments));
        self.sim.observe(move |snapshot| {
            let moment = moment(snapshot, &index, &ledger, &catalog);
            keep(
                &mut kept.lock().unwrap_or_else(PoisonError::into_inner),
                moment,
            );
        });
        moments
    }

    /// Ends [`World::record`] with the moment that is now.
    #[must_use]
    pub fn stop(&self, moments: &Moments) -> Vec<Moment> {
        self.sim.unobserve();
        let last = moment(
            self.sim.snapshot(),
            &self.index,
            &self.ledger,
            &self.catalog,
        );
        let mut kept = moments.lock().unwrap_or_else(PoisonError::into_inner);
        let mut kept = std::mem::take(&mut *kept);
        keep(&mut kept, last);
        kept
    }
}

/// Adds a moment, in place of one before in which the disk was the same.
fn keep(kept: &mut Vec<Moment>, mut moment: Moment) {
    if let Some(last) = kept.last()
        && last.index.flushes() != moment.index.flushes()
    {
        moment.unflushed = Some((last.index.snapshot(), last.whole));
    }
    let version = kept.last().map(|last| last.snapshot.version());
    if version == Some(moment.snapshot.version())
        && let Some(last) = kept.pop()
    {
        moment.unflushed = last.unflushed.or(moment.unflushed);
    }
    kept.push(moment);
}

fn moment(snapshot: Snapshot, index: &Indexes, ledger: &Ledger, catalog: &Catalog) -> Moment {
    Moment {
        snapshot,
        index: index.current().snapshot(),
        unflushed: None,
        whole: index.is_whole(),
        events: ledger.len(),
        names: catalog.mark(),
    }
}
