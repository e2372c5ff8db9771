//! Every blob that the log names, looked up by SHA-256: for whoever compares
//! other things with the store, such as the catalog.
//!
//! Filled once in the order of SHA-256. What is more than a few MiB lies in
//! scratch files.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use orlop_format::row;

use crate::scratch::Scratch;
use crate::trouble::Result;

/// Bytes that each part keeps in memory.
const MEMORY: usize = 4 << 20;
/// A row of the directory: SHA-256, then offset (u64) and length (u32) of the
/// value.
const ROW: usize = 44;

/// Bytes that are appended and read by their offset.
#[derive(Debug)]
struct Heap {
    scratch: Scratch,
    file: Option<File>,
    /// Bytes in the file.
    written: u64,
    memory: Vec<u8>,
}

impl Heap {
    fn new(scratch: &Scratch) -> Self {
        Self {
            scratch: scratch.clone(),
            file: None,
            written: 0,
            memory: Vec::new(),
        }
    }

    /// Appends bytes; returns where they lie.
    fn push(&mut self, bytes: &[u8]) -> Result<u64> {
        if self.memory.len().saturating_add(bytes.len()) > MEMORY {
            let file = match self.file.take() {
                Some(file) => file,
                None => self.scratch.file()?,
            };
            file.write_all_at(&self.memory, self.written)
                .map_err(|error| self.scratch.trouble(error))?;
            self.written = self.written.saturating_add(self.memory.len() as u64);
            self.memory.clear();
            self.file = Some(file);
        }
        let at = self.written.saturating_add(self.memory.len() as u64);
        self.memory.extend_from_slice(bytes);
        Ok(at)
    }

    fn read(&self, offset: u64, len: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        match (offset.checked_sub(self.written), &self.file) {
            (Some(start), _) => {
                let start = usize::try_from(start).unwrap_or(usize::MAX);
                let found = self.memory.get(start..start.saturating_add(len));
                bytes.copy_from_slice(found.unwrap_or(&vec![0; len]));
            }
            (None, Some(file)) => file
                .read_exact_at(&mut bytes, offset)
                .map_err(|error| self.scratch.trouble(error))?,
            (None, None) => {}
        }
        Ok(bytes)
    }
}

/// The blobs.
#[derive(Debug)]
pub(crate) struct Blobs {
    directory: Heap,
    values: Heap,
    count: u64,
}

impl Blobs {
    /// None yet.
    pub(crate) fn new(scratch: &Scratch) -> Self {
        Self {
            directory: Heap::new(scratch),
            values: Heap::new(scratch),
            count: 0,
        }
    }

    /// Adds one, above all that are there.
    pub(crate) fn push(&mut self, sha256: &[u8; 32], blob: &row::Blob) -> Result<()> {
        let value = blob.encode();
        let at = self.values.push(&value)?;
        let len = u32::try_from(value.len()).unwrap_or(u32::MAX);
        let row = [&sha256[..], &at.to_le_bytes(), &len.to_le_bytes()].concat();
        self.directory.push(&row)?;
        self.count = self.count.saturating_add(1);
        Ok(())
    }

    /// A blob as the index should have it at the end of the log; `None` when
    /// the log does not name it.
    pub(crate) fn get(&self, sha256: &[u8; 32]) -> Result<Option<row::Blob>> {
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low.midpoint(high);
            let row = self
                .directory
                .read(middle.saturating_mul(ROW as u64), ROW)?;
            let (key, rest) = row.split_at(32);
            match key.cmp(sha256) {
                std::cmp::Ordering::Less => low = middle.saturating_add(1),
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => {
                    let (at, len) = rest.split_at(8);
                    let at = u64::from_le_bytes(at.try_into().unwrap_or_default());
                    let len = u32::from_le_bytes(len.try_into().unwrap_or_default());
                    let value = self.values.read(at, len as usize)?;
                    return Ok(row::Blob::decode(&value).ok());
                }
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use orlop_format::row::{Form, State};

    #[test]
    fn blobs_are_found_by_their_digest_in_memory_and_in_files() {
        let mut blobs = Blobs::new(&Scratch::new(None));
        let key = |number: u32| {
            let mut key = [0; 32];
            key[..4].copy_from_slice(&number.to_be_bytes());
            key
        };
        let row = |number: u32| row::Blob {
            state: State::Live,
            internal: false,
            ordinal: u64::from(number),
            size: 1,
            birth: 2,
            form: Form::Extents(Vec::new()),
        };
        let count = 150_000; // some MiB
        for number in 0..count {
            blobs.push(&key(number * 2), &row(number)).unwrap();
        }
        assert!(blobs.directory.file.is_some() && blobs.values.file.is_some());
        for number in (0..count).step_by(997).chain([count - 1]) {
            assert_eq!(blobs.get(&key(number * 2)).unwrap(), Some(row(number)));
            assert_eq!(blobs.get(&key(number * 2 + 1)).unwrap(), None);
        }
    }
}
