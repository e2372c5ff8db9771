//! The first block of a journal file.
//!
//! A journal is a row of files, each a header block and then groups
//! ([`crate::group`]). A file's header says where the file before it ended:
//! what lies behind that is a torn tail, cut for good. So the end of every
//! file but the last is known, and the last may only be torn in its last
//! group.
//!
//! | offset | width | field |
//! |---|---|---|
//! | 0 | 4 | magic `ORLJ` |
//! | 4 | 4 | format, 1 |
//! | 8 | 16 | store id |
//! | 24 | 8 | sequence of this file |
//! | 32 | 8 | salt of its headers |
//! | 40 | 8 | LSN of its first record |
//! | 48 | 8 | number of its first group |
//! | 56 | 8 | sequence of the file before, 0 for none |
//! | 64 | 4 | offset at which that ends |
//! | 68 | 4 | checksum of the last header before this file |
//! | 72 | 4 | CRC-32 of bytes 0 to 72 |
//!
//! The rest of the block is zero.

use crate::codec::{Reader, Writer};
use crate::{BLOCK, FORMAT, Malformed, checksum};

const MAGIC: u32 = u32::from_le_bytes(*b"ORLJ");
const COVERED: usize = 72;

/// The header of a journal file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileHeader {
    /// The store it belongs to.
    pub store: [u8; 16],
    /// Its number; files are read in this order.
    pub sequence: u64,
    /// Random salt of its headers.
    pub salt: u64,
    /// LSN that its first record has.
    pub first_lsn: u64,
    /// Number that its first group has.
    pub first_group: u64,
    /// Sequence of the file before it, 0 for none.
    pub previous: u64,
    /// Offset at which the file before it ends, bytes.
    pub previous_end: u32,
    /// Checksum of the last header before this file, 0 for none.
    pub chain: u32,
}

impl FileHeader {
    /// The block.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.u32(MAGIC)
            .u32(FORMAT)
            .raw(&self.store)
            .u64(self.sequence)
            .u64(self.salt);
        w.u64(self.first_lsn)
            .u64(self.first_group)
            .u64(self.previous)
            .u32(self.previous_end)
            .u32(self.chain);
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
        let header = Self {
            store: r.array()?,
            sequence: r.u64()?,
            salt: r.u64()?,
            first_lsn: r.u64()?,
            first_group: r.u64()?,
            previous: r.u64()?,
            previous_end: r.u32()?,
            chain: r.u32()?,
        };
        if checksum::crc(covered) != r.u32()? {
            return Err(Malformed::Checksum);
        }
        if format > FORMAT {
            return Err(Malformed::Newer("journal format"));
        }
        Ok(header)
    }
}

/// The name of the file with this sequence.
pub fn file_name(sequence: u64) -> String {
    format!("J-{sequence:016x}")
}

/// The sequence in a file's name.
pub fn parse_name(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("J-")?;
    (digits.len() == 16)
        .then(|| u64::from_str_radix(digits, 16).ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_header_comes_back_and_every_flipped_byte_is_seen() {
        let header = FileHeader {
            store: [1; 16],
            sequence: 2,
            salt: 3,
            first_lsn: 4,
            first_group: 5,
            previous: 6,
            previous_end: 7,
            chain: 8,
        };
        let block = header.encode();
        assert_eq!(block.len(), BLOCK);
        assert_eq!(FileHeader::decode(&block), Ok(header));
        for at in 0..76 {
            let mut bad = block.clone();
            bad[at] ^= 0x10;
            assert!(FileHeader::decode(&bad).is_err(), "byte {at}");
        }
    }

    #[test]
    fn names_carry_the_sequence() {
        assert_eq!(parse_name(&file_name(0x2a)), Some(0x2a));
        for bad in [
            "J-2a",
            "K-000000000000002a",
            "J-00000000000000zz",
            "spare-1",
        ] {
            assert_eq!(parse_name(bad), None);
        }
    }
}
