//! Where inputs lie: the committed corpus, what a failed run leaves, and room
//! for files of targets that need some.

use std::io;
use std::path::{Path, PathBuf};

/// Inputs that one target may have in its corpus.
pub const FILES_MAX: usize = 100;
/// Bytes that they may have together.
pub const BYTES_MAX: u64 = 200 * 1024;

/// The folder of this crate.
fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The folder of a target's corpus.
#[must_use]
pub fn folder(target: &str) -> PathBuf {
    here().join("corpus").join(target)
}

/// The corpus of a target, in the order of its names.
///
/// # Errors
/// When it cannot be read.
pub fn load(target: &str) -> io::Result<Vec<(PathBuf, Vec<u8>)>> {
    let mut paths = std::fs::read_dir(folder(target))?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<io::Result<Vec<_>>>()?;
    paths.sort();
    paths
        .into_iter()
        .map(|path| {
            let bytes = std::fs::read(&path)?;
            Ok((path, bytes))
        })
        .collect()
}

/// Keeps an input that made a target fail; says where.
///
/// # Errors
/// When it cannot be written.
pub fn keep(target: &str, input: &[u8]) -> io::Result<PathBuf> {
    let folder = here().join("artifacts").join(target);
    std::fs::create_dir_all(&folder)?;
    let name = orlop_format::checksum::crc(input);
    let path = folder.join(format!("failed-{name:08x}"));
    std::fs::write(&path, input)?;
    Ok(path)
}

/// A folder in memory, where there is one.
#[must_use]
pub fn scratch() -> PathBuf {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() {
        memory.to_owned()
    } else {
        std::env::temp_dir()
    }
}
