//! `orlop-bench herd`: what many slow pulls of one large blob cost in memory.
//!
//! Each client takes a fixed number of bytes a second and no more, from a
//! socket with a small buffer, so that what it has not taken waits in the
//! server. One crowd starts at the beginning of the blob, so that its clients
//! want the same pages at the same time; the other is spread over the blob, so
//! that each wants its own. Each meets a fresh server.

use crate::client::Connection;
use crate::document::{Crowd, HerdReport, SCHEMA};
use crate::error::{Error, Result};
use crate::load::runtime;
use crate::machine::{self, Machine};
use crate::payload::Payload;
use crate::process;
use crate::push::{self, BlobPush};
use crate::quick;
use crate::server::{Kind, Programs, READY_LIMIT, Server};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tokio::time::{Instant as Deadline, MissedTickBehavior, interval, timeout_at};

/// Repository the blob is pushed to.
const REPOSITORY: &str = "bench/herd";
/// Clients read in steps of this length.
const TICK: Duration = Duration::from_millis(50);
/// How often the server's memory is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// Bytes asked for as a client's receive buffer; the kernel doubles it.
const RECEIVE_BUFFER: u32 = 64 * 1024;
/// How long a fresh server is left alone before its memory is read.
const IDLE_PAUSE: Duration = Duration::from_secs(1);
/// Most memory above the cache that is asked for, in bytes.
const TARGET: u64 = 256 << 20;

/// What `herd` is asked to do.
#[derive(Debug)]
pub(crate) struct Herd {
    /// Where the programs are.
    pub(crate) programs: Programs,
    /// Which server.
    pub(crate) kind: Kind,
    /// Folder that holds the data of the run.
    pub(crate) root: PathBuf,
    /// Clients at once.
    pub(crate) clients: usize,
    /// Size of the blob, in bytes.
    pub(crate) size: u64,
    /// Bytes per second of each client.
    pub(crate) rate: u64,
    /// How long they pull, in seconds.
    pub(crate) seconds: f64,
    /// Limit of the server's cache, in bytes.
    pub(crate) cache: u64,
}

/// Where in the blob the clients of a crowd start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Start {
    Together,
    Spread,
}

impl Start {
    fn label(self) -> &'static str {
        match self {
            Start::Together => "together",
            Start::Spread => "spread",
        }
    }
}

impl Herd {
    /// Pushes the blob and lets one crowd after another pull it.
    pub(crate) fn run(&self) -> Result<HerdReport> {
        if self.pulled() > self.size {
            return Err(Error::Usage(format!(
                "a client would pull {} bytes and the blob has {}: lower --rate or --seconds",
                self.pulled(),
                self.size
            )));
        }
        machine::want_space(&self.root, self.size, "herd", "--size")?;
        let machine = Machine::read(&self.root)?;
        let versions = quick::versions(&self.programs);
        let server = self.start()?;
        let digest = runtime()?.block_on(self.fill(&server))?;
        server.stop()?;
        let mut crowds = Vec::new();
        for start in [Start::Together, Start::Spread] {
            eprintln!("orlop-bench: {} clients, {} …", self.clients, start.label());
            let server = self.start()?;
            std::thread::sleep(IDLE_PAUSE);
            crowds.push(runtime()?.block_on(self.crowd(&server, &digest, start))?);
            server.stop()?;
        }
        Ok(HerdReport {
            schema: SCHEMA,
            kind: "herd",
            machine,
            versions,
            server: self.kind,
            clients: self.clients,
            rate: self.rate,
            blob_bytes: self.size,
            cache: self.cache,
            crowds,
            target: TARGET,
        })
    }

    /// Most bytes that one client takes.
    fn pulled(&self) -> u64 {
        (self.rate as f64 * self.seconds) as u64
    }

    /// A server on the folder of the run.
    fn start(&self) -> Result<Server> {
        let arguments = ["--cache-size".to_owned(), self.cache.to_string()];
        let folder = self.root.join("herd");
        Server::start_with(self.kind, &self.programs, &folder, READY_LIMIT, &arguments)
    }

    async fn fill(&self, server: &Server) -> Result<String> {
        // Takes seconds; a connection that says nothing so long may be closed.
        let push = BlobPush::new(REPOSITORY, Payload::new(self.size));
        let mut connection = Connection::open(server.addr).await?;
        let digest = push.push(&mut connection).await?;
        let path = push::blob_path(REPOSITORY, &digest);
        push::verify(&mut connection, &path, &digest).await?;
        Ok(digest)
    }

