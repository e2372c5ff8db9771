//! `/livez`, `/readyz` and `/health`, for whoever watches the process.
//!
//! `/readyz` asks whether pulls are served, `/health` whether anything is
//! broken. They tell nothing of the inside: no path, no version, no count.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Response, StatusCode};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::body::{Answer, AnswerBody};
use crate::registry::{Health, ReadOnly, Registry};

/// How long store and catalog may take to say how they are.
const HEALTH_TIME: Duration = Duration::from_secs(2);
/// A write that has waited longer for the disk hangs: far longer than one needs
/// that works.
const WRITE_TIME: Duration = Duration::from_secs(30);
/// What is wrong when they do not.
const SILENT: &str = "the storage does not answer";

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

    /// Why an operator switched writes off, if so.
    fn read_only(&self) -> Option<Arc<ReadOnly>> {
        None
    }
}

/// The process is there and answers.
pub(super) fn livez() -> Answer {
    answer(StatusCode::OK, &json!({ "status": "live" }))
}

/// Whether `/readyz` answers 200.
pub async fn is_ready(readiness: &dyn Readiness) -> bool {
    readyz(readiness).await.status() == StatusCode::OK
}

/// Requests can be served. Pulls go on when writes are off, or hang, so that
/// this stays 200 then, and says so.
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
            let Some(health) = ask(&registry).await else {
                let body = json!({ "status": "unresponsive", "reason": SILENT });
                return answer(StatusCode::SERVICE_UNAVAILABLE, &body);
            };
            let hangs = hangs(&health);
            let body = match (health.poisoned, health.unpaired, health.read_only) {
                (Some(_), _, _) => json!({ "status": "ready", "writes": "off until a restart" }),
                (None, Some(why), _) => {
                    json!({ "status": "ready", "writes": "off", "reason": why.to_string() })
                }
                (None, None, Some(why)) => json!({
                    "status": "ready", "writes": "read-only",
                    "reason": why.reason, "since": why.since,
                }),
                (None, None, None) if hangs.is_some() => json!({
                    "status": "ready", "writes": "waiting for the disk", "reason": hangs,
                }),
                (None, None, None) if health.full => {
                    json!({ "status": "ready", "writes": "no space" })
                }
                (None, None, None) => json!({ "status": "ready", "writes": "on" }),
            };
            answer(StatusCode::OK, &body)
        }
    }
}

