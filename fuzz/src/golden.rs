//! The golden store: its files as they are in the repository, and what its
//! blobs say.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

#[path = "../../tests/golden/v1.rs"]
#[expect(dead_code, reason = "targets need a part of it")]
mod v1;

/// A file below the data folder.
pub(crate) type File = (PathBuf, Vec<u8>);

/// Its files, in the order of their paths.
pub(crate) fn files() -> &'static [File] {
    static FILES: OnceLock<Vec<File>> = OnceLock::new();
    FILES.get_or_init(|| {
        let paths = v1::store().files().into_iter().map(|(path, _)| path);
        let mut files: Vec<_> = paths
            .map(|path| {
                let bytes = std::fs::read(v1::folder().join(&path)).unwrap();
                (path, bytes)
            })
            .collect();
        files.sort();
        files
    })
}

/// The bytes of its blobs, whether they can be had or not.
pub(crate) fn blobs() -> &'static [Vec<u8>] {
    static BLOBS: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    BLOBS.get_or_init(|| {
        v1::store()
            .blobs
            .into_iter()
            .map(|blob| blob.bytes)
            .collect()
    })
}

/// Writes files into a folder.
pub(crate) fn write(folder: &Path, files: &[File]) {
    for (path, bytes) in files {
        let to = folder.join(path);
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::write(to, bytes).unwrap();
    }
}
