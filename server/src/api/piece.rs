//! Bytes of an answer between its content and the socket, counted until the
//! connection lets go of them.
//!
//! A connection asks for more as soon as it has room, and keeps what it has
//! sent a part of: two pages for each slow client, where one would do. So a
//! body looks at what is still held before it fetches more.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use futures_util::task::AtomicWaker;

/// Bytes of one answer that the connection may hold when it gets more.
const UNSENT_MAX: usize = 64 * 1024;

/// Bytes of one answer that the connection holds.
#[derive(Clone, Default)]
pub(super) struct Unsent(Arc<Inner>);

#[derive(Default)]
struct Inner {
    bytes: AtomicUsize,
    waiting: AtomicWaker,
}

impl Unsent {
    /// Ready when fewer than [`UNSENT_MAX`] are held.
    pub(super) fn poll_few(&self, context: &Context<'_>) -> Poll<()> {
        let few = || self.0.bytes.load(Ordering::Acquire) < UNSENT_MAX;
        if few() {
            return Poll::Ready(());
        }
        self.0.waiting.register(context.waker());
        // Let go of since the first look, before anybody was to be woken.
        if few() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    /// Counts these as held until they are dropped.
    pub(super) fn piece(&self, bytes: Bytes) -> Piece {
        let len = bytes.len();
        self.0.bytes.fetch_add(len, Ordering::AcqRel);
        Piece {
            bytes,
            held: Some((self.clone(), len)),
        }
    }
}

/// A piece of an answer.
pub struct Piece {
    bytes: Bytes,
    held: Option<(Unsent, usize)>,
}

impl From<Bytes> for Piece {
    /// The only piece of its answer: nothing waits for it.
    fn from(bytes: Bytes) -> Piece {
        Piece { bytes, held: None }
    }
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        if let Some((unsent, len)) = self.held.take() {
            unsent.0.bytes.fetch_sub(len, Ordering::AcqRel);
            unsent.0.waiting.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::task::noop_waker_ref;
    use std::future::poll_fn;

    #[tokio::test]
    async fn what_is_held_holds_up_the_next_until_it_is_dropped() {
        let unsent = Unsent::default();
        let page = || Bytes::from(vec![7; UNSENT_MAX]);
        let small = unsent.piece(Bytes::from_static(b"abc"));
        assert!(
            unsent
                .poll_few(&Context::from_waker(noop_waker_ref()))
                .is_ready()
        );
        let mut large = unsent.piece(page());
        large.advance(UNSENT_MAX - 1);
        assert_eq!(large.chunk(), [7]);
        // Its memory is held as long as its last byte.
        assert!(
            unsent
                .poll_few(&Context::from_waker(noop_waker_ref()))
                .is_pending()
        );
        let waiter = unsent.clone();
        let waiting = tokio::spawn(async move {
            poll_fn(|context| waiter.poll_few(context)).await;
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(small);
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(large);
        waiting.await.unwrap();
    }
}
