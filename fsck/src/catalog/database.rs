//! A private copy of the catalog, opened with SQLite's own library.
//!
//! Invariants: the files of the store are only read; SQLite, which replays a
//! write-ahead file when it opens one, works on copies in a scratch folder
//! that goes away. What SQLite refuses to read is a finding, not trouble.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use orlop_format::digest::Digest;
use rusqlite::{Connection, OpenFlags, OptionalExtension as _};

use crate::finding::Affected;
use crate::scratch::Scratch;
use crate::trouble::{Result, Trouble};

/// The catalog in the data folder.
pub(crate) const FILE: &str = "catalog.db";
/// What SQLite may have beside it.
pub(crate) const WAL: &str = "catalog.db-wal";
/// SQLite's index of the write-ahead file, of no use to anyone else.
pub(crate) const SHM: &str = "catalog.db-shm";
/// Tells a catalog from other SQLite files: "ORLP".
pub(crate) const APPLICATION: i64 = 0x4f52_4c50;
/// The last migration that this version knows.
pub(crate) const SCHEMA: i64 = super::tables::MIGRATIONS.len() as i64;
/// Memory for pages, in KiB.
const CACHE_KIB: i64 = 16 * 1024;
/// Lines of SQLite's own check that are reported.
const LINES: usize = 20;
/// Tags of one manifest or repository that are named.
const TAGS: usize = 20;
/// Repositories and manifests that are named for one blob.
const HOLDERS: i64 = 100;

/// What the catalog says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) id: [u8; 16],
    pub(crate) sequence: u64,
    pub(crate) schema: i64,
    /// A reader must know this migration.
    pub(crate) needs: i64,
}

/// An open copy.
#[derive(Debug)]
pub(crate) struct Database {
    pub(crate) sql: Connection,
    _scratch: tempfile::TempDir,
}

impl Database {
    /// Copies the catalog and what is beside it to a scratch folder
    /// and opens the copy. `None` when there is none.
    pub(crate) fn copy(
        folder: &Path,
        scratch: &Scratch,
    ) -> Result<Option<std::result::Result<Self, rusqlite::Error>>> {
        let copies = scratch.folder()?;
        if !copy_file(&folder.join(FILE), &copies.path().join(FILE))? {
            return Ok(None);
        }
        copy_file(&folder.join(WAL), &copies.path().join(WAL))?;
        let opened = open(&copies.path().join(FILE)).map(|sql| Self {
            sql,
            _scratch: copies,
        });
        Ok(Some(opened))
    }

    /// What the catalog says of itself; the text says what is wrong with it.
    pub(crate) fn identity(&self) -> rusqlite::Result<std::result::Result<Identity, String>> {
        identity(&self.sql)
    }

    /// What SQLite's own checks find; empty when nothing.
    pub(crate) fn integrity(&self) -> rusqlite::Result<Vec<String>> {
        integrity(&self.sql)
    }

    /// Makes it cheap to ask which repositories have a manifest. The copy is
    /// private: an index may be added.
    pub(crate) fn index_manifests(&self) -> rusqlite::Result<()> {
        self.sql
            .execute_batch("CREATE INDEX IF NOT EXISTS fsck_manifest ON manifest (digest)")
    }

    /// Repositories that name a blob, with the tags that need it. Bounded.
    pub(crate) fn affected(&self, digest: &Digest) -> rusqlite::Result<Vec<Affected>> {
        self.index_manifests()?;
        self.sql
            .execute_batch("CREATE INDEX IF NOT EXISTS fsck_edge ON edge (digest)")?;
        let encoded = digest.encode();
        let mut select = self.sql.prepare_cached(
            "SELECT r.name, r.id, m.digest FROM manifest m JOIN repository r ON r.id = m.repository \
             WHERE m.digest = ?1 AND m.deleted_at IS NULL AND r.deleted_at IS NULL \
             UNION SELECT r.name, r.id, e.manifest FROM edge e \
             JOIN repository r ON r.id = e.repository \
             JOIN manifest m ON m.repository = e.repository AND m.digest = e.manifest \
             WHERE e.digest = ?1 AND m.deleted_at IS NULL AND r.deleted_at IS NULL \
             UNION SELECT r.name, r.id, NULL FROM link l JOIN repository r ON r.id = l.repository \
             WHERE l.digest = ?1 AND r.deleted_at IS NULL \
             ORDER BY 1 LIMIT ?2",
        )?;
        let mut found: Vec<Affected> = Vec::new();
        let mut rows = select.query((&encoded, HOLDERS))?;
        while let Some(row) = rows.next()? {
            let repository: String = row.get(0)?;
            let manifest: Option<Vec<u8>> = row.get(2)?;
            let mut tags = match manifest {
                Some(manifest) => self.tags(row.get(1)?, &manifest)?,
                None => Vec::new(),
            };
            match found.last_mut() {
                Some(last) if last.repository == repository => last.tags.append(&mut tags),
                _ => found.push(Affected { repository, tags }),
            }
        }
        for affected in &mut found {
            affected.tags.sort();
            affected.tags.dedup();
            affected.tags.truncate(TAGS);
        }
        Ok(found)
    }

