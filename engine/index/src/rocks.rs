//! The index on disk: RocksDB without its write-ahead log.
//!
//! Owns: the index folder and all files in it. One column family for each
//! table, and the default family for the index's own two rows: `format` and
//! `watermark`.
//!
//! Invariants: the watermark is written in the batch it belongs to; all tables
//! are flushed together, so what a crash leaves is a prefix of the batches.
//! After a failed write, flush or compaction nothing more is applied. A folder
//! that holds anything is never taken for a new one.
//!
//! Refuses to know: keys, values, the log, and repair: a damaged index is
//! destroyed and made again by its owner.

mod fault;
mod manifest;
mod settings;

use std::io::Write as _;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rocksdb::{Cache, ColumnFamily, ColumnFamilyDescriptor, DB, FlushOptions, ReadOptions};
use rocksdb::{WriteBatch, properties};

use crate::{Batch, Index, IndexError, Result, Table, Visit};
use fault::{Background, MARK, Stage, classify};
pub use settings::Options;

/// Format of the index this release writes, and the highest it reads.
pub const FORMAT: u32 = 1;

const OWN: &str = rocksdb::DEFAULT_COLUMN_FAMILY_NAME;
const FORMAT_KEY: &[u8] = b"format";
const WATERMARK_KEY: &[u8] = b"watermark";

/// An index in a folder of its own.
pub struct Rocks {
    db: DB,
    path: PathBuf,
    cache: Cache,
    background: Background,
    watermark: AtomicU64,
    /// Held while a batch is applied. The failure after which none is.
    poison: Mutex<Option<IndexError>>,
}

impl Rocks {
    /// Opens the index in `path`, or makes a new one where the folder is
    /// missing or empty.
    ///
    /// # Errors
    /// `Damaged` when it must be made again: [`Rocks::destroy`] it first.
    /// `Newer` when a later release wrote it; nothing was changed. `Io`, also
    /// when another process has it open, and `Full`.
    pub fn open(path: &Path, options: &Options) -> Result<Rocks> {
        let fresh = prepare(path)?;
        let background = Background::default();
        let database = settings::database(options, fresh, &background);
        if !fresh {
            check_families(path, &database)?;
        }
        let cache = Cache::new_lru_cache(options.cache_bytes);
        let mut families = vec![ColumnFamilyDescriptor::new(
            OWN,
            settings::own(options, &cache),
        )];
        families.extend(Table::ALL.map(|table| {
            let set = settings::table(table, options, &cache);
            ColumnFamilyDescriptor::new(settings::family(table), set)
        }));
        let db = DB::open_cf_descriptors(&database, path, families)
            .map_err(|error| classify(path, error.as_ref(), Stage::Open))?;
        let index = Rocks {
            db,
            path: path.to_owned(),
            cache,
            background,
            watermark: AtomicU64::new(0),
            poison: Mutex::new(None),
        };
        if fresh {
            index.start()?;
        } else {
            index.resume()?;
        }
        Ok(index)
    }

    /// Removes the index in `path`, in any state, and the folder. A missing
    /// folder is no error.
    ///
    /// # Errors
    /// `Io` when the folder holds a file that is not RocksDB's, nothing being
    /// removed then, or when removing fails.
    pub fn destroy(path: &Path) -> Result<()> {
        let mut names = match names(path) {
            Ok(names) => names,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(io(path, "list the folder", &error)),
        };
        if let Some(stranger) = names.iter().find(|name| !is_ours(name)) {
            return Err(IndexError::Io {
                path: path.to_owned(),
                reason: format!(
                    "not removing it: the file {stranger} in it is not the index's; move it away"
                ),
            });
        }
        // CURRENT first: what is left if this stops half-way is no index.
        names.sort_by_key(|name| name != "CURRENT");
        for name in names {
            std::fs::remove_file(path.join(&name))
                .map_err(|error| io(path, &format!("remove {name}"), &error))?;
        }
        std::fs::remove_dir(path).map_err(|error| io(path, "remove the folder", &error))
    }

    fn start(&self) -> Result<()> {
        let mut batch = WriteBatch::default();
        batch.put_cf(self.family(OWN)?, FORMAT_KEY, FORMAT.to_le_bytes());
        self.write(&mut self.lock(), batch)?;
        self.flush().map(|_| ())
    }

    fn resume(&self) -> Result<()> {
        let format = self.own_row(FORMAT_KEY)?.ok_or_else(|| {
            self.damaged("it has no format number: making it was cut short".to_owned())
        })?;
        let format = <[u8; 4]>::try_from(format.as_slice())
            .map(u32::from_le_bytes)
            .map_err(|_| self.damaged("its format number is not 4 bytes long".to_owned()))?;
        if format > FORMAT {
            return Err(newer(&self.path, format!("format {format}")));
        }
        if let Some(lsn) = self.own_row(WATERMARK_KEY)? {
            let lsn = <[u8; 8]>::try_from(lsn.as_slice())
                .map(u64::from_le_bytes)
                .map_err(|_| self.damaged("its watermark is not 8 bytes long".to_owned()))?;
            self.watermark.store(lsn, Ordering::Release);
        }
        Ok(())
    }

