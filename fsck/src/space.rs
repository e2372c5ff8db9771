//! Accounts for raw segments: which extents are in use, whether any two share
//! bytes or leave their segment, whether the footer has them, and what nobody
//! refers to; and which files do not belong in a data folder.
//!
//! Takes extents in any order, looks at one segment after the other.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use orlop_format::codec::{Reader, Writer};
use orlop_format::hole::{self, Hole};
use orlop_format::location::{Class, Extent, SegmentId};

use crate::content::Owner;
use crate::file::names;
use crate::finding::{Code, Object};
use crate::log::Seal;
use crate::release::Released;
use crate::report::Report;
use crate::scratch::Scratch;
use crate::segment::{Segments, footer, object};
use crate::sort::{Sorted, Sorter};
use crate::trouble::Result;

/// Memory for extents, bytes.
const MEMORY: usize = 16 << 20;

/// The extents in use.
#[derive(Debug)]
pub(crate) struct Space {
    extents: Sorter,
}

/// An extent in use.
#[derive(Debug, Clone)]
struct Used {
    extent: Extent,
    owner: Owner,
    /// Whether its bytes count: not those of a blob in quarantine.
    counts: bool,
}

impl Space {
    pub(crate) fn new(scratch: &Scratch) -> Self {
        Self {
            extents: Sorter::new(scratch, MEMORY),
        }
    }

    /// An extent is in use; `counts` says whether its bytes matter.
    pub(crate) fn push(&mut self, owner: &Owner, extent: &Extent, counts: bool) -> Result<()> {
        let id = extent.segment;
        let mut w = Writer::new();
        // As segment ids and offsets sort.
        w.raw(&id.volume.to_be_bytes())
            .u8(id.class.code())
            .raw(&id.generation.to_be_bytes())
            .raw(&id.id.to_be_bytes())
            .raw(&extent.offset.to_be_bytes())
            .u32(extent.len)
            .u32(extent.body)
            .u8(u8::from(counts));
        owner.encode(&mut w);
        self.extents.push(w.as_slice())
    }

    /// Goes through all raw segments.
    pub(crate) fn check(
        self,
        folder: &Path,
        segments: &Segments,
        seals: &BTreeMap<SegmentId, Seal>,
        released: &Released,
        report: &mut Report,
    ) -> Result<()> {
        let raw = segments.files.keys().chain(seals.keys());
        let raw: BTreeSet<SegmentId> = raw.filter(|id| id.class == Class::Raw).copied().collect();
        let mut extents = self.extents.finish()?;
        let mut ahead = next(&mut extents)?;
        let (mut unowned, mut unowned_bytes) = (0u64, 0u64);
        for id in raw {
            // Those of segments that are not there: content tells of them.
            while ahead.as_ref().is_some_and(|used| used.extent.segment < id) {
                ahead = next(&mut extents)?;
            }
            let (segment, seal) = (segments.files.get(&id), seals.get(&id));
            let frames = match (segment, seal) {
                (Some(segment), Some(seal)) => footer(folder, &id, segment, seal, report)?,
                _ => None,
            };
            let mut one = One {
                id,
                seal: seal.copied(),
                frames: frames.map(|footer| footer.frames),
                last: None,
                holes: released.holes(&id),
                owned: 0,
                live: 0,
                counts: false,
            };
            while let Some(used) = ahead.take_if(|used| used.extent.segment == id) {
                one.extent(used, report);
                ahead = next(&mut extents)?;
            }
            report.counts.live_bytes = report.counts.live_bytes.saturating_add(one.live);
            if let (Some(frames), Some(seal)) = (&one.frames, seal) {
                let there = frames.iter().filter(|frame| !one.is_hole(frame.0));
                let rest = (there.count() as u64).saturating_sub(one.owned);
                unowned = unowned.saturating_add(rest);
                if rest > 0 {
                    let all = u64::from(seal.used).saturating_sub(orlop_format::BLOCK as u64);
                    unowned_bytes = unowned_bytes.saturating_add(
                        all.saturating_sub(one.live)
                            .saturating_sub(hole::total(one.holes)),
                    );
                }
            }
            match (segment, seal) {
                (None, _) if one.counts => {
                    let expected = "a sealed segment";
                    let found = "no file, or no header";
                    report.find(Code::SegmentMissing, object(&id), expected, found);
                }
                (None, _) => {
                    let found = "its file is missing, and nothing in it counts";
                    report.note(Code::SegmentOrphan, object(&id), found);
                }
                (Some(_), None) if one.owned == 0 => {
                    let found = "nothing in it is referred to";
                    report.note(Code::SegmentOrphan, object(&id), found);
                }
                _ => {}
            }
        }
        report.counts.unowned_extents = unowned;
        if unowned > 0 {
            let found = format!("{unowned} extents, {unowned_bytes} bytes");
            report.note(Code::SpaceUnowned, Object::file("data/raw"), found);
        }
        Ok(())
    }
}

fn next(extents: &mut Sorted) -> Result<Option<Used>> {
    Ok(extents.next()?.and_then(|item| decode(item).ok()))
}

