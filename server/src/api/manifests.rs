//! `/v2/<name>/manifests/<reference>`: HEAD, GET and PUT.

use std::time::Duration;

use http::header::{self, HeaderValue};
use http::{Method, Response, StatusCode};
use tokio::time::timeout;

use super::Call;
use super::blobs::{self, CONTENT_DIGEST};
use super::body::{Answer, AnswerBody, whole};
use super::error::ApiError;
use super::wire;
use crate::registry::{Body, MANIFEST_BYTES_MAX, ManifestRow, Reference, RepositoryName};

/// From the head of a manifest's PUT to the end of its body.
const MANIFEST_TIME: Duration = Duration::from_secs(60);

pub(super) async fn get(
    call: &Call<'_>,
    name: &RepositoryName,
    reference: &Reference,
) -> Result<Answer, ApiError> {
    let registry = call.registry;
    let known = call.head.headers.get(header::IF_NONE_MATCH);
    if call.head.method == Method::HEAD || known.is_some() {
        let row = registry
            .manifest_stat(call.subject, name, reference)
            .await?;
        if wire::has_etag(known, &blobs::etag(&row.digest)) {
            let answer = Response::new(AnswerBody::empty());
            return Ok(blobs::not_modified(answer, &row.digest));
        }
        if call.head.method == Method::HEAD {
            return Ok(with_headers(AnswerBody::empty(), &row, row.size));
        }
    }
    let pulled = registry
        .manifest_pull(call.subject, name, reference)
        .await?;
    let len = pulled.bytes.len() as u64;
    Ok(with_headers(
        AnswerBody::full(pulled.bytes),
        &pulled.row,
        len,
    ))
}

pub(super) async fn put(
    call: &Call<'_>,
    body: Body,
    name: &RepositoryName,
    reference: &Reference,
) -> Result<Answer, ApiError> {
    let headers = &call.head.headers;
    let announced = wire::content_length(headers)?;
    let content_type = wire::text(headers, &header::CONTENT_TYPE)?;
    let _room = call.registry.manifest_room(room_for(announced)?)?;
    let read = whole(
        body,
        announced,
        MANIFEST_BYTES_MAX,
        ApiError::manifest_too_large,
    );
    let bytes = timeout(MANIFEST_TIME, read)
        .await
        .map_err(|_| ApiError::manifest_too_slow(MANIFEST_TIME))??;
    let pushed = call
        .registry
        .manifest_push(call.subject, name, reference, content_type, bytes)
        .await?;
    let mut answer = Response::new(AnswerBody::empty());
    *answer.status_mut() = StatusCode::CREATED;
    let headers = answer.headers_mut();
    let location = format!("/v2/{name}/manifests/{}", pushed.digest);
    headers.insert(header::LOCATION, wire::value(&location));
    headers.insert(CONTENT_DIGEST, wire::value(&pushed.digest.to_string()));
    Ok(answer)
}

/// Bytes to set aside for a manifest: as announced, else the most it may have.
fn room_for(announced: Option<u64>) -> Result<usize, ApiError> {
    let Some(announced) = announced else {
        return Ok(MANIFEST_BYTES_MAX);
    };
    usize::try_from(announced)
        .ok()
        .filter(|bytes| *bytes <= MANIFEST_BYTES_MAX)
        .ok_or_else(ApiError::manifest_too_large)
}

fn with_headers(body: AnswerBody, row: &ManifestRow, len: u64) -> Answer {
    let mut answer = Response::new(body);
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(len));
    headers.insert(header::CONTENT_TYPE, wire::value(&row.media_type));
    headers.insert(header::ETAG, wire::value(&blobs::etag(&row.digest)));
    headers.insert(CONTENT_DIGEST, wire::value(&row.digest.to_string()));
    answer
}
