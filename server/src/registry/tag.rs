//! Tags of a repository, in pages.

use orlop_oci::RepositoryName;

use super::access::{self, Subject, Verb};
use super::{Error, Registry};

/// The longest page of tags.
pub(super) const TAGS_PAGE_MAX: usize = 1000;

/// A page of tags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagPage {
    /// The tags, in byte order.
    pub tags: Vec<String>,
    /// How many were asked for, after clamping.
    pub limit: usize,
    /// Whether there are more after these.
    pub more: bool,
}

impl Registry {
    /// Up to `n` tags after `last`. Without `n`, as many as a page may have.
    pub async fn tag_list(
        &self,
        subject: Subject,
        repository: &RepositoryName,
        last: Option<&str>,
        n: Option<u64>,
    ) -> Result<TagPage, Error> {
        access::allow(subject, Verb::Pull, repository)?;
        let limit = n
            .and_then(|n| usize::try_from(n).ok())
            .unwrap_or(TAGS_PAGE_MAX)
            .min(TAGS_PAGE_MAX);
        // One more than asked for, to see whether there are more.
        let mut tags = self
            .names
            .tags(repository, last, limit.saturating_add(1))
            .await?
            .ok_or(Error::NameUnknown)?;
        let more = limit > 0 && tags.len() > limit;
        tags.truncate(limit);
        Ok(TagPage { tags, limit, more })
    }
}

#[cfg(test)]
#[path = "tag_tests.rs"]
mod tests;
