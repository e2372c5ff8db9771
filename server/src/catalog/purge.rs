//! The purge: rows that were deleted long enough ago go for good, and what
//! they named is remembered, so that a collection can say why it is garbage.
//!
//! Invariants: a step removes a bounded number of rows; a manifest goes whole,
//! with its edges and the tags that point to it, and leaves the totals right;
//! rows that are not hidden are never removed.

use std::collections::BTreeMap;

use orlop_format::digest::Digest;

use super::Catalog;
use super::cache::{Item, Key, KeyRef, Touched};
use super::change;
use super::error::CatalogError;
use super::read::within;
use super::sql::{Arg, Connection};
use super::totals::Totals;
use super::types::{ChangeKind, Dead, Departed, PurgedRows};
use super::verb::{Effect, Progress, Verb};

/// Manifests, tags or links that one step removes at most. Other changes wait
/// meanwhile.
const STEP: i64 = 100;
/// Dead blobs whose links one change removes.
pub const DEAD_MAX: usize = 256;
/// How long it is remembered what purged rows named, if the blobs do not die.
const DEPARTED_KEPT: i64 = 90 * 24 * 3_600_000;

type Result<T> = std::result::Result<T, sqlx::Error>;

impl Catalog {
    /// Removes some of the rows that were deleted at `until` or earlier, in
    /// milliseconds since 1970. None when none was left.
    ///
    /// # Errors
    /// As [`Catalog::put_manifest`].
    pub async fn purge(&self, until: i64) -> std::result::Result<Option<PurgedRows>, CatalogError> {
        Ok(match self.step(Verb::Purge { until }).await? {
            Progress::Purged(rows) => Some(rows),
            _ => None,
        })
    }

    /// Removes the links of blobs that have died, at most [`DEAD_MAX`], and
    /// what was remembered of them. Links that were made for a later life stay.
    ///
    /// # Errors
    /// As [`Catalog::put_manifest`].
    pub async fn forget_dead(&self, dead: Vec<Dead>) -> std::result::Result<(), CatalogError> {
        if dead.len() > DEAD_MAX {
            let text = format!("more than {DEAD_MAX} dead blobs at once");
            return Err(CatalogError::Refused(text));
        }
        self.submit(Verb::ForgetDead(dead)).await.map(|_| ())
    }

    /// Why blobs are garbage, where a purge has taken what named them.
    ///
    /// # Errors
    /// When it cannot be known.
    pub async fn departed(
        &self,
        digests: &[Digest],
    ) -> std::result::Result<Vec<Option<Departed>>, CatalogError> {
        within(async {
            let mut connection = self.reader().await?;
            let mut found = Vec::with_capacity(digests.len());
            for digest in digests {
                let row = connection
                    .row(
                        "SELECT repository, manifest, deleted_at, purged_at FROM departed \
                         WHERE digest = $1",
                        &[Arg::Bytes(&digest.encode())],
                    )
                    .await?;
                let Some(row) = row else {
                    found.push(None);
                    continue;
                };
                let manifest = row.bytes(1)?;
                found.push(Some(Departed {
                    repository: row.text(0)?,
                    manifest: Digest::decode(&manifest).ok().map(|(digest, _)| digest),
                    deleted_at: row.int(2)?,
                    purged_at: row.int(3)?,
                }));
            }
            Ok(found)
        })
        .await
    }
}

