//! The purge: rows that were deleted long enough ago go for good, and what
//! they named is remembered, so that a collection can say why it is garbage.
//!
//! Invariants: a step removes a bounded number of rows; a manifest goes whole,
//! with its edges and the tags that point to it, and leaves the totals right;
//! rows that are not hidden are never removed.

use std::time::{Duration, Instant};

use orlop_format::digest::Digest;

use super::Catalog;
use super::cache::{Item, Key, KeyRef, Touched};
use super::change;
use super::error::CatalogError;
use super::read::{digest, within};
use super::sql::{Arg, Connection};
use super::totals::{read_totals, write_totals};
use super::types::{ChangeKind, Dead, Departed, PurgedRows};
use super::verb::{Effect, Progress, Verb};

/// Manifests, tags or links that one step removes at most. Other changes wait
/// meanwhile.
const STEP: i64 = 100;
/// Rows after which a step begins with no further manifest.
const STEP_ROWS: u64 = 1000;
/// Time after which it does not either.
const STEP_TIME: Duration = Duration::from_millis(10);
/// Remembered names that one step forgets.
const FORGOTTEN: i64 = 500;
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
        while self.step(Verb::ForgetDead(dead.clone())).await? == Progress::Step {}
        Ok(())
    }

    /// Some of the digests that purged rows named, after one, in order.
    ///
    /// # Errors
    /// When it cannot be known.
    pub async fn departed_after(
        &self,
        after: Option<Digest>,
    ) -> std::result::Result<Vec<Digest>, CatalogError> {
        within(async {
            let mut connection = self.reader().await?;
            let after = after.map(|digest| digest.encode()).unwrap_or_default();
            let sql = "SELECT digest FROM departed WHERE digest > $1 ORDER BY digest LIMIT 1000";
            let rows = connection.rows(sql, &[Arg::Bytes(&after)]).await?;
            rows.iter().map(|row| digest(row, 0)).collect()
        })
        .await
    }

    /// Forgets what named blobs that are named again: it explains nothing any
    /// more. At most 1,000 of them.
    ///
    /// # Errors
    /// As [`Catalog::put_manifest`].
    pub async fn forget_departed(
        &self,
        digests: &[Digest],
    ) -> std::result::Result<(), CatalogError> {
        let digests = digests.iter().map(|digest| digest.encode()).collect();
        self.submit(Verb::ForgetDeparted(digests)).await.map(|_| ())
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
                "DELETE FROM departed WHERE digest IN \
                 (SELECT digest FROM departed WHERE purged_at < $1 LIMIT $2)",
                &[
                    Arg::Int(now.saturating_sub(DEPARTED_KEPT)),
                    Arg::Int(FORGOTTEN),
                ],
            )
            .await?;
    }
    let mut sequence = None;
    for of in changes.chunk_by(|one, next| one.0 == next.0) {
        let Some((repository, _, _)) = of.first() else {
            continue;
        };
        let of: Vec<_> = of
            .iter()
            .map(|(_, kind, name)| (*kind, name.clone()))
            .collect();
        sequence = Some(change::record(connection, *repository, &of, now).await?);
    }
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
    changes: &mut Vec<(i64, ChangeKind, String)>,
) -> Result<()> {
    let rows = connection
        .rows(
            "SELECT digest FROM manifest WHERE repository = $1 ORDER BY digest LIMIT $2",
            &[Arg::Int(place.id), Arg::Int(STEP)],
        )
        .await?;
    let (mut removed, began) = (0u64, Instant::now());
    for (at, row) in rows.iter().enumerate() {
        // At least one, so that a step which did nothing is the last.
        if at > 0 && (removed >= STEP_ROWS || began.elapsed() >= STEP_TIME) {
            break;
        }
        let digest = row.bytes(0)?;
        match manifest(connection, place, &digest, deleted_at, now).await? {
            Some(edges) => {
                removed = removed.saturating_add(edges);
                purged.manifests = purged.manifests.saturating_add(1);
                changes.push((place.id, ChangeKind::ManifestPurged, text(&digest)));
            }
            None => purged.tags = purged.tags.saturating_add(STEP.unsigned_abs()),
        }
    }
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
    changes.push((place.id, ChangeKind::RepositoryPurged, place.name.clone()));
    Ok(())
}

