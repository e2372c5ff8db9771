//! Reading the journal back: which records hold, and where it ends.
//!
//! A group is proven when a valid group follows it, in its own file or by the
//! next file's header. In a proven group a bad payload is damage to one blob
//! and a bad header is corruption. In the last, unproven group the first bad
//! record and all after it are a torn tail: cut, noted, no finding. Nothing is
//! written here.

use std::sync::Arc;

use orlop_disk::{File, Pool};
use orlop_format::BLOCK;
use orlop_format::group::{Entries, Entry, Head, Volume};

use super::files::{JournalFile, read_lenient};
use crate::error::{Error, Result};

/// Bytes read at once while looking for groups.
const WINDOW: usize = 4 * 1024 * 1024;

/// Where the journal ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct End {
    /// The last file.
    pub(crate) sequence: u64,
    /// Offset in it behind the last record that holds.
    pub(crate) offset: u32,
    /// LSN that the next record gets.
    pub(crate) next_lsn: u64,
    /// Number that the next group gets.
    pub(crate) next_group: u64,
    /// Checksum of the last header.
    pub(crate) chain: u32,
    /// Bytes of a torn tail that were cut, 0 for none.
    pub(crate) torn: u32,
    /// Offset and bytes of the last group in the file, zeros for none.
    pub(crate) last: (u32, u32),
}

/// What takes the records of a scan.
pub(crate) trait Visit {
    /// A record that holds (its payload may not: see
    /// [`Entry::payload_good`]).
    fn record(&mut self, entry: &Entry<'_>) -> Result<()>;
}

impl<F: FnMut(&Entry<'_>) -> Result<()>> Visit for F {
    fn record(&mut self, entry: &Entry<'_>) -> Result<()> {
        self(entry)
    }
}

/// Reads windows of a file.
struct Window<'a> {
    pool: &'a Pool,
    file: &'a Arc<dyn File>,
    len: u64,
    at: u64,
    bytes: Vec<u8>,
    /// Offsets of blocks that could not be read; they count as zeros.
    lost: Vec<u64>,
}

impl<'a> Window<'a> {
    fn new(pool: &'a Pool, file: &'a Arc<dyn File>, len: u64) -> Self {
        Self {
            pool,
            file,
            len,
            at: 0,
            bytes: Vec::new(),
            lost: Vec::new(),
        }
    }

    /// Lets go of what was read, so that it is read again.
    fn forget(&mut self) {
        self.bytes = Vec::new();
        self.lost.clear();
    }

    /// An error if a block at `from` or behind could not be read: what that
    /// says about the journal's end is not known, and unsure is not "torn".
    fn sure(&self, from: u32) -> Result<()> {
        match self.lost.iter().find(|at| **at >= u64::from(from)) {
            None => Ok(()),
            Some(at) => Err(Error::Io {
                what: self.file.path().display().to_string(),
                reason: format!(
                    "the block at {at} cannot be read, and nothing behind it tells what it held"
                ),
            }),
        }
    }

    /// The bytes at `offset`, at least `want` of them unless the file ends.
    async fn at(&mut self, offset: u64, want: usize) -> Result<&[u8]> {
        let end = offset.saturating_add(want as u64).min(self.len);
        let have = self.at.saturating_add(self.bytes.len() as u64);
        if offset < self.at || end > have {
            let left = usize::try_from(self.len.saturating_sub(offset)).unwrap_or(usize::MAX);
            let take = left.min(WINDOW.max(want.next_multiple_of(BLOCK)));
            self.bytes = if take == 0 {
                Vec::new()
            } else {
                let (bytes, lost) = read_lenient(self.pool, self.file, offset, take).await?;
                self.lost.extend(lost);
                bytes
            };
            self.at = offset;
        }
        let skip = usize::try_from(offset.saturating_sub(self.at)).unwrap_or(usize::MAX);
        Ok(self.bytes.get(skip..).unwrap_or_default())
    }
}

