//! Planted bugs: each is found, and by the checker that is there for it.

use orlop_engine::{Planted, plant};
use orlop_figures as figures;
use orlop_sim::case::{Case, Model};
use orlop_sim::checker::Checker;
use orlop_sim::client::names_first;
use orlop_sim::simulation::{Failure, replay, run};
use orlop_sim::sweep::models;
use orlop_sim::workload::find;

/// Seeds that are tried.
const SEEDS: std::ops::Range<u64> = 0..3;

/// The first failure of a workload, at any of its operations.
fn hunt(workload: &str) -> Option<Box<Failure>> {
    let workload = find(workload).unwrap();
    for seed in SEEDS {
        let recording = match run(workload, seed) {
            Ok(recording) => recording,
            Err(finding) => panic!("the fault shows without a crash: {finding}"),
        };
        for moment in &recording.moments {
            let facts = recording.facts(moment);
            for model in models(2) {
                if let Err(failure) = recording.check(moment, model, &facts) {
                    return Some(failure);
                }
            }
        }
    }
    None
}

/// The bug is found by one of these checkers, and the case that found it finds
/// it again, read back from what was printed.
fn found(workload: &str, checkers: &[Checker]) {
    let failure = hunt(workload).expect("the simulator has not found it");
    println!("{failure}");
    let checker = failure.finding.checker;
    assert!(checkers.contains(&checker), "found by {checker:?}: {failure}");
    let case: Case = failure.case.to_string().parse().unwrap();
    let again = replay(&case).expect_err("the case does not find it again");
    assert_eq!(again.finding, failure.finding);
    figures::record("planted faults found", 1, &case.seed.to_string());
}

fn planted(planted: Planted, workload: &str, checkers: &[Checker]) {
    let guard = plant(Some(planted));
    found(workload, checkers);
    // Without it the same case finds nothing.
    drop(guard);
}

#[test]
fn canary_a_skipped_sync_is_found() {
    planted(Planted::SkipSync, "inline", &[Checker::Acknowledged]);
}

#[test]
fn canary_the_index_before_the_log_is_found() {
    planted(Planted::IndexBeforeLog, "inline", &[Checker::Opens]);
}

#[test]
fn canary_an_answer_before_the_sync_is_found() {
    planted(Planted::AckBeforeDurable, "group", &[Checker::Acknowledged]);
}

#[test]
fn canary_recycling_before_the_flush_is_found() {
    planted(Planted::RecycleBeforeFlush, "rotation", &[Checker::Bounded]);
}

#[test]
fn canary_names_before_blobs_are_found() {
    names_first::plant(true);
    found("manifests", &[Checker::Names]);
    names_first::plant(false);
}

/// Nothing is found by the same cases when nothing is planted.
#[test]
fn without_a_planted_bug_nothing_is_found() {
    for workload in ["inline", "group", "manifests"] {
        let recording = run(find(workload).unwrap(), 0).unwrap();
        for moment in recording.moments.iter().step_by(7) {
            let facts = recording.facts(moment);
            let checked = recording.check(moment, Model::Lost, &facts);
            checked.unwrap_or_else(|failure| panic!("{failure}"));
        }
    }
}
