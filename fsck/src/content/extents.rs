//! Reading the bytes that a blob or an upload has in files, span by span
//! against their checksums, and hashing them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use orlop_format::BLOCK;
use orlop_format::checksum::{SPAN, crc};
use orlop_format::codec::{Reader as Decoder, Writer};
use orlop_format::digest::{Algorithm, Digest, Hasher};
use orlop_format::group::{self, Volume};
use orlop_format::location::{Extent, Home, Place, SegmentId, decode_extents, encode_extents};
use orlop_format::record::UploadId;
use orlop_format::segment::{self, ExtentHeader};
use orlop_format::{Malformed, journal};

use super::algorithms;
use super::worker::Outcome;
use crate::file::Source;
use crate::finding::{Code, Finding, Object};
use crate::options::path;
use crate::progress::Progress;
use crate::report::Report;
use crate::trouble::Result;

/// Files that one reader keeps open.
const OPEN: usize = 8;

/// The files with a header that holds.
#[derive(Debug, Default)]
pub(crate) struct Files {
    pub(crate) segments: BTreeMap<SegmentId, segment::FileHeader>,
    pub(crate) journal: BTreeMap<u64, journal::FileHeader>,
}

impl Files {
    fn volume(&self, home: &Home) -> Option<Volume> {
        let salt = match home {
            Home::Journal(sequence) => self.journal.get(sequence)?.salt,
            Home::Segment(id) => self.segments.get(id)?.salt,
        };
        Some(Volume { home: *home, salt })
    }
}

/// Whose bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    /// A blob's, by its SHA-256.
    Blob([u8; 32]),
    /// An upload's.
    Upload(UploadId),
}

impl Owner {
    /// It as the object of a finding.
    pub(crate) fn object(&self) -> Object {
        match self {
            Owner::Blob(sha256) => match Digest::new(Algorithm::Sha256, sha256) {
                Ok(digest) => Object::blob(digest),
                Err(_) => Object::default(),
            },
            Owner::Upload(id) => Object::upload(id),
        }
    }

    /// Appends it.
    pub(crate) fn encode(&self, w: &mut Writer) {
        match self {
            Owner::Blob(sha256) => w.u8(0).raw(sha256),
            Owner::Upload(id) => w.u8(1).raw(&id.0),
        };
    }

    /// Takes it.
    pub(crate) fn decode(r: &mut Decoder<'_>) -> std::result::Result<Self, Malformed> {
        Ok(match r.u8()? {
            0 => Owner::Blob(r.array()?),
            _ => Owner::Upload(UploadId(r.array()?)),
        })
    }
}

/// A blob or an upload that has to be read.
#[derive(Debug, Clone)]
pub(crate) struct Large {
    pub(crate) owner: Owner,
    /// Bytes it must have.
    pub(crate) size: u64,
    /// Further digests that it must have.
    pub(crate) further: Vec<Digest>,
    pub(crate) extents: Vec<Extent>,
    /// The record with its bytes, or with those behind the extents.
    pub(crate) place: Option<Place>,
}

impl Large {
    /// Appends it.
    pub(crate) fn encode(&self, w: &mut Writer) {
        self.owner.encode(w);
        w.u64(self.size)
            .u32(u32::try_from(self.further.len()).unwrap_or(u32::MAX));
        for digest in &self.further {
            w.bytes(&digest.encode());
        }
        encode_extents(&self.extents, w);
        w.u8(u8::from(self.place.is_some()));
        if let Some(place) = &self.place {
            place.encode(w);
        }
    }

    /// Takes it.
    pub(crate) fn decode(r: &mut Decoder<'_>) -> std::result::Result<Self, Malformed> {
        let (owner, size, count) = (Owner::decode(r)?, r.u64()?, r.u32()?);
        let mut further = Vec::new();
        for _ in 0..count {
            let (digest, _) =
                Digest::decode(r.bytes(65)?).map_err(|_| Malformed::Field("digest"))?;
            further.push(digest);
        }
        let extents = decode_extents(r)?;
        let place = match r.u8()? {
            0 => None,
            _ => Some(Place::decode(r)?),
        };
        Ok(Self {
            owner,
            size,
            further,
            extents,
            place,
        })
    }
}

