//! How RocksDB is set up for an index of small rows that can be made again.
//!
//! Owns: every RocksDB option and the bounds they set. Invariants: the
//! write-ahead log is never relied on (writes skip it), all tables are flushed
//! together, and every block is checked when it is read.
//!
//! Refuses to know: rows, batches, errors.

use rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, Cache, DBCompressionType, DataBlockIndexType,
    InfoLogger, LogLevel, Options as RocksOptions,
};

use super::fault::Background;
use crate::Table;

/// Files RocksDB keeps open at most.
const MAX_OPEN_FILES: i32 = 512;
/// Threads for flushes and compactions together.
const MAX_BACKGROUND_JOBS: i32 = 2;
/// Largest file of the lower levels, in bytes.
const TARGET_FILE_BYTES: u64 = 64 << 20;
/// A data block, in bytes: one aligned read.
const BLOCK_BYTES: usize = 4096;
/// Filter bits a key: one miss in a hundred reads a block for nothing.
const FILTER_BITS: f64 = 10.0;
/// What the manifest takes from the device ahead of its writes, in bytes.
const MANIFEST_AHEAD_BYTES: usize = 64 << 10;
/// Manifest size, in bytes, at which it is written anew.
const MAX_MANIFEST_BYTES: usize = 4 << 20;

/// What the owner of an index may choose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Memory for blocks, index and filter blocks included, in bytes. It is
    /// taken as blocks are read, not at the start.
    pub cache_bytes: usize,
    /// Memory for rows that are not flushed yet, in bytes, over all tables.
    /// Reaching it starts a flush of all tables.
    pub write_buffer_bytes: usize,
    /// Whether files are read and written past the page cache. The file
    /// system must be able to; the caller has probed it.
    pub direct: bool,
    /// Flushes and compactions together write at most this many bytes a
    /// second; 0 sets no limit.
    pub background_bytes_per_second: u32,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            cache_bytes: 256 << 20,
            write_buffer_bytes: 16 << 20,
            direct: true,
            background_bytes_per_second: 128 << 20,
        }
    }
}

/// The name of a table's column family. It ends in the version of the table's
/// rows, so that a change of rows is a new family, never a guess.
pub(super) const fn family(table: Table) -> &'static str {
    match table {
        Table::Meta => "meta.1",
        Table::Blob => "blob.1",
        Table::Alias => "alias.1",
        Table::Upload => "upload.1",
        Table::Segment => "segment.1",
        Table::Chunk => "chunk.1",
        Table::Ordinal => "ordinal.1",
        Table::Scratch => "scratch.1",
    }
}

/// How a table is read, which decides its layout.
enum Use {
    /// By exact key, and the key is random: hashed blocks, filters, bytes
    /// that do not compress.
    Lookup,
    /// In order or rarely.
    Ordered,
}

const fn used(table: Table) -> Use {
    match table {
        Table::Blob | Table::Alias | Table::Chunk => Use::Lookup,
        Table::Meta | Table::Upload | Table::Segment | Table::Ordinal | Table::Scratch => {
            Use::Ordered
        }
    }
}

/// Options of the database as a whole.
pub(super) fn database(options: &Options, fresh: bool, background: &Background) -> RocksOptions {
    let mut set = RocksOptions::default();
    set.create_if_missing(fresh);
    set.create_missing_column_families(fresh);
    set.set_paranoid_checks(true);
    set.set_atomic_flush(true);
    set.set_db_write_buffer_size(options.write_buffer_bytes);
    set.set_max_background_jobs(MAX_BACKGROUND_JOBS);
    set.set_max_open_files(MAX_OPEN_FILES);
    set.set_max_manifest_file_size(MAX_MANIFEST_BYTES);
    set.set_manifest_preallocation_size(MANIFEST_AHEAD_BYTES);
    set.set_use_direct_reads(options.direct);
    set.set_use_direct_io_for_flush_and_compaction(options.direct);
    set.set_stats_dump_period_sec(0);
    set.set_stats_persist_period_sec(0);
    set.set_skip_stats_update_on_db_open(true);
    if options.background_bytes_per_second > 0 {
        let refill_microseconds = 100_000;
        let fairness = 10;
        set.set_ratelimiter(
            i64::from(options.background_bytes_per_second),
            refill_microseconds,
            fairness,
        );
    }
    // No log file beside the data: what matters of it is kept by `background`.
    let background = background.clone();
    set.set_info_logger(InfoLogger::new_callback_logger(
        LogLevel::Error,
        move |_, line| background.note(line),
    ));
    set
}

/// Options of one table's column family.
pub(super) fn table(table: Table, options: &Options, cache: &Cache) -> RocksOptions {
    let mut set = RocksOptions::default();
    common(&mut set, options);
    let mut blocks = blocks(cache);
    match used(table) {
        Use::Lookup => {
            set.set_compression_type(DBCompressionType::None);
            blocks.set_data_block_index_type(DataBlockIndexType::BinaryAndHash);
            blocks.set_data_block_hash_ratio(0.75);
        }
        Use::Ordered => set.set_compression_type(DBCompressionType::Lz4),
    }
    set.set_block_based_table_factory(&blocks);
    set
}

/// Options of the index's own column family: a handful of rows.
pub(super) fn own(options: &Options, cache: &Cache) -> RocksOptions {
    let mut set = RocksOptions::default();
    common(&mut set, options);
    set.set_compression_type(DBCompressionType::None);
    set.set_block_based_table_factory(&blocks(cache));
    set
}

fn common(set: &mut RocksOptions, options: &Options) {
    // Half for the rows being written, half for those being flushed.
    set.set_write_buffer_size(options.write_buffer_bytes / 2);
    set.set_max_write_buffer_number(3);
    set.set_target_file_size_base(TARGET_FILE_BYTES);
    set.set_max_bytes_for_level_base(TARGET_FILE_BYTES * 4);
    set.set_level_compaction_dynamic_level_bytes(true);
}

fn blocks(cache: &Cache) -> BlockBasedOptions {
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(cache);
    blocks.set_block_size(BLOCK_BYTES);
    blocks.set_format_version(6);
    // Bloom where files are short-lived, ribbon below: less memory there.
    blocks.set_hybrid_ribbon_filter(FILTER_BITS, 1);
    blocks.set_whole_key_filtering(true);
    // Index and filters in pieces, in the cache, so that its bound is the bound.
    blocks.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
    blocks.set_partition_filters(true);
    blocks.set_metadata_block_size(BLOCK_BYTES);
    blocks.set_cache_index_and_filter_blocks(true);
    blocks.set_cache_index_and_filter_blocks_with_high_priority(true);
    blocks.set_pin_l0_filter_and_index_blocks_in_cache(true);
    blocks
}
