//! A pause of collection, which an operator begins and ends: kept in the catalog,
//! so that a restart does not end it.

use std::sync::atomic::{AtomicBool, Ordering};

use super::{Gc, Wanted};
use crate::catalog::{CatalogError, GcPause, rfc3339};

/// Whether there is one, for those who look often.
#[derive(Debug, Default)]
pub(super) struct Paused(AtomicBool);

impl Paused {
    pub(super) fn is_on(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    pub(super) fn set(&self, pause: Option<&GcPause>) {
        self.0.store(pause.is_some(), Ordering::Release);
    }
}

impl Gc {
    /// The pause that there is, if there is one.
    ///
    /// # Errors
    /// When it cannot be known.
    pub async fn pause_that_is(&self) -> Result<Option<GcPause>, CatalogError> {
        let pause = self.catalog.gc_state().await?.pause;
        self.paused.set(pause.as_ref());
        Ok(pause)
    }

    /// Lets no collection begin, and one that runs stand still, until
    /// [`Gc::resume`]. A second one changes the reason alone.
    ///
    /// # Errors
    /// When it cannot be kept: then nothing is paused.
    pub async fn hold_up(&self, why: String) -> Result<GcPause, CatalogError> {
        let since = match self.pause_that_is().await? {
            Some(pause) => pause.since,
            None => (self.clock)().max(0),
        };
        let pause = GcPause { since, why };
        self.catalog.pause_gc(Some(pause.clone())).await?;
        self.paused.set(Some(&pause));
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
        let was = self.pause_that_is().await?.is_some();
        if was {
            self.catalog.pause_gc(None).await?;
            tracing::info!("collection of garbage goes on");
        }
        self.paused.set(None);
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
