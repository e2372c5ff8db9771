//! Blobs of a repository: found, read, mounted from another one, and deleted.
//!
//! The store is asked, which takes a lease, and the link is looked at after
//! that: what the client is told to be here then stays here. It is looked at
//! before, too: who asks for what the repository does not have keeps nothing alive.

use orlop_oci::{Digest, RepositoryName};

use super::access::{self, Subject, Verb};
use super::note::{Deletion, Note};
use super::seam::{Content, Fault, Life};
use super::{Error, Registry};

/// Repositories that are looked at for one that may be mounted from, when none
/// is named.
const HOLDERS_MAX: usize = 64;

impl Registry {
    /// The size of a blob, in bytes.
    pub async fn blob_stat(
        &self,
        subject: Subject,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<u64, Error> {
        access::allow(subject, Verb::Pull, repository)?;
        self.check_link(repository, digest).await?;
        let found = self.blobs.stat(digest);
        self.check_link(repository, digest).await?;
        let life = found.map_err(|fault| blob_error(fault, digest))?;
        Ok(life.size)
    }

    /// A blob to read.
    pub async fn blob_open(
        &self,
        subject: Subject,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Box<dyn Content>, Error> {
        access::allow(subject, Verb::Pull, repository)?;
        self.check_link(repository, digest).await?;
        let found = self.blobs.read(digest);
        self.check_link(repository, digest).await?;
        let content = found.map_err(|fault| blob_error(fault, digest))?;
        self.verbs.blob_pulls.add(1);
        Ok(content)
    }

    /// Gives a repository a blob that another one has: that named, or any that
    /// the subject may read. False when there is none such; "absent" and "not
    /// yours" are not told apart.
    pub async fn blob_mount(
        &self,
        subject: Subject,
        repository: &RepositoryName,
        from: Option<&RepositoryName>,
        digest: &Digest,
    ) -> Result<bool, Error> {
        self.may_push(subject, repository)?;
        if !self.may_mount(subject, from, digest).await? {
            return Ok(false);
        }
        let life = match self.blobs.stat(digest) {
            Ok(life) => life,
            Err(Fault::NotFound | Fault::Corrupt(_)) => return Ok(false),
            Err(fault) => return Err(fault.into()),
        };
        if !self.may_mount(subject, from, digest).await? {
            return Ok(false);
        }
        let (registry, repository, digest) = (self.clone(), repository.clone(), *digest);
        self.to_the_end(async move {
            registry.link(&repository, &digest, life).await?;
            registry.verbs.blob_mounts.add(1);
            Ok(true)
        })
        .await
    }

    /// Gives a repository a blob that is durable and leased: a note, then the
    /// link.
    pub(super) async fn link(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        life: Life,
    ) -> Result<(), Error> {
        let _order = self.order.give(repository, &[]).await;
        let note = Note::Link {
            repository: repository.clone(),
            digest: *digest,
            size: life.size,
        };
        self.blobs.note(note.encode())?;
        self.names.link_blob(repository, digest, life).await?;
        // A purge by digest may have ended the lease before it saw the link: it is
        // taken anew, if the blob is still here.
        let now = self.blobs.stat(digest);
        let now = now.map_err(|fault| blob_error(fault, digest))?;
        match now.birth == life.birth {
            true => Ok(()),
            false => Err(Error::BlobUnknown(*digest)),
        }
    }

    async fn may_mount(
        &self,
        subject: Subject,
        from: Option<&RepositoryName>,
        digest: &Digest,
    ) -> Result<bool, Error> {
        let may_pull = |name: &RepositoryName| access::allow(subject, Verb::Pull, name).is_ok();
        match from {
            Some(from) => Ok(may_pull(from) && self.names.blob_linked(from, digest).await?),
            None => {
                let holders = self.names.holders(digest, HOLDERS_MAX).await?;
                Ok(holders.iter().any(may_pull))
            }
        }
    }

    /// Takes a blob from a repository, at once and from this one alone.
    pub async fn blob_delete(
        &self,
        subject: Subject,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<(), Error> {
        self.may_delete(subject, repository)?;
        if !self.names.blob_linked(repository, digest).await? {
            return Err(self.absent(repository, Error::BlobUnknown(*digest)).await);
        }
        self.delete(Deletion::Blob {
            repository: repository.clone(),
            digest: *digest,
        })
        .await
    }

    async fn check_link(&self, repository: &RepositoryName, digest: &Digest) -> Result<(), Error> {
        if self.names.blob_linked(repository, digest).await? {
            Ok(())
        } else {
            Err(Error::BlobUnknown(*digest))
        }
    }
}

fn blob_error(fault: Fault, digest: &Digest) -> Error {
    match fault {
        Fault::NotFound => Error::BlobUnknown(*digest),
        other => Error::Storage(other),
    }
}
