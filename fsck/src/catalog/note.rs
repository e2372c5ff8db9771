//! The notes that the registry keeps in the log: what happened to names.
//!
//! Reads the documented form (docs/format.md, kind 14), on its own account:
//! what the server writes is not trusted to be what the server reads. Knows
//! nothing of what a note does to a catalog.

use orlop_format::digest::Digest;
use orlop_oci::{RepositoryName, Tag};

const VERSION: u8 = 1;

/// What happened to names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Note {
    /// A manifest was pushed.
    Manifest {
        repository: String,
        digest: Digest,
        media_type: String,
        tags: Vec<String>,
    },
    /// A repository was given a blob.
    Link {
        repository: String,
        digest: Digest,
        size: u64,
    },
    /// A tag was deleted.
    Untag { repository: String, tag: String },
    /// A manifest was deleted, and its tags with it.
    Delete { repository: String, digest: Digest },
    /// A repository gave a blob up.
    Unlink { repository: String, digest: Digest },
    /// A manifest went for good.
    Purge {
        repository: String,
        digest: Digest,
        row: i64,
    },
    /// A repository was deleted, with all that was in it.
    Drop { repository: String, row: i64 },
    /// A deleted repository came back, and has this name from then on.
    Restore { name: String, row: i64 },
    /// A repository lost a blob for good.
    PurgeBlob {
        repository: String,
        digest: Digest,
        row: i64,
    },
    /// What was noted as gone for good is there all the same.
    Kept {
        digest: Digest,
        row: i64,
        purged: Purged,
    },
}

/// What was to go for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Purged {
    Manifest,
    Blob,
}

/// Why bytes are no note.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unread {
    /// A newer version wrote it.
    Newer,
    /// It is not of the documented form.
    Malformed,
}

impl Note {
    /// Reads a note.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Unread> {
        let mut fields = Fields(bytes);
        let [version, kind] = fields.array()?;
        if version != VERSION {
            return Err(Unread::Newer);
        }
        let repository = fields.repository()?;
        let note = match kind {
            1 => Note::Manifest {
                repository,
                digest: fields.digest()?,
                media_type: fields.text()?.to_owned(),
                tags: {
                    let count = u16::from_le_bytes(fields.array()?);
                    (0..count).map(|_| fields.tag()).collect::<Result<_, _>>()?
                },
            },
            2 => Note::Link {
                repository,
                digest: fields.digest()?,
                size: u64::from_le_bytes(fields.array()?),
            },
            3 => Note::Untag {
                repository,
                tag: fields.tag()?,
            },
            4 => Note::Delete {
                repository,
                digest: fields.digest()?,
            },
            5 => Note::Unlink {
                repository,
                digest: fields.digest()?,
            },
            6 => Note::Purge {
                repository,
                digest: fields.digest()?,
                row: fields.row()?,
            },
            7 => Note::Drop {
                repository,
                row: fields.row()?,
            },
            8 => Note::Restore {
                name: fields.repository()?,
                row: fields.row()?,
            },
            9 => Note::PurgeBlob {
                repository,
                digest: fields.digest()?,
                row: fields.row()?,
            },
            10 => Note::Kept {
                digest: fields.digest()?,
                row: fields.row()?,
                purged: match fields.array()? {
                    [6] => Purged::Manifest,
                    [9] => Purged::Blob,
                    _ => return Err(Unread::Newer),
                },
            },
            _ => return Err(Unread::Newer),
        };
        if fields.0.is_empty() {
            Ok(note)
        } else {
            Err(Unread::Malformed)
        }
    }
}

/// The note that gives a repository a blob.
pub(crate) fn link(repository: &str, digest: &Digest, size: u64) -> Vec<u8> {
    let mut note = vec![VERSION, 2];
    for field in [repository.as_bytes(), &digest.encode()] {
        // Names and digests are far shorter than that.
        let len = u16::try_from(field.len()).unwrap_or(u16::MAX);
        note.extend(len.to_le_bytes());
        note.extend_from_slice(field);
    }
    note.extend(size.to_le_bytes());
    note
}

struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Unread> {
        let (head, rest) = self.0.split_first_chunk().ok_or(Unread::Malformed)?;
        self.0 = rest;
        Ok(*head)
    }

    /// A field behind its length.
    fn field(&mut self) -> Result<&'a [u8], Unread> {
        let len = usize::from(u16::from_le_bytes(self.array()?));
        let (head, rest) = self.0.split_at_checked(len).ok_or(Unread::Malformed)?;
        self.0 = rest;
        Ok(head)
    }

    fn text(&mut self) -> Result<&'a str, Unread> {
        std::str::from_utf8(self.field()?).map_err(|_| Unread::Malformed)
    }

    fn repository(&mut self) -> Result<String, Unread> {
        let name = RepositoryName::parse(self.text()?).map_err(|_| Unread::Malformed)?;
        Ok(name.as_str().to_owned())
    }

    fn tag(&mut self) -> Result<String, Unread> {
        let tag = Tag::parse(self.text()?).map_err(|_| Unread::Malformed)?;
        Ok(tag.as_str().to_owned())
    }

    fn row(&mut self) -> Result<i64, Unread> {
        match i64::from_le_bytes(self.array()?) {
            row if row > 0 => Ok(row),
            _ => Err(Unread::Malformed),
        }
    }

    fn digest(&mut self) -> Result<Digest, Unread> {
        let field = self.field()?;
        match Digest::decode(field) {
            Ok((digest, len)) if len == field.len() => Ok(digest),
            _ => Err(Unread::Malformed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use orlop_format::digest::Algorithm;

    #[test]
    fn a_note_of_a_link_is_read_as_it_was_written() {
        let digest = Digest::of(Algorithm::Sha512, b"a blob");
        let repository = "team/app".to_owned();
        let note = Note::Link {
            repository,
            digest,
            size: 6,
        };
        assert_eq!(Note::decode(&link("team/app", &digest, 6)), Ok(note));
    }
}
