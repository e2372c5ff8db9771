//! Manifests that a rule says have to go: those that belonged to something that
//! was purged, and those that nobody used for long.

use std::time::{Duration, Instant};

use orlop_oci::{Digest, RepositoryName};

use super::{Gc, Outcome, names};
use crate::catalog::{Unreached, UntaggedPlace};
use crate::jobs::{Run, Stop};
use crate::registry::Fault;

impl Gc {
    /// Deletes manifests that belonged to something that is gone, and those
    /// that nobody used for long.
    pub(super) async fn retire(&self, run: &Run, outcome: &mut Outcome) -> Result<(), Stop> {
        loop {
            self.go_on(run, Duration::ZERO).await?;
            let orphans = self.catalog.orphans().await.map_err(names)?;
            if orphans.is_empty() {
                break;
            }
            let mut settled = Vec::new();
            for (repository, digest, unreached) in orphans {
                let is_due = unreached.is_some_and(|unreached| is_orphan(&unreached));
                if !is_due
                    || !self
                        .delete(run, &repository, &digest, is_orphan, outcome)
                        .await?
                {
                    settled.push((repository, digest));
                }
            }
            self.catalog.settle(settled).await.map_err(names)?;
        }
        let Some(untagged) = self.rules.untagged else {
            return Ok(());
        };
        let until = self.until(untagged);
        let is_due = move |unreached: &Unreached| unreached.used_at <= until;
        let mut place: Option<UntaggedPlace> = None;
        let mut worked = Duration::ZERO;
        loop {
            self.go_on(run, worked).await?;
            let began = Instant::now();
            let (found, next) = self.catalog.untagged(place.take()).await.map_err(names)?;
            for (repository, digest, unreached) in found {
                if is_due(&unreached) {
                    self.delete(run, &repository, &digest, is_due, outcome)
                        .await?;
                }
            }
            run.alive();
            worked = began.elapsed();
            place = next;
            if place.is_none() {
                return Ok(());
            }
        }
    }

    /// Deletes a manifest, if that is still right.
    async fn delete(
        &self,
        run: &Run,
        repository: &str,
        digest: &Digest,
        is_due: impl Fn(&Unreached) -> bool,
        outcome: &mut Outcome,
    ) -> Result<bool, Stop> {
        self.go_on(run, Duration::ZERO).await?;
        let Ok(name) = RepositoryName::parse(repository) else {
            return Ok(false);
        };
        let still = async {
            let unreached = self.catalog.unreached(repository, digest).await;
            let unreached = unreached.map_err(Fault::from)?;
            Ok(unreached.is_some_and(|unreached| is_due(&unreached)))
        };
        let is_deleted = self
            .registry
            .retire(&name, digest, still)
            .await
            .map_err(|error| Stop::Failed(error.to_string()))?;
        if is_deleted {
            outcome.retired = outcome.retired.saturating_add(1);
            tracing::info!(repository, %digest, "deleted a manifest that nothing reaches");
        }
        Ok(is_deleted)
    }
}

/// Whether it went with what it belonged to: nobody used it since.
fn is_orphan(unreached: &Unreached) -> bool {
    unreached
        .orphaned_at
        .is_some_and(|orphaned_at| unreached.used_at <= orphaned_at)
}
