//! The job that reads what is stored and finds what rotted.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use orlop_engine::{Finding, ScrubPosition, Store};
use tokio::time::sleep;

use super::run::{Run, Stop, Work};
use crate::catalog::{Catalog, JobProgress};

/// The kind's name.
pub const SCRUB: &str = "scrub";
/// Names that are told of a damaged blob.
const USERS: usize = 8;
/// How often it is looked whether reads came back.
const PULSE: Duration = Duration::from_millis(250);

/// Scrubs a store.
pub struct Scrub {
    store: Store,
    catalog: Catalog,
    digests: bool,
}

impl Scrub {
    /// A scrub of this store; with `digests` also of each blob's content
    /// against its digest.
    pub fn new(store: Store, catalog: Catalog, digests: bool) -> Scrub {
        Scrub {
            store,
            catalog,
            digests,
        }
    }

    async fn scrub(&self, run: &Run) -> Result<String, Stop> {
        let started = self.store.scrub(self.digests, run.place()).await;
        let mut scrub = started.map_err(failed)?;
        if run.place().is_none() {
            run.report(progress(scrub.position()), scrub.cursor());
        }
        let mut pulse = pin!(self.pulse(run));
        loop {
            let step = tokio::select! {
                biased;
                why = run.ended() => return Err(why),
                never = &mut pulse => match never {},
                step = scrub.step() => step,
            };
            let (findings, step) = match step {
                Ok(Some(findings)) => (findings, Ok(())),
                Ok(None) => break,
                Err(error) => (scrub.take_findings(), Err(failed(error))),
            };
            // Told before the place is: what is passed over was told.
            for finding in findings {
                self.tell(run, &finding).await;
            }
            step?;
            run.report(progress(scrub.position()), scrub.cursor());
        }
        let position = scrub.position();
        run.report(progress(position), scrub.cursor());
        let ScrubPosition {
            done,
            frames,
            findings,
            ..
        } = position;
        let outcome = serde_json::json!({
            "bytes": done, "frames": frames, "findings": findings,
        });
        Ok(outcome.to_string())
    }

    /// Each read that comes back is a sign of life, whatever it gave: one step
    /// over bad sectors may take hours. One that hangs is none.
    async fn pulse(&self, run: &Run) -> Infallible {
        let mut seen = self.store.scrub_reads();
        loop {
            sleep(PULSE).await;
            let reads = self.store.scrub_reads();
            if std::mem::replace(&mut seen, reads) != reads {
                run.alive();
            }
        }
    }

    /// Names what was found and whom it concerns.
    async fn tell(&self, run: &Run, finding: &Finding) {
        let mut users = Vec::new();
        if let Some(blob) = &finding.blob {
            match self.catalog.users_of(blob, USERS).await {
                Ok(found) => users = found,
                Err(error) => tracing::warn!(%error, "who uses a damaged blob is not known"),
            }
        }
        let (code, file, offset) = (finding.code.name(), &finding.file, finding.offset);
        let blob = finding
            .blob
            .map(|blob| blob.to_string())
            .unwrap_or_default();
        let (users, reason) = (users.join(" "), &finding.reason);
        tracing::error!(
            job = run.id(),
            code,
            blob,
            file,
            offset,
            users,
            quarantined = finding.quarantined,
            reason,
            "scrub found damage"
        );
        let mut line = format!("{code} {file} at {offset}");
        if !blob.is_empty() {
            let now = if finding.quarantined {
                "now"
            } else {
                "already"
            };
            line.push_str(&format!(" {blob} ({now} in quarantine; used by: {users})"));
        }
        line.push_str(&format!(": {reason}"));
        run.log(line);
    }
}

fn failed(error: orlop_engine::Error) -> Stop {
    match error {
        orlop_engine::Error::Cancelled => Stop::Released,
        error => Stop::Failed(error.to_string()),
    }
}

fn progress(position: ScrubPosition) -> JobProgress {
    JobProgress {
        done: position.done,
        total: position.total,
        unit: "bytes".to_owned(),
    }
}

impl Work for Scrub {
    fn kind(&self) -> &'static str {
        SCRUB
    }

    fn run(self: Arc<Self>, run: Arc<Run>) -> BoxFuture<'static, Result<String, Stop>> {
        async move { self.scrub(&run).await }.boxed()
    }
}
