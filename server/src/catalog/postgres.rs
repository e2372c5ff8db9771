//! The catalog in a PostgreSQL database, version 15 or newer.
//!
//! Invariants: every change is one SERIALIZABLE transaction; commits wait for
//! the disk; readers cannot write; no statement runs longer than 30 s,
//! but for a migration's.
//!
//! One process writes so far: caches of other nodes are not told.

use std::str::FromStr;
use std::time::Duration;

use sqlx::ConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use super::error::CatalogError;
use super::schema::{self, Dialect, Identity};
use super::sql::{Arg, Connection, Pool};
use super::sqlite::WRITER_STATEMENTS;

/// PostgreSQL 15.0.
const OLDEST: i64 = 150_000;
/// How long a read waits for a free connection.
const ACQUIRE_WAIT: Duration = Duration::from_secs(10);
/// Connections that are not used are closed after this long.
const IDLE: Duration = Duration::from_secs(60);
/// Held while the tables are made, so that two nodes do not: "orlop".
const MAKING_LOCK: i64 = 0x6f_726c_6f70;

type Result<T> = std::result::Result<T, CatalogError>;

/// An open catalog database.
pub(super) struct Opened {
    pub(super) writer: Pool,
    pub(super) readers: Pool,
    pub(super) identity: Identity,
}

/// Opens the catalog in a database; makes its tables first if they are missing
/// and may be made.
pub(super) async fn open(url: &str, create: bool, readers: u32) -> Result<Opened> {
    let plain = PgConnectOptions::from_str(url)
        .map_err(|error| {
            CatalogError::Unavailable(format!(
                "its address is not one of a PostgreSQL database: {error}"
            ))
        })?
        .application_name("orlop")
        .options([
            ("statement_timeout", "30s"),
            ("lock_timeout", "10s"),
            ("idle_in_transaction_session_timeout", "60s"),
            ("synchronous_commit", "on"),
        ])
        .disable_statement_logging();
    let writer = PgPoolOptions::new()
        .max_connections(1)
        .acquire_timeout(ACQUIRE_WAIT)
        .connect_with(plain.clone().statement_cache_capacity(WRITER_STATEMENTS))
        .await?;
    let writer = Pool::Postgres(writer);
    let identity = match check(&writer, &plain, create).await {
        Ok(identity) => identity,
        Err(error) => {
            writer.close().await;
            return Err(error);
        }
    };
    let readers = PgPoolOptions::new()
        .max_connections(readers)
        .idle_timeout(IDLE)
        .acquire_timeout(ACQUIRE_WAIT)
        .connect_lazy_with(plain.options([("default_transaction_read_only", "on")]));
    Ok(Opened {
        writer,
        readers: Pool::Postgres(readers),
        identity,
    })
}

async fn check(pool: &Pool, options: &PgConnectOptions, create: bool) -> Result<Identity> {
    let mut connection = pool.acquire().await?;
    let version = connection
        .one("SELECT current_setting('server_version_num')::bigint", &[])
        .await?
        .int(0)?;
    if version < OLDEST {
        return Err(CatalogError::Unavailable(format!(
            "PostgreSQL {} is too old; 15 or newer is needed",
            version / 10_000
        )));
    }
    connection.run("BEGIN", &[]).await?;
    match prepare(&mut connection, options, create).await {
        Ok(identity) => {
            connection.run("COMMIT", &[]).await?;
            Ok(identity)
        }
        Err(error) => {
            connection.discard().await;
            Err(error)
        }
    }
}

async fn prepare(
    connection: &mut Connection,
    options: &PgConnectOptions,
    create: bool,
) -> Result<Identity> {
    // A new index on a large table takes its time.
    connection
        .run("SET LOCAL statement_timeout = 0", &[])
        .await?;
    connection
        .run("SELECT pg_advisory_xact_lock($1)", &[Arg::Int(MAKING_LOCK)])
        .await?;
    let tables = connection
        .one(
            "SELECT count(*) FROM information_schema.tables \
             WHERE table_schema = current_schema() AND table_name = 'catalog'",
            &[],
        )
        .await?
        .int(0)?;
    if tables == 0 {
        if !create {
            let database = options.get_database().unwrap_or("(default)");
            let host = options.get_host();
            return Err(CatalogError::Missing {
                place: format!("the database {database} on {host}"),
            });
        }
        let mut id = [0; 16];
        getrandom::fill(&mut id).map_err(|error| {
            CatalogError::Unavailable(format!("cannot make an id for the catalog: {error}"))
        })?;
        schema::create(connection, Dialect::Postgres, id).await?;
    }
    schema::upgrade(connection, Dialect::Postgres).await
}
