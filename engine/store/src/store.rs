//! The store's front: what the server calls.

use std::panic::{AssertUnwindSafe, resume_unwind};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt as _;
use orlop_disk::lock::Lock;
use orlop_disk::{Disk, Pool};
use orlop_format::digest::{Algorithm, Digest};
use orlop_format::record::{MAX_NOTE, Record, UploadId};
use orlop_format::row::State;

use crate::blob::Blob;
use crate::budget::Budget;
use crate::collect::{Collector, further};
use crate::config::{Config, MAX_PIN, MIN_BUFFERS, MIN_JOURNAL_FILE};
use crate::core::{Core, Parts, Stat};
use crate::error::{Error, Invalid, Result};
use crate::expire;
use crate::journal::files::Files;
use crate::journal::queue::{Poison, Queue};
use crate::journal::writer::{self, Writer};
use crate::layout::Layout;
use crate::lease::{Leases, Pin};
use crate::metrics::{Counts, Metrics};
use crate::pages::Pages;
use crate::presence::Presence;
use crate::quarantine::Quarantine;
use crate::reclaim::{self, Reclaimer, Space};
use crate::recover::{self, IndexFactory, Progress};
use crate::recycle;
use crate::runtime::Runtime;
use crate::scrub::Scrub;
use crate::segment::Segments;
use crate::space::{Claim, Room};
use crate::sync::{Notify, mpsc};
use crate::upload::{Committed, Upload};

/// Held by each of the store's tasks: nothing is ever sent on the channel, and
/// the folder stays locked until the last task has ended.
#[derive(Clone)]
struct Alive {
    _sender: mpsc::Sender<()>,
    _lock: Option<Arc<Lock>>,
}

/// An open store. Cloning it is cheap.
#[derive(Clone)]
pub struct Store {
    core: Arc<Core>,
}

/// What the store knows of the catalog that belongs to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// Whether names were ever committed with blobs of this store.
    pub any: bool,
    /// The catalog that was seen last, if any was.
    pub catalog: Option<[u8; 16]>,
    /// Its highest sequence that was seen.
    pub sequence: u64,
    /// SHA-256 and catalog sequence of the copies in the store, newest last.
    pub copies: Vec<(Digest, u64)>,
}

/// How a catalog compares with what the store has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CatalogMatch {
    /// It is the store's and not older than before.
    Same,
    /// It is the store's, but older than one seen before.
    Older {
        /// The highest sequence seen.
        seen: u64,
    },
    /// It is another catalog.
    Other,
}

/// How the store is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// Why writes are refused until a restart, if they are.
    pub poisoned: Option<String>,
    /// Whether pushes are refused for want of room.
    pub full: bool,
    /// How long the journal's writer has been waiting for the disk with what it
    /// writes and syncs now; zero when there is nothing.
    pub writing: std::time::Duration,
    /// What moves the bytes: `uring`, `pool` or `sim`.
    pub backend: String,
    /// How often the store was opened.
    pub epoch: u64,
    /// Bytes in the cache.
    pub cached: u64,
    /// Bytes of memory that the index holds: its cache, and what it did not write
    /// out yet.
    pub index_memory: u64,
    /// Upload sessions in memory.
    pub uploads: u64,
    /// Bytes available on the file system.
    pub available: u64,
    /// Bytes of these that are kept from pushes.
    pub reserve: u64,
    /// Counters.
    pub counts: Counts,
}

