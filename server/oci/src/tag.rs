//! Tags: the movable names of manifests within a repository.

use std::fmt;
use std::sync::Arc;

/// The longest tag, in bytes.
pub const TAG_LEN_MAX: usize = 128;

/// A valid tag: a letter, digit or `_`, then up to 127 of those or `.`, `-`.
/// Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(Arc<str>);

/// Why a text is not a tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TagError {
    /// There is no tag.
    #[error("the tag is empty")]
    Empty,
    /// Longer than [`TAG_LEN_MAX`].
    #[error("the tag is longer than {TAG_LEN_MAX} bytes")]
    TooLong,
    /// A character that tags may not have, or not at their start.
    #[error(
        "the tag has a character at byte {at} that is not allowed: use letters, digits, _ and, not at the start, . and -"
    )]
    Character {
        /// Offset in bytes.
        at: usize,
    },
}

impl Tag {
    /// Checks and takes over a tag.
    pub fn parse(text: &str) -> Result<Tag, TagError> {
        if text.is_empty() {
            return Err(TagError::Empty);
        }
        if text.len() > TAG_LEN_MAX {
            return Err(TagError::TooLong);
        }
        let bad = text.bytes().enumerate().position(|(at, byte)| {
            !(byte.is_ascii_alphanumeric()
                || byte == b'_'
                || (at > 0 && matches!(byte, b'.' | b'-')))
        });
        match bad {
            Some(at) => Err(TagError::Character { at }),
            None => Ok(Tag(text.into())),
        }
    }

    /// The tag as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for Tag {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn valid_tags() {
        for tag in ["latest", "_", "V1.0-rc_2", "0", &"t".repeat(128)] {
            assert_eq!(Tag::parse(tag).unwrap().as_str(), tag);
        }
    }

    #[test]
    fn a04_invalid_tags() {
        let long = "t".repeat(129);
        for (tag, reason) in [
            ("", TagError::Empty),
            (long.as_str(), TagError::TooLong),
            (".a", TagError::Character { at: 0 }),
            ("-a", TagError::Character { at: 0 }),
            ("a/b", TagError::Character { at: 1 }),
            ("a:b", TagError::Character { at: 1 }),
            ("a\0", TagError::Character { at: 1 }),
            ("a+b", TagError::Character { at: 1 }),
            ("\u{e9}", TagError::Character { at: 0 }),
        ] {
            assert_eq!(Tag::parse(tag), Err(reason), "{tag:?}");
        }
    }
}
