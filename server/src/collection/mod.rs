//! The job that collects garbage (docs/adr/0019-what-is-garbage.md): purges
//! rows, deletes what nothing reaches, and runs cycles of mark and sweep until
//! nothing is left that can go.
//!
//! Owns: what the server tells the store of names, and what it does with what
//! the store gives back. [`Gc`] is the way in.
//!
//! Invariants: what cannot be read of a live set ends the job with nothing deleted
//! by it; what cannot be ended is passed over, said, and left to the next; rows go
//! before blobs, blobs before their links; while writes are switched off, or
//! collection is paused, nothing is deleted.
//!
//! Refuses to know: SQL, where bytes are, and how they come back.

mod at_once;
mod cycle;
mod expunge;
mod expunged;
mod limit;
mod outcome;
mod pace;
mod pause;
mod plan;
mod retire;
mod skips;
mod untagged;

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use orlop_engine::{Collected, Store};
use orlop_oci::Digest;
use tokio::task::yield_now;
use tokio::time::sleep;

use crate::catalog::{Catalog, CatalogError, PurgedRows, rfc3339};
use crate::jobs::{Clock, Run, Stop, Work};
use crate::metrics::Busy;
use crate::registry::{Maintenance, Registry};
use pace::Pace;

pub use expunge::{ExpungeError, Target};
pub use expunged::{Expunged, ExpungedManifest, TOLD};
use limit::Limit;
pub use outcome::{Observed, Outcome, Rules, Wanted, Why};
use pause::Paused;
pub use plan::{Planned, Stray};
use retire::Looked;
pub use untagged::Untagged;

/// The kind's name.
pub const GC: &str = "gc";
/// Cycles of one job at most: what is garbage in the first dies in the second,
/// or in a later one that is not bounded any more.
const CYCLES: u32 = 8;
/// How often it is looked whether writes are switched on again.
const LOOK: Duration = Duration::from_secs(1);
/// No clock is believed before this: 2020.
const LONG_AGO: i64 = 1_577_836_800_000;
/// How much later it may be after a stop, in milliseconds, however long that took.
const STOP_MAX: i64 = 24 * 3_600_000;
/// The days of which unexplained deaths are counted, in milliseconds.
const DAY: i64 = 24 * 3_600_000;
/// Garbage that a plan names.
const NAMED: usize = 20;

/// Collects garbage.
pub struct Gc {
    store: Store,
    catalog: Catalog,
    registry: Registry,
    rules: Rules,
    clock: Clock,
    /// When this was made.
    began: Instant,
    /// The time that was believed last, and when.
    believed: Mutex<Option<(Instant, i64)>>,
    /// How far it was looked for untagged manifests.
    looked: Mutex<Looked>,
    maintenance: OnceLock<Maintenance>,
    pace: Mutex<Pace>,
    observed: Mutex<Observed>,
    /// The catalog's sequence at which there was no garbage.
    clean_at: Mutex<Option<u64>>,
    /// Whether an operator wants no collection.
    paused: Paused,
    /// Births of blobs that go before their leases end, and have not died yet.
    at_once: Mutex<HashSet<u64>>,
    /// Whether some of them have died and not all room was given back since.
    owes_room: AtomicBool,
    /// What the newest plan names.
    planned: Mutex<Option<Planned>>,
}

impl Gc {
    /// A collection of this store by the rows of this catalog. Deletes go by
    /// the registry.
    pub fn new(
        (store, catalog, registry): (Store, Catalog, Registry),
        rules: Rules,
        clock: Clock,
    ) -> Gc {
        Gc {
            store,
            catalog,
            registry,
            rules,
            clock,
            began: Instant::now(),
            believed: Mutex::default(),
            looked: Mutex::default(),
            maintenance: OnceLock::new(),
            pace: Mutex::new(Pace::beside(Busy::default())),
            observed: Mutex::default(),
            clean_at: Mutex::default(),
            paused: Paused::default(),
            at_once: Mutex::default(),
            owes_room: AtomicBool::new(false),
            planned: Mutex::default(),
        }
    }

    /// Deletes nothing while this says that nothing is written. The first one
    /// counts.
    pub fn obey(&self, maintenance: &Maintenance) {
        let _ = self.maintenance.set(maintenance.clone());
    }

