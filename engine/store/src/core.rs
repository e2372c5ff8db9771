//! What the parts of an open store share, and the answers that need no I/O on
//! payload: is a blob here, who holds it.

use std::sync::Arc;

use bytes::Bytes;
use orlop_disk::lock::Lock;
use orlop_disk::{Disk, Pool};
use orlop_format::digest::{Algorithm, Digest};
use orlop_format::location::SegmentId;
use orlop_format::record::{Record, UploadId};
use orlop_format::row::{self, Blob, Names, State, Upload};
use orlop_index::{Index, Table};

use crate::budget::Budget;
use crate::collect::Condemned;
use crate::error::{Error, Result};
use crate::journal::files::Files;
use crate::journal::queue::{Poison, Queue};
use crate::layout::Layout;
use crate::lease::Pin;
use crate::metrics::Metrics;
use crate::pages::Pages;
use crate::presence::{Presence, Shard};
use crate::quarantine::Quarantine;
use crate::reach::Reach;
use crate::reclaim::Memory;
use crate::runtime::Runtime;
use crate::segment::Segments;
use crate::session::Sessions;
use crate::space::Room;
use crate::superblock::Slots;
use crate::sync::{Mutex, Notify, OwnedSemaphorePermit, Semaphore, TaskMutex, mpsc};
use crate::view::unreadable;

/// A store's shared state.
pub(crate) struct Core {
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) layout: Layout,
    pub(crate) pool: Pool,
    pub(crate) index: Arc<dyn Index>,
    pub(crate) files: Arc<Files>,
    pub(crate) segments: Arc<Segments>,
    pub(crate) pages: Pages,
    pub(crate) queue: Queue,
    pub(crate) poison: Poison,
    pub(crate) room: Room,
    pub(crate) presence: Arc<Presence>,
    pub(crate) sessions: Sessions,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) quarantine: Arc<Quarantine>,
    /// How often the store was opened.
    pub(crate) epoch: u64,
    pub(crate) superblock: TaskMutex<Slots>,
    /// What work in the background may read and write.
    pub(crate) budget: Budget,
    /// Wakes maintenance.
    pub(crate) rotated: Arc<Notify>,
    closing: Mutex<bool>,
    ahead: Arc<Semaphore>,
    /// What the last collection left; held by the one that runs.
    pub(crate) collection: Arc<TaskMutex<Condemned>>,
    /// What passes that give room back know; held by the one that runs.
    pub(crate) reclaim: Arc<TaskMutex<Memory>>,
    /// The first id of a segment of this process: those below take no more.
    pub(crate) first_segment: u64,
    _lock: Option<Arc<Lock>>,
    /// Ends when every task of the store has.
    pub(crate) running: TaskMutex<mpsc::Receiver<()>>,
}

/// The parts that [`Core::new`] puts together.
pub(crate) struct Parts {
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) layout: Layout,
    pub(crate) pool: Pool,
    pub(crate) index: Arc<dyn Index>,
    pub(crate) files: Arc<Files>,
    pub(crate) segments: Arc<Segments>,
    pub(crate) pages: Pages,
    pub(crate) queue: Queue,
    pub(crate) poison: Poison,
    pub(crate) room: Room,
    pub(crate) presence: Arc<Presence>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) quarantine: Arc<Quarantine>,
    pub(crate) superblock: Slots,
    pub(crate) budget: Budget,
    pub(crate) rotated: Arc<Notify>,
    pub(crate) lock: Option<Arc<Lock>>,
    pub(crate) running: mpsc::Receiver<()>,
}

/// A blob that is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// The digest that was asked for.
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
    /// LSN of the commit that made it: tells one life of a digest from the
    /// next.
    pub birth: u64,
}

/// The name inside the store that a further digest stands for. A row that says
/// none is damage: it must not pass for "not here".
fn name_of(row: Vec<u8>) -> Result<[u8; 32]> {
    let malformed = |_| unreadable(Table::Alias, orlop_format::Malformed::Field("length"));
    row.try_into().map_err(malformed)
}

impl Stat {
    /// What a row says of the blob that was asked for by this digest.
    pub(crate) fn of(digest: Digest, row: &Blob) -> Self {
        Self {
            digest,
            size: row.size,
            birth: row.birth,
        }
    }
}

