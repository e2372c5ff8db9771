//! Segment files: their first block, the extents of raw segments, and the
//! footer of a sealed one.
//!
//! First block: magic `ORLS` u32 · format u32 · store id 16 · segment id 16
//! ([`SegmentId`]) · salt u64 · LSN when it was opened u64 · CRC-32 of the 56
//! bytes before. The rest is zero.
//!
//! Small and meta segments go on with groups ([`crate::group`]), raw ones with
//! extents: a header block, then the payload in whole blocks. The header block
//! is a [`crate::header`] of kind [`Kind::Extent`] and a body: upload 16 ·
//! offset of the payload in the upload u64 · one CRC-32 for each 64 KiB of
//! payload.
//!
//! The footer of a sealed segment starts on the block behind its last frame: a
//! header of kind [`Kind::Footer`], whose body is BLAKE3 over the frame
//! checksums 32 · count u32 · for each frame offset u32 and checksum u32 (of an
//! extent's body, of a group's last header). Since the hash covers checksums and not
//! payload, it stays true when holes are punched.

use crate::codec::{Reader, Writer};
use crate::header::{self, Header};
use crate::location::SegmentId;
use crate::record::{Kind, UploadId};
use crate::{BLOCK, FORMAT, Malformed, checksum};

const MAGIC: u32 = u32::from_le_bytes(*b"ORLS");
const COVERED: usize = 56;
/// Most bytes of payload of one extent.
pub const MAX_EXTENT: usize = header::MAX_PAYLOAD as usize;
/// Most frames of one segment.
pub const MAX_FRAMES: usize = 65_536;

/// The first block of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileHeader {
    /// The store it belongs to.
    pub store: [u8; 16],
    /// Which segment it is, in which life.
    pub segment: SegmentId,
    /// Random salt of its headers.
    pub salt: u64,
    /// LSN when it was opened.
    pub opened: u64,
}

impl FileHeader {
    /// The block.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.u32(MAGIC).u32(FORMAT).raw(&self.store);
        self.segment.encode(&mut w);
        w.u64(self.salt).u64(self.opened);
        let crc = checksum::crc(w.as_slice());
        w.u32(crc).pad_to(BLOCK);
        w.finish()
    }

    /// Reads the block.
    pub fn decode(block: &[u8]) -> Result<Self, Malformed> {
        let covered = block.get(..COVERED).ok_or(Malformed::Truncated)?;
        let mut r = Reader::new(block);
        if r.u32()? != MAGIC {
            return Err(Malformed::Checksum);
        }
        let format = r.u32()?;
        let store = r.array()?;
        let segment = SegmentId::decode(&mut r);
        let mut tail = Reader::new(block.get(40..).ok_or(Malformed::Truncated)?);
        let (salt, opened) = (tail.u64()?, tail.u64()?);
        if checksum::crc(covered) != tail.u32()? {
            return Err(Malformed::Checksum);
        }
        if format > FORMAT {
            return Err(Malformed::Newer("segment format"));
        }
        Ok(Self {
            store,
            segment: segment?,
            salt,
            opened,
        })
    }
}

/// The name of a segment's file in its class's folder.
pub fn file_name(segment: &SegmentId) -> String {
    format!("S-{:016x}.{:08x}", segment.id, segment.generation)
}

/// What the name of a small or meta segment begins with until it is sealed.
/// What was not sealed does not count: the journal still has its records.
pub const UNSEALED: &str = "unsealed-";

/// Id and generation in a segment's file name.
pub fn parse_name(name: &str) -> Option<(u64, u32)> {
    let (id, generation) = name.strip_prefix("S-")?.split_once('.')?;
    if id.len() != 16 || generation.len() != 8 {
        return None;
    }
    Some((
        u64::from_str_radix(id, 16).ok()?,
        u32::from_str_radix(generation, 16).ok()?,
    ))
}

/// The header block of an extent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtentHeader {
    /// The upload whose bytes these are.
    pub upload: UploadId,
    /// Offset of the first byte in the upload.
    pub offset: u64,
    /// Bytes of payload.
    pub len: u32,
    /// CRC-32 of each 64 KiB of payload.
    pub table: Vec<u32>,
}

impl ExtentHeader {
    fn body(&self) -> Writer {
        let mut body = Writer::new();
        body.raw(&self.upload.0).u64(self.offset);
        for crc in &self.table {
            body.u32(*crc);
        }
        body
    }

    /// CRC-32 of its body: what references to the extent repeat.
    pub fn checksum(&self) -> u32 {
        checksum::crc(self.body().as_slice())
    }

    /// The header block, and the CRC-32 of its body.
    pub fn encode(&self, file: &FileHeader, lsn: u64) -> (Vec<u8>, u32) {
        let body = self.body();
        let body_crc = checksum::crc(body.as_slice());
        let head = Header {
            kind: Kind::Extent.code(),
            lsn,
            file: file.segment.id,
            generation: file.segment.generation,
            chain: 0,
            body_len: u32::try_from(body.len()).unwrap_or(u32::MAX),
            payload_len: self.len,
            body_crc,
            payload_crc: 0,
        };
        let mut w = Writer::new();
        head.encode(file.salt, &mut w);
        w.raw(body.as_slice()).pad_to(BLOCK);
        (w.finish(), body_crc)
    }

