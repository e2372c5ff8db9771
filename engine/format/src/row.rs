//! The index's keys and values. The index is a view of the log: all of this
//! can be made again, so its layout may change with a rebuild.
//!
//! Every value starts with a version byte, 1.

use std::collections::BTreeMap;

use crate::Malformed;
use crate::checkpoint::{self, Checkpoint};
use crate::codec::{Reader, Writer};
use crate::hole::{self, Hole};
use crate::location::{Class, Extent, Place, SegmentId, decode_extents, encode_extents};
use crate::record;

const VERSION: u8 = 1;

fn start(bytes: &[u8]) -> Result<Reader<'_>, Malformed> {
    let mut r = Reader::new(bytes);
    if r.u8()? == VERSION {
        Ok(r)
    } else {
        Err(Malformed::Newer("index row"))
    }
}

fn writer() -> Writer {
    let mut w = Writer::new();
    w.u8(VERSION);
    w
}

/// Whether a blob can be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// Its bytes are good as far as is known.
    Live = 1,
    /// A checksum failed: it counts as absent, a push of it heals it.
    Quarantined = 2,
    /// It was deleted; the row stays so that a replay cannot revive it.
    Dead = 3,
}

/// Where a blob's bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Form {
    /// The payload of one record.
    Inline(Place),
    /// Extents in order.
    Extents(Vec<Extent>),
}

/// Table `Blob`: SHA-256 (32) → `state` u8 · `internal` u8 · `ordinal` u64 ·
/// `size` u64 · `birth` u64 · form u8 (1 inline: place; 2 extents).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blob {
    /// Whether it can be had.
    pub state: State,
    /// Whether the store itself made it.
    pub internal: bool,
    /// Its number.
    pub ordinal: u64,
    /// Its bytes.
    pub size: u64,
    /// LSN of the commit that made it.
    pub birth: u64,
    /// Where its bytes are.
    pub form: Form,
}

impl Blob {
    /// The value.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = writer();
        w.u8(self.state as u8)
            .u8(u8::from(self.internal))
            .u64(self.ordinal)
            .u64(self.size)
            .u64(self.birth);
        match &self.form {
            Form::Inline(place) => {
                w.u8(1);
                place.encode(&mut w);
            }
            Form::Extents(extents) => {
                w.u8(2);
                encode_extents(extents, &mut w);
            }
        }
        w.finish()
    }

    /// Reads the value.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut r = start(bytes)?;
        let state = match r.u8()? {
            1 => State::Live,
            2 => State::Quarantined,
            3 => State::Dead,
            _ => return Err(Malformed::Field("state of a blob")),
        };
        let (internal, ordinal, size, birth) = (r.u8()? != 0, r.u64()?, r.u64()?, r.u64()?);
        let form = match r.u8()? {
            1 => Form::Inline(Place::decode(&mut r)?),
            2 => Form::Extents(decode_extents(&mut r)?),
            _ => return Err(Malformed::Field("form of a blob")),
        };
        r.end()?;
        Ok(Self {
            state,
            internal,
            ordinal,
            size,
            birth,
            form,
        })
    }
}

/// Puts new places in a blob's extents where they are those that it had: one that
/// lies elsewhere was moved before. Returns the pairs that held.
pub fn remap(extents: &mut [Extent], pairs: &[(Extent, Extent)]) -> Vec<(Extent, Extent)> {
    let by_place: BTreeMap<(SegmentId, u32), &(Extent, Extent)> = pairs
        .iter()
        .map(|pair| ((pair.0.segment, pair.0.offset), pair))
        .collect();
    let mut held = Vec::new();
    for extent in extents {
        if let Some((from, to)) = by_place.get(&(extent.segment, extent.offset))
            && from == extent
        {
            *extent = *to;
            held.push((*from, *to));
        }
    }
    held
}

