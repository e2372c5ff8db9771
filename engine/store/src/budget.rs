//! The one budget of background work: bytes per second, shared by all that
//! reads or writes without anybody waiting for it. Scrub takes from it; so
//! will cleaning and backup.
//!
//! Invariants: what was not used is not saved up, so that no burst follows a
//! pause; a request that somebody waits for never asks here.

use std::sync::Arc;
use std::time::Duration;

use crate::runtime::Runtime;
use crate::sync::Mutex;

/// A debt below this is not slept off at once: timers are not finer.
const SLACK: Duration = Duration::from_millis(5);

/// Bytes per second, handed out in order.
pub(crate) struct Budget {
    runtime: Arc<dyn Runtime>,
    rate: u64,
    /// When what was handed out so far is paid for.
    paid: Mutex<Duration>,
}

impl Budget {
    pub(crate) fn new(runtime: Arc<dyn Runtime>, rate: u64) -> Self {
        Self {
            runtime,
            rate: rate.max(1),
            paid: Mutex::default(),
        }
    }

    /// Waits for the turn of this many bytes.
    pub(crate) async fn take(&self, bytes: u64) {
        let now = self.runtime.now();
        let start = {
            let mut paid = self.paid.lock();
            let start = (*paid).max(now);
            let nanos = u128::from(bytes)
                .saturating_mul(1_000_000_000)
                .checked_div(u128::from(self.rate))
                .unwrap_or_default();
            let cost = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
            *paid = start.saturating_add(cost);
            start
        };
        let wait = start.saturating_sub(now);
        if wait >= SLACK {
            self.runtime.sleep(wait).await;
        }
    }
}
