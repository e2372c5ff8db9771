//! What the log says was given back to the file system: segments that are
//! removed, and holes in raw ones. Of each segment only the newest punch
//! counts.
//!
//! Knows no files.

use std::collections::BTreeMap;

use orlop_format::hole::Hole;
use orlop_format::location::SegmentId;

/// A punch: its LSN, and all holes from then on.
type Punch = (u64, Vec<Hole>);

/// What was given back.
#[derive(Debug, Default)]
pub(crate) struct Released {
    /// LSN of the removal.
    removed: BTreeMap<SegmentId, u64>,
    /// At the end of the log.
    punched: BTreeMap<SegmentId, Punch>,
    /// Where the index ends.
    there: BTreeMap<SegmentId, Punch>,
}

impl Released {
    pub(crate) fn remove(&mut self, id: SegmentId, lsn: u64) {
        let known = self.removed.entry(id).or_insert(lsn);
        *known = (*known).min(lsn);
    }

    pub(crate) fn punch(&mut self, id: SegmentId, lsn: u64, holes: Vec<Hole>, watermark: u64) {
        let newer = |known: &BTreeMap<SegmentId, Punch>| {
            known.get(&id).is_none_or(|(known, _)| *known < lsn)
        };
        if lsn <= watermark && newer(&self.there) {
            self.there.insert(id, (lsn, holes.clone()));
        }
        if newer(&self.punched) {
            self.punched.insert(id, (lsn, holes));
        }
    }

    /// Whether a segment is removed at the end of the log.
    pub(crate) fn is_removed(&self, id: &SegmentId) -> bool {
        self.removed.contains_key(id)
    }

    /// The segments that are removed where the index ends.
    pub(crate) fn removed_until(&self, watermark: u64) -> impl Iterator<Item = SegmentId> {
        let until = self.removed.iter();
        until
            .filter(move |(_, lsn)| **lsn <= watermark)
            .map(|(id, _)| *id)
    }

    /// The holes of a segment at the end of the log.
    pub(crate) fn holes(&self, id: &SegmentId) -> &[Hole] {
        self.punched.get(id).map_or(&[], |(_, holes)| holes)
    }

    /// The newest punch of a segment where the index ends: its LSN, 0 for none,
    /// and the holes.
    pub(crate) fn punched_there(&self, id: &SegmentId) -> Punch {
        self.there.get(id).cloned().unwrap_or_default()
    }
}
