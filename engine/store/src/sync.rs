//! Locks of the store, in one place so that a schedule explorer can replace
//! them. A panic while one is held does not spread: every critical section
//! here leaves its data whole at each step.

use std::sync::PoisonError;

pub(crate) use std::sync::MutexGuard;

/// A lock that is never held across an await or a sync.
#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(std::sync::Mutex<T>);

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(std::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
