//! What the log says, as repair needs it: blobs, notes, copies of the catalog,
//! and where the journal ends.
//!
//! Made anew from segments and journal, in a scratch database, so that memory
//! stays bounded. The order is that of a rebuild: records of small and meta
//! segments up to the recycled LSN, by LSN, then the journal. Invariant: a log
//! that does not hold gives an error and no answer; nothing is repaired by
//! guesses about what was in it. Small and meta segments that it speaks of and
//! that are not there are told by [`Log::lost`]: what was in them is missing
//! from all else that it says.

use std::collections::BTreeSet;
use std::path::Path;

use orlop_format::codec::{Reader as Fields, Writer};
use orlop_format::group::{Entries, Entry, Head, Volume};
use orlop_format::location::{Class, Home, Place, SegmentId};
use orlop_format::record::{Kind, Record};
use orlop_format::superblock::Superblock;
use orlop_format::{BLOCK, Malformed, journal, segment};
use rusqlite::{Connection, OptionalExtension as _};

use super::table::number;
use crate::file::{Source, Window, names};
use crate::journal::untouched;
use crate::scratch::Scratch;
use crate::trouble::{Result, Trouble};

const TABLES: &str = "
    CREATE TABLE record (lsn INTEGER, bad INTEGER, kind INTEGER, place BLOB, body BLOB,
        PRIMARY KEY (lsn, bad)) WITHOUT ROWID;
    CREATE TABLE blob (sha256 BLOB PRIMARY KEY, life INTEGER, birth INTEGER, size INTEGER,
        internal INTEGER, at BLOB) WITHOUT ROWID;
    CREATE TABLE alias (digest BLOB PRIMARY KEY, sha256 BLOB) WITHOUT ROWID;
    CREATE TABLE note (lsn INTEGER PRIMARY KEY, body BLOB);
    CREATE TABLE copy (lsn INTEGER PRIMARY KEY, sha256 BLOB, catalog BLOB, sequence INTEGER);
";

/// Where the journal ends: what the next file's header has to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct End {
    /// The last file.
    pub(crate) sequence: u64,
    /// Its length, pre-written part included.
    pub(crate) len: u64,
    /// Behind the last record that holds.
    pub(crate) offset: u32,
    pub(crate) next_lsn: u64,
    pub(crate) next_group: u64,
    pub(crate) chain: u32,
}

/// The log, read.
#[derive(Debug)]
pub(crate) struct Log {
    pub(super) sql: Connection,
    _scratch: tempfile::TempDir,
    /// `None` for a store that has no journal yet.
    pub(crate) end: Option<End>,
    /// Number that the next blob gets.
    pub(crate) next_ordinal: u64,
    /// Id that the next segment gets: above those of all files, and of all that
    /// the log speaks of, so that a lost file can be put back.
    pub(crate) next_segment: u64,
    /// Small and meta segments that the log speaks of.
    pub(super) named: BTreeSet<SegmentId>,
    /// Small and meta segments that were read.
    there: BTreeSet<SegmentId>,
    /// Segments that were given back.
    pub(super) removed: BTreeSet<SegmentId>,
    /// LSN up to which the journal was recycled.
    pub(crate) recycled: u64,
}

pub(super) fn sql(error: rusqlite::Error) -> Trouble {
    Trouble::Refused(format!("the scratch database cannot be used: {error}"))
}

fn broken(object: impl std::fmt::Display, reason: impl std::fmt::Display) -> Trouble {
    Trouble::Refused(format!(
        "the log does not hold, so nothing can be made from it: {object}: {reason}; restore the store from a backup"
    ))
}

impl Log {
    /// Reads the log of the store in `folder`.
    pub(crate) fn read(folder: &Path, scratch: &Scratch, slot: &Superblock) -> Result<Self> {
        let place = scratch.folder()?;
        let connection = Connection::open(place.path().join("log.db")).map_err(sql)?;
        connection
            .execute_batch(
                "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -65536;",
            )
            .map_err(sql)?;
        connection.execute_batch(TABLES).map_err(sql)?;
        let mut log = Self {
            sql: connection,
            _scratch: place,
            end: None,
            next_ordinal: 0,
            next_segment: 1,
            named: BTreeSet::new(),
            there: BTreeSet::new(),
            removed: BTreeSet::new(),
            recycled: slot.recycled,
        };
        log.sql.execute_batch("BEGIN").map_err(sql)?;
        log.segments(folder, slot)?;
        log.apply_segments(slot.recycled)?;
        log.journal(folder, slot)?;
        log.sql.execute_batch("COMMIT").map_err(sql)?;
        Ok(log)
    }

