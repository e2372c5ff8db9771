//! The catalog: the truth for names, in SQL.
//!
//! Owns: repositories, manifests and what they refer to, tags, links of blobs
//! to repositories, the change table, and jobs; on SQLite, the default, or on
//! PostgreSQL. [`Catalog`] is the way in.
//!
//! Invariants: one writer makes all changes and answers after they are
//! durable. A deleted row hides until a purge. Caches never outlive a change
//! that was answered. After a failed write of SQLite's files, or a panic of the
//! writer, nothing more is written until a restart; reads go on.
//!
//! Refuses to know: HTTP, who may do what, blobs and whether they are there.

mod at_once;
mod cache;
mod change;
mod departed;
mod doomed;
mod error;
mod gc;
mod job_verb;
mod jobs;
mod link;
mod live;
mod many;
mod marks;
mod namers;
mod postgres;
mod pulls;
mod purge;
mod read;
mod schema;
mod seen;
mod sql;
mod sqlite;
#[cfg(test)]
mod tests;
mod totals;
mod types;
mod undelete;
mod unit;
mod untagged;
mod users;
mod verb;
#[cfg(test)]
pub(crate) mod work;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::atomic::{self, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use orlop_format::digest::Digest;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use crate::supervisor::Supervisor;
pub use at_once::{Leaving, Lives};
use cache::Cache;
pub use departed::DEAD_MAX;
pub use error::CatalogError;
pub use jobs::{
    JOB_ATTEMPTS, JOB_LINES, JOB_TEXT_MAX, JOBS_KEPT, Job, JobEnd, JobLine, JobProgress, JobReport,
    JobState, Schedule,
};
pub use live::LiveSet;
use marks::Committed;
pub use pulls::PULLS_MAX;
pub use purge::Purge;
pub use read::{PAGE_MAX, READ_TIME};
use schema::{Dialect, Identity};
pub use seen::Seen;
use sql::{Connection, Pool};
pub use totals::Totals;
pub use types::{Change, ChangeKind, Counters, Edge, EdgeKind, ManifestRow, PutManifest, Referrer};
pub use types::{
    Dead, Departed, GcState, Hidden, HiddenRepository, LinkedBlob, PurgedRows, Reason, Unreached,
};
pub use types::{Doomed, DoomedRepository, GcPause, Namers, PurgePlace, PurgeUnit, PurgedManifest};
pub use types::{Pull, PullCount, PullOf, rfc3339};
pub use untagged::Place as UntaggedPlace;
use verb::{Progress, Verb};
use writer::{Change as Queued, Message, QUEUE, Shared, Writer, closed};

/// How long a change waits for a place in the queue.
const QUEUE_WAIT: Duration = Duration::from_secs(10);

/// Where a catalog is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// A SQLite file. `-wal` and `-shm` files appear beside it.
    Sqlite(PathBuf),
    /// The address of a PostgreSQL database: `postgres://…`.
    Postgres(String),
}

/// What the owner of a catalog may choose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Whether to make a catalog where there is none.
    pub create: bool,
    /// Lookups that are remembered, at most; each takes a few hundred bytes.
    pub cache_rows: u64,
    /// Connections for reading, at most.
    pub readers: u32,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            create: false,
            cache_rows: 50_000,
            readers: 4,
        }
    }
}

