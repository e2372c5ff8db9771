//! Bodies of requests and answers, between the network and the registry.

use std::error::Error as _;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, stream};
use http::Response;
use http::header::{self, HeaderMap};
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use tokio::time::timeout;

use super::error::ApiError;
use super::piece::{Allowance, Piece, Place, SMALL, Unsent, Watch};
use super::reader::Reader;
use crate::registry::{Body, BodyFault, Error, Fault};

/// A request body that stalls for this long is given up.
pub const BODY_IDLE: Duration = Duration::from_secs(30);

/// Bytes of a refused body that are read away, and for how long, so that the
/// client gets to read why.
const DISCARD_MAX: usize = 64 * 1024 * 1024;
const DISCARD_TIME: Duration = Duration::from_secs(5);

/// An answer on its way out.
pub type Answer = Response<AnswerBody>;

/// Called once when an answer is over, with the bytes that went out and
/// whether they were all.
pub type AtEnd = Box<dyn FnOnce(u64, bool) + Send>;

enum Content {
    Full(Option<Bytes>, Option<Place>),
    Part(Reader),
    /// There was no place for it.
    Refused,
}

/// The body of an answer. Its length is known before it starts; a stream that
/// fails or ends before that breaks the connection, so that nobody takes a
/// part for the whole.
pub struct AnswerBody {
    content: Content,
    unsent: Unsent,
    remaining: u64,
    sent: u64,
    at_end: Option<AtEnd>,
}

impl AnswerBody {
    /// No body.
    pub fn empty() -> AnswerBody {
        AnswerBody::full(Bytes::new())
    }

    /// These bytes.
    pub fn full(bytes: Bytes) -> AnswerBody {
        let remaining = bytes.len() as u64;
        AnswerBody {
            content: Content::Full(Some(bytes).filter(|bytes| !bytes.is_empty()), None),
            unsent: Unsent::default(),
            remaining,
            sent: 0,
            at_end: None,
        }
    }

    /// Content of exactly `len` bytes.
    pub(super) fn part(content: Reader, len: u64) -> AnswerBody {
        AnswerBody {
            content: Content::Part(content),
            unsent: Unsent::default(),
            remaining: len,
            sent: 0,
            at_end: None,
        }
    }

    /// Sets what is called when the answer is over.
    pub fn set_at_end(&mut self, at_end: AtEnd) {
        self.at_end = Some(at_end);
    }

    /// Keeps what the connection holds of it within this allowance, and tells
    /// of what goes out.
    pub fn keep_to(&mut self, allowance: Allowance, watch: Option<Arc<dyn Watch>>) {
        self.unsent = Unsent::new(watch);
        match &mut self.content {
            Content::Full(Some(bytes), place) if bytes.len() > SMALL => {
                *place = allowance.take_beyond();
                if place.is_none() {
                    self.content = Content::Refused;
                }
            }
            Content::Part(reader) => reader.keep_to(allowance),
            _ => {}
        }
    }

    fn count(&mut self, bytes: &Bytes) -> bool {
        let len = bytes.len() as u64;
        self.sent = self.sent.saturating_add(len);
        match self.remaining.checked_sub(len) {
            Some(remaining) => {
                self.remaining = remaining;
                true
            }
            None => false,
        }
    }
}

impl Drop for AnswerBody {
    fn drop(&mut self) {
        if let Some(at_end) = self.at_end.take() {
            at_end(self.sent, self.remaining == 0);
        }
    }
}

impl HttpBody for AnswerBody {
    type Data = Piece;
    type Error = Fault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Piece>, Fault>>> {
        if self.remaining == 0 {
            return Poll::Ready(None);
        }
        ready!(self.unsent.poll_none(context));
        let next = match &mut self.content {
            Content::Full(bytes, place) => bytes.take().map(|bytes| Ok((bytes, place.take()))),
            Content::Part(reader) => ready!(reader.poll_next(context)),
            Content::Refused => {
                let why = "answers that nobody takes hold all the memory there is for them";
                Some(Err(Fault::Busy(why.into())))
            }
        };
        let wrong_length = || Fault::Io("the content is not as long as its index says".into());
        Poll::Ready(match next {
            Some(Ok((bytes, place))) if self.count(&bytes) => {
                Some(Ok(Frame::data(self.unsent.piece(bytes, place))))
            }
            Some(Ok(_)) => Some(Err(wrong_length())),
            Some(Err(fault)) => Some(Err(fault)),
            None => Some(Err(wrong_length())),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.remaining == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.remaining)
    }
}

/// The body of a request. The registry takes it as a stream; what it leaves
/// unread can be read away before a refusal is answered, since many clients
/// listen only when they have said everything.
#[derive(Clone)]
pub struct Source(Arc<Mutex<Inner>>);

struct Inner {
    /// None behind its end.
    body: Option<Incoming>,
    was_read: bool,
    /// Told of the bytes that come.
    received: Option<Received>,
}

/// Counts bytes as they come.
type Received = Box<dyn Fn(u64) + Send + Sync>;

impl Source {
    /// The source of this body, whose bytes are counted as they come.
    pub fn new(body: Incoming, received: impl Fn(u64) + Send + Sync + 'static) -> Source {
        let body = Some(body).filter(|body| !body.is_end_stream());
        Source(Arc::new(Mutex::new(Inner {
            received: body.as_ref().map(|_| Box::new(received) as Received),
            body,
            was_read: false,
        })))
    }

