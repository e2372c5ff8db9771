//! Indexes to test, and ways to take them down.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;

use orlop_index::mem::Memory;
use orlop_index::rocks::{Options, Rocks};
use orlop_index::{Index, Table};
use tempfile::TempDir;

/// An index under test, with what it takes to open it again.
pub(crate) trait Subject {
    /// How many random histories it is worth.
    const CASES: u32;
    fn new() -> Self;
    fn index(&self) -> &dyn Index;
    /// Closes it orderly and opens it again.
    fn reopen(&mut self);
    /// Opens what would be on disk if it died now.
    fn crash(&mut self);
}

pub(crate) struct MemorySubject(Memory);

impl MemorySubject {
    pub(crate) fn memory(&self) -> &Memory {
        &self.0
    }
}

impl Subject for MemorySubject {
    const CASES: u32 = 256;

    fn new() -> Self {
        MemorySubject(Memory::new())
    }

    fn index(&self) -> &dyn Index {
        &self.0
    }

    fn reopen(&mut self) {
        self.0 = self.0.crash();
    }

    fn crash(&mut self) {
        self.0 = self.0.crash();
    }
}

pub(crate) struct RocksSubject {
    index: Option<Rocks>,
    folder: TempDir,
}

impl Subject for RocksSubject {
    const CASES: u32 = 24;

    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let index = Some(open(&folder.path().join("index")));
        RocksSubject { index, folder }
    }

    fn index(&self) -> &dyn Index {
        self.index.as_ref().unwrap()
    }

    fn reopen(&mut self) {
        self.index = None;
        self.index = Some(open(&self.folder.path().join("index")));
    }

    fn crash(&mut self) {
        // A copy of the folder while it is open: closing it would flush.
        let folder = TempDir::new().unwrap();
        copy(
            &self.folder.path().join("index"),
            &folder.path().join("index"),
        );
        self.index = Some(open(&folder.path().join("index")));
        self.folder = folder;
    }
}

/// Small buffers, so that flushes and compactions happen in small tests.
pub(crate) fn options(folder: &Path) -> Options {
    Options {
        cache_bytes: 1 << 20,
        write_buffer_bytes: 256 << 10,
        direct: takes_direct(folder),
        ..Options::default()
    }
}

/// Temporary folders may be on a file system without direct I/O.
fn takes_direct(folder: &Path) -> bool {
    use std::os::unix::fs::OpenOptionsExt;
    let name = folder.with_extension("direct");
    std::fs::create_dir_all(folder.parent().unwrap()).unwrap();
    let direct = if cfg!(target_arch = "aarch64") {
        0o200_000
    } else {
        0o40_000
    };
    let opened = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .custom_flags(direct)
        .open(&name);
    let _ = std::fs::remove_file(&name);
    opened.is_ok()
}

pub(crate) fn open(path: &Path) -> Rocks {
    Rocks::open(path, &options(path)).unwrap()
}

/// Copies a folder as it is at one moment, which a crash would leave: tried
/// again until nothing in it changed meanwhile.
pub(crate) fn copy(from: &Path, to: &Path) {
    for _ in 0..1000 {
        let before = listing(from);
        if to.exists() {
            std::fs::remove_dir_all(to).unwrap();
        }
        std::fs::create_dir_all(to).unwrap();
        let copied = before
            .keys()
            .all(|name| std::fs::copy(from.join(name), to.join(name)).is_ok());
        if copied && listing(from) == before {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    panic!("{} never came to rest", from.display());
}

/// Names, lengths and times of the files in a folder.
fn listing(folder: &Path) -> BTreeMap<std::ffi::OsString, (u64, std::time::SystemTime)> {
    let entries = std::fs::read_dir(folder).unwrap();
    entries
        .filter_map(|entry| {
            let entry = entry.unwrap();
            // RocksDB deletes files it is done with meanwhile.
            let known = entry.metadata().ok()?;
            Some((entry.file_name(), (known.len(), known.modified().unwrap())))
        })
        .collect()
}

pub(crate) fn rows(index: &dyn Index, table: Table) -> BTreeMap<Vec<u8>, Vec<u8>> {
    rows_from(index, table, &[])
}

/// The rows from a key on; fails unless they come in order.
pub(crate) fn rows_from(
    index: &dyn Index,
    table: Table,
    from: &[u8],
) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut rows: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    index
        .scan(table, from, &mut |key, value| {
            assert!(
                rows.last_key_value()
                    .is_none_or(|(last, _)| last.as_slice() < key)
            );
            rows.insert(key.to_vec(), value.to_vec());
            ControlFlow::Continue(())
        })
        .unwrap();
    rows
}
