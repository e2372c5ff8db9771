//! One cycle: the catalog's live set goes to the store, which gives back what
//! may die.

use std::time::{Duration, Instant};

use orlop_engine::{Collected, Collector, Garbage, Sweep, Trailer};
use orlop_oci::Digest;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::limit::{Limit, Part};
use super::skips::{Skips, is_end, is_end_of_names};
use super::{DAY, Gc, NAMED, Outcome, Wanted, failed, milliseconds, names};
use crate::catalog::{CatalogError, DEAD_MAX, Dead, Departed, JobProgress, rfc3339};
use crate::jobs::{Run, Stop};

/// Blobs that die before it is looked again whether anything may, and before a
/// pause. Their tombstones are in one group of the journal, which pushes wait for.
const PART: usize = DEAD_MAX;
/// Sizes in which they are ended, where a larger part fails.
const PARTS: [usize; 3] = [PART, 32, 1];
/// How often a step over the blobs that fails is tried.
const STEP_TRIES: u32 = 4;
/// How long is waited in between.
const STEP_WAIT: Duration = Duration::from_millis(200);

impl Gc {
    /// One cycle. `plan`: as if rows that were deleted by then were purged, and
    /// nothing dies. None: writes were switched off, and it was given up, so that
    /// no state of the catalog is held meanwhile.
    pub(super) async fn cycle(
        &self,
        run: &Run,
        wanted: &Wanted,
        plan: Option<i64>,
        limit: Limit,
        outcome: &mut Outcome,
    ) -> Result<Option<Collected>, Stop> {
        let began = Instant::now();
        // Without that they wait for their leases.
        if plan.is_none()
            && let Err(error) = self.revoke().await
        {
            tracing::warn!(
                ?error,
                "what was purged by its digest keeps its leases for now"
            );
        }
        // What is purged from here on may be in the live set all the same.
        let since = self.catalog.sequence();
        let collector = self.store.collect().await.map_err(failed)?;
        let marked = self.mark(run, collector, wanted.unlimited, plan).await?;
        let Some(mut sweep) = marked else {
            return Ok(None);
        };
        let marked = began.elapsed();
        let done = match plan {
            Some(_) => self.look(run, sweep, outcome).await?,
            None => {
                sweep = self.settle(run, sweep, since).await?;
                match self.sweep(run, sweep, limit, outcome).await? {
                    Some(done) => done,
                    None => return Ok(None),
                }
            }
        };
        let took = began.elapsed();
        outcome.mark_ms.push(milliseconds(marked));
        outcome
            .sweep_ms
            .push(milliseconds(took.saturating_sub(marked)));
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
        outcome.skipped = outcome.skipped.saturating_add(done.skipped);
        if plan.is_none() {
            self.told(run, done, (marked, took));
        }
        Ok(Some(done))
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
            skipped = done.skipped,
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
        if done.skipped > 0 {
            run.log(format!(
                "{} blobs were skipped; the next collection tries them again",
                done.skipped
            ));
        }
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
    ) -> Result<Option<Sweep>, Stop> {
        let mut live = self.catalog.live_set(without);
        let mut taken = 0u64;
        let expected = self.observe().last.live;
        let mut worked = Duration::ZERO;
        loop {
            self.pause(run, worked).await?;
            if without.is_none() && self.stands_still() {
                return Ok(None);
            }
            let began = Instant::now();
            let Some(digests) = live.next().await.map_err(names)? else {
                break;
            };
            taken = taken.saturating_add(digests.len() as u64);
            let (next, is_full) = blocking(move || {
                collector.mark(&digests)?;
                let is_full = collector.look_up(false)?;
                Ok((collector, is_full))
            })
            .await?;
            collector = next;
            worked = began.elapsed();
            if is_full {
                self.pause(run, std::mem::take(&mut worked)).await?;
                collector = self.look_up(run, collector, false).await?;
            }
            run.report(
                progress(taken, expected.max(taken), "references"),
                b"mark".to_vec(),
            );
        }
        collector = self.look_up(run, collector, true).await?;
        if without.is_none() && self.stands_still() {
            return Ok(None);
        }
        let trailer = Trailer {
            digests: taken,
            catalog: self.catalog.id(),
            sequence: live.end().await.map_err(names)?,
        };
        blocking(move || collector.whole(trailer, unlimited))
            .await
            .map(Some)
    }

