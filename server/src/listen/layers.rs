//! What every request passes on its way in and out, in this order:
//!
//! 1. an id, so that answer, error body and log can be matched;
//! 2. the access line, written when the answer is over, however it ends;
//! 3. no body under an answer to HEAD, and the public address before paths;
//! 4. the bound on headers that HTTP/2 does not enforce by itself;
//! 5. the API, or the pages of the ops port, and a net under it: a panic
//!    becomes a 500, and the process lives on.

use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use futures_util::FutureExt;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Request, Response};
use hyper::body::{Body as _, Incoming};
use ipnet::IpNet;

use super::forwarded::{self, From};
use super::{HEADERS_MAX, addresses};
use crate::api::body::Source;
use crate::api::{self, Answer, AnswerBody, ApiError, Readiness};
use crate::metrics::{Class, Http, Serving};
use crate::ops::Ops;
use crate::registry::Body;

/// The request's id, in and out.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The longest id that is taken from a client, in bytes.
const REQUEST_ID_LEN_MAX: usize = 64;
/// Characters of client text in a log line.
const LOGGED_MAX: usize = 512;

/// What all requests share.
pub struct Layers {
    readiness: Arc<dyn Readiness>,
    /// What is served instead of the API, on the ops port.
    ops: Option<Ops>,
    counts: Arc<Http>,
    ids: Ids,
    public_url: Option<String>,
    trusted_proxies: Vec<IpNet>,
}

impl Layers {
    /// Layers around an API that is as ready as this says.
    pub fn new(readiness: Arc<dyn Readiness>) -> Layers {
        Layers {
            readiness,
            ops: None,
            counts: Arc::default(),
            ids: Ids::new(),
            public_url: None,
            trusted_proxies: Vec::new(),
        }
    }

    /// Puts this before the paths in answers: scheme and authority, without a
    /// slash at the end.
    #[must_use]
    pub fn with_public_url(mut self, public_url: Option<String>) -> Layers {
        self.public_url = public_url;
        self
    }

    /// Believes proxies in these networks about who their client is, for the
    /// log.
    #[must_use]
    pub fn with_trusted_proxies(mut self, networks: Vec<IpNet>) -> Layers {
        self.trusted_proxies = networks;
        self
    }

    /// The same around the pages of the ops port.
    #[must_use]
    pub fn with_ops(mut self, ops: Ops) -> Layers {
        self.ops = Some(ops);
        self
    }

    /// The same, counting there.
    #[must_use]
    pub fn counting(mut self, counts: Arc<Http>) -> Layers {
        self.counts = counts;
        self
    }

    /// Where requests and connections are counted.
    pub(super) fn counts(&self) -> &Arc<Http> {
        &self.counts
    }

    /// Serves one request.
    pub(super) async fn serve(&self, peer: SocketAddr, request: Request<Incoming>) -> Answer {
        let (head, body) = request.into_parts();
        let id = self.ids.of(&head.headers);
        let from = forwarded::from(peer, &head.headers, &self.trusted_proxies);
        let mut line = AccessLine::new(&id, from, &head, &self.counts);
        let source = Source::new(body, line.received());
        let mut answer = match self.handle(&head, source.stream()).await {
            Ok(answer) => answer,
            Err(error) => {
                report(&error, &id);
                source.discard(&head.headers).await;
                error.answer(&id)
            }
        };
        if let Ok(value) = HeaderValue::from_str(&id) {
            answer.headers_mut().insert(REQUEST_ID, value);
        }
        if let Some(public_url) = &self.public_url {
            addresses::make_absolute(answer.headers_mut(), public_url);
        }
        if head.method == Method::HEAD {
            answer = without_body(answer);
        }
        line.status = answer.status().as_u16();
        let at_end = move |sent, is_whole| line.end(sent, is_whole);
        answer.body_mut().set_at_end(Box::new(at_end));
        answer
    }

    async fn handle(&self, head: &Parts, body: Body) -> Result<Answer, ApiError> {
        if head.headers.len() > HEADERS_MAX {
            return Err(ApiError::too_many_headers());
        }
        let answer = async {
            match &self.ops {
                None => api::handle(self.readiness.as_ref(), head, body).await,
                Some(ops) => ops.handle(self.readiness.as_ref(), head).await,
            }
        };
        match AssertUnwindSafe(answer).catch_unwind().await {
            Ok(answer) => answer,
            Err(_) => Err(ApiError::internal("a handler panicked")),
        }
    }
}

/// The answer to HEAD: what GET would say, without the body. Over HTTP/2 a body
/// would be sent.
fn without_body(answer: Answer) -> Answer {
    let (mut head, body) = answer.into_parts();
    let len = body.size_hint().exact().filter(|len| *len > 0);
    if let Some(len) = len
        && !head.headers.contains_key(header::CONTENT_LENGTH)
    {
        let len = HeaderValue::from(len);
        head.headers.insert(header::CONTENT_LENGTH, len);
    }
    Response::from_parts(head, AnswerBody::empty())
}

/// Logs what the client is not told.
fn report(error: &ApiError, id: &str) {
    let Some(cause) = error.cause() else {
        return;
    };
    let (status, code) = (error.status().as_u16(), error.code());
    match status {
        500 => tracing::error!(request = id, status, code, cause, "request failed"),
        501.. => tracing::warn!(request = id, status, code, cause, "request failed"),
        _ => tracing::info!(request = id, status, code, cause, "request refused"),
    }
}

/// Makes ids of requests: random for the process, then counted.
struct Ids {
    prefix: u32,
    next: AtomicU64,
}

