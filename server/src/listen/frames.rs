//! Stands between the socket and the HTTP/2 parser, and ends connections that
//! send too slowly what a parser has to wait for: the preface, or the frames of
//! one head.
//!
//! It follows the lengths of frames and looks into none. What is malformed is
//! the parser's to refuse.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::guard::HEAD_TIME;
use super::opening::HTTP2_PREFACE;
use super::patience::Patience;

/// Bytes before the payload of each frame.
const FRAME_HEAD_LEN: usize = 9;
/// Types of the frames that make up a head.
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
/// The flag of the last of them.
const END_HEADERS: u8 = 4;

/// Where the next byte is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// In the preface, with so many bytes to come.
    Preface(usize),
    /// Before the payload of a frame, with what there is of it.
    FrameHead([u8; FRAME_HEAD_LEN], usize),
    /// In a payload with so many bytes to come.
    Payload(usize),
}

/// A new frame.
const FRAME: At = At::FrameHead([0; FRAME_HEAD_LEN], 0);

/// Follows the frames of a client.
struct Framing {
    at: At,
    /// A frame of a head is not over, or more such frames must follow.
    in_head: bool,
    /// Whether more of them follow the frame that is under way.
    more: bool,
}

impl Framing {
    fn new() -> Framing {
        Framing {
            at: At::Preface(HTTP2_PREFACE.len()),
            in_head: true,
            more: false,
        }
    }

    fn follow(&mut self, mut bytes: &[u8]) {
        while let Some(first) = bytes.first() {
            let taken = match &mut self.at {
                At::Preface(left) | At::Payload(left) => {
                    let taken = bytes.len().min(*left);
                    *left = left.saturating_sub(taken);
                    taken
                }
                At::FrameHead(head, seen) => {
                    if let Some(next) = head.get_mut(*seen) {
                        *next = *first;
                    }
                    *seen = seen.saturating_add(1);
                    1
                }
            };
            bytes = bytes.get(taken..).unwrap_or_default();
            match self.at {
                At::FrameHead(head, FRAME_HEAD_LEN) => self.begin(head),
                At::Preface(0) | At::Payload(0) => self.end(),
                _ => {}
            }
        }
    }

    /// A frame begins.
    fn begin(&mut self, head: [u8; FRAME_HEAD_LEN]) {
        let [high, middle, low, kind, flags, ..] = head;
        let len = u32::from_be_bytes([0, high, middle, low]) as usize;
        if matches!(kind, HEADERS | CONTINUATION) {
            self.in_head = true;
            self.more = flags & END_HEADERS == 0;
        }
        self.at = At::Payload(len);
        if len == 0 {
            self.end();
        }
    }

    /// The preface or a frame is over.
    fn end(&mut self) {
        self.in_head = self.more;
        self.at = FRAME;
    }
}

/// A connection whose heads have a deadline.
pub(super) struct Frames<S> {
    stream: S,
    framing: Framing,
    head: Patience,
}

impl<S> Frames<S> {
    pub(super) fn new(stream: S) -> Frames<S> {
        Frames {
            stream,
            framing: Framing::new(),
            head: Patience::default(),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Frames<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buffer.filled().len();
        let result = Pin::new(&mut this.stream).poll_read(context, buffer);
        let read = buffer.filled().get(before..).unwrap_or_default();
        this.framing.follow(read);
        if !this.framing.in_head {
            this.head.unset();
        } else if result.is_pending() && this.head.is_over(HEAD_TIME, context) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        result
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Frames<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::{Duration, Instant, sleep};

    fn frame(kind: u8, flags: u8, len: u8) -> Vec<u8> {
        let mut frame = vec![0, 0, len, kind, flags, 0, 0, 0, 1];
        frame.extend(vec![0xff; len.into()]);
        frame
    }

    /// After the preface, settings and these bytes.
    fn in_head_after(bytes: &[u8]) -> bool {
        let mut framing = Framing::new();
        framing.follow(HTTP2_PREFACE);
        framing.follow(&frame(4, 0, 0));
        framing.follow(bytes);
        framing.in_head
    }

    #[test]
    fn heads_last_from_their_first_frame_to_their_last() {
        let whole = frame(HEADERS, END_HEADERS, 20);
        let (first, middle, last) = (
            frame(HEADERS, 0, 20),
            frame(CONTINUATION, 0, 0),
            frame(CONTINUATION, END_HEADERS, 5),
        );
        assert!(Framing::new().in_head);
        assert!(!in_head_after(b""));
        assert!(!in_head_after(&whole));
        assert!(in_head_after(&whole[..whole.len() - 1]));
        assert!(in_head_after(&first));
        assert!(in_head_after(&[&first[..], &middle].concat()));
        assert!(!in_head_after(&[&first[..], &middle, &last].concat()));
        // The others may take their time, whatever is in them.
        for kind in [0, 3, 4, 6, 7, 8] {
            assert!(!in_head_after(&frame(kind, 0, 200)[..100]));
        }
        assert!(!in_head_after(&[frame(0, 0, 200), whole].concat()));
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(bytes: Vec<u8>, cut in 0_usize..64) {
            let cut = cut.min(bytes.len());
            let (mut whole, mut pieces) = (Framing::new(), Framing::new());
            whole.follow(&bytes);
            pieces.follow(&bytes[..cut]);
            pieces.follow(&bytes[cut..]);
            prop_assert_eq!((whole.at, whole.in_head), (pieces.at, pieces.in_head));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a30_slow_heads_are_cut() {
        for start in [0, 10, HTTP2_PREFACE.len()] {
            let (mut client, server) = tokio::io::duplex(1024);
            let mut server = Frames::new(server);
            client.write_all(&HTTP2_PREFACE[..start]).await.unwrap();
            if start == HTTP2_PREFACE.len() {
                client.write_all(&frame(HEADERS, 0, 3)).await.unwrap();
            }
            let slow = tokio::spawn(async move {
                while client.write_all(&[0]).await.is_ok() {
                    sleep(Duration::from_secs(1)).await;
                }
            });
            let began = Instant::now();
            let mut all = Vec::new();
            let error = server.read_to_end(&mut all).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
            assert!(began.elapsed() >= HEAD_TIME && began.elapsed() < HEAD_TIME * 2);
            drop(server);
            slow.await.unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn bodies_and_pauses_are_not() {
        let (mut client, server) = tokio::io::duplex(1024);
        let mut server = Frames::new(server);
        let read = tokio::spawn(async move {
            let mut all = Vec::new();
            server.read_to_end(&mut all).await.map(|_| all.len())
        });
        let mut sent = HTTP2_PREFACE.to_vec();
        sent.extend(frame(HEADERS, END_HEADERS, 3));
        client.write_all(&sent).await.unwrap();
        sleep(HEAD_TIME * 3).await;
        for byte in frame(0, 0, 20) {
            client.write_all(&[byte]).await.unwrap();
            sleep(HEAD_TIME).await;
        }
        drop(client);
        assert_eq!(read.await.unwrap().unwrap(), sent.len() + 29);
    }
}