    /// Looks up what was named, when enough was gathered or at the end. Not to
    /// the end while writes are switched off.
    async fn look_up(
        &self,
        run: &Run,
        mut collector: Collector,
        is_last: bool,
    ) -> Result<Collector, Stop> {
        loop {
            let began = Instant::now();
            let (next, is_done) = blocking(move || {
                let is_done = !collector.look_up(is_last)?;
                Ok((collector, is_done))
            })
            .await?;
            collector = next;
            if is_done || self.stands_still() {
                return Ok(collector);
            }
            run.alive();
            self.pause(run, began.elapsed()).await?;
        }
    }

    /// Forgets what purged rows named and others name still, or again: it would
    /// explain a death that it does not. Of what was purged before `since`, from
    /// which on the live set was read.
    async fn settle(&self, run: &Run, mut sweep: Sweep, since: u64) -> Result<Sweep, Stop> {
        let mut after = None;
        let mut worked = Duration::ZERO;
        loop {
            self.pause(run, worked).await?;
            let began = Instant::now();
            let digests = self.catalog.departed_after(after).await.map_err(names)?;
            let Some(last) = digests.last().copied() else {
                return Ok(sweep);
            };
            let (next, named) = blocking(move || {
                let named = sweep.names(&digests)?;
                let named = digests.into_iter().zip(named);
                let named: Vec<_> = named.filter(|of| of.1).map(|of| of.0).collect();
                Ok((sweep, named))
            })
            .await?;
            sweep = next;
            if !named.is_empty() {
                let forgotten = self.catalog.forget_departed(&named, since).await;
                forgotten.map_err(names)?;
            }
            run.alive();
            after = Some(last);
            worked = began.elapsed();
        }
    }

    /// Ends what two live sets did not name. None: it was given up.
    async fn sweep(
        &self,
        run: &Run,
        mut sweep: Sweep,
        limit: Limit,
        outcome: &mut Outcome,
    ) -> Result<Option<Collected>, Stop> {
        let state = self.catalog.gc_state().await.map_err(names)?;
        let now = state.clock.unwrap_or_default();
        // Of this day, or the first of a new one.
        let since = state.unexplained_since.unwrap_or(i64::MIN);
        let since = if now.saturating_sub(since) < DAY {
            sweep.spend(state.unexplained);
            since
        } else {
            now
        };
        let mut ends = Ends {
            since,
            uncounted: 0,
            at_once: 0,
            skips: Skips::default(),
            time: limit.rest(),
            is_cut: false,
        };
        let swept = self.sweep_all(run, sweep, &mut ends).await;
        // Also of one that did not come to its end: they have died.
        outcome.at_once = outcome.at_once.saturating_add(ends.at_once);
        outcome.cut |= ends.is_cut;
        // A bound that lost count would be none.
        let counted = self.count(&mut ends).await.map_err(names);
        let Some(sweep) = swept? else {
            return counted.map(|()| None);
        };
        counted?;
        ends.skips.name(
            run,
            sweep.skipped(),
            "their rows in the index cannot be read",
        );
        let done = sweep.finish().map_err(failed)?;
        Ok(Some(Collected {
            skipped: ends.skips.blobs,
            ..done
        }))
    }

