//! The store's lock, so that a running store is not looked at and none starts
//! meanwhile.

use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::file::trouble;
use crate::trouble::{Result, Trouble};

/// Bytes of the lock file that are read to name its holder.
const TEXT: u64 = 256;

/// How long the lock is tried for: who only looks at it has it for a moment.
const PATIENCE: Duration = Duration::from_secs(1);
/// Pause before it is tried again.
const PAUSE: Duration = Duration::from_millis(20);

/// Takes the lock for as long as the file is kept. `None` when there is no
/// lock file: then no server has opened the folder.
pub(crate) fn take(folder: &Path) -> Result<Option<File>> {
    let path = folder.join("LOCK");
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(trouble("open", &path)(error)),
    };
    let began = Instant::now();
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(Some(file)),
            Err(Errno::WOULDBLOCK) if began.elapsed() < PATIENCE => std::thread::sleep(PAUSE),
            Err(Errno::WOULDBLOCK) => {
                let folder = folder.to_owned();
                return Err(Trouble::Running {
                    folder,
                    holder: holder(&file),
                });
            }
            Err(errno) => return Err(trouble("lock", &path)(errno.into())),
        }
    }
}

/// As [`take`], and makes the lock file if there is none.
pub(crate) fn take_or_make(folder: &Path) -> Result<File> {
    let path = folder.join("LOCK");
    for _ in 0..2 {
        if let Some(file) = take(folder)? {
            return Ok(file);
        }
        File::options()
            .create(true)
            .append(true)
            .open(&path)
            .map_err(trouble("make", &path))?;
    }
    Err(trouble("lock", &path)(ErrorKind::NotFound.into()))
}

/// The lock file's first line is the holder's process id.
fn holder(file: &File) -> String {
    let mut text = String::new();
    let read = file.take(TEXT).read_to_string(&mut text);
    match text.lines().next().map(str::trim) {
        Some(pid)
            if read.is_ok() && !pid.is_empty() && pid.bytes().all(|byte| byte.is_ascii_digit()) =>
        {
            format!("process {pid}")
        }
        _ => "another process".to_owned(),
    }
}
