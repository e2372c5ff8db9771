//! Repository names.
//!
//! The grammar is the distribution specification's: components joined by `/`,
//! each of lower-case letters and digits, with single `.`, one or two `_`, or
//! any number of `-` between them. A name that parsed can be part of a URL, a
//! header or a log line as it is.

use std::fmt;
use std::sync::Arc;

/// The longest repository name, in bytes.
pub const NAME_LEN_MAX: usize = 255;

/// A valid repository name. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RepositoryName(Arc<str>);

/// Why a text is not a repository name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// There is no name.
    #[error("the repository name is empty")]
    Empty,
    /// Longer than [`NAME_LEN_MAX`].
    #[error("the repository name is longer than {NAME_LEN_MAX} bytes")]
    TooLong,
    /// A `/` at the start or end, or two in a row.
    #[error("the repository name has an empty component (byte {at})")]
    EmptyComponent {
        /// Offset in bytes.
        at: usize,
    },
    /// Neither lower-case letter, digit, nor one of `. _ - /`.
    #[error(
        "the repository name has a character at byte {at} that is not allowed: use a-z, 0-9, and . _ - / between them"
    )]
    Character {
        /// Offset in bytes.
        at: usize,
    },
    /// A separator at the start or end of a component, or a wrong sequence of
    /// separators.
    #[error(
        "the repository name has a misplaced separator at byte {at}: one . or _, two __ or any number of - may stand between letters and digits"
    )]
    Separator {
        /// Offset in bytes.
        at: usize,
    },
}

impl RepositoryName {
    /// Checks and takes over a name.
    pub fn parse(text: &str) -> Result<RepositoryName, NameError> {
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        if text.len() > NAME_LEN_MAX {
            return Err(NameError::TooLong);
        }
        let mut at = 0usize;
        for component in text.split('/') {
            check_component(component, at)?;
            at = at.saturating_add(component.len()).saturating_add(1);
        }
        Ok(RepositoryName(text.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Checks one component, which starts at byte `start` of the name.
fn check_component(component: &str, start: usize) -> Result<(), NameError> {
    if component.is_empty() {
        return Err(NameError::EmptyComponent { at: start });
    }
    // The separators since the last letter or digit; a component starts as if
    // it came right after one, so that a leading separator shows.
    let mut run: &[u8] = &[];
    let bytes = component.as_bytes();
    for (i, byte) in bytes.iter().enumerate() {
        let at = start.saturating_add(i);
        match byte {
            b'a'..=b'z' | b'0'..=b'9' => {
                if !run.is_empty() && !is_separator(run) {
                    return Err(NameError::Separator { at });
                }
                run = &[];
            }
            b'.' | b'_' | b'-' if i == 0 => return Err(NameError::Separator { at }),
            b'.' | b'_' | b'-' => {
                let from = i.saturating_sub(run.len());
                run = bytes.get(from..=i).unwrap_or_default();
            }
            _ => return Err(NameError::Character { at }),
        }
    }
    if run.is_empty() {
        Ok(())
    } else {
        let last = start.saturating_add(bytes.len()).saturating_sub(1);
        Err(NameError::Separator { at: last })
    }
}

fn is_separator(run: &[u8]) -> bool {
    matches!(run, b"." | b"_" | b"__") || run.iter().all(|b| *b == b'-')
}

impl AsRef<str> for RepositoryName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RepositoryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RepositoryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn valid_names() {
        for name in [
            "a",
            "0",
            "library/alpine",
            "a.b_c__d-e---f",
            "a/b/c/d/e/f/g",
            "a--b",
            "v2/blobs/uploads",
            &"a".repeat(255),
        ] {
            assert_eq!(RepositoryName::parse(name).unwrap().as_str(), name);
        }
    }

    #[test]
    fn a02_invalid_names() {
        let long = "a".repeat(256);
        for (name, reason) in [
            ("", NameError::Empty),
            (long.as_str(), NameError::TooLong),
            ("A/b", NameError::Character { at: 0 }),
            ("a//b", NameError::EmptyComponent { at: 2 }),
            ("/a", NameError::EmptyComponent { at: 0 }),
            ("a/", NameError::EmptyComponent { at: 2 }),
            ("a/../b", NameError::Separator { at: 2 }),
            ("_blobstore", NameError::Separator { at: 0 }),
            ("-x", NameError::Separator { at: 0 }),
            ("x-", NameError::Separator { at: 1 }),
            ("a..b", NameError::Separator { at: 3 }),
            ("a___b", NameError::Separator { at: 4 }),
            ("a.-b", NameError::Separator { at: 3 }),
            ("ab/c_", NameError::Separator { at: 4 }),
            ("a\0b", NameError::Character { at: 1 }),
            ("a\r\nb", NameError::Character { at: 1 }),
            ("a b", NameError::Character { at: 1 }),
            ("a%2fb", NameError::Character { at: 1 }),
            ("a:b", NameError::Character { at: 1 }),
            ("\u{430}lpine", NameError::Character { at: 0 }),
            ("caf\u{e9}", NameError::Character { at: 3 }),
        ] {
            assert_eq!(RepositoryName::parse(name), Err(reason), "{name:?}");
        }
    }

    /// The grammar again, in the plainest way: by trying every cut.
    fn oracle(text: &str) -> bool {
        fn alnum(text: &str) -> bool {
            !text.is_empty()
                && text
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        }
        fn separator(text: &str) -> bool {
            [".", "_", "__"].contains(&text)
                || (!text.is_empty() && text.bytes().all(|b| b == b'-'))
        }
        fn component(text: &str) -> bool {
            alnum(text)
                || (1..text.len()).any(|a| {
                    (a + 1..text.len()).any(|b| {
                        alnum(&text[..a]) && separator(&text[a..b]) && component(&text[b..])
                    })
                })
        }
        text.len() <= NAME_LEN_MAX && text.split('/').all(component)
    }

    proptest! {
        #[test]
        fn agrees_with_the_grammar(text in "[a0A._/-]{0,10}") {
            prop_assert_eq!(RepositoryName::parse(&text).is_ok(), oracle(&text));
        }

        #[test]
        fn never_panics(text in "\\PC{0,300}") {
            let parsed = RepositoryName::parse(&text);
            prop_assert!(parsed.is_err() || text.is_ascii());
        }
    }
}
