//! `/livez` and `/readyz`, for whoever watches the process.

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::body::{Answer, AnswerBody};
use crate::registry::Registry;

/// How far the server is.
pub enum State {
    /// It is recovering: what it is doing, for people.
    Starting(String),
    /// It serves.
    Ready(Registry),
}

/// Who knows how far the server is.
pub trait Readiness: Send + Sync + 'static {
    /// How far it is now.
    fn state(&self) -> State;

    /// Whether it is about to end, so that new requests should go elsewhere.
    fn is_stopping(&self) -> bool;
}

/// The process is there and answers.
pub(super) fn livez() -> Answer {
    answer(StatusCode::OK, &json!({ "status": "live" }))
}

/// Requests can be served. Pulls go on when writes are off, so that this
/// stays 200 then, and says so.
pub(super) async fn readyz(readiness: &dyn Readiness) -> Answer {
    if readiness.is_stopping() {
        return answer(
            StatusCode::SERVICE_UNAVAILABLE,
            &json!({ "status": "stopping" }),
        );
    }
    match readiness.state() {
        State::Starting(progress) => {
            let body = json!({ "status": "starting", "progress": progress });
            let mut answer = answer(StatusCode::SERVICE_UNAVAILABLE, &body);
            let headers = answer.headers_mut();
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            answer
        }
        State::Ready(registry) => {
            let health = registry.health().await;
            let body = match (health.poisoned, health.unpaired, health.full) {
                (Some(_), _, _) => json!({ "status": "ready", "writes": "off until a restart" }),
                (None, Some(why), _) => {
                    json!({ "status": "ready", "writes": "off", "reason": why.to_string() })
                }
                (None, None, true) => json!({ "status": "ready", "writes": "no space" }),
                (None, None, false) => json!({ "status": "ready", "writes": "on" }),
            };
            answer(StatusCode::OK, &body)
        }
    }
}

fn answer(status: StatusCode, body: &Value) -> Answer {
    let mut answer = Response::new(AnswerBody::full(Bytes::from(body.to_string())));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}
