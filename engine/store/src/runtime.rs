//! The one seam for time, randomness, threads and tasks (invariant 13), so that
//! a simulator can own them. Locks come from [`crate::sync`].
//!
//! The clock orders nothing: order is the log's.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use tokio::runtime::Handle;

/// What the store asks of the world besides the disk.
pub trait Runtime: Send + Sync + 'static {
    /// Time since some fixed moment; never goes back.
    fn now(&self) -> Duration;
    /// Fills `bytes` with random numbers that nobody can guess.
    fn fill_random(&self, bytes: &mut [u8]);
    /// Runs a task to its end on its own; a production runtime gives it a
    /// thread, since it may block.
    ///
    /// # Errors
    /// When the system has no thread to give.
    fn spawn(&self, name: &'static str, task: BoxFuture<'static, ()>) -> std::io::Result<()>;
    /// Runs a short task that never blocks to its end beside its caller, who may
    /// stop polling or go away. Only the end of the runtime drops it before.
    fn task(&self, task: BoxFuture<'static, ()>);
    /// Ready after `time`.
    fn sleep(&self, time: Duration) -> BoxFuture<'static, ()>;
}

/// A random number from the runtime.
pub(crate) fn random_u64(runtime: &dyn Runtime) -> u64 {
    let mut bytes = [0u8; 8];
    runtime.fill_random(&mut bytes);
    u64::from_le_bytes(bytes)
}

/// The production runtime: the system's clock and random numbers, threads, and
/// the tasks of the tokio runtime it was started in.
#[derive(Debug)]
pub struct System {
    start: Instant,
    tasks: Option<Handle>,
}

impl System {
    /// A runtime whose clock starts now. Short tasks run on the tokio runtime
    /// of the caller; without one, each has a thread.
    pub fn start() -> Arc<dyn Runtime> {
        Arc::new(Self {
            start: Instant::now(),
            tasks: Handle::try_current().ok(),
        })
    }
}

impl Runtime for System {
    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn fill_random(&self, bytes: &mut [u8]) {
        if let Err(error) = getrandom::fill(bytes) {
            // Without random numbers neither upload ids nor salts are safe.
            tracing::error!(%error, "the system gives no random numbers");
            std::process::abort();
        }
    }

    fn spawn(&self, name: &'static str, task: BoxFuture<'static, ()>) -> std::io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()?;
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || runtime.block_on(task))?;
        Ok(())
    }

    fn task(&self, task: BoxFuture<'static, ()>) {
        if let Some(tasks) = &self.tasks {
            drop(tasks.spawn(task));
        } else if let Err(error) = self.spawn("task", task) {
            // Who waits for the task learns that it is gone.
            tracing::error!(%error, "the system gives no thread for a task");
        }
    }

    fn sleep(&self, time: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(time))
    }
}
