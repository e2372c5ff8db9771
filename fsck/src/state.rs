//! Puts together what the log, the index and the files say of each digest,
//! blob and upload, one after the other, and hands on what has to be looked at
//! in another order: content by where it lies, extents by segment, numbers.

use std::sync::Arc;

use orlop_format::codec::{Reader, Writer};
use orlop_format::digest::{Algorithm, Digest};
use orlop_format::location::{Home, Place};
use orlop_format::record::UploadId;
use orlop_format::row::{Form, State as Life};

use crate::blobs::Blobs;
use crate::catalog::blobs::Aliases;
use crate::content::{Crew, Files, Large, Owner};
use crate::finding::Code;
use crate::index::Compare;
use crate::log::Log;
use crate::options::{Choice, Position, path};
use crate::progress::Progress;
use crate::replay::{self, Blob, Folded, Upload};
use crate::report::Report;
use crate::scratch::Scratch;
use crate::sort::{Sorted, Sorter};
use crate::space::Space;
use crate::trouble::Result;

/// Memory for content to be read, bytes.
const CONTENT: usize = 16 << 20;
/// Memory for further digests and for numbers, each, bytes.
const OTHERS: usize = 8 << 20;
/// Further digests of one blob that are compared.
const MAX_FURTHER: usize = 64;

/// What is looked at in another order.
pub(crate) struct State {
    /// Blobs by SHA-256, as they are at the end of the log.
    pub(crate) blobs: Blobs,
    /// Further digests, as they are at the end of the log.
    pub(crate) others: Aliases,
    pub(crate) space: Space,
    content: Sorter,
    content_bytes: u64,
    /// Ordinals where the index ends, and their blobs.
    ordinals: Sorter,
    /// Further digests by the SHA-256 they mean.
    further: Sorter,
}

impl State {
    pub(crate) fn new(scratch: &Scratch) -> Self {
        Self {
            blobs: Blobs::new(scratch),
            others: Aliases::default(),
            space: Space::new(scratch),
            content: Sorter::new(scratch, CONTENT),
            content_bytes: 0,
            ordinals: Sorter::new(scratch, OTHERS),
            further: Sorter::new(scratch, OTHERS),
        }
    }

    /// Goes through all further digests; the blobs come next.
    pub(crate) fn aliases(
        &mut self,
        sorted: &mut Sorted,
        watermark: u64,
        index: &mut Option<Compare<'_>>,
        report: &mut Report,
    ) -> Result<()> {
        let (further, others) = (&mut self.further, &mut self.others);
        replay::aliases(sorted, watermark, |digest, folded| {
            if let Some(index) = index {
                index.alias(Some((&digest, &folded)), report);
            }
            match folded.end {
                Some(sha256) => {
                    others.push(&digest, &sha256)?;
                    further.push(&[&sha256[..], &digest.encode()].concat())
                }
                None => Ok(()),
            }
        })?;
        if let Some(index) = index {
            index.alias(None, report);
        }
        Ok(())
    }

    /// Goes through all blobs.
    pub(crate) fn blobs(
        &mut self,
        sorted: &mut Sorted,
        watermark: u64,
        choice: &Choice,
        index: &mut Option<Compare<'_>>,
        report: &mut Report,
    ) -> Result<()> {
        let further = std::mem::replace(&mut self.further, Sorter::new(&Scratch::new(None), 0));
        let mut further = Further::new(further.finish()?)?;
        replay::blobs(sorted, watermark, |sha256, folded| {
            let Folded { there, end } = folded;
            if let Some(index) = index {
                let chosen = index.blob(&sha256, there.as_ref(), report);
                if let Some(there) = there.as_ref().filter(|blob| blob.row.state != Life::Dead) {
                    let ordinal = there.row.ordinal.to_be_bytes();
                    self.ordinals.push(&[&ordinal[..], &sha256].concat())?;
                }
                let further = further.of(&sha256)?;
                return self.blob(&sha256, end, chosen, further, choice, report);
            }
            let further = further.of(&sha256)?;
            self.blob(&sha256, end, None, further, choice, report)
        })?;
        if let Some(index) = index {
            index.end_of_blobs(report);
        }
        Ok(())
    }

