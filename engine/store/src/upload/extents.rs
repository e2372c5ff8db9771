//! From pieces of a body to extents on the disk.
//!
//! Owns: the buffers of an upload. Invariants: it waits for a buffer while it
//! holds none, and its writes end without it, so that uploads never wait for
//! each other in a circle; what waits for clients holds a bounded part of the
//! buffers.

use std::sync::Arc;

use futures_util::future::Either;
use futures_util::stream::StreamExt;
use orlop_disk::{Buffer, Kind};
use orlop_format::location::Extent;
use orlop_format::record::{INLINE_LIMIT, MAX_EXTENTS};
use orlop_format::segment::ExtentHeader;
use orlop_format::{BLOCK, checksum};

use super::Upload;
use crate::config::{BUFFER_WAIT, SHORT_EXTENTS, WRITE_AHEAD};
use crate::error::{Error, Invalid, Result};
use crate::segment::{Intake, SegmentFile, Slot};
use crate::space::Claim;
use crate::sync::oneshot;

/// How a write ended, and its bytes.
pub(super) type Landed = (Result<()>, usize);

/// Bytes of payload in the extent that starts at `offset` of an upload. They
/// grow, so that [`MAX_EXTENTS`] reach beyond 100 GiB even if
/// [`SHORT_EXTENTS`] of them are short.
fn piece(offset: u64) -> usize {
    const MIB: usize = 1024 * 1024;
    match offset >> 30 {
        0 => MIB,
        1..8 => MIB.saturating_mul(4),
        _ => MIB.saturating_mul(8),
    }
}

impl Upload {
    /// Gathers bytes behind the last extent; full buffers go to the disk.
    pub(super) async fn fill(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            if let Some(large) = &mut self.large {
                let taken = large.extend(bytes);
                bytes = bytes.get(taken..).unwrap_or_default();
                if large.remaining() == 0 {
                    self.emit().await?;
                }
            } else if self.small.len().saturating_add(bytes.len()) <= INLINE_LIMIT {
                self.small.extend_from_slice(bytes);
                bytes = &[];
            } else {
                let size = piece(self.state.placed).saturating_add(BLOCK);
                let mut large = self.take(size).await?;
                large.set_len(BLOCK);
                large.extend(&self.small);
                self.small.clear();
                self.large = Some(large);
            }
        }
        Ok(())
    }

    /// A buffer of `size` bytes. Called while the upload holds none.
    async fn take(&self, size: usize) -> Result<Buffer> {
        if let Some(buffer) = self.core.pool.try_take(size) {
            return Ok(buffer);
        }
        let taken = std::pin::pin!(self.core.pool.take(size));
        match futures_util::future::select(taken, self.core.runtime.sleep(BUFFER_WAIT)).await {
            Either::Left((buffer, _)) => Ok(buffer),
            Either::Right(_) => Err(Error::Busy {
                what: "the store: every buffer is in use, and it".to_owned(),
            }),
        }
    }

    /// Whether the large buffer may wait for the client. If too many wait
    /// already, what it holds becomes a short extent.
    pub(super) async fn hold(&mut self) -> Result<()> {
        let Some(large) = self.large.as_ref().filter(|_| self.held.is_none()) else {
            return Ok(());
        };
        self.held = self.core.sessions.hold_buffer(large.capacity());
        if self.held.is_none() && self.state.extents.len() < SHORT_EXTENTS {
            self.emit().await?;
        }
        Ok(())
    }

    /// Writes what lies behind the last extent as one extent.
    pub(super) async fn emit(&mut self) -> Result<()> {
        let mut buffer = match self.large.take() {
            Some(large) => large,
            None if self.small.is_empty() => return Ok(()),
            None => {
                let size = self.small.len().saturating_add(BLOCK);
                let mut buffer = self.core.pool.take_now(size);
                buffer.set_len(BLOCK);
                buffer.extend(&self.small);
                self.small.clear();
                buffer
            }
        };
        self.held = None;
        if self.state.extents.len() >= MAX_EXTENTS {
            return Err(Invalid::TooLarge {
                what: "the count of extents of a blob",
                limit: MAX_EXTENTS as u64,
            }
            .into());
        }
        let payload = buffer.as_slice().get(BLOCK..).unwrap_or_default();
        let len = payload.len();
        let header = ExtentHeader {
            upload: self.session.id,
            offset: self.state.placed,
            len: u32::try_from(len).unwrap_or(u32::MAX),
            table: checksum::table(payload),
        };
        buffer.pad_to_block();
        let total = buffer.len();
        self.core
            .room
            .admit(total as u64, Claim::Keeps, self.core.runtime.now())?;
        let slot = self
            .core
            .segments
            .allocate(Intake::Clients, total as u64, header.checksum())
            .await?;
        let (block, body) = header.encode(&slot.segment.header, 0);
        if let Some(front) = buffer.as_mut_slice().get_mut(..BLOCK) {
            front.copy_from_slice(&block);
        }
        self.state.holds.push(Arc::clone(&slot.hold));
        self.state.extents.push(Extent {
            segment: slot.segment.id(),
            offset: slot.offset,
            len: header.len,
            body,
        });
        self.state.placed = self.state.placed.saturating_add(len as u64);
        self.core.metrics.extent(total as u64);
        self.write(&slot, buffer);
        self.settle(WRITE_AHEAD).await
    }

    /// Starts a write, which gives its buffer back whether the upload goes on
    /// or not.
    fn write(&mut self, slot: &Slot, buffer: Buffer) {
        let (answer, landed) = oneshot::channel();
        self.writing = self.writing.saturating_add(buffer.len());
        self.writes.push(landed);
        let write = Arc::clone(&slot.segment.file).write_at(u64::from(slot.offset), buffer);
        let poison = self.core.poison.clone();
        let hold = Arc::clone(&slot.hold);
        self.core.runtime.task(Box::pin(async move {
            let (result, buffer) = write.await;
            drop(hold);
            let len = buffer.len();
            drop(buffer);
            let result = result.map_err(|error| match error.kind {
                Kind::Full => error.into(),
                _ => poison.set(&error),
            });
            let _ = answer.send((result, len));
        }));
    }

    /// Waits until at most `limit` bytes are on their way.
    pub(super) async fn settle(&mut self, limit: usize) -> Result<()> {
        loop {
            let next = if self.writing > limit {
                self.writes.next().await
            } else {
                futures_util::future::poll_immediate(self.writes.next())
                    .await
                    .flatten()
            };
            match next {
                Some(Ok((result, len))) => {
                    self.writing = self.writing.saturating_sub(len);
                    result?;
                }
                // The write was dropped with its task.
                Some(Err(_)) => {
                    return Err(Error::Busy {
                        what: "the store: it is shutting down".to_owned(),
                    });
                }
                None => return Ok(()),
            }
        }
    }

    /// The segments that hold extents which the log does not know yet.
    pub(super) async fn unsynced(&self) -> Result<Vec<Arc<SegmentFile>>> {
        let unsaved = self.state.extents.iter().skip(self.state.saved);
        let mut ids: Vec<_> = unsaved.map(|extent| extent.segment).collect();
        ids.sort_unstable();
        ids.dedup();
        let mut segments = Vec::with_capacity(ids.len());
        for id in ids {
            segments.push(self.core.segments.get(&id).await?);
        }
        Ok(segments)
    }

    /// Sends what is larger than a record's payload to the disk and waits for
    /// all writes.
    pub(super) async fn drain(&mut self) -> Result<()> {
        if self.large.is_some() {
            self.emit().await?;
        }
        self.settle(0).await
    }
}
