//! Names that go for good at once, as an operator wants it: the notes of it, in
//! the order of their rows. Which names, and their rows, are the caller's.

use orlop_oci::{Digest, RepositoryName};
use tokio::sync::RwLockWriteGuard;

use super::access::Subject;
use super::note::{Deletion, Note, Purged};
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

    /// Notes that what was noted as gone for good is still in this row: that
    /// failed.
    ///
    /// # Errors
    /// When nothing can be written.
    pub fn keeps(&self, row: i64, digest: &Digest, purged: Purged) -> Result<(), Error> {
        let note = Note::Kept {
            repository: self.repository.clone(),
            digest: *digest,
            row,
            purged,
        };
        Ok(self.registry.blobs.note(note.encode())?)
    }

    /// Deletes a manifest: a note, then the row. Whether it was there.
    ///
    /// # Errors
    /// As for any delete.
    pub async fn delete(&self, digest: &Digest) -> Result<bool, Error> {
        self.deletes(digest)?;
        let names = &self.registry.names;
        Ok(names.delete_manifest(self.repository, digest).await?)
    }
}
