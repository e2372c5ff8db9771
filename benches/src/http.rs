//! The little of HTTP/1.1 that a load generator needs: a response head is
//! parsed, an upload's Location is turned into a request path. No I/O.
//!
//! A body without Content-Length is refused: to count it the client would
//! have to parse every chunk, and the servers measured here state lengths.

/// Longest response head accepted, in bytes.
pub(crate) const MAX_HEAD: usize = 16 * 1024;

/// What the client needs of a response head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Head {
    /// Status code.
    pub(crate) status: u16,
    /// Length of the body that follows, in bytes.
    pub(crate) length: u64,
    /// The Location field as sent.
    pub(crate) location: Option<String>,
    /// Address of the next page: the target of a Link field, as sent.
    pub(crate) next: Option<String>,
    /// Tags that the OCI-Tag fields name.
    pub(crate) tags: usize,
    /// Whether the server closes the connection after this response.
    pub(crate) close: bool,
}

/// Why a response head cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HeadError {
    /// No end within [`MAX_HEAD`] bytes.
    #[error("the response head is longer than {MAX_HEAD} bytes")]
    TooLong,
    /// The first line is not an HTTP/1 status line.
    #[error("the response does not start with an HTTP/1 status line")]
    Status,
    /// A field line without a colon, or bytes that are not text.
    #[error("the response head has a malformed field")]
    Field,
    /// Content-Length is not a number, or two of them disagree.
    #[error("the response has a malformed Content-Length")]
    Length,
    /// The body's length is not stated.
    #[error("the response states no Content-Length")]
    NoLength,
}

/// Parses the head at the start of `bytes`. `None` when more bytes are needed,
/// otherwise the head and its own length in bytes.
pub(crate) fn parse_head(bytes: &[u8]) -> Result<Option<(Head, usize)>, HeadError> {
    let window = bytes.get(..MAX_HEAD).unwrap_or(bytes);
    let Some(end) = window.windows(4).position(|four| four == b"\r\n\r\n") else {
        return if window.len() == MAX_HEAD {
            Err(HeadError::TooLong)
        } else {
            Ok(None)
        };
    };
    let text = window
        .get(..end)
        .and_then(|head| std::str::from_utf8(head).ok())
        .ok_or(HeadError::Field)?;
    let mut lines = text.split("\r\n");
    let (status, http10) = status_line(lines.next().unwrap_or_default())?;
    let (mut length, mut location, mut close) = (None, None, http10);
    let (mut next, mut tags) = (None, 0);
    for line in lines {
        let (name, value) = line.split_once(':').ok_or(HeadError::Field)?;
        let value = value.trim_ascii();
        if name.eq_ignore_ascii_case("content-length") {
            let parsed = parse_length(value)?;
            if length.is_some_and(|before| before != parsed) {
                return Err(HeadError::Length);
            }
            length = Some(parsed);
        } else if name.eq_ignore_ascii_case("location") {
            location = Some(value.to_owned());
        } else if name.eq_ignore_ascii_case("link") {
            next = next.or(next_target(value));
        } else if name.eq_ignore_ascii_case("oci-tag") {
            tags += value
                .split(',')
                .filter(|tag| !tag.trim().is_empty())
                .count();
        } else if name.eq_ignore_ascii_case("connection") {
            close = value.eq_ignore_ascii_case("close");
        }
    }
    let bodyless = status == 204 || status == 304 || (100..200).contains(&status);
    let length = if bodyless {
        0
    } else {
        length.ok_or(HeadError::NoLength)?
    };
    let head = Head {
        status,
        length,
        location,
        next,
        tags,
        close,
    };
    Ok(Some((head, end + 4)))
}

/// Status code, and whether the line says HTTP/1.0.
fn status_line(line: &str) -> Result<(u16, bool), HeadError> {
    let rest = line.strip_prefix("HTTP/1.").ok_or(HeadError::Status)?;
    let (minor, rest) = rest.split_once(' ').ok_or(HeadError::Status)?;
    let code = rest.get(..3).ok_or(HeadError::Status)?;
    if !code.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(HeadError::Status);
    }
    let status = code.parse().map_err(|_| HeadError::Status)?;
    Ok((status, minor == "0"))
}

/// A Content-Length: digits only, no sign, fits 64 bits.
fn parse_length(value: &str) -> Result<u64, HeadError> {
    if value.is_empty() || !value.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(HeadError::Length);
    }
    value.parse().map_err(|_| HeadError::Length)
}

