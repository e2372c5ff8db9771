//! One case: a fault at the nth operation of a workload, and what must hold
//! meanwhile, after a start on the same disk, and after a power cut.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use orlop_disk::Kind;
use orlop_disk::sim::{Crash, Fault, Plan, Record, Verb};
use orlop_engine::{Error, MemoryIndex, Store};

use crate::oracle::Oracle;
use crate::support::clock::simulate;
use crate::support::random::mix;
use crate::support::world::{World, folder};
use crate::workloads::{Base, Run, WORKLOADS};

/// What goes wrong, with its name and the only operation it strikes, if any.
pub const FAULTS: &[(&str, Fault, Option<Verb>)] = &[
    ("EIO", Fault::Fail(Kind::Io), None),
    ("ENOSPC", Fault::Fail(Kind::Full), None),
    ("EMFILE", Fault::Fail(Kind::Exhausted), None),
    ("EINTR", Fault::Fail(Kind::Interrupted), None),
    ("short transfer and EIO", Fault::Partial(Kind::Io), None),
    (
        "short write and ENOSPC",
        Fault::Partial(Kind::Full),
        Some(Verb::Write),
    ),
    ("EIO of a sync", Fault::Fail(Kind::Io), Some(Verb::Sync)),
    (
        "ENOSPC of a sync",
        Fault::Fail(Kind::Full),
        Some(Verb::Sync),
    ),
    (
        "EIO of a folder's sync",
        Fault::Fail(Kind::Io),
        Some(Verb::SyncDir),
    ),
    (
        "ENOSPC of a folder's sync",
        Fault::Fail(Kind::Full),
        Some(Verb::SyncDir),
    ),
];

/// A fault at one operation of one workload.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    line: u64,
    pub workload: usize,
    fault: usize,
    sticky: bool,
    nth: u64,
    seed: u64,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Case {
            line, nth, seed, ..
        } = self;
        let often = if self.sticky { "from then on" } else { "once" };
        write!(
            f,
            "{} at operation {nth} of {:?}, {often} \
             (cd tests/sim && ORLOP_SEED={seed} ORLOP_FAULT_LINE={line} ORLOP_FAULT_NTH={nth} cargo test --test faults g4)",
            FAULTS[self.fault].0, WORKLOADS[self.workload].name
        )
    }
}

impl Case {
    /// The lines are all pairs of a workload and a fault, once and for ever,
    /// over and over.
    pub fn new(line: u64, nth: u64, seed: u64) -> Case {
        let mut rest = line as usize;
        let mut digit = |of: usize| {
            let digit = rest % of;
            rest /= of;
            digit
        };
        Case {
            line,
            workload: digit(WORKLOADS.len()),
            fault: digit(FAULTS.len()),
            sticky: digit(2) == 1,
            nth,
            seed,
        }
    }

    pub fn replay(nth: u64) -> Case {
        let line = crate::support::random::number("ORLOP_FAULT_LINE").unwrap_or(0);
        Case::new(line, nth, crate::support::random::base())
    }

    /// The first time through all lines transfers are never put off.
    fn delay(&self) -> u64 {
        let once = (WORKLOADS.len() * FAULTS.len() * 2) as u64;
        (self.line / once).min(1) * 40
    }

    fn kind(&self) -> Kind {
        match FAULTS[self.fault].1 {
            Fault::Fail(kind) | Fault::Partial(kind) => kind,
            _ => Kind::Io,
        }
    }

    fn plan(&self) -> Plan {
        let (_, fault, verb) = FAULTS[self.fault];
        let mut plan = Plan::new(fault).after(self.nth);
        if let Some(verb) = verb {
            plan = plan.on(verb);
        }
        if self.sticky { plan.sticky() } else { plan }
    }

    /// Runs it. How many answers were errors; `None` when the workload has
    /// fewer operations.
    pub fn run(&self, base: &Base) -> Option<u64> {
        simulate(self.all(base))
    }

