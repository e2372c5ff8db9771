//! What a purge would take, for a plan: rows that are hidden, with what an
//! operator wants to know of them.

use orlop_format::digest::Digest;

use super::Catalog;
use super::error::CatalogError;
use super::purge::due;
use super::read::{whole, within};
use super::sql::{Arg, Row};
use super::types::{Doomed, DoomedRepository};

type Result<T> = std::result::Result<T, CatalogError>;

impl Catalog {
    /// How many manifests a purge takes that were deleted by then, and the first
    /// `n` of them, in the order in which they were deleted. Those of repositories
    /// that were deleted as a whole are not among them.
    ///
    /// # Errors
    /// When it cannot be known.
    pub async fn doomed(&self, until: i64, n: usize) -> Result<(u64, Vec<Doomed>)> {
        within(async {
            let mut connection = self.reader().await?;
            let count = concat!(
                "SELECT count(*) FROM manifest m JOIN repository r ON r.id = m.repository \
                 AND r.deleted_at IS NULL WHERE ",
                due!("$1")
            );
            let count = connection.one(count, &[Arg::Int(until)]).await?.int(0)?;
            let rows = connection
                .rows(
                    concat!(
                        "SELECT r.name, m.digest, COALESCE(m.deleted_at, -1), m.size + \
                         CAST(COALESCE((SELECT SUM(e.size) FROM edge e \
                         WHERE e.repository = m.repository AND e.manifest = m.digest \
                         AND e.kind IN (1, 2)), 0) AS BIGINT), \
                         COALESCE(p.last_pulled, -1), COALESCE(c.pulls_floor, -1) \
                         FROM manifest m JOIN repository r ON r.id = m.repository \
                         AND r.deleted_at IS NULL CROSS JOIN catalog c \
                         LEFT JOIN pulled_manifest p ON p.repository = m.repository \
                         AND p.digest = m.digest WHERE ",
                        due!("$1"),
                        " ORDER BY m.deleted_at LIMIT $2"
                    ),
                    &[Arg::Int(until), most(n)],
                )
                .await?;
            let doomed: Result<_> = rows.iter().map(doomed).collect();
            Ok((count.unsigned_abs(), doomed?))
        })
        .await
    }

    /// How many repositories a purge takes that were deleted by then, and the first
    /// `n` of them.
    ///
    /// # Errors
    /// When it cannot be known.
    pub async fn doomed_repositories(
        &self,
        until: i64,
        n: usize,
    ) -> Result<(u64, Vec<DoomedRepository>)> {
        within(async {
            let mut connection = self.reader().await?;
            let count = "SELECT count(*) FROM repository WHERE deleted_at <= $1";
            let count = connection.one(count, &[Arg::Int(until)]).await?.int(0)?;
            let sql = "SELECT name, COALESCE(deleted_at, -1), manifests FROM repository \
                 WHERE deleted_at <= $1 ORDER BY deleted_at LIMIT $2";
            let mut found = Vec::new();
            for row in connection.rows(sql, &[Arg::Int(until), most(n)]).await? {
                found.push(DoomedRepository {
                    name: row.text(0)?,
                    deleted_at: row.int(1)?,
                    manifests: row.int(2)?.unsigned_abs(),
                });
            }
            Ok((count.unsigned_abs(), found))
        })
        .await
    }

    /// What a plan tells of a manifest that is not hidden. None: it is not there.
    ///
    /// # Errors
    /// When it cannot be known.
    pub async fn weighed(&self, repository: &str, digest: &Digest) -> Result<Option<Doomed>> {
        within(async {
            let mut connection = self.reader().await?;
            let row = connection
                .row(
                    "SELECT r.name, m.digest, CAST(-1 AS BIGINT), m.size + \
                     CAST(COALESCE((SELECT SUM(e.size) FROM edge e \
                     WHERE e.repository = m.repository AND e.manifest = m.digest \
                     AND e.kind IN (1, 2)), 0) AS BIGINT), \
                     COALESCE(p.last_pulled, -1), COALESCE(c.pulls_floor, -1) \
                     FROM repository r JOIN manifest m ON m.repository = r.id \
                     AND m.digest = $2 CROSS JOIN catalog c \
                     LEFT JOIN pulled_manifest p ON p.repository = m.repository \
                     AND p.digest = m.digest WHERE r.name = $1 AND r.deleted_at IS NULL",
                    &[Arg::Text(repository), Arg::Bytes(&digest.encode())],
                )
                .await?;
            row.as_ref().map(doomed).transpose()
        })
        .await
    }
}

fn most(n: usize) -> Arg<'static> {
    Arg::Int(i64::try_from(n).unwrap_or(i64::MAX))
}

fn doomed(row: &Row) -> Result<Doomed> {
    let last_pulled = row.int(4)?.max(row.int(5)?);
    Ok(Doomed {
        repository: row.text(0)?,
        digest: whole(&row.bytes(1)?)?,
        deleted_at: Some(row.int(2)?).filter(|at| *at >= 0),
        bytes: row.int(3)?.unsigned_abs(),
        last_pulled: Some(last_pulled).filter(|at| *at >= 0),
    })
}
