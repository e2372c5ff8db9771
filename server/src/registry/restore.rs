//! What was deleted comes back, within the undelete window.

use orlop_oci::{Reference, RepositoryName};

use super::access::Subject;
use super::note::{Deletion, Note};
use super::seam::Hidden;
use super::{Error, Registry};

/// Tags of one note: each has a bound of its own, and so has a note.
const NOTED: usize = 200;

impl Registry {
    /// Brings a deleted tag back with its manifest, or a deleted manifest with
    /// the tags that were deleted along with it; and with either what it lists
    /// and its blobs, which the row has kept. Says what came back.
    ///
    /// # Errors
    /// `ManifestUnknown` when it is not deleted, or was purged;
    /// `ReferencesUnknown` when the store does not have it, as after another
    /// catalog was put in place.
    pub async fn undelete(
        &self,
        subject: Subject,
        repository: &RepositoryName,
        reference: &Reference,
    ) -> Result<Hidden, Error> {
        self.may_push(subject, repository)?;
        let (registry, repository, reference) =
            (self.clone(), repository.clone(), reference.clone());
        self.to_the_end(async move {
            // Alone, so that no tag is given to something else meanwhile.
            let _order = registry.order.take(&repository).await;
            let hidden = registry.names.hidden(&repository, &reference).await?;
            let hidden = hidden.ok_or(Error::ManifestUnknown)?;
            let pinned = registry.blobs.pin(&[hidden.digest])?;
            if pinned.found.contains(&None) {
                return Err(Error::references_unknown(vec![hidden.digest]));
            }
            let mut tags = hidden.tags.chunks(NOTED);
            // At least one note: it may have no tag.
            let first = tags.next().unwrap_or_default();
            for tags in std::iter::once(first).chain(tags) {
                let note = Note::Manifest {
                    repository: repository.clone(),
                    digest: hidden.digest,
                    media_type: hidden.media_type.clone(),
                    tags: tags.to_vec(),
                };
                registry.blobs.note(note.encode())?;
            }
            let back = registry.names.undelete(&repository, &reference).await?;
            drop(pinned.guard);
            // A purge may have taken some of it since it was looked for: then the
            // notes above say more than came back.
            let tags = match &back {
                Some(tags) => tags.as_slice(),
                None => &[],
            };
            let by_digest = Reference::Digest(hidden.digest);
            let is_there = registry.names.manifest(&repository, &by_digest).await?;
            let untrue = hidden.tags.iter().filter(|tag| !tags.contains(tag));
            let untrue: Vec<Deletion> = match is_there {
                Some(_) => untrue
                    .map(|tag| Deletion::Tag {
                        repository: repository.clone(),
                        tag: tag.clone(),
                    })
                    .collect(),
                None => vec![Deletion::Manifest {
                    repository: repository.clone(),
                    digest: hidden.digest,
                }],
            };
            for what in untrue {
                registry.blobs.note(Note::Deletion(what).encode())?;
            }
            let tags = back.ok_or(Error::ManifestUnknown)?;
            Ok(Hidden { tags, ..hidden })
        })
        .await
    }
}