/// Scans `files`, which must follow each other, and hands every record with
/// an LSN above `after` to `visit`. Returns where the journal ends.
///
/// # Errors
/// [`Error::Corrupt`] with file and offset when a proven record's header is
/// bad or a file is missing.
pub(crate) async fn scan(
    pool: &Pool,
    files: &[JournalFile],
    after: u64,
    visit: &mut (dyn Visit + Send),
) -> Result<End> {
    check_order(files)?;
    // Only files that may hold a record above `after` are read.
    let first = files
        .windows(2)
        .take_while(
            |pair| matches!(pair, [_, next] if next.header.first_lsn <= after.saturating_add(1)),
        )
        .count();
    let mut end = None;
    for (index, file) in files.iter().enumerate().skip(first) {
        let stop = files
            .get(index.saturating_add(1))
            .map(|next| next.header.previous_end);
        let reached = scan_file(pool, file, stop, after, visit).await?;
        if let Some(next) = files.get(index.saturating_add(1)) {
            check_join(&reached, next)?;
        }
        end = Some(reached);
    }
    end.ok_or_else(|| Error::corrupt("the journal", "it has no file"))
}

/// Each file must name the one before it.
fn check_order(files: &[JournalFile]) -> Result<()> {
    for pair in files.windows(2) {
        let [before, after] = pair else { continue };
        if after.header.previous != before.header.sequence {
            return Err(Error::corrupt(
                format!(
                    "the journal between file {} and {}",
                    before.header.sequence, after.header.sequence
                ),
                format!("file {} is missing", after.header.previous),
            ));
        }
    }
    Ok(())
}

/// A file must go on exactly where the one before it ends.
fn check_join(end: &End, next: &JournalFile) -> Result<()> {
    let header = &next.header;
    if (header.first_lsn, header.first_group, header.chain)
        == (end.next_lsn, end.next_group, end.chain)
    {
        return Ok(());
    }
    Err(Error::corrupt(
        format!(
            "the journal between file {} and {}",
            end.sequence, header.sequence
        ),
        format!(
            "the first ends before LSN {} in group {}, the second begins with LSN {} in group {}",
            end.next_lsn, end.next_group, header.first_lsn, header.first_group
        ),
    ))
}

/// Scans one file up to `stop`, or to its torn or clean end.
async fn scan_file(
    pool: &Pool,
    file: &JournalFile,
    stop: Option<u32>,
    after: u64,
    visit: &mut (dyn Visit + Send),
) -> Result<End> {
    let volume = file.volume();
    let len = file.inline.len()?;
    let mut window = Window::new(pool, &file.inline, len);
    let mut end = End {
        sequence: file.header.sequence,
        offset: BLOCK as u32,
        next_lsn: file.header.first_lsn,
        next_group: file.header.first_group,
        chain: file.header.chain,
        torn: 0,
        last: (0, 0),
    };
    while u64::from(end.offset) < stop.map_or(len, u64::from) {
        let base = end.offset;
        let mut head = expected(&volume, window.at(u64::from(base), BLOCK).await?, &end);
        if head.is_none() {
            // Only what two reads say is believed: what is cut here is lost.
            window.forget();
            head = expected(&volume, window.at(u64::from(base), BLOCK).await?, &end);
        }
        let head = match head {
            Some(head) => head,
            None if stop.is_none() => return tail(&mut window, &volume, end).await,
            None => return Err(damage(file, base, "a group's header does not hold")),
        };
        let mut bytes = group(&mut window, base, &head).await?;
        let mut whole = is_whole(Entries::new(volume, &head, base, &bytes), u32::MAX);
        if !whole {
            window.forget();
            bytes = group(&mut window, base, &head).await?;
            whole = is_whole(Entries::new(volume, &head, base, &bytes), u32::MAX);
        }
        let next = u64::from(base).saturating_add(u64::from(head.bytes));
        // What a later file counts on was proven by it.
        let proven = stop.is_some()
            || whole
            || later(&mut window, &volume, head.number, next)
                .await?
                .is_some();
        if !proven {
            window.sure(base)?;
        }
        walk(file, &head, &bytes, proven, stop, after, &mut end, visit)?;
        if end.torn > 0 {
            return Ok(end);
        }
    }
    Ok(end)
}

