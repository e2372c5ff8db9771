//! Uploads: bytes on their way to being a blob.
//!
//! A session lives in memory from its opening and in the log from its first
//! checkpoint; after a restart it goes on at its last durable offset. One
//! request at a time works on it, through an [`Upload`].
//!
//! Body pieces go into a pooled, aligned buffer and are hashed as they pass;
//! a full buffer becomes one extent in one write. What is at most
//! [`INLINE_LIMIT`] at the end goes into the journal record instead. A commit
//! moves nothing.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use orlop_disk::{Buffer, Moved};
use orlop_format::digest::{Algorithm, Digest, Hasher};
use orlop_format::location::Extent;
use orlop_format::record::{
    Checkpoint, Commit, HashState, INLINE_LIMIT, MAX_EXTENTS, MAX_NOTE, Record, UploadId,
};
use orlop_format::segment::ExtentHeader;
use orlop_format::{BLOCK, checksum};
use tokio::sync::OwnedMutexGuard;

use crate::config::{CHECKPOINT_EVERY, WRITE_AHEAD};
use crate::core::Core;
use crate::error::{Error, Invalid, Result};
use crate::journal::queue::Fate;
use crate::segment::SegmentFile;
use crate::session::{Session, State};

/// Version of the saved hash states this code writes and reads.
const HASH_VERSION: u8 = 1;
/// The first buffer of an upload, bytes: most blobs never need a larger one.
const FIRST_BUFFER: usize = 64 * 1024;

/// Bytes of payload in the extent that starts at `offset` of an upload. They
/// grow, so that [`MAX_EXTENTS`] reach far beyond 100 GiB.
fn piece(offset: u64) -> usize {
    const MIB: usize = 1024 * 1024;
    match offset >> 30 {
        0 => MIB,
        1..8 => MIB.saturating_mul(4),
        _ => MIB.saturating_mul(8),
    }
}

/// An upload that one request works on.
///
/// Dropped without [`Upload::checkpoint`] it falls back to its last durable
/// offset.
pub struct Upload {
    core: Arc<Core>,
    session: Arc<Session>,
    state: OwnedMutexGuard<State>,
    /// Room for a header block, then bytes behind the last extent.
    buffer: Buffer,
    writes: FuturesUnordered<BoxFuture<'static, Moved>>,
    /// Bytes on their way.
    writing: usize,
    /// Whether the state equals the log.
    kept: bool,
    /// Whether the store itself makes this blob.
    internal: bool,
}

/// What a finished upload became.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Committed {
    /// The digest it was committed under.
    pub digest: Digest,
    /// Its bytes.
    pub size: u64,
    /// Whether the store did not have it before.
    pub new: bool,
}

impl Drop for Upload {
    fn drop(&mut self) {
        if !self.kept {
            let opened = self.state.opened;
            *self.state = State {
                stale: opened,
                opened,
                ..State::fresh(self.session.also)
            };
        }
    }
}

impl std::fmt::Debug for Upload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upload")
            .field("id", &self.session.id)
            .field("offset", &self.offset())
            .finish()
    }
}

impl Upload {
    /// Takes up the upload `id` of `owner`.
    pub(crate) async fn resume(core: &Arc<Core>, id: UploadId, owner: &str) -> Result<Self> {
        core.poison.check()?;
        let (session, state) = core.sessions.hold(core, id, owner)?;
        let mut upload = Self {
            core: Arc::clone(core),
            session,
            state,
            buffer: Buffer::empty(),
            writes: FuturesUnordered::new(),
            writing: 0,
            kept: false,
            internal: false,
        };
        if upload.state.stale {
            upload.load().await?;
        }
        let tail = std::mem::take(&mut upload.state.tail);
        upload.fill(&tail).await?;
        Ok(upload)
    }

    /// Marks the blob as the store's own.
    pub(crate) fn internal(mut self) -> Self {
        self.internal = true;
        self
    }

    /// Bytes received so far.
    pub fn offset(&self) -> u64 {
        self.state.received
    }

    /// Bytes in the buffer behind the header block.
    fn pending(&self) -> usize {
        self.buffer.len().saturating_sub(BLOCK)
    }

