//! One simulated file: what was written, and what of it is durable.
//!
//! Invariants: what is read is what was written; what is durable is the state
//! at the last sync that succeeded, without what an earlier failed sync had
//! already called clean.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::content::Content;
use super::random::Random;
use super::{Parts, SECTOR};

/// A change to a file that no sync has made durable yet.
#[derive(Clone)]
pub(super) struct Change {
    /// Orders the changes of the whole disk.
    pub(super) sequence: u64,
    pub(super) effect: Effect,
}

#[derive(Clone)]
pub(super) enum Effect {
    Write { offset: u64, data: Arc<[u8]> },
    Reserve { offset: u64, len: u64 },
    Punch { offset: u64, len: u64 },
    Length(u64),
}

/// Bytes and length, in one of the two states.
#[derive(Clone, Default)]
pub(super) struct Image {
    pub(super) content: Content,
    pub(super) len: u64,
}

impl Image {
    fn apply(&mut self, effect: &Effect) {
        match effect {
            Effect::Write { offset, data } => {
                self.content.write(*offset, data);
                self.grow(offset.saturating_add(data.len() as u64));
            }
            Effect::Reserve { offset, len } => {
                self.content.reserve(*offset, *len);
                self.grow(offset.saturating_add(*len));
            }
            Effect::Punch { offset, len } => self.content.punch(*offset, *len),
            Effect::Length(len) => {
                self.content.truncate(*len);
                self.len = *len;
            }
        }
    }

    fn grow(&mut self, end: u64) {
        self.len = self.len.max(end);
    }

    /// Applies what of a change is of these kinds.
    fn apply_parts(&mut self, effect: &Effect, parts: Parts) {
        match effect {
            Effect::Write { offset, data } => {
                if parts.bytes {
                    self.content.write(*offset, data);
                }
                if parts.lengths {
                    self.grow(offset.saturating_add(data.len() as u64));
                }
            }
            Effect::Reserve { offset, len } if parts.lengths => {
                self.grow(offset.saturating_add(*len));
            }
            Effect::Punch { .. } if parts.bytes => self.apply(effect),
            Effect::Length(_) if parts.lengths => self.apply(effect),
            Effect::Reserve { .. } | Effect::Punch { .. } | Effect::Length(_) => {}
        }
    }

    /// Applies any part of a change. The bytes of a write go by sectors, each
    /// for itself; its length, being metadata, goes or stays on its own.
    fn apply_some(&mut self, effect: &Effect, random: &mut Random) {
        let Effect::Write { offset, data } = effect else {
            if random.chance(50) {
                self.apply(effect);
            }
            return;
        };
        // All, none, or any mixture of sectors.
        let percent = [100, 0, 50, 10, 90]
            .get(index(random.below(5)))
            .copied()
            .unwrap_or(50);
        for (at, sector) in sectors(*offset, data) {
            if random.chance(percent) {
                self.content.write(at, sector);
            }
        }
        if random.chance(50) {
            self.grow(offset.saturating_add(data.len() as u64));
        }
    }

    /// Applies a change that was cut short after some sectors.
    fn apply_head(&mut self, effect: &Effect, random: &mut Random) {
        let Effect::Write { offset, data } = effect else {
            return;
        };
        let count = sectors(*offset, data).count() as u64;
        let kept = index(random.below(count));
        let mut end = *offset;
        for (at, sector) in sectors(*offset, data).take(kept) {
            self.content.write(at, sector);
            end = at.saturating_add(sector.len() as u64);
        }
        if kept > 0 {
            self.grow(end);
        }
    }
}

/// The pieces of a write that reach the disk whole or not at all.
fn sectors(offset: u64, data: &[u8]) -> impl Iterator<Item = (u64, &[u8])> {
    let mut at = offset;
    let mut rest = data;
    std::iter::from_fn(move || {
        let room = index(SECTOR - at % SECTOR).min(rest.len());
        let (head, tail) = rest.split_at(room);
        let piece = (at, head);
        at = at.saturating_add(room as u64);
        rest = tail;
        (room > 0).then_some(piece)
    })
}

