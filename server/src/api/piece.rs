//! Bytes of an answer between its content and the socket, counted until the
//! connection lets go of them.
//!
//! A connection asks for more as soon as it has room, and keeps what it has
//! sent a part of. So an answer gets more only when nothing of it is held any
//! more. And since one connection may have many answers that nobody takes, a
//! piece that keeps a page of memory alive needs a place; where there is none,
//! content goes out in small copies instead. So nobody waits for another's
//! place, and no client can hold up the others, or itself.
//!
//! Worst case: [`PIECES_MAX`] pages of 256 KiB are 256 MiB, whatever clients
//! do. On top of that come the small copies of stalled answers: 4 KiB for each
//! of 32 streams of each of 4,096 connections are 512 MiB, and 128 MiB for the
//! 1,024 connections of one peer. What the store reads ahead is bounded there.

mod held;

use std::sync::Arc;
use std::sync::atomic;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use futures_util::task::AtomicWaker;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use held::Held;

/// A piece up to this size is a copy of its own and needs no place.
pub(super) const SMALL: usize = 4 * 1024;
/// Larger pieces that answers of one connection hold at once: as many as keep
/// a few pulls busy.
pub(super) const CONNECTION_PIECES_MAX: usize = 8;
/// Larger pieces that answers of all connections hold at once.
const PIECES_MAX: usize = 1024;

/// Places for the larger pieces of answers.
#[derive(Clone)]
pub struct Allowance {
    all: Arc<Semaphore>,
    connection: Arc<Semaphore>,
}

/// The place of one piece, free again when this is dropped.
pub(super) struct Place {
    _all: OwnedSemaphorePermit,
    _connection: Option<OwnedSemaphorePermit>,
}

impl Default for Allowance {
    /// All the places there are, for a first connection.
    fn default() -> Allowance {
        Allowance {
            all: Arc::new(Semaphore::new(PIECES_MAX)),
            connection: Arc::new(Semaphore::new(CONNECTION_PIECES_MAX)),
        }
    }
}

impl Allowance {
    /// The same places, for another connection.
    #[must_use]
    pub fn for_another(&self) -> Allowance {
        Allowance {
            all: Arc::clone(&self.all),
            connection: Arc::new(Semaphore::new(CONNECTION_PIECES_MAX)),
        }
    }

    /// A place, if there is one.
    pub(super) fn take(&self) -> Option<Place> {
        let connection = Arc::clone(&self.connection).try_acquire_owned().ok()?;
        self.take_beyond().map(|place| Place {
            _connection: Some(connection),
            ..place
        })
    }

    /// A place beyond those of the connection, for what cannot be made smaller.
    pub(super) fn take_beyond(&self) -> Option<Place> {
        Some(Place {
            _all: Arc::clone(&self.all).try_acquire_owned().ok()?,
            _connection: None,
        })
    }
}

/// Is told when bytes of an answer go out. Dropped when the connection holds
/// none of them and asks for no more.
pub trait Watch: Send + Sync {
    /// Some went out.
    fn moved(&self);
}

/// What the connection holds of one answer.
#[derive(Clone, Default)]
pub(super) struct Unsent(Arc<Inner>);

#[derive(Default)]
struct Inner {
    held: Held,
    watch: Option<Arc<dyn Watch>>,
}

impl Unsent {
    /// Nothing so far. What becomes of it is told to `watch`.
    pub(super) fn new(watch: Option<Arc<dyn Watch>>) -> Unsent {
        Unsent(Arc::new(Inner {
            watch,
            ..Inner::default()
        }))
    }

    /// Ready when nothing is held.
    pub(super) fn poll_none(&self, context: &Context<'_>) -> Poll<()> {
        self.0.held.poll_none(context)
    }

    /// Counts these as held until they are dropped, and the place as taken.
    pub(super) fn piece(&self, bytes: Bytes, place: Option<Place>) -> Piece {
        self.0.held.add();
        self.moved();
        Piece {
            bytes,
            place,
            unsent: self.clone(),
        }
    }

    fn moved(&self) {
        if let Some(watch) = &self.0.watch {
            watch.moved();
        }
    }
}

/// A piece of an answer.
pub struct Piece {
    bytes: Bytes,
    place: Option<Place>,
    unsent: Unsent,
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
        self.unsent.moved();
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        // First, so that the next piece finds it.
        self.place = None;
        self.bytes = Bytes::new();
        self.unsent.0.held.let_go();
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
        let is_ready = || {
            unsent
                .poll_none(&Context::from_waker(noop_waker_ref()))
                .is_ready()
        };
        assert!(is_ready());
        let mut piece = unsent.piece(Bytes::from_static(b"abc"), None);
        piece.advance(2);
        assert_eq!(piece.chunk(), b"c");
        // Its memory is held as long as its last byte.
        assert!(!is_ready());
        let waiter = unsent.clone();
        let waiting = tokio::spawn(async move {
            poll_fn(|context| waiter.poll_none(context)).await;
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(piece);
        waiting.await.unwrap();
    }

    #[test]
    fn a_connection_has_few_places_and_all_of_them_no_more_than_there_are() {
        let first = Allowance::default();
        let held: Vec<_> = std::iter::from_fn(|| first.take()).collect();
        assert_eq!(held.len(), CONNECTION_PIECES_MAX);
        let others: Vec<_> = (0..PIECES_MAX)
            .map(|_| first.for_another())
            .filter_map(|other| other.take())
            .collect();
        assert_eq!(others.len(), PIECES_MAX - CONNECTION_PIECES_MAX);
        assert!(first.take_beyond().is_none());
        drop(held);
        assert!(first.take().is_some());
    }
}
