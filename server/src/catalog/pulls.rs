//! Counts of pulls: written many at a time, read one at a time.
//!
//! They are no change of a name: no change row is written, no cache forgets
//! anything, the sequence stays.

use super::Catalog;
use super::error::CatalogError;
use super::read::within;
use super::sql::{Arg, Connection};
use super::types::{Pull, PullCount, PullOf};
use super::verb::{Effect, Verb};
use orlop_oci::Reference;

/// Counts in one change.
pub const PULLS_MAX: usize = 256;

/// What is written at once.
#[derive(Debug, Clone, Default)]
pub(super) struct Pulls {
    pub(super) counts: Vec<Pull>,
    /// Counts were lost by then, in milliseconds since 1970.
    pub(super) floor: Option<i64>,
    /// This opening of the store ended with all its pulls written.
    pub(super) through: Option<i64>,
}

impl Catalog {
    /// Adds counts of pulls, at most [`PULLS_MAX`]. What is not there any more
    /// is passed over.
    ///
    /// # Errors
    /// As [`Catalog::put_manifest`]; after `Unavailable` it may have been added,
    /// and added again when it is tried again.
    pub async fn add_pulls(&self, counts: Vec<Pull>) -> Result<(), CatalogError> {
        self.submit_pulls(Pulls {
            counts,
            ..Pulls::default()
        })
        .await
    }

    /// Says that counts were lost: whatever is there counts as pulled at this
    /// time, in milliseconds since 1970.
    ///
    /// # Errors
    /// As [`Catalog::put_manifest`].
    pub async fn lost_pulls(&self, at: i64) -> Result<(), CatalogError> {
        self.submit_pulls(Pulls {
            floor: Some(at),
            ..Pulls::default()
        })
        .await
    }

    /// Says that the store's opening of this number ends with all its pulls
    /// written.
    ///
    /// # Errors
    /// As [`Catalog::put_manifest`].
    pub async fn end_pulls(&self, opening: u64) -> Result<(), CatalogError> {
        self.submit_pulls(Pulls {
            through: Some(i64::try_from(opening).unwrap_or(i64::MAX)),
            ..Pulls::default()
        })
        .await
    }

    async fn submit_pulls(&self, pulls: Pulls) -> Result<(), CatalogError> {
        if pulls.counts.len() > PULLS_MAX {
            let text = format!("more than {PULLS_MAX} counts of pulls at once");
            return Err(CatalogError::Refused(text));
        }
        self.submit(Verb::Pulls(Box::new(pulls))).await.map(|_| ())
    }

    /// Which opening of the store was the last that ended with all its pulls
    /// written; None when none did.
    ///
    /// # Errors
    /// When it cannot be known.
    pub async fn pulls_through(&self) -> Result<Option<u64>, CatalogError> {
        within(async {
            let mut connection = self.reader().await?;
            let row = connection
                .one(
                    "SELECT COALESCE(pulls_through, -1) FROM catalog WHERE one = 1",
                    &[],
                )
                .await?;
            Ok(u64::try_from(row.int(0)?).ok())
        })
        .await
    }