/// A small number as an index.
fn index(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

#[derive(Clone, Default)]
pub(super) struct FileState {
    /// What a read sees.
    pub(super) written: Image,
    /// What survives at least.
    durable: Image,
    /// Since the last sync.
    pending: Vec<Change>,
    /// Called clean by a sync that failed. No sync makes them durable.
    orphaned: Vec<Change>,
    /// Sectors that cannot be read.
    pub(super) unreadable: BTreeSet<u64>,
    /// Open handles.
    pub(super) open: usize,
}

impl FileState {
    /// Changes the file; durable after the next sync.
    pub(super) fn change(&mut self, sequence: u64, effect: Effect) {
        if let Effect::Write { offset, data } = &effect {
            for sector in sector_numbers(*offset, data.len() as u64) {
                self.unreadable.remove(&sector);
            }
        }
        self.written.apply(&effect);
        self.pending.push(Change { sequence, effect });
    }

    /// Whether a sync would settle anything.
    pub(super) fn is_dirty(&self) -> bool {
        !self.pending.is_empty()
    }

    pub(super) fn sync(&mut self) {
        for change in self.pending.drain(..) {
            self.durable.apply(&change.effect);
        }
    }

    /// A sync that failed: what waited for it counts as clean.
    pub(super) fn sync_failed(&mut self) {
        self.orphaned.append(&mut self.pending);
    }

    /// Overwrites bytes behind everybody's back, in both states.
    pub(super) fn poke(&mut self, offset: u64, bytes: &[u8]) {
        self.written.content.write(offset, bytes);
        self.durable.content.write(offset, bytes);
    }

    /// Numbers of the pages that are durable and hold something.
    pub(super) fn durable_pages(&self) -> impl Iterator<Item = u64> {
        self.durable.content.filled()
    }

    /// Flips a bit of the durable bytes. A read sees it unless the byte was
    /// written since.
    pub(super) fn decay(&mut self, offset: u64, mask: u8) {
        let (mut durable, mut written) = ([0], [0]);
        self.durable.content.read(offset, &mut durable);
        self.written.content.read(offset, &mut written);
        let flipped = durable.map(|byte| byte ^ mask);
        if durable == written {
            self.written.content.write(offset, &flipped);
        }
        self.durable.content.write(offset, &flipped);
    }

    /// Cuts both states short.
    pub(super) fn cut(&mut self, len: u64) {
        for image in [&mut self.written, &mut self.durable] {
            image.apply(&Effect::Length(len.min(image.len)));
        }
    }

    pub(super) fn is_readable(&self, offset: u64, len: u64) -> bool {
        !sector_numbers(offset, len).any(|sector| self.unreadable.contains(&sector))
    }

    pub(super) fn spoil(&mut self, offset: u64, len: u64) {
        self.unreadable.extend(sector_numbers(offset, len));
    }

    /// The numbers of the changes that wait for a sync.
    pub(super) fn waiting(&self) -> impl Iterator<Item = u64> {
        self.pending.iter().map(|change| change.sequence)
    }

    /// The file after a restart, if nothing that was not synced survived.
    pub(super) fn durable(&self) -> FileState {
        self.settled(self.durable.clone())
    }

    /// … if everything did that a later sync could still have saved.
    pub(super) fn kept(&self) -> FileState {
        let mut image = self.durable.clone();
        for change in &self.pending {
            image.apply(&change.effect);
        }
        self.settled(image)
    }

    /// … if these kinds of changes did.
    pub(super) fn parts(&self, parts: Parts) -> FileState {
        let mut image = self.durable.clone();
        for change in &self.pending {
            image.apply_parts(&change.effect, parts);
        }
        self.settled(image)
    }

    /// … if the changes before number `cut` did, and a part of that one.
    pub(super) fn prefix(&self, cut: u64, random: &mut Random) -> FileState {
        let mut image = self.durable.clone();
        for change in &self.pending {
            match change.sequence.cmp(&cut) {
                std::cmp::Ordering::Less => image.apply(&change.effect),
                std::cmp::Ordering::Equal => image.apply_head(&change.effect, random),
                std::cmp::Ordering::Greater => break,
            }
        }
        self.settled(image)
    }

    /// … if any part of any change did, those of a failed sync included.
    pub(super) fn torn(&self, random: &mut Random) -> FileState {
        let mut image = self.durable.clone();
        let mut changes: Vec<_> = self.orphaned.iter().chain(&self.pending).collect();
        changes.sort_by_key(|change| change.sequence);
        for change in changes {
            image.apply_some(&change.effect, random);
        }
        self.settled(image)
    }

    fn settled(&self, mut image: Image) -> FileState {
        image.content.truncate(image.len);
        FileState {
            written: image.clone(),
            durable: image,
            unreadable: self.unreadable.clone(),
            ..FileState::default()
        }
    }
}

fn sector_numbers(offset: u64, len: u64) -> std::ops::Range<u64> {
    offset / SECTOR..offset.saturating_add(len).div_ceil(SECTOR)
}