/// Whether manifest `m` was deleted by then and a purge takes it.
macro_rules! due {
    ($until:literal) => {
        concat!(
            "m.deleted_at <= ",
            $until,
            " AND NOT EXISTS (SELECT 1 FROM tag t WHERE t.manifest = m.digest \
                 AND t.repository + 0 = m.repository AND t.deleted_at IS NULL) \
             AND NOT EXISTS (SELECT 1 FROM edge l JOIN manifest p \
                 ON p.repository = l.repository AND p.digest = l.manifest \
                 AND p.deleted_at IS NULL WHERE l.repository = m.repository \
                 AND l.digest = m.digest AND l.kind = 3)"
        )
    };
}
pub(super) use due;

/// Hidden manifests of repositories that stay, unless an index that is not hidden
/// lists them: who pulls that needs them, so that they stay for an undelete.
async fn manifests(
    connection: &mut Connection,
    until: i64,
    now: i64,
    purged: &mut PurgedRows,
    changes: &mut Vec<(i64, ChangeKind, String)>,
) -> Result<()> {
    let rows = connection
        .rows(
            concat!(
                "SELECT m.repository, r.name, m.digest, m.deleted_at FROM manifest m \
                 JOIN repository r ON r.id = m.repository WHERE ",
                due!("$1"),
                " ORDER BY m.deleted_at LIMIT $2"
            ),
            &[Arg::Int(until), Arg::Int(STEP)],
        )
        .await?;
    let (mut removed, began) = (0u64, Instant::now());
    for (at, row) in rows.iter().enumerate() {
        // At least one, so that a step which did nothing is the last.
        if at > 0 && (removed >= STEP_ROWS || began.elapsed() >= STEP_TIME) {
            break;
        }
        let place = Place {
            id: row.int(0)?,
            name: row.text(1)?,
        };
        let (digest, deleted_at) = (row.bytes(2)?, row.int(3)?);
        match manifest(connection, &place, &digest, deleted_at, now).await? {
            Some(edges) => {
                removed = removed.saturating_add(edges);
                purged.manifests = purged.manifests.saturating_add(1);
                changes.push((place.id, ChangeKind::ManifestPurged, text(&digest)));
            }
            None => purged.tags = purged.tags.saturating_add(STEP.unsigned_abs()),
        }
    }
    Ok(())
}

/// Removes a manifest, and says how many rows went with it. None: it has more
/// tags than one step removes, and stays until they are gone.
async fn manifest(
    connection: &mut Connection,
    place: &Place,
    digest: &[u8],
    deleted_at: i64,
    now: i64,
) -> Result<Option<u64>> {
    let (id, of) = (Arg::Int(place.id), Arg::Bytes(digest));
    // By the manifest alone, as where it is hidden.
    let sql = "SELECT name FROM tag WHERE manifest = $2 AND repository + 0 = $1 LIMIT $3";
    let tags = connection.rows(sql, &[id, of, Arg::Int(STEP)]).await?;
    for tag in &tags {
        tag_row(connection, place.id, &tag.text(0)?).await?;
    }
    if i64::try_from(tags.len()).is_ok_and(|tags| tags >= STEP) {
        return Ok(None);
    }
    let mut totals = read_totals(connection, place.id).await?;
    let sql = "SELECT kind, digest FROM edge WHERE repository = $1 AND manifest = $2";
    let edges = connection.rows(sql, &[id, of]).await?;
    depart(connection, place, digest, digest, (deleted_at, now)).await?;
    for edge in &edges {
        let (kind, target) = (edge.int(0)?, edge.bytes(1)?);
        totals.take_edge(digest, kind, &target);
        match kind {
            CHILD => orphan(connection, CHILD_ORPHANED, place.id, &target, deleted_at).await?,
            CONFIG | LAYER => depart(connection, place, &target, digest, (deleted_at, now)).await?,
            _ => {}
        }
    }
    orphan(connection, REFERRERS_ORPHANED, place.id, digest, deleted_at).await?;
    totals.take_manifest(digest);
    for sql in [
        "DELETE FROM pulled_manifest WHERE repository = $1 AND digest = $2",
        "DELETE FROM edge WHERE repository = $1 AND manifest = $2",
        "DELETE FROM manifest WHERE repository = $1 AND digest = $2",
    ] {
        connection.run(sql, &[id, of]).await?;
    }
    write_totals(connection, place.id, &totals).await?;
    Ok(Some(edges.len() as u64))
}

