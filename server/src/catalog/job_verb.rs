//! The changes of jobs, as statements.
//!
//! Invariant: whoever runs a job writes under its epoch, in one conditional
//! statement; what was taken from him meanwhile stays as it is.

use super::jobs::{JOB_ATTEMPTS, JOB_LINES, JOBS_KEPT, JobEnd, JobReport, JobState, Schedule, cut};
use super::sql::{Arg, Connection};
use super::verb::Effect;

type Result<T> = std::result::Result<T, sqlx::Error>;

/// Jobs that one taking gives up on the way to one it takes.
const GIVEN_UP: usize = 8;

/// A change of jobs.
#[derive(Debug, Clone)]
pub(super) enum JobVerb {
    Add {
        kind: String,
        params: String,
    },
    Take {
        kind: String,
        owner: String,
        stale: i64,
    },
    Beat {
        id: i64,
        epoch: i64,
        report: JobReport,
        end: Option<JobEnd>,
    },
    Cancel {
        id: i64,
    },
    Plan(Schedule),
    Fire {
        due: Schedule,
        next_at: i64,
    },
}

impl JobVerb {
    /// Runs the change. The connection is in a transaction.
    pub(super) async fn apply(&self, connection: &mut Connection, now: i64) -> Result<Effect> {
        let number = match self {
            JobVerb::Add { kind, params } => add(connection, kind, params, now).await?,
            JobVerb::Take { kind, owner, stale } => {
                take(connection, kind, owner, *stale, now).await?
            }
            JobVerb::Beat {
                id,
                epoch,
                report,
                end,
            } => beat(connection, (*id, *epoch), report, end.as_ref(), now).await?,
            JobVerb::Cancel { id } => cancel(connection, *id, now).await?,
            JobVerb::Plan(schedule) => plan(connection, schedule).await?,
            JobVerb::Fire { due, next_at } => fire(connection, due, *next_at, now).await?,
        };
        Ok(Effect {
            number,
            ..Effect::default()
        })
    }
}

async fn add(
    connection: &mut Connection,
    kind: &str,
    params: &str,
    now: i64,
) -> Result<Option<i64>> {
    let sql = "SELECT id FROM job WHERE kind = $1 AND state <= 2 LIMIT 1";
    if connection.row(sql, &[Arg::Text(kind)]).await?.is_some() {
        return Ok(None);
    }
    let row = connection
        .one(
            "INSERT INTO job (kind, state, params, created_at) VALUES ($1, 1, $2, $3) \
             RETURNING id",
            &[Arg::Text(kind), Arg::Text(params), Arg::Int(now)],
        )
        .await?;
    Ok(Some(row.int(0)?))
}

async fn take(
    connection: &mut Connection,
    kind: &str,
    owner: &str,
    stale: i64,
    now: i64,
) -> Result<Option<i64>> {
    for _ in 0..GIVEN_UP {
        // One that runs comes before those that wait.
        let row = connection
            .row(
                "SELECT id, state, owner, heartbeat, attempts, cancel FROM job \
                 WHERE kind = $1 AND state <= 2 ORDER BY state DESC, id LIMIT 1",
                &[Arg::Text(kind)],
            )
            .await?;
        let Some(row) = row else { return Ok(None) };
        let (id, is_running) = (row.int(0)?, row.int(1)? == JobState::Running as i64);
        if is_running && row.text(2)? != owner && row.int(3)? >= stale {
            return Ok(None);
        }
        if row.int(5)? != 0 {
            end(connection, id, JobState::Cancelled, "", now).await?;
        } else if row.int(4)? >= JOB_ATTEMPTS {
            let why = format!("given up: it was begun {JOB_ATTEMPTS} times and got no further");
            end(connection, id, JobState::Failed, &why, now).await?;
        } else {
            connection
                .run(
                    "UPDATE job SET state = 2, owner = $2, epoch = epoch + 1, \
                     attempts = attempts + 1, heartbeat = $3, started_at = \
                     CASE WHEN started_at < 0 THEN $3 ELSE started_at END WHERE id = $1",
                    &[Arg::Int(id), Arg::Text(owner), Arg::Int(now)],
                )
                .await?;
            return Ok(Some(id));
        }
    }
    Ok(None)
}

/// Whether the job is to end, as a number; None: it is somebody else's.
async fn beat(
    connection: &mut Connection,
    (id, epoch): (i64, i64),
    report: &JobReport,
    ended: Option<&JobEnd>,
    now: i64,
) -> Result<Option<i64>> {
    let progress = &report.progress;
    let number = |number: u64| Arg::Int(i64::try_from(number).unwrap_or(i64::MAX));
    let written = connection
        .run(
            "UPDATE job SET attempts = CASE WHEN place IS DISTINCT FROM $6 \
                 OR (place IS NULL AND done < $3) THEN 0 ELSE attempts END, \
             done = $3, total = $4, unit = $5, place = $6, heartbeat = $7 \
             WHERE id = $1 AND epoch = $2 AND state = 2",
            &[
                Arg::Int(id),
                Arg::Int(epoch),
                number(progress.done),
                number(progress.total),
                Arg::Text(&progress.unit),
                Arg::MaybeBytes(report.place.as_deref()),
                Arg::Int(now),
            ],
        )
        .await?;
    if written == 0 {
        return Ok(None);
    }
    log(connection, id, report).await?;
    match ended {
        None => {}
        Some(JobEnd::Done(outcome)) => {
            end(connection, id, JobState::Done, outcome, now).await?;
        }
        Some(JobEnd::Failed(why)) => end(connection, id, JobState::Failed, why, now).await?,
        Some(JobEnd::Cancelled) => end(connection, id, JobState::Cancelled, "", now).await?,
        Some(JobEnd::Released) => {
            // That it was given back is no sign that it gets nowhere.
            let sql = "UPDATE job SET state = 1, attempts = \
                 CASE WHEN attempts > 0 THEN attempts - 1 ELSE 0 END WHERE id = $1";
            connection.run(sql, &[Arg::Int(id)]).await?;
        }
    }
    let sql = "SELECT cancel FROM job WHERE id = $1";
    let row = connection.row(sql, &[Arg::Int(id)]).await?;
    Ok(Some(row.map(|row| row.int(0)).transpose()?.unwrap_or(0)))
}