/// The bytes of a group, or what the file has of them.
async fn group(window: &mut Window<'_>, base: u32, head: &Head) -> Result<Vec<u8>> {
    let bytes = window.at(u64::from(base), head.bytes as usize).await?;
    Ok(bytes.get(..head.bytes as usize).unwrap_or(bytes).to_vec())
}

/// Whether all records of a group that begin before `end` hold, with their
/// payload.
pub(crate) fn is_whole(mut entries: Entries<'_>, end: u32) -> bool {
    while entries.offset() < end {
        match entries.next() {
            None => return true,
            Some(Ok(entry)) if entry.payload_good => {}
            Some(_) => return false,
        }
    }
    true
}

/// The group header at the front of `bytes`, if it is the one that must come.
fn expected(volume: &Volume, bytes: &[u8], end: &End) -> Option<Head> {
    Head::decode(volume, bytes).ok().filter(|head| {
        head.number == end.next_group && head.chain == end.chain && head.lsn == end.next_lsn
    })
}

/// Offset of a valid group of this file's life with a higher number, if one
/// lies at `from` or behind. The whole rest of the file is searched, since
/// this decides whether anything was lost.
async fn later(
    window: &mut Window<'_>,
    volume: &Volume,
    number: u64,
    from: u64,
) -> Result<Option<u64>> {
    let mut offset = from;
    while offset < window.len {
        let block = window.at(offset, BLOCK).await?;
        if Head::decode(volume, block).is_ok_and(|head| head.number > number) {
            return Ok(Some(offset));
        }
        offset = offset.saturating_add(BLOCK as u64);
    }
    Ok(None)
}

/// Hands a group's records on and moves `end` behind it.
#[expect(
    clippy::too_many_arguments,
    reason = "one step of the scan, with all that the scan knows"
)]
fn walk(
    file: &JournalFile,
    head: &Head,
    bytes: &[u8],
    proven: bool,
    stop: Option<u32>,
    after: u64,
    end: &mut End,
    visit: &mut (dyn Visit + Send),
) -> Result<()> {
    let base = end.offset;
    let whole = base.saturating_add(head.bytes);
    end.last = (base, head.bytes);
    let mut entries = Entries::new(file.volume(), head, base, bytes);
    end.chain = head.crc;
    loop {
        let at = entries.offset();
        if stop.is_some_and(|stop| at >= stop) {
            break; // the rest of this group was cut by an earlier recovery
        }
        let entry = match entries.next() {
            None => break,
            Some(Ok(entry)) if proven || entry.payload_good => entry,
            Some(Err(_)) if proven => {
                return Err(damage(file, at, "a record's header does not hold"));
            }
            Some(_) => {
                end.torn = whole.saturating_sub(at);
                end.offset = at;
                end.next_group = head.number.saturating_add(1);
                return Ok(());
            }
        };
        if entry.lsn != end.next_lsn {
            return Err(damage(
                file,
                at,
                "a record has another LSN than the one that must come",
            ));
        }
        if entry.lsn > after {
            visit.record(&entry)?;
        }
        end.next_lsn = entry.lsn.saturating_add(1);
        end.chain = entries.last_crc();
    }
    end.offset = stop.map_or(whole, |stop| whole.min(stop.next_multiple_of(BLOCK as u32)));
    end.next_group = head.number.saturating_add(1);
    Ok(())
}

/// The last file has no valid group at `end`: it ends there, unless a group of
/// its life follows further on.
async fn tail(window: &mut Window<'_>, volume: &Volume, end: End) -> Result<End> {
    match later(window, volume, end.next_group, u64::from(end.offset)).await? {
        None => window.sure(end.offset).map(|()| end),
        Some(offset) => Err(Error::corrupt(
            format!("journal file {} at offset {}", end.sequence, end.offset),
            format!("a group's header does not hold, yet a later group lies at {offset}"),
        )),
    }
}

fn damage(file: &JournalFile, offset: u32, reason: &str) -> Error {
    Error::corrupt(
        format!("journal file {} at offset {offset}", file.header.sequence),
        reason,
    )
}
