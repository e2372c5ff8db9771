//! `Range` and `Content-Range`.
//!
//! The input is a size in a line of its own, then the header's text. A part is
//! what RFC 9110 (section 14) gives by counting, byte for byte where the blob
//! is small, in wide numbers where it is not. What is written for a part reads
//! back as that part.

use http::header::{CONTENT_LENGTH, CONTENT_RANGE, HeaderMap, HeaderValue};
use orlop::api::wire::{self, Chunk, Part};

/// Sizes up to this are counted byte by byte.
const SMALL: u64 = 300;

/// Runs the target.
pub fn run(data: &[u8]) {
    let at = data.iter().position(|byte| *byte == b'\n');
    let (line, text) = at.map_or((&[][..], data), |at| (&data[..at], &data[at + 1..]));
    let size: u64 = std::str::from_utf8(line)
        .ok()
        .and_then(|line| line.parse().ok())
        .unwrap_or(100);
    let Ok(value) = HeaderValue::from_bytes(text) else {
        return;
    };
    part(&value, size);
    chunk(&value, size);
}

fn part(value: &HeaderValue, size: u64) {
    let found = wire::part(Some(value), size);
    let spec = value.to_str().ok().and_then(specifier);
    match (spec, &found) {
        // Nothing, or nothing valid, was asked for: the header is ignored or
        // refused (14.2), never served as some part.
        (None, found) => assert_eq!(*found, Part::Whole, "{value:?}"),
        (Some(spec), found) if !spec.is_valid() => {
            assert!(!matches!(found, Part::Bytes(_)), "{value:?} of {size}");
        }
        (Some(_), found) if size == 0 => assert_eq!(*found, Part::Whole),
        (Some(spec), found) => assert_eq!(*found, spec.select(size), "{value:?} of {size}"),
    }
    let Part::Bytes(range) = found else {
        return;
    };
    assert!(range.start < range.end && range.end <= size);
    if size <= SMALL {
        let spec = value.to_str().ok().and_then(specifier).unwrap();
        for at in 0..size {
            assert_eq!(
                range.contains(&at),
                spec.has(at, size),
                "byte {at} of {size}"
            );
        }
    }
    let written = wire::content_range(&range, size);
    let expected = format!("bytes {}-{}/{size}", range.start, range.end - 1);
    assert_eq!(written.to_str().ok(), Some(expected.as_str()));
    let asked = format!("bytes={}-{}", range.start, range.end - 1);
    let again = wire::part(HeaderValue::from_str(&asked).ok().as_ref(), size);
    assert_eq!(again, Part::Bytes(range));
}

/// One range of a `Range` header, its numbers wide enough for any that fit into
/// 38 digits; larger ones are as large.
#[derive(Debug, Clone, Copy)]
enum Spec {
    From(u128, Option<u128>),
    Last(u128),
}

impl Spec {
    fn is_valid(self) -> bool {
        !matches!(self, Spec::From(first, Some(last)) if last < first)
    }

    fn has(self, at: u64, size: u64) -> bool {
        let at = u128::from(at);
        match self {
            Spec::From(first, last) => first <= at && last.is_none_or(|last| at <= last),
            Spec::Last(count) => u128::from(size) - at <= count,
        }
    }

    fn select(self, size: u64) -> Part {
        let size = u128::from(size);
        let (first, end) = match self {
            Spec::From(first, last) => (first, last.map_or(size, |last| (last + 1).min(size))),
            Spec::Last(count) => (size - count.min(size), size),
        };
        if first >= end {
            return Part::Unsatisfiable;
        }
        Part::Bytes(u64::try_from(first).unwrap()..u64::try_from(end).unwrap())
    }
}

/// `ranges-specifier` with one range; None for anything else.
fn specifier(text: &str) -> Option<Spec> {
    let (unit, rest) = text.split_at_checked(text.find('=')?)?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    let rest = rest.strip_prefix('=')?.trim();
    let dash = rest.find('-')?;
    let (first, last) = (&rest[..dash], &rest[dash + 1..]);
    match (first, last) {
        ("", last) => Some(Spec::Last(number(last)?)),
        (first, "") => Some(Spec::From(number(first)?, None)),
        (first, last) => Some(Spec::From(number(first)?, Some(number(last)?))),
    }
}

fn number(text: &str) -> Option<u128> {
    let digits = !text.is_empty() && text.chars().all(|c| c.is_ascii_digit());
    let significant = text.trim_start_matches('0');
    digits.then(|| match significant {
        "" => 0,
        text if text.len() > 38 => u128::MAX - 1,
        text => text.parse().unwrap(),
    })
}

/// A chunk's place is first to last, and its length must be the length.
fn chunk(value: &HeaderValue, size: u64) {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_RANGE, value.clone());
    let numbers = value.to_str().ok().and_then(|text| {
        let (first, last) = text.split_once('-')?;
        Some((number(first.trim())?, number(last.trim())?))
    });
    match (wire::chunk(&headers), numbers) {
        (Err(error), None) => assert_eq!(error.status().as_u16(), 400),
        (Ok(Chunk::Placed(span)), Some((first, last))) => {
            assert!(span.len > 0);
            let end = u128::from(span.start) + u128::from(span.len);
            if last < u128::from(u64::MAX) {
                assert_eq!((u128::from(span.start), end), (first, last + 1));
            }
            let length = |text: &str| {
                let mut headers = headers.clone();
                headers.insert(CONTENT_LENGTH, HeaderValue::from_str(text).unwrap());
                wire::chunk(&headers)
            };
            assert_eq!(
                length(&span.len.to_string()).ok(),
                Some(Chunk::Placed(span))
            );
            let other = length(&size.to_string());
            assert_eq!(other.is_ok(), size == span.len);
        }
        (Ok(Chunk::Impossible), Some((first, last))) => {
            let longest = u128::from(u64::MAX);
            assert!(last < first || last - first >= longest || first >= longest);
        }
        (found, numbers) => panic!("{value:?}: {found:?}, but by hand {numbers:?}"),
    }
    headers.append(CONTENT_RANGE, value.clone());
    assert!(wire::chunk(&headers).is_err(), "two places were taken");
    assert!(matches!(
        wire::chunk(&HeaderMap::new()),
        Ok(Chunk::Unplaced)
    ));
    let received = wire::received(size);
    let last = received.to_str().unwrap().strip_prefix("0-").unwrap();
    assert_eq!(last.parse::<u64>().unwrap(), size.max(1) - 1);
}
