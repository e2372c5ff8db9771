//! Repository names, tags and references.
//!
//! A text is one exactly when a reading of the grammar, written apart, says so;
//! it prints as it was read, and reads again as the same. What has the form of
//! a digest is one and never a tag. Errors name a place and never the text.

use orlop_oci::name::NAME_LEN_MAX;
use orlop_oci::tag::TAG_LEN_MAX;
use orlop_oci::{Digest, Reference, RepositoryName, Tag};

/// Runs the target.
pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let name = RepositoryName::parse(text);
    assert_eq!(name.is_ok(), is_name(text), "{text:?}");
    match &name {
        Ok(name) => {
            assert_eq!(name.to_string(), text);
            assert_eq!(format!("{name:?}"), format!("{text:?}"));
            assert_eq!(RepositoryName::parse(name.as_str()).as_ref(), Ok(name));
            // Safe in a path of an address and of a file system.
            assert!(
                text.split('/')
                    .all(|part| !part.is_empty() && !part.starts_with('.'))
            );
        }
        Err(error) => assert!(error.to_string().is_ascii()),
    }
    let tag = Tag::parse(text);
    assert_eq!(tag.is_ok(), is_tag(text), "{text:?}");
    if let Ok(tag) = &tag {
        assert_eq!(tag.to_string(), text);
        assert!(Digest::parse(text).is_err());
    }
    let reference = Reference::parse(text);
    assert_eq!(
        reference.is_ok(),
        tag.is_ok() || Digest::parse(text).is_ok(),
        "{text:?}"
    );
    if let Ok(reference) = reference {
        assert_eq!(reference.to_string(), text);
        assert_eq!(
            Reference::parse(&reference.to_string()).as_ref(),
            Ok(&reference)
        );
        assert_eq!(reference.tag(), tag.as_ref().ok());
        assert_eq!(reference.digest(), Digest::parse(text).ok().as_ref());
    }
}

fn is_tag(text: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    (1..=TAG_LEN_MAX).contains(&text.len())
        && text.bytes().all(|byte| word(byte) || b".-".contains(&byte))
        && text.bytes().next().is_some_and(word)
}

/// The grammar by runs: each component is runs of letters and digits, between
/// them one separator.
fn is_name(text: &str) -> bool {
    let alnum = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let component = |component: &str| {
        let separators: Vec<&str> = component
            .split(alnum)
            .filter(|run| !run.is_empty())
            .collect();
        component.starts_with(alnum)
            && component.ends_with(alnum)
            && separators
                .iter()
                .all(|run| matches!(*run, "." | "_" | "__") || run.chars().all(|c| c == '-'))
    };
    text.len() <= NAME_LEN_MAX && text.split('/').all(component)
}
