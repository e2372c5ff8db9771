//! The superblock: what must be known before anything else can be read.
//!
//! Two files of two slots of one block each. A write goes to the slot that
//! its sequence names (`sequence % 4`), so the newest valid slot is never
//! overwritten; the valid slot with the highest sequence holds.
//!
//! | offset | width | field |
//! |---|---|---|
//! | 0 | 4 | magic `ORLB` |
//! | 4 | 4 | format, 1 |
//! | 8 | 8 | sequence of this write |
//! | 16 | 16 | store id |
//! | 32 | 16 | catalog id, zeros for none |
//! | 48 | 8 | highest catalog sequence seen |
//! | 56 | 8 | epoch: how often the store was opened |
//! | 64 | 8 | LSN up to which the journal was recycled |
//! | 72 | 8 | features that a reader must know |
//! | 80 | 8 | features that a writer must know |
//! | 88 | 8 | features that anyone may ignore |
//! | 96 | 8 | sequence of the first journal file that counts, 0 before there was one |
//! | 104 | 4 | CRC-32 of bytes 0 to 104 |

use crate::codec::{Reader, Writer};
use crate::{BLOCK, FORMAT, Malformed, checksum};

const MAGIC: u32 = u32::from_le_bytes(*b"ORLB");
const COVERED: usize = 104;
/// Slots in each of the two files.
pub const SLOTS: u64 = 2;
/// Feature that a reader must know: the log may have [`crate::record::Kind::Punch`]
/// and [`crate::record::Kind::Remove`].
pub const RELEASES: u64 = 1;
/// Feature that a reader must know: the log may have [`crate::record::Kind::Remap`].
pub const REMAPS: u64 = 2;
/// Every feature of a reader that this crate knows.
const KNOWN: u64 = RELEASES | REMAPS;
/// The two files.
pub const FILES: [&str; 2] = ["superblock.0", "superblock.1"];

/// One slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Superblock {
    /// Number of this write.
    pub sequence: u64,
    /// The store.
    pub store: [u8; 16],
    /// The catalog that belongs to it, zeros until one was seen.
    pub catalog: [u8; 16],
    /// Highest sequence of that catalog that was seen.
    pub catalog_sequence: u64,
    /// How often the store was opened for writing.
    pub epoch: u64,
    /// Every record up to this LSN that still matters is in small and meta
    /// segments.
    pub recycled: u64,
    /// The first journal file that counts, 0 before there was one.
    pub journal: u64,
    /// Features that a reader must know.
    pub features: u64,
}

impl Superblock {
    /// The block.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.u32(MAGIC)
            .u32(FORMAT)
            .u64(self.sequence)
            .raw(&self.store)
            .raw(&self.catalog);
        w.u64(self.catalog_sequence)
            .u64(self.epoch)
            .u64(self.recycled);
        w.u64(self.features).u64(0).u64(0).u64(self.journal);
        let crc = checksum::crc(w.as_slice());
        w.u32(crc).pad_to(BLOCK);
        w.finish()
    }

    /// Reads the block.
    ///
    /// # Errors
    /// [`Malformed::Newer`] when it holds but was written by a newer version.
    pub fn decode(block: &[u8]) -> Result<Self, Malformed> {
        let covered = block.get(..COVERED).ok_or(Malformed::Truncated)?;
        let mut r = Reader::new(block);
        if r.u32()? != MAGIC {
            return Err(Malformed::Checksum);
        }
        let format = r.u32()?;
        let mut slot = Self {
            sequence: r.u64()?,
            store: r.array()?,
            catalog: r.array()?,
            catalog_sequence: r.u64()?,
            epoch: r.u64()?,
            recycled: r.u64()?,
            journal: 0,
            features: r.u64()?,
        };
        let (write, _ignore) = (r.u64()?, r.u64()?);
        slot.journal = r.u64()?;
        if checksum::crc(covered) != r.u32()? {
            return Err(Malformed::Checksum);
        }
        if format > FORMAT {
            return Err(Malformed::Newer("store format"));
        }
        if slot.features & !KNOWN != 0 || write != 0 {
            return Err(Malformed::Newer("set of features"));
        }
        Ok(slot)
    }

    /// File (index into [`FILES`]) and byte offset of the slot for `sequence`.
    pub fn slot(sequence: u64) -> (usize, u64) {
        let slot = sequence % 4;
        (
            usize::from(slot % 2 == 1),
            (slot / 2).saturating_mul(BLOCK as u64),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_comes_back_and_every_flipped_byte_is_seen() {
        let slot = Superblock {
            sequence: 1,
            store: [2; 16],
            catalog: [3; 16],
            catalog_sequence: 4,
            epoch: 5,
            recycled: 6,
            journal: 7,
            features: RELEASES | REMAPS,
        };
        let block = slot.encode();
        assert_eq!(Superblock::decode(&block), Ok(slot));
        let newer = Superblock {
            features: RELEASES | 4,
            ..slot
        };
        let refused = Superblock::decode(&newer.encode());
        assert_eq!(refused, Err(Malformed::Newer("set of features")));
        for at in 0..108 {
            let mut bad = block.clone();
            bad[at] ^= 2;
            assert!(Superblock::decode(&bad).is_err(), "byte {at}");
        }
    }

    #[test]
    fn four_writes_in_a_row_use_four_slots() {
        let mut slots: Vec<_> = (8..12).map(Superblock::slot).collect();
        slots.sort_unstable();
        assert_eq!(slots, [(0, 0), (0, 4096), (1, 0), (1, 4096)]);
    }
}
