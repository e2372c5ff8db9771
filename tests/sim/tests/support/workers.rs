//! Trying many cases at once, on as many threads as the commit's budget has.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Threads of a sweep.
pub const THREADS: usize = 2;

/// Runs `work` for every number below `count` and gives what it returned, in
/// no order. The first panic ends all of it.
pub fn sweep<T: Send>(count: u64, work: impl Fn(u64) -> T + Sync) -> Vec<T> {
    let next = AtomicU64::new(0);
    let failed = AtomicBool::new(false);
    let results = Mutex::new(Vec::new());
    let run = || {
        while !failed.load(Ordering::Relaxed) {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return;
            }
            match catch_unwind(AssertUnwindSafe(|| work(number))) {
                Ok(result) => results.lock().unwrap().push(result),
                Err(panic) => {
                    failed.store(true, Ordering::Relaxed);
                    resume_unwind(panic);
                }
            }
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(run)).collect();
        for thread in threads {
            if let Err(panic) = thread.join() {
                resume_unwind(panic);
            }
        }
    });
    results.into_inner().unwrap()
}