/// One step: whatever comes first of repositories, manifests, tags, blobs.
pub(super) async fn step(connection: &mut Connection, until: i64, now: i64) -> Result<Effect> {
    let mut purged = PurgedRows::default();
    let due = "SELECT id, name, deleted_at FROM repository \
         WHERE deleted_at <= $1 ORDER BY deleted_at LIMIT 1";
    let mut changes = Vec::new();
    if let Some(row) = connection.row(due, &[Arg::Int(until)]).await? {
        let place = Place {
            id: row.int(0)?,
            name: row.text(1)?,
        };
        repository(
            connection,
            &place,
            row.int(2)?,
            now,
            &mut purged,
            &mut changes,
        )
        .await?;
    } else {
        manifests(connection, until, now, &mut purged, &mut changes).await?;
        tags(connection, until, &mut purged).await?;
        unlinked(connection, until, now, &mut purged).await?;
        connection
            .run(
                "DELETE FROM departed WHERE purged_at < $1",
                &[Arg::Int(now.saturating_sub(DEPARTED_KEPT))],
            )
            .await?;
    }
    let sequence = if changes.is_empty() {
        None
    } else {
        let changes: Vec<(ChangeKind, i64, &str)> = changes
            .iter()
            .map(|(kind, repository, object)| (*kind, *repository, object.as_str()))
            .collect();
        Some(change::record_all(connection, &changes, now).await?)
    };
    Ok(Effect {
        sequence,
        purged,
        ..Effect::default()
    })
}

/// A repository as rows name it.
struct Place {
    id: i64,
    name: String,
}

/// A step of a repository that goes whole.
async fn repository(
    connection: &mut Connection,
    place: &Place,
    deleted_at: i64,
    now: i64,
    purged: &mut PurgedRows,
    changes: &mut Vec<(ChangeKind, i64, String)>,
) -> Result<()> {
    let rows = connection
        .rows(
            "SELECT digest FROM manifest WHERE repository = $1 ORDER BY digest LIMIT $2",
            &[Arg::Int(place.id), Arg::Int(STEP)],
        )
        .await?;
    let mut totals = TotalsOf::default();
    for row in &rows {
        let digest = row.bytes(0)?;
        if manifest(connection, place, &digest, (deleted_at, now), &mut totals).await? {
            purged.manifests = purged.manifests.saturating_add(1);
            changes.push((ChangeKind::ManifestPurged, place.id, text(&digest)));
        } else {
            purged.tags = purged.tags.saturating_add(STEP.unsigned_abs());
        }
    }
    totals.write(connection).await?;
    if !rows.is_empty() {
        return Ok(());
    }
    // Its links are found by reading all there are; a repository goes rarely.
    let id = [Arg::Int(place.id)];
    for sql in [
        "DELETE FROM tag WHERE repository = $1",
        "DELETE FROM link WHERE repository = $1",
        "DELETE FROM unlinked WHERE repository = $1",
        "DELETE FROM pulled_tag WHERE repository = $1",
        "DELETE FROM pulled_manifest WHERE repository = $1",
        "DELETE FROM repository WHERE id = $1",
    ] {
        connection.run(sql, &id).await?;
    }
    purged.repositories = 1;
    changes.push((ChangeKind::RepositoryPurged, place.id, place.name.clone()));
    Ok(())
}

/// Hidden manifests of repositories that stay.
async fn manifests(
    connection: &mut Connection,
    until: i64,
    now: i64,
    purged: &mut PurgedRows,
    changes: &mut Vec<(ChangeKind, i64, String)>,
) -> Result<()> {
    let rows = connection
        .rows(
            "SELECT m.repository, r.name, m.digest, m.deleted_at FROM manifest m \
             JOIN repository r ON r.id = m.repository \
             WHERE m.deleted_at <= $1 ORDER BY m.deleted_at LIMIT $2",
            &[Arg::Int(until), Arg::Int(STEP)],
        )
        .await?;
    let mut totals = TotalsOf::default();
    for row in &rows {
        let place = Place {
            id: row.int(0)?,
            name: row.text(1)?,
        };
        let (digest, at) = (row.bytes(2)?, (row.int(3)?, now));
        if manifest(connection, &place, &digest, at, &mut totals).await? {
            purged.manifests = purged.manifests.saturating_add(1);
            changes.push((ChangeKind::ManifestPurged, place.id, text(&digest)));
        } else {
            purged.tags = purged.tags.saturating_add(STEP.unsigned_abs());
        }
    }
    totals.write(connection).await
}

