//! The file that keeps read-only maintenance across a restart.
//!
//! It is a file of its own beside the catalog, so that it can be read and
//! written while the catalog cannot. It appears and goes whole and durably:
//! written beside its place, synced, renamed, the folder synced.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::registry::ReadOnly;

/// Its name in the data folder. Not there: writes are taken.
pub const FILE: &str = "maintenance.json";
/// Bytes of it that are read, at most.
const BYTES_MAX: u64 = 64 * 1024;
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Kept {
    version: u32,
    read_only: ReadOnly,
}

/// What is kept: why writes are off, if they are.
///
/// # Errors
/// The file is there and cannot be read, or says nothing this release knows.
pub fn read(folder: &Path) -> io::Result<Option<ReadOnly>> {
    let path = folder.join(FILE);
    let name = |error: io::Error| {
        let text = format!("cannot read {}: {error}", path.display());
        io::Error::new(error.kind(), text)
    };
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(name(error)),
    };
    let mut text = String::new();
    file.take(BYTES_MAX)
        .read_to_string(&mut text)
        .map_err(name)?;
    let kept: Kept = serde_json::from_str(&text).map_err(|error| name(error.into()))?;
    if kept.version != VERSION {
        let text = format!(
            "it has version {}, this release knows {VERSION}",
            kept.version
        );
        return Err(name(io::Error::other(text)));
    }
    Ok(Some(kept.read_only))
}

/// Keeps this, durably.
///
/// # Errors
/// What the system says, with the file's name.
pub fn write(folder: &Path, read_only: Option<&ReadOnly>) -> io::Result<()> {
    let path = folder.join(FILE);
    let written = match read_only {
        Some(read_only) => put(folder, &path, read_only),
        None => match fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        },
    };
    written
        .and_then(|()| File::open(folder)?.sync_all())
        .map_err(|error| {
            let text = format!("cannot write {}: {error}", path.display());
            io::Error::new(error.kind(), text)
        })
}

fn put(folder: &Path, path: &Path, read_only: &ReadOnly) -> io::Result<()> {
    let kept = Kept {
        version: VERSION,
        read_only: read_only.clone(),
    };
    let new = folder.join(format!("{FILE}.new"));
    let mut file = File::create(&new)?;
    writeln!(file, "{}", serde_json::to_string(&kept)?)?;
    file.sync_all()?;
    fs::rename(&new, path)
}
