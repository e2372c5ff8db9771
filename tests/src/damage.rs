//! Bytes that rot on disk.
//!
//! Owns: finding a blob's bytes in the files of a store, by what they are, and
//! changing one. Knows no format.

use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Finds where these bytes lie in the files below a folder.
fn find(folder: &Path, needle: &[u8]) -> Option<(PathBuf, u64)> {
    for entry in fs::read_dir(folder).expect("a file of the store") {
        let path = entry.expect("a file of the store").path();
        let found = if path.is_dir() {
            find(&path, needle)
        } else {
            find_in(&path, needle).map(|at| (path, at))
        };
        if found.is_some() {
            return found;
        }
    }
    None
}

/// Reads a file in steps and passes over what was never written.
fn find_in(path: &Path, needle: &[u8]) -> Option<u64> {
    const STEP: usize = 64 << 10;
    let zeros = vec![0; STEP];
    let mut file = File::open(path).expect("a file of the store");
    // The end of the step before, where the needle may begin.
    let mut window = Vec::new();
    let mut start = 0;
    loop {
        let kept = window.len();
        let read = file
            .by_ref()
            .take(STEP as u64)
            .read_to_end(&mut window)
            .expect("a file of the store");
        if read == 0 {
            return None;
        }
        if window[kept..] != zeros[..read] {
            let found = window.windows(needle.len()).position(|w| w == needle);
            if let Some(at) = found {
                return Some(start + at as u64);
            }
        }
        let cut = window.len().saturating_sub(needle.len() - 1);
        window.drain(..cut);
        start += cut as u64;
    }
}

/// Flips one bit in the middle of a blob's payload on disk. The server must be
/// stopped.
///
/// # Panics
/// When the bytes are not there.
pub fn rot(data: &Path, bytes: &[u8]) {
    // Somewhere inside, within one page.
    let middle = bytes.len() / 2;
    let needle = &bytes[middle..(middle + 32).min(bytes.len())];
    let place = ["data", "journal"]
        .iter()
        .find_map(|folder| find(&data.join(folder), needle));
    let (path, at) = place.expect("the blob's bytes lie in the store");
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .expect("a file of the store");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at + 5)
        .expect("a file of the store");
    byte[0] ^= 0x10;
    file.write_all_at(&byte, at + 5)
        .expect("a file of the store");
}
