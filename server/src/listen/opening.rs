//! The first bytes of a connection: which protocol they open, and the answer
//! to a client that came with the wrong one.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::linger::Linger;

/// What a client that speaks HTTP/2 sends first.
pub(super) const HTTP2_PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The type of the record that a TLS client sends first. No method begins so.
const TLS_HANDSHAKE: u8 = 22;
/// For a client that speaks no TLS where TLS is spoken.
pub(super) const TLS_HERE: &str =
    "This port speaks TLS: use https:// where the address says http://.\n";
/// For a client that speaks TLS where none is spoken. Some take any answer in
/// HTTP as the sign to try again without TLS.
pub(super) const NO_TLS_HERE: &str =
    "This port speaks no TLS: use http:// where the address says https://.\n";

/// A version of HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// HTTP/1.1, and 1.0.
    Http1,
    /// HTTP/2.
    Http2,
}

/// A connection whose first bytes are read once more after a look at them.
pub(super) struct Replay<S> {
    stream: S,
    first: [u8; HTTP2_PREFACE.len()],
    /// What there is of them.
    len: usize,
    /// How many were read once more.
    replayed: usize,
}

impl<S> Replay<S> {
    pub(super) fn new(stream: S) -> Replay<S> {
        Replay {
            stream,
            first: [0; HTTP2_PREFACE.len()],
            len: 0,
            replayed: 0,
        }
    }
}

/// What a connection opens with. None is TLS. An end before that is clear is
/// left to a parser of HTTP/1.1 to find.
pub(super) async fn sniff<S>(connection: &mut Replay<S>) -> io::Result<Option<Protocol>>
where
    S: AsyncRead + Unpin,
{
    loop {
        let (seen, free) = connection.first.split_at_mut(connection.len);
        match seen.first() {
            Some(&TLS_HANDSHAKE) => return Ok(None),
            Some(_) if !HTTP2_PREFACE.starts_with(seen) => return Ok(Some(Protocol::Http1)),
            Some(_) if free.is_empty() => return Ok(Some(Protocol::Http2)),
            _ => {}
        }
        let read = connection.stream.read(free).await?;
        match (read, connection.len) {
            (0, 0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            (0, _) => return Ok(Some(Protocol::Http1)),
            _ => connection.len = connection.len.saturating_add(read),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Replay<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let left = this.first.get(this.replayed..this.len).unwrap_or_default();
        let taken = left.len().min(buffer.remaining());
        if taken == 0 {
            return Pin::new(&mut this.stream).poll_read(context, buffer);
        }
        buffer.put_slice(left.get(..taken).unwrap_or_default());
        this.replayed = this.replayed.saturating_add(taken);
        // What came with them, so that parsers see no more pieces than came.
        if this.replayed == this.len
            && buffer.remaining() > 0
            && let Poll::Ready(Err(error)) = Pin::new(&mut this.stream).poll_read(context, buffer)
        {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Replay<S> {
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

/// Says in HTTP what is wrong with the connection as a whole, and closes it.
pub(super) async fn refuse<S>(mut stream: S, text: &str) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let answer = format!(
        "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{text}",
        text.len()
    );
    stream.write_all(answer.as_bytes()).await?;
    let mut linger = Linger::new();
    poll_fn(|context| linger.poll(&mut stream, context)).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Waker;

    #[tokio::test]
    async fn the_first_bytes_tell_the_protocol_and_are_read_once_more() {
        use Protocol::{Http1, Http2};
        let after_preface = [&HTTP2_PREFACE[..], b"more"].concat();
        for (sent, expected) in [
            (&b"GET / HTTP/1.1\r\n"[..], Some(Http1)),
            (b"PUT /", Some(Http1)),
            (b"PRI", Some(Http1)),
            (&after_preface, Some(Http2)),
            (b"\x16\x03\x01", None),
        ] {
            for step in [1, 3, 100] {
                let (mut client, server) = tokio::io::duplex(64);
                let mut server = Replay::new(server);
                let sending = async {
                    for piece in sent.chunks(step) {
                        client.write_all(piece).await.unwrap();
                        tokio::task::yield_now().await;
                    }
                    drop(client);
                };
                let reading = async {
                    let protocol = sniff(&mut server).await.unwrap();
                    let mut all = Vec::new();
                    server.read_to_end(&mut all).await.unwrap();
                    (protocol, all)
                };
                let ((), (protocol, all)) = tokio::join!(sending, reading);
                assert_eq!((protocol, &all[..]), (expected, sent), "{step}");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_part_of_a_preface_is_waited_for_without_looking_and_its_end_is_seen() {
        let (mut client, server) = tokio::io::duplex(64);
        let mut server = Replay::new(server);
        client.write_all(b"P").await.unwrap();
        let mut sniffing = Box::pin(sniff(&mut server));
        let began = tokio::time::Instant::now();
        let mut context = Context::from_waker(Waker::noop());
        assert!(sniffing.as_mut().poll(&mut context).is_pending());
        drop(client);
        assert_eq!(sniffing.await.unwrap(), Some(Protocol::Http1));
        assert!(began.elapsed().is_zero(), "it looked again and again");
        let (client, server) = tokio::io::duplex(64);
        drop(client);
        let error = sniff(&mut Replay::new(server)).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
