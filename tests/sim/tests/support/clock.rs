//! The store's runtime for simulations: one thread, a clock that stands still
//! until everybody waits, seeded random numbers.
//!
//! Invariant: with one seed and one simulated disk everything happens in the
//! same order. A panic of a task is kept, so that no answer hides it.

use std::any::Any;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use orlop_engine::Runtime;
use tokio::time::Instant;

use super::random::Random;

/// Time, random numbers and tasks of one simulated machine.
pub struct Clock {
    start: Instant,
    random: Mutex<Random>,
    panics: Mutex<Vec<String>>,
}

impl Clock {
    /// A clock that starts now. Only inside [`simulate`].
    pub fn start(seed: u64) -> Arc<Clock> {
        Arc::new(Clock {
            start: Instant::now(),
            random: Mutex::new(Random::new(seed)),
            panics: Mutex::default(),
        })
    }

    /// What tasks of the store died of.
    pub fn panics(&self) -> Vec<String> {
        self.panics.lock().unwrap().clone()
    }
}

/// A handle that the store takes.
pub struct Handle(pub Arc<Clock>);

impl Handle {
    fn begin(&self, task: BoxFuture<'static, ()>) {
        let clock = Arc::clone(&self.0);
        drop(tokio::spawn(async move {
            if let Err(panic) = AssertUnwindSafe(task).catch_unwind().await {
                let text = text_of(panic.as_ref());
                clock.panics.lock().unwrap().push(text);
            }
        }));
    }
}

impl Runtime for Handle {
    fn now(&self) -> Duration {
        self.0.start.elapsed()
    }

    fn fill_random(&self, bytes: &mut [u8]) {
        let mut random = self.0.random.lock().unwrap();
        for chunk in bytes.chunks_mut(8) {
            let word = random.number().to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
    }

    fn spawn(&self, _name: &'static str, task: BoxFuture<'static, ()>) -> std::io::Result<()> {
        self.begin(task);
        Ok(())
    }

    fn task(&self, task: BoxFuture<'static, ()>) {
        self.begin(task);
    }

    fn sleep(&self, time: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(time))
    }
}

/// Runs `work` on a machine of its own.
pub fn simulate<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap()
        .block_on(work)
}

/// The words of a panic.
pub fn text_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("a panic without words")
        .to_owned()
}
