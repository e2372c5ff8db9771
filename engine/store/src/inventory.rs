//! Which segment files must be there, by what the index says, and whether they
//! are. Asked at a start, before anything is written.
//!
//! Invariants: one file that is missing costs what is in it and holds nothing
//! else up; a class without any of the files that live blobs or
//! uploads need is a file
//! system that is not mounted, and a start on it is refused; an index is made
//! again only of all small and meta segments that were ever sealed.
//!
//! Refuses to know: what is in the files.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use orlop_format::Malformed;
use orlop_format::location::{Class, Home, SegmentId};
use orlop_format::row::{self, Form, State};
use orlop_index::{Index, Table};

use crate::error::{Error, Invalid, Result};
use crate::segment::Segments;
use crate::view::unreadable;

/// Whether a segment must be there: blobs lie in it, or records that a rebuild
/// needs.
pub(crate) fn is_needed(row: &row::Segment) -> bool {
    row.live > 0 || (row.segment.class == Class::Meta && row.sealed)
}

/// Holds the files against the index; `rebuilt` if that was just made of them.
/// No id that the index knows is given out again.
pub(crate) fn check(segments: &Segments, index: &dyn Index, rebuilt: bool) -> Result<()> {
    for class in Class::ALL {
        let there: BTreeSet<SegmentId> = segments.list(class)?.into_iter().collect();
        let (mut needed, mut found) = (0u64, 0u64);
        let (mut missing, mut lost) = (0u64, None);
        let mut failed = Ok(());
        let from = row::Segment::key(class, 0);
        index.scan(Table::Segment, &from, &mut |_, value| {
            let row = match row::Segment::decode(value) {
                Ok(row) if row.segment.class == class => row,
                Ok(_) => return ControlFlow::Break(()),
                Err(error) => {
                    failed = Err(unreadable(Table::Segment, error));
                    return ControlFlow::Break(());
                }
            };
            segments.used(&row.segment);
            let is_there = there.contains(&row.segment);
            if is_needed(&row) {
                needed = needed.saturating_add(1);
                found = found.saturating_add(u64::from(is_there));
            }
            let is_log = matches!(class, Class::Small | Class::Meta);
            if !is_there && (is_needed(&row) || (is_log && row.sealed)) {
                missing = missing.saturating_add(1);
                lost.get_or_insert(row.segment);
            }
            ControlFlow::Continue(())
        })?;
        failed?;
        let Some(lost) = lost else { continue };
        let path = segments.path(&lost);
        if rebuilt && class != Class::Raw {
            return Err(Error::corrupt(
                path.display(),
                "the file is missing, and without it an index that is made again lacks what it held; \
                 mount the file system that it is on, or put it back",
            ));
        }
        if needed > 0 && found == 0 && (class == Class::Meta || is_used(index, class)?) {
            return Err(Invalid::Folder(format!(
                "{} is missing, and so is every segment file that the store needs in that folder \
                 ({needed} in all): mount the file system that they are on, or put them back; if \
                 they are lost for good, the manual (operating.md, starts that fail) says what can \
                 be done",
                path.display(),
            ))
            .into());
        }
        tracing::error!(
            file = %path.display(),
            missing,
            "segment files are missing: what is in them is not served until they are back"
        );
    }
    Ok(())
}

/// Whether a blob that counts, or what an upload goes on from, lies in a class
/// of segments.
fn is_used(index: &dyn Index, class: Class) -> Result<bool> {
    let blob = |value: &[u8]| {
        let row = row::Blob::decode(value)?;
        Ok(row.state == State::Live && lies_in(&row.form, class))
    };
    let upload = |value: &[u8]| {
        let row = row::Upload::decode(value)?;
        let tail = row.tail.is_some_and(|tail| is_of(&tail.home, class));
        Ok(tail || lies_in(&Form::Extents(row.checkpoint.extents), class))
    };
    Ok(any(index, Table::Blob, &blob)? || any(index, Table::Upload, &upload)?)
}

type Judge<'a> = dyn Fn(&[u8]) -> std::result::Result<bool, Malformed> + 'a;

/// Whether `is_it` says so of any row of a table.
fn any(index: &dyn Index, table: Table, is_it: &Judge<'_>) -> Result<bool> {
    let mut found = Ok(false);
    index.scan(table, &[], &mut |_, value| {
        found = is_it(value).map_err(|error| unreadable(table, error));
        match found {
            Ok(false) => ControlFlow::Continue(()),
            _ => ControlFlow::Break(()),
        }
    })?;
    found
}

fn is_of(home: &Home, class: Class) -> bool {
    matches!(home, Home::Segment(id) if id.class == class)
}

fn lies_in(form: &Form, class: Class) -> bool {
    match form {
        Form::Inline(place) => is_of(&place.home, class),
        Form::Extents(extents) => extents.iter().any(|extent| extent.segment.class == class),
    }
}