/// Edges of a manifest, and a row for each of its tags, as far as one step
/// removes them. Tags by the manifest alone, as where it is hidden.
const NAMED: &str = "SELECT kind, digest FROM edge WHERE repository = $1 AND manifest = $2 \
    UNION ALL SELECT CAST(-1 AS BIGINT), manifest FROM (SELECT manifest FROM tag \
    WHERE manifest = $2 AND repository + 0 = $1 LIMIT $3) AS tags";
const TAG: i64 = -1;

/// What goes with manifest $2 of repository $1, named $4, that was deleted at $3
/// and is purged at $5: its tags; what it named is remembered; what belonged to
/// it is marked, since it may have nothing else; its rows.
const GONE: &str = "DELETE FROM pulled_tag WHERE repository = $1 AND name IN \
    (SELECT name FROM tag WHERE manifest = $2 AND repository + 0 = $1); \
    DELETE FROM tag WHERE manifest = $2 AND repository + 0 = $1; \
    INSERT INTO departed (digest, repository, manifest, deleted_at, purged_at) \
    SELECT e.digest, $4, $2, $3, $5 FROM (SELECT DISTINCT digest FROM edge \
    WHERE repository = $1 AND manifest = $2 AND kind IN (1, 2) AND digest <> $2) AS e WHERE true \
    ON CONFLICT (digest) DO UPDATE SET \
    repository = excluded.repository, manifest = excluded.manifest, \
    deleted_at = excluded.deleted_at, purged_at = excluded.purged_at; \
    INSERT INTO departed (digest, repository, manifest, deleted_at, purged_at) \
    VALUES ($2, $4, $2, $3, $5) ON CONFLICT (digest) DO UPDATE SET \
    repository = excluded.repository, manifest = excluded.manifest, \
    deleted_at = excluded.deleted_at, purged_at = excluded.purged_at; \
    UPDATE manifest SET orphaned_at = $3 WHERE repository = $1 AND digest IN \
    (SELECT digest FROM edge WHERE repository = $1 AND manifest = $2 AND kind = 3) \
    AND COALESCE(orphaned_at, -1) < $3; \
    UPDATE manifest SET orphaned_at = $3 \
    WHERE repository = $1 AND subject = $2 AND subject IS NOT NULL AND deleted_at IS NULL \
    AND COALESCE(orphaned_at, -1) < $3; \
    DELETE FROM pulled_manifest WHERE repository = $1 AND digest = $2; \
    DELETE FROM edge WHERE repository = $1 AND manifest = $2; \
    DELETE FROM manifest WHERE repository = $1 AND digest = $2";

/// Removes a manifest. False: it has more tags than one step removes, and
/// stays until they are gone.
async fn manifest(
    connection: &mut Connection,
    place: &Place,
    digest: &[u8],
    (deleted_at, now): (i64, i64),
    totals: &mut TotalsOf,
) -> Result<bool> {
    let (id, of) = (Arg::Int(place.id), Arg::Bytes(digest));
    let rows = connection.rows(NAMED, &[id, of, Arg::Int(STEP)]).await?;
    let mut edges = Vec::with_capacity(rows.len());
    for row in &rows {
        edges.push((row.int(0)?, row.bytes(1)?));
    }
    let tags = edges.iter().filter(|(kind, _)| *kind == TAG).count();
    if i64::try_from(tags).is_ok_and(|tags| tags >= STEP) {
        let sql = "SELECT name FROM tag WHERE manifest = $2 AND repository + 0 = $1 LIMIT $3";
        for tag in connection.rows(sql, &[id, of, Arg::Int(STEP)]).await? {
            tag_row(connection, place.id, &tag.text(0)?).await?;
        }
        return Ok(false);
    }
    let totals = totals.of(connection, place.id).await?;
    for (kind, target) in edges.iter().filter(|(kind, _)| *kind != TAG) {
        totals.take_edge(digest, *kind, target);
    }
    totals.take_manifest(digest);
    let name = Arg::Text(&place.name);
    let arguments = [id, of, Arg::Int(deleted_at), name, Arg::Int(now)];
    connection.all(GONE, &arguments).await?;
    Ok(true)
}