    /// Small and meta segments without a file that were not given back. Their
    /// records are not in here.
    pub(crate) fn lost(&self) -> impl Iterator<Item = &SegmentId> {
        let gone = self.named.difference(&self.there);
        gone.filter(|id| !self.removed.contains(id))
    }

    /// Keeps the ids of segments up to this one, and numbers of blobs below
    /// that one, from being given out again.
    pub(crate) fn reserve(&mut self, segment: u64, ordinal: u64) {
        self.next_segment = self.next_segment.max(segment.saturating_add(1));
        self.next_ordinal = self.next_ordinal.max(ordinal);
    }

    fn segments(&mut self, folder: &Path, slot: &Superblock) -> Result<()> {
        for class in Class::ALL {
            let below = format!("data/{}", class.folder());
            for name in names(&folder.join(&below))? {
                let Some((id, generation)) = segment::parse_name(&name) else {
                    continue;
                };
                self.reserve(id, 0);
                if !matches!(class, Class::Small | Class::Meta) {
                    continue;
                }
                let id = SegmentId {
                    volume: 0,
                    class,
                    generation,
                    id,
                };
                if let Some(source) = Source::open(folder, &format!("{below}/{name}"))? {
                    self.segment(&source, &id, slot)?;
                    self.there.insert(id);
                }
            }
        }
        Ok(())
    }

    fn segment(&mut self, source: &Source, id: &SegmentId, slot: &Superblock) -> Result<()> {
        let path = source.path().display();
        let header =
            segment::FileHeader::decode(&source.block(0)?).map_err(|error| broken(&path, error))?;
        if header.store != slot.store || header.segment != *id {
            return Err(broken(&path, "its header is another segment's"));
        }
        let volume = Volume {
            home: Home::Segment(*id),
            salt: header.salt,
        };
        let mut offset = BLOCK as u64;
        while offset < source.len() {
            let Ok(head) = Head::decode(&volume, &source.block(offset)?) else {
                break; // the footer, which the check looks at
            };
            let bytes = source.read(offset, u64::from(head.bytes))?;
            let base = u32::try_from(offset).unwrap_or(u32::MAX);
            for entry in Entries::new(volume, &head, base, &bytes) {
                let entry = entry.map_err(|error| broken(&path, error))?;
                self.collect(&entry)?;
            }
            offset = offset.saturating_add(u64::from(head.bytes));
        }
        Ok(())
    }

    fn collect(&self, entry: &Entry<'_>) -> Result<()> {
        let mut place = Writer::new();
        entry.place.encode(&mut place);
        self.sql
            .prepare_cached("INSERT OR IGNORE INTO record VALUES (?1, ?2, ?3, ?4, ?5)")
            .and_then(|mut insert| {
                insert.execute((
                    number(entry.lsn),
                    // An abandon may stand for a commit, and counts behind it.
                    entry.kind == Kind::Abandon || !entry.payload_good,
                    entry.kind.code(),
                    place.as_slice(),
                    entry.body,
                ))
            })
            .map_err(sql)?;
        Ok(())
    }

    /// Of two copies of one record the good one counts.
    fn apply_segments(&mut self, recycled: u64) -> Result<()> {
        let mut after = -1i64;
        loop {
            let next = self
                .sql
                .prepare_cached(
                    "SELECT lsn, bad, kind, place, body FROM record WHERE lsn > ?1 AND lsn <= ?2 \
                     ORDER BY lsn, bad LIMIT 1",
                )
                .and_then(|mut select| {
                    select
                        .query_row((after, number(recycled)), |row| {
                            Ok((
                                row.get::<_, i64>(0)?,
                                row.get::<_, bool>(1)?,
                                row.get::<_, u8>(2)?,
                                row.get::<_, Vec<u8>>(3)?,
                                row.get::<_, Vec<u8>>(4)?,
                            ))
                        })
                        .optional()
                })
                .map_err(sql)?;
            let Some((lsn, bad, kind, place, body)) = next else {
                return Ok(());
            };
            after = lsn;
            let parsed = Kind::from_code(kind).and_then(|kind| {
                let place = Place::decode(&mut Fields::new(&place))?;
                Ok((Record::decode(kind, &body)?, place))
            });
            let (record, place) = parsed.map_err(|error| unread(lsn.unsigned_abs(), error))?;
            self.apply(lsn.unsigned_abs(), record, &place, !bad)?;
        }
    }

