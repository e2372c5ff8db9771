//! Jobs and schedules: rows that say what the server itself has to do, is
//! doing and did.
//!
//! Invariants: of each kind at most one runs; taking a job raises its epoch,
//! and whoever writes with an older one writes nothing; lines of log and ended
//! jobs have bounds. Like counts of pulls they are no change of a name: no
//! change row, no cache, no sequence.
//!
//! Refuses to know: what a kind does, and when a schedule is due.

use super::Catalog;
use super::error::CatalogError;
use super::job_verb::JobVerb;
use super::read::within;
use super::sql::{Arg, Row};
use super::verb::{Progress, Verb};

/// Ended jobs of a kind that are kept.
pub const JOBS_KEPT: i64 = 50;
/// Lines of log that are kept of a job: the last.
pub const JOB_LINES: i64 = 200;
/// Characters of a line, of an outcome, and of parameters.
pub const JOB_TEXT_MAX: usize = 1024;
/// How often a job is taken without getting any further before it has failed.
pub const JOB_ATTEMPTS: i64 = 3;
/// Jobs in one list, at most.
const LISTED: usize = 200;

macro_rules! columns {
    () => {
        "id, kind, state, params, done, total, unit, place, owner, epoch, attempts, cancel, \
         created_at, started_at, heartbeat, ended_at, outcome"
    };
}

/// How far a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum JobState {
    /// It waits for its turn.
    Queued = 1,
    /// Somebody is at it.
    Running = 2,
    /// It came to its end.
    Done = 3,
    /// It ended without.
    Failed = 4,
    /// Somebody wanted it to end.
    Cancelled = 5,
}

impl JobState {
    /// Every state.
    pub const ALL: [JobState; 5] = [
        JobState::Queued,
        JobState::Running,
        JobState::Done,
        JobState::Failed,
        JobState::Cancelled,
    ];

    /// Its stable name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            JobState::Queued => "queued",
            JobState::Running => "running",
            JobState::Done => "done",
            JobState::Failed => "failed",
            JobState::Cancelled => "cancelled",
        }
    }

    fn from_number(number: i64) -> Option<JobState> {
        JobState::ALL
            .into_iter()
            .find(|state| *state as i64 == number)
    }
}

/// A job. Times are milliseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Its number.
    pub id: i64,
    /// What kind of work.
    pub kind: String,
    /// How far it is.
    pub state: JobState,
    /// JSON, whose meaning is the kind's.
    pub params: String,
    /// What was done so far, of what there is to do, in this unit.
    pub progress: JobProgress,
    /// Where to go on.
    pub place: Option<Vec<u8>>,
    /// Who runs it, or ran it last.
    pub owner: String,
    /// How often it was taken.
    pub epoch: i64,
    /// How often it was taken without getting any further.
    pub attempts: i64,
    /// Whether somebody wants it to end.
    pub cancel: bool,
    /// When it was asked for.
    pub created_at: i64,
    /// When it began.
    pub started_at: Option<i64>,
    /// Its last sign of life.
    pub heartbeat: Option<i64>,
    /// When it ended.
    pub ended_at: Option<i64>,
    /// Why it failed, or what came of it.
    pub outcome: String,
}

/// How much of a job is done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JobProgress {
    /// So much is done.
    pub done: u64,
    /// Of so much.
    pub total: u64,
    /// Of what, such as `bytes`.
    pub unit: String,
}

/// A line of a job's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobLine {
    /// When, in milliseconds since 1970.
    pub at: i64,
    /// What.
    pub text: String,
}

/// When jobs of a kind begin by themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    /// The kind.
    pub kind: String,
    /// When, as cron writes it, in UTC.
    pub cron: String,
    /// Whether it holds.
    pub enabled: bool,
    /// When next, in milliseconds since 1970.
    pub next_at: i64,
}

/// What a runner has to say of its job.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JobReport {
    /// How much is done.
    pub progress: JobProgress,
    /// Where to go on.
    pub place: Option<Vec<u8>>,
    /// New lines of log.
    pub lines: Vec<JobLine>,
}

/// What became of a job that is not run any further.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobEnd {
    /// Done, and what came of it.
    Done(String),
    /// Failed, and why.
    Failed(String),
    /// Somebody wanted it.
    Cancelled,
    /// Its runner ends: another goes on.
    Released,
}

