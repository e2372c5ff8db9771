//! One process per folder: the lock file.
//!
//! Owns: an advisory lock (`flock`) on one file, for as long as [`Lock`] lives.
//! Invariant: the lock decides, the file's text only names the holder. The
//! kernel releases the lock when its process ends, however it ends.
//! Refuses to know: what the folder holds.

use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use crate::DiskError;

/// Bytes of a lock file that are read to name its holder.
const TEXT_LIMIT: u64 = 256;

/// The lock is held until this is dropped.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// Why a lock was not given.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process holds it.
    #[error("{path} is held by {who}: stop it first", path = path.display(), who = holder(*pid))]
    Held {
        /// The holder, as it wrote itself down; 0 when it has not yet.
        pid: u32,
        /// The lock file.
        path: PathBuf,
    },
    /// The file could not be opened, locked or written.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

fn holder(pid: u32) -> String {
    match pid {
        0 => "another process".to_owned(),
        pid => format!("process {pid}"),
    }
}

impl Lock {
    /// Takes the lock, without waiting, and writes the process id and the
    /// start time of this process into the file.
    ///
    /// # Errors
    /// [`LockError::Held`] when another process, or another [`Lock`] of this
    /// one, has it.
    pub fn acquire(path: &Path) -> Result<Lock, LockError> {
        let fail = |op| move |errno| DiskError::errno(op, path, errno);
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR).map_err(fail("open"))?;
        let mut file = File::from(file);
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                let pid = read_holder(&mut file);
                return Err(LockError::Held {
                    pid,
                    path: path.to_owned(),
                });
            }
            Err(errno) => return Err(fail("lock")(errno).into()),
        }
        write_holder(&mut file).map_err(|error| DiskError::new("write", path, error))?;
        Ok(Lock { _file: file })
    }

    /// Whether the lock could be taken. Makes and writes nothing, and takes it
    /// for a moment only, shared with others who look: [`Lock::acquire`] may be
    /// refused meanwhile. Nobody holds a file that is not there.
    ///
    /// # Errors
    /// As of [`Lock::acquire`].
    pub fn look(path: &Path) -> Result<(), LockError> {
        let fail = |op| move |errno| DiskError::errno(op, path, errno);
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let mut file = match rustix::fs::open(path, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT) => return Ok(()),
            Err(errno) => return Err(fail("open")(errno).into()),
        };
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => Ok(()),
            Err(Errno::WOULDBLOCK) => Err(LockError::Held {
                pid: read_holder(&mut file),
                path: path.to_owned(),
            }),
            Err(errno) => Err(fail("lock")(errno).into()),
        }
    }
}

/// The first line is the process id.
fn read_holder(file: &mut File) -> u32 {
    let mut text = String::new();
    if file.take(TEXT_LIMIT).read_to_string(&mut text).is_err() {
        return 0;
    }
    text.lines()
        .next()
        .and_then(|line| line.parse().ok())
        .unwrap_or(0)
}

fn write_holder(file: &mut File) -> std::io::Result<()> {
    let pid = std::process::id();
    let text = match start_ticks() {
        Some(ticks) => format!("{pid}\nstarted {ticks} clock ticks after boot\n"),
        None => format!("{pid}\n"),
    };
    file.set_len(0)?;
    file.rewind()?;
    file.write_all(text.as_bytes())
}

/// When this process started, in clock ticks since boot: with it a process id
/// that was used again can be told from the holder's.
fn start_ticks() -> Option<u64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name in parentheses may hold spaces; field 22 counts from the start,
    // and the field after the name is the third.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_holder_is_told_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("LOCK");
        let lock = Lock::acquire(&path).unwrap();
        let error = Lock::acquire(&path).unwrap_err();
        let LockError::Held { pid, .. } = &error else {
            panic!("{error}")
        };
        assert_eq!(*pid, std::process::id());
        assert!(
            error.to_string().contains(&format!("process {pid}")),
            "{error}"
        );
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(
            text.lines().nth(1).unwrap().starts_with("started "),
            "{text}"
        );
        drop(lock);
        Lock::acquire(&path).unwrap();
    }

    #[test]
    fn text_left_by_a_dead_process_holds_nothing_up() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("LOCK");
        std::fs::write(
            &path,
            "4194304\nstarted long ago, with a much longer line than ours\n",
        )
        .unwrap();
        let lock = Lock::acquire(&path).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().next().unwrap(), std::process::id().to_string());
        assert_eq!(text.lines().count(), 2, "{text}");
        drop(lock);
    }

    #[test]
    fn a_look_finds_the_holder_and_leaves_everything_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("LOCK");
        Lock::look(&path).unwrap();
        assert!(!path.exists());
        std::fs::write(&path, "somebody's text").unwrap();
        Lock::look(&path).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "somebody's text");
        let lock = Lock::acquire(&path).unwrap();
        let error = Lock::look(&path).unwrap_err();
        assert!(
            matches!(error, LockError::Held { pid, .. } if pid == std::process::id()),
            "{error}"
        );
        drop(lock);
        // Those who look do not see each other.
        let beside = File::open(&path).unwrap();
        rustix::fs::flock(&beside, FlockOperation::LockShared).unwrap();
        Lock::look(&path).unwrap();
    }

    #[test]
    fn a_missing_folder_is_not_a_holder() {
        let error = Lock::acquire(Path::new("/nonexistent/LOCK")).unwrap_err();
        assert!(matches!(error, LockError::Disk(_)), "{error}");
    }
}