/// Path and query of the target of `<target>; rel="next"`.
fn next_target(link: &str) -> Option<String> {
    let (target, parameters) = link.strip_prefix('<')?.split_once('>')?;
    let is_next = |parameter: &str| matches!(parameter.trim(), r#"rel="next""# | "rel=next");
    parameters
        .split(';')
        .any(is_next)
        .then(|| path_of(target).to_owned())
}

/// Path and query of an address, absolute or relative.
fn path_of(address: &str) -> &str {
    match address.split_once("://") {
        Some((_, rest)) => rest.find('/').and_then(|at| rest.get(at..)).unwrap_or("/"),
        None => address,
    }
}

/// Path and query of an upload's Location, absolute or relative, with the
/// digest appended.
pub(crate) fn finish_target(location: &str, digest: &str) -> String {
    let path = path_of(location);
    let separator = if path.contains('?') { '&' } else { '?' };
    format!("{path}{separator}digest={digest}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(text: &str) -> Result<Option<(Head, usize)>, HeadError> {
        parse_head(text.as_bytes())
    }

    #[test]
    fn a_whole_head_with_body_bytes_behind_it() {
        let text = "HTTP/1.1 202 Accepted\r\nLOCATION:  /v2/a/blobs/uploads/1?_state=x \r\n\
                    content-length: 12\r\nDate: now\r\n\r\nbody";
        let (head, used) = head(text).unwrap().unwrap();
        assert_eq!(head.status, 202);
        assert_eq!(head.length, 12);
        assert_eq!(
            head.location.as_deref(),
            Some("/v2/a/blobs/uploads/1?_state=x")
        );
        assert!(!head.close);
        assert_eq!(&text[used..], "body");
    }

    #[test]
    fn every_prefix_of_a_head_asks_for_more() {
        let text = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
        for end in 0..text.len() {
            assert_eq!(head(&text[..end]), Ok(None), "prefix of {end} bytes");
        }
        assert!(head(text).unwrap().is_some());
    }

    #[test]
    fn responses_without_a_body_need_no_length() {
        let (head, _) = head("HTTP/1.1 204 No Content\r\n\r\n").unwrap().unwrap();
        assert_eq!((head.status, head.length), (204, 0));
    }

    #[test]
    fn close_is_seen() {
        let (first, _) = head("HTTP/1.1 200 OK\r\nConnection: Close\r\nContent-Length: 0\r\n\r\n")
            .unwrap()
            .unwrap();
        assert!(first.close);
        let (second, _) = head("HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n")
            .unwrap()
            .unwrap();
        assert!(second.close);
    }

    #[test]
    fn what_cannot_be_counted_is_refused() {
        for (text, error) in [
            ("HTTP/2 200\r\n\r\n", HeadError::Status),
            ("HTTP/1.1 2x0 OK\r\n\r\n", HeadError::Status),
            ("HTTP/1.1\r\n\r\n", HeadError::Status),
            ("HTTP/1.1 200 OK\r\nnocolon\r\n\r\n", HeadError::Field),
            ("HTTP/1.1 200 OK\r\n\r\n", HeadError::NoLength),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
                HeadError::NoLength,
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
                HeadError::Length,
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551616\r\n\r\n",
                HeadError::Length,
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
                HeadError::Length,
            ),
        ] {
            assert_eq!(head(text), Err(error), "{text:?}");
        }
    }

    #[test]
    fn the_next_page_and_the_tags() {
        let text = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nOCI-Tag: 1.2.3, 1.2,1\r\n\
                    Link: <http://h/v2/a/tags/list?last=b&n=1>; rel=\"next\"\r\n\
                    oci-tag: latest\r\n\r\n";
        let (first, _) = head(text).unwrap().unwrap();
        assert_eq!(first.next.as_deref(), Some("/v2/a/tags/list?last=b&n=1"));
        assert_eq!(first.tags, 4);
        assert_eq!(next_target("</x?n=1>; rel=\"prev\""), None);
        assert_eq!(next_target("/x; rel=\"next\""), None);
    }

    #[test]
    fn an_endless_head_is_refused() {
        let text = format!("HTTP/1.1 200 OK\r\nX: {}", "a".repeat(MAX_HEAD));
        assert_eq!(head(&text), Err(HeadError::TooLong));
    }

    #[test]
    fn locations_absolute_and_relative() {
        let digest = "sha256:00";
        for (location, target) in [
            (
                "http://127.0.0.1:5000/v2/a/uploads/1?_state=x",
                "/v2/a/uploads/1?_state=x&digest=sha256:00",
            ),
            (
                "/v2/a/blobs/uploads/1",
                "/v2/a/blobs/uploads/1?digest=sha256:00",
            ),
            ("http://host", "/?digest=sha256:00"),
        ] {
            assert_eq!(finish_target(location, digest), target);
        }
    }
}
