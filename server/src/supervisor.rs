//! Keeps loops alive that run beside requests.
//!
//! A loop that panics is told as an error, counted, and started again after a
//! pause. The server does not end for it: what loops do can wait, pulls and
//! pushes cannot, and a loop that dies of something that it finds would end
//! every start after that, too.
//!
//! Invariants: a loop that dies ends no other one, and none dies silently. The
//! pause before a start doubles from [`PAUSE`] to [`PAUSE_MOST`]; it is short
//! again for a loop that ran for the longest of them.
//!
//! Refuses to know: what the loops do.

use std::any::Any;
use std::collections::BTreeMap;
use std::future::pending;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};

/// The shortest pause before a loop is started again.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest.
const PAUSE_MOST: Duration = Duration::from_secs(60);

/// Who starts loops again, and counts that. Clones share the counts.
#[derive(Clone, Debug, Default)]
pub struct Supervisor(Arc<Mutex<BTreeMap<&'static str, u64>>>);

impl Supervisor {
    /// Runs a loop until it ends, and again whenever it panics, unless it is
    /// `stopped` by then. Whatever it holds while it panics is dropped before.
    pub async fn keep<T>(
        &self,
        name: &'static str,
        stopped: impl Future<Output = ()>,
        mut start: impl FnMut() -> T,
    ) where
        T: Future<Output = ()>,
    {
        let mut stopped = pin!(stopped);
        self.count(name, 0);
        let mut pause = PAUSE;
        loop {
            let began = Instant::now();
            let run = async { start().await };
            let Err(panic) = AssertUnwindSafe(run).catch_unwind().await else {
                return;
            };
            if began.elapsed() >= PAUSE_MOST {
                pause = PAUSE;
            }
            self.count(name, 1);
            let why = message(panic.as_ref());
            let seconds = pause.as_secs();
            tracing::error!(
                task = name,
                why,
                seconds,
                "a task of the server's upkeep panicked and is started again after these seconds; what it does stands still until then"
            );
            tokio::select! {
                () = &mut stopped => return,
                () = sleep(pause) => {}
            }
            pause = pause.saturating_mul(2).min(PAUSE_MOST);
        }
    }

    /// How often each loop was started again.
    pub fn restarts(&self) -> Vec<(&'static str, u64)> {
        self.counts()
            .iter()
            .map(|(name, count)| (*name, *count))
            .collect()
    }

    fn count(&self, name: &'static str, more: u64) {
        let mut counts = self.counts();
        let count = counts.entry(name).or_default();
        *count = count.saturating_add(more);
    }

    // A map that is whole between any two calls.
    fn counts(&self) -> MutexGuard<'_, BTreeMap<&'static str, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs what blocks, such as a sync of a file, on a thread of its own, so that
/// no other task waits for it. A panic of it is one of the caller.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match spawn_blocking(work)
        .await
        .map_err(|error| error.try_into_panic())
    {
        Ok(done) => done,
        Err(Ok(panic)) => resume_unwind(panic),
        // It was never begun: the process ends.
        Err(Err(_)) => pending().await,
    }
}

/// What a panic says.
pub fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    format!("it panicked: {}", text.unwrap_or("no message"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::{Cell, RefCell};

    #[tokio::test(start_paused = true)]
    async fn i13_a_loop_that_panics_is_started_again_alone_and_counted() {
        let supervisor = Supervisor::default();
        let (starts, beats) = (Cell::new(0), Cell::new(0));
        let dying = supervisor.keep("dying", pending(), || async {
            starts.set(starts.get() + 1);
            sleep(Duration::from_millis(10)).await;
            assert!(starts.get() > 3, "an odd row");
        });
        let living = supervisor.keep("living", pending(), || async {
            loop {
                sleep(Duration::from_millis(100)).await;
                beats.set(beats.get() + 1);
            }
        });
        tokio::select! {
            () = dying => {}
            () = living => unreachable!("it has no end"),
        }
        // It ended by itself at its fourth start, after pauses of 1, 2 and 4 s.
        assert_eq!(starts.get(), 4);
        assert!(beats.get() >= 69, "{}", beats.get());
        assert_eq!(supervisor.restarts(), [("dying", 3), ("living", 0)]);
    }

    #[tokio::test]
    async fn i13_a_panic_on_a_thread_of_its_own_is_one_of_the_loop() {
        let supervisor = Supervisor::default();
        let starts = Cell::new(0);
        let dying = supervisor.keep("dying", pending(), || async {
            starts.set(starts.get() + 1);
            let start = starts.get();
            let made = blocking(move || {
                assert!(start > 1, "a file that is odd");
                start * 21
            });
            assert_eq!(made.await, 42);
        });
        let ended = tokio::time::timeout(Duration::from_secs(60), dying);
        ended.await.expect("the panic was lost");
        assert_eq!(supervisor.restarts(), [("dying", 1)]);
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_are_bounded_and_short_again_after_a_long_life() {
        let supervisor = Supervisor::default();
        let began = RefCell::new(Vec::new());
        let life = Cell::new(Duration::ZERO);
        let dying = supervisor.keep("dying", pending(), || async {
            began.borrow_mut().push(Instant::now());
            sleep(life.get()).await;
            let starts = began.borrow().len();
            if starts == 11 {
                life.set(PAUSE_MOST);
            }
            assert!(starts > 13, "again");
        });
        dying.await;
        let began = began.into_inner();
        let gaps: Vec<u64> = began
            .windows(2)
            .map(|pair| (pair[1] - pair[0]).as_secs())
            .collect();
        // The twelfth lived for a minute: a second after it the next begins.
        let expected = [1, 2, 4, 8, 16, 32, 60, 60, 60, 60, 60, 61, 61];
        assert_eq!(gaps, expected);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_does_not_wait_for_a_pause() {
        let supervisor = Supervisor::default();
        let stopped = sleep(Duration::from_millis(1_100));
        let began = Instant::now();
        let dying = supervisor.keep("dying", stopped, || async { panic!("always") });
        dying.await;
        assert!(began.elapsed() < Duration::from_millis(1_200));
        assert_eq!(supervisor.restarts(), [("dying", 2)]);
    }
}
