//! The model of the catalog: names in memory, as SQLite keeps them.
//!
//! Invariant: changes become durable in the order in which they were begun. At
//! a crash all that were acknowledged are kept, and of those under way a prefix
//! that the seed chooses.
//! Refuses to know: whether the blobs it names are there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use orlop_engine::{Digest, Runtime as _};

use crate::random::Random;
use crate::runtime::Virtual;

/// Time that a transaction takes at most.
const COMMIT: u64 = 3;

/// A change of names.
#[derive(Debug, Clone)]
pub enum Change {
    /// A repository gets a blob.
    Link {
        repository: String,
        digest: Digest,
        size: u64,
    },
    /// A repository loses a blob.
    Unlink { repository: String, digest: Digest },
    /// A repository gets a manifest, with a tag.
    Manifest {
        repository: String,
        digest: Digest,
        size: u64,
        blobs: Vec<Digest>,
        tag: String,
    },
    /// A repository loses a tag.
    Untag { repository: String, tag: String },
    /// A repository loses a manifest and its tags.
    Delete { repository: String, digest: Digest },
}

/// The names after some changes.
#[derive(Debug, Clone, Default)]
pub struct Rows {
    /// Blobs of repositories, with their sizes.
    pub links: BTreeMap<(String, Digest), u64>,
    /// Manifests of repositories: size, and what they name.
    pub manifests: BTreeMap<(String, Digest), (u64, Vec<Digest>)>,
    /// Tags of repositories.
    pub tags: BTreeMap<(String, String), Digest>,
}

impl Rows {
    /// Applies a change.
    pub fn apply(&mut self, change: &Change) {
        match change.clone() {
            Change::Link {
                repository,
                digest,
                size,
            } => {
                self.links.insert((repository, digest), size);
            }
            Change::Unlink { repository, digest } => {
                self.links.remove(&(repository, digest));
            }
            Change::Manifest {
                repository,
                digest,
                size,
                blobs,
                tag,
            } => {
                self.tags.insert((repository.clone(), tag), digest);
                self.manifests.insert((repository, digest), (size, blobs));
            }
            Change::Untag { repository, tag } => {
                self.tags.remove(&(repository, tag));
            }
            Change::Delete { repository, digest } => {
                self.tags
                    .retain(|(of, _), to| *of != repository || *to != digest);
                self.manifests.remove(&(repository, digest));
            }
        }
    }

    /// Every digest that a name points to, once.
    #[must_use]
    pub fn digests(&self) -> BTreeSet<Digest> {
        let links = self.links.keys().map(|(_, digest)| *digest);
        let manifests = self.manifests.iter();
        let manifests =
            manifests.flat_map(|((_, digest), (_, blobs))| blobs.iter().copied().chain([*digest]));
        links
            .chain(manifests)
            .chain(self.tags.values().copied())
            .collect()
    }
}

#[derive(Default)]
struct State {
    changes: Vec<Change>,
    acknowledged: usize,
}

/// The catalog.
pub struct Catalog {
    runtime: Arc<Virtual>,
    state: Mutex<State>,
    random: Mutex<Random>,
}

impl Catalog {
    /// An empty one.
    #[must_use]
    pub fn new(runtime: Arc<Virtual>, seed: u64) -> Catalog {
        Catalog {
            runtime,
            state: Mutex::default(),
            random: Mutex::new(Random::new(seed)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Carries a change out. Durable on return; while it lasts it may be durable
    /// already or not.
    pub async fn commit(&self, change: Change) {
        let number = {
            let mut state = self.lock();
            state.changes.push(change);
            state.changes.len()
        };
        let time = self
            .random
            .lock()
            .map_or(0, |mut random| random.below(COMMIT));
        self.runtime.sleep(Duration::from_millis(time)).await;
        let mut state = self.lock();
        state.acknowledged = state.acknowledged.max(number);
    }

    /// How many changes were acknowledged, and how many were begun.
    #[must_use]
    pub fn mark(&self) -> (usize, usize) {
        let state = self.lock();
        (state.acknowledged, state.changes.len())
    }

    /// The names after so many changes.
    #[must_use]
    pub fn rows(&self, count: usize) -> Rows {
        let mut rows = Rows::default();
        self.lock()
            .changes
            .iter()
            .take(count)
            .for_each(|change| rows.apply(change));
        rows
    }
}
