//! What all lists have in common: how much of them is asked for, and where
//! they go on.

use bytes::Bytes;
use http::Response;
use http::header::{self, HeaderValue};

use super::Call;
use super::body::{Answer, AnswerBody};
use super::error::ApiError;
use super::{percent, wire};

/// The longest `last` that is looked for. No name, tag or digest is longer.
const LAST_LEN_MAX: usize = 256;

/// The part of a list that is asked for.
pub(super) struct Asked {
    /// As many at most, if it says so.
    pub(super) n: Option<u64>,
    /// Only what comes after this.
    pub(super) last: Option<String>,
}

impl Asked {
    pub(super) fn of(call: &Call<'_>) -> Result<Asked, ApiError> {
        let query = call.head.uri.query();
        let n = percent::parameter(query, "n")
            .map(|text| number(&text.unwrap_or_default()))
            .transpose()?;
        let last = percent::parameter(query, "last")
            .map(|text| text.ok_or_else(ApiError::last_invalid))
            .transpose()?
            .filter(|text| !text.is_empty());
        if last
            .as_ref()
            .is_some_and(|last| last.len() > LAST_LEN_MAX || last.contains('\0'))
        {
            return Err(ApiError::last_invalid());
        }
        Ok(Asked {
            n,
            last: last.map(|last| last.into_owned()),
        })
    }
}

/// A number of digits alone. Too large counts as the largest.
fn number(text: &str) -> Result<u64, ApiError> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(ApiError::pagination_invalid());
    }
    Ok(text.parse().unwrap_or(u64::MAX))
}

/// A page of a list as JSON of this type.
pub(super) fn page(body: String, media_type: &'static str) -> Answer {
    let mut answer = Response::new(AnswerBody::full(Bytes::from(body)));
    answer
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    answer
}

/// Says where the list goes on: at `path`, which has no query yet, after
/// `last`; with `more` parameters, encoded, if there are any.
pub(super) fn link_next(answer: &mut Answer, path: &str, limit: usize, last: &str, more: &str) {
    let last = percent::encode(last);
    let next = format!("<{path}?n={limit}&last={last}{more}>; rel=\"next\"");
    answer
        .headers_mut()
        .insert(header::LINK, wire::value(&next));
}
