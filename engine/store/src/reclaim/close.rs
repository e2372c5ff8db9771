//! Closing segments that are open for extents, so that what died in them can
//! come back before they are full.
//!
//! Invariant: each one that is closed had so many dead bytes that there are at
//! most [`OPEN_SHARE`] times as many segments as full ones would be, unless an
//! operator asked for all room.

use orlop_format::location::SegmentId;

use super::Reclaimer;
use crate::config::OPEN_SHARE;
use crate::error::{Error, Result};
use crate::recycle::seal;
use crate::segment::Intake;

impl Reclaimer {
    /// Closes and seals what is worth it. What was allocated ahead comes back
    /// too.
    pub(super) async fn close_open(&self) -> Result<()> {
        let mut is_any = false;
        for intake in Intake::ALL {
            // In this order: what was written before is in the row if nobody
            // holds the segment now.
            let Some((id, frames)) = self.core.segments.taking(intake).await else {
                continue;
            };
            let is_written = self.core.segments.holds.is_written(&id);
            if self.is_worth(&id, frames, is_written)? {
                self.core.segments.close(intake, &id).await;
                is_any = true;
            }
        }
        if !is_any {
            return Ok(());
        }
        match seal(&self.core).await {
            // It waits to be sealed, and is closed all the same.
            Err(error @ Error::Full { .. }) => {
                tracing::warn!(%error, "a segment could not be sealed yet: what is dead in it waits");
                Ok(())
            }
            done => done,
        }
    }

    fn is_worth(&self, id: &SegmentId, frames: u64, is_written: bool) -> Result<bool> {
        let live = self.core.segment_row(id)?.map_or(0, |row| row.live);
        let dead = frames.saturating_sub(live);
        if self.is_thorough {
            return Ok(dead > 0);
        }
        let enough = self.core.segments.size() / OPEN_SHARE;
        // What uploads write looks dead until the log knows it.
        Ok(!is_written && dead >= enough.max(1))
    }
}