    /// Ends them in parts. None: it was given up.
    async fn sweep_all(
        &self,
        run: &Run,
        mut sweep: Sweep,
        ends: &mut Ends,
    ) -> Result<Option<Sweep>, Stop> {
        let expected = self.observe().last.blobs;
        let mut worked = Duration::ZERO;
        loop {
            self.pause(run, worked).await?;
            let began = Instant::now();
            let (next, found) = self.walk(run, sweep).await?;
            sweep = next;
            let Some(garbage) = found else {
                return Ok(Some(sweep));
            };
            worked = began.elapsed();
            for part in garbage.chunks(PART) {
                if !ends.time.goes_on() {
                    // Condemned still: it dies in the first cycle of the next.
                    sweep.keep(part);
                    ends.is_cut = true;
                    continue;
                }
                self.pause(run, worked).await?;
                let Some(_acting) = self.acting().await else {
                    return Ok(None);
                };
                let began = Instant::now();
                self.end(run, &mut sweep, part, ends).await?;
                run.alive();
                worked = began.elapsed();
            }
            let walked = sweep.so_far().blobs;
            run.report(
                progress(walked, expected.max(walked), "blobs"),
                b"sweep".to_vec(),
            );
        }
    }

    /// A step over the blobs, tried again if it fails.
    async fn walk(
        &self,
        run: &Run,
        mut sweep: Sweep,
    ) -> Result<(Sweep, Option<Vec<Garbage>>), Stop> {
        for _ in 1..STEP_TRIES {
            let (next, found) = step(sweep).await?;
            match found {
                Err(error) if !is_end(&error) => {
                    tracing::warn!(job = run.id(), %error, "a step of a collection is tried again");
                    sweep = next;
                    tokio::select! {
                        biased;
                        why = run.ended() => return Err(why),
                        () = sleep(STEP_WAIT) => {}
                    }
                }
                found => return Ok((next, found.map_err(failed)?)),
            }
        }
        let (sweep, found) = step(sweep).await?;
        Ok((sweep, found.map_err(failed)?))
    }

    /// Counts deaths that nothing explains, for the bound of the day.
    async fn count(&self, ends: &mut Ends) -> Result<(), CatalogError> {
        if ends.uncounted > 0 {
            let counted = self.catalog.add_unexplained(ends.uncounted, ends.since);
            counted.await?;
            ends.uncounted = 0;
        }
        Ok(())
    }

    /// Ends some blobs, then their links. What fails is passed over.
    async fn end(
        &self,
        run: &Run,
        sweep: &mut Sweep,
        garbage: &[Garbage],
        ends: &mut Ends,
    ) -> Result<(), Stop> {
        let why = match self.explained(sweep, garbage).await {
            Ok(why) => why,
            Err(error) if is_end_of_names(&error) => return Err(names(error)),
            Err(error) => return skip(run, sweep, garbage, ends, &error),
        };
        let (mut explained, mut others) = (Vec::new(), Vec::new());
        for (blob, why) in garbage.iter().zip(why) {
            if why.is_some() || self.is_at_once(blob) {
                explained.push(*blob);
            } else {
                others.push(*blob);
            }
        }
        for (garbage, is_explained) in [(explained, true), (others, false)] {
            // Without a count of the last ones there would be no bound.
            if !is_explained && let Err(error) = self.count(ends).await {
                if is_end_of_names(&error) {
                    return Err(names(error));
                }
                skip(run, sweep, &garbage, ends, &error)?;
                continue;
            }
            let dead = end_each(run, sweep, garbage, is_explained, ends).await?;
            ends.at_once = ends.at_once.saturating_add(self.went_at_once(&dead));
            let unexplained = dead.iter().filter(|blob| !is_explained && !blob.internal);
            ends.uncounted = ends.uncounted.saturating_add(unexplained.count() as u64);
            if let Err(error) = self.count(ends).await {
                if is_end_of_names(&error) {
                    return Err(names(error));
                }
                ends.skips.add(run, &[], &error)?;
            }
            let names_of = |blob: &Garbage| {
                let birth = blob.birth;
                let digests = std::iter::once(blob.digest).chain(sweep.further(blob).to_vec());
                digests.map(move |digest| Dead { digest, birth })
            };
            let dead: Vec<Dead> = dead.iter().flat_map(names_of).collect();
            for part in dead.chunks(DEAD_MAX) {
                // Links of what has died do no harm.
                if let Err(error) = self.catalog.forget_dead(part.to_vec()).await {
                    tracing::warn!(%error, blobs = part.len(), "links of dead blobs stay in the catalog");
                }
            }
        }
        Ok(())
    }

