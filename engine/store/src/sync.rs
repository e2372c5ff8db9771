//! Locks, atomics and channels of the store, in one place so that a schedule
//! explorer can replace them: feature `shuttle` runs the store under random
//! schedules, `loom` walks every order of its lock-free parts. Neither is ever
//! shipped.
//!
//! A panic while a lock is held does not spread: every critical section here
//! leaves its data whole at each step. What only counts and orders nothing uses
//! [`counters`], which no explorer sees.

use std::sync::PoisonError;

#[cfg(not(any(feature = "loom", feature = "shuttle")))]
mod source {
    pub(crate) use std::sync::{Mutex, MutexGuard, atomic};
    pub(crate) use tokio::sync as tasks;
}

#[cfg(feature = "shuttle")]
mod source {
    pub(crate) use shuttle::sync::{Mutex, MutexGuard, atomic};
    pub(crate) use shuttle_tokio::sync as tasks;
}

// Models hold nothing that waits as a task.
#[cfg(all(feature = "loom", not(feature = "shuttle")))]
mod source {
    pub(crate) use loom::sync::{Mutex, MutexGuard, atomic};
    pub(crate) use tokio::sync as tasks;
}

pub(crate) use std::sync::OnceLock;
pub(crate) use std::sync::atomic as counters;

pub(crate) use self::source::tasks::{
    Mutex as TaskMutex, Notify, OwnedMutexGuard, OwnedSemaphorePermit, Semaphore, mpsc, oneshot,
};
pub(crate) use self::source::{MutexGuard, atomic};

/// A lock that is never held across an await or a sync.
#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(source::Mutex<T>);

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(source::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place where another task may run that no lock shows: around what other
/// crates share.
#[inline]
pub(crate) fn point() {
    #[cfg(feature = "shuttle")]
    shuttle::thread::sleep(std::time::Duration::ZERO); // which only switches
}
