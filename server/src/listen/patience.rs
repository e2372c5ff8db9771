//! Deadlines on a socket.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// A client that takes no byte of an answer for this long is given up.
pub(super) const WRITE_IDLE: Duration = Duration::from_secs(120);

/// A deadline that is set when something starts to wait.
#[derive(Default)]
pub(super) struct Patience {
    sleep: Option<Pin<Box<Sleep>>>,
    is_set: bool,
}

impl Patience {
    pub(super) fn is_over(&mut self, time: Duration, context: &mut Context<'_>) -> bool {
        let deadline = || Instant::now().checked_add(time);
        if !self.is_set
            && let Some(deadline) = deadline()
        {
            self.is_set = true;
            match &mut self.sleep {
                Some(sleep) => sleep.as_mut().reset(deadline),
                None => self.sleep = Some(Box::pin(tokio::time::sleep_until(deadline))),
            }
        }
        match &mut self.sleep {
            Some(sleep) => sleep.as_mut().poll(context).is_ready(),
            None => false,
        }
    }

    pub(super) fn unset(&mut self) {
        self.is_set = false;
    }
}

/// A socket whose writes fail when nothing is taken for [`WRITE_IDLE`].
pub(super) struct WriteDeadline<S> {
    stream: S,
    write: Patience,
}

impl<S> WriteDeadline<S> {
    pub(super) fn new(stream: S) -> WriteDeadline<S> {
        WriteDeadline {
            stream,
            write: Patience::default(),
        }
    }

    fn written(
        &mut self,
        result: Poll<io::Result<usize>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if result.is_ready() {
            self.write.unset();
        } else if self.write.is_over(WRITE_IDLE, context) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        result
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for WriteDeadline<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WriteDeadline<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.written(result, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.written(result, context)
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
    use tokio::io::AsyncWriteExt;

    #[tokio::test(start_paused = true)]
    async fn slow_readers_are_cut() {
        let (client, server) = tokio::io::duplex(16);
        let mut stream = WriteDeadline::new(server);
        let error = stream.write_all(&[0; 64]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(client);
    }
}
