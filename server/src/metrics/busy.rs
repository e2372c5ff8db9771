//! How long somebody was being served: the time during which at least one
//! request was under way.
//!
//! Who works in the background asks for it, so as to leave the machine to
//! clients. A client that is slow to send or to read counts as well: what it
//! keeps from being done is not known.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// That time. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Busy(Arc<Mutex<Time>>);

#[derive(Debug, Default)]
struct Time {
    /// Requests under way.
    requests: u64,
    /// Since when there are any.
    since: Option<Instant>,
    /// Before that.
    before: Duration,
}

impl Busy {
    /// Counts a request as under way until the result is dropped.
    pub fn enter(&self) -> Serving {
        let mut time = self.time();
        time.requests = time.requests.saturating_add(1);
        time.since.get_or_insert_with(Instant::now);
        Serving(self.clone())
    }

    /// All of it, until now.
    pub fn total(&self) -> Duration {
        let time = self.time();
        let now = time.since.map_or(Duration::ZERO, |since| since.elapsed());
        time.before.saturating_add(now)
    }

    // Whole between any two calls.
    fn time(&self) -> MutexGuard<'_, Time> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that is under way until this is dropped.
#[derive(Debug)]
pub struct Serving(Busy);

impl Drop for Serving {
    fn drop(&mut self) {
        let mut time = self.0.time();
        time.requests = time.requests.saturating_sub(1);
        if time.requests == 0
            && let Some(since) = time.since.take()
        {
            time.before = time.before.saturating_add(since.elapsed());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread::sleep;

    use super::*;

    const STEP: Duration = Duration::from_millis(20);

    #[test]
    fn time_counts_once_however_many_are_served() {
        let busy = Busy::default();
        sleep(STEP);
        assert_eq!(busy.total(), Duration::ZERO);
        let began = Instant::now();
        let all: Vec<Serving> = (0..50).map(|_| busy.enter()).collect();
        sleep(STEP);
        let under_way = busy.total();
        assert!(under_way >= STEP && under_way <= began.elapsed());
        // One of them is enough.
        let mut all = all.into_iter();
        let last = all.next();
        drop(all);
        sleep(STEP);
        let longer = busy.total();
        assert!(longer >= under_way + STEP);
        drop(last);
        let end = busy.total();
        assert!(end >= longer && end <= began.elapsed());
        sleep(STEP);
        assert_eq!(busy.clone().total(), end);
        drop(busy.enter());
        assert!(busy.total() >= end);
    }
}
