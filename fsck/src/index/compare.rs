//! Rows of the index against what the log said where the index ends.
//!
//! The caller goes through the log's side of each table in the order of keys;
//! the index's side goes along.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use orlop_format::digest::{Algorithm, Digest};
use orlop_format::location::{Home, Place, SegmentId};
use orlop_format::record::UploadId;
use orlop_format::row::{self, Form, Names as Row, State};

use super::rocks::Rows;
use super::{Index, Pair, unreadable};
use crate::finding::{Code, Object};
use crate::log::{Names, Seal};
use crate::release::Released;
use crate::replay::{Blob, Copies, Folded, Upload};
use crate::report::Report;
use crate::segment::Segments;

/// One table's rows, with the next one at hand.
struct Table<'a> {
    name: &'static str,
    rows: Option<Rows<'a>>,
    ahead: Option<Pair>,
    seen: u64,
}

impl<'a> Table<'a> {
    fn open(index: &'a Index, name: &'static str, report: &mut Report) -> Self {
        let rows = match index.database.rows(name) {
            Ok(rows) => Some(rows),
            Err(found) => {
                unreadable(report, &format!("index, table {name}"), found);
                None
            }
        };
        let mut table = Self {
            name,
            rows,
            ahead: None,
            seen: 0,
        };
        table.step(report);
        table
    }

    /// Reads the next row; a table that cannot be read ends, and nothing is
    /// said to be missing from it.
    fn step(&mut self, report: &mut Report) {
        self.ahead = None;
        let Some(rows) = &mut self.rows else { return };
        match rows.next() {
            Ok(row) => {
                self.seen = self.seen.saturating_add(u64::from(row.is_some()));
                self.ahead = row;
            }
            Err(found) => {
                unreadable(report, &format!("index, table {}", self.name), found);
                self.rows = None;
            }
        }
    }

    /// The row in front of `key`, which the log does not give; all of them
    /// without a key.
    fn before(&mut self, key: Option<&[u8]>, report: &mut Report) -> Option<Pair> {
        let (found, _) = self.ahead.as_ref()?;
        if key.is_some_and(|key| found.as_slice() >= key) {
            return None;
        }
        let row = self.ahead.take();
        self.step(report);
        row
    }

    /// The row with this key, after [`Table::before`] gave none.
    fn at(&mut self, key: &[u8], report: &mut Report) -> Option<Vec<u8>> {
        if self.ahead.as_ref()?.0 != key {
            return None;
        }
        let (_, value) = self.ahead.take()?;
        self.step(report);
        Some(value)
    }

    fn object(&self, key: &[u8]) -> Object {
        Object::row(format!("index/{}", self.name), self.key(key))
    }

    fn key(&self, key: &[u8]) -> String {
        match self.name {
            "blob" => Digest::new(Algorithm::Sha256, key).ok(),
            "alias" => Digest::decode(key).ok().map(|(digest, _)| digest),
            _ => None,
        }
        .map_or_else(|| hex(key), |digest| digest.to_string())
    }

    fn extra(&self, key: &[u8], found: &str, report: &mut Report) {
        let mut object = self.object(key);
        if self.name == "blob" {
            object.blob = object.key.clone();
        }
        unnamed(object, found, report);
    }

    /// A further digest that only the index knows, and the blob it means there.
    fn digest(&self, key: &[u8], value: &[u8], found: &str, report: &mut Report) {
        let mut object = self.object(key);
        let blob = Digest::new(Algorithm::Sha256, value).ok();
        object.blob = blob.map(|blob| blob.to_string());
        unnamed(object, found, report);
    }

