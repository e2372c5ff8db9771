//! The one writer: takes changes from a queue, commits many at once, answers
//! each after its commit is durable.
//!
//! Invariants: one transaction is open at a time. Every change of it runs in a
//! savepoint: a constraint undoes that one alone. Any other error undoes the
//! whole transaction, whose changes are then run again one by one, or refused.
//! A failed read or write of SQLite's files ends all writing until a restart,
//! and so does a panic: what was done by then is not known. Every change is
//! answered.
//! Caches are told before an answer is given.
//!
//! Refuses to know: what the changes say.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures_util::FutureExt as _;
use tokio::runtime::Builder;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use super::cache::Cache;
use super::error::{CatalogError, Fault, sort};
use super::marks::Committed;
use super::schema::Dialect;
use super::sql::{Connection, Pool};
use super::verb::{Effect, Progress, Verb};
use crate::supervisor::message;

/// Changes that may wait.
pub(super) const QUEUE: usize = 1024;
/// Changes in one transaction, at most.
const BATCH_VERBS: usize = 256;
/// A transaction takes no further changes after this long.
const BATCH_TIME: Duration = Duration::from_millis(20);
/// Failures in a row, when changes are run again, after which the rest of the
/// batch is refused untried.
const FAILURES: u32 = 2;

/// What the writer shares with readers.
pub(super) struct Shared {
    pub(super) id: [u8; 16],
    /// The last sequence that is committed and told to the cache.
    pub(super) committed: Committed,
    pub(super) cache: Cache,
    /// Held by a transaction, and while the write-ahead file is emptied: whoever
    /// came first goes first, so that a busy writer cannot keep that from being
    /// done.
    pub(super) turn: tokio::sync::Mutex<()>,
    pub(super) poison: OnceLock<String>,
    /// No row gets a time before this, in milliseconds since 1970.
    pub(super) clock: AtomicI64,
    /// Since when the writer is at a transaction, if it is.
    pub(super) writing: Mutex<Option<Instant>>,
    pub(super) verbs: AtomicU64,
    pub(super) commits: AtomicU64,
    pub(super) checkpoints: AtomicU64,
    /// Where a test wants a panic, once each.
    #[cfg(test)]
    pub(super) panics: Mutex<Vec<&'static str>>,
    /// What a test wants to happen at some places.
    #[cfg(test)]
    pub(super) hook: Mutex<Option<Hook>>,
}

/// Told of each place that is passed. False: the database is busy there.
#[cfg(test)]
pub(crate) type Hook = Arc<dyn Fn(&'static str) -> bool + Send + Sync>;

impl Shared {
    /// Ends all writing, if this failure is one that does. Tells the reason.
    pub(super) fn poison(&self, reason: String) -> CatalogError {
        let reason = self.poison.get_or_init(|| {
            tracing::error!(reason, "the catalog takes no changes until a restart");
            reason
        });
        CatalogError::Poisoned(reason.clone())
    }

    pub(super) fn check(&self) -> Result<(), CatalogError> {
        self.poison
            .get()
            .map_or(Ok(()), |reason| Err(CatalogError::Poisoned(reason.clone())))
    }

    /// Does what a test wants here.
    #[cfg(test)]
    pub(super) fn at(&self, place: &'static str) -> Result<(), sqlx::Error> {
        let hook = self
            .hook
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        match hook {
            Some(hook) if !hook(place) => Err(sqlx::Error::PoolTimedOut),
            _ => Ok(()),
        }
    }

    /// Panics if a test wants that here.
    #[cfg(test)]
    pub(super) fn pass(&self, place: &'static str) {
        let mut panics = self.panics.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = panics.iter().position(|panic| *panic == place) {
            panics.remove(at);
            panic!("in the catalog's {place}");
        }
    }
}

/// Says since when the writer is at a transaction, until it is dropped.
struct Writing<'a>(&'a Shared);

impl<'a> Writing<'a> {
    fn begin(shared: &'a Shared) -> Self {
        let writing = Writing(shared);
        writing.set(Some(Instant::now()));
        writing
    }

    fn set(&self, since: Option<Instant>) {
        *self
            .0
            .writing
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = since;
    }
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        self.set(None);
    }
}

/// A change and who waits for it. The answer says how far it got.
pub(super) struct Change {
    pub(super) verb: Verb,
    pub(super) answer: oneshot::Sender<Result<Progress, CatalogError>>,
}

impl Change {
    fn answer(self, answer: Result<Progress, CatalogError>) {
        // Who asked may have gone; the change is made all the same.
        let _ = self.answer.send(answer);
    }
}

