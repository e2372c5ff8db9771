//! Stands between the socket and the HTTP/1 parser, and sees to it that only
//! messages with one possible reading get through.
//!
//! The parser, as the RFCs allow, repairs some of what is ambiguous: bare line
//! feeds, a length beside a chunked coding, chunk extensions. A proxy in front
//! may repair it otherwise, and then the two disagree where a request ends.
//! The guard follows the framing itself and spoils the first byte of what is
//! ambiguous, so that the parser refuses the message and closes.
//!
//! It also ends connections that send a head too slowly, and lets a client
//! that is cut off in the middle hear why. It looks at heads and
//! framing only; bodies pass untouched.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::linger::Linger;
use super::patience::Patience;

/// From the first byte of a head to its last.
pub(super) const HEAD_TIME: Duration = Duration::from_secs(10);
/// Heads beyond this are not followed: the parser refuses them by size.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Bytes of trailers after a chunked body.
const TRAILER_BYTES_MAX: usize = 16 * 1024;
/// Hexadecimal digits of a chunk size that fits 64 bits.
const CHUNK_DIGITS_MAX: u32 = 16;
/// The end of a head.
const HEAD_END: &[u8] = b"\r\n\r\n";
/// No parser takes this byte in a head or in a chunk size.
const SPOILED: u8 = 0;

/// Where in a message the next byte is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// In a head, or between messages.
    Head,
    /// In a body with this many bytes to come.
    Body(u64),
    /// In a chunk size, after so many digits.
    ChunkSize { digits: u32, size: u64 },
    /// Behind the CR of a chunk size.
    ChunkSizeLf { size: u64 },
    /// In a chunk with this many bytes to come.
    ChunkData(u64),
    /// Before the CR after a chunk.
    ChunkCr,
    /// Before the LF after a chunk.
    ChunkLf,
    /// In the trailers.
    Trailer,
    /// In a head that is larger than any that is taken.
    TooLarge,
    /// Behind something ambiguous: nothing gets through any more.
    Spoiled,
}

/// Follows the framing of requests.
struct Framing {
    at: At,
    /// The head or trailers so far.
    lines: Vec<u8>,
}

impl Framing {
    fn new() -> Framing {
        Framing {
            at: At::Head,
            lines: Vec::new(),
        }
    }

    fn is_within_head(&self) -> bool {
        self.at == At::Head && !self.lines.is_empty()
    }

    fn is_between_messages(&self) -> bool {
        self.at == At::Head && self.lines.is_empty()
    }

    /// Follows more bytes, and spoils the first one that must not be.
    fn follow(&mut self, mut bytes: &mut [u8]) {
        while !bytes.is_empty() {
            let taken = match self.at {
                At::Head | At::Trailer => self.line(bytes),
                At::Body(left) => {
                    let (taken, left) = skip(bytes, left);
                    self.at = if left == 0 { At::Head } else { At::Body(left) };
                    taken
                }
                At::ChunkData(left) => {
                    let (taken, left) = skip(bytes, left);
                    self.at = if left == 0 {
                        At::ChunkCr
                    } else {
                        At::ChunkData(left)
                    };
                    taken
                }
                At::ChunkSize { .. } | At::ChunkSizeLf { .. } | At::ChunkCr | At::ChunkLf => {
                    self.chunk_byte(bytes)
                }
                At::TooLarge => return,
                At::Spoiled => {
                    bytes.fill(SPOILED);
                    return;
                }
            };
            bytes = bytes.get_mut(taken..).unwrap_or_default();
        }
    }

