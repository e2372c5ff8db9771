//! The catalog in a SQLite file: making, opening, checkpoints, copies.
//!
//! Invariants: the file appears whole or not at all. One connection writes;
//! readers cannot. Commits are synced (`synchronous=FULL`). The write-ahead
//! file is emptied by a connection of its own, by size, never by a commit.
//! Nothing in this process opens the file but SQLite: closing any descriptor
//! of it would drop SQLite's locks.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use sqlx::ConnectOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use tokio::sync::watch;

use super::error::{CatalogError, Fault, sort};
use super::schema::{self, Dialect, Identity};
use super::sql::{Arg, Connection, Pool};
use super::writer::Shared;
use crate::supervisor::{Supervisor, blocking};

/// Tells a catalog from other SQLite files: "ORLP".
const APPLICATION_ID: i64 = 0x4f52_4c50;
/// The write-ahead file is emptied when it is this large, in bytes.
const WAL_BYTES: u64 = 32 << 20;
/// Pages that the writer keeps in memory, in KiB: keys are random, so that
/// changes touch all over the tables.
const WRITER_CACHE_KIB: u64 = 32 * 1024;
/// Statements that the writer keeps prepared: more than there are.
pub(super) const WRITER_STATEMENTS: usize = 256;
/// After readers kept it from being emptied, it is left alone this long.
const WAL_REST: Duration = Duration::from_secs(1);
/// How long a statement waits for another connection's lock.
const LOCK_WAIT: Duration = Duration::from_secs(5);
/// Emptying holds up the writer; it waits for readers no longer than this.
const CHECKPOINT_WAIT: Duration = Duration::from_millis(50);
/// How long a read waits for a free connection.
const ACQUIRE_WAIT: Duration = Duration::from_secs(10);
/// Rows that wait for their reader, at most. All of them are collected before
/// any is used, so that this takes no memory more.
const PAGE_ROWS: usize = 1024;
/// Connections that are not used are closed after this long.
const IDLE: Duration = Duration::from_secs(60);

type Result<T> = std::result::Result<T, CatalogError>;

/// An open catalog file.
pub(super) struct Opened {
    pub(super) writer: Pool,
    pub(super) readers: Pool,
    pub(super) checkpointer: Pool,
    pub(super) identity: Identity,
}

/// Opens the file; makes it first if it is missing and may be made.
pub(super) async fn open(path: &Path, create: bool, readers: u32) -> Result<Opened> {
    match path.metadata() {
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            if !create {
                return Err(CatalogError::missing(path));
            }
            make(path).await?;
        }
        Err(error) => return Err(CatalogError::io("look at", path, &error)),
    }
    let write = plain(path)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .pragma("wal_autocheckpoint", "0")
        .pragma("cache_size", format!("-{WRITER_CACHE_KIB}"))
        .statement_cache_capacity(WRITER_STATEMENTS)
        .thread_name(|_| "catalog-writer".to_owned());
    let read = plain(path)
        .read_only(true)
        // A page goes to its reader at once; by fewer rows, the two threads
        // would wake each other again and again.
        .row_buffer_size(PAGE_ROWS)
        .thread_name(|id| format!("catalog-reader-{id}"));
    let checkpoint = plain(path)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(CHECKPOINT_WAIT)
        .pragma("wal_autocheckpoint", "0")
        .thread_name(|_| "catalog-checkpointer".to_owned());
    let writer = one(write).await?;
    let identity = match check(&writer).await {
        Ok(identity) => identity,
        Err(error) => {
            writer.close().await;
            return Err(error);
        }
    };
    let pool = SqlitePoolOptions::new();
    #[cfg(test)]
    let pool = super::work::counted(pool, path);
    let readers = pool
        .max_connections(readers)
        .idle_timeout(IDLE)
        .max_lifetime(None)
        .acquire_timeout(ACQUIRE_WAIT)
        .test_before_acquire(false)
        .connect_lazy_with(read);
    Ok(Opened {
        writer,
        readers: Pool::Sqlite(readers),
        checkpointer: one(checkpoint).await?,
        identity,
    })
}

/// What every connection has.
fn plain(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(false)
        .foreign_keys(true)
        .busy_timeout(LOCK_WAIT)
        .pragma("trusted_schema", "OFF")
        .pragma("cell_size_check", "ON")
        .disable_statement_logging()
}

/// A pool of one connection, which stays open.
async fn one(options: SqliteConnectOptions) -> Result<Pool> {
    let pool = SqlitePoolOptions::new();
    #[cfg(test)]
    let pool = super::work::counted(pool, options.get_filename());
    let pool = pool
        .max_connections(1)
        .idle_timeout(None)
        .max_lifetime(None)
        .acquire_timeout(ACQUIRE_WAIT)
        .test_before_acquire(false)
        .connect_with(options)
        .await?;
    Ok(Pool::Sqlite(pool))
}