impl Catalog {
    /// Queues a job, unless one of its kind waits or runs. Says its number.
    ///
    /// # Errors
    /// As [`Catalog::put_manifest`].
    pub async fn add_job(&self, kind: &str, params: &str) -> Result<Option<i64>, CatalogError> {
        let verb = JobVerb::Add {
            kind: kind.to_owned(),
            params: cut(params),
        };
        self.number(verb).await
    }

    /// Takes the next job of a kind: one whose runner is gone, which is not
    /// `owner` and gave no sign of life since `stale`, or one that waits. A job
    /// that was taken too often without getting any further has failed then.
    ///
    /// # Errors
    /// As [`Catalog::put_manifest`].
    pub async fn take_job(
        &self,
        kind: &str,
        owner: &str,
        stale: i64,
    ) -> Result<Option<Job>, CatalogError> {
        let verb = JobVerb::Take {
            kind: kind.to_owned(),
            owner: owner.to_owned(),
            stale,
        };
        let Some(id) = self.number(verb).await? else {
            return Ok(None);
        };
        let job = self.job(id).await?;
        Ok(job.filter(|job| job.state == JobState::Running && job.owner == owner))
    }

    /// Writes what a runner has to say. Whether it is to end; None: the job is
    /// not the runner's any more.
    ///
    /// # Errors
    /// As [`Catalog::put_manifest`].
    pub async fn beat_job(
        &self,
        job: &Job,
        report: JobReport,
    ) -> Result<Option<bool>, CatalogError> {
        let verb = JobVerb::Beat {
            id: job.id,
            epoch: job.epoch,
            report,
            end: None,
        };
        Ok(self.number(verb).await?.map(|cancel| cancel != 0))
    }

    /// Ends a job, or gives it back. False: it was not the runner's any more.
    ///
    /// # Errors
    /// As [`Catalog::put_manifest`].
    pub async fn end_job(
        &self,
        job: &Job,
        report: JobReport,
        end: JobEnd,
    ) -> Result<bool, CatalogError> {
        let verb = JobVerb::Beat {
            id: job.id,
            epoch: job.epoch,
            report,
            end: Some(end),
        };
        Ok(self.number(verb).await?.is_some())
    }

    /// Cancels a job: at once if it waits, else its runner is told. False:
    /// there is none that could be cancelled.
    ///
    /// # Errors
    /// As [`Catalog::put_manifest`].
    pub async fn cancel_job(&self, id: i64) -> Result<bool, CatalogError> {
        Ok(self.number(JobVerb::Cancel { id }).await?.is_some())
    }

    /// Sets when jobs of a kind begin by themselves.
    ///
    /// # Errors
    /// As [`Catalog::put_manifest`].
    pub async fn plan_jobs(&self, schedule: Schedule) -> Result<(), CatalogError> {
        self.number(JobVerb::Plan(schedule)).await.map(|_| ())
    }

    /// Queues the job of a schedule that is due, unless one of its kind waits
    /// or runs, and sets when it is due next. None when it was queued by
    /// somebody else, or not at all.
    ///
    /// # Errors
    /// As [`Catalog::put_manifest`].
    pub async fn fire_schedule(
        &self,
        due: &Schedule,
        next_at: i64,
    ) -> Result<Option<i64>, CatalogError> {
        let due = due.clone();
        self.number(JobVerb::Fire { due, next_at }).await
    }

    async fn number(&self, verb: JobVerb) -> Result<Option<i64>, CatalogError> {
        Ok(match self.step(Verb::Job(Box::new(verb))).await? {
            Progress::Number(number) => Some(number),
            _ => None,
        })
    }

    /// A job.
    ///
    /// # Errors
    /// When it cannot be known.
    pub async fn job(&self, id: i64) -> Result<Option<Job>, CatalogError> {
        within(async {
            let mut connection = self.reader().await?;
            let sql = concat!("SELECT ", columns!(), " FROM job WHERE id = $1");
            let row = connection.row(sql, &[Arg::Int(id)]).await?;
            row.as_ref().map(job).transpose()
        })
        .await
    }

