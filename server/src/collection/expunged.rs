//! What a purge takes, as somebody is told of it.
//!
//! Invariant: counts are of all there is, lists are bounded.
//!
//! Refuses to know: how it is found out, and how it is shown.

use std::collections::BTreeSet;

use orlop_oci::Digest;

use crate::catalog::{PurgeUnit, Reason};

/// Entries of a list that are told; the rest is counted.
pub const TOLD: usize = 100;
/// Tags that are told of all manifests together.
const TAGS_TOLD: usize = 400;

/// What a purge takes, or would take.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expunged {
    /// Repositories that it takes something from.
    pub repositories: BTreeSet<String>,
    /// Some of the manifests.
    pub manifests: Vec<ExpungedManifest>,
    /// How many manifests there are.
    pub manifest_count: u64,
    /// How many tags they have.
    pub tag_count: u64,
    /// Blobs that nothing names any more.
    pub blobs: Vec<Digest>,
    /// Their bytes, as far as they are here.
    pub bytes: u64,
    /// Blobs of it that stay, and what names them: some of them.
    pub left: Vec<(Digest, Vec<Reason>)>,
    /// How many stay.
    pub left_count: u64,
}

/// A manifest that a purge takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpungedManifest {
    /// Where.
    pub repository: String,
    /// Its digest.
    pub digest: Digest,
    /// Some of its tags.
    pub tags: Vec<String>,
    /// How many it has.
    pub tag_count: u64,
}

impl Expunged {
    /// Adds a blob that stays, and what names it.
    pub(super) fn leave(&mut self, blob: Digest, named: Vec<Reason>) {
        self.left_count = self.left_count.saturating_add(1);
        if self.left.len() < TOLD {
            self.left.push((blob, named));
        }
    }

    /// Adds what goes from one repository.
    pub(super) fn add(&mut self, unit: &PurgeUnit) {
        if unit.manifests.is_empty() && unit.unlinked.is_empty() {
            return;
        }
        self.repositories.insert(unit.place.name.clone());
        for manifest in &unit.manifests {
            self.manifest_count = self.manifest_count.saturating_add(1);
            self.tag_count = self.tag_count.saturating_add(manifest.tag_count);
            if self.manifests.len() < TOLD {
                let told: usize = self.manifests.iter().map(|of| of.tags.len()).sum();
                let left = TAGS_TOLD.saturating_sub(told);
                self.manifests.push(ExpungedManifest {
                    repository: unit.place.name.clone(),
                    digest: manifest.digest,
                    tags: manifest.tags.iter().take(left).cloned().collect(),
                    tag_count: manifest.tag_count,
                });
            }
        }
    }
}
