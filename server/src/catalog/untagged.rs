//! Manifests that nothing reaches: no tag, no index that lists them, no
//! manifest that they are about.
//!
//! Rows that are hidden and not yet purged reach what they reached: an
//! undelete has to find it whole.

use orlop_format::digest::Digest;

use super::Catalog;
use super::error::CatalogError;
use super::read::{whole, within};
use super::sql::{Arg, Connection};
use super::types::Unreached;
use super::verb::Verb;

/// Rows in one read.
const PAGE: i64 = 128;

type Result<T> = std::result::Result<T, CatalogError>;

/// Where a look over all manifests is: a repository's number and a digest.
pub type Place = (i64, Vec<u8>);

impl Catalog {
    /// Those of the next manifests after a place that belonged to one which was
    /// purged, and of each whether nothing else reaches it; and where to go on,
    /// if there are more.
    ///
    /// # Errors
    /// When it cannot be known.
    pub async fn orphans(
        &self,
        after: Option<Place>,
    ) -> Result<(Vec<(String, Digest, Option<Unreached>)>, Option<Place>)> {
        within(async {
            let (id, digest) = after.unwrap_or((i64::MIN, Vec::new()));
            let mut connection = self.reader().await?;
            let rows = connection
                .rows(
                    "SELECT m.repository, r.name, m.digest FROM manifest m JOIN repository r \
                     ON r.id = m.repository AND r.deleted_at IS NULL \
                     WHERE m.orphaned_at IS NOT NULL AND m.deleted_at IS NULL \
                     AND (m.repository, m.digest) > ($1, $2) \
                     ORDER BY m.repository, m.digest LIMIT $3",
                    &[Arg::Int(id), Arg::Bytes(&digest), Arg::Int(PAGE)],
                )
                .await?;
            let mut found = Vec::with_capacity(rows.len());
            let mut last = None;
            for row in &rows {
                let (name, digest) = (row.text(1)?, row.bytes(2)?);
                let unreached = look(&mut connection, &name, &digest).await?;
                found.push((name, whole(&digest)?, unreached));
                last = Some((row.int(0)?, digest));
            }
            let is_full = i64::try_from(rows.len()).is_ok_and(|rows| rows >= PAGE);
            Ok((found, last.filter(|_| is_full)))
        })
        .await
    }

    /// Whether nothing reaches a manifest, and since when nobody used it.
    ///
    /// # Errors
    /// When it cannot be known.
    pub async fn unreached(&self, repository: &str, digest: &Digest) -> Result<Option<Unreached>> {
        within(async {
            let mut connection = self.reader().await?;
            look(&mut connection, repository, &digest.encode()).await
        })
        .await
    }

    /// Those of the next manifests after a place, in no order that matters,
    /// that nothing reaches; and where to go on, if there are more.
    ///
    /// # Errors
    /// When it cannot be known.
    pub async fn untagged(
        &self,
        after: Option<Place>,
    ) -> Result<(Vec<(String, Digest, Unreached)>, Option<Place>)> {
        within(async {
            let (id, digest) = after.unwrap_or((i64::MIN, Vec::new()));
            let mut connection = self.reader().await?;
            let rows = connection
                .rows(
                    "SELECT m.repository, r.name, m.digest FROM manifest m JOIN repository r \
                     ON r.id = m.repository AND r.deleted_at IS NULL \
                     WHERE (m.repository, m.digest) > ($1, $2) AND m.deleted_at IS NULL \
                     ORDER BY m.repository, m.digest LIMIT $3",
                    &[Arg::Int(id), Arg::Bytes(&digest), Arg::Int(PAGE)],
                )
                .await?;
            let mut found = Vec::new();
            let mut last = None;
            for row in &rows {
                let (name, digest) = (row.text(1)?, row.bytes(2)?);
                if let Some(unreached) = look(&mut connection, &name, &digest).await? {
                    found.push((name, whole(&digest)?, unreached));
                }
                last = Some((row.int(0)?, digest));
            }
            let is_full = i64::try_from(rows.len()).is_ok_and(|rows| rows >= PAGE);
            Ok((found, last.filter(|_| is_full)))
        })
        .await
    }

    /// Says of manifests that what they belonged to before does not matter any
    /// more.
    ///
    /// # Errors
    /// As [`Catalog::put_manifest`].
    pub async fn settle(&self, manifests: Vec<(String, Digest)>) -> Result<()> {
        self.submit(Verb::Settle(manifests)).await.map(|_| ())
    }
}

/// None: something reaches it, or it is not there.
async fn look(
    connection: &mut Connection,
    repository: &str,
    digest: &[u8],
) -> Result<Option<Unreached>> {
    let row = connection
        .row(
            "SELECT m.pushed_at, COALESCE(m.untagged_at, -1), COALESCE(p.last_pulled, -1), \
             COALESCE(c.pulls_floor, -1), COALESCE(m.orphaned_at, -1), \
             COALESCE(c.untagged_floor, -1) \
             FROM repository r JOIN manifest m ON m.repository = r.id AND m.digest = $2 \
             AND m.deleted_at IS NULL CROSS JOIN catalog c \
             LEFT JOIN pulled_manifest p ON p.repository = r.id AND p.digest = m.digest \
             WHERE r.name = $1 AND r.deleted_at IS NULL \
             AND NOT EXISTS (SELECT 1 FROM tag t WHERE t.manifest = m.digest \
                 AND t.repository + 0 = r.id AND t.deleted_at IS NULL) \
             AND NOT EXISTS (SELECT 1 FROM edge e WHERE e.repository = r.id \
                 AND e.digest = m.digest AND e.kind = 3) \
             AND NOT EXISTS (SELECT 1 FROM manifest s WHERE s.repository = r.id \
                 AND s.digest = m.subject)",
            &[Arg::Text(repository), Arg::Bytes(digest)],
        )
        .await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(Unreached {
        used_at: row.int(0)?.max(row.int(1)?).max(row.int(2)?),
        floor: row.int(3)?.max(row.int(5)?),
        orphaned_at: Some(row.int(4)?).filter(|at| *at >= 0),
    }))
}

/// Clears the marks of orphans.
pub(super) async fn settle(
    connection: &mut Connection,
    manifests: &[(String, Digest)],
) -> std::result::Result<super::verb::Effect, sqlx::Error> {
    for (repository, digest) in manifests {
        connection
            .run(
                "UPDATE manifest SET orphaned_at = NULL WHERE digest = $2 AND repository = \
                 (SELECT id FROM repository WHERE name = $1 AND deleted_at IS NULL)",
                &[Arg::Text(repository), Arg::Bytes(&digest.encode())],
            )
            .await?;
    }
    Ok(super::verb::Effect::default())
}
