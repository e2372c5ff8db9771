//! Notes applied to a copy of the catalog.
//!
//! Repositories come first, as all notes leave them; then each note in its order.
//! What the copy has is not done again. What cannot be made, and what is in doubt, is
//! told.

use std::collections::BTreeSet;

use orlop_format::digest::Digest;
use orlop_oci::MANIFEST_BYTES_MAX;
use rusqlite::Connection;

use super::doubt::{Doubt, Doubts, PURGED, Reach, STAYS, Thing};
use super::holder::Holders;
use super::log::Log;
use super::names::{Made, now, refused};
use super::verbs::Verbs;
use crate::catalog::blobs::{Blobs, Life, Reader};
use crate::catalog::manifest::{Rows, is_of};
use crate::catalog::note::{Note, Unread};
use crate::trouble::{Result, Trouble};

/// Names that could not be restored and are told; the rest is only counted.
const TOLD: usize = 100;

/// Applies the notes `after` an LSN to a catalog that is a copy which reaches so far.
pub(super) fn fill(
    sql: &Connection,
    (after, copy): (u64, Reach),
    floor: u64,
    log: &Log,
    reader: &Reader,
    made: &mut Made,
) -> Result<()> {
    sql.execute_batch("BEGIN").map_err(refused)?;
    let mut verbs = Verbs::new(sql, floor, now()).map_err(refused)?;
    let mut holders = Holders::of(log, after, verbs.known())?;
    let doubts = verbs.arrange(&mut holders, copy).map_err(refused)?;
    let mut filling = Filling {
        verbs,
        holders,
        log,
        reader,
        lost: BTreeSet::new(),
        doubts: Doubts::new(copy),
    };
    log.notes(after.max(copy.has), &mut |lsn, body| {
        let note = match Note::decode(body) {
            Ok(note) => note,
            Err(Unread::Newer) => {
                return Err(Trouble::Newer(format!("the note with LSN {lsn}")));
            }
            Err(Unread::Malformed) => {
                made.lost
                    .push(format!("the note with LSN {lsn}: it cannot be read"));
                return Ok(());
            }
        };
        made.notes = made.notes.saturating_add(1);
        filling.apply(lsn, note)
    })?;
    let unsure = filling.unsure(&doubts).map_err(refused)?;
    let Filling { verbs, lost, .. } = filling;
    let mut told = BTreeSet::new();
    for (row, digest) in lost {
        // Nobody misses what was deleted as a whole.
        if let Some(repository) = verbs.live(row).map_err(refused)? {
            told.insert((repository, digest.to_string()));
        }
    }
    verbs.finish().map_err(refused)?;
    sql.execute_batch("COMMIT").map_err(refused)?;
    let told = told.into_iter().map(|(repository, digest)| {
        format!("manifest {repository}@{digest} and its tags: its bytes are not in the store; restore them from a source, move catalog.db away and repair again")
    });
    tell(made, told.collect(), "manifests");
    tell(made, unsure, "names");
    Ok(())
}

/// Tells some of what is not as it should be, and how many more there are.
fn tell(made: &mut Made, lost: Vec<String>, what: &str) {
    let more = lost.len().saturating_sub(TOLD);
    made.lost.extend(lost.into_iter().take(TOLD));
    if more > 0 {
        made.lost.push(format!("{more} {what} more like these"));
    }
}

/// A catalog while notes are applied to it.
struct Filling<'a> {
    verbs: Verbs<'a>,
    holders: Holders,
    log: &'a Log,
    reader: &'a Reader,
    /// Manifests that were pushed and whose bytes are not here, by the row of
    /// their repository.
    lost: BTreeSet<(i64, Digest)>,
    doubts: Doubts,
}

