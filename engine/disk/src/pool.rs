//! Where buffers come from and go back to.
//!
//! Owns: the limit, the memory kept for reuse, and who waits for room.
//! Invariants: memory in use and memory kept together stay within the limit,
//! except for what `take_now` and a single request above the limit add;
//! waiting is in order of arrival.
//! Refuses to know: time. `trim` is called from outside, and frees what the
//! calls since the last one did not need.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Semaphore;

use crate::buffer::Memory;
use crate::{BLOCK, Buffer};

/// Sizes that are kept for reuse, in bytes. Anything bigger is made to measure
/// and given back at once. The last has room for 1 MiB and a header block.
const CLASSES: [usize; 4] = [4 << 10, 64 << 10, 256 << 10, (1 << 20) + BLOCK];

/// A bounded store of buffers. Clones share one limit.
#[derive(Clone)]
pub struct Pool {
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    limit: usize,
    /// The limit in blocks.
    blocks: u32,
    /// Blocks that `take` may still hand out; first come, first served.
    room: Semaphore,
    state: Mutex<State>,
}

struct State {
    classes: Vec<Class>,
    /// Bytes of memory in buffers.
    in_use: usize,
    /// Bytes of memory kept for reuse.
    kept: usize,
}

struct Class {
    size: usize,
    free: Vec<Memory>,
    /// Fewest free since the last trim: what nobody needed.
    idle: usize,
}

/// The size of memory behind a request.
fn memory_size(capacity: usize) -> usize {
    let exact = round_up(capacity);
    CLASSES
        .into_iter()
        .find(|&size| size >= exact)
        .unwrap_or(exact)
}

/// Rounds up to a positive multiple of [`BLOCK`].
fn round_up(capacity: usize) -> usize {
    capacity
        .max(1)
        .checked_next_multiple_of(BLOCK)
        .unwrap_or(usize::MAX - (BLOCK - 1))
}

impl Pool {
    /// A pool of at most `limit` bytes. Nothing is allocated yet.
    #[must_use]
    pub fn new(limit: usize) -> Pool {
        let limit = round_up(limit);
        let blocks = u32::try_from(limit / BLOCK).unwrap_or(u32::MAX);
        let classes = CLASSES.map(|size| Class {
            size,
            free: Vec::new(),
            idle: 0,
        });
        let state = State {
            classes: classes.into(),
            in_use: 0,
            kept: 0,
        };
        let room = Semaphore::new(usize::try_from(blocks).unwrap_or(usize::MAX >> 3));
        Pool {
            shared: Arc::new(Shared {
                limit,
                blocks,
                room,
                state: Mutex::new(state),
            }),
        }
    }

    /// A buffer of at least `capacity` bytes, rounded up to [`BLOCK`]. Waits,
    /// in order of arrival, while the pool is at its limit. A request above
    /// the whole limit waits until everything else is back.
    pub async fn take(&self, capacity: usize) -> Buffer {
        let permits = self.shared.permits(capacity);
        match self.shared.room.acquire_many(permits).await {
            Ok(permit) => {
                permit.forget();
                self.build(capacity, permits)
            }
            // The semaphore is never closed.
            Err(_) => self.build(capacity, 0),
        }
    }

    /// As [`Pool::take`], but `None` instead of waiting.
    #[must_use]
    pub fn try_take(&self, capacity: usize) -> Option<Buffer> {
        let permits = self.shared.permits(capacity);
        let permit = self.shared.room.try_acquire_many(permits).ok()?;
        permit.forget();
        Some(self.build(capacity, permits))
    }

    /// As [`Pool::take`], but beyond the limit instead of waiting. For small
    /// buffers without which nothing would move: metadata, the journal.
    #[must_use]
    pub fn take_now(&self, capacity: usize) -> Buffer {
        self.try_take(capacity)
            .unwrap_or_else(|| self.build(capacity, 0))
    }

    /// Bytes of memory in buffers that are out, those beyond the limit included.
    #[must_use]
    pub fn in_use(&self) -> usize {
        self.shared.lock().in_use
    }

    /// Bytes of memory kept for reuse.
    #[must_use]
    pub fn kept(&self) -> usize {
        self.shared.lock().kept
    }

