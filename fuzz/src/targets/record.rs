//! Bodies of records.
//!
//! Any bytes are read without a panic, for every kind; what reads back is
//! written with the same length and the same bytes, but that a flag is 0 or 1
//! and what a flag switches off is zero. What was written comes back.

use arbitrary::Unstructured;
use orlop_format::record::{Kind, Record};

use crate::make;

/// Runs the target.
pub fn run(data: &[u8]) {
    if let Some((code, body)) = data.split_first() {
        let kinds = (0..=u8::MAX).filter_map(|code| Kind::from_code(code).ok());
        let kinds: Vec<_> = kinds.collect();
        decoded(kinds[usize::from(*code) % kinds.len()], body);
        if let Ok(kind) = Kind::from_code(*code) {
            decoded(kind, body);
        }
    }
    if let Ok(record) = make::record(&mut Unstructured::new(data)) {
        let body = record.encode();
        assert_eq!(Record::decode(record.kind(), &body), Ok(record.clone()));
        // Nothing may follow it, but in a note, which is opaque.
        let longer = [body.as_slice(), &[0]].concat();
        assert_eq!(
            Record::decode(record.kind(), &longer).is_ok(),
            record.kind() == Kind::Note
        );
    }
}

fn decoded(kind: Kind, body: &[u8]) {
    let Ok(record) = Record::decode(kind, body) else {
        return;
    };
    assert_eq!(record.kind(), kind);
    let again = record.encode();
    assert_eq!(again.len(), body.len());
    assert_eq!(Record::decode(kind, &again), Ok(record));
    for (at, (new, old)) in again.iter().zip(body).enumerate() {
        assert!(new == old || *new <= 1, "byte {at} of a {kind:?} changed");
    }
}
