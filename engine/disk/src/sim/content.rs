//! The bytes of a simulated file: sparse pages, shared between copies until
//! one of them changes.
//!
//! Invariant: a page that is not there reads as zeros; bytes past the file's
//! length are zeros or not there.
//! Refuses to know: which of these bytes are durable.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use crate::BLOCK;

const PAGE: u64 = BLOCK as u64;

/// The page of zeros that all files share: most of what is allocated ahead or
/// written ahead is never filled.
static ZEROS: LazyLock<Arc<[u8; BLOCK]>> = LazyLock::new(|| Arc::new([0; BLOCK]));

#[derive(Clone, Default)]
pub(super) struct Content {
    pages: Arc<BTreeMap<u64, Arc<[u8; BLOCK]>>>,
}

/// The part of a page that a range covers: page number, first byte, length.
fn parts(offset: u64, len: u64) -> impl Iterator<Item = (u64, usize, usize)> {
    let end = offset.saturating_add(len);
    let mut at = offset;
    std::iter::from_fn(move || {
        if at >= end {
            return None;
        }
        let (page, from) = (at / PAGE, at % PAGE);
        let size = (PAGE - from).min(end - at);
        at += size;
        // Both are below the size of a page.
        Some((
            page,
            usize::try_from(from).ok()?,
            usize::try_from(size).ok()?,
        ))
    })
}

/// A page with these bytes.
fn whole(bytes: &[u8]) -> Arc<[u8; BLOCK]> {
    match <&[u8; BLOCK]>::try_from(bytes) {
        Ok(page) if *page != **ZEROS => Arc::new(*page),
        _ => Arc::clone(&ZEROS),
    }
}

impl Content {
    /// Numbers of the pages that hold anything but zeros.
    pub(super) fn filled(&self) -> impl Iterator<Item = u64> {
        let pages = self.pages.iter();
        pages.filter_map(|(page, bytes)| (**bytes != **ZEROS).then_some(*page))
    }

    /// Room it takes, in pages of [`BLOCK`] bytes.
    pub(super) fn pages(&self) -> u64 {
        self.pages.len() as u64
    }

    /// Pages that a write of this range would add.
    pub(super) fn missing(&self, offset: u64, len: u64) -> u64 {
        parts(offset, len)
            .filter(|(page, ..)| !self.pages.contains_key(page))
            .count() as u64
    }

    pub(super) fn read(&self, offset: u64, to: &mut [u8]) {
        let mut rest = to;
        for (page, from, size) in parts(offset, rest.len() as u64) {
            let (head, tail) = rest.split_at_mut(size);
            match self
                .pages
                .get(&page)
                .and_then(|page| page.get(from..from + size))
            {
                Some(bytes) => head.copy_from_slice(bytes),
                None => head.fill(0),
            }
            rest = tail;
        }
    }

    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
        let pages = Arc::make_mut(&mut self.pages);
        let mut rest = bytes;
        for (page, from, size) in parts(offset, bytes.len() as u64) {
            let (head, tail) = rest.split_at(size);
            if size == BLOCK {
                pages.insert(page, whole(head));
                rest = tail;
                continue;
            }
            let page = pages.entry(page).or_insert_with(|| Arc::clone(&ZEROS));
            if let Some(to) = Arc::make_mut(page).get_mut(from..from + size) {
                to.copy_from_slice(head);
            }
            rest = tail;
        }
    }

    /// Adds zero pages where there are none.
    pub(super) fn reserve(&mut self, offset: u64, len: u64) {
        let pages = Arc::make_mut(&mut self.pages);
        for (page, ..) in parts(offset, len) {
            pages.entry(page).or_insert_with(|| Arc::clone(&ZEROS));
        }
    }

    /// Drops the whole pages of a range and zeroes its ends.
    pub(super) fn punch(&mut self, offset: u64, len: u64) {
        let end = offset.saturating_add(len);
        let (first, last) = (offset.div_ceil(PAGE), end / PAGE);
        if first < last {
            Arc::make_mut(&mut self.pages).retain(|page, _| !(first..last).contains(page));
        }
        let ends = parts(offset, len).filter(|&(_, _, size)| size < BLOCK);
        for (page, from, size) in ends.take(2) {
            if let Some(page) = Arc::make_mut(&mut self.pages).get_mut(&page)
                && let Some(to) = Arc::make_mut(page).get_mut(from..from + size)
            {
                to.fill(0);
            }
        }
    }

    /// Drops everything from `len` on.
    pub(super) fn truncate(&mut self, len: u64) {
        let beyond = self
            .pages
            .last_key_value()
            .map_or(0, |(page, _)| (page + 1) * PAGE);
        if beyond > len {
            self.punch(len, beyond - len);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::random::Random;

    /// Against a plain vector, with every operation at odd places.
    #[test]
    fn behaves_like_a_vector() {
        const SIZE: u64 = 5 * PAGE + 123;
        let mut random = Random::new(7);
        let mut content = Content::default();
        let mut model = vec![0u8; usize::try_from(SIZE).unwrap()];
        for step in 0..4_000 {
            let offset = random.below(SIZE);
            let len = random.below(SIZE - offset + 1);
            let range = usize::try_from(offset).unwrap()..usize::try_from(offset + len).unwrap();
            match random.below(4) {
                0 => {
                    content.punch(offset, len);
                    model[range].fill(0);
                }
                1 => {
                    content.truncate(offset);
                    model[range.start..].fill(0);
                }
                2 => content.reserve(offset, len),
                _ => {
                    let missing = content.missing(offset, len);
                    let before = content.pages();
                    let bytes = vec![u8::try_from(step % 251).unwrap(); range.len()];
                    content.write(offset, &bytes);
                    assert_eq!(content.pages() - before, missing);
                    model[range].copy_from_slice(&bytes);
                }
            }
            let copy = content.clone();
            let mut read = vec![1; model.len()];
            copy.read(0, &mut read);
            assert!(read == model, "step {step}");
        }
    }
}
