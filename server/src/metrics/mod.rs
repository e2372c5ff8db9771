//! What is counted, and how Prometheus reads it.
//!
//! Owns: counts of HTTP and of the registry's verbs, and the text form in
//! which these and everybody else's are published. Counting is one relaxed
//! atomic; nothing is queued, and reading disturbs nobody. Store and catalog
//! keep their own counts, which are read when somebody asks.
//!
//! Invariant: the value of a label comes from a list in this program, never
//! from a request: the number of series has a bound.
//!
//! Refuses to know: who asks, and over which connection.

mod busy;
mod http;
mod process;
mod text;
mod verbs;

pub use busy::{Busy, Serving};
pub use http::{Class, Connection, Http};
pub use process::Process;
pub use text::{Kind, Text};
pub use verbs::Verbs;

use std::sync::atomic::{AtomicU64, Ordering};

/// A count that only rises.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Adds to it.
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// How far it is.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
