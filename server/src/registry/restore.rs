//! What was deleted comes back, within the undelete window.

use orlop_oci::{Reference, RepositoryName};

use super::access::Subject;
use super::note::Note;
use super::seam::Hidden;
use super::{Error, Registry};

impl Registry {
    /// Brings a deleted tag back with its manifest, or a deleted manifest with
    /// the tags that were deleted along with it. Its bytes are still here: the
    /// row kept them.
    ///
    /// # Errors
    /// `ManifestUnknown` when it is not deleted, or was purged.
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
            let note = Note::Manifest {
                repository: repository.clone(),
                digest: hidden.digest,
                media_type: hidden.media_type.clone(),
                tags: hidden.tags.clone(),
            };
            registry.blobs.note(note.encode())?;
            if !registry.names.undelete(&repository, &reference).await? {
                return Err(Error::ManifestUnknown);
            }
            Ok(hidden)
        })
        .await
    }
}