    /// The limit in bytes.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.shared.limit
    }

    /// Frees the memory that lay unused since the last call, and says how many
    /// bytes. Called every few seconds it returns an idle pool to nothing.
    pub fn trim(&self) -> usize {
        let mut state = self.shared.lock();
        let mut freed = Vec::new();
        for class in &mut state.classes {
            freed.extend(class.free.drain(..class.idle.min(class.free.len())));
            class.idle = class.free.len();
        }
        let bytes = freed.iter().map(|memory| memory.size()).sum();
        state.kept -= bytes;
        drop(state);
        bytes
    }

    fn build(&self, capacity: usize, permits: u32) -> Buffer {
        let memory = self.shared.memory(memory_size(capacity));
        Buffer::new(
            memory,
            round_up(capacity),
            Arc::clone(&self.shared),
            permits,
        )
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.shared.lock();
        f.debug_struct("Pool")
            .field("limit", &self.shared.limit)
            .field("in_use", &state.in_use)
            .field("kept", &state.kept)
            .finish_non_exhaustive()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is whole between any two statements that can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn permits(&self, capacity: usize) -> u32 {
        u32::try_from(memory_size(capacity) / BLOCK).map_or(self.blocks, |n| n.min(self.blocks))
    }

    /// Memory of exactly `size` bytes: a kept one, or new.
    fn memory(&self, size: usize) -> Memory {
        let mut state = self.lock();
        state.in_use = state.in_use.saturating_add(size);
        if let Some(memory) = state.reuse(size) {
            return memory;
        }
        let freed = state.make_room(self.limit);
        drop(state);
        drop(freed);
        Memory::new(size)
    }

    /// Takes memory back, with what it held of the limit.
    pub(crate) fn give(&self, memory: Memory, permits: u32) {
        let size = memory.size();
        let mut state = self.lock();
        state.in_use = state.in_use.saturating_sub(size);
        let fits = state.in_use + state.kept + size <= self.limit;
        let surplus = match state.classes.iter_mut().find(|class| class.size == size) {
            Some(class) if fits => {
                class.free.push(memory);
                state.kept += size;
                None
            }
            _ => Some(memory),
        };
        drop(state);
        drop(surplus);
        self.room.add_permits(usize::try_from(permits).unwrap_or(0));
    }
}

impl State {
    fn reuse(&mut self, size: usize) -> Option<Memory> {
        let class = self.classes.iter_mut().find(|class| class.size == size)?;
        let memory = class.free.pop();
        class.idle = class.idle.min(class.free.len());
        if memory.is_some() {
            self.kept -= size;
        }
        memory
    }

    /// Takes kept memory away, biggest first, until all of it is within `limit`.
    fn make_room(&mut self, limit: usize) -> Vec<Memory> {
        let mut freed = Vec::new();
        for class in self.classes.iter_mut().rev() {
            while self.in_use.saturating_add(self.kept) > limit {
                let Some(memory) = class.free.pop() else {
                    break;
                };
                self.kept -= memory.size();
                freed.push(memory);
            }
            class.idle = class.idle.min(class.free.len());
        }
        freed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;

    const MIB: usize = 1 << 20;

    #[test]
    fn memory_is_reused_and_counted_by_class() {
        let pool = Pool::new(MIB);
        let mut first = pool.take_now(5000);
        let address = first.address(0);
        assert_eq!(pool.in_use(), 64 << 10);
        drop(first);
        assert_eq!((pool.in_use(), pool.kept()), (0, 64 << 10));
        assert_eq!(pool.take_now(60_000).address(0), address);
    }

    #[test]
    fn take_waits_at_the_limit_and_goes_on_when_a_buffer_returns() {
        let pool = Pool::new(128 << 10);
        let first = pool.take(64 << 10).now_or_never().unwrap();
        let second = pool.take(64 << 10).now_or_never().unwrap();
        assert!(pool.try_take(1).is_none());
        let mut waiting = Box::pin(pool.take(64 << 10));
        assert!(waiting.as_mut().now_or_never().is_none());
        let beyond = pool.take_now(BLOCK);
        assert_eq!(pool.in_use(), (128 << 10) + BLOCK);
        drop(beyond);
        assert!(
            waiting.as_mut().now_or_never().is_none(),
            "beyond the limit is not of it"
        );
        drop(first);
        let third = waiting.now_or_never().unwrap();
        drop((second, third));
        assert_eq!(pool.in_use(), 0);
    }

    #[test]
    fn a_request_above_the_limit_waits_for_the_whole_pool() {
        let pool = Pool::new(64 << 10);
        let small = pool.take_now(BLOCK);
        assert!(pool.try_take(MIB).is_none());
        drop(small);
        let big = pool.try_take(MIB).unwrap();
        assert!(pool.try_take(BLOCK).is_none());
        drop(big);
        assert!(pool.try_take(BLOCK).is_some());
    }

    #[test]
    fn kept_and_used_memory_stay_within_the_limit() {
        let pool = Pool::new(2 * MIB);
        let small: Vec<_> = (0..8).map(|_| pool.try_take(256 << 10).unwrap()).collect();
        drop(small);
        assert_eq!(pool.kept(), 2 * MIB);
        let big = pool.try_take(MIB).unwrap();
        assert!(pool.in_use() + pool.kept() <= pool.limit());
        drop(big);
        assert!(pool.kept() <= pool.limit());
    }

    #[test]
    fn trim_frees_only_what_lay_idle() {
        let pool = Pool::new(4 * MIB);
        drop((pool.take_now(MIB), pool.take_now(MIB)));
        assert_eq!(pool.trim(), 0, "both were used since the start");
        drop(pool.take_now(MIB));
        assert_eq!(pool.trim(), MIB + BLOCK, "one of the two was not needed");
        assert_eq!(pool.trim(), MIB + BLOCK);
        assert_eq!(pool.kept(), 0);
    }
}