    /// The body as a stream of data, given up when it stalls.
    pub fn stream(&self) -> Body {
        if self.inner().body.is_none() {
            return stream::empty().boxed();
        }
        stream::unfold(self.clone(), |source| async move {
            let next = timeout(BODY_IDLE, source.next()).await;
            let next = next.unwrap_or_else(|_| {
                source.inner().body = None;
                Some(Err(BodyFault::Idle))
            });
            next.map(|piece| (piece, source))
        })
        .boxed()
    }

    /// Reads on without keeping anything, within [`DISCARD_MAX`] and
    /// [`DISCARD_TIME`]. Not where the client waits to be asked for the body.
    pub async fn discard(&self, headers: &HeaderMap) {
        if headers.contains_key(header::EXPECT) && !self.inner().was_read {
            return;
        }
        let read = async {
            let mut left = DISCARD_MAX;
            while let Some(Ok(piece)) = self.next().await {
                match left.checked_sub(piece.len()) {
                    Some(less) => left = less,
                    None => return,
                }
            }
        };
        // Too slow: the answer goes out all the same.
        let _in_time = timeout(DISCARD_TIME, read).await;
    }

    async fn next(&self) -> Option<Result<Bytes, BodyFault>> {
        poll_fn(|context| {
            let mut inner = self.inner();
            inner.was_read = true;
            loop {
                let Some(body) = &mut inner.body else {
                    return Poll::Ready(None);
                };
                let piece = match ready!(Pin::new(body).poll_frame(context)) {
                    None => None,
                    Some(Err(error)) => Some(Err(fault_of(&error))),
                    Some(Ok(frame)) => match frame.into_data() {
                        Ok(data) => {
                            if let Some(received) = &inner.received {
                                received(data.len() as u64);
                            }
                            return Poll::Ready(Some(Ok(data)));
                        }
                        Err(_trailers) => continue,
                    },
                };
                inner.body = None;
                return Poll::Ready(piece);
            }
        })
        .await
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn fault_of(error: &hyper::Error) -> BodyFault {
    let cause = error.source().and_then(|cause| cause.downcast_ref());
    let is_malformed = |cause: &io::Error| {
        use io::ErrorKind::{InvalidData, InvalidInput};
        matches!(cause.kind(), InvalidInput | InvalidData)
    };
    if error.is_parse() || cause.is_some_and(is_malformed) {
        BodyFault::Malformed
    } else {
        BodyFault::Cut
    }
}

/// Reads a whole body of at most `limit` bytes. Stops at the first byte too
/// many, and does not start if the announced length is one.
pub(super) async fn whole(
    mut body: Body,
    announced: Option<u64>,
    limit: usize,
    too_large: impl Fn() -> ApiError,
) -> Result<Bytes, ApiError> {
    let announced = usize::try_from(announced.unwrap_or_default()).map_err(|_| too_large())?;
    if announced > limit {
        return Err(too_large());
    }
    let mut bytes = BytesMut::with_capacity(announced);
    while let Some(piece) = body.next().await {
        let piece = piece.map_err(Error::Body)?;
        if piece.len() > limit.saturating_sub(bytes.len()) {
            return Err(too_large());
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes.freeze())
}

#[cfg(test)]
impl AnswerBody {
    /// All of it, taken as a client does: the next piece when the last is gone.
    pub(super) async fn taken(mut self) -> Result<Bytes, Fault> {
        use http_body_util::BodyExt;
        let mut all = BytesMut::new();
        while let Some(frame) = self.frame().await {
            if let Ok(piece) = frame?.into_data() {
                all.extend_from_slice(bytes::Buf::chunk(&piece));
            }
        }
        Ok(all.freeze())
    }
}

#[cfg(test)]
mod tests {
    use super::super::piece::CONNECTION_PIECES_MAX;
    use super::*;
    use crate::registry::memory::{Memory, body};
    use crate::registry::{self, Blobs as _, Digest};
    use futures_util::FutureExt;
    use http_body_util::BodyExt;
    use std::sync::{Arc, Mutex};

    type Ends = Arc<Mutex<Vec<(u64, bool)>>>;

    fn watched(mut body: AnswerBody) -> (AnswerBody, Ends) {
        let ends = Ends::default();
        let seen = ends.clone();
        body.set_at_end(Box::new(move |sent, whole| {
            seen.lock().unwrap().push((sent, whole));
        }));
        (body, ends)
    }

    /// Content that comes like this, whatever is asked for.
    struct Pieces(Vec<Result<&'static str, Fault>>);

    impl registry::Content for Pieces {
        fn size(&self) -> u64 {
            6
        }

        fn stream(&self, _: std::ops::Range<u64>) -> registry::ContentStream {
            stream::iter(self.0.clone())
                .map(|piece| piece.map(Bytes::from))
                .boxed()
        }

        fn bytes(&self, _: usize) -> futures_util::future::BoxFuture<'_, Result<Bytes, Fault>> {
            async { Err(Fault::NotFound) }.boxed()
        }
    }

    async fn part(pieces: Vec<Result<&'static str, Fault>>) -> AnswerBody {
        let reader = Reader::begin(Box::new(Pieces(pieces)), 0..6).await;
        AnswerBody::part(reader.unwrap(), 6)
    }

    #[tokio::test]
    async fn a_stream_is_sent_and_counted() {
        let (body, ends) = watched(part(vec![Ok("one"), Ok("two")]).await);
        assert_eq!(body.size_hint().exact(), Some(6));
        assert_eq!(body.taken().await.unwrap(), "onetwo");
        assert_eq!(*ends.lock().unwrap(), [(6, true)]);
    }

    #[tokio::test]
    async fn a39_a_failing_stream_is_an_error_never_an_end() {
        let fault = Fault::Corrupt("x".into());
        for (content, sent) in [
            (vec![Ok("one"), Err(fault)], 3),
            (vec![Ok("one")], 3),
            (vec![Ok("one"), Ok("twothree")], 11),
        ] {
            let (body, ends) = watched(part(content).await);
            assert!(body.taken().await.is_err());
            assert_eq!(*ends.lock().unwrap(), [(sent, false)]);
        }
    }

    /// A body of `len` bytes of content, and the bytes.
    async fn of_memory(len: usize) -> (AnswerBody, Vec<u8>) {
        let bytes: Vec<u8> = (0..len).map(|at| (at % 251) as u8).collect();
        let memory = Memory::default();
        let digest: Digest = memory.add("a/b", &bytes);
        let content = memory.read(&digest).unwrap();
        let reader = Reader::begin(content, 0..len as u64).await.unwrap();
        (AnswerBody::part(reader, len as u64), bytes)
    }

    #[tokio::test]
    async fn a30_answers_that_nobody_takes_hold_small_copies_beyond_the_places() {
        let allowance = Allowance::default();
        let mut held = Vec::new();
        for _ in 0..32 {
            let (mut body, _) = of_memory(100_000).await;
            body.keep_to(allowance.clone(), None);
            let piece = body.frame().await.unwrap().unwrap().into_data();
            // Nothing more while it is held.
            assert!(body.is_end_stream() || body.frame().now_or_never().is_none());
            held.push((piece.ok().unwrap(), body));
        }
        let held_bytes: usize = held
            .iter()
            .map(|(piece, _)| bytes::Buf::remaining(piece))
            .sum();
        let large = CONNECTION_PIECES_MAX;
        assert_eq!(held_bytes, large * 100_000 + (32 - large) * SMALL);
        // Who takes all is served all the same, to the last byte.
        for len in [1, SMALL, SMALL + 1, 3 * SMALL, 100_000] {
            let (mut body, bytes) = of_memory(len).await;
            body.keep_to(allowance.clone(), None);
            assert_eq!(body.taken().await.unwrap(), bytes, "{len}");
        }
        // And in large pieces once there is a place, also in the middle.
        let (mut body, bytes) = of_memory(100_000).await;
        body.keep_to(allowance.clone(), None);
        let first = body
            .frame()
            .await
            .unwrap()
            .unwrap()
            .into_data()
            .ok()
            .unwrap();
        assert_eq!(bytes::Buf::chunk(&first), &bytes[..SMALL]);
        drop((held, first));
        let rest = body
            .frame()
            .await
            .unwrap()
            .unwrap()
            .into_data()
            .ok()
            .unwrap();
        assert_eq!(bytes::Buf::chunk(&rest), &bytes[SMALL..]);
    }

    #[tokio::test]
    async fn an_answer_nobody_reads_is_over_too() {
        let (body, ends) = watched(AnswerBody::full(Bytes::from_static(b"abc")));
        drop(body);
        assert_eq!(*ends.lock().unwrap(), [(0, false)]);
    }

    #[tokio::test]
    async fn a12_bodies_are_cut_at_the_limit() {
        let large = || ApiError::manifest_too_large();
        let fits = whole(body(&[b"abc", b"de"], None), None, 5, large).await;
        assert_eq!(fits.unwrap(), "abcde");
        for (announced, pieces) in [
            (None, [b"abc".as_slice(), b"def"]),
            (Some(6), [b"", b""]),
            (Some(u64::MAX), [b"", b""]),
        ] {
            let error = whole(body(&pieces, None), announced, 5, large).await;
            assert_eq!(error.unwrap_err().status().as_u16(), 413);
        }
        let cut = body(&[b"abc"], Some(BodyFault::Cut));
        assert_eq!(
            whole(cut, None, 5, large)
                .await
                .unwrap_err()
                .status()
                .as_u16(),
            400
        );
    }
}
