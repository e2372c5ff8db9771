//! Repositories: which ones there are, and their end and return as a whole.

use orlop_oci::RepositoryName;

use super::access::{self, Subject, Verb};
use super::note::Note;
use super::page::{self, Page};
use super::seam::HiddenRepository;
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
        let (registry, repository) = (self.clone(), repository.clone());
        self.to_the_end(async move {
            let _order = registry.order.take(&repository).await;
            let row = registry.names.repository(&repository).await?;
            let row = row.ok_or(Error::NameUnknown)?;
            let note = Note::Drop {
                repository: repository.clone(),
                row,
            };
            registry.blobs.note(note.encode())?;
            let deleted = registry.names.delete_repository(&repository).await;
            if let Err(fault) = deleted {
                // Whether it is still there may not be known: then it is as noted.
                if registry.names.repository(&repository).await == Ok(Some(row)) {
                    let note = Note::Restore {
                        repository: repository.clone(),
                        name: repository,
                        row,
                    };
                    registry.blobs.note(note.encode())?;
                }
                return Err(fault.into());
            }
            Ok(())
        })
        .await
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
            registry.restore(&repository, &name, hidden).await?;
            Ok(hidden.manifests)
        })
        .await
    }

    /// Notes a return, then does it. What was noted and is not done is taken back:
    /// what is pushed later belongs to another repository.
    async fn restore(
        &self,
        repository: &RepositoryName,
        name: &RepositoryName,
        hidden: HiddenRepository,
    ) -> Result<(), Error> {
        let HiddenRepository { row, makes_way, .. } = hidden;
        let drop = |repository: &RepositoryName, row| Note::Drop {
            repository: repository.clone(),
            row,
        };
        let restore = |repository: &RepositoryName, row| Note::Restore {
            repository: repository.clone(),
            name: name.clone(),
            row,
        };
        if let Some(other) = makes_way {
            self.blobs.note(drop(name, other).encode())?;
        }
        self.blobs.note(restore(repository, row).encode())?;
        let done = self.names.undelete_repository(row, name).await;
        let is_back = match done {
            Ok(is_back) => is_back,
            // If it cannot be known, it is as noted: more is kept.
            Err(_) => match self.names.repository(name).await {
                Ok(found) => found == Some(row),
                Err(fault) => return Err(fault.into()),
            },
        };
        if is_back {
            return Ok(());
        }
        self.blobs.note(drop(repository, row).encode())?;
        if let Some(other) = makes_way {
            self.blobs.note(restore(name, other).encode())?;
        }
        // A purge came between, or the change failed.
        done?;
        Err(Error::NameUnknown)
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
