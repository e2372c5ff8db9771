//! Reading files and folders: the only place that touches them.
//!
//! A file that is short gives what it has; a system that refuses to read is
//! trouble, never "missing". Knows nothing of what is in the files.

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use orlop_format::BLOCK;

use crate::finding::{Result, Trouble};

/// Bytes read at once while looking for something.
const CHUNK: u64 = 1024 * 1024;

/// An open file.
#[derive(Debug)]
pub(crate) struct Source {
    file: File,
    path: PathBuf,
    len: u64,
}

pub(crate) fn trouble(op: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Trouble {
    let path = path.to_owned();
    move |source| Trouble::Io { op, path, source }
}

impl Source {
    /// Opens a file; `None` when there is none.
    pub(crate) fn open(path: &Path) -> Result<Option<Self>> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(trouble("open", path)(error)),
        };
        let len = file.metadata().map_err(trouble("examine", path))?.len();
        Ok(Some(Self {
            file,
            path: path.to_owned(),
            len,
        }))
    }

    /// Its length in bytes.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Its path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The bytes at `offset`, `len` of them unless the file ends before.
    pub(crate) fn read(&self, offset: u64, len: u64) -> Result<Vec<u8>> {
        let len = len.min(self.len.saturating_sub(offset));
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
        self.file
            .read_exact_at(&mut bytes, offset)
            .map_err(trouble("read", &self.path))?;
        Ok(bytes)
    }

    /// The block at `offset`.
    pub(crate) fn block(&self, offset: u64) -> Result<Vec<u8>> {
        self.read(offset, BLOCK as u64)
    }

    /// The first block in `from..to` for which `test` gives something, with
    /// its offset.
    pub(crate) fn search<T>(
        &self,
        from: u64,
        to: u64,
        test: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<Option<(u64, T)>> {
        let mut at = from;
        while at < to.min(self.len) {
            let bytes = self.read(at, CHUNK.min(to.saturating_sub(at)))?;
            for block in bytes.chunks(BLOCK) {
                if let Some(hit) = test(block) {
                    return Ok(Some((at, hit)));
                }
                at = at.saturating_add(BLOCK as u64);
            }
        }
        Ok(None)
    }
}

/// Whether a block was never written.
pub(crate) fn blank(block: &[u8]) -> bool {
    block.iter().all(|byte| *byte == 0)
}

/// The names in a folder, sorted; none when there is no folder.
pub(crate) fn names(folder: &Path) -> Result<Vec<String>> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(trouble("list", folder)(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(trouble("list", folder))?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}
