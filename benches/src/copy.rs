//! Copies a folder so that a program that writes to its files cannot tell:
//! what was allocated and not written stays so, holes stay holes. A plain
//! copy would turn preallocated files into written ones, which are cheaper to
//! write to.

use crate::error::{Context as _, Result};
use rustix::fs::{FallocateFlags, SeekFrom, copy_file_range, fallocate, seek};
use rustix::io::Errno;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Bytes of one block as `stat` counts them.
const STAT_BLOCK: u64 = 512;

/// Copies the files and folders in `from` into the new folder `to`. Anything
/// else, such as a socket, is left out.
pub(crate) fn folder(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).context(|| format!("create {}", to.display()))?;
    let entries = fs::read_dir(from).context(|| format!("list {}", from.display()))?;
    for entry in entries {
        let entry = entry.context(|| format!("list {}", from.display()))?;
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        let of_kind = entry.file_type();
        let of_kind = of_kind.context(|| format!("look at {}", from.display()))?;
        if of_kind.is_dir() {
            folder(&from, &to)?;
        } else if of_kind.is_file() {
            file(&from, &to).context(|| format!("copy {} to {}", from.display(), to.display()))?;
        }
    }
    let metadata = fs::metadata(from).context(|| format!("look at {}", from.display()))?;
    fs::set_permissions(to, metadata.permissions())
        .context(|| format!("set the mode of {}", to.display()))
}

fn file(from: &Path, to: &Path) -> std::io::Result<()> {
    let (source, target) = (File::open(from)?, File::create_new(to)?);
    let metadata = source.metadata()?;
    let length = metadata.len();
    target.set_len(length)?;
    if length > 0 && metadata.blocks() * STAT_BLOCK >= length {
        fallocate(&target, FallocateFlags::empty(), 0, length)?;
    }
    let mut at = 0;
    while at < length {
        let start = match seek(&source, SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(Errno::NXIO) => break,
            Err(error) => return Err(error.into()),
        };
        at = seek(&source, SeekFrom::Hole(start))?;
        range(&source, &target, start, at)?;
    }
    target.set_permissions(metadata.permissions())
}

/// Copies the bytes `start..end`.
fn range(source: &File, target: &File, start: u64, end: u64) -> std::io::Result<()> {
    let (mut read, mut written) = (start, start);
    while read < end {
        let left = usize::try_from(end - read).unwrap_or(usize::MAX);
        let copied = copy_file_range(source, Some(&mut read), target, Some(&mut written), left)?;
        if copied == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{FileExt as _, PermissionsExt};
    use std::os::unix::net::UnixListener;

    #[test]
    fn a_copy_has_the_same_bytes_and_the_same_holes() {
        let root = tempfile::tempdir().unwrap();
        let (from, to) = (root.path().join("from"), root.path().join("to"));
        fs::create_dir_all(from.join("deep/er")).unwrap();
        let sparse = File::create_new(from.join("deep/sparse")).unwrap();
        sparse.set_len(64 << 20).unwrap();
        sparse.write_all_at(b"middle", 32 << 20).unwrap();
        fs::write(from.join("deep/er/small"), b"bytes").unwrap();
        fs::write(from.join("empty"), b"").unwrap();
        fs::set_permissions(from.join("empty"), PermissionsExt::from_mode(0o600)).unwrap();
        let _socket = UnixListener::bind(from.join("socket")).unwrap();

        folder(&from, &to).unwrap();

        assert_eq!(fs::read(to.join("deep/er/small")).unwrap(), b"bytes");
        assert_eq!(fs::read(to.join("empty")).unwrap(), b"");
        let mode = fs::metadata(to.join("empty")).unwrap().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(!to.join("socket").exists());
        let (old, new) = (from.join("deep/sparse"), to.join("deep/sparse"));
        assert!(fs::read(&old).unwrap() == fs::read(&new).unwrap());
        let blocks = |path| fs::metadata(path).unwrap().blocks();
        assert!(blocks(&new) <= blocks(&old) + 64, "a hole was filled");
    }

    #[test]
    fn what_was_allocated_stays_allocated() {
        let root = tempfile::tempdir().unwrap();
        let from = root.path().join("from");
        fs::create_dir(&from).unwrap();
        let file = File::create_new(from.join("f")).unwrap();
        if fallocate(&file, FallocateFlags::empty(), 0, 1 << 20).is_err() {
            return; // Not every file system can.
        }
        file.write_all_at(b"head", 0).unwrap();
        folder(&from, &root.path().join("to")).unwrap();
        let copy = root.path().join("to/f");
        assert!(fs::metadata(&copy).unwrap().blocks() * STAT_BLOCK >= 1 << 20);
        assert!(fs::read(&copy).unwrap() == fs::read(from.join("f")).unwrap());
    }
}
