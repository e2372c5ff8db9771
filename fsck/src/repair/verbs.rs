//! What happened to names, done again to a catalog.
//!
//! The same verbs as the server's, in the catalog's own tables: totals and
//! change rows are written with the rows they are about; deleting hides.
//! Applying one again that was applied before changes nothing for good.
//! Repositories as a whole come first, as all notes together leave them.

use orlop_format::digest::Digest;
use rusqlite::{Connection, OptionalExtension as _, Result};

use super::doubt::{Doubt, Reach, Thing};
use super::holder::{End, Holder, Holders};
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

/// Whether what a note behind what the copy has says of a repository may not have
/// been done. `was`: its name in the copy, and whether it is live there.
fn unsure(end: &End, was: Option<&(String, bool)>, copy: Reach) -> Option<Doubt> {
    if !end.is_deleted {
        return end.is_second.then_some(Doubt::Twice);
    }
    match was {
        _ if end.is_proven => None,
        // The copy that was made then has it: more is kept.
        Some((name, true)) if *name == end.name && end.lsn <= copy.until && !end.is_followed => {
            Some(Doubt::Stays)
        }
        Some((_, false)) if end.was_back.is_none_or(|back| back <= copy.has) => None,
        _ => Some(Doubt::Goes),
    }
}

/// Changes a catalog in a transaction.
pub(super) struct Verbs<'a> {
    sql: &'a Connection,
    sequence: i64,
    now: i64,
    /// The highest row that a repository had before this.
    known: i64,
    /// When the first repository is deleted by this. Others are later, each after
    /// the one before: of one name, the last that was deleted comes back first.
    deleted_at: i64,
}

impl<'a> Verbs<'a> {
    /// Changes are numbered behind `floor` and behind what the catalog has.
    pub(super) fn new(sql: &'a Connection, floor: u64, now: i64) -> Result<Self> {
        let known: i64 =
            sql.query_row("SELECT sequence FROM catalog WHERE one = 1", (), |row| {
                row.get(0)
            })?;
        let floor = i64::try_from(floor).unwrap_or(i64::MAX);
        let rows = "SELECT COALESCE(MAX(seq), 0) FROM sqlite_sequence WHERE name = 'repository'";
        let last = "SELECT COALESCE(MAX(deleted_at), 0) FROM repository";
        let last: i64 = sql.query_row(last, (), |row| row.get(0))?;
        Ok(Self {
            sql,
            sequence: known.max(floor),
            now,
            known: sql.query_row(rows, (), |row| row.get(0))?,
            deleted_at: now.max(last.saturating_add(1)),
        })
    }

