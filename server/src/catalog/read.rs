//! Lookups and lists.
//!
//! Invariants: reads go over connections that cannot write; none lasts longer
//! than [`READ_TIME`]; every list has an upper bound and comes from an ordered
//! index, by the last key seen.

use std::future::Future;
use std::sync::atomic::Ordering;
use std::time::Duration;

use orlop_format::digest::Digest;
use orlop_oci::Reference;

use super::Catalog;
use super::cache::{Found, Item, KeyRef};
use super::change;
use super::error::CatalogError;
use super::schema::Dialect;
use super::sql::{Arg, Row};
use super::totals::Totals;
use super::types::{Change, ManifestRow, Referrer};

/// Longest read. Older rows cannot be removed from the write-ahead file while
/// it runs.
pub const READ_TIME: Duration = Duration::from_secs(30);
/// Most rows of one list.
pub const PAGE_MAX: usize = 10_000;

type Result<T> = std::result::Result<T, CatalogError>;

impl Catalog {
    /// The manifest of a tag or digest, if the repository has it.
    ///
    /// # Errors
    /// When it cannot be known.
    pub async fn manifest(
        &self,
        repository: &str,
        reference: &Reference,
    ) -> Result<Option<ManifestRow>> {
        let item = match reference {
            Reference::Tag(tag) => Item::Tag(tag.as_str()),
            Reference::Digest(digest) => Item::Manifest(digest),
        };
        let key = KeyRef { repository, item };
        if let Some(Found::Manifest(row)) = self.shared().cache.get(&key) {
            self.inner.hits.fetch_add(1, Ordering::Relaxed);
            return Ok(Some(row));
        }
        // Before the read begins: what is committed later may not be in it.
        let sequence = self.sequence();
        let row = within(self.find_manifest(repository, reference)).await?;
        #[cfg(test)]
        self.shared().at("answered")?;
        if let Some(row) = &row {
            let found = Found::Manifest(row.clone());
            self.shared().cache.fill(key, found, sequence);
        }
        Ok(row)
    }

    async fn find_manifest(
        &self,
        repository: &str,
        reference: &Reference,
    ) -> Result<Option<ManifestRow>> {
        self.inner.misses.fetch_add(1, Ordering::Relaxed);
        let mut connection = self.row_reader().await?;
        let row = match reference {
            Reference::Tag(tag) => {
                let sql = "SELECT m.digest, m.media_type, m.size FROM repository r \
                    JOIN tag t ON t.repository = r.id AND t.name = $2 AND t.deleted_at IS NULL \
                    JOIN manifest m ON m.repository = r.id AND m.digest = t.manifest \
                    AND m.deleted_at IS NULL \
                    WHERE r.name = $1 AND r.deleted_at IS NULL";
                let arguments = [Arg::Text(repository), Arg::Text(tag.as_str())];
                connection.row(sql, &arguments).await?
            }
            Reference::Digest(digest) => {
                let sql = "SELECT m.digest, m.media_type, m.size FROM repository r \
                    JOIN manifest m ON m.repository = r.id AND m.digest = $2 \
                    AND m.deleted_at IS NULL \
                    WHERE r.name = $1 AND r.deleted_at IS NULL";
                let arguments = [Arg::Text(repository), Arg::Bytes(&digest.encode())];
                connection.row(sql, &arguments).await?
            }
        };
        let Some(row) = row else { return Ok(None) };
        Ok(Some(ManifestRow {
            digest: digest(&row, 0)?,
            media_type: row.text(1)?,
            size: row.int(2)?.unsigned_abs(),
        }))
    }

    /// Whether the repository has this blob.
    ///
    /// # Errors
    /// When it cannot be known.
    pub async fn blob_linked(&self, repository: &str, digest: &Digest) -> Result<bool> {
        let item = Item::Link(digest);
        let key = KeyRef { repository, item };
        if let Some(Found::Linked) = self.shared().cache.get(&key) {
            self.inner.hits.fetch_add(1, Ordering::Relaxed);
            return Ok(true);
        }
        let sequence = self.sequence();
        let linked = within(self.find_link(repository, digest)).await?;
        #[cfg(test)]
        self.shared().at("answered")?;
        if linked {
            self.shared().cache.fill(key, Found::Linked, sequence);
        }
        Ok(linked)
    }

    async fn find_link(&self, repository: &str, digest: &Digest) -> Result<bool> {
        self.inner.misses.fetch_add(1, Ordering::Relaxed);
        let mut connection = self.row_reader().await?;
        let row = connection
            .row(
                "SELECT l.size FROM repository r \
                 JOIN link l ON l.repository = r.id AND l.digest = $2 \
                 WHERE r.name = $1 AND r.deleted_at IS NULL",
                &[Arg::Text(repository), Arg::Bytes(&digest.encode())],
            )
            .await?;
        Ok(row.is_some())
    }

