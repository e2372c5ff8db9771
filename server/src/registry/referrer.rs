//! Referrers: the manifests that are about another one.
//!
//! Every manifest's subject is kept when it is pushed, from the first release
//! on. So the list also has those whose client kept a list of its own under
//! the fallback tag of the subject's digest, and such tags need no reading.

use orlop_oci::{Digest, RepositoryName};

use super::access::{self, Subject, Verb};
use super::page::{self, Page};
use super::seam::{Referrer, ReferrerQuery};
use super::{Error, Registry};

/// Bytes of manifests whose descriptors share a page: the annotations in those
/// take no more, and a whole page stays below 4 MiB.
const PAGE_BYTES: u64 = 3 * 1024 * 1024;

impl Registry {
    /// Up to `n` manifests about `subject` after the digest `last`, of one
    /// type if one is given. Of an unknown repository or subject there are
    /// none, which is no error.
    pub async fn referrer_list(
        &self,
        who: Subject,
        repository: &RepositoryName,
        subject: &Digest,
        artifact_type: Option<&str>,
        last: Option<&Digest>,
        n: Option<u64>,
    ) -> Result<Page<Referrer>, Error> {
        access::allow(who, Verb::Pull, repository)?;
        let limit = page::limit(n);
        let query = ReferrerQuery {
            subject,
            artifact_type,
            last,
            limit,
            bytes: PAGE_BYTES,
        };
        let (entries, more_after) = self.names.referrers(repository, query).await?;
        Ok(Page {
            entries,
            limit,
            more_after: more_after.map(|last| last.to_string()),
        })
    }
}
