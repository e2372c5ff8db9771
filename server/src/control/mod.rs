//! What an operator asks of a running server, over the socket in the data
//! folder.
//!
//! One request a connection: a line of JSON there, a line of JSON back. Both
//! carry [`VERSION`]. A verb that takes long, such as a collection will, is
//! started by one request and asked about by others, so that no connection
//! stays open for it.
//!
//! Invariant: who reaches the socket owns the data folder, so that no verb
//! asks for an account; every line and every wait has a bound.

pub mod client;
mod collection;
mod jobs;
pub mod kept;
mod names;
mod purge;
mod socket;

pub use collection::{DoomedRepositoryView, DoomedView, PauseView, PlanView};
pub use jobs::{JobView, LineView, ScheduleView};
pub use names::{ReasonView, RepositoryView, UndeletedView, WhyView};
pub use purge::{LeftView, PurgeView, PurgedView};
pub use socket::{Control, SocketError};

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;

use crate::collection::{GC, Gc};
use crate::jobs::Jobs;
use crate::registry::{Maintenance, ReadOnly, Registry};

/// Version of requests and answers.
pub const VERSION: u32 = 1;
/// Bytes of a request's line.
const REQUEST_BYTES_MAX: usize = 16 * 1024;
/// Bytes of an answer's line.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;
/// Characters of a reason: it goes into headers and answers.
pub const REASON_MAX: usize = 512;
/// The answer about jobs while there are none.
const NO_JOBS: &str = "the server is starting or stopping; ask again when it is ready";
/// The reason when none is given.
const NO_REASON: &str = "an operator is at work";

/// What is asked. Verbs are only ever added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Verb {
    /// Refuse writes from now on.
    ReadOnlyOn {
        /// Why, for everyone to read.
        reason: Option<String>,
    },
    /// Take writes again.
    ReadOnlyOff {},
    /// Say whether writes are refused, and why.
    ReadOnlyStatus {},
    /// List the newest jobs and the schedules.
    JobList {
        /// Only of this kind.
        kind: Option<String>,
    },
    /// Show a job.
    JobShow {
        /// Its number.
        id: i64,
    },
    /// Queue a job.
    JobStart {
        /// Its kind.
        kind: String,
        /// JSON, whose meaning is the kind's.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        params: Option<String>,
    },
    /// End a job.
    JobCancel {
        /// Its number.
        id: i64,
    },
    /// Tell a job's log.
    JobLog {
        /// Its number.
        id: i64,
    },
    /// Bring a deleted tag or manifest back.
    Undelete {
        /// Where.
        repository: String,
        /// A tag or a digest.
        reference: String,
    },
    /// Delete a repository with all that is in it.
    DeleteRepository {
        /// Which one.
        repository: String,
    },
    /// Bring a deleted repository back.
    UndeleteRepository {
        /// The name that it had.
        repository: String,
        /// The name that it is to have; None: the same.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
    },
    /// Take what must go now for good.
    Purge {
        /// From this repository alone.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        repository: Option<String>,
        /// A manifest or a blob.
        digest: String,
        /// Only say what would go.
        #[serde(default)]
        dry_run: bool,
    },
    /// Let no collection run until it is resumed.
    GcPause {
        /// Why, for everyone to read.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// Let collections run again.
    GcResume {},
    /// Say whether collection is paused, and why.
    GcStatus {},
    /// Say what the newest plan names.
    GcPlan {
        /// The job that made it.
        job: i64,
    },
    /// Say what keeps a blob, or why it is garbage.
    BlobWhy {
        /// Its digest.
        digest: String,
    },
}

/// A request as it is sent.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    version: u32,
    ask: Verb,
}

/// An answer as it is sent.
#[derive(Debug, Serialize, Deserialize)]
struct Answer {
    version: u32,
    #[serde(flatten)]
    result: Outcome,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    Ok(Box<Status>),
    Error(String),
}

/// How it is after a verb, and what was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Why writes are refused, if they are.
    pub read_only: Option<ReadOnly>,
    /// Jobs, the newest first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jobs: Option<Vec<JobView>>,
    /// When jobs begin by themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedules: Option<Vec<ScheduleView>>,
    /// Lines of a job's log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<Vec<LineView>>,
    /// What came back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undeleted: Option<UndeletedView>,
    /// What keeps a blob.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<WhyView>,
    /// A repository that went or came back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<RepositoryView>,
    /// What a purge took, or would take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub purged: Option<PurgeView>,
    /// That collection is paused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<PauseView>,
    /// What a plan names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<PlanView>,
}

