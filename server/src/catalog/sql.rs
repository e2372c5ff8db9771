//! One way to run a statement on either database.
//!
//! Owns: binding of arguments and reading of columns, for the few types the
//! schema has. Statements are the same text for both, with `$1` placeholders.
//!
//! Refuses to know: what statements say.

use sqlx::pool::PoolConnection;
use sqlx::postgres::PgRow;
use sqlx::sqlite::SqliteRow;
use sqlx::{PgPool, Postgres, Row as _, Sqlite, SqlitePool};

type Result<T> = std::result::Result<T, sqlx::Error>;

/// Connections of one kind to one database.
#[derive(Debug, Clone)]
pub(super) enum Pool {
    Sqlite(SqlitePool),
    Postgres(PgPool),
}

impl Pool {
    /// Waits for a connection, for as long as the pool was told to.
    pub(super) async fn acquire(&self) -> Result<Connection> {
        Ok(match self {
            Pool::Sqlite(pool) => Connection::Sqlite(pool.acquire().await?),
            Pool::Postgres(pool) => Connection::Postgres(pool.acquire().await?),
        })
    }

    pub(super) async fn close(&self) {
        match self {
            Pool::Sqlite(pool) => pool.close().await,
            Pool::Postgres(pool) => pool.close().await,
        }
    }
}

/// An argument of a statement.
#[derive(Debug, Clone, Copy)]
pub(super) enum Arg<'a> {
    Int(i64),
    Text(&'a str),
    MaybeText(Option<&'a str>),
    Bytes(&'a [u8]),
    MaybeBytes(Option<&'a [u8]>),
}

/// A connection to either database.
pub(super) enum Connection {
    Sqlite(PoolConnection<Sqlite>),
    Postgres(PoolConnection<Postgres>),
}

macro_rules! query {
    ($database:ty, $sql:expr, $arguments:expr) => {{
        let mut query = sqlx::query::<$database>($sql);
        for argument in $arguments {
            query = match *argument {
                Arg::Int(value) => query.bind(value),
                Arg::Text(value) => query.bind(value),
                Arg::MaybeText(value) => query.bind(value),
                Arg::Bytes(value) => query.bind(value),
                Arg::MaybeBytes(value) => query.bind(value),
            };
        }
        query
    }};
}

impl Connection {
    /// Runs a statement and says how many rows it changed.
    pub(super) async fn run(&mut self, sql: &'static str, arguments: &[Arg<'_>]) -> Result<u64> {
        Ok(match self {
            Connection::Sqlite(connection) => query!(Sqlite, sql, arguments)
                .execute(&mut **connection)
                .await?
                .rows_affected(),
            Connection::Postgres(connection) => query!(Postgres, sql, arguments)
                .execute(&mut **connection)
                .await?
                .rows_affected(),
        })
    }

    /// All rows of a statement. Its text bounds how many there are.
    pub(super) async fn rows(
        &mut self,
        sql: &'static str,
        arguments: &[Arg<'_>],
    ) -> Result<Vec<Row>> {
        Ok(match self {
            Connection::Sqlite(connection) => {
                let rows = query!(Sqlite, sql, arguments).fetch_all(&mut **connection);
                rows.await?.into_iter().map(Row::Sqlite).collect()
            }
            Connection::Postgres(connection) => {
                let rows = query!(Postgres, sql, arguments).fetch_all(&mut **connection);
                rows.await?.into_iter().map(Row::Postgres).collect()
            }
        })
    }

    /// The first row of a statement, if there is one.
    pub(super) async fn row(
        &mut self,
        sql: &'static str,
        arguments: &[Arg<'_>],
    ) -> Result<Option<Row>> {
        Ok(match self {
            Connection::Sqlite(connection) => query!(Sqlite, sql, arguments)
                .fetch_optional(&mut **connection)
                .await?
                .map(Row::Sqlite),
            Connection::Postgres(connection) => query!(Postgres, sql, arguments)
                .fetch_optional(&mut **connection)
                .await?
                .map(Row::Postgres),
        })
    }

    /// Runs statements with a semicolon behind each but the last, all with the
    /// same arguments. SQLite gets them at once: from one thread to the other
    /// and back takes longer than such a statement.
    pub(super) async fn all(&mut self, sql: &'static str, arguments: &[Arg<'_>]) -> Result<()> {
        match self {
            Connection::Sqlite(_) => {
                self.run(sql, arguments).await?;
            }
            Connection::Postgres(_) => {
                for sql in sql.split(';') {
                    self.run(sql, arguments).await?;
                }
            }
        }
        Ok(())
    }

    /// The one row of a statement that always has one.
    pub(super) async fn one(&mut self, sql: &'static str, arguments: &[Arg<'_>]) -> Result<Row> {
        let row = self.row(sql, arguments).await?;
        row.ok_or(sqlx::Error::RowNotFound)
    }

    /// Runs a text of several statements without arguments.
    pub(super) async fn script(&mut self, sql: String) -> Result<()> {
        let script = sqlx::raw_sql(sqlx::AssertSqlSafe(sql));
        match self {
            Connection::Sqlite(connection) => {
                script.execute(&mut **connection).await?;
            }
            Connection::Postgres(connection) => {
                script.execute(&mut **connection).await?;
            }
        }
        Ok(())
    }

    /// Ends the connection, and whatever transaction is open on it, when it is
    /// dropped.
    pub(super) fn close_on_drop(&mut self) {
        match self {
            Connection::Sqlite(connection) => connection.close_on_drop(),
            Connection::Postgres(connection) => connection.close_on_drop(),
        }
    }

    /// Gives up the connection and whatever transaction is open on it.
    pub(super) async fn discard(self) {
        // Nothing to do about a failure: the database ends the session anyway.
        let _ = match self {
            Connection::Sqlite(connection) => connection.close().await,
            Connection::Postgres(connection) => connection.close().await,
        };
    }
}

/// A row of either database. Columns are read by their place.
pub(super) enum Row {
    Sqlite(SqliteRow),
    Postgres(PgRow),
}

macro_rules! column {
    ($name:ident, $type:ty) => {
        pub(super) fn $name(&self, place: usize) -> Result<$type> {
            match self {
                Row::Sqlite(row) => row.try_get(place),
                Row::Postgres(row) => row.try_get(place),
            }
        }
    };
}

impl Row {
    column!(int, i64);
    column!(text, String);
    column!(maybe_text, Option<String>);
    column!(bytes, Vec<u8>);
    column!(maybe_bytes, Option<Vec<u8>>);
}
