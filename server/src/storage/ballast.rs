//! Room that is kept for a start on a full disk: files that hold nothing and
//! are removed when a start finds no room.
//!
//! Opening the index and the catalog makes files and grows others. Whoever
//! fills the disk to its last byte, or takes its last file, while the server is
//! down would otherwise keep it from serving what it has.
//!
//! Invariant: nothing is ever read from these files, and nothing is lost with
//! them. Where they cannot be made, there are none.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use rustix::fs::{FallocateFlags, fallocate, statvfs};

/// The folder within the data folder.
const BALLAST: &str = "ballast";
/// Files in it: more than a start makes.
const FILES: u32 = 8;
/// Bytes of each.
const BYTES: u64 = 2 << 20;
/// They are made only where so many times their room is available.
const SPACIOUS: u64 = 4;

/// Room on the file system of a folder.
struct Room {
    bytes: u64,
    files: u64,
}

fn room(folder: &Path) -> io::Result<Room> {
    let stat = statvfs(folder)?;
    // File systems without a table of files count none.
    let files = if stat.f_files == 0 {
        u64::MAX
    } else {
        stat.f_favail
    };
    Ok(Room {
        bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
        files,
    })
}

/// Makes what is missing, where there is room for it.
pub(super) fn keep(folder: &Path) {
    if let Err(error) = try_keep(folder) {
        tracing::debug!(%error, "no room is kept for a start on a full disk");
    }
}

fn try_keep(folder: &Path) -> io::Result<()> {
    let needed = SPACIOUS.saturating_mul(BYTES).saturating_mul(FILES.into());
    let Room { bytes, files } = room(folder)?;
    if bytes < needed || files < SPACIOUS.saturating_mul(FILES.into()) {
        return Ok(());
    }
    let ballast = folder.join(BALLAST);
    match fs::create_dir(&ballast) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    for number in 0..FILES {
        let path = ballast.join(number.to_string());
        if path.metadata().is_ok_and(|data| data.len() == BYTES) {
            continue;
        }
        let file = File::create(&path)?;
        if let Err(error) = fallocate(&file, FallocateFlags::empty(), 0, BYTES) {
            // A file without its room would be taken for one that has it.
            fs::remove_file(&path)?;
            return Err(error.into());
        }
    }
    Ok(())
}

/// Gives the room up if the file system is full. True if there was some.
pub(super) fn release(folder: &Path) -> bool {
    let is_short = room(folder).is_ok_and(|room| room.bytes < BYTES || room.files < FILES.into());
    let ballast = folder.join(BALLAST);
    if !is_short || !ballast.is_dir() {
        return false;
    }
    match fs::remove_dir_all(&ballast) {
        Ok(()) => true,
        Err(error) => {
            tracing::warn!(%error, path = %ballast.display(), "the room that is kept for a start cannot be given up");
            false
        }
    }
}