/// Makes a new catalog beside its place and moves it there whole.
async fn make(path: &Path) -> Result<()> {
    let wal = beside(path, "-wal");
    if wal.metadata().is_ok_and(|data| data.len() > 0) {
        let wal = wal.display();
        return Err(CatalogError::damaged(format!(
            "{} is missing, but {wal} is there and may hold names",
            path.display()
        )));
    }
    let new = beside(path, ".new");
    remove(&new)?;
    remove(&beside(&new, "-journal"))?;
    let pool = one(plain(&new)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Delete)
        .synchronous(SqliteSynchronous::Full))
    .await?;
    let filled = fill(&pool).await;
    pool.close().await;
    filled?;
    std::fs::rename(&new, path).map_err(|error| CatalogError::io("make", path, &error))?;
    sync_folder(path).await
}

async fn fill(pool: &Pool) -> Result<()> {
    let mut id = [0; 16];
    getrandom::fill(&mut id).map_err(|error| {
        CatalogError::Unavailable(format!("cannot make an id for the catalog: {error}"))
    })?;
    let mut connection = pool.acquire().await?;
    connection.run("BEGIN IMMEDIATE", &[]).await?;
    let pragma = format!("PRAGMA application_id = {APPLICATION_ID}");
    connection.script(pragma).await?;
    schema::create(&mut connection, Dialect::Sqlite, id).await?;
    connection.run("COMMIT", &[]).await?;
    Ok(())
}