    async fn all(&self, base: &Base) -> Option<u64> {
        let seed = mix(self.seed, self.line * 100_000 + self.nth);
        let world = World {
            segment: base.segment,
            ..World::on(base.sim.crash(Crash::Killed), base.left(), seed)
        };
        world.sim.delay(self.delay());
        let mut run = Run::new(world, base.oracle.clone(), self.plan());
        (WORKLOADS[self.workload].work)(&mut run).await;
        let Run {
            store,
            world,
            oracle,
            ..
        } = run;
        let sim = Arc::clone(&world.sim);
        if sim.struck() == 0 {
            assert!(
                oracle.errors.is_empty(),
                "{self}: nothing struck, yet: {:?}",
                oracle.errors
            );
            return None;
        }
        sim.clear_plans();
        sim.delay(0);
        let panics = world.clock.panics();
        assert!(panics.is_empty(), "{self}: a task died: {panics:?}");
        let log = sim.log();
        self.judge(&oracle, &log);
        self.check_syncs(&log);

        // A power cut at this moment.
        let left = world.index.current().crash();
        let image = World::on(sim.crash(Crash::Lost), MemoryIndex::new(left), seed);
        self.verify(&image, &oracle, "after a power cut").await;
        // The same disk, without the fault. What the program had in memory is
        // gone.
        drop(store);
        let left = world.index.current().crash();
        let again = World::on(sim, MemoryIndex::new(left), seed);
        let store = self.verify(&again, &oracle, "on the same disk").await;
        // What is pushed now is there after a power cut.
        let mut after = oracle.clone();
        self.push_again(&store, &mut after).await;
        let left = again.index.current().crash();
        let image = World::on(again.sim.crash(Crash::Lost), MemoryIndex::new(left), seed);
        drop(store);
        self.verify(&image, &after, "pushed again, then a power cut")
            .await;
        Some(oracle.errors.len() as u64)
    }

    /// Whether each error is of a class that the faults explain.
    fn judge(&self, oracle: &Oracle, log: &[Record]) {
        let struck: Vec<_> = log.iter().filter(|record| record.fault.is_some()).collect();
        let any = |test: &dyn Fn(&Record) -> bool| struck.iter().any(|record| test(record));
        let full = self.kind() == Kind::Full;
        for (what, error) in &oracle.errors {
            let right = match error {
                Error::Full { .. } => full,
                Error::Io { .. } => {
                    !full || any(&must_poison) || any(&|record| record.verb == Verb::Read)
                }
                Error::Poisoned { .. } if full => any(&must_poison),
                Error::Poisoned { .. } => any(&|record| !matches!(record.verb, Verb::Read)),
                // The medium gives these bytes no more.
                Error::Corrupt { .. } => {
                    self.kind() == Kind::Io && any(&|record| record.verb == Verb::Read)
                }
                _ => false,
            };
            assert!(right, "{self}: {what}: {error:?}; struck: {struck:?}");
        }
        // A failed sync of what was to be acknowledged is never passed over.
        let journal = folder().join("journal");
        let failed =
            any(&|record| record.verb == Verb::Sync && is_log_file(&journal, &record.path));
        if failed && oracle.writes_after > 0 {
            let poisoned = oracle
                .errors
                .iter()
                .any(|(_, error)| matches!(error, Error::Poisoned { .. }));
            let refused = oracle.errors.iter().any(|(what, _)| what == "open");
            assert!(
                poisoned || refused,
                "{self}: a failed sync of the journal was passed over: {struck:?}"
            );
        }
    }

    /// After a failed sync of a file no sync of it succeeds: what it had
    /// called clean would count as durable.
    fn check_syncs(&self, log: &[Record]) {
        let mut failed = BTreeSet::new();
        for record in log {
            match record.verb {
                Verb::Remove | Verb::Rename => drop(failed.remove(&record.path)),
                Verb::Sync if record.failed.is_some() => drop(failed.insert(&record.path)),
                Verb::Sync => assert!(
                    !failed.contains(&record.path),
                    "{self}: {} was synced again after its sync had failed",
                    record.path.display()
                ),
                _ => {}
            }
        }
    }

    /// Opens a disk and compares it with what was acknowledged.
    async fn verify(&self, world: &World, oracle: &Oracle, when: &str) -> Store {
        let store = world
            .open()
            .await
            .unwrap_or_else(|error| panic!("{self}: {when}: {error}"));
        oracle.verify(&store, &format!("{self}: {when}")).await;
        let panics = world.clock.panics();
        assert!(panics.is_empty(), "{self}: {when}: {panics:?}");
        store
    }

    async fn push_again(&self, store: &Store, oracle: &mut Oracle) {
        let when = format!("{self}: pushed again");
        oracle.finish_uploads(store, &when).await;
        for content in oracle.everything() {
            let pushed = crate::support::world::push(store, &content.bytes, content.sha256).await;
            pushed.unwrap_or_else(|error| panic!("{when}: {error}"));
            oracle.acknowledge(&content);
        }
    }
}

/// Whether a full disk here is a failed write and not just a lack of room.
fn must_poison(record: &Record) -> bool {
    let log = folder().join("journal");
    let superblock = record.path.to_string_lossy().contains("superblock");
    match record.verb {
        Verb::Sync | Verb::SyncDir => true,
        // A spare that becomes a file of the log.
        Verb::Rename => record.path.starts_with(&log),
        Verb::Write | Verb::Open => superblock || is_log_file(&log, &record.path),
        _ => false,
    }
}

/// Whether it is a journal file in use.
fn is_log_file(journal: &Path, path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.starts_with(journal) && name.starts_with("J-")
}
