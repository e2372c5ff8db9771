//! One keep-alive HTTP/1.1 connection that costs the client as little as
//! possible: request bytes come prepared, bodies are dropped in the kernel.
//!
//! Sends no request before the last response was read to its end. Knows
//! nothing of registries.

use crate::error::{Context as _, Error, Result};
use crate::http::{Head, MAX_HEAD, parse_head};
use rustix::net::RecvFlags;
use std::io;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, Interest};
use tokio::net::{TcpSocket, TcpStream};

/// Bytes asked for in one receive call when a body is read or dropped.
const PIECE: usize = 1024 * 1024;

/// A connection to one server.
pub(crate) struct Connection {
    addr: SocketAddr,
    stream: TcpStream,
    /// Bytes received and not yet used: `head.get(start..)`.
    head: Vec<u8>,
    start: usize,
    /// Room for body pieces; made when first needed.
    piece: Vec<u8>,
}

impl Connection {
    /// Connects.
    pub(crate) async fn open(addr: SocketAddr) -> Result<Connection> {
        let stream = TcpStream::connect(addr).await;
        Connection::over(addr, stream)
    }

    /// Connects with a receive buffer of about `bytes`.
    pub(crate) async fn open_small(addr: SocketAddr, bytes: u32) -> Result<Connection> {
        let connect = async {
            let socket = TcpSocket::new_v4()?;
            socket.set_recv_buffer_size(bytes)?;
            socket.connect(addr).await
        };
        Connection::over(addr, connect.await)
    }

    fn over(addr: SocketAddr, stream: io::Result<TcpStream>) -> Result<Connection> {
        let stream = stream.context(|| format!("connect to {addr}"))?;
        stream
            .set_nodelay(true)
            .context(|| format!("set TCP_NODELAY to {addr}"))?;
        Ok(Connection {
            addr,
            stream,
            head: Vec::with_capacity(MAX_HEAD),
            start: 0,
            piece: Vec::new(),
        })
    }

    /// Writes the parts of one request. A server that answered early and
    /// stopped reading is reported by its answer, not by the broken pipe.
    pub(crate) async fn send(&mut self, parts: &[&[u8]]) -> Result<()> {
        for part in parts {
            let Err(source) = self.stream.write_all(part).await else {
                continue;
            };
            let early = self.receive_head().await;
            return Err(match early {
                Ok(head) => Error::Answer(format!(
                    "the server answered {} before it had the whole body",
                    head.status
                )),
                Err(_) => Error::Io {
                    action: format!("send to {}", self.addr),
                    source,
                },
            });
        }
        Ok(())
    }

    /// Reads the next response head; its body has to be taken by
    /// [`drop_body`](Self::drop_body) or [`read_body`](Self::read_body).
    pub(crate) async fn receive_head(&mut self) -> Result<Head> {
        loop {
            let unused = self.head.get(self.start..).unwrap_or_default();
            let parsed = parse_head(unused)
                .map_err(|error| Error::Answer(format!("{error} (from {})", self.addr)))?;
            if let Some((head, used)) = parsed {
                self.start += used;
                return Ok(head);
            }
            self.head.drain(..self.start.min(self.head.len()));
            self.start = 0;
            let read = self.stream.read_buf(&mut self.head).await;
            if read.context(|| format!("receive from {}", self.addr))? == 0 {
                return Err(self.cut());
            }
        }
    }

    /// Drops a body of `length` bytes without copying it out of the kernel.
    pub(crate) async fn drop_body(&mut self, length: u64) -> Result<()> {
        let mut left = length - self.buffered(length).len() as u64;
        self.used(length - left);
        self.make_piece(left);
        while left > 0 {
            let piece = &mut self.piece;
            let stream = &self.stream;
            let room = usize::try_from(left).unwrap_or(PIECE).min(piece.len());
            let dropped = stream
                .async_io(Interest::READABLE, || {
                    let room = piece.get_mut(..room).unwrap_or_default();
                    let (_, length) = rustix::net::recv(stream, room, RecvFlags::TRUNC)?;
                    Ok(length)
                })
                .await
                .context(|| format!("receive from {}", self.addr))?;
            if dropped == 0 {
                return Err(self.cut());
            }
            left -= dropped as u64;
        }
        Ok(())
    }