/// What verbs are about while the storage is open.
#[derive(Clone)]
pub struct Desk {
    /// Work in the background.
    pub jobs: Jobs,
    /// Names.
    pub registry: Registry,
    /// Collection.
    pub gc: Arc<Gc>,
}

/// Does what is asked.
#[derive(Clone)]
pub struct Operator {
    folder: PathBuf,
    maintenance: Maintenance,
    /// There while the storage is open.
    desk: Arc<RwLock<Option<Desk>>>,
    /// One verb at a time: what is kept and what holds stay the same.
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl Operator {
    /// An operator of the server on this folder, with what was kept there.
    pub fn new(folder: &Path) -> Operator {
        let maintenance = Maintenance::default();
        let kept = kept::read(folder).unwrap_or_else(|error| {
            // Nobody knows what was wanted; pulls harm nothing.
            tracing::error!(%error, "whether writes were switched off is not known: they are off");
            Some(ReadOnly::now(&format!("{} cannot be read", kept::FILE)))
        });
        if let Some(read_only) = &kept {
            tracing::warn!(
                reason = read_only.reason,
                since = read_only.since,
                "read-only for maintenance: writes are refused until `orlop maintenance read-only off`"
            );
        }
        maintenance.set(kept);
        Operator {
            folder: folder.to_owned(),
            maintenance,
            desk: Arc::default(),
            turn: Arc::default(),
        }
    }

    /// The switch that the registry looks at.
    pub fn maintenance(&self) -> Maintenance {
        self.maintenance.clone()
    }

    /// Says what verbs are about, while it is there.
    pub fn attach(&self, desk: Option<Desk>) {
        *self.desk.write().unwrap_or_else(PoisonError::into_inner) = desk;
    }

    /// Does it. What it changes is durable before it holds.
    async fn perform(&self, verb: Verb) -> Result<Status, String> {
        // May take minutes, and has locks of its own: nobody waits for it who
        // wants to switch writes off.
        if let Verb::Purge {
            repository,
            digest,
            dry_run,
        } = verb
        {
            let desk = self.desk().ok_or(NO_JOBS)?;
            let target = (repository, digest.as_str());
            return purge::perform(&desk, target, dry_run, self.status()).await;
        }
        let _turn = self.turn.lock().await;
        let wanted = match verb {
            Verb::ReadOnlyStatus {} => None,
            Verb::ReadOnlyOff {} => Some(None),
            Verb::ReadOnlyOn { reason } => Some(Some(ReadOnly::asked(reason.as_deref())?)),
            about_names @ (Verb::Undelete { .. }
            | Verb::DeleteRepository { .. }
            | Verb::UndeleteRepository { .. }
            | Verb::BlobWhy { .. }) => {
                let desk = self.desk().ok_or(NO_JOBS)?;
                return names::perform(&desk, about_names, self.status()).await;
            }
            about_gc @ (Verb::GcPause { .. }
            | Verb::GcResume {}
            | Verb::GcStatus {}
            | Verb::GcPlan { .. }) => {
                let desk = self.desk().ok_or(NO_JOBS)?;
                return collection::perform(&desk, about_gc, self.status()).await;
            }
            about_jobs => {
                let desk = self.desk().ok_or(NO_JOBS)?;
                if let Verb::JobStart { kind, params } = &about_jobs
                    && kind == GC
                {
                    desk.gc.may_start(params.as_deref()).await?;
                }
                return jobs::perform(&desk.jobs, about_jobs, self.status()).await;
            }
        };
        if let Some(read_only) = wanted {
            self.keep(read_only.clone()).await?;
            match &read_only {
                Some(why) => tracing::warn!(
                    reason = why.reason,
                    "read-only for maintenance: writes are refused from now on"
                ),
                None => tracing::info!("maintenance is over: writes are taken again"),
            }
            self.maintenance.set(read_only);
        }
        Ok(self.status())
    }

    fn desk(&self) -> Option<Desk> {
        let desk = self.desk.read().unwrap_or_else(PoisonError::into_inner);
        desk.clone()
    }

    fn status(&self) -> Status {
        Status {
            read_only: self.maintenance.read_only().map(|why| (*why).clone()),
            ..Status::default()
        }
    }
}

impl Operator {
    /// Keeps this for the next start. When that fails half way, what the next
    /// start would find holds already now.
    async fn keep(&self, read_only: Option<ReadOnly>) -> Result<(), String> {
        let folder = self.folder.clone();
        let kept = spawn_blocking(move || {
            kept::write(&folder, read_only.as_ref()).map_err(|error| (error, kept::read(&folder)))
        });
        let (error, found) = match kept.await.map_err(|error| error.to_string())? {
            Ok(()) => return Ok(()),
            Err(failed) => failed,
        };
        let how = match found {
            Ok(found) => {
                let how = match &found {
                    Some(_) => "writes are refused",
                    None => "writes are taken",
                };
                self.maintenance.set(found);
                how
            }
            Err(_) => "nothing was changed in the running server",
        };
        tracing::error!(%error, how, "what an operator asked for could not be kept");
        Err(format!(
            "{error}; {how}, but a restart may find it otherwise"
        ))
    }
}

impl ReadOnly {
    /// From now on, for this reason.
    fn now(reason: &str) -> ReadOnly {
        let since = humantime::format_rfc3339_seconds(SystemTime::now());
        ReadOnly {
            reason: reason.to_owned(),
            since: since.to_string(),
        }
    }

