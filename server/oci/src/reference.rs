//! References: how a manifest is named within its repository, by tag or by
//! digest. A text that parses as a digest is a digest, never a tag.

use std::fmt;

use orlop_format::digest::{Digest, DigestError};

use crate::tag::{Tag, TagError};

/// A tag or a digest.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Reference {
    /// A movable name.
    Tag(Tag),
    /// The content itself.
    Digest(Digest),
}

/// Why a text is neither tag nor digest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// It has no `:`, so it was read as a tag.
    #[error(transparent)]
    Tag(#[from] TagError),
    /// It has a `:`, which no tag has, so it was read as a digest.
    #[error(transparent)]
    Digest(#[from] DigestError),
}

impl Reference {
    /// Reads a reference.
    pub fn parse(text: &str) -> Result<Reference, ReferenceError> {
        if text.contains(':') {
            Ok(Reference::Digest(Digest::parse(text)?))
        } else {
            Ok(Reference::Tag(Tag::parse(text)?))
        }
    }

    /// The digest, if it is one.
    pub fn digest(&self) -> Option<&Digest> {
        match self {
            Reference::Digest(digest) => Some(digest),
            Reference::Tag(_) => None,
        }
    }

    /// The tag, if it is one.
    pub fn tag(&self) -> Option<&Tag> {
        match self {
            Reference::Tag(tag) => Some(tag),
            Reference::Digest(_) => None,
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reference::Tag(tag) => tag.fmt(f),
            Reference::Digest(digest) => digest.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use orlop_format::digest::Algorithm;

    #[test]
    fn a04_what_parses_as_a_digest_is_one() {
        for algorithm in Algorithm::ALL {
            let digest = Digest::of(algorithm, b"x");
            let reference = Reference::parse(&digest.to_string()).unwrap();
            assert_eq!(reference, Reference::Digest(digest));
            assert!(reference.tag().is_none());
        }
        // Without the colon it is an ordinary tag.
        let text = "sha256-e3b0c44298fc1c14";
        assert_eq!(Reference::parse(text).unwrap().to_string(), text);
    }

    #[test]
    fn errors_tell_which_form_was_meant() {
        assert_eq!(
            Reference::parse("sha256:zz"),
            Err(ReferenceError::Digest(DigestError::Malformed))
        );
        assert_eq!(
            Reference::parse("no/tag"),
            Err(ReferenceError::Tag(TagError::Character { at: 2 }))
        );
    }
}
