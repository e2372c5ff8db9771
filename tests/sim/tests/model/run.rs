//! One sequence: its steps from the seed, and the machine they run on.
//!
//! Each step has a seed of its own, so that it does the same whichever others
//! were left out.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;
use orlop_engine::Store;

use crate::known::Known;
use crate::support::clock::{simulate, text_of};
use crate::support::contents::{self, Content};
use crate::support::random::{Random, mix};
use crate::support::world::{World, pull};

/// Steps of a sequence.
pub const STEPS: usize = 80;
/// Virtual time after which a step counts as hung.
const HUNG: Duration = Duration::from_secs(3 * 3600);

/// What a step does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    Put,
    Push,
    Open,
    Append,
    Finish,
    Cancel,
    Mismatch,
    Stranger,
    Expire,
    Read,
    Stat,
    Pin,
    Note,
    Notes,
    Copy,
    Catalog,
    Collect,
    Wait,
    Together,
    Full,
    Reopen,
    Rebuild,
    Crash,
    Cut,
}

/// How often each is chosen.
const WEIGHTS: &[(Verb, u64)] = &[
    (Verb::Put, 12),
    (Verb::Push, 10),
    (Verb::Open, 7),
    (Verb::Append, 12),
    (Verb::Finish, 6),
    (Verb::Cancel, 2),
    (Verb::Mismatch, 2),
    (Verb::Stranger, 2),
    (Verb::Expire, 2),
    (Verb::Read, 12),
    (Verb::Stat, 6),
    (Verb::Pin, 3),
    (Verb::Note, 2),
    (Verb::Notes, 1),
    (Verb::Copy, 2),
    (Verb::Catalog, 2),
    (Verb::Collect, 4),
    (Verb::Wait, 3),
    (Verb::Together, 5),
    (Verb::Full, 2),
    (Verb::Reopen, 2),
    (Verb::Rebuild, 1),
    (Verb::Crash, 3),
    (Verb::Cut, 3),
];

/// One step.
#[derive(Debug, Clone, Copy)]
pub struct Step {
    pub verb: Verb,
    pub seed: u64,
}

/// What a sequence met.
#[derive(Debug, Default, Clone, Copy)]
pub struct Counts {
    pub crashes: u64,
    pub recycled: u64,
    pub full: u64,
    pub commits: u64,
    pub reads: u64,
    pub dead: u64,
}

impl Counts {
    pub fn add(&mut self, other: &Counts) {
        self.crashes += other.crashes;
        self.recycled += other.recycled;
        self.full += other.full;
        self.commits += other.commits;
        self.reads += other.reads;
        self.dead += other.dead;
    }
}

/// How a step or a sequence ends: well, or with what was unlike the maps.
pub type Outcome<T = ()> = Result<T, String>;

/// Ends the step when something is unlike the maps.
macro_rules! ensure {
    ($holds:expr, $($words:tt)+) => {
        if !$holds {
            return Err(format!($($words)+));
        }
    };
}
pub(crate) use ensure;

/// A seed and its steps.
pub struct Sequence {
    seed: u64,
    pub steps: Vec<Step>,
}

impl Sequence {
    pub fn new(seed: u64) -> Sequence {
        // One in eight fills the journal with notes, so that it is recycled.
        let notes = if seed.is_multiple_of(8) { 25 } else { 0 };
        let total: u64 = WEIGHTS.iter().map(|(_, weight)| weight).sum();
        let step = |number: usize| {
            let seed = mix(seed, number as u64);
            let mut at = Random::new(seed).below(total + notes);
            let chosen = WEIGHTS.iter().find(|(_, weight)| {
                let hit = at < *weight;
                at = at.saturating_sub(*weight);
                hit
            });
            let verb = chosen.map_or(Verb::Notes, |(verb, _)| *verb);
            Step { verb, seed }
        };
        let steps = (0..STEPS).map(step).collect();
        Sequence { seed, steps }
    }

    /// With the steps of this list alone.
    pub fn only(mut self, list: Option<String>) -> Sequence {
        if let Some(list) = list {
            let numbers = list.split(',').filter(|number| !number.is_empty());
            self.steps = numbers
                .map(|number| self.steps[number.parse::<usize>().unwrap()])
                .collect();
        }
        self
    }

    /// Runs it.
    pub fn run(&self) -> Outcome<Counts> {
        let run = std::panic::catch_unwind(AssertUnwindSafe(|| simulate(self.all())));
        run.unwrap_or_else(|panic| Err(format!("panic: {}", text_of(panic.as_ref()))))
    }

