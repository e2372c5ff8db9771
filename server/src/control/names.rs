//! Names and blobs as the control socket tells them.

use orlop_oci::{Digest, Reference, RepositoryName};
use serde::{Deserialize, Serialize};

use super::{Desk, Status, Verb};
use crate::catalog::{Reason, rfc3339};
use crate::registry::{Error, Subject};

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UndeletedView {
    /// Where.
    pub repository: String,
    /// The manifest.
    pub digest: String,
    /// The tags.
    pub tags: Vec<String>,
}

/// A repository that was deleted or came back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepositoryView {
    /// Its name.
    pub name: String,
    /// Whether it was deleted.
    pub deleted: bool,
    /// How many manifests came back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifests: Option<u64>,
}

/// A row that keeps a blob.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReasonView {
    /// Where.
    pub repository: String,
    /// The manifest that names the blob, or that it is.
    pub manifest: String,
    /// Some of its tags.
    pub tags: Vec<String>,
    /// When it was deleted, if it was: it can still be brought back.
    pub deleted: Option<String>,
}

/// What keeps a blob, or why it is garbage. Times are RFC 3339 in UTC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhyView {
    /// Which one.
    pub digest: String,
    /// Its bytes; none: it is not here.
    pub size: Option<u64>,
    /// Whether somebody was told that it is here lately, or it is in use.
    pub held: bool,
    /// What keeps it.
    pub kept_by: Vec<ReasonView>,
    /// The repository whose delete doomed it.
    pub deleted_from: Option<String>,
    /// The manifest that was deleted, if it was one.
    pub deleted_manifest: Option<String>,
    /// When that was deleted.
    pub deleted: Option<String>,
    /// When that was purged.
    pub purged: Option<String>,
}

impl From<Reason> for ReasonView {
    fn from(reason: Reason) -> ReasonView {
        ReasonView {
            repository: reason.repository,
            manifest: reason.manifest.to_string(),
            tags: reason.tags,
            deleted: reason.deleted_at.map(rfc3339),
        }
    }
}

fn with_repository(name: String, manifests: Option<u64>, status: Status) -> Status {
    let deleted = manifests.is_none();
    Status {
        repository: Some(RepositoryView {
            name,
            deleted,
            manifests,
        }),
        ..status
    }
}

/// Does what is asked about names and blobs.
pub(super) async fn perform(desk: &Desk, verb: Verb, status: Status) -> Result<Status, String> {
    match verb {
        Verb::Undelete {
            repository,
            reference,
        } => {
            let name = RepositoryName::parse(&repository).map_err(|error| error.to_string())?;
            let reference = Reference::parse(&reference).map_err(|error| error.to_string())?;
            let undeleted = desk.registry.undelete(Subject::Operator, &name, &reference);
            let hidden = undeleted.await.map_err(|error| match error {
                Error::ManifestUnknown => format!(
                    "{repository} has nothing deleted under {reference} that can come back: it was not deleted, or its undelete window is over"
                ),
                error => error.to_string(),
            })?;
            tracing::info!(repository, %reference, digest = %hidden.digest, "an operator brought back what was deleted");
            let undeleted = Some(UndeletedView {
                repository,
                digest: hidden.digest.to_string(),
                tags: hidden.tags,
            });
            Ok(Status {
                undeleted,
                ..status
            })
        }
        Verb::DeleteRepository { repository } => {
            let name = RepositoryName::parse(&repository).map_err(|error| error.to_string())?;
            let deleted = desk.registry.repository_delete(Subject::Operator, &name);
            deleted.await.map_err(|error| match error {
                Error::NameUnknown => format!("there is no repository {repository}"),
                error => error.to_string(),
            })?;
            tracing::info!(repository, "an operator deleted a repository");
            Ok(with_repository(repository, None, status))
        }
        Verb::UndeleteRepository { repository, name } => {
            let from = RepositoryName::parse(&repository).map_err(|error| error.to_string())?;
            let name = name.unwrap_or_else(|| repository.clone());
            let to = RepositoryName::parse(&name).map_err(|error| error.to_string())?;
            let back = desk
                .registry
                .repository_undelete(Subject::Operator, &from, &to);
            let manifests = back.await.map_err(|error| match error {
                Error::NameUnknown => format!(
                    "no repository {repository} was deleted that can come back: none was, or its undelete window is over"
                ),
                Error::NameTaken { manifests } => format!(
                    "there is a repository {name} by now, with {manifests} manifests; bring the deleted one back under another name, with --as NAME, or delete the new one's manifests first"
                ),
                error => error.to_string(),
            })?;
            tracing::info!(
                repository,
                name,
                manifests,
                "an operator brought a repository back"
            );
            Ok(with_repository(name, Some(manifests), status))
        }
        Verb::BlobWhy { digest } => {
            let digest: Digest = digest.parse().map_err(|_| {
                format!("{digest:?} is not a digest such as sha256: and 64 characters")
            })?;
            let why = desk.gc.why(&digest).await?;
            let departed = why.departed;
            let view = WhyView {
                digest: digest.to_string(),
                size: why.size,
                held: why.held,
                kept_by: why.kept_by.into_iter().map(ReasonView::from).collect(),
                deleted_manifest: departed
                    .as_ref()
                    .and_then(|departed| departed.manifest)
                    .map(|manifest| manifest.to_string()),
                deleted: departed
                    .as_ref()
                    .map(|departed| rfc3339(departed.deleted_at)),
                purged: departed
                    .as_ref()
                    .map(|departed| rfc3339(departed.purged_at)),
                deleted_from: departed.map(|departed| departed.repository),
            };
            Ok(Status {
                why: Some(view),
                ..status
            })
        }
        _ => Ok(status),
    }
}
