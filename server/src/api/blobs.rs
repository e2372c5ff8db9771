//! `/v2/<name>/blobs/<digest>`: HEAD, GET, whole or one range, and DELETE.

use std::ops::Range;

use http::header::{self, HeaderName, HeaderValue};
use http::{Method, Response, StatusCode};

use super::Call;
use super::body::{Answer, AnswerBody};
use super::error::ApiError;
use super::reader::Reader;
use super::wire::{self, Part};
use crate::registry::{Content, Digest, RepositoryName};

/// Names the content of an answer.
pub(super) const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// Content by digest never changes; who may read it can.
const IMMUTABLE: HeaderValue = HeaderValue::from_static("private, max-age=31536000, immutable");

pub(super) async fn get(
    call: &Call<'_>,
    name: &RepositoryName,
    digest: &Digest,
) -> Result<Answer, ApiError> {
    let etag = etag(digest);
    let headers = &call.head.headers;
    let cached = wire::has_etag(headers.get(header::IF_NONE_MATCH), &etag);
    if call.head.method == Method::HEAD || cached {
        let size = call.registry.blob_stat(call.subject, name, digest).await?;
        let answer = Response::new(AnswerBody::empty());
        if cached {
            return Ok(not_modified(answer, digest));
        }
        return Ok(with_headers(answer, digest, size));
    }
    let content = call.registry.blob_open(call.subject, name, digest).await?;
    let size = content.size();
    // A range of another version than this one would be of no use.
    let is_same = headers
        .get(header::IF_RANGE)
        .is_none_or(|wanted| *wanted == etag.as_str());
    let range = headers.get(header::RANGE).filter(|_| is_same);
    match wire::part(range, size) {
        Part::Unsatisfiable => Err(ApiError::range_unsatisfiable(size)),
        Part::Whole => {
            let body = begin(content, 0..size).await?;
            Ok(with_headers(Response::new(body), digest, size))
        }
        Part::Bytes(part) => {
            let len = part.end.saturating_sub(part.start);
            let range = wire::content_range(&part, size);
            let body = begin(content, part).await?;
            let mut answer = with_headers(Response::new(body), digest, len);
            *answer.status_mut() = StatusCode::PARTIAL_CONTENT;
            answer.headers_mut().insert(header::CONTENT_RANGE, range);
            Ok(answer)
        }
    }
}

/// Takes the blob from this repository.
pub(super) async fn delete(
    call: &Call<'_>,
    name: &RepositoryName,
    digest: &Digest,
) -> Result<Answer, ApiError> {
    call.registry
        .blob_delete(call.subject, name, digest)
        .await?;
    Ok(accepted())
}

/// The answer to a delete that is done.
pub(super) fn accepted() -> Answer {
    let mut answer = Response::new(AnswerBody::empty());
    *answer.status_mut() = StatusCode::ACCEPTED;
    answer
}

/// Keeps a browser from showing content of strangers as a page of this origin.
pub(super) fn inert(answer: &mut Answer) {
    let headers = answer.headers_mut();
    headers.insert(
        header::CONTENT_DISPOSITION,
        HeaderValue::from_static("attachment"),
    );
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; sandbox"),
    );
}

/// A body whose first piece has arrived: damage there is still an answer of
/// its own. Damage behind it can only cut the connection.
pub(super) async fn begin(
    content: Box<dyn Content>,
    part: Range<u64>,
) -> Result<AnswerBody, ApiError> {
    let len = part.end.saturating_sub(part.start);
    Ok(AnswerBody::part(Reader::begin(content, part).await?, len))
}

/// The entity tag of content: its digest.
pub(super) fn etag(digest: &Digest) -> String {
    format!("\"{digest}\"")
}

/// The answer to who has the content already.
pub(super) fn not_modified(mut answer: Answer, digest: &Digest) -> Answer {
    *answer.status_mut() = StatusCode::NOT_MODIFIED;
    let headers = answer.headers_mut();
    headers.insert(header::ETAG, wire::value(&etag(digest)));
    headers.insert(CONTENT_DIGEST, wire::value(&digest.to_string()));
    answer
}

fn with_headers(mut answer: Answer, digest: &Digest, len: u64) -> Answer {
    inert(&mut answer);
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(len));
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/octet-stream"),
    );
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(header::CACHE_CONTROL, IMMUTABLE);
    headers.insert(header::ETAG, wire::value(&etag(digest)));
    headers.insert(CONTENT_DIGEST, wire::value(&digest.to_string()));
    answer
}