    /// The newest jobs, up to `n` of them, of one kind if it is given.
    ///
    /// # Errors
    /// When it cannot be known.
    pub async fn jobs(&self, kind: Option<&str>, n: usize) -> Result<Vec<Job>, CatalogError> {
        within(async {
            let mut connection = self.reader().await?;
            let n = Arg::Int(i64::try_from(n.min(LISTED)).unwrap_or(i64::MAX));
            let rows = match kind {
                None => {
                    let sql = concat!("SELECT ", columns!(), " FROM job ORDER BY id DESC LIMIT $1");
                    connection.rows(sql, &[n]).await?
                }
                Some(kind) => {
                    let sql = concat!(
                        "SELECT ",
                        columns!(),
                        " FROM job WHERE kind = $2 ORDER BY id DESC LIMIT $1"
                    );
                    connection.rows(sql, &[n, Arg::Text(kind)]).await?
                }
            };
            rows.iter().map(job).collect()
        })
        .await
    }

    /// What is kept of a job's log.
    ///
    /// # Errors
    /// When it cannot be known.
    pub async fn job_log(&self, id: i64) -> Result<Vec<JobLine>, CatalogError> {
        within(async {
            let mut connection = self.reader().await?;
            let rows = connection
                .rows(
                    "SELECT at, text FROM job_log WHERE job = $1 ORDER BY line",
                    &[Arg::Int(id)],
                )
                .await?;
            let line = |row: &Row| {
                Ok(JobLine {
                    at: row.int(0)?,
                    text: row.text(1)?,
                })
            };
            rows.iter().map(line).collect()
        })
        .await
    }

    /// How many jobs there are by kind and state, and when the last of the
    /// kind was done.
    ///
    /// # Errors
    /// When it cannot be known.
    pub async fn job_counts(
        &self,
    ) -> Result<Vec<(String, JobState, u64, Option<i64>)>, CatalogError> {
        within(async {
            let mut connection = self.reader().await?;
            let rows = connection
                .rows(
                    "SELECT kind, state, count(*), max(ended_at) FROM job \
                     GROUP BY kind, state ORDER BY kind, state",
                    &[],
                )
                .await?;
            let count = |row: &Row| {
                let state = JobState::from_number(row.int(1)?).ok_or_else(unknown)?;
                Ok((
                    row.text(0)?,
                    state,
                    row.int(2)?.unsigned_abs(),
                    time(row.int(3)?),
                ))
            };
            rows.iter().map(count).collect()
        })
        .await
    }

    /// All schedules.
    ///
    /// # Errors
    /// When it cannot be known.
    pub async fn schedules(&self) -> Result<Vec<Schedule>, CatalogError> {
        within(async {
            let mut connection = self.reader().await?;
            let sql = "SELECT kind, cron, enabled, next_at FROM schedule ORDER BY kind";
            let rows = connection.rows(sql, &[]).await?;
            let schedule = |row: &Row| {
                Ok(Schedule {
                    kind: row.text(0)?,
                    cron: row.text(1)?,
                    enabled: row.int(2)? != 0,
                    next_at: row.int(3)?,
                })
            };
            rows.iter().map(schedule).collect()
        })
        .await
    }
}

fn unknown() -> CatalogError {
    CatalogError::damaged("a job is in an unknown state")
}

fn time(at: i64) -> Option<i64> {
    Some(at).filter(|at| *at >= 0)
}

fn job(row: &Row) -> Result<Job, CatalogError> {
    Ok(Job {
        id: row.int(0)?,
        kind: row.text(1)?,
        state: JobState::from_number(row.int(2)?).ok_or_else(unknown)?,
        params: row.text(3)?,
        progress: JobProgress {
            done: row.int(4)?.unsigned_abs(),
            total: row.int(5)?.unsigned_abs(),
            unit: row.text(6)?,
        },
        place: row.maybe_bytes(7)?,
        owner: row.text(8)?,
        epoch: row.int(9)?,
        attempts: row.int(10)?,
        cancel: row.int(11)? != 0,
        created_at: row.int(12)?,
        started_at: time(row.int(13)?),
        heartbeat: time(row.int(14)?),
        ended_at: time(row.int(15)?),
        outcome: row.text(16)?,
    })
}

/// A text with no more characters than are kept.
pub(super) fn cut(text: &str) -> String {
    text.chars().take(JOB_TEXT_MAX).collect()
}
