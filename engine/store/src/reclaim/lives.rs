//! Which records of small segments blobs refer to.
//!
//! One look at all rows tells it of many segments: a row for each record would be a
//! read of the disk for each, once the index is larger than its cache. Invariant:
//! nothing is missing. Records never come to a segment that takes no more, so that
//! what a row names later was named when its row was looked at.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use orlop_format::location::{Home, SegmentId};
use orlop_format::row::{Blob, Form, State};
use orlop_index::Table;

use super::{Did, Reclaimer, Work};
use crate::config::{COLLECT_PAGE, LIVE_RECORDS};
use crate::core::Core;
use crate::error::Result;
use crate::view::unreadable;

/// Where the records of a segment begin that blobs refer to.
#[derive(Debug, Default)]
pub(super) struct Lives(Vec<u32>);

impl Lives {
    /// Whether none is live.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn has(&self, offset: u32) -> bool {
        self.0.binary_search(&offset).is_ok()
    }
}

/// A look at all rows of blobs, page by page.
pub(super) struct Search {
    wanted: BTreeMap<SegmentId, Lives>,
    found: usize,
    from: Vec<u8>,
    /// Segments for which there was no room in memory.
    left: Vec<SegmentId>,
}

impl Search {
    pub(super) fn new(wanted: Vec<SegmentId>) -> Self {
        let wanted = wanted.into_iter().map(|id| (id, Lives::default()));
        Self {
            wanted: wanted.collect(),
            found: 0,
            from: Vec::new(),
            left: Vec::new(),
        }
    }

    fn take(&mut self, row: &Blob) {
        let Form::Inline(place) = &row.form else {
            return;
        };
        let Home::Segment(id) = &place.home else {
            return;
        };
        if row.state == State::Dead {
            return;
        }
        let Some(lives) = self.wanted.get_mut(id) else {
            return;
        };
        lives.0.push(place.offset);
        self.found = self.found.saturating_add(1);
        while self.found > LIVE_RECORDS && self.wanted.len() > 1 {
            let most = self.wanted.iter().max_by_key(|(_, lives)| lives.0.len());
            let Some(most) = most.map(|(id, _)| *id) else {
                return;
            };
            let given_up = self.wanted.remove(&most).map_or(0, |lives| lives.0.len());
            self.found = self.found.saturating_sub(given_up);
            self.left.push(most);
        }
    }

    /// Looks at some rows, and gives their bytes; more are to come if `from` is set
    /// after it.
    fn page(&mut self, core: &Core) -> Result<u64> {
        let (mut rows, mut bytes, mut next, mut failed) = (0usize, 0u64, None, Ok(()));
        let from = std::mem::take(&mut self.from);
        core.index.scan(Table::Blob, &from, &mut |key, value| {
            if rows == COLLECT_PAGE {
                next = Some(key.to_vec());
                return ControlFlow::Break(());
            }
            rows = rows.saturating_add(1);
            bytes = bytes.saturating_add(value.len() as u64);
            match Blob::decode(value) {
                Ok(row) => {
                    self.take(&row);
                    ControlFlow::Continue(())
                }
                Err(error) => {
                    failed = Err(unreadable(Table::Blob, error));
                    ControlFlow::Break(())
                }
            }
        })?;
        failed?;
        self.from = next.unwrap_or_default();
        Ok(bytes)
    }
}

impl Reclaimer {
    /// Looks at the next page; behind the last one segments are cleaned.
    pub(super) async fn search(&mut self, mut search: Box<Search>) -> Result<Did> {
        let bytes = search.page(&self.core)?;
        self.core.budget.take(bytes).await;
        if !search.from.is_empty() {
            return Ok(Did::More(0, vec![Work::Search(search)]));
        }
        let mut more = Vec::new();
        for (id, mut lives) in search.wanted {
            lives.0.sort_unstable();
            more.push(Work::Clean(id, lives));
        }
        if !search.left.is_empty() {
            more.push(Work::Search(Box::new(Search::new(search.left))));
        }
        Ok(Did::More(0, more))
    }
}