impl Store {
    /// Opens the store in `config.folder`, creating it where there is none,
    /// and recovers it.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when the log has lost something that it had: the log
    /// was not changed. [`Invalid::Newer`] when a newer version wrote it.
    /// [`Invalid::Folder`] when a file system that it needs is not mounted.
    pub async fn open(
        config: Config,
        runtime: Arc<dyn Runtime>,
        disk: Arc<dyn Disk>,
        factory: &dyn IndexFactory,
        progress: &Progress,
    ) -> Result<Self> {
        if config.journal_file < MIN_JOURNAL_FILE
            || !config.journal_file.is_multiple_of(MIN_JOURNAL_FILE)
        {
            let reason = format!("a journal file must be a multiple of {MIN_JOURNAL_FILE} bytes");
            return Err(Invalid::Folder(reason).into());
        }
        let layout = Layout::new(config.folder.clone());
        let pool = Pool::new(config.buffers.max(MIN_BUFFERS));
        let metrics = Arc::new(Metrics::default());
        let poison = Poison::default();
        let quarantine = Arc::new(Quarantine::default());
        progress.stage("reading the superblock", 0);
        let slots = recover::superblock(disk.as_ref(), runtime.as_ref(), &layout, &pool).await?;
        let slot = slots.get();
        let files = Files::open(
            Arc::clone(&disk),
            layout.clone(),
            pool.clone(),
            config.journal_file,
            slot.store,
            slot.journal,
        )
        .await?;
        let segments = Segments::open(
            Arc::clone(&disk),
            Arc::clone(&runtime),
            layout.clone(),
            pool.clone(),
            slot.store,
            config.segment,
        )?;
        let found =
            recover::recover(&layout, &pool, &files, &segments, &slot, factory, progress).await?;

        let (files, segments) = (Arc::new(files), Arc::new(segments));
        let (queue, receiver) = Queue::new(poison.clone());
        let rotated = Arc::new(Notify::new());
        let presence = Arc::new(Presence::new(Leases::new(config.lease, runtime.now())));
        progress.stage("starting the journal", 0);
        let parts = writer::Parts {
            runtime: Arc::clone(&runtime),
            files: Arc::clone(&files),
            segments: Arc::clone(&segments),
            index: Arc::clone(&found.index),
            pool: pool.clone(),
            poison: poison.clone(),
            metrics: Arc::clone(&metrics),
            rotated: Arc::clone(&rotated),
            quarantine: Arc::clone(&quarantine),
            presence: Arc::clone(&presence),
            store: slot.store,
        };
        let mut slots = slots;
        let mut writer = Writer::start(parts, found.end).await?;
        writer.mark(false).await?;
        if slot.journal == 0 {
            slots.write(|slot| slot.journal = 1).await?;
        }
        let (sender, running) = mpsc::channel(1);
        let lock = config.lock.map(Arc::new);
        let alive = Alive {
            _sender: sender,
            _lock: lock.clone(),
        };
        spawn(
            runtime.as_ref(),
            "journal",
            (&alive, &poison),
            Box::pin(writer.run(receiver)),
        )?;
        let core = Arc::new(Core::new(Parts {
            pages: Pages::new(
                Arc::clone(&segments),
                Arc::clone(&files),
                config.cache,
                Arc::clone(&metrics),
                &runtime,
            ),
            room: Room::new(Arc::clone(&disk), layout.clone(), config.reserve),
            presence,
            budget: Budget::new(Arc::clone(&runtime), config.background_rate),
            runtime,
            disk,
            layout,
            pool,
            index: found.index,
            files,
            segments,
            queue,
            poison,
            metrics,
            quarantine,
            superblock: slots,
            rotated,
            lock,
            running,
        }));
        for record in found.damaged {
            core.metrics.quarantined();
            core.record(vec![record]).await?;
        }
        reclaim::finish(&core)?;
        spawn(
            core.runtime.as_ref(),
            "maintenance",
            (&alive, &core.poison),
            Box::pin(recycle::run(Arc::downgrade(&core))),
        )?;
        Ok(Self { core })
    }

    /// Opens an upload for `owner`, an opaque name; nobody else can go on with
    /// it. `also` is a digest to compute beside SHA-256. Syncs nothing.
    pub fn upload_open(&self, owner: &str, also: Option<Algorithm>) -> Result<UploadId> {
        self.core.sessions.open(&self.core, owner, also)
    }

    /// Bytes of an upload that are durable.
    pub fn upload_status(&self, id: UploadId, owner: &str) -> Result<u64> {
        self.core.sessions.status(&self.core, id, owner)
    }

