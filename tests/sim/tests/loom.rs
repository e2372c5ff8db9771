//! The parts without locks, in every order that the memory model allows.
//!
//! Each model runs the shipped code on loom's atomics, with at most three
//! preemptions, and looks at the one claim that other code relies on.
//! `docs/testing.md` lists the parts that are modelled here and those that
//! need none.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "loom/answers.rs"]
mod answers;
#[path = "loom/catalog.rs"]
mod catalog;
#[path = "loom/quarantine.rs"]
mod quarantine;
#[path = "loom/tally.rs"]
mod tally;

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Preemptions of one run.
const PREEMPTIONS: usize = 3;

/// Runs a model in every order.
fn every_order(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(PREEMPTIONS);
    builder.check(model);
}

/// A model without what makes the claim true must fail: or it shows nothing.
fn some_order_fails(model: impl Fn() + Send + Sync + 'static) {
    let outcome = catch_unwind(AssertUnwindSafe(|| every_order(model)));
    assert!(outcome.is_err(), "the model cannot tell right from wrong");
}
