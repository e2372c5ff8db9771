//! Repositories: which ones there are.

use orlop_oci::RepositoryName;

use super::access::{self, Subject, Verb};
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