/// An open catalog. Clones share it.
///
/// When the last clone is dropped, changes that wait are finished in the
/// background; [`Catalog::close`] waits for them.
#[derive(Clone)]
pub struct Catalog {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    queue: mpsc::Sender<Message>,
    readers: Pool,
    dialect: Dialect,
    location: Location,
    supervisor: Supervisor,
    hits: AtomicU64,
    misses: AtomicU64,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl Catalog {
    /// Opens a catalog, and brings an older one up to date. Needs a tokio
    /// runtime, on which its tasks run; its writer has a thread.
    ///
    /// # Errors
    /// `Missing` when there is none and none may be made, `Newer` when a later
    /// release wrote it, `Damaged` when it is no catalog, `Full`,
    /// `Unavailable` when it cannot be reached or the database is too old.
    pub async fn open(location: Location, options: Options) -> Result<Catalog, CatalogError> {
        let readers = options.readers.max(1);
        let (told, commits) = watch::channel(());
        match &location {
            Location::Sqlite(path) => {
                let path = path.clone();
                let opened = sqlite::open(&path, options.create, readers).await?;
                let start = Start {
                    identity: opened.identity,
                    dialect: Dialect::Sqlite,
                    writer: opened.writer,
                    readers: opened.readers,
                    told,
                };
                let catalog = start.run(location, &options)?;
                let shared = Arc::clone(catalog.shared());
                let supervisor = catalog.inner.supervisor.clone();
                let checkpoints =
                    sqlite::checkpoints(opened.checkpointer, path, shared, commits, supervisor);
                catalog.keep(tokio::spawn(checkpoints));
                Ok(catalog)
            }
            Location::Postgres(url) => {
                let opened = postgres::open(url, options.create, readers).await?;
                let start = Start {
                    identity: opened.identity,
                    dialect: Dialect::Postgres,
                    writer: opened.writer,
                    readers: opened.readers,
                    told,
                };
                start.run(location, &options)
            }
        }
    }

    /// The catalog's own id, given when it was made.
    #[must_use]
    pub fn id(&self) -> [u8; 16] {
        self.shared().id
    }

    /// The sequence of the last committed change; 0 before the first.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.shared().committed.get()
    }

    /// Why nothing is written any more, if so.
    #[must_use]
    pub fn poisoned(&self) -> Option<String> {
        self.shared().poison.get().cloned()
    }

    /// How long the writer has been at the transaction that it is at; zero when
    /// it is at none.
    #[must_use]
    pub fn writing(&self) -> Duration {
        let since = self.shared().writing.lock();
        let since = *since.unwrap_or_else(PoisonError::into_inner);
        since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// How much was done since the catalog was opened.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let shared = self.shared();
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counters {
            verbs: count(&shared.verbs),
            commits: count(&shared.commits),
            checkpoints: count(&shared.checkpoints),
            hits: count(&self.inner.hits),
            misses: count(&self.inner.misses),
            queued: QUEUE.saturating_sub(self.inner.queue.capacity()) as u64,
        }
    }

    /// How often each of its tasks panicked and was started again.
    #[must_use]
    pub fn restarts(&self) -> Vec<(&'static str, u64)> {
        self.inner.supervisor.restarts()
    }

    /// Names a manifest whose bytes are durable, and sets its tags. A hidden
    /// manifest of this digest comes back.
    ///
    /// # Errors
    /// `Refused`, `Full`: it is not named. `Gone`: neither, since one that it
    /// lists was purged. `Unavailable`, `Poisoned`: it may be; naming it again is
    /// safe.
    pub async fn put_manifest(&self, manifest: PutManifest) -> Result<(), CatalogError> {
        fits(manifest.size)?;
        for edge in &manifest.edges {
            fits(edge.size)?;
        }
        let verb = Verb::PutManifest(Box::new(manifest));
        match self.step(verb).await? {
            Progress::Gone(digest) => Err(CatalogError::Gone(digest)),
            _ => Ok(()),
        }
    }

    /// Gives the repository, made if it is missing, a blob of `size` bytes, of
    /// the life with this birth.
    ///
    /// # Errors
    /// As [`Catalog::put_manifest`].
    pub async fn link_blob(
        &self,
        repository: &str,
        digest: &Digest,
        (size, birth): (u64, u64),
    ) -> Result<(), CatalogError> {
        let verb = Verb::LinkBlob {
            repository: repository.to_owned(),
            digest: *digest,
            size: fits(size)?,
            birth: fits(birth)?,
        };
        self.submit(verb).await.map(|_| ())
    }

    /// Takes a blob from the repository alone. False: it did not have it.
    ///
    /// # Errors
    /// As [`Catalog::put_manifest`].
    pub async fn unlink_blob(
        &self,
        repository: &str,
        digest: &Digest,
    ) -> Result<bool, CatalogError> {
        self.submit(Verb::UnlinkBlob {
            repository: repository.to_owned(),
            digest: *digest,
        })
        .await
    }

    /// Hides a tag. False: there was none.
    ///
    /// # Errors
    /// As [`Catalog::put_manifest`].
    pub async fn delete_tag(&self, repository: &str, tag: &str) -> Result<bool, CatalogError> {
        self.submit(Verb::DeleteTag {
            repository: repository.to_owned(),
            tag: tag.to_owned(),
        })
        .await
    }

