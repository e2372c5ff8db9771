//! Errors of the disk, classified where the system call returned.
//!
//! Invariant: a [`Kind`] comes from the error number and never from a message.
//! Refuses to know: what the caller does about an error.

use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

/// The result of a disk operation.
pub type Result<T> = std::result::Result<T, DiskError>;

/// What kind of failure it was, grouped by what a caller can do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The path does not exist. Proven, never assumed.
    NotFound,
    /// The path exists already.
    Exists,
    /// No room: the file system, the quota or the file size limit is used up.
    Full,
    /// No permission, or a file system mounted read-only.
    Denied,
    /// Somebody else uses it.
    Busy,
    /// The file system or the kernel cannot do this.
    Unsupported,
    /// Interrupted, or to be tried again, more often than is tried.
    Interrupted,
    /// The process or the machine is out of file handles or memory.
    Exhausted,
    /// The request was wrong, such as an offset that is not aligned.
    Invalid,
    /// The device, the medium or the file ended. Nothing better is known.
    Io,
}

impl Kind {
    /// Classifies an error of the operating system.
    #[must_use]
    pub fn of(error: &io::Error) -> Kind {
        let Some(errno) = Errno::from_io_error(error) else {
            return match error.kind() {
                io::ErrorKind::NotFound => Kind::NotFound,
                io::ErrorKind::AlreadyExists => Kind::Exists,
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Kind::Full,
                io::ErrorKind::PermissionDenied => Kind::Denied,
                io::ErrorKind::ResourceBusy => Kind::Busy,
                io::ErrorKind::Unsupported => Kind::Unsupported,
                io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock => Kind::Interrupted,
                io::ErrorKind::OutOfMemory => Kind::Exhausted,
                io::ErrorKind::InvalidInput => Kind::Invalid,
                _ => Kind::Io,
            };
        };
        match errno {
            Errno::NOENT => Kind::NotFound,
            Errno::EXIST | Errno::NOTEMPTY => Kind::Exists,
            Errno::NOSPC | Errno::DQUOT | Errno::FBIG => Kind::Full,
            Errno::ACCESS | Errno::PERM | Errno::ROFS => Kind::Denied,
            Errno::BUSY | Errno::TXTBSY | Errno::DEADLK => Kind::Busy,
            Errno::OPNOTSUPP | Errno::NOSYS | Errno::NOTTY | Errno::XDEV => Kind::Unsupported,
            Errno::INTR | Errno::AGAIN => Kind::Interrupted,
            Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::NOBUFS => Kind::Exhausted,
            Errno::INVAL | Errno::ISDIR | Errno::NOTDIR | Errno::NAMETOOLONG | Errno::LOOP => {
                Kind::Invalid
            }
            _ => Kind::Io,
        }
    }

    /// An error of this kind, as the operating system would give it. The
    /// simulated disk uses it; [`Kind::of`] gives the kind back.
    #[must_use]
    pub fn example(self) -> io::Error {
        let errno = match self {
            Kind::NotFound => Errno::NOENT,
            Kind::Exists => Errno::EXIST,
            Kind::Full => Errno::NOSPC,
            Kind::Denied => Errno::ACCESS,
            Kind::Busy => Errno::BUSY,
            Kind::Unsupported => Errno::OPNOTSUPP,
            Kind::Interrupted => Errno::INTR,
            Kind::Exhausted => Errno::MFILE,
            Kind::Invalid => Errno::INVAL,
            Kind::Io => Errno::IO,
        };
        errno.into()
    }
}

/// A disk operation that failed: what, on what, and why.
#[derive(Debug, thiserror::Error)]
#[error("cannot {op} {path}: {source}", path = path.display())]
pub struct DiskError {
    /// The class of the failure.
    pub kind: Kind,
    /// The operation as a verb: `write`, `sync`, `open`.
    pub op: &'static str,
    /// What it was done to.
    pub path: PathBuf,
    /// What the operating system said.
    pub source: io::Error,
}

impl DiskError {
    /// Wraps an error of the operating system.
    #[must_use]
    pub fn new(op: &'static str, path: &Path, source: io::Error) -> DiskError {
        DiskError {
            kind: Kind::of(&source),
            op,
            path: path.to_owned(),
            source,
        }
    }

    pub(crate) fn errno(op: &'static str, path: &Path, errno: Errno) -> DiskError {
        DiskError::new(op, path, errno.into())
    }

    pub(crate) fn invalid(op: &'static str, path: &Path, why: &'static str) -> DiskError {
        DiskError::new(op, path, io::Error::new(io::ErrorKind::InvalidInput, why))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_survive_their_example() {
        for kind in [
            Kind::NotFound,
            Kind::Exists,
            Kind::Full,
            Kind::Denied,
            Kind::Busy,
            Kind::Unsupported,
            Kind::Interrupted,
            Kind::Exhausted,
            Kind::Invalid,
            Kind::Io,
        ] {
            assert_eq!(Kind::of(&kind.example()), kind);
        }
    }

    #[test]
    fn quota_is_full_and_the_message_names_the_file() {
        let error = DiskError::errno("write", Path::new("/x/y"), Errno::DQUOT);
        assert_eq!(error.kind, Kind::Full);
        assert!(
            error.to_string().starts_with("cannot write /x/y: "),
            "{error}"
        );
    }

    #[test]
    fn an_end_of_file_is_io() {
        let error = io::Error::from(io::ErrorKind::UnexpectedEof);
        assert_eq!(Kind::of(&error), Kind::Io);
    }
}
