//! The one table from what went wrong to what the client is told: status,
//! code and message of the distribution specification, and what is ours.
//!
//! Bodies carry no statement, path, version or stack: the texts of storage
//! faults go to the log, under the request's id.

use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Response, StatusCode};
use serde_json::{Map, Value, json};

use super::body::{Answer, AnswerBody};
use super::{warning, wire};
use crate::registry::{
    BodyFault, DigestError, Error, Fault, MANIFEST_BYTES_MAX, ManifestError, NameError,
    ReferenceError, TagError,
};

/// An answer that says what went wrong.
#[derive(Clone, Debug)]
pub struct ApiError(Box<Parts>);

#[derive(Clone, Debug)]
struct Parts {
    status: StatusCode,
    code: &'static str,
    message: String,
    detail: Map<String, Value>,
    headers: HeaderMap,
    /// What the log should know and the client should not.
    cause: Option<String>,
}

/// A row of the table.
macro_rules! codes {
    ($($name:ident = ($status:expr, $code:literal);)*) => {
        $(const $name: (StatusCode, &str) = ($status, $code);)*
    };
}

codes! {
    BLOB_UNKNOWN = (StatusCode::NOT_FOUND, "BLOB_UNKNOWN");
    UPLOAD_UNKNOWN = (StatusCode::NOT_FOUND, "BLOB_UPLOAD_UNKNOWN");
    UPLOAD_INVALID = (StatusCode::BAD_REQUEST, "BLOB_UPLOAD_INVALID");
    UPLOAD_BUSY = (StatusCode::CONFLICT, "BLOB_UPLOAD_INVALID");
    UPLOAD_ORDER = (StatusCode::RANGE_NOT_SATISFIABLE, "BLOB_UPLOAD_INVALID");
    UPLOAD_TIMEOUT = (StatusCode::REQUEST_TIMEOUT, "BLOB_UPLOAD_INVALID");
    RANGE_INVALID = (StatusCode::RANGE_NOT_SATISFIABLE, "SIZE_INVALID");
    DIGEST_INVALID = (StatusCode::BAD_REQUEST, "DIGEST_INVALID");
    SIZE_INVALID = (StatusCode::BAD_REQUEST, "SIZE_INVALID");
    NAME_INVALID = (StatusCode::BAD_REQUEST, "NAME_INVALID");
    NAME_UNKNOWN = (StatusCode::NOT_FOUND, "NAME_UNKNOWN");
    TAG_INVALID = (StatusCode::BAD_REQUEST, "MANIFEST_INVALID");
    TAGS_TOO_MANY = (StatusCode::URI_TOO_LONG, "MANIFEST_INVALID");
    MANIFEST_UNKNOWN = (StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN");
    MANIFEST_INVALID = (StatusCode::BAD_REQUEST, "MANIFEST_INVALID");
    MANIFEST_TOO_LARGE = (StatusCode::PAYLOAD_TOO_LARGE, "MANIFEST_INVALID");
    MANIFEST_TIMEOUT = (StatusCode::REQUEST_TIMEOUT, "MANIFEST_INVALID");
    MANIFEST_BLOB_UNKNOWN = (StatusCode::BAD_REQUEST, "MANIFEST_BLOB_UNKNOWN");
    PARAMETER_INVALID = (StatusCode::BAD_REQUEST, "UNSUPPORTED");
    DENIED = (StatusCode::FORBIDDEN, "DENIED");
    UNSUPPORTED = (StatusCode::NOT_FOUND, "UNSUPPORTED");
    METHOD_UNSUPPORTED = (StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED");
    HEADERS_TOO_LARGE = (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "UNSUPPORTED");
    REQUEST_INVALID = (StatusCode::BAD_REQUEST, "UNSUPPORTED");
    TOO_MANY_REQUESTS = (StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS");
    CORRUPT_BLOB = (StatusCode::INTERNAL_SERVER_ERROR, "CORRUPT_BLOB");
    INTERNAL = (StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN");
    UNAVAILABLE = (StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE");
    FULL = (StatusCode::INSUFFICIENT_STORAGE, "INSUFFICIENT_STORAGE");
}

/// Seconds after which a client may try again: while starting, when busy,
/// when only a restart helps, when an operator is at work.
const RETRY_STARTING: u16 = 1;
const RETRY_BUSY: u16 = 1;
const RETRY_POISONED: u16 = 30;
const RETRY_READ_ONLY: u16 = 60;

impl ApiError {
    fn new((status, code): (StatusCode, &'static str), message: impl ToString) -> ApiError {
        ApiError(Box::new(Parts {
            status,
            code,
            message: message.to_string(),
            detail: Map::new(),
            headers: HeaderMap::new(),
            cause: None,
        }))
    }

    fn retry_after(self, seconds: u16) -> ApiError {
        self.with_header(header::RETRY_AFTER, HeaderValue::from(seconds))
    }

    fn with_detail(mut self, detail: Value) -> ApiError {
        if let Value::Object(more) = detail {
            self.0.detail.extend(more);
        }
        self
    }

    /// The same, naming what the request was about where it does not yet.
    #[must_use]
    pub(super) fn about(mut self, subject: &[(&'static str, String)]) -> ApiError {
        for (name, value) in subject {
            let entry = self.0.detail.entry(*name);
            entry.or_insert_with(|| Value::from(value.as_str()));
        }
        self
    }

    fn caused_by(mut self, cause: impl ToString) -> ApiError {
        self.0.cause = Some(cause.to_string());
        self
    }

    /// The same with one more header in its answer.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> ApiError {
        self.0.headers.insert(name, value);
        self
    }

    /// The same with a warning in its answer.
    pub(super) fn with_warning(mut self, text: &str) -> ApiError {
        warning::add(&mut self.0.headers, text);
        self
    }

    /// Status of the answer.
    pub fn status(&self) -> StatusCode {
        self.0.status
    }

    /// Code in its body.
    pub fn code(&self) -> &'static str {
        self.0.code
    }

    /// What the log should know, if there is more than the answer says.
    pub fn cause(&self) -> Option<&str> {
        self.0.cause.as_deref()
    }

    /// No such path.
    pub fn not_found() -> ApiError {
        ApiError::new(UNSUPPORTED, "there is nothing at this path")
    }

    /// The path has other methods.
    pub fn method_not_allowed(allowed: &[Method]) -> ApiError {
        let allowed: Vec<&str> = allowed.iter().map(Method::as_str).collect();
        ApiError::new(METHOD_UNSUPPORTED, "this path does not have this method")
            .with_detail(json!({ "allowed": allowed }))
            .with_header(header::ALLOW, wire::value(&allowed.join(", ")))
    }

    /// Recovery is not done.
    pub fn starting() -> ApiError {
        ApiError::new(UNAVAILABLE, "the registry is starting; try again soon")
            .retry_after(RETRY_STARTING)
    }

    /// More header fields than are read.
    pub fn too_many_headers() -> ApiError {
        ApiError::new(HEADERS_TOO_LARGE, "the request has too many header fields")
    }

    /// A defect, with what is known of it.
    pub fn internal(cause: impl ToString) -> ApiError {
        ApiError::new(INTERNAL, "internal error").caused_by(cause)
    }

    pub(super) fn name_invalid(error: NameError) -> ApiError {
        ApiError::new(NAME_INVALID, error)
    }

    pub(super) fn digest_invalid(error: &DigestError) -> ApiError {
        ApiError::new(DIGEST_INVALID, error)
    }

    pub(super) fn digest_missing() -> ApiError {
        ApiError::new(DIGEST_INVALID, "the query has no digest parameter")
    }

    pub(super) fn reference_invalid(error: &ReferenceError) -> ApiError {
        match error {
            ReferenceError::Tag(error) => ApiError::tag_invalid(error),
            ReferenceError::Digest(error) => ApiError::digest_invalid(error),
        }
    }

    pub(super) fn tag_invalid(error: &TagError) -> ApiError {
        ApiError::new(TAG_INVALID, error)
    }

    pub(super) fn too_many_tags(limit: usize) -> ApiError {
        let message = format!("one push sets at most {limit} tags; push again with the rest");
        ApiError::new(TAGS_TOO_MANY, message).with_detail(json!({ "limit": limit }))
    }

    pub(super) fn tags_without_digest() -> ApiError {
        let message = "tag parameters go with a push by digest; this one is by tag";
        ApiError::new(TAG_INVALID, message)
    }

    pub(super) fn artifact_type_invalid() -> ApiError {
        let message = "parameter artifactType is malformed; write + as %2B";
        ApiError::new(PARAMETER_INVALID, message)
            .with_detail(json!({ "parameter": "artifactType" }))
    }

    pub(super) fn reference_has_slash() -> ApiError {
        ApiError::new(TAG_INVALID, "a tag or digest has no /")
    }

    pub(super) fn header_invalid(name: &HeaderName, what: &str) -> ApiError {
        ApiError::new(REQUEST_INVALID, format_args!("header {name} {what}"))
    }

    pub(super) fn upload_unknown() -> ApiError {
        Error::UploadUnknown.into()
    }

    pub(super) fn upload_invalid(message: &str) -> ApiError {
        ApiError::new(UPLOAD_INVALID, message)
    }

    pub(super) fn size_invalid(message: &str) -> ApiError {
        ApiError::new(SIZE_INVALID, message)
    }

    pub(super) fn pagination_invalid() -> ApiError {
        ApiError::new(
            PARAMETER_INVALID,
            "parameter n is not a whole number from 0 on",
        )
        .with_detail(json!({ "parameter": "n" }))
    }

    pub(super) fn last_invalid() -> ApiError {
        ApiError::new(PARAMETER_INVALID, "parameter last is malformed or too long")
            .with_detail(json!({ "parameter": "last" }))
    }

    pub(super) fn range_unsatisfiable(size: u64) -> ApiError {
        ApiError::new(RANGE_INVALID, "no byte of the blob is in this range")
            .with_detail(json!({ "size": size }))
            .with_header(header::CONTENT_RANGE, wire::content_range_unsatisfied(size))
    }

    pub(super) fn manifest_too_large() -> ApiError {
        ApiError::new(MANIFEST_TOO_LARGE, ManifestError::TooLarge)
            .with_detail(json!({ "limit": MANIFEST_BYTES_MAX }))
    }

    pub(super) fn manifest_too_slow(limit: Duration) -> ApiError {
        let message = format!("the manifest did not arrive within {} s", limit.as_secs());
        ApiError::new(MANIFEST_TIMEOUT, message)
    }

    /// The answer, with the request's id in its body.
    pub fn answer(self, request_id: &str) -> Answer {
        let parts = *self.0;
        let mut detail = parts.detail;
        detail.insert("request_id".to_owned(), request_id.into());
        let body = json!({
            "errors": [{"code": parts.code, "message": parts.message, "detail": detail}]
        });
        let body = Bytes::from(body.to_string());
        let mut answer = Response::new(AnswerBody::full(body));
        *answer.status_mut() = parts.status;
        *answer.headers_mut() = parts.headers;
        let headers = answer.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        );
        headers.insert(
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        );
        answer
    }
}

impl From<Error> for ApiError {
    fn from(error: Error) -> ApiError {
        let message = error.to_string();
        match error {
            Error::Denied => ApiError::new(DENIED, message),
            Error::NameUnknown => ApiError::new(NAME_UNKNOWN, message),
            Error::BlobUnknown(digest) => ApiError::new(BLOB_UNKNOWN, message)
                .with_detail(json!({ "digest": digest.to_string() })),
            Error::UploadUnknown => ApiError::new(UPLOAD_UNKNOWN, message),
            Error::UploadBusy => ApiError::new(UPLOAD_BUSY, message).retry_after(RETRY_BUSY),
            Error::OutOfOrder { offset } => ApiError::new(UPLOAD_ORDER, message)
                .with_detail(json!({ "offset": offset }))
                .with_header(header::RANGE, wire::received(offset)),
            Error::ChunkSize { declared, received } => ApiError::new(SIZE_INVALID, message)
                .with_detail(json!({ "declared": declared, "received": received })),
            Error::Body(BodyFault::Idle) => ApiError::new(UPLOAD_TIMEOUT, message),
            Error::Body(BodyFault::Cut | BodyFault::Malformed) => {
                ApiError::new(UPLOAD_INVALID, message)
            }
            Error::DigestMismatch(mismatch) => {
                ApiError::new(DIGEST_INVALID, message).with_detail(json!({
                    "expected": mismatch.expected.to_string(),
                    "actual": mismatch.actual.to_string(),
                }))
            }
            Error::ManifestUnknown => ApiError::new(MANIFEST_UNKNOWN, message),
            Error::Manifest(ManifestError::TooLarge) => ApiError::manifest_too_large(),
            Error::Manifest(ManifestError::Digest { field, .. }) => {
                ApiError::new(DIGEST_INVALID, message).with_detail(json!({ "field": field }))
            }
            Error::Manifest(ManifestError::Field { field, .. }) => {
                ApiError::new(MANIFEST_INVALID, message).with_detail(json!({ "field": field }))
            }
            Error::Manifest(_) => ApiError::new(MANIFEST_INVALID, message),
            Error::ReferencesUnknown { missing, .. } => {
                let missing: Vec<String> = missing.iter().map(ToString::to_string).collect();
                ApiError::new(MANIFEST_BLOB_UNKNOWN, message)
                    .with_detail(json!({ "missing": missing }))
            }
            Error::DescriptorSize {
                digest,
                declared,
                stored,
            } => ApiError::new(SIZE_INVALID, message).with_detail(json!({
                "digest": digest.to_string(),
                "declared": declared,
                "stored": stored,
            })),
            Error::Unpaired(_) => ApiError::new(UNAVAILABLE, message).retry_after(RETRY_POISONED),
            Error::ReadOnly(why) => ApiError::new(UNAVAILABLE, message)
                .retry_after(RETRY_READ_ONLY)
                .with_detail(json!({ "reason": why.reason, "since": why.since })),
            Error::Storage(fault) => fault.into(),
            // No verb of the protocol brings a repository back.
            Error::NameTaken { .. } | Error::Panicked => ApiError::internal(message),
        }
    }
}

impl From<Fault> for ApiError {
    fn from(fault: Fault) -> ApiError {
        let error = match &fault {
            Fault::NotFound => ApiError::new(BLOB_UNKNOWN, "not found"),
            Fault::Mismatch(_) => ApiError::new(DIGEST_INVALID, &fault),
            Fault::Invalid(_) | Fault::Gone(_) => {
                ApiError::new(REQUEST_INVALID, "the request cannot be done")
            }
            Fault::Full(_) => ApiError::new(
                FULL,
                "the registry has no space left for pushes; delete something or ask its operator",
            ),
            Fault::Busy(_) => {
                ApiError::new(TOO_MANY_REQUESTS, "the registry is busy; try again soon")
                    .retry_after(RETRY_BUSY)
            }
            Fault::Unavailable(_) => {
                ApiError::new(UNAVAILABLE, "the registry cannot answer at the moment; try again soon")
                    .retry_after(RETRY_BUSY)
            }
            Fault::Corrupt(_) => ApiError::new(
                CORRUPT_BLOB,
                "the stored content is damaged and is not served; push it again to heal it",
            ),
            Fault::Io(_) => ApiError::new(INTERNAL, "storage failed; the log of the server says how"),
            Fault::Poisoned(_) => ApiError::new(
                UNAVAILABLE,
                "a write failed, or what writes panicked, so that nothing is written until the server is restarted; pulls go on",
            )
            .retry_after(RETRY_POISONED),
        };
        error.caused_by(fault)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::{Algorithm, Digest};
    use http_body_util::BodyExt;

    async fn body(error: ApiError) -> Value {
        let answer = error.answer("id-1");
        assert_eq!(answer.headers()[header::CONTENT_TYPE], "application/json");
        let bytes = answer.into_body().collect().await.unwrap().to_bytes();
        serde_json::from_slice(&bytes).unwrap()
    }

    #[tokio::test]
    async fn bodies_have_the_form_of_the_specification() {
        let digest = Digest::of(Algorithm::Sha256, b"x");
        let body = body(
            Error::ReferencesUnknown {
                missing: vec![digest],
                count: 1,
            }
            .into(),
        )
        .await;
        assert_eq!(body["errors"][0]["code"], "MANIFEST_BLOB_UNKNOWN");
        assert!(body["errors"][0]["message"].is_string());
        assert_eq!(body["errors"][0]["detail"]["request_id"], "id-1");
        assert_eq!(
            body["errors"][0]["detail"]["missing"][0],
            digest.to_string()
        );
    }

    #[tokio::test]
    async fn a100_bodies_tell_nothing_of_the_inside() {
        let secret = "SELECT * FROM /var/lib/orlop/catalog.db 3.45.1 at src/main.rs:7";
        for fault in [
            Fault::Invalid(secret.into()),
            Fault::Full(secret.into()),
            Fault::Busy(secret.into()),
            Fault::Unavailable(secret.into()),
            Fault::Corrupt(secret.into()),
            Fault::Io(secret.into()),
            Fault::Poisoned(secret.into()),
        ] {
            let error = ApiError::from(Error::Storage(fault));
            assert!(error.cause().unwrap().contains(secret));
            let text = body(error).await.to_string();
            assert!(!text.contains("SELECT") && !text.contains("/var"), "{text}");
        }
        let text = body(ApiError::internal(secret)).await.to_string();
        assert!(!text.contains("SELECT"), "{text}");
    }

    #[test]
    fn statuses_of_storage_faults() {
        let status = |fault| ApiError::from(Error::Storage(fault)).status().as_u16();
        assert_eq!(status(Fault::Full(String::new())), 507);
        assert_eq!(status(Fault::Busy(String::new())), 429);
        assert_eq!(status(Fault::Unavailable(String::new())), 503);
        assert_eq!(status(Fault::Corrupt(String::new())), 500);
        assert_eq!(status(Fault::Io(String::new())), 500);
        assert_eq!(status(Fault::Poisoned(String::new())), 503);
        assert_eq!(status(Fault::NotFound), 404);
        let poisoned = ApiError::from(Fault::Poisoned(String::new()));
        assert!(poisoned.0.headers.contains_key(header::RETRY_AFTER));
    }

    #[test]
    fn a40_the_methods_are_named() {
        let error = ApiError::method_not_allowed(&[Method::GET, Method::HEAD]);
        assert_eq!(error.status(), StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(error.0.headers[header::ALLOW], "GET, HEAD");
    }
}
