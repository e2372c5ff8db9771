//! Takes jobs and runs them: a lane for each kind, and one task that looks at
//! the schedules.
//!
//! What a job costs the catalog beside pushes is one change in ten seconds,
//! and one when it has something to log.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::run::{Run, Stop, Work};
use super::{Inner, schedule};
use crate::catalog::{Job, JobEnd, JobState};

/// How often a running job's progress is written, if there is any.
pub(super) const BEAT: Duration = Duration::from_secs(10);
/// The least time between two writes of one job.
const BEAT_LEAST: Duration = Duration::from_millis(500);
/// A job without a sign of life for so long has failed.
pub(super) const STALLED: Duration = Duration::from_secs(15 * 60);
/// How long work may take to end when it is told to.
const GRACE: Duration = Duration::from_secs(4);
/// How often it is looked for jobs that somebody else queued.
const LOOK: Duration = Duration::from_secs(30);
/// Pause after the catalog failed, or something died.
const PAUSE: Duration = Duration::from_secs(1);
/// How often the end of a job is tried to be written.
const END_TRIES: u32 = 5;

/// Runs everything until it is to stop.
pub(super) async fn run(inner: &Arc<Inner>) {
    let mut tasks = JoinSet::new();
    for work in &inner.works {
        let (inner, work) = (Arc::clone(inner), Arc::clone(work));
        tasks.spawn(supervise(work.kind(), move || {
            Box::pin(lane(Arc::clone(&inner), Arc::clone(&work)))
        }));
    }
    let planner = Arc::clone(inner);
    tasks.spawn(supervise("schedules", move || {
        Box::pin(schedule::run(Arc::clone(&planner)))
    }));
    while tasks.join_next().await.is_some() {}
}

/// Starts a task again whenever it dies; ends when it ends.
async fn supervise(name: &'static str, task: impl Fn() -> BoxFuture<'static, ()>) {
    loop {
        let mut alone = JoinSet::new();
        alone.spawn(task());
        match alone.join_next().await {
            Some(Err(error)) if error.is_panic() => {
                let why = message(error);
                tracing::error!(
                    task = name,
                    why,
                    "a task of the jobs died; it is started again"
                );
                sleep(PAUSE).await;
            }
            _ => return,
        }
    }
}

fn message(error: JoinError) -> String {
    let Ok(panic) = error.try_into_panic() else {
        return "it was aborted".to_owned();
    };
    let panic: &(dyn Any + Send) = panic.as_ref();
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    format!("it panicked: {}", text.unwrap_or("no message"))
}

/// Runs the jobs of one kind, one after the other.
async fn lane(inner: Arc<Inner>, work: Arc<dyn Work>) {
    let mut stopping = inner.stopping.subscribe();
    let mut is_failing = false;
    while !*stopping.borrow() {
        let woken = inner.wake.notified();
        match next(&inner, work.kind()).await {
            Ok(Some(job)) => {
                is_failing = false;
                perform(&inner, &work, job).await;
                continue;
            }
            Ok(None) => is_failing = false,
            Err(error) => {
                if !std::mem::replace(&mut is_failing, true) {
                    tracing::warn!(%error, kind = work.kind(), "jobs cannot be looked for; trying again and again");
                }
            }
        }
        tokio::select! {
            () = woken => {}
            () = sleep(if is_failing { PAUSE } else { LOOK }) => {}
            _ = stopping.wait_for(|stop| *stop) => {}
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

/// Says that something runs, until it is dropped.
struct Active<'a>(&'a Inner, &'static str);

impl Drop for Active<'_> {
    fn drop(&mut self) {
        self.0.current().remove(self.1);
        self.0
            .active
            .send_modify(|count| *count = count.saturating_sub(1));
    }
}

/// Runs one job to its end.
async fn perform(inner: &Inner, work: &Arc<dyn Work>, job: Job) {
    let kind = work.kind();
    tracing::info!(
        kind,
        job = job.id,
        epoch = job.epoch,
        again = job.place.is_some(),
        "a job begins"
    );
    let run = Arc::new(Run::new(job, Arc::clone(&inner.clock)));
    inner.current().insert(kind, Arc::clone(&run));
    inner
        .active
        .send_modify(|count| *count = count.saturating_add(1));
    let _active = Active(inner, kind);
    let Some(end) = attend(inner, work, &run).await else {
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
async fn attend(inner: &Inner, work: &Arc<dyn Work>, run: &Arc<Run>) -> Option<JobEnd> {
    // Aborted when this ends, however it does.
    let mut task = JoinSet::new();
    task.spawn(Arc::clone(work).run(Arc::clone(run)));
    let mut stopping = inner.stopping.subscribe();
    let mut beats = interval(BEAT);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    beats.tick().await;
    loop {
        tokio::select! {
            ended = task.join_next() => return Some(judge(run, ended)),
            _ = stopping.wait_for(|stop| *stop) => run.end(Stop::Released),
            _ = run.ended() => {}
            _ = beats.tick() => {}
            () = run.news.notified() => {}
        }
        if run.why().is_some() {
            // What does not end by itself goes on from its last place.
            let ended = timeout(GRACE, task.join_next()).await;
            return Some(ended.map_or_else(|_| as_told(run), |ended| judge(run, ended)));
        }
        if run.quiet() > STALLED {
            let minutes = STALLED.as_secs() / 60;
            return Some(JobEnd::Failed(format!(
                "no sign of life for {minutes} minutes"
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
        sleep(BEAT_LEAST).await;
    }
}

/// What the end of the work means.
fn judge(run: &Run, ended: Option<Result<Result<String, Stop>, JoinError>>) -> JobEnd {
    match ended {
        Some(Ok(Ok(outcome))) => JobEnd::Done(outcome),
        Some(Ok(Err(Stop::Failed(why)))) => JobEnd::Failed(why),
        Some(Ok(Err(Stop::Cancelled))) => JobEnd::Cancelled,
        Some(Ok(Err(Stop::Released))) => JobEnd::Released,
        Some(Err(error)) if error.is_panic() => JobEnd::Failed(message(error)),
        Some(Err(_)) | None => as_told(run),
    }
}

fn as_told(run: &Run) -> JobEnd {
    match run.why() {
        Some(Stop::Cancelled) => JobEnd::Cancelled,
        Some(Stop::Failed(why)) => JobEnd::Failed(why),
        Some(Stop::Released) | None => JobEnd::Released,
    }
}