/// The form of Docker Trusted Registry, whose documentation gives the flag
/// both names. Healthy is a server that serves and has nothing wrong with it;
/// a full disk or maintenance is a state, not a defect, and a write that hangs
/// is one.
pub(super) async fn health(readiness: &dyn Readiness) -> Answer {
    let trouble = match readiness.state() {
        _ if readiness.is_stopping() => Some("the server is stopping".to_owned()),
        State::Starting(progress) => Some(format!("the server is starting: {progress}")),
        State::Ready(registry) => match ask(&registry).await {
            None => Some(SILENT.to_owned()),
            Some(health) => match (&health.poisoned, health.unpaired) {
                (Some(_), _) => Some(
                    "a write failed, or what writes panicked: pulls go on, nothing is written until a restart".to_owned(),
                ),
                (None, Some(why)) => Some(format!("pulls go on, pushes are refused: {why}")),
                (None, None) => hangs(&health),
            },
        },
    };
    let is_healthy = trouble.is_none();
    let body = json!({
        "Error": trouble.unwrap_or_default(), "Healthy": is_healthy, "Health": is_healthy,
    });
    let status = if is_healthy {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    answer(status, &body)
}

/// How store and catalog are, if they say so in time.
async fn ask(registry: &Registry) -> Option<Health> {
    timeout(HEALTH_TIME, registry.health()).await.ok()
}

/// That a write hangs, if one does. Nothing fails then: only the time tells.
fn hangs(health: &Health) -> Option<String> {
    let seconds = health.writing.as_secs();
    (health.writing > WRITE_TIME)
        .then(|| format!("a write has been waiting for the disk for {seconds} s"))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::memory::Memory;
    use crate::registry::{Fault, Maintenance, Unpaired};
    use http_body_util::BodyExt;

    /// A server in a state.
    struct In(fn(&Memory, Registry) -> Option<Registry>, bool);

    impl Readiness for In {
        fn state(&self) -> State {
            let memory = Memory::default();
            match (self.0)(&memory, memory.registry()) {
                Some(registry) => State::Ready(registry),
                None => State::Starting("replaying".to_owned()),
            }
        }

        fn is_stopping(&self) -> bool {
            self.1
        }
    }

    async fn body(answer: Answer) -> (u16, Value) {
        let status = answer.status().as_u16();
        let bytes = answer.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&bytes).unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn a_storage_that_does_not_answer_is_told_in_time() {
        let silent = In(
            |memory, registry| {
                memory.silence();
                Some(registry)
            },
            false,
        );
        let began = tokio::time::Instant::now();
        let both = async { (readyz(&silent).await, health(&silent).await) };
        let (ready, healthy) = timeout(HEALTH_TIME * 3, both).await.expect("in time");
        assert!(began.elapsed() <= HEALTH_TIME * 2);
        let (status, page) = body(ready).await;
        assert_eq!((status, &page["reason"]), (503, &json!(SILENT)));
        let (status, page) = body(healthy).await;
        assert_eq!((status, &page["Error"]), (503, &json!(SILENT)));
    }

    #[tokio::test]
    async fn i18_a_write_that_hangs_is_told_and_leaves_it_ready() {
        struct On(Memory);
        impl Readiness for On {
            fn state(&self) -> State {
                State::Ready(self.0.registry())
            }

            fn is_stopping(&self) -> bool {
                false
            }
        }
        let server = On(Memory::default());
        let (none, long) = (Duration::ZERO, WRITE_TIME + Duration::from_secs(12));
        for (store, catalog, status) in [
            (none, none, 200),
            (WRITE_TIME, none, 200),
            (long, none, 503),
            (none, long, 503),
            (none, none, 200),
        ] {
            server.0.hang(store, catalog);
            assert!(is_ready(&server).await);
            let (is, page) = body(readyz(&server).await).await;
            assert_eq!((is, &page["status"]), (200, &json!("ready")), "{page}");
            let (is, healthy) = body(health(&server).await).await;
            assert_eq!(is, status, "{healthy}");
            if status == 200 {
                assert_eq!(page["writes"], "on");
            } else {
                assert_eq!(page["writes"], "waiting for the disk");
                let reason = page["reason"].as_str().unwrap();
                assert!(reason.contains("for 42 s"), "{reason}");
                assert_eq!(healthy["Error"], page["reason"]);
            }
        }
    }

    #[tokio::test]
    async fn pulls_make_it_ready_and_defects_unhealthy() {
        let poisoned = In(
            |memory, registry| {
                memory.fail_writes(Some(Fault::Poisoned("/secret".into())));
                Some(registry)
            },
            false,
        );
        let read_only = In(
            |_, registry| {
                let maintenance = Maintenance::default();
                maintenance.set(Some(ReadOnly {
                    reason: "disks".into(),
                    since: "now".into(),
                }));
                Some(registry.with_maintenance(maintenance))
            },
            false,
        );
        let unpaired = In(|_, r| Some(r.without_writes(Unpaired::Older)), false);
        for (server, ready, writes, healthy) in [
            (In(|_, r| Some(r), false), 200, "on", 200),
            (poisoned, 200, "off until a restart", 503),
            (unpaired, 200, "off", 503),
            (read_only, 200, "read-only", 200),
            (In(|_, _| None, false), 503, "", 503),
            (In(|_, r| Some(r), true), 503, "", 503),
        ] {
            let (status, page) = body(readyz(&server).await).await;
            assert_eq!(status, ready, "{page}");
            assert_eq!(is_ready(&server).await, ready == 200);
            assert_eq!(page["writes"].as_str().unwrap_or_default(), writes);
            let (status, page) = body(health(&server).await).await;
            assert_eq!(status, healthy, "{page}");
            assert_eq!(page["Healthy"], healthy == 200);
            assert_eq!(page["Health"], healthy == 200);
            let error = page["Error"].as_str().unwrap();
            assert_eq!(error.is_empty(), healthy == 200, "{page}");
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
