//! Joining raw segments of which little lives: their extents move to a segment
//! that is open for moves alone.
//!
//! Invariants: what is moved was held against its checksums and is durable in its
//! new place before the log says so; the journal's writer has the last word; what
//! does not hold is left where it is; extents of uploads stay. Bounds: at most a
//! third of what clients had written is ever written again where holes can be made,
//! and as much as comes back where not; [`COMPACT_BYTES`] in one pass.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use orlop_disk::Buffer;
use orlop_format::location::{Class, Extent, SegmentId};
use orlop_format::record::{Record, UploadId};
use orlop_format::row::{self, Form, State};
use orlop_format::segment::ExtentHeader;
use orlop_format::superblock::REMAPS;
use orlop_format::{BLOCK, checksum};

use super::live::Scan;
use super::punch::Partly;
use super::{Did, Reclaimer, Rows, Work};
use crate::config::{COMPACT_BYTES, COMPACT_MIN, COMPACT_SHARE, RELEASE_STEP, SEGMENT_AHEAD};
use crate::core::Core;
use crate::error::{Error, Result};
use crate::holds::Writing;
use crate::journal::queue::Fate;
use crate::planted::{self, Planted};
use crate::segment::{Intake, SegmentFile};
use crate::space::Claim;

/// What of a segment is to be moved.
#[derive(Debug)]
pub(super) struct Compaction {
    /// To be punched, if it cannot be moved.
    partly: Box<Partly>,
    /// The blobs that have extents in it.
    owners: Vec<[u8; 32]>,
    /// Bytes that are left to be moved.
    left: u64,
    /// Of which room.
    claim: Claim,
}

impl Compaction {
    fn new(partly: Partly, owners: BTreeSet<[u8; 32]>, claim: Claim) -> Self {
        Self {
            claim,
            left: partly.row.live,
            partly: Box::new(partly),
            owners: owners.into_iter().collect(),
        }
    }

    pub(super) fn segment(&self) -> SegmentId {
        self.partly.segment()
    }
}

/// Why a segment is not looked at again: it has something that is not moved, or it
/// failed.
#[derive(Debug)]
pub(super) struct Stuck {
    /// Bytes that were live in it then.
    live: u64,
    /// The upload that has some of them.
    upload: Option<UploadId>,
}

impl Stuck {
    /// Whether nothing changed since: what is damaged ends when it is healed.
    pub(super) fn is_still(&self, core: &Core, row: &row::Segment) -> bool {
        let is_there = |upload| core.upload_row(&upload).is_ok_and(|row| row.is_some());
        !row.removed && row.live == self.live && self.upload.is_none_or(is_there)
    }
}

/// Segments that are worth it, best first, by what would be gained by what it
/// costs.
pub(super) fn choose(
    rows: &Rows,
    closed: &BTreeSet<SegmentId>,
    can_punch: bool,
    size: u64,
) -> Vec<SegmentId> {
    let newest = rows.keys().map(|id| id.id).max().unwrap_or(0);
    let is_candidate = |row: &&row::Segment| {
        row.segment.class == Class::Raw
            && closed.contains(&row.segment)
            && row.live > 0
            && if can_punch {
                row.live <= size / COMPACT_SHARE
            } else {
                row.live <= row.dead()
            }
    };
    let mut found: Vec<&row::Segment> = rows.values().filter(is_candidate).collect();
    if can_punch && found.len() < COMPACT_MIN {
        return Vec::new();
    }
    let score = |row: &row::Segment| {
        let age = u128::from(newest.saturating_sub(row.segment.id).saturating_add(1));
        let (size, live) = (u128::from(size.max(1)), u128::from(row.live.min(size)));
        let gain = size.saturating_sub(live).saturating_mul(age);
        // In parts of the cost that are fine enough for the order.
        gain.saturating_mul(1 << 20)
            .checked_div(size.saturating_add(live))
            .unwrap_or_default()
    };
    found.sort_by_key(|row| (std::cmp::Reverse(score(row)), row.segment));
    found.into_iter().map(|row| row.segment).collect()
}

/// What a step moved.
#[derive(Default)]
struct Moved {
    records: Vec<(Record, Bytes)>,
    /// Whose they are.
    owners: Vec<[u8; 32]>,
    /// Keep the copies until the log knows them.
    holds: Vec<Arc<Writing>>,
    segments: Vec<Arc<SegmentFile>>,
    bytes: u64,
}

