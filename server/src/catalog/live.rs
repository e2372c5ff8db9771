//! The live set: every digest that a row names, hidden rows too.
//!
//! Invariants: the rows of a repository are read from one state of the
//! database and compared with the totals that were written with them; a
//! repository whose rows are not those that were written ends the reading. A
//! row that is there all the while is read: keys do not change, and what comes
//! meanwhile is held by whoever brings it.
//!
//! Refuses to know: blobs, and what the set is for.

use orlop_format::digest::Digest;

use super::Catalog;
use super::error::CatalogError;
use super::purge::due;
use super::read::{whole, within};
use super::schema::Dialect;
use super::sql::{Arg, Connection};
use super::totals::Totals;

/// Rows in one read.
const PAGE: i64 = 4096;
/// Digests that are given at once, about.
const GIVEN: usize = 4096;

type Result<T> = std::result::Result<T, CatalogError>;

/// The live set while it is read.
pub struct LiveSet {
    catalog: Catalog,
    connection: Option<Connection>,
    /// The last repository that was read to its end.
    after: i64,
    current: Option<Current>,
    /// Manifests that a purge takes which were deleted by this time are left out.
    without: Option<i64>,
}

/// A repository that is being read.
struct Current {
    id: i64,
    name: String,
    kept: Totals,
    counted: Totals,
    /// As if it were purged.
    is_left_out: bool,
    part: Part,
}

enum Part {
    /// The last digest of the last page.
    Manifests(Vec<u8>),
    /// Manifest, kind and digest of the last edge.
    Edges(Vec<u8>, i64, Vec<u8>),
}

impl Catalog {
    /// The live set. `without`: as if a purge of what was deleted at this time
    /// or earlier, in milliseconds since 1970, had been done already.
    #[must_use]
    pub fn live_set(&self, without: Option<i64>) -> LiveSet {
        LiveSet {
            catalog: self.clone(),
            connection: None,
            after: i64::MIN,
            current: None,
            without,
        }
    }
}

impl LiveSet {
    /// Some more digests, each as often as rows name it; None at the end.
    ///
    /// # Errors
    /// When rows cannot be read, or are not those that were written.
    pub async fn next(&mut self) -> Result<Option<Vec<Digest>>> {
        let mut given = Vec::with_capacity(GIVEN);
        while given.len() < GIVEN {
            let Some(current) = self.current.take() else {
                // Whoever takes them pauses, and no state of the database is
                // held between two repositories.
                if given.len() >= GIVEN / 2 {
                    break;
                }
                match within(self.open()).await? {
                    Some(current) => self.current = Some(current),
                    None if given.is_empty() => return Ok(None),
                    None => break,
                }
                continue;
            };
            self.current = within(self.page(current, &mut given)).await?;
        }
        Ok(Some(given))
    }

    /// Ends the reading of a set that was read to its end. The sequence of the
    /// last change that it may have in it.
    ///
    /// # Errors
    /// When there are manifests without a repository, so that they were not in
    /// the set.
    pub async fn end(mut self) -> Result<u64> {
        let mut connection = self.connection().await?;
        within(async {
            let lost = "SELECT m.repository FROM manifest m WHERE NOT EXISTS \
                 (SELECT 1 FROM repository r WHERE r.id = m.repository) LIMIT 1";
            if let Some(row) = connection.row(lost, &[]).await? {
                let id = row.int(0)?;
                return Err(CatalogError::damaged(format!(
                    "there are manifests of a repository with number {id}, and no such repository"
                )));
            }
            let sql = "SELECT sequence FROM catalog WHERE one = 1";
            Ok(connection.one(sql, &[]).await?.int(0)?.unsigned_abs())
        })
        .await
    }

    async fn connection(&mut self) -> Result<Connection> {
        match self.connection.take() {
            Some(connection) => Ok(connection),
            None => {
                let mut connection = self.catalog.reader().await?;
                // Whatever transaction is open ends with it.
                connection.close_on_drop();
                Ok(connection)
            }
        }
    }

    /// Begins with the next repository.
    async fn open(&mut self) -> Result<Option<Current>> {
        let mut connection = self.connection().await?;
        let begin = match self.catalog.inner.dialect {
            Dialect::Sqlite => "BEGIN",
            Dialect::Postgres => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
        };
        connection.run(begin, &[]).await?;
        if self.catalog.inner.dialect == Dialect::Postgres {
            // Blobs are looked up between two pages.
            let sql = "SET LOCAL idle_in_transaction_session_timeout = 0";
            connection.run(sql, &[]).await?;
        }
        let row = connection
            .row(
                "SELECT id, name, manifests, manifest_sum, edges, edge_sum, \
                 COALESCE(deleted_at, 9223372036854775807) FROM repository \
                 WHERE id > $1 ORDER BY id LIMIT 1",
                &[Arg::Int(self.after)],
            )
            .await?;
        let Some(row) = row else {
            connection.run("COMMIT", &[]).await?;
            self.connection = Some(connection);
            return Ok(None);
        };
        self.connection = Some(connection);
        let deleted_at = row.int(6)?;
        Ok(Some(Current {
            id: row.int(0)?,
            name: row.text(1)?,
            kept: Totals {
                manifests: row.int(2)?,
                manifest_sum: row.int(3)?,
                edges: row.int(4)?,
                edge_sum: row.int(5)?,
            },
            counted: Totals::default(),
            is_left_out: self.without.is_some_and(|until| deleted_at <= until),
            part: Part::Manifests(Vec::new()),
        }))
    }

