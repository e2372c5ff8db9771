//! A server without storage. It answers from memory and drops what it is
//! sent, so its row says what client and loopback TCP can carry.
//!
//! `GET /bytes/N` answers N bytes; a POST answers 202 with a Location; a PUT
//! reads its body and answers 201. Requests are not checked further: only
//! this program's client speaks to it.

use crate::error::{Context as _, Result};
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// Bytes written in one call.
const CHUNK: usize = 256 * 1024;
/// Longest request head, in bytes.
const MAX_HEAD: usize = 16 * 1024;

/// Serves until the process is killed, with as many threads as cores.
pub(crate) fn run(addr: SocketAddr) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_io()
        .build()
        .context(|| "start a runtime".to_owned())?;
    runtime.block_on(async {
        let listener = TcpListener::bind(addr)
            .await
            .context(|| format!("listen on {addr}"))?;
        loop {
            let (stream, _) = listener
                .accept()
                .await
                .context(|| format!("accept on {addr}"))?;
            tokio::spawn(serve(stream));
        }
    })
}

/// Answers requests until the client closes or breaks the little grammar.
async fn serve(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let hot = vec![0x5a; CHUNK];
    let mut sink = vec![0; CHUNK];
    let mut unused: Vec<u8> = Vec::with_capacity(MAX_HEAD);
    loop {
        let Some(end) = unused.windows(4).position(|four| four == b"\r\n\r\n") else {
            if unused.len() > MAX_HEAD || stream.read_buf(&mut unused).await? == 0 {
                return Ok(());
            }
            continue;
        };
        let head: Vec<u8> = unused.drain(..end + 4).collect();
        let Some(request) = Request::parse(&head) else {
            return Ok(());
        };
        let mut left = request.length;
        let buffered = usize::try_from(left)
            .unwrap_or(usize::MAX)
            .min(unused.len());
        unused.drain(..buffered);
        left -= buffered as u64;
        while left > 0 {
            let room = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
            let read = stream
                .read(sink.get_mut(..room).unwrap_or_default())
                .await?;
            if read == 0 {
                return Ok(());
            }
            left -= read as u64;
        }
        answer(&mut stream, &request, &hot).await?;
    }
}

async fn answer(stream: &mut TcpStream, request: &Request, hot: &[u8]) -> std::io::Result<()> {
    let (line, mut left) = match request.method {
        Method::Get => ("200 OK", request.wanted),
        Method::Post => ("202 Accepted\r\nLocation: /sink", 0),
        Method::Put => ("201 Created", 0),
    };
    let mut first = format!("HTTP/1.1 {line}\r\nContent-Length: {left}\r\n\r\n").into_bytes();
    let with_head = usize::try_from(left).unwrap_or(usize::MAX).min(16 * 1024);
    first.extend_from_slice(hot.get(..with_head).unwrap_or_default());
    left -= with_head as u64;
    stream.write_all(&first).await?;
    while left > 0 {
        let take = usize::try_from(left).unwrap_or(CHUNK).min(hot.len());
        stream
            .write_all(hot.get(..take).unwrap_or_default())
            .await?;
        left -= take as u64;
    }
    Ok(())
}

#[derive(Debug, PartialEq, Eq)]
enum Method {
    Get,
    Post,
    Put,
}

#[derive(Debug, PartialEq, Eq)]
struct Request {
    method: Method,
    /// Bytes a GET asks for.
    wanted: u64,
    /// Bytes of body that follow the head.
    length: u64,
}

impl Request {
    fn parse(head: &[u8]) -> Option<Request> {
        let text = std::str::from_utf8(head).ok()?;
        let mut lines = text.split("\r\n");
        let mut words = lines.next()?.split(' ');
        let method = match words.next()? {
            "GET" => Method::Get,
            "POST" => Method::Post,
            "PUT" => Method::Put,
            _ => return None,
        };
        let wanted = match method {
            Method::Get => words.next()?.strip_prefix("/bytes/")?.parse().ok()?,
            Method::Post | Method::Put => 0,
        };
        let mut length = 0;
        for line in lines {
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse().ok()?;
            }
        }
        Some(Request {
            method,
            wanted,
            length,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Connection;

    #[test]
    fn requests() {
        let get = Request::parse(b"GET /bytes/77 HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        assert_eq!((get.method, get.wanted, get.length), (Method::Get, 77, 0));
        let put = Request::parse(b"PUT /sink?d HTTP/1.1\r\ncontent-length: 9\r\n\r\n").unwrap();
        assert_eq!((put.method, put.length), (Method::Put, 9));
        assert_eq!(Request::parse(b"GET /other HTTP/1.1\r\n\r\n"), None);
        assert_eq!(Request::parse(b"DELETE /bytes/1 HTTP/1.1\r\n\r\n"), None);
    }

    #[tokio::test]
    async fn bodies_both_ways_on_one_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            serve(stream).await.unwrap();
        });
        let mut connection = Connection::open(addr).await.unwrap();
        for size in [0, 1, 16 * 1024 + 1, 3_000_000] {
            let get = format!("GET /bytes/{size} HTTP/1.1\r\n\r\n");
            connection.send(&[get.as_bytes()]).await.unwrap();
            let head = connection.receive_head().await.unwrap();
            assert_eq!((head.status, head.length), (200, size));
            connection.drop_body(size).await.unwrap();

            let body = vec![1; size as usize];
            let put = format!("PUT /sink HTTP/1.1\r\nContent-Length: {size}\r\n\r\n");
            connection.send(&[put.as_bytes(), &body]).await.unwrap();
            let head = connection.receive_head().await.unwrap();
            assert_eq!((head.status, head.length), (201, 0));
        }
        let post = b"POST /v2/a/blobs/uploads/ HTTP/1.1\r\nContent-Length: 0\r\n\r\n";
        connection.send(&[post]).await.unwrap();
        let head = connection.receive_head().await.unwrap();
        assert_eq!(head.location.as_deref(), Some("/sink"));
    }
}
