//! Takes jobs and runs them: a lane for each kind, and one task that looks at
//! the schedules.
//!
//! What a job costs the catalog beside pushes is one change in ten seconds,
//! and one when it has something to log.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinError, JoinSet};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::run::{Run, Stop, Work};
use super::{Gate, Inner, schedule};
use crate::catalog::{Job, JobEnd, JobState};
use crate::supervisor::{Supervisor, message};

/// How often a running job's progress is written, if there is any.
pub(super) const BEAT: Duration = Duration::from_secs(10);
/// The least time between two writes of one job.
const BEAT_LEAST: Duration = Duration::from_millis(500);
/// How long work may take to end when it is told to.
const GRACE: Duration = Duration::from_secs(4);
/// How often it is looked for jobs that somebody else queued.
const LOOK: Duration = Duration::from_secs(30);
/// Pause after the catalog failed, or something died.
const PAUSE: Duration = Duration::from_secs(1);
/// How often the end of a job is tried to be written.
const END_TRIES: u32 = 5;

/// Runs everything until it is to stop, or what still runs is to be broken off.
pub(super) async fn run(inner: &Arc<Inner>, supervisor: &Supervisor) {
    let mut tasks = JoinSet::new();
    for work in &inner.works {
        let (inner, work, supervisor) = (Arc::clone(inner), Arc::clone(work), supervisor.clone());
        tasks.spawn(async move {
            let lane = || lane(&inner, &work);
            supervisor.keep(work.kind(), inner.stopped(), lane).await;
        });
    }
    let (planner, keeper) = (Arc::clone(inner), supervisor.clone());
    tasks.spawn(async move {
        let plan = || schedule::run(&planner);
        keeper.keep("schedules", planner.stopped(), plan).await;
    });
    let all = async { while tasks.join_next().await.is_some() {} };
    tokio::select! {
        () = all => {}
        () = inner.over() => tasks.shutdown().await,
    }
}

impl Inner {
    /// Ready when no more jobs are to be taken.
    pub(super) async fn stopped(&self) {
        let mut gates = self.gate.subscribe();
        let _ = gates.wait_for(|gate| gate.is_stopping).await;
    }

    /// Ready when a stop waits no longer.
    async fn over(&self) {
        let mut gates = self.gate.subscribe();
        let _ = gates.wait_for(|gate| gate.is_over).await;
    }
}

/// Says that a job is being taken or runs, until it is dropped.
struct Active(Arc<Inner>);

impl Active {
    /// None: no more jobs are to be taken.
    fn enter(inner: &Arc<Inner>) -> Option<Active> {
        let entered = inner.gate.send_if_modified(|gate| {
            if !gate.is_stopping {
                gate.active = gate.active.saturating_add(1);
            }
            !gate.is_stopping
        });
        entered.then(|| Active(Arc::clone(inner)))
    }

    /// One more, for a part of what is active already.
    fn also(&self) -> Active {
        let more = |gate: &mut Gate| gate.active = gate.active.saturating_add(1);
        self.0.gate.send_modify(more);
        Active(Arc::clone(&self.0))
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        let less = |gate: &mut Gate| gate.active = gate.active.saturating_sub(1);
        self.0.gate.send_modify(less);
    }
}

/// Runs the jobs of one kind, one after the other.
async fn lane(inner: &Arc<Inner>, work: &Arc<dyn Work>) {
    let mut is_failing = false;
    loop {
        let woken = inner.wake.notified();
        // Before a job is taken: a stop waits for it from here on.
        let Some(active) = Active::enter(inner) else {
            return;
        };
        match next(inner, work.kind()).await {
            Ok(Some(job)) => {
                is_failing = false;
                perform(&active, work, job).await;
                continue;
            }
            Ok(None) => is_failing = false,
            Err(error) => {
                if !std::mem::replace(&mut is_failing, true) {
                    tracing::warn!(%error, kind = work.kind(), "jobs cannot be looked for; trying again and again");
                }
            }
        }
        drop(active);
        tokio::select! {
            () = woken => {}
            () = sleep(if is_failing { PAUSE } else { LOOK }) => {}
            () = inner.stopped() => {}
        }
    }
}

/// Takes the next job of a kind. Where there is none, nothing is written.
async fn next(inner: &Inner, kind: &str) -> Result<Option<Job>, crate::catalog::CatalogError> {
    let counts = inner.catalog.job_counts().await?;
    let is_wanted = |state| state <= JobState::Running;
    if !counts.iter().any(|row| row.0 == kind && is_wanted(row.1)) {
        return Ok(None);
    }
    // Who has the folder has its catalog alone: every other owner is gone.
    inner.catalog.take_job(kind, &inner.owner, i64::MAX).await
}

