//! Keys and values of the index.
//!
//! Any bytes are read without a panic; what reads back is written with the same
//! length and the same bytes, flags and what they switch off apart. What was
//! written comes back, and keys of segments sort as the segments do.

use std::fmt::Debug;

use arbitrary::{Result, Unstructured};
use orlop_format::Malformed;
use orlop_format::row::{Blob, Copy, Form, Names, Segment, State, Upload};

use crate::make;

/// Runs the target.
pub fn run(data: &[u8]) {
    let Some((which, rest)) = data.split_first() else {
        return;
    };
    // The version byte is right in most inputs.
    let value = if which & 8 == 0 {
        [&[1], rest].concat()
    } else {
        rest.to_vec()
    };
    decoded(&value, Blob::decode, Blob::encode);
    decoded(&value, Upload::decode, Upload::encode);
    decoded(&value, Segment::decode, Segment::encode);
    decoded(&value, Names::decode, Names::encode);
    let _ = built(&mut Unstructured::new(rest), *which);
}

fn decoded<T: Debug + PartialEq>(
    bytes: &[u8],
    decode: fn(&[u8]) -> std::result::Result<T, Malformed>,
    encode: fn(&T) -> Vec<u8>,
) {
    let Ok(value) = decode(bytes) else {
        return;
    };
    let again = encode(&value);
    assert_eq!(again.len(), bytes.len());
    for (at, (new, old)) in again.iter().zip(bytes).enumerate() {
        assert!(new == old || *new <= 1, "byte {at} of {value:?} changed");
    }
    assert_eq!(decode(&again), Ok(value));
}

fn built(u: &mut Unstructured<'_>, which: u8) -> Result<()> {
    match which % 4 {
        0 => {
            let form = if u.arbitrary()? {
                Form::Inline(make::place(u)?)
            } else {
                Form::Extents(make::list(u, 9, make::extent)?)
            };
            let row = Blob {
                state: *u.choose(&[State::Live, State::Quarantined, State::Dead])?,
                internal: u.arbitrary()?,
                ordinal: u.arbitrary()?,
                size: u.arbitrary()?,
                birth: u.arbitrary()?,
                form,
            };
            assert_eq!(Blob::decode(&row.encode()), Ok(row));
        }
        1 => {
            let row = Upload {
                owner: make::bytes(u, 512)?,
                also: u.arbitrary()?,
                tail: if u.arbitrary()? {
                    Some(make::place(u)?)
                } else {
                    None
                },
                checkpoint: make::checkpoint(u)?,
            };
            assert_eq!(Upload::decode(&row.encode()), Ok(row));
        }
        2 => {
            let mut row = Segment {
                segment: make::segment(u)?,
                sealed: u.arbitrary()?,
                used: u.arbitrary()?,
                live: u.arbitrary()?,
                hash: u.arbitrary()?,
                removed: false,
                punched: u.arbitrary()?,
                holes: Vec::new(),
            };
            if row.punched > 0 {
                row.holes = make::holes(u)?;
            } else {
                row.removed = !row.sealed && u.arbitrary()?;
            }
            assert_eq!(Segment::decode(&row.encode()), Ok(row.clone()));
            let other = make::segment(u)?;
            let key = |segment: &orlop_format::location::SegmentId| {
                Segment::key(segment.class, segment.id)
            };
            assert_eq!(
                key(&row.segment).cmp(&key(&other)),
                (row.segment.class.code(), row.segment.id).cmp(&(other.class.code(), other.id))
            );
        }
        _ => {
            let row = Names {
                notes: u.arbitrary()?,
                copies: make::list(u, 2, |u| {
                    Ok(Copy {
                        sha256: u.arbitrary()?,
                        catalog: u.arbitrary()?,
                        sequence: u.arbitrary()?,
                        lsn: u.arbitrary()?,
                    })
                })?,
            };
            assert_eq!(Names::decode(&row.encode()), Ok(row));
        }
    }
    Ok(())
}
