//! Percent-encoding, undone exactly once.

use std::borrow::Cow;

/// Parameters of one query that are looked at.
const PARAMETERS_MAX: usize = 32;

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

/// The value of a query parameter, decoded; the first one counts. Some(None)
/// if it is there but malformed.
pub(super) fn parameter<'a>(query: Option<&'a str>, name: &str) -> Option<Option<Cow<'a, str>>> {
    query?
        .split('&')
        .take(PARAMETERS_MAX)
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .find(|(key, _)| *key == name)
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
    fn parameters() {
        let query = Some("digest=sha256%3Aab&n=5&n=6&flag&x=a+b&bad=%zz");
        let get = |name| parameter(query, name).map(|v| v.map(Cow::into_owned));
        assert_eq!(get("digest"), Some(Some("sha256:ab".into())));
        assert_eq!(get("n"), Some(Some("5".into())));
        assert_eq!(get("flag"), Some(Some(String::new())));
        assert_eq!(get("x"), Some(Some("a b".into())));
        assert_eq!(get("bad"), Some(None));
        assert_eq!(get("absent"), None);
        assert_eq!(parameter(None, "n"), None);
    }
}