    fn own_row(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.db
            .get_cf(self.family(OWN)?, key)
            .map_err(|error| self.unreadable(&error))
    }

    fn family(&self, name: &str) -> Result<&ColumnFamily> {
        self.db
            .cf_handle(name)
            .ok_or_else(|| self.damaged(format!("the table {name} is missing")))
    }

    fn table(&self, table: Table) -> Result<&ColumnFamily> {
        self.family(settings::family(table))
    }

    fn damaged(&self, reason: String) -> IndexError {
        IndexError::Damaged {
            path: self.path.clone(),
            reason,
        }
    }

    /// A failed read. Damage is marked in the folder: opening looks at few
    /// blocks, and must not take this index for a good one again.
    fn unreadable(&self, error: &rocksdb::Error) -> IndexError {
        let error = classify(&self.path, error.as_ref(), Stage::Read);
        self.mark(&error);
        error
    }

    fn mark(&self, error: &IndexError) {
        let IndexError::Damaged { reason, .. } = error else {
            return;
        };
        // Best effort: the caller gets the error whether this works or not.
        let file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(self.path.join(MARK));
        if let Ok(mut file) = file {
            let _ = writeln!(file, "{reason}").and_then(|()| file.sync_all());
        }
    }

    // The lock guards an Option that is set whole.
    fn lock(&self) -> MutexGuard<'_, Option<IndexError>> {
        self.poison.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Refuses when an earlier write, or work in the background, has failed.
    fn check(&self, poison: &mut Option<IndexError>) -> Result<()> {
        if poison.is_none()
            && let Some(status) = self.background.take()
        {
            return Err(self.failed(poison, &status));
        }
        poison.clone().map_or(Ok(()), Err)
    }

    fn failed(&self, poison: &mut Option<IndexError>, status: &str) -> IndexError {
        let error = classify(&self.path, status, Stage::Write);
        self.mark(&error);
        if !matches!(error, IndexError::Full { .. }) {
            *poison = Some(error.clone());
        }
        error
    }

    fn write(&self, poison: &mut Option<IndexError>, batch: WriteBatch) -> Result<()> {
        self.check(poison)?;
        self.db
            .write_without_wal(batch)
            .map_err(|error| self.failed(poison, error.as_ref()))
    }
}

impl Index for Rocks {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.db
            .get_cf(self.table(table)?, key)
            .map_err(|error| self.unreadable(&error))
    }

    fn multi_get(&self, table: Table, keys: &[Vec<u8>]) -> Result<Vec<Option<Vec<u8>>>> {
        let sorted = false;
        self.db
            .batched_multi_get_cf(self.table(table)?, keys, sorted)
            .into_iter()
            .map(|value| match value {
                Ok(value) => Ok(value.map(|value| value.to_vec())),
                Err(error) => Err(self.unreadable(&error)),
            })
            .collect()
    }

    fn apply(&self, batch: Batch) -> Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        let mut writes = WriteBatch::default();
        for step in &batch.steps {
            let family = self.table(step.table)?;
            match &step.value {
                Some(value) => writes.put_cf(family, &step.key, value),
                None => writes.delete_cf(family, &step.key),
            }
        }
        if let Some(lsn) = batch.watermark {
            writes.put_cf(self.family(OWN)?, WATERMARK_KEY, lsn.to_le_bytes());
        }
        let mut poison = self.lock();
        self.write(&mut poison, writes)?;
        if let Some(lsn) = batch.watermark {
            self.watermark.store(lsn, Ordering::Release);
        }
        Ok(())
    }

    fn scan(&self, table: Table, from: &[u8], visit: &mut Visit<'_>) -> Result<()> {
        let mut options = ReadOptions::default();
        // Rows passed once do not push out those that are asked for by key.
        options.fill_cache(false);
        let mut rows = self.db.raw_iterator_cf_opt(self.table(table)?, options);
        rows.seek(from);
        while let Some((key, value)) = rows.item() {
            if visit(key, value) == ControlFlow::Break(()) {
                return Ok(());
            }
            rows.next();
        }
        rows.status().map_err(|error| self.unreadable(&error))
    }

    fn watermark(&self) -> Result<u64> {
        Ok(self.watermark.load(Ordering::Acquire))
    }

    fn flush(&self) -> Result<u64> {
        let lsn = {
            let mut poison = self.lock();
            self.check(&mut poison)?;
            self.watermark.load(Ordering::Acquire)
        };
        let mut families = vec![self.family(OWN)?];
        for table in Table::ALL {
            families.push(self.table(table)?);
        }
        self.db
            .flush_cfs_opt(&families, &FlushOptions::default())
            .map_err(|error| self.failed(&mut self.lock(), error.as_ref()))?;
        Ok(lsn)
    }

    fn clear(&self, table: Table) -> Result<()> {
        let family = self.table(table)?;
        {
            let mut poison = self.lock();
            let mut rows = self.db.raw_iterator_cf(family);
            rows.seek_to_last();
            let Some(last) = rows.key() else {
                return rows.status().map_err(|error| self.unreadable(&error));
            };
            // A range excludes its end, and keys have no highest value.
            let mut batch = WriteBatch::default();
            batch.delete_range_cf(family, &[] as &[u8], last);
            batch.delete_cf(family, last);
            self.write(&mut poison, batch)?;
        }
        // The rows are gone; this gives their space back.
        self.db
            .compact_range_cf(family, None::<&[u8]>, None::<&[u8]>);
        Ok(())
    }

    /// Blocks in the cache, rows not flushed, and open files.
    fn memory(&self) -> u64 {
        let families = Table::ALL.iter().map(|table| settings::family(*table));
        let held = families.chain([OWN]).filter_map(|name| {
            let family = self.db.cf_handle(name)?;
            let number = |property| self.db.property_int_value_cf(family, property).ok()?;
            let rows = number(properties::CUR_SIZE_ALL_MEM_TABLES).unwrap_or(0);
            let files = number(properties::ESTIMATE_TABLE_READERS_MEM).unwrap_or(0);
            Some(rows.saturating_add(files))
        });
        held.fold(self.cache.get_usage() as u64, u64::saturating_add)
    }
}