    fn journal(&mut self, folder: &Path, slot: &Superblock) -> Result<()> {
        let mut files = Vec::new();
        for name in names(&folder.join("journal"))? {
            let Some(sequence) = journal::parse_name(&name).filter(|s| *s >= slot.journal) else {
                continue;
            };
            let Some(source) = Source::open(folder, &format!("journal/{name}"))? else {
                continue;
            };
            let block = source.block(0)?;
            match journal::FileHeader::decode(&block) {
                Ok(header) if header.store == slot.store && header.sequence == sequence => {
                    files.push((source, header));
                }
                Ok(header) if header.store == slot.store && header.sequence < sequence => {}
                Err(_) if untouched(&source, &block)? => {}
                Err(Malformed::Newer(what)) => return Err(Trouble::Newer(what.to_owned())),
                _ => return Err(broken(source.path().display(), "its header does not hold")),
            }
        }
        files.sort_by_key(|(_, header)| header.sequence);
        match files.first() {
            Some((_, first)) if first.first_lsn > slot.recycled.saturating_add(1) => {
                return Err(broken("the journal", "its first files are missing"));
            }
            None if slot.journal > 0 => return Err(broken("the journal", "it has no file")),
            _ => {}
        }
        for (at, (source, header)) in files.iter().enumerate() {
            let next = files.get(at.saturating_add(1)).map(|(_, header)| header);
            let end = self.file(source, header, next.map(|next| next.previous_end))?;
            let joins = next.is_none_or(|next| {
                (next.previous, next.first_lsn, next.first_group, next.chain)
                    == (end.sequence, end.next_lsn, end.next_group, end.chain)
            });
            if !joins {
                return Err(broken(
                    source.path().display(),
                    "the file behind it does not follow",
                ));
            }
            self.end = Some(end);
        }
        Ok(())
    }

    /// Takes the records of one file up to `stop`, or to its torn or clean end.
    fn file(
        &mut self,
        source: &Source,
        header: &journal::FileHeader,
        stop: Option<u32>,
    ) -> Result<End> {
        let volume = Volume {
            home: Home::Journal(header.sequence),
            salt: header.salt,
        };
        let mut end = End {
            sequence: header.sequence,
            len: source.len(),
            offset: BLOCK as u32,
            next_lsn: header.first_lsn,
            next_group: header.first_group,
            chain: header.chain,
        };
        let limit = stop.map_or(source.len(), u64::from);
        while u64::from(end.offset) < limit {
            let base = end.offset;
            let fits = |head: &Head| {
                (head.number, head.chain, head.lsn) == (end.next_group, end.chain, end.next_lsn)
            };
            let head = Head::decode(&volume, &source.block(u64::from(base))?)
                .ok()
                .filter(fits);
            let Some(head) = head else {
                if stop.is_none() && later(source, &volume, end.next_group, base)?.is_none() {
                    return Ok(end);
                }
                let at = format!("{} at {base}", source.path().display());
                return Err(broken(at, "a group's header does not hold"));
            };
            let bytes = source.read(u64::from(base), u64::from(head.bytes))?;
            let behind = base.saturating_add(head.bytes);
            let whole = Entries::new(volume, &head, base, &bytes)
                .all(|entry| entry.is_ok_and(|entry| entry.payload_good));
            let proven = stop.is_some()
                || whole
                || later(source, &volume, head.number.saturating_add(1), behind)?.is_some();
            let mut entries = Entries::new(volume, &head, base, &bytes);
            end.chain = head.crc;
            end.next_group = head.number.saturating_add(1);
            loop {
                let at = entries.offset();
                if stop.is_some_and(|stop| at >= stop) {
                    break;
                }
                match entries.next() {
                    None => break,
                    Some(Ok(entry)) if proven || entry.payload_good => {
                        let record = entry.record().map_err(|error| unread(entry.lsn, error))?;
                        if entry.lsn > self.recycled {
                            self.apply(entry.lsn, record, &entry.place, entry.payload_good)?;
                        }
                        end.next_lsn = entry.lsn.saturating_add(1);
                        end.chain = entries.last_crc();
                    }
                    Some(Err(error)) if proven => {
                        return Err(broken(
                            format_args!("{} at {at}", source.path().display()),
                            error,
                        ));
                    }
                    // A torn tail.
                    Some(_) => {
                        end.offset = at;
                        return Ok(end);
                    }
                }
            }
            end.offset = stop.map_or(behind, |stop| {
                behind.min(stop.next_multiple_of(BLOCK as u32))
            });
        }
        Ok(end)
    }
}

fn unread(lsn: u64, error: Malformed) -> Trouble {
    let record = format!("the record with LSN {lsn}");
    match error {
        Malformed::Newer(_) => Trouble::Newer(record),
        error => broken(record, error),
    }
}

/// Offset of a valid group of this file's life with a number of at least
/// `number`, at `from` or behind.
fn later(source: &Source, volume: &Volume, number: u64, from: u32) -> Result<Option<u64>> {
    let found = Window::new(source).search(u64::from(from), source.len(), |block| {
        Head::decode(volume, block)
            .ok()
            .filter(|head| head.number >= number)
    })?;
    Ok(found.map(|(at, _)| at))
}
