//! Links that a repository should have: those of blobs that come back, and
//! those that a note in the log gave it and none took.
//!
//! What no note speaks of is left alone: a manifest may name a blob of another
//! repository, and who can read the one may not read the other.

use std::collections::{BTreeMap, BTreeSet};

use orlop_format::digest::Digest;
use rusqlite::Connection;

use super::holder::{Holder, Holders};
use super::log::Log;
use super::names::{now, refused, unsynced};
use super::verbs::Verbs;
use super::{Site, aside};
use crate::catalog::blobs::{Blobs, Life};
use crate::catalog::database::{self, FILE, WAL};
use crate::catalog::note::Note;
use crate::finding::Finding;
use crate::trouble::Result;

/// Repositories and blobs that they should have.
pub(super) type Links = BTreeSet<(String, Digest)>;

/// What findings about references name.
pub(super) fn named(findings: &[&Finding]) -> Links {
    let link = |finding: &&Finding| {
        let repository = finding.object.affected.first()?.repository.clone();
        let digest = Digest::parse(finding.object.blob.as_deref()?).ok()?;
        Some((repository, digest))
    };
    findings.iter().filter_map(link).collect()
}

/// Which of these the notes behind an LSN gave and did not take again. The catalog
/// that lacks them says which repository has a name, and what of the notes about
/// repositories was done; one that cannot say it gets none.
pub(super) fn given(sql: &Connection, log: &Log, after: u64, wanted: &Links) -> Result<Links> {
    let Ok(live) = repositories(sql) else {
        return Ok(Links::new());
    };
    let rows: BTreeMap<&str, i64> = live
        .iter()
        .map(|(row, name)| (name.as_str(), *row))
        .collect();
    let mut holders = Holders::of(log, after, i64::MAX)?;
    for (row, end) in holders.ends() {
        let name = live.get(&row);
        let is_as_noted = match end.is_deleted {
            true => name.is_none(),
            false => name == Some(&end.name),
        };
        if !is_as_noted {
            holders.undo(row);
        }
    }
    let row_of = |lsn, name: &str| match holders.holder(lsn, name) {
        Holder::Row(row) => Some(row),
        Holder::Last => rows.get(name).copied(),
        Holder::Nobody => None,
    };
    let wanted: BTreeMap<(i64, Digest), &String> = wanted
        .iter()
        .filter_map(|(name, digest)| Some(((*rows.get(name.as_str())?, *digest), name)))
        .collect();
    let mut given = BTreeSet::new();
    log.notes(after, &mut |lsn, body| {
        match Note::decode(body) {
            Ok(Note::Link {
                repository, digest, ..
            }) => {
                let link = row_of(lsn, &repository).map(|row| (row, digest));
                given.extend(link.filter(|link| wanted.contains_key(link)));
            }
            Ok(Note::Unlink { repository, digest }) => {
                if let Some(row) = row_of(lsn, &repository) {
                    given.remove(&(row, digest));
                }
            }
            Ok(Note::PurgeBlob { digest, row, .. }) if !holders.is_void(lsn) => {
                given.remove(&(row, digest));
            }
            Ok(_) | Err(_) => {}
        }
        Ok(())
    })?;
    let link = |(link, name): (&(i64, Digest), &&String)| {
        given.contains(link).then(|| ((*name).clone(), link.1))
    };
    Ok(wanted.iter().filter_map(link).collect())
}

/// The repositories that are not deleted, by their rows.
fn repositories(sql: &Connection) -> rusqlite::Result<BTreeMap<i64, String>> {
    sql.prepare("SELECT id, name FROM repository WHERE deleted_at IS NULL")?
        .query_map((), |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect()
}

/// Makes a catalog in repair's own folder that has these links as well, of the
/// one that is there. How many were added.
pub(super) fn make(site: Site<'_>, log: &Log, links: &Links) -> Result<u64> {
    let to = site.own.join(FILE);
    database::copy_file(&site.folder.join(FILE), &to)?;
    database::copy_file(&site.folder.join(WAL), &site.own.join(WAL))?;
    let mut live = Vec::new();
    for (repository, digest) in links {
        if let Some(blob) = log.find(digest)?.filter(|blob| blob.life == Life::Live) {
            live.push((repository, digest, blob.size));
        }
    }
    let add = || -> rusqlite::Result<u64> {
        let sql: Connection = database::open(&to)?;
        // Takes in what is in the write-ahead file, which goes.
        sql.execute_batch("PRAGMA journal_mode = DELETE")?;
        unsynced(&sql)?;
        sql.execute_batch("BEGIN")?;
        let mut verbs = Verbs::new(&sql, 0, now())?;
        let mut added = 0u64;
        for (repository, digest, size) in live {
            let row = verbs.ensure(repository, Holder::Last, &Holders::default())?;
            if let Some(row) = row {
                added = added.saturating_add(u64::from(verbs.link(row, digest, size)?));
            }
        }
        verbs.close()?;
        sql.execute_batch("COMMIT")?;
        sql.close().map_err(|(_, error)| error)?;
        Ok(added)
    };
    add().map_err(refused)
}

/// What goes when such a catalog comes.
pub(super) fn replaced() -> Vec<aside::Moved> {
    super::catalog_files("links were added to a copy of the catalog")
}