    /// Hands a body of `length` bytes to `sink`, piece by piece.
    pub(crate) async fn read_body(
        &mut self,
        length: u64,
        mut sink: impl FnMut(&[u8]),
    ) -> Result<()> {
        let buffered = self.buffered(length);
        sink(buffered);
        let mut left = length - buffered.len() as u64;
        self.used(length - left);
        self.make_piece(left);
        while left > 0 {
            let room = usize::try_from(left).unwrap_or(PIECE).min(self.piece.len());
            let piece = self.piece.get_mut(..room).unwrap_or_default();
            let read = self.stream.read(piece).await;
            let read = read.context(|| format!("receive from {}", self.addr))?;
            if read == 0 {
                return Err(self.cut());
            }
            sink(piece.get(..read).unwrap_or_default());
            left -= read as u64;
        }
        Ok(())
    }

    /// Follows the server's wish to close.
    pub(crate) async fn after(&mut self, head: &Head) -> Result<()> {
        if head.close {
            *self = Connection::open(self.addr).await?;
        }
        Ok(())
    }

    /// What of the next `length` body bytes came with the head.
    fn buffered(&self, length: u64) -> &[u8] {
        let unused = self.head.get(self.start..).unwrap_or_default();
        let take = usize::try_from(length)
            .unwrap_or(usize::MAX)
            .min(unused.len());
        unused.get(..take).unwrap_or_default()
    }

    /// Marks `count` received bytes as used.
    fn used(&mut self, count: u64) {
        self.start += usize::try_from(count).unwrap_or(usize::MAX);
    }

    /// Makes room for body pieces if any byte is still to come.
    fn make_piece(&mut self, left: u64) {
        if left > 0 && self.piece.is_empty() {
            self.piece = vec![0; PIECE];
        }
    }

    fn cut(&self) -> Error {
        Error::Io {
            action: format!("receive a whole response from {}", self.addr),
            source: io::ErrorKind::UnexpectedEof.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    /// A server that sends `pieces`, each in a write of its own, then closes.
    async fn serve(pieces: Vec<Vec<u8>>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            for piece in pieces {
                stream.write_all(&piece).await.unwrap();
                tokio::time::sleep(std::time::Duration::from_millis(2)).await;
            }
        });
        addr
    }

    fn response(body: &[u8]) -> Vec<u8> {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        [head.as_bytes(), body].concat()
    }

    #[tokio::test]
    async fn bodies_are_cut_exactly_where_they_end() {
        let big: Vec<u8> = (0..3_000_000_u32).map(|n| n as u8).collect();
        let all = [
            response(b"one"),
            response(&big),
            response(b""),
            response(b"four"),
        ]
        .concat();
        let pieces = all.chunks(700_001).map(<[u8]>::to_vec).collect();
        let mut connection = Connection::open(serve(pieces).await).await.unwrap();

        let head = connection.receive_head().await.unwrap();
        let mut body = Vec::new();
        let take = connection.read_body(head.length, |piece| body.extend_from_slice(piece));
        take.await.unwrap();
        assert_eq!(body, b"one");

        let head = connection.receive_head().await.unwrap();
        assert_eq!(head.length, 3_000_000);
        connection.drop_body(head.length).await.unwrap();

        let head = connection.receive_head().await.unwrap();
        connection.drop_body(head.length).await.unwrap();
        let head = connection.receive_head().await.unwrap();
        assert_eq!(head.length, 4);
        connection.drop_body(head.length).await.unwrap();
        assert!(
            connection.receive_head().await.is_err(),
            "the server closed"
        );
    }

    #[tokio::test]
    async fn a_whole_body_is_read_byte_for_byte() {
        let big: Vec<u8> = (0..2_500_000_u32).map(|n| (n / 7) as u8).collect();
        let mut connection = Connection::open(serve(vec![response(&big)]).await)
            .await
            .unwrap();
        let head = connection.receive_head().await.unwrap();
        let mut body = Vec::new();
        let take = connection.read_body(head.length, |piece| body.extend_from_slice(piece));
        take.await.unwrap();
        assert_eq!(body, big);
    }

    #[tokio::test]
    async fn a_cut_body_is_an_error() {
        let mut short = response(&[7; 100_000]);
        short.truncate(50_000);
        for drop in [true, false] {
            let mut connection = Connection::open(serve(vec![short.clone()]).await)
                .await
                .unwrap();
            let head = connection.receive_head().await.unwrap();
            let result = if drop {
                connection.drop_body(head.length).await
            } else {
                connection.read_body(head.length, |_| {}).await
            };
            assert!(result.is_err(), "drop: {drop}");
        }
    }
}