    async fn all(&self) -> Outcome<Counts> {
        let mut run = Run::new(self.seed).await;
        for (number, step) in self.steps.iter().enumerate() {
            let verb = step.verb;
            let done = AssertUnwindSafe(run.step(*step)).catch_unwind();
            let done = tokio::time::timeout(HUNG, done).await;
            let done = match done {
                Err(_) => Err("nothing happens any more".to_owned()),
                Ok(Err(panic)) => Err(format!("panic: {}", text_of(panic.as_ref()))),
                Ok(Ok(done)) => done,
            };
            done.map_err(|why| format!("step {number}, {verb:?}: {why}"))?;
            let panics = run.world.clock.panics();
            ensure!(
                panics.is_empty(),
                "step {number}, {verb:?}: a task died: {panics:?}"
            );
        }
        run.check(100).await.map_err(|why| format!("end: {why}"))?;
        run.count().await;
        Ok(run.counts)
    }
}

/// A sequence under way.
pub struct Run {
    pub world: World,
    pub store: Store,
    pub known: Known,
    pub counts: Counts,
    pub random: Random,
}

impl Run {
    async fn new(seed: u64) -> Run {
        let world = World::new(seed);
        if seed.is_multiple_of(3) {
            world.sim.without_holes();
        }
        let store = world.open().await.unwrap();
        let known = Known {
            opened: world.now(),
            ..Known::default()
        };
        Run {
            world,
            store,
            known,
            counts: Counts::default(),
            random: Random::new(seed),
        }
    }

    async fn step(&mut self, step: Step) -> Outcome {
        self.random = Random::new(!step.seed);
        match step.verb {
            Verb::Put => self.put().await,
            Verb::Push => self.push().await,
            Verb::Open => self.open(),
            Verb::Append => self.append().await,
            Verb::Finish => self.finish().await,
            Verb::Cancel => self.cancel().await,
            Verb::Mismatch => self.mismatch().await,
            Verb::Stranger => self.stranger().await,
            Verb::Expire => self.expire().await,
            Verb::Read => self.read().await,
            Verb::Stat => self.stat(),
            Verb::Pin => self.pin(),
            Verb::Note => self.note(),
            Verb::Notes => self.notes().await,
            Verb::Copy => self.copy().await,
            Verb::Catalog => self.catalog().await,
            Verb::Collect => self.collect().await,
            Verb::Wait => self.wait().await,
            Verb::Together => self.together().await,
            Verb::Full => self.full().await,
            Verb::Reopen => self.reopen(false).await,
            Verb::Rebuild => self.reopen(true).await,
            Verb::Crash => self.crash().await,
            Verb::Cut => self.cut().await,
        }
    }

    /// Any content, small ones more often.
    pub fn some(&mut self) -> &'static Content {
        let all = contents::all();
        let bound = if self.random.chance(80) {
            24
        } else {
            all.len() as u64
        };
        &all[self.random.below(bound) as usize]
    }

    pub fn now(&self) -> Duration {
        self.world.now()
    }

    /// Takes the counters of this life before it ends.
    pub async fn count(&mut self) {
        self.counts.recycled += self.store.health().await.counts.recycled;
    }

    /// Compares everything: small blobs wholly, of large ones some.
    pub async fn check(&mut self, percent: u64) -> Outcome {
        for (digest, blob) in &self.known.blobs {
            let large = blob.bytes.len() > 100_000;
            if large && !self.random.chance(percent) {
                continue;
            }
            let found = pull(&self.store, digest)
                .await
                .map_err(|error| format!("{digest} is lost: {error}"))?;
            ensure!(found == blob.bytes, "{digest} has other bytes");
        }
        for (digest, sha256) in &self.known.digests {
            let Some(size) = self.known.blobs.get(sha256).map(|blob| blob.bytes.len()) else {
                continue;
            };
            let stat = self
                .store
                .stat(digest)
                .map_err(|error| format!("{digest}, {size} bytes, is lost: {error}"))?;
            ensure!(stat.size == size as u64, "{digest} has size {}", stat.size);
        }
        let now = self.now();
        for blob in self.known.blobs.values_mut() {
            blob.used = Some(now);
        }
        for digest in self.known.unknown(contents::all()) {
            let answer = self.store.stat(&digest);
            ensure!(
                matches!(answer, Err(orlop_engine::Error::NotFound { .. })),
                "{digest} was never committed: {answer:?}"
            );
        }
        let names = self
            .store
            .names()
            .await
            .map_err(|error| error.to_string())?;
        ensure!(
            names.any || !self.known.named,
            "the names of this store are forgotten"
        );
        ensure!(
            !names.any || self.known.maybe_named,
            "it never had a name, and says so"
        );
        ensure!(
            names.copies == self.known.copies,
            "copies of the catalog: {:?}, not {:?}",
            names.copies,
            self.known.copies
        );
        let catalog = names.catalog.map(|id| (id, names.sequence));
        ensure!(
            catalog == self.known.catalog,
            "the catalog is {catalog:?}, not {:?}",
            self.known.catalog
        );
        Ok(())
    }
}
