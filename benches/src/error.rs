//! The one error of the bench: what happened, to what, what to do next.

use std::io;

/// Why a run, a row or a request ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A system call failed.
    #[error("cannot {action}: {source}")]
    Io {
        /// What was tried, on what.
        action: String,
        /// The system's answer.
        source: io::Error,
    },
    /// A server answered something a benchmark cannot count.
    #[error("{0}")]
    Answer(String),
    /// A server could not be started or stopped.
    #[error("{0}")]
    Server(String),
    /// The command line asks for something impossible.
    #[error("{0}")]
    Usage(String),
    /// SIGINT or SIGTERM arrived.
    #[error("interrupted; the data of the run was deleted")]
    Interrupted,
}

/// Result with the bench's error.
pub(crate) type Result<T> = std::result::Result<T, Error>;

/// Names the action that failed.
pub(crate) trait Context<T> {
    /// Turns an I/O error into one that says what was tried.
    fn context(self, action: impl FnOnce() -> String) -> Result<T>;
}

impl<T> Context<T> for io::Result<T> {
    fn context(self, action: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| Error::Io {
            action: action(),
            source,
        })
    }
}
