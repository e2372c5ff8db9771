//! Jobs as the control socket tells them.

use serde::{Deserialize, Serialize};

use super::{Status, Verb};
use crate::catalog::{Job, JobLine, Schedule, rfc3339};
use crate::jobs::Jobs;

/// A job. Times are RFC 3339 in UTC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobView {
    /// Its number.
    pub id: i64,
    /// What kind of work.
    pub kind: String,
    /// `queued`, `running`, `done`, `failed` or `cancelled`.
    pub state: String,
    /// So much is done.
    pub done: u64,
    /// Of so much; an estimate while it runs.
    pub total: u64,
    /// Of what, such as `bytes`.
    pub unit: String,
    /// Seconds that what it is at will still take, if it goes on as it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eta: Option<u64>,
    /// How often it was taken up.
    pub taken: i64,
    /// Whether somebody wants it to end.
    pub cancel: bool,
    /// When it was asked for.
    pub created: String,
    /// When it began.
    pub started: Option<String>,
    /// Its last sign of life in the catalog.
    pub heartbeat: Option<String>,
    /// When it ended.
    pub ended: Option<String>,
    /// Why it failed, or what came of it.
    pub outcome: Option<String>,
}

/// A line of a job's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineView {
    /// When.
    pub at: String,
    /// What.
    pub text: String,
}

/// When jobs of a kind begin by themselves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScheduleView {
    /// The kind.
    pub kind: String,
    /// As cron writes it, in UTC.
    pub cron: String,
    /// When next.
    pub next: String,
}

impl From<Job> for JobView {
    fn from(job: Job) -> JobView {
        JobView {
            id: job.id,
            kind: job.kind,
            state: job.state.name().to_owned(),
            done: job.progress.done,
            total: job.progress.total,
            unit: job.progress.unit,
            eta: None,
            taken: job.epoch,
            cancel: job.cancel,
            created: rfc3339(job.created_at),
            started: job.started_at.map(rfc3339),
            heartbeat: job.heartbeat.map(rfc3339),
            ended: job.ended_at.map(rfc3339),
            outcome: Some(job.outcome).filter(|text| !text.is_empty()),
        }
    }
}

impl From<JobLine> for LineView {
    fn from(line: JobLine) -> LineView {
        LineView {
            at: rfc3339(line.at),
            text: line.text,
        }
    }
}

impl From<Schedule> for ScheduleView {
    fn from(schedule: Schedule) -> ScheduleView {
        ScheduleView {
            kind: schedule.kind,
            cron: schedule.cron,
            next: rfc3339(schedule.next_at),
        }
    }
}

/// Does what is asked about jobs. None: it is about something else.
pub(super) async fn perform(jobs: &Jobs, verb: Verb, status: Status) -> Result<Status, String> {
    Ok(match verb {
        Verb::JobList { kind } => Status {
            jobs: Some(timed(jobs, views(jobs.list(kind.as_deref()).await?))),
            schedules: Some(views(jobs.schedules().await?)),
            ..status
        },
        Verb::JobShow { id } => Status {
            jobs: Some(timed(jobs, views(vec![jobs.show(id).await?]))),
            ..status
        },
        Verb::JobStart { kind, params } => {
            let params = params.as_deref().unwrap_or("{}");
            one(jobs.start(&kind, params).await?, status)
        }
        Verb::JobCancel { id } => one(jobs.cancel(id).await?, status),
        Verb::JobLog { id } => Status {
            log: Some(views(jobs.log(id).await?)),
            ..status
        },
        _ => status,
    })
}

/// With the time that each still takes.
fn timed(jobs: &Jobs, mut views: Vec<JobView>) -> Vec<JobView> {
    for view in &mut views {
        view.eta = jobs.remaining(view.id).map(|left| left.as_secs());
    }
    views
}

fn views<T, V: From<T>>(all: Vec<T>) -> Vec<V> {
    all.into_iter().map(V::from).collect()
}

fn one(job: Job, status: Status) -> Status {
    Status {
        jobs: Some(vec![job.into()]),
        ..status
    }
}
