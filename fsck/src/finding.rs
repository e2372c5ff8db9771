//! What a check says: findings with stable codes, notes, counts; and why it
//! could not look.
//!
//! Codes are never given another meaning: scripts rest on them. A finding is
//! something that should not be; a note is something that a crash or a normal
//! run leaves behind.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

/// Findings and notes kept, each; what comes after is only counted.
const KEPT: usize = 10_000;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Nothing is lost.
    Warning,
    /// One blob or upload is damaged; the rest is not.
    Damage,
    /// The log has lost something: a start is refused or would be wrong.
    Error,
}

/// What was found, by kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    SuperblockFile,
    SuperblockSlot,
    SuperblockNone,
    JournalMissing,
    JournalHeader,
    JournalGroup,
    JournalRecord,
    JournalChain,
    SegmentMissing,
    SegmentHeader,
    SegmentGroup,
    SegmentFooter,
    RecordBody,
    RecordPayload,
    ExtentHeader,
    ExtentPayload,
    BlobSize,
    BlobDigest,
    BlobAlias,
    CatalogMissing,
    CatalogUnreadable,
    CatalogIntegrity,
    CatalogOther,
    CatalogOlder,
    CatalogTotals,
    ManifestBlob,
    ManifestBytes,
    ManifestRow,
    ManifestEdges,
    TagManifest,
    LinkBlob,
    LinkSize,
    LinkRepository,
}

const RESTORE: &str = "keep a copy of the folder, then restore the store from a backup";
const PUSH: &str = "pull it once, so that the server puts it into quarantine, then push it again; or restore it from a backup";
const ODD: &str = "keep a copy of the folder and report this: the store should not write it";

const REBUILD: &str =
    "rebuild the catalog from the copies and notes in the store: orlop-fsck DIR --repair";
const PAIR: &str = "put the right catalog back and check again; or rebuild it: orlop-fsck DIR --repair; or take this one: orlop catalog adopt";
const HEAL: &str = "push it again, or restore it: orlop-fsck DIR --repair --source FROM";

impl Code {
    /// Its name, its level and what to do.
    fn facts(self) -> (&'static str, Level, &'static str) {
        match self {
            Code::SuperblockFile => {
                let remedy = "copy the other superblock file to the missing name, then check again";
                ("superblock.file", Level::Error, remedy)
            }
            Code::SuperblockSlot => (
                "superblock.slot",
                Level::Warning,
                "none needed: the next writes replace the slot; watch the disk",
            ),
            Code::SuperblockNone => ("superblock.none", Level::Error, RESTORE),
            Code::JournalMissing => (
                "journal.missing",
                Level::Error,
                "put the missing file back, or restore the store from a backup",
            ),
            Code::JournalHeader => ("journal.header", Level::Error, RESTORE),
            Code::JournalGroup => ("journal.group", Level::Error, RESTORE),
            Code::JournalRecord => ("journal.record", Level::Error, RESTORE),
            Code::JournalChain => ("journal.chain", Level::Error, RESTORE),
            Code::SegmentMissing => (
                "segment.missing",
                Level::Error,
                "put the missing file back, or restore what it held from a backup",
            ),
            Code::SegmentHeader => ("segment.header", Level::Error, RESTORE),
            Code::SegmentGroup => ("segment.group", Level::Error, RESTORE),
            Code::SegmentFooter => (
                "segment.footer",
                Level::Warning,
                "none needed for reading: payload is checked without it; watch the disk",
            ),
            Code::RecordBody => ("record.body", Level::Error, ODD),
            Code::RecordPayload => ("record.payload", Level::Damage, PUSH),
            Code::ExtentHeader => ("extent.header", Level::Damage, PUSH),
            Code::ExtentPayload => ("extent.payload", Level::Damage, PUSH),
            Code::BlobSize => ("blob.size", Level::Damage, PUSH),
            Code::BlobDigest => ("blob.digest", Level::Damage, PUSH),
            Code::BlobAlias => ("blob.alias", Level::Damage, ODD),
            Code::CatalogMissing => ("catalog.missing", Level::Error, REBUILD),
            Code::CatalogUnreadable => ("catalog.unreadable", Level::Error, REBUILD),
            Code::CatalogIntegrity => ("catalog.integrity", Level::Error, REBUILD),
            Code::CatalogOther => ("catalog.other", Level::Error, PAIR),
            Code::CatalogOlder => ("catalog.older", Level::Error, PAIR),
            Code::CatalogTotals => ("catalog.totals", Level::Error, REBUILD),
            Code::ManifestBlob => ("manifest.blob", Level::Damage, HEAL),
            Code::ManifestBytes => ("manifest.bytes", Level::Damage, HEAL),
            Code::ManifestRow => ("manifest.row", Level::Damage, REBUILD),
            Code::ManifestEdges => ("manifest.edges", Level::Error, REBUILD),
            Code::TagManifest => ("tag.manifest", Level::Damage, REBUILD),
            Code::LinkBlob => ("link.blob", Level::Damage, HEAL),
            Code::LinkSize => ("link.size", Level::Warning, REBUILD),
            Code::LinkRepository => ("link.repository", Level::Warning, REBUILD),
        }
    }
}

