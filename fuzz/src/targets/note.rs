//! Notes: what the journal remembers of names.
//!
//! Any bytes are read without a panic; what reads back is written as the same
//! bytes. What was written comes back, and no part of it alone reads as a note.

use arbitrary::{Result, Unstructured};
use orlop::registry::note::{Deletion, Note};
use orlop_oci::RepositoryName;

use crate::make;

/// Runs the target.
pub fn run(data: &[u8]) {
    for bytes in [data.to_vec(), [&[1], data].concat()] {
        if let Ok(note) = Note::decode(&bytes) {
            assert_eq!(note.encode(), bytes, "{note:?}");
        }
    }
    let _ = built(&mut Unstructured::new(data));
}

fn text(u: &mut Unstructured<'_>) -> Result<String> {
    Ok(String::from_utf8_lossy(&make::bytes(u, 100)?).into_owned())
}

fn built(u: &mut Unstructured<'_>) -> Result<()> {
    let names = ["a", "library/alpine", "x/y-z/0__1", "team.a/b"];
    let repository = RepositoryName::parse(u.choose(&names)?).unwrap();
    let digest = make::digest(u)?;
    let note = match u.int_in_range(0..=8)? {
        0 => Note::Manifest {
            repository,
            digest,
            media_type: text(u)?,
            tags: make::list(u, 5, text)?,
        },
        1 => Note::Link {
            repository,
            digest,
            size: u.arbitrary()?,
        },
        2 => Note::Deletion(Deletion::Tag {
            repository,
            tag: text(u)?,
        }),
        3 => Note::Deletion(Deletion::Manifest { repository, digest }),
        4 => Note::Deletion(Deletion::Blob { repository, digest }),
        5 => Note::Purge {
            repository,
            digest,
            row: u.arbitrary()?,
        },
        6 => Note::Drop {
            repository,
            row: u.arbitrary()?,
        },
        7 => Note::Restore {
            repository,
            name: RepositoryName::parse(u.choose(&names)?).unwrap(),
            row: u.arbitrary()?,
        },
        _ => Note::PurgeBlob {
            repository,
            digest,
            row: u.arbitrary()?,
        },
    };
    let bytes = note.encode();
    assert_eq!(Note::decode(&bytes), Ok(note));
    let cut = u.int_in_range(0..=bytes.len() - 1)?;
    assert!(Note::decode(&bytes[..cut]).is_err());
    assert!(Note::decode(&[bytes.as_slice(), &[0]].concat()).is_err());
    Ok(())
}
