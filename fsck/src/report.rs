//! What a check says: one document for people and for programs.
//!
//! The serde types here, with those of [`crate::finding`], are the JSON
//! document that `docs/fsck.md` describes. [`FORMAT`] goes up when a field
//! changes its meaning or goes; new fields and new codes may come at any time.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::finding::{Code, Finding, Object};

/// Version of the JSON document.
pub const FORMAT: u32 = 1;

/// Findings and notes kept, each; what comes after is only counted.
pub const KEPT: usize = 10_000;

/// What was looked at.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
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
    /// Extents that blobs and uploads have.
    pub extents: u64,
    /// Bytes of segments that are in use.
    pub live_bytes: u64,
    /// Extents in sealed segments that nothing refers to.
    pub unowned_extents: u64,
    /// Rows of the index that were compared with the log.
    pub index_rows: u64,
    /// Manifests of the catalog that were held against their bytes.
    pub manifests: u64,
    /// Tags of the catalog.
    pub tags: u64,
    /// Links of the catalog.
    pub links: u64,
}

/// How much of the content was compared with its digests.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Coverage {
    /// What was asked for: `all`, `none` or `sample=PERCENT`.
    pub content: String,
    /// Of a sample, the number that it is drawn by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Where it began, if not at the start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Whether all live content was compared.
    pub complete: bool,
    /// Blobs that were compared.
    pub blobs: u64,
    /// Blobs there are.
    pub blobs_of: u64,
    /// Bytes of blobs that were compared.
    pub bytes: u64,
    /// Bytes of blobs there are.
    pub bytes_of: u64,
    /// Where the time ran out: give it to `--from` to go on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// How the index was compared.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct IndexState {
    /// Whether its rows were compared with the log.
    pub compared: bool,
    /// LSN that it has reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub watermark: Option<u64>,
    /// LSN of the last record of the log.
    pub log_end: u64,
    /// The highest id of a segment that it knows.
    #[serde(skip)]
    pub(crate) last_segment: u64,
    /// The number that it gives to the next blob.
    #[serde(skip)]
    pub(crate) next_ordinal: u64,
}

/// All that a check says.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Version of this document.
    pub format: u32,
    /// Version of the program.
    pub version: String,
    /// The data folder.
    pub folder: String,
    /// The store's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<String>,
    /// Whether there is no finding.
    pub clean: bool,
    /// What should not be.
    pub findings: Vec<Finding>,
    /// Findings that were only counted.
    pub findings_left_off: u64,
    /// What is worth to know.
    pub notes: Vec<Finding>,
    /// Notes that were only counted.
    pub notes_left_off: u64,
    /// What was looked at.
    pub counts: Counts,
    /// How much content was compared.
    pub coverage: Coverage,
    /// How the index was compared.
    pub index: IndexState,
    /// How long it took.
    pub seconds: f64,
}

impl Report {
    /// An empty report on a folder.
    #[must_use]
    pub fn new(folder: &std::path::Path) -> Self {
        Self {
            format: FORMAT,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            folder: folder.display().to_string(),
            clean: true,
            ..Self::default()
        }
    }

    /// Adds a finding.
    pub fn find(
        &mut self,
        code: Code,
        object: Object,
        expected: impl fmt::Display,
        found: impl fmt::Display,
    ) {
        self.add(Finding::new(code, object, expected, found));
    }

    /// Adds a note. `found` says what is there.
    pub fn note(&mut self, code: Code, object: Object, found: impl fmt::Display) {
        self.add(Finding::new(code, object, "", found));
    }

    /// Adds what was found elsewhere.
    pub fn add(&mut self, finding: Finding) {
        let note = finding.level == crate::finding::Level::Note;
        self.clean &= note;
        let (kept, left_off) = if note {
            (&mut self.notes, &mut self.notes_left_off)
        } else {
            (&mut self.findings, &mut self.findings_left_off)
        };
        if kept.len() < KEPT {
            kept.push(finding);
        } else {
            *left_off = left_off.saturating_add(1);
        }
    }

    /// Lets somebody who knows the catalog say what each finding reaches.
    pub fn affect(&mut self, mut fill: impl FnMut(&mut Object)) {
        for finding in self.findings.iter_mut().chain(&mut self.notes) {
            fill(&mut finding.object);
        }
    }

    /// What should not be.
    #[must_use]
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// What is worth to know.
    #[must_use]
    pub fn notes(&self) -> &[Finding] {
        &self.notes
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
            write!(f, "{note}")?;
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
            index_rows,
            manifests,
            tags,
            links,
            ..
        } = &self.counts;
        writeln!(
            f,
            "{}: {journal_files} journal files, {segments} segments, {records} records, {blobs} blobs, \
             {quarantined} in quarantine, {uploads} open uploads, {digests} digests compared over {bytes} bytes, \
             {index_rows} index rows compared, {manifests} manifests, {tags} tags and {links} links, {:.1} s",
            self.folder, self.seconds
        )?;
        if self.clean {
            writeln!(f, "clean")
        } else {
            let all = (self.findings.len() as u64).saturating_add(self.findings_left_off);
            writeln!(f, "findings: {all}")
        }
    }
}