    /// Pauses while somebody is being served, as this says. Before it is told, it
    /// takes it that nobody is.
    pub fn yield_to(&self, busy: Busy) {
        *self.pace.lock().unwrap_or_else(PoisonError::into_inner) = Pace::beside(busy);
    }

    /// How it is.
    pub fn observe(&self) -> Observed {
        let observed = *self.observed.lock().unwrap_or_else(PoisonError::into_inner);
        Observed {
            is_paused: self.paused.is_on(),
            ..observed
        }
    }

    /// What keeps a blob, or why it is garbage.
    ///
    /// # Errors
    /// When it cannot be known.
    pub async fn why(&self, digest: &Digest) -> Result<Why, String> {
        let found = self.store.look(digest).map_err(|error| error.to_string())?;
        // What has ended is held by nobody, also while all else is after a start.
        let held = match found {
            Some(_) => self.store.held(digest).map_err(|error| error.to_string())?,
            None => false,
        };
        let kept_by = self.catalog.kept_by(digest, NAMED).await;
        let departed = self.catalog.departed(&[*digest]).await;
        Ok(Why {
            size: found.map(|stat| stat.size),
            held,
            kept_by: kept_by.map_err(|error| error.to_string())?,
            departed: departed
                .map_err(|error| error.to_string())?
                .into_iter()
                .flatten()
                .next(),
        })
    }

    async fn collect(&self, run: &Run) -> Result<String, Stop> {
        let wanted: Wanted = serde_json::from_str(run.params())
            .map_err(|error| Stop::Failed(format!("its parameters are not known: {error}")))?;
        let limit = Limit::begin(self.rules.limit);
        let mut outcome = Outcome {
            plan: wanted.plan,
            ..Outcome::default()
        };
        if wanted.release {
            self.catalog.release_gc().await.map_err(names)?;
        }
        let state = self.look_at_pause().await.map_err(names)?;
        if state.pause.is_some() && !wanted.plan {
            outcome.paused = true;
            return text(&outcome);
        }
        let now = self.believe(state.clock).await?;
        let until = until(now, &self.rules, &wanted);
        if wanted.plan {
            self.cycle(run, &wanted, Some(until), limit, &mut outcome)
                .await?;
            self.name(run, until, now).await?;
            return text(&outcome);
        }
        if let Some(why) = state.hold {
            return Err(Stop::Failed(format!(
                "nothing is collected: {why}. When that is settled, `orlop gc run --release` begins again"
            )));
        }
        self.purge(run, until, limit, &mut outcome).await?;
        self.retire(run, now, limit, &mut outcome).await?;
        if wanted.undelete_window.is_some() {
            // What was deleted just now too.
            self.purge(
                run,
                until.max(self::until(self.wall(), &self.rules, &wanted)),
                limit,
                &mut outcome,
            )
            .await?;
        }
        outcome.purge_ms = milliseconds(limit.elapsed());
        let sequence = self.catalog.sequence();
        // What came to nothing leaves room without a change of names.
        let is_clean = *self.clean_at() == Some(sequence);
        if is_clean && self.catalog.at_once(0).await.map_err(names)?.is_empty() {
            outcome.idle = true;
            self.reclaim(run, &wanted, limit, &mut outcome).await?;
            return text(&outcome);
        }
        self.cycles(run, &wanted, limit, &mut outcome).await?;
        self.reclaim(run, &wanted, limit, &mut outcome).await?;
        outcome.at_once_left = self.still_here().await?;
        text(&outcome)
    }

    /// Cycles until nothing is left that can go.
    async fn cycles(
        &self,
        run: &Run,
        wanted: &Wanted,
        limit: Limit,
        outcome: &mut Outcome,
    ) -> Result<(), Stop> {
        // What was passed over is tried once more.
        let mut again = true;
        for turn in 0..CYCLES {
            if turn > 0 && limit.is_over() {
                outcome.cut = true;
                break;
            }
            let sequence = self.catalog.sequence();
            // Writes were switched off meanwhile: it begins again after that.
            let Some(collected) = self.cycle(run, wanted, None, limit, outcome).await? else {
                self.go_on(run, Duration::ZERO).await?;
                continue;
            };
            let told = self.announce(run, &collected).await;
            let is_clean = collected.blobs == collected.live
                && collected.condemned == 0
                && outcome.skipped == 0;
            // That it is told is no change that makes garbage.
            let seen = if told == sequence.saturating_add(1) {
                told
            } else {
                sequence
            };
            *self.clean_at() = is_clean.then_some(seen);
            let waiting = collected.condemned.saturating_sub(collected.bounded);
            if waiting == 0
                || (waiting <= collected.skipped && !std::mem::replace(&mut again, false))
            {
                break;
            }
        }
        Ok(())
    }

