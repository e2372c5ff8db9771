//! How many pieces of an answer are held, and who waits until it is none.
//!
//! Invariant: whoever found pieces held after it left its waker is woken when
//! the last is let go of.

use std::task::{Context, Poll};

use super::AtomicWaker;
use super::atomic::{AtomicUsize, Ordering};

/// Counts pieces. One task waits at a time.
#[derive(Default)]
pub(super) struct Held {
    pieces: AtomicUsize,
    waiting: AtomicWaker,
}

impl Held {
    /// One more is held.
    pub(super) fn add(&self) {
        self.pieces.fetch_add(1, Ordering::AcqRel);
    }

    /// One is let go of.
    pub(super) fn let_go(&self) {
        self.pieces.fetch_sub(1, Ordering::AcqRel);
        self.waiting.wake();
    }

    /// Ready when nothing is held.
    pub(super) fn poll_none(&self, context: &Context<'_>) -> Poll<()> {
        let none = || self.pieces.load(Ordering::Acquire) == 0;
        if none() {
            return Poll::Ready(());
        }
        self.waiting.register(context.waker());
        // Let go of since the first look, before anybody was to be woken.
        if none() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }
}