    /// Takes an upload up. [`Error::Busy`] while another request holds it.
    pub async fn upload_resume(&self, id: UploadId, owner: &str) -> Result<Upload> {
        Upload::resume(&self.core, id, owner).await
    }

    /// Ends the uploads that nobody asked for in `idle`, counted from the
    /// store's opening on, and says how many those were.
    ///
    /// # Errors
    /// As for any write. What was ended until then is ended.
    pub async fn upload_expire(&self, idle: std::time::Duration) -> Result<u64> {
        expire::expire(&self.core, idle).await
    }

    /// Begins a scrub of what is stored now, or goes on with one at the cursor
    /// it gave. With `digests` the content of each blob is also checked against
    /// its digest, for which all of it is read once more. Nothing is read
    /// before [`Scrub::step`].
    ///
    /// # Errors
    /// [`Error::Invalid`] when the cursor is not one of this release.
    pub async fn scrub(&self, digests: bool, cursor: Option<&[u8]>) -> Result<Scrub> {
        Scrub::start(&self.core, digests, cursor).await
    }

    /// Begins a collection. Only after that the caller opens its snapshot of
    /// names and hands over what is live.
    ///
    /// # Errors
    /// [`Error::Busy`] while another one runs.
    pub async fn collect(&self) -> Result<Collector> {
        Collector::begin(&self.core).await
    }

    /// Begins a pass that gives the room of what is dead back to the file
    /// system. It goes on with each [`Reclaimer::step`].
    ///
    /// # Errors
    /// [`Error::Busy`] while another one runs.
    pub async fn reclaim(&self) -> Result<Reclaimer> {
        Reclaimer::begin(&self.core, false).await
    }

    /// As [`Store::reclaim`], for whoever wants all room now: segments that are
    /// open for extents are closed for any dead bytes, and what readers and
    /// uploads hold is waited for a while.
    ///
    /// # Errors
    /// [`Error::Busy`] while another one runs.
    pub async fn reclaim_all(&self) -> Result<Reclaimer> {
        Reclaimer::begin(&self.core, true).await
    }

