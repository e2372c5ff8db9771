//! Which extents of some segments are referred to.
//!
//! Invariant: uploads are looked at before blobs. Extents go from an upload to
//! a blob, and what is not in a row yet is held (see [`crate::holds`]).

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use orlop_format::location::{Extent, SegmentId};
use orlop_format::record::UploadId;
use orlop_format::row::{self, Form};
use orlop_index::Table;

use super::punch::Partly;
use super::{Did, Reclaimer, Work};
use crate::config::{COLLECT_PAGE, LIVE_EXTENTS};
use crate::core::Core;
use crate::error::Result;
use crate::planted::{self, Planted};
use crate::view::unreadable;

/// A look at all rows, page by page.
pub(super) struct Scan {
    pub(super) wanted: BTreeMap<SegmentId, Partly>,
    /// Those that are to be moved, in this order.
    pub(super) joined: Vec<SegmentId>,
    found: usize,
    /// `None` before the first page.
    table: Option<Table>,
    from: Vec<u8>,
}

impl Scan {
    /// Those of `joined` are to be moved.
    pub(super) fn new(partly: Vec<row::Segment>, joined: Vec<SegmentId>) -> Self {
        let is_joined: BTreeSet<SegmentId> = joined.iter().copied().collect();
        let wanted = partly.into_iter().map(|row| {
            let is_joined = is_joined.contains(&row.segment);
            (row.segment, Partly::new(row, is_joined))
        });
        Self {
            wanted: wanted.collect(),
            joined,
            found: 0,
            table: None,
            from: Vec::new(),
        }
    }

    fn take(&mut self, owner: &Owner, extents: &[Extent]) {
        for extent in extents {
            if let Some(partly) = self.wanted.get_mut(&extent.segment) {
                partly.live.push(extent.into());
                partly.owned(owner);
                self.found = self.found.saturating_add(1);
            }
        }
        while self.found > LIVE_EXTENTS && self.wanted.len() > 1 {
            let least = self.wanted.values().min_by_key(|partly| partly.gain());
            let Some(least) = least.map(Partly::segment) else {
                return;
            };
            let left = self.wanted.remove(&least);
            let left = left.map_or(0, |partly| partly.live.len());
            self.found = self.found.saturating_sub(left);
        }
    }

    /// Looks at some rows, and gives their bytes; more are to come if `from` is
    /// set after it.
    fn page(&mut self, core: &Core, table: Table) -> Result<u64> {
        let (mut rows, mut bytes, mut next, mut failed) = (0usize, 0u64, None, Ok(()));
        let from = std::mem::take(&mut self.from);
        core.index.scan(table, &from, &mut |key, value| {
            if rows == COLLECT_PAGE {
                next = Some(key.to_vec());
                return ControlFlow::Break(());
            }
            rows = rows.saturating_add(1);
            bytes = bytes.saturating_add(value.len() as u64);
            match extents(table, key, value) {
                Ok((owner, extents)) => {
                    self.take(&owner, &extents);
                    ControlFlow::Continue(())
                }
                Err(error) => {
                    failed = Err(unreadable(table, error));
                    ControlFlow::Break(())
                }
            }
        })?;
        failed?;
        self.from = next.unwrap_or_default();
        Ok(bytes)
    }
}

/// Who refers to extents.
pub(super) enum Owner {
    Blob([u8; 32]),
    /// A blob in quarantine: it is not moved.
    Damaged,
    /// Nor is an upload.
    Upload(UploadId),
}

/// The extents that a row refers to, and whose they are.
fn extents(
    table: Table,
    key: &[u8],
    value: &[u8],
) -> std::result::Result<(Owner, Vec<Extent>), orlop_format::Malformed> {
    if table == Table::Upload {
        let checkpoint = row::Upload::decode(value)?.checkpoint;
        return Ok((Owner::Upload(checkpoint.upload), checkpoint.extents));
    }
    let row = row::Blob::decode(value)?;
    let extents = match row.form {
        Form::Extents(extents) if row.state != row::State::Dead => extents,
        _ => Vec::new(),
    };
    let owner = match (key.try_into(), row.state) {
        (Ok(sha256), row::State::Live) => Owner::Blob(sha256),
        _ => Owner::Damaged,
    };
    Ok((owner, extents))
}

impl Reclaimer {
    /// Looks at the next page; behind the last one it is known what is dead.
    pub(super) async fn scan(&mut self, mut scan: Box<Scan>) -> Result<Did> {
        let table = match scan.table {
            Some(table) => table,
            None => {
                // Nobody holds these any more; what they left may be queued.
                self.core.queue.append(Vec::new(), Vec::new()).await?;
                if planted::is(Planted::ReclaimWithoutUploads) {
                    Table::Blob
                } else {
                    Table::Upload
                }
            }
        };
        scan.table = Some(table);
        let bytes = scan.page(&self.core, table)?;
        self.core.budget.take(bytes).await;
        if scan.from.is_empty() {
            if table == Table::Blob {
                return Ok(Did::More(0, self.settle(*scan)));
            }
            scan.table = Some(Table::Blob);
        }
        Ok(Did::More(0, vec![Work::Scan(scan)]))
    }
}