const CONFIG: i64 = 1;
const LAYER: i64 = 2;
const CHILD: i64 = 3;

const CHILD_ORPHANED: &str = "UPDATE manifest SET orphaned_at = $3 \
    WHERE repository = $1 AND digest = $2 AND COALESCE(orphaned_at, -1) < $3";
const REFERRERS_ORPHANED: &str = "UPDATE manifest SET orphaned_at = $3 \
    WHERE repository = $1 AND subject = $2 AND subject IS NOT NULL AND deleted_at IS NULL \
    AND COALESCE(orphaned_at, -1) < $3";

/// Marks what belonged to a manifest that goes: it may have nothing else.
async fn orphan(
    connection: &mut Connection,
    sql: &'static str,
    repository: i64,
    digest: &[u8],
    at: i64,
) -> Result<()> {
    let arguments = [Arg::Int(repository), Arg::Bytes(digest), Arg::Int(at)];
    connection.run(sql, &arguments).await.map(|_| ())
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

/// Removes links of dead blobs, so many in a step.
pub(super) async fn forget(connection: &mut Connection, dead: &[Dead], now: i64) -> Result<Effect> {
    let mut touched = Vec::new();
    let mut last = None;
    let mut left = FORGOTTEN;
    for blob in dead {
        let encoded = blob.digest.encode();
        let birth = i64::try_from(blob.birth).unwrap_or(i64::MAX);
        let rows = connection
            .rows(
                "SELECT l.repository, r.name FROM link l JOIN repository r \
                 ON r.id = l.repository WHERE l.digest = $1 AND COALESCE(l.birth, -1) <= $2 \
                 LIMIT $3",
                &[Arg::Bytes(&encoded), Arg::Int(birth), Arg::Int(left)],
            )
            .await?;
        for row in &rows {
            let (repository, name) = (row.int(0)?, row.text(1)?);
            let sql = "DELETE FROM link WHERE digest = $1 AND repository = $2";
            let arguments = [Arg::Bytes(&encoded), Arg::Int(repository)];
            connection.run(sql, &arguments).await?;
            let item = Item::Link(&blob.digest);
            touched.push(Touched::Key(Key::from(KeyRef {
                repository: &name,
                item,
            })));
            let change = (ChangeKind::BlobUnlinked, blob.digest.to_string());
            last = Some(change::record(connection, repository, &[change], now).await?);
        }
        left = left.saturating_sub(i64::try_from(rows.len()).unwrap_or(i64::MAX));
        if left <= 0 {
            break;
        }
        let sql = "DELETE FROM departed WHERE digest = $1";
        connection.run(sql, &[Arg::Bytes(&encoded)]).await?;
    }
    Ok(Effect {
        sequence: last,
        touched,
        unfinished: left <= 0,
        ..Effect::default()
    })
}

/// Forgets what named blobs that are named again.
pub(super) async fn forget_departed(
    connection: &mut Connection,
    digests: &[Vec<u8>],
) -> Result<Effect> {
    for digest in digests {
        let sql = "DELETE FROM departed WHERE digest = $1";
        connection.run(sql, &[Arg::Bytes(digest)]).await?;
    }
    Ok(Effect::default())
}

fn text(digest: &[u8]) -> String {
    Digest::decode(digest).map_or_else(|_| "?".to_owned(), |(digest, _)| digest.to_string())
}
