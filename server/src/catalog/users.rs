//! Which names a blob stands behind: for whoever tells of one that is damaged.

use orlop_format::digest::Digest;

use super::Catalog;
use super::error::CatalogError;
use super::read::within;
use super::sql::Arg;

/// Tags that are told of one repository.
const TAGS: i64 = 4;

impl Catalog {
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
