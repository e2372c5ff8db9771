//! Uploads: bytes on their way to being a blob.
//!
//! A session lives in memory from its opening and in the log from its first
//! checkpoint; after a restart it goes on at its last durable offset. One
//! request at a time works on it, through an [`Upload`].
//!
//! Bytes behind the last extent gather in memory, hashed as they pass. What a
//! journal record can hold costs no pooled buffer and goes into a record in
//! the end; more goes into a large aligned buffer, which becomes one extent in
//! one write. A commit moves nothing.
//!
//! Invariant: an operation that broke off in the middle ends the request; the
//! session falls back to what the log knows.

mod extents;

use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::FuturesUnordered;
use orlop_disk::Buffer;
use orlop_format::digest::{Algorithm, Digest, Hasher};
use orlop_format::record::{Checkpoint, Commit, HashState, MAX_NOTE, Record, UploadId};

use self::extents::Landed;
use crate::config::CHECKPOINT_EVERY;
use crate::core::{Core, Stat};
use crate::error::{Error, Invalid, Result};
use crate::journal::queue::Fate;
use crate::reach::Reach;
use crate::segment::SegmentFile;
use crate::session::{Session, State, busy, missing};
use crate::space::Claim;
use crate::sync::{OwnedMutexGuard, OwnedSemaphorePermit, oneshot};

/// Version of the saved hash states this code writes and reads.
const HASH_VERSION: u8 = 1;

/// An upload that one request works on.
///
/// Dropped without [`Upload::checkpoint`] it falls back to its last durable
/// offset; so it does after an operation that failed or was not awaited to its
/// end.
pub struct Upload {
    core: Arc<Core>,
    session: Arc<Session>,
    state: OwnedMutexGuard<State>,
    /// Bytes behind the last extent, while they fit in a record.
    small: Vec<u8>,
    /// Room for a header block, then those bytes when they are more.
    large: Option<Buffer>,
    /// What lets `large` wait for the client.
    held: Option<OwnedSemaphorePermit>,
    writes: FuturesUnordered<oneshot::Receiver<Landed>>,
    /// Bytes on their way.
    writing: usize,
    /// Whether the state equals the log.
    kept: bool,
    /// Whether an operation is under way, or broke off.
    broken: bool,
    /// Whether nobody else can find it: it needs no checkpoints.
    alone: bool,
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
    /// LSN of the commit that made it, now or before.
    pub birth: u64,
    /// Whether the store did not have it before.
    pub new: bool,
}