    /// Takes bytes of a head or of trailers, up to the end of a line.
    fn line(&mut self, bytes: &mut [u8]) -> usize {
        let end = bytes.iter().position(|b| *b == b'\n');
        let taken = end.map_or(bytes.len(), |end| end.saturating_add(1));
        let start = self.lines.len();
        self.lines
            .extend_from_slice(bytes.get(..taken).unwrap_or_default());
        if !self.has_room() {
            return self.refuse_size(bytes);
        }
        if has_lone_cr(
            self.lines
                .get(start.saturating_sub(1)..)
                .unwrap_or_default(),
        ) {
            self.spoil(bytes.get_mut(..taken));
            return taken;
        }
        if end.is_none() {
            return taken;
        }
        let is_good = if !self.lines.ends_with(b"\r\n") {
            false
        } else if self.lines.len() == 2 || self.lines.ends_with(b"\r\n\r\n") {
            self.end_of_lines()
        } else {
            true
        };
        if !is_good {
            self.spoil(bytes.get_mut(taken.saturating_sub(1)..taken));
        }
        taken
    }

    /// An empty line: before a request, after a head, or after trailers.
    fn end_of_lines(&mut self) -> bool {
        let next = match (self.at, self.lines.len()) {
            (At::Trailer, _) | (_, 2) => Some(At::Head),
            _ => framing(&self.lines),
        };
        self.lines.clear();
        match next {
            Some(at) => {
                self.at = at;
                true
            }
            None => false,
        }
    }

    fn has_room(&self) -> bool {
        let limit = match self.at {
            At::Trailer => TRAILER_BYTES_MAX,
            _ => HEAD_BYTES_MAX,
        };
        self.lines.len() <= limit
    }

    fn refuse_size(&mut self, bytes: &mut [u8]) -> usize {
        self.lines = Vec::new();
        if self.at == At::Trailer {
            self.spoil(Some(bytes));
        } else {
            self.at = At::TooLarge;
        }
        bytes.len()
    }

    fn chunk_byte(&mut self, bytes: &mut [u8]) -> usize {
        let Some(byte) = bytes.first().copied() else {
            return 0;
        };
        let next = match self.at {
            At::ChunkSize { digits, size } => match char::from(byte).to_digit(16) {
                Some(digit) if digits < CHUNK_DIGITS_MAX => Some(At::ChunkSize {
                    digits: digits.saturating_add(1),
                    size: (size << 4) | u64::from(digit),
                }),
                None if byte == b'\r' && digits > 0 => Some(At::ChunkSizeLf { size }),
                _ => None,
            },
            At::ChunkSizeLf { size: 0 } if byte == b'\n' => Some(At::Trailer),
            At::ChunkSizeLf { size } if byte == b'\n' => Some(At::ChunkData(size)),
            At::ChunkCr if byte == b'\r' => Some(At::ChunkLf),
            At::ChunkLf if byte == b'\n' => Some(At::ChunkSize { digits: 0, size: 0 }),
            _ => None,
        };
        match next {
            Some(at) => self.at = at,
            None => self.spoil(bytes.get_mut(..1)),
        }
        1
    }

    fn spoil(&mut self, bytes: Option<&mut [u8]>) {
        if let Some(bytes) = bytes {
            bytes.fill(SPOILED);
        }
        self.at = At::Spoiled;
        self.lines = Vec::new();
    }
}

/// How many of `bytes` belong to the `left` that are to come, and how many
/// are to come after them.
fn skip(bytes: &[u8], left: u64) -> (usize, u64) {
    let taken = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
    (taken, left.saturating_sub(taken as u64))
}

/// Whether a CR stands before anything but an LF. One at the end may still
/// get its LF.
fn has_lone_cr(bytes: &[u8]) -> bool {
    bytes
        .windows(2)
        .any(|pair| matches!(pair, [b'\r', next] if *next != b'\n'))
}

/// What follows a complete head. None if that has more than one reading.
fn framing(head: &[u8]) -> Option<At> {
    let mut lines = head.split(|b| *b == b'\n');
    let is_http_10 = lines.next()?.ends_with(b"HTTP/1.0\r");
    let (mut length, mut is_chunked) = (None, false);
    for line in lines {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if matches!(line.first(), Some(b' ' | b'\t')) {
            return None; // A folded line: the one before goes on.
        }
        let mut halves = line.splitn(2, |b| *b == b':');
        let (name, value) = (halves.next()?, halves.next().unwrap_or_default());
        let value = value.trim_ascii();
        if name.eq_ignore_ascii_case(b"content-length") {
            if length.is_some() || !value.iter().all(u8::is_ascii_digit) {
                return None;
            }
            length = Some(std::str::from_utf8(value).ok()?.parse::<u64>().ok()?);
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            if is_chunked || is_http_10 || !value.eq_ignore_ascii_case(b"chunked") {
                return None;
            }
            is_chunked = true;
        }
    }
    match (length, is_chunked) {
        (Some(_), true) => None,
        (None, true) => Some(At::ChunkSize { digits: 0, size: 0 }),
        (Some(length), false) if length > 0 => Some(At::Body(length)),
        _ => Some(At::Head),
    }
}

