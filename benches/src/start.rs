//! `orlop-bench start`: how long a store full of small blobs takes to start.
//!
//! The store is filled by pushes. Then the server is stopped and started
//! again some times, then killed and started again some times, each kill with
//! pushes since the last start. Blobs pushed at the beginning are read back
//! after every start.

use crate::client::Connection;
use crate::document::{SCHEMA, StartReport};
use crate::error::{Error, Result};
use crate::load::runtime;
use crate::machine::{self, Machine};
use crate::payload::Payload;
use crate::push::{self, BlobPush};
use crate::server::{Kind, Programs, Server};
use crate::stats::median;
use crate::{process, quick, stop};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Repository the blobs are pushed to.
const REPOSITORY: &str = "bench/start";
/// Longest wait for a start.
const START_LIMIT: Duration = Duration::from_secs(600);
/// Blobs kept in mind and read back after each start.
const SAMPLE: u64 = 100;
/// Blobs pushed before each kill.
const BEFORE_KILL: u64 = 1000;
/// Blobs between two lines of progress.
const PROGRESS: u64 = 100_000;
/// Start time that is asked for, in seconds.
const TARGET: f64 = 2.0;
/// Space a blob may take beside its bytes, for the look at the disk.
const OVERHEAD: u64 = 8 * 1024;

/// What `start` is asked to do.
#[derive(Debug)]
pub(crate) struct Start {
    /// Where the programs are.
    pub(crate) programs: Programs,
    /// Which server.
    pub(crate) kind: Kind,
    /// Folder that holds the data of the run.
    pub(crate) root: PathBuf,
    /// Blobs to push.
    pub(crate) blobs: u64,
    /// Size of each, in bytes.
    pub(crate) size: u64,
    /// Connections that push.
    pub(crate) connections: usize,
    /// Starts after a stop, and as many after a kill.
    pub(crate) restarts: usize,
}

impl Start {
    /// Fills, stops, kills and starts; returns the figures.
    pub(crate) fn run(&self) -> Result<StartReport> {
        let need = self.blobs.saturating_mul(self.size + OVERHEAD);
        machine::want_space(&self.root, need, "start", "--blobs")?;
        let machine = Machine::read(&self.root)?;
        let versions = quick::versions(&self.programs);
        let mut server = self.start()?;
        let begin = Instant::now();
        let mut sample = self.fill(&server, self.blobs)?;
        let fill_seconds = begin.elapsed().as_secs_f64();

        let (mut after_stop, mut after_kill) = (Vec::new(), Vec::new());
        for _ in 0..self.restarts {
            stop::check()?;
            server.stop()?;
            server = self.start()?;
            after_stop.push(server.start_time.as_secs_f64());
            read_back(&server, &sample)?;
        }
        for _ in 0..self.restarts {
            stop::check()?;
            sample.extend(self.fill(&server, BEFORE_KILL)?);
            server.kill()?;
            server = self.start()?;
            after_kill.push(server.start_time.as_secs_f64());
            read_back(&server, &sample)?;
        }
        let memory = process::memory(server.pid())?;
        server.stop()?;
        Ok(StartReport {
            schema: SCHEMA,
            kind: "start",
            machine,
            versions,
            server: self.kind,
            blobs: self.blobs,
            blob_bytes: self.size,
            fill_seconds,
            after_stop_median: median(&after_stop),
            after_kill_median: median(&after_kill),
            after_stop,
            after_kill,
            verified: sample.len(),
            memory,
            target_seconds: TARGET,
        })
    }

    fn start(&self) -> Result<Server> {
        let folder = self.root.join("start");
        Server::start(self.kind, &self.programs, &folder, START_LIMIT)
    }

    /// Pushes `count` new blobs; returns the digests of some of them.
    fn fill(&self, server: &Server, count: u64) -> Result<Vec<String>> {
        let push = Arc::new(BlobPush::new(REPOSITORY, Payload::new(self.size)));
        let next = Arc::new(AtomicU64::new(0));
        let every = (count / SAMPLE).max(1);
        runtime()?.block_on(async {
            let mut workers = JoinSet::new();
            for _ in 0..self.connections {
                let mut connection = Connection::open(server.addr).await?;
                let (push, next) = (Arc::clone(&push), Arc::clone(&next));
                workers.spawn(async move {
                    let mut sample = Vec::new();
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= count {
                            return Ok::<_, Error>(sample);
                        }
                        stop::check()?;
                        let digest = push.push_at_once(&mut connection).await?;
                        if number % every == 0 {
                            sample.push(digest);
                        }
                        if number > 0 && number % PROGRESS == 0 {
                            eprintln!("orlop-bench: {number} of {count} blobs pushed");
                        }
                    }
                });
            }
            let mut sample = Vec::new();
            while let Some(done) = workers.join_next().await {
                let part = done.map_err(|_| Error::Server("a client task ended".to_owned()))?;
                sample.extend(part?);
            }
            Ok(sample)
        })
    }
}

/// Compares blobs with their digests.
fn read_back(server: &Server, sample: &[String]) -> Result<()> {
    runtime()?.block_on(async {
        let mut connection = Connection::open(server.addr).await?;
        for digest in sample {
            let path = push::blob_path(REPOSITORY, digest);
            push::verify(&mut connection, &path, digest).await?;
        }
        Ok(())
    })
}
