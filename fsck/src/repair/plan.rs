//! What is to be done, decided from what the check found.
//!
//! A plan changes nothing. It holds the store's lock until it is dropped, so
//! that what it says is still true when it is applied.

mod index;

use std::collections::BTreeSet;
use std::fmt;
use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use orlop_format::digest::{Algorithm, Digest};
use orlop_format::journal;
use orlop_format::location::Home;
use orlop_format::superblock::{FILES, Superblock};
use serde::Serialize;

use super::heal::Orders;
use super::links;
use super::log::Log;
use super::names::Origin;
use super::source::{self, Source};
use crate::catalog::blobs::{Blobs, Life};
use crate::catalog::database::{Database, FILE};
use crate::file::trouble;
use crate::finding::{Code, Finding};
use crate::options::path;
use crate::report::Report;
use crate::scratch::Scratch;
use crate::trouble::{Result, Trouble};
use crate::{check, lock, superblock};

/// Findings that a catalog made again has not.
const NAMES: &[Code] = &[
    Code::CatalogMissing,
    Code::CatalogUnreadable,
    Code::CatalogIntegrity,
    Code::CatalogOther,
    Code::CatalogOlder,
    Code::CatalogTotals,
    Code::ManifestRow,
    Code::ManifestEdges,
    Code::TagManifest,
    Code::LinkSize,
    Code::LinkRepository,
];
/// Findings about a blob whose bytes are damaged.
const DAMAGE: &[Code] = &[
    Code::RecordPayload,
    Code::ExtentHeader,
    Code::ExtentPayload,
    Code::BlobSize,
    Code::BlobDigest,
];
/// Findings about a blob that a name needs.
const WANTED: &[Code] = &[
    Code::ManifestBlob,
    Code::ManifestBytes,
    Code::LinkBlob,
    Code::ReferenceBlob,
];

/// Things of one kind that are named in one sentence; the rest is counted.
const TOLD: usize = 10;

/// Copies of the catalog that the server keeps.
const COPIES: usize = 2;

/// What repair may use.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Where blobs may come from: folders of stores or OCI layouts, and
    /// `https://HOST/REPOSITORY`.
    pub sources: Vec<String>,
    /// How the store is checked, before and after.
    pub check: crate::options::Options,
}

/// One thing that repair does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Action {
    /// Its stable name.
    pub code: &'static str,
    /// What it is about.
    pub object: String,
    /// What it does.
    pub does: String,
    /// What is given up by it, if anything.
    pub gives_up: Option<String>,
}

/// What is to be done.
#[derive(Debug, Serialize)]
pub struct Plan {
    actions: Vec<Action>,
    /// Why something is not repaired.
    cannot: Vec<String>,
    /// What the check found.
    before: Report,
    #[serde(skip)]
    folder: PathBuf,
    #[serde(skip)]
    scratch: Scratch,
    #[serde(skip)]
    options: Options,
    #[serde(skip)]
    pub(super) slot: Option<Superblock>,
    /// Which superblock file is made again.
    #[serde(skip)]
    pub(super) superblock: Option<usize>,
    #[serde(skip)]
    pub(super) orders: Orders,
    /// Whether the journal goes on in a new file whatever else is done.
    #[serde(skip)]
    pub(super) cut: bool,
    /// Whether the index goes.
    #[serde(skip)]
    pub(super) index: bool,
    #[serde(skip)]
    pub(super) catalog: Option<Origin>,
    #[serde(skip)]
    _lock: File,
}

impl Plan {
    pub(super) fn make(folder: &Path, options: Options) -> Result<Self> {
        if !folder.is_dir() {
            return Err(Trouble::NotAStore(folder.to_owned()));
        }
        own(folder)?;
        let lock = lock::take_or_make(folder)?;
        let before = check::held(folder, &options.check, Instant::now())?;
        let slot = superblock::check(folder, &mut Report::new(folder))?;
        let scratch = Scratch::new(options.check.scratch.as_deref());
        let mut plan = Self {
            actions: Vec::new(),
            cannot: Vec::new(),
            before,
            folder: folder.to_owned(),
            scratch,
            options,
            slot,
            superblock: None,
            orders: Orders::default(),
            cut: false,
            index: false,
            catalog: None,
            _lock: lock,
        };
        plan.decide()?;
        Ok(plan)
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.actions.is_empty()
    }

    /// What is to be done, in order.
    #[must_use]
    pub fn actions(&self) -> &[Action] {
        &self.actions
    }

