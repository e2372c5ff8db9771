//! The header that starts every record, in the journal and in segments.
//!
//! 64 bytes, little endian:
//!
//! | offset | width | field |
//! |---|---|---|
//! | 0 | 4 | magic `ORLR` |
//! | 4 | 1 | version, 1 |
//! | 5 | 1 | kind |
//! | 6 | 1 | codec of the payload, 0 = as it is |
//! | 7 | 1 | flags that a reader must understand |
//! | 8 | 1 | flags that a reader may skip |
//! | 9 | 3 | zero |
//! | 12 | 4 | key id, 0 = not encrypted |
//! | 16 | 8 | LSN |
//! | 24 | 8 | file: journal sequence or segment id |
//! | 32 | 4 | generation of the file |
//! | 36 | 4 | chain: header checksum of the record before, 0 for the first |
//! | 40 | 4 | bytes of body |
//! | 44 | 4 | bytes of payload |
//! | 48 | 4 | CRC-32 of the body |
//! | 52 | 4 | CRC-32 of the payload, 0 where the body has a table of them |
//! | 56 | 4 | zero |
//! | 60 | 4 | CRC-32 of the file's salt and bytes 0 to 60 |
//!
//! Lengths are believed only after the header's own checksum held.

use crate::Malformed;
use crate::checksum;
use crate::codec::{Reader, Writer};

/// `ORLR`.
pub const MAGIC: u32 = u32::from_le_bytes(*b"ORLR");
/// Bytes of a header.
pub const LEN: usize = 64;
/// The version this crate writes.
pub const VERSION: u8 = 1;
/// The most bytes of body a header may claim.
pub const MAX_BODY: u32 = 1024 * 1024;
/// The most bytes of payload a header may claim.
pub const MAX_PAYLOAD: u32 = 8 * 1024 * 1024;

/// A record's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// What the record is; see [`crate::record::Kind`].
    pub kind: u8,
    /// Log sequence number.
    pub lsn: u64,
    /// Journal sequence or segment id.
    pub file: u64,
    /// Generation of the file.
    pub generation: u32,
    /// Checksum of the header before.
    pub chain: u32,
    /// Bytes of body.
    pub body_len: u32,
    /// Bytes of payload.
    pub payload_len: u32,
    /// CRC-32 of the body.
    pub body_crc: u32,
    /// CRC-32 of the payload.
    pub payload_crc: u32,
}

impl Header {
    /// Appends the header; returns its checksum, which the next one chains to.
    pub fn encode(&self, salt: u64, w: &mut Writer) -> u32 {
        let mut h = Writer::new();
        h.u32(MAGIC)
            .u8(VERSION)
            .u8(self.kind)
            .u8(0)
            .u8(0)
            .u8(0)
            .raw(&[0; 3])
            .u32(0);
        h.u64(self.lsn)
            .u64(self.file)
            .u32(self.generation)
            .u32(self.chain);
        h.u32(self.body_len)
            .u32(self.payload_len)
            .u32(self.body_crc)
            .u32(self.payload_crc)
            .u32(0);
        let crc = checksum::salted(salt, h.as_slice());
        h.u32(crc);
        w.raw(h.as_slice());
        crc
    }

    /// Reads a header at the front of `bytes`; returns it with its checksum.
    ///
    /// # Errors
    /// [`Malformed::Checksum`] when it is not a header of a file with this
    /// salt; [`Malformed::Newer`] when it is one that this version may not
    /// read.
    pub fn decode(salt: u64, bytes: &[u8]) -> Result<(Self, u32), Malformed> {
        let head = bytes.get(..LEN).ok_or(Malformed::Truncated)?;
        let covered = head.get(..60).ok_or(Malformed::Truncated)?;
        let mut r = Reader::new(head);
        if r.u32()? != MAGIC {
            return Err(Malformed::Checksum);
        }
        let stored = u32::from_le_bytes(*head.last_chunk::<4>().ok_or(Malformed::Truncated)?);
        if checksum::salted(salt, covered) != stored {
            return Err(Malformed::Checksum);
        }
        let version = r.u8()?;
        if version != VERSION {
            return Err(Malformed::Newer("record version"));
        }
        let kind = r.u8()?;
        let (codec, must, _may) = (r.u8()?, r.u8()?, r.u8()?);
        let _zero = r.raw(3)?;
        let key = r.u32()?;
        if codec != 0 || must != 0 || key != 0 {
            return Err(Malformed::Newer("record flags"));
        }
        let (lsn, file, generation, chain) = (r.u64()?, r.u64()?, r.u32()?, r.u32()?);
        let (body_len, payload_len, body_crc, payload_crc) =
            (r.u32()?, r.u32()?, r.u32()?, r.u32()?);
        if body_len > MAX_BODY || payload_len > MAX_PAYLOAD {
            return Err(Malformed::Field("record length"));
        }
        let header = Self {
            kind,
            lsn,
            file,
            generation,
            chain,
            body_len,
            payload_len,
            body_crc,
            payload_crc,
        };
        Ok((header, stored))
    }

    /// Bytes of header and body.
    pub fn prefix(&self) -> u32 {
        self.body_len.saturating_add(LEN as u32)
    }

    /// Bytes of header, body and payload, without padding.
    pub fn total(&self) -> u64 {
        u64::from(self.prefix()).saturating_add(u64::from(self.payload_len))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Header {
        Header {
            kind: 6,
            lsn: 77,
            file: 3,
            generation: 2,
            chain: 0xdead_beef,
            body_len: 10,
            payload_len: 20,
            body_crc: 1,
            payload_crc: 2,
        }
    }

    #[test]
    fn a_header_comes_back_and_every_flipped_byte_is_seen() {
        let mut w = Writer::new();
        let crc = sample().encode(99, &mut w);
        let bytes = w.finish();
        assert_eq!(bytes.len(), LEN);
        assert_eq!(Header::decode(99, &bytes), Ok((sample(), crc)));
        for at in 0..LEN {
            let mut bad = bytes.clone();
            bad[at] ^= 0x40;
            assert!(Header::decode(99, &bad).is_err(), "byte {at}");
        }
    }

    #[test]
    fn another_files_salt_is_refused() {
        let mut w = Writer::new();
        sample().encode(1, &mut w);
        assert_eq!(Header::decode(2, w.as_slice()), Err(Malformed::Checksum));
    }
}
