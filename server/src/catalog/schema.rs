//! The catalog's tables: making them, bringing them up to date, and refusing
//! those of a later release.
//!
//! Migrations are numbered and only ever added. One expands: the release
//! before it still opens the catalog. What contracts comes a release later, by
//! a step of its own, which raises `needs`. So `schema` says how far the
//! catalog is, and `needs` who may open it.

use super::error::CatalogError;
use super::sql::{Arg, Connection};
use super::writer::now;

/// The databases' different words for one thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    Sqlite,
    Postgres,
}

impl Dialect {
    fn words(self) -> [(&'static str, &'static str); 5] {
        match self {
            Dialect::Sqlite => [
                // Numbers are not given twice, so that none is taken for another.
                ("{id}", "INTEGER PRIMARY KEY AUTOINCREMENT"),
                ("{ordinal}", "INTEGER PRIMARY KEY"),
                ("{blob}", "BLOB"),
                ("{text}", "TEXT"),
                ("{clustered}", "WITHOUT ROWID"),
            ],
            Dialect::Postgres => [
                ("{id}", "BIGINT PRIMARY KEY GENERATED ALWAYS AS IDENTITY"),
                ("{ordinal}", "BIGINT PRIMARY KEY"),
                ("{blob}", "BYTEA"),
                ("{text}", "TEXT COLLATE \"C\""),
                ("{clustered}", ""),
            ],
        }
    }
}

/// All migrations, in order; the first has number 1.
const MIGRATIONS: [&str; 6] = [
    include_str!("migrations/0001_names.sql"),
    include_str!("migrations/0002_pulls.sql"),
    include_str!("migrations/0003_lists.sql"),
    include_str!("migrations/0004_jobs.sql"),
    include_str!("migrations/0005_collection.sql"),
    include_str!("migrations/0006_operators.sql"),
];

/// The last migration this release knows.
pub(super) const SUPPORTED: i64 = MIGRATIONS.len() as i64;

/// What the catalog says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) id: [u8; 16],
    pub(super) sequence: i64,
    /// The latest time that it believes, in milliseconds since 1970.
    pub(super) clock: i64,
}

/// Makes the tables of a new catalog. The connection is in a transaction.
pub(super) async fn create(
    connection: &mut Connection,
    dialect: Dialect,
    id: [u8; 16],
) -> Result<(), CatalogError> {
    apply(connection, dialect, 0).await?;
    connection
        .run(
            "INSERT INTO catalog (one, id, sequence, schema, needs) VALUES (1, $1, 0, $2, 1)",
            &[Arg::Bytes(&id), Arg::Int(SUPPORTED)],
        )
        .await?;
    Ok(())
}

/// Checks that this release may open the catalog and brings it up to date.
/// The connection is in a transaction.
pub(super) async fn upgrade(
    connection: &mut Connection,
    dialect: Dialect,
) -> Result<Identity, CatalogError> {
    let (identity, schema) = identify(connection).await?;
    if schema < SUPPORTED {
        apply(connection, dialect, schema).await?;
        connection
            .run(
                "UPDATE catalog SET schema = $1, \
                 untagged_floor = COALESCE(untagged_floor, $2) WHERE one = 1",
                &[Arg::Int(SUPPORTED), Arg::Int(now())],
            )
            .await?;
    }
    let sql = "SELECT COALESCE(clock, -1) FROM catalog WHERE one = 1";
    let clock = connection.one(sql, &[]).await?.int(0)?;
    Ok(Identity { clock, ..identity })
}

/// Reads what the catalog says of itself, and how far it is.
pub(super) async fn identify(connection: &mut Connection) -> Result<(Identity, i64), CatalogError> {
    let row = connection
        .row(
            "SELECT id, sequence, schema, needs FROM catalog WHERE one = 1",
            &[],
        )
        .await?
        .ok_or_else(|| CatalogError::damaged("it does not say which catalog it is"))?;
    let needs = row.int(3)?;
    if needs > SUPPORTED {
        return Err(CatalogError::Newer {
            found: needs.unsigned_abs(),
            supported: SUPPORTED.unsigned_abs(),
        });
    }
    let id = row
        .bytes(0)?
        .try_into()
        .map_err(|_| CatalogError::damaged("its id is not 16 bytes long"))?;
    let identity = Identity {
        id,
        sequence: row.int(1)?,
        clock: i64::MIN,
    };
    Ok((identity, row.int(2)?))
}

async fn apply(
    connection: &mut Connection,
    dialect: Dialect,
    done: i64,
) -> Result<(), CatalogError> {
    let done = usize::try_from(done).unwrap_or(0);
    for migration in MIGRATIONS.iter().skip(done) {
        connection.script(translated(dialect, migration)).await?;
    }
    Ok(())
}

/// A migration in a database's own words.
fn translated(dialect: Dialect, migration: &str) -> String {
    let words = dialect.words();
    words
        .iter()
        .fold(migration.to_owned(), |text, (word, meaning)| {
            text.replace(word, meaning)
        })
}

/// Makes the tables that the first release had.
#[cfg(test)]
pub(super) async fn create_first(
    connection: &mut Connection,
    dialect: Dialect,
    id: [u8; 16],
    sequence: u64,
) -> Result<(), CatalogError> {
    connection
        .script(translated(dialect, MIGRATIONS[0]))
        .await?;
    connection
        .run(
            "INSERT INTO catalog (one, id, sequence, schema, needs) VALUES (1, $1, $2, 1, 1)",
            &[Arg::Bytes(&id), Arg::Int(i64::try_from(sequence).unwrap())],
        )
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_in_braces_is_known() {
        for dialect in [Dialect::Sqlite, Dialect::Postgres] {
            for migration in MIGRATIONS {
                let sql: String = migration
                    .lines()
                    .filter(|line| !line.trim_start().starts_with("--"))
                    .collect();
                let words = dialect.words();
                let left = words
                    .iter()
                    .fold(sql, |sql, (word, meaning)| sql.replace(word, meaning));
                assert!(!left.contains(['{', '}']), "{left}");
            }
        }
    }
}
