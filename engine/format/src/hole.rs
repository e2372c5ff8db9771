//! Holes: ranges of a segment that were given back to the file system.
//!
//! u32 count (at most [`MAX_FRAMES`]), then for each `offset` u32 · `len` u32,
//! whole blocks behind the first, in order, apart from each other.

use crate::codec::{Reader, Writer};
use crate::segment::MAX_FRAMES;
use crate::{BLOCK, Malformed};

/// A hole. 8 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hole {
    /// Where it begins.
    pub offset: u32,
    /// Bytes.
    pub len: u32,
}

impl Hole {
    /// Where it ends.
    pub fn end(&self) -> u64 {
        u64::from(self.offset).saturating_add(u64::from(self.len))
    }
}

/// Bytes of all of them.
pub fn total(holes: &[Hole]) -> u64 {
    holes
        .iter()
        .fold(0, |sum, hole| sum.saturating_add(u64::from(hole.len)))
}

/// Appends a counted list of holes.
pub(crate) fn encode_holes(holes: &[Hole], w: &mut Writer) {
    w.u32(u32::try_from(holes.len()).unwrap_or(u32::MAX));
    for hole in holes {
        w.u32(hole.offset).u32(hole.len);
    }
}

/// Takes a counted list of holes.
pub(crate) fn decode_holes(r: &mut Reader<'_>) -> Result<Vec<Hole>, Malformed> {
    let count = r.u32()? as usize;
    if count > MAX_FRAMES || r.rest().len() / 8 < count {
        return Err(Malformed::Field("count of holes"));
    }
    let block = BLOCK as u64;
    let mut behind = block;
    let mut holes = Vec::with_capacity(count);
    for _ in 0..count {
        let hole = Hole {
            offset: r.u32()?,
            len: r.u32()?,
        };
        let whole = u64::from(hole.offset).is_multiple_of(block)
            && u64::from(hole.len).is_multiple_of(block);
        if !whole || hole.len == 0 || u64::from(hole.offset) < behind {
            return Err(Malformed::Field("place of a hole"));
        }
        behind = hole.end().saturating_add(block);
        holes.push(hole);
    }
    Ok(holes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn again(holes: &[(u32, u32)]) -> Result<Vec<Hole>, Malformed> {
        let holes: Vec<Hole> = holes
            .iter()
            .map(|&(offset, len)| Hole { offset, len })
            .collect();
        let mut w = Writer::new();
        encode_holes(&holes, &mut w);
        let bytes = w.finish();
        let mut r = Reader::new(&bytes);
        let found = decode_holes(&mut r)?;
        r.end()?;
        assert_eq!(found, holes);
        Ok(found)
    }

    #[test]
    fn holes_come_back_and_those_that_cannot_be_are_refused() {
        assert_eq!(
            total(&again(&[(4096, 8192), (16_384, 4096)]).unwrap()),
            12_288
        );
        assert!(again(&[]).is_ok());
        let last = u32::MAX - 4095;
        assert!(again(&[(last, 4096)]).is_ok());
        for bad in [
            &[(0, 4096)][..],
            &[(4096, 0)],
            &[(4097, 4096)],
            &[(4096, 100)],
            &[(8192, 4096), (4096, 4096)],
            &[(4096, 8192), (8192, 4096)],
            &[(4096, 4096), (8192, 4096)],
        ] {
            assert!(again(bad).is_err(), "{bad:?}");
        }
        let mut w = Writer::new();
        w.u32(u32::MAX);
        assert!(decode_holes(&mut Reader::new(&w.finish())).is_err());
    }

    /// What is on disk never changes.
    #[test]
    fn the_records_of_releases_have_these_bytes() {
        use crate::location::{Class, SegmentId};
        use crate::record::Record;
        let segment = SegmentId {
            volume: 0,
            class: Class::Small,
            generation: 1,
            id: 0x0102,
        };
        let id = [0, 0, 2, 0, 1, 0, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0];
        let remove = Record::Remove { segment };
        assert_eq!((remove.kind().code(), remove.encode()), (18, id.to_vec()));
        let hole = Hole {
            offset: 8192,
            len: 4096,
        };
        let punch = Record::Punch {
            segment,
            holes: vec![hole],
        };
        let extent = |offset| crate::location::Extent {
            segment,
            offset,
            len: 3,
            body: 4,
        };
        let remap = Record::Remap {
            sha256: [7; 32],
            birth: 5,
            extents: vec![(extent(4096), extent(8192))],
        };
        let at = |high| [&id[..], &[0, high, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0]].concat();
        let pairs = [&[1, 0, 0, 0][..], &at(16), &at(32)].concat();
        let body = [&[7; 32][..], &5u64.to_le_bytes(), &pairs].concat();
        assert_eq!((remap.kind().code(), remap.encode()), (19, body));
        let holes = [1, 0, 0, 0, 0, 32, 0, 0, 0, 16, 0, 0];
        let body = [&id[..], &holes].concat();
        assert_eq!((punch.kind().code(), punch.encode()), (9, body));
    }
}
