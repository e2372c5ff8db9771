//! The memory that goes to the kernel.
//!
//! Owns: [`Memory`], and [`Buffer`] around it.
//! Invariants: memory is aligned to [`BLOCK`] and always initialised; its
//! address does not change while the buffer moves; a buffer that is dropped
//! gives its memory back to the pool it came from.
//! Refuses to know: limits and reuse; see [`crate::Pool`]. Who reads or writes
//! the bytes.

#![expect(
    unsafe_code,
    reason = "aligned memory, handed to the kernel by address"
)]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;

use bytes::Bytes;
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

use crate::BLOCK;
use crate::pool::Shared;

/// Memory of at least this size comes from `mmap`, so that giving it back
/// shrinks the process.
const MAP_FROM: usize = 64 << 10;

/// Aligned, initialised memory of a fixed size, or none (size 0).
pub(crate) struct Memory {
    at: NonNull<u8>,
    size: usize,
}

impl Memory {
    const NONE: Memory = Memory {
        at: NonNull::dangling(),
        size: 0,
    };

    /// Its size in bytes.
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// Zeroed memory. `size` is a positive multiple of [`BLOCK`]. Ends the
    /// process when there is none, as every allocation does.
    pub(crate) fn new(size: usize) -> Memory {
        let Ok(layout) = Layout::from_size_align(size, BLOCK) else {
            handle_alloc_error(Layout::new::<[u8; BLOCK]>())
        };
        let at = if size >= MAP_FROM {
            // SAFETY: a null hint lets the kernel choose the place, so no
            // mapping in use is replaced. Anonymous pages start as zeros and at
            // a page boundary, and a page is at least BLOCK bytes.
            let mapped = unsafe {
                mmap_anonymous(
                    std::ptr::null_mut(),
                    size,
                    ProtFlags::READ | ProtFlags::WRITE,
                    MapFlags::PRIVATE,
                )
            };
            mapped.map_or(std::ptr::null_mut(), |at| at.cast::<u8>())
        } else {
            // SAFETY: the layout's size is not zero: callers round up to BLOCK.
            unsafe { alloc_zeroed(layout) }
        };
        match NonNull::new(at) {
            Some(at) => Memory { at, size },
            None => handle_alloc_error(layout),
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if self.size >= MAP_FROM {
            // SAFETY: `new` mapped exactly this range, it is unmapped once,
            // here, and no reference into it outlives its owner.
            let unmapped = unsafe { munmap(self.at.as_ptr().cast(), self.size) };
            debug_assert!(unmapped.is_ok(), "a mapping of our own can be unmapped");
        } else if self.size > 0
            && let Ok(layout) = Layout::from_size_align(self.size, BLOCK)
        {
            // SAFETY: `new` allocated it with this very layout, and it is
            // freed once, here.
            unsafe { dealloc(self.at.as_ptr(), layout) }
        }
    }
}

// SAFETY: Memory is the only owner of its range, has no interior mutability and
// no tie to the thread that made it.
unsafe impl Send for Memory {}
// SAFETY: through a shared reference the range can only be read.
unsafe impl Sync for Memory {}

/// An owned buffer aligned to [`BLOCK`]. Its capacity is a multiple of
/// [`BLOCK`] and fixed. A fresh buffer is empty and its memory holds zeros or
/// bytes of an earlier use. Dropping it returns the memory to its pool.
pub struct Buffer {
    memory: Memory,
    capacity: usize,
    len: usize,
    origin: Option<Origin>,
}

/// Where the memory goes back to.
struct Origin {
    pool: Arc<Shared>,
    /// Blocks held of the pool's limit; 0 when taken beyond it.
    permits: u32,
}

impl Buffer {
    /// A buffer without memory and without a pool.
    #[must_use]
    pub fn empty() -> Buffer {
        Buffer {
            memory: Memory::NONE,
            capacity: 0,
            len: 0,
            origin: None,
        }
    }

    /// A buffer of `capacity` bytes in memory of at least that size.
    pub(crate) fn new(memory: Memory, capacity: usize, pool: Arc<Shared>, permits: u32) -> Buffer {
        let capacity = capacity.min(memory.size);
        let origin = Some(Origin { pool, permits });
        Buffer {
            memory,
            capacity,
            len: 0,
            origin,
        }
    }

    /// Bytes it can hold.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Bytes it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes that [`Buffer::extend`] would still take.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.capacity - self.len
    }

    /// Sets the length, at most the capacity. Bytes that were not written
    /// before are those of an earlier use.
    pub fn set_len(&mut self, len: usize) {
        self.len = len.min(self.capacity);
    }

