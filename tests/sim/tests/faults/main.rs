//! Every operation of the disk fails (G4): each fault of a table, once or from
//! then on, at every operation of every workload. No panic, every answer of
//! the right class, nothing acknowledged lost, no wrong byte, and no sync of a
//! file whose sync failed.

#[path = "../support/mod.rs"]
mod support;

mod case; // one fault at one operation, and what must hold after it
mod oracle; // what was acknowledged, and the classes of answers
mod poison; // what follows a failed sync, step by step
mod workloads; // what is done meanwhile

use std::sync::atomic::{AtomicU64, Ordering};

use crate::case::{Case, FAULTS};
use crate::support::random::{base, number};
use crate::support::workers::sweep;
use crate::workloads::WORKLOADS;

#[test]
fn g4_any_operation_may_fail_once_or_for_ever() {
    let bases: Vec<_> = WORKLOADS.iter().map(|workload| workload.base()).collect();
    if let Some(nth) = number("ORLOP_FAULT_NTH") {
        let case = Case::replay(nth);
        let struck = case.run(&bases[case.workload]);
        println!("{case}: {struck:?}");
        return;
    }
    // Every operation is the nth of some case; a quick run takes some.
    let step = orlop_figures::choose(29, 1, 1);
    let rounds = orlop_figures::choose(1, 1, 10);
    let lines = WORKLOADS.len() * FAULTS.len() * 2;
    let (errors, from) = (AtomicU64::new(0), base());
    let struck = sweep(lines as u64 * rounds, |line| {
        let mut struck = 0;
        for nth in (0..).step_by(step) {
            let case = Case::new(line, nth, from);
            match case.run(&bases[case.workload]) {
                Some(answers) => errors.fetch_add(answers, Ordering::Relaxed),
                None => break,
            };
            struck += 1;
        }
        struck
    });
    let count = struck.iter().sum::<u64>();
    let errors = errors.into_inner();
    println!(
        "g4: {count} faults in {} workloads, {errors} answers were errors",
        WORKLOADS.len()
    );
    assert!(errors > count, "faults that nobody notices test nothing");
    orlop_figures::record("Nth-call faults", count, &format!("ORLOP_SEED={from}"));
}