impl Reclaimer {
    /// Behind a look at all rows: what can be moved is, as far as a pass goes; the
    /// rest is punched, which needs no room.
    pub(super) fn settle(&mut self, scan: Scan) -> Vec<Work> {
        let barrier = self.core.segments.holds.barrier();
        let mut wanted = scan.wanted;
        let mut movable = Vec::new();
        for id in scan.joined {
            let Some(partly) = wanted.get_mut(&id) else {
                continue;
            };
            let (live, upload) = (partly.row.live, partly.upload);
            match partly.owners.take() {
                Some(owners) => movable.push((id, live, owners)),
                None => {
                    self.memory.stuck.insert(id, Stuck { live, upload });
                }
            }
        }
        if self.memory.can_punch != Some(false) && movable.len() < COMPACT_MIN {
            movable.clear();
        }
        let mut left = if self.is_thorough {
            u64::MAX
        } else {
            COMPACT_BYTES
        };
        // Where holes can be made what is dead comes back without.
        let claim = match self.memory.can_punch {
            Some(false) => Claim::Returns,
            _ => Claim::Keeps,
        };
        let mut moves = Vec::new();
        for (id, live, owners) in movable {
            if let Some(rest) = left.checked_sub(live)
                && let Some(partly) = wanted.remove(&id)
            {
                left = rest;
                let work = Compaction::new(partly.after(barrier), owners, claim);
                moves.push(Work::Compact(Box::new(work)));
            }
        }
        let punches = wanted.into_values();
        let punches = punches.map(|partly| Work::Punch(Box::new(partly.after(barrier))));
        punches.chain(moves).collect()
    }

    /// Moves some of what lives in a segment; it is removed behind the last of it.
    /// Where there is no room for that it is punched.
    pub(super) async fn compact(&mut self, mut work: Box<Compaction>) -> Result<Did> {
        let core = Arc::clone(&self.core);
        let may = self.is_joining && core.segments.may_move();
        let needed = match work.claim {
            Claim::Keeps => work.left,
            // With what the copies are allocated ahead.
            Claim::Returns => work
                .left
                .saturating_add(SEGMENT_AHEAD.min(core.segments.size())),
        };
        if !may || !core.room.has(needed, work.claim, core.runtime.now())? {
            return Ok(Did::More(0, vec![Work::Punch(work.partly)]));
        }
        self.announce(REMAPS).await?;
        let mut moved = Moved::default();
        let done = self.move_some(&mut work, &mut moved).await;
        // What was whole is moved, whatever came behind it.
        let recorded = self.record_moved(&mut work, moved).await;
        match recorded.and(done) {
            Ok(()) if work.owners.is_empty() => {
                Ok(Did::More(0, vec![Work::Remove(work.segment())]))
            }
            Ok(()) => Ok(Did::More(0, vec![Work::Compact(work)])),
            Err(error @ Error::Full { .. }) => {
                tracing::info!(%error, "there is no room to join segments in: a later pass tries again");
                self.is_joining = false;
                Ok(Did::More(0, vec![Work::Punch(work.partly)]))
            }
            Err(error) => {
                // Damage is one blob's; a disk that errs may do so everywhere.
                self.is_joining &= matches!(error, Error::Corrupt { .. });
                let id = work.segment();
                let live = core.segment_row(&id)?.map_or(0, |row| row.live);
                let upload = None;
                self.memory.stuck.insert(id, Stuck { live, upload });
                Err(error)
            }
        }
    }

    /// Copies up to [`RELEASE_STEP`] bytes.
    async fn move_some(&self, work: &mut Compaction, moved: &mut Moved) -> Result<()> {
        while let Some(sha256) = work.owners.last().copied() {
            let row = self.core.blob_row(&sha256)?;
            let row = row.filter(|row| row.state == State::Live);
            let Some((birth, Form::Extents(extents))) = row.map(|row| (row.birth, row.form)) else {
                work.owners.pop();
                continue;
            };
            let mut pairs = Vec::new();
            let mut failed = Ok(());
            for from in extents.iter().filter(|at| at.segment == work.segment()) {
                if moved.bytes >= RELEASE_STEP {
                    break;
                }
                match self.copy(from, work.claim, moved).await {
                    Ok(to) => pairs.push((*from, to)),
                    Err(error) => {
                        if matches!(error, Error::Corrupt { .. }) {
                            self.core.damaged(&sha256, birth, &error);
                        }
                        failed = Err(error);
                        break;
                    }
                }
            }
            if !pairs.is_empty() {
                let record = Record::Remap {
                    sha256,
                    birth,
                    extents: pairs,
                };
                moved.records.push((record, Bytes::new()));
                moved.owners.push(sha256);
            }
            failed?;
            if moved.bytes >= RELEASE_STEP {
                // The row tells in the next step what is left.
                return Ok(());
            }
            work.owners.pop();
        }
        Ok(())
    }

