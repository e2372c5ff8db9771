//! `/v2/`: tells a client that it has found a registry.

use bytes::Bytes;
use http::Response;
use http::header::{self, HeaderValue};

use super::body::{Answer, AnswerBody};

pub(super) fn base() -> Answer {
    let mut answer = Response::new(AnswerBody::full(Bytes::from_static(b"{}")));
    answer.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    answer
}
