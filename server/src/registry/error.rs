//! Why a verb of the protocol was refused or failed.

use std::sync::Arc;

use orlop_oci::{Digest, ManifestError};

use super::maintenance::ReadOnly;
use super::seam::{BodyFault, Fault, Mismatch};

/// Digests that are named back to a client in one error.
const NAMED_MAX: usize = 32;

/// Why the catalog is not the one that goes with the blobs, so that no name is
/// written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unpaired {
    /// Names were given since that it does not have.
    #[error(
        "the catalog is older than one this store has seen; put the newer one back or run `orlop catalog adopt`"
    )]
    Older,
    /// Blobs it names may be missing, and blobs here be unknown to it.
    #[error(
        "the catalog belongs to another store; put the right one back or run `orlop catalog adopt`"
    )]
    Other,
}

/// Why a verb was refused or failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The subject may not do this.
    #[error("access denied")]
    Denied,
    /// No such repository.
    #[error("repository not known")]
    NameUnknown,
    /// There is a repository of this name that has manifests.
    #[error("there is a repository of this name by now, with {manifests} manifests")]
    NameTaken {
        /// How many it has.
        manifests: u64,
    },
    /// The repository has no such blob.
    #[error("blob {0} is not known to this repository")]
    BlobUnknown(Digest),
    /// No such upload session in this repository.
    #[error("upload session not known")]
    UploadUnknown,
    /// Another request is at this upload session.
    #[error("another request is writing to this upload session")]
    UploadBusy,
    /// The chunk is not the next one.
    #[error("the chunk is out of order: {offset} bytes were received so far")]
    OutOfOrder {
        /// Bytes received so far.
        offset: u64,
    },
    /// More or fewer bytes came than the chunk said.
    #[error("the chunk was said to have {declared} bytes but has {received}")]
    ChunkSize {
        /// As declared.
        declared: u64,
        /// As received; counting stops at the first byte too many.
        received: u64,
    },
    /// The request body failed. What came of it was kept.
    #[error("the request body could not be read: {0}")]
    Body(BodyFault),
    /// The content is not what the digest says.
    #[error(transparent)]
    DigestMismatch(Box<Mismatch>),
    /// The repository has no such manifest.
    #[error("manifest not known to this repository")]
    ManifestUnknown,
    /// Not a manifest that can be stored.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The manifest names what this repository does not have.
    #[error(
        "the manifest refers to {count} blobs or manifests that this repository does not have; push them first"
    )]
    ReferencesUnknown {
        /// The first few of them.
        missing: Vec<Digest>,
        /// How many there are.
        count: usize,
    },
    /// The manifest gives a blob another size than it has.
    #[error("the manifest gives {digest} a size of {declared} bytes, but it has {stored}")]
    DescriptorSize {
        /// Which one.
        digest: Digest,
        /// Size in bytes, in the manifest.
        declared: u64,
        /// Size in bytes, as stored.
        stored: u64,
    },
    /// Nothing is written until the right catalog is back.
    #[error("pushes are refused, pulls go on: {0}")]
    Unpaired(Unpaired),
    /// An operator switched writes off.
    #[error("the registry is read-only for maintenance: {}; pulls go on", .0.reason)]
    ReadOnly(Arc<ReadOnly>),
    /// Storage could not do it.
    #[error(transparent)]
    Storage(#[from] Fault),
    /// A defect. The log says where.
    #[error("internal error")]
    Panicked,
}

impl Error {
    /// The error for content of another digest.
    pub(super) fn mismatch(expected: Digest, actual: Digest) -> Error {
        Error::DigestMismatch(Box::new(Mismatch { expected, actual }))
    }

    /// The error for these missing references.
    pub(super) fn references_unknown(mut missing: Vec<Digest>) -> Error {
        let count = missing.len();
        missing.truncate(NAMED_MAX);
        Error::ReferencesUnknown { missing, count }
    }
}
