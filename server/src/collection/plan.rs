//! What a plan names: manifests and repositories whose rows would go, and apart
//! from them manifests that nothing reaches. The newest one is kept in memory,
//! for whoever asked for it.

use std::sync::PoisonError;
use std::time::{Duration, Instant};

use orlop_oci::Digest;

use super::expunged::TOLD;
use super::{Gc, names};
use crate::catalog::{Doomed, DoomedRepository, UntaggedPlace};
use crate::jobs::{Run, Stop};

/// A manifest that no tag, index or subject reaches. Times are milliseconds since
/// 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stray {
    /// What is known of it.
    pub manifest: Doomed,
    /// When it is deleted unless somebody uses it; None: never.
    pub due_at: Option<i64>,
}

/// What a plan names. Lists have their first entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Planned {
    /// Its job.
    pub job: i64,
    /// Deleted repositories that would go.
    pub repositories: Vec<DoomedRepository>,
    /// How many there are.
    pub repository_count: u64,
    /// Deleted manifests that would go, those of such repositories aside.
    pub manifests: Vec<Doomed>,
    /// How many there are.
    pub manifest_count: u64,
    /// Manifests that nothing reaches: those that are due first, by their time.
    pub untagged: Vec<Stray>,
    /// How many there are.
    pub untagged_count: u64,
    /// How many of them the next collection deletes.
    pub untagged_due: u64,
}

impl Gc {
    /// What the newest plan names, if it is that of this job.
    pub fn planned(&self, job: i64) -> Option<Planned> {
        let planned = self.planned.lock().unwrap_or_else(PoisonError::into_inner);
        planned.clone().filter(|planned| planned.job == job)
    }

    /// Looks what a plan names.
    pub(super) async fn name(&self, run: &Run, until: i64, now: i64) -> Result<(), Stop> {
        let (manifest_count, manifests) = self.catalog.doomed(until, TOLD).await.map_err(names)?;
        let repositories = self.catalog.doomed_repositories(until, TOLD).await;
        let (repository_count, repositories) = repositories.map_err(names)?;
        let mut planned = Planned {
            job: run.id(),
            repositories,
            repository_count,
            manifests,
            manifest_count,
            ..Planned::default()
        };
        self.strays(run, now, &mut planned).await?;
        *self.planned.lock().unwrap_or_else(PoisonError::into_inner) = Some(planned);
        Ok(())
    }

    /// Looks for manifests that nothing reaches.
    async fn strays(&self, run: &Run, now: i64, planned: &mut Planned) -> Result<(), Stop> {
        let mut first: Vec<(i64, String, Digest)> = Vec::new();
        let mut place: Option<UntaggedPlace> = None;
        let mut worked = Duration::ZERO;
        loop {
            self.pause(run, worked).await?;
            let began = Instant::now();
            let (found, next) = self.catalog.untagged(place.take()).await.map_err(names)?;
            for (repository, digest, unreached) in found {
                let since = unreached.used_at.max(unreached.floor);
                let time = self.rules.untagged.of(&repository);
                let due_at = time.map_or(i64::MAX, |time| {
                    since.saturating_add(i64::try_from(time.as_millis()).unwrap_or(i64::MAX))
                });
                planned.untagged_count = planned.untagged_count.saturating_add(1);
                let is_due = u64::from(due_at <= now);
                planned.untagged_due = planned.untagged_due.saturating_add(is_due);
                first.push((due_at, repository, digest));
            }
            first.sort();
            first.truncate(TOLD);
            run.alive();
            worked = began.elapsed();
            place = next;
            if place.is_none() {
                break;
            }
        }
        for (due_at, repository, digest) in first {
            self.pause(run, worked).await?;
            let began = Instant::now();
            let weighed = self.catalog.weighed(&repository, &digest).await;
            if let Some(manifest) = weighed.map_err(names)? {
                let due_at = Some(due_at).filter(|at| *at < i64::MAX);
                planned.untagged.push(Stray { manifest, due_at });
            }
            worked = began.elapsed();
        }
        Ok(())
    }
}
