//! Pauses and plans of collection as the control socket tells them.

use serde::{Deserialize, Serialize};

use super::{Desk, REASON_MAX, Status, Verb};
use crate::catalog::{Doomed, DoomedRepository, GcPause, rfc3339};
use crate::collection::{Planned, Stray};

/// The reason when none is given.
const NO_REASON: &str = "an operator paused it";

/// That no collection runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PauseView {
    /// Since when: RFC 3339 in UTC.
    pub since: String,
    /// Why.
    pub reason: String,
}

impl From<GcPause> for PauseView {
    fn from(pause: GcPause) -> PauseView {
        PauseView {
            since: rfc3339(pause.since),
            reason: pause.why,
        }
    }
}

/// A manifest that a plan names. Times are RFC 3339 in UTC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DoomedView {
    /// Where.
    pub repository: String,
    /// Its digest.
    pub digest: String,
    /// Its bytes and those of what it names, as declared; others may name those.
    pub bytes: u64,
    /// When it was deleted, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleted: Option<String>,
    /// When it was pulled last, or when counts were lost if that was later.
    pub last_pulled: Option<String>,
    /// When an untagged one is deleted unless somebody uses it; none: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due: Option<String>,
}

/// A deleted repository that a plan names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DoomedRepositoryView {
    /// Its name.
    pub name: String,
    /// When it was deleted: RFC 3339 in UTC.
    pub deleted: String,
    /// Manifests in it.
    pub manifests: u64,
}

/// What a plan names. Lists have their first entries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanView {
    /// Deleted repositories that would go.
    pub repositories: Vec<DoomedRepositoryView>,
    /// How many there are.
    pub repository_count: u64,
    /// Deleted manifests that would go.
    pub manifests: Vec<DoomedView>,
    /// How many there are.
    pub manifest_count: u64,
    /// Manifests that no tag, index or subject reaches.
    pub untagged: Vec<DoomedView>,
    /// How many there are.
    pub untagged_count: u64,
    /// How many of them the next collection deletes.
    pub untagged_due: u64,
}

impl From<Doomed> for DoomedView {
    fn from(manifest: Doomed) -> DoomedView {
        DoomedView {
            repository: manifest.repository,
            digest: manifest.digest.to_string(),
            bytes: manifest.bytes,
            deleted: manifest.deleted_at.map(rfc3339),
            last_pulled: manifest.last_pulled.map(rfc3339),
            due: None,
        }
    }
}

impl From<Stray> for DoomedView {
    fn from(stray: Stray) -> DoomedView {
        DoomedView {
            due: stray.due_at.map(rfc3339),
            ..stray.manifest.into()
        }
    }
}

impl From<DoomedRepository> for DoomedRepositoryView {
    fn from(repository: DoomedRepository) -> DoomedRepositoryView {
        DoomedRepositoryView {
            name: repository.name,
            deleted: rfc3339(repository.deleted_at),
            manifests: repository.manifests,
        }
    }
}

impl From<Planned> for PlanView {
    fn from(planned: Planned) -> PlanView {
        let manifests = planned.manifests.into_iter().map(DoomedView::from);
        let untagged = planned.untagged.into_iter().map(DoomedView::from);
        let repositories = planned.repositories.into_iter();
        PlanView {
            repositories: repositories.map(DoomedRepositoryView::from).collect(),
            repository_count: planned.repository_count,
            manifests: manifests.collect(),
            manifest_count: planned.manifest_count,
            untagged: untagged.collect(),
            untagged_count: planned.untagged_count,
            untagged_due: planned.untagged_due,
        }
    }
}

/// Does what is asked about pauses and plans.
pub(super) async fn perform(desk: &Desk, verb: Verb, status: Status) -> Result<Status, String> {
    let paused = match verb {
        Verb::GcPlan { job } => {
            let plan = desk.gc.planned(job).map(PlanView::from);
            return Ok(Status { plan, ..status });
        }
        Verb::GcPause { reason } => {
            let why = reason.unwrap_or_else(|| NO_REASON.to_owned());
            if why.chars().count() > REASON_MAX {
                return Err(format!("a reason has {REASON_MAX} characters at most"));
            }
            let paused = desk.gc.hold_up(why).await;
            Some(paused.map_err(|error| error.to_string())?)
        }
        Verb::GcResume {} => {
            let was_paused = desk.gc.resume().await.map_err(|error| error.to_string())?;
            if !was_paused {
                return Err("collection is not paused".to_owned());
            }
            None
        }
        _ => {
            let paused = desk.gc.pause_that_is().await;
            paused.map_err(|error| error.to_string())?
        }
    };
    Ok(Status {
        paused: paused.map(PauseView::from),
        ..status
    })
}
