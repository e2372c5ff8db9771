//! The log's scratch database: what a record does to it, and what is asked of
//! it.
//!
//! A record that was applied before, or is older than what is there, changes
//! nothing. Uploads are left out: repair does not go on with any.

use orlop_format::codec::{Reader as Fields, Writer};
use orlop_format::digest::{Algorithm, Digest};
use orlop_format::location::{Class, Home, Place, SegmentId, decode_extents, encode_extents};
use orlop_format::record::{Moved, Record};
use orlop_format::row;
use rusqlite::OptionalExtension as _;

use super::log::{Log, sql};
use crate::catalog::blobs::{At, Blobs, Known, Life};
use crate::trouble::Result;

const NOTE: &str = "INSERT OR REPLACE INTO note VALUES (?1, ?2)";
const ALIAS: &str = "INSERT OR REPLACE INTO alias VALUES (?1, ?2)";

/// A copy of the catalog in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Copy {
    pub(crate) lsn: u64,
    pub(crate) sha256: [u8; 32],
    pub(crate) catalog: [u8; 16],
    pub(crate) sequence: u64,
}

impl Log {
    /// Takes a record; `good` says whether its payload holds.
    pub(super) fn apply(
        &mut self,
        lsn: u64,
        record: Record,
        place: &Place,
        good: bool,
    ) -> Result<()> {
        self.speaks_of(&record);
        let run = |text: &str, values: &[&dyn rusqlite::ToSql]| {
            self.sql
                .prepare_cached(text)
                .and_then(|mut statement| statement.execute(values))
                .map_err(sql)
        };
        match record {
            Record::Commit(commit) => {
                if !commit.note.is_empty() {
                    run(NOTE, &[&number(lsn), &commit.note])?;
                }
                self.next_ordinal = self.next_ordinal.max(commit.ordinal.saturating_add(1));
                let inline = commit.extents.is_empty();
                let whole = good && (!inline || u64::from(place.payload) == commit.size);
                let at = if inline {
                    At::Record(*place)
                } else {
                    At::Extents(commit.extents)
                };
                let life = if whole { Life::Live } else { Life::Quarantined };
                let changed = run(
                    "INSERT INTO blob VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT DO UPDATE SET \
                     life = excluded.life, birth = excluded.birth, size = excluded.size, \
                     internal = excluded.internal, at = excluded.at WHERE birth < excluded.birth",
                    &[
                        &commit.sha256,
                        &(life as u8),
                        &number(lsn),
                        &number(commit.size),
                        &commit.internal,
                        &encode(&at),
                    ],
                )?;
                for alias in commit.aliases.iter().filter(|_| changed > 0) {
                    run(ALIAS, &[&alias.encode(), &commit.sha256])?;
                }
            }
            Record::Alias { sha256, alias } => {
                run(ALIAS, &[&alias.encode(), &sha256])?;
            }
            Record::Tombstone { sha256, birth } => {
                run(
                    "INSERT INTO blob VALUES (?1, ?2, ?3, 0, 0, ?4) ON CONFLICT DO UPDATE SET \
                     life = excluded.life, birth = excluded.birth, size = 0, at = excluded.at \
                     WHERE birth <= ?5",
                    &[
                        &sha256,
                        &(Life::Dead as u8),
                        &number(lsn),
                        &encode(&At::Extents(Vec::new())),
                        &number(birth),
                    ],
                )?;
            }
            Record::Quarantine { sha256, birth } => {
                run(
                    "UPDATE blob SET life = ?3 WHERE sha256 = ?1 AND birth = ?2 AND life = ?4",
                    &[
                        &sha256,
                        &number(birth),
                        &(Life::Quarantined as u8),
                        &(Life::Live as u8),
                    ],
                )?;
            }
            Record::Move(moves) => {
                for item in moves {
                    if let Moved::Blob(sha256, birth) = item.what {
                        run(
                            "UPDATE blob SET at = ?4 WHERE sha256 = ?1 AND birth = ?2 AND at = ?3",
                            &[
                                &sha256,
                                &number(birth),
                                &encode(&At::Record(item.from)),
                                &encode(&At::Record(item.to)),
                            ],
                        )?;
                    }
                }
            }
            Record::Remap {
                sha256,
                birth,
                extents,
            } => {
                let at: Option<Vec<u8>> = self
                    .sql
                    .prepare_cached("SELECT at FROM blob WHERE sha256 = ?1 AND birth = ?2")
                    .and_then(|mut select| {
                        let keys = (sha256, number(birth));
                        select.query_row(keys, |row| row.get(0)).optional()
                    })
                    .map_err(sql)?;
                if let Some(At::Extents(mut has)) = at.as_deref().and_then(decode) {
                    row::remap(&mut has, &extents);
                    run(
                        "UPDATE blob SET at = ?3 WHERE sha256 = ?1 AND birth = ?2",
                        &[&sha256, &number(birth), &encode(&At::Extents(has))],
                    )?;
                }
            }
            Record::Note(note) => {
                run(NOTE, &[&number(lsn), &note])?;
            }
            Record::Copy {
                sha256,
                catalog,
                sequence,
            } => {
                run(
                    "INSERT OR REPLACE INTO copy VALUES (?1, ?2, ?3, ?4)",
                    &[&number(lsn), &sha256, &catalog, &number(sequence)],
                )?;
            }
            Record::Remove { segment } => {
                self.reserve(segment.id, 0);
                self.removed.insert(segment);
            }
            Record::Open { .. }
            | Record::Punch { .. }
            | Record::Checkpoint(_)
            | Record::Abandon { .. }
            | Record::Seal { .. }
            | Record::Mark { .. } => {}
        }
        Ok(())
    }