    fn missing(&self, object: Object, report: &mut Report) {
        if self.rows.is_some() {
            report.find(
                Code::IndexMissingRow,
                object,
                "a row, as the log has it",
                "none",
            );
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What is in use of a segment, where the index ends.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Account {
    live: u64,
    /// Where the last thing in use ends.
    end: u64,
}

/// The comparison.
pub(crate) struct Compare<'a> {
    blob: Table<'a>,
    alias: Table<'a>,
    upload: Table<'a>,
    ordinal: Table<'a>,
    segment: Table<'a>,
    meta: Table<'a>,
    accounts: BTreeMap<SegmentId, Account>,
    watermark: u64,
}

impl<'a> Compare<'a> {
    /// Begins at the first rows.
    pub(crate) fn new(index: &'a Index, report: &mut Report) -> Self {
        let mut open = |name| Table::open(index, name, report);
        Self {
            blob: open("blob"),
            alias: open("alias"),
            upload: open("upload"),
            ordinal: open("ordinal"),
            segment: open("segment"),
            meta: open("meta"),
            accounts: BTreeMap::new(),
            watermark: index.watermark,
        }
    }

    fn count(&mut self, id: &SegmentId, offset: u32, bytes: u64) {
        let account = self.accounts.entry(*id).or_default();
        account.live = account.live.saturating_add(bytes);
        account.end = account.end.max(u64::from(offset).saturating_add(bytes));
    }

    fn count_place(&mut self, place: &Place) {
        if let Home::Segment(id) = &place.home {
            self.count(id, place.offset, place.len());
        }
    }

    fn count_form(&mut self, form: &Form) {
        match form {
            Form::Inline(place) => self.count_place(place),
            Form::Extents(extents) => {
                for extent in extents {
                    self.count(&extent.segment, extent.offset, extent.footprint());
                }
            }
        }
    }

    /// The next blob. Returns the place that the index reads it from, if the
    /// log agrees.
    pub(crate) fn blob(
        &mut self,
        sha256: &[u8; 32],
        there: Option<&Blob>,
        report: &mut Report,
    ) -> Option<Place> {
        while let Some((key, value)) = self.blob.before(Some(sha256), report) {
            self.unknown_blob(&key, &value, report);
        }
        let value = self.blob.at(sha256, report);
        let object = || {
            let mut object = self.blob.object(sha256);
            object.blob.clone_from(&object.key);
            object
        };
        let Some(there) = there else {
            if value.is_some_and(|value| !is_dead(&value)) {
                self.blob
                    .extra(sha256, "a blob that the log did not name yet", report);
            }
            return None;
        };
        let mut chosen = None;
        let mut counted = there.row.form.clone();
        match value.map(|value| row::Blob::decode(&value)) {
            None => self.blob.missing(object(), report),
            Some(Ok(found)) if agrees(there, &found) => {
                if let Form::Inline(place) = found.form {
                    chosen = Some(place);
                }
                counted = found.form;
            }
            Some(Ok(found)) => differs(report, object(), &there.row, &found),
            Some(Err(error)) => differs(report, object(), &there.row, &error),
        }
        if there.row.state != State::Dead {
            self.count_form(&counted);
        }
        chosen
    }

    /// The end of the blobs.
    pub(crate) fn end_of_blobs(&mut self, report: &mut Report) {
        while let Some((key, value)) = self.blob.before(None, report) {
            self.unknown_blob(&key, &value, report);
        }
    }

    fn unknown_blob(&self, key: &[u8], value: &[u8], report: &mut Report) {
        if !is_dead(value) {
            self.blob
                .extra(key, "a blob that the log does not name", report);
        }
    }

    /// The next further digest with the SHA-256 that the log gives it, or the
    /// end of them.
    pub(crate) fn alias(
        &mut self,
        next: Option<(&Digest, &Folded<[u8; 32]>)>,
        report: &mut Report,
    ) {
        let key = next.map(|(digest, _)| digest.encode());
        while let Some((key, value)) = self.alias.before(key.as_deref(), report) {
            self.alias
                .digest(&key, &value, "a digest that the log does not name", report);
        }
        let there = next.and_then(|(_, folded)| folded.there.as_ref());
        let end = next.and_then(|(_, folded)| folded.end.as_ref());
        let Some(key) = key else { return };
        let value = self.alias.at(&key, report);
        let object = self.alias.object(&key);
        match (value, there) {
            (Some(value), Some(there)) if value == there => {}
            (Some(value), Some(there)) => {
                differs(report, object, &hex(there), &hex(&value));
            }
            (None, Some(_)) => self.alias.missing(object, report),
            // Repair names in the log what the index had alone.
            (Some(value), None) if end.is_some_and(|end| value == end) => {}
            (Some(value), None) => {
                let found = "a digest that the log did not name yet";
                self.alias.digest(&key, &value, found, report);
            }
            (None, None) => {}
        }
    }

    /// The next upload, or the end of them.
    pub(crate) fn upload(
        &mut self,
        id: Option<&UploadId>,
        there: Option<&Upload>,
        report: &mut Report,
    ) {
        let key = id.map(|id| id.0);
        while let Some((key, _)) = self
            .upload
            .before(key.as_ref().map(<[u8; 16]>::as_slice), report)
        {
            self.upload
                .extra(&key, "an upload that is not open in the log", report);
        }
        let Some(key) = key else { return };
        let value = self.upload.at(&key, report);
        let mut object = self.upload.object(&key);
        object.upload.clone_from(&object.key);
        let Some(there) = there else {
            if value.is_some() {
                self.upload
                    .extra(&key, "an upload that is not open in the log", report);
            }
            return;
        };
        let lost = there.row.tail.is_some() && there.copies.lost();
        let mut tail = there.row.tail;
        match value.map(|value| row::Upload::decode(&value)) {
            // A start gives up an upload whose tail does not hold.
            None if lost => return,
            None => self.upload.missing(object, report),
            Some(Ok(found)) if same_upload(there, &found) => tail = found.tail,
            Some(Ok(found)) => differs(report, object, &there.row, &found),
            Some(Err(error)) => differs(report, object, &there.row, &error),
        }
        for extent in &there.row.checkpoint.extents {
            self.count(&extent.segment, extent.offset, extent.footprint());
        }
        if let Some(tail) = tail {
            self.count_place(&tail);
        }
    }

    /// The next ordinal, or the end of them.
    pub(crate) fn ordinal(&mut self, row: Option<(u64, [u8; 32])>, report: &mut Report) {
        let key = row.map(|(ordinal, _)| ordinal.to_be_bytes());
        while let Some((key, _)) = self
            .ordinal
            .before(key.as_ref().map(<[u8; 8]>::as_slice), report)
        {
            self.ordinal
                .extra(&key, "a number that no blob has", report);
        }
        let (Some(key), Some((_, sha256))) = (key, row) else {
            return;
        };
        let object = self.ordinal.object(&key);
        match self.ordinal.at(&key, report) {
            Some(value) if value == sha256 => {}
            Some(value) => differs(report, object, &hex(&sha256), &hex(&value)),
            None => self.ordinal.missing(object, report),
        }
    }

    /// Holds the segments' rows against seals and accounts.
    pub(crate) fn segments(
        &mut self,
        segments: &Segments,
        seals: &BTreeMap<SegmentId, Seal>,
        released: &Released,
        report: &mut Report,
    ) {
        let seals = seals.iter().filter(|(_, seal)| seal.lsn <= self.watermark);
        let mut wanted: BTreeMap<Vec<u8>, (SegmentId, Option<Seal>)> = seals
            .map(|(id, seal)| (row::Segment::key(id.class, id.id), (*id, Some(*seal))))
            .collect();
        for id in self.accounts.keys() {
            let key = row::Segment::key(id.class, id.id);
            wanted.entry(key).or_insert((*id, None));
        }
        let removed: BTreeSet<_> = released.removed_until(self.watermark).collect();
        for id in &removed {
            let key = row::Segment::key(id.class, id.id);
            wanted.insert(key, (*id, None));
        }
        for (key, (id, seal)) in &wanted {
            self.no_segments(Some(key), report);
            let account = self.accounts.get(id).copied().unwrap_or_default();
            let mut object = self.segment.object(key);
            object.segment = Some(orlop_format::segment::file_name(id));
            let len = segments.files.get(id).map(|segment| segment.len);
            let (punched, holes) = released.punched_there(id);
            let rest = if removed.contains(id) {
                row::Segment::gone(*id)
            } else {
                row::Segment {
                    punched,
                    holes,
                    ..row::Segment::new(*id)
                }
            };
            let value = self.segment.at(key, report);
            match value.map(|value| row::Segment::decode(&value)) {
                None => self.segment.missing(object, report),
                Some(Err(error)) => differs(report, object, &"a row that can be read", &error),
                Some(Ok(found)) => {
                    segment(&found, rest, seal.as_ref(), &account, len, object, report)
                }
            }
        }
        self.no_segments(None, report);
    }

    /// A row of a segment that nothing refers to, that never was sealed, may be
    /// all that is left of uploads that came to nothing.
    fn no_segments(&mut self, before: Option<&[u8]>, report: &mut Report) {
        while let Some((key, value)) = self.segment.before(before, report) {
            let row = row::Segment::decode(&value);
            if let Ok(row) = &row {
                let last = &mut report.index.last_segment;
                *last = row.segment.id.max(*last);
            }
            match row {
                Ok(row) if !row.sealed && row.live == 0 => {}
                _ => self
                    .segment
                    .extra(&key, "a segment that the log does not name", report),
            }
        }
    }

    /// Holds the rows about names and numbers against the log.
    pub(crate) fn names(&mut self, there: &Names, report: &mut Report) {
        self.no_meta(Some(Row::KEY), report);
        let object = self.meta.object(Row::KEY);
        match self
            .meta
            .at(Row::KEY, report)
            .map(|value| Row::decode(&value))
        {
            None if there.notes == 0 && there.copies.is_empty() => {}
            None => self.meta.missing(object, report),
            // Recycling drops notes that both copies of the catalog have.
            Some(Ok(found))
                if found.copies == there.copies
                    && (there.notes..=self.watermark).contains(&found.notes) => {}
            Some(Ok(found)) => {
                let wanted = Row {
                    notes: there.notes,
                    copies: there.copies.clone(),
                };
                differs(report, object, &wanted, &found);
            }
            Some(Err(error)) => differs(report, object, &"a row that can be read", &error),
        }
        self.no_meta(Some(row::NEXT_ORDINAL), report);
        let object = self.meta.object(row::NEXT_ORDINAL);
        let value = self.meta.at(row::NEXT_ORDINAL, report);
        let number = value
            .as_deref()
            .map(|value| <[u8; 8]>::try_from(value).map(u64::from_le_bytes));
        match number {
            None if there.next_ordinal == 0 => {}
            None => self.meta.missing(object, report),
            // Recycling drops commits of lives that ended.
            Some(Ok(found)) if found >= there.next_ordinal => report.index.next_ordinal = found,
            Some(Ok(found)) => differs(report, object, &there.next_ordinal, &found),
            Some(Err(_)) => differs(report, object, &there.next_ordinal, &"not a number"),
        }
        self.no_meta(None, report);
        let tables = [
            &self.blob,
            &self.alias,
            &self.upload,
            &self.ordinal,
            &self.segment,
            &self.meta,
        ];
        report.counts.index_rows = tables.iter().map(|table| table.seen).sum();
        report.index.compared = tables.iter().all(|table| table.rows.is_some());
    }

    fn no_meta(&mut self, before: Option<&[u8]>, report: &mut Report) {
        while let Some((key, _)) = self.meta.before(before, report) {
            self.meta.extra(&key, "a row of no known name", report);
        }
    }
}

/// Says that there is a row too many.
fn unnamed(object: Object, found: &str, report: &mut Report) {
    let expected = "no row, as the log has it";
    report.find(Code::IndexExtraRow, object, expected, found);
}

/// Whether a row is that of a blob that ended. Its tombstone may have gone with
/// a segment, when nothing was left that it ended.
fn is_dead(value: &[u8]) -> bool {
    row::Blob::decode(value).is_ok_and(|row| row.state == State::Dead)
}

/// Says that a row differs.
fn differs(report: &mut Report, object: Object, wanted: &dyn Debug, found: &dyn Debug) {
    report.find(
        Code::IndexDiffers,
        object,
        format_args!("{wanted:?}"),
        format_args!("{found:?}"),
    );
}

/// Whether the index may read a record from a place.
fn readable(copies: &Copies, place: &Place) -> bool {
    copies.places.contains(place) && (copies.holds(place) == Some(true) || copies.lost())
}

fn agrees(there: &Blob, found: &row::Blob) -> bool {
    let mut wanted = there.row.clone();
    if let (Form::Inline(_), Form::Inline(place)) = (&wanted.form, &found.form)
        && (readable(&there.copies, place) || there.copies.lost())
    {
        // Of a record that is lost recycling keeps the name alone: the index
        // goes on naming the place that it had.
        wanted.form = Form::Inline(*place);
    }
    // A start puts a blob into quarantine before the log says so.
    if wanted.state == State::Live && !there.copies.places.is_empty() && there.copies.lost() {
        wanted.state = found.state;
    }
    wanted == *found
}

fn same_upload(there: &Upload, found: &row::Upload) -> bool {
    let mut wanted = there.row.clone();
    if let Some(place) = found.tail.filter(|place| readable(&there.copies, place)) {
        wanted.tail = Some(place);
    }
    wanted.checkpoint.extents_before = found.checkpoint.extents_before;
    wanted == *found
}

/// `rest` says what was given back.
fn segment(
    found: &row::Segment,
    rest: row::Segment,
    seal: Option<&Seal>,
    account: &Account,
    len: Option<u64>,
    object: Object,
    report: &mut Report,
) {
    let wanted = row::Segment {
        sealed: seal.is_some(),
        used: match seal {
            _ if rest.removed => 0,
            Some(seal) => u64::from(seal.used),
            None => account.end,
        },
        live: account.live,
        hash: seal.map_or([0; 32], |seal| seal.hash),
        ..rest
    };
    // Uploads that came to nothing may have used more of an open segment.
    let used = found.used == wanted.used
        || (seal.is_none()
            && !wanted.removed
            && found.used > wanted.used
            && len.is_none_or(|len| found.used <= len));
    if found.live != wanted.live {
        let (expected, found) = (wanted.live, found.live);
        report.find(
            Code::IndexSpace,
            object,
            format_args!("{expected} bytes in use"),
            format_args!("{found} bytes"),
        );
    } else if found.segment != wanted.segment
        || found.sealed != wanted.sealed
        || found.hash != wanted.hash
        || found.removed != wanted.removed
        || (found.punched, &found.holes) != (wanted.punched, &wanted.holes)
        || !used
    {
        differs(report, object, &wanted, found);
    }
}
