//! One timed round: some connections repeat one kind of request against one
//! server until the time is over. The requests under way then are finished
//! and counted, and the clock runs until the last of them is.
//!
//! Each client thread has a runtime and connections of its own, so nothing is
//! shared between threads but the disk budget.

use crate::client::Connection;
use crate::error::{Context as _, Error, Result};
use crate::payload::{digest_of, unique};
use crate::push::{self, BlobPush, ImagePush, ManifestPush};
use crate::stats::Histogram;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// How much longer than planned a round may take before it is given up.
const GRACE: Duration = Duration::from_secs(60);
/// What a stored object may cost beside its bytes (folders, links, records),
/// for the disk guard.
const OVERHEAD: u64 = 32 * 1024;

/// What is repeated.
pub(crate) enum Work {
    /// GET one object after another.
    Get(Vec<Object>),
    /// Push a new blob each time.
    Push(BlobPush),
    /// Push a new manifest each time.
    Manifest(ManifestPush),
    /// Push a new layer and a new manifest over it each time.
    Image(ImagePush),
}

/// Something to GET.
pub(crate) struct Object {
    /// Path on the server.
    pub(crate) path: String,
    /// Prepared request.
    pub(crate) request: Vec<u8>,
    /// Length of the body, in bytes.
    pub(crate) size: u64,
    /// Digest of the body; `None` where the server makes bodies up.
    pub(crate) digest: Option<String>,
}

/// How a round is run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    /// Connections in all.
    pub(crate) connections: usize,
    /// Client threads; connections are spread over them.
    pub(crate) threads: usize,
    /// How long new requests are started.
    pub(crate) duration: Duration,
}

/// What a round did.
#[derive(Debug)]
pub(crate) struct Tally {
    /// Latency of each request, in nanoseconds.
    pub(crate) latency: Histogram,
    /// Body bytes moved.
    pub(crate) bytes: u64,
    /// From the start to the end of the last request.
    pub(crate) elapsed: Duration,
    /// Whether the disk guard ended the round early.
    pub(crate) cut_short: bool,
    /// Path and digest of one object that was pushed.
    pub(crate) last: Option<(String, String)>,
}

impl Tally {
    fn new() -> Tally {
        Tally {
            latency: Histogram::new(),
            bytes: 0,
            elapsed: Duration::ZERO,
            cut_short: false,
            last: None,
        }
    }

    fn merge(&mut self, other: Tally) {
        self.latency.merge(&other.latency);
        self.bytes += other.bytes;
        self.elapsed = self.elapsed.max(other.elapsed);
        self.cut_short |= other.cut_short;
        self.last = other.last.or(self.last.take());
    }
}

/// Runs one round. `budget` holds the bytes that may still be stored.
pub(crate) fn round(
    work: &Arc<Work>,
    addr: SocketAddr,
    plan: Plan,
    budget: &Arc<AtomicU64>,
) -> Result<Tally> {
    round_until(work, addr, plan, budget, &Arc::default())
}

/// Runs one round that ends when its time is over or `ended` is set.
pub(crate) fn round_until(
    work: &Arc<Work>,
    addr: SocketAddr,
    plan: Plan,
    budget: &Arc<AtomicU64>,
    ended: &Arc<AtomicBool>,
) -> Result<Tally> {
    let threads = plan.threads.clamp(1, plan.connections.max(1));
    let barrier = Arc::new(Barrier::new(threads));
    let handles: Vec<_> = (0..threads)
        .map(|thread| {
            let (work, budget) = (Arc::clone(work), Arc::clone(budget));
            let ended = Arc::clone(ended);
            let barrier = Arc::clone(&barrier);
            // Connections `thread`, `thread + threads`, … are this thread's.
            let mine: Vec<usize> = (thread..plan.connections).step_by(threads).collect();
            std::thread::spawn(move || {
                one_thread(&work, addr, plan, (&budget, &ended), &barrier, mine)
            })
        })
        .collect();
    let mut total = Tally::new();
    let mut first_error = None;
    for handle in handles {
        match handle.join() {
            Ok(Ok(tally)) => total.merge(tally),
            Ok(Err(error)) => first_error = first_error.or(Some(error)),
            Err(_) => return Err(Error::Server("a client thread panicked".to_owned())),
        }
    }
    crate::stop::check()?;
    first_error.map_or(Ok(total), Err)
}

