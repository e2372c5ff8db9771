//! Settings and bounds of a store.

use std::path::PathBuf;
use std::time::Duration;

use orlop_disk::lock::Lock;

/// Bytes of one journal file.
pub const JOURNAL_FILE: u64 = 64 * 1024 * 1024;
/// The smallest journal file that may be asked for, bytes: one group must fit.
/// Under a schedule explorer stores are tiny, and so are their groups.
pub const MIN_JOURNAL_FILE: u64 = if cfg!(feature = "shuttle") {
    32 * 1024
} else {
    4 * 1024 * 1024
};
/// Full journal files that are kept before the oldest is recycled.
pub const JOURNAL_KEEP: usize = 3;
/// Journal files kept ready for reuse.
pub const JOURNAL_SPARES: usize = 2;
/// Bytes of one segment.
pub const SEGMENT: u64 = 256 * 1024 * 1024;
/// Bytes by which a segment is allocated ahead.
pub const SEGMENT_AHEAD: u64 = 8 * 1024 * 1024;
/// Bytes of records that one group takes before the next one begins.
pub const GROUP_SOFT: usize = 1024 * 1024;
/// Requests that wait for the journal.
pub const JOURNAL_QUEUE: usize = 1024;
/// Idle time after which a durable mark is written.
pub const MARK_AFTER: Duration = Duration::from_millis(50);
/// Bytes of one cached page, and of one read.
pub const PAGE: usize = 256 * 1024;
/// Pages that one reader fetches ahead.
pub const READ_AHEAD: usize = 8;
/// Pages that all readers together hold ahead of what they send.
pub const READ_AHEAD_ALL: usize = 256;
/// Fetches of one kind that run at a time.
pub const MAX_FETCHES: usize = 512;
/// Bytes of one upload that are on their way to the disk.
pub const WRITE_AHEAD: usize = 8 * 1024 * 1024;
/// Bytes of buffers that uploads share. Half of them may wait for clients, the
/// other half is always on its way to the disk or free.
pub const BUFFERS: usize = 512 * 1024 * 1024;
/// The fewest that may be asked for: one large extent and one that waits.
pub const MIN_BUFFERS: usize = 32 * 1024 * 1024;
/// How long an upload waits for a buffer before it is told to come again.
pub const BUFFER_WAIT: Duration = Duration::from_secs(10);
/// Extents of one upload below which it gives up its buffer, for want of
/// buffers, by a short extent.
pub const SHORT_EXTENTS: usize = 1024;
/// Bytes after which a running upload is made durable.
pub const CHECKPOINT_EVERY: u64 = 64 * 1024 * 1024;
/// Upload sessions in memory.
pub const MAX_SESSIONS: usize = 65_536;
/// Upload sessions whose state is kept at hand between requests.
pub const WARM_SESSIONS: usize = 1024;
/// How long it is kept.
pub const WARM_TIME: Duration = Duration::from_secs(30);
/// Extents of an upload above which its state is not kept.
pub const WARM_EXTENTS: usize = 1024;
/// Segment files kept open.
pub const MAX_OPEN_SEGMENTS: usize = 1024;
/// Headers of extents kept in memory.
pub const MAX_TABLES: u64 = 16_384;
/// Digests that one pin may hold.
pub const MAX_PIN: usize = 131_072;
/// Bytes per second that work in the background may read and write together.
pub const BACKGROUND_RATE: u64 = 50 * 1024 * 1024;