    /// Sets the length to 0.
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// The bytes it holds.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: `len <= capacity <= memory.size`, all of it is initialised,
        // and `&self` keeps writers away.
        unsafe { std::slice::from_raw_parts(self.memory.at.as_ptr(), self.len) }
    }

    /// The whole capacity, whatever the length.
    #[must_use]
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: `capacity <= memory.size`, all of it is initialised, and
        // `&mut self` makes this the only reference.
        unsafe { std::slice::from_raw_parts_mut(self.memory.at.as_ptr(), self.capacity) }
    }

    /// Appends as much as fits and says how many bytes it took.
    pub fn extend(&mut self, bytes: &[u8]) -> usize {
        let from = self.len;
        let taken = bytes.len().min(self.remaining());
        if let (Some(to), Some(bytes)) = (
            self.as_mut_slice().get_mut(from..from + taken),
            bytes.get(..taken),
        ) {
            to.copy_from_slice(bytes);
        }
        self.len = from + taken;
        taken
    }

    /// Appends zeros up to the next multiple of [`BLOCK`].
    pub fn pad_to_block(&mut self) {
        let from = self.len;
        let to = from.next_multiple_of(BLOCK).min(self.capacity);
        if let Some(tail) = self.as_mut_slice().get_mut(from..to) {
            tail.fill(0);
        }
        self.len = to;
    }

    /// Turns it into shared bytes. The memory returns to its pool when the
    /// last clone is dropped.
    #[must_use]
    pub fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }

    /// The address of byte `from` for the kernel. Stays the same while the
    /// buffer is moved, and valid for `capacity - from` bytes while it lives.
    pub(crate) fn address(&mut self, from: usize) -> *mut u8 {
        // SAFETY: the offset is clamped to the capacity, so the result is
        // inside the allocation or one past its end.
        unsafe { self.memory.at.as_ptr().add(from.min(self.capacity)) }
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self.as_slice()
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffer")
            .field("len", &self.len)
            .field("capacity", &self.capacity)
            .finish_non_exhaustive()
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Some(origin) = self.origin.take() {
            let memory = std::mem::replace(&mut self.memory, Memory::NONE);
            origin.pool.give(memory, origin.permits);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Pool;

    const MIB: usize = 1 << 20;

    #[test]
    fn memory_is_aligned_zeroed_and_as_long_as_asked() {
        for capacity in [
            0,
            1,
            4096,
            4097,
            65_536,
            100_000,
            MIB,
            MIB + 4096,
            3 * MIB + 1,
        ] {
            let pool = Pool::new(64 * MIB);
            let mut buffer = pool.take_now(capacity);
            assert_eq!(buffer.address(0).addr() % BLOCK, 0);
            assert_eq!(buffer.capacity(), capacity.max(1).next_multiple_of(BLOCK));
            assert!(buffer.is_empty());
            assert!(buffer.as_mut_slice().iter().all(|&byte| byte == 0));
            drop(buffer);
            assert_eq!(pool.in_use(), 0);
        }
    }

    #[test]
    fn extend_stops_at_the_capacity_and_padding_is_zero() {
        let pool = Pool::new(MIB);
        let mut buffer = pool.take_now(2 * BLOCK);
        buffer.as_mut_slice().fill(0xff);
        assert_eq!(buffer.extend(&[1; 5000]), 5000);
        buffer.pad_to_block();
        assert_eq!(buffer.len(), 2 * BLOCK);
        assert_eq!(buffer.as_slice()[..5000], [1; 5000]);
        assert!(buffer.as_slice()[5000..].iter().all(|&byte| byte == 0));
        assert_eq!(buffer.extend(&[1; 10]), 0);
        buffer.clear();
        assert_eq!(buffer.extend(&[2; 3 * BLOCK]), 2 * BLOCK);
        buffer.set_len(usize::MAX);
        assert_eq!(buffer.len(), 2 * BLOCK);
    }

    #[test]
    fn frozen_bytes_return_when_the_last_clone_is_gone() {
        let pool = Pool::new(MIB);
        let mut buffer = pool.take_now(BLOCK);
        buffer.extend(b"abc");
        let bytes = buffer.freeze();
        let part = bytes.slice(1..);
        drop(bytes);
        assert_eq!(part, &b"bc"[..]);
        assert_eq!(pool.in_use(), BLOCK);
        drop(part);
        assert_eq!(pool.in_use(), 0);
    }
}
