//! Are the bytes of every live blob and open upload what their digests say?
//!
//! Small blobs are hashed as the walk passes their records; large ones after
//! it, in the order in which their first extents lie, so that reads are long
//! and go forward. A digest cannot be taken in parts, so several blobs are
//! read and hashed at a time, each by one thread, and what comes next is asked
//! of the disk while the bytes before are hashed. A blob in quarantine is
//! known to be damaged and not read.

mod extents;
mod worker;

use std::collections::VecDeque;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use orlop_format::digest::{Algorithm, Digest};
use orlop_format::location::Place;

use crate::finding::Finding;
use crate::progress::Progress;
use crate::report::{KEPT, Report};
use crate::trouble::{Result, Trouble};

pub(crate) use extents::{Files, Large, Owner};
use worker::{Job, Outcome, Worker};

/// Bytes of small blobs that go to a thread together.
const BATCH: usize = 1 << 20;
/// Jobs that wait, for each thread.
const WAITING: usize = 2;
/// Results that wait to be taken, beyond what threads can have in hand.
const RESULTS: usize = 64;

/// A small blob whose bytes are at hand.
#[derive(Debug, Clone)]
pub(crate) struct Small {
    pub(crate) sha256: [u8; 32],
    pub(crate) lsn: u64,
    pub(crate) place: Place,
    pub(crate) further: Vec<Digest>,
}

/// A small blob that has another digest than its record says.
#[derive(Debug)]
pub(crate) struct Mismatch {
    pub(crate) small: Small,
    pub(crate) wanted: Digest,
    pub(crate) found: Digest,
}

/// Those who read and hash: threads, or the caller itself.
#[derive(Debug)]
pub(crate) struct Crew {
    threads: Option<Threads>,
    own: Worker,
    batch: Vec<(Small, std::ops::Range<usize>)>,
    bytes: Vec<u8>,
    mismatches: Vec<Mismatch>,
    /// Outcomes of large blobs by the number of their job, so that a report
    /// does not depend on who was first.
    findings: Vec<(u64, Finding)>,
    jobs: u64,
    digests: u64,
    read: u64,
}

#[derive(Debug)]
struct Threads {
    jobs: SyncSender<Job>,
    results: Receiver<Result<Outcome>>,
    handles: Vec<JoinHandle<()>>,
    /// Jobs whose results are not taken yet.
    open: u64,
}

impl Crew {
    /// A crew of so many threads; of none: the caller does the work.
    pub(crate) fn new(threads: usize, folder: &Path, progress: &Arc<Progress>) -> Result<Self> {
        let worker = || Worker::new(folder, Arc::clone(progress));
        let threads = match threads {
            0 => None,
            count => Some(Threads::start(count, worker)?),
        };
        Ok(Self {
            threads,
            own: worker(),
            batch: Vec::new(),
            bytes: Vec::new(),
            mismatches: Vec::new(),
            findings: Vec::new(),
            jobs: 0,
            digests: 0,
            read: 0,
        })
    }

    /// Compares the bytes of a small blob with its digests, now or soon.
    pub(crate) fn small(&mut self, small: Small, payload: &[u8]) -> Result<()> {
        if self.threads.is_none() {
            let mismatch = worker::compare(&small, payload);
            self.mismatches.extend(mismatch);
            return Ok(());
        }
        let start = self.bytes.len();
        self.bytes.extend_from_slice(payload);
        self.batch.push((small, start..self.bytes.len()));
        if self.bytes.len() >= BATCH || self.batch.len() >= BATCH / 64 {
            self.send()?;
        }
        Ok(())
    }

