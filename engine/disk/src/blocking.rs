//! The thread pool: system calls on threads that may block.
//!
//! Owns: the threads and their queue.
//! Invariants: at most [`QUEUE`] requests wait; a request that was queued is
//! carried out, even when the disk is dropped meanwhile; dropping the disk and
//! its files ends the threads after the queue is empty.
//! Refuses to know: alignment, retries and errors; see `system`.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use tokio::sync::Semaphore;

use crate::real::{Carrier, RealDisk};
use crate::request::Envelope;
use crate::tally::Tally;
use crate::{Access, Backend, Counters, Disk};

/// Requests that may wait for a thread. Beyond that, callers wait.
pub const QUEUE: usize = 256;

/// The pread/pwrite disk.
pub struct Blocking;

impl Blocking {
    /// A disk with `threads` threads (at least one) for the shared lane.
    ///
    /// # Errors
    /// When a thread cannot be started.
    #[expect(
        clippy::new_ret_no_self,
        reason = "callers know disks by their trait only"
    )]
    pub fn new(threads: usize) -> io::Result<Arc<dyn Disk>> {
        Blocking::with_access(threads, Access::Direct)
    }

    /// The same, with files opened direct getting `best` or less.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn with_access(threads: usize, best: Access) -> io::Result<Arc<dyn Disk>> {
        Ok(RealDisk::over(Threads::start(threads.max(1))?, best))
    }
}

struct Threads {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    /// Free places in the queue.
    room: Semaphore,
    queue: Mutex<Queue>,
    wake: Condvar,
    tally: Tally,
}

struct Queue {
    waiting: VecDeque<Envelope>,
    closed: bool,
}

impl Threads {
    fn start(count: usize) -> io::Result<Threads> {
        let queue = Queue {
            waiting: VecDeque::with_capacity(QUEUE),
            closed: false,
        };
        let shared = Arc::new(Shared {
            room: Semaphore::new(QUEUE),
            queue: Mutex::new(queue),
            wake: Condvar::new(),
            tally: Tally::default(),
        });
        let mut pool = Threads {
            shared,
            threads: Vec::with_capacity(count),
        };
        for number in 0..count {
            let shared = Arc::clone(&pool.shared);
            let builder = thread::Builder::new().name(format!("disk-pool-{number}"));
            // On an error the drop of `pool` ends the threads that did start.
            pool.threads.push(builder.spawn(move || shared.work())?);
        }
        Ok(pool)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        // No statement under this lock can panic half-way through a change.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        while let Some(Envelope { request, reply }) = self.next() {
            let done = request.run();
            done.count(&self.tally);
            // When nobody waits, the answer comes back here and its buffer
            // returns to the pool.
            drop(reply.send(done));
        }
    }

    /// The next request; `None` when the queue is closed and empty.
    fn next(&self) -> Option<Envelope> {
        let mut queue = self.lock();
        loop {
            if let Some(envelope) = queue.waiting.pop_front() {
                drop(queue);
                self.room.add_permits(1);
                return Some(envelope);
            }
            if queue.closed {
                return None;
            }
            queue = self
                .wake
                .wait(queue)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Carrier for Threads {
    async fn submit(&self, envelope: Envelope) -> Result<(), Envelope> {
        let Ok(place) = self.shared.room.acquire().await else {
            return Err(envelope);
        };
        place.forget();
        self.shared.lock().waiting.push_back(envelope);
        self.shared.wake.notify_one();
        Ok(())
    }

    fn backend(&self) -> Backend {
        Backend::Pool
    }

    fn counters(&self) -> Counters {
        self.shared.tally.counters()
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.wake.notify_all();
        let here = thread::current().id();
        for thread in self.threads.drain(..) {
            // The last owner may be an answer that a pool thread just dropped:
            // it cannot wait for itself, and ends on its own.
            if thread.thread().id() != here {
                drop(thread.join());
            }
        }
    }
}
