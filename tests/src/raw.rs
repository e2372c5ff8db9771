//! HTTP by hand, for requests no client library would send.
//!
//! Owns: writing bytes to a socket as they are and reading what comes back.
//! Knows of HTTP only as much as reading one answer takes.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use crate::reply::Reply;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// A connection that sends what it is told, byte for byte.
#[derive(Debug)]
pub struct Wire {
    stream: TcpStream,
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
        Wire { stream }
    }

    /// Sends these bytes. A server that already answered and closed is no
    /// error here: the answer is what counts.
    pub fn send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// Says that no more will be sent.
    pub fn finish(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Write);
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
            Err(e) if e.kind() == ErrorKind::ConnectionReset => 0,
            Err(e) => panic!("the server neither answers nor closes: {e}"),
        }
    }
}

/// Sends one request with an exact target and reads the answer. `Host`,
/// `Connection: close` and, for a body, `Content-Length` are added.
#[must_use]
pub fn request(
    address: SocketAddr,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Reply {
    let mut head =
        format!("{method} {target} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if !body.is_empty() || matches!(method, "POST" | "PUT" | "PATCH") {
        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    head.push_str("\r\n");
    let mut wire = Wire::connect(address);
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