fn one_thread(
    work: &Arc<Work>,
    addr: SocketAddr,
    plan: Plan,
    (budget, ended): (&Arc<AtomicU64>, &Arc<AtomicBool>),
    barrier: &Barrier,
    mine: Vec<usize>,
) -> Result<Tally> {
    let runtime = runtime();
    let connected = match &runtime {
        Ok(runtime) => runtime.block_on(async {
            let mut connections = Vec::with_capacity(mine.len());
            for number in mine {
                connections.push((number, Connection::open(addr).await?));
            }
            Ok(connections)
        }),
        Err(_) => Ok(Vec::new()),
    };
    // Reached on every path: a thread that failed must not hold up the others.
    barrier.wait();
    let (runtime, connections) = (runtime?, connected?);
    let start = Instant::now();
    runtime.block_on(async {
        let mut workers = JoinSet::new();
        for (number, connection) in connections {
            let worker = Worker {
                work: Arc::clone(work),
                budget: Arc::clone(budget),
                ended: Arc::clone(ended),
                connection,
                next: number * 7919,
                start,
                deadline: start + plan.duration,
            };
            workers.spawn(worker.run());
        }
        let all = async {
            let mut total = Tally::new();
            while let Some(done) = workers.join_next().await {
                let tally = done.map_err(|_| Error::Server("a client task ended".to_owned()))?;
                total.merge(tally?);
            }
            Ok(total)
        };
        let limit = plan.duration + GRACE;
        match tokio::time::timeout(limit, all).await {
            Ok(total) => total,
            Err(_) => Err(Error::Answer(format!(
                "requests were still unanswered {} s after the round",
                GRACE.as_secs()
            ))),
        }
    })
}

/// A runtime on the calling thread.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context(|| "start a runtime".to_owned())
}

struct Worker {
    work: Arc<Work>,
    budget: Arc<AtomicU64>,
    ended: Arc<AtomicBool>,
    connection: Connection,
    /// Index of the next object; workers start far apart.
    next: usize,
    start: Instant,
    deadline: Instant,
}

impl Worker {
    async fn run(mut self) -> Result<Tally> {
        let work = Arc::clone(&self.work);
        let mut tally = Tally::new();
        let mut before = Instant::now();
        while before < self.deadline && !self.is_over() {
            let bytes = match &*work {
                Work::Get(objects) => self.get(objects).await?,
                Work::Push(push) => {
                    if !take(&self.budget, push.size() + OVERHEAD) {
                        tally.cut_short = true;
                        break;
                    }
                    let digest = push.push(&mut self.connection).await?;
                    let path = push::blob_path(push.repository(), &digest);
                    tally.last = Some((path, digest));
                    push.size()
                }
                Work::Manifest(push) => {
                    if !take(&self.budget, OVERHEAD) {
                        tally.cut_short = true;
                        break;
                    }
                    self.manifest(push, &mut tally).await?
                }
                Work::Image(push) => {
                    if !take(&self.budget, push.size() + OVERHEAD) {
                        tally.cut_short = true;
                        break;
                    }
                    tally.last = Some(push.push(&mut self.connection, unique()).await?);
                    push.size()
                }
            };
            let after = Instant::now();
            let nanos = after.duration_since(before).as_nanos();
            tally
                .latency
                .record(u64::try_from(nanos).unwrap_or(u64::MAX));
            tally.bytes += bytes;
            before = after;
        }
        tally.elapsed = before.duration_since(self.start);
        Ok(tally)
    }

    fn is_over(&self) -> bool {
        self.ended.load(Ordering::Relaxed) || crate::stop::asked()
    }

