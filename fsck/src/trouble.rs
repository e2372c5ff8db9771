//! Why a check could not look. Never a finding: what could not be read is not
//! known to be damaged.

use std::path::PathBuf;

/// Why it could not look.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// A server has the store open.
    #[error("the store in {} is in use by {holder}; stop it first", folder.display())]
    Running {
        /// The data folder.
        folder: PathBuf,
        /// Who holds it.
        holder: String,
    },
    /// It is no store.
    #[error("{} is not a data folder of Orlop: it has no superblock", .0.display())]
    NotAStore(PathBuf),
    /// A newer version wrote it.
    #[error("{0} was written by a newer version; check the store with that version's orlop-fsck")]
    Newer(String),
    /// Something cannot be done.
    #[error("{0}")]
    Refused(String),
    /// The system refused.
    #[error("cannot {op} {}: {source}", path.display())]
    Io {
        /// What was tried.
        op: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// There is no room for what does not fit into memory.
    #[error(
        "cannot keep scratch files in {}: {source}; name a folder with room by --scratch DIR (some 400 bytes a blob)",
        folder.display()
    )]
    Scratch {
        /// The scratch folder.
        folder: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A thread of the check ended before its work.
    #[error("a thread of the check ended before its work; report this")]
    Thread,
}

/// What a check gives, or why it could not look.
pub type Result<T> = std::result::Result<T, Trouble>;
