//! A catalog made again: the newest copy of it in the store, and the notes
//! after that.
//!
//! Notes may be applied again to a state that has them already: the last one
//! about a name decides, and that of a repository's row. So they are taken from
//! the copy before the one that it begins with, since what was noted while a copy
//! was made may or may not be in it. What was noted before that is not taken: the
//! copy says what was done of it, and a kill may have kept some from being done.
//! Of notes that recycling may have dropped none is taken: a push without its
//! delete would bring a name back. What is missing thereby is told, and what is
//! in doubt (`doubt`).

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use orlop_format::digest::{Algorithm, Digest};
use orlop_format::superblock::Superblock;
use rusqlite::Connection;

use super::doubt::Reach;
use super::fill::fill;
use super::log::Log;
use super::table::Copy;
use crate::catalog::blobs::{Blobs, Life, Reader};
use crate::catalog::database::{self, SCHEMA};
use crate::catalog::tables;
use crate::file::trouble;
use crate::trouble::{Result, Trouble};

/// Numbers of changes that are left out behind the last one that is known:
/// the lost catalog may have given some of them to changes that nobody told
/// the store of.
const LEAP: u64 = 1 << 20;

/// What a catalog will be made from.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    /// The copies that may serve, the newest first.
    copies: Vec<Usable>,
    /// All notes behind this LSN are in the log, and are taken.
    after: u64,
    id: [u8; 16],
}

/// A copy of the catalog to begin with.
#[derive(Debug, Clone)]
struct Usable {
    copy: Copy,
    /// It has all notes up to this LSN, at least.
    has: u64,
}

/// What was made.
#[derive(Debug, Default)]
pub(crate) struct Made {
    /// The sequence of the copy it began with, if it began with one.
    pub(crate) copy: Option<u64>,
    /// Notes that were applied.
    pub(crate) notes: u64,
    /// What could not be made again.
    pub(crate) lost: Vec<String>,
}

impl Origin {
    /// Looks what there is.
    pub(crate) fn of(log: &Log, slot: &Superblock) -> Result<Self> {
        let all = log.copies()?;
        let after = match all.get(1) {
            Some(older) => older.lsn.min(log.recycled),
            None => 0,
        };
        let id = match (slot.catalog, all.first()) {
            ([0, ..], Some(copy)) if slot.catalog == [0; 16] => copy.catalog,
            ([0, ..], None) if slot.catalog == [0; 16] => random()?,
            (known, _) => known,
        };
        let before = all.iter().skip(1).map(|copy| copy.lsn).chain([0]);
        let copies = all
            .iter()
            .zip(before)
            .filter(|(copy, _)| copy.catalog == id)
            .map(|(copy, has)| Usable {
                copy: copy.clone(),
                has,
            })
            .collect();
        Ok(Self { copies, after, id })
    }

    /// All notes behind this LSN are in the log.
    pub(crate) fn after(&self) -> u64 {
        self.after
    }

    /// As it is printed in a plan.
    pub(crate) fn say(&self) -> String {
        let notes = match self.after {
            0 => "all notes in the log".to_owned(),
            after => format!("the notes behind LSN {after}"),
        };
        match self.copies.first() {
            Some(Usable { copy, .. }) => {
                format!("from its copy at change {} and {notes}", copy.sequence)
            }
            None => format!("from {notes}; there is no copy of it"),
        }
    }

    /// Makes the catalog in the file `to`, which must not be there.
    pub(crate) fn make(
        &self,
        folder: &Path,
        log: &Log,
        slot: &Superblock,
        to: &Path,
    ) -> Result<Made> {
        let reader = Reader::new(folder);
        let mut made = Made::default();
        let mut begun = None;
        for usable in &self.copies {
            let copy = &usable.copy;
            match begin(copy, log, &reader, to)? {
                Ok(connection) => {
                    made.copy = Some(copy.sequence);
                    let (has, until) = (usable.has, copy.lsn);
                    begun = Some((connection, Reach { has, until }));
                    break;
                }
                Err(reason) => made.lost.push(format!(
                    "the copy of the catalog at change {} cannot be used: {reason}",
                    copy.sequence
                )),
            }
        }
        let (sql, reach) = match begun {
            Some(begun) => begun,
            None => (empty(to, self.id).map_err(refused)?, Reach::default()),
        };
        if reach.has < self.after {
            let from = match made.copy {
                Some(sequence) => format!("after its copy at change {sequence}"),
                None => "since the store was made".to_owned(),
            };
            made.lost.push(format!(
                "names that were given, moved or removed {from} and before LSN {}, and not since: those notes were let go when newer copies had them",
                self.after
            ));
        }
        let floor = slot.catalog_sequence.saturating_add(LEAP);
        fill(&sql, (self.after, reach), floor, log, &reader, &mut made)?;
        hold(&sql, made.lost.len())?;
        finish(sql)?;
        Ok(made)
    }
}