    async fn get(&mut self, objects: &[Object]) -> Result<u64> {
        let at = self.next % objects.len().max(1);
        self.next = at + 1;
        let object = objects
            .get(at)
            .ok_or_else(|| Error::Usage("nothing to GET".to_owned()))?;
        self.connection.send(&[&object.request]).await?;
        let head = self.connection.receive_head().await?;
        if head.status != 200 || head.length != object.size {
            let what = format!("GET {} ({} bytes)", object.path, object.size);
            return Err(push::unexpected(&mut self.connection, &head, &what).await);
        }
        self.connection.drop_body(head.length).await?;
        self.connection.after(&head).await?;
        Ok(head.length)
    }

    async fn manifest(&mut self, push: &ManifestPush, tally: &mut Tally) -> Result<u64> {
        let number = unique();
        push.push(&mut self.connection, number).await?;
        let path = push::manifest_path(push.repository(), &push::tag(number));
        let body = push.body(number);
        tally.last = Some((path, digest_of(body.as_bytes())));
        Ok(body.len() as u64)
    }
}

/// Takes `bytes` from the budget; false, and nothing taken, when it has less.
fn take(budget: &AtomicU64, bytes: u64) -> bool {
    budget
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
            left.checked_sub(bytes)
        })
        .is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    /// Answers every request on every connection with `response`.
    fn server(response: &'static [u8]) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                std::thread::spawn(move || {
                    let mut request = [0; 4096];
                    while stream.read(&mut request).is_ok_and(|read| read > 0) {
                        stream.write_all(response).unwrap();
                    }
                });
            }
        });
        addr
    }

    fn object(size: u64) -> Object {
        Object {
            path: "/x".to_owned(),
            request: push::get_request("/x"),
            size,
            digest: None,
        }
    }

    const PLAN: Plan = Plan {
        connections: 3,
        threads: 2,
        duration: Duration::from_millis(50),
    };

    #[test]
    fn a_round_counts_requests_and_bytes() {
        let addr = server(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
        let work = Arc::new(Work::Get(vec![object(5)]));
        let tally = round(&work, addr, PLAN, &Arc::new(AtomicU64::new(0))).unwrap();
        assert!(tally.latency.count() >= 3);
        assert_eq!(tally.bytes, 5 * tally.latency.count());
        assert!(tally.elapsed >= PLAN.duration);
        assert!(!tally.cut_short);
    }

    #[test]
    fn a_wrong_status_or_length_ends_the_round() {
        let addr = server(b"HTTP/1.1 500 Oh\r\nContent-Length: 5\r\n\r\nhello");
        let work = Arc::new(Work::Get(vec![object(5)]));
        let error = round(&work, addr, PLAN, &Arc::new(AtomicU64::new(0))).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("500") && text.contains("hello"), "{text}");
        let addr = server(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
        let work = Arc::new(Work::Get(vec![object(6)]));
        assert!(round(&work, addr, PLAN, &Arc::new(AtomicU64::new(0))).is_err());
    }

    #[test]
    fn a_round_ends_when_it_is_told_to() {
        let addr = server(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
        let work = Arc::new(Work::Get(vec![object(5)]));
        let long = Plan {
            duration: GRACE,
            ..PLAN
        };
        let ended = Arc::new(AtomicBool::new(false));
        let teller = Arc::clone(&ended);
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(50));
            teller.store(true, Ordering::Relaxed);
        });
        let tally = round_until(&work, addr, long, &Arc::default(), &ended).unwrap();
        assert!(tally.latency.count() >= 3);
        assert!(tally.elapsed < GRACE / 2, "{:?}", tally.elapsed);
    }

    #[test]
    fn the_disk_guard_stops_pushes() {
        let addr = server(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n");
        let work = Arc::new(Work::Manifest(ManifestPush::new("a", &[])));
        let budget = Arc::new(AtomicU64::new(5 * OVERHEAD + 1));
        let tally = round(&work, addr, PLAN, &budget).unwrap();
        assert_eq!(tally.latency.count(), 5);
        assert!(tally.cut_short);
        assert_eq!(budget.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn nobody_listening_is_an_error_and_no_hang() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        drop(listener);
        let work = Arc::new(Work::Get(vec![object(5)]));
        assert!(round(&work, addr, PLAN, &Arc::new(AtomicU64::new(0))).is_err());
    }
}
