//! How the bytes of segments are accounted for.

use std::ops::ControlFlow;

use orlop_format::location::{Class, SegmentId};
use orlop_format::row;
use orlop_index::Table;

use super::Rows;
use crate::core::Core;
use crate::error::Result;
use crate::view::unreadable;

/// The bytes of all segments behind their first blocks, footers left out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Space {
    /// Extents and records of small blobs that blobs and uploads refer to.
    pub live: u64,
    /// What nobody refers to and still takes room, in segments that take no
    /// more: a pass gives back what is in raw ones.
    pub dead: u64,
    /// Holes: what was given back in segments that are there.
    pub released: u64,
    /// Segments that are there.
    pub segments: u64,
}

impl Space {
    pub(crate) fn of(core: &Core) -> Result<Self> {
        let mut space = Self::default();
        for (id, row) in rows(core)? {
            if row.removed {
                continue;
            }
            space.segments = space.segments.saturating_add(1);
            space.live = space.live.saturating_add(row.live);
            space.released = space.released.saturating_add(row.released());
            if id.class != Class::Meta && is_closed(core, &id, Some(&row)) {
                space.dead = space.dead.saturating_add(row.dead());
            }
        }
        Ok(space)
    }
}

/// Whether a segment takes no more: it is sealed, or an earlier process had it
/// open.
pub(super) fn is_closed(core: &Core, id: &SegmentId, row: Option<&row::Segment>) -> bool {
    id.id < core.first_segment || row.is_some_and(|row| row.sealed)
}

/// All rows, those of removed segments too.
pub(super) fn rows(core: &Core) -> Result<Rows> {
    let (mut rows, mut failed) = (Rows::new(), Ok(()));
    core.index.scan(
        Table::Segment,
        &[],
        &mut |_, value| match row::Segment::decode(value) {
            Ok(row) => {
                rows.insert(row.segment, row);
                ControlFlow::Continue(())
            }
            Err(error) => {
                failed = Err(unreadable(Table::Segment, error));
                ControlFlow::Break(())
            }
        },
    )?;
    failed.map(|()| rows)
}
