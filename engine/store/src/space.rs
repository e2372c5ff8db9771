//! Room on the file system: who may use what is left.
//!
//! Pushes are refused below the reserve; deletes, collection and the journal may
//! use it, and moves that give back more than they take a part of it. The answer is
//! at most a second or [`RECHECK`] bytes old.

use std::sync::Arc;
use std::time::Duration;

use orlop_disk::Disk;

use crate::error::{Error, Result};
use crate::layout::Layout;
use crate::sync::{Mutex, MutexGuard};

/// Bytes admitted after which the file system is asked again.
const RECHECK: u64 = 64 * 1024 * 1024;
/// Age after which the file system is asked again.
const MAX_AGE: Duration = Duration::from_secs(1);
/// The default reserve: this many bytes or 2 %, whichever is more.
const DEFAULT_RESERVE: u64 = 1024 * 1024 * 1024;

/// What gives back more than it takes may use one in so many bytes of the reserve:
/// the rest stays with deletes and the journal, also where nothing comes back.
const LOAN_SHARE: u64 = 2;

/// Who asks for room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Claim {
    /// Who keeps it.
    Keeps,
    /// Who gives back more than it takes, a little later.
    Returns,
}

impl Claim {
    /// What is not for this one.
    fn kept_back(self, reserve: u64) -> u64 {
        match self {
            Claim::Keeps => reserve,
            Claim::Returns => reserve.saturating_sub(reserve / LOAN_SHARE),
        }
    }
}

/// What is known of the room.
pub(crate) struct Room {
    disk: Arc<dyn Disk>,
    layout: Layout,
    reserve: Option<u64>,
    state: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    asked: Option<Duration>,
    /// How often an answer came: one that was overtaken by another is dropped.
    answers: u64,
    available: u64,
    reserve: u64,
    admitted: u64,
}

impl Known {
    fn is_stale(&self, now: Duration) -> bool {
        self.admitted >= RECHECK
            || self
                .asked
                .is_none_or(|asked| now.saturating_sub(asked) >= MAX_AGE)
    }
}

impl Room {
    pub(crate) fn new(disk: Arc<dyn Disk>, layout: Layout, reserve: Option<u64>) -> Self {
        Self {
            disk,
            layout,
            reserve,
            state: Mutex::default(),
        }
    }

    /// Bytes that are available and those kept in reserve, as they were asked
    /// for last.
    pub(crate) fn known(&self) -> (u64, u64) {
        let known = self.state.lock();
        (known.available, known.reserve)
    }

    /// Room came back: who asks next is told of it.
    pub(crate) fn came_back(&self) {
        self.state.lock().asked = None;
    }

    /// Whether `bytes` are there for this one.
    pub(crate) fn has(&self, bytes: u64, claim: Claim, now: Duration) -> Result<bool> {
        let mut known = self.look(now)?;
        let kept = claim
            .kept_back(known.reserve)
            .saturating_add(known.admitted);
        let has = known.available >= kept.saturating_add(bytes);
        if !has {
            known.asked = None;
        }
        Ok(has)
    }

    /// Whether a push or move of `bytes` may go on.
    pub(crate) fn admit(&self, bytes: u64, claim: Claim, now: Duration) -> Result<()> {
        let mut known = self.look(now)?;
        let wanted = known.admitted.saturating_add(bytes);
        let kept = claim.kept_back(known.reserve);
        if known.available < kept.saturating_add(wanted) {
            known.asked = None;
            return Err(Error::Full {
                reason: format!(
                    "{} bytes are available, {kept} are kept in reserve (space.reserve) and {bytes} are needed",
                    known.available
                ),
            });
        }
        known.admitted = wanted;
        Ok(())
    }

    /// What is known, asked for anew if that is old.
    fn look(&self, now: Duration) -> Result<MutexGuard<'_, Known>> {
        let mut known = self.state.lock();
        if known.is_stale(now) {
            // A file system that is slow to answer holds up nobody else.
            let answers = known.answers;
            drop(known);
            let space = self.disk.space(self.layout.root())?;
            known = self.state.lock();
            if known.answers == answers {
                known.answers = answers.wrapping_add(1);
                known.asked = Some(now);
                known.available = space.available;
                known.reserve = self
                    .reserve
                    .unwrap_or(DEFAULT_RESERVE.max(space.total / 50));
                known.admitted = 0;
            }
        }
        Ok(known)
    }
}