impl Drop for Upload {
    fn drop(&mut self) {
        if self.state.ended || self.alone {
            return;
        }
        if self.kept {
            self.state.tail = std::mem::take(&mut self.small);
        } else {
            self.state.cool();
        }
        let now = self.core.runtime.now();
        self.core
            .sessions
            .put_down(&self.session, &mut self.state, now);
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
    fn new(core: &Arc<Core>, session: Arc<Session>, state: OwnedMutexGuard<State>) -> Self {
        Self {
            core: Arc::clone(core),
            session,
            state,
            small: Vec::new(),
            large: None,
            held: None,
            writes: FuturesUnordered::new(),
            writing: 0,
            kept: false,
            broken: false,
            alone: false,
            internal: false,
        }
    }

    /// Takes up the upload `id` of `owner`.
    pub(crate) async fn resume(core: &Arc<Core>, id: UploadId, owner: &str) -> Result<Self> {
        core.poison.check()?;
        let (session, state) = core.sessions.hold(core, id, owner)?;
        let mut upload = Self::new(core, session, state);
        if !upload.state.warm {
            upload.load().await?;
        }
        upload.small = std::mem::take(&mut upload.state.tail);
        upload.kept = true;
        Ok(upload)
    }

    /// An upload of the store itself that is gone when it is dropped.
    pub(crate) fn alone(core: &Arc<Core>, also: Option<Algorithm>) -> Result<Self> {
        core.poison.check()?;
        let (session, state) = Session::alone(core, also)?;
        let mut upload = Self::new(core, session, state);
        upload.alone = true;
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

    /// Begins an operation: what breaks off before its end is not gone on
    /// with.
    fn begin(&mut self) -> Result<()> {
        if self.broken {
            return Err(busy(self.session.id));
        }
        self.broken = true;
        self.kept = false;
        Ok(())
    }

    /// Takes bytes in. Waits while too much is on its way to the disk.
    ///
    /// # Errors
    /// [`Error::Full`] when there is no room, [`Error::Busy`] when there is no
    /// buffer: what is durable stays, this request cannot go on.
    pub async fn append(&mut self, bytes: Bytes) -> Result<()> {
        self.begin()?;
        for hasher in &mut self.state.hashers {
            hasher.update(&bytes);
        }
        self.state.received = self.state.received.saturating_add(bytes.len() as u64);
        self.fill(&bytes).await?;
        self.hold().await?;
        let durable = self.session.durable();
        if !self.alone && self.state.received.saturating_sub(durable) >= CHECKPOINT_EVERY {
            self.save().await?;
        }
        self.broken = false;
        Ok(())
    }

    fn open_record(&self) -> Record {
        Record::Open {
            upload: self.session.id,
            owner: self.session.owner.clone().into_bytes(),
            also: self.session.also.map_or(0, Algorithm::code),
        }
    }

    /// Makes what was received durable; returns the durable offset.
    ///
    /// # Errors
    /// [`Error::Busy`] when the log knows another state of the upload, or an
    /// operation broke off before: take it up again.
    pub async fn checkpoint(&mut self) -> Result<u64> {
        self.begin()?;
        self.save().await?;
        self.broken = false;
        Ok(self.state.received)
    }

    async fn save(&mut self) -> Result<()> {
        let durable = self.session.durable();
        if self.state.received > durable || (self.state.received > 0 && !self.state.opened) {
            self.drain().await?;
            let tail = Bytes::copy_from_slice(&self.small);
            let extents = self.state.extents.get(self.state.saved..);
            let checkpoint = Checkpoint {
                upload: self.session.id,
                offset: self.state.received,
                extents_before: u32::try_from(self.state.saved).unwrap_or(u32::MAX),
                extents: extents.unwrap_or_default().to_vec(),
                hashes: self.state.hashers.iter().map(saved).collect(),
            };
            self.core
                .room
                .admit(tail.len() as u64, Claim::Keeps, self.core.runtime.now())?;
            let data = self.unsynced().await?;
            let mut records = Vec::with_capacity(2);
            if !self.state.opened {
                records.push((self.open_record(), Bytes::new()));
            }
            records.push((Record::Checkpoint(checkpoint), tail));
            self.state.opened = true;
            self.append_records(records, data)
                .await
                .map_err(|error| match error {
                    Error::Invalid(Invalid::Stale) => busy(self.session.id),
                    other => other,
                })?;
            self.state.saved = self.state.extents.len();
            self.state.holds.clear();
            self.session.set_durable(self.state.received);
        }
        self.kept = true;
        Ok(())
    }

    /// Appends records to the log. They may be written also if this request
    /// goes away meanwhile: then the next one asks the log.
    async fn append_records(
        &mut self,
        records: Vec<(Record, Bytes)>,
        data: Vec<Arc<SegmentFile>>,
    ) -> Result<Vec<Fate>> {
        self.state.queued = true;
        let fates = self.core.queue.append(records, data).await?;
        self.state.queued = false;
        Ok(fates)
    }

    /// Ends the upload as the blob `expected`, with an opaque note for the log.
    ///
    /// # Errors
    /// [`Invalid::DigestMismatch`] when the bytes are others: the upload is
    /// gone then. [`Error::Io`] when a file that its earlier bytes lie in is
    /// missing. After any other error it is as it was at its last durable
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
        self.begin()?;
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
            self.core
                .room
                .admit(size, Claim::Keeps, self.core.runtime.now())?;
            Bytes::from(std::mem::take(&mut self.small))
        } else {
            self.emit().await?;
            self.settle(0).await?;
            Bytes::new()
        };
        // What an earlier request placed may be gone meanwhile.
        let placed = Reach::of_extents(&self.state.extents);
        placed.open(&self.core.segments).await?;
        self.look_at_present(&sha256).await?;
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
        let records = vec![(Record::Commit(commit), payload)];
        let fates = self
            .append_records(records, data)
            .await
            .map_err(|error| match error {
                Error::Invalid(Invalid::Stale) => busy(self.session.id),
                other => other,
            })?;
        self.end();
        let new = !matches!(fates.first(), Some(Fate::Present));
        if !new {
            self.core.metrics.duplicate(size);
        }
        self.core.wake_if_full();
        // The answer "it is here" is a promise: it takes its lease.
        let Stat { birth, .. } = self.core.stat(&expected)?;
        Ok(Committed {
            digest: expected,
            size,
            birth,
            new,
        })
    }

