//! Jobs: work that the server does by itself, as rows that outlive it.
//!
//! Owns: taking queued jobs of the kinds it was given, one of a kind at a
//! time, their signs of life, their ends, and the schedules that queue them.
//! [`Jobs`] is the way in; [`Work`] is what a kind implements.
//!
//! Invariants: a job that its process did not end is gone on with by the next
//! one, from where it was, and given up after it got nowhere three times; who
//! lost a job to somebody else writes nothing of it; work that panics, or shows
//! no sign of life, ends as failed and takes nothing else down.
//!
//! Refuses to know: HTTP and SQL.

mod run;
mod runner;
mod schedule;
mod scrub;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use crate::catalog::{Catalog, CatalogError, Job, JobLine, JobState, Schedule};
use crate::supervisor::Supervisor;
pub use run::{Run, Stop, Work};
pub use schedule::Cron;
pub use scrub::{SCRUB, Scrub};

/// How long a stop waits for work to give its job back.
const STOP_TIME: Duration = Duration::from_secs(6);
/// How long it waits for the end of what it broke off then.
const ABORT_TIME: Duration = Duration::from_secs(1);
/// A job without a sign of life for so long has failed.
const STALLED: Duration = Duration::from_secs(15 * 60);

/// Milliseconds since 1970: a clock, so that tests can have their own.
pub type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// The jobs of this server. Clones share them.
#[derive(Clone)]
pub struct Jobs(Arc<Inner>);

struct Inner {
    catalog: Catalog,
    /// This opening of this store, so that no other process has the same.
    owner: String,
    works: Vec<Arc<dyn Work>>,
    plans: Vec<(&'static str, Option<Cron>)>,
    clock: Clock,
    /// Told when a job was queued.
    wake: Notify,
    /// A job without a sign of life for so long has failed.
    patience: Duration,
    gate: watch::Sender<Gate>,
    /// What runs now, by kind.
    current: Mutex<HashMap<&'static str, Arc<Run>>>,
}

/// Whether jobs are taken, and what is at it: one value, so that a stop sees
/// every job that is being taken, and none is taken after it looked.
#[derive(Default)]
struct Gate {
    is_stopping: bool,
    /// The stop waits no longer: what still runs is broken off.
    is_over: bool,
    /// Lanes that take or run a job, and work under way.
    active: usize,
}

/// How jobs are, for whoever publishes it.
#[derive(Debug, Default)]
pub struct Observed {
    /// How many there are, by kind and state.
    pub counts: Vec<(String, JobState, u64)>,
    /// When the last one of a kind was done, in milliseconds since 1970.
    pub done: Vec<(String, i64)>,
}

impl Jobs {
    /// Jobs of these kinds. Nothing runs before [`Jobs::run`].
    pub fn new(catalog: Catalog, owner: String, clock: Clock) -> Jobs {
        Jobs(Arc::new(Inner {
            catalog,
            owner,
            works: Vec::new(),
            plans: Vec::new(),
            clock,
            wake: Notify::new(),
            patience: STALLED,
            gate: watch::Sender::default(),
            current: Mutex::default(),
        }))
    }

    /// Adds a kind, and when it begins by itself.
    #[must_use]
    pub fn with(self, work: Arc<dyn Work>, plan: Option<Cron>) -> Jobs {
        self.change(|inner| {
            inner.plans.push((work.kind(), plan));
            inner.works.push(work);
        })
    }

    /// How long a job may show no sign of life before it has failed.
    #[must_use]
    pub fn with_patience(self, patience: Duration) -> Jobs {
        self.change(|inner| inner.patience = patience)
    }

    fn change(mut self, change: impl FnOnce(&mut Inner)) -> Jobs {
        match Arc::get_mut(&mut self.0) {
            Some(inner) => change(inner),
            None => tracing::error!("a kind or a limit of jobs came too late and does not count"),
        }
        self
    }

    /// Takes and runs jobs until [`Jobs::stop`]. What dies is started again.
    pub async fn run(&self, supervisor: &Supervisor) {
        runner::run(&self.0, supervisor).await;
    }

    /// Gives jobs that run back, for the next start to go on with. On return
    /// no job is being taken, runs, or writes, unless its work blocks a thread.
    pub async fn stop(&self) {
        let gate = &self.0.gate;
        gate.send_modify(|gate| gate.is_stopping = true);
        let mut gates = gate.subscribe();
        if timeout(STOP_TIME, gates.wait_for(|gate| gate.active == 0))
            .await
            .is_ok()
        {
            return;
        }
        tracing::warn!("a job did not end in time; the next start goes on with it");
        gate.send_modify(|gate| gate.is_over = true);
        if timeout(ABORT_TIME, gates.wait_for(|gate| gate.active == 0))
            .await
            .is_err()
        {
            tracing::error!("the work of a job blocks a thread and goes on during the stop");
        }
    }