/// Reads what blobs and uploads have in files.
#[derive(Debug)]
pub(super) struct Reader {
    folder: PathBuf,
    open: Vec<(Home, Source)>,
    buffer: Vec<u8>,
}

/// What the bytes are fed to.
struct Sink<'a> {
    hashers: Vec<Hasher>,
    len: u64,
    outcome: Outcome,
    progress: &'a Progress,
}

impl Sink<'_> {
    fn feed(&mut self, bytes: &[u8]) {
        self.len = self.len.saturating_add(bytes.len() as u64);
        self.hashers
            .iter_mut()
            .for_each(|hasher| hasher.update(bytes));
        self.progress.advance(bytes.len() as u64);
    }

    fn find(&mut self, code: Code, object: Object, expected: String, found: String) {
        let finding = Finding::new(code, object, expected, found);
        self.outcome.findings.push(finding);
    }

    fn missing(&mut self, owner: &Owner, home: &Home) -> bool {
        let path = path(home);
        let expected = format!("its bytes in {path}");
        let found = "no file, or no header".to_owned();
        self.find(
            Code::SegmentMissing,
            owner.object().inside(path),
            expected,
            found,
        );
        false
    }
}

impl Reader {
    pub(super) fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            open: Vec::new(),
            buffer: Vec::new(),
        }
    }

    /// Reads and compares one blob or upload.
    pub(super) fn large(
        &mut self,
        large: &Large,
        files: &Files,
        progress: &Progress,
    ) -> Result<Outcome> {
        let own = match large.owner {
            Owner::Blob(sha256) => Digest::new(Algorithm::Sha256, &sha256).ok(),
            Owner::Upload(_) => None,
        };
        let wanted: Vec<Digest> = large.further.iter().copied().chain(own).collect();
        let mut sink = Sink {
            hashers: algorithms(&wanted).into_iter().map(Hasher::new).collect(),
            len: 0,
            outcome: Outcome::default(),
            progress,
        };
        let mut whole = true;
        for (at, extent) in large.extents.iter().enumerate() {
            let next = large.extents.get(at.saturating_add(1));
            whole &= self.extent(large, extent, next, files, &mut sink)?;
        }
        if let Some(place) = &large.place {
            whole &= self.record(large, place, files, &mut sink)?;
        }
        let Sink {
            hashers,
            len,
            mut outcome,
            ..
        } = sink;
        outcome.bytes = len;
        if !whole {
            return Ok(outcome);
        }
        if len != large.size {
            let code = match large.owner {
                Owner::Blob(_) => Code::BlobSize,
                Owner::Upload(_) => Code::UploadSize,
            };
            let (expected, found) = (format!("{} bytes", large.size), format!("{len} bytes"));
            let finding = Finding::new(code, large.owner.object(), expected, found);
            outcome.findings.push(finding);
        }
        let found: Vec<Digest> = hashers.into_iter().map(Hasher::finish).collect();
        for wanted in &wanted {
            outcome.digests = outcome.digests.saturating_add(1);
            let actual = found
                .iter()
                .find(|found| found.algorithm() == wanted.algorithm());
            if let Some(actual) = actual.filter(|actual| *actual != wanted) {
                let code = if Some(*wanted) == own {
                    Code::BlobDigest
                } else {
                    Code::BlobAlias
                };
                let finding = Finding::new(code, large.owner.object(), wanted, actual);
                outcome.findings.push(finding);
            }
        }
        Ok(outcome)
    }

    /// An open file, put to the front; `None` when there is none.
    fn source(&mut self, home: &Home) -> Result<Option<&Source>> {
        if let Some(at) = self.open.iter().position(|(open, _)| open == home) {
            let found = self.open.remove(at);
            self.open.insert(0, found);
        } else {
            let Some(source) = Source::open(&self.folder, &path(home))? else {
                return Ok(None);
            };
            self.open.truncate(OPEN.saturating_sub(1));
            self.open.insert(0, (*home, source));
        }
        Ok(self.open.first().map(|(_, source)| source))
    }

    /// Reads a record's payload; false when it is damaged.
    fn record(
        &mut self,
        large: &Large,
        place: &Place,
        files: &Files,
        sink: &mut Sink<'_>,
    ) -> Result<bool> {
        let mut bytes = std::mem::take(&mut self.buffer);
        let volume = files.volume(&place.home);
        let (Some(volume), Some(source)) = (volume, self.source(&place.home)?) else {
            return Ok(sink.missing(&large.owner, &place.home));
        };
        source.fill(u64::from(place.offset), place.len(), &mut bytes)?;
        lost(source, sink);
        let whole = match group::check(&volume, place, &bytes) {
            Ok(range) => {
                sink.feed(bytes.get(range).unwrap_or_default());
                true
            }
            Err(error) => {
                let object = large
                    .owner
                    .object()
                    .inside(source.name())
                    .at(place.offset)
                    .len(place.len());
                let expected = "a record whose payload holds".to_owned();
                sink.find(Code::RecordPayload, object, expected, error.to_string());
                false
            }
        };
        self.buffer = bytes;
        Ok(whole)
    }

    /// Reads an extent; false when it is damaged.
    fn extent(
        &mut self,
        large: &Large,
        extent: &Extent,
        next: Option<&Extent>,
        files: &Files,
        sink: &mut Sink<'_>,
    ) -> Result<bool> {
        let home = Home::Segment(extent.segment);
        let mut bytes = std::mem::take(&mut self.buffer);
        let header = files.segments.get(&extent.segment);
        let (Some(header), Some(source)) = (header, self.source(&home)?) else {
            return Ok(sink.missing(&large.owner, &home));
        };
        let (start, footprint) = (u64::from(extent.offset), extent.footprint());
        source.fill(start, footprint, &mut bytes)?;
        lost(source, sink);
        // While this one is hashed the disk has something to do.
        if let Some(next) = next.filter(|next| next.segment == extent.segment) {
            source.prefetch(u64::from(next.offset), next.footprint());
        }
        let object = |offset: u64, len: u64| {
            let object = large.owner.object().inside(source.name());
            object.at(offset).len(len)
        };
        let block = bytes.get(..BLOCK).unwrap_or(&bytes);
        let decoded = match ExtentHeader::decode(header, block, Some(extent.body)) {
            Ok(decoded) if decoded.len == extent.len => Ok(decoded),
            Ok(decoded) => Err(format!("{} bytes", decoded.len)),
            Err(error) => Err(error.to_string()),
        };
        let table = match decoded {
            Ok(decoded) => decoded.table,
            Err(found) => {
                let expected = format!("the header of an extent of {} bytes", extent.len);
                sink.find(
                    Code::ExtentHeader,
                    object(start, BLOCK as u64),
                    expected,
                    found,
                );
                self.buffer = bytes;
                return Ok(false);
            }
        };
        let end = BLOCK.saturating_add(extent.len as usize);
        let payload = bytes
            .get(BLOCK..end)
            .unwrap_or(bytes.get(BLOCK..).unwrap_or_default());
        let first = start.saturating_add(BLOCK as u64);
        let mut whole = true;
        if payload.len() != extent.len as usize {
            let expected = format!("{} bytes of payload", extent.len);
            let found = format!("{} bytes", payload.len());
            let object = object(first, u64::from(extent.len));
            sink.find(Code::ExtentPayload, object, expected, found);
            whole = false;
        }
        for (index, (span, wanted)) in payload.chunks(SPAN).zip(&table).enumerate() {
            let found = if whole { crc(span) } else { *wanted };
            if found != *wanted {
                let offset = first.saturating_add(index.saturating_mul(SPAN) as u64);
                let expected = format!("{} bytes with checksum {wanted:08x}", span.len());
                let found = format!("checksum {found:08x}");
                let object = object(offset, span.len() as u64);
                sink.find(Code::ExtentPayload, object, expected, found);
                whole = false;
            }
        }
        sink.feed(payload);
        source.release(start, footprint);
        self.buffer = bytes;
        Ok(whole)
    }
}

/// Puts what the disk could not read among the findings.
fn lost(source: &Source, sink: &mut Sink<'_>) {
    let mut report = Report::default();
    source.report(&mut report);
    sink.outcome.findings.append(&mut report.findings);
}
