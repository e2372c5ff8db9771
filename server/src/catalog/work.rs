//! How much SQLite does for a catalog, in instructions of its machine: for tests
//! of what grows with what. A row that is looked at costs a few of them.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use sqlx::sqlite::SqlitePoolOptions;

/// Files whose catalogs are watched, with what was done.
static WATCHED: Mutex<Vec<(PathBuf, Arc<AtomicU64>)>> = Mutex::new(Vec::new());

/// Counts for a catalog that is opened after this.
pub(crate) fn watch(path: &Path) -> Arc<AtomicU64> {
    let count = Arc::new(AtomicU64::new(0));
    let mut watched = WATCHED.lock().unwrap_or_else(PoisonError::into_inner);
    watched.push((path.to_owned(), Arc::clone(&count)));
    count
}

/// Connections that count, if their file is watched.
pub(super) fn counted(pool: SqlitePoolOptions, path: &Path) -> SqlitePoolOptions {
    let watched = WATCHED.lock().unwrap_or_else(PoisonError::into_inner);
    let found = watched.iter().find(|(of, _)| of == path);
    let Some(count) = found.map(|(_, count)| Arc::clone(count)) else {
        return pool;
    };
    pool.after_connect(move |connection, _| {
        let count = Arc::clone(&count);
        Box::pin(async move {
            let mut handle = connection.lock_handle().await?;
            handle.set_progress_handler(1, move || {
                count.fetch_add(1, Ordering::Relaxed);
                true
            });
            Ok(())
        })
    })
}