impl Filling<'_> {
    /// What may have been done or not, as it is told.
    fn unsure(&mut self, repositories: &[(i64, Doubt)]) -> rusqlite::Result<Vec<String>> {
        let mut told = Vec::new();
        for (row, doubt) in repositories {
            if let Some((name, _)) = self.verbs.was(*row)? {
                told.push(format!("repository {name}: {}", doubt.says()));
            }
        }
        let doubts = std::mem::replace(&mut self.doubts, Doubts::new(Reach::default()));
        let (kept, purged) = doubts.end();
        for (things, says) in [(kept, STAYS), (purged, PURGED)] {
            for thing in things {
                let is_there = says == PURGED || self.verbs.shows(&thing)?;
                if let Some(name) = self.verbs.live(thing.row())?.filter(|_| is_there) {
                    told.push(format!("{}: {says}", thing.of(&name)));
                }
            }
        }
        Ok(told)
    }

    fn apply(&mut self, lsn: u64, note: Note) -> Result<()> {
        match note {
            Note::Manifest {
                repository,
                digest,
                media_type,
                tags,
            } => match self.ensure(lsn, &repository)? {
                Some(row) => self.put(lsn, (row, &digest), &media_type, &tags),
                None => Ok(()),
            },
            Note::Link {
                repository,
                digest,
                size,
            } => match self.ensure(lsn, &repository)? {
                Some(row) => {
                    self.gives(lsn, Thing::Link(row, digest))?;
                    let linked = self.verbs.link(row, &digest, size);
                    linked.map(drop).map_err(refused)
                }
                None => Ok(()),
            },
            Note::Untag { repository, tag } => {
                let row = self.find(lsn, &repository)?;
                match self.taken(lsn, row, |row| Thing::Tag(row, tag.clone()))? {
                    Some(row) => self.verbs.untag(row, &tag).map_err(refused),
                    None => Ok(()),
                }
            }
            Note::Delete { repository, digest } => match self.find(lsn, &repository)? {
                Some(row) => self.delete(lsn, row, &digest),
                None => Ok(()),
            },
            Note::Unlink { repository, digest } => {
                let row = self.find(lsn, &repository)?;
                match self.taken(lsn, row, |row| Thing::Link(row, digest))? {
                    Some(row) => self.verbs.unlink(row, &digest).map_err(refused),
                    None => Ok(()),
                }
            }
            Note::Purge { .. } | Note::PurgeBlob { .. } if self.holders.is_void(lsn) => Ok(()),
            Note::Purge { digest, row, .. } => {
                self.lost.remove(&(row, digest));
                self.goes(lsn, Thing::Manifest(row, digest))?;
                self.verbs.purge(row, &digest).map_err(refused)
            }
            Note::PurgeBlob { digest, row, .. } => {
                self.goes(lsn, Thing::Link(row, digest))?;
                self.verbs.purge_blob(row, &digest).map_err(refused)
            }
            // All of these are done.
            Note::Drop { .. } | Note::Restore { .. } | Note::Kept { .. } => Ok(()),
        }
    }

    fn delete(&mut self, lsn: u64, row: i64, digest: &Digest) -> Result<()> {
        self.lost.remove(&(row, *digest));
        let of = |row| Thing::Manifest(row, *digest);
        if self.taken(lsn, Some(row), of)?.is_some() {
            return self.verbs.delete(row, digest).map_err(refused);
        }
        for tag in self.verbs.tags(row, digest).map_err(refused)? {
            let of = |row| Thing::Tag(row, tag.clone());
            if self.taken(lsn, Some(row), of)?.is_some() {
                self.verbs.untag(row, &tag).map_err(refused)?;
            }
        }
        Ok(())
    }

    fn gives(&mut self, lsn: u64, thing: Thing) -> Result<()> {
        let is_shown = self.doubts.may_have(lsn) && self.verbs.shows(&thing).map_err(refused)?;
        self.doubts.give(lsn, thing, is_shown);
        Ok(())
    }

    /// The repository's row, if the thing is to be taken from it.
    fn taken(
        &mut self,
        lsn: u64,
        row: Option<i64>,
        thing: impl FnOnce(i64) -> Thing,
    ) -> Result<Option<i64>> {
        let Some(row) = row else { return Ok(None) };
        let thing = thing(row);
        let is_shown = self.doubts.may_have(lsn) && self.verbs.shows(&thing).map_err(refused)?;
        Ok(self.doubts.take(lsn, thing, is_shown).then_some(row))
    }

    fn goes(&mut self, lsn: u64, thing: Thing) -> Result<()> {
        let is_shown = self.doubts.may_have(lsn) && self.verbs.shows(&thing).map_err(refused)?;
        self.doubts.purge(lsn, thing, is_shown);
        Ok(())
    }

    fn find(&self, lsn: u64, name: &str) -> Result<Option<i64>> {
        let holder = self.holders.holder(lsn, name);
        self.verbs.repository(name, holder).map_err(refused)
    }

    fn ensure(&mut self, lsn: u64, name: &str) -> Result<Option<i64>> {
        let holder = self.holders.holder(lsn, name);
        let made = self.verbs.ensure(name, holder, &self.holders);
        made.map_err(refused)
    }

    fn put(
        &mut self,
        lsn: u64,
        (row, digest): (i64, &Digest),
        media_type: &str,
        tags: &[String],
    ) -> Result<()> {
        let known = self.verbs.has_manifest(row, digest).map_err(refused)?;
        let rows = match known {
            true => None,
            false => match rows(self.log, self.reader, digest, media_type)? {
                Ok(rows) => Some(rows),
                Err(_) => {
                    self.lost.insert((row, *digest));
                    return Ok(());
                }
            },
        };
        self.lost.remove(&(row, *digest));
        self.gives(lsn, Thing::Manifest(row, *digest))?;
        for tag in tags {
            self.gives(lsn, Thing::Tag(row, tag.clone()))?;
        }
        self.verbs
            .put_manifest(row, digest, rows.as_ref(), tags)
            .map_err(refused)
    }
}

/// A manifest's rows, from its bytes; the text says why there are none.
fn rows(
    log: &Log,
    reader: &Reader,
    digest: &Digest,
    media_type: &str,
) -> Result<std::result::Result<Rows, String>> {
    let blob = match log.find(digest)? {
        Some(blob) if blob.life == Life::Live => blob,
        _ => return Ok(Err("no such blob".to_owned())),
    };
    Ok(match reader.bytes(&blob, MANIFEST_BYTES_MAX as u64)? {
        Some(bytes) if is_of(&bytes, digest) => Rows::of(&bytes, media_type),
        _ => Err("damaged bytes".to_owned()),
    })
}
