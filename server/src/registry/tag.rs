//! Tags of a repository: listed in pages, and deleted.

use orlop_oci::{Reference, RepositoryName, Tag};

use super::access::{self, Subject, Verb};
use super::note::Deletion;
use super::page::{self, Page};
use super::{Error, Registry};

impl Registry {
    /// Up to `n` tags after `last`, in byte order. Without `n`, as many as a
    /// page may have.
    pub async fn tag_list(
        &self,
        subject: Subject,
        repository: &RepositoryName,
        last: Option<&str>,
        n: Option<u64>,
    ) -> Result<Page<String>, Error> {
        access::allow(subject, Verb::Pull, repository)?;
        let limit = page::limit(n);
        let tags = self.names.tags(repository, last, limit.saturating_add(1));
        let tags = tags.await?.ok_or(Error::NameUnknown)?;
        Ok(Page::cut(tags, limit))
    }

    /// Deletes a tag. The manifest stays, by its digest and other tags.
    pub async fn tag_delete(
        &self,
        subject: Subject,
        repository: &RepositoryName,
        tag: &Tag,
    ) -> Result<(), Error> {
        self.may_delete(subject, repository)?;
        let reference = Reference::Tag(tag.clone());
        if self.names.manifest(repository, &reference).await?.is_none() {
            return Err(self.absent(repository, Error::ManifestUnknown).await);
        }
        self.delete(Deletion::Tag {
            repository: repository.clone(),
            tag: tag.to_string(),
        })
        .await
    }
}

#[cfg(test)]
#[path = "tag_tests.rs"]
mod tests;
