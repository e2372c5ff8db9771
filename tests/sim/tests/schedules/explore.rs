//! Runs a scenario under many schedules, or one again.
//!
//! Owns: how many, under which schedulers, and what is printed when one fails.
//! Half of the schedules are drawn at random, half by priorities with three
//! changes (PCT), which finds what needs few switches at the right places.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use shuttle::scheduler::{PctScheduler, RandomScheduler, ReplayScheduler, Scheduler};
use shuttle::{Config, FailurePersistence, MaxSteps, Runner};

use crate::world::Image;

/// Holds a schedule to run again, as a failure prints it.
const SCHEDULE: &str = "ORLOP_SCHEDULE";
/// Holds the seed that schedules are drawn from.
const SEED: &str = "ORLOP_SEED";
/// Changes of priority.
const DEPTH: usize = 3;
/// Bytes of a task's stack.
const STACK: usize = 512 * 1024;
/// Switches of one schedule after which it counts as stuck.
const STEPS: usize = 200_000;

/// How often something happened in the schedules of one scenario: a scenario
/// whose event never happened has tested nothing.
#[derive(Debug)]
pub(crate) struct Times {
    what: &'static str,
    count: AtomicU64,
}

impl Times {
    pub(crate) const fn new(what: &'static str) -> Self {
        Self {
            what,
            count: AtomicU64::new(0),
        }
    }

    pub(crate) fn add(&self, times: u64) {
        self.count.fetch_add(times, Ordering::Relaxed);
    }
}

/// Runs `scenario`, named as its test, under as many schedules as the size
/// asks for. Each of `events` must have happened in some of them.
pub(crate) fn explore(
    name: &'static str,
    events: &[&'static Times],
    scenario: impl Fn() + Send + Sync + Copy + 'static,
) {
    // Outside the runs, so that all begin alike.
    Image::make_all();
    if let Ok(schedule) = std::env::var(SCHEDULE) {
        let mut replay = ReplayScheduler::new_from_encoded(&schedule);
        replay.set_allow_incomplete();
        Runner::new(replay, config(FailurePersistence::None)).run(scenario);
        return;
    }
    let schedules = orlop_figures::choose(50, 10_000, 10_000_000);
    let seed = seed();
    let half = schedules / 2;
    run(
        name,
        seed,
        RandomScheduler::new_from_seed(seed, half),
        scenario,
    );
    let rest = schedules - half;
    run(
        name,
        seed,
        PctScheduler::new_from_seed(seed, DEPTH, rest),
        scenario,
    );
    for event in events {
        let times = event.count.load(Ordering::Relaxed);
        println!("{name}: {} {times} times", event.what);
        assert!(
            times > 0,
            "{name}: in none of {schedules} schedules {} (seed {seed})",
            event.what
        );
    }
    orlop_figures::record("scenarios", 1, &format!("{name} {seed}"));
    orlop_figures::record("schedules", schedules as u64, &format!("{name} {seed}"));
}

/// Runs a scenario that has its fault built in: some schedule must find it, or
/// the scenario it stands beside shows nothing.
pub(crate) fn must_fail(scenario: impl Fn() + Send + Sync + 'static) {
    Image::make_all();
    let scheduler = RandomScheduler::new_from_seed(1, 2_000);
    let runner = Runner::new(scheduler, config(FailurePersistence::None));
    let outcome = catch_unwind(AssertUnwindSafe(|| runner.run(scenario)));
    assert!(outcome.is_err(), "no schedule found the fault");
}

fn run(
    name: &str,
    seed: u64,
    scheduler: impl Scheduler + 'static,
    scenario: impl Fn() + Send + Sync + 'static,
) {
    let folder = std::env::temp_dir().join(format!("orlop-schedule-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let runner = Runner::new(
        scheduler,
        config(FailurePersistence::File(Some(folder.clone()))),
    );
    let outcome = catch_unwind(AssertUnwindSafe(|| runner.run(scenario)));
    let schedule = saved(&folder);
    std::fs::remove_dir_all(&folder).unwrap();
    if let Err(panic) = outcome {
        println!(
            "{name} failed with seed {seed}; this runs its schedule again:\n  {SCHEDULE}={} cargo test --manifest-path tests/sim/Cargo.toml --features shuttle --test schedules {name}",
            schedule.unwrap_or_default()
        );
        resume_unwind(panic);
    }
}

/// The schedule of the failure, if there was one.
fn saved(folder: &Path) -> Option<String> {
    let file = std::fs::read_dir(folder).ok()?.next()?.ok()?;
    let text = std::fs::read_to_string(file.path()).ok()?;
    Some(text.split_whitespace().collect())
}

/// The settings of every run, whatever it is for.
pub(crate) fn config(failures: FailurePersistence) -> Config {
    let mut config = Config::new();
    config.stack_size = STACK;
    config.max_steps = MaxSteps::FailAfter(STEPS);
    config.failure_persistence = failures;
    config.silence_warnings = true;
    config
}

fn seed() -> u64 {
    match std::env::var(SEED) {
        Ok(seed) => seed.parse().expect("ORLOP_SEED is a number"),
        Err(_) => SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(1, |now| now.as_secs()),
    }
}
