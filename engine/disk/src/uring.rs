//! The ring: io_uring by tokio-uring, on threads of its own.
//!
//! Owns: the ring threads, their queues, and the operations in flight.
//! Invariants:
//! - A thread keeps at most [`IN_FLIGHT`] requests in flight, and at most
//!   [`QUEUE`] more wait for it; beyond that, callers wait.
//! - A request that was queued is carried to its end. A thread leaves only
//!   when nothing is in flight.
//! - Memory and file of an operation belong to its `InFlight` until the
//!   kernel has answered. Were a ring ever torn down before, they would be
//!   leaked, not freed.
//! - A short transfer is continued, by the same rules as in the pool.
//!
//! Refuses to know: HTTP threads, runtimes of callers. No type of tokio-uring
//! leaves this file and `probe`.

pub(crate) mod probe;

use std::io;
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

use io_uring::types::{Fd, FsyncFlags};
use io_uring::{cqueue, opcode, squeue};
use tokio::sync::{Semaphore, mpsc};
use tokio_uring::{OneshotOutputTransform, UnsubmittedOneshot};

use crate::real::{Carrier, RealDisk};
use crate::request::{Done, Envelope, Request, Verb};
use crate::system::{DONTCACHE, Handle, Transfer, Way};
use crate::tally::Tally;
use crate::{Access, Backend, Buffer, Counters, Disk};

/// Requests in flight per ring thread.
pub const IN_FLIGHT: usize = 128;

/// Requests that may wait for one ring thread.
pub const QUEUE: usize = 128;

/// Entries of the submission queue: each request has one operation at a time,
/// so that the queue never fills up.
const ENTRIES: u32 = 256;

/// Bytes of one operation at most; the kernel moves less than 2 GiB at once.
const OPERATION: usize = 1 << 30;

/// The io_uring disk.
pub struct Uring;

impl Uring {
    /// A disk with `threads` ring threads (at least one) for the shared lane.
    ///
    /// # Errors
    /// When a ring cannot be set up: see [`crate::probe::ring`].
    #[expect(
        clippy::new_ret_no_self,
        reason = "callers know disks by their trait only"
    )]
    pub fn new(threads: usize) -> io::Result<Arc<dyn Disk>> {
        Uring::with_access(threads, Access::Direct)
    }

    /// The same, with files opened direct getting `best` or less.
    ///
    /// # Errors
    /// When a ring cannot be set up.
    pub fn with_access(threads: usize, best: Access) -> io::Result<Arc<dyn Disk>> {
        Ok(RealDisk::over(Rings::start(threads.max(1))?, best))
    }
}

struct Rings {
    queues: Vec<mpsc::Sender<Envelope>>,
    threads: Vec<JoinHandle<()>>,
    next: AtomicUsize,
    tally: Arc<Tally>,
}

impl Rings {
    fn start(count: usize) -> io::Result<Rings> {
        let mut rings = Rings {
            queues: Vec::with_capacity(count),
            threads: Vec::with_capacity(count),
            next: AtomicUsize::new(0),
            tally: Arc::default(),
        };
        for number in 0..count {
            let (sender, receiver) = mpsc::channel(QUEUE);
            let (ready, started) = std::sync::mpsc::sync_channel(1);
            let tally = Arc::clone(&rings.tally);
            let thread = thread::Builder::new()
                .name(format!("disk-ring-{number}"))
                .spawn(move || ring_thread(receiver, tally, &ready))?;
            // On an error the drop of `rings` ends the threads that did start.
            rings.queues.push(sender);
            rings.threads.push(thread);
            let answer = started.recv();
            answer.map_err(|_| io::Error::other("the ring thread ended while it started"))??;
        }
        Ok(rings)
    }
}

impl Carrier for Rings {
    async fn submit(&self, envelope: Envelope) -> Result<(), Envelope> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        let Some(queue) = self
            .queues
            .get(turn.checked_rem(self.queues.len()).unwrap_or(0))
        else {
            return Err(envelope);
        };
        queue.send(envelope).await.map_err(|returned| returned.0)
    }

    fn backend(&self) -> Backend {
        Backend::Uring
    }

    fn counters(&self) -> Counters {
        self.tally.counters()
    }
}

impl Drop for Rings {
    fn drop(&mut self) {
        self.queues.clear();
        let here = thread::current().id();
        for thread in self.threads.drain(..) {
            // The last owner may be an answer that a ring thread just dropped:
            // it cannot wait for itself, and ends on its own.
            if thread.thread().id() != here {
                drop(thread.join());
            }
        }
    }
}

fn ring_thread(
    queue: mpsc::Receiver<Envelope>,
    tally: Arc<Tally>,
    ready: &std::sync::mpsc::SyncSender<io::Result<()>>,
) {
    match tokio_uring::Runtime::new(tokio_uring::builder().entries(ENTRIES)) {
        Ok(runtime) => {
            drop(ready.send(Ok(())));
            runtime.block_on(work(queue, tally));
        }
        Err(error) => drop(ready.send(Err(error))),
    }
}

