//! Who uses a segment: uploads that wrote what the log does not know yet, and
//! readers. What is used is not given back to the file system.
//!
//! Invariants: a reader enters before it looks its blob up, so that whoever
//! knows that some bytes are dead, and then takes a [`Holds::barrier`], misses
//! none that may still read them; an upload holds a segment from the moment it
//! has room in it until the log knows, or nobody can tell it any more. Nobody
//! waits for anything here.
//!
//! Knows no blobs.

use std::collections::BTreeMap;
use std::sync::Arc;

use orlop_format::location::{Home, SegmentId};
use orlop_format::row::Form;

use crate::sync::Mutex;

/// All who use segments.
#[derive(Debug, Default)]
pub(crate) struct Holds(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    /// How many barriers there were.
    now: u64,
    /// Readers that may name any segment, by when they entered.
    entering: BTreeMap<u64, usize>,
    /// Readers by segment, then by when they entered.
    reading: BTreeMap<SegmentId, BTreeMap<u64, usize>>,
    writing: BTreeMap<SegmentId, usize>,
}

/// A reader: it may read the segments that it named, all before it named any.
#[derive(Debug)]
pub(crate) struct Reading {
    holds: Arc<Holds>,
    entered: u64,
    /// `None` while it may read anything.
    segments: Option<Vec<SegmentId>>,
}

/// An upload's hold of a segment.
#[derive(Debug)]
pub(crate) struct Writing {
    holds: Arc<Holds>,
    segment: SegmentId,
}

fn add<K: Ord>(counts: &mut BTreeMap<K, usize>, key: K) {
    let count = counts.entry(key).or_default();
    *count = count.saturating_add(1);
}

fn take<K: Ord>(counts: &mut BTreeMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count = count.saturating_sub(1);
        if *count == 0 {
            counts.remove(key);
        }
    }
}

impl Holds {
    /// A reader that is about to look up what it reads.
    pub(crate) fn enter(self: &Arc<Self>) -> Reading {
        let mut table = self.0.lock();
        let entered = table.now;
        add(&mut table.entering, entered);
        Reading {
            holds: Arc::clone(self),
            entered,
            segments: None,
        }
    }

    /// An upload gets room in a segment.
    pub(crate) fn write(self: &Arc<Self>, segment: SegmentId) -> Writing {
        add(&mut self.0.lock().writing, segment);
        Writing {
            holds: Arc::clone(self),
            segment,
        }
    }

    /// A number that tells all who entered until now from those to come.
    pub(crate) fn barrier(&self) -> u64 {
        let mut table = self.0.lock();
        let before = table.now;
        table.now = table.now.saturating_add(1);
        before
    }

    /// Whether a reader that entered before the barrier may read a segment.
    pub(crate) fn is_read(&self, segment: &SegmentId, barrier: u64) -> bool {
        let table = self.0.lock();
        let is_old = |counts: &BTreeMap<u64, usize>| {
            counts
                .first_key_value()
                .is_some_and(|(entered, _)| *entered <= barrier)
        };
        is_old(&table.entering) || table.reading.get(segment).is_some_and(is_old)
    }

    /// Whether an upload holds a segment.
    pub(crate) fn is_written(&self, segment: &SegmentId) -> bool {
        self.0.lock().writing.contains_key(segment)
    }
}

impl Reading {
    /// Names what is read: from here on nothing else is.
    pub(crate) fn name(&mut self, form: &Form) {
        let mut segments: Vec<SegmentId> = match form {
            Form::Inline(place) => match place.home {
                Home::Segment(segment) => vec![segment],
                Home::Journal(_) => Vec::new(),
            },
            Form::Extents(extents) => extents.iter().map(|extent| extent.segment).collect(),
        };
        segments.sort_unstable();
        segments.dedup();
        let mut table = self.holds.0.lock();
        for segment in &segments {
            add(table.reading.entry(*segment).or_default(), self.entered);
        }
        if self.segments.is_none() {
            take(&mut table.entering, &self.entered);
        }
        self.segments.get_or_insert_default().extend(segments);
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        let mut table = self.holds.0.lock();
        let Some(segments) = self.segments.take() else {
            take(&mut table.entering, &self.entered);
            return;
        };
        for segment in segments {
            if let Some(counts) = table.reading.get_mut(&segment) {
                take(counts, &self.entered);
                if counts.is_empty() {
                    table.reading.remove(&segment);
                }
            }
        }
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        take(&mut self.holds.0.lock().writing, &self.segment);
    }
}