    fn send(&mut self) -> Result<()> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let job = Job::Small(
            std::mem::take(&mut self.batch),
            std::mem::take(&mut self.bytes),
        );
        self.submit(job)
    }

    /// What was found of small blobs so far.
    pub(crate) fn mismatches(&mut self) -> Vec<Mismatch> {
        std::mem::take(&mut self.mismatches)
    }

    /// Reads a large blob or an upload and compares it, now or soon.
    pub(crate) fn large(&mut self, large: Large, files: &Arc<Files>) -> Result<()> {
        self.submit(Job::Large(Box::new(large), Arc::clone(files)))
    }

    fn submit(&mut self, job: Job) -> Result<()> {
        let number = self.jobs;
        self.jobs = self.jobs.saturating_add(1);
        let Some(threads) = &mut self.threads else {
            let outcome = self.own.run(number, job)?;
            self.take(outcome);
            return Ok(());
        };
        let numbered = job.numbered(number);
        threads.jobs.send(numbered).map_err(|_| Trouble::Thread)?;
        threads.open = threads.open.saturating_add(1);
        let mut done = Vec::new();
        while let Ok(outcome) = threads.results.try_recv() {
            threads.open = threads.open.saturating_sub(1);
            done.push(outcome?);
        }
        done.into_iter().for_each(|outcome| self.take(outcome));
        Ok(())
    }

    fn take(&mut self, outcome: Outcome) {
        self.mismatches.extend(outcome.mismatches);
        self.digests = self.digests.saturating_add(outcome.digests);
        self.read = self.read.saturating_add(outcome.bytes);
        let room = KEPT.saturating_mul(2).saturating_sub(self.findings.len());
        let found = outcome.findings.into_iter().take(room);
        self.findings
            .extend(found.map(|finding| (outcome.number, finding)));
    }

    /// Waits for all that was begun.
    pub(crate) fn settle(&mut self) -> Result<()> {
        self.send()?;
        let mut done = Vec::new();
        if let Some(threads) = &mut self.threads {
            while threads.open > 0 {
                let outcome = threads.results.recv().map_err(|_| Trouble::Thread)?;
                threads.open = threads.open.saturating_sub(1);
                done.push(outcome?);
            }
        }
        done.into_iter().for_each(|outcome| self.take(outcome));
        Ok(())
    }

    /// Waits, and puts what was found of large blobs into the report.
    pub(crate) fn finish(&mut self, report: &mut Report) -> Result<()> {
        self.settle()?;
        self.findings.sort_by_key(|(number, _)| *number);
        for (_, finding) in self.findings.drain(..) {
            report.add(finding);
        }
        report.counts.digests = report.counts.digests.saturating_add(self.digests);
        report.counts.bytes = report.counts.bytes.saturating_add(self.read);
        (self.digests, self.read) = (0, 0);
        Ok(())
    }
}

impl Threads {
    fn start(count: usize, worker: impl Fn() -> Worker) -> Result<Self> {
        let (jobs, queue) = sync_channel::<Job>(count.saturating_mul(WAITING));
        let queue = Arc::new(Mutex::new(queue));
        let (sender, results) = sync_channel(count.saturating_mul(WAITING + 2) + RESULTS);
        let mut handles = Vec::new();
        for _ in 0..count {
            let (queue, sender, mut worker) = (Arc::clone(&queue), sender.clone(), worker());
            let thread = std::thread::Builder::new()
                .name("fsck-content".to_owned())
                .spawn(move || worker.serve(&queue, &sender))
                .map_err(|source| Trouble::Io {
                    op: "start a thread for",
                    path: "content".into(),
                    source,
                })?;
            handles.push(thread);
        }
        Ok(Self {
            jobs,
            results,
            handles,
            open: 0,
        })
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        // Threads end when nobody can send any more, or take what they did.
        let (dead_jobs, _) = sync_channel(0);
        let (_, dead_results) = sync_channel(0);
        self.jobs = dead_jobs;
        self.results = dead_results;
        for handle in self.handles.drain(..) {
            let _ = handle.join();
        }
    }
}

/// A hasher for each algorithm among the digests.
pub(crate) fn algorithms<'a>(digests: impl IntoIterator<Item = &'a Digest>) -> VecDeque<Algorithm> {
    let mut algorithms = VecDeque::new();
    for digest in digests {
        if !algorithms.contains(&digest.algorithm()) {
            algorithms.push_back(digest.algorithm());
        }
    }
    algorithms
}
