//! The judge: is what a row refers to good on the disk?
//!
//! Invariant: a verdict comes from reads made after the reference was seen, so
//! that bytes still on their way to the disk are never judged.

use std::sync::Arc;

use orlop_disk::{Create, File, Kind, Lane, OpenOptions, Pool};
use orlop_format::BLOCK;
use orlop_format::checksum::{SPAN, crc};
use orlop_format::digest::{Algorithm, Digest};
use orlop_format::group::{self, Volume};
use orlop_format::location::{Extent, Home, Place, SegmentId};
use orlop_format::record::Record;
use orlop_format::row::{Blob, State};
use orlop_format::segment::{ExtentHeader, FileHeader};

use super::read::{WINDOW, read};
use super::{Finding, FindingCode, is_wanted};
use crate::core::Core;
use crate::error::{Error, Result};
use crate::segment::SegmentFile;

/// Blobs that one scrub condemns because they cannot be read. More are the
/// device's fault.
const MAX_UNREADABLE: u32 = 256;

/// What became of checking something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    Good,
    /// What it is in was recycled: whoever refers to it refers elsewhere now.
    Gone,
    /// Its bytes are there and wrong.
    Damaged(String),
    /// The medium does not give its bytes.
    Unreadable(String),
    /// Its file is missing or cannot be opened, which says nothing about its
    /// bytes.
    NoFile(String),
}

/// A segment's file, or what is wrong with it.
pub(super) type Opened = std::result::Result<SegmentFile, Verdict>;

/// What the parts of a scrub share.
pub(super) struct Inspector {
    pub(super) core: Arc<Core>,
    pub(super) pool: Pool,
    store: [u8; 16],
    unreadable: u32,
    /// Findings of the step under way.
    pub(super) found: Vec<Finding>,
}

impl Inspector {
    pub(super) fn new(core: Arc<Core>, pool: Pool, store: [u8; 16]) -> Self {
        Self {
            core,
            pool,
            store,
            unreadable: 0,
            found: Vec::new(),
        }
    }

    /// Adds a finding that is not about one blob.
    pub(super) fn report(
        &mut self,
        code: FindingCode,
        home: &Home,
        offset: u64,
        reason: impl ToString,
    ) {
        self.add(Finding {
            code,
            file: self.file_of(home),
            offset,
            blob: None,
            quarantined: false,
            reason: reason.to_string(),
        });
    }

    fn add(&mut self, finding: Finding) {
        self.core.metrics.scrub_found(finding.code);
        self.found.push(finding);
    }

    /// A file's name below the data folder.
    fn file_of(&self, home: &Home) -> String {
        let path = match home {
            Home::Journal(sequence) => self.core.layout.journal_file(*sequence),
            Home::Segment(id) => self.core.layout.segment(id),
        };
        let below = path.strip_prefix(self.core.layout.root()).unwrap_or(&path);
        below.display().to_string()
    }

    /// Opens a segment apart from the handles that pulls use, and reads its
    /// first block.
    pub(super) async fn segment(&self, id: &SegmentId) -> Result<Opened> {
        let options = OpenOptions {
            create: Create::Never,
            lane: Lane::Shared,
            direct: true,
            write: false,
        };
        let file: Arc<dyn File> = match self.core.disk.open(&self.core.layout.segment(id), options)
        {
            Ok(file) => file,
            Err(error) if error.kind == Kind::NotFound => {
                let reason = "the file is missing: put it back, or mount the file system it is on";
                return Ok(Err(Verdict::NoFile(reason.to_owned())));
            }
            // One file that the disk does not give holds up no other.
            Err(error) if error.kind == Kind::Io => {
                let reason = format!("the file cannot be opened: {}", error.source);
                return Ok(Err(Verdict::NoFile(reason)));
            }
            Err(error) => return Err(error.into()),
        };
        let block = read(&self.core, &self.pool, &file, 0, BLOCK).await?;
        if !block.lost.is_empty() {
            let reason = "its first block cannot be read".to_owned();
            return Ok(Err(Verdict::Unreadable(reason)));
        }
        Ok(match FileHeader::decode(&block.bytes) {
            Ok(header) if header.segment == *id && header.store == self.store => {
                Ok(SegmentFile { header, file })
            }
            Ok(_) => Err(Verdict::Damaged(
                "its first block names another segment or store".to_owned(),
            )),
            Err(error) => Err(Verdict::Damaged(format!("its first block: {error}"))),
        })
    }

