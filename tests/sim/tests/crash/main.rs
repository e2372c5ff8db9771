//! Power cuts at every operation of every workload (G2), and in the recovery
//! after them (G3).

#[path = "../support/mod.rs"]
mod support;

mod fsck; // what fsck says of the images

use orlop_figures as figures;
use orlop_sim::case::{Case, Model};
use orlop_sim::simulation::replay;
use orlop_sim::sweep::{Plan, sweep};
use orlop_sim::workload::WORKLOADS;

/// The variable that names one case.
const CASE: &str = "ORLOP_SIM";

#[test]
fn g2_g3_a_power_cut_at_any_operation_loses_nothing_acknowledged() {
    let began = std::time::Instant::now();
    let plan = figures::choose(
        Plan {
            seeds: (0, 1),
            step: 31,
            torn: 1,
            recoveries: 1,
        },
        Plan {
            seeds: (1, 2),
            step: 1,
            torn: 2,
            recoveries: 3,
        },
        Plan {
            seeds: (1_000, 50),
            step: 1,
            torn: 8,
            recoveries: 6,
        },
    );
    let tally = sweep(plan).unwrap_or_else(|failure| panic!("{failure}"));
    println!("{tally:?} in {:?}", began.elapsed());
    let (first, count) = plan.seeds;
    let seeds = format!("{first}..{}", first + count);
    figures::record("workloads", WORKLOADS.len() as u64, &seeds);
    figures::record("persistence models", Model::KINDS as u64, &seeds);
    figures::record("crash images", tally.images, &seeds);
    figures::record("crash images in recovery", tally.nested, &seeds);
}

/// Runs the case in `ORLOP_SIM` again, or none.
#[test]
fn replay_one_case() {
    let Ok(text) = std::env::var(CASE) else {
        return;
    };
    let case: Case = text
        .parse()
        .unwrap_or_else(|error| panic!("{CASE}: {error}"));
    replay(&case).unwrap_or_else(|failure| panic!("{failure}"));
    println!("{case}: nothing was found");
}

/// Every case that was worth remembering.
#[test]
fn regressions() {
    let lines = include_str!("../../regressions.txt").lines();
    let cases = lines.filter(|line| !line.starts_with('#'));
    let mut count = 0;
    for line in cases {
        let (name, case) = line
            .split_once(' ')
            .unwrap_or_else(|| panic!("no case: {line:?}"));
        let case: Case = case
            .parse()
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        replay(&case).unwrap_or_else(|failure| panic!("{name}: {failure}"));
        count += 1;
    }
    assert!(count > 0);
}

/// Otherwise the workloads of collections would prove nothing.
#[test]
fn collections_end_blobs_that_nobody_names() {
    for name in ["cycles", "graves"] {
        let workload = orlop_sim::workload::find(name).unwrap();
        let recording = orlop_sim::simulation::run(workload, 1).unwrap();
        let facts = recording.facts(recording.moments.last().unwrap());
        let dead = facts.blobs.values().filter(|blob| blob.dead).count();
        let told = facts.blobs.values().filter(|blob| blob.told).count();
        assert!(dead > 2 && told > 4, "{name}: {dead} dead, {told} alive");
    }
}

/// What each workload is and costs. Run it by name.
#[test]
#[ignore = "prints a table"]
fn table_of_workloads() {
    for workload in WORKLOADS {
        let began = std::time::Instant::now();
        let recording = orlop_sim::simulation::run(workload, 1).unwrap();
        let ran = began.elapsed();
        let began = std::time::Instant::now();
        let mut images = 0u32;
        for moment in recording
            .moments
            .iter()
            .step_by(recording.moments.len() / 10)
        {
            let facts = recording.facts(moment);
            recording.check(moment, Model::Kept, &facts).unwrap();
            images += 1;
        }
        let each = began.elapsed() / images;
        println!(
            "{:<12} {:>5} moments, run {ran:?}, image {each:?}",
            workload.name,
            recording.moments.len()
        );
    }
}
