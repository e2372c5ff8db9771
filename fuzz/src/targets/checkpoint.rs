//! What is kept of an upload: its id, its checkpoint, the state of its hashes.
//!
//! An id is read as it is printed and in no other way. A saved hash state is
//! read without a panic whatever it holds, goes on without a panic, and saved
//! again is the same; hashing with a restart at any cut gives the digest of the
//! whole.

use arbitrary::{Result, Unstructured};
use orlop_format::digest::{Algorithm, Digest, Hasher};
use orlop_format::record::{Kind, Record, UploadId};

use crate::make;

/// Runs the target.
pub fn run(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data)
        && let Some(id) = UploadId::parse(text)
    {
        assert_eq!(id.to_string(), text);
    }
    if let Ok(Record::Checkpoint(checkpoint)) = Record::decode(Kind::Checkpoint, data) {
        // No bool lies in it, so its bytes are its only spelling, the zero
        // byte of a segment's id apart.
        let again = Record::Checkpoint(checkpoint).encode();
        assert_eq!(again.len(), data.len());
        assert!(
            again
                .iter()
                .zip(data)
                .all(|(new, old)| new == old || *new == 0)
        );
    }
    for algorithm in Algorithm::ALL {
        state(algorithm, data);
        // The same behind the header that it needs.
        state(algorithm, &[&[1, algorithm.code()], data].concat());
    }
    let _ = built(&mut Unstructured::new(data), data);
}

fn state(algorithm: Algorithm, saved: &[u8]) {
    let Some(mut hasher) = Hasher::restore(algorithm, saved) else {
        return;
    };
    assert_eq!(hasher.algorithm(), algorithm);
    let again = hasher.save().unwrap();
    let restored = Hasher::restore(algorithm, &again).unwrap();
    assert_eq!(restored.save(), Some(again));
    assert_eq!(restored.len(), hasher.len());
    hasher.update(&[7; 200]);
    let _ = hasher.finish();
}

fn built(u: &mut Unstructured<'_>, content: &[u8]) -> Result<()> {
    let id = make::upload(u)?;
    assert_eq!(UploadId::parse(&id.to_string()), Some(id));
    let checkpoint = make::checkpoint(u)?;
    let record = Record::Checkpoint(checkpoint);
    assert_eq!(
        Record::decode(Kind::Checkpoint, &record.encode()),
        Ok(record)
    );
    let algorithm = *u.choose(&Algorithm::ALL)?;
    let mut hasher = Hasher::new(algorithm);
    let mut rest = content;
    for _ in 0..3 {
        let (part, after) = rest.split_at(u.int_in_range(0..=rest.len())?);
        hasher.update(part);
        rest = after;
        if let Some(saved) = hasher.save() {
            hasher = Hasher::restore(algorithm, &saved).unwrap();
        } else {
            assert_eq!(algorithm, Algorithm::Blake3);
        }
    }
    hasher.update(rest);
    assert_eq!(hasher.len(), content.len() as u64);
    assert_eq!(hasher.finish(), Digest::of(algorithm, content));
    Ok(())
}
