//! Header values that carry numbers: `Range`, `Content-Range`,
//! `Content-Length`. All arithmetic is checked; what does not fit is refused.

use std::ops::Range;

use http::HeaderMap;
use http::header::{self, HeaderName, HeaderValue};

use super::error::ApiError;
use crate::registry::Span;

/// What part of a blob was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// All of it: nothing else was asked for, or nothing that can be given in
    /// one piece.
    Whole,
    /// These bytes, never empty.
    Bytes(Range<u64>),
    /// No byte of the blob is in what was asked for.
    Unsatisfiable,
}

/// The part of a blob of `size` bytes that a `Range` header asks for. What is
/// malformed, of another unit, or in several parts counts as not asked.
pub fn part(header: Option<&HeaderValue>, size: u64) -> Part {
    let Some(text) = header.and_then(|value| value.to_str().ok()) else {
        return Part::Whole;
    };
    match text.split_once('=') {
        Some((unit, spec)) if unit.trim().eq_ignore_ascii_case("bytes") => {
            single(spec.trim(), size).unwrap_or(Part::Whole)
        }
        _ => Part::Whole,
    }
}

/// None if it is not one well-formed range.
fn single(spec: &str, size: u64) -> Option<Part> {
    let (first, last) = spec.split_once('-')?;
    if size == 0 {
        return Some(Part::Whole);
    }
    if first.is_empty() {
        let suffix = digits(last)?;
        return Some(match suffix {
            0 => Part::Unsatisfiable,
            _ => Part::Bytes(size.saturating_sub(suffix)..size),
        });
    }
    let first = digits(first)?;
    let end = match last {
        "" => size,
        _ => digits(last)?.saturating_add(1).min(size),
    };
    if first < end {
        Some(Part::Bytes(first..end))
    } else {
        Some(Part::Unsatisfiable)
    }
}

/// A number of digits alone, without sign. Too large counts as the largest.
fn digits(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some(text.parse().unwrap_or(u64::MAX))
}

/// The `Content-Range` of a 206.
pub fn content_range(part: &Range<u64>, size: u64) -> HeaderValue {
    let last = part.end.saturating_sub(1);
    value(&format!("bytes {}-{last}/{size}", part.start))
}

/// The `Content-Range` of a 416.
pub fn content_range_unsatisfied(size: u64) -> HeaderValue {
    value(&format!("bytes */{size}"))
}

/// The `Range` of an upload session: what it has, first to last byte. An
/// empty one is written like one of a single byte.
pub fn received(offset: u64) -> HeaderValue {
    value(&format!("0-{}", offset.saturating_sub(1)))
}

/// A header value from text of our own making.
pub fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""))
}

/// How a chunk says where it belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chunk {
    /// It does not: it is the rest, or comes as a stream.
    Unplaced,
    /// Here.
    Placed(Span),
    /// Where no chunk can be.
    Impossible,
}

/// The place of a chunk from its `Content-Range` (`first-last`, inclusive),
/// which its `Content-Length` must not contradict.
pub fn chunk(headers: &HeaderMap) -> Result<Chunk, ApiError> {
    let Some(text) = text(headers, &header::CONTENT_RANGE)? else {
        return Ok(Chunk::Unplaced);
    };
    let malformed = || ApiError::upload_invalid("Content-Range is not of the form first-last");
    let (first, last) = text.split_once('-').ok_or_else(malformed)?;
    let (first, last) = (
        digits(first.trim()).ok_or_else(malformed)?,
        digits(last.trim()).ok_or_else(malformed)?,
    );
    let len = last
        .checked_sub(first)
        .and_then(|distance| distance.checked_add(1));
    let Some(len) = len else {
        return Ok(Chunk::Impossible);
    };
    if content_length(headers)?.is_some_and(|length| length != len) {
        return Err(ApiError::size_invalid(
            "Content-Length is not the length that Content-Range gives",
        ));
    }
    Ok(Chunk::Placed(Span { start: first, len }))
}

/// The `Content-Length`, if there is one.
pub fn content_length(headers: &HeaderMap) -> Result<Option<u64>, ApiError> {
    let Some(text) = text(headers, &header::CONTENT_LENGTH)? else {
        return Ok(None);
    };
    if text.bytes().all(|b| b.is_ascii_digit())
        && let Ok(length) = text.parse()
    {
        return Ok(Some(length));
    }
    Err(ApiError::size_invalid("Content-Length is not a number"))
}

/// The text of a header that may be there once.
pub fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, ApiError> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    if values.next().is_some() {
        return Err(ApiError::header_invalid(name, "is there twice"));
    }
    first
        .map(|value| {
            value
                .to_str()
                .map_err(|_| ApiError::header_invalid(name, "is not plain text"))
        })
        .transpose()
}

