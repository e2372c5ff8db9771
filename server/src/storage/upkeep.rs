//! What the storage does by itself: telling the store how far the catalog is,
//! copies of the catalog, the end of uploads that nobody goes on with, pulls,
//! and jobs.
//!
//! Invariants: each is a task of its own, so that none holds up another; one
//! that panics is started again; all have ended before anything is closed,
//! except one that hangs, which is broken off. What a loop has to remember is
//! the storage's, and not the loop's, which may die.

use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use orlop_engine::CatalogMatch;
use tokio::task::JoinSet;
use tokio::time::{Interval, MissedTickBehavior, interval, timeout};

use super::{CATALOG_COPY, Copied, Marked, StartError, Storage, ballast, remove};
use crate::registry::Maintenance;
use crate::supervisor::{Supervisor, blocking};

/// How often the catalog is copied into the store, if it changed.
const COPY_EVERY: Duration = Duration::from_secs(15 * 60);
/// A copy younger than this is not made again when the storage is closed.
pub(super) const COPY_YOUNG: Duration = Duration::from_secs(60);
/// How often it is looked for uploads that nobody goes on with.
const EXPIRE_EVERY: Duration = Duration::from_secs(5 * 60);
/// How often the store is told how far the catalog is, if it went on.
pub(super) const MARK_EVERY: Duration = Duration::from_secs(1);
/// How long it waits for the end of upkeep that it broke off.
const ABORT_TIME: Duration = Duration::from_secs(1);

/// How far the end of upkeep is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    Open,
    /// What is under way is finished, nothing begins.
    Ending,
    /// A copy under way is not finished either.
    Over,
    /// Nothing is waited for any more: what hangs is broken off.
    Broken,
}

impl Storage {
    /// Tells the store how far the catalog is, copies the catalog into it, ends
    /// uploads that nobody goes on with, writes pulls down, and runs jobs, again
    /// and again until [`Storage::close`]. Each is a task of its own, so that none
    /// holds up another, and is started again when it panics.
    pub async fn watch(self: &Arc<Self>, maintenance: &Maintenance, supervisor: &Supervisor) {
        let _upkeep = self.upkeep.lock().await;
        self.gc.obey(maintenance);
        let mut tasks = JoinSet::new();
        tasks.spawn(self.keep("marks", supervisor, |storage| async move {
            storage.marks().await
        }));
        tasks.spawn(self.keep("copies", supervisor, |storage| async move {
            storage.copies().await
        }));
        let maintenance = maintenance.clone();
        tasks.spawn(self.keep("expiry", supervisor, move |storage| {
            let maintenance = maintenance.clone();
            async move { storage.expiry(&maintenance).await }
        }));
        tasks.spawn(self.keep("pulls", supervisor, |storage| async move {
            let ending = storage.reached(Stage::Ending);
            storage.pulls.run(&storage.catalog, ending).await;
        }));
        if let Some(jobs) = self.jobs() {
            let supervisor = supervisor.clone();
            tasks.spawn(async move { jobs.run(&supervisor).await });
        }
        let all = async { while tasks.join_next().await.is_some() {} };
        tokio::select! {
            () = all => {}
            () = self.reached(Stage::Broken) => tasks.shutdown().await,
        }
    }

    /// Runs one loop of the upkeep, and starts it again when it panics.
    fn keep<T>(
        self: &Arc<Self>,
        name: &'static str,
        supervisor: &Supervisor,
        run: impl Fn(Arc<Storage>) -> T + Send + Sync + 'static,
    ) -> impl Future<Output = ()> + Send + 'static
    where
        T: Future<Output = ()> + Send + 'static,
    {
        let (storage, supervisor) = (Arc::clone(self), supervisor.clone());
        async move {
            let ending = storage.reached(Stage::Ending);
            let start = || run(Arc::clone(&storage));
            supervisor.keep(name, ending, start).await;
        }
    }

    /// Ready when the end of upkeep is so far.
    pub(super) async fn reached(&self, stage: Stage) {
        let mut stages = self.stage.subscribe();
        let _ = stages.wait_for(|now| *now >= stage).await;
    }

    /// Waits for the next time. False: there is none.
    async fn goes_on(&self, ticks: &mut Interval) -> bool {
        tokio::select! {
            biased;
            () = self.reached(Stage::Ending) => false,
            _ = ticks.tick() => true,
        }
    }

    async fn marks(&self) {
        let mut ticks = every(MARK_EVERY);
        while self.goes_on(&mut ticks).await {
            self.mark().await;
        }
    }