/// Remembers that a manifest that goes named this blob. The last one counts.
async fn depart(
    connection: &mut Connection,
    place: &Place,
    blob: &[u8],
    manifest: &[u8],
    (deleted_at, now): (i64, i64),
) -> Result<()> {
    connection
        .run(
            "INSERT INTO departed (digest, repository, manifest, deleted_at, purged_at) \
             VALUES ($1, $2, $3, $4, $5) ON CONFLICT (digest) DO UPDATE SET \
             repository = excluded.repository, manifest = excluded.manifest, \
             deleted_at = excluded.deleted_at, purged_at = excluded.purged_at",
            &[
                Arg::Bytes(blob),
                Arg::Text(&place.name),
                Arg::Bytes(manifest),
                Arg::Int(deleted_at),
                Arg::Int(now),
            ],
        )
        .await
        .map(|_| ())
}

async fn tag_row(connection: &mut Connection, repository: i64, name: &str) -> Result<()> {
    for sql in [
        "DELETE FROM pulled_tag WHERE repository = $1 AND name = $2",
        "DELETE FROM tag WHERE repository = $1 AND name = $2",
    ] {
        let arguments = [Arg::Int(repository), Arg::Text(name)];
        connection.run(sql, &arguments).await?;
    }
    Ok(())
}

async fn tags(connection: &mut Connection, until: i64, purged: &mut PurgedRows) -> Result<()> {
    let sql = "SELECT repository, name FROM tag WHERE deleted_at <= $1 \
         ORDER BY deleted_at LIMIT $2";
    let rows = connection
        .rows(sql, &[Arg::Int(until), Arg::Int(STEP)])
        .await?;
    for row in &rows {
        tag_row(connection, row.int(0)?, &row.text(1)?).await?;
        purged.tags = purged.tags.saturating_add(1);
    }
    Ok(())
}

async fn unlinked(
    connection: &mut Connection,
    until: i64,
    now: i64,
    purged: &mut PurgedRows,
) -> Result<()> {
    let rows = connection
        .rows(
            "SELECT u.repository, r.name, u.digest, u.deleted_at FROM unlinked u \
             JOIN repository r ON r.id = u.repository \
             WHERE u.deleted_at <= $1 ORDER BY u.deleted_at LIMIT $2",
            &[Arg::Int(until), Arg::Int(STEP)],
        )
        .await?;
    for row in &rows {
        let place = Place {
            id: row.int(0)?,
            name: row.text(1)?,
        };
        let digest = row.bytes(2)?;
        depart(connection, &place, &digest, &[], (row.int(3)?, now)).await?;
        let sql = "DELETE FROM unlinked WHERE repository = $1 AND digest = $2";
        let arguments = [Arg::Int(place.id), Arg::Bytes(&digest)];
        connection.run(sql, &arguments).await?;
        purged.blobs = purged.blobs.saturating_add(1);
    }
    Ok(())
}

/// Totals of the repositories that a step takes manifests from.
#[derive(Default)]
struct TotalsOf(BTreeMap<i64, Totals>);

impl TotalsOf {
    async fn of(&mut self, connection: &mut Connection, repository: i64) -> Result<&mut Totals> {
        use std::collections::btree_map::Entry;
        Ok(match self.0.entry(repository) {
            Entry::Occupied(found) => found.into_mut(),
            Entry::Vacant(place) => place.insert(totals(connection, repository).await?),
        })
    }

    async fn write(self, connection: &mut Connection) -> Result<()> {
        for (repository, totals) in &self.0 {
            set_totals(connection, *repository, totals).await?;
        }
        Ok(())
    }
}

async fn totals(connection: &mut Connection, repository: i64) -> Result<Totals> {
    let row = connection
        .one(
            "SELECT manifests, manifest_sum, edges, edge_sum FROM repository WHERE id = $1",
            &[Arg::Int(repository)],
        )
        .await?;
    Ok(Totals {
        manifests: row.int(0)?,
        manifest_sum: row.int(1)?,
        edges: row.int(2)?,
        edge_sum: row.int(3)?,
    })
}

