//! Locks that keep notes in the order of their rows, one for all repositories of
//! equal hash: that costs a wait now and then and is never wrong.

use std::hash::{BuildHasher, RandomState};

use orlop_oci::RepositoryName;
use tokio::sync::RwLock;

/// Locks there are.
const LOCKS: usize = 256;

pub(super) struct Order {
    locks: Box<[RwLock<()>]>,
    hash: RandomState,
    /// For what no lock can be found, which does not happen.
    other: RwLock<()>,
}

impl Default for Order {
    fn default() -> Order {
        Order {
            locks: (0..LOCKS).map(|_| RwLock::new(())).collect(),
            hash: RandomState::new(),
            other: RwLock::new(()),
        }
    }
}

impl Order {
    pub(super) fn of(&self, repository: &RepositoryName) -> &RwLock<()> {
        let hash = self.hash.hash_one(repository.as_str());
        let place = usize::try_from(hash % LOCKS as u64).unwrap_or_default();
        self.locks.get(place).unwrap_or(&self.other)
    }
}
