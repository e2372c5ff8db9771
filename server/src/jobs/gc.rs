//! The job that collects garbage (docs/adr/0019-what-is-garbage.md): purges
//! rows, deletes what nothing reaches, and runs cycles of mark and sweep until
//! nothing is left that can go.
//!
//! Invariants: whatever cannot be read ends the job with nothing deleted by
//! it; rows go before blobs, blobs before their links; while writes are switched
//! off nothing is deleted.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use orlop_engine::{Collected, Collector, Garbage, Store, Sweep, Trailer};
use orlop_oci::{Digest, RepositoryName};
use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::Clock;
use super::run::{Run, Stop, Work};
use crate::catalog::{
    Catalog, CatalogError, DEAD_MAX, Dead, Departed, JobProgress, PurgedRows, Reason, Unreached,
    UntaggedPlace,
};
use crate::registry::{Fault, Maintenance, Registry};

/// The kind's name.
pub const GC: &str = "gc";
/// Cycles of one job at most: what is garbage in the first dies in the second,
/// or in a later one that is not bounded any more.
const CYCLES: u32 = 8;
/// The longest pause after a piece of work.
const PAUSE_MAX: Duration = Duration::from_millis(200);
/// How often it is looked whether writes are switched on again.
const LOOK: Duration = Duration::from_secs(1);
/// Garbage that a plan names.
const NAMED: usize = 20;

/// What goes when.
#[derive(Clone, Debug)]
pub struct Rules {
    /// What was deleted can be brought back for this long.
    pub undelete_window: Duration,
    /// What nothing reaches and nobody used for this long is deleted; None:
    /// never.
    pub untagged: Option<Duration>,
    /// A job ends after this long, with what it has done; None: when it is done.
    pub limit: Option<Duration>,
}

/// What one job is asked for beside the rules.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Wanted {
    /// Only say what would go.
    pub plan: bool,
    /// Another undelete window, in milliseconds.
    pub undelete_window: Option<u64>,
    /// Without the bound on what nothing explains.
    pub unlimited: bool,
}

/// What came of a job.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Outcome {
    /// Nothing had changed since a job that left no garbage.
    #[serde(skip_serializing_if = "is_false")]
    pub idle: bool,
    /// Whether it was a plan: then what follows would go, and did not.
    #[serde(skip_serializing_if = "is_false")]
    pub plan: bool,
    /// Repositories, manifests, tags and deleted blobs whose rows were purged.
    pub purged: [u64; 4],
    /// Manifests that were deleted since nothing reached them.
    pub retired: u64,
    /// Full cycles.
    pub cycles: u32,
    /// Blobs before the last cycle.
    pub blobs: u64,
    /// Those that are named.
    pub live: u64,
    /// Those that are named and not here.
    pub absent: u64,
    /// Those that nothing names, and that are kept for now: leased or in use.
    pub held: u64,
    /// Those that die in the next cycle unless somebody uses them.
    pub condemned: u64,
    /// Their bytes.
    pub condemned_bytes: u64,
    /// Those that died.
    pub dead: u64,
    /// Their bytes.
    pub dead_bytes: u64,
    /// Those that nothing explains and the bound kept.
    pub bounded: u64,
    /// Whether the time was up before all was done.
    #[serde(skip_serializing_if = "is_false")]
    pub cut: bool,
    /// How long purges and deletes took, in milliseconds.
    pub purge_ms: u64,
    /// How long each cycle marked.
    pub mark_ms: Vec<u64>,
    /// How long each cycle swept.
    pub sweep_ms: Vec<u64>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_false(value: &bool) -> bool {
    !value
}

/// What keeps a blob.
#[derive(Clone, Debug)]
pub struct Why {
    /// Bytes; None: it is not here.
    pub size: Option<u64>,
    /// Whether somebody was told of it lately, or it is in use.
    pub held: bool,
    /// Rows that keep it, some of them if there are many.
    pub kept_by: Vec<Reason>,
    /// What named it last and is purged.
    pub departed: Option<Departed>,
}

