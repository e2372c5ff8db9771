//! Addresses in answers.
//!
//! The API names paths. A client resolves them against the address it asked,
//! which is right unless something in between changes scheme or port. With a
//! public address set, it is put in front. Nothing that a request says of
//! itself, `Host` or `X-Forwarded-*`, ever gets into one.

use http::header::{Entry, HeaderMap, HeaderValue, LINK, LOCATION};

/// Puts the public address, scheme and authority, before the paths in the
/// headers of an answer.
pub(super) fn make_absolute(headers: &mut HeaderMap, public_url: &str) {
    for (name, before) in [(LOCATION, ""), (LINK, "<")] {
        let Entry::Occupied(mut entry) = headers.entry(name) else {
            continue;
        };
        for value in entry.iter_mut() {
            if let Some(absolute) = absolute(value, before, public_url) {
                *value = absolute;
            }
        }
    }
}

fn absolute(value: &HeaderValue, before: &str, public_url: &str) -> Option<HeaderValue> {
    let path = value.as_bytes().strip_prefix(before.as_bytes())?;
    // With two slashes it would name a host.
    if !path.starts_with(b"/") || path.starts_with(b"//") {
        return None;
    }
    HeaderValue::from_bytes(&[before.as_bytes(), public_url.as_bytes(), path].concat()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_become_addresses() {
        for (name, value, expected) in [
            (LOCATION, "/v2/a/blobs/x", "https://r.example/v2/a/blobs/x"),
            (LOCATION, "https://other/v2/", "https://other/v2/"),
            (LOCATION, "//other/v2/", "//other/v2/"),
            (
                LINK,
                "</v2/a/tags/list?last=x>; rel=\"next\"",
                "<https://r.example/v2/a/tags/list?last=x>; rel=\"next\"",
            ),
            (LINK, "<//other/>; rel=\"next\"", "<//other/>; rel=\"next\""),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(name.clone(), HeaderValue::from_static(value));
            make_absolute(&mut headers, "https://r.example");
            assert_eq!(headers[name], expected);
            assert_eq!(headers.len(), 1);
        }
        let mut none = HeaderMap::new();
        make_absolute(&mut none, "https://r.example");
        assert!(none.is_empty());
    }
}