pub(super) enum Message {
    Change(Change),
    /// Finish what was taken and end.
    Close,
}

enum Outcome {
    Done(Effect),
    Refused(String),
}

pub(super) struct Writer {
    pub(super) pool: Pool,
    pub(super) dialect: Dialect,
    pub(super) shared: Arc<Shared>,
    /// Told after each commit, and dropped at the end.
    pub(super) commits: watch::Sender<()>,
}

impl Writer {
    /// Runs it on a thread of its own: it waits for the database at each statement,
    /// and among the tasks of a busy server it would get its turn late each time.
    /// Gives what ends with it.
    pub(super) fn start(
        self,
        queue: mpsc::Receiver<Message>,
    ) -> Result<JoinHandle<()>, CatalogError> {
        let (over, ended) = oneshot::channel::<()>();
        let runtime = Builder::new_current_thread().enable_all().build();
        let thread = runtime.and_then(|runtime| {
            let name = "catalog".to_owned();
            let thread = std::thread::Builder::new().name(name);
            thread.spawn(move || {
                runtime.block_on(self.run(queue));
                drop(over);
            })
        });
        thread.map_err(|error| {
            CatalogError::Unavailable(format!("there is no thread for its writer: {error}"))
        })?;
        Ok(tokio::spawn(async move {
            // Nothing is sent: it ends with the thread.
            let _ = ended.await;
        }))
    }

    /// Runs until the queue is closed, or it panics.
    async fn run(self, mut queue: mpsc::Receiver<Message>) {
        let written = AssertUnwindSafe(self.write(&mut queue))
            .catch_unwind()
            .await;
        if let Err(panic) = written {
            let why = message(panic.as_ref());
            self.shared
                .poison(format!("the catalog's writer died: {why}"));
        }
        // Nobody waits for a writer that has ended.
        queue.close();
        while let Some(message) = queue.recv().await {
            if let Message::Change(job) = message {
                job.answer(Err(self.shared.check().err().unwrap_or_else(closed)));
            }
        }
        self.pool.close().await;
    }

    async fn write(&self, queue: &mut mpsc::Receiver<Message>) {
        let mut is_open = true;
        while is_open && let Some(message) = queue.recv().await {
            let Message::Change(first) = message else {
                break;
            };
            if let Err(error) = self.shared.check() {
                first.answer(Err(error));
                continue;
            }
            let mut jobs = vec![first];
            let result = self
                .transact(&mut jobs, || match queue.try_recv().ok()? {
                    Message::Change(job) => Some(job),
                    Message::Close => {
                        is_open = false;
                        None
                    }
                })
                .await;
            match result {
                Ok(outcomes) => self.publish(jobs, outcomes),
                Err(error) => self.again(jobs, error).await,
            }
        }
    }

    /// Runs the jobs, and those that come meanwhile, in one transaction.
    async fn transact(
        &self,
        jobs: &mut Vec<Change>,
        more: impl FnMut() -> Option<Change>,
    ) -> Result<Vec<Outcome>, sqlx::Error> {
        let _writing = Writing::begin(&self.shared);
        let mut connection = self.pool.acquire().await?;
        let _turn = self.shared.turn.lock().await;
        let result = self.fill(&mut connection, jobs, more).await;
        if result.is_err() && connection.run("ROLLBACK", &[]).await.is_err() {
            connection.discard().await;
        }
        result
    }

    async fn fill(
        &self,
        connection: &mut Connection,
        jobs: &mut Vec<Change>,
        mut more: impl FnMut() -> Option<Change>,
    ) -> Result<Vec<Outcome>, sqlx::Error> {
        let (begin, limit) = match self.dialect {
            Dialect::Sqlite => ("BEGIN IMMEDIATE", BATCH_VERBS),
            Dialect::Postgres => ("BEGIN ISOLATION LEVEL SERIALIZABLE", 1),
        };
        let start = Instant::now();
        let mut outcomes = Vec::new();
        connection.run(begin, &[]).await?;
        loop {
            while let Some(job) = jobs.get(outcomes.len()) {
                let stamp = now().max(self.shared.clock.load(Ordering::Relaxed));
                outcomes.push(run(connection, &job.verb, stamp).await?);
            }
            if jobs.len() >= limit || start.elapsed() >= BATCH_TIME {
                break;
            }
            let Some(job) = more() else { break };
            jobs.push(job);
        }
        #[cfg(test)]
        self.shared.pass("transaction");
        #[cfg(test)]
        self.shared.at("commit")?;
        connection.run("COMMIT", &[]).await?;
        #[cfg(test)]
        self.shared.at("committed")?;
        Ok(outcomes)
    }