/// A connection under guard.
pub(super) struct Guard<S> {
    stream: S,
    framing: Framing,
    head: Patience,
    linger: Linger,
    /// The parser got an end of what was spoiled.
    has_ended: bool,
}

impl<S> Guard<S> {
    pub(super) fn new(stream: S) -> Guard<S> {
        Guard {
            stream,
            framing: Framing::new(),
            head: Patience::default(),
            linger: Linger::new(),
            has_ended: false,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guard<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buffer.filled().len();
        let result = Pin::new(&mut this.stream).poll_read(context, buffer);
        if let Some(read) = buffer.filled_mut().get_mut(before..) {
            this.framing.follow(read);
        }
        // The parser looks at a head when it seems to be over.
        if this.framing.at == At::Spoiled && !this.has_ended && buffer.remaining() >= HEAD_END.len()
        {
            buffer.put_slice(HEAD_END);
            this.has_ended = true;
            return Poll::Ready(Ok(()));
        }
        if !this.framing.is_within_head() {
            this.head.unset();
        } else if result.is_pending() && this.head.is_over(HEAD_TIME, context) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        result
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Guard<S> {
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
        let this = &mut *self;
        if this.framing.is_between_messages() {
            Pin::new(&mut this.stream).poll_shutdown(context)
        } else {
            this.linger.poll(&mut this.stream, context)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tokio::time::Instant;

    /// Follows `text`, cut into pieces of `size`, and says what is left of it.
    fn follow(text: &[u8], size: usize) -> (Vec<u8>, At) {
        let mut framing = Framing::new();
        let mut out = text.to_vec();
        for piece in out.chunks_mut(size) {
            framing.follow(piece);
        }
        (out, framing.at)
    }

    fn passes(text: &str) -> At {
        let mut ends = Vec::new();
        for size in [1, 2, 3, 7, usize::MAX] {
            let (out, at) = follow(text.as_bytes(), size.min(text.len()));
            assert_eq!(out, text.as_bytes(), "pieces of {size}");
            ends.push(at);
        }
        ends.dedup();
        assert_eq!(ends.len(), 1);
        ends[0]
    }

    fn spoils(text: &str) {
        for size in [1, 2, 3, 7, text.len()] {
            let (out, at) = follow(text.as_bytes(), size);
            assert_eq!(at, At::Spoiled, "{text:?} in pieces of {size}");
            assert_ne!(out, text.as_bytes());
            // What came before is not touched.
            let first = out.iter().position(|b| *b == SPOILED).unwrap();
            assert_eq!(&out[..first], &text.as_bytes()[..first]);
        }
    }

    #[test]
    fn ordinary_messages_pass() {
        assert_eq!(passes("GET /v2/ HTTP/1.1\r\nHost: a\r\n\r\n"), At::Head);
        assert_eq!(passes("\r\n\r\nGET / HTTP/1.0\r\n\r\n"), At::Head);
        assert_eq!(
            passes("PUT / HTTP/1.1\r\nContent-Length: 5\r\n\r\nab\ncd"),
            At::Head
        );
        assert_eq!(
            passes("PUT / HTTP/1.1\r\ncontent-length:5\r\n\r\nab"),
            At::Body(3)
        );
        let chunked = "PATCH / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n";
        assert_eq!(
            passes(&format!("{chunked}5\r\na\nb\rc\r\n0\r\n\r\n")),
            At::Head
        );
        assert_eq!(
            passes(&format!("{chunked}00A\r\n0123456789\r\n0\r\nX: y\r\n\r\n")),
            At::Head
        );
        assert_eq!(
            passes(&format!("{chunked}0\r\n\r\nGET / HTTP/1.1\r\n\r\n")),
            At::Head
        );
        let two = "PUT / HTTP/1.1\r\nContent-Length: 2\r\n\r\nabGET / HTTP/1.1\r\n\r\n";
        assert_eq!(passes(two), At::Head);
    }

    #[test]
    fn a33_ambiguous_heads_are_spoiled() {
        for headers in [
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
            "Content-Length: 5\r\nContent-Length: 6\r\n",
            "Content-Length: 5\r\ncontent-length: 5\r\n",
            "Content-Length: 5, 5\r\n",
            "Content-Length: +5\r\n",
            "Content-Length: -5\r\n",
            "Content-Length: 0x5\r\n",
            "Content-Length: \r\n",
            "Content-Length: 99999999999999999999\r\n",
            "Transfer-Encoding: chunked, identity\r\n",
            "Transfer-Encoding: identity\r\n",
            "Transfer-Encoding: xchunked\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "X: a\r\n b\r\n",
            "X: a\r\n\tb\r\n",
            "X: a\nY: b\r\n",
            "X: a\rY: b\r\n",
        ] {
            spoils(&format!("PUT / HTTP/1.1\r\n{headers}\r\n"));
        }
        spoils("GET / HTTP/1.1\nHost: a\r\n\r\n");
        spoils("GET / HTTP/1.1\r\nHost: a\r\n\n");
        spoils("\nGET / HTTP/1.1\r\n\r\n");
        spoils("GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n");
    }

    #[test]
    fn a33_chunk_tricks_are_spoiled() {
        let head = "PATCH / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
        for chunks in [
            "5;ext\r\nabcde\r\n",
            "5 \r\nabcde\r\n",
            " 5\r\nabcde\r\n",
            "5\nabcde\r\n",
            "\r\n",
            "0x5\r\nabcde\r\n",
            "-5\r\nabcde\r\n",
            "+5\r\nabcde\r\n",
            "00000000000000005\r\nabcde\r\n",
            "5\r\nabcdef\r\n",
            "5\r\nabcde\n",
            "0\r\nX: y\n\r\n",
            "0\r\nX: y\rZ\r\n\r\n",
        ] {
            spoils(&format!("{head}{chunks}"));
        }
    }

    #[test]
    fn a19_large_heads_are_left_to_the_parser() {
        let text = format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(HEAD_BYTES_MAX));
        assert_eq!(
            follow(text.as_bytes(), 1000),
            (text.into_bytes(), At::TooLarge)
        );
        let trailers = "X: yyyyyyyy\r\n".repeat(TRAILER_BYTES_MAX / 8);
        let head = "PATCH / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n";
        assert_eq!(
            follow(format!("{head}{trailers}").as_bytes(), 1000).1,
            At::Spoiled
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a30_slow_heads_are_cut() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let (mut client, server) = tokio::io::duplex(1024);
        let mut guard = Guard::new(server);
        client.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
        let mut buffer = [0; 64];
        assert_eq!(guard.read(&mut buffer).await.unwrap(), 16);
        let started = Instant::now();
        let error = guard.read(&mut buffer).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(started.elapsed() >= HEAD_TIME);
    }

    proptest! {
        /// However the bytes are cut, the outcome is the same.
        #[test]
        fn pieces_make_no_difference(
            text in "(GET / HTTP/1.1\r\n|Content-Length: [0-9]\r\n|Transfer-Encoding: chunked\r\n|\r\n|\n|\r|[0-9a]|;|x){0,30}",
            size in 1usize..20,
        ) {
            let whole = follow(text.as_bytes(), text.len().max(1));
            let pieces = follow(text.as_bytes(), size);
            prop_assert_eq!(whole.1, pieces.1);
            if whole.1 != At::Spoiled {
                prop_assert_eq!(whole.0, pieces.0);
            }
        }
    }
}