/// Table `Upload`: upload id (16) → `also` u8 · owner (bytes) · tail u8 (0
/// none, 1 place) · checkpoint with all extents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upload {
    /// Opaque name of who may go on with it.
    pub owner: Vec<u8>,
    /// Digest asked for beside SHA-256, 0 for none.
    pub also: u8,
    /// The record whose payload is the bytes behind the last extent.
    pub tail: Option<Place>,
    /// What is durable.
    pub checkpoint: Checkpoint,
}

impl Upload {
    /// The value.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = writer();
        w.u8(self.also)
            .bytes(&self.owner)
            .u8(u8::from(self.tail.is_some()));
        if let Some(tail) = &self.tail {
            tail.encode(&mut w);
        }
        checkpoint::encode_checkpoint(&self.checkpoint, &mut w);
        w.finish()
    }

    /// Reads the value.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut r = start(bytes)?;
        let (also, owner) = (r.u8()?, r.bytes(record::MAX_OWNER)?.to_vec());
        let tail = if r.u8()? == 0 {
            None
        } else {
            Some(Place::decode(&mut r)?)
        };
        let checkpoint = checkpoint::decode_checkpoint(&mut r)?;
        r.end()?;
        Ok(Self {
            owner,
            also,
            tail,
            checkpoint,
        })
    }
}

/// Table `Segment`: class u8 · id u64 big endian → segment id 16 · state u8 (0
/// open, 1 sealed, 2 removed) · `used` u64 · `live` u64 · hash 32, and if it has
/// holes `punched` u64 · list of holes. Of a removed one all are 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// The segment.
    pub segment: SegmentId,
    /// Whether it takes no more.
    pub sealed: bool,
    /// Bytes from its start to the end of the last frame that is referred to.
    pub used: u64,
    /// Bytes of frames that are referred to.
    pub live: u64,
    /// BLAKE3 over frame checksums, zeros until sealed.
    pub hash: [u8; 32],
    /// Whether its file is removed. The row stays, so that its id is given to
    /// no other.
    pub removed: bool,
    /// LSN of the punch that gave it its holes, 0 for none.
    pub punched: u64,
    /// Its holes, in order.
    pub holes: Vec<Hole>,
}

impl Segment {
    /// A segment of which nothing is known yet.
    pub fn new(segment: SegmentId) -> Self {
        Self {
            segment,
            sealed: false,
            used: 0,
            live: 0,
            hash: [0; 32],
            removed: false,
            punched: 0,
            holes: Vec::new(),
        }
    }

    /// A segment whose file is removed.
    pub fn gone(segment: SegmentId) -> Self {
        Self {
            removed: true,
            ..Self::new(segment)
        }
    }

    /// Bytes of its holes.
    pub fn released(&self) -> u64 {
        hole::total(&self.holes)
    }

    /// Bytes behind the first block that nothing refers to and that still take
    /// room, for a segment that takes no more.
    pub fn dead(&self) -> u64 {
        let frames = self.used.saturating_sub(crate::BLOCK as u64);
        frames
            .saturating_sub(self.live)
            .saturating_sub(self.released())
    }

    /// The key of a segment.
    pub fn key(class: Class, id: u64) -> Vec<u8> {
        let mut key = vec![class.code()];
        key.extend_from_slice(&id.to_be_bytes());
        key
    }

    /// The value.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = writer();
        self.segment.encode(&mut w);
        let state = if self.removed {
            2
        } else {
            u8::from(self.sealed)
        };
        w.u8(state).u64(self.used).u64(self.live).raw(&self.hash);
        if self.punched > 0 {
            w.u64(self.punched);
            hole::encode_holes(&self.holes, &mut w);
        }
        w.finish()
    }

    /// Reads the value.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut r = start(bytes)?;
        let segment = SegmentId::decode(&mut r)?;
        let (sealed, removed) = match r.u8()? {
            0 => (false, false),
            1 => (true, false),
            2 => (false, true),
            _ => return Err(Malformed::Field("state of a segment")),
        };
        let (used, live, hash) = (r.u64()?, r.u64()?, r.array()?);
        let (punched, holes) = if r.rest().is_empty() {
            (0, Vec::new())
        } else {
            match r.u64()? {
                0 => return Err(Malformed::Field("punch of a segment")),
                punched => (punched, hole::decode_holes(&mut r)?),
            }
        };
        let row = Self {
            segment,
            sealed,
            used,
            live,
            hash,
            removed,
            punched,
            holes,
        };
        r.end()?;
        Ok(row)
    }
}