    /// Makes copies durable and records them.
    async fn record_moved(&mut self, work: &mut Compaction, mut moved: Moved) -> Result<()> {
        if moved.records.is_empty() {
            return Ok(());
        }
        moved.segments.sort_by_key(|segment| segment.id());
        moved.segments.dedup_by_key(|segment| segment.id());
        for segment in &moved.segments {
            if planted::is(Planted::MoveWithoutSync) {
                continue;
            }
            if let Err(error) = segment.sync().await {
                self.core.segments.give_up_moves(&segment.id()).await;
                return Err(error);
            }
        }
        let fates = self.core.queue.append(moved.records, Vec::new()).await?;
        for (fate, owner) in fates.iter().zip(&moved.owners) {
            if !matches!(fate, Fate::Written { .. }) {
                // Used, damaged or dead meanwhile.
                work.owners.retain(|other| other != owner);
            }
        }
        drop(moved.holds);
        self.core.wake_if_full();
        work.left = work.left.saturating_sub(moved.bytes);
        self.core.metrics.moved(moved.bytes);
        self.total.moved = self.total.moved.saturating_add(moved.bytes);
        Ok(())
    }

    /// Copies one extent, written on return.
    async fn copy(&self, from: &Extent, claim: Claim, moved: &mut Moved) -> Result<Extent> {
        let core = self.core.as_ref();
        let bytes = from.footprint();
        // Read and written.
        core.budget.take(bytes.saturating_mul(2)).await;
        let (header, mut buffer) = match read(core, from).await {
            // Only what two reads say is believed.
            Err(Error::Corrupt { .. }) => read(core, from).await?,
            done => done?,
        };
        core.room.admit(bytes, claim, core.runtime.now())?;
        let slot = core
            .segments
            .allocate(Intake::Moves, bytes, from.body)
            .await?;
        let (block, _) = header.encode(&slot.segment.header, 0);
        if let Some(front) = buffer.as_mut_slice().get_mut(..BLOCK) {
            front.copy_from_slice(&block);
        }
        let to = Extent {
            segment: slot.segment.id(),
            offset: slot.offset,
            ..*from
        };
        let file = Arc::clone(&slot.segment.file);
        let (written, _) = file.write_at(u64::from(slot.offset), buffer).await;
        if let Err(error) = written.map_err(Error::from) {
            // Nothing is wrong with a disk that is full.
            if !matches!(error, Error::Full { .. }) {
                core.segments.give_up_moves(&to.segment).await;
            }
            return Err(error);
        }
        moved.holds.push(slot.hold);
        moved.segments.push(slot.segment);
        moved.bytes = moved.bytes.saturating_add(bytes);
        Ok(to)
    }
}

/// An extent as it is on the disk, header block first, which holds. What the medium
/// does not give is not called damage here: a scrub judges with more patience.
async fn read(core: &Core, extent: &Extent) -> Result<(ExtentHeader, Buffer)> {
    let segment = match core.segments.get(&extent.segment).await {
        Err(error @ Error::Corrupt { .. }) => {
            return Err(Error::Io {
                what: core.segments.path(&extent.segment).display().to_string(),
                reason: error.to_string(),
            });
        }
        done => done?,
    };
    let damaged = |reason: &dyn std::fmt::Display| {
        let what = format!(
            "the extent at {} of {}",
            extent.offset,
            segment.file.path().display()
        );
        Error::corrupt(what, reason)
    };
    let len = usize::try_from(extent.footprint()).unwrap_or(usize::MAX);
    let mut buffer = core.pool.take_now(len);
    buffer.set_len(len);
    let offset = u64::from(extent.offset);
    let (done, mut buffer) = Arc::clone(&segment.file).read_at(offset, buffer).await;
    done?;
    let block = buffer.as_slice().get(..BLOCK).unwrap_or_default();
    let header = ExtentHeader::decode(&segment.header, block, Some(extent.body))
        .map_err(|error| damaged(&error))?;
    let end = BLOCK.saturating_add(extent.len as usize);
    let payload = buffer.as_slice().get(BLOCK..end).unwrap_or_default();
    if header.len != extent.len || checksum::table(payload) != header.table {
        return Err(damaged(&"a checksum of its bytes does not hold"));
    }
    // The filling is nobody's: it is zeros in the new place.
    buffer.set_len(end);
    buffer.pad_to_block();
    Ok((header, buffer))
}