    /// Reads the header block of an extent whose body checksum must be
    /// `expected` (`None`: whatever it says).
    pub fn decode(
        file: &FileHeader,
        block: &[u8],
        expected: Option<u32>,
    ) -> Result<Self, Malformed> {
        let (head, _) = Header::decode(file.salt, block)?;
        if head.kind != Kind::Extent.code()
            || head.file != file.segment.id
            || head.generation != file.segment.generation
            || expected.is_some_and(|crc| crc != head.body_crc)
        {
            return Err(Malformed::Checksum);
        }
        let end = header::LEN.saturating_add(head.body_len as usize);
        let body = block.get(header::LEN..end).ok_or(Malformed::Truncated)?;
        if checksum::crc(body) != head.body_crc {
            return Err(Malformed::Checksum);
        }
        let mut r = Reader::new(body);
        let (upload, offset) = (UploadId(r.array()?), r.u64()?);
        let spans = (head.payload_len as usize).div_ceil(checksum::SPAN);
        let table = (0..spans).map(|_| r.u32()).collect::<Result<_, _>>()?;
        r.end()?;
        Ok(Self {
            upload,
            offset,
            len: head.payload_len,
            table,
        })
    }
}

/// The footer of a sealed segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Footer {
    /// Offset and checksum of each frame, in order: of an extent's body, of a
    /// group's last header.
    pub frames: Vec<(u32, u32)>,
}

impl Footer {
    /// BLAKE3 over the frame checksums.
    pub fn hash(&self) -> [u8; 32] {
        checksum::seal(self.frames.iter().map(|(_, crc)| *crc))
    }

    /// The footer in whole blocks.
    pub fn encode(&self, file: &FileHeader, lsn: u64) -> Vec<u8> {
        let mut body = Writer::new();
        body.raw(&self.hash())
            .u32(u32::try_from(self.frames.len()).unwrap_or(u32::MAX));
        for (offset, crc) in &self.frames {
            body.u32(*offset).u32(*crc);
        }
        let head = Header {
            kind: Kind::Footer.code(),
            lsn,
            file: file.segment.id,
            generation: file.segment.generation,
            chain: 0,
            body_len: u32::try_from(body.len()).unwrap_or(u32::MAX),
            payload_len: 0,
            body_crc: checksum::crc(body.as_slice()),
            payload_crc: 0,
        };
        let mut w = Writer::new();
        head.encode(file.salt, &mut w);
        w.raw(body.as_slice());
        let end = w.len().next_multiple_of(BLOCK);
        w.pad_to(end);
        w.finish()
    }

    /// Reads a footer at the front of `bytes`.
    pub fn decode(file: &FileHeader, bytes: &[u8]) -> Result<Self, Malformed> {
        let (head, _) = Header::decode(file.salt, bytes)?;
        if head.kind != Kind::Footer.code()
            || head.file != file.segment.id
            || head.generation != file.segment.generation
        {
            return Err(Malformed::Checksum);
        }
        let end = header::LEN.saturating_add(head.body_len as usize);
        let body = bytes.get(header::LEN..end).ok_or(Malformed::Truncated)?;
        if checksum::crc(body) != head.body_crc {
            return Err(Malformed::Checksum);
        }
        let mut r = Reader::new(body);
        let hash: [u8; 32] = r.array()?;
        let count = r.u32()? as usize;
        if count > MAX_FRAMES || r.rest().len() / 8 < count {
            return Err(Malformed::Field("count of frames"));
        }
        let frames = (0..count)
            .map(|_| Ok((r.u32()?, r.u32()?)))
            .collect::<Result<_, Malformed>>()?;
        r.end()?;
        let footer = Self { frames };
        if footer.hash() == hash {
            Ok(footer)
        } else {
            Err(Malformed::Checksum)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::location::Class;

    fn file() -> FileHeader {
        let segment = SegmentId {
            volume: 0,
            class: Class::Raw,
            generation: 1,
            id: 2,
        };
        FileHeader {
            store: [1; 16],
            segment,
            salt: 77,
            opened: 4,
        }
    }

    #[test]
    fn a_file_header_comes_back_and_every_flipped_byte_is_seen() {
        let block = file().encode();
        assert_eq!(FileHeader::decode(&block), Ok(file()));
        for at in 0..60 {
            let mut bad = block.clone();
            bad[at] ^= 4;
            assert!(FileHeader::decode(&bad).is_err(), "byte {at}");
        }
        assert_eq!(parse_name(&file_name(&file().segment)), Some((2, 1)));
    }

    #[test]
    fn an_extent_header_is_tied_to_who_refers_to_it() {
        let payload = vec![5u8; 200_000];
        let header = ExtentHeader {
            upload: UploadId([3; 16]),
            offset: 1 << 33,
            len: payload.len() as u32,
            table: checksum::table(&payload),
        };
        let (block, crc) = header.encode(&file(), 9);
        assert_eq!(block.len(), BLOCK);
        assert_eq!(ExtentHeader::decode(&file(), &block, Some(crc)), Ok(header));
        assert!(ExtentHeader::decode(&file(), &block, Some(crc ^ 1)).is_err());
        let largest = ExtentHeader {
            upload: UploadId([3; 16]),
            offset: 0,
            len: MAX_EXTENT as u32,
            table: vec![0; MAX_EXTENT / checksum::SPAN],
        };
        assert_eq!(largest.encode(&file(), 9).0.len(), BLOCK);
    }

    #[test]
    fn a_footer_comes_back() {
        let footer = Footer {
            frames: vec![(4096, 1), (8192, 2)],
        };
        let bytes = footer.encode(&file(), 9);
        assert_eq!(Footer::decode(&file(), &bytes), Ok(footer));
        let mut bad = bytes;
        bad[100] ^= 1;
        assert!(Footer::decode(&file(), &bad).is_err());
    }
}