    /// How often and when a tag or manifest was pulled last. None: there is
    /// none in this repository.
    ///
    /// # Errors
    /// When it cannot be known.
    pub async fn pulls(
        &self,
        repository: &str,
        reference: &Reference,
    ) -> Result<Option<PullCount>, CatalogError> {
        within(async {
            let mut connection = self.reader().await?;
            let row = match reference {
                Reference::Tag(tag) => {
                    let sql = "SELECT COALESCE(p.pulls, 0), COALESCE(p.last_pulled, -1), \
                        COALESCE(c.pulls_floor, -1) FROM repository r \
                        JOIN tag t ON t.repository = r.id AND t.name = $2 \
                        AND t.deleted_at IS NULL CROSS JOIN catalog c \
                        LEFT JOIN pulled_tag p ON p.repository = r.id AND p.name = t.name \
                        WHERE r.name = $1 AND r.deleted_at IS NULL";
                    let arguments = [Arg::Text(repository), Arg::Text(tag.as_str())];
                    connection.row(sql, &arguments).await?
                }
                Reference::Digest(digest) => {
                    let sql = "SELECT COALESCE(p.pulls, 0), COALESCE(p.last_pulled, -1), \
                        COALESCE(c.pulls_floor, -1) FROM repository r \
                        JOIN manifest m ON m.repository = r.id AND m.digest = $2 \
                        AND m.deleted_at IS NULL CROSS JOIN catalog c \
                        LEFT JOIN pulled_manifest p ON p.repository = r.id \
                        AND p.digest = m.digest \
                        WHERE r.name = $1 AND r.deleted_at IS NULL";
                    let arguments = [Arg::Text(repository), Arg::Bytes(&digest.encode())];
                    connection.row(sql, &arguments).await?
                }
            };
            let Some(row) = row else { return Ok(None) };
            let last = row.int(1)?.max(row.int(2)?);
            Ok(Some(PullCount {
                pulls: row.int(0)?.unsigned_abs(),
                last: Some(last).filter(|last| *last >= 0),
            }))
        })
        .await
    }
}

/// Writes counts. The connection is in a transaction.
pub(super) async fn write(
    connection: &mut Connection,
    pulls: &Pulls,
) -> Result<Effect, sqlx::Error> {
    // Counts of one repository come together.
    let mut found: Option<(&str, Option<i64>)> = None;
    for pull in &pulls.counts {
        let id = match found {
            Some((name, id)) if name == pull.repository => id,
            _ => {
                let row = connection
                    .row(
                        "SELECT id FROM repository WHERE name = $1 AND deleted_at IS NULL",
                        &[Arg::Text(&pull.repository)],
                    )
                    .await?;
                let id = row.map(|row| row.int(0)).transpose()?;
                found = Some((&pull.repository, id));
                id
            }
        };
        if let Some(id) = id {
            add(connection, id, pull).await?;
        }
    }
    if let Some(floor) = pulls.floor {
        connection
            .run(
                "UPDATE catalog SET pulls_floor = $1 \
                 WHERE one = 1 AND COALESCE(pulls_floor, -1) < $1",
                &[Arg::Int(floor)],
            )
            .await?;
    }
    if let Some(through) = pulls.through {
        connection
            .run(
                "UPDATE catalog SET pulls_through = $1 WHERE one = 1",
                &[Arg::Int(through)],
            )
            .await?;
    }
    Ok(Effect::default())
}

async fn add(
    connection: &mut Connection,
    repository: i64,
    pull: &Pull,
) -> Result<u64, sqlx::Error> {
    let count = Arg::Int(i64::try_from(pull.count).unwrap_or(i64::MAX));
    let (repository, last) = (Arg::Int(repository), Arg::Int(pull.last));
    match &pull.of {
        PullOf::Manifest(digest) => {
            let sql = "INSERT INTO pulled_manifest (repository, digest, pulls, last_pulled) \
                SELECT repository, digest, $3, $4 FROM manifest \
                WHERE repository = $1 AND digest = $2 \
                ON CONFLICT (repository, digest) DO UPDATE SET \
                pulls = pulled_manifest.pulls + excluded.pulls, last_pulled = \
                CASE WHEN pulled_manifest.last_pulled < excluded.last_pulled \
                THEN excluded.last_pulled ELSE pulled_manifest.last_pulled END";
            let digest = digest.encode();
            let arguments = [repository, Arg::Bytes(&digest), count, last];
            connection.run(sql, &arguments).await
        }
        PullOf::Tag(tag) => {
            let sql = "INSERT INTO pulled_tag (repository, name, pulls, last_pulled) \
                SELECT repository, name, $3, $4 FROM tag \
                WHERE repository = $1 AND name = $2 \
                ON CONFLICT (repository, name) DO UPDATE SET \
                pulls = pulled_tag.pulls + excluded.pulls, last_pulled = \
                CASE WHEN pulled_tag.last_pulled < excluded.last_pulled \
                THEN excluded.last_pulled ELSE pulled_tag.last_pulled END";
            let arguments = [repository, Arg::Text(tag), count, last];
            connection.run(sql, &arguments).await
        }
    }
}