    /// Up to `n` repositories that have this blob, in no order.
    ///
    /// # Errors
    /// When it cannot be known.
    pub async fn holders(&self, digest: &Digest, n: usize) -> Result<Vec<String>> {
        within(async {
            let mut connection = self.row_reader().await?;
            let rows = connection
                .rows(
                    "SELECT r.name FROM link l JOIN repository r ON r.id = l.repository \
                     AND r.deleted_at IS NULL \
                     WHERE l.digest = $1 LIMIT $2",
                    &[Arg::Bytes(&digest.encode()), Arg::Int(page(n))],
                )
                .await?;
            let names: std::result::Result<_, sqlx::Error> =
                rows.iter().map(|row| row.text(0)).collect();
            Ok(names?)
        })
        .await
    }

    /// Up to `n` tags after `last`, in byte order. None: no such repository.
    ///
    /// # Errors
    /// When it cannot be known.
    pub async fn tags(
        &self,
        repository: &str,
        last: Option<&str>,
        n: usize,
    ) -> Result<Option<Vec<String>>> {
        within(async {
            let mut connection = self.row_reader().await?;
            let Some(id) = connection.row(REPOSITORY, &[Arg::Text(repository)]).await? else {
                return Ok(None);
            };
            let rows = connection
                .rows(
                    "SELECT name FROM tag WHERE repository = $1 AND name > $2 \
                     AND deleted_at IS NULL ORDER BY name LIMIT $3",
                    &[
                        Arg::Int(id.int(0)?),
                        Arg::Text(last.unwrap_or_default()),
                        Arg::Int(page(n)),
                    ],
                )
                .await?;
            let tags: std::result::Result<_, sqlx::Error> =
                rows.iter().map(|row| row.text(0)).collect();
            Ok(Some(tags?))
        })
        .await
    }

    /// Up to `n` repositories after `last`, in byte order of their names.
    ///
    /// # Errors
    /// When it cannot be known.
    pub async fn repositories(&self, last: Option<&str>, n: usize) -> Result<Vec<String>> {
        within(async {
            let mut connection = self.row_reader().await?;
            let rows = connection
                .rows(
                    "SELECT name FROM repository WHERE name > $1 AND deleted_at IS NULL \
                     ORDER BY name LIMIT $2",
                    &[Arg::Text(last.unwrap_or_default()), Arg::Int(page(n))],
                )
                .await?;
            let names: std::result::Result<_, sqlx::Error> =
                rows.iter().map(|row| row.text(0)).collect();
            Ok(names?)
        })
        .await
    }

    /// Manifests whose subject is this one, after the digest `last`, in the
    /// order of their digests; of one artifact type if it is given. Up to `n`
    /// of them, and at least one but otherwise none that would bring their
    /// manifests' sizes, which bound those of their annotations, over `bytes`.
    /// With the digest after which there are more, if there are.
    ///
    /// # Errors
    /// When it cannot be known.
    pub async fn referrers(
        &self,
        repository: &str,
        subject: &Digest,
        artifact_type: Option<&str>,
        last: Option<&Digest>,
        (n, bytes): (usize, u64),
    ) -> Result<(Vec<Referrer>, Option<Digest>)> {
        within(async {
            let mut connection = self.reader().await?;
            let id = match n {
                0 => None,
                _ => connection.row(REPOSITORY, &[Arg::Text(repository)]).await?,
            };
            let Some(id) = id else {
                return Ok((Vec::new(), None));
            };
            let (id, subject) = (Arg::Int(id.int(0)?), subject.encode());
            let last = last.map(Digest::encode).unwrap_or_default();
            let of = artifact_type.map(Arg::Text);
            let statement = |plain, of_type| of.map_or(plain, |_| of_type);
            // One more, to see whether there are more.
            let most = Arg::Int(page(n).saturating_add(1));
            let mut arguments = vec![id, Arg::Bytes(&subject), Arg::Bytes(&last), most];
            arguments.extend(of);
            let sql = statement(REFERRER_SIZES, REFERRER_SIZES_OF_TYPE);
            let sizes = connection.rows(sql, &arguments).await?;
            let (mut fitting, mut total) = (0usize, 0u64);
            for size in sizes.iter().take(n) {
                total = total.saturating_add(size.int(1)?.unsigned_abs());
                if fitting > 0 && total > bytes {
                    break;
                }
                fitting = fitting.saturating_add(1);
            }
            let Some(end) = fitting.checked_sub(1).and_then(|at| sizes.get(at)) else {
                return Ok((Vec::new(), None));
            };
            // All up to that digest, also those that came since.
            let end_bytes = end.bytes(0)?;
            let end = digest(end, 0)?;
            let most = Arg::Int(page(n));
            let mut arguments = vec![
                id,
                Arg::Bytes(&subject),
                Arg::Bytes(&last),
                most,
                Arg::Bytes(&end_bytes),
            ];
            arguments.extend(of);
            let sql = statement(REFERRERS, REFERRERS_OF_TYPE);
            let rows = connection.rows(sql, &arguments).await?;
            let rows: Vec<Referrer> = rows.iter().map(referrer).collect::<Result<_>>()?;
            let more_after = match rows.last() {
                Some(row) if rows.len() == n && row.digest != end => Some(row.digest),
                _ => Some(end).filter(|_| sizes.len() > fitting),
            };
            Ok((rows, more_after))
        })
        .await
    }