/// Adds lines to a job's log and forgets the oldest.
async fn log(connection: &mut Connection, id: i64, report: &JobReport) -> Result<()> {
    if report.lines.is_empty() {
        return Ok(());
    }
    let count = i64::try_from(report.lines.len()).unwrap_or(i64::MAX);
    let last = connection
        .one(
            "UPDATE job SET lines = lines + $2 WHERE id = $1 RETURNING lines",
            &[Arg::Int(id), Arg::Int(count)],
        )
        .await?
        .int(0)?;
    let first = last.saturating_sub(count).saturating_add(1);
    for (number, line) in (first..=last).zip(&report.lines) {
        connection
            .run(
                "INSERT INTO job_log (job, line, at, text) VALUES ($1, $2, $3, $4)",
                &[
                    Arg::Int(id),
                    Arg::Int(number),
                    Arg::Int(line.at),
                    Arg::Text(&cut(&line.text)),
                ],
            )
            .await?;
    }
    let sql = "DELETE FROM job_log WHERE job = $1 AND line <= $2";
    let forgotten = Arg::Int(last.saturating_sub(JOB_LINES));
    connection.run(sql, &[Arg::Int(id), forgotten]).await?;
    Ok(())
}

/// Ends a job, and forgets the oldest of its kind that ended.
async fn end(
    connection: &mut Connection,
    id: i64,
    state: JobState,
    outcome: &str,
    now: i64,
) -> Result<()> {
    let kind = connection
        .one(
            "UPDATE job SET state = $2, ended_at = $3, outcome = $4 WHERE id = $1 \
             RETURNING kind",
            &[
                Arg::Int(id),
                Arg::Int(state as i64),
                Arg::Int(now),
                Arg::Text(&cut(outcome)),
            ],
        )
        .await?
        .text(0)?;
    let kind = Arg::Text(&kind);
    let oldest = connection
        .row(
            "SELECT id FROM job WHERE kind = $1 AND state >= 3 ORDER BY id DESC \
             LIMIT 1 OFFSET $2",
            &[kind, Arg::Int(JOBS_KEPT.saturating_sub(1))],
        )
        .await?;
    if let Some(oldest) = oldest {
        let before = Arg::Int(oldest.int(0)?);
        for sql in [
            "DELETE FROM job_log WHERE job IN \
             (SELECT id FROM job WHERE kind = $1 AND state >= 3 AND id < $2)",
            "DELETE FROM job WHERE kind = $1 AND state >= 3 AND id < $2",
        ] {
            connection.run(sql, &[kind, before]).await?;
        }
    }
    Ok(())
}

async fn cancel(connection: &mut Connection, id: i64, now: i64) -> Result<Option<i64>> {
    let sql = "UPDATE job SET cancel = 1 WHERE id = $1 AND state <= 2 RETURNING state";
    let Some(row) = connection.row(sql, &[Arg::Int(id)]).await? else {
        return Ok(None);
    };
    if row.int(0)? == JobState::Queued as i64 {
        end(connection, id, JobState::Cancelled, "", now).await?;
    }
    Ok(Some(id))
}

async fn plan(connection: &mut Connection, schedule: &Schedule) -> Result<Option<i64>> {
    connection
        .run(
            "INSERT INTO schedule (kind, cron, enabled, next_at) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (kind) DO UPDATE SET cron = excluded.cron, \
             enabled = excluded.enabled, next_at = excluded.next_at",
            &[
                Arg::Text(&schedule.kind),
                Arg::Text(&schedule.cron),
                Arg::Int(i64::from(schedule.enabled)),
                Arg::Int(schedule.next_at),
            ],
        )
        .await?;
    Ok(None)
}

async fn fire(
    connection: &mut Connection,
    due: &Schedule,
    next_at: i64,
    now: i64,
) -> Result<Option<i64>> {
    let fired = connection
        .run(
            "UPDATE schedule SET next_at = $3 WHERE kind = $1 AND next_at = $2 AND enabled = 1",
            &[
                Arg::Text(&due.kind),
                Arg::Int(due.next_at),
                Arg::Int(next_at),
            ],
        )
        .await?;
    if fired == 0 {
        return Ok(None);
    }
    add(connection, &due.kind, "{}", now).await
}
