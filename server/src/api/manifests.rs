//! `/v2/<name>/manifests/<reference>`: HEAD, GET, PUT and DELETE.
//!
//! `Accept` chooses nothing: a reference leads to one manifest, which is sent
//! as it was pushed and under its own type. To convert it would change its
//! digest.

use std::time::Duration;

use http::header::{self, HeaderName, HeaderValue};
use http::{Method, Response, StatusCode};
use tokio::time::timeout;

use super::Call;
use super::blobs::{self, CONTENT_DIGEST};
use super::body::{Answer, AnswerBody, whole};
use super::error::ApiError;
use super::piece::SMALL;
use super::{percent, wire};
use crate::registry::{Body, MANIFEST_BYTES_MAX, ManifestRow, Reference, RepositoryName, Tag};

/// From the head of a manifest's PUT to the end of its body.
const MANIFEST_TIME: Duration = Duration::from_secs(60);

/// Manifests up to this size are answered in one piece. Others are streamed, so
/// that a client that does not read holds no more than a page.
const WHOLE_BYTES: usize = SMALL;

/// Tags that one push may set by parameters.
const TAGS_MAX: usize = 64;

/// The tags that were set by parameters.
const TAG: HeaderName = HeaderName::from_static("oci-tag");
/// The subject for which the manifest is now a referrer.
const SUBJECT: HeaderName = HeaderName::from_static("oci-subject");

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
    let content = pulled.content;
    let len = content.size();
    let body = match usize::try_from(len) {
        Ok(small) if small <= WHOLE_BYTES => {
            let bytes = content.bytes(WHOLE_BYTES).await?;
            AnswerBody::full(bytes)
        }
        _ => blobs::begin(content, 0..len).await?,
    };
    Ok(with_headers(body, &pulled.row, len))
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
    let tags = tags(call.head.uri.query(), reference)?;
    let room = room_for(announced)?;
    let room = call.registry.manifest_room(call.subject, name, room)?;
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
        .manifest_push(
            call.subject,
            name,
            (reference, &tags),
            content_type,
            (bytes, room),
        )
        .await?;
    let mut answer = Response::new(AnswerBody::empty());
    *answer.status_mut() = StatusCode::CREATED;
    let headers = answer.headers_mut();
    let location = format!("/v2/{name}/manifests/{}", pushed.digest);
    headers.insert(header::LOCATION, wire::value(&location));
    headers.insert(CONTENT_DIGEST, wire::value(&pushed.digest.to_string()));
    if let Some(subject) = &pushed.subject {
        headers.insert(SUBJECT, wire::value(&subject.to_string()));
    }
    for tag in &tags {
        headers.append(TAG, wire::value(tag.as_str()));
    }
    Ok(answer)
}

/// Deletes a tag; or a manifest, with its tags.
pub(super) async fn delete(
    call: &Call<'_>,
    name: &RepositoryName,
    reference: &Reference,
) -> Result<Answer, ApiError> {
    let (registry, subject) = (call.registry, call.subject);
    match reference {
        Reference::Tag(tag) => registry.tag_delete(subject, name, tag).await?,
        Reference::Digest(digest) => registry.manifest_delete(subject, name, digest).await?,
    }
    Ok(blobs::accepted())
}

/// The tags that parameters ask for, each once. They go with a digest.
fn tags(query: Option<&str>, reference: &Reference) -> Result<Vec<Tag>, ApiError> {
    let mut tags = Vec::new();
    for text in percent::parameters(query, "tag") {
        if reference.tag().is_some() {
            return Err(ApiError::tags_without_digest());
        }
        let tag = Tag::parse(&text.unwrap_or_default()).map_err(|e| ApiError::tag_invalid(&e))?;
        if tags.len() == TAGS_MAX {
            return Err(ApiError::too_many_tags(TAGS_MAX));
        }
        if !tags.contains(&tag) {
            tags.push(tag);
        }
    }
    Ok(tags)
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
    blobs::inert(&mut answer);
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(len));
    headers.insert(header::CONTENT_TYPE, wire::value(&row.media_type));
    headers.insert(header::ETAG, wire::value(&blobs::etag(&row.digest)));
    headers.insert(CONTENT_DIGEST, wire::value(&row.digest.to_string()));
    answer
}