impl Ids {
    fn new() -> Ids {
        // Without randomness ids are still unique within the process.
        Ids {
            prefix: getrandom::u32().unwrap_or_else(|_| std::process::id()),
            next: AtomicU64::new(1),
        }
    }

    /// The client's own id if it can stand in a log line, else a new one.
    fn of(&self, headers: &HeaderMap) -> String {
        let given = headers
            .get(REQUEST_ID)
            .and_then(|value| value.to_str().ok())
            .filter(|id| is_plain(id));
        match given {
            Some(id) => id.to_owned(),
            None => {
                let number = self.next.fetch_add(1, Ordering::Relaxed);
                format!("{:08x}-{number:06x}", self.prefix)
            }
        }
    }
}

fn is_plain(id: &str) -> bool {
    (1..=REQUEST_ID_LEN_MAX).contains(&id.len())
        && id
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

/// One line of the log per request, written when it is dropped: when the
/// answer is over, or when the connection ended before there was one.
struct AccessLine {
    counts: Arc<Http>,
    class: Class,
    id: String,
    from: From,
    method: String,
    path: String,
    agent: String,
    started: Instant,
    /// 0 while there is no answer.
    status: u16,
    sent: u64,
    is_whole: bool,
    /// It is under way as long as this is there.
    _serving: Option<Serving>,
}

impl AccessLine {
    fn new(id: &str, from: From, head: &Parts, counts: &Arc<Http>) -> AccessLine {
        let class = Class::of(head.uri.path());
        let target = head
            .uri
            .path_and_query()
            .map_or("", |target| target.as_str());
        let agent = head.headers.get(header::USER_AGENT);
        AccessLine {
            counts: Arc::clone(counts),
            class,
            id: id.to_owned(),
            from,
            method: shorten(head.method.as_str()),
            path: shorten(target),
            agent: agent.map_or_else(String::new, |agent| {
                shorten(&String::from_utf8_lossy(agent.as_bytes()))
            }),
            started: Instant::now(),
            status: 0,
            sent: 0,
            is_whole: false,
            _serving: counts.enter(class),
        }
    }

    /// Counts bytes of the request's body.
    fn received(&self) -> impl Fn(u64) + Send + Sync + 'static {
        let (counts, class) = (Arc::clone(&self.counts), self.class);
        move |bytes| counts.received(class, bytes)
    }

    fn end(mut self, sent: u64, is_whole: bool) {
        self.sent = sent;
        self.is_whole = is_whole;
    }
}

/// Text of a client for a log line: short, and nothing in it that a terminal
/// or a line reader would act on.
fn shorten(text: &str) -> String {
    let mut out = String::with_capacity(text.len().min(LOGGED_MAX));
    for character in text.chars().take(LOGGED_MAX) {
        if character.is_control() {
            out.extend(character.escape_default());
        } else {
            out.push(character);
        }
    }
    out
}

impl Drop for AccessLine {
    fn drop(&mut self) {
        let took = self.started.elapsed();
        self.counts
            .request(&self.method, self.class, self.status, took, self.sent);
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let outcome = match (self.status, self.is_whole) {
            (0, _) => "no answer",
            (_, true) => "done",
            (_, false) => "cut",
        };
        tracing::info!(
            target: "access",
            request = self.id.as_str(),
            peer = %self.from,
            method = self.method.as_str(),
            path = self.path.as_str(),
            status = self.status,
            sent = self.sent,
            micros,
            agent = self.agent.as_str(),
            outcome,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id_for(given: Option<&str>) -> String {
        let mut headers = HeaderMap::new();
        if let Some(id) = given {
            headers.insert(REQUEST_ID, HeaderValue::from_bytes(id.as_bytes()).unwrap());
        }
        Ids::new().of(&headers)
    }

    #[test]
    fn head_has_the_length_and_no_body() {
        let whole = || Response::new(AnswerBody::full(bytes::Bytes::from_static(b"abc")));
        let answer = without_body(whole());
        assert_eq!(answer.headers()[header::CONTENT_LENGTH], "3");
        assert_eq!(answer.body().size_hint().exact(), Some(0));
        // What was said of the length stays: the API knows better.
        let mut said = Response::new(AnswerBody::empty());
        said.headers_mut()
            .insert(header::CONTENT_LENGTH, HeaderValue::from(7));
        let answer = without_body(said);
        assert_eq!(answer.headers()[header::CONTENT_LENGTH], "7");
        let none = without_body(Response::new(AnswerBody::empty()));
        assert!(none.headers().is_empty());
    }

    #[test]
    fn plain_ids_are_kept() {
        for id in ["a", "0af7651916cd43dd-8448eb", &"x".repeat(64), "A_b.c"] {
            assert_eq!(id_for(Some(id)), id);
        }
    }

    #[test]
    fn other_ids_are_replaced() {
        for id in ["", "a b", "a\"b", "a/b", "é", &"x".repeat(65), "a;b"] {
            let made = id_for(Some(id));
            assert_ne!(made, id);
            assert!(is_plain(&made));
        }
        let ids = Ids::new();
        assert_ne!(ids.of(&HeaderMap::new()), ids.of(&HeaderMap::new()));
    }

    #[test]
    fn a97_control_characters_are_escaped() {
        assert_eq!(
            shorten("a\r\nb\x1b[31m\0c\u{9b}"),
            "a\\r\\nb\\u{1b}[31m\\u{0}c\\u{9b}"
        );
        assert_eq!(shorten(&"x".repeat(10_000)).len(), LOGGED_MAX);
    }
}
