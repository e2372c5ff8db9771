//! HTTP by hand, for requests no client library would send.
//!
//! Owns: writing bytes to a socket, or into TLS, as they are and reading what
//! comes back. Knows of HTTP only as much as reading one answer takes.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};

use crate::h2::{self, Frame};
use crate::reply::Reply;
use crate::tls::Certificates;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// A connection that sends what it is told, byte for byte.
#[derive(Debug)]
pub struct Wire {
    stream: Stream,
    /// Received, and no whole frame yet.
    frames: Vec<u8>,
}

#[derive(Debug)]
enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(stream) => stream.read(buffer),
            Stream::Tls(stream) => read_tls(stream, buffer),
        }
    }
}

/// Reads without writing anything on the way, as `StreamOwned` does: a server
/// that closed still has something to say.
fn read_tls(
    stream: &mut StreamOwned<ClientConnection, TcpStream>,
    buffer: &mut [u8],
) -> io::Result<usize> {
    loop {
        match stream.conn.reader().read(buffer) {
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            read => return read,
        }
        stream.conn.read_tls(&mut stream.sock)?;
        let state = stream.conn.process_new_packets();
        state.map_err(|e| io::Error::new(ErrorKind::InvalidData, e))?;
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(stream) => stream.write(bytes),
            Stream::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Stream::Plain(stream) => stream.flush(),
            Stream::Tls(stream) => stream.flush(),
        }
    }
}

impl Wire {
    /// Connects.
    ///
    /// # Panics
    /// When nothing listens there.
    #[must_use]
    pub fn connect(address: SocketAddr) -> Wire {
        let stream = TcpStream::connect(address).expect("connect to the server");
        stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
        stream.set_write_timeout(Some(PATIENCE)).expect("timeout");
        stream.set_nodelay(true).expect("nodelay");
        Wire {
            stream: Stream::Plain(stream),
            frames: Vec::new(),
        }
    }

    /// Connects and speaks TLS, offering these protocols.
    ///
    /// # Panics
    /// When the handshake fails.
    #[must_use]
    pub fn over_tls(address: SocketAddr, trust: &Certificates, protocols: &[&str]) -> Wire {
        let Stream::Plain(mut stream) = Wire::connect(address).stream else {
            panic!("a new connection is plain");
        };
        let name = ServerName::from(address.ip());
        let session = ClientConnection::new(trust.client(protocols), name);
        let mut session = session.expect("a session");
        while session.is_handshaking() {
            session.complete_io(&mut stream).expect("a TLS handshake");
        }
        Wire {
            stream: Stream::Tls(Box::new(StreamOwned::new(session, stream))),
            frames: Vec::new(),
        }
    }

    /// Connects and starts HTTP/2 over TLS.
    #[must_use]
    pub fn http2(address: SocketAddr, trust: &Certificates) -> Wire {
        let mut wire = Wire::over_tls(address, trust, &["h2"]);
        assert_eq!(wire.protocol(), "h2");
        wire.send(h2::START);
        wire
    }

    /// The protocol that was agreed on in the handshake, if one was.
    #[must_use]
    pub fn protocol(&self) -> String {
        match &self.stream {
            Stream::Plain(_) => String::new(),
            Stream::Tls(stream) => {
                String::from_utf8_lossy(stream.conn.alpn_protocol().unwrap_or_default())
                    .into_owned()
            }
        }
    }

    /// The server's certificate in DER.
    #[must_use]
    pub fn certificate(&self) -> Vec<u8> {
        match &self.stream {
            Stream::Plain(_) => Vec::new(),
            Stream::Tls(stream) => stream
                .conn
                .peer_certificates()
                .and_then(|chain| chain.first())
                .map_or_else(Vec::new, |first| first.to_vec()),
        }
    }

    /// Waits at most this long for each piece that is sent or received.
    pub fn set_patience(&mut self, time: Duration) {
        let stream = self.tcp();
        stream.set_read_timeout(Some(time)).expect("timeout");
        stream.set_write_timeout(Some(time)).expect("timeout");
    }

    fn tcp(&self) -> &TcpStream {
        match &self.stream {
            Stream::Plain(stream) => stream,
            Stream::Tls(stream) => stream.get_ref(),
        }
    }

    /// The next frame of HTTP/2; nothing when the connection is over. Settings
    /// and pings of the server are answered on the way.
    pub fn frame(&mut self) -> Option<Frame> {
        loop {
            let mut frames = std::mem::take(&mut self.frames);
            let frame = h2::take(&mut frames);
            let received = frame.is_some() || self.more(&mut frames) > 0;
            self.frames = frames;
            match frame {
                Some(frame) => {
                    let has_answer = matches!(frame.kind, h2::SETTINGS | h2::PING);
                    if has_answer && frame.flags & h2::ACK == 0 {
                        let payload = match frame.kind {
                            h2::PING => frame.payload.as_slice(),
                            _ => &[],
                        };
                        self.send(&h2::frame(frame.kind, h2::ACK, 0, payload));
                    }
                    return Some(frame);
                }
                None if received => {}
                None => return None,
            }
        }
    }