    /// From now on, for the reason an operator gave, if he gave one.
    ///
    /// # Errors
    /// The reason is too long, or has characters that no header has.
    pub fn asked(reason: Option<&str>) -> Result<ReadOnly, String> {
        let reason = reason.map(str::trim).filter(|reason| !reason.is_empty());
        let reason = reason.unwrap_or(NO_REASON);
        if reason.chars().count() > REASON_MAX {
            return Err(format!("the reason is longer than {REASON_MAX} characters"));
        }
        if reason.chars().any(char::is_control) {
            return Err("the reason has control characters; write it on one line".to_owned());
        }
        Ok(ReadOnly::now(reason))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_the_form_that_is_documented() {
        let ask = Verb::ReadOnlyOn {
            reason: Some("disk swap".into()),
        };
        let request = Request { version: 1, ask };
        assert_eq!(
            serde_json::to_string(&request).unwrap(),
            r#"{"version":1,"ask":{"verb":"read-only-on","reason":"disk swap"}}"#
        );
        let result = Outcome::Ok(Box::default());
        let answer = serde_json::to_string(&Answer { version: 1, result }).unwrap();
        assert_eq!(answer, r#"{"version":1,"ok":{"read_only":null}}"#);
        let result = Outcome::Error("no".into());
        let answer = serde_json::to_string(&Answer { version: 1, result }).unwrap();
        assert_eq!(answer, r#"{"version":1,"error":"no"}"#);
    }

    #[test]
    fn reasons_are_one_short_line() {
        assert_eq!(ReadOnly::asked(Some(" a b ")).unwrap().reason, "a b");
        assert_eq!(ReadOnly::asked(Some("  ")).unwrap().reason, NO_REASON);
        assert_eq!(ReadOnly::asked(None).unwrap().reason, NO_REASON);
        assert!(ReadOnly::asked(Some("a\r\nb")).is_err());
        assert!(ReadOnly::asked(Some(&"x".repeat(REASON_MAX + 1))).is_err());
    }

    #[tokio::test]
    async fn what_was_switched_is_kept_for_the_next_start() {
        let folder = tempfile::tempdir().unwrap();
        let operator = Operator::new(folder.path());
        assert_eq!(operator.maintenance().read_only(), None);
        let reason = Some("why".to_owned());
        let status = operator.perform(Verb::ReadOnlyOn { reason }).await.unwrap();
        let on = status.read_only.unwrap();
        let again = Operator::new(folder.path());
        assert_eq!(*again.maintenance().read_only().unwrap(), on);
        again.perform(Verb::ReadOnlyOff {}).await.unwrap();
        assert_eq!(Operator::new(folder.path()).maintenance().read_only(), None);
    }

    #[test]
    fn what_cannot_be_read_keeps_writes_off() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(kept::FILE), "{").unwrap();
        let operator = Operator::new(folder.path());
        let why = operator.maintenance().read_only().unwrap();
        assert!(why.reason.contains(kept::FILE));
    }
}
