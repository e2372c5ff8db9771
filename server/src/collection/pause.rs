//! A pause of collection, which an operator begins and ends: kept in the catalog,
//! so that a restart does not end it.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::{Mutex, MutexGuard};

use super::{Gc, Wanted};
use crate::catalog::{CatalogError, GcPause, GcState, rfc3339};

/// Whether there is one, for those who look often.
#[derive(Debug, Default)]
pub(super) struct Paused {
    is_on: AtomicBool,
    /// Held from when the row is read or written until `is_on` says the same.
    turn: Mutex<()>,
    /// Held while something is deleted.
    acting: Mutex<()>,
}

impl Paused {
    pub(super) fn is_on(&self) -> bool {
        self.is_on.load(Ordering::Acquire)
    }

    fn set(&self, is_on: bool) {
        self.is_on.store(is_on, Ordering::Release);
    }
}

impl Gc {
    /// The pause that there is, if there is one.
    ///
    /// # Errors
    /// When it cannot be known.
    pub async fn pause_that_is(&self) -> Result<Option<GcPause>, CatalogError> {
        Ok(self.look_at_pause().await?.pause)
    }

    /// What collection knows of itself, and with it whether it is paused.
    pub(super) async fn look_at_pause(&self) -> Result<GcState, CatalogError> {
        let _turn = self.paused.turn.lock().await;
        let state = self.catalog.gc_state().await?;
        self.paused.set(state.pause.is_some());
        Ok(state)
    }

    /// To be held while something is deleted, so that nothing is any more once a
    /// pause was begun. None: nothing is to be deleted now.
    pub(super) async fn acting(&self) -> Option<MutexGuard<'_, ()>> {
        let acting = self.paused.acting.lock().await;
        (!self.stands_still()).then_some(acting)
    }

    /// Lets no collection begin, and one that runs stand still, until
    /// [`Gc::resume`]: on return nothing is being deleted. A second one changes the
    /// reason alone.
    ///
    /// # Errors
    /// When it cannot be kept: then nothing is paused.
    pub async fn hold_up(&self, why: String) -> Result<GcPause, CatalogError> {
        let turn = self.paused.turn.lock().await;
        let since = match self.catalog.gc_state().await?.pause {
            Some(pause) => pause.since,
            None => (self.clock)().max(0),
        };
        let pause = GcPause { since, why };
        self.catalog.pause_gc(Some(pause.clone())).await?;
        self.paused.set(true);
        drop(turn);
        drop(self.paused.acting.lock().await);
        tracing::warn!(
            why = pause.why,
            "collection of garbage is paused until `orlop gc resume`"
        );
        Ok(pause)
    }

    /// Ends a pause. False: there was none.
    ///
    /// # Errors
    /// When it cannot be kept: then it goes on.
    pub async fn resume(&self) -> Result<bool, CatalogError> {
        let _turn = self.paused.turn.lock().await;
        let was = self.catalog.gc_state().await?.pause.is_some();
        if was {
            self.catalog.pause_gc(None).await?;
            tracing::info!("collection of garbage goes on");
        }
        self.paused.set(false);
        Ok(was)
    }

    /// Whether a job with these parameters would do anything.
    ///
    /// # Errors
    /// Why not.
    pub async fn may_start(&self, params: Option<&str>) -> Result<(), String> {
        let wanted: Wanted = serde_json::from_str(params.unwrap_or("{}"))
            .map_err(|error| format!("its parameters are not known: {error}"))?;
        if wanted.plan {
            return Ok(());
        }
        match self.pause_that_is().await {
            Ok(None) => Ok(()),
            Ok(Some(pause)) => Err(format!(
                "collection is paused since {}: {}; `orlop gc resume` ends that",
                rfc3339(pause.since),
                pause.why
            )),
            Err(error) => Err(error.to_string()),
        }
    }
}
