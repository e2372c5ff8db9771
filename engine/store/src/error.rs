//! Errors of the store, grouped by what the caller does about them.

use std::sync::Arc;

use orlop_disk::{DiskError, Kind};
use orlop_format::digest::Digest;
use orlop_index::IndexError;

/// The result of a store operation.
pub type Result<T> = std::result::Result<T, Error>;

/// Why the store did not do what was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// It is proven not to be there.
    #[error("{what} is not in the store")]
    NotFound {
        /// What was asked for.
        what: String,
    },
    /// The request cannot be carried out as it is.
    #[error("{0}")]
    Invalid(Invalid),
    /// There is no room; nothing was lost. Deletes and collection go on.
    #[error("no room: {reason}; free space or enlarge the file system")]
    Full {
        /// What there is and what is needed.
        reason: String,
    },
    /// Somebody else is using it, or a bound was reached. Try again.
    #[error("{what} is busy; try again in a moment")]
    Busy {
        /// What is busy.
        what: String,
    },
    /// Bytes on disk are not what was written.
    #[error("{what} is damaged: {reason}; run orlop-fsck, or push it again to heal it")]
    Corrupt {
        /// Which object.
        what: String,
        /// Where and how.
        reason: String,
    },
    /// The operating system refused.
    #[error("{what}: {reason}")]
    Io {
        /// What was attempted.
        what: String,
        /// What the system said.
        reason: String,
    },
    /// A write or sync failed before; nothing is written until a restart.
    #[error("the store takes no writes since {reason}; restart it to recover")]
    Poisoned {
        /// What failed first.
        reason: Arc<str>,
    },
    /// Opening, or work in the background, was cancelled. What it had done is
    /// used by the next one or done again.
    #[error("it was cancelled; the next start begins again, or goes on")]
    Cancelled,
}

/// What is wrong with a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// The bytes do not have the digest they were sent under.
    #[error("the content has digest {actual}, not {expected}")]
    DigestMismatch {
        /// What the client said.
        expected: Box<Digest>,
        /// What the bytes are.
        actual: Box<Digest>,
    },
    /// More than the format can hold.
    #[error("{what} is larger than {limit}")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// The bound.
        limit: u64,
    },
    /// The log knows another state of the upload than the caller.
    #[error("the upload has changed meanwhile; ask for its offset and go on from there")]
    Stale,
    /// A live set that is not whole or not the store's; nothing was deleted.
    #[error(
        "the live set cannot be used, so nothing was deleted: {reason}; collect again, and look at the catalog if that says the same"
    )]
    LiveSet {
        /// What is wrong with it.
        reason: String,
    },
    /// The data folder is of a newer version.
    #[error("{what} was written by a newer version; start the newer program")]
    Newer {
        /// What is newer.
        what: String,
    },
    /// The data folder cannot be opened as it is.
    #[error("{0}")]
    Folder(String),
}

impl From<Invalid> for Error {
    fn from(invalid: Invalid) -> Self {
        Error::Invalid(invalid)
    }
}

impl From<DiskError> for Error {
    fn from(error: DiskError) -> Self {
        match error.kind {
            // After a failed sync it is not known what is durable, and more
            // room mends nothing.
            Kind::Full if !error.op.starts_with("sync") => Error::Full {
                reason: error.to_string(),
            },
            _ => Error::Io {
                what: "disk".to_owned(),
                reason: error.to_string(),
            },
        }
    }
}

impl From<IndexError> for Error {
    fn from(error: IndexError) -> Self {
        match error {
            IndexError::Full { .. } => Error::Full {
                reason: error.to_string(),
            },
            IndexError::Newer { .. } => Invalid::Newer {
                what: error.to_string(),
            }
            .into(),
            IndexError::Damaged { .. } | IndexError::Io { .. } => Error::Io {
                what: "index".to_owned(),
                reason: error.to_string(),
            },
        }
    }
}

impl Error {
    /// Nothing of this name.
    pub(crate) fn missing(what: impl std::fmt::Display) -> Self {
        Error::NotFound {
            what: what.to_string(),
        }
    }

    /// Damage to `what`.
    pub(crate) fn corrupt(what: impl std::fmt::Display, reason: impl std::fmt::Display) -> Self {
        Error::Corrupt {
            what: what.to_string(),
            reason: reason.to_string(),
        }
    }
}