    /// Takes bytes in. Waits while too much is on its way to the disk.
    ///
    /// # Errors
    /// [`Error::Full`] when there is no room: what is durable stays.
    pub async fn append(&mut self, bytes: Bytes) -> Result<()> {
        self.kept = false;
        for hasher in &mut self.state.hashers {
            hasher.update(&bytes);
        }
        self.state.received = self.state.received.saturating_add(bytes.len() as u64);
        self.fill(&bytes).await?;
        let durable = self.session.durable.load(Ordering::Relaxed);
        if self.state.received.saturating_sub(durable) >= CHECKPOINT_EVERY {
            self.checkpoint().await?;
        }
        Ok(())
    }

    /// Puts bytes into the buffer; full buffers go to the disk.
    async fn fill(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            if self.buffer.remaining() == 0 {
                self.grow(bytes.len()).await?;
            }
            let taken = self.buffer.extend(bytes);
            bytes = bytes.get(taken..).unwrap_or_default();
        }
        Ok(())
    }

    /// Makes room in the buffer: a larger one, or an empty one.
    async fn grow(&mut self, coming: usize) -> Result<()> {
        let start = self.state.received.saturating_sub(coming as u64);
        let largest = piece(start).saturating_add(BLOCK);
        if self.buffer.capacity() >= largest {
            return self.emit().await;
        }
        let wanted = self.buffer.len().saturating_add(coming);
        let size = if wanted <= FIRST_BUFFER {
            FIRST_BUFFER
        } else {
            largest
        };
        let mut next = self.core.pool.take(size).await;
        next.clear();
        if self.buffer.is_empty() {
            next.set_len(BLOCK);
        } else {
            next.extend(self.buffer.as_slice());
        }
        self.buffer = next;
        Ok(())
    }

    /// Writes the buffer as one extent.
    async fn emit(&mut self) -> Result<()> {
        let len = self.pending();
        if len == 0 {
            return Ok(());
        }
        if self.state.extents.len() >= MAX_EXTENTS {
            return Err(Invalid::TooLarge {
                what: "the count of extents of a blob",
                limit: MAX_EXTENTS as u64,
            }
            .into());
        }
        let mut buffer = std::mem::replace(&mut self.buffer, Buffer::empty());
        let payload = buffer.as_slice().get(BLOCK..).unwrap_or_default();
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
            .admit(total as u64, self.core.runtime.now())?;
        let slot = self
            .core
            .segments
            .allocate(total as u64, header.checksum())
            .await?;
        let (block, body) = header.encode(&slot.segment.header, 0);
        if let Some(front) = buffer.as_mut_slice().get_mut(..BLOCK) {
            front.copy_from_slice(&block);
        }
        let extent = Extent {
            segment: slot.segment.id(),
            offset: slot.offset,
            len: header.len,
            body,
        };
        self.state.extents.push(extent);
        self.state.placed = self.state.placed.saturating_add(len as u64);
        self.core.metrics.extent(total as u64);
        self.writing = self.writing.saturating_add(total);
        self.writes
            .push(Arc::clone(&slot.segment.file).write_at(u64::from(slot.offset), buffer));
        self.settle(WRITE_AHEAD).await
    }

    /// Waits until at most `limit` bytes are on their way.
    async fn settle(&mut self, limit: usize) -> Result<()> {
        // One poll starts what was pushed.
        while let Some(done) = futures_util::future::poll_immediate(self.writes.next())
            .await
            .flatten()
        {
            self.landed(done)?;
        }
        while self.writing > limit {
            match self.writes.next().await {
                Some(done) => self.landed(done)?,
                None => self.writing = 0,
            }
        }
        Ok(())
    }

    fn landed(&mut self, (result, buffer): Moved) -> Result<()> {
        self.writing = self.writing.saturating_sub(buffer.len());
        result.map_err(|error| match error.kind {
            orlop_disk::Kind::Full => error.into(),
            _ => self.core.poison.set(&error),
        })
    }

    /// The segments that hold extents which the log does not know yet.
    async fn unsynced(&mut self) -> Result<Vec<Arc<SegmentFile>>> {
        let mut ids: Vec<_> = self
            .state
            .extents
            .iter()
            .skip(self.state.saved)
            .map(|extent| extent.segment)
            .collect();
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
    async fn drain(&mut self) -> Result<()> {
        if self.pending() > INLINE_LIMIT {
            self.emit().await?;
        }
        self.settle(0).await
    }

    fn tail(&self) -> Bytes {
        Bytes::copy_from_slice(self.buffer.as_slice().get(BLOCK..).unwrap_or_default())
    }

    fn open_record(&self) -> Record {
        Record::Open {
            upload: self.session.id,
            owner: self.session.owner.clone().into_bytes(),
            also: self.session.also.map_or(0, Algorithm::code),
        }
    }

    /// Makes what was received durable; returns the durable offset.
    pub async fn checkpoint(&mut self) -> Result<u64> {
        let durable = self.session.durable.load(Ordering::Relaxed);
        if self.state.received > durable || (self.state.received > 0 && !self.state.opened) {
            self.drain().await?;
            let tail = self.tail();
            let hashes = self.state.hashers.iter().map(saved).collect();
            let checkpoint = Checkpoint {
                upload: self.session.id,
                offset: self.state.received,
                extents_before: u32::try_from(self.state.saved).unwrap_or(u32::MAX),
                extents: self
                    .state
                    .extents
                    .get(self.state.saved..)
                    .unwrap_or_default()
                    .to_vec(),
                hashes,
            };
            self.core
                .room
                .admit(tail.len() as u64, self.core.runtime.now())?;
            let data = self.unsynced().await?;
            let mut records = Vec::with_capacity(2);
            if !self.state.opened {
                records.push((self.open_record(), Bytes::new()));
            }
            records.push((Record::Checkpoint(checkpoint), tail.clone()));
            self.core.queue.append(records, data).await?;
            self.state.saved = self.state.extents.len();
            self.state.opened = true;
            self.session
                .durable
                .store(self.state.received, Ordering::Release);
        }
        self.state.tail = self.tail().to_vec();
        self.kept = true;
        Ok(self.state.received)
    }

    /// Ends the upload as the blob `expected`, with an opaque note for the log.
    ///
    /// # Errors
    /// [`Invalid::DigestMismatch`] when the bytes are others: the upload is
    /// gone then. After any other error it is as it was at its last durable
    /// offset.
    pub async fn commit(mut self, expected: Digest, note: Option<Vec<u8>>) -> Result<Committed> {
        let note = note.unwrap_or_default();
        if note.len() > MAX_NOTE {
            return Err(Invalid::TooLarge {
                what: "a note",
                limit: MAX_NOTE as u64,
            }
            .into());
        }
        self.kept = false;
        self.drain().await?;
        let digests = self.digests(expected.algorithm()).await?;
        let actual = digests
            .iter()
            .find(|digest| digest.algorithm() == expected.algorithm());
        if let Some(actual) = actual.filter(|actual| **actual != expected) {
            let actual = *actual;
            self.discard().await?;
            return Err(Invalid::DigestMismatch {
                expected: Box::new(expected),
                actual: Box::new(actual),
            }
            .into());
        }
        let sha256 = digests
            .iter()
            .find(|digest| digest.algorithm() == Algorithm::Sha256)
            .and_then(|digest| digest.bytes().try_into().ok())
            .ok_or_else(|| Error::missing("the SHA-256 of an upload"))?;
        let aliases = digests
            .into_iter()
            .filter(|digest| digest.algorithm() != Algorithm::Sha256);
        let size = self.state.received;
        let payload = if self.state.extents.is_empty() {
            self.core.room.admit(size, self.core.runtime.now())?;
            self.tail()
        } else {
            self.emit().await?;
            self.settle(0).await?;
            Bytes::new()
        };
        let commit = Commit {
            sha256,
            aliases: aliases.collect(),
            ordinal: 0,
            size,
            internal: self.internal,
            upload: self.state.opened.then_some(self.session.id),
            extents: self.state.extents.clone(),
            note,
        };
        let data = self.unsynced().await?;
        let fates = self
            .core
            .queue
            .append(vec![(Record::Commit(commit), payload)], data)
            .await?;
        self.end();
        let new = !matches!(fates.first(), Some(Fate::Present));
        self.core.wake_if_full();
        // The answer "it is here" is a promise: it takes its lease.
        self.core.stat(&expected)?;
        Ok(Committed {
            digest: expected,
            size,
            new,
        })
    }

    /// The digests of the upload's bytes, `asked` among them.
    async fn digests(&mut self, asked: Algorithm) -> Result<Vec<Digest>> {
        let mut digests: Vec<_> = self
            .state
            .hashers
            .iter()
            .cloned()
            .map(Hasher::finish)
            .collect();
        if digests.iter().all(|digest| digest.algorithm() != asked) {
            let mut hasher = Hasher::new(asked);
            self.rehash(&mut [&mut hasher]).await?;
            digests.push(hasher.finish());
        }
        Ok(digests)
    }

    /// Feeds all bytes received so far to `hashers`, read back from the disk.
    async fn rehash(&mut self, hashers: &mut [&mut Hasher]) -> Result<()> {
        for extent in &self.state.extents {
            let mut at = 0;
            while at < extent.len {
                let page = self.core.pages.page(extent, at).await?;
                for hasher in hashers.iter_mut() {
                    hasher.update(&page);
                }
                at = at
                    .saturating_add(u32::try_from(page.len()).unwrap_or(u32::MAX))
                    .max(at.saturating_add(1));
            }
        }
        let tail = if self.state.tail.is_empty() {
            self.tail()
        } else {
            Bytes::copy_from_slice(&self.state.tail)
        };
        for hasher in hashers.iter_mut() {
            hasher.update(&tail);
        }
        Ok(())
    }

    /// Ends the upload without a blob.
    pub async fn cancel(mut self) -> Result<()> {
        self.discard().await
    }

    async fn discard(&mut self) -> Result<()> {
        if self.state.opened {
            let record = Record::Abandon {
                upload: self.session.id,
            };
            self.core
                .queue
                .append(vec![(record, Bytes::new())], Vec::new())
                .await?;
        }
        self.end();
        Ok(())
    }

    fn end(&mut self) {
        self.kept = true;
        self.state.ended = true;
        self.core.sessions.forget(&self.session.id);
    }

    /// Brings the state to what the log says.
    async fn load(&mut self) -> Result<()> {
        let id = self.session.id;
        let Some(row) = self.core.upload_row(&id)? else {
            self.end();
            return Err(Error::missing(format_args!("upload {id}")));
        };
        let mut state = State::fresh(self.session.also);
        state.opened = true;
        state.received = row.checkpoint.offset;
        state.saved = row.checkpoint.extents.len();
        state.extents = row.checkpoint.extents;
        state.placed = state
            .extents
            .iter()
            .map(|extent| u64::from(extent.len))
            .sum();
        if let Some(place) = &row.tail {
            state.tail = self.core.pages.record(place).await?.to_vec();
        }
        let restored: Option<Vec<_>> = state
            .hashers
            .iter()
            .map(|fresh| {
                let hash = row.checkpoint.hashes.iter().find(|hash| {
                    hash.algorithm == fresh.algorithm().code() && hash.version == HASH_VERSION
                })?;
                Hasher::restore(fresh.algorithm(), &hash.state)
            })
            .collect();
        *self.state = state;
        match restored {
            Some(hashers) => self.state.hashers = hashers,
            None => {
                let mut fresh = self.state.hashers.clone();
                self.rehash(&mut fresh.iter_mut().collect::<Vec<_>>())
                    .await?;
                self.state.hashers = fresh;
            }
        }
        self.session
            .durable
            .store(self.state.received, Ordering::Release);
        Ok(())
    }
}

fn saved(hasher: &Hasher) -> HashState {
    HashState {
        algorithm: hasher.algorithm().code(),
        version: HASH_VERSION,
        state: hasher.save().unwrap_or_default(),
    }
}
