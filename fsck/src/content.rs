//! Are the bytes of every live blob and open upload what their digests say?
//!
//! Reads all of them, span by span, against their checksums and then against
//! every digest the log names. A blob in quarantine is known to be damaged and
//! not read.

use std::collections::BTreeMap;

use orlop_format::BLOCK;
use orlop_format::checksum::{SPAN, crc};
use orlop_format::digest::{Algorithm, Digest, Hasher};
use orlop_format::group;
use orlop_format::location::{Extent, Home, Place};
use orlop_format::segment::ExtentHeader;

use crate::file::Source;
use crate::finding::{Code, Report, Result};
use crate::journal::Journal;
use crate::replay::{Blob, Form, Life, State};
use crate::segment::{Segments, name};

/// Reads what the log refers to.
struct Content<'a> {
    journal: &'a Journal,
    segments: &'a Segments,
    report: &'a mut Report,
}

/// Checks every live blob and every open upload.
pub(crate) fn check(
    state: &State,
    journal: &Journal,
    segments: &Segments,
    report: &mut Report,
) -> Result<()> {
    let mut aliases: BTreeMap<[u8; 32], Vec<Digest>> = BTreeMap::new();
    for (alias, sha256) in &state.aliases {
        aliases.entry(*sha256).or_default().push(*alias);
    }
    let mut content = Content {
        journal,
        segments,
        report,
    };
    for (sha256, blob) in &state.blobs {
        let Ok(digest) = Digest::new(Algorithm::Sha256, sha256) else {
            continue;
        };
        match blob.life {
            Life::Live => {
                let further = aliases.get(sha256).map(Vec::as_slice).unwrap_or_default();
                content.blob(&digest, blob, further)?;
                content.report.counts.blobs = content.report.counts.blobs.saturating_add(1);
            }
            Life::Quarantined => {
                content.report.note(format_args!(
                    "blob {digest} is in quarantine; push it again to heal it"
                ));
                content.report.counts.quarantined =
                    content.report.counts.quarantined.saturating_add(1);
            }
            Life::Dead => {}
        }
    }
    for (id, upload) in &state.uploads {
        let object = format!("upload {id}");
        let mut len = 0u64;
        let mut whole = content.extents(&object, &upload.extents, &mut |bytes| {
            len = len.saturating_add(bytes.len() as u64)
        })?;
        if let Some(tail) = &upload.tail {
            whole &= content.record(&object, tail, &mut |bytes| {
                len = len.saturating_add(bytes.len() as u64)
            })?;
        }
        if whole && len != upload.offset {
            content.report.find(
                Code::BlobSize,
                &object,
                format_args!("{} durable bytes", upload.offset),
                format_args!("{len} bytes"),
            );
        }
        content.report.counts.uploads = content.report.counts.uploads.saturating_add(1);
    }
    Ok(())
}

