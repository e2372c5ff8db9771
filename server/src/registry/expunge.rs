//! Names that go for good at once, as an operator wants it: the notes of it, in
//! the order of their rows. Which names, and their rows, are the caller's.

use orlop_oci::{Digest, Reference, RepositoryName};
use tokio::sync::RwLockWriteGuard;

use super::access::Subject;
use super::note::{Deletion, Note};
use super::{Error, Registry};

/// Nobody else gives names to what this repository has, or takes them, while
/// this is held.
pub struct Alone<'a> {
    registry: &'a Registry,
    repository: &'a RepositoryName,
    _order: RwLockWriteGuard<'a, ()>,
}

impl Registry {
    /// Waits until nobody else changes names of the repository.
    ///
    /// # Errors
    /// What a delete would be refused for.
    pub async fn alone<'a>(
        &'a self,
        subject: Subject,
        repository: &'a RepositoryName,
    ) -> Result<Alone<'a>, Error> {
        self.may_delete(subject, repository)?;
        let order = self.order.take(repository).await;
        Ok(Alone {
            registry: self,
            repository,
            _order: order,
        })
    }
}

impl Alone<'_> {
    /// Notes that a manifest is deleted; its row is hidden after that.
    ///
    /// # Errors
    /// When nothing can be written.
    pub fn deletes(&self, digest: &Digest) -> Result<(), Error> {
        let note = Note::Deletion(Deletion::Manifest {
            repository: self.repository.clone(),
            digest: *digest,
        });
        Ok(self.registry.blobs.note(note.encode())?)
    }

    /// Notes that a manifest goes for good from this row; it goes after that.
    ///
    /// # Errors
    /// When nothing can be written.
    pub fn purges(&self, row: i64, digest: &Digest) -> Result<(), Error> {
        let note = Note::Purge {
            repository: self.repository.clone(),
            digest: *digest,
            row,
        };
        Ok(self.registry.blobs.note(note.encode())?)
    }

    /// Notes that this row loses a blob for good; it goes after that.
    ///
    /// # Errors
    /// When nothing can be written.
    pub fn purges_blob(&self, row: i64, digest: &Digest) -> Result<(), Error> {
        let note = Note::PurgeBlob {
            repository: self.repository.clone(),
            digest: *digest,
            row,
        };
        Ok(self.registry.blobs.note(note.encode())?)
    }

    /// Notes that a manifest is still in the repository with these tags, if it is:
    /// its purge was noted and failed.
    ///
    /// # Errors
    /// When nothing can be written.
    pub async fn stays(&self, digest: &Digest, tags: &[String]) -> Result<(), Error> {
        let by_digest = Reference::Digest(*digest);
        let names = &self.registry.names;
        let Some(manifest) = names.manifest(self.repository, &by_digest).await? else {
            return Ok(());
        };
        let note = Note::Manifest {
            repository: self.repository.clone(),
            digest: *digest,
            media_type: manifest.media_type,
            tags: tags.to_vec(),
        };
        Ok(self.registry.blobs.note(note.encode())?)
    }
}
