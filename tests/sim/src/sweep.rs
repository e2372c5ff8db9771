//! Many seeds of all workloads, on two threads.
//!
//! Which images there are is a function of the size that was asked for, not of
//! the machine.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::case::Model;
use crate::random::mix;
use crate::simulation::{Failure, Recording, Recovery, run};
use crate::workload::{WORKLOADS, Workload};

/// Threads.
const THREADS: usize = 2;

/// How much of it.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Seeds of each workload: the first, and how many.
    pub seeds: (u64, u64),
    /// Of the operations every so many-th, from one that the seed chooses.
    pub step: usize,
    /// Seeds of torn and reordered sectors for each operation.
    pub torn: u64,
    /// Recoveries of each run that are crashed at each of their operations.
    pub recoveries: u64,
}

/// What was done.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tally {
    /// Crash images of runs.
    pub images: u64,
    /// Crash images of recoveries.
    pub nested: u64,
    /// Operations of the runs.
    pub operations: u64,
}

/// Runs every workload with every seed of the plan.
///
/// # Errors
/// The first failure.
pub fn sweep(plan: Plan) -> Result<Tally, String> {
    let (first, count) = plan.seeds;
    let jobs: Vec<_> = (first..first + count)
        .flat_map(|seed| WORKLOADS.iter().map(move |workload| (workload, seed)))
        .collect();
    let next = AtomicUsize::new(0);
    let tally = Mutex::new(Tally::default());
    let failed = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while let Some((workload, seed)) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    match one(workload, *seed, plan) {
                        Ok(done) => add(&tally, done),
                        Err(failure) => {
                            next.store(jobs.len(), Ordering::Relaxed);
                            *failed
                                .lock()
                                .unwrap_or_else(std::sync::PoisonError::into_inner) = Some(failure);
                        }
                    }
                }
            });
        }
    });
    match failed
        .into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
    {
        Some(failure) => Err(failure),
        None => Ok(tally
            .into_inner()
            .unwrap_or_else(std::sync::PoisonError::into_inner)),
    }
}

fn add(tally: &Mutex<Tally>, done: Tally) {
    let mut tally = tally
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    tally.images += done.images;
    tally.nested += done.nested;
    tally.operations += done.operations;
}

/// Runs one workload with one seed.
fn one(workload: &'static Workload, seed: u64, plan: Plan) -> Result<Tally, String> {
    let said = |failure: Box<Failure>| failure.to_string();
    let recording = run(workload, seed)
        .map_err(|finding| format!("{finding}, in workload {} with seed {seed}", workload.name))?;
    let mut tally = Tally {
        operations: recording.moments.len() as u64,
        ..Tally::default()
    };
    crash(&recording, plan, &mut tally).map_err(said)?;
    for number in 0..plan.recoveries {
        recover(&recording, number, &mut tally).map_err(said)?;
    }
    Ok(tally)
}

/// The models of one operation.
pub fn models(torn: u64) -> impl Iterator<Item = Model> {
    [Model::Lost, Model::Kept, Model::Killed, Model::Prefix(0)]
        .into_iter()
        .chain((0..torn).map(Model::Torn))
}

fn crash(recording: &Recording, plan: Plan, tally: &mut Tally) -> Result<(), Box<Failure>> {
    let offset = usize::try_from(mix(&[recording.seed, 50]) % plan.step as u64).unwrap_or(0);
    for moment in recording.moments.iter().skip(offset).step_by(plan.step) {
        let facts = recording.facts(moment);
        for model in models(plan.torn) {
            recording.check(moment, model, &facts)?;
            tally.images += 1;
        }
    }
    Ok(())
}

/// Crashes one recovery at each of its operations.
fn recover(recording: &Recording, number: u64, tally: &mut Tally) -> Result<(), Box<Failure>> {
    let seed = mix(&[recording.seed, 51, number]);
    let place = usize::try_from(seed % recording.moments.len() as u64).unwrap_or(0);
    let Some(moment) = recording.moments.get(place) else {
        return Ok(());
    };
    // A killed process leaves what is not durable yet: the next power cut takes
    // it, unless the recovery made it so.
    let model = match seed >> 32 & 3 {
        0 | 1 => Model::Killed,
        2 => Model::Kept,
        _ => Model::Torn(number),
    };
    let facts = recording.facts(moment);
    let recovery = Recovery::record(recording, moment, model)?;
    for place in 0..recovery.len() {
        for model in [Model::Lost, Model::Torn(place as u64)] {
            recovery.check(place, model, &facts)?;
            tally.nested += 1;
        }
    }
    Ok(())
}