/// Checks that the file is a catalog this release may open, and brings it up
/// to date.
async fn check(pool: &Pool) -> Result<Identity> {
    let mut connection = pool.acquire().await?;
    is_catalog(&mut connection).await?;
    connection.run("BEGIN IMMEDIATE", &[]).await?;
    match schema::upgrade(&mut connection, Dialect::Sqlite).await {
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

async fn is_catalog(connection: &mut Connection) -> Result<()> {
    let found = connection.one("PRAGMA application_id", &[]).await?.int(0)?;
    if found == APPLICATION_ID {
        Ok(())
    } else {
        Err(CatalogError::damaged(
            "the file is not a catalog of Orlop (it is empty, or another program's)",
        ))
    }
}

/// Empties the write-ahead file whenever it has grown, until the writer ends.
/// Is started again when it panics.
pub(super) async fn checkpoints(
    pool: Pool,
    path: PathBuf,
    shared: Arc<Shared>,
    commits: watch::Receiver<()>,
    supervisor: Supervisor,
) {
    let wal = beside(&path, "-wal");
    let mut later = commits.clone();
    let ended = async move { while later.changed().await.is_ok() {} };
    let start = || empty_grown(&pool, &wal, &shared, commits.clone());
    supervisor.keep("checkpoints", ended, start).await;
    // What is left in it is durable; this makes the next start shorter.
    if shared.check().is_ok()
        && let Err(error) = checkpoint(&pool, &shared).await
    {
        tracing::debug!(%error, "no checkpoint at the end");
    }
    pool.close().await;
}

async fn empty_grown(pool: &Pool, wal: &Path, shared: &Shared, mut commits: watch::Receiver<()>) {
    let mut rest_until = Instant::now();
    while commits.changed().await.is_ok() {
        #[cfg(test)]
        shared.pass("checkpoints");
        let size = wal.metadata().map_or(0, |data| data.len());
        if size < WAL_BYTES || Instant::now() < rest_until {
            continue;
        }
        match checkpoint(pool, shared).await {
            Ok(true) => {
                shared.checkpoints.fetch_add(1, Ordering::Relaxed);
            }
            Ok(false) => rest_until = Instant::now() + WAL_REST,
            Err(error) => {
                rest_until = Instant::now() + WAL_REST;
                if matches!(sort(&error), Fault::Io | Fault::Damaged) {
                    shared.poison(format!("a checkpoint failed: {error}"));
                    return;
                }
                tracing::warn!(%error, "the catalog's write-ahead file could not be emptied");
            }
        }
    }
}

/// True when the write-ahead file is empty now, false when readers kept it.
async fn checkpoint(pool: &Pool, shared: &Shared) -> std::result::Result<bool, sqlx::Error> {
    let mut connection = pool.acquire().await?;
    // The first does the work without holding up anyone, the second the rest,
    // in its turn.
    connection
        .row("PRAGMA wal_checkpoint(PASSIVE)", &[])
        .await?;
    let _turn = shared.turn.lock().await;
    let row = connection
        .one("PRAGMA wal_checkpoint(TRUNCATE)", &[])
        .await?;
    Ok(row.int(0)? == 0)
}

/// Writes a copy of one state to a file that must not be there, and checks it.
/// Gives back the copy's sequence.
pub(super) async fn copy(path: &Path, to: &Path, id: [u8; 16], sequence: u64) -> Result<u64> {
    if to.try_exists().unwrap_or(true) {
        return Err(CatalogError::Unavailable(format!(
            "cannot copy the catalog to {}: it is there",
            to.display()
        )));
    }
    let part = beside(to, ".part");
    remove(&part)?;
    let copied = copy_part(path, &part, id, sequence).await;
    match copied {
        Ok(sequence) => {
            std::fs::rename(&part, to).map_err(|error| CatalogError::io("write", to, &error))?;
            sync_folder(to).await?;
            Ok(sequence)
        }
        Err(error) => {
            remove(&part)?;
            Err(error)
        }
    }
}

/// Copies a catalog that opening would bring up to date, as it is, to a file
/// that must not be there. None when there is nothing to bring up to date.
pub(super) async fn copy_outdated(path: &Path, to: &Path) -> Result<Option<([u8; 16], u64)>> {
    let pool = one(plain(path).read_only(true)).await?;
    let identified = async {
        let mut connection = pool.acquire().await?;
        is_catalog(&mut connection).await?;
        schema::identify(&mut connection).await
    }
    .await;
    pool.close().await;
    let (Identity { id, sequence, .. }, schema) = identified?;
    if schema >= schema::SUPPORTED {
        return Ok(None);
    }
    let sequence = copy(path, to, id, sequence.unsigned_abs()).await?;
    Ok(Some((id, sequence)))
}

/// Makes a catalog as the first release did.
#[cfg(test)]
pub(super) async fn make_first(path: &Path, id: [u8; 16], sequence: u64) -> Result<()> {
    let pool = one(plain(path).create_if_missing(true)).await?;
    let mut connection = pool.acquire().await?;
    let pragma = format!("PRAGMA application_id = {APPLICATION_ID}");
    connection.script(pragma).await?;
    schema::create_first(&mut connection, Dialect::Sqlite, id, sequence).await?;
    drop(connection);
    pool.close().await;
    Ok(())
}

/// Runs statements on a catalog that is closed.
#[cfg(test)]
pub(super) async fn run_on_file(path: &Path, sql: String) -> Result<()> {
    let pool = one(plain(path)).await?;
    let mut connection = pool.acquire().await?;
    connection.script(sql).await?;
    drop(connection);
    pool.close().await;
    Ok(())
}

/// How many rows a statement counts in a catalog that is closed.
#[cfg(test)]
pub(super) async fn count_on_file(path: &Path, sql: &'static str) -> Result<i64> {
    let pool = one(plain(path)).await?;
    let mut connection = pool.acquire().await?;
    let count = connection.one(sql, &[]).await?.int(0)?;
    drop(connection);
    pool.close().await;
    Ok(count)
}

async fn copy_part(path: &Path, part: &Path, id: [u8; 16], sequence: u64) -> Result<u64> {
    let target = part.to_str().ok_or_else(|| {
        CatalogError::Unavailable(format!("cannot copy to {}: not UTF-8", part.display()))
    })?;
    // A connection of its own: this may take long, and must not take readers.
    let source = one(plain(path).read_only(true)).await?;
    let vacuumed = async {
        let mut connection = source.acquire().await?;
        connection.run("VACUUM INTO $1", &[Arg::Text(target)]).await
    }
    .await;
    source.close().await;
    vacuumed?;
    sync(part).await?;
    let pool = one(plain(part).read_only(true).immutable(true)).await?;
    let verified = verify(&pool, id, sequence).await;
    pool.close().await;
    verified
}

async fn verify(pool: &Pool, id: [u8; 16], sequence: u64) -> Result<u64> {
    let mut connection = pool.acquire().await?;
    is_catalog(&mut connection).await?;
    let verdict = connection.one("PRAGMA integrity_check(1)", &[]).await?;
    let verdict = verdict.text(0)?;
    if verdict != "ok" {
        return Err(CatalogError::damaged(format!("a copy of it: {verdict}")));
    }
    if connection
        .row("PRAGMA foreign_key_check", &[])
        .await?
        .is_some()
    {
        return Err(CatalogError::damaged("a copy of it: a row has no parent"));
    }
    let (found, _) = schema::identify(&mut connection).await?;
    let copied = found.sequence.unsigned_abs();
    if found.id != id || copied < sequence {
        return Err(CatalogError::damaged(format!(
            "a copy of it is of another state: sequence {copied}, expected {sequence} or later"
        )));
    }
    Ok(copied)
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(CatalogError::io("remove", path, &error))
        }
        _ => Ok(()),
    }
}

async fn sync_folder(path: &Path) -> Result<()> {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => sync(folder).await,
        _ => sync(Path::new(".")).await,
    }
}

/// Syncs a file or folder, on a thread that may wait for the disk.
async fn sync(path: &Path) -> Result<()> {
    let to = path.to_owned();
    blocking(move || std::fs::File::open(to)?.sync_all())
        .await
        .map_err(|error| CatalogError::io("sync", path, &error))
}
