//! Where bytes are: in which file, at which offset.
//!
//! Knows no paths; a file is named by what it is for and its number.

use crate::Malformed;
use crate::codec::{Reader, Writer};

/// What a segment's payload is for. The numbers are on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Class {
    /// Extents of blobs above [`crate::record::INLINE_LIMIT`].
    Raw = 1,
    /// Records with inline payload that left the journal.
    Small = 2,
    /// Records without payload that left the journal.
    Meta = 3,
    /// Reserved for deduplicated chunks.
    Chunk = 4,
}

impl Class {
    /// Every class.
    pub const ALL: [Class; 4] = [Class::Raw, Class::Small, Class::Meta, Class::Chunk];

    /// The class with this number.
    pub fn from_code(code: u8) -> Result<Self, Malformed> {
        Self::ALL
            .into_iter()
            .find(|class| class.code() == code)
            .ok_or(Malformed::Field("segment class"))
    }

    /// Its number on disk.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// The name of its folder below `data/`.
    pub fn folder(self) -> &'static str {
        match self {
            Class::Raw => "raw",
            Class::Small => "small",
            Class::Meta => "meta",
            Class::Chunk => "chunk",
        }
    }
}

/// One segment in one of its lives. 16 bytes.
///
/// `volume` u16 · `class` u8 · zero u8 · `generation` u32 · `id` u64
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentId {
    /// The mount point it lies on; always 0 today.
    pub volume: u16,
    /// What it holds.
    pub class: Class,
    /// How many times the file was reused.
    pub generation: u32,
    /// Its number, unique in the store and never used again.
    pub id: u64,
}

impl SegmentId {
    /// Width on disk, bytes.
    pub const WIDTH: usize = 16;

    /// Appends its fields.
    pub fn encode(&self, w: &mut Writer) {
        w.u16(self.volume)
            .u8(self.class.code())
            .u8(0)
            .u32(self.generation)
            .u64(self.id);
    }

    /// Takes its fields.
    pub fn decode(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let volume = r.u16()?;
        let class = Class::from_code(r.u8()?)?;
        let _zero = r.u8()?;
        Ok(Self {
            volume,
            class,
            generation: r.u32()?,
            id: r.u64()?,
        })
    }
}

/// The file that holds a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Home {
    /// A journal file, by its sequence number.
    Journal(u64),
    /// A segment.
    Segment(SegmentId),
}

/// Where a record lies. 29 bytes.
///
/// `home` u8 (0 journal, 1 segment) · 16 bytes (journal: sequence u64, zero
/// u64) · `offset` u32 · `prefix` u32 · `payload` u32
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Place {
    /// The file.
    pub home: Home,
    /// Offset of the record's header in the file, bytes.
    pub offset: u32,
    /// Bytes of header and body before the payload.
    pub prefix: u32,
    /// Bytes of payload.
    pub payload: u32,
}

impl Place {
    /// Appends its fields.
    pub fn encode(&self, w: &mut Writer) {
        match self.home {
            Home::Journal(sequence) => {
                w.u8(0).u64(sequence).u64(0);
            }
            Home::Segment(segment) => {
                w.u8(1);
                segment.encode(w);
            }
        }
        w.u32(self.offset).u32(self.prefix).u32(self.payload);
    }

    /// Takes its fields.
    pub fn decode(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let home = match r.u8()? {
            0 => {
                let sequence = r.u64()?;
                let _zero = r.u64()?;
                Home::Journal(sequence)
            }
            1 => Home::Segment(SegmentId::decode(r)?),
            _ => return Err(Malformed::Field("home of a record")),
        };
        Ok(Self {
            home,
            offset: r.u32()?,
            prefix: r.u32()?,
            payload: r.u32()?,
        })
    }

    /// Bytes that the whole record takes, without padding.
    pub fn len(&self) -> u64 {
        u64::from(self.prefix).saturating_add(u64::from(self.payload))
    }

    /// Never: a record has at least a header.
    pub fn is_empty(&self) -> bool {
        false
    }
}

/// A run of one upload's bytes in a raw segment. 28 bytes.
///
/// segment (16) · `offset` u32 · `len` u32 · `table` u32
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Extent {
    /// The segment.
    pub segment: SegmentId,
    /// Offset of the extent's header block in the segment, bytes.
    pub offset: u32,
    /// Bytes of payload; it starts one block behind `offset`.
    pub len: u32,
    /// CRC-32 of the extent's body, which holds the payload's checksums: what
    /// ties the extent to who refers to it.
    pub body: u32,
}

impl Extent {
    /// Width on disk, bytes.
    pub const WIDTH: usize = SegmentId::WIDTH + 12;

    /// Appends its fields.
    pub fn encode(&self, w: &mut Writer) {
        self.segment.encode(w);
        w.u32(self.offset).u32(self.len).u32(self.body);
    }

    /// Takes its fields.
    pub fn decode(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let segment = SegmentId::decode(r)?;
        Ok(Self {
            segment,
            offset: r.u32()?,
            len: r.u32()?,
            body: r.u32()?,
        })
    }

    /// Bytes it takes in its segment: header block and payload in whole
    /// blocks.
    pub fn footprint(&self) -> u64 {
        let block = crate::BLOCK as u64;
        block.saturating_add(u64::from(self.len).div_ceil(block).saturating_mul(block))
    }
}

/// Appends a counted list of extents.
pub fn encode_extents(extents: &[Extent], w: &mut Writer) {
    w.u32(u32::try_from(extents.len()).unwrap_or(u32::MAX));
    for extent in extents {
        extent.encode(w);
    }
}

/// Takes a counted list of extents, at most [`crate::record::MAX_EXTENTS`].
pub fn decode_extents(r: &mut Reader<'_>) -> Result<Vec<Extent>, Malformed> {
    let count = r.u32()? as usize;
    if count > crate::record::MAX_EXTENTS || r.rest().len() / Extent::WIDTH < count {
        return Err(Malformed::Field("count of extents"));
    }
    (0..count).map(|_| Extent::decode(r)).collect()
}