    /// Reads a page. None: the repository is at its end.
    async fn page(
        &mut self,
        mut current: Current,
        given: &mut Vec<Digest>,
    ) -> Result<Option<Current>> {
        let mut connection = self.connection().await?;
        let next = match &current.part {
            Part::Manifests(after) => {
                let after = after.clone();
                self.manifests(&mut connection, &mut current, &after, given)
                    .await?
            }
            Part::Edges(manifest, kind, digest) => {
                let after = (manifest.clone(), *kind, digest.clone());
                self.edges(&mut connection, &mut current, after, given)
                    .await?
            }
        };
        if let Some(part) = next {
            self.connection = Some(connection);
            current.part = part;
            return Ok(Some(current));
        }
        connection.run("COMMIT", &[]).await?;
        self.connection = Some(connection);
        if current.counted != current.kept {
            return Err(CatalogError::damaged(format!(
                "repository {} (number {}) has other rows than were written: {} manifests and {} references where {} and {} are to be, or as many with another sum",
                current.name,
                current.id,
                current.counted.manifests,
                current.counted.edges,
                current.kept.manifests,
                current.kept.edges,
            )));
        }
        self.after = current.id;
        Ok(None)
    }

    async fn manifests(
        &self,
        connection: &mut Connection,
        current: &mut Current,
        after: &[u8],
        given: &mut Vec<Digest>,
    ) -> Result<Option<Part>> {
        let sql = match self.without {
            None => {
                "SELECT m.digest, CAST(1 AS BIGINT) FROM manifest m \
                 WHERE m.repository = $1 AND m.digest > $2 ORDER BY m.digest LIMIT $3"
            }
            Some(_) => concat!(
                "SELECT m.digest, CASE WHEN ",
                due!("$4"),
                " THEN CAST(0 AS BIGINT) ELSE CAST(1 AS BIGINT) END FROM manifest m \
                 WHERE m.repository = $1 AND m.digest > $2 ORDER BY m.digest LIMIT $3"
            ),
        };
        let mut arguments = vec![Arg::Int(current.id), Arg::Bytes(after), Arg::Int(PAGE)];
        arguments.extend(self.without.map(Arg::Int));
        let rows = connection.rows(sql, &arguments).await?;
        let mut last = Vec::new();
        for row in &rows {
            last = row.bytes(0)?;
            current.counted.add_manifest(&last);
            let digest = whole(&last)?;
            if row.int(1)? != 0 && !current.is_left_out {
                given.push(digest);
            }
        }
        Ok(Some(if is_full(rows.len()) {
            Part::Manifests(last)
        } else {
            Part::Edges(Vec::new(), 0, Vec::new())
        }))
    }

    async fn edges(
        &self,
        connection: &mut Connection,
        current: &mut Current,
        (manifest, kind, digest): (Vec<u8>, i64, Vec<u8>),
        given: &mut Vec<Digest>,
    ) -> Result<Option<Part>> {
        let sql = match self.without {
            None => {
                "SELECT manifest, kind, digest, CAST(1 AS BIGINT) FROM edge WHERE repository = $1 \
                 AND (manifest, kind, digest) > ($2, $3, $4) \
                 ORDER BY manifest, kind, digest LIMIT $5"
            }
            Some(_) => concat!(
                "SELECT e.manifest, e.kind, e.digest, CASE WHEN EXISTS (SELECT 1 FROM manifest m \
                 WHERE m.repository = e.repository AND m.digest = e.manifest AND ",
                due!("$6"),
                ") THEN CAST(0 AS BIGINT) ELSE CAST(1 AS BIGINT) END FROM edge e \
                 WHERE e.repository = $1 AND (e.manifest, e.kind, e.digest) > ($2, $3, $4) \
                 ORDER BY e.manifest, e.kind, e.digest LIMIT $5"
            ),
        };
        let mut arguments = vec![
            Arg::Int(current.id),
            Arg::Bytes(&manifest),
            Arg::Int(kind),
            Arg::Bytes(&digest),
            Arg::Int(PAGE),
        ];
        arguments.extend(self.without.map(Arg::Int));
        let rows = connection.rows(sql, &arguments).await?;
        let mut last = None;
        for row in &rows {
            let (manifest, kind, target) = (row.bytes(0)?, row.int(1)?, row.bytes(2)?);
            current.counted.add_edge(&manifest, kind, &target);
            let digest = whole(&target)?;
            if row.int(3)? != 0 && !current.is_left_out {
                given.push(digest);
            }
            last = Some(Part::Edges(manifest, kind, target));
        }
        Ok(last.filter(|_| is_full(rows.len())))
    }
}

fn is_full(rows: usize) -> bool {
    i64::try_from(rows).is_ok_and(|rows| rows >= PAGE)
}
