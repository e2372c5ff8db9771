//! Further digests that the index has and the log does not name: which of them
//! the bytes of their blob prove.
//!
//! Earlier builds let such records go when they recycled the journal, so a good
//! store may have them. An index that is made again has none.

use std::path::Path;

use orlop_format::digest::{Digest, Hasher};

use super::log::Log;
use crate::catalog::blobs::{Blobs, Life, Reader};
use crate::finding::{Code, Finding};
use crate::trouble::Result;

/// Such digests, by what their blobs say of them.
#[derive(Debug, Default)]
pub(super) struct Further {
    /// The bytes have it. With the SHA-256 of the blob.
    pub(super) proven: Vec<(Digest, Digest)>,
    /// The bytes cannot be had.
    pub(super) unproven: Vec<Digest>,
    /// The bytes have another, or the blob has ended or never was.
    pub(super) wrong: Vec<Digest>,
}

/// The digest that a finding says only the index knows, and the blob that it
/// means there.
pub(super) fn of(finding: &Finding) -> Option<(Digest, Digest)> {
    let object = &finding.object;
    let is_such =
        finding.code == Code::IndexExtraRow && object.table.as_deref() == Some("index/alias");
    if !is_such {
        return None;
    }
    let parse = |text: &Option<String>| Digest::parse(text.as_deref()?).ok();
    Some((parse(&object.key)?, parse(&object.blob)?))
}

impl Further {
    /// Reads the blobs that these findings are about.
    pub(super) fn sort(folder: &Path, log: &Log, findings: &[&Finding]) -> Result<Self> {
        let mut further = Self::default();
        let reader = Reader::new(folder);
        for (digest, blob) in findings.iter().filter_map(|finding| of(finding)) {
            let known = log.find(&blob)?.filter(|known| known.life != Life::Dead);
            let Some(known) = known else {
                further.wrong.push(digest);
                continue;
            };
            let mut hasher = Hasher::new(digest.algorithm());
            let whole = reader.read(&known, &mut |bytes| {
                hasher.update(bytes);
                Ok(())
            })?;
            match whole {
                true if hasher.finish() == digest => further.proven.push((digest, blob)),
                true => further.wrong.push(digest),
                false => further.unproven.push(digest),
            }
        }
        Ok(further)
    }

    /// How many of them do not ask for a new index.
    pub(super) fn spared(&self) -> usize {
        self.proven.len().saturating_add(self.unproven.len())
    }
}
