//! Percent-encoding: undone exactly once, and done where a query is written.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// Decodes `%xx`. None if an escape is malformed or the result is not UTF-8.
pub(super) fn decode(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('%') {
        return Some(Cow::Borrowed(text));
    }
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'%' => {
                let high = char::from(bytes.next()?).to_digit(16)?;
                let low = char::from(bytes.next()?).to_digit(16)?;
                u8::try_from((high << 4) | low).ok()?
            }
            other => other,
        });
    }
    String::from_utf8(out).ok().map(Cow::Owned)
}

/// What a query's value may have without being encoded (RFC 3986).
const QUERY_VALUE: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'/')
    .remove(b':');

/// A text as the value of a query parameter.
pub(super) fn encode(text: &str) -> impl std::fmt::Display {
    utf8_percent_encode(text, QUERY_VALUE)
}

/// The value of a query parameter, decoded; the first one counts. Some(None)
/// if it is there but malformed.
pub(super) fn parameter<'a>(query: Option<&'a str>, name: &str) -> Option<Option<Cow<'a, str>>> {
    parameters(query, name).next()
}

/// The values of all parameters of this name, as [`parameter`] has them. There
/// are as many as fit into the head of a request.
pub(super) fn parameters<'a>(
    query: Option<&'a str>,
    name: &str,
) -> impl Iterator<Item = Option<Cow<'a, str>>> {
    query
        .unwrap_or_default()
        .split('&')
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .filter(move |(key, _)| *key == name)
        .map(|(_, value)| {
            if value.contains('+') {
                let spaced = value.replace('+', " ");
                decode(&spaced).map(|text| Cow::Owned(text.into_owned()))
            } else {
                decode(value)
            }
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a06_decoded_exactly_once() {
        assert_eq!(decode("a%2Fb%2f").as_deref(), Some("a/b/"));
        assert_eq!(decode("%252e%252e").as_deref(), Some("%2e%2e"));
        assert_eq!(decode("plain").as_deref(), Some("plain"));
        assert_eq!(decode("%00").as_deref(), Some("\0"));
    }

    #[test]
    fn malformed_escapes() {
        for text in ["%", "%2", "%zz", "%+1", "a%", "%ff", "%c3%28"] {
            assert_eq!(decode(text), None, "{text}");
        }
    }

    #[test]
    fn values_of_parameters() {
        let query = Some("digest=sha256%3Aab&n=5&n=6&flag&x=a+b&bad=%zz");
        let get = |name| parameter(query, name).map(|v| v.map(Cow::into_owned));
        assert_eq!(get("digest"), Some(Some("sha256:ab".into())));
        assert_eq!(get("n"), Some(Some("5".into())));
        assert_eq!(get("flag"), Some(Some(String::new())));
        assert_eq!(get("x"), Some(Some("a b".into())));
        assert_eq!(get("bad"), Some(None));
        assert_eq!(get("absent"), None);
        assert_eq!(parameter(None, "n"), None);
        let all: Vec<_> = parameters(query, "n").map(Option::unwrap).collect();
        assert_eq!(all, ["5", "6"]);
        assert_eq!(parameters(None, "n").count(), 0);
    }

    #[test]
    fn what_is_encoded_comes_back() {
        for text in ["application/vnd.x+json; a=b", "ä&=?#%", "a/b", ""] {
            let query = format!("x={}", encode(text));
            let value = parameter(Some(&query), "x").unwrap();
            assert_eq!(value.as_deref(), Some(text), "{query}");
        }
        assert_eq!(encode("sha256:ab").to_string(), "sha256:ab");
    }
}
