//! Locks that keep notes in the order of their rows, one for all repositories
//! of equal hash and one for all tags of equal hash: that costs a wait now and
//! then and is never wrong.
//!
//! Invariant: whoever holds tags holds their repository before, and takes tags
//! in the order of their locks, so that nobody waits in a circle.

use std::hash::{BuildHasher, Hash, RandomState};

use orlop_oci::RepositoryName;

use super::{Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Locks there are, for repositories and as many for tags.
const LOCKS: usize = 256;

pub(super) struct Order {
    repositories: Box<[RwLock<()>]>,
    tags: Box<[Mutex<()>]>,
    hash: RandomState,
    /// For what no lock can be found, which does not happen.
    other: RwLock<()>,
}

/// Names are being given.
pub(super) struct Giving<'a> {
    _tags: Vec<MutexGuard<'a, ()>>,
    _repository: RwLockReadGuard<'a, ()>,
}

impl Default for Order {
    fn default() -> Order {
        Order {
            repositories: (0..LOCKS).map(|_| RwLock::new(())).collect(),
            tags: (0..LOCKS).map(|_| Mutex::new(())).collect(),
            hash: RandomState::new(),
            other: RwLock::new(()),
        }
    }
}

impl Order {
    /// Held while a note that gives names and its rows are written: alone for
    /// each of these tags, which the last of two may set, and shared with all
    /// else that gives.
    pub(super) async fn give(&self, repository: &RepositoryName, tags: &[String]) -> Giving<'_> {
        let held = self.of(repository).read().await;
        let mut places: Vec<usize> = tags
            .iter()
            .map(|tag| self.place(&(repository.as_str(), tag)))
            .collect();
        places.sort_unstable();
        places.dedup();
        let mut tags = Vec::with_capacity(places.len());
        for lock in places.into_iter().filter_map(|place| self.tags.get(place)) {
            tags.push(lock.lock().await);
        }
        Giving {
            _tags: tags,
            _repository: held,
        }
    }

    /// Held alone while a note that takes names away and its rows are written.
    pub(super) async fn take(&self, repository: &RepositoryName) -> RwLockWriteGuard<'_, ()> {
        self.of(repository).write().await
    }

    /// As [`Order::take`], for two repositories that may be one.
    pub(super) async fn take_both(
        &self,
        one: &RepositoryName,
        other: &RepositoryName,
    ) -> (RwLockWriteGuard<'_, ()>, Option<RwLockWriteGuard<'_, ()>>) {
        let places = (self.place(&one.as_str()), self.place(&other.as_str()));
        let (first, second) = if places.0 <= places.1 {
            (one, other)
        } else {
            (other, one)
        };
        let held = self.take(first).await;
        if places.0 == places.1 {
            return (held, None);
        }
        (held, Some(self.take(second).await))
    }

    fn of(&self, repository: &RepositoryName) -> &RwLock<()> {
        let place = self.place(&repository.as_str());
        self.repositories.get(place).unwrap_or(&self.other)
    }

    fn place(&self, of: &impl Hash) -> usize {
        usize::try_from(self.hash.hash_one(of) % LOCKS as u64).unwrap_or_default()
    }
}
