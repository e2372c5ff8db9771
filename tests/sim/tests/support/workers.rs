//! Trying many cases at once, on as many threads as the commit's budget has.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::clock::text_of;

/// Threads of a sweep.
pub const THREADS: usize = 2;

/// Failures that a sweep collects before it ends.
const ENOUGH: usize = 10;

/// Runs `work` for every number below `count` and gives what it returned, in
/// no order.
///
/// # Panics
/// With the words of the first few that did.
pub fn sweep<T: Send>(count: u64, work: impl Fn(u64) -> T + Sync) -> Vec<T> {
    let next = AtomicU64::new(0);
    let (results, failures) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
    let run = || {
        while failures.lock().unwrap().len() < ENOUGH {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return;
            }
            match catch_unwind(AssertUnwindSafe(|| work(number))) {
                Ok(result) => results.lock().unwrap().push(result),
                Err(panic) => failures.lock().unwrap().push(text_of(panic.as_ref())),
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(run);
        }
    });
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
    results.into_inner().unwrap()
}
