//! Why the catalog did not do what was asked, grouped by what the caller does,
//! and the one place that reads the databases' error codes.
//!
//! Invariant: what is not known to be harmless is not treated as harmless: an
//! unknown failure is never a constraint and never "absent".

use std::path::Path;

use orlop_format::digest::Digest;
use sqlx::postgres::PgDatabaseError;
use sqlx::sqlite::SqliteError;

/// Why the catalog did not do what was asked. The texts are for the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CatalogError {
    /// There is no catalog, and none was to be made.
    #[error(
        "there is no catalog at {place}; `orlop-fsck DIR --repair` makes it again from what the store keeps; or put it back from a backup"
    )]
    Missing {
        /// The file, or the database.
        place: String,
    },
    /// A later release wrote it, and this one may not open it.
    #[error(
        "the catalog needs a release that knows its format {found}, this one knows up to {supported}; start a newer release"
    )]
    Newer {
        /// Format a release must know.
        found: u64,
        /// Highest format this release knows.
        supported: u64,
    },
    /// The change breaks a rule of the schema. Nothing of it was kept.
    #[error("the catalog refused the change: {0}")]
    Refused(String),
    /// A manifest that was to be listed has been deleted for good meanwhile.
    /// Nothing was kept.
    #[error("manifest {0} has been deleted meanwhile; push it again")]
    Gone(Digest),
    /// No room. Nothing of the change was kept; try again when there is room.
    #[error("no room for the catalog: {0}; free space on its device")]
    Full(String),
    /// It cannot be used at the moment: too much to do, or reading, writing or
    /// connecting failed. A change was not kept, or it is not known whether it
    /// was; making it again is safe.
    #[error("the catalog cannot be used now: {0}")]
    Unavailable(String),
    /// Its contents are damaged.
    #[error(
        "the catalog is damaged: {0}; stop the server; `orlop-fsck DIR --repair` makes it again from what the store keeps; or put it back from a backup"
    )]
    Damaged(String),
    /// A write failed earlier, or the writer panicked. Nothing is written until a restart; reads go on.
    #[error("the catalog takes no changes since this: {0}; restart the server")]
    Poisoned(String),
}

impl CatalogError {
    pub(super) fn io(what: &str, path: &Path, error: &std::io::Error) -> CatalogError {
        let reason = format!("cannot {what} {}: {error}", path.display());
        match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                CatalogError::Full(reason)
            }
            _ => CatalogError::Unavailable(reason),
        }
    }

    pub(super) fn damaged(reason: impl Into<String>) -> CatalogError {
        CatalogError::Damaged(reason.into())
    }

    pub(super) fn missing(path: &Path) -> CatalogError {
        CatalogError::Missing {
            place: path.display().to_string(),
        }
    }
}

/// What a database's error means for a batch of changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// A rule of the schema: the change is wrong, the batch is not.
    Constraint,
    /// It may work when done again.
    Again,
    /// No room.
    Full,
    /// Input or output failed where this process is the one to answer for it.
    Io,
    /// The contents are damaged.
    Damaged,
}

/// Sorts an error.
pub(super) fn sort(error: &sqlx::Error) -> Fault {
    if let Some(error) = error.as_database_error() {
        if let Some(error) = error.try_downcast_ref::<SqliteError>() {
            let code = sqlx::error::DatabaseError::code(error);
            return code
                .and_then(|code| code.parse().ok())
                .map_or(Fault::Again, sqlite);
        }
        if let Some(error) = error.try_downcast_ref::<PgDatabaseError>() {
            return postgres(error.code());
        }
    }
    match error {
        // Rows that are not what the schema says they are.
        sqlx::Error::ColumnDecode { .. }
        | sqlx::Error::ColumnIndexOutOfBounds { .. }
        | sqlx::Error::Decode(_)
        | sqlx::Error::TypeNotFound { .. } => Fault::Damaged,
        _ => Fault::Again,
    }
}

/// By SQLite's extended result code.
fn sqlite(code: i32) -> Fault {
    /// Growing the shared memory beside the file failed: no room for it.
    const IOERR_SHMSIZE: i32 = 4874;
    /// Memory, not the disk.
    const IOERR_NOMEM: i32 = 3082;
    match (code, code & 0xff) {
        (IOERR_SHMSIZE, _) | (_, 13) => Fault::Full,
        (IOERR_NOMEM, _) => Fault::Again,
        (_, 19) => Fault::Constraint,
        // READONLY, IOERR, CANTOPEN.
        (_, 8 | 10 | 14) => Fault::Io,
        // CORRUPT, FORMAT, NOTADB.
        (_, 11 | 24 | 26) => Fault::Damaged,
        _ => Fault::Again,
    }
}

/// By SQLSTATE.
fn postgres(state: &str) -> Fault {
    match state {
        "53100" => Fault::Full,
        "XX001" | "XX002" => Fault::Damaged,
        _ if state.starts_with("23") => Fault::Constraint,
        _ => Fault::Again,
    }
}

/// The error of a read.
impl From<sqlx::Error> for CatalogError {
    fn from(error: sqlx::Error) -> CatalogError {
        let reason = error.to_string();
        match sort(&error) {
            Fault::Constraint => CatalogError::Refused(reason),
            Fault::Again | Fault::Io => CatalogError::Unavailable(reason),
            Fault::Full => CatalogError::Full(reason),
            Fault::Damaged => CatalogError::Damaged(reason),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sorts_codes_by_what_a_batch_does() {
        for (code, fault) in [
            (2067, Fault::Constraint),
            (787, Fault::Constraint),
            (5, Fault::Again),
            (517, Fault::Again),
            (7, Fault::Again),
            (1, Fault::Again),
            (13, Fault::Full),
            (4874, Fault::Full),
            (778, Fault::Io),
            (1034, Fault::Io),
            (14, Fault::Io),
            (11, Fault::Damaged),
            (26, Fault::Damaged),
        ] {
            assert_eq!(sqlite(code), fault, "{code}");
        }
        for (state, fault) in [
            ("23505", Fault::Constraint),
            ("40001", Fault::Again),
            ("40P01", Fault::Again),
            ("53100", Fault::Full),
            ("57P01", Fault::Again),
            ("XX001", Fault::Damaged),
        ] {
            assert_eq!(postgres(state), fault, "{state}");
        }
        assert_eq!(sort(&sqlx::Error::PoolTimedOut), Fault::Again);
        assert_eq!(sort(&sqlx::Error::RowNotFound), Fault::Again);
    }
}
