//! A job while it runs: what its work sees of it, and says of itself.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use tokio::sync::{Notify, watch};

use super::Clock;
use crate::catalog::{JOB_LINES, Job, JobLine, JobProgress, JobReport};

/// A kind of work.
pub trait Work: Send + Sync + 'static {
    /// Its stable name.
    fn kind(&self) -> &'static str;

    /// Does a job, from its place on. Says what came of it.
    fn run(self: Arc<Self>, run: Arc<Run>) -> BoxFuture<'static, Result<String, Stop>>;
}

/// Why work ends before its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// It cannot go on.
    Failed(String),
    /// Somebody wants that.
    Cancelled,
    /// The server stops; the next one goes on.
    Released,
}

/// A job that runs.
pub struct Run {
    job: Job,
    clock: Clock,
    said: Mutex<Said>,
    /// Told when what was said should be written soon.
    pub(super) news: Notify,
    end: watch::Sender<Option<Stop>>,
}

struct Said {
    report: JobReport,
    /// Whether something was said since it was written.
    is_new: bool,
    alive: Instant,
    /// When the unit of its progress was said first, and how much was done then.
    began: Option<(String, Instant, u64)>,
}

impl Run {
    pub(super) fn new(job: Job, clock: Clock) -> Run {
        let report = JobReport {
            progress: job.progress.clone(),
            place: job.place.clone(),
            lines: Vec::new(),
        };
        let said = Said {
            report,
            is_new: false,
            alive: Instant::now(),
            began: None,
        };
        Run {
            job,
            clock,
            said: Mutex::new(said),
            news: Notify::new(),
            end: watch::Sender::new(None),
        }
    }

    // Whole between any two calls.
    fn said(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The job's number.
    pub fn id(&self) -> i64 {
        self.job.id
    }

    pub(super) fn job(&self) -> &Job {
        &self.job
    }

    /// JSON, whose meaning is the kind's.
    pub fn params(&self) -> &str {
        &self.job.params
    }

    /// Where to go on; None to begin.
    pub fn place(&self) -> Option<&[u8]> {
        self.job.place.as_deref()
    }

    /// How much is done.
    pub fn progress(&self) -> JobProgress {
        self.said().report.progress.clone()
    }

    /// How long what it is at will take if it goes on as it did. None: nothing
    /// tells.
    pub fn remaining(&self) -> Option<Duration> {
        let said = self.said();
        let (_, began, from) = said.began.as_ref()?;
        let progress = &said.report.progress;
        let done = progress.done.checked_sub(*from).filter(|done| *done > 0)?;
        let left = progress.total.checked_sub(progress.done)?;
        let millis = u128::from(left).checked_mul(began.elapsed().as_millis())?;
        let millis = millis.checked_div(u128::from(done))?;
        u64::try_from(millis).ok().map(Duration::from_millis)
    }

    /// Says how much is done, and where another would go on. A sign of life.
    pub fn report(&self, progress: JobProgress, place: Vec<u8>) {
        let mut said = self.said();
        let is_same =
            |began: &(String, Instant, u64)| began.0 == progress.unit && began.2 <= progress.done;
        if !said.began.as_ref().is_some_and(is_same) {
            said.began = Some((progress.unit.clone(), Instant::now(), progress.done));
        }
        said.report.progress = progress;
        said.report.place = Some(place);
        said.is_new = true;
        said.alive = Instant::now();
    }

    /// A sign of life of work that has nothing to report yet. It is kept with
    /// the job, and is no progress: a job that only lives is given up as one
    /// that gets nowhere.
    pub fn alive(&self) {
        let mut said = self.said();
        said.is_new = true;
        said.alive = Instant::now();
    }

    /// Adds a line to the job's log, which is written soon. Of too many the
    /// oldest go.
    pub fn log(&self, text: String) {
        let at = (self.clock)();
        let mut said = self.said();
        let extra = said.report.lines.len().saturating_add(1);
        let extra = extra.saturating_sub(usize::try_from(JOB_LINES).unwrap_or(usize::MAX));
        said.report.lines.drain(..extra);
        said.report.lines.push(JobLine { at, text });
        said.is_new = true;
        drop(said);
        self.news.notify_one();
    }

    /// Ready when the work is to end, and why.
    pub async fn ended(&self) -> Stop {
        let mut end = self.end.subscribe();
        let ended = end.wait_for(Option::is_some).await;
        ended
            .ok()
            .and_then(|why| (*why).clone())
            .unwrap_or(Stop::Released)
    }

    /// Wants the work to end. The first reason counts.
    pub(super) fn end(&self, why: Stop) {
        self.end.send_if_modified(|end| {
            let is_first = end.is_none();
            if is_first {
                *end = Some(why);
            }
            is_first
        });
    }

    pub(super) fn why(&self) -> Option<Stop> {
        self.end.borrow().clone()
    }

    /// Time since its last sign of life.
    pub(super) fn quiet(&self) -> Duration {
        self.said().alive.elapsed()
    }

    /// What was said since the last time, if anything.
    pub(super) fn take(&self) -> Option<JobReport> {
        let mut said = self.said();
        if !std::mem::take(&mut said.is_new) {
            return None;
        }
        let report = said.report.clone();
        said.report.lines.clear();
        Some(report)
    }

    /// What was said, for the last time.
    pub(super) fn take_all(&self) -> JobReport {
        let mut said = self.said();
        let report = said.report.clone();
        said.report.lines.clear();
        report
    }

    /// It could not be written.
    pub(super) fn put_back(&self, report: JobReport) {
        let mut said = self.said();
        let mut lines = report.lines;
        lines.append(&mut said.report.lines);
        let most = usize::try_from(JOB_LINES).unwrap_or(usize::MAX);
        let extra = lines.len().saturating_sub(most);
        lines.drain(..extra);
        said.report.lines = lines;
        said.is_new = true;
    }
}