/// Blobs of a live set that are gathered, 32 MiB of them, to be looked up in the
/// order of the index. Few in the simulator, whose live sets are small.
pub const COLLECT_MARKS: usize = if cfg!(feature = "planted") {
    8
} else {
    1 << 20
};
/// Rows that a collection reads together.
pub const COLLECT_ROWS: usize = if cfg!(feature = "planted") { 3 } else { 1024 };
/// Room above the reserve without which a pass does not flush the index.
pub const FLUSH_ROOM: u64 = 64 * 1024 * 1024;
/// Blobs that a sweep walks over in one step.
pub const COLLECT_PAGE: usize = 4096;
/// Blobs that may die of which the further digests are read together.
pub const COLLECT_FURTHER: usize = 1 << 16;
/// Blobs that a sweep passes over since their rows cannot be read, before it gives
/// up.
pub const COLLECT_SKIPS: usize = 1000;
/// Tombstones of one request to the journal.
pub const COLLECT_DELETES: usize = 512;
/// Deaths in one cycle that nothing explains, at most: this many, or this part of
/// all blobs if that is more.
pub const UNEXPLAINED_MIN: u64 = 1000;
/// One in so many.
pub const UNEXPLAINED_SHARE: u64 = 20;

/// Bytes that one step of a reclaimer gives back at most. In the simulator a
/// segment takes some.
pub const RELEASE_STEP: u64 = if cfg!(feature = "planted") {
    1024 * 1024
} else {
    16 * 1024 * 1024
};
/// A segment that is open for extents is closed once this part of what it may
/// hold is dead.
pub const OPEN_SHARE: u64 = 8;
/// How often, and how far apart, a thorough pass comes back to what somebody
/// held.
pub const HELD_ROUNDS: u32 = 20;
/// See [`HELD_ROUNDS`].
pub const HELD_PAUSE: Duration = Duration::from_millis(250);
/// Time after which a pass leaves the rest to the next; a thorough one goes on.
pub const PASS_TIME: Duration = Duration::from_secs(3600);
/// Extents that a reclaimer keeps in memory while it looks for dead ones. Of
/// segments beyond it a later pass takes care.
pub const LIVE_EXTENTS: usize = 1024 * 1024;
/// Records of small segments that a reclaimer knows to be live, 4 bytes each.
/// Segments beyond it are looked at again behind the others. Few in the simulator.
pub const LIVE_RECORDS: usize = if cfg!(feature = "planted") {
    16
} else {
    4 * 1024 * 1024
};
/// Moves of small blobs of which the rows are read together, and which one record
/// says.
pub const MOVES_STEP: usize = 1024;
/// Raw segments are joined of which this part of what one may hold is live, or
/// less, where holes can be made.
pub const COMPACT_SHARE: u64 = 4;
/// How many of them there must be.
pub const COMPACT_MIN: usize = 8;
/// Bytes that one pass moves at most, unless all room is wanted. In the simulator
/// less than a segment.
pub const COMPACT_BYTES: u64 = if cfg!(feature = "planted") {
    3 * 1024 * 1024
} else {
    256 * 1024 * 1024
};
/// Meta segments of which one pass looks how much still matters.
pub const META_LOOKS: usize = 8;

/// How a store is opened.
#[derive(Debug)]
pub struct Config {
    /// The data folder. It exists.
    pub folder: PathBuf,
    /// The folder's lock, held as long as the store is open. `None` where the
    /// disk is simulated.
    pub lock: Option<Lock>,
    /// How long "it is here" holds.
    pub lease: Duration,
    /// Bytes of free space below which pushes are refused; `None` for the
    /// larger of 1 GiB and 2 % of the file system.
    pub reserve: Option<u64>,
    /// Bytes of buffers that uploads share, at least [`MIN_BUFFERS`].
    pub buffers: usize,
    /// Bytes of hot pages kept in memory.
    pub cache: u64,
    /// Bytes of one journal file, at least [`MIN_JOURNAL_FILE`].
    pub journal_file: u64,
    /// Bytes of one segment.
    pub segment: u64,
    /// Bytes per second that work in the background, such as a scrub, may read
    /// and write together.
    pub background_rate: u64,
}

impl Config {
    /// The defaults for a folder.
    pub fn new(folder: PathBuf) -> Self {
        Self {
            folder,
            lock: None,
            lease: Duration::from_secs(3600),
            reserve: None,
            buffers: BUFFERS,
            cache: 256 * 1024 * 1024,
            journal_file: JOURNAL_FILE,
            segment: SEGMENT,
            background_rate: BACKGROUND_RATE,
        }
    }
}