impl Core {
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts {
            runtime,
            disk,
            layout,
            pool,
            index,
            files,
            segments,
            pages,
            queue,
            poison,
            room,
            presence,
            metrics,
            quarantine,
            superblock,
            budget,
            rotated,
            lock,
            running,
        } = parts;
        let sessions = Sessions::new(pool.limit(), runtime.now());
        let first_segment = segments.next_id();
        Self {
            runtime,
            disk,
            layout,
            pool,
            index,
            files,
            segments,
            pages,
            queue,
            poison,
            room,
            presence,
            sessions,
            metrics,
            quarantine,
            epoch: superblock.get().epoch,
            superblock: TaskMutex::new(superblock),
            budget,
            rotated,
            closing: Mutex::default(),
            ahead: Arc::new(Semaphore::new(crate::config::READ_AHEAD_ALL)),
            collection: Arc::default(),
            reclaim: Arc::default(),
            first_segment,
            _lock: lock,
            running: TaskMutex::new(running),
        }
    }

    /// A permit to hold one page ahead.
    pub(crate) fn permit(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.ahead).try_acquire_owned().ok()
    }

    /// Wakes maintenance.
    pub(crate) fn wake(&self) {
        self.rotated.notify_one();
    }

    /// Wakes maintenance if a segment waits to be sealed.
    pub(crate) fn wake_if_full(&self) {
        if self.segments.has_full() {
            self.wake();
        }
    }

    /// Whether maintenance is to end.
    pub(crate) fn closing(&self) -> bool {
        *self.closing.lock()
    }

    /// Ends maintenance.
    pub(crate) fn end_maintenance(&self) {
        *self.closing.lock() = true;
        self.wake();
    }

    /// A blob's row.
    pub(crate) fn blob_row(&self, sha256: &[u8; 32]) -> Result<Option<Blob>> {
        // Asked before the row is read: what was settled between that and the
        // look into the quarantine shows in a second row.
        let suspect = !self.quarantine.is_empty();
        let row = self.marked_row(sha256)?;
        match row {
            Some(row) if suspect && row.state == State::Live => self.marked_row(sha256),
            row => Ok(row),
        }
    }

    /// The row, in quarantine if it or the quarantine says so.
    fn marked_row(&self, sha256: &[u8; 32]) -> Result<Option<Blob>> {
        let Some(mut row) = self.bare_row(sha256)? else {
            return Ok(None);
        };
        if row.state == State::Live && self.quarantine.contains(sha256, row.birth) {
            row.state = State::Quarantined;
        }
        Ok(Some(row))
    }

    /// The row as the index has it.
    fn bare_row(&self, sha256: &[u8; 32]) -> Result<Option<Blob>> {
        self.index
            .get(Table::Blob, sha256)?
            .map(|bytes| Blob::decode(&bytes).map_err(|error| unreadable(Table::Blob, error)))
            .transpose()
    }

    /// An upload's row.
    pub(crate) fn upload_row(&self, id: &UploadId) -> Result<Option<Upload>> {
        self.index
            .get(Table::Upload, &id.0)?
            .map(|bytes| Upload::decode(&bytes).map_err(|error| unreadable(Table::Upload, error)))
            .transpose()
    }

    /// Rows of blobs as the index has them, in the order of the names: what the
    /// quarantine says is left out.
    pub(crate) fn blob_rows(&self, names: &[[u8; 32]]) -> Result<Vec<Option<Blob>>> {
        let keys: Vec<Vec<u8>> = names.iter().map(|sha256| sha256.to_vec()).collect();
        let decode =
            |bytes: Vec<u8>| Blob::decode(&bytes).map_err(|error| unreadable(Table::Blob, error));
        let rows = self.index.multi_get(Table::Blob, &keys)?.into_iter();
        rows.map(|row| row.map(decode).transpose()).collect()
    }

    /// A segment's row.
    pub(crate) fn segment_row(&self, id: &SegmentId) -> Result<Option<row::Segment>> {
        self.index
            .get(Table::Segment, &row::Segment::key(id.class, id.id))?
            .map(|bytes| {
                row::Segment::decode(&bytes).map_err(|error| unreadable(Table::Segment, error))
            })
            .transpose()
    }

    /// What the store knows of names.
    pub(crate) fn names(&self) -> Result<Names> {
        Ok(self
            .index
            .get(Table::Meta, Names::KEY)?
            .map(|bytes| Names::decode(&bytes).map_err(|error| unreadable(Table::Meta, error)))
            .transpose()?
            .unwrap_or_default())
    }

    /// The name inside the store of a blob.
    pub(crate) fn resolve(&self, digest: &Digest) -> Result<Option<[u8; 32]>> {
        if digest.algorithm() == Algorithm::Sha256 {
            return Ok(digest.bytes().try_into().ok());
        }
        let name = self.index.get(Table::Alias, &digest.encode())?;
        name.map(name_of).transpose()
    }

    /// The names inside the store of blobs, in order.
    pub(crate) fn resolve_all(&self, digests: &[Digest]) -> Result<Vec<Option<[u8; 32]>>> {
        let is_further = |digest: &&Digest| digest.algorithm() != Algorithm::Sha256;
        let further: Vec<Vec<u8>> = digests
            .iter()
            .filter(is_further)
            .map(Digest::encode)
            .collect();
        let mut found = match further.is_empty() {
            true => Vec::new().into_iter(),
            false => self.index.multi_get(Table::Alias, &further)?.into_iter(),
        };
        let resolve = |digest: &Digest| match digest.algorithm() {
            Algorithm::Sha256 => Ok(digest.bytes().try_into().ok()),
            _ => found.next().flatten().map(name_of).transpose(),
        };
        digests.iter().map(resolve).collect()
    }

    /// The row of a blob that has not ended, under the lock of its shard.
    fn present(&self, shard: &Shard, sha256: &[u8; 32]) -> Result<Option<Blob>> {
        let row = self.blob_row(sha256)?;
        Ok(row.filter(|row| row.state != State::Dead && !shard.is_doomed(sha256, row.birth)))
    }

    /// The blob's row, whatever its state, with a lease taken on it.
    pub(crate) fn lease(&self, digest: &Digest) -> Result<Option<([u8; 32], row::Blob)>> {
        let Some(sha256) = self.resolve(digest)? else {
            return Ok(None);
        };
        let shard = self.presence.shard(&sha256);
        let row = self.present(&shard, &sha256)?;
        if let Some(row) = &row {
            self.presence.leases.take(row.ordinal, self.runtime.now());
        }
        Ok(row.map(|row| (sha256, row)))
    }

    /// The blob's row without a lease.
    pub(crate) fn peek(&self, digest: &Digest) -> Result<Option<([u8; 32], row::Blob)>> {
        let Some(sha256) = self.resolve(digest)? else {
            return Ok(None);
        };
        Ok(self.blob_row(&sha256)?.map(|row| (sha256, row)))
    }

    /// Whether a blob is whole as far as anybody knows: not in quarantine, and
    /// every file that it lies in is there.
    pub(crate) fn is_whole(&self, row: &Blob) -> Result<bool> {
        Ok(row.state == State::Live && Reach::of_form(&row.form).is_there(&self.segments)?)
    }

    /// Says that a blob is here, and takes a lease on it. A quarantined one, or
    /// one whose file is missing, is absent, so that a push heals it.
    pub(crate) fn stat(&self, digest: &Digest) -> Result<Stat> {
        // What its row names is there until it was asked for.
        let _reading = self.segments.holds.enter();
        match self.lease(digest)? {
            Some((_, row)) if self.is_whole(&row)? => Ok(Stat::of(*digest, &row)),
            _ => Err(Error::missing(format_args!("blob {digest}"))),
        }
    }

    /// Pins blobs, here or still to come; `None` in the answer for those that
    /// are not here. A further digest of a blob that is not here yet pins
    /// nothing: pin it again once it is.
    pub(crate) fn pin(&self, digests: &[Digest]) -> Result<(Pin, Vec<Option<Stat>>)> {
        let _reading = self.segments.holds.enter();
        let mut pin = Pin::new(Arc::clone(&self.presence.leases));
        let mut found = Vec::with_capacity(digests.len());
        for digest in digests {
            let Some(sha256) = self.resolve(digest)? else {
                found.push(None);
                continue;
            };
            let shard = self.presence.shard(&sha256);
            pin.add(sha256);
            let row = self.present(&shard, &sha256)?;
            if let Some(row) = &row {
                self.presence.leases.touch(row.ordinal);
            }
            drop(shard);
            found.push(match row {
                Some(row) if self.is_whole(&row)? => Some(Stat::of(*digest, &row)),
                _ => None,
            });
        }
        Ok((pin, found))
    }

    /// Puts a damaged blob into quarantine.
    pub(crate) fn damaged(&self, sha256: &[u8; 32], birth: u64, error: &Error) {
        if !self.set_aside(sha256, birth, error) {
            return;
        }
        if let Err(error) = self.queue.post(Record::Quarantine {
            sha256: *sha256,
            birth,
        }) {
            tracing::warn!(%error, "the quarantine could not be recorded; it holds until a restart, and the next read finds the damage again");
        }
    }

    /// Puts a damaged blob into quarantine in memory. True when it was not in
    /// yet: then it has to be recorded.
    pub(crate) fn set_aside(&self, sha256: &[u8; 32], birth: u64, error: &Error) -> bool {
        if !self.quarantine.add(*sha256, birth) {
            return false;
        }
        // Another reader's word of it may have come through meanwhile.
        let known = self.bare_row(sha256).ok().flatten();
        if known.is_some_and(|row| row.birth != birth || row.state != State::Live) {
            self.quarantine.settle(sha256, birth);
            return false;
        }
        tracing::error!(
            blob = %Digest::new(Algorithm::Sha256, sha256).map(|digest| digest.to_string()).unwrap_or_default(),
            %error,
            "a blob is damaged and in quarantine; push it again to heal it"
        );
        self.metrics.quarantined();
        true
    }

    /// Appends records without payload and waits.
    pub(crate) async fn record(&self, records: Vec<Record>) -> Result<()> {
        let records = records
            .into_iter()
            .map(|record| (record, Bytes::new()))
            .collect();
        self.queue.append(records, Vec::new()).await.map(|_| ())
    }
}