    /// Up to `n` changes after a sequence, in order. The oldest are forgotten:
    /// if the first is not `sequence + 1`, there is a gap.
    ///
    /// # Errors
    /// When it cannot be known.
    pub async fn changes(&self, sequence: u64, n: usize) -> Result<Vec<Change>> {
        within(async {
            let mut connection = self.row_reader().await?;
            let sequence = i64::try_from(sequence).unwrap_or(i64::MAX);
            Ok(change::after(&mut connection, sequence, page(n)).await?)
        })
        .await
    }

    /// The totals kept for a repository, and those counted from its rows, from
    /// one state. They differ if rows were lost. None: no such repository.
    ///
    /// # Errors
    /// When it cannot be known.
    pub async fn totals(&self, repository: &str) -> Result<Option<(Totals, Totals)>> {
        within(async {
            let mut connection = self.row_reader().await?;
            // The transaction ends with the connection, however this ends.
            connection.close_on_drop();
            let begin = match self.inner.dialect {
                Dialect::Sqlite => "BEGIN",
                Dialect::Postgres => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
            };
            connection.run(begin, &[]).await?;
            let row = connection
                .row(
                    "SELECT id, manifests, manifest_sum, edges, edge_sum FROM repository \
                     WHERE name = $1 AND deleted_at IS NULL",
                    &[Arg::Text(repository)],
                )
                .await?;
            let Some(row) = row else { return Ok(None) };
            let kept = Totals {
                manifests: row.int(1)?,
                manifest_sum: row.int(2)?,
                edges: row.int(3)?,
                edge_sum: row.int(4)?,
            };
            let counted = Totals::count(&mut connection, row.int(0)?).await?;
            Ok(Some((kept, counted)))
        })
        .await
    }
}

// Sizes come from the index alone.
const REFERRER_SIZES: &str = "SELECT digest, size FROM manifest \
    WHERE repository = $1 AND subject = $2 AND digest > $3 \
    AND deleted_at IS NULL ORDER BY digest LIMIT $4";
const REFERRER_SIZES_OF_TYPE: &str = "SELECT digest, size FROM manifest \
    WHERE repository = $1 AND subject = $2 AND digest > $3 AND artifact_type = $5 \
    AND deleted_at IS NULL ORDER BY digest LIMIT $4";
const REFERRERS: &str = "SELECT digest, media_type, artifact_type, size, annotations \
    FROM manifest WHERE repository = $1 AND subject = $2 AND digest > $3 AND digest <= $5 \
    AND deleted_at IS NULL ORDER BY digest LIMIT $4";
const REFERRERS_OF_TYPE: &str = "SELECT digest, media_type, artifact_type, size, annotations \
    FROM manifest WHERE repository = $1 AND subject = $2 AND digest > $3 AND digest <= $5 \
    AND artifact_type = $6 \
    AND deleted_at IS NULL ORDER BY digest LIMIT $4";
const REPOSITORY: &str = "SELECT id FROM repository WHERE name = $1 AND deleted_at IS NULL";

/// Ends a read that takes too long.
pub(super) async fn within<T>(read: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::time::timeout(READ_TIME, read)
        .await
        .unwrap_or_else(|_| {
            Err(CatalogError::Unavailable(format!(
                "a read took longer than {} s",
                READ_TIME.as_secs()
            )))
        })
}

fn page(n: usize) -> i64 {
    i64::try_from(n.min(PAGE_MAX)).unwrap_or(i64::MAX)
}

pub(super) fn digest(row: &Row, place: usize) -> Result<Digest> {
    whole(&row.bytes(place)?)
}

/// The digest that these bytes are, all of them.
pub(super) fn whole(bytes: &[u8]) -> Result<Digest> {
    match Digest::decode(bytes) {
        Ok((digest, used)) if used == bytes.len() => Ok(digest),
        _ => Err(CatalogError::damaged(
            "a row holds a digest of a wrong form",
        )),
    }
}

fn referrer(row: &Row) -> Result<Referrer> {
    Ok(Referrer {
        digest: digest(row, 0)?,
        media_type: row.text(1)?,
        artifact_type: row.maybe_text(2)?,
        size: row.int(3)?.unsigned_abs(),
        annotations: row.maybe_text(4)?,
    })
}
