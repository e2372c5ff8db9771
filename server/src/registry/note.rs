//! Notes: what the journal remembers of names, so that a lost catalog can be
//! made again from its newest copy and the notes since.
//!
//! The store keeps them as opaque bytes. Their form is for ever: a version
//! byte, a kind byte, then fields; each text is a length of two bytes
//! (little-endian) and UTF-8, each digest its encoded form behind such a
//! length. A row is the number that the repository has in the catalog, 8 bytes
//! (little-endian): others may have or have had its name.
//!
//! ```text
//! Manifest (1): repository, digest, media type, count of tags (2 bytes), tags
//! Link     (2): repository, digest, size (8 bytes, little-endian)
//! Untag    (3): repository, tag
//! Delete   (4): repository, digest
//! Unlink   (5): repository, digest
//! Purge    (6): repository, digest, row
//! Drop     (7): repository, row
//! Restore  (8): repository, the name that it has from now on, row
//! PurgeBlob(9): repository, digest, row
//! Kept    (10): repository, digest, row, kind (1 byte, 6 or 9)
//! ```

use orlop_oci::{Digest, RepositoryName};

const VERSION: u8 = 1;
const KIND_MANIFEST: u8 = 1;
const KIND_LINK: u8 = 2;
const KIND_UNTAG: u8 = 3;
const KIND_DELETE: u8 = 4;
const KIND_UNLINK: u8 = 5;
const KIND_PURGE: u8 = 6;
const KIND_DROP: u8 = 7;
const KIND_RESTORE: u8 = 8;
const KIND_PURGE_BLOB: u8 = 9;
const KIND_KEPT: u8 = 10;

/// What happened to names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// A manifest was pushed.
    Manifest {
        /// Where.
        repository: RepositoryName,
        /// Digest of its bytes.
        digest: Digest,
        /// Its type.
        media_type: String,
        /// The tags it was given.
        tags: Vec<String>,
    },
    /// A blob was pushed, or mounted from another repository.
    Link {
        /// Where to.
        repository: RepositoryName,
        /// Which one.
        digest: Digest,
        /// Its size in bytes.
        size: u64,
    },
    /// Something was deleted.
    Deletion(Deletion),
    /// A manifest went for good, and its tags with it.
    Purge {
        /// From where.
        repository: RepositoryName,
        /// Digest of its bytes.
        digest: Digest,
        /// The repository's row.
        row: i64,
    },
    /// A repository was deleted, with all that is in it.
    Drop {
        /// Which one.
        repository: RepositoryName,
        /// Its row.
        row: i64,
    },
    /// A deleted repository came back, with all that was in it.
    Restore {
        /// The name that it had.
        repository: RepositoryName,
        /// The name that it has from now on.
        name: RepositoryName,
        /// Its row.
        row: i64,
    },
    /// A repository lost a blob for good.
    PurgeBlob {
        /// Which one.
        repository: RepositoryName,
        /// Digest of the blob.
        digest: Digest,
        /// The repository's row.
        row: i64,
    },
    /// What was noted as gone for good is there all the same: that failed.
    Kept {
        /// Where.
        repository: RepositoryName,
        /// Digest of it.
        digest: Digest,
        /// The repository's row.
        row: i64,
        /// As what it was to go.
        purged: Purged,
    },
}

/// What was to go for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purged {
    /// A manifest.
    Manifest,
    /// A blob.
    Blob,
}

/// What is deleted, from one repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deletion {
    /// A tag.
    Tag {
        /// Where.
        repository: RepositoryName,
        /// Which one.
        tag: String,
    },
    /// A manifest, and its tags with it.
    Manifest {
        /// Where.
        repository: RepositoryName,
        /// Digest of its bytes.
        digest: Digest,
    },
    /// A blob.
    Blob {
        /// Where.
        repository: RepositoryName,
        /// Which one.
        digest: Digest,
    },
}

impl Deletion {
    /// Where something is deleted.
    pub fn repository(&self) -> &RepositoryName {
        match self {
            Deletion::Tag { repository, .. }
            | Deletion::Manifest { repository, .. }
            | Deletion::Blob { repository, .. } => repository,
        }
    }
}

/// Why bytes are not a note.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// Written by a newer release.
    #[error("the note has version {0}; this release reads version {VERSION}")]
    Version(u8),
    /// Not of the documented form.
    #[error("the note is malformed")]
    Malformed,
}

