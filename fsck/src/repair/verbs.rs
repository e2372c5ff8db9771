//! What happened to names, done again to a catalog.
//!
//! The same verbs as the server's, in the catalog's own tables: totals and
//! change rows are written with the rows they are about; deleting hides.
//! Applying one again that was applied before changes nothing for good.

use orlop_format::digest::Digest;
use rusqlite::{Connection, OptionalExtension as _, Result};

use crate::catalog::manifest::Rows;
use crate::catalog::totals::Totals;

/// Changes that are kept, as the server keeps them.
const KEPT: i64 = 100_000;

/// Kinds of changes, by their numbers in the table.
const CREATED: i64 = 1;
const PUT: i64 = 3;
const DELETED: i64 = 4;
const TAGGED: i64 = 5;
const UNTAGGED: i64 = 6;
const LINKED: i64 = 7;
const UNLINKED: i64 = 8;
const DROPPED: i64 = 2;
const PURGED: i64 = 9;
const RESTORED: i64 = 12;

/// Changes a catalog in a transaction.
pub(super) struct Verbs<'a> {
    sql: &'a Connection,
    sequence: i64,
    now: i64,
}

impl<'a> Verbs<'a> {
    /// Changes are numbered behind `floor` and behind what the catalog has.
    pub(super) fn new(sql: &'a Connection, floor: u64, now: i64) -> Result<Self> {
        let known: i64 =
            sql.query_row("SELECT sequence FROM catalog WHERE one = 1", (), |row| {
                row.get(0)
            })?;
        let floor = i64::try_from(floor).unwrap_or(i64::MAX);
        Ok(Self {
            sql,
            sequence: known.max(floor),
            now,
        })
    }

    /// Writes down that counts of pulls were lost, and how far the changes are.
    pub(super) fn finish(self) -> Result<()> {
        self.sql.execute(
            "UPDATE catalog SET pulls_floor = ?1, pulls_through = NULL WHERE one = 1",
            (self.now,),
        )?;
        self.close()
    }

    /// Writes down how far the changes are.
    pub(super) fn close(self) -> Result<()> {
        let sequence = "UPDATE catalog SET sequence = ?1 WHERE one = 1";
        self.sql.execute(sequence, (self.sequence,))?;
        let last = self.sequence.saturating_sub(KEPT);
        self.sql
            .execute("DELETE FROM change WHERE sequence <= ?1", (last,))?;
        Ok(())
    }

    fn record(&mut self, repository: i64, kind: i64, object: &str) -> Result<()> {
        self.sequence = self.sequence.saturating_add(1);
        self.sql
            .prepare_cached("INSERT INTO change VALUES (?1, ?2, ?3, ?4, ?5)")?
            .execute((self.sequence, kind, repository, object, self.now))?;
        Ok(())
    }

    fn find(&self, name: &str) -> Result<Option<i64>> {
        self.sql
            .prepare_cached("SELECT id FROM repository WHERE name = ?1 AND deleted_at IS NULL")?
            .query_row((name,), |row| row.get(0))
            .optional()
    }

    fn ensure(&mut self, name: &str) -> Result<i64> {
        if let Some(id) = self.find(name)? {
            return Ok(id);
        }
        self.sql.execute(
            "INSERT INTO repository (name, created_at) VALUES (?1, ?2)",
            (name, self.now),
        )?;
        let id = self.sql.last_insert_rowid();
        self.record(id, CREATED, name)?;
        Ok(id)
    }

    /// Whether there is a row of a manifest, a hidden one too.
    pub(super) fn has_manifest(&self, name: &str, digest: &Digest) -> Result<bool> {
        let Some(id) = self.find(name)? else {
            return Ok(false);
        };
        self.sql
            .prepare_cached("SELECT 1 FROM manifest WHERE repository = ?1 AND digest = ?2")?
            .exists((id, digest.encode()))
    }

    /// Names a manifest, with its rows if it has none yet, and sets its tags.
    pub(super) fn put_manifest(
        &mut self,
        name: &str,
        digest: &Digest,
        rows: Option<&Rows>,
        tags: &[String],
    ) -> Result<()> {
        let id = self.ensure(name)?;
        let encoded = digest.encode();
        match rows {
            Some(rows) => self.insert(id, &encoded, rows)?,
            None => {
                self.sql
                    .prepare_cached(
                        "UPDATE manifest SET deleted_at = NULL, orphaned_at = NULL \
                         WHERE repository = ?1 AND digest = ?2",
                    )?
                    .execute((id, &encoded))?;
            }
        }
        // As the server does: what it lists was there when it was pushed.
        self.sql
            .prepare_cached(
                "UPDATE manifest SET deleted_at = NULL WHERE repository = ?1 AND digest IN \
                 (SELECT digest FROM edge WHERE repository = ?1 AND manifest = ?2 AND kind = 3)",
            )?
            .execute((id, &encoded))?;
        self.record(id, PUT, &digest.to_string())?;
        for tag in tags {
            self.loses(id, tag, &encoded)?;
            self.sql
                .prepare_cached(
                    "INSERT INTO tag (repository, name, manifest, updated_at) VALUES (?1, ?2, ?3, ?4) \
                     ON CONFLICT (repository, name) DO UPDATE SET manifest = excluded.manifest, \
                     updated_at = excluded.updated_at, deleted_at = NULL",
                )?
                .execute((id, tag, &encoded, self.now))?;
            self.record(id, TAGGED, tag)?;
        }
        Ok(())
    }

