//! Bytes of one file, in pages that copies of it share.

use std::collections::BTreeMap;
use std::sync::Arc;

/// Bytes of a page.
pub(super) const PAGE: u64 = 4096;

/// Pages that are not there are zeros.
#[derive(Debug, Clone, Default)]
pub(super) struct Content {
    pages: BTreeMap<u64, Arc<Vec<u8>>>,
    pub(super) len: u64,
}

/// The parts of a range, page by page: the page, where in it, how many bytes.
fn parts(at: u64, len: u64) -> impl Iterator<Item = (u64, usize, usize)> {
    let mut from = at;
    let end = at + len;
    std::iter::from_fn(move || {
        if from >= end {
            return None;
        }
        let (page, within) = (from / PAGE, from % PAGE);
        let count = (PAGE - within).min(end - from);
        from += count;
        Some((page, size(within), size(count)))
    })
}

/// A size that fits into memory.
pub(super) fn size(bytes: u64) -> usize {
    usize::try_from(bytes).expect("a size that fits into memory")
}

impl Content {
    /// What is there, up to the end of the file.
    pub(super) fn read(&self, at: u64, len: u64) -> Vec<u8> {
        let len = self.len.saturating_sub(at).min(len);
        let mut out = Vec::with_capacity(size(len));
        for (page, within, count) in parts(at, len) {
            match self.pages.get(&page) {
                Some(bytes) => out.extend_from_slice(&bytes[within..within + count]),
                None => out.resize(out.len() + count, 0),
            }
        }
        out
    }

    /// Writes, and makes the file longer where that is needed.
    pub(super) fn write(&mut self, at: u64, bytes: &[u8]) {
        let mut rest = bytes;
        for (page, within, count) in parts(at, bytes.len() as u64) {
            let (part, next) = rest.split_at(count);
            rest = next;
            let is_zero = part.iter().all(|byte| *byte == 0);
            if is_zero && (count as u64 == PAGE || !self.pages.contains_key(&page)) {
                self.pages.remove(&page);
                continue;
            }
            let to = self
                .pages
                .entry(page)
                .or_insert_with(|| Arc::new(vec![0; size(PAGE)]));
            Arc::make_mut(to)[within..within + count].copy_from_slice(part);
        }
        self.len = self.len.max(at + bytes.len() as u64);
    }

    /// Makes zeros; the length stays.
    pub(super) fn zero(&mut self, at: u64, len: u64) {
        for (page, within, count) in parts(at, len) {
            if count as u64 == PAGE {
                self.pages.remove(&page);
            } else if let Some(to) = self.pages.get_mut(&page) {
                Arc::make_mut(to)[within..within + count].fill(0);
            }
        }
    }

    /// Cuts, or adds zeros.
    pub(super) fn set_len(&mut self, len: u64) {
        if len < self.len {
            let whole = len.div_ceil(PAGE);
            self.zero(len, whole * PAGE - len);
            self.pages.split_off(&whole);
        }
        self.len = len;
    }

    /// Takes these pages, and the length, from another state of the file.
    pub(super) fn take(&mut self, from: &Content, pages: impl Iterator<Item = u64>) {
        for page in pages {
            match from.pages.get(&page) {
                Some(bytes) => self.pages.insert(page, Arc::clone(bytes)),
                None => self.pages.remove(&page),
            };
        }
        self.len = from.len;
    }
}

#[test]
fn a_page_that_is_cut_and_grown_again_has_zeros() {
    let mut content = Content::default();
    content.write(PAGE - 2, &[1, 2, 3, 4]);
    let copy = content.clone();
    content.set_len(PAGE + 1);
    content.set_len(PAGE + 3);
    assert_eq!(content.read(PAGE - 2, 99), [1, 2, 3, 0, 0]);
    content.zero(PAGE - 1, 1);
    assert_eq!(content.read(PAGE - 2, 99), [1, 0, 3, 0, 0]);
    assert_eq!(copy.read(PAGE - 2, 99), [1, 2, 3, 4]);
    content.take(&copy, [0, 1].into_iter());
    assert_eq!(content.read(PAGE - 2, 99), [1, 2, 3, 4]);
}