/// Something that should not be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Its stable name.
    pub code: &'static str,
    /// How bad it is.
    pub level: Level,
    /// What it is about.
    pub object: String,
    /// What should be there.
    pub expected: String,
    /// What is.
    pub found: String,
    /// What to do.
    pub remedy: &'static str,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Warning => "warning",
            Level::Damage => "damage",
            Level::Error => "error",
        };
        writeln!(f, "{level} {}: {}", self.code, self.object)?;
        writeln!(f, "  expected {}", self.expected)?;
        writeln!(f, "  found    {}", self.found)?;
        writeln!(f, "  remedy   {}", self.remedy)
    }
}

/// What was looked at.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Files of the journal that count.
    pub journal_files: u64,
    /// Segment files.
    pub segments: u64,
    /// Records of the log.
    pub records: u64,
    /// Blobs that can be had.
    pub blobs: u64,
    /// Blobs in quarantine.
    pub quarantined: u64,
    /// Uploads that may go on.
    pub uploads: u64,
    /// Digests of blobs that were compared with their bytes.
    pub digests: u64,
    /// Bytes of blobs and uploads that were read and compared.
    pub bytes: u64,
    /// Manifests of the catalog that were held against their bytes.
    pub manifests: u64,
    /// Tags of the catalog.
    pub tags: u64,
    /// Links of the catalog.
    pub links: u64,
}

/// All that a check says.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    folder: String,
    clean: bool,
    findings: Vec<Finding>,
    findings_left_off: u64,
    notes: Vec<String>,
    notes_left_off: u64,
    /// What was looked at.
    pub counts: Counts,
}

impl Report {
    pub(crate) fn new(folder: &std::path::Path) -> Self {
        Self {
            folder: folder.display().to_string(),
            clean: true,
            ..Self::default()
        }
    }

    /// Adds a finding.
    pub(crate) fn find(
        &mut self,
        code: Code,
        object: impl fmt::Display,
        expected: impl fmt::Display,
        found: impl fmt::Display,
    ) {
        self.clean = false;
        if self.findings.len() >= KEPT {
            self.findings_left_off = self.findings_left_off.saturating_add(1);
            return;
        }
        let (code, level, remedy) = code.facts();
        let (object, expected, found) =
            (object.to_string(), expected.to_string(), found.to_string());
        self.findings.push(Finding {
            code,
            level,
            object,
            expected,
            found,
            remedy,
        });
    }

    /// Adds a note.
    pub(crate) fn note(&mut self, note: impl fmt::Display) {
        if self.notes.len() >= KEPT {
            self.notes_left_off = self.notes_left_off.saturating_add(1);
        } else {
            self.notes.push(note.to_string());
        }
    }

    /// What should not be.
    #[must_use]
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// Whether there is no finding.
    #[must_use]
    pub fn clean(&self) -> bool {
        self.clean
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in &self.findings {
            write!(f, "{finding}")?;
        }
        if self.findings_left_off > 0 {
            writeln!(f, "and {} findings more", self.findings_left_off)?;
        }
        for note in &self.notes {
            writeln!(f, "note: {note}")?;
        }
        if self.notes_left_off > 0 {
            writeln!(f, "and {} notes more", self.notes_left_off)?;
        }
        let Counts {
            journal_files,
            segments,
            records,
            blobs,
            quarantined,
            uploads,
            digests,
            bytes,
            manifests,
            tags,
            links,
        } = &self.counts;
        writeln!(
            f,
            "{}: {journal_files} journal files, {segments} segments, {records} records, {blobs} blobs, \
             {quarantined} in quarantine, {uploads} open uploads, {digests} digests compared over {bytes} bytes; \
             catalog: {manifests} manifests, {tags} tags, {links} links",
            self.folder
        )?;
        if self.clean {
            writeln!(f, "clean")
        } else {
            let all = (self.findings.len() as u64).saturating_add(self.findings_left_off);
            writeln!(f, "findings: {all}")
        }
    }
}

/// Why it could not look.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// A server has the store open.
    #[error("the store in {} is in use by {holder}; stop it first", folder.display())]
    Running {
        /// The data folder.
        folder: PathBuf,
        /// Who holds it.
        holder: String,
    },
    /// It is no store.
    #[error("{} is not a data folder of Orlop: it has no superblock", .0.display())]
    NotAStore(PathBuf),
    /// A newer version wrote it.
    #[error("{0} was written by a newer version; check the store with that version's orlop-fsck")]
    Newer(String),
    /// Something cannot be done.
    #[error("{0}")]
    Refused(String),
    /// The system refused.
    #[error("cannot {op} {}: {source}", path.display())]
    Io {
        /// What was tried.
        op: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// What a check gives, or why it could not look.
pub type Result<T> = std::result::Result<T, Trouble>;