impl Note {
    /// The bytes to keep.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        match self {
            Note::Manifest {
                repository,
                digest,
                media_type,
                tags,
            } => {
                out.push(KIND_MANIFEST);
                put(&mut out, repository.as_str().as_bytes());
                put(&mut out, &digest.encode());
                put(&mut out, media_type.as_bytes());
                let count = u16::try_from(tags.len()).unwrap_or(u16::MAX);
                out.extend_from_slice(&count.to_le_bytes());
                for tag in tags.iter().take(usize::from(count)) {
                    put(&mut out, tag.as_bytes());
                }
            }
            Note::Link {
                repository,
                digest,
                size,
            } => {
                out.push(KIND_LINK);
                put(&mut out, repository.as_str().as_bytes());
                put(&mut out, &digest.encode());
                out.extend_from_slice(&size.to_le_bytes());
            }
            Note::Deletion(Deletion::Tag { repository, tag }) => {
                out.push(KIND_UNTAG);
                put(&mut out, repository.as_str().as_bytes());
                put(&mut out, tag.as_bytes());
            }
            Note::Deletion(Deletion::Manifest { repository, digest }) => {
                out.push(KIND_DELETE);
                put(&mut out, repository.as_str().as_bytes());
                put(&mut out, &digest.encode());
            }
            Note::Deletion(Deletion::Blob { repository, digest }) => {
                out.push(KIND_UNLINK);
                put(&mut out, repository.as_str().as_bytes());
                put(&mut out, &digest.encode());
            }
            Note::Purge {
                repository,
                digest,
                row,
            } => {
                out.push(KIND_PURGE);
                put(&mut out, repository.as_str().as_bytes());
                put(&mut out, &digest.encode());
                out.extend_from_slice(&row.to_le_bytes());
            }
            Note::Drop { repository, row } => {
                out.push(KIND_DROP);
                put(&mut out, repository.as_str().as_bytes());
                out.extend_from_slice(&row.to_le_bytes());
            }
            Note::Restore {
                repository,
                name,
                row,
            } => {
                out.push(KIND_RESTORE);
                put(&mut out, repository.as_str().as_bytes());
                put(&mut out, name.as_str().as_bytes());
                out.extend_from_slice(&row.to_le_bytes());
            }
            Note::PurgeBlob {
                repository,
                digest,
                row,
            } => {
                out.push(KIND_PURGE_BLOB);
                put(&mut out, repository.as_str().as_bytes());
                put(&mut out, &digest.encode());
                out.extend_from_slice(&row.to_le_bytes());
            }
            Note::Kept {
                repository,
                digest,
                row,
                purged,
            } => {
                out.push(KIND_KEPT);
                put(&mut out, repository.as_str().as_bytes());
                put(&mut out, &digest.encode());
                out.extend_from_slice(&row.to_le_bytes());
                out.push(match purged {
                    Purged::Manifest => KIND_PURGE,
                    Purged::Blob => KIND_PURGE_BLOB,
                });
            }
        }
        out
    }

    /// Reads a note.
    pub fn decode(bytes: &[u8]) -> Result<Note, NoteError> {
        let mut rest = Reader(bytes);
        let [version, kind] = rest.array()?;
        if version != VERSION {
            return Err(NoteError::Version(version));
        }
        let note = match kind {
            KIND_MANIFEST => Note::Manifest {
                repository: rest.repository()?,
                digest: rest.digest()?,
                media_type: rest.text()?.to_owned(),
                tags: {
                    let count = u16::from_le_bytes(rest.array()?);
                    (0..count)
                        .map(|_| rest.text().map(str::to_owned))
                        .collect::<Result<_, _>>()?
                },
            },
            KIND_LINK => Note::Link {
                repository: rest.repository()?,
                digest: rest.digest()?,
                size: u64::from_le_bytes(rest.array()?),
            },
            KIND_UNTAG => Note::Deletion(Deletion::Tag {
                repository: rest.repository()?,
                tag: rest.text()?.to_owned(),
            }),
            KIND_DELETE => Note::Deletion(Deletion::Manifest {
                repository: rest.repository()?,
                digest: rest.digest()?,
            }),
            KIND_UNLINK => Note::Deletion(Deletion::Blob {
                repository: rest.repository()?,
                digest: rest.digest()?,
            }),
            KIND_PURGE => Note::Purge {
                repository: rest.repository()?,
                digest: rest.digest()?,
                row: i64::from_le_bytes(rest.array()?),
            },
            KIND_DROP => Note::Drop {
                repository: rest.repository()?,
                row: i64::from_le_bytes(rest.array()?),
            },
            KIND_RESTORE => Note::Restore {
                repository: rest.repository()?,
                name: rest.repository()?,
                row: i64::from_le_bytes(rest.array()?),
            },
            KIND_PURGE_BLOB => Note::PurgeBlob {
                repository: rest.repository()?,
                digest: rest.digest()?,
                row: i64::from_le_bytes(rest.array()?),
            },
            KIND_KEPT => Note::Kept {
                repository: rest.repository()?,
                digest: rest.digest()?,
                row: i64::from_le_bytes(rest.array()?),
                purged: match rest.array()? {
                    [KIND_PURGE] => Purged::Manifest,
                    [KIND_PURGE_BLOB] => Purged::Blob,
                    _ => return Err(NoteError::Malformed),
                },
            },
            _ => return Err(NoteError::Malformed),
        };
        if rest.0.is_empty() {
            Ok(note)
        } else {
            Err(NoteError::Malformed)
        }
    }
}

