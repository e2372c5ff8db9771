//! Running a workload once, and crashing it at every operation.
//!
//! The moments of one run are kept, so that no crash costs a run of its own.

use std::sync::Arc;

use orlop_index::mem::Memory;

use crate::case::{Case, Cut, Model};
use crate::catalog::Catalog;
use crate::checker::{self, Checked, Checker, Finding, Image};
use crate::index::Indexes;
use crate::model::{Event, Facts};
use crate::random::mix;
use crate::workload::{self, Workload};
use crate::world::{self, Moment, World};

/// One image in so many finds no index at all.
const GONE: u64 = 8;

/// A run, moment by moment.
pub struct Recording {
    /// Which workload it was.
    pub workload: &'static str,
    /// Its seed.
    pub seed: u64,
    /// Its moments, in order.
    pub moments: Vec<Moment>,
    events: Vec<Event>,
    catalog: Arc<Catalog>,
}

/// A finding and where it was made.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The case.
    pub case: Case,
    /// What was found.
    pub finding: Finding,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}\n  case {}\n  run it again: {}",
            self.finding,
            self.case,
            self.case.command()
        )
    }
}

/// Runs a workload to its end.
///
/// # Errors
/// When the store refuses something.
pub fn run(workload: &'static Workload, seed: u64) -> Checked<Recording> {
    let world = World::new(seed);
    let moments = world.record();
    let done = world.machine.run(workload.run(&world));
    done.map_err(|error| Checker::Workload.finds(error))?;
    Ok(Recording {
        workload: workload.name,
        seed,
        moments: world.stop(&moments),
        events: world.ledger.events(),
        catalog: Arc::clone(&world.catalog),
    })
}

impl Recording {
    /// What the clients knew at a moment.
    #[must_use]
    pub fn facts(&self, moment: &Moment) -> Facts {
        let mut facts = Facts::default();
        self.events
            .iter()
            .take(moment.events)
            .for_each(|event| facts.apply(event));
        facts
    }

    /// The first moment that is not before an operation: a case stays a case
    /// when a run has become a little different.
    #[must_use]
    pub fn at(&self, operation: u64) -> Option<&Moment> {
        let mut moments = self.moments.iter();
        moments.find(|moment| moment.snapshot.operation() >= operation)
    }

    /// The case of a crash at a moment.
    #[must_use]
    pub fn case(&self, moment: &Moment, model: Model) -> Case {
        Case {
            workload: self.workload.to_owned(),
            seed: self.seed,
            cut: Cut {
                operation: moment.snapshot.operation(),
                model,
            },
            nested: None,
        }
    }

    /// What a crash at a moment leaves.
    #[must_use]
    pub fn image(&self, moment: &Moment, case: &Case) -> Image {
        let seed = case.seed();
        let (index, whole) = match &moment.unflushed {
            Some((earlier, whole)) if mix(&[seed, 30]).is_multiple_of(2) => (earlier, *whole),
            _ => (&moment.index, moment.whole),
        };
        let index = if mix(&[seed, 31]).is_multiple_of(GONE) {
            Indexes::new(Memory::new(), false)
        } else {
            Indexes::new(index.crash_at(mix(&[seed, 32])), whole)
        };
        let (told, begun) = moment.names;
        let kept = mix(&[seed, 33]) % (begun - told + 1) as u64;
        let kept = told + usize::try_from(kept).unwrap_or(0);
        Image {
            seed,
            sim: moment.snapshot.crash(case.cut.model.crash(seed)),
            index: Arc::new(index),
            names: self.catalog.rows(kept),
        }
    }

    /// Crashes at a moment and checks what comes of it.
    ///
    /// # Errors
    /// What was found.
    pub fn check(&self, moment: &Moment, model: Model, facts: &Facts) -> Result<(), Box<Failure>> {
        let case = self.case(moment, model);
        let image = self.image(moment, &case);
        checker::check(&image, facts).map_err(|finding| Box::new(Failure { case, finding }))
    }
}