    /// How the bytes of the segments are accounted for.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub async fn space(&self) -> Result<Space> {
        Space::of(&self.core)
    }

    /// Reads of scrubs that the disk answered so far, with bytes or an error:
    /// while this rises a scrub does not hang, however long its step takes.
    pub fn scrub_reads(&self) -> u64 {
        self.core.metrics.scrub_reads()
    }

    /// Stores something small in one go.
    pub async fn put(
        &self,
        bytes: Bytes,
        expected: Digest,
        note: Option<Vec<u8>>,
    ) -> Result<Committed> {
        let mut upload = Upload::alone(&self.core, Some(expected.algorithm()))?;
        upload.append(bytes).await?;
        upload.commit(expected, note).await
    }

    /// Says that a blob is here, and takes a lease on it.
    ///
    /// # Errors
    /// [`Error::NotFound`] when it is absent or in quarantine, or while a file
    /// that it lies in is missing.
    pub fn stat(&self, digest: &Digest) -> Result<Stat> {
        self.core.stat(digest)
    }

    /// A blob to be read; takes a lease on it.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when it is in quarantine. That a file is missing shows
    /// in what is read.
    pub fn read(&self, digest: &Digest) -> Result<Blob> {
        let reading = self.core.segments.holds.enter();
        match self.core.lease(digest)? {
            Some((sha256, row)) if row.state == State::Live => {
                let core = Arc::clone(&self.core);
                Ok(Blob::new(core, *digest, sha256, row, reading))
            }
            Some(_) => Err(Error::corrupt(
                format!("blob {digest}"),
                "it is in quarantine",
            )),
            None => Err(Error::missing(format_args!("blob {digest}"))),
        }
    }

    /// Holds blobs, here or still to come, until the pin is dropped. The answer
    /// says what there is of each, `None` for those that are not here. A digest other
    /// than SHA-256 holds only a blob that is here: pin it again after it came.
    pub fn pin(&self, digests: &[Digest]) -> Result<(Pin, Vec<Option<Stat>>)> {
        if digests.len() > MAX_PIN {
            return Err(Invalid::TooLarge {
                what: "the count of blobs to pin",
                limit: MAX_PIN as u64,
            }
            .into());
        }
        self.core.pin(digests)
    }

    /// Puts opaque bytes into the log. They ride with the next group.
    pub fn note(&self, note: Vec<u8>) -> Result<()> {
        if note.len() > MAX_NOTE {
            return Err(Invalid::TooLarge {
                what: "a note",
                limit: MAX_NOTE as u64,
            }
            .into());
        }
        self.core.queue.post(Record::Note(note))
    }

    /// What the store knows of the catalog.
    pub async fn names(&self) -> Result<Names> {
        let names = self.core.names()?;
        let slot = self.core.superblock.lock().await.get();
        let copies = names
            .copies
            .iter()
            .filter_map(|copy| {
                Some((
                    Digest::new(Algorithm::Sha256, &copy.sha256).ok()?,
                    copy.sequence,
                ))
            })
            .collect();
        Ok(Names {
            any: names.notes > 0 || !names.copies.is_empty(),
            catalog: (slot.catalog != [0; 16]).then_some(slot.catalog),
            sequence: slot.catalog_sequence,
            copies,
        })
    }

    /// Compares a catalog with what was seen, and remembers it durably when it
    /// is the store's and newer, or the first.
    pub async fn catalog_seen(&self, catalog: [u8; 16], sequence: u64) -> Result<CatalogMatch> {
        let mut slots = self.core.superblock.lock().await;
        let slot = slots.get();
        if slot.catalog != [0; 16] && slot.catalog != catalog {
            return Ok(CatalogMatch::Other);
        }
        if slot.catalog == catalog && slot.catalog_sequence > sequence {
            return Ok(CatalogMatch::Older {
                seen: slot.catalog_sequence,
            });
        }
        if slot.catalog != catalog || slot.catalog_sequence != sequence {
            self.core.poison.check()?;
            slots
                .write(|slot| {
                    slot.catalog = catalog;
                    slot.catalog_sequence = sequence;
                })
                .await
                .map_err(|error| self.core.poison.set(&error))?;
        }
        Ok(CatalogMatch::Same)
    }

    /// Makes a catalog the store's, whatever was seen before: an operator said
    /// so.
    pub async fn catalog_adopt(&self, catalog: [u8; 16], sequence: u64) -> Result<()> {
        self.core.poison.check()?;
        self.core
            .superblock
            .lock()
            .await
            .write(|slot| {
                slot.catalog = catalog;
                slot.catalog_sequence = sequence;
            })
            .await
            .map_err(|error| self.core.poison.set(&error))
    }

    /// Stores a copy of the catalog, read from `file`, as an internal blob.
    pub async fn catalog_copy(&self, file: &Path, catalog: [u8; 16], sequence: u64) -> Result<()> {
        let bytes_of = |error: std::io::Error| Error::Io {
            what: format!("cannot read {}", file.display()),
            reason: error.to_string(),
        };
        let mut upload = Upload::alone(&self.core, None)?.internal();
        let mut source = std::fs::File::open(file).map_err(bytes_of)?;
        let mut hasher = orlop_format::digest::Hasher::new(Algorithm::Sha256);
        let mut chunk = vec![0u8; crate::config::PAGE];
        loop {
            let read = std::io::Read::read(&mut source, &mut chunk).map_err(bytes_of)?;
            let bytes = chunk.get(..read).unwrap_or_default();
            if bytes.is_empty() {
                break;
            }
            hasher.update(bytes);
            upload.append(Bytes::copy_from_slice(bytes)).await?;
        }
        let digest = hasher.finish();
        upload.commit(digest, None).await?;
        let sha256 = digest
            .bytes()
            .try_into()
            .map_err(|_| Error::missing("the copy of the catalog"))?;
        self.core
            .record(vec![Record::Copy {
                sha256,
                catalog,
                sequence,
            }])
            .await
    }

    /// How the store is.
    pub async fn health(&self) -> Health {
        let now = self.core.runtime.now();
        let full = matches!(
            self.core.room.admit(0, Claim::Keeps, now),
            Err(Error::Full { .. })
        );
        let (available, reserve) = self.core.room.known();
        Health {
            poisoned: self.core.poison.reason().map(|reason| reason.to_string()),
            full,
            writing: self.core.metrics.writing_for(now),
            uploads: self.core.sessions.count() as u64,
            available,
            reserve,
            backend: self.core.disk.backend().to_string(),
            epoch: self.core.epoch,
            cached: self.core.pages.cached(),
            index_memory: self.core.index.memory(),
            counts: self.core.metrics.counts(),
        }
    }

    /// What there is of a blob, without a lease on it: nobody is to rely on the
    /// answer. One in quarantine is there.
    pub fn look(&self, digest: &Digest) -> Result<Option<Stat>> {
        let found = self.core.peek(digest)?;
        let found = found.filter(|(_, row)| row.state != State::Dead);
        Ok(found.map(|(_, row)| Stat::of(*digest, &row)))
    }

    /// All digests that each of these blobs has, this one among them. Reads a table
    /// of the index from begin to end, which blocks.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn digests_of(&self, blobs: &[Digest]) -> Result<Vec<Vec<Digest>>> {
        further::all_of(&self.core, blobs)
    }

    /// Whether a lease or a pin holds a blob. The collector asks this.
    pub fn held(&self, digest: &Digest) -> Result<bool> {
        match self.core.peek(digest)? {
            Some((sha256, row)) => {
                Ok(self
                    .core
                    .presence
                    .leases
                    .held(&sha256, row.ordinal, self.core.runtime.now()))
            }
            None => Ok(false),
        }
    }

    /// Ends the leases on blobs, so that a collection need not wait for them: they
    /// are to go now. Pins hold as before, and whoever uses one after this has a
    /// lease again.
    ///
    /// # Errors
    /// When it cannot be known what a digest means: the leases of those before it
    /// have ended.
    pub fn revoke(&self, digests: &[Digest]) -> Result<()> {
        let core = &self.core;
        for digest in digests {
            let Some(sha256) = core.resolve(digest)? else {
                continue;
            };
            // Whoever is told of it at this moment is before it or after it.
            let _shard = core.presence.shard(&sha256);
            if let Some(row) = core.blob_row(&sha256)? {
                core.presence.leases.revoke(row.ordinal, core.runtime.now());
            }
        }
        Ok(())
    }

    /// Closes the store: all that was acknowledged is in the index and a clean
    /// mark ends the journal. Uploads under way keep their durable offset. The
    /// store's own tasks have ended on return; its files are closed when the
    /// last clone is dropped.
    pub async fn close(&self) -> Result<()> {
        self.core.end_maintenance();
        let marked = self.core.queue.close().await;
        while self.core.running.lock().await.recv().await.is_some() {}
        marked?;
        self.core.index.flush()?;
        Ok(())
    }
}

/// Starts a task that holds on to `alive` until it ends. One that panics ends
/// all writing until a restart, which says so: without it the log would not be
/// written, or would never be recycled.
fn spawn(
    runtime: &dyn Runtime,
    name: &'static str,
    (alive, poison): (&Alive, &Poison),
    task: futures_util::future::BoxFuture<'static, ()>,
) -> Result<()> {
    let (alive, poison) = (alive.clone(), poison.clone());
    let task = Box::pin(async move {
        let ended = AssertUnwindSafe(task).catch_unwind().await;
        if let Err(panic) = ended {
            poison.set(&format_args!("the store's task {name} panicked"));
            drop(alive);
            resume_unwind(panic);
        }
        drop(alive);
    });
    runtime.spawn(name, task).map_err(|error| Error::Io {
        what: format!("cannot start thread {name}"),
        reason: error.to_string(),
    })
}