    /// The highest row that a repository had before this.
    pub(super) fn known(&self) -> i64 {
        self.known
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

    /// Deletes repositories and brings them back, as the notes leave them, and says
    /// of which it cannot be known whether that was done. Nothing else is done to a
    /// name in between: rows that notes speak of are known by their number.
    ///
    /// What a kill kept from being done is void, as far as it can be seen: what the
    /// catalog says of notes that it has stays so, and one that is in the place of
    /// another that should come back stays there.
    pub(super) fn arrange(
        &mut self,
        holders: &mut Holders,
        copy: Reach,
    ) -> Result<Vec<(i64, Doubt)>> {
        self.reserve(holders.highest())?;
        let (mut ends, mut doubts) = (Vec::new(), Vec::new());
        for (row, end) in holders.ends() {
            let was = self.was(row)?;
            let is_as_noted = match &was {
                Some((name, is_live)) => {
                    *is_live != end.is_deleted && (end.is_deleted || *name == end.name)
                }
                // One that was purged was deleted.
                None => end.is_deleted || row > self.known,
            };
            if end.lsn <= copy.has {
                if !is_as_noted {
                    holders.undo(row);
                }
                continue;
            }
            // Who has its name in the copy and never left it was made after it was gone.
            let holder = self.find(&end.name)?.filter(|holder| *holder != row);
            let is_replaced = holder.is_some_and(|holder| holders.end(holder).is_none());
            let doubt = unsure(&end, was.as_ref(), copy);
            if let Some(doubt) = doubt.filter(|doubt| !is_replaced || *doubt == Doubt::Twice) {
                doubts.push((row, doubt));
                if doubt == Doubt::Stays {
                    holders.undo(row);
                    continue;
                }
            }
            let Some(was) = was else {
                if !is_as_noted {
                    holders.undo(row);
                }
                continue;
            };
            // All of them, so that none is in the way of another.
            let at = self.deleted_at.saturating_add(end.rank);
            let name = if end.is_deleted { &end.name } else { &was.0 };
            self.sql
                .prepare_cached("UPDATE repository SET deleted_at = ?2, name = ?3 WHERE id = ?1")?
                .execute((row, at, name))?;
            ends.push((row, end, was));
        }
        // The last one first: an earlier one of that name was not done.
        for (row, end, was) in ends.into_iter().rev() {
            let is_back = !end.is_deleted && self.bring_back(row, &end.name)?;
            if !end.is_deleted && !is_back {
                holders.undo(row);
            }
            match (was.1, is_back) {
                (true, false) => self.record(row, DROPPED, &end.name)?,
                (true, true) if was.0 == end.name => {}
                (_, true) => self.record(row, RESTORED, &end.name)?,
                (false, false) => {}
            }
        }
        Ok(doubts)
    }

    /// A repository's name, and whether it is live.
    pub(super) fn was(&self, row: i64) -> Result<Option<(String, bool)>> {
        self.sql
            .prepare_cached("SELECT name, deleted_at IS NULL FROM repository WHERE id = ?1")?
            .query_row((row,), |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()
    }

    /// False: another one has the name, or a purge has begun with it.
    fn bring_back(&mut self, row: i64, name: &str) -> Result<bool> {
        if self.find(name)?.is_some() {
            return Ok(false);
        }
        let back = "UPDATE repository SET deleted_at = NULL, name = ?2 \
             WHERE id = ?1 AND purging = 0";
        let changed = self.sql.prepare_cached(back)?.execute((row, name))?;
        Ok(changed > 0)
    }

    /// Keeps rows that notes speak of from being given to other repositories.
    fn reserve(&self, highest: i64) -> Result<()> {
        let raise = "UPDATE sqlite_sequence SET seq = MAX(seq, ?1) WHERE name = 'repository'";
        if self.sql.execute(raise, (highest,))? == 0 {
            let begin = "INSERT INTO sqlite_sequence (name, seq) VALUES ('repository', ?1)";
            self.sql.execute(begin, (highest,))?;
        }
        Ok(())
    }

    fn find(&self, name: &str) -> Result<Option<i64>> {
        self.sql
            .prepare_cached("SELECT id FROM repository WHERE name = ?1 AND deleted_at IS NULL")?
            .query_row((name,), |row| row.get(0))
            .optional()
    }

    /// The name of a repository that is not deleted.
    pub(super) fn live(&self, row: i64) -> Result<Option<String>> {
        self.sql
            .prepare_cached("SELECT name FROM repository WHERE id = ?1 AND deleted_at IS NULL")?
            .query_row((row,), |row| row.get(0))
            .optional()
    }

    /// The repository that a name stands for.
    pub(super) fn repository(&self, name: &str, holder: Holder) -> Result<Option<i64>> {
        let row = match holder {
            Holder::Row(row) => row,
            Holder::Last => return self.find(name),
            Holder::Nobody => return Ok(None),
        };
        let is_there = self
            .sql
            .prepare_cached("SELECT 1 FROM repository WHERE id = ?1")?
            .exists((row,))?;
        Ok(is_there.then_some(row))
    }

    /// The same, made if there is none. None: it was purged, or never was.
    pub(super) fn ensure(
        &mut self,
        name: &str,
        holder: Holder,
        holders: &Holders,
    ) -> Result<Option<i64>> {
        if let Some(id) = self.repository(name, holder)? {
            return Ok(Some(id));
        }
        let row = match holder {
            Holder::Row(row) if row > self.known => Some(row),
            Holder::Last => None,
            Holder::Row(_) | Holder::Nobody => return Ok(None),
        };
        let end = row.and_then(|row| holders.end(row));
        let name = end.map_or(name, |end| &end.name);
        let is_deleted = end.is_some_and(|end| end.is_deleted) || self.find(name)?.is_some();
        let after = end.map_or(holders.count(), |end| end.rank);
        let deleted_at = is_deleted.then_some(self.deleted_at.saturating_add(after));
        self.sql.execute(
            "INSERT INTO repository (id, name, created_at, deleted_at) VALUES (?1, ?2, ?3, ?4)",
            (row, name, self.now, deleted_at),
        )?;
        let id = self.sql.last_insert_rowid();
        self.record(id, CREATED, name)?;
        Ok(Some(id))
    }

    /// Whether something is there and not hidden.
    pub(super) fn shows(&self, thing: &Thing) -> Result<bool> {
        match thing {
            Thing::Manifest(id, digest) => self
                .sql
                .prepare_cached(
                    "SELECT 1 FROM manifest WHERE repository = ?1 AND digest = ?2 \
                     AND deleted_at IS NULL",
                )?
                .exists((id, digest.encode())),
            Thing::Tag(id, tag) => self
                .sql
                .prepare_cached(
                    "SELECT 1 FROM tag WHERE repository = ?1 AND name = ?2 \
                     AND deleted_at IS NULL",
                )?
                .exists((id, tag)),
            Thing::Link(id, digest) => self
                .sql
                .prepare_cached("SELECT 1 FROM link WHERE repository = ?1 AND digest = ?2")?
                .exists((id, digest.encode())),
        }
    }

    /// Whether there is a row of a manifest, a hidden one too.
    pub(super) fn has_manifest(&self, id: i64, digest: &Digest) -> Result<bool> {
        self.sql
            .prepare_cached("SELECT 1 FROM manifest WHERE repository = ?1 AND digest = ?2")?
            .exists((id, digest.encode()))
    }

    /// The tags of a manifest that are not hidden.
    pub(super) fn tags(&self, id: i64, digest: &Digest) -> Result<Vec<String>> {
        self.sql
            .prepare_cached(
                "SELECT name FROM tag WHERE manifest = ?2 AND repository + 0 = ?1 \
                 AND deleted_at IS NULL",
            )?
            .query_map((id, digest.encode()), |row| row.get(0))?
            .collect()
    }

    /// Names a manifest, with its rows if it has none yet, and sets its tags.
    pub(super) fn put_manifest(
        &mut self,
        id: i64,
        digest: &Digest,
        rows: Option<&Rows>,
        tags: &[String],
    ) -> Result<()> {
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
    pub(super) fn link(&mut self, id: i64, digest: &Digest, size: u64) -> Result<bool> {
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
    pub(super) fn untag(&mut self, id: i64, tag: &str) -> Result<()> {
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
    pub(super) fn delete(&mut self, id: i64, digest: &Digest) -> Result<()> {
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
    pub(super) fn unlink(&mut self, id: i64, digest: &Digest) -> Result<()> {
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

    /// Removes a manifest with its tags for good.
    pub(super) fn purge(&mut self, id: i64, digest: &Digest) -> Result<()> {
        if !self.has_manifest(id, digest)? {
            return Ok(());
        }
        let encoded = digest.encode();
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
        self.record(id, PURGED, &digest.to_string())
    }

    /// Takes a blob from a repository for good.
    pub(super) fn purge_blob(&mut self, id: i64, digest: &Digest) -> Result<()> {
        let encoded = digest.encode();
        let mut gone = 0usize;
        for sql in [
            "DELETE FROM link WHERE digest = ?2 AND repository = ?1",
            "DELETE FROM unlinked WHERE repository = ?1 AND digest = ?2",
        ] {
            let rows = self.sql.prepare_cached(sql)?.execute((id, &encoded))?;
            gone = gone.saturating_add(rows);
        }
        match gone {
            0 => Ok(()),
            _ => self.record(id, UNLINKED, &digest.to_string()),
        }
    }
}