    /// Writes down what a cycle came to, as a change that others can read. Which
    /// number that has; 0: it could not be, which ends no collection.
    async fn announce(&self, run: &Run, done: &Collected) -> u64 {
        let text = serde_json::json!({
            "job": run.id(),
            "blobs": done.blobs,
            "live": done.live,
            "absent": done.absent,
            "condemned": done.condemned,
            "condemned_bytes": done.condemned_bytes,
            "dead": done.dead,
            "dead_bytes": done.dead_bytes,
            "bounded": done.bounded,
        });
        let told = self.catalog.add_cycle(text.to_string()).await;
        told.unwrap_or_else(|error| {
            tracing::warn!(%error, "a cycle of collection is not among the changes");
            0
        })
    }

    /// Gives the room of what has died back to the file system: all of it to who
    /// asks for another window than the server's, and after a purge by digest.
    async fn reclaim(
        &self,
        run: &Run,
        wanted: &Wanted,
        limit: Limit,
        outcome: &mut Outcome,
    ) -> Result<(), Stop> {
        // What was purged by its digest is to be gone from the disk, too.
        let is_owed = self.owes_room.load(Ordering::Relaxed) || outcome.at_once > 0;
        self.owes_room.store(is_owed, Ordering::Relaxed);
        let is_all = wanted.undelete_window.is_some() || is_owed;
        let pass = match is_all {
            true => self.store.reclaim_all().await,
            false => self.store.reclaim().await,
        };
        let mut pass = pass.map_err(failed)?;
        let mut worked = Duration::ZERO;
        let mut rest = limit.rest();
        loop {
            self.pause(run, worked).await?;
            if !rest.goes_on() {
                outcome.cut = true;
                break;
            }
            let Some(_acting) = self.acting().await else {
                break;
            };
            let piece = Instant::now();
            tokio::select! {
                biased;
                why = run.ended() => return Err(why),
                step = pass.step() => {
                    if step.map_err(failed)?.is_none() {
                        // A plain pass is one that owes nothing.
                        self.owes_room.store(false, Ordering::Relaxed);
                        break;
                    }
                }
            }
            run.alive();
            worked = piece.elapsed();
        }
        let room = pass.total();
        outcome.freed = room.bytes;
        outcome.freed_segments = room.segments;
        self.change(|observed| observed.freed = observed.freed.saturating_add(room.bytes));
        if room.bytes > 0 || room.held > 0 || room.failed > 0 {
            run.log(format!(
                "gave {} bytes back to the file system, {} whole segments; {} are in use for now, {} could not be, see the log",
                room.bytes, room.segments, room.held, room.failed
            ));
        }
        Ok(())
    }

