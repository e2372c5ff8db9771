//! Extents of a blob that have new places: what kind 19 of a record says.
//!
//! Pairs, a count before them: u32 count · for each the extent that the blob had
//! and the one that it has instead, with the same bytes.

use crate::Malformed;
use crate::codec::{Reader, Writer};
use crate::location::Extent;
use crate::record::MAX_EXTENTS;

/// Writes pairs of extents, a count before them.
pub fn encode_remaps(extents: &[(Extent, Extent)], w: &mut Writer) {
    w.u32(u32::try_from(extents.len()).unwrap_or(u32::MAX));
    for (from, to) in extents {
        from.encode(w);
        to.encode(w);
    }
}

/// Reads what [`encode_remaps`] wrote. A pair has the same bytes twice.
pub fn decode_remaps(r: &mut Reader<'_>) -> Result<Vec<(Extent, Extent)>, Malformed> {
    let count = r.u32()? as usize;
    if count > MAX_EXTENTS || r.rest().len() / Extent::WIDTH / 2 < count {
        return Err(Malformed::Field("count of extents"));
    }
    (0..count)
        .map(|_| {
            let (from, to) = (Extent::decode(r)?, Extent::decode(r)?);
            if (from.len, from.body) == (to.len, to.body) {
                Ok((from, to))
            } else {
                Err(Malformed::Field("place of an extent"))
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::location::{Class, SegmentId};
    use crate::record::{Kind, Record};

    #[test]
    fn a_remap_to_other_bytes_is_refused_and_the_largest_fits_a_body() {
        let extent = Extent {
            segment: SegmentId {
                volume: 0,
                class: Class::Raw,
                generation: 3,
                id: 9,
            },
            offset: 4096,
            len: 9,
            body: 3,
        };
        let remap = |to, count| Record::Remap {
            sha256: [0; 32],
            birth: 1,
            extents: vec![(extent, to); count],
        };
        for other in [Extent { len: 8, ..extent }, Extent { body: 4, ..extent }] {
            let body = remap(other, 1).encode();
            assert!(Record::decode(Kind::Remap, &body).is_err());
        }
        let most = remap(extent, MAX_EXTENTS).encode();
        assert!(most.len() <= crate::header::MAX_BODY as usize);
        assert!(Record::decode(Kind::Remap, &most).is_ok());
        let more = remap(extent, MAX_EXTENTS + 1).encode();
        assert!(Record::decode(Kind::Remap, &more).is_err());
    }
}