    /// What the check found.
    #[must_use]
    pub fn before(&self) -> &Report {
        &self.before
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn scratch(&self) -> &Scratch {
        &self.scratch
    }

    pub(super) fn sources(&self) -> Result<Vec<Box<dyn Source>>> {
        self.options
            .sources
            .iter()
            .map(|text| source::open(text, &self.scratch))
            .collect()
    }

    pub(super) fn check(&self) -> &crate::options::Options {
        &self.options.check
    }

    fn has(&self, codes: &[Code]) -> Vec<&Finding> {
        self.before
            .findings()
            .iter()
            .filter(|finding| codes.contains(&finding.code))
            .collect()
    }

    fn act(
        &mut self,
        code: &'static str,
        object: impl Into<String>,
        does: impl Into<String>,
        gives_up: Option<String>,
    ) {
        self.actions.push(Action {
            code,
            object: object.into(),
            does: does.into(),
            gives_up,
        });
    }

    fn decide(&mut self) -> Result<()> {
        let Some(slot) = self.slot else {
            self.cannot.push(
                "the superblock: none of its slots holds; restore the store from a backup"
                    .to_owned(),
            );
            return Ok(());
        };
        self.superblock(&slot);
        // Behind a group that does not hold the log is not whole, whatever is
        // read of it: nothing may be made from it.
        if let Some(lost) = self.has(&[Code::SegmentGroup]).first() {
            let segment = lost.object.segment.as_deref().unwrap_or("a segment");
            self.cannot.push(format!(
                "the log does not hold in {segment}; the store goes on with the index it has: keep a copy of the folder, then restore from a backup"
            ));
            return Ok(());
        }
        if self.before.findings_left_off > 0 {
            self.cannot.push(format!(
                "{} findings that are not listed: repair again after this",
                self.before.findings_left_off
            ));
        }
        let log = match Log::read(&self.folder, &self.scratch, &slot) {
            Ok(log) => log,
            Err(Trouble::Refused(reason)) => {
                self.cannot.push(reason);
                return Ok(());
            }
            Err(trouble) => return Err(trouble),
        };
        if self.lost(&log) {
            return Ok(());
        }
        self.tail(&log);
        self.blobs(&log)?;
        self.links(&log, &slot)?;
        self.index(&log)?;
        self.names(&log, &slot)
    }

    /// Whether a part of the log is missing: then nothing may be made from the
    /// rest, and the index is the last that knows what was in it.
    fn lost(&mut self, log: &Log) -> bool {
        let lost: Vec<String> = log.lost().map(|id| path(&Home::Segment(*id))).collect();
        let more = lost.len().saturating_sub(TOLD);
        for path in lost.iter().take(TOLD) {
            self.cannot.push(format!(
                "{path} is missing, and with it a part of the log: put it back, or restore the store from a backup; until then nothing else is repaired, and index/ must stay, for none could be made again"
            ));
        }
        if more > 0 {
            self.cannot.push(format!("{more} more files like these"));
        }
        !lost.is_empty()
    }

    fn superblock(&mut self, newest: &Superblock) {
        let missing = FILES
            .iter()
            .position(|name| !self.folder.join(name).exists());
        let Some(file) = missing else { return };
        let name = FILES.get(file).copied().unwrap_or_default();
        self.superblock = Some(file);
        self.act(
            "superblock.restore",
            name,
            format!(
                "makes it again from the other file, as write {}",
                newest.sequence.saturating_add(1)
            ),
            Some(
                "what the last write said if it went to the missing file: should journal files be missing after that, the store is not whole"
                    .to_owned(),
            ),
        );
    }

    /// A start does not go on where the disk cannot read the end of the
    /// journal: what was there is not known, and unsure is not torn.
    fn tail(&mut self, log: &Log) {
        let Some(end) = log.end else { return };
        let file = format!("journal/{}", journal::file_name(end.sequence));
        if !is_lost(&self.has(&[Code::FileUnreadable]), &file, end.offset) {
            return;
        }
        self.cut = true;
        self.act(
            "journal.end",
            file,
            format!(
                "begins a new journal file behind LSN {}: the disk cannot read what follows at {}",
                end.next_lsn.saturating_sub(1),
                end.offset
            ),
            Some(
                "whatever the unreadable part held; some of it may have been acknowledged"
                    .to_owned(),
            ),
        );
    }

    fn blobs(&mut self, log: &Log) -> Result<()> {
        let mut damaged: BTreeSet<Digest> = blobs(&self.has(DAMAGE));
        let has_source = !self.options.sources.is_empty();
        // What is in quarantine stays there when its file comes back: so that
        // is only for those that are in the store again.
        let mut gone: BTreeSet<Digest> = blobs(&self.has(&[Code::SegmentMissing]))
            .difference(&damaged)
            .copied()
            .collect();
        let old = self.old_copies(log, &mut gone, &damaged)?;
        damaged.extend(&old);
        if !has_source {
            for digest in &gone {
                self.cannot.push(format!(
                    "blob {digest}: its file is missing, or the first block of that does not hold; put the file back, or name a source that has the blob with --source"
                ));
            }
        }
        let mut wanted: BTreeSet<Digest> = blobs(&self.has(WANTED));
        wanted.extend(log.quarantined()?);
        let mut missing = BTreeSet::new();
        for digest in wanted {
            match log.find(&digest)? {
                Some(blob) if blob.life == Life::Live => {}
                _ => {
                    missing.insert(digest);
                }
            }
        }
        if log.end.is_none() {
            return Ok(());
        }
        if has_source {
            missing.extend(gone.iter().copied());
        }
        // The server makes a new copy of the catalog by itself.
        let mut outer = BTreeSet::new();
        for digest in damaged.union(&missing) {
            if log.find(digest)?.is_none_or(|blob| !blob.internal) {
                outer.insert(*digest);
            }
        }
        for digest in &damaged {
            self.act(
                "blob.quarantine",
                format!("blob {digest}"),
                if old.contains(digest) {
                    "lets a copy of the catalog go that lay in a missing file: newer ones have replaced it"
                } else {
                    "names it as damaged in the log, so that it counts as absent and a push heals it"
                },
                None,
            );
        }
        for digest in &outer {
            if has_source {
                self.act(
                    "blob.restore",
                    format!("blob {digest}"),
                    format!(
                        "fetches it from {}, compares it with its digest and commits it",
                        self.options.sources.join(" or ")
                    ),
                    gone.contains(digest)
                        .then(|| "its bytes in the missing file, should that come back".to_owned()),
                );
                self.orders.wanted.push(*digest);
            } else {
                self.cannot.push(format!(
                    "blob {digest}: its bytes are not in the store; push it again, or name a source that has it with --source"
                ));
            }
        }
        self.orders.gone = gone;
        self.orders.damaged = damaged;
        Ok(())
    }

    /// Links of blobs that come back, which a collection has removed, and those
    /// that only the catalog lost.
    fn links(&mut self, log: &Log, slot: &Superblock) -> Result<()> {
        let mut links = links::named(&self.has(&[Code::ReferenceBlob]));
        links.retain(|(_, digest)| self.orders.wanted.contains(digest));
        let unlinked = links::named(&self.has(&[Code::ReferenceLink]));
        if !unlinked.is_empty() {
            let after = Origin::of(log, slot)?.after();
            // One that cannot be read is made again.
            if let Some(Ok(catalog)) = Database::copy(&self.folder, &self.scratch)? {
                links.extend(links::given(&catalog.sql, log, after, &unlinked)?);
            }
        }
        for (repository, digest) in &links {
            self.act(
                "link.restore",
                format!("blob {digest}"),
                format!("gives {repository} its link to it, if it has none"),
                None,
            );
        }
        self.orders.links = links;
        Ok(())
    }

    /// Takes the copies of the catalog out of what lay in missing files, and gives
    /// those that nobody will ask for again.
    fn old_copies(
        &mut self,
        log: &Log,
        gone: &mut BTreeSet<Digest>,
        damaged: &BTreeSet<Digest>,
    ) -> Result<BTreeSet<Digest>> {
        let mut copies = BTreeSet::new();
        for digest in &*gone {
            if log.find(digest)?.is_some_and(|blob| blob.internal) {
                copies.insert(*digest);
            }
        }
        let mut newest = BTreeSet::new();
        for copy in log.copies()?.iter().take(COPIES) {
            newest.extend(Digest::new(Algorithm::Sha256, &copy.sha256));
        }
        let are_good = newest.len() == COPIES
            && newest.is_disjoint(gone)
            && newest.is_disjoint(damaged)
            && self.options.check.catalog
            && self.has(NAMES).is_empty();
        gone.retain(|digest| !copies.contains(digest));
        if are_good {
            return Ok(copies);
        }
        for digest in copies {
            self.cannot.push(format!(
                "blob {digest}: a copy of the catalog, and its file is missing; put the file back, or repair again after the server has made two new copies"
            ));
        }
        Ok(BTreeSet::new())
    }

    fn names(&mut self, log: &Log, slot: &Superblock) -> Result<()> {
        let found: BTreeSet<&str> = self
            .has(NAMES)
            .iter()
            .map(|finding| finding.code.name())
            .collect();
        if found.is_empty() {
            return Ok(());
        }
        let why: Vec<&str> = found.into_iter().collect();
        let origin = Origin::of(log, slot)?;
        let does = format!(
            "makes it again {}; what is there goes to quarantine/ ({})",
            origin.say(),
            why.join(", ")
        );
        // Made once to see what cannot be made.
        let trial = self.scratch.folder()?;
        let made = match origin.make(&self.folder, log, slot, &trial.path().join(FILE)) {
            Ok(made) => made,
            Err(Trouble::Refused(reason)) => {
                self.cannot.push(reason);
                return Ok(());
            }
            Err(trouble) => return Err(trouble),
        };
        let mut gives_up = vec!["counts of pulls since that copy; times of deletion begin anew; changes that a note did not reach the disk for before a crash".to_owned()];
        if !made.lost.is_empty() {
            gives_up.push(format!(
                "by what is in the store now: {}",
                listed(&made.lost)
            ));
        }
        self.act("catalog.rebuild", FILE, does, Some(gives_up.join("; ")));
        self.catalog = Some(origin);
        Ok(())
    }
}

/// The first of some things, and how many more there are.
fn listed(things: &[String]) -> String {
    let first = things.iter().take(TOLD).map(String::as_str);
    let text = first.collect::<Vec<_>>().join(", ");
    match things.len().saturating_sub(TOLD) {
        0 => text,
        more => format!("{text} and {more} more"),
    }
}

/// Only the user that the store belongs to may repair it: what another one
/// makes, the server could not read.
fn own(folder: &Path) -> Result<()> {
    let user = rustix::process::geteuid().as_raw();
    for name in FILES {
        let path = folder.join(name);
        let Ok(data) = path.symlink_metadata() else {
            continue;
        };
        if data.uid() != user {
            let error = std::io::Error::other(format!(
                "it belongs to the user with id {}, this is {user}; run orlop-fsck as that user",
                data.uid()
            ));
            return Err(trouble("repair the store of", &path)(error));
        }
    }
    Ok(())
}

/// Whether the disk cannot read a part of a file behind `end`.
fn is_lost(findings: &[&Finding], file: &str, end: u32) -> bool {
    findings.iter().any(|finding| {
        let object = &finding.object;
        let offset = object.offset.unwrap_or_default();
        let behind = offset.saturating_add(object.length.unwrap_or_default());
        object.file.as_deref() == Some(file) && behind > u64::from(end)
    })
}

/// The blobs that findings are about.
fn blobs(findings: &[&Finding]) -> BTreeSet<Digest> {
    findings
        .iter()
        .filter_map(|finding| Digest::parse(finding.object.blob.as_deref()?).ok())
        .collect()
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, action) in self.actions.iter().enumerate() {
            writeln!(
                f,
                "{}. {}: {}",
                number.saturating_add(1),
                action.code,
                action.object
            )?;
            writeln!(f, "   {}", action.does)?;
            if let Some(gives_up) = &action.gives_up {
                writeln!(f, "   gives up: {gives_up}")?;
            }
        }
        for reason in &self.cannot {
            writeln!(f, "not repaired: {reason}")?;
        }
        if self.actions.is_empty() {
            writeln!(f, "there is nothing that can be repaired here")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::Object;

    #[test]
    fn only_what_cannot_be_read_behind_the_end_of_the_journal_is_cut() {
        let bad = |file: &str, offset: u64| {
            let object = Object::file(file).at(offset).len(4096u64);
            Finding::new(Code::FileUnreadable, object, "4096 bytes", "an error")
        };
        let last = "journal/J-0000000000000002";
        for (finding, lost) in [
            (bad(last, 8192), true),
            (bad(last, 6000), true),
            (bad(last, 4096), false),
            (bad("journal/J-0000000000000001", 8192), false),
        ] {
            assert_eq!(is_lost(&[&finding], last, 8192), lost, "{finding}");
        }
    }
}
