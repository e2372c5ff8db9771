//! Manifests that a rule says have to go: those that belonged to something that
//! was purged, and those that nobody used for long.

use std::sync::{MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use orlop_oci::{Digest, RepositoryName};
use tokio::time::sleep;

use super::limit::Limit;
use super::skips::{FAILURES_MAX, Skips};
use super::{Gc, LOOK, Outcome, before, names};
use crate::catalog::{Unreached, UntaggedPlace};
use crate::jobs::{Run, Stop};
use crate::registry::{Alone, Error, Fault, Subject};

/// How often all manifests are looked at, if anything untagged is to go.
const EVERY: Duration = Duration::from_secs(3600);
/// Marks of orphans that one change of the catalog clears.
const SETTLED: usize = 128;

impl Gc {
    /// Deletes manifests that belonged to something that is gone, and those
    /// that nobody used for long.
    pub(super) async fn retire(
        &self,
        run: &Run,
        now: i64,
        limit: Limit,
        outcome: &mut Outcome,
    ) -> Result<(), Stop> {
        let until = before(now, self.rules.undelete_window);
        self.orphans(run, until, limit, outcome).await?;
        let Some(shortest) = self.rules.untagged.shortest() else {
            return Ok(());
        };
        // All manifests are looked at, which is not done each time.
        let last = self.looked().ended;
        if last.is_some_and(|at| at.elapsed() < EVERY.min(shortest / 10)) {
            return Ok(());
        }
        self.untagged(run, now, limit, outcome).await
    }

    fn looked(&self) -> MutexGuard<'_, Looked> {
        self.looked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn orphans(
        &self,
        run: &Run,
        until: i64,
        limit: Limit,
        outcome: &mut Outcome,
    ) -> Result<(), Stop> {
        let mut part = limit.rows();
        let mut place: Option<UntaggedPlace> = None;
        let mut worked = Duration::ZERO;
        loop {
            self.go_on(run, worked).await?;
            if !part.goes_on() {
                outcome.cut = true;
                return Ok(());
            }
            let began = Instant::now();
            let (orphans, next) = self.catalog.orphans(place.take()).await.map_err(names)?;
            worked = began.elapsed();
            let mut settled = Vec::new();
            for (repository, digest, unreached) in orphans {
                let is_due = move |of: &Unreached| orphan(of, until) == Orphan::Due;
                match unreached.as_ref().map(|of| orphan(of, until)) {
                    Some(Orphan::Due) => {
                        self.delete(run, &repository, &digest, is_due, outcome)
                            .await?;
                    }
                    Some(Orphan::Doubtful) => {}
                    Some(Orphan::Used) | None => settled.push((repository, digest)),
                }
            }
            for part in settled.chunks(SETTLED) {
                let began = Instant::now();
                self.catalog.settle(part.to_vec()).await.map_err(names)?;
                self.pause(run, began.elapsed()).await?;
            }
            place = next;
            if place.is_none() {
                return Ok(());
            }
        }
    }

    /// Goes on where the last one was when its time was up.
    async fn untagged(
        &self,
        run: &Run,
        now: i64,
        limit: Limit,
        outcome: &mut Outcome,
    ) -> Result<(), Stop> {
        let mut part = limit.rows();
        let mut place = self.looked().place.take();
        let mut worked = Duration::ZERO;
        loop {
            self.go_on(run, worked).await?;
            if !part.goes_on() {
                self.looked().place = place;
                outcome.cut = true;
                return Ok(());
            }
            let began = Instant::now();
            let (found, next) = self.catalog.untagged(place.take()).await.map_err(names)?;
            for (repository, digest, unreached) in found {
                let Some(time) = self.rules.untagged.of(&repository) else {
                    continue;
                };
                let until = before(now, time);
                let is_due = move |of: &Unreached| of.used_at.max(of.floor) <= until;
                if is_due(&unreached) {
                    self.delete(run, &repository, &digest, is_due, outcome)
                        .await?;
                }
            }
            run.alive();
            worked = began.elapsed();
            place = next;
            if place.is_none() {
                self.looked().ended = Some(Instant::now());
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
    ) -> Result<(), Stop> {
        let Ok(name) = RepositoryName::parse(repository) else {
            tracing::warn!(
                repository,
                "the catalog has a repository whose name is none"
            );
            return Ok(());
        };
        let mut began = Instant::now();
        let done = loop {
            self.go_on(run, Duration::ZERO).await?;
            let alone = match self.alone(run, &name).await? {
                Ok(alone) => alone,
                Err(error) => break Err(error),
            };
            // After that, so that a pause does not wait for who has the name.
            let Some(_acting) = self.acting().await else {
                continue;
            };
            began = Instant::now();
            let unreached = match self.catalog.unreached(repository, digest).await {
                Ok(unreached) => unreached,
                Err(error) => break Err(Fault::from(error).into()),
            };
            break match unreached.is_some_and(|unreached| is_due(&unreached)) {
                true => alone.delete(digest).await,
                false => Ok(false),
            };
        };
        run.alive();
        match done {
            Ok(true) => {
                outcome.retired = outcome.retired.saturating_add(1);
                tracing::info!(repository, %digest, "deleted a manifest that nothing reaches");
            }
            Ok(false) => {}
            // One manifest holds up no other.
            Err(error) => {
                outcome.skipped = outcome.skipped.saturating_add(1);
                Skips::default().add(run, &[*digest], &error)?;
                if outcome.skipped > FAILURES_MAX {
                    return Err(Stop::Failed(error.to_string()));
                }
            }
        }
        self.pause(run, began.elapsed()).await
    }

    /// Waits until nobody else changes names of a repository: a purge may for
    /// minutes. Ends with the job.
    async fn alone<'a>(
        &'a self,
        run: &Run,
        name: &'a RepositoryName,
    ) -> Result<Result<Alone<'a>, Error>, Stop> {
        let mut alone = std::pin::pin!(self.registry.alone(Subject::Operator, name));
        loop {
            run.alive();
            tokio::select! {
                biased;
                why = run.ended() => return Err(why),
                alone = &mut alone => return Ok(alone),
                () = sleep(LOOK) => {}
            }
        }
    }
}

/// How far it was looked for untagged manifests.
#[derive(Debug, Default)]
pub(super) struct Looked {
    /// When it came to the end of all last.
    ended: Option<Instant>,
    /// Where it goes on, if its time was up before.
    place: Option<UntaggedPlace>,
}

/// What is known of a manifest that belonged to something that is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Orphan {
    /// Nobody used it since.
    Due,
    /// It is not known yet that nobody did.
    Doubtful,
    /// Somebody did: it has a life of its own.
    Used,
}

/// Where pulls were lost, it may have been used until then: one more window is
/// waited from there.
fn orphan(unreached: &Unreached, until: i64) -> Orphan {
    match unreached.orphaned_at {
        Some(at) if unreached.used_at > at => Orphan::Used,
        Some(at) if unreached.floor <= at.max(until) => Orphan::Due,
        Some(_) => Orphan::Doubtful,
        None => Orphan::Used,
    }
}
