//! What is found: stable codes, their levels, what they mean and what to do.
//!
//! Codes are never given another meaning: scripts rest on them. A finding is
//! something that should not be; a note is something that a crash, a normal
//! run or a choice of the operator leaves behind, and does not make a store
//! unclean. `docs/fsck.md` lists every code; a test compares.
//!
//! A new code is an arm of [`Code`] and a row in [`Code::facts`].

use std::fmt;

use serde::{Deserialize, Serialize};

pub use crate::object::{Affected, Finding, Object};

/// How bad something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Nothing is wrong.
    Note,
    /// Nothing is lost.
    Warning,
    /// One blob, upload or name is damaged; the rest is not.
    Damage,
    /// The store has lost something: a start is refused or would be wrong.
    Error,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Level::Note => "note",
            Level::Warning => "warning",
            Level::Damage => "damage",
            Level::Error => "error",
        })
    }
}

/// The codes, and the list of them all.
macro_rules! codes {
    ($($(#[$doc:meta])* $code:ident,)*) => {
        /// What was found, by kind.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(into = "&'static str", try_from = "String")]
        #[expect(missing_docs, reason = "the row in `facts` says what each one means")]
        pub enum Code {
            $($(#[$doc])* $code,)*
        }

        impl Code {
            /// Every code.
            pub const ALL: &'static [Code] = &[$(Code::$code,)*];
        }
    };
}

codes! {
    SuperblockFile,
    SuperblockSlot,
    SuperblockNone,
    SuperblockYoung,
    SuperblockTorn,
    JournalMissing,
    JournalHeader,
    JournalGroup,
    JournalRecord,
    JournalChain,
    JournalYoung,
    JournalTorn,
    JournalCut,
    JournalUnclean,
    JournalUnused,
    JournalRecycled,
    SegmentMissing,
    SegmentHeader,
    SegmentGroup,
    SegmentFooter,
    SegmentUnused,
    SegmentUnsealed,
    SegmentLeft,
    SegmentOrphan,
    SegmentRemoved,
    RecordBody,
    RecordPayload,
    ExtentHeader,
    ExtentPayload,
    ExtentOverlap,
    ExtentBeyond,
    ExtentHole,
    BlobSize,
    BlobDigest,
    BlobAlias,
    BlobQuarantined,
    UploadSize,
    CopyMissing,
    IndexMissingRow,
    IndexExtraRow,
    IndexDiffers,
    IndexSpace,
    IndexAhead,
    IndexUnreadable,
    IndexMissing,
    IndexBehind,
    IndexLag,
    IndexSkipped,
    SpaceUnowned,
    FileForeign,
    FileUnreadable,
    ContentPartial,
    CatalogMissing,
    CatalogUnreadable,
    CatalogIntegrity,
    CatalogOther,
    CatalogOlder,
    CatalogTotals,
    CatalogNone,
    CatalogOutdated,
    ManifestBlob,
    ManifestBytes,
    ManifestRow,
    ManifestEdges,
    ManifestEnded,
    ReferenceBlob,
    ReferenceManifest,
    ReferenceLink,
    ReferenceDeleted,
    ReferenceEnded,
    ReferenceAbsent,
    TagManifest,
    LinkBlob,
    LinkSize,
    LinkRepository,
    LinkEnded,
}

const RESTORE: &str = "keep a copy of the folder, then restore the store from a backup";
const PUSH: &str = "pull it once, so that the server puts it into quarantine, then push it again; or restore it from a backup";
const ODD: &str = "keep a copy of the folder and report this: the store should not write it";
const REMAKE: &str = "orlop-fsck DIR --repair moves the index away if it can be made again, and the next start does that; report this, for the store should not write it";
const NONE: &str = "none needed";

impl Code {
    /// Its name, its level, what it means and what to do.
    const fn facts(self) -> (&'static str, Level, &'static str, &'static str) {
        use Level::{Damage, Error, Note, Warning};
        match self {
            Code::SuperblockFile => (
                "superblock.file",
                Error,
                "one of the two superblock files is missing",
                "copy the other superblock file to the missing name, then check again",
            ),
            Code::SuperblockSlot => (
                "superblock.slot",
                Warning,
                "a superblock slot that was durable does not hold, or is another store's; a newer one holds",
                "none needed: the next writes replace the slot; watch the disk",
            ),
            Code::SuperblockNone => (
                "superblock.none",
                Error,
                "no superblock slot holds, so nothing else can be read",
                RESTORE,
            ),
            Code::SuperblockYoung => (
                "superblock.young",
                Note,
                "a store that never came to be: its first start was interrupted",
                "none needed: the next start makes it",
            ),
            Code::SuperblockTorn => (
                "superblock.torn",
                Note,
                "the superblock slot that was being written at a crash is torn; the one before it holds",
                NONE,
            ),
            Code::JournalMissing => (
                "journal.missing",
                Error,
                "a journal file that must be there is not: what was acknowledged in it is lost",
                "put the missing file back, or restore the store from a backup",
            ),
            Code::JournalHeader => (
                "journal.header",
                Error,
                "the first block of a journal file does not hold, or is another store's",
                RESTORE,
            ),
            Code::JournalGroup => (
                "journal.group",
                Error,
                "the header of a group that was durable does not hold; the records of that group are lost",
                RESTORE,
            ),
            Code::JournalRecord => (
                "journal.record",
                Error,
                "the header of a record that was durable does not hold; it and the rest of its group are lost",
                RESTORE,
            ),
            Code::JournalChain => (
                "journal.chain",
                Error,
                "a journal file does not end as the header of the next one says",
                RESTORE,
            ),
            Code::JournalYoung => (
                "journal.young",
                Note,
                "a new store that has no journal yet",
                NONE,
            ),
            Code::JournalTorn => (
                "journal.torn",
                Note,
                "the end of the journal was being written at a crash; nothing in it was acknowledged",
                "none needed: the next start cuts it",
            ),
            Code::JournalCut => (
                "journal.cut",
                Note,
                "a torn end was cut here by an earlier start",
                NONE,
            ),
            Code::JournalUnclean => (
                "journal.unclean",
                Note,
                "the store was not closed in order",
                "none needed: the next start replays the end of the journal",
            ),
            Code::JournalUnused => (
                "journal.unused",
                Note,
                "a journal file that never came to use",
                NONE,
            ),
            Code::JournalRecycled => (
                "journal.recycled",
                Note,
                "a journal file that was recycled and is still there",
                "none needed: the next start takes it as a spare or removes it",
            ),
            Code::SegmentMissing => (
                "segment.missing",
                Error,
                "a segment or journal file that the log refers to is missing, or its first block does not hold",
                "put the missing file back, or restore what it held from a backup",
            ),
            Code::SegmentHeader => (
                "segment.header",
                Error,
                "the first block of a segment does not hold, or names another segment or store",
                RESTORE,
            ),
            Code::SegmentGroup => (
                "segment.group",
                Error,
                "a group or record in a sealed small or meta segment does not hold; the index cannot be made again from it",
                RESTORE,
            ),
            Code::SegmentFooter => (
                "segment.footer",
                Warning,
                "the footer of a sealed segment does not hold, or is not the one that the log names",
                "none needed for reading: payload is checked without it; watch the disk",
            ),
            Code::SegmentUnused => (
                "segment.unused",
                Note,
                "a segment file that never came to use",
                NONE,
            ),
            Code::SegmentUnsealed => (
                "segment.unsealed",
                Note,
                "what an interrupted pass of recycling left; the journal has it all",
                "none needed: the next start removes it",
            ),
            Code::SegmentLeft => (
                "segment.left",
                Note,
                "a small or meta segment that the log does not name: a pass of recycling was interrupted behind it; the journal has it all",
                NONE,
            ),
            Code::SegmentOrphan => (
                "segment.orphan",
                Note,
                "a raw segment in which nothing is referred to",
                NONE,
            ),
            Code::SegmentRemoved => (
                "segment.removed",
                Note,
                "a segment that was given back, and whose file is still there",
                "none needed: the next start removes it",
            ),
            Code::RecordBody => (
                "record.body",
                Error,
                "the body of a record says what cannot be, though its checksum holds",
                ODD,
            ),
            Code::RecordPayload => (
                "record.payload",
                Damage,
                "the bytes of a small blob, or of an upload's end, do not hold",
                PUSH,
            ),
            Code::ExtentHeader => (
                "extent.header",
                Damage,
                "the header block of an extent does not hold, or is not the one that its blob names",
                PUSH,
            ),
            Code::ExtentPayload => (
                "extent.payload",
                Damage,
                "bytes of an extent do not hold, or are not there",
                PUSH,
            ),
            Code::ExtentOverlap => (
                "extent.overlap",
                Damage,
                "two extents that are in use share bytes",
                ODD,
            ),
            Code::ExtentBeyond => (
                "extent.beyond",
                Damage,
                "an extent lies behind the end of its sealed segment's frames",
                ODD,
            ),
            Code::ExtentHole => (
                "extent.hole",
                Damage,
                "an extent in use lies where the log says that room was given back",
                PUSH,
            ),
            Code::BlobSize => (
                "blob.size",
                Damage,
                "a blob has another number of bytes than its commit says",
                PUSH,
            ),
            Code::BlobDigest => (
                "blob.digest",
                Damage,
                "the bytes of a blob are not those of its SHA-256, though their checksums hold",
                PUSH,
            ),
            Code::BlobAlias => (
                "blob.alias",
                Damage,
                "the bytes of a blob are not those of a further digest it is known by",
                ODD,
            ),
            Code::BlobQuarantined => (
                "blob.quarantined",
                Note,
                "the server found this blob damaged before; it is not served",
                "push it again to heal it",
            ),
            Code::UploadSize => (
                "upload.size",
                Damage,
                "an open upload has another number of durable bytes than its last checkpoint says",
                "none possible for this upload: its client begins again",
            ),
            Code::CopyMissing => (
                "copy.missing",
                Warning,
                "a copy of the catalog that the log names is not in the store, or in quarantine",
                "make a backup of catalog.db now; the server makes a new copy in time",
            ),
            Code::IndexMissingRow => (
                "index.missing-row",
                Warning,
                "the index lacks a row that the log gives: what it stands for is not found",
                REMAKE,
            ),
            Code::IndexExtraRow => (
                "index.extra-row",
                Warning,
                "the index has a row that the log does not give",
                REMAKE,
            ),
            Code::IndexDiffers => (
                "index.differs",
                Warning,
                "a row of the index says something else than the log",
                REMAKE,
            ),
            Code::IndexSpace => (
                "index.space",
                Warning,
                "the index counts other bytes of a segment in use than its blobs and uploads have",
                REMAKE,
            ),
            Code::IndexAhead => (
                "index.ahead",
                Error,
                "the index has seen records that the log does not have: the log lost its end after it was durable; a start is refused",
                "put the lost journal files back, or restore the store from a backup; to go on without what was lost, keep a copy of the folder, then orlop-fsck DIR --repair",
            ),
            Code::IndexUnreadable => (
                "index.unreadable",
                Warning,
                "the index cannot be read",
                "none needed if a start goes well: the server makes it again from the log; else orlop-fsck DIR --repair moves it away; watch the disk",
            ),
            Code::IndexMissing => (
                "index.missing",
                Note,
                "there is no index",
                "none needed: the next start makes it from the log",
            ),
            Code::IndexBehind => (
                "index.behind",
                Note,
                "the index ends before the journal begins, or was being made again; its rows were not compared",
                "none needed: the next start makes it again from the log",
            ),
            Code::IndexLag => (
                "index.lag",
                Note,
                "the index ends before the log does; its rows were compared with what the log said there",
                "none needed: the next start replays the rest",
            ),
            Code::IndexSkipped => (
                "index.skipped",
                Note,
                "the index was not compared, as was asked for, or because this program was built without RocksDB",
                "check again with the released program and without --no-index",
            ),
            Code::SpaceUnowned => (
                "space.unowned",
                Note,
                "sealed segments have extents that nothing refers to, such as those of abandoned uploads",
                NONE,
            ),
            Code::FileForeign => (
                "file.foreign",
                Note,
                "a file in the data folder that is not the store's",
                "none needed; the store leaves it alone",
            ),
            Code::FileUnreadable => (
                "file.unreadable",
                Error,
                "the disk cannot read a part of a file; the check took it for zeros, so other findings follow from it",
                "copy the folder to another disk with a tool that goes on after errors, such as ddrescue, and check the copy",
            ),
            Code::ContentPartial => (
                "content.partial",
                Note,
                "not all content was read and compared, as was asked for or because the time ran out",
                "go on from where it ended: --from with the position in the note; or check again with --content all",
            ),
            Code::CatalogMissing
            | Code::CatalogUnreadable
            | Code::CatalogIntegrity
            | Code::CatalogOther
            | Code::CatalogOlder
            | Code::CatalogTotals
            | Code::CatalogNone
            | Code::CatalogOutdated
            | Code::ManifestBlob
            | Code::ManifestBytes
            | Code::ManifestRow
            | Code::ManifestEdges
            | Code::ManifestEnded
            | Code::ReferenceBlob
            | Code::ReferenceManifest
            | Code::ReferenceLink
            | Code::ReferenceDeleted
            | Code::ReferenceEnded
            | Code::ReferenceAbsent
            | Code::TagManifest
            | Code::LinkBlob
            | Code::LinkSize
            | Code::LinkRepository
            | Code::LinkEnded => crate::catalog::codes::facts(self),
        }
    }

    /// Its stable name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.facts().0
    }

    /// How bad it is.
    #[must_use]
    pub const fn level(self) -> Level {
        self.facts().1
    }

    /// What it means.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        self.facts().2
    }

    /// What to do.
    #[must_use]
    pub const fn remedy(self) -> &'static str {
        self.facts().3
    }

    /// The code with this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Code> {
        Code::ALL.iter().copied().find(|code| code.name() == name)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl From<Code> for &'static str {
    fn from(code: Code) -> Self {
        code.name()
    }
}

impl TryFrom<String> for Code {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        Code::parse(&name).ok_or_else(|| format!("{name} is no code of this version"))
    }
}