    /// Queues a job of a kind, with parameters whose meaning is the kind's. The
    /// error says why not.
    ///
    /// # Errors
    /// There is no such kind, one of it waits or runs, or the catalog cannot
    /// be written.
    pub async fn start(&self, kind: &str, params: &str) -> Result<Job, String> {
        if !self.0.works.iter().any(|work| work.kind() == kind) {
            return Err(format!("there is no kind of job called {kind:?}"));
        }
        let added = self.0.catalog.add_job(kind, params).await.map_err(text)?;
        let Some(id) = added else {
            let jobs = self.list(Some(kind)).await?;
            let active = jobs.iter().find(|job| job.state <= JobState::Running);
            let which = active.map_or_else(String::new, |job| {
                format!(": job {} is {}", job.id, job.state.name())
            });
            return Err(format!("there is a {kind} already{which}"));
        };
        self.0.wake.notify_waiters();
        tracing::info!(kind, job = id, "a job was queued");
        self.show(id).await
    }

    /// Ends a job.
    ///
    /// # Errors
    /// There is none that waits or runs, or the catalog cannot be written.
    pub async fn cancel(&self, id: i64) -> Result<Job, String> {
        if !self.0.catalog.cancel_job(id).await.map_err(text)? {
            let job = self.show(id).await?;
            return Err(format!("job {id} is {} already", job.state.name()));
        }
        tracing::info!(job = id, "a job was cancelled");
        let running = self
            .0
            .current()
            .values()
            .find(|run| run.id() == id)
            .cloned();
        if let Some(run) = running {
            run.end(Stop::Cancelled);
        }
        self.show(id).await
    }

    /// The newest jobs.
    ///
    /// # Errors
    /// The catalog cannot be read.
    pub async fn list(&self, kind: Option<&str>) -> Result<Vec<Job>, String> {
        let mut jobs = self.0.catalog.jobs(kind, LISTED).await.map_err(text)?;
        for job in &mut jobs {
            self.0.refresh(job);
        }
        Ok(jobs)
    }

    /// One job.
    ///
    /// # Errors
    /// There is none, or the catalog cannot be read.
    pub async fn show(&self, id: i64) -> Result<Job, String> {
        let job = self.0.catalog.job(id).await.map_err(text)?;
        let mut job = job.ok_or_else(|| format!("there is no job {id}"))?;
        self.0.refresh(&mut job);
        Ok(job)
    }

    /// How long what a job is at will still take, if it runs here and that can be
    /// told.
    pub fn remaining(&self, id: i64) -> Option<Duration> {
        let run = self
            .0
            .current()
            .values()
            .find(|run| run.id() == id)
            .cloned();
        run.and_then(|run| run.remaining())
    }

    /// A job's log.
    ///
    /// # Errors
    /// There is no such job, or the catalog cannot be read.
    pub async fn log(&self, id: i64) -> Result<Vec<JobLine>, String> {
        self.show(id).await?;
        self.0.catalog.job_log(id).await.map_err(text)
    }

    /// When jobs begin by themselves.
    ///
    /// # Errors
    /// The catalog cannot be read.
    pub async fn schedules(&self) -> Result<Vec<Schedule>, String> {
        let schedules = self.0.catalog.schedules().await.map_err(text)?;
        Ok(schedules.into_iter().filter(|plan| plan.enabled).collect())
    }

    /// How they are.
    ///
    /// # Errors
    /// The catalog cannot be read.
    pub async fn observe(&self) -> Result<Observed, CatalogError> {
        let rows = self.0.catalog.job_counts().await?;
        let mut observed = Observed::default();
        for work in &self.0.works {
            let kind = work.kind();
            let of = |state| rows.iter().find(|row| row.0 == kind && row.1 == state);
            for state in JobState::ALL {
                let count = of(state).map_or(0, |row| row.2);
                observed.counts.push((kind.to_owned(), state, count));
            }
            let done = of(JobState::Done).and_then(|row| row.3).unwrap_or(0);
            observed.done.push((kind.to_owned(), done));
        }
        Ok(observed)
    }

    /// Seconds since the last sign of life of what runs, by kind; 0 where
    /// nothing does.
    pub fn ages(&self) -> Vec<(&'static str, u64)> {
        let age = |kind| {
            let run = self.0.current().get(kind).cloned();
            run.map_or(0, |run| run.quiet().as_secs())
        };
        let kinds = self.0.works.iter().map(|work| work.kind());
        kinds.map(|kind| (kind, age(kind))).collect()
    }
}

/// Jobs that a list has.
const LISTED: usize = 100;

fn text(error: CatalogError) -> String {
    error.to_string()
}

impl Inner {
    // A map that is whole between any two calls.
    fn current(&self) -> MutexGuard<'_, HashMap<&'static str, Arc<Run>>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Newer than its row, where it runs here.
    fn refresh(&self, job: &mut Job) {
        let run = self
            .current()
            .values()
            .find(|run| run.id() == job.id)
            .cloned();
        if let Some(run) = run
            && job.state == JobState::Running
        {
            job.progress = run.progress();
        }
    }
}
