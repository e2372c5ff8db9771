//! Which names a blob stands behind: for whoever tells of one that is damaged,
//! or asks what keeps it.

use orlop_format::digest::Digest;

use super::Catalog;
use super::error::CatalogError;
use super::read::{whole, within};
use super::sql::Arg;
use super::types::Reason;

/// Tags that are told of one repository.
const TAGS: i64 = 4;

impl Catalog {
    /// Up to `n` rows that keep a blob: manifests that name it or that it is,
    /// hidden ones too. Reads every reference there is.
    ///
    /// # Errors
    /// When it cannot be known.
    pub async fn kept_by(&self, digest: &Digest, n: usize) -> Result<Vec<Reason>, CatalogError> {
        within(async {
            let encoded = digest.encode();
            let most = Arg::Int(i64::try_from(n).unwrap_or(i64::MAX));
            let mut connection = self.reader().await?;
            let itself = "SELECT r.id, r.name, m.digest, COALESCE(m.deleted_at, r.deleted_at, -1) \
                 FROM manifest m JOIN repository r ON r.id = m.repository \
                 WHERE m.digest = $1 LIMIT $2";
            let named = "SELECT r.id, r.name, m.digest, COALESCE(m.deleted_at, r.deleted_at, -1) \
                 FROM edge e JOIN manifest m ON m.repository = e.repository \
                 AND m.digest = e.manifest JOIN repository r ON r.id = m.repository \
                 WHERE e.digest = $1 LIMIT $2";
            let mut reasons = Vec::new();
            for sql in [itself, named] {
                for row in connection.rows(sql, &[Arg::Bytes(&encoded), most]).await? {
                    let manifest = row.bytes(2)?;
                    let tags = connection
                        .rows(
                            "SELECT name FROM tag WHERE manifest = $2 AND repository + 0 = $1 \
                             AND deleted_at IS NULL ORDER BY name LIMIT $3",
                            &[Arg::Int(row.int(0)?), Arg::Bytes(&manifest), Arg::Int(TAGS)],
                        )
                        .await?;
                    let tags: Result<_, sqlx::Error> = tags.iter().map(|tag| tag.text(0)).collect();
                    reasons.push(Reason {
                        repository: row.text(1)?,
                        manifest: whole(&manifest)?,
                        tags: tags?,
                        deleted_at: Some(row.int(3)?).filter(|at| *at >= 0),
                    });
                }
            }
            reasons.truncate(n);
            Ok(reasons)
        })
        .await
    }

    /// Up to `n` repositories, or `repository:tag`, that use a blob or are a
    /// manifest.
    ///
    /// # Errors
    /// When it cannot be known.
    pub async fn users_of(&self, digest: &Digest, n: usize) -> Result<Vec<String>, CatalogError> {
        let holders = self.holders(digest, n).await?;
        within(async {
            let encoded = digest.encode();
            let mut connection = self.reader().await?;
            let mut users = Vec::new();
            for repository in holders {
                let tags = connection
                    .rows(
                        "SELECT DISTINCT t.name FROM repository r \
                         JOIN edge e ON e.repository = r.id AND e.digest = $2 \
                         JOIN tag t ON t.manifest = e.manifest AND t.repository = r.id \
                         AND t.deleted_at IS NULL \
                         WHERE r.name = $1 AND r.deleted_at IS NULL LIMIT $3",
                        &[Arg::Text(&repository), Arg::Bytes(&encoded), Arg::Int(TAGS)],
                    )
                    .await?;
                for tag in &tags {
                    users.push(format!("{repository}:{}", tag.text(0)?));
                }
                if tags.is_empty() {
                    users.push(repository);
                }
            }
            let most = i64::try_from(n).unwrap_or(i64::MAX);
            let named = connection
                .rows(
                    "SELECT r.name, t.name FROM tag t JOIN repository r ON r.id = t.repository \
                     AND r.deleted_at IS NULL WHERE t.manifest = $1 AND t.deleted_at IS NULL \
                     LIMIT $2",
                    &[Arg::Bytes(&encoded), Arg::Int(most)],
                )
                .await?;
            for row in &named {
                users.push(format!("{}:{}", row.text(0)?, row.text(1)?));
            }
            users.truncate(n);
            Ok(users)
        })
        .await
    }
}