impl Content<'_> {
    fn blob(&mut self, digest: &Digest, blob: &Blob, further: &[Digest]) -> Result<()> {
        let object = format!("blob {digest}");
        let mut hashers = vec![Hasher::new(Algorithm::Sha256)];
        for alias in further {
            if hashers
                .iter()
                .all(|hasher| hasher.algorithm() != alias.algorithm())
            {
                hashers.push(Hasher::new(alias.algorithm()));
            }
        }
        let mut len = 0u64;
        let mut sink = |bytes: &[u8]| {
            len = len.saturating_add(bytes.len() as u64);
            hashers.iter_mut().for_each(|hasher| hasher.update(bytes));
        };
        let whole = match &blob.form {
            Form::Inline(place) => self.record(&object, place, &mut sink)?,
            Form::Extents(extents) => self.extents(&object, extents, &mut sink)?,
        };
        if !whole {
            return Ok(());
        }
        if len != blob.size {
            self.report.find(
                Code::BlobSize,
                &object,
                format_args!("{} bytes", blob.size),
                format_args!("{len} bytes"),
            );
        }
        let found: Vec<Digest> = hashers.into_iter().map(Hasher::finish).collect();
        for wanted in further.iter().chain([digest]) {
            self.report.counts.digests = self.report.counts.digests.saturating_add(1);
            let actual = found
                .iter()
                .find(|found| found.algorithm() == wanted.algorithm());
            if let Some(actual) = actual.filter(|actual| *actual != wanted) {
                let code = if wanted == digest {
                    Code::BlobDigest
                } else {
                    Code::BlobAlias
                };
                self.report.find(code, &object, wanted, actual);
            }
        }
        Ok(())
    }

    /// Reads the payload of a record; false when it is damaged.
    fn record(&mut self, object: &str, place: &Place, sink: &mut dyn FnMut(&[u8])) -> Result<bool> {
        let (source, volume) = match &place.home {
            Home::Journal(sequence) => match self.journal.files.get(sequence) {
                Some(file) => (&file.source, file.volume()),
                None => return Ok(self.missing(object, &format!("journal file {sequence}"))),
            },
            Home::Segment(id) => match self.segments.files.get(id) {
                Some(segment) => (&segment.source, segment.volume()),
                None => return Ok(self.missing(object, &name(id))),
            },
        };
        let bytes = source.read(u64::from(place.offset), place.len())?;
        match group::check(&volume, place, &bytes) {
            Ok(range) => {
                self.feed(bytes.get(range).unwrap_or_default(), sink);
                Ok(true)
            }
            Err(error) => {
                let object = at(object, source, u64::from(place.offset));
                self.report.find(
                    Code::RecordPayload,
                    object,
                    "a record whose payload holds",
                    error,
                );
                Ok(false)
            }
        }
    }

    /// Reads extents in order; false when one is damaged.
    fn extents(
        &mut self,
        object: &str,
        extents: &[Extent],
        sink: &mut dyn FnMut(&[u8]),
    ) -> Result<bool> {
        let mut whole = true;
        for extent in extents {
            whole &= self.extent(object, extent, sink)?;
        }
        Ok(whole)
    }

    fn extent(
        &mut self,
        object: &str,
        extent: &Extent,
        sink: &mut dyn FnMut(&[u8]),
    ) -> Result<bool> {
        let Some(segment) = self.segments.files.get(&extent.segment) else {
            return Ok(self.missing(object, &name(&extent.segment)));
        };
        let start = u64::from(extent.offset);
        let expected = format!("the header of an extent of {} bytes", extent.len);
        let block = segment.source.block(start)?;
        let header = match ExtentHeader::decode(&segment.header, &block, Some(extent.body)) {
            Ok(header) if header.len == extent.len => header,
            Ok(header) => {
                let found = format!("{} bytes", header.len);
                self.report.find(
                    Code::ExtentHeader,
                    at(object, &segment.source, start),
                    expected,
                    found,
                );
                return Ok(false);
            }
            Err(error) => {
                self.report.find(
                    Code::ExtentHeader,
                    at(object, &segment.source, start),
                    expected,
                    error,
                );
                return Ok(false);
            }
        };
        let frame = (extent.offset, extent.body);
        if segment
            .frames()
            .is_some_and(|frames| frames.binary_search(&frame).is_err())
        {
            let expected = format!("extent {:08x} at {start}", extent.body);
            self.report.find(
                Code::SegmentFooter,
                name(&extent.segment),
                expected,
                "a footer without it",
            );
        }
        let payload = start.saturating_add(BLOCK as u64);
        let bytes = segment.source.read(payload, u64::from(extent.len))?;
        let mut whole = bytes.len() as u64 == u64::from(extent.len);
        if !whole {
            let found = format!("{} bytes", bytes.len());
            let expected = format!("{} bytes of payload", extent.len);
            self.report.find(
                Code::ExtentPayload,
                at(object, &segment.source, payload),
                expected,
                found,
            );
        }
        for (index, (span, wanted)) in bytes.chunks(SPAN).zip(&header.table).enumerate() {
            let found = crc(span);
            if whole && found != *wanted {
                let offset = payload.saturating_add(index.saturating_mul(SPAN) as u64);
                let object = at(object, &segment.source, offset);
                let expected = format!("{} bytes with checksum {wanted:08x}", span.len());
                self.report.find(
                    Code::ExtentPayload,
                    object,
                    expected,
                    format_args!("checksum {found:08x}"),
                );
                whole = false;
            }
        }
        self.feed(&bytes, sink);
        Ok(whole)
    }

    fn feed(&mut self, bytes: &[u8], sink: &mut dyn FnMut(&[u8])) {
        self.report.counts.bytes = self.report.counts.bytes.saturating_add(bytes.len() as u64);
        sink(bytes);
    }

    fn missing(&mut self, object: &str, file: &str) -> bool {
        self.report.find(
            Code::SegmentMissing,
            object,
            format_args!("its bytes in {file}"),
            "no file, or no header",
        );
        false
    }
}

fn at(object: &str, source: &Source, offset: u64) -> String {
    format!("{object} in {} at {offset}", source.path().display())
}