    /// Runs the jobs of an undone transaction again, one by one.
    async fn again(&self, jobs: Vec<Change>, error: sqlx::Error) {
        tracing::warn!(%error, changes = jobs.len(), "a catalog transaction failed");
        let mut verdict = self.verdict(&error);
        let mut failures = 0;
        for job in jobs {
            match &verdict {
                Some(error) => job.answer(Err(error.clone())),
                None => match self.alone(job).await {
                    Ok(()) => failures = 0,
                    Err(error) => {
                        failures += 1;
                        verdict = self.verdict(&error);
                        if failures >= FAILURES {
                            verdict = verdict.or_else(|| Some(unavailable(&error)));
                        }
                    }
                },
            }
        }
    }

    /// Runs one job until it succeeds or was tried often enough; answers it.
    async fn alone(&self, job: Change) -> Result<(), sqlx::Error> {
        let tries: u32 = match self.dialect {
            Dialect::Sqlite => 1,
            // Conflicts with other nodes are expected there.
            Dialect::Postgres => 7,
        };
        let mut jobs = vec![job];
        let mut tried = 0;
        loop {
            if tried > 0 {
                tokio::time::sleep(Duration::from_millis(1 << tried)).await;
            }
            tried += 1;
            match self.transact(&mut jobs, || None).await {
                Ok(outcomes) => {
                    self.publish(jobs, outcomes);
                    return Ok(());
                }
                Err(error) => {
                    let verdict = self.verdict(&error);
                    if verdict.is_none() && tried < tries {
                        continue;
                    }
                    let answer = verdict.unwrap_or_else(|| unavailable(&error));
                    for job in jobs {
                        job.answer(Err(answer.clone()));
                    }
                    return Err(error);
                }
            }
        }
    }

    /// The answer to every change after this error, or none if they may be
    /// tried again.
    fn verdict(&self, error: &sqlx::Error) -> Option<CatalogError> {
        let reason = error.to_string();
        match sort(error) {
            Fault::Again | Fault::Constraint => None,
            Fault::Full => Some(CatalogError::Full(reason)),
            Fault::Io | Fault::Damaged if self.dialect == Dialect::Sqlite => {
                Some(self.shared.poison(reason))
            }
            Fault::Io => Some(CatalogError::Unavailable(reason)),
            Fault::Damaged => Some(CatalogError::Damaged(reason)),
        }
    }

    /// Tells caches, then those who wait.
    fn publish(&self, jobs: Vec<Change>, outcomes: Vec<Outcome>) {
        #[cfg(test)]
        self.shared.pass("answers");
        let mut last = 0;
        for outcome in &outcomes {
            if let Outcome::Done(effect) = outcome
                && let Some(sequence) = effect.sequence
            {
                let sequence = sequence.unsigned_abs();
                last = last.max(sequence);
                for touched in &effect.touched {
                    self.shared.cache.touch(touched, sequence);
                }
            }
        }
        self.shared.committed.reach(last);
        self.shared.commits.fetch_add(1, Ordering::Relaxed);
        self.commits.send_replace(());
        for (job, outcome) in jobs.into_iter().zip(outcomes) {
            match outcome {
                Outcome::Done(effect) => {
                    self.shared.verbs.fetch_add(1, Ordering::Relaxed);
                    job.answer(Ok(effect.progress()));
                }
                Outcome::Refused(reason) => job.answer(Err(CatalogError::Refused(reason))),
            }
        }
    }
}

async fn run(connection: &mut Connection, verb: &Verb, stamp: i64) -> Result<Outcome, sqlx::Error> {
    connection.run("SAVEPOINT verb", &[]).await?;
    match verb.apply(connection, stamp).await {
        Ok(effect) => {
            connection.run("RELEASE SAVEPOINT verb", &[]).await?;
            Ok(Outcome::Done(effect))
        }
        Err(error) if sort(&error) == Fault::Constraint => {
            connection.run("ROLLBACK TO SAVEPOINT verb", &[]).await?;
            connection.run("RELEASE SAVEPOINT verb", &[]).await?;
            Ok(Outcome::Refused(error.to_string()))
        }
        Err(error) => Err(error),
    }
}

fn unavailable(error: &sqlx::Error) -> CatalogError {
    CatalogError::Unavailable(error.to_string())
}

pub(super) fn closed() -> CatalogError {
    CatalogError::Unavailable("it is being closed".to_owned())
}

/// Milliseconds since 1970. Kept with rows; orders nothing.
pub(super) fn now() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