    async fn copies(&self) {
        let mut ticks = every(COPY_EVERY);
        ticks.reset();
        while self.goes_on(&mut ticks).await {
            tokio::select! {
                biased;
                () = self.reached(Stage::Over) => {}
                () = self.copy_catalog(Duration::ZERO) => {}
            }
        }
    }

    pub(super) async fn expiry(&self, maintenance: &Maintenance) {
        let mut ticks = every(EXPIRE_EVERY);
        while self.goes_on(&mut ticks).await {
            let folder = self.folder.clone();
            blocking(move || ballast::keep(&folder)).await;
            if !self.may_expire(maintenance) {
                continue;
            }
            // There may be many.
            tokio::select! {
                biased;
                () = self.reached(Stage::Ending) => {}
                () = self.expire_uploads() => {}
            }
        }
    }

    /// Whether clients could go on with their uploads for as long as one waits.
    pub(super) fn may_expire(&self, maintenance: &Maintenance) -> bool {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        if maintenance.read_only().is_some() {
            *refused = Some(Instant::now());
        }
        refused.is_none_or(|at| at.elapsed() > self.upload_expiry)
    }

    /// Ends the uploads that nobody went on with. A failure is logged and tried
    /// again next time.
    async fn expire_uploads(&self) {
        match self.store.upload_expire(self.upload_expiry).await {
            Ok(0) => {}
            Ok(uploads) => tracing::info!(uploads, "uploads that nobody went on with were ended"),
            Err(error) => tracing::warn!(%error, "uploads could not be ended; trying again later"),
        }
    }

    /// Tells the store how far the catalog is, if it went on since.
    pub(super) async fn mark(&self) {
        let mut marked = self.marked.lock().await;
        let (id, sequence) = self.catalog();
        if self.unpaired.is_some() || sequence == marked.sequence {
            return;
        }
        match self.store.catalog_seen(id, sequence).await {
            Ok(found) => {
                let is_failing = false;
                *marked = Marked {
                    sequence,
                    is_failing,
                };
                if found != CatalogMatch::Same {
                    tracing::error!(?found, sequence, "the store was told of another catalog");
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut marked.is_failing, true) {
                    tracing::warn!(%error, sequence, "the store was not told how far the catalog is; trying again and again");
                }
            }
        }
    }

    /// Puts a copy of the catalog into the store if it changed since the last
    /// one and that is at least this old. A failure is logged and tried again
    /// next time: the catalog itself is not touched by it.
    pub(super) async fn copy_catalog(&self, age: Duration) {
        let mut copied = self.copied.lock().await;
        let is_young = copied.at.is_some_and(|at| at.elapsed() < age);
        let is_same = copied.sequence == self.catalog.sequence();
        if self.unpaired.is_some() || is_young || is_same {
            return;
        }
        match self.copy().await {
            Ok(sequence) => {
                let at = Some(Instant::now());
                *copied = Copied { sequence, at };
                tracing::debug!(sequence, "the catalog was copied into the store");
            }
            Err(error) => {
                tracing::warn!(%error, "the catalog could not be copied into the store; trying again later");
            }
        }
    }

    /// Copies the catalog and says at which sequence.
    async fn copy(&self) -> Result<u64, StartError> {
        let copy = self.folder.join(CATALOG_COPY);
        remove(&copy);
        let copied = self.copy_by_way_of(&copy).await;
        remove(&copy);
        copied
    }

    async fn copy_by_way_of(&self, copy: &Path) -> Result<u64, StartError> {
        let sequence = self.catalog.copy_to(copy).await?;
        self.store
            .catalog_copy(copy, self.catalog.id(), sequence)
            .await?;
        Ok(sequence)
    }

    /// Waits for the end of upkeep, but not for ever: the last pulls are to be
    /// written whatever hangs.
    pub(super) async fn end_upkeep(&self) {
        if timeout(self.stop_time, self.upkeep.lock()).await.is_ok() {
            return;
        }
        let seconds = self.stop_time.as_secs();
        tracing::error!(
            seconds,
            "what the server does by itself did not end in time and is broken off; nothing that was acknowledged is lost by that"
        );
        self.stage.send_replace(Stage::Broken);
        if timeout(ABORT_TIME, self.upkeep.lock()).await.is_err() {
            tracing::error!("a part of it blocks a thread and goes on during the stop");
        }
    }
}

/// So often, and the first time now. What was missed is not made up for.
fn every(time: Duration) -> Interval {
    let mut ticks = interval(time);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}