    fn blob(
        &mut self,
        sha256: &[u8; 32],
        blob: Option<Blob>,
        chosen: Option<Place>,
        further: Vec<Digest>,
        choice: &Choice,
        report: &mut Report,
    ) -> Result<()> {
        let Some(mut blob) = blob else { return Ok(()) };
        if let Some(place) = chosen.filter(|place| blob.copies.places.contains(place)) {
            blob.row.form = Form::Inline(place);
        }
        self.blobs.push(sha256, &blob.row)?;
        let owner = Owner::Blob(*sha256);
        if blob.row.state == Life::Dead {
            return Ok(());
        }
        if let Form::Extents(extents) = &blob.row.form {
            for extent in extents {
                let counts = blob.row.state == Life::Live;
                self.space.push(&owner, extent, counts)?;
            }
        }
        if blob.row.state == Life::Quarantined {
            report.counts.quarantined = report.counts.quarantined.saturating_add(1);
            let found = "in quarantine; push it again to heal it";
            report.note(Code::BlobQuarantined, owner.object(), found);
            return Ok(());
        }
        report.counts.blobs = report.counts.blobs.saturating_add(1);
        let coverage = &mut report.coverage;
        coverage.blobs_of = coverage.blobs_of.saturating_add(1);
        coverage.bytes_of = coverage.bytes_of.saturating_add(blob.row.size);
        match blob.row.form.clone() {
            Form::Inline(place) => {
                self.small(&owner, sha256, &blob, place, further, choice, report)
            }
            Form::Extents(extents) => {
                if !choice.any() || !choice.chosen(sha256) {
                    return Ok(());
                }
                self.read(Large {
                    owner,
                    size: blob.row.size,
                    further,
                    extents,
                    place: None,
                })
            }
        }
    }

    /// A blob whose record the walk has seen, and hashed if it was due.
    #[expect(clippy::too_many_arguments, reason = "all that is known of one blob")]
    fn small(
        &mut self,
        owner: &Owner,
        sha256: &[u8; 32],
        blob: &Blob,
        place: Place,
        further: Vec<Digest>,
        choice: &Choice,
        report: &mut Report,
    ) -> Result<()> {
        let size = blob.row.size;
        let object = || {
            owner
                .object()
                .inside(path(&place.home))
                .at(place.offset)
                .len(place.len())
        };
        let holds = blob.copies.holds(&place);
        if holds != Some(true) {
            let (code, expected, found) = match holds {
                None => (
                    Code::SegmentMissing,
                    format!("its record in {}", path(&place.home)),
                    "no such record, no file, or no header".to_owned(),
                ),
                Some(_) if u64::from(place.payload) != size => (
                    Code::BlobSize,
                    format!("{size} bytes"),
                    format!("{} bytes", place.payload),
                ),
                Some(_) => (
                    Code::RecordPayload,
                    "a record whose payload holds".to_owned(),
                    "its checksum does not hold".to_owned(),
                ),
            };
            report.find(code, object(), expected, found);
            return Ok(());
        }
        let position = Position::new(place.home, u64::from(place.offset));
        if !choice.any() || !choice.chosen(sha256) || !choice.covers(&position) {
            return Ok(());
        }
        let own = Digest::new(Algorithm::Sha256, sha256).ok();
        for wrong in blob.wrong.iter().filter(|wrong| wrong.place == place) {
            let code = if Some(wrong.wanted) == own {
                Code::BlobDigest
            } else {
                Code::BlobAlias
            };
            report.find(code, object(), wrong.wanted, wrong.found);
        }
        let unknown = further.iter().any(|digest| !blob.further.contains(digest));
        if unknown {
            // Digests that came later than the record.
            return self.read(Large {
                owner: *owner,
                size,
                further,
                extents: Vec::new(),
                place: Some(place),
            });
        }
        let (counts, coverage) = (&mut report.counts, &mut report.coverage);
        let digests = (further.len() as u64).saturating_add(1);
        counts.digests = counts.digests.saturating_add(digests);
        counts.bytes = counts.bytes.saturating_add(size);
        coverage.blobs = coverage.blobs.saturating_add(1);
        coverage.bytes = coverage.bytes.saturating_add(size);
        Ok(())
    }

    /// Has content read later, in the order in which it lies.
    fn read(&mut self, large: Large) -> Result<()> {
        let position = position(&large);
        let mut w = Writer::new();
        w.raw(&position.sort_key());
        large.encode(&mut w);
        self.content_bytes = self.content_bytes.saturating_add(large.size);
        self.content.push(w.as_slice())
    }

    /// Goes through all open uploads.
    pub(crate) fn uploads(
        &mut self,
        sorted: &mut Sorted,
        watermark: u64,
        choice: &Choice,
        index: &mut Option<Compare<'_>>,
        report: &mut Report,
    ) -> Result<()> {
        replay::uploads(sorted, watermark, |id, folded| {
            if let Some(index) = index {
                index.upload(Some(&id), folded.there.as_ref(), report);
            }
            match folded.end {
                Some(upload) => self.upload(id, upload, choice, report),
                None => Ok(()),
            }
        })?;
        if let Some(index) = index {
            index.upload(None, None, report);
        }
        Ok(())
    }