/// A recovery, moment by moment.
pub struct Recovery {
    case: Case,
    moments: Vec<Moment>,
    names: crate::catalog::Rows,
}

impl Recovery {
    /// Opens what a crash left, and keeps every moment of that.
    ///
    /// # Errors
    /// When it does not open.
    pub fn record(
        recording: &Recording,
        moment: &Moment,
        model: Model,
    ) -> Result<Recovery, Box<Failure>> {
        let case = recording.case(moment, model);
        let image = recording.image(moment, &case);
        let fail = |error: orlop_engine::Error| {
            let finding = Checker::Opens.finds(format_args!("it does not open: {error}"));
            Box::new(Failure {
                case: case.clone(),
                finding,
            })
        };
        let mut world = World::new(mix(&[image.seed, 40]));
        world.sim = Arc::clone(&image.sim);
        world.index = Arc::clone(&image.index);
        let moments = world.record();
        let machine = &world.machine;
        let opened = machine.run(world::open(&image.sim, &image.index, &machine.runtime()));
        let store = opened.map_err(fail)?;
        // What it does by itself once it is open.
        machine.run(
            machine
                .runtime()
                .pause(std::time::Duration::from_millis(60)),
        );
        drop(store);
        Ok(Recovery {
            case,
            moments: world.stop(&moments),
            names: image.names,
        })
    }

    /// How many moments it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.moments.len()
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.moments.is_empty()
    }

    /// Operations before each moment.
    pub fn operations(&self) -> impl Iterator<Item = u64> {
        self.moments
            .iter()
            .map(|moment| moment.snapshot.operation())
    }

    /// Crashes the recovery at a moment and checks what comes of it.
    ///
    /// # Errors
    /// What was found.
    pub fn check(&self, place: usize, model: Model, facts: &Facts) -> Result<(), Box<Failure>> {
        let Some(moment) = self.moments.get(place) else {
            return Ok(());
        };
        let operation = moment.snapshot.operation();
        let case = Case {
            nested: Some(Cut { operation, model }),
            ..self.case.clone()
        };
        let seed = case.seed();
        let image = Image {
            seed,
            sim: moment.snapshot.crash(model.crash(seed)),
            index: Arc::new(Indexes::new(
                moment.index.crash_at(mix(&[seed, 41])),
                moment.whole,
            )),
            names: self.names.clone(),
        };
        checker::check(&image, facts).map_err(|finding| Box::new(Failure { case, finding }))
    }
}

/// Runs one case again.
///
/// # Errors
/// What was found; a case that does not exist is found by [`Checker::Workload`].
pub fn replay(case: &Case) -> Result<(), Box<Failure>> {
    replay_of(case, run)
}

/// The same, with the run made in a way of the caller.
///
/// # Errors
/// As [`replay`].
pub fn replay_of(
    case: &Case,
    run: impl FnOnce(&'static Workload, u64) -> Checked<Recording>,
) -> Result<(), Box<Failure>> {
    let lost = |what: String| {
        let finding = Checker::Workload.finds(what);
        Box::new(Failure {
            case: case.clone(),
            finding,
        })
    };
    let workload = workload::find(&case.workload)
        .ok_or_else(|| lost(format!("there is no workload {:?}", case.workload)))?;
    let recording = run(workload, case.seed).map_err(|finding| lost(finding.what))?;
    let moment = recording.at(case.cut.operation);
    let moment = moment.ok_or_else(|| lost("the run is shorter than that".to_owned()))?;
    let facts = recording.facts(moment);
    let Some(nested) = case.nested else {
        return recording.check(moment, case.cut.model, &facts);
    };
    let recovery = Recovery::record(&recording, moment, case.cut.model)?;
    let place = recovery
        .operations()
        .position(|operation| operation >= nested.operation);
    let place = place.ok_or_else(|| lost("the recovery is shorter than that".to_owned()))?;
    recovery.check(place, nested.model, &facts)
}