    /// Looks whether a blob that is here already can be read, so that these bytes
    /// are not dropped for it: the writer finds one absent whose file is missing
    /// or that is in quarantine.
    async fn look_at_present(&self, sha256: &[u8; 32]) -> Result<()> {
        let _reading = self.core.segments.holds.enter();
        let Some(row) = self.core.blob_row(sha256)? else {
            return Ok(());
        };
        if !self.core.is_whole(&row)? {
            return Ok(());
        }
        match Reach::of_form(&row.form).open(&self.core.segments).await {
            Err(error @ Error::Corrupt { .. }) => {
                // What it left says nothing about it.
                let now = self.core.blob_row(sha256)?;
                if now.is_some_and(|now| now.form == row.form) {
                    self.core.damaged(sha256, row.birth, &error);
                }
                Ok(())
            }
            done => done,
        }
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
            self.rehash(&self.small, &mut [&mut hasher]).await?;
            digests.push(hasher.finish());
        }
        Ok(digests)
    }

    /// Feeds all bytes received so far to `hashers`: the extents, read back from
    /// the disk, and `tail` behind them.
    async fn rehash(&self, tail: &[u8], hashers: &mut [&mut Hasher]) -> Result<()> {
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
        for hasher in hashers.iter_mut() {
            hasher.update(tail);
        }
        Ok(())
    }

    /// Ends the upload without a blob.
    pub async fn cancel(mut self) -> Result<()> {
        self.discard().await
    }

    async fn discard(&mut self) -> Result<()> {
        self.kept = false;
        if self.state.opened {
            let record = Record::Abandon {
                upload: self.session.id,
            };
            self.append_records(vec![(record, Bytes::new())], Vec::new())
                .await?;
        }
        self.end();
        Ok(())
    }

    fn end(&mut self) {
        self.state.ended = true;
        self.state.holds.clear();
        self.core.sessions.forget(&self.session.id);
    }

    /// Brings the state to what the log says.
    async fn load(&mut self) -> Result<()> {
        let id = self.session.id;
        if self.state.queued {
            // An empty request is answered after all that were queued before.
            self.core.queue.append(Vec::new(), Vec::new()).await?;
        }
        // Its tail stays where the row says until it is read.
        let reading = self.core.segments.holds.enter();
        let row = if self.state.opened || self.state.queued {
            self.core.upload_row(&id)?
        } else {
            None
        };
        let Some(row) = row else {
            if self.session.durable() > 0 {
                self.end();
                return Err(missing(id));
            }
            *self.state = State::fresh(self.session.also);
            return Ok(());
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
        drop(reading);
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
                self.rehash(&self.state.tail, &mut fresh.iter_mut().collect::<Vec<_>>())
                    .await?;
                self.state.hashers = fresh;
            }
        }
        self.session.set_durable(self.state.received);
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
