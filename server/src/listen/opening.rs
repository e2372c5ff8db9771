//! The first bytes of a connection: which protocol they open, and the answer
//! to a client that came with the wrong one.

use std::future::poll_fn;
use std::io;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::sleep;

use super::linger::Linger;

/// What a client that speaks HTTP/2 sends first.
pub(super) const HTTP2_PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The type of the record that a TLS client sends first. No method begins so.
const TLS_HANDSHAKE: u8 = 22;
/// Pause between looks at a connection that has sent a part of a preface.
const SNIFF_PAUSE: Duration = Duration::from_millis(10);
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

/// What a connection opens with. None is TLS. Looks without reading.
pub(super) async fn sniff(stream: &TcpStream) -> io::Result<Option<Protocol>> {
    let mut first = [0; HTTP2_PREFACE.len()];
    loop {
        let seen = stream.peek(&mut first).await?;
        let seen = first.get(..seen).unwrap_or_default();
        match seen.first() {
            None => return Err(io::ErrorKind::UnexpectedEof.into()),
            Some(&TLS_HANDSHAKE) => return Ok(None),
            Some(_) if !HTTP2_PREFACE.starts_with(seen) => return Ok(Some(Protocol::Http1)),
            Some(_) if seen.len() == HTTP2_PREFACE.len() => return Ok(Some(Protocol::Http2)),
            Some(_) => sleep(SNIFF_PAUSE).await,
        }
    }
}

/// Says in HTTP what is wrong with the connection as a whole, and closes it.
pub(super) async fn refuse(mut stream: TcpStream, text: &str) -> io::Result<()> {
    let answer = format!(
        "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{text}",
        text.len()
    );
    stream.write_all(answer.as_bytes()).await?;
    let mut linger = Linger::new();
    poll_fn(|context| linger.poll(&mut stream, context)).await
}