impl std::fmt::Debug for Rocks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rocks")
            .field("path", &self.path)
            .field("watermark", &self.watermark)
            .finish_non_exhaustive()
    }
}

/// Makes the folder if it is missing. Tells whether a new index goes into it.
fn prepare(path: &Path) -> Result<bool> {
    std::fs::create_dir_all(path).map_err(|error| io(path, "create the folder", &error))?;
    let names = names(path).map_err(|error| io(path, "list the folder", &error))?;
    // RocksDB leaves its lock file behind when a first open fails early.
    if names.iter().all(|name| name == "LOCK") {
        return Ok(true);
    }
    let damaged = |reason: String| IndexError::Damaged {
        path: path.to_owned(),
        reason,
    };
    match std::fs::read_to_string(path.join(MARK)) {
        Ok(reason) => return Err(damaged(format!("found while reading: {}", reason.trim()))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(io(path, &format!("read {MARK}"), &error)),
    }
    let current = match std::fs::read(path.join("CURRENT")) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(damaged("its file CURRENT is missing".to_owned()));
        }
        Err(error) => return Err(io(path, "read CURRENT", &error)),
    };
    let mut manifests = names.iter().filter(|name| name.starts_with("MANIFEST-"));
    let Some(manifest) = manifests.find(|name| current == format!("{name}\n").as_bytes()) else {
        return Err(damaged(
            "CURRENT names no manifest that is there".to_owned(),
        ));
    };
    let bytes = std::fs::read(path.join(manifest))
        .map_err(|error| io(path, &format!("read {manifest}"), &error))?;
    match manifest::check(&bytes) {
        Ok(()) => Ok(false),
        Err(reason) => Err(damaged(format!("{manifest}: {reason}"))),
    }
}

/// Refuses tables this release does not know before anything is opened for
/// writing.
fn check_families(path: &Path, database: &rocksdb::Options) -> Result<()> {
    let families =
        DB::list_cf(database, path).map_err(|error| classify(path, error.as_ref(), Stage::Open))?;
    let known = |name: &str| {
        let mut tables = Table::ALL.iter();
        name == OWN || tables.any(|table| settings::family(*table) == name)
    };
    match families.iter().find(|name| !known(name)) {
        Some(name) => Err(newer(path, format!("a table {name}"))),
        None => Ok(()),
    }
}

fn newer(path: &Path, found: String) -> IndexError {
    IndexError::Newer {
        path: path.to_owned(),
        found,
        supported: FORMAT,
    }
}

fn io(path: &Path, what: &str, error: &std::io::Error) -> IndexError {
    let reason = format!("cannot {what}: {error}");
    let path = path.to_owned();
    match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
            IndexError::Full { path, reason }
        }
        _ => IndexError::Io { path, reason },
    }
}

fn names(path: &Path) -> std::io::Result<Vec<String>> {
    std::fs::read_dir(path)?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect()
}

/// Whether a file of this name is one that RocksDB or this module writes.
fn is_ours(name: &str) -> bool {
    let numbered = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let prefixed = ["MANIFEST-", "OPTIONS-", "LOG"];
    let suffixed = [".sst", ".log", ".dbtmp"];
    let name = name.strip_suffix(".trash").unwrap_or(name);
    ["CURRENT", "IDENTITY", "LOCK", MARK].contains(&name)
        || prefixed.iter().any(|prefix| name.starts_with(prefix))
        || suffixed
            .iter()
            .any(|suffix| name.strip_suffix(suffix).is_some_and(numbered))
}