    /// Hides a manifest and its tags, many of them in several steps, the
    /// manifest with the last. False: there was none.
    ///
    /// # Errors
    /// As [`Catalog::put_manifest`].
    pub async fn delete_manifest(
        &self,
        repository: &str,
        digest: &Digest,
    ) -> Result<bool, CatalogError> {
        // The same for all steps, so that an undelete finds what belongs together.
        let at = self.time();
        loop {
            let verb = Verb::DeleteManifest {
                repository: repository.to_owned(),
                digest: *digest,
                at,
            };
            match self.step(verb).await? {
                Progress::Nothing => return Ok(false),
                Progress::Step => {}
                _ => return Ok(true),
            }
        }
    }

    /// Hides a repository and all in it. False: there was none. A push to its
    /// name makes a new one.
    ///
    /// # Errors
    /// As [`Catalog::put_manifest`].
    pub async fn delete_repository(&self, repository: &str) -> Result<bool, CatalogError> {
        self.submit(Verb::DeleteRepository {
            repository: repository.to_owned(),
        })
        .await
    }

    /// Writes a copy of one state to a new file, checks it, and gives back the
    /// sequence it is at.
    ///
    /// # Errors
    /// `Unavailable`, also on PostgreSQL, which has means of its own; `Damaged`
    /// when the copy is not whole; `Full`. No file is left then.
    pub async fn copy_to(&self, path: &Path) -> Result<u64, CatalogError> {
        match &self.inner.location {
            Location::Sqlite(from) => sqlite::copy(from, path, self.id(), self.sequence()).await,
            Location::Postgres(_) => Err(CatalogError::Unavailable(
                "copies are made of a SQLite catalog only; use pg_dump".to_owned(),
            )),
        }
    }

    /// Copies a SQLite catalog that opening would bring up to date, as it is,
    /// to a new file. Gives back its id and the sequence of the copy; None when
    /// it is up to date.
    ///
    /// # Errors
    /// As [`Catalog::copy_to`], and `Newer` or `Damaged` as [`Catalog::open`].
    pub async fn copy_outdated(
        from: &Path,
        to: &Path,
    ) -> Result<Option<([u8; 16], u64)>, CatalogError> {
        sqlite::copy_outdated(from, to).await
    }

    /// Takes every connection for reading, until the result is dropped.
    #[cfg(test)]
    pub(crate) async fn take_readers(&self) -> Vec<impl Send + use<>> {
        let mut taken = Vec::new();
        for _ in 0..Options::default().readers {
            taken.push(self.reader().await.unwrap());
        }
        taken
    }

    /// Makes a SQLite catalog as the first release did.
    #[cfg(test)]
    pub(crate) async fn make_first(
        path: &Path,
        id: [u8; 16],
        sequence: u64,
    ) -> Result<(), CatalogError> {
        sqlite::make_first(path, id, sequence).await
    }

    /// Runs statements on a SQLite catalog that is closed.
    #[cfg(test)]
    pub(crate) async fn run_on_file(path: &Path, sql: String) -> Result<(), CatalogError> {
        sqlite::run_on_file(path, sql).await
    }

    /// Links of blobs, and what is remembered of purged rows, in a SQLite catalog
    /// that is closed: how many.
    #[cfg(test)]
    pub(crate) async fn links_on_file(path: &Path) -> Result<(i64, i64), CatalogError> {
        let links = sqlite::count_on_file(path, "SELECT count(*) FROM link").await?;
        let departed = sqlite::count_on_file(path, "SELECT count(*) FROM departed").await?;
        Ok((links, departed))
    }

    /// Finishes the changes that were taken and closes the catalog. Later
    /// changes are refused, later reads fail.
    pub async fn close(&self) {
        // Fails when the writer has ended already.
        let _ = self.inner.queue.send(Message::Close).await;
        let tasks = std::mem::take(&mut *self.tasks());
        for task in tasks {
            if let Err(error) = task.await {
                tracing::error!(%error, "a task of the catalog did not end well");
            }
        }
        self.inner.readers.close().await;
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.inner.shared
    }