/// Table `Meta`, key `names`: what the store knows of the catalog's names.
/// `notes` u64 · count u8 · for each copy, newest last: sha256 32 · catalog 16
/// · sequence u64 · LSN u64.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    /// Notes seen.
    pub notes: u64,
    /// The newest copies of the catalog, at most two, the newest last.
    pub copies: Vec<Copy>,
}

/// A copy of the catalog in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Copy {
    /// The blob.
    pub sha256: [u8; 32],
    /// Which catalog.
    pub catalog: [u8; 16],
    /// Its sequence.
    pub sequence: u64,
    /// LSN of the record that says so.
    pub lsn: u64,
}

impl Names {
    /// Its key.
    pub const KEY: &'static [u8] = b"names";

    /// The value.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = writer();
        w.u64(self.notes).u8(self.copies.len().min(255) as u8);
        for copy in &self.copies {
            w.raw(&copy.sha256)
                .raw(&copy.catalog)
                .u64(copy.sequence)
                .u64(copy.lsn);
        }
        w.finish()
    }

    /// Reads the value.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut r = start(bytes)?;
        let (notes, count) = (r.u64()?, r.u8()?);
        let copies = (0..count)
            .map(|_| {
                Ok(Copy {
                    sha256: r.array()?,
                    catalog: r.array()?,
                    sequence: r.u64()?,
                    lsn: r.u64()?,
                })
            })
            .collect::<Result<_, Malformed>>()?;
        r.end()?;
        Ok(Self { notes, copies })
    }
}

/// Table `Meta`, key of the next ordinal (u64 little endian).
pub const NEXT_ORDINAL: &[u8] = b"ordinal";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::location::Home;
    use crate::record::UploadId;

    #[test]
    fn rows_come_back() {
        let segment = SegmentId {
            volume: 0,
            class: Class::Raw,
            generation: 0,
            id: 8,
        };
        let place = Place {
            home: Home::Segment(segment),
            offset: 4096,
            prefix: 70,
            payload: 5,
        };
        let extent = Extent {
            segment,
            offset: 4096,
            len: 9,
            body: 3,
        };
        for form in [Form::Inline(place), Form::Extents(vec![extent, extent])] {
            let row = Blob {
                state: State::Live,
                internal: false,
                ordinal: 1,
                size: 2,
                birth: 3,
                form,
            };
            assert_eq!(Blob::decode(&row.encode()), Ok(row));
        }
        let checkpoint = Checkpoint {
            upload: UploadId([1; 16]),
            offset: 14,
            extents_before: 0,
            extents: vec![extent],
            hashes: vec![],
        };
        let upload = Upload {
            owner: b"a/b".to_vec(),
            also: 0,
            tail: Some(place),
            checkpoint,
        };
        assert_eq!(Upload::decode(&upload.encode()), Ok(upload));
        let row = Segment {
            sealed: true,
            used: 5,
            live: 4,
            ..Segment::new(segment)
        };
        let hole = Hole {
            offset: 4096,
            len: 8192,
        };
        let punched = Segment {
            punched: 9,
            holes: vec![hole],
            ..row.clone()
        };
        assert_eq!(row.encode().len() + 20, punched.encode().len());
        for row in [row, punched, Segment::gone(segment)] {
            assert_eq!(Segment::decode(&row.encode()), Ok(row));
        }
        let copy = Copy {
            sha256: [1; 32],
            catalog: [2; 16],
            sequence: 3,
            lsn: 4,
        };
        let names = Names {
            notes: 7,
            copies: vec![copy],
        };
        assert_eq!(Names::decode(&names.encode()), Ok(names));
    }
}