    /// Remembers the segments that a record speaks of.
    fn speaks_of(&mut self, record: &Record) {
        let mut one = |id: &SegmentId| {
            self.reserve(id.id, 0);
            if matches!(id.class, Class::Small | Class::Meta) {
                self.named.insert(*id);
            }
        };
        match record {
            Record::Seal { segment, .. } => one(segment),
            Record::Move(moves) => {
                for home in moves.iter().flat_map(|item| [item.from.home, item.to.home]) {
                    if let Home::Segment(id) = home {
                        one(&id);
                    }
                }
            }
            Record::Remap { extents, .. } => extents.iter().for_each(|(_, to)| one(&to.segment)),
            Record::Commit(commit) => commit.extents.iter().for_each(|at| one(&at.segment)),
            Record::Checkpoint(checkpoint) => {
                checkpoint.extents.iter().for_each(|at| one(&at.segment));
            }
            _ => {}
        }
    }

    /// The copies of the catalog, the newest first.
    pub(crate) fn copies(&self) -> Result<Vec<Copy>> {
        let rows = self
            .sql
            .prepare("SELECT lsn, sha256, catalog, sequence FROM copy ORDER BY lsn DESC")
            .and_then(|mut select| {
                select
                    .query_map((), |row| {
                        Ok(Copy {
                            lsn: row.get::<_, i64>(0)?.unsigned_abs(),
                            sha256: row.get(1)?,
                            catalog: row.get(2)?,
                            sequence: row.get::<_, i64>(3)?.unsigned_abs(),
                        })
                    })?
                    .collect()
            });
        rows.map_err(sql)
    }

    /// Hands over the notes with an LSN above `after`, in order.
    pub(crate) fn notes(
        &self,
        after: u64,
        take: &mut dyn FnMut(u64, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let mut select = self
            .sql
            .prepare("SELECT lsn, body FROM note WHERE lsn > ?1 ORDER BY lsn")
            .map_err(sql)?;
        let mut rows = select.query((number(after),)).map_err(sql)?;
        while let Some(row) = rows.next().map_err(sql)? {
            let lsn: i64 = row.get(0).map_err(sql)?;
            let body: Vec<u8> = row.get(1).map_err(sql)?;
            take(lsn.unsigned_abs(), &body)?;
        }
        Ok(())
    }

    /// The blobs in quarantine that clients pushed, in order of their digests.
    pub(crate) fn quarantined(&self) -> Result<Vec<Digest>> {
        let rows: rusqlite::Result<Vec<[u8; 32]>> = self
            .sql
            .prepare("SELECT sha256 FROM blob WHERE life = ?1 AND NOT internal ORDER BY sha256")
            .and_then(|mut select| {
                select
                    .query_map((Life::Quarantined as u8,), |row| row.get(0))?
                    .collect()
            });
        Ok(rows
            .map_err(sql)?
            .iter()
            .filter_map(|sha256| Digest::new(Algorithm::Sha256, sha256).ok())
            .collect())
    }
}

impl Blobs for Log {
    fn find(&self, digest: &Digest) -> Result<Option<Known>> {
        let text = "SELECT sha256, life, birth, size, internal, at FROM blob WHERE sha256 = ?1";
        let by_alias = "SELECT b.sha256, life, birth, size, internal, at FROM alias a \
            JOIN blob b ON b.sha256 = a.sha256 WHERE a.digest = ?1";
        let (text, key) = match digest.algorithm() {
            Algorithm::Sha256 => (text, digest.bytes().to_vec()),
            _ => (by_alias, digest.encode()),
        };
        let row = self
            .sql
            .prepare_cached(text)
            .and_then(|mut select| {
                select
                    .query_row((key,), |row| {
                        Ok((
                            row.get(0)?,
                            row.get::<_, u8>(1)?,
                            row.get::<_, i64>(2)?,
                            row.get::<_, i64>(3)?,
                            row.get::<_, bool>(4)?,
                            row.get::<_, Vec<u8>>(5)?,
                        ))
                    })
                    .optional()
            })
            .map_err(sql)?;
        Ok(row.and_then(|(sha256, life, birth, size, internal, at)| {
            Some(Known {
                sha256,
                life: match life {
                    0 => Life::Live,
                    1 => Life::Quarantined,
                    _ => Life::Dead,
                },
                birth: birth.unsigned_abs(),
                size: size.unsigned_abs(),
                internal,
                at: decode(&at)?,
            })
        }))
    }
}

/// SQLite's numbers have a sign; those of the log never come near it.
pub(super) fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn encode(at: &At) -> Vec<u8> {
    let mut w = Writer::new();
    match at {
        At::Record(place) => {
            w.u8(1);
            place.encode(&mut w);
        }
        At::Extents(extents) => {
            w.u8(2);
            encode_extents(extents, &mut w);
        }
    }
    w.finish()
}

fn decode(bytes: &[u8]) -> Option<At> {
    let mut fields = Fields::new(bytes);
    match fields.u8().ok()? {
        1 => Place::decode(&mut fields).ok().map(At::Record),
        _ => decode_extents(&mut fields).ok().map(At::Extents),
    }
}
