//! Repositories: which ones there are, and their end and return as a whole.

use orlop_oci::RepositoryName;

use super::access::{self, Subject, Verb};
use super::note::{Deletion, Note};
use super::page::{self, Page};
use super::{Error, Registry};

impl Registry {
    /// Up to `n` repositories after `last` that the subject may pull from, in
    /// byte order. A page can be short, even empty, and more follow.
    pub async fn repository_list(
        &self,
        subject: Subject,
        last: Option<&str>,
        n: Option<u64>,
    ) -> Result<Page<RepositoryName>, Error> {
        let limit = page::limit(n);
        let names = self.names.repositories(last, limit.saturating_add(1));
        let mut page = Page::cut(names.await?, limit);
        page.entries
            .retain(|name| access::allow(subject, Verb::Pull, name).is_ok());
        Ok(page)
    }

    /// Deletes a repository with all that is in it. It can come back as a whole
    /// within the undelete window; a push to its name makes a new one.
    ///
    /// # Errors
    /// `NameUnknown` when there is none.
    pub async fn repository_delete(
        &self,
        subject: Subject,
        repository: &RepositoryName,
    ) -> Result<(), Error> {
        self.may_delete(subject, repository)?;
        if self.names.tags(repository, None, 0).await?.is_none() {
            return Err(Error::NameUnknown);
        }
        let repository = repository.clone();
        self.delete(Deletion::Repository { repository }).await
    }

    /// Brings the repository back that had this name and was deleted last, with
    /// all that was in it, under this name or another one. How many manifests it
    /// has.
    ///
    /// # Errors
    /// `NameUnknown` when none was deleted, or a purge has begun with it;
    /// `NameTaken` when there is one of the new name that has manifests.
    pub async fn repository_undelete(
        &self,
        subject: Subject,
        repository: &RepositoryName,
        name: &RepositoryName,
    ) -> Result<u64, Error> {
        self.may_push(subject, name)?;
        let (registry, repository, name) = (self.clone(), repository.clone(), name.clone());
        self.to_the_end(async move {
            // In one order, so that nobody waits in a circle.
            let _orders = registry.order.take_both(&repository, &name).await;
            let hidden = registry.names.hidden_repository(&repository, &name).await?;
            let hidden = hidden.ok_or(Error::NameUnknown)?;
            if hidden.in_the_way > 0 {
                return Err(Error::NameTaken {
                    manifests: hidden.in_the_way,
                });
            }
            let note = Note::Restore {
                repository: repository.clone(),
                name: name.clone(),
            };
            registry.blobs.note(note.encode())?;
            let is_back = registry.names.undelete_repository(&repository, &name);
            if is_back.await? {
                return Ok(hidden.manifests);
            }
            // A purge came between: nothing came back, and the note says so.
            let gone = Note::Deletion(Deletion::Repository { repository: name });
            registry.blobs.note(gone.encode())?;
            Err(Error::NameUnknown)
        })
        .await
    }

    /// The error for something that a repository does not have: `absent` if
    /// there is such a repository.
    pub(super) async fn absent(&self, repository: &RepositoryName, absent: Error) -> Error {
        match self.names.tags(repository, None, 0).await {
            Ok(Some(_)) => absent,
            Ok(None) => Error::NameUnknown,
            Err(fault) => fault.into(),
        }
    }
}