    fn upload(
        &mut self,
        id: UploadId,
        upload: Upload,
        choice: &Choice,
        report: &mut Report,
    ) -> Result<()> {
        report.counts.uploads = report.counts.uploads.saturating_add(1);
        let owner = Owner::Upload(id);
        let row = upload.row;
        for extent in &row.checkpoint.extents {
            self.space.push(&owner, extent, true)?;
        }
        let bytes = row
            .checkpoint
            .extents
            .iter()
            .map(|extent| u64::from(extent.len));
        let tail = row.tail.map_or(0, |tail| u64::from(tail.payload));
        let len = bytes.fold(tail, u64::saturating_add);
        if len != row.checkpoint.offset {
            let expected = format!("{} durable bytes", row.checkpoint.offset);
            report.find(
                Code::UploadSize,
                owner.object(),
                expected,
                format!("{len} bytes"),
            );
        }
        if let Some(tail) = row.tail.filter(|_| upload.copies.lost()) {
            let object = owner
                .object()
                .inside(path(&tail.home))
                .at(tail.offset)
                .len(tail.len());
            let expected = "a record whose payload holds";
            report.find(
                Code::RecordPayload,
                object,
                expected,
                "its checksum does not hold",
            );
            return Ok(());
        }
        if !choice.any() || len == 0 {
            return Ok(());
        }
        self.read(Large {
            owner,
            size: len,
            further: Vec::new(),
            extents: row.checkpoint.extents,
            place: row.tail,
        })
    }

    /// Compares the numbers of blobs with the index.
    pub(crate) fn ordinals(&mut self, index: &mut Compare<'_>, report: &mut Report) -> Result<()> {
        let ordinals = std::mem::replace(&mut self.ordinals, Sorter::new(&Scratch::new(None), 0));
        let mut sorted = ordinals.finish()?;
        while let Some(item) = sorted.next()? {
            let mut r = Reader::new(item);
            if let (Ok(ordinal), Ok(sha256)) = (r.array(), r.array()) {
                index.ordinal(Some((u64::from_be_bytes(ordinal), sha256)), report);
            }
        }
        index.ordinal(None, report);
        Ok(())
    }

    /// Reads the content that is to be read, in order, until the time runs
    /// out.
    pub(crate) fn content(
        self,
        files: &Arc<Files>,
        choice: &mut Choice,
        crew: &mut Crew,
        progress: &Progress,
        report: &mut Report,
    ) -> Result<()> {
        progress.stage("content", self.content_bytes);
        let mut sorted = self.content.finish()?;
        while let Some(item) = sorted.next()? {
            let mut r = Reader::new(item);
            let large = r.raw(KEY).and_then(|_| Large::decode(&mut r));
            let Ok(large) = large else { continue };
            if !choice.due(&position(&large)) {
                continue;
            }
            if matches!(large.owner, Owner::Blob(_)) {
                let coverage = &mut report.coverage;
                coverage.blobs = coverage.blobs.saturating_add(1);
                coverage.bytes = coverage.bytes.saturating_add(large.size);
            }
            crew.large(large, files)?;
        }
        crew.finish(report)
    }
}

/// Bytes of a position in front of content.
const KEY: usize = 21;

/// Where content begins.
fn position(large: &Large) -> Position {
    match (large.extents.first(), &large.place) {
        (Some(extent), _) => Position::new(Home::Segment(extent.segment), u64::from(extent.offset)),
        (None, Some(place)) => Position::new(place.home, u64::from(place.offset)),
        // The empty blob lies in its record; this is never reached.
        (None, None) => Position::new(Home::Journal(0), 0),
    }
}

/// Further digests, in the order of the blobs they mean.
struct Further {
    sorted: Sorted,
    ahead: Option<([u8; 32], Digest)>,
}

impl Further {
    fn new(sorted: Sorted) -> Result<Self> {
        let mut further = Self {
            sorted,
            ahead: None,
        };
        further.step()?;
        Ok(further)
    }

    fn step(&mut self) -> Result<()> {
        self.ahead = self.sorted.next()?.and_then(|item| {
            let (sha256, rest) = item.split_first_chunk::<32>()?;
            Some((*sha256, Digest::decode(rest).ok()?.0))
        });
        Ok(())
    }

    /// Those of the next blob.
    fn of(&mut self, sha256: &[u8; 32]) -> Result<Vec<Digest>> {
        let mut found = Vec::new();
        while let Some((key, digest)) = self.ahead.filter(|(key, _)| key <= sha256) {
            if key == *sha256 && found.len() < MAX_FURTHER && !found.contains(&digest) {
                found.push(digest);
            }
            self.step()?;
        }
        Ok(found)
    }
}

/// Goes through everything that is sorted by whom it concerns.
pub(crate) fn join(
    log: Log,
    scratch: &Scratch,
    watermark: u64,
    index: &mut Option<Compare<'_>>,
    report: &mut Report,
) -> Result<(State, Choice, Crew)> {
    let mut state = State::new(scratch);
    let Log {
        blobs,
        aliases,
        uploads,
        choice,
        crew,
        ..
    } = log;
    state.aliases(&mut aliases.finish()?, watermark, index, report)?;
    state.blobs(&mut blobs.finish()?, watermark, &choice, index, report)?;
    state.uploads(&mut uploads.finish()?, watermark, &choice, index, report)?;
    Ok((state, choice, crew))
}

/// The folder's files by their headers, for those who read.
pub(crate) fn files(
    journal: &crate::journal::Journal,
    segments: &crate::segment::Segments,
) -> Arc<Files> {
    Arc::new(Files {
        segments: segments
            .files
            .iter()
            .map(|(id, segment)| (*id, segment.header))
            .collect(),
        journal: journal.files.clone(),
    })
}
