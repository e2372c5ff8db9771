//! Reading files and folders: the only place that touches them.
//!
//! A file that is short gives what it has; a system that refuses to read is
//! trouble, never "missing". Where the disk itself cannot read, the blocks in
//! question count as zeros and are kept for a finding, so that one bad sector
//! does not hide all others. Knows nothing of what is in the files.

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use orlop_format::BLOCK;
use rustix::fs::Advice;
use rustix::io::Errno;

use crate::finding::{Code, Object};
use crate::report::Report;
use crate::trouble::{Result, Trouble};

/// Bytes read at once while walking through a file.
const WINDOW: u64 = 4 * 1024 * 1024;
/// Bad ranges of one file that are kept.
const MAX_LOST: usize = 1_000;

/// An open file.
#[derive(Debug)]
pub(crate) struct Source {
    file: File,
    path: PathBuf,
    /// Its path below the data folder.
    name: String,
    len: u64,
    /// Offset and length of what the disk could not read.
    lost: Mutex<Vec<(u64, u64)>>,
}

pub(crate) fn trouble(op: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Trouble {
    let path = path.to_owned();
    move |source| Trouble::Io { op, path, source }
}

impl Source {
    /// Opens a file by its path below the data folder; `None` when there is
    /// none.
    pub(crate) fn open(folder: &Path, name: &str) -> Result<Option<Self>> {
        let path = folder.join(name);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(trouble("open", &path)(error)),
        };
        let len = file.metadata().map_err(trouble("examine", &path))?.len();
        Ok(Some(Self {
            file,
            path,
            name: name.to_owned(),
            len,
            lost: Mutex::default(),
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

    /// Its path below the data folder.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Tells the system that these bytes will be read soon.
    pub(crate) fn prefetch(&self, offset: u64, len: u64) {
        // Advice; what comes of it is only speed.
        let _ = rustix::fs::fadvise(
            &self.file,
            offset,
            std::num::NonZeroU64::new(len),
            Advice::WillNeed,
        );
    }

    /// Tells the system that these bytes will not be read again.
    pub(crate) fn release(&self, offset: u64, len: u64) {
        let _ = rustix::fs::fadvise(
            &self.file,
            offset,
            std::num::NonZeroU64::new(len),
            Advice::DontNeed,
        );
    }

    /// Puts the bytes at `offset` into `bytes`, `len` of them unless the file
    /// ends before.
    pub(crate) fn fill(&self, offset: u64, len: u64, bytes: &mut Vec<u8>) -> Result<()> {
        let len = len.min(self.len.saturating_sub(offset));
        bytes.resize(usize::try_from(len).unwrap_or(usize::MAX), 0);
        self.pull(offset, bytes)
    }

    fn pull(&self, offset: u64, bytes: &mut [u8]) -> Result<()> {
        let read = |bytes: &mut [u8], at| self.file.read_exact_at(bytes, at);
        lenient(read, offset, bytes, |at, len| self.lose(at, len))
            .map_err(trouble("read", &self.path))
    }

    fn lose(&self, at: u64, len: u64) {
        let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        let known =
            |(start, length): &(u64, u64)| (*start..start.saturating_add(*length)).contains(&at);
        if lost.iter().any(known) {
            return;
        }
        let full = lost.len() >= MAX_LOST;
        match lost.last_mut() {
            Some((start, length)) if start.saturating_add(*length) == at => {
                *length = length.saturating_add(len);
            }
            _ if full => {}
            _ => lost.push((at, len)),
        }
    }

    /// Reports what the disk could not read.
    pub(crate) fn report(&self, report: &mut Report) {
        let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        for (offset, length) in lost.drain(..) {
            report.find(
                Code::FileUnreadable,
                Object::file(&self.name).at(offset).len(length),
                format_args!("{length} bytes"),
                "an input/output error of the disk",
            );
        }
    }

    /// The bytes at `offset`, `len` of them unless the file ends before.
    pub(crate) fn read(&self, offset: u64, len: u64) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.fill(offset, len, &mut bytes)?;
        Ok(bytes)
    }

    /// The block at `offset`.
    pub(crate) fn block(&self, offset: u64) -> Result<Vec<u8>> {
        self.read(offset, BLOCK as u64)
    }
}

/// Reads bytes at once; where the disk cannot, block by block, and those that
/// it cannot read become zeros that are told of.
fn lenient(
    read: impl Fn(&mut [u8], u64) -> std::io::Result<()>,
    offset: u64,
    bytes: &mut [u8],
    mut lose: impl FnMut(u64, u64),
) -> std::io::Result<()> {
    let bad = |error: &std::io::Error| error.raw_os_error() == Some(Errno::IO.raw_os_error());
    match read(bytes, offset) {
        Err(error) if bad(&error) => {}
        done => return done,
    }
    let mut at = offset;
    for block in bytes.chunks_mut(BLOCK) {
        match read(block, at) {
            Err(error) if bad(&error) => {
                block.fill(0);
                lose(at, block.len() as u64);
            }
            done => done?,
        }
        at = at.saturating_add(block.len() as u64);
    }
    Ok(())
}

/// Walks through a file with few large reads.
#[derive(Debug)]
pub(crate) struct Window<'a> {
    source: &'a Source,
    at: u64,
    bytes: Vec<u8>,
}

impl<'a> Window<'a> {
    /// At the start of the file.
    pub(crate) fn new(source: &'a Source) -> Self {
        Self {
            source,
            at: 0,
            bytes: Vec::new(),
        }
    }

    /// The bytes at `offset`, `want` of them unless the file ends before.
    pub(crate) fn at(&mut self, offset: u64, want: u64) -> Result<&[u8]> {
        let want = want.min(self.source.len().saturating_sub(offset));
        let have = self.at.saturating_add(self.bytes.len() as u64);
        if offset < self.at || offset.saturating_add(want) > have {
            self.source
                .fill(offset, WINDOW.max(want), &mut self.bytes)?;
            self.at = offset;
            let behind = offset.saturating_add(self.bytes.len() as u64);
            if behind < self.source.len() {
                self.source.prefetch(behind, WINDOW);
            }
        }
        let skip = usize::try_from(offset.saturating_sub(self.at)).unwrap_or(usize::MAX);
        let end = skip.saturating_add(usize::try_from(want).unwrap_or(usize::MAX));
        Ok(self.bytes.get(skip..end).unwrap_or_default())
    }

    /// The first block in `from..to` for which `test` gives something, with
    /// its offset.
    pub(crate) fn search<T>(
        &mut self,
        from: u64,
        to: u64,
        test: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<Option<(u64, T)>> {
        let end = to.min(self.source.len());
        let mut at = from;
        while at < end {
            if let Some(hit) = test(self.at(at, BLOCK as u64)?) {
                return Ok(Some((at, hit)));
            }
            at = at.saturating_add(BLOCK as u64);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_that_the_disk_cannot_read_counts_as_zeros_and_is_reported() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("file"), vec![7; 5 * BLOCK]).unwrap();
        let source = Source::open(folder.path(), "file").unwrap().unwrap();
        let read = |bytes: &mut [u8], at: u64| {
            let end = at + bytes.len() as u64;
            if at < 4 * 4096 && end > 2 * 4096 {
                return Err(Errno::IO.into());
            }
            source.file.read_exact_at(bytes, at)
        };
        let mut bytes = vec![1; 4 * BLOCK];
        lenient(read, BLOCK as u64, &mut bytes, |at, len| {
            source.lose(at, len)
        })
        .unwrap();
        let wanted = [vec![7; BLOCK], vec![0; 2 * BLOCK], vec![7; BLOCK]].concat();
        assert!(bytes == wanted);
        // Told of once, however often it is read.
        lenient(read, BLOCK as u64, &mut bytes, |at, len| {
            source.lose(at, len)
        })
        .unwrap();
        let mut report = Report::new(folder.path());
        source.report(&mut report);
        let [finding] = report.findings() else {
            panic!("{report}")
        };
        assert_eq!(finding.code, Code::FileUnreadable);
        assert_eq!(
            finding.object,
            Object::file("file").at(8192u64).len(8192u64)
        );
        // Another refusal is trouble.
        let refuse = |_: &mut [u8], _| Err(Errno::ACCESS.into());
        assert!(lenient(refuse, 0, &mut bytes, |_, _| {}).is_err());
    }
}
