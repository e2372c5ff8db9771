//! Purges as the control socket tells them.

use std::fmt::Write as _;

use orlop_oci::{Digest, RepositoryName};
use serde::{Deserialize, Serialize};

use super::{Desk, ReasonView, Status};
use crate::catalog::Reason;
use crate::collection::{ExpungeError, Expunged, TOLD, Target};

/// Manifests that a refusal names.
const NAMED: usize = 20;

/// A manifest that went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PurgedView {
    /// Where.
    pub repository: String,
    /// Its digest.
    pub digest: String,
    /// Its tags, some of them if there are many.
    pub tags: Vec<String>,
    /// How many it has.
    pub tag_count: u64,
}

/// A blob that stays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftView {
    /// Its digest.
    pub digest: String,
    /// What names it, some of that if it is much; empty: another repository has it
    /// without a manifest that names it.
    pub kept_by: Vec<ReasonView>,
}

/// What a purge took, or would take. Lists have their first entries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PurgeView {
    /// Whether it only says what would go.
    pub dry_run: bool,
    /// Repositories that something goes from.
    pub repositories: Vec<String>,
    /// How many there are.
    pub repository_count: u64,
    /// Manifests.
    pub manifests: Vec<PurgedView>,
    /// How many there are.
    pub manifest_count: u64,
    /// How many tags they have.
    pub tag_count: u64,
    /// Blobs that nothing names any more.
    pub blobs: Vec<String>,
    /// How many there are.
    pub blob_count: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Blobs of it that stay.
    pub left: Vec<LeftView>,
    /// How many stay.
    pub left_count: u64,
}

fn view(purged: Expunged, dry_run: bool) -> PurgeView {
    let text = |digest: &Digest| digest.to_string();
    PurgeView {
        dry_run,
        repository_count: purged.repositories.len() as u64,
        repositories: purged.repositories.into_iter().take(TOLD).collect(),
        manifests: purged
            .manifests
            .into_iter()
            .map(|manifest| PurgedView {
                repository: manifest.repository,
                digest: manifest.digest.to_string(),
                tags: manifest.tags,
                tag_count: manifest.tag_count,
            })
            .collect(),
        manifest_count: purged.manifest_count,
        tag_count: purged.tag_count,
        blob_count: purged.blobs.len() as u64,
        blobs: purged.blobs.iter().take(TOLD).map(text).collect(),
        bytes: purged.bytes,
        left: purged
            .left
            .into_iter()
            .map(|(digest, kept_by)| LeftView {
                digest: digest.to_string(),
                kept_by: kept_by.into_iter().map(ReasonView::from).collect(),
            })
            .collect(),
        left_count: purged.left_count,
    }
}

/// Takes what is asked for, or says what would go.
pub(super) async fn perform(
    desk: &Desk,
    (repository, digest): (Option<String>, &str),
    dry_run: bool,
    status: Status,
) -> Result<Status, String> {
    if let Some(repository) = &repository {
        RepositoryName::parse(repository).map_err(|error| error.to_string())?;
    }
    let target = Target {
        repository,
        digest: digest
            .parse()
            .map_err(|_| format!("{digest:?} is not a digest such as sha256: and 64 characters"))?,
    };
    let purged = if dry_run {
        desk.gc.would_expunge(&target).await
    } else {
        desk.gc.expunge(&target).await
    };
    let purged = purged.map_err(|error| match error {
        ExpungeError::Needed(by) => needed(digest, &by),
        error => error.to_string(),
    })?;
    Ok(Status {
        purged: Some(view(purged, dry_run)),
        ..status
    })
}

/// Says what needs it, and what to do.
fn needed(digest: &str, by: &[Reason]) -> String {
    let mut text = format!(
        "{digest} is not purged: manifests that are not deleted need it and would be broken. Purge or delete these first:"
    );
    for reason in by.iter().take(NAMED) {
        // Writing to a string does not fail.
        let _ = write!(text, "\n  {}@{}", reason.repository, reason.manifest);
        if !reason.tags.is_empty() {
            let _ = write!(text, " ({})", reason.tags.join(", "));
        }
    }
    if by.len() > NAMED {
        let _ = write!(text, "\n  and {} more", by.len().saturating_sub(NAMED));
    }
    text
}