    fn insert(&self, id: i64, digest: &[u8], rows: &Rows) -> Result<()> {
        self.sql
            .prepare_cached(
                "INSERT INTO manifest (repository, digest, media_type, artifact_type, size, \
                 subject, annotations, pushed_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            )?
            .execute((
                id,
                digest,
                &rows.media_type,
                &rows.artifact_type,
                rows.size,
                &rows.subject,
                &rows.annotations,
                self.now,
            ))?;
        let mut totals = self.totals(id)?;
        totals.add_manifest(digest);
        for edge in &rows.edges {
            totals.add_edge(digest, edge.kind, &edge.digest);
            self.sql
                .prepare_cached("INSERT INTO edge VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?
                .execute((
                    id,
                    digest,
                    edge.kind,
                    &edge.digest,
                    edge.size,
                    &edge.media_type,
                ))?;
        }
        self.keep_totals(id, &totals)
    }

    fn totals(&self, id: i64) -> Result<Totals> {
        self.sql
            .prepare_cached(
                "SELECT manifests, manifest_sum, edges, edge_sum FROM repository WHERE id = ?1",
            )?
            .query_row((id,), |row| {
                Ok(Totals {
                    manifests: row.get(0)?,
                    manifest_sum: row.get(1)?,
                    edges: row.get(2)?,
                    edge_sum: row.get(3)?,
                })
            })
    }

    fn keep_totals(&self, id: i64, totals: &Totals) -> Result<()> {
        self.sql
            .prepare_cached(
                "UPDATE repository SET manifests = ?2, manifest_sum = ?3, edges = ?4, \
                 edge_sum = ?5 WHERE id = ?1",
            )?
            .execute((
                id,
                totals.manifests,
                totals.manifest_sum,
                totals.edges,
                totals.edge_sum,
            ))
            .map(|_| ())
    }

    /// Notes that the manifest of a tag loses it now, unless it is `unless`.
    fn loses(&self, id: i64, tag: &str, unless: &[u8]) -> Result<()> {
        self.sql
            .prepare_cached(
                "UPDATE manifest SET untagged_at = ?4 WHERE repository = ?1 AND digest <> ?3 \
                 AND digest = (SELECT manifest FROM tag WHERE repository = ?1 AND name = ?2 \
                 AND deleted_at IS NULL)",
            )?
            .execute((id, tag, unless, self.now))
            .map(|_| ())
    }

    /// Gives the repository a blob. True: it had not.
    pub(super) fn link(&mut self, name: &str, digest: &Digest, size: u64) -> Result<bool> {
        let id = self.ensure(name)?;
        let changed = self
            .sql
            .prepare_cached(
                "INSERT INTO link (repository, digest, size, linked_at) VALUES (?1, ?2, ?3, ?4) \
                 ON CONFLICT (digest, repository) DO UPDATE SET size = excluded.size \
                 WHERE link.size <> excluded.size",
            )?
            .execute((
                id,
                digest.encode(),
                i64::try_from(size).unwrap_or(i64::MAX),
                self.now,
            ))?;
        if changed > 0 {
            self.record(id, LINKED, &digest.to_string())?;
        }
        Ok(changed > 0)
    }

    /// Hides a tag.
    pub(super) fn untag(&mut self, name: &str, tag: &str) -> Result<()> {
        let Some(id) = self.find(name)? else {
            return Ok(());
        };
        self.loses(id, tag, &[])?;
        let hidden = self
            .sql
            .prepare_cached(
                "UPDATE tag SET deleted_at = ?3 \
                 WHERE repository = ?1 AND name = ?2 AND deleted_at IS NULL",
            )?
            .execute((id, tag, self.now))?;
        match hidden {
            0 => Ok(()),
            _ => self.record(id, UNTAGGED, tag),
        }
    }

    /// Hides a manifest and its tags.
    pub(super) fn delete(&mut self, name: &str, digest: &Digest) -> Result<()> {
        let Some(id) = self.find(name)? else {
            return Ok(());
        };
        let encoded = digest.encode();
        self.sql
            .prepare_cached(
                "UPDATE tag SET deleted_at = ?3 \
                 WHERE manifest = ?2 AND repository + 0 = ?1 AND deleted_at IS NULL",
            )?
            .execute((id, &encoded, self.now))?;
        let hidden = self
            .sql
            .prepare_cached(
                "UPDATE manifest SET deleted_at = ?3 \
                 WHERE repository = ?1 AND digest = ?2 AND deleted_at IS NULL",
            )?
            .execute((id, &encoded, self.now))?;
        match hidden {
            0 => Ok(()),
            _ => self.record(id, DELETED, &digest.to_string()),
        }
    }

    /// Takes a blob from the repository.
    pub(super) fn unlink(&mut self, name: &str, digest: &Digest) -> Result<()> {
        let Some(id) = self.find(name)? else {
            return Ok(());
        };
        let encoded = digest.encode();
        let kept = self.sql.execute(
            "INSERT INTO unlinked (repository, digest, size, deleted_at) \
             SELECT repository, digest, size, ?3 FROM link WHERE digest = ?2 AND repository = ?1 \
             ON CONFLICT (repository, digest) DO UPDATE SET size = excluded.size, \
             deleted_at = excluded.deleted_at",
            (id, &encoded, self.now),
        )?;
        if kept == 0 {
            return Ok(());
        }
        self.sql.execute(
            "DELETE FROM link WHERE digest = ?2 AND repository = ?1",
            (id, &encoded),
        )?;
        self.record(id, UNLINKED, &digest.to_string())
    }

    /// Removes a manifest with its tags for good, from all repositories that have
    /// or had a name.
    pub(super) fn purge(&mut self, name: &str, digest: &Digest) -> Result<()> {
        let encoded = digest.encode();
        let places: Vec<i64> = self
            .sql
            .prepare_cached(
                "SELECT r.id FROM repository r JOIN manifest m ON m.repository = r.id \
                 AND m.digest = ?2 WHERE r.name = ?1",
            )?
            .query_map((name, &encoded), |row| row.get(0))?
            .collect::<Result<_>>()?;
        for id in places {
            let mut totals = self.totals(id)?;
            let edges: Vec<(i64, Vec<u8>)> = self
                .sql
                .prepare_cached(
                    "SELECT kind, digest FROM edge WHERE repository = ?1 AND manifest = ?2",
                )?
                .query_map((id, &encoded), |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect::<Result<_>>()?;
            for (kind, target) in &edges {
                totals.take_edge(&encoded, *kind, target);
            }
            totals.take_manifest(&encoded);
            for sql in [
                "DELETE FROM pulled_tag WHERE repository = ?1 AND name IN \
                 (SELECT name FROM tag WHERE manifest = ?2 AND repository + 0 = ?1)",
                "DELETE FROM tag WHERE manifest = ?2 AND repository + 0 = ?1",
                "DELETE FROM pulled_manifest WHERE repository = ?1 AND digest = ?2",
                "DELETE FROM edge WHERE repository = ?1 AND manifest = ?2",
                "DELETE FROM manifest WHERE repository = ?1 AND digest = ?2",
            ] {
                self.sql.prepare_cached(sql)?.execute((id, &encoded))?;
            }
            self.keep_totals(id, &totals)?;
            self.record(id, PURGED, &digest.to_string())?;
        }
        Ok(())
    }

    /// Hides a repository with all that is in it.
    pub(super) fn drop_repository(&mut self, name: &str) -> Result<()> {
        let Some(id) = self.find(name)? else {
            return Ok(());
        };
        self.hide(id, name)
    }

    fn hide(&mut self, id: i64, name: &str) -> Result<()> {
        self.sql
            .prepare_cached("UPDATE repository SET deleted_at = ?2 WHERE id = ?1")?
            .execute((id, self.now))?;
        self.record(id, DROPPED, name)
    }

    /// Brings the repository back that had this name and was deleted last, under
    /// another name or the same, as long as none with manifests is in its way:
    /// then that is it, and this was done before.
    pub(super) fn restore(&mut self, name: &str, new: &str) -> Result<()> {
        let hidden: Option<i64> = self
            .sql
            .prepare_cached(
                "SELECT id FROM repository WHERE name = ?1 AND deleted_at IS NOT NULL \
                 AND purging = 0 ORDER BY deleted_at DESC, id DESC LIMIT 1",
            )?
            .query_row((name,), |row| row.get(0))
            .optional()?;
        let Some(id) = hidden else {
            return Ok(());
        };
        if let Some(live) = self.find(new)? {
            let has_manifests = self
                .sql
                .prepare_cached(
                    "SELECT 1 FROM manifest WHERE repository = ?1 AND deleted_at IS NULL",
                )?
                .exists((live,))?;
            if has_manifests {
                return Ok(());
            }
            self.hide(live, new)?;
        }
        self.sql
            .prepare_cached("UPDATE repository SET deleted_at = NULL, name = ?2 WHERE id = ?1")?
            .execute((id, new))?;
        self.record(id, RESTORED, new)
    }
}
