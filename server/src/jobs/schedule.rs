//! When jobs begin by themselves: cron in UTC, with jitter.
//!
//! Invariants: what was missed, while the server was down or its clock went
//! ahead, is made up for once; a clock that goes back moves the next time
//! nearer, and fires nothing twice in a row by itself; the jitter of a kind is
//! the same for ever in one catalog, and differs between catalogs.

use std::str::FromStr;
use std::time::Duration;

use chrono::{DateTime, Utc};
use orlop_oci::{Algorithm, Digest};
use tokio::time::sleep;

use super::Inner;
use crate::catalog::{CatalogError, Schedule};

/// Characters of a pattern.
const PATTERN_MAX: usize = 128;
/// The most that a time is put off.
const JITTER_MAX: i64 = 3_600_000;
/// The part of the time between two that a time is put off at most.
const JITTER_PART: i64 = 10;
/// The longest time between two looks: the clock may be set meanwhile.
const LOOK: i64 = 30_000;
/// The shortest, so that no clock makes a storm.
const LOOK_LEAST: i64 = 200;

/// A pattern of times, in UTC.
#[derive(Debug, Clone)]
pub struct Cron {
    pattern: croner::Cron,
    text: String,
}

impl PartialEq for Cron {
    fn eq(&self, other: &Cron) -> bool {
        self.text == other.text
    }
}

impl Eq for Cron {}

impl Cron {
    /// Reads a pattern of five fields, or of six with seconds first.
    ///
    /// # Errors
    /// It is none, or never matches.
    pub fn parse(text: &str) -> Result<Cron, String> {
        let text = text.trim();
        if text.len() > PATTERN_MAX {
            return Err(format!("is longer than {PATTERN_MAX} characters"));
        }
        let pattern = croner::Cron::from_str(text).map_err(|error| {
            format!("{text:?} is not a cron pattern such as 0 3 * * 0: {error}")
        })?;
        let cron = Cron {
            pattern,
            text: text.to_owned(),
        };
        match cron.after(0) {
            Some(_) => Ok(cron),
            None => Err(format!("{text:?} matches no time")),
        }
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The first time after this one, both in milliseconds since 1970.
    fn after(&self, now: i64) -> Option<i64> {
        let now: DateTime<Utc> = DateTime::from_timestamp_millis(now)?;
        let next = self.pattern.find_next_occurrence(&now, false).ok()?;
        Some(next.timestamp_millis())
    }

    /// When it is due after this time, put off by the jitter.
    pub(super) fn due(&self, now: i64, seed: &[u8]) -> Option<i64> {
        let first = self.after(now)?;
        let period = self
            .after(first)
            .map_or(0, |next| next.saturating_sub(first));
        let most = (period / JITTER_PART).clamp(0, JITTER_MAX);
        let jitter = jitter(seed, most);
        let next = self.after(now.saturating_sub(jitter))?;
        Some(next.saturating_add(jitter))
    }
}

/// A number below this one that depends on the seed alone.
fn jitter(seed: &[u8], most: i64) -> i64 {
    let digest = Digest::of(Algorithm::Sha256, seed);
    let bytes = digest.bytes().first_chunk().copied().unwrap_or_default();
    let number = i64::from_le_bytes(bytes).unsigned_abs() >> 1;
    i64::try_from(number)
        .unwrap_or(0)
        .checked_rem(most)
        .unwrap_or(0)
}

/// Looks at the schedules until it is to stop.
pub(super) async fn run(inner: &Inner) {
    let mut is_failing = false;
    while !inner.gate.borrow().is_stopping {
        let now = (inner.clock)();
        let wait = match look(inner, now).await {
            Ok(next) => {
                is_failing = false;
                let wait = next.map_or(LOOK, |next| next.saturating_sub(now));
                wait.clamp(LOOK_LEAST, LOOK)
            }
            Err(error) => {
                if !std::mem::replace(&mut is_failing, true) {
                    tracing::warn!(%error, "schedules cannot be looked at; trying again and again");
                }
                LOOK
            }
        };
        let wait = Duration::from_millis(wait.unsigned_abs());
        tokio::select! {
            () = sleep(wait) => {}
            () = inner.stopped() => {}
        }
    }
}

/// Queues what is due, and says when something is due next.
pub(super) async fn look(inner: &Inner, now: i64) -> Result<Option<i64>, CatalogError> {
    let rows = inner.catalog.schedules().await?;
    let mut next = None;
    for (kind, cron) in &inner.plans {
        let row = rows.iter().find(|row| row.kind == *kind);
        let mut seed = inner.catalog.id().to_vec();
        seed.extend_from_slice(kind.as_bytes());
        let due = cron.as_ref().and_then(|cron| cron.due(now, &seed));
        let (Some(cron), Some(due)) = (cron, due) else {
            if let Some(row) = row.filter(|row| row.enabled) {
                let off = Schedule {
                    enabled: false,
                    ..row.clone()
                };
                inner.catalog.plan_jobs(off).await?;
            }
            continue;
        };
        next = Some(next.map_or(due, |next: i64| next.min(due)));
        match row.filter(|row| row.enabled && row.cron == cron.text()) {
            Some(row) if row.next_at <= now => {
                if let Some(job) = inner.catalog.fire_schedule(row, due).await? {
                    tracing::info!(kind, job, "a job was queued by its schedule");
                    inner.wake.notify_waiters();
                }
            }
            Some(row) if row.next_at <= due => {
                next = Some(next.map_or(row.next_at, |next| next.min(row.next_at)));
            }
            // New, changed, or planned by a clock that was ahead.
            _ => {
                let schedule = Schedule {
                    kind: (*kind).to_owned(),
                    cron: cron.text().to_owned(),
                    enabled: true,
                    next_at: due,
                };
                inner.catalog.plan_jobs(schedule).await?;
            }
        }
    }
    Ok(next)
}