    async fn crowd(&self, server: &Server, digest: &str, start: Start) -> Result<Crowd> {
        let before = process::memory(server.pid())?.resident;
        process::reset_peak(server.pid());
        let cpu = server.cpu_time()?;
        let mut clients = Vec::with_capacity(self.clients);
        for number in 0..self.clients {
            clients.push(self.client(server, digest, start, number).await?);
        }
        let begin = Instant::now();
        let deadline = Deadline::now() + Duration::from_secs_f64(self.seconds);
        let mut pulls = JoinSet::new();
        for client in clients {
            pulls.spawn(client.pull(deadline));
        }
        let mut taken = Vec::with_capacity(self.clients);
        let mut peak_own = 0;
        let mut look = interval(LOOK);
        loop {
            tokio::select! {
                done = pulls.join_next() => match done {
                    Some(Ok(bytes)) => taken.push(bytes?),
                    Some(Err(_)) => return Err(Error::Server("a client task ended".to_owned())),
                    None => break,
                },
                _ = look.tick() => {
                    crate::stop::check()?;
                    peak_own = peak_own.max(process::memory(server.pid())?.anonymous);
                }
            }
        }
        let peak = process::memory(server.pid())?.peak;
        Ok(Crowd {
            start: start.label(),
            before,
            peak,
            peak_own,
            above_cache: peak.cast_signed() - self.cache.cast_signed(),
            bytes: taken.iter().sum(),
            least: taken.iter().copied().min().unwrap_or(0),
            most: taken.iter().copied().max().unwrap_or(0),
            seconds: begin.elapsed().as_secs_f64(),
            server_cpu_seconds: server.cpu_time()?.saturating_sub(cpu).as_secs_f64(),
        })
    }

    async fn client(
        &self,
        server: &Server,
        digest: &str,
        start: Start,
        number: usize,
    ) -> Result<Client> {
        let offset = match start {
            Start::Together => 0,
            Start::Spread => offset(number, self.clients, self.size - self.pulled()),
        };
        let path = push::blob_path(REPOSITORY, digest);
        let (range, status) = match offset {
            0 => (String::new(), 200),
            _ => (format!("Range: bytes={offset}-\r\n"), 206),
        };
        Ok(Client {
            connection: Connection::open_small(server.addr, RECEIVE_BUFFER).await?,
            request: format!("GET {path} HTTP/1.1\r\nHost: bench\r\n{range}\r\n").into_bytes(),
            status,
            left: self.size - offset,
            step: (self.rate as f64 * TICK.as_secs_f64()) as u64,
        })
    }
}

/// Where client `number` of `clients` starts, from 0 to below `room`.
fn offset(number: usize, clients: usize, room: u64) -> u64 {
    let offset = u128::from(room) * number as u128 / clients.max(1) as u128;
    u64::try_from(offset).unwrap_or(u64::MAX)
}

/// One throttled pull.
struct Client {
    connection: Connection,
    request: Vec<u8>,
    /// Status of the answer.
    status: u16,
    /// Bytes that are still to come.
    left: u64,
    /// Bytes that are taken each [`TICK`].
    step: u64,
}

impl Client {
    /// Pulls until the deadline; returns the bytes that were taken.
    async fn pull(mut self, deadline: Deadline) -> Result<u64> {
        self.connection.send(&[&self.request]).await?;
        let head = self.connection.receive_head().await?;
        if head.status != self.status || head.length != self.left {
            let what = format!("GET of the last {} bytes of a blob", self.left);
            return Err(push::unexpected(&mut self.connection, &head, &what).await);
        }
        let all = self.left;
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while self.left > 0 {
            let step = self.step.min(self.left);
            let taking = async {
                ticks.tick().await;
                self.connection.drop_body(step).await
            };
            match timeout_at(deadline, taking).await {
                Ok(taken) => taken?,
                Err(_) => break,
            }
            self.left -= step;
        }
        Ok(all - self.left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_spread_over_the_blob() {
        let offsets: Vec<u64> = (0..4).map(|number| offset(number, 4, 1000)).collect();
        assert_eq!(offsets, [0, 250, 500, 750]);
        assert_eq!(offset(499, 500, 0), 0);
        assert!(offset(499, 500, u64::MAX) < u64::MAX);
    }
}
