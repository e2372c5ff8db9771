//! Pulls, from memory into the catalog.
//!
//! Invariants: a pull is written within seconds, never by the request that
//! made it; a count that may be lost raises the floor below which nothing
//! counts as not pulled: after a start that no clean stop came before, after
//! pulls were dropped, after a write that did not come to its end, and after a
//! release that counts none. A catalog that is not the store's is not written
//! to.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::sleep;

use crate::catalog::{Catalog, CatalogError, PULLS_MAX, PullOf};
use crate::metrics::Count;
use crate::registry::pulls::{self, Pulls};

/// How often pulls are written.
const WRITE_EVERY: Duration = Duration::from_secs(5);

/// Writes pulls down.
pub(super) struct PullWriter {
    pulls: Arc<Pulls>,
    /// The number of this opening of the store.
    opening: u64,
    /// Whether the catalog is the store's.
    may_write: bool,
    written: Count,
    /// Whether the last write failed, which is logged once.
    is_failing: AtomicBool,
    /// Whether a write is under way, or did not come to its end.
    is_writing: AtomicBool,
    /// Held while they are written.
    turn: tokio::sync::Mutex<()>,
}

/// What became of counts of pulls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// Pulls that are in the catalog.
    pub written: u64,
    /// Pulls that were not counted.
    pub dropped: u64,
}

impl PullWriter {
    /// Begins to count in this opening of the store. If the one before did not
    /// end with all of its pulls written, the catalog is told.
    pub(super) async fn begin(
        catalog: &Catalog,
        opening: u64,
        may_write: bool,
    ) -> Result<PullWriter, CatalogError> {
        let writer = PullWriter {
            pulls: Arc::default(),
            opening,
            may_write,
            written: Count::default(),
            is_failing: AtomicBool::new(false),
            is_writing: AtomicBool::new(false),
            turn: tokio::sync::Mutex::default(),
        };
        let through = catalog.pulls_through().await?;
        let is_gapless = through.is_some() && through == opening.checked_sub(1);
        // A catalog without a change has nothing that could have been pulled.
        if !is_gapless && catalog.sequence() > 0 {
            writer.pulls.set_lost();
            writer.write(catalog).await;
        }
        Ok(writer)
    }

    /// Where pulls are counted.
    pub(super) fn pulls(&self) -> Arc<Pulls> {
        Arc::clone(&self.pulls)
    }

    /// The catalog is the store's now, and what it did not count is lost.
    pub(super) fn adopt(&mut self) {
        self.may_write = true;
        self.pulls.set_lost();
    }

    pub(super) fn written(&self) -> Written {
        Written {
            written: self.written.get(),
            dropped: self.pulls.dropped(),
        }
    }

    /// Writes again and again until the end; after a failure not before the
    /// usual time, how many there may be. What is being written is finished.
    pub(super) async fn run(&self, catalog: &Catalog, ending: impl Future<Output = ()>) {
        let mut ending = pin!(ending);
        let mut is_well = true;
        loop {
            tokio::select! {
                biased;
                () = &mut ending => return,
                () = sleep(WRITE_EVERY) => {}
                () = self.pulls.many(), if is_well => {}
            }
            is_well = self.write(catalog).await;
        }
    }

    /// Writes the last ones, and that they were.
    pub(super) async fn end(&self, catalog: &Catalog) {
        if self.write(catalog).await
            && let Err(error) = catalog.end_pulls(self.opening).await
        {
            tracing::warn!(%error, "the next start counts everything as pulled");
        }
    }

    /// Writes what was counted. What fails is tried again next time. True when
    /// all is written.
    pub(super) async fn write(&self, catalog: &Catalog) -> bool {
        let _turn = self.turn.lock().await;
        // One that panicked, or was dropped, took pulls with it.
        if self.is_writing.swap(true, Ordering::Relaxed) {
            self.pulls.set_lost();
        }
        let is_written = self.write_all(catalog).await;
        self.is_writing.store(false, Ordering::Relaxed);
        is_written
    }

    async fn write_all(&self, catalog: &Catalog) -> bool {
        let mut pulls = self.pulls.take();
        if !self.may_write {
            return false;
        }
        let lost = self.pulls.take_lost();
        if lost && let Err(error) = catalog.lost_pulls(pulls::now()).await {
            self.pulls.set_lost();
            self.pulls.put_back(pulls);
            self.failed(&error);
            return false;
        }
        while !pulls.is_empty() {
            let rest = pulls.split_off(pulls.len().min(PULLS_MAX));
            // A pull by tag is among those of its manifest.
            let manifests = pulls
                .iter()
                .filter(|pull| matches!(pull.of, PullOf::Manifest(_)));
            let count = manifests.fold(0_u64, |sum, pull| sum.saturating_add(pull.count));
            if let Err(error) = catalog.add_pulls(pulls.clone()).await {
                self.failed(&error);
                self.pulls.put_back(pulls);
                self.pulls.put_back(rest);
                return false;
            }
            self.written.add(count);
            pulls = rest;
        }
        self.is_failing.store(false, Ordering::Relaxed);
        true
    }

    fn failed(&self, error: &CatalogError) {
        if !self.is_failing.swap(true, Ordering::Relaxed) {
            tracing::warn!(%error, "counts of pulls could not be written into the catalog; trying again and again");
        }
    }
}
