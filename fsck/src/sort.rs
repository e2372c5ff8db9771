//! Sorting more than fits into memory: items of bytes, in the order of their
//! bytes. Runs that are sorted in memory are written to scratch files and
//! merged.
//!
//! Memory is the budget while pushing, and a small buffer for each run while
//! reading. Knows nothing of what the items say.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek as _, Write as _};

use crate::scratch::Scratch;
use crate::trouble::Result;

/// Runs that are merged at once.
const MAX_RUNS: usize = 64;
/// Bytes read or written at once of a run.
const BUFFER: usize = 64 * 1024;

/// Takes items in any order.
#[derive(Debug)]
pub(crate) struct Sorter {
    scratch: Scratch,
    budget: usize,
    arena: Vec<u8>,
    items: Vec<(u32, u32)>,
    runs: Vec<File>,
}

impl Sorter {
    /// One that holds about `budget` bytes in memory.
    pub(crate) fn new(scratch: &Scratch, budget: usize) -> Self {
        Self {
            scratch: scratch.clone(),
            budget,
            arena: Vec::new(),
            items: Vec::new(),
            runs: Vec::new(),
        }
    }

    /// Adds an item.
    pub(crate) fn push(&mut self, item: &[u8]) -> Result<()> {
        // An item in memory costs its bytes and its place in the list.
        let held = self.arena.len() + self.items.len() * size_of::<(u32, u32)>();
        if !self.items.is_empty() && held + item.len() > self.budget {
            self.spill()?;
        }
        let start = u32::try_from(self.arena.len()).unwrap_or(u32::MAX);
        self.arena.extend_from_slice(item);
        let len = u32::try_from(item.len()).unwrap_or(u32::MAX);
        self.items.push((start, len));
        Ok(())
    }

    fn sort(&mut self) {
        let arena = &self.arena;
        self.items
            .sort_unstable_by(|a, b| slice(arena, *a).cmp(slice(arena, *b)));
    }

    /// Writes what is in memory as a run.
    fn spill(&mut self) -> Result<()> {
        self.sort();
        let mut out = BufWriter::with_capacity(BUFFER, self.scratch.file()?);
        for item in &self.items {
            write(&self.scratch, &mut out, slice(&self.arena, *item))?;
        }
        self.runs.push(finished(&self.scratch, out)?);
        self.arena.clear();
        self.items.clear();
        if self.runs.len() >= MAX_RUNS {
            let mut merged = Merge::new(&self.scratch, std::mem::take(&mut self.runs))?;
            let mut out = BufWriter::with_capacity(BUFFER, self.scratch.file()?);
            while merged.advance()? {
                write(&self.scratch, &mut out, &merged.current)?;
            }
            self.runs.push(finished(&self.scratch, out)?);
        }
        Ok(())
    }

    /// The items in order.
    pub(crate) fn finish(mut self) -> Result<Sorted> {
        if self.runs.is_empty() {
            self.sort();
            return Ok(Sorted::Memory {
                arena: self.arena,
                items: self.items,
                at: 0,
            });
        }
        if !self.items.is_empty() {
            self.spill()?;
        }
        Ok(Sorted::Merge(Merge::new(&self.scratch, self.runs)?))
    }
}

/// Items in order.
#[derive(Debug)]
pub(crate) enum Sorted {
    /// All of them in memory.
    Memory {
        /// Their bytes.
        arena: Vec<u8>,
        /// Where each lies, in order.
        items: Vec<(u32, u32)>,
        /// The next one.
        at: usize,
    },
    /// In runs.
    Merge(Merge),
}

impl Sorted {
    /// The next item.
    pub(crate) fn next(&mut self) -> Result<Option<&[u8]>> {
        match self {
            Sorted::Memory { arena, items, at } => {
                let item = items.get(*at).map(|item| slice(arena, *item));
                *at += 1;
                Ok(item)
            }
            Sorted::Merge(merge) => Ok(merge.advance()?.then_some(merge.current.as_slice())),
        }
    }
}

fn slice(arena: &[u8], (start, len): (u32, u32)) -> &[u8] {
    let start = start as usize;
    arena.get(start..start + len as usize).unwrap_or_default()
}

fn write(scratch: &Scratch, out: &mut BufWriter<File>, item: &[u8]) -> Result<()> {
    let len = u32::try_from(item.len()).unwrap_or(u32::MAX);
    out.write_all(&len.to_le_bytes())
        .and_then(|()| out.write_all(item))
        .map_err(|error| scratch.trouble(error))
}

/// A run that was written, from its start.
fn finished(scratch: &Scratch, out: BufWriter<File>) -> Result<File> {
    let mut file = out
        .into_inner()
        .map_err(|error| scratch.trouble(error.into_error()))?;
    file.rewind().map_err(|error| scratch.trouble(error))?;
    Ok(file)
}

/// Reads several runs as one.
#[derive(Debug)]
pub(crate) struct Merge {
    scratch: Scratch,
    runs: Vec<BufReader<File>>,
    heads: BinaryHeap<Reverse<(Vec<u8>, usize)>>,
    current: Vec<u8>,
}

impl Merge {
    fn new(scratch: &Scratch, runs: Vec<File>) -> Result<Self> {
        let mut merge = Self {
            scratch: scratch.clone(),
            runs: runs
                .into_iter()
                .map(|run| BufReader::with_capacity(BUFFER, run))
                .collect(),
            heads: BinaryHeap::new(),
            current: Vec::new(),
        };
        for run in 0..merge.runs.len() {
            let mut head = Vec::new();
            if merge.read(run, &mut head)? {
                merge.heads.push(Reverse((head, run)));
            }
        }
        Ok(merge)
    }

    fn read(&mut self, run: usize, item: &mut Vec<u8>) -> Result<bool> {
        let Some(file) = self.runs.get_mut(run) else {
            return Ok(false);
        };
        let mut len = [0; 4];
        match file.read_exact(&mut len) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(false),
            Err(error) => return Err(self.scratch.trouble(error)),
        }
        item.resize(u32::from_le_bytes(len) as usize, 0);
        file.read_exact(item)
            .map_err(|error| self.scratch.trouble(error))?;
        Ok(true)
    }

    /// Makes the next item the current one.
    fn advance(&mut self) -> Result<bool> {
        let Some(Reverse((item, run))) = self.heads.pop() else {
            return Ok(false);
        };
        let mut next = std::mem::replace(&mut self.current, item);
        if self.read(run, &mut next)? {
            self.heads.push(Reverse((next, run)));
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_come_back_in_order_whatever_fits_into_memory() {
        let mut state = 0x5eed_u64;
        let mut items = Vec::new();
        for _ in 0..3_000 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let len = (state >> 60) as usize;
            items.push(state.to_be_bytes().repeat(2)[..len].to_vec());
        }
        let scratch = Scratch::new(None);
        // All in memory; in some runs; in so many that runs are merged early.
        for budget in [1 << 20, 8_000, 600] {
            let mut sorter = Sorter::new(&scratch, budget);
            for item in &items {
                sorter.push(item).unwrap();
            }
            let mut sorted = sorter.finish().unwrap();
            let mut wanted = items.clone();
            wanted.sort();
            for item in wanted {
                assert_eq!(sorted.next().unwrap(), Some(item.as_slice()), "{budget}");
            }
            assert_eq!(sorted.next().unwrap(), None);
        }
    }
}