    fn clean_at(&self) -> std::sync::MutexGuard<'_, Option<u64>> {
        self.clean_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The time that is believed, which is kept for the next start: the time of
    /// day, but no further ahead of what was believed last than twice the time
    /// since, and a day for a stop. So a clock that jumps ends nobody's window.
    async fn believe(&self, kept: Option<i64>) -> Result<i64, Stop> {
        let wall = self.wall();
        let last = *self.believed.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, at, gap) = match (last, kept.filter(|at| *at > LONG_AGO)) {
            (Some((since, at)), _) => (since, at, 0),
            (None, Some(at)) => (self.began, at, STOP_MAX),
            (None, None) => (Instant::now(), wall, 0),
        };
        let elapsed = i64::try_from(since.elapsed().as_millis()).unwrap_or(i64::MAX);
        let latest = at
            .saturating_add(elapsed.saturating_mul(2))
            .saturating_add(gap);
        let now = wall.min(latest).max(at);
        let believed = Some((Instant::now(), now));
        *self.believed.lock().unwrap_or_else(PoisonError::into_inner) = believed;
        self.catalog.set_clock(now).await.map_err(names)?;
        Ok(now)
    }

    fn wall(&self) -> i64 {
        (self.clock)()
    }

    /// Whether nothing is to be deleted now: writes are switched off, or collection
    /// is paused.
    fn stands_still(&self) -> bool {
        let maintenance = self.maintenance.get();
        self.paused.is_on()
            || maintenance.is_some_and(|maintenance| maintenance.read_only().is_some())
    }

    /// Pauses after a piece of work that took so long. Ends with the job.
    async fn pause(&self, run: &Run, worked: Duration) -> Result<(), Stop> {
        let pause = {
            let mut pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
            pace.pause(worked)
        };
        let pause = async {
            match pause.is_zero() {
                true => yield_now().await,
                false => sleep(pause).await,
            }
        };
        tokio::select! {
            biased;
            why = run.ended() => Err(why),
            () = pause => Ok(()),
        }
    }

    /// As [`Gc::pause`], and waits while writes are switched off.
    async fn go_on(&self, run: &Run, worked: Duration) -> Result<(), Stop> {
        self.pause(run, worked).await?;
        while self.stands_still() {
            run.alive();
            tokio::select! {
                biased;
                why = run.ended() => return Err(why),
                () = sleep(LOOK) => {}
            }
        }
        Ok(())
    }

    /// Removes rows that were deleted by then.
    async fn purge(
        &self,
        run: &Run,
        until: i64,
        limit: Limit,
        outcome: &mut Outcome,
    ) -> Result<(), Stop> {
        let mut part = limit.rows();
        let mut all = PurgedRows::default();
        let mut worked = Duration::ZERO;
        let mut purge = self.catalog.purge(until);
        loop {
            self.go_on(run, worked).await?;
            let Some(_acting) = self.acting().await else {
                worked = Duration::ZERO;
                continue;
            };
            if !part.goes_on() {
                outcome.cut = true;
                break;
            }
            let began = Instant::now();
            let Some(rows) = purge.next().await.map_err(names)? else {
                break;
            };
            all += rows;
            run.alive();
            worked = began.elapsed();
        }
        let PurgedRows {
            repositories,
            manifests,
            tags,
            blobs,
        } = all;
        for (sum, more) in outcome
            .purged
            .iter_mut()
            .zip([repositories, manifests, tags, blobs])
        {
            *sum = sum.saturating_add(more);
        }
        if all != PurgedRows::default() {
            self.change(|observed| observed.purged = observed.purged.saturating_add(manifests));
            run.log(format!(
                "purged {manifests} manifests, {tags} tags, {blobs} deleted blobs and {repositories} repositories, deleted by {}",
                rfc3339(until)
            ));
        }
        Ok(())
    }

    fn change(&self, change: impl FnOnce(&mut Observed)) {
        change(&mut self.observed.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// What was deleted at this time has been so for the window. Who asks for a window
/// means the time of day.
fn until(now: i64, rules: &Rules, wanted: &Wanted) -> i64 {
    let window = wanted.undelete_window.map(Duration::from_millis);
    let window = window.unwrap_or(rules.undelete_window);
    before(now, window)
}

fn before(now: i64, time: Duration) -> i64 {
    now.saturating_sub(i64::try_from(time.as_millis()).unwrap_or(i64::MAX))
}

fn failed(error: orlop_engine::Error) -> Stop {
    match error {
        orlop_engine::Error::Cancelled => Stop::Released,
        error => Stop::Failed(error.to_string()),
    }
}

fn names(error: CatalogError) -> Stop {
    Stop::Failed(error.to_string())
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn text(outcome: &Outcome) -> Result<String, Stop> {
    serde_json::to_string(outcome).map_err(|error| Stop::Failed(error.to_string()))
}

impl Work for Gc {
    fn kind(&self) -> &'static str {
        GC
    }

    fn run(self: Arc<Self>, run: Arc<Run>) -> BoxFuture<'static, Result<String, Stop>> {
        async move { self.collect(&run).await }.boxed()
    }
}