/// Writes a field behind its length. Every field is far shorter than 64 KiB:
/// names, tags and media types have bounds of their own.
fn put(out: &mut Vec<u8>, field: &[u8]) {
    let len = u16::try_from(field.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&len.to_le_bytes());
    out.extend(field.iter().take(usize::from(len)));
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], NoteError> {
        let (head, tail) = self.0.split_first_chunk().ok_or(NoteError::Malformed)?;
        self.0 = tail;
        Ok(*head)
    }

    fn field(&mut self) -> Result<&'a [u8], NoteError> {
        let len = u16::from_le_bytes(self.array()?);
        let (head, tail) = self
            .0
            .split_at_checked(usize::from(len))
            .ok_or(NoteError::Malformed)?;
        self.0 = tail;
        Ok(head)
    }

    fn text(&mut self) -> Result<&'a str, NoteError> {
        std::str::from_utf8(self.field()?).map_err(|_| NoteError::Malformed)
    }

    fn repository(&mut self) -> Result<RepositoryName, NoteError> {
        RepositoryName::parse(self.text()?).map_err(|_| NoteError::Malformed)
    }

    fn digest(&mut self) -> Result<Digest, NoteError> {
        let field = self.field()?;
        match Digest::decode(field) {
            Ok((digest, len)) if len == field.len() => Ok(digest),
            _ => Err(NoteError::Malformed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use orlop_oci::Algorithm;

    fn notes() -> Vec<Note> {
        let repository = RepositoryName::parse("library/alpine").unwrap();
        let mut notes = vec![Note::Link {
            repository: repository.clone(),
            digest: Digest::of(Algorithm::Sha512, b"layer"),
            size: u64::MAX,
        }];
        notes.push(Note::Deletion(Deletion::Tag {
            repository: repository.clone(),
            tag: "3.20".to_owned(),
        }));
        let digest = Digest::of(Algorithm::Blake3, b"gone");
        notes.push(Note::Deletion(Deletion::Manifest {
            repository: repository.clone(),
            digest,
        }));
        notes.push(Note::Deletion(Deletion::Blob {
            repository: repository.clone(),
            digest,
        }));
        notes.push(Note::Drop {
            repository: repository.clone(),
            row: i64::MAX,
        });
        notes.push(Note::Purge {
            repository: repository.clone(),
            digest,
            row: 258,
        });
        notes.push(Note::Restore {
            repository: repository.clone(),
            name: RepositoryName::parse("library/old").unwrap(),
            row: 1,
        });
        notes.push(Note::PurgeBlob {
            repository: repository.clone(),
            digest,
            row: 258,
        });
        for purged in [Purged::Manifest, Purged::Blob] {
            notes.push(Note::Kept {
                repository: repository.clone(),
                digest,
                row: -1,
                purged,
            });
        }
        for tags in [vec![], vec!["latest".to_owned(), "3.20".to_owned()]] {
            notes.push(Note::Manifest {
                repository: repository.clone(),
                digest: Digest::of(Algorithm::Sha256, b"manifest"),
                media_type: "application/vnd.oci.image.manifest.v1+json".to_owned(),
                tags,
            });
        }
        notes
    }

    #[test]
    fn notes_round_trip() {
        for note in notes() {
            assert_eq!(Note::decode(&note.encode()), Ok(note));
        }
    }

    #[test]
    fn the_bytes_are_for_ever() {
        let note = Note::Link {
            repository: RepositoryName::parse("a").unwrap(),
            digest: Digest::new(Algorithm::Sha256, &[7; 32]).unwrap(),
            size: 258,
        };
        let mut expected = vec![1, 2, 1, 0, b'a', 33, 0, 1];
        expected.extend([7; 32]);
        expected.extend([2, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(note.encode(), expected);
        let note = Note::Drop {
            repository: RepositoryName::parse("a").unwrap(),
            row: 258,
        };
        let expected = [1, 7, 1, 0, b'a', 2, 1, 0, 0, 0, 0, 0, 0];
        assert_eq!(note.encode(), expected);
    }

    #[test]
    fn damaged_notes_are_refused() {
        for note in notes() {
            let bytes = note.encode();
            for len in 0..bytes.len() {
                assert_eq!(Note::decode(&bytes[..len]), Err(NoteError::Malformed));
            }
            let longer = [bytes.as_slice(), &[0]].concat();
            assert_eq!(Note::decode(&longer), Err(NoteError::Malformed));
            let mut newer = bytes.clone();
            newer[0] = 2;
            assert_eq!(Note::decode(&newer), Err(NoteError::Version(2)));
            for at in 0..bytes.len() {
                let mut flipped = bytes.clone();
                flipped[at] ^= 0x80;
                // Whatever it says, it must not panic.
                if let Ok(other) = Note::decode(&flipped) {
                    assert_ne!(other, note);
                }
            }
        }
    }
}
