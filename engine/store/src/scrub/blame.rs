//! From places that look wrong to what refers to them. An extent does not say
//! whose it is: the index is asked, once for each file in which something
//! looked wrong, and what refers to the place is read anew.

use std::ops::ControlFlow;

use orlop_format::location::{Extent, Home, Place};
use orlop_format::row::{Blob, Form, Upload};
use orlop_index::Table;

use super::inspect::{Inspector, Verdict};
use super::{FindingCode, is_wanted};
use crate::error::Result;
use crate::view::unreadable;

/// Rows that one step looks at.
const ROWS: usize = 1024;
/// Places kept apart. More run together, which costs reads and nothing else.
const MAX_RANGES: usize = 1024;

/// Places of one file that look wrong, in order.
#[derive(Debug, Default)]
pub(super) struct Suspects(Vec<(u64, u64)>);

impl Suspects {
    pub(super) fn add(&mut self, from: u64, to: u64) {
        let is_full = self.0.len() >= MAX_RANGES;
        match self.0.last_mut() {
            Some(last) if last.1 >= from || is_full => last.1 = last.1.max(to),
            _ => self.0.push((from, to)),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn touch(&self, from: u64, to: u64) -> bool {
        self.0.iter().any(|range| range.0 < to && from < range.1)
    }
}

/// The search for what refers to suspects.
pub(super) struct Blame {
    home: Home,
    suspects: Suspects,
    table: Table,
    from: Vec<u8>,
}

/// A row that refers to a suspect.
enum Row {
    Blob([u8; 32], Blob),
    Upload(Upload),
}

impl Blame {
    pub(super) fn new(home: Home, suspects: Suspects) -> Self {
        Self {
            home,
            suspects,
            table: Table::Blob,
            from: Vec::new(),
        }
    }

    /// Looks at some rows; false when all were looked at.
    pub(super) async fn step(&mut self, inspector: &mut Inspector) -> Result<bool> {
        let (mut rows, mut bytes, mut next) = (0usize, 0u64, None);
        let (mut hit, mut failed) = (Vec::new(), Ok(()));
        let table = self.table;
        let index = &inspector.core.index;
        index.scan(table, &self.from, &mut |key, value| {
            if rows == ROWS {
                next = Some(key.to_vec());
                return ControlFlow::Break(());
            }
            rows = rows.saturating_add(1);
            bytes = bytes.saturating_add(value.len() as u64);
            match self.refers(key, value) {
                Ok(row) => hit.extend(row),
                Err(error) => failed = Err(unreadable(table, error)),
            }
            ControlFlow::Continue(())
        })?;
        failed?;
        inspector.core.budget.take(bytes).await;
        for row in hit {
            match row {
                Row::Blob(sha256, row) => self.blob(inspector, &sha256, &row).await?,
                Row::Upload(row) => self.upload(inspector, &row).await?,
            }
        }
        match next {
            Some(key) => self.from = key,
            None if self.table == Table::Blob => {
                (self.table, self.from) = (Table::Upload, Vec::new());
            }
            None => return Ok(false),
        }
        Ok(true)
    }

    fn refers(
        &self,
        key: &[u8],
        value: &[u8],
    ) -> std::result::Result<Option<Row>, orlop_format::Malformed> {
        if self.table == Table::Upload {
            let row = Upload::decode(value)?;
            let touched = self.extents(&row.checkpoint.extents).next().is_some();
            let touched = touched || row.tail.is_some_and(|tail| self.is_at(&tail));
            return Ok(touched.then_some(Row::Upload(row)));
        }
        let row = Blob::decode(value)?;
        let touched = match &row.form {
            Form::Inline(place) => self.is_at(place),
            Form::Extents(extents) => self.extents(extents).next().is_some(),
        };
        let sha256 = key.try_into().ok();
        Ok(sha256
            .filter(|_| touched && is_wanted(&row))
            .map(|sha256| Row::Blob(sha256, row)))
    }

    fn is_at(&self, place: &Place) -> bool {
        let from = u64::from(place.offset);
        place.home == self.home && self.suspects.touch(from, from.saturating_add(place.len()))
    }

    fn extents<'a>(&'a self, extents: &'a [Extent]) -> impl Iterator<Item = &'a Extent> {
        extents.iter().filter(|extent| {
            let from = u64::from(extent.offset);
            Home::Segment(extent.segment) == self.home
                && self
                    .suspects
                    .touch(from, from.saturating_add(extent.footprint()))
        })
    }

    /// Reads what a blob has at the suspects.
    async fn blob(&self, inspector: &mut Inspector, sha256: &[u8; 32], row: &Blob) -> Result<()> {
        match &row.form {
            Form::Inline(place) => record(inspector, sha256, row, place).await,
            Form::Extents(extents) => {
                for extent in self.extents(extents) {
                    let verdict = inspector.extent(extent, &mut |_| {}).await?;
                    if verdict != Verdict::Good {
                        let place = (&self.home, u64::from(extent.offset));
                        let code = FindingCode::Blob;
                        return inspector.condemn(code, sha256, row, place, verdict).await;
                    }
                }
                Ok(())
            }
        }
    }

    /// Reads what an upload has at the suspects. Nobody pulls it: it is named
    /// and left alone.
    async fn upload(&self, inspector: &mut Inspector, row: &Upload) -> Result<()> {
        let id = row.checkpoint.upload;
        for extent in self.extents(&row.checkpoint.extents) {
            let verdict = inspector.extent(extent, &mut |_| {}).await?;
            if verdict != Verdict::Good {
                let offset = u64::from(extent.offset);
                return tell(inspector, &self.home, offset, &id, &verdict);
            }
        }
        if let Some(tail) = row.tail.filter(|tail| self.is_at(tail)) {
            let verdict = inspector.place(&tail, &mut |_| {}).await?;
            if verdict != Verdict::Good {
                let offset = u64::from(tail.offset);
                return tell(inspector, &self.home, offset, &id, &verdict);
            }
        }
        Ok(())
    }
}

/// Reads a blob that is the payload of a record.
pub(super) async fn record(
    inspector: &mut Inspector,
    sha256: &[u8; 32],
    row: &Blob,
    place: &Place,
) -> Result<()> {
    let mut len = 0u64;
    let verdict = inspector
        .place(place, &mut |bytes| len = bytes.len() as u64)
        .await?;
    let verdict = match verdict {
        // Recycling keeps the name of one whose bytes were lost.
        Verdict::Good if len != row.size => {
            Verdict::Damaged(format!("its record holds {len} bytes, not {}", row.size))
        }
        verdict => verdict,
    };
    let at = (&place.home, u64::from(place.offset));
    inspector
        .condemn(FindingCode::Blob, sha256, row, at, verdict)
        .await
}

/// Names an upload whose bytes are damaged, if it still is one.
pub(super) fn tell(
    inspector: &mut Inspector,
    home: &Home,
    offset: u64,
    id: &orlop_format::record::UploadId,
    verdict: &Verdict,
) -> Result<()> {
    if inspector.core.upload_row(id)?.is_none() {
        return Ok(());
    }
    let what = match verdict {
        Verdict::Good | Verdict::Gone | Verdict::NoFile(_) => return Ok(()),
        Verdict::Damaged(reason) => reason.clone(),
        Verdict::Unreadable(what) => format!("{what} cannot be read"),
    };
    let reason = format!("upload {id}: {what}; its client has to begin again");
    inspector.report(FindingCode::Upload, home, offset, reason);
    Ok(())
}
