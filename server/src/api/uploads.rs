//! `/v2/<name>/blobs/uploads/`: sessions, from POST to PUT, and mounts.

use bytes::Bytes;
use futures_util::Stream as _;
use http::header::{self, HeaderName, HeaderValue};
use http::{Response, StatusCode};

use super::Call;
use super::blobs::CONTENT_DIGEST;
use super::body::{Answer, AnswerBody};
use super::error::ApiError;
use super::percent;
use super::wire::{self, Chunk};
use crate::registry::{
    Algorithm, Body, Digest, DigestError, Error, RepositoryName, Span, UploadId,
};

const UPLOAD_UUID: HeaderName = HeaderName::from_static("docker-upload-uuid");

/// Asks clients for chunks of so many bytes at least. Smaller ones are taken
/// too; each costs a sync.
const CHUNK_MIN: HeaderName = HeaderName::from_static("oci-chunk-min-length");
const CHUNK_BYTES: u64 = 64 * 1024;

/// Starts a session; or mounts, or uploads all at once.
pub(super) async fn post(
    call: &Call<'_>,
    body: Body,
    name: &RepositoryName,
) -> Result<Answer, ApiError> {
    let query = call.head.uri.query();
    if let Some(mount) = digest_parameter(query, "mount")? {
        // A source that cannot be is like one that does not have it.
        let from = percent::parameter(query, "from")
            .map(|from| from.and_then(|from| RepositoryName::parse(&from).ok()));
        let mounted = match &from {
            Some(None) => false,
            from => {
                let from = from.as_ref().and_then(Option::as_ref);
                let mounted = call.registry.blob_mount(call.subject, name, from, &mount);
                mounted.await?
            }
        };
        if mounted {
            return Ok(created(name, &mount));
        }
        return session(call, name, Some(mount.algorithm()));
    }
    let digest = digest_parameter(query, "digest")?;
    if let Some(digest) = digest
        && !is_only_a_start(&body, &digest)
    {
        call.registry
            .upload_whole(call.subject, name, body, digest)
            .await?;
        return Ok(created(name, &digest));
    }
    let also = match percent::parameter(query, "digest-algorithm") {
        None => digest.map(|digest| digest.algorithm()),
        Some(algorithm) => {
            let name = algorithm.unwrap_or_default();
            let known = Algorithm::from_name(&name).ok_or_else(|| {
                let short = name.chars().take(32).collect();
                ApiError::digest_invalid(&DigestError::Unsupported(short))
            });
            Some(known?)
        }
    };
    session(call, name, also)
}

/// Adds a chunk, or a stream.
pub(super) async fn patch(
    call: &Call<'_>,
    body: Body,
    name: &RepositoryName,
    id: UploadId,
) -> Result<Answer, ApiError> {
    let span = span(call, name, id)?;
    let offset = call
        .registry
        .upload_append(call.subject, name, id, span, body)
        .await
        .map_err(|error| upload_error(error, name, id))?;
    Ok(progress(StatusCode::ACCEPTED, name, id, offset))
}

/// Adds what is left, if anything, and closes the session.
pub(super) async fn put(
    call: &Call<'_>,
    body: Body,
    name: &RepositoryName,
    id: UploadId,
) -> Result<Answer, ApiError> {
    let digest =
        digest_parameter(call.head.uri.query(), "digest")?.ok_or_else(ApiError::digest_missing)?;
    let span = span(call, name, id)?;
    call.registry
        .upload_finish(call.subject, name, id, span, body, digest)
        .await
        .map_err(|error| upload_error(error, name, id))?;
    Ok(created(name, &digest))
}

/// Says how much of a session is durable.
pub(super) fn status(
    call: &Call<'_>,
    name: &RepositoryName,
    id: UploadId,
) -> Result<Answer, ApiError> {
    let offset = call.registry.upload_status(call.subject, name, id)?;
    Ok(progress(StatusCode::NO_CONTENT, name, id, offset))
}

/// Gives a session up.
pub(super) async fn delete(
    call: &Call<'_>,
    name: &RepositoryName,
    id: UploadId,
) -> Result<Answer, ApiError> {
    call.registry.upload_cancel(call.subject, name, id).await?;
    let mut answer = Response::new(AnswerBody::empty());
    *answer.status_mut() = StatusCode::NO_CONTENT;
    Ok(answer)
}

fn session(
    call: &Call<'_>,
    name: &RepositoryName,
    also: Option<Algorithm>,
) -> Result<Answer, ApiError> {
    let id = call.registry.upload_start(call.subject, name, also)?;
    let mut answer = progress(StatusCode::ACCEPTED, name, id, 0);
    answer
        .headers_mut()
        .insert(CHUNK_MIN, HeaderValue::from(CHUNK_BYTES));
    Ok(answer)
}

/// Whether a POST with a digest only starts a session: it has no body, and
/// the digest is not that of nothing.
fn is_only_a_start(body: &Body, digest: &Digest) -> bool {
    body.size_hint() == (0, Some(0)) && *digest != Digest::of(digest.algorithm(), b"")
}

fn digest_parameter(query: Option<&str>, name: &str) -> Result<Option<Digest>, ApiError> {
    percent::parameter(query, name)
        .map(|text| Digest::parse(&text.unwrap_or_default()))
        .transpose()
        .map_err(|error| ApiError::digest_invalid(&error))
}

/// The place the chunk claims. One that cannot be is out of order.
fn span(call: &Call<'_>, name: &RepositoryName, id: UploadId) -> Result<Option<Span>, ApiError> {
    match wire::chunk(&call.head.headers)? {
        Chunk::Unplaced => Ok(None),
        Chunk::Placed(span) => Ok(Some(span)),
        Chunk::Impossible => {
            let offset = call.registry.upload_status(call.subject, name, id)?;
            Err(upload_error(Error::OutOfOrder { offset }, name, id))
        }
    }
}

/// Errors after which a client may go on know where.
fn upload_error(error: Error, name: &RepositoryName, id: UploadId) -> ApiError {
    let goes_on = matches!(error, Error::OutOfOrder { .. });
    let error = ApiError::from(error);
    if goes_on {
        error
            .with_header(header::LOCATION, location(name, id))
            .with_header(UPLOAD_UUID, wire::value(&id.to_string()))
    } else {
        error
    }
}

fn location(name: &RepositoryName, id: UploadId) -> HeaderValue {
    wire::value(&format!("/v2/{name}/blobs/uploads/{id}"))
}

fn progress(status: StatusCode, name: &RepositoryName, id: UploadId, offset: u64) -> Answer {
    let mut answer = Response::new(AnswerBody::full(Bytes::new()));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(header::LOCATION, location(name, id));
    headers.insert(header::RANGE, wire::received(offset));
    headers.insert(UPLOAD_UUID, wire::value(&id.to_string()));
    answer
}

fn created(name: &RepositoryName, digest: &Digest) -> Answer {
    let mut answer = Response::new(AnswerBody::empty());
    *answer.status_mut() = StatusCode::CREATED;
    let headers = answer.headers_mut();
    let location = wire::value(&format!("/v2/{name}/blobs/{digest}"));
    headers.insert(header::LOCATION, location);
    headers.insert(CONTENT_DIGEST, wire::value(&digest.to_string()));
    answer
}
