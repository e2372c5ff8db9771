//! Making the index again from small and meta segments.
//!
//! Their records carry the LSN they had in the journal; collected in the
//! index's own scratch table and applied in that order they give the index as
//! it was when the last of them left the journal. The journal is replayed
//! after that, and only then the index has a watermark: one that was not made
//! to its end counts as none. Memory is bounded by one group and one batch.

use std::ops::ControlFlow;

use orlop_disk::Pool;
use orlop_format::BLOCK;
use orlop_format::codec::{Reader, Writer};
use orlop_format::group::{Entries, Head};
use orlop_format::location::{Class, Place, SegmentId};
use orlop_format::record::{Kind, Record};
use orlop_format::segment::Footer;
use orlop_index::{Batch, Index, Table};

use crate::error::{Error, Result};
use crate::journal::files::read;
use crate::recover::Progress;
use crate::segment::{SegmentFile, Segments};
use crate::view::View;

/// Rows of one batch.
const ROWS: usize = 4096;

/// Applies every record of the small and meta segments up to LSN `recycled`.
pub(crate) async fn from_segments(
    pool: &Pool,
    segments: &Segments,
    index: &dyn Index,
    recycled: u64,
    progress: &Progress,
) -> Result<()> {
    let mut ids = segments.list(Class::Meta)?;
    ids.extend(segments.list(Class::Small)?);
    progress.stage("reading small and meta segments", ids.len() as u64);
    tracing::info!(segments = ids.len(), "making the index again from the log");
    index.clear(Table::Scratch)?;
    for id in ids {
        collect(pool, segments, index, &id, progress).await?;
        progress.advance(1);
    }
    progress.stage("applying records", 0);
    apply(index, recycled, progress)?;
    index.clear(Table::Scratch)?;
    Ok(())
}

/// Puts the records of one segment into the scratch table, by LSN.
async fn collect(
    pool: &Pool,
    segments: &Segments,
    index: &dyn Index,
    id: &SegmentId,
    progress: &Progress,
) -> Result<()> {
    let segment = segments.get(id).await?;
    let volume = segment.volume();
    let len = segment.file.len()?;
    let mut offset = BLOCK as u64;
    let mut batch = Batch::new();
    let mut groups = Vec::new();
    loop {
        progress.check()?;
        if offset >= len {
            return Err(lost(&segment, offset, "it ends without a footer"));
        }
        let block = read(pool, &segment.file, offset, BLOCK).await?;
        let Ok(head) = Head::decode(&volume, &block) else {
            check_end(pool, &segment, offset, len, &groups).await?;
            break;
        };
        let want = u64::from(head.bytes).min(len.saturating_sub(offset));
        let want = usize::try_from(want).unwrap_or(BLOCK);
        let bytes = read(pool, &segment.file, offset, want).await?;
        let base = u32::try_from(offset).unwrap_or(u32::MAX);
        let mut entries = Entries::new(volume, &head, base, &bytes);
        for entry in entries.by_ref() {
            let entry = entry.map_err(|error| lost(&segment, offset, error))?;
            let key = key(entry.lsn, entry.kind, entry.payload_good);
            batch.put(
                Table::Scratch,
                key,
                row(entry.kind, &entry.place, entry.body),
            );
            if batch.len() >= ROWS {
                index.apply(std::mem::take(&mut batch))?;
            }
        }
        groups.push((base, entries.last_crc()));
        offset = offset.saturating_add(u64::from(head.bytes));
    }
    index.apply(batch)?;
    Ok(())
}

/// No group begins at `offset`: there the footer must be, which names as many
/// groups as there were.
pub(crate) async fn check_end(
    pool: &Pool,
    segment: &SegmentFile,
    offset: u64,
    len: u64,
    groups: &[(u32, u32)],
) -> Result<()> {
    let left = usize::try_from(len.saturating_sub(offset)).unwrap_or(BLOCK);
    let bytes = read(pool, &segment.file, offset, left).await?;
    match Footer::decode(&segment.header, &bytes) {
        Ok(footer) if footer.frames == groups => Ok(()),
        Ok(_) => Err(lost(segment, offset, "its footer names other groups")),
        Err(error) => Err(lost(segment, offset, error)),
    }
}

pub(crate) fn lost(segment: &SegmentFile, offset: u64, reason: impl std::fmt::Display) -> Error {
    Error::corrupt(
        format!("the group at {offset} of {}", segment.file.path().display()),
        reason,
    )
}

/// LSN first, so that rows come in order; a good copy of a record sorts before
/// a damaged one, which then counts for nothing. An abandon that a later pass
/// made of a commit counts behind any copy of that commit.
fn key(lsn: u64, kind: Kind, good: bool) -> Vec<u8> {
    let rank = match (kind, good) {
        (Kind::Abandon, _) => 2,
        (_, good) => u8::from(!good),
    };
    let mut key = lsn.to_be_bytes().to_vec();
    key.push(rank);
    key
}

fn row(kind: Kind, place: &Place, body: &[u8]) -> Vec<u8> {
    let mut w = Writer::new();
    w.u8(kind.code());
    place.encode(&mut w);
    w.raw(body);
    w.finish()
}

/// A commit says where its bytes are; one without them is damaged.
fn whole(record: &Record, place: &Place) -> bool {
    match record {
        Record::Commit(commit) if commit.extents.is_empty() => {
            u64::from(place.payload) == commit.size
        }
        _ => true,
    }
}

fn parse(
    key: &[u8],
    value: &[u8],
) -> std::result::Result<(u64, bool, Place, Record), orlop_format::Malformed> {
    let mut k = Reader::new(key);
    let lsn = u64::from_be_bytes(k.array()?);
    let good = k.u8()? == 0;
    let mut v = Reader::new(value);
    let kind = Kind::from_code(v.u8()?)?;
    let place = Place::decode(&mut v)?;
    Ok((lsn, good, place, Record::decode(kind, v.rest())?))
}

/// Applies the scratch table in order of LSN.
fn apply(index: &dyn Index, recycled: u64, progress: &Progress) -> Result<()> {
    let mut from = Vec::new();
    let mut good_lsn = 0;
    loop {
        progress.check()?;
        let mut view = View::new(index);
        let mut last = None;
        let mut failed = Ok(());
        index.scan(Table::Scratch, &from, &mut |key, value| {
            last = Some(key.to_vec());
            failed = parse(key, value)
                .map_err(|error| Error::corrupt("a record in a small or meta segment", error))
                .and_then(|(lsn, good, place, record)| {
                    // What is newer is a copy that a pass made which did not
                    // come to its end; the journal has it.
                    if lsn == good_lsn || lsn > recycled {
                        return Ok(());
                    }
                    let good = good && whole(&record, &place);
                    if good {
                        good_lsn = lsn;
                    }
                    view.apply(lsn, &record, &place)?;
                    match &record {
                        Record::Commit(commit) if !good => {
                            let quarantine = Record::Quarantine {
                                sha256: commit.sha256,
                                birth: lsn,
                            };
                            view.apply(lsn, &quarantine, &place)
                        }
                        _ => Ok(()),
                    }
                });
            if failed.is_err() || view.len() >= ROWS {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })?;
        failed?;
        let more = view.len() >= ROWS;
        // The watermark stands for the whole: it is set when all of it is known
        // to be there.
        index.apply(view.into_batch(0))?;
        match last {
            Some(mut key) if more => {
                key.push(0); // the next key behind this one
                from = key;
            }
            _ => return Ok(()),
        }
    }
}
