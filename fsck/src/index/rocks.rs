//! The index's RocksDB, opened read-only in a private copy.
//!
//! Tables never change once they are written and the store's lock is held, so
//! the copy links to them; what RocksDB might touch (manifest, options, log)
//! is copied. Nothing is written in the store. The names of column families
//! are those of the format's page and are written here anew: a walker must
//! not believe the code that it checks.

use std::path::Path;

use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamilyDescriptor, DB, DBRawIterator, InfoLogger, LogLevel,
    Options, ReadOptions,
};

use super::manifest;
use crate::file::trouble;
use crate::finding::{Code, Object};
use crate::report::Report;
use crate::scratch::Scratch;
use crate::trouble::{Result, Trouble};

/// The tables, by the names of their column families.
const FAMILIES: [&str; 8] = [
    "meta.1",
    "blob.1",
    "alias.1",
    "upload.1",
    "segment.1",
    "chunk.1",
    "ordinal.1",
    "scratch.1",
];
/// The index's own rows.
const OWN: &str = rocksdb::DEFAULT_COLUMN_FAMILY_NAME;
/// Format that can be read.
const FORMAT: u32 = 1;
/// A file by which the server remembers that a read found damage.
const MARK: &str = "DAMAGED";
/// Memory for blocks, bytes.
const CACHE: usize = 8 << 20;
/// Bytes read at once.
const AHEAD: usize = 2 << 20;
/// Files kept open.
const MAX_OPEN: i32 = 64;

/// The database, and the folder with its copy.
pub(super) struct Database {
    db: DB,
    // Goes behind the database that lies in it.
    _copy: tempfile::TempDir,
}

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Database")
    }
}

/// Rows of a table, in the order of their keys.
pub(super) struct Rows<'a> {
    rows: DBRawIterator<'a>,
    started: bool,
}

impl Database {
    /// Whether there can be one.
    pub(super) const AVAILABLE: bool = true;

    /// Opens the database in `folder` by a copy; also gives its watermark. The
    /// inner error says why it cannot be read.
    pub(super) fn open(
        folder: &Path,
        files: &[String],
        scratch: &Scratch,
        report: &mut Report,
    ) -> Result<std::result::Result<(Self, u64), String>> {
        let damaged = std::fs::read_to_string(folder.join(MARK));
        if let Ok(reason) = damaged {
            return Ok(Err(format!(
                "the server found it damaged: {}",
                reason.trim()
            )));
        }
        let copy = scratch.folder()?;
        for name in files {
            let (from, to) = (folder.join(name), copy.path().join(name));
            if name.ends_with(".sst") {
                let from = std::path::absolute(&from).map_err(trouble("find", &from))?;
                std::os::unix::fs::symlink(&from, &to).map_err(|error| scratch.trouble(error))?;
            } else if is_copied(name) {
                std::fs::copy(&from, &to).map_err(trouble("copy", &from))?;
            } else if name != "LOCK" && !name.starts_with("LOG") && !name.ends_with(".dbtmp") {
                let object = Object::file(format!("index/{name}"));
                report.note(Code::FileForeign, object, "not the store's");
            }
        }
        if let Err(found) = manifest::check(copy.path()) {
            return Ok(Err(found));
        }
        let options = database();
        let families = match DB::list_cf(&options, copy.path()) {
            Ok(families) => families,
            Err(error) => return Ok(Err(error.into_string())),
        };
        let known = |name: &str| name == OWN || FAMILIES.contains(&name);
        if let Some(name) = families.iter().find(|name| !known(name)) {
            return Err(Trouble::Newer(format!("the table {name} of the index")));
        }
        if let Some(name) = FAMILIES
            .iter()
            .find(|name| !families.iter().any(|f| f == *name))
        {
            return Ok(Err(format!("its table {name} is missing")));
        }
        let cache = Cache::new_lru_cache(CACHE);
        let descriptors = families
            .iter()
            .map(|name| ColumnFamilyDescriptor::new(name, table(&cache)));
        let opened = DB::open_cf_descriptors_read_only(&options, copy.path(), descriptors, false);
        let database = match opened {
            Ok(db) => Self { db, _copy: copy },
            Err(error) => return Ok(Err(error.into_string())),
        };
        match database.own()? {
            Ok(watermark) => Ok(Ok((database, watermark))),
            Err(found) => Ok(Err(found)),
        }
    }

    /// Checks the format and gives the watermark.
    fn own(&self) -> Result<std::result::Result<u64, String>> {
        let format = match self.db.get(b"format") {
            Ok(Some(format)) => format,
            Ok(None) => return Ok(Err("it has no format number".to_owned())),
            Err(error) => return Ok(Err(error.into_string())),
        };
        match <[u8; 4]>::try_from(format.as_slice()).map(u32::from_le_bytes) {
            Ok(format) if format > FORMAT => {
                return Err(Trouble::Newer(format!(
                    "the index, which has format {format},"
                )));
            }
            Ok(_) => {}
            Err(_) => return Ok(Err("its format number is not 4 bytes long".to_owned())),
        }
        Ok(match self.db.get(b"watermark") {
            Ok(None) => Ok(0),
            Ok(Some(lsn)) => <[u8; 8]>::try_from(lsn.as_slice())
                .map(u64::from_le_bytes)
                .map_err(|_| "its watermark is not 8 bytes long".to_owned()),
            Err(error) => Err(error.into_string()),
        })
    }

    /// The rows of a table.
    pub(super) fn rows(&self, table: &'static str) -> std::result::Result<Rows<'_>, String> {
        let name = format!("{table}.1");
        let family = self
            .db
            .cf_handle(&name)
            .ok_or_else(|| format!("its table {name} is missing"))?;
        let mut options = ReadOptions::default();
        options.fill_cache(false);
        options.set_readahead_size(AHEAD);
        Ok(Rows {
            rows: self.db.raw_iterator_cf_opt(family, options),
            started: false,
        })
    }
}

impl Rows<'_> {
    /// The next row; the error says why it cannot be read.
    pub(super) fn next(&mut self) -> std::result::Result<Option<(Vec<u8>, Vec<u8>)>, String> {
        if self.started {
            self.rows.next();
        } else {
            self.rows.seek_to_first();
            self.started = true;
        }
        match self.rows.item() {
            Some((key, value)) => Ok(Some((key.to_vec(), value.to_vec()))),
            None => self
                .rows
                .status()
                .map(|()| None)
                .map_err(rocksdb::Error::into_string),
        }
    }
}

fn is_copied(name: &str) -> bool {
    let numbered = |rest: &str| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit());
    name == "CURRENT"
        || name == "IDENTITY"
        || name.starts_with("MANIFEST-")
        || name.starts_with("OPTIONS-")
        || name.strip_suffix(".log").is_some_and(numbered)
}

fn database() -> Options {
    let mut set = Options::default();
    set.set_paranoid_checks(true);
    set.set_max_open_files(MAX_OPEN);
    set.set_skip_stats_update_on_db_open(true);
    set.set_stats_dump_period_sec(0);
    set.set_stats_persist_period_sec(0);
    // What matters comes as errors.
    set.set_info_logger(InfoLogger::new_callback_logger(LogLevel::Fatal, |_, _| {}));
    set
}

fn table(cache: &Cache) -> Options {
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(cache);
    blocks.set_cache_index_and_filter_blocks(true);
    let mut set = Options::default();
    set.set_block_based_table_factory(&blocks);
    set
}