    /// Reads an extent as whoever refers to it does, and hands its payload on.
    pub(super) async fn extent(
        &self,
        extent: &Extent,
        payload: &mut (dyn FnMut(&[u8]) + Send),
    ) -> Result<Verdict> {
        let segment = match self.segment(&extent.segment).await? {
            Ok(segment) => segment,
            Err(verdict) => return Ok(verdict),
        };
        let offset = u64::from(extent.offset);
        let block = read(&self.core, &self.pool, &segment.file, offset, BLOCK).await?;
        let header = ExtentHeader::decode(&segment.header, &block.bytes, Some(extent.body));
        let header = match header {
            _ if !block.lost.is_empty() => {
                return Ok(Verdict::Unreadable(format!("the block at {offset}")));
            }
            Ok(header) if header.len == extent.len => header,
            Ok(_) => return Ok(Verdict::Damaged("its header gives another length".into())),
            Err(error) => return Ok(Verdict::Damaged(format!("its header: {error}"))),
        };
        let mut done = 0usize;
        while done < extent.len as usize {
            let len = (extent.len as usize).saturating_sub(done).min(WINDOW);
            let from = offset
                .saturating_add(BLOCK as u64)
                .saturating_add(done as u64);
            let whole = len.next_multiple_of(BLOCK);
            let piece = read(&self.core, &self.pool, &segment.file, from, whole).await?;
            if let Some(at) = piece.lost.first() {
                return Ok(Verdict::Unreadable(format!("the block at {at}")));
            }
            let bytes = piece.bytes.get(..len).unwrap_or_default();
            for (number, span) in bytes.chunks(SPAN).enumerate() {
                let number = (done / SPAN).saturating_add(number);
                if header.table.get(number) != Some(&crc(span)) {
                    let at = number.saturating_mul(SPAN);
                    return Ok(Verdict::Damaged(format!(
                        "the checksum of its 64 KiB at {at} does not hold"
                    )));
                }
            }
            payload(bytes);
            done = done.saturating_add(len);
        }
        Ok(Verdict::Good)
    }

    /// Reads a record with its payload, which it hands on.
    pub(super) async fn place(
        &self,
        place: &Place,
        payload: &mut (dyn FnMut(&[u8]) + Send),
    ) -> Result<Verdict> {
        let (volume, file) = match &place.home {
            Home::Journal(sequence) => match self.core.files.get(*sequence) {
                Some(file) => (file.volume(), file.shared),
                None => return Ok(Verdict::Gone),
            },
            Home::Segment(id) => match self.segment(id).await? {
                Ok(segment) => (segment.volume(), Arc::clone(&segment.file)),
                Err(verdict) => return Ok(verdict),
            },
        };
        let skip = place.offset as usize % BLOCK;
        let start = u64::from(place.offset).saturating_sub(skip as u64);
        let len = usize::try_from(place.len()).unwrap_or(usize::MAX);
        let len = len.saturating_add(skip).next_multiple_of(BLOCK);
        let reading = read(&self.core, &self.pool, &file, start, len).await?;
        let verdict = match reading.lost.first() {
            Some(at) => Verdict::Unreadable(format!("the block at {at}")),
            None => check(&volume, place, &reading.bytes, skip, payload),
        };
        let is_gone = match &place.home {
            Home::Journal(sequence) => self.core.files.get(*sequence).is_none(),
            Home::Segment(_) => false,
        };
        Ok(if is_gone { Verdict::Gone } else { verdict })
    }

    /// Condemns a blob for what was found of it, unless it is another one by
    /// now, or moved.
    pub(super) async fn condemn(
        &mut self,
        code: FindingCode,
        sha256: &[u8; 32],
        row: &Blob,
        (home, offset): (&Home, u64),
        verdict: Verdict,
    ) -> Result<()> {
        let reason = match verdict {
            // A file is a finding of its own.
            Verdict::Good | Verdict::Gone | Verdict::NoFile(_) => return Ok(()),
            Verdict::Damaged(reason) => reason,
            Verdict::Unreadable(what) => {
                self.doubt()?;
                format!("{what} cannot be read")
            }
        };
        let now = self.core.blob_row(sha256)?;
        let Some(now) =
            now.filter(|now| now.birth == row.birth && now.form == row.form && is_wanted(now))
        else {
            return Ok(());
        };
        let file = self.file_of(home);
        let mut quarantined = false;
        if now.state == State::Live {
            let error = Error::corrupt(format!("{file} at {offset}"), &reason);
            quarantined = self.core.set_aside(sha256, row.birth, &error);
            let record = Record::Quarantine {
                sha256: *sha256,
                birth: row.birth,
            };
            if quarantined && let Err(error) = self.core.record(vec![record]).await {
                tracing::warn!(%error, "the quarantine could not be recorded; it holds until a restart, and the next scrub finds the damage again");
            }
        }
        self.add(Finding {
            code,
            file,
            offset,
            blob: Digest::new(Algorithm::Sha256, sha256).ok(),
            quarantined,
            reason,
        });
        Ok(())
    }

    /// Counts something that cannot be read.
    fn doubt(&mut self) -> Result<()> {
        self.unreadable = self.unreadable.saturating_add(1);
        if self.unreadable > MAX_UNREADABLE {
            return Err(Error::Io {
                what: "scrub".to_owned(),
                reason: format!(
                    "more than {MAX_UNREADABLE} blobs cannot be read: look at the device; no more is put into quarantine"
                ),
            });
        }
        Ok(())
    }
}

fn check(
    volume: &Volume,
    place: &Place,
    bytes: &[u8],
    skip: usize,
    payload: &mut (dyn FnMut(&[u8]) + Send),
) -> Verdict {
    let bytes = bytes.get(skip..).unwrap_or_default();
    match group::check(volume, place, bytes) {
        Ok(range) => {
            payload(bytes.get(range).unwrap_or_default());
            Verdict::Good
        }
        Err(error) => Verdict::Damaged(format!("its record: {error}")),
    }
}
