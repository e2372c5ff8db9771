//! Closes a connection whose client still speaks, so that it hears the answer.
//!
//! A system that closes a connection with bytes nobody has read resets it, and
//! a reset makes the client forget what it has not read yet: the very answer
//! that says why. So what still comes is read away, for a while.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::patience::Patience;

/// How long a client may go on.
const LINGER_TIME: Duration = Duration::from_secs(2);
/// How many bytes it may go on.
const LINGER_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Bytes read away at once.
const STEP: usize = 8 * 1024;

/// The end of one connection.
pub(super) struct Linger {
    left: usize,
    time: Patience,
    has_shut: bool,
}

impl Linger {
    pub(super) fn new() -> Linger {
        Linger {
            left: LINGER_BYTES_MAX,
            time: Patience::default(),
            has_shut: false,
        }
    }

    /// Ends our side, then reads until the client's ends.
    pub(super) fn poll<S>(
        &mut self,
        stream: &mut S,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        if !self.has_shut {
            ready!(Pin::new(&mut *stream).poll_shutdown(context))?;
            self.has_shut = true;
        }
        let mut step = [0; STEP];
        while self.left > 0 && !self.time.is_over(LINGER_TIME, context) {
            let mut step = ReadBuf::new(&mut step);
            if ready!(Pin::new(&mut *stream).poll_read(context, &mut step)).is_err() {
                break;
            }
            if step.filled().is_empty() {
                break;
            }
            self.left = self.left.saturating_sub(step.filled().len());
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::Instant;

    #[tokio::test(start_paused = true)]
    async fn a_client_that_goes_on_is_read_to_its_end() {
        let (mut client, mut server) = tokio::io::duplex(64);
        let task = tokio::spawn(async move {
            server.write_all(b"no").await.unwrap();
            let mut linger = Linger::new();
            poll_fn(|context| linger.poll(&mut server, context)).await
        });
        client.write_all(&[0; 100_000]).await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "no");
        drop(client);
        task.await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_never_ends_is_left() {
        let (client, mut server) = tokio::io::duplex(64);
        let began = Instant::now();
        let mut linger = Linger::new();
        poll_fn(|context| linger.poll(&mut server, context))
            .await
            .unwrap();
        assert!(began.elapsed() >= LINGER_TIME && began.elapsed() < LINGER_TIME * 2);
        drop(client);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_says_too_much_is_left() {
        let (mut client, mut server) = tokio::io::duplex(1024 * 1024);
        let task = tokio::spawn(async move {
            let mut linger = Linger::new();
            poll_fn(|context| linger.poll(&mut server, context)).await
        });
        let all = vec![0; LINGER_BYTES_MAX * 2];
        assert!(client.write_all(&all).await.is_err());
        task.await.unwrap().unwrap();
    }
}
