//! Holes where the dead extents of raw segments were.
//!
//! Invariant: a punch is done and durable before the next is recorded, so that
//! only the newest of the log can be unfinished.

use std::collections::BTreeSet;
use std::sync::Arc;

use orlop_disk::{File, Kind};
use orlop_format::BLOCK;
use orlop_format::hole::{self, Hole};
use orlop_format::location::{Extent, SegmentId};
use orlop_format::record::{Record, UploadId};
use orlop_format::row;
use orlop_format::segment::Footer;
use orlop_format::superblock::RELEASES;

use super::live::Owner;
use super::{Did, Reclaimer, Work};
use crate::config::RELEASE_STEP;
use crate::error::Result;
use crate::segment::Full;

/// An extent that is referred to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Live {
    offset: u32,
    body: u32,
    footprint: u64,
}

impl From<&Extent> for Live {
    fn from(extent: &Extent) -> Self {
        Self {
            offset: extent.offset,
            body: extent.body,
            footprint: extent.footprint(),
        }
    }
}

/// A segment of which some is dead.
#[derive(Debug)]
pub(super) struct Partly {
    pub(super) row: row::Segment,
    pub(super) live: Vec<Live>,
    /// Who has what is live, if all of it may be moved and is to be.
    pub(super) owners: Option<BTreeSet<[u8; 32]>>,
    /// An upload that has some of it.
    pub(super) upload: Option<UploadId>,
    /// Who entered until then may read what is dead.
    barrier: u64,
    /// Whether its holes are to be punched as they are.
    again: bool,
}

impl Partly {
    pub(super) fn new(row: row::Segment, is_joined: bool) -> Self {
        Self {
            owners: is_joined.then(BTreeSet::new),
            upload: None,
            row,
            live: Vec::new(),
            barrier: 0,
            again: false,
        }
    }

    /// The segment of the newest punch: it may not have been done.
    pub(super) fn again(row: &row::Segment) -> Self {
        Self {
            again: true,
            ..Self::new(row.clone(), false)
        }
    }

    pub(super) fn after(self, barrier: u64) -> Self {
        Self { barrier, ..self }
    }

    /// Something in it is live.
    pub(super) fn owned(&mut self, owner: &Owner) {
        match owner {
            Owner::Blob(sha256) => {
                if let Some(owners) = &mut self.owners {
                    owners.insert(*sha256);
                }
            }
            Owner::Damaged => self.owners = None,
            Owner::Upload(upload) => (self.owners, self.upload) = (None, Some(*upload)),
        }
    }

    pub(super) fn segment(&self) -> SegmentId {
        self.row.segment
    }

    /// Bytes that come back.
    pub(super) fn gain(&self) -> u64 {
        self.row.dead()
    }

    /// Everything between what is live, from the first block to the last frame
    /// that was ever referred to.
    fn holes(&self) -> Vec<Hole> {
        let block = BLOCK as u64;
        let used = self.row.used / block * block;
        let mut holes = Vec::new();
        let mut at = block;
        let ends = self.live.iter().map(|live| {
            let from = u64::from(live.offset);
            (from, from.saturating_add(live.footprint))
        });
        for (from, to) in ends.chain([(used, used)]) {
            let range = (u32::try_from(at), u32::try_from(from.saturating_sub(at)));
            if let (Ok(offset), Ok(len)) = range
                && len > 0
            {
                holes.push(Hole { offset, len });
            }
            at = at.max(to);
        }
        holes
    }
}