/// A job that others see as running, until it is dropped.
struct Current<'a>(&'a Inner, &'static str);

impl Drop for Current<'_> {
    fn drop(&mut self) {
        self.0.current().remove(self.1);
    }
}

/// Runs one job to its end.
async fn perform(active: &Active, work: &Arc<dyn Work>, job: Job) {
    let (inner, kind) = (active.0.as_ref(), work.kind());
    tracing::info!(
        kind,
        job = job.id,
        epoch = job.epoch,
        again = job.place.is_some(),
        "a job begins"
    );
    let run = Arc::new(Run::new(job, Arc::clone(&inner.clock)));
    inner.current().insert(kind, Arc::clone(&run));
    let _current = Current(inner, kind);
    let Some(end) = attend(active, work, &run).await else {
        tracing::warn!(
            kind,
            job = run.id(),
            "a job was taken by somebody else; this process ends its part"
        );
        return;
    };
    match &end {
        JobEnd::Done(outcome) => tracing::info!(kind, job = run.id(), outcome, "a job is done"),
        JobEnd::Failed(why) => tracing::error!(kind, job = run.id(), why, "a job failed"),
        JobEnd::Cancelled => tracing::info!(kind, job = run.id(), "a job was ended"),
        JobEnd::Released => tracing::info!(kind, job = run.id(), "a job waits for the next start"),
    }
    let report = run.take_all();
    for tried in 1..=END_TRIES {
        let ended = inner
            .catalog
            .end_job(run.job(), report.clone(), end.clone());
        match ended.await {
            Ok(_) => return,
            // It stays as running, and is taken again.
            Err(error) => {
                tracing::warn!(%error, kind, job = run.id(), tried, "the end of a job was not written");
            }
        }
        sleep(PAUSE).await;
    }
}

/// Watches over the work: writes what it says, and tells it to end. None: the
/// job is somebody else's by now.
async fn attend(active: &Active, work: &Arc<dyn Work>, run: &Arc<Run>) -> Option<JobEnd> {
    let inner = active.0.as_ref();
    // Aborted when this ends, however it does; a stop waits until it is gone.
    let mut task = JoinSet::new();
    let (held, working) = (active.also(), Arc::clone(work).run(Arc::clone(run)));
    task.spawn(async move {
        let _held = held;
        working.await
    });
    let mut beats = interval(BEAT.min(inner.patience));
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    beats.tick().await;
    loop {
        tokio::select! {
            ended = task.join_next() => return Some(judge(run, ended)),
            () = inner.stopped() => run.end(Stop::Released),
            _ = run.ended() => {}
            _ = beats.tick() => {}
            () = run.news.notified() => {}
        }
        if run.why().is_some() {
            // What does not end by itself goes on from its last place.
            let ended = timeout(GRACE, task.join_next()).await;
            return Some(ended.map_or_else(|_| as_told(run), |ended| judge(run, ended)));
        }
        let quiet = run.quiet();
        if quiet > inner.patience {
            let seconds = quiet.as_secs();
            return Some(JobEnd::Failed(format!(
                "it showed no sign of life for {seconds} s, as if it or the disk hung; start it again when that is found"
            )));
        }
        let Some(report) = run.take() else { continue };
        match inner.catalog.beat_job(run.job(), report.clone()).await {
            Ok(Some(true)) => run.end(Stop::Cancelled),
            Ok(Some(false)) => {}
            Ok(None) => return None,
            Err(error) => {
                run.put_back(report);
                tracing::warn!(%error, job = run.id(), "progress of a job was not written; trying again");
            }
        }
        tokio::select! {
            ended = task.join_next() => return Some(judge(run, ended)),
            _ = run.ended() => {}
            () = sleep(BEAT_LEAST) => {}
        }
    }
}

/// What the end of the work means.
fn judge(run: &Run, ended: Option<Result<Result<String, Stop>, JoinError>>) -> JobEnd {
    match ended {
        Some(Ok(Ok(outcome))) => JobEnd::Done(outcome),
        Some(Ok(Err(Stop::Failed(why)))) => JobEnd::Failed(why),
        Some(Ok(Err(Stop::Cancelled))) => JobEnd::Cancelled,
        Some(Ok(Err(Stop::Released))) => JobEnd::Released,
        Some(Err(error)) => match error.try_into_panic() {
            Ok(panic) => JobEnd::Failed(message(panic.as_ref())),
            Err(_) => as_told(run),
        },
        None => as_told(run),
    }
}

fn as_told(run: &Run) -> JobEnd {
    match run.why() {
        Some(Stop::Cancelled) => JobEnd::Cancelled,
        Some(Stop::Failed(why)) => JobEnd::Failed(why),
        Some(Stop::Released) | None => JobEnd::Released,
    }
}