/// Starts requests as they come and returns when the queue is closed and the
/// last one has been answered.
async fn work(mut queue: mpsc::Receiver<Envelope>, tally: Arc<Tally>) {
    let places = Arc::new(Semaphore::new(IN_FLIGHT));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            break;
        };
        let Some(envelope) = queue.recv().await else {
            break;
        };
        let tally = Arc::clone(&tally);
        tokio_uring::spawn(async move {
            let Envelope { request, reply } = envelope;
            let done = carry(request).await;
            done.count(&tally);
            // When nobody waits, the answer comes back here and its buffer
            // returns to the pool.
            drop(reply.send(done));
            drop(place);
        });
    }
    const ALL: u32 = IN_FLIGHT as u32;
    drop(places.acquire_many(ALL).await);
}

async fn carry(mut request: Request) -> Done {
    let buf = std::mem::replace(&mut request.buf, Buffer::empty());
    let (result, buf) = match request.verb {
        Verb::Sync => {
            let fd = Fd(request.handle.file.as_raw_fd());
            let entry = opcode::Fsync::new(fd).flags(FsyncFlags::DATASYNC).build();
            let (result, buf) = operation(&request.handle, buf, entry).await;
            (result.map(|_| ()), buf)
        }
        Verb::Read => transfer(&request.handle, Way::Read, request.offset, buf).await,
        Verb::Write => transfer(&request.handle, Way::Write, request.offset, buf).await,
    };
    request.buf = buf;
    Done { request, result }
}

/// Moves all of `buf`, in as many operations as the kernel wants.
async fn transfer(
    handle: &Arc<Handle>,
    way: Way,
    offset: u64,
    mut buf: Buffer,
) -> (io::Result<()>, Buffer) {
    let mut transfer = match Transfer::new(way, handle, offset, buf.len()) {
        Ok(Some(transfer)) => transfer,
        Ok(None) => return (Ok(()), buf),
        Err(error) => return (Err(error), buf),
    };
    loop {
        let entry = entry(handle, way, &transfer, &mut buf);
        let call;
        (call, buf) = operation(handle, buf, entry).await;
        match transfer.advance(call) {
            Ok(true) => return (Ok(()), buf),
            Ok(false) => {}
            Err(error) => return (Err(error), buf),
        }
    }
}

/// The operation for what is left of a transfer. It names memory of `buf` and
/// the file by address and number, so both must go into [`operation`] with it.
fn entry(handle: &Handle, way: Way, transfer: &Transfer, buf: &mut Buffer) -> squeue::Entry {
    let fd = Fd(handle.file.as_raw_fd());
    let left = (transfer.len() - transfer.done()).min(OPERATION);
    let len = u32::try_from(left).unwrap_or(u32::MAX);
    let at = buf.address(transfer.done());
    let offset = transfer.position();
    let flags = match handle.access {
        Access::DontCache => i32::from_ne_bytes(DONTCACHE.to_ne_bytes()),
        Access::Direct | Access::Buffered => 0,
    };
    match way {
        Way::Read => opcode::Read::new(fd, at, len)
            .offset(offset)
            .rw_flags(flags)
            .build(),
        Way::Write => opcode::Write::new(fd, at, len)
            .offset(offset)
            .rw_flags(flags)
            .build(),
    }
}

/// Runs one operation. Gives the bytes that moved, and the buffer back.
///
/// Why this is sound, although tokio-uring lets it be written without `unsafe`:
/// `entry` refers to at most `len` bytes inside `buf`, whose address does not
/// change while it is moved, and to the file of `handle`. Both are owned by the
/// [`InFlight`] that tokio-uring keeps until the kernel has answered: if this
/// future is dropped, it moves into the driver's table of ignored operations.
async fn operation(
    handle: &Arc<Handle>,
    buf: Buffer,
    entry: squeue::Entry,
) -> (io::Result<usize>, Buffer) {
    let held = InFlight(Some((Arc::clone(handle), buf)));
    UnsubmittedOneshot::new(held, Answer, entry).submit().await
}

/// What the kernel uses until it answers.
struct InFlight(Option<(Arc<Handle>, Buffer)>);

impl Drop for InFlight {
    /// After an answer there is nothing left to drop. Before one, only a ring
    /// that is torn down drops it, and the kernel may still write: leak.
    fn drop(&mut self) {
        std::mem::forget(self.0.take());
    }
}

struct Answer;

impl OneshotOutputTransform for Answer {
    type Output = (io::Result<usize>, Buffer);
    type StoredData = InFlight;

    fn transform_oneshot_output(self, mut data: InFlight, entry: cqueue::Entry) -> Self::Output {
        let buf = data.0.take().map_or_else(Buffer::empty, |(_, buf)| buf);
        let result = entry.result();
        match usize::try_from(result) {
            Ok(moved) => (Ok(moved), buf),
            Err(_) => (
                Err(io::Error::from_raw_os_error(result.saturating_neg())),
                buf,
            ),
        }
    }
}