impl Reclaimer {
    pub(super) async fn punch(&mut self, mut partly: Box<Partly>) -> Result<Did> {
        let id = partly.segment();
        if partly.again {
            let file = match self.core.segments.open_apart(&id) {
                Ok(Some(file)) => file,
                Ok(None) => {
                    self.memory.punched = true;
                    return Ok(Did::nothing());
                }
                // Others are punched all the same.
                Err(error) => {
                    self.refuse(id, Vec::new()).await?;
                    return Err(error);
                }
            };
            self.dig(&file, &partly.row, &[], &partly.row.holes).await?;
            return Ok(Did::nothing());
        }
        // One whose end is not known has to end first.
        if !self.memory.punched {
            return Ok(Did::nothing());
        }
        let holds = &self.core.segments.holds;
        if holds.is_written(&id) || holds.is_read(&id, partly.barrier) {
            return Ok(Did::Held(Work::Punch(partly)));
        }
        partly.live.sort_unstable();
        // An upload that committed meanwhile was met twice.
        partly.live.dedup();
        if !partly.row.sealed {
            self.seal(&partly).await?;
        }
        let holes = partly.holes();
        let gain = hole::total(&holes).saturating_sub(partly.row.released());
        if gain == 0 {
            return Ok(Did::nothing());
        }
        let Some(file) = self.core.segments.open_apart(&id)? else {
            return Ok(Did::nothing());
        };
        if !self.can_punch(&file)? {
            return Ok(Did::nothing());
        }
        self.announce(RELEASES).await?;
        let new: Vec<Hole> = holes
            .iter()
            .filter(|hole| !partly.row.holes.contains(hole))
            .copied()
            .collect();
        self.memory.punched = false;
        let record = Record::Punch { segment: id, holes };
        self.core.record(vec![record]).await?;
        self.dig(&file, &partly.row, &partly.row.holes, &new)
            .await?;
        Ok(Did::More(gain, Vec::new()))
    }

    /// Punches holes that are recorded, durable on return; those `before` are
    /// there. Where the disk fails, the log is told which of them are none, and
    /// the segment is left alone until a restart: others are punched.
    async fn dig(
        &mut self,
        file: &Arc<dyn File>,
        row: &row::Segment,
        before: &[Hole],
        new: &[Hole],
    ) -> Result<()> {
        let mut done = Vec::new();
        if let Err(error) = self.dig_all(file, new, &mut done).await {
            let is_apart = |old: &&Hole| {
                let touches = |hole: &Hole| {
                    u64::from(hole.offset) < old.end() && u64::from(old.offset) < hole.end()
                };
                !done.iter().any(touches)
            };
            let mut holes: Vec<Hole> = before.iter().filter(is_apart).copied().collect();
            holes.append(&mut done);
            holes.sort_unstable_by_key(|hole| hole.offset);
            self.refuse(row.segment, holes).await?;
            return Err(error);
        }
        self.memory.punched = true;
        Ok(())
    }

    /// Tells the log which holes there are for sure in a segment that cannot be
    /// punched, and leaves it alone.
    async fn refuse(&mut self, segment: SegmentId, holes: Vec<Hole>) -> Result<()> {
        let record = Record::Punch { segment, holes };
        self.core.record(vec![record]).await?;
        self.memory.refused.insert(segment);
        self.memory.punched = true;
        Ok(())
    }

    async fn dig_all(
        &self,
        file: &Arc<dyn File>,
        holes: &[Hole],
        done: &mut Vec<Hole>,
    ) -> Result<()> {
        for hole in holes {
            let mut at = u64::from(hole.offset);
            while at < hole.end() {
                let len = hole.end().saturating_sub(at).min(RELEASE_STEP);
                self.core.budget.take(len).await;
                file.punch(at, len)?;
                at = at.saturating_add(len);
            }
            done.push(*hole);
        }
        let synced = Arc::clone(file).sync_data().await;
        synced.map_err(|error| {
            done.clear();
            error.into()
        })
    }

    /// Whether the file system can punch, found by a punch behind the end of a
    /// file, which changes nothing.
    pub(super) fn can_punch(&mut self, file: &Arc<dyn File>) -> Result<bool> {
        if let Some(known) = self.memory.can_punch {
            return Ok(known);
        }
        let end = file.len()?.next_multiple_of(BLOCK as u64);
        let can = match file.punch(end, BLOCK as u64) {
            Ok(()) => true,
            Err(error) if matches!(error.kind, Kind::Unsupported | Kind::Invalid) => {
                tracing::warn!(%error, "the file system cannot give back parts of a file: only whole segments come back");
                false
            }
            Err(error) => return Err(error.into()),
        };
        self.memory.can_punch = Some(can);
        Ok(can)
    }

    /// Seals a segment that an earlier process had open: what is live is all
    /// there is to it.
    async fn seal(&mut self, partly: &Partly) -> Result<()> {
        let segment = self.core.segments.get(&partly.segment()).await?;
        let full = Full {
            segment,
            used: u32::try_from(partly.row.used).unwrap_or(u32::MAX),
            footer: Footer {
                frames: partly
                    .live
                    .iter()
                    .map(|live| (live.offset, live.body))
                    .collect(),
            },
        };
        // Nobody writes to it any more: a failure is one of this segment alone.
        let record = self.core.segments.seal(&full, 0).await?;
        self.core.record(vec![record]).await
    }
}