/// How collection is, for whoever publishes it.
#[derive(Clone, Copy, Debug, Default)]
pub struct GcObserved {
    /// What the last full cycle came to.
    pub last: Collected,
    /// Full cycles since the start.
    pub cycles: u64,
    /// When the last one ended, in milliseconds since 1970; 0: none did.
    pub ended_at: i64,
    /// How long it took.
    pub took: Duration,
    /// Manifests that were purged since the start.
    pub purged: u64,
}

/// Collects garbage.
pub struct Gc {
    store: Store,
    catalog: Catalog,
    registry: Registry,
    rules: Rules,
    clock: Clock,
    /// When this was made, by both clocks.
    began: (Instant, i64),
    maintenance: OnceLock<Maintenance>,
    observed: Mutex<GcObserved>,
    /// The catalog's sequence at which there was no garbage.
    clean_at: Mutex<Option<u64>>,
}

impl Gc {
    /// A collection of this store by the rows of this catalog. Deletes go by
    /// the registry.
    pub fn new(
        (store, catalog, registry): (Store, Catalog, Registry),
        rules: Rules,
        clock: Clock,
    ) -> Gc {
        let began = (Instant::now(), clock());
        Gc {
            store,
            catalog,
            registry,
            rules,
            clock,
            began,
            maintenance: OnceLock::new(),
            observed: Mutex::default(),
            clean_at: Mutex::default(),
        }
    }

    /// Deletes nothing while this says that nothing is written. The first one
    /// counts.
    pub fn obey(&self, maintenance: &Maintenance) {
        let _ = self.maintenance.set(maintenance.clone());
    }