/// A catalog that lacks names must not make garbage of what they named: the
/// server collects nothing until an operator says that it is right.
fn hold(sql: &Connection, lost: usize) -> Result<()> {
    let why = (lost > 0)
        .then_some("the catalog was made again by orlop-fsck, and names may be missing from it");
    sql.execute("UPDATE catalog SET gc_hold = COALESCE(?1, gc_hold)", (why,))
        .map(drop)
        .map_err(refused)
}

fn random() -> Result<[u8; 16]> {
    let mut id = [0; 16];
    getrandom::fill(&mut id)
        .map_err(|error| Trouble::Refused(format!("cannot make an id for the catalog: {error}")))?;
    Ok(id)
}

pub(super) fn refused(error: rusqlite::Error) -> Trouble {
    Trouble::Refused(format!("the catalog cannot be made: {error}"))
}

/// Writes a copy of the catalog to a file and opens it; the text says why it
/// cannot be used.
fn begin(
    copy: &Copy,
    log: &Log,
    reader: &Reader,
    to: &Path,
) -> Result<std::result::Result<Connection, String>> {
    let digest = Digest::new(Algorithm::Sha256, &copy.sha256)
        .map_err(|error| Trouble::Refused(error.to_string()))?;
    let blob = match log.find(&digest)? {
        Some(blob) if blob.life == Life::Live => blob,
        _ => return Ok(Err("it is in quarantine or not there".to_owned())),
    };
    let mut file = std::fs::File::create(to).map_err(trouble("make", to))?;
    let whole = reader.read(&blob, &mut |bytes| {
        std::io::Write::write_all(&mut file, bytes).map_err(trouble("write", to))
    })?;
    drop(file);
    if !whole {
        return Ok(Err("its bytes are damaged".to_owned()));
    }
    let opened = || -> rusqlite::Result<std::result::Result<Connection, String>> {
        let sql = database::open(to)?;
        unsynced(&sql)?;
        let identity = match database::identity(&sql)? {
            Ok(identity) => identity,
            Err(reason) => return Ok(Err(reason)),
        };
        if identity.needs > SCHEMA {
            return Ok(Err("a newer version wrote it".to_owned()));
        }
        if let Some(line) = database::integrity(&sql)?.into_iter().next() {
            return Ok(Err(line));
        }
        tables::upgrade(&sql, identity.schema)?;
        Ok(Ok(sql))
    };
    Ok(opened().unwrap_or_else(|error| Err(error.to_string())))
}

fn empty(to: &Path, id: [u8; 16]) -> rusqlite::Result<Connection> {
    let _ = std::fs::remove_file(to);
    let sql = Connection::open(to)?;
    unsynced(&sql)?;
    tables::create(&sql, id)?;
    Ok(sql)
}

/// The file is repair's own until it is done, and synced then.
pub(super) fn unsynced(sql: &Connection) -> rusqlite::Result<()> {
    sql.execute_batch("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;")
}

pub(super) fn now() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
        })
}

/// Checks what was made and closes it.
fn finish(sql: Connection) -> Result<()> {
    match database::integrity(&sql)
        .map_err(refused)?
        .into_iter()
        .next()
    {
        None => sql.close().map_err(|(_, error)| refused(error)),
        Some(line) => Err(Trouble::Refused(format!(
            "the catalog that was made does not hold: {line}; nothing was changed"
        ))),
    }
}