    // Only pushed to and taken as a whole.
    fn tasks(&self) -> std::sync::MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.inner
            .tasks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, task: JoinHandle<()>) {
        self.tasks().push(task);
    }

    /// Tells this of each read, each push of a manifest that is to be written, and
    /// each commit before and after it.
    #[cfg(test)]
    pub(crate) fn tell(&self, hook: writer::Hook) {
        let mut place = self
            .shared()
            .hook
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *place = Some(hook);
    }

    /// The time that rows get now, in milliseconds since 1970.
    fn time(&self) -> i64 {
        writer::now().max(self.shared().clock.load(Ordering::Relaxed))
    }

    /// A connection that cannot write.
    async fn reader(&self) -> Result<Connection, CatalogError> {
        #[cfg(test)]
        self.shared().at("read")?;
        Ok(self.inner.readers.acquire().await?)
    }

    /// The same, for rows that a request asks for.
    async fn row_reader(&self) -> Result<Connection, CatalogError> {
        #[cfg(test)]
        self.shared().at("row")?;
        Ok(self.inner.readers.acquire().await?)
    }

    /// Runs a change of one step. False: there was nothing to do.
    async fn submit(&self, verb: Verb) -> Result<bool, CatalogError> {
        Ok(self.step(verb).await? != Progress::Nothing)
    }

    async fn step(&self, verb: Verb) -> Result<Progress, CatalogError> {
        self.shared().check()?;
        #[cfg(test)]
        if matches!(verb, Verb::PutManifest(_)) {
            self.shared().at("push")?;
        }
        let (answer, answered) = oneshot::channel();
        let message = Message::Change(Queued { verb, answer });
        self.inner
            .queue
            .send_timeout(message, QUEUE_WAIT)
            .await
            .map_err(|error| match error {
                mpsc::error::SendTimeoutError::Timeout(_) => {
                    CatalogError::Unavailable(format!("{QUEUE} changes are waiting"))
                }
                mpsc::error::SendTimeoutError::Closed(_) => self.ended(),
            })?;
        let Ok(answer) = answered.await else {
            // The writer panicked at it. Once the queue is closed it is known why.
            self.inner.queue.closed().await;
            return Err(self.ended());
        };
        answer
    }

    /// Why the writer takes nothing any more.
    fn ended(&self) -> CatalogError {
        self.shared().check().err().unwrap_or_else(closed)
    }
}

impl std::fmt::Debug for Catalog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Catalog")
            .field("dialect", &self.inner.dialect)
            .field("sequence", &self.sequence())
            .finish_non_exhaustive()
    }
}

/// An opened database on its way to being a catalog.
struct Start {
    identity: Identity,
    dialect: Dialect,
    writer: Pool,
    readers: Pool,
    told: watch::Sender<()>,
}

impl Start {
    fn run(self, location: Location, options: &Options) -> Result<Catalog, CatalogError> {
        let shared = Arc::new(Shared {
            id: self.identity.id,
            committed: Committed::new(self.identity.sequence.unsigned_abs()),
            cache: Cache::new(options.cache_rows),
            turn: tokio::sync::Mutex::new(()),
            poison: OnceLock::new(),
            clock: AtomicI64::new(self.identity.clock),
            writing: Mutex::default(),
            verbs: AtomicU64::new(0),
            commits: AtomicU64::new(0),
            checkpoints: AtomicU64::new(0),
            #[cfg(test)]
            panics: Mutex::default(),
            #[cfg(test)]
            hook: Mutex::default(),
        });
        let (queue, jobs) = mpsc::channel(QUEUE);
        let writer = Writer {
            pool: self.writer,
            dialect: self.dialect,
            shared: Arc::clone(&shared),
            commits: self.told,
        };
        let task = writer.start(jobs)?;
        Ok(Catalog {
            inner: Arc::new(Inner {
                shared,
                queue,
                readers: self.readers,
                dialect: self.dialect,
                location,
                supervisor: Supervisor::default(),
                hits: AtomicU64::new(0),
                misses: AtomicU64::new(0),
                tasks: Mutex::new(vec![task]),
            }),
        })
    }
}

/// Numbers of the catalog have 63 bits.
fn fits(number: u64) -> Result<i64, CatalogError> {
    i64::try_from(number)
        .map_err(|_| CatalogError::Refused(format!("{number} is too large a number")))
}
