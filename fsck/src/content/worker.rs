//! One of those who read and hash. Works off jobs, keeps no state between
//! them but open files and a buffer.

use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};

use orlop_format::digest::{Algorithm, Digest};

use super::extents::{Files, Large, Reader};
use super::{Mismatch, Small, algorithms};
use crate::finding::Finding;
use crate::progress::Progress;
use crate::trouble::Result;

/// What there is to do.
#[derive(Debug)]
pub(super) enum Job {
    /// Small blobs, and the bytes of all of them.
    Small(Vec<(Small, std::ops::Range<usize>)>, Vec<u8>),
    /// A large blob or an upload.
    Large(Box<Large>, Arc<Files>),
    /// One of the two, by its number.
    Numbered(u64, Box<Job>),
}

impl Job {
    /// The same with its number.
    pub(super) fn numbered(self, number: u64) -> Self {
        Job::Numbered(number, Box::new(self))
    }
}

/// What a job came to.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) number: u64,
    pub(super) mismatches: Vec<Mismatch>,
    pub(super) findings: Vec<Finding>,
    pub(super) digests: u64,
    pub(super) bytes: u64,
}

/// One who works.
#[derive(Debug)]
pub(super) struct Worker {
    reader: Reader,
    progress: Arc<Progress>,
}

impl Worker {
    pub(super) fn new(folder: &Path, progress: Arc<Progress>) -> Self {
        Self {
            reader: Reader::new(folder),
            progress,
        }
    }

    /// Works until nobody asks or nobody listens.
    pub(super) fn serve(
        &mut self,
        queue: &Mutex<Receiver<Job>>,
        results: &SyncSender<Result<Outcome>>,
    ) {
        loop {
            // Waiting for a job under the lock is what makes the others wait
            // for theirs.
            let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(job) = job else { return };
            if results.send(self.run(0, job)).is_err() {
                return;
            }
        }
    }

    /// Does a job.
    pub(super) fn run(&mut self, number: u64, job: Job) -> Result<Outcome> {
        match job {
            Job::Numbered(number, job) => self.run(number, *job),
            Job::Small(blobs, bytes) => {
                let mut outcome = Outcome {
                    number,
                    ..Outcome::default()
                };
                for (small, range) in &blobs {
                    let payload = bytes.get(range.clone()).unwrap_or_default();
                    outcome.mismatches.extend(compare(small, payload));
                }
                Ok(outcome)
            }
            Job::Large(large, files) => {
                let mut outcome = self.reader.large(&large, &files, &self.progress)?;
                outcome.number = number;
                Ok(outcome)
            }
        }
    }
}

/// Compares bytes with the digests of their blob.
pub(super) fn compare(small: &Small, payload: &[u8]) -> Vec<Mismatch> {
    let own = Digest::new(Algorithm::Sha256, &small.sha256).ok();
    let mut mismatches = Vec::new();
    for algorithm in algorithms(own.iter().chain(&small.further)) {
        let found = Digest::of(algorithm, payload);
        for wanted in own.iter().chain(&small.further) {
            if wanted.algorithm() == algorithm && *wanted != found {
                mismatches.push(Mismatch {
                    small: small.clone(),
                    wanted: *wanted,
                    found,
                });
            }
        }
    }
    mismatches
}
