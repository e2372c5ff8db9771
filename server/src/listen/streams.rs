//! What the streams of one HTTP/2 connection are doing, and when there is
//! nothing more to expect of it.
//!
//! A connection has pings of its own, so that its socket is never silent: what
//! counts is whether requests are open, and whether their answers are taken.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::KEEP_ALIVE;
use super::patience::WRITE_IDLE;
use crate::api::{Allowance, Answer, Watch};

/// How often a connection is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Why a connection should end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// No request is open, and none was for [`KEEP_ALIVE`].
    Idle,
    /// An answer is open of which nothing was taken for [`WRITE_IDLE`].
    Stalled,
}

/// The streams of one connection.
#[derive(Clone)]
pub(super) struct Streams(Arc<Mutex<Inner>>);

struct Inner {
    /// Requests of whose answer something is to come, or is held: when the
    /// answer began or something of it was taken last, if it has begun.
    open: HashMap<u64, Option<Instant>>,
    next: u64,
    /// When a request came or an answer ended.
    changed: Instant,
}

impl Streams {
    pub(super) fn new() -> Streams {
        Streams(Arc::new(Mutex::new(Inner {
            open: HashMap::new(),
            next: 0,
            changed: Instant::now(),
        })))
    }

    /// Counts a request until the result is dropped.
    pub(super) fn open(&self) -> Stream {
        let mut inner = self.inner();
        let number = inner.next;
        inner.next = number.wrapping_add(1);
        inner.open.insert(number, None);
        inner.changed = Instant::now();
        Stream {
            streams: self.clone(),
            number,
        }
    }

    /// Waits until the connection should end.
    pub(super) async fn end(&self) -> End {
        loop {
            let (end, time) = {
                let inner = self.inner();
                // One that is taken does not make up for one that is not.
                let oldest = inner.open.values().flatten().min();
                match oldest {
                    Some(moved) => (End::Stalled, WRITE_IDLE.checked_sub(moved.elapsed())),
                    None if inner.open.is_empty() => {
                        (End::Idle, KEEP_ALIVE.checked_sub(inner.changed.elapsed()))
                    }
                    // Their handlers have bounds of their own.
                    None => (End::Stalled, Some(LOOK_EVERY)),
                }
            };
            match time.filter(|time| !time.is_zero()) {
                Some(time) => tokio::time::sleep(time.min(LOOK_EVERY)).await,
                None => return end,
            }
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One request and its answer.
pub(super) struct Stream {
    streams: Streams,
    number: u64,
}

impl Stream {
    /// The answer on its way out, counted until its last byte is.
    pub(super) fn answer(self, mut answer: Answer, allowance: Allowance) -> Answer {
        self.moved();
        answer.body_mut().keep_to(allowance, Some(Arc::new(self)));
        answer
    }
}

impl Watch for Stream {
    fn moved(&self) {
        let moved = Some(Instant::now());
        self.streams.inner().open.insert(self.number, moved);
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let mut inner = self.streams.inner();
        inner.open.remove(&self.number);
        inner.changed = Instant::now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::AnswerBody;
    use bytes::{Buf, Bytes};
    use http::Response;
    use http_body_util::BodyExt;

    fn answered(stream: Stream) -> AnswerBody {
        let answer = Response::new(AnswerBody::full(Bytes::from_static(b"abc")));
        stream.answer(answer, Allowance::default()).into_body()
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_without_requests_ends() {
        let streams = Streams::new();
        let began = Instant::now();
        assert_eq!(streams.end().await, End::Idle);
        assert!(began.elapsed() >= KEEP_ALIVE);
        let stream = streams.open();
        answered(stream).collect().await.unwrap();
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
        let held = answered(streams.open());
        let began = Instant::now();
        assert_eq!(streams.end().await, End::Stalled);
        assert!(began.elapsed() >= WRITE_IDLE && began.elapsed() < WRITE_IDLE * 2);
        drop(held);
    }

    #[tokio::test(start_paused = true)]
    async fn a30_requests_beside_it_do_not_keep_an_answer_that_nobody_takes() {
        let streams = Streams::new();
        let mut held = answered(streams.open());
        // The connection has all of it, and its body is over.
        let piece = held.frame().await.unwrap().unwrap().into_data();
        drop(held);
        let others = streams.clone();
        let busy = tokio::spawn(async move {
            loop {
                answered(others.open()).collect().await.unwrap();
                tokio::time::sleep(Duration::from_secs(20)).await;
            }
        });
        let began = Instant::now();
        assert_eq!(streams.end().await, End::Stalled);
        assert!(began.elapsed() >= WRITE_IDLE && began.elapsed() < WRITE_IDLE * 2);
        // A byte in time keeps it.
        let mut piece = piece.ok().unwrap();
        piece.advance(1);
        let began = Instant::now();
        assert_eq!(streams.end().await, End::Stalled);
        assert!(began.elapsed() >= WRITE_IDLE);
        drop(piece);
        busy.abort();
    }
}