/// Whether a list of entity tags, as in `If-None-Match`, has this one.
pub fn has_etag(header: Option<&HeaderValue>, etag: &str) -> bool {
    let Some(text) = header.and_then(|value| value.to_str().ok()) else {
        return false;
    };
    text.split(',')
        .map(|item| item.trim().trim_start_matches("W/"))
        .any(|item| item == etag || item == "*")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn part_of(text: &str, size: u64) -> Part {
        part(Some(&HeaderValue::from_str(text).unwrap()), size)
    }

    fn headers(pairs: &[(HeaderName, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(name.clone(), HeaderValue::from_str(value).unwrap());
        }
        map
    }

    fn chunk_of(range: &str, length: Option<&str>) -> Result<Chunk, (u16, &'static str)> {
        let mut pairs = vec![(header::CONTENT_RANGE, range)];
        pairs.extend(length.map(|l| (header::CONTENT_LENGTH, l)));
        chunk(&headers(&pairs)).map_err(|e| (e.status().as_u16(), e.code()))
    }

    #[test]
    fn parts() {
        for (text, expected) in [
            ("bytes=0-0", Part::Bytes(0..1)),
            ("bytes=0-", Part::Bytes(0..4096)),
            ("bytes=100-199", Part::Bytes(100..200)),
            ("Bytes = 4095-", Part::Bytes(4095..4096)),
            ("bytes=0-18446744073709551615", Part::Bytes(0..4096)),
            ("bytes=0-99999999999999999999999", Part::Bytes(0..4096)),
            ("bytes=-1", Part::Bytes(4095..4096)),
            ("bytes=-5000", Part::Bytes(0..4096)),
            ("bytes=-99999999999999999999999", Part::Bytes(0..4096)),
        ] {
            assert_eq!(part_of(text, 4096), expected, "{text}");
        }
        assert_eq!(part(None, 4096), Part::Whole);
    }

    #[test]
    fn a38_unusable_ranges() {
        for text in [
            "bytes=4096-",
            "bytes=4096-5000",
            "bytes=-0",
            "bytes=18446744073709551615-",
            "bytes=500-0",
        ] {
            assert_eq!(part_of(text, 4096), Part::Unsatisfiable, "{text}");
        }
        for text in [
            "bytes=",
            "bytes=-",
            "bytes=a-b",
            "bytes=+1-2",
            "bytes=1--2",
            "0-1",
            "items=0-1",
            "bytes",
            "bytes=0-1,2-3",
            "bytes=-1,0-0",
        ] {
            assert_eq!(part_of(text, 4096), Part::Whole, "{text}");
        }
        for text in ["bytes=0-", "bytes=0-0", "bytes=-0", "bytes=-1", "bytes=7-"] {
            assert_eq!(part_of(text, 0), Part::Whole, "{text}");
        }
    }

    #[test]
    fn a27_many_parts_are_one_whole() {
        let text = format!("bytes={}", "0-9,".repeat(10_000));
        assert_eq!(part_of(&text, 4096), Part::Whole);
    }

    #[test]
    fn a36_chunk_places() {
        let placed = |start, len| Ok(Chunk::Placed(Span { start, len }));
        assert_eq!(chunk_of("0-99", None), placed(0, 100));
        assert_eq!(chunk_of("0-99", Some("100")), placed(0, 100));
        assert_eq!(chunk_of("5-5", None), placed(5, 1));
        assert_eq!(chunk_of("5-3", None), Ok(Chunk::Impossible));
        assert_eq!(
            chunk_of("0-18446744073709551615", None),
            Ok(Chunk::Impossible)
        );
        assert_eq!(
            chunk_of("1-18446744073709551615", None),
            placed(1, u64::MAX)
        );
        assert_eq!(chunk_of("0-99", Some("50")), Err((400, "SIZE_INVALID")));
        for text in [
            "",
            "x",
            "1",
            "a-b",
            "-5",
            "5-",
            "0--1",
            "+1-2",
            "bytes 0-9/10",
        ] {
            assert_eq!(
                chunk_of(text, None),
                Err((400, "BLOB_UPLOAD_INVALID")),
                "{text}"
            );
        }
        assert!(matches!(chunk(&HeaderMap::new()), Ok(Chunk::Unplaced)));
    }

    #[test]
    fn content_lengths() {
        let of = |pairs: &[(HeaderName, &str)]| content_length(&headers(pairs)).ok();
        assert_eq!(of(&[]), Some(None));
        assert_eq!(of(&[(header::CONTENT_LENGTH, "12")]), Some(Some(12)));
        for bad in ["+5", "-1", "0x5", "5 5", "99999999999999999999"] {
            assert_eq!(of(&[(header::CONTENT_LENGTH, bad)]), None, "{bad}");
        }
        let twice = [(header::CONTENT_LENGTH, "5"), (header::CONTENT_LENGTH, "5")];
        assert_eq!(of(&twice), None);
    }

    #[test]
    fn written_values() {
        assert_eq!(content_range(&(0..10), 100), "bytes 0-9/100");
        assert_eq!(content_range_unsatisfied(7), "bytes */7");
        assert_eq!(received(0), "0-0");
        assert_eq!(received(1), "0-0");
        assert_eq!(received(10), "0-9");
    }

    #[test]
    fn etags() {
        let has = |text: &str| has_etag(Some(&HeaderValue::from_str(text).unwrap()), "\"a\"");
        assert!(has("\"a\"") && has("W/\"a\"") && has("\"b\", \"a\"") && has("*"));
        assert!(!has("\"b\"") && !has("a") && !has(""));
        assert!(!has_etag(None, "\"a\""));
    }

    proptest! {
        #[test]
        fn parts_lie_within_the_blob(text in "bytes=[0-9]{0,21}-[0-9]{0,21}", size: u64) {
            if let Part::Bytes(part) = part_of(&text, size) {
                prop_assert!(part.start < part.end && part.end <= size);
            }
        }
    }
}
