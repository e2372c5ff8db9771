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
use super::piece::{Piece, Unsent};
use crate::registry::{Body, BodyFault, ContentStream, Error, Fault};

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
    Full(Option<Bytes>),
    Stream(ContentStream, Unsent),
}

/// The body of an answer. Its length is known before it starts; a stream that
/// fails or ends before that breaks the connection, so that nobody takes a
/// part for the whole.
pub struct AnswerBody {
    content: Content,
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
            content: Content::Full(Some(bytes).filter(|bytes| !bytes.is_empty())),
            remaining,
            sent: 0,
            at_end: None,
        }
    }

    /// A stream of exactly `len` bytes.
    pub fn stream(content: ContentStream, len: u64) -> AnswerBody {
        AnswerBody {
            content: Content::Stream(content, Unsent::default()),
            remaining: len,
            sent: 0,
            at_end: None,
        }
    }

    /// Sets what is called when the answer is over.
    pub fn set_at_end(&mut self, at_end: AtEnd) {
        self.at_end = Some(at_end);
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
        let (next, unsent) = match &mut self.content {
            Content::Full(bytes) => (bytes.take().map(Ok), None),
            Content::Stream(stream, unsent) => {
                ready!(unsent.poll_few(context));
                (
                    ready!(stream.poll_next_unpin(context)),
                    Some(unsent.clone()),
                )
            }
        };
        let wrong_length = || Fault::Io("the content is not as long as its index says".into());
        Poll::Ready(match next {
            Some(Ok(bytes)) if self.count(&bytes) => Some(Ok(Frame::data(match unsent {
                Some(unsent) => unsent.piece(bytes),
                None => Piece::from(bytes),
            }))),
            Some(Ok(_)) => Some(Err(wrong_length())),
            Some(Err(fault)) => Some(Err(fault)),
            None if self.remaining > 0 => Some(Err(wrong_length())),
            None => None,
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
mod tests {
    use super::*;
    use crate::registry::memory::body;
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

    fn pieces(list: Vec<Result<&'static str, Fault>>) -> ContentStream {
        stream::iter(list)
            .map(|piece| piece.map(Bytes::from))
            .boxed()
    }

    #[tokio::test]
    async fn a_stream_is_sent_and_counted() {
        let content = pieces(vec![Ok("one"), Ok("two")]);
        let (body, ends) = watched(AnswerBody::stream(content, 6));
        assert_eq!(body.size_hint().exact(), Some(6));
        assert_eq!(body.collect().await.unwrap().to_bytes(), "onetwo");
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
            let (body, ends) = watched(AnswerBody::stream(pieces(content), 6));
            assert!(body.collect().await.is_err());
            assert_eq!(*ends.lock().unwrap(), [(sent, false)]);
        }
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
