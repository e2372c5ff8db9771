//! The store against maps (G1): random sequences of everything a caller can
//! do, with restarts, crashes and full disks between. A sequence that diverges
//! is made shorter, then printed with one command that runs it again.

#[path = "../support/mod.rs"]
mod support;

mod collect; // collections, and what may die in them
mod hard; // steps in which the disk is full or the machine stops
mod known; // what the store must know
mod run; // one sequence
mod shrink; // from a sequence that fails to a short one
mod steps; // steps on a machine that is well

use support::random::{base, mix, number};
use support::workers::sweep;

use crate::run::{Counts, STEPS, Sequence};

#[test]
fn g1_random_sequences_behave_like_maps() {
    if let Some(seed) = number("ORLOP_MODEL_SEED") {
        let sequence = Sequence::new(seed).only(std::env::var("ORLOP_MODEL_STEPS").ok());
        let counts = sequence.run().unwrap_or_else(|why| panic!("{why}"));
        println!("{counts:?}");
        return;
    }
    let count = orlop_figures::choose(40, 2_000, 1_000_000);
    let from = base();
    let all = sweep(count, |number| {
        let seed = mix(from, number);
        match Sequence::new(seed).run() {
            Ok(counts) => counts,
            Err(why) => panic!("{}", shrink::report(seed, &why)),
        }
    });
    let mut total = Counts::default();
    all.iter().for_each(|counts| total.add(counts));
    println!("g1: {count} sequences of {STEPS} steps: {total:?}");
    // A model that never meets these has tested little.
    assert!(total.crashes > count && total.recycled > count / 10 && total.full > count / 10);
    assert!(total.dead > count);
    orlop_figures::record(
        "model sequences of 80 operations",
        count,
        &format!("ORLOP_SEED={from}"),
    );
}

#[test]
fn a_sequence_that_fails_is_made_short_and_runs_again() {
    let seed = 3;
    let wanted = Sequence::new(seed).steps[20].verb;
    let fails = |kept: &[usize]| {
        let sequence = Sequence::new(seed);
        kept.iter().any(|at| sequence.steps[*at].verb == wanted)
    };
    let kept = shrink::shorten((0..STEPS).collect(), &fails);
    assert_eq!(kept.len(), 1);
    let again = Sequence::new(seed).only(Some(shrink::list(&kept)));
    assert_eq!(again.steps.len(), 1);
    assert_eq!(again.steps[0].verb, wanted);
}