    /// The first tags of a manifest.
    pub(crate) fn tags(&self, repository: i64, manifest: &[u8]) -> rusqlite::Result<Vec<String>> {
        let mut tags = self.sql.prepare_cached(
            "SELECT name FROM tag WHERE manifest = ?2 AND repository + 0 = ?1 \
             AND deleted_at IS NULL ORDER BY name LIMIT ?3",
        )?;
        tags.query_map((repository, manifest, TAGS as i64), |row| row.get(0))?
            .collect()
    }
}

/// Opens a file that is there, without trusting what is in it.
pub(crate) fn open(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let sql = Connection::open_with_flags(path, flags)?;
    sql.pragma_update(None, "trusted_schema", "OFF")?;
    sql.pragma_update(None, "cell_size_check", "ON")?;
    sql.pragma_update(None, "cache_size", -CACHE_KIB)?;
    Ok(sql)
}

/// What a catalog says of itself; the text says what is wrong with it.
pub(crate) fn identity(
    sql: &Connection,
) -> rusqlite::Result<std::result::Result<Identity, String>> {
    let application: i64 = sql.query_row("PRAGMA application_id", (), |row| row.get(0))?;
    if application != APPLICATION {
        return Ok(Err("it is not a catalog of Orlop".to_owned()));
    }
    let row = sql
        .query_row(
            "SELECT id, sequence, schema, needs FROM catalog WHERE one = 1",
            (),
            |row| {
                let id: Vec<u8> = row.get(0)?;
                Ok((id, row.get::<_, i64>(1)?, row.get(2)?, row.get(3)?))
            },
        )
        .optional()?;
    let Some((id, sequence, schema, needs)) = row else {
        return Ok(Err("it does not say which catalog it is".to_owned()));
    };
    let (Ok(id), Ok(sequence)) = (<[u8; 16]>::try_from(id), u64::try_from(sequence)) else {
        return Ok(Err("its id or its sequence is of a wrong form".to_owned()));
    };
    Ok(Ok(Identity {
        id,
        sequence,
        schema,
        needs,
    }))
}

/// What SQLite's own checks find; empty when nothing.
pub(crate) fn integrity(sql: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut found = Vec::new();
    let mut statement = sql.prepare(&format!("PRAGMA integrity_check({LINES})"))?;
    let mut rows = statement.query(())?;
    while let Some(row) = rows.next()? {
        let line: String = row.get(0)?;
        if line != "ok" {
            found.push(line);
        }
    }
    let mut statement = sql.prepare("PRAGMA foreign_key_check")?;
    let mut rows = statement.query(())?;
    while let Some(row) = rows.next()? {
        if found.len() >= LINES {
            break;
        }
        let (table, parent): (String, String) = (row.get(0)?, row.get(2)?);
        found.push(format!("a row of {table} has no {parent}"));
    }
    Ok(found)
}

/// A digest as it is printed, whatever the bytes are.
pub(crate) fn text(encoded: &[u8]) -> String {
    match Digest::decode(encoded) {
        Ok((digest, len)) if len == encoded.len() => digest.to_string(),
        _ => "a digest of a wrong form".to_owned(),
    }
}

/// Copies a file; false when there is none.
pub(crate) fn copy_file(from: &Path, to: &Path) -> Result<bool> {
    match std::fs::copy(from, to) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound && !from.exists() => Ok(false),
        Err(source) => Err(Trouble::Io {
            op: "copy",
            path: PathBuf::from(from),
            source,
        }),
    }
}