    /// Sends these bytes. A server that already answered and closed is no
    /// error here: the answer is what counts.
    pub fn send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok() && self.stream.flush().is_ok()
    }

    /// Says that no more will be sent.
    pub fn finish(&mut self) {
        if let Stream::Tls(stream) = &mut self.stream {
            stream.conn.send_close_notify();
            let _ = stream.flush();
        }
        let _ = self.tcp().shutdown(Shutdown::Write);
    }

    /// Reads one answer. The body ends by its length, by its chunks or, for
    /// other answers, by the end of the connection. Status 0 when the server
    /// closed without a word.
    pub fn reply(&mut self, what: &str) -> Reply {
        let mut seen = Vec::new();
        let head = loop {
            if let Some(end) = find(&seen, b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&seen[..end]).into_owned();
                seen.drain(..end + 4);
                if head.starts_with("HTTP/1.1 100") {
                    continue;
                }
                break head;
            }
            if self.more(&mut seen) == 0 {
                return Reply {
                    what: what.to_owned(),
                    status: 0,
                    headers: Vec::new(),
                    body: seen,
                };
            }
        };
        let mut reply = parse_head(what, &head);
        let empty = what.starts_with("HEAD ") || matches!(reply.status, 204 | 304);
        if empty {
            return reply;
        }
        if reply
            .find("transfer-encoding")
            .is_some_and(|v| v == "chunked")
        {
            reply.body = self.chunks(seen);
            return reply;
        }
        let length = reply.find("content-length").and_then(|v| v.parse().ok());
        while length.is_none_or(|n| seen.len() < n) && self.more(&mut seen) > 0 {}
        if let Some(n) = length {
            seen.truncate(n);
        }
        reply.body = seen;
        reply
    }

    /// Reads what comes until the server closes.
    pub fn rest(&mut self) -> Vec<u8> {
        let mut seen = Vec::new();
        while self.more(&mut seen) > 0 {}
        seen
    }

    /// Reads up to `n` bytes and no more: for a client that goes away early.
    pub fn some(&mut self, n: usize) -> Vec<u8> {
        let mut seen = vec![0; n];
        let mut done = 0;
        while done < n {
            match self.stream.read(&mut seen[done..]) {
                Ok(0) | Err(_) => break,
                Ok(got) => done += got,
            }
        }
        seen.truncate(done);
        seen
    }

    fn chunks(&mut self, mut seen: Vec<u8>) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let Some(end) = find(&seen, b"\r\n") else {
                if self.more(&mut seen) == 0 {
                    return body;
                }
                continue;
            };
            let size = String::from_utf8_lossy(&seen[..end]).into_owned();
            let size = usize::from_str_radix(size.trim(), 16).expect("size of a chunk");
            while seen.len() < end + 2 + size + 2 {
                if self.more(&mut seen) == 0 {
                    return body;
                }
            }
            body.extend_from_slice(&seen[end + 2..end + 2 + size]);
            seen.drain(..end + 2 + size + 2);
            if size == 0 {
                return body;
            }
        }
    }

    fn more(&mut self, seen: &mut Vec<u8>) -> usize {
        let mut piece = [0; 16 << 10];
        match self.stream.read(&mut piece) {
            Ok(n) => {
                seen.extend_from_slice(&piece[..n]);
                n
            }
            // Over TLS an end without a word is told from one with it.
            Err(e)
                if matches!(
                    e.kind(),
                    ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof
                ) =>
            {
                0
            }
            Err(e) => panic!("the server neither answers nor closes: {e}"),
        }
    }
}

/// Sends one request with an exact target and reads the answer. `Host`,
/// `Connection: close` and, for a body, `Content-Length` are added.
#[must_use]
pub fn request(
    mut wire: Wire,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Reply {
    let host = wire.tcp().peer_addr().map(|address| address.to_string());
    let host = host.unwrap_or_default();
    let mut head = format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if !body.is_empty() || matches!(method, "POST" | "PUT" | "PATCH") {
        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    head.push_str("\r\n");
    let mut bytes = head.into_bytes();
    bytes.extend_from_slice(body);
    wire.send(&bytes);
    let shown: String = target.chars().take(120).collect();
    wire.reply(&format!("{method} {shown}"))
}

fn parse_head(what: &str, head: &str) -> Reply {
    let mut lines = head.split("\r\n");
    let status = lines
        .next()
        .and_then(|line| line.split(' ').nth(1))
        .and_then(|code| code.parse().ok())
        .unwrap_or_else(|| panic!("{what}: not a status line: {head}"));
    let headers = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    Reply {
        what: what.to_owned(),
        status,
        headers,
        body: Vec::new(),
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|w| w == what)
}
