//! Files of a store under construction: groups and extents appended by
//! `orlop-format` alone, with what was put in kept beside the bytes.

use std::path::{Path, PathBuf};

use orlop_format::BLOCK;
use orlop_format::checksum;
use orlop_format::group::{Builder, Volume};
use orlop_format::journal::{self, FileHeader};
use orlop_format::location::{Extent, Home, Place, SegmentId};
use orlop_format::record::{Record, UploadId};
use orlop_format::segment::{self, ExtentHeader, Footer};

use super::STORE;

/// Records of a group: LSN, record, payload.
pub(crate) type Records = Vec<(u64, Record, Vec<u8>)>;

/// A file that consists of a first block and groups, with what they say.
pub(crate) struct Log {
    /// Path below the data folder.
    pub(crate) path: PathBuf,
    /// Where it lies and with which salt.
    pub(crate) volume: Volume,
    /// Its groups by number.
    pub(crate) groups: Vec<(u64, Records)>,
    /// Its bytes.
    pub(crate) bytes: Vec<u8>,
    pub(super) chain: u32,
    frames: Vec<(u32, u32)>,
}

/// A raw segment with what lies in it.
pub(crate) struct Raw {
    /// Path below the data folder.
    pub(crate) path: PathBuf,
    /// Its first block.
    pub(crate) header: segment::FileHeader,
    /// Its extents with their payload.
    pub(crate) extents: Vec<(Extent, ExtentHeader, Vec<u8>)>,
    /// Its footer, if it is sealed.
    pub(crate) footer: Option<Footer>,
    /// Its bytes.
    pub(crate) bytes: Vec<u8>,
}

impl Log {
    pub(super) fn segment(id: SegmentId, salt: u64, opened: u64) -> Log {
        let header = segment::FileHeader {
            store: STORE,
            segment: id,
            salt,
            opened,
        };
        Log {
            path: segment_path(&id),
            volume: Volume {
                home: Home::Segment(id),
                salt,
            },
            groups: Vec::new(),
            bytes: header.encode(),
            chain: 0,
            frames: Vec::new(),
        }
    }

    pub(super) fn journal(header: &FileHeader) -> Log {
        Log {
            path: Path::new("journal").join(journal::file_name(header.sequence)),
            volume: Volume {
                home: Home::Journal(header.sequence),
                salt: header.salt,
            },
            groups: Vec::new(),
            bytes: header.encode(),
            chain: header.chain,
            frames: Vec::new(),
        }
    }

    /// Appends a group; returns where its records lie.
    pub(super) fn push(&mut self, number: u64, records: Records) -> Vec<Place> {
        let offset = u32::try_from(self.bytes.len()).unwrap();
        let mut builder = Builder::new(self.volume, offset, number, self.chain);
        let places = records
            .iter()
            .map(|(lsn, record, payload)| builder.push(*lsn, record, payload))
            .collect();
        let (bytes, crc) = builder.finish();
        self.bytes.extend_from_slice(&bytes);
        self.frames.push((offset, crc));
        self.chain = crc;
        self.groups.push((number, records));
        places
    }

    /// Seals a small or meta segment.
    pub(super) fn seal(&mut self) -> Record {
        let Home::Segment(segment) = self.volume.home else {
            panic!("not a segment")
        };
        let header = segment::FileHeader::decode(&self.bytes).unwrap();
        let footer = Footer {
            frames: self.frames.clone(),
        };
        let used = u32::try_from(self.bytes.len()).unwrap();
        self.bytes.extend_from_slice(&footer.encode(&header, 0));
        Record::Seal {
            segment,
            used,
            hash: footer.hash(),
        }
    }
}

impl Raw {
    pub(super) fn new(id: SegmentId, salt: u64) -> Raw {
        let header = segment::FileHeader {
            store: STORE,
            segment: id,
            salt,
            opened: 0,
        };
        let bytes = header.encode();
        Raw {
            path: segment_path(&id),
            header,
            extents: Vec::new(),
            footer: None,
            bytes,
        }
    }

    pub(super) fn push(&mut self, upload: UploadId, offset: u64, payload: &[u8]) -> Extent {
        let len = u32::try_from(payload.len()).unwrap();
        let header = ExtentHeader {
            upload,
            offset,
            len,
            table: checksum::table(payload),
        };
        let at = u32::try_from(self.bytes.len()).unwrap();
        let (block, body) = header.encode(&self.header, 0);
        self.bytes.extend_from_slice(&block);
        self.bytes.extend_from_slice(payload);
        self.bytes
            .resize(self.bytes.len().next_multiple_of(BLOCK), 0);
        let extent = Extent {
            segment: self.header.segment,
            offset: at,
            len,
            body,
        };
        self.extents.push((extent, header, payload.to_vec()));
        extent
    }

    pub(super) fn seal(&mut self) -> Record {
        let frames = self
            .extents
            .iter()
            .map(|(extent, _, _)| (extent.offset, extent.body))
            .collect();
        let footer = Footer { frames };
        let used = u32::try_from(self.bytes.len()).unwrap();
        self.bytes
            .extend_from_slice(&footer.encode(&self.header, 0));
        let record = Record::Seal {
            segment: self.header.segment,
            used,
            hash: footer.hash(),
        };
        self.footer = Some(footer);
        record
    }
}

fn segment_path(id: &SegmentId) -> PathBuf {
    Path::new("data")
        .join(id.class.folder())
        .join(segment::file_name(id))
}
