//! Blobs that were purged by their digest: they go before their leases end.
//!
//! Invariant: a lease that somebody got after the purge counts. Which lives are
//! to go at once the catalog knows, and forgets when one of them is linked again.

use std::collections::HashSet;
use std::sync::PoisonError;

use orlop_engine::Garbage;
use orlop_oci::Digest;

use super::{Gc, failed, names};
use crate::jobs::Stop;

impl Gc {
    /// Ends the leases of what is to go at once.
    pub(super) async fn revoke(&self) -> Result<(), Stop> {
        let mut all = HashSet::new();
        let mut after = 0;
        loop {
            let lives = self.catalog.at_once(after).await.map_err(names)?;
            let Some((_, last)) = lives.last().copied() else {
                break;
            };
            after = last;
            let (lives, _) = self.alive(lives).await?;
            let digests: Vec<Digest> = lives.iter().map(|(digest, _)| *digest).collect();
            self.store.revoke(&digests).map_err(failed)?;
            // Somebody may have pushed it again meanwhile, and was told that it is
            // here: nothing has died yet, so that the lease is as good as before.
            let births: Vec<u64> = lives.iter().map(|(_, birth)| *birth).collect();
            let still = self.catalog.still_at_once(&births).await;
            let still = still.unwrap_or_else(|error| {
                tracing::warn!(%error, "what was purged by its digest keeps its leases for now");
                HashSet::new()
            });
            for (digest, _) in lives.iter().filter(|(_, birth)| !still.contains(birth)) {
                match self.store.stat(digest) {
                    Ok(_) | Err(orlop_engine::Error::NotFound { .. }) => {}
                    Err(error) => return Err(failed(error)),
                }
            }
            all.extend(still);
        }
        *self.at_once.lock().unwrap_or_else(PoisonError::into_inner) = all;
        Ok(())
    }

    /// Those of these lives that are here, and of how many that cannot be told. Of
    /// the others it is remembered no more that they are to go.
    async fn alive(&self, lives: Vec<(Digest, u64)>) -> Result<(Vec<(Digest, u64)>, u64), Stop> {
        let (mut here, mut ended) = (Vec::with_capacity(lives.len()), Vec::new());
        let mut unsure = 0u64;
        for (digest, birth) in lives {
            match self.store.look(&digest) {
                Ok(Some(stat)) if stat.birth == birth => here.push((digest, birth)),
                Ok(_) => ended.push(birth),
                Err(error) => {
                    tracing::warn!(%digest, %error, "whether a blob that was purged is still here cannot be told");
                    unsure = unsure.saturating_add(1);
                }
            }
        }
        if !ended.is_empty() {
            self.catalog.end_at_once(ended).await.map_err(names)?;
        }
        Ok((here, unsure))
    }

    /// Whether a blob is to go before its leases end.
    pub(super) fn is_at_once(&self, blob: &Garbage) -> bool {
        let at_once = self.at_once.lock().unwrap_or_else(PoisonError::into_inner);
        at_once.contains(&blob.birth)
    }

    /// Of these blobs that died, how many were to go at once.
    pub(super) fn went_at_once(&self, dead: &[Garbage]) -> u64 {
        let mut at_once = self.at_once.lock().unwrap_or_else(PoisonError::into_inner);
        let of_them = dead.iter().filter(|blob| at_once.remove(&blob.birth));
        of_them.count() as u64
    }

    /// How many blobs were to go at once and are still here, since they are in
    /// use. What is not here is remembered no more.
    pub(super) async fn still_here(&self) -> Result<u64, Stop> {
        let mut here = 0u64;
        let mut after = 0;
        loop {
            let lives = self.catalog.at_once(after).await.map_err(names)?;
            let Some((_, last)) = lives.last().copied() else {
                return Ok(here);
            };
            after = last;
            let (of_them, unsure) = self.alive(lives).await?;
            here = here.saturating_add(of_them.len() as u64);
            here = here.saturating_add(unsure);
        }
    }
}