fn decode(item: &[u8]) -> std::result::Result<Used, orlop_format::Malformed> {
    let mut r = Reader::new(item);
    let volume = u16::from_be_bytes(r.array()?);
    let class = Class::from_code(r.u8()?)?;
    let generation = u32::from_be_bytes(r.array()?);
    let id = u64::from_be_bytes(r.array()?);
    let offset = u32::from_be_bytes(r.array()?);
    let (len, body, counts) = (r.u32()?, r.u32()?, r.u8()? != 0);
    let segment = SegmentId {
        volume,
        class,
        generation,
        id,
    };
    Ok(Used {
        extent: Extent {
            segment,
            offset,
            len,
            body,
        },
        owner: Owner::decode(&mut r)?,
        counts,
    })
}

/// One segment.
struct One<'a> {
    id: SegmentId,
    seal: Option<Seal>,
    /// What its footer names, if that holds.
    frames: Option<Vec<(u32, u32)>>,
    /// What was given back of it.
    holes: &'a [Hole],
    /// The extent before.
    last: Option<Used>,
    owned: u64,
    live: u64,
    /// Whether any extent counts.
    counts: bool,
}

impl One<'_> {
    /// Whether a frame begins in a hole.
    fn is_hole(&self, offset: u32) -> bool {
        let behind = self.holes.partition_point(|hole| hole.offset <= offset);
        let hole = behind.checked_sub(1).and_then(|at| self.holes.get(at));
        hole.is_some_and(|hole| u64::from(offset) < hole.end())
    }

    fn extent(&mut self, used: Used, report: &mut Report) {
        let Used { extent, owner, .. } = &used;
        self.counts |= used.counts;
        let (start, footprint) = (u64::from(extent.offset), extent.footprint());
        let end = start.saturating_add(footprint);
        let about = || {
            let of = object(&self.id);
            Object {
                file: of.file,
                segment: of.segment,
                ..owner.object().at(start).len(footprint)
            }
        };
        if let Some(last) = &self.last {
            let behind = u64::from(last.extent.offset).saturating_add(last.extent.footprint());
            if behind > start {
                let found = format!("an extent of {} up to {behind}", last.owner.object());
                let expected = "bytes that no other extent has";
                report.find(Code::ExtentOverlap, about(), expected, found);
            }
        }
        let behind = self.holes.partition_point(|hole| hole.end() <= start);
        if let Some(hole) = self
            .holes
            .get(behind)
            .filter(|hole| u64::from(hole.offset) < end)
        {
            let found = format!("a hole from {} to {}", hole.offset, hole.end());
            report.find(Code::ExtentHole, about(), "bytes that are there", found);
        }
        let sealed = self.seal.map(|seal| u64::from(seal.used));
        if let Some(limit) = sealed.filter(|limit| end > *limit) {
            let expected = format!("an extent in front of {limit}, where the segment's frames end");
            let found = format!("one up to {end}");
            report.find(Code::ExtentBeyond, about(), expected, found);
        } else if self
            .frames
            .as_ref()
            .is_some_and(|frames| frames.binary_search(&(extent.offset, extent.body)).is_err())
        {
            let expected = format!("extent {:08x} at {start}", extent.body);
            let found = "a footer without it";
            report.find(Code::SegmentFooter, about(), expected, found);
        } else {
            self.owned = self.owned.saturating_add(1);
        }
        self.live = self.live.saturating_add(footprint);
        report.counts.extents = report.counts.extents.saturating_add(1);
        let further = self.last.as_ref().is_none_or(|last| {
            u64::from(last.extent.offset).saturating_add(last.extent.footprint()) < end
        });
        if further {
            self.last = Some(used);
        }
    }
}

/// What may lie in a data folder.
const KNOWN: &[&str] = &[
    "LOCK",
    "superblock.0",
    "superblock.1",
    "journal",
    "data",
    "index",
    "quarantine",
    "repair.tmp",
    "catalog.db",
    "catalog.db-wal",
    "catalog.db-shm",
    "ballast",
    "control.sock",
    "maintenance.json",
];

/// Notes files that do not belong.
pub(crate) fn foreign(folder: &Path, report: &mut Report) -> Result<()> {
    let mut note = |path: String| {
        report.note(Code::FileForeign, Object::file(path), "not the store's");
    };
    for name in names(folder)? {
        if !KNOWN.contains(&name.as_str()) {
            note(name);
        }
    }
    for name in names(&folder.join("data"))? {
        if Class::ALL.iter().all(|class| class.folder() != name) {
            note(format!("data/{name}"));
        }
    }
    for name in names(&folder.join("quarantine"))? {
        let lsn = name.strip_prefix("record-");
        let is_record =
            lsn.is_some_and(|lsn| lsn.len() == 16 && u64::from_str_radix(lsn, 16).is_ok());
        let repair = name.strip_prefix("repair-");
        if !is_record && repair.is_none_or(|number| number.parse::<u64>().is_err()) {
            note(format!("quarantine/{name}"));
        }
    }
    Ok(())
}