    /// Why blobs are garbage, by any of their digests.
    async fn explained(
        &self,
        sweep: &Sweep,
        garbage: &[Garbage],
    ) -> Result<Vec<Option<Departed>>, CatalogError> {
        let (mut digests, mut counts) = (Vec::with_capacity(garbage.len()), Vec::new());
        for blob in garbage {
            let further = sweep.further(blob);
            counts.push(further.len().saturating_add(1));
            digests.push(blob.digest);
            digests.extend_from_slice(further);
        }
        let mut found = self.catalog.departed(&digests).await?.into_iter();
        let why = counts
            .into_iter()
            .map(|count| found.by_ref().take(count).flatten().last());
        Ok(why.collect())
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
            self.pause(run, worked).await?;
            let began = Instant::now();
            let (next, found) = self.walk(run, sweep).await?;
            sweep = next;
            let Some(found) = found else { break };
            let departed = self.explained(&sweep, &found).await.map_err(names)?;
            for (blob, why) in found.iter().zip(departed) {
                garbage = (
                    garbage.0.saturating_add(1),
                    garbage.1.saturating_add(blob.size),
                );
                if named < NAMED {
                    named += 1;
                    let why = why.map_or_else(
                        || "no row names it".to_owned(),
                        |why| {
                            format!(
                                "{} deleted it at {}",
                                why.repository,
                                rfc3339(why.deleted_at)
                            )
                        },
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

/// What the ends of a sweep add up to.
struct Ends {
    /// Since when unexplained deaths are counted.
    since: i64,
    /// Unexplained deaths that the catalog has not counted yet.
    uncounted: u64,
    /// Deaths that leases would have prevented, had nobody purged the blobs.
    at_once: u64,
    skips: Skips,
    /// The time for them.
    time: Part,
    /// Whether it was up before all had ended.
    is_cut: bool,
}

/// Ends lives, all together. Where that cannot be read or written, in smaller
/// parts, so that one blob holds up no other. Gives those that have died.
async fn end_each(
    run: &Run,
    sweep: &mut Sweep,
    garbage: Vec<Garbage>,
    is_explained: bool,
    ends: &mut Ends,
) -> Result<Vec<Garbage>, Stop> {
    let (mut dead, mut left) = (Vec::new(), vec![garbage]);
    let mut why = None;
    for size in PARTS {
        let parts: Vec<Vec<Garbage>> = left
            .iter()
            .flat_map(|part| part.chunks(size).map(<[Garbage]>::to_vec))
            .collect();
        let tried = parts.len();
        left = Vec::new();
        for part in parts {
            match sweep.end(&part, is_explained).await {
                Ok(some) => dead.extend(some),
                Err(error) if is_end(&error) => return Err(failed(error)),
                Err(error) => {
                    why = Some(error);
                    left.push(part);
                }
            }
        }
        let is_all = tried > 1 && left.len() == tried;
        if left.is_empty() || is_all || !matches!(why, Some(orlop_engine::Error::Io { .. })) {
            break;
        }
    }
    if let Some(why) = why.filter(|_| !left.is_empty()) {
        skip(run, sweep, &left.concat(), ends, &why)?;
    }
    Ok(dead)
}

/// Leaves blobs condemned for another collection.
fn skip(
    run: &Run,
    sweep: &mut Sweep,
    garbage: &[Garbage],
    ends: &mut Ends,
    why: &impl std::fmt::Display,
) -> Result<(), Stop> {
    sweep.keep(garbage);
    let digests: Vec<Digest> = garbage.iter().map(|blob| blob.digest).collect();
    ends.skips.add(run, &digests, why)
}

/// A step over the blobs.
async fn step(mut sweep: Sweep) -> Result<(Sweep, Step), Stop> {
    blocking(move || {
        let found = sweep.step();
        Ok((sweep, found))
    })
    .await
}

/// What a step gave.
type Step = orlop_engine::Result<Option<Vec<Garbage>>>;

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

fn progress(done: u64, total: u64, unit: &str) -> JobProgress {
    JobProgress {
        done,
        total,
        unit: unit.to_owned(),
    }
}
