//! What the streams of one HTTP/2 connection are doing, and when there is
//! nothing more to expect of it.
//!
//! A connection has pings of its own, so that its socket is never silent: what
//! counts is whether requests are open, and whether their answers are taken.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::{Body, Frame, SizeHint};
use tokio::time::Instant;

use super::KEEP_ALIVE;
use super::patience::WRITE_IDLE;
use crate::api::{Answer, AnswerBody, Piece};
use crate::registry::Fault;

/// How often a connection is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Why a connection should end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// No request is open, and none was for [`KEEP_ALIVE`].
    Idle,
    /// Answers are open, and nothing of any was taken for [`WRITE_IDLE`].
    Stalled,
}

/// The streams of one connection.
#[derive(Clone)]
pub(super) struct Streams(Arc<Mutex<Counts>>);

struct Counts {
    /// Requests whose answer has not ended.
    open: usize,
    /// Those of them whose answer is on its way.
    answering: usize,
    /// When a request came, an answer went on, or one ended.
    moved: Instant,
}

impl Streams {
    pub(super) fn new() -> Streams {
        Streams(Arc::new(Mutex::new(Counts {
            open: 0,
            answering: 0,
            moved: Instant::now(),
        })))
    }

    /// Counts a request until the result is dropped.
    pub(super) fn open(&self) -> Stream {
        self.change(|counts| counts.open = counts.open.saturating_add(1));
        Stream {
            streams: self.clone(),
            is_answering: false,
        }
    }

    /// Waits until the connection should end.
    pub(super) async fn end(&self) -> End {
        loop {
            let (end, time) = {
                let counts = self.counts();
                let waited = counts.moved.elapsed();
                match (counts.open, counts.answering) {
                    (0, _) => (End::Idle, KEEP_ALIVE.checked_sub(waited)),
                    // Its handler has bounds of its own.
                    (_, 0) => (End::Stalled, Some(LOOK_EVERY)),
                    _ => (End::Stalled, WRITE_IDLE.checked_sub(waited)),
                }
            };
            match time.filter(|time| !time.is_zero()) {
                Some(time) => tokio::time::sleep(time.min(LOOK_EVERY)).await,
                None => return end,
            }
        }
    }

    fn change(&self, change: impl FnOnce(&mut Counts)) {
        let mut counts = self.counts();
        change(&mut counts);
        counts.moved = Instant::now();
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One request and its answer.
pub(super) struct Stream {
    streams: Streams,
    is_answering: bool,
}

impl Stream {
    /// The answer on its way out, counted until it is over.
    pub(super) fn answer(mut self, answer: Answer) -> http::Response<Counted> {
        self.is_answering = true;
        self.streams
            .change(|counts| counts.answering = counts.answering.saturating_add(1));
        answer.map(|body| Counted { body, stream: self })
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let answering = usize::from(self.is_answering);
        self.streams.change(|counts| {
            counts.open = counts.open.saturating_sub(1);
            counts.answering = counts.answering.saturating_sub(answering);
        });
    }
}

/// The body of an answer, with a count of its progress.
pub(super) struct Counted {
    body: AnswerBody,
    stream: Stream,
}

impl Body for Counted {
    type Data = Piece;
    type Error = Fault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Piece>, Fault>>> {
        // Asked for when the client has room for it.
        self.stream.streams.change(|_| {});
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use http::Response;
    use http_body_util::BodyExt;

    fn answer() -> Answer {
        Response::new(AnswerBody::full(Bytes::from_static(b"abc")))
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_without_requests_ends() {
        let streams = Streams::new();
        let began = Instant::now();
        assert_eq!(streams.end().await, End::Idle);
        assert!(began.elapsed() >= KEEP_ALIVE);
        let stream = streams.open();
        let answer = stream.answer(answer());
        answer.into_body().collect().await.unwrap();
        let began = Instant::now();
        assert_eq!(streams.end().await, End::Idle);
        assert!(began.elapsed() >= KEEP_ALIVE && began.elapsed() < KEEP_ALIVE * 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_at_work_keeps_its_connection() {
        let streams = Streams::new();
        let stream = streams.open();
        let waited = tokio::time::timeout(WRITE_IDLE * 10, streams.end()).await;
        assert!(waited.is_err());
        drop(stream);
        assert_eq!(streams.end().await, End::Idle);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_nobody_takes_ends_its_connection() {
        let streams = Streams::new();
        let held = streams.open().answer(answer());
        let began = Instant::now();
        assert_eq!(streams.end().await, End::Stalled);
        assert!(began.elapsed() >= WRITE_IDLE && began.elapsed() < WRITE_IDLE * 2);
        drop(held);
    }
}