    /// How it is.
    pub fn observe(&self) -> GcObserved {
        *self.observed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What keeps a blob, or why it is garbage.
    ///
    /// # Errors
    /// When it cannot be known.
    pub async fn why(&self, digest: &Digest) -> Result<Why, String> {
        let found = self.store.look(digest).map_err(|error| error.to_string())?;
        let held = self.store.held(digest).map_err(|error| error.to_string())?;
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

    /// The time of day, or earlier: a clock that jumps ahead must not end
    /// everybody's undelete window.
    fn now(&self) -> i64 {
        let (at, clock) = self.began;
        let since = i64::try_from(at.elapsed().as_millis()).unwrap_or(i64::MAX);
        (self.clock)().min(clock.saturating_add(since))
    }

    async fn collect(&self, run: &Run) -> Result<String, Stop> {
        let wanted: Wanted = serde_json::from_str(run.params())
            .map_err(|error| Stop::Failed(format!("its parameters are not known: {error}")))?;
        let began = Instant::now();
        let mut outcome = Outcome {
            plan: wanted.plan,
            ..Outcome::default()
        };
        let window = wanted.undelete_window.map(Duration::from_millis);
        let until = self.until(window.unwrap_or(self.rules.undelete_window));
        if wanted.plan {
            self.cycle(run, &wanted, Some(until), &mut outcome).await?;
            return text(&outcome);
        }
        self.purge(run, until, &mut outcome).await?;
        self.retire(run, &mut outcome).await?;
        if window.is_some() {
            // What was deleted just now too.
            self.purge(run, self.until(window.unwrap_or_default()), &mut outcome)
                .await?;
        }
        outcome.purge_ms = milliseconds(began.elapsed());
        let sequence = self.catalog.sequence();
        if *self.clean_at() == Some(sequence) {
            outcome.idle = true;
            return text(&outcome);
        }
        while outcome.cycles < CYCLES {
            let collected = self.cycle(run, &wanted, None, &mut outcome).await?;
            let is_clean = collected.blobs == collected.live && collected.condemned == 0;
            *self.clean_at() = is_clean.then_some(sequence);
            if collected.condemned <= collected.bounded {
                break;
            }
            if self
                .rules
                .limit
                .is_some_and(|limit| began.elapsed() > limit)
            {
                outcome.cut = true;
                break;
            }
        }
        text(&outcome)
    }

    fn clean_at(&self) -> std::sync::MutexGuard<'_, Option<u64>> {
        self.clean_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was deleted at this time has been so for the window.
    fn until(&self, window: Duration) -> i64 {
        let window = i64::try_from(window.as_millis()).unwrap_or(i64::MAX);
        self.now().saturating_sub(window)
    }

    /// Ends with the job, and waits while writes are switched off.
    async fn go_on(&self, run: &Run, worked: Duration) -> Result<(), Stop> {
        let pause = worked.min(PAUSE_MAX);
        tokio::select! {
            biased;
            why = run.ended() => return Err(why),
            () = sleep(pause) => {}
        }
        while self
            .maintenance
            .get()
            .is_some_and(|maintenance| maintenance.read_only().is_some())
        {
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
    async fn purge(&self, run: &Run, until: i64, outcome: &mut Outcome) -> Result<(), Stop> {
        let mut all = PurgedRows::default();
        let mut worked = Duration::ZERO;
        loop {
            self.go_on(run, worked).await?;
            let began = Instant::now();
            let Some(rows) = self.catalog.purge(until).await.map_err(names)? else {
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
                time(until)
            ));
        }
        Ok(())
    }

    fn change(&self, change: impl FnOnce(&mut GcObserved)) {
        change(&mut self.observed.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Gc {
    /// Deletes manifests that belonged to something that is gone, and those
    /// that nobody used for long.
    async fn retire(&self, run: &Run, outcome: &mut Outcome) -> Result<(), Stop> {
        loop {
            self.go_on(run, Duration::ZERO).await?;
            let orphans = self.catalog.orphans().await.map_err(names)?;
            if orphans.is_empty() {
                break;
            }
            let mut settled = Vec::new();
            for (repository, digest, unreached) in orphans {
                let is_due = unreached.is_some_and(|unreached| is_orphan(&unreached));
                if !is_due
                    || !self
                        .delete(run, &repository, &digest, is_orphan, outcome)
                        .await?
                {
                    settled.push((repository, digest));
                }
            }
            self.catalog.settle(settled).await.map_err(names)?;
        }
        let Some(untagged) = self.rules.untagged else {
            return Ok(());
        };
        let until = self.until(untagged);
        let is_due = move |unreached: &Unreached| unreached.used_at <= until;
        let mut place: Option<UntaggedPlace> = None;
        let mut worked = Duration::ZERO;
        loop {
            self.go_on(run, worked).await?;
            let began = Instant::now();
            let (found, next) = self.catalog.untagged(place.take()).await.map_err(names)?;
            for (repository, digest, unreached) in found {
                if is_due(&unreached) {
                    self.delete(run, &repository, &digest, is_due, outcome)
                        .await?;
                }
            }
            run.alive();
            worked = began.elapsed();
            place = next;
            if place.is_none() {
                return Ok(());
            }
        }
    }

    /// Deletes a manifest, if that is still right.
    async fn delete(
        &self,
        run: &Run,
        repository: &str,
        digest: &Digest,
        is_due: impl Fn(&Unreached) -> bool,
        outcome: &mut Outcome,
    ) -> Result<bool, Stop> {
        self.go_on(run, Duration::ZERO).await?;
        let Ok(name) = RepositoryName::parse(repository) else {
            return Ok(false);
        };
        let still = async {
            let unreached = self.catalog.unreached(repository, digest).await;
            let unreached = unreached.map_err(Fault::from)?;
            Ok(unreached.is_some_and(|unreached| is_due(&unreached)))
        };
        let is_deleted = self
            .registry
            .retire(&name, digest, still)
            .await
            .map_err(|error| Stop::Failed(error.to_string()))?;
        if is_deleted {
            outcome.retired = outcome.retired.saturating_add(1);
            tracing::info!(repository, %digest, "deleted a manifest that nothing reaches");
        }
        Ok(is_deleted)
    }

    /// One cycle. `plan`: as if rows that were deleted by then were purged, and
    /// nothing dies.
    async fn cycle(
        &self,
        run: &Run,
        wanted: &Wanted,
        plan: Option<i64>,
        outcome: &mut Outcome,
    ) -> Result<Collected, Stop> {
        let began = Instant::now();
        let collector = self.store.collect().await.map_err(failed)?;
        let sweep = self.mark(run, collector, wanted.unlimited, plan).await?;
        let marked = began.elapsed();
        let done = match plan {
            Some(_) => self.look(run, sweep, outcome).await?,
            None => self.sweep(run, sweep).await?,
        };
        let took = began.elapsed();
        outcome.mark_ms.push(milliseconds(marked));
        let swept = milliseconds(took.saturating_sub(marked));
        outcome.sweep_ms.push(swept);
        outcome.cycles = outcome.cycles.saturating_add(1);
        outcome.blobs = done.blobs;
        outcome.live = done.live;
        let gone = done.live.saturating_add(done.condemned);
        let gone = gone.saturating_add(if plan.is_some() {
            outcome.dead
        } else {
            done.dead
        });
        outcome.held = done.blobs.saturating_sub(gone);
        outcome.absent = done.absent;
        outcome.bounded = done.bounded;
        outcome.condemned = done.condemned;
        outcome.condemned_bytes = done.condemned_bytes;
        outcome.dead = outcome.dead.saturating_add(done.dead);
        outcome.dead_bytes = outcome.dead_bytes.saturating_add(done.dead_bytes);
        if plan.is_none() {
            self.told(run, done, (marked, took));
        }
        Ok(done)
    }

    fn told(&self, run: &Run, done: Collected, (marked, took): (Duration, Duration)) {
        let at = (self.clock)();
        self.change(|observed| {
            observed.last = done;
            observed.cycles = observed.cycles.saturating_add(1);
            observed.ended_at = at;
            observed.took = took;
        });
        tracing::info!(
            job = run.id(),
            blobs = done.blobs,
            live = done.live,
            absent = done.absent,
            condemned = done.condemned,
            condemned_bytes = done.condemned_bytes,
            dead = done.dead,
            dead_bytes = done.dead_bytes,
            bounded = done.bounded,
            marked = ?marked,
            took = ?took,
            "a cycle of collection ended"
        );
        run.log(format!(
            "cycle: {} blobs, {} named; {} died ({} bytes), {} condemned ({} bytes), {} of them kept by the bound; marked in {:.1} s of {:.1}",
            done.blobs,
            done.live,
            done.dead,
            done.dead_bytes,
            done.condemned,
            done.condemned_bytes,
            done.bounded,
            marked.as_secs_f64(),
            took.as_secs_f64()
        ));
        if done.bounded > 0 {
            tracing::warn!(
                blobs = done.bounded,
                "more blobs are garbage than deletes explain; they stay. If that is right, `orlop gc run --unlimited` collects them"
            );
        }
    }

    /// Hands the live set over.
    async fn mark(
        &self,
        run: &Run,
        mut collector: Collector,
        unlimited: bool,
        without: Option<i64>,
    ) -> Result<Sweep, Stop> {
        let mut live = self.catalog.live_set(without);
        let mut taken = 0u64;
        let expected = self.observe().last.live;
        let mut worked = Duration::ZERO;
        loop {
            self.go_on(run, worked).await?;
            let began = Instant::now();
            let Some(digests) = live.next().await.map_err(names)? else {
                break;
            };
            taken = taken.saturating_add(digests.len() as u64);
            collector = blocking(move || {
                collector.mark(&digests)?;
                Ok(collector)
            })
            .await?;
            run.report(
                progress(taken, expected.max(taken), "references"),
                b"mark".to_vec(),
            );
            worked = began.elapsed();
        }
        let trailer = Trailer {
            digests: taken,
            catalog: self.catalog.id(),
            sequence: live.end().await.map_err(names)?,
        };
        blocking(move || collector.whole(trailer, unlimited)).await
    }

    /// Ends what two live sets did not name.
    async fn sweep(&self, run: &Run, mut sweep: Sweep) -> Result<Collected, Stop> {
        let (mut walked, mut worked) = (0u64, Duration::ZERO);
        loop {
            self.go_on(run, worked).await?;
            let began = Instant::now();
            let stepped = blocking(move || {
                let found = sweep.step()?;
                Ok((sweep, found))
            });
            let (next, found) = stepped.await?;
            sweep = next;
            let Some(garbage) = found else { break };
            walked = walked.saturating_add(1);
            self.end(run, &mut sweep, garbage).await?;
            run.report(progress(walked, 0, "pages"), b"sweep".to_vec());
            worked = began.elapsed();
        }
        sweep.finish().map_err(failed)
    }

    async fn end(&self, run: &Run, sweep: &mut Sweep, garbage: Vec<Garbage>) -> Result<(), Stop> {
        if garbage.is_empty() {
            return Ok(());
        }
        let digests: Vec<Digest> = garbage.iter().map(|blob| blob.digest).collect();
        let departed = self.catalog.departed(&digests).await.map_err(names)?;
        let (mut explained, mut others) = (Vec::new(), Vec::new());
        for (blob, why) in garbage.into_iter().zip(departed) {
            match why {
                Some(_) => explained.push(blob),
                None => others.push(blob),
            }
        }
        for (garbage, is_explained) in [(explained, true), (others, false)] {
            let dead = sweep.end(&garbage, is_explained).await.map_err(failed)?;
            run.alive();
            let dead: Vec<Dead> = dead
                .iter()
                .map(|blob| Dead {
                    digest: blob.digest,
                    birth: blob.birth,
                })
                .collect();
            for part in dead.chunks(DEAD_MAX) {
                // Links of what has died do no harm.
                if let Err(error) = self.catalog.forget_dead(part.to_vec()).await {
                    tracing::warn!(%error, blobs = part.len(), "links of dead blobs stay in the catalog");
                }
            }
        }
        Ok(())
    }

    /// Says what would die, and ends nothing.
    async fn look(
        &self,
        run: &Run,
        mut sweep: Sweep,
        outcome: &mut Outcome,
    ) -> Result<Collected, Stop> {
        let mut garbage = (0u64, 0u64);
        let mut named = 0;
        let mut worked = Duration::ZERO;
        loop {
            self.go_on(run, worked).await?;
            let began = Instant::now();
            let stepped = blocking(move || {
                let found = sweep.step()?;
                Ok((sweep, found))
            });
            let (next, found) = stepped.await?;
            sweep = next;
            let Some(found) = found else { break };
            let digests: Vec<Digest> = found.iter().map(|blob| blob.digest).collect();
            let departed = self.catalog.departed(&digests).await.map_err(names)?;
            for (blob, why) in found.iter().zip(departed) {
                garbage = (
                    garbage.0.saturating_add(1),
                    garbage.1.saturating_add(blob.size),
                );
                if named < NAMED {
                    named += 1;
                    let why = why.map_or_else(
                        || "no row names it".to_owned(),
                        |why| format!("{} deleted it at {}", why.repository, time(why.deleted_at)),
                    );
                    run.log(format!("{} ({} bytes): {why}", blob.digest, blob.size));
                }
            }
            run.alive();
            worked = began.elapsed();
        }
        // Nothing died: what might have counts as what would.
        outcome.dead = garbage.0;
        outcome.dead_bytes = garbage.1;
        Ok(sweep.so_far())
    }
}

/// Whether it went with what it belonged to: nobody used it since.
fn is_orphan(unreached: &Unreached) -> bool {
    unreached
        .orphaned_at
        .is_some_and(|orphaned_at| unreached.used_at <= orphaned_at)
}

/// Runs what reads the index, which blocks.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> orlop_engine::Result<T> + Send + 'static,
) -> Result<T, Stop> {
    match spawn_blocking(work).await {
        Ok(done) => done.map_err(failed),
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(Stop::Released),
        },
    }
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

fn time(at: i64) -> String {
    let since = Duration::from_millis(at.max(0).unsigned_abs());
    humantime::format_rfc3339_seconds(std::time::UNIX_EPOCH + since).to_string()
}

fn progress(done: u64, total: u64, unit: &str) -> JobProgress {
    JobProgress {
        done,
        total,
        unit: unit.to_owned(),
    }
}

impl Work for Gc {
    fn kind(&self) -> &'static str {
        GC
    }

    fn run(self: Arc<Self>, run: Arc<Run>) -> BoxFuture<'static, Result<String, Stop>> {
        async move { self.collect(&run).await }.boxed()
    }
}
