//! Read-only maintenance: a switch that an operator turns, and why.
//!
//! Invariants: while it is on no verb that writes begins; those that began go
//! on to their end. Reading it takes no lock, since every request does.
//!
//! Refuses to know: where it is kept across a restart, and who may turn it.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use serde::{Deserialize, Serialize};

/// Why and since when nothing is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadOnly {
    /// What the operator gave as the reason, for everyone to read.
    pub reason: String,
    /// When it was switched on: RFC 3339, UTC. For people.
    pub since: String,
}

/// The switch. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Maintenance(Arc<ArcSwapOption<ReadOnly>>);

impl Maintenance {
    /// Why nothing is written, if so.
    pub fn read_only(&self) -> Option<Arc<ReadOnly>> {
        self.0.load_full()
    }

    /// Switches it on, or off with none.
    pub fn set(&self, read_only: Option<ReadOnly>) {
        self.0.store(read_only.map(Arc::new));
    }
}
