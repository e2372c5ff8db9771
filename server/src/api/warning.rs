//! `Warning` headers: what a client should tell its user, though the answer is
//! what was asked for.
//!
//! The form is the distribution specification's: code 299, agent `-`, no date,
//! and all of an answer's warnings together within [`WARNINGS_BYTES_MAX`].

use http::header::{self, HeaderMap, HeaderValue};

/// Bytes of all warnings of one answer.
const WARNINGS_BYTES_MAX: usize = 4096;
/// What stands before and behind the text.
const START: &str = "299 - \"";
const END: &str = "\"";
/// What stands in place of what was cut off.
const CUT: &str = "...";

/// Adds a warning to an answer. What does not fit any more is cut, and left
/// out when nothing of it fits.
pub(super) fn add(headers: &mut HeaderMap, text: &str) {
    let taken: usize = headers
        .get_all(header::WARNING)
        .iter()
        .map(HeaderValue::len)
        .sum();
    let room = WARNINGS_BYTES_MAX.saturating_sub(taken);
    let Some(room) = room.checked_sub(START.len() + END.len() + CUT.len()) else {
        return;
    };
    let quoted = quote(text, room);
    if quoted.is_empty() {
        return;
    }
    if let Ok(value) = HeaderValue::from_str(&format!("{START}{quoted}{END}")) {
        headers.append(header::WARNING, value);
    }
}

/// The inside of a quoted string, of about `room` bytes: visible ASCII and
/// spaces, with a backslash before what would end it. Whatever else the text
/// has becomes a space or a question mark.
fn quote(text: &str, room: usize) -> String {
    let mut quoted = String::with_capacity(text.len().min(room));
    for character in text.trim().chars() {
        let safe = match character {
            ' '..='~' => character,
            _ if character.is_control() || character.is_whitespace() => ' ',
            _ => '?',
        };
        let escaped = matches!(safe, '"' | '\\');
        if quoted.len() + 1 + usize::from(escaped) > room {
            quoted.push_str(CUT);
            break;
        }
        if escaped {
            quoted.push('\\');
        }
        quoted.push(safe);
    }
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn values(headers: &HeaderMap) -> Vec<&str> {
        let values = headers.get_all(header::WARNING).iter();
        values.map(|value| value.to_str().unwrap()).collect()
    }

    fn one(text: &str) -> String {
        let mut headers = HeaderMap::new();
        add(&mut headers, text);
        values(&headers).join("|")
    }

    #[test]
    fn the_form_is_that_of_the_specification() {
        assert_eq!(one("disk swap"), "299 - \"disk swap\"");
        assert_eq!(one(""), "");
    }

    #[test]
    fn nothing_ends_the_quoted_string_or_the_line() {
        assert_eq!(one(r#"a "b" \ c"#), r#"299 - "a \"b\" \\ c""#);
        assert_eq!(one("a\r\nSet-Cookie: x"), "299 - \"a  Set-Cookie: x\"");
        assert_eq!(one("a\0b\u{7f}c\u{9b}d"), "299 - \"a b c d\"");
        assert_eq!(one("größer \u{202e}ab"), "299 - \"gr??er ?ab\"");
    }

    #[test]
    fn all_warnings_together_are_bounded() {
        let mut headers = HeaderMap::new();
        for _ in 0..100 {
            add(&mut headers, &"x".repeat(100));
        }
        let total: usize = values(&headers).iter().map(|value| value.len()).sum();
        assert!(total <= WARNINGS_BYTES_MAX, "{total}");
        assert!(values(&headers).len() > 30);
        let long = one(&"\"".repeat(100_000));
        assert!(long.len() <= WARNINGS_BYTES_MAX, "{}", long.len());
        assert!(long.ends_with("...\""));
    }

    proptest! {
        /// Whatever the text: one quoted string, read back without its escapes.
        #[test]
        fn texts_stay_within_their_quotes(text in any::<String>()) {
            let value = one(&text);
            prop_assume!(!value.is_empty());
            let inner = value.strip_prefix(START).unwrap().strip_suffix(END).unwrap();
            let mut characters = inner.chars();
            while let Some(character) = characters.next() {
                prop_assert!(matches!(character, ' '..='~') && character != '"');
                if character == '\\' {
                    prop_assert!(matches!(characters.next(), Some('"' | '\\')));
                }
            }
        }
    }
}