async fn set_totals(connection: &mut Connection, repository: i64, totals: &Totals) -> Result<()> {
    connection
        .run(
            "UPDATE repository SET manifests = $2, manifest_sum = $3, edges = $4, edge_sum = $5 \
             WHERE id = $1",
            &[
                Arg::Int(repository),
                Arg::Int(totals.manifests),
                Arg::Int(totals.manifest_sum),
                Arg::Int(totals.edges),
                Arg::Int(totals.edge_sum),
            ],
        )
        .await
        .map(|_| ())
}

/// Dead blobs whose links are found by one statement, and links that one
/// removes. Where there are fewer, the last is named again.
const AT_ONCE: usize = 8;

/// A link of a blob that died.
struct Link {
    blob: Digest,
    encoded: Vec<u8>,
    repository: i64,
    name: String,
}

/// Removes links of dead blobs.
pub(super) async fn forget(connection: &mut Connection, dead: &[Dead], now: i64) -> Result<Effect> {
    let mut links = Vec::new();
    for group in dead.chunks(AT_ONCE) {
        let encoded: Vec<Vec<u8>> = group.iter().map(|blob| blob.digest.encode()).collect();
        let digests = full(encoded.iter().map(|digest| Arg::Bytes(digest)).collect());
        let sql = "SELECT l.digest, COALESCE(l.birth, -1), l.repository, r.name \
            FROM link l JOIN repository r ON r.id = l.repository \
            WHERE l.digest IN ($1, $2, $3, $4, $5, $6, $7, $8)";
        for row in &connection.rows(sql, &digests).await? {
            let (encoded, birth) = (row.bytes(0)?, row.int(1)?);
            let is_dead = |blob: &&Dead| {
                blob.digest.encode() == encoded
                    && birth <= i64::try_from(blob.birth).unwrap_or(i64::MAX)
            };
            let Some(blob) = group.iter().find(is_dead) else {
                continue;
            };
            links.push(Link {
                blob: blob.digest,
                encoded,
                repository: row.int(2)?,
                name: row.text(3)?,
            });
        }
        let sql = "DELETE FROM departed WHERE digest IN ($1, $2, $3, $4, $5, $6, $7, $8)";
        connection.run(sql, &digests).await?;
    }
    for group in links.chunks(AT_ONCE) {
        let pairs = group
            .iter()
            .map(|link| [Arg::Bytes(&link.encoded), Arg::Int(link.repository)]);
        let pairs = full(pairs.collect());
        // The digests alone too: SQLite would read all links for the pairs.
        let sql = "DELETE FROM link WHERE digest IN ($1, $3, $5, $7, $9, $11, $13, $15) \
            AND (digest, repository) IN (VALUES ($1, $2), ($3, $4), \
            ($5, $6), ($7, $8), ($9, $10), ($11, $12), ($13, $14), ($15, $16))";
        connection.run(sql, pairs.as_flattened()).await?;
    }
    let objects: Vec<String> = links.iter().map(|link| link.blob.to_string()).collect();
    let changes: Vec<(ChangeKind, i64, &str)> = links
        .iter()
        .zip(&objects)
        .map(|(link, object)| (ChangeKind::BlobUnlinked, link.repository, object.as_str()))
        .collect();
    let touched = links.iter().map(|link| {
        Touched::Key(Key::from(KeyRef {
            repository: &link.name,
            item: Item::Link(&link.blob),
        }))
    });
    Ok(Effect {
        sequence: match changes.as_slice() {
            [] => None,
            changes => Some(change::record_all(connection, changes, now).await?),
        },
        touched: touched.collect(),
        ..Effect::default()
    })
}

/// The last once more, until there are [`AT_ONCE`].
fn full<T: Copy>(mut some: Vec<T>) -> Vec<T> {
    if let Some(last) = some.last().copied() {
        some.resize(AT_ONCE, last);
    }
    some
}

fn text(digest: &[u8]) -> String {
    Digest::decode(digest).map_or_else(|_| "?".to_owned(), |(digest, _)| digest.to_string())
}
