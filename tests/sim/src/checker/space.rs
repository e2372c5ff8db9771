//! Space: what the accounts say of each segment is what the rows that use it
//! add up to; numbers and digests belong to each other.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use orlop_format::location::{Extent, Home, Place, SegmentId};
use orlop_format::row::{self, Form, State};
use orlop_format::segment::file_name;
use orlop_index::{Index, Table};

use super::{Checked, Checker, Image};
use crate::world::folder;

/// Bytes in use, and the end of the last of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Use {
    live: u64,
    end: u64,
    /// Where each thing in use begins and ends.
    ranges: Vec<(u64, u64)>,
}

#[derive(Default)]
struct Sums(BTreeMap<SegmentId, Use>);

impl Sums {
    fn add(&mut self, segment: SegmentId, offset: u32, len: u64) {
        let sum = self.0.entry(segment).or_default();
        sum.live += len;
        sum.end = sum.end.max(u64::from(offset) + len);
        sum.ranges
            .push((u64::from(offset), u64::from(offset) + len));
    }

    fn extents(&mut self, extents: &[Extent]) {
        for extent in extents {
            self.add(extent.segment, extent.offset, extent.footprint());
        }
    }

    fn place(&mut self, place: &Place) {
        if let Home::Segment(segment) = &place.home {
            self.add(*segment, place.offset, place.len());
        }
    }
}

type Row = (Vec<u8>, Vec<u8>);

fn rows(index: &dyn Index, table: Table) -> Checked<Vec<Row>> {
    let mut rows = Vec::new();
    let scanned = index.scan(table, &[], &mut |key, value| {
        rows.push((key.to_vec(), value.to_vec()));
        ControlFlow::Continue(())
    });
    scanned.map_err(|error| Checker::Space.finds(error))?;
    Ok(rows)
}

fn unreadable(table: Table, error: impl std::fmt::Display) -> super::Finding {
    Checker::Space.finds(format_args!("a row of {table}: {error}"))
}

pub(super) fn check(image: &Image) -> Checked<()> {
    let index = image.index.current();
    let index: &dyn Index = index.as_ref();
    let mut sums = Sums::default();
    let mut ordinals = BTreeMap::new();
    for (key, value) in rows(index, Table::Blob)? {
        let blob = row::Blob::decode(&value).map_err(|error| unreadable(Table::Blob, error))?;
        match blob.state {
            State::Dead => continue,
            State::Quarantined => {
                return Err(Checker::Acknowledged.finds("a blob is in quarantine without damage"));
            }
            State::Live => {}
        }
        match &blob.form {
            Form::Inline(place) => sums.place(place),
            Form::Extents(extents) => sums.extents(extents),
        }
        if ordinals
            .insert(blob.ordinal.to_be_bytes().to_vec(), key)
            .is_some()
        {
            return Err(
                Checker::Space.finds(format_args!("two blobs have number {}", blob.ordinal))
            );
        }
    }
    for (_, value) in rows(index, Table::Upload)? {
        let upload =
            row::Upload::decode(&value).map_err(|error| unreadable(Table::Upload, error))?;
        sums.extents(&upload.checkpoint.extents);
        if let Some(tail) = &upload.tail {
            sums.place(tail);
        }
    }
    let numbers: BTreeMap<_, _> = rows(index, Table::Ordinal)?.into_iter().collect();
    if numbers != ordinals {
        return Err(Checker::Space.finds("the table of numbers is not that of the blobs"));
    }
    accounts(image, index, &sums)
}

/// Compares the accounts with the sums, and with the files.
fn accounts(image: &Image, index: &dyn Index, sums: &Sums) -> Checked<()> {
    let mut accounts = BTreeMap::new();
    for (_, value) in rows(index, Table::Segment)? {
        let row =
            row::Segment::decode(&value).map_err(|error| unreadable(Table::Segment, error))?;
        accounts.insert(row.segment, row);
    }
    for (segment, sum) in &sums.0 {
        let row = accounts.get(segment);
        let account = row.map(|row| (row.live, row.used));
        let (live, used) = account.unwrap_or_default();
        if live != sum.live || used < sum.end {
            return Err(Checker::Space.finds(format_args!(
                "segment {} has {live} live bytes of {used} by its account, {sum:?} by its rows",
                segment.id
            )));
        }
    }
    for (segment, row) in &accounts {
        let sum = sums.0.get(segment).cloned().unwrap_or_default();
        for hole in &row.holes {
            let mut ranges = sum.ranges.iter();
            if ranges.any(|(from, to)| u64::from(hole.offset) < *to && *from < hole.end()) {
                return Err(Checker::Space.finds(format_args!(
                    "segment {} has a hole {hole:?} where something is in use",
                    segment.id
                )));
            }
        }
        if row.live != sum.live {
            return Err(Checker::Space.finds(format_args!(
                "segment {} has {} live bytes by its account, {} by its rows",
                segment.id, row.live, sum.live
            )));
        }
        let path = folder()
            .join("data")
            .join(segment.class.folder())
            .join(file_name(segment));
        let len = image.sim.len(&path);
        if row.live > 0 && len.is_none_or(|len| len < row.used) {
            return Err(Checker::Space.finds(format_args!(
                "segment {} is used up to {}, its file has {len:?} bytes",
                segment.id, row.used
            )));
        }
    }
    Ok(())
}
