//! Does the index say what the log says?
//!
//! The index is a view: it may be missing, and it may end before the log does.
//! Every row is held against what the log said where the index ends, in one
//! pass over both in the order of keys. What recycling dropped from the log
//! may still show in counters and in digests that were known once; each such
//! leave is named where it is given.

mod compare;
#[cfg(feature = "index")]
mod manifest;
#[cfg(feature = "index")]
mod rocks;
#[cfg(not(feature = "index"))]
#[path = "index/none.rs"]
mod rocks;

use std::path::Path;

use crate::file::names;
use crate::finding::{Code, Object};
use crate::journal::Journal;
use crate::report::Report;
use crate::scratch::Scratch;
use crate::trouble::Result;

use orlop_format::superblock::Superblock;

pub(crate) use compare::Compare;
use rocks::Database;

/// Where the index lies.
pub(crate) const FOLDER: &str = "index";

/// An index that can be compared.
#[derive(Debug)]
pub(crate) struct Index {
    database: Database,
    /// LSN that it has reached.
    pub(crate) watermark: u64,
}

/// Opens the index, if there is one, it can be read, and the server would use
/// it; says so otherwise.
pub(crate) fn open(
    folder: &Path,
    scratch: &Scratch,
    wanted: bool,
    slot: &Superblock,
    journal: &Journal,
    report: &mut Report,
) -> Result<Option<Index>> {
    let object = || Object::file(FOLDER);
    let files = names(&folder.join(FOLDER))?;
    if files.iter().all(|name| name == "LOCK") {
        report.note(Code::IndexMissing, object(), "there is none");
        return Ok(None);
    }
    if !wanted || !Database::AVAILABLE {
        report.note(Code::IndexSkipped, object(), "not compared");
        return Ok(None);
    }
    let (database, watermark) = match Database::open(&folder.join(FOLDER), &files, scratch, report)?
    {
        Ok(opened) => opened,
        Err(found) => {
            unreadable(report, FOLDER, found);
            return Ok(None);
        }
    };
    report.index.watermark = Some(watermark);
    let first = journal.files.values().next();
    let begin = first.map_or(1, |header| header.first_lsn);
    if watermark.saturating_add(1) < begin || watermark < slot.recycled {
        let found = format!("it ends at LSN {watermark}, the journal begins at {begin}");
        report.note(Code::IndexBehind, object(), found);
        return Ok(None);
    }
    Ok(Some(Index {
        database,
        watermark,
    }))
}

/// The index, or a table of it, cannot be read.
fn unreadable(report: &mut Report, what: &str, found: impl std::fmt::Display) {
    let object = Object::file(what);
    report.find(
        Code::IndexUnreadable,
        object,
        "an index that can be read",
        found,
    );
}

impl Index {
    /// Looks how far it is beside the log, which ends at LSN `end`.
    pub(crate) fn place(&self, end: u64, report: &mut Report) {
        let (object, watermark) = (Object::file(FOLDER), self.watermark);
        if watermark > end {
            report.find(
                Code::IndexAhead,
                object,
                format_args!("an index that ends at LSN {end} or before, as the log does"),
                format_args!("one that ends at LSN {watermark}"),
            );
        } else if watermark < end {
            let found = format!("it ends at LSN {watermark}, the log at {end}");
            report.note(Code::IndexLag, object, found);
        }
    }
}
