//! Giving room back: what is dead in segments returns to the file system
//! (docs/adr/0018-space.md).
//!
//! A pass removes segments that nothing needs, punches the dead extents of raw
//! ones, and copies what little still matters out of small and meta ones.
//! Invariants: a record of it is durable before anything is taken away; only
//! closed segments are touched; nothing is taken that a row refers to, that an
//! upload may still name, or that a reader may still read; one pass runs at a
//! time. Dropping a [`Reclaimer`] ends its pass at any step; what was begun is
//! ended by the next pass or start.
//!
//! Knows no blobs and no reasons for their deaths.

mod account;
mod clean;
mod close;
mod compact;
mod live;
mod lives;
mod punch;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use orlop_format::location::{Class, SegmentId};
use orlop_format::record::Record;
use orlop_format::row;
use orlop_format::superblock::RELEASES;

pub use self::account::Space;
use self::compact::{Compaction, Stuck};
use self::live::Scan;
use self::lives::{Lives, Search};
use self::punch::Partly;
use crate::config::{HELD_PAUSE, HELD_ROUNDS, META_LOOKS, PASS_TIME, RELEASE_STEP};
use crate::core::Core;
use crate::error::{Error, Result};
use crate::journal::queue::Fate;
use crate::planted::{self, Planted};
use crate::sync::OwnedMutexGuard;

/// What one pass leaves to the next.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    /// Whether this process knows that the newest punch in the log was done.
    punched: bool,
    /// Whether the file system can punch, once that is known.
    can_punch: Option<bool>,
    /// Segments of which a punch failed in this process.
    refused: BTreeSet<SegmentId>,
    /// Segments that cannot be joined with others for now.
    stuck: BTreeMap<SegmentId, Stuck>,
    /// LSN of the first record of small and meta segments.
    opened: BTreeMap<SegmentId, u64>,
    /// Behind the meta segment that was looked at last, and how many blobs had
    /// died then.
    looked: Option<(u64, u64)>,
    /// Where the index ended when a pass flushed it.
    flushed: Option<u64>,
}

/// What was given back, by a step or a whole pass.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reclaimed {
    /// Segment files that were removed.
    pub segments: u64,
    /// Bytes of them and of holes.
    pub bytes: u64,
    /// Segments that readers or uploads hold back: a later pass takes them.
    pub held: u64,
    /// Bytes that were copied to other segments, and take room there: of a whole
    /// pass alone.
    pub moved: u64,
    /// Segments that were left as they are after an error, which was logged.
    pub failed: u64,
}

impl Reclaimed {
    fn add(&mut self, other: Self) {
        self.segments = self.segments.saturating_add(other.segments);
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.held = self.held.saturating_add(other.held);
        self.failed = self.failed.saturating_add(other.failed);
    }
}

/// One thing to be done.
enum Work {
    /// Records that a segment is removed.
    Remove(SegmentId),
    /// Takes away a file that is removed by its record.
    Unlink(Unlink),
    /// Looks which records of small segments are live.
    Search(Box<Search>),
    /// Copies what matters out of a small or meta segment, of which it is known
    /// what is live if that is a small one.
    Clean(SegmentId, Lives),
    /// Looks for what is live in segments that are partly dead.
    Scan(Box<Scan>),
    Punch(Box<Partly>),
    /// Moves what lives in a raw segment elsewhere.
    Compact(Box<Compaction>),
}

/// A file to be taken away.
#[derive(Debug, Clone, Copy)]
struct Unlink {
    id: SegmentId,
    /// Who entered until then may read it.
    barrier: u64,
    /// Bytes of it that came back before.
    holes: u64,
}

impl Work {
    /// The segment that it is about.
    fn segment(&self) -> Option<SegmentId> {
        match self {
            Work::Remove(id) | Work::Clean(id, _) => Some(*id),
            Work::Unlink(unlink) => Some(unlink.id),
            Work::Punch(partly) => Some(partly.segment()),
            Work::Compact(work) => Some(work.segment()),
            Work::Scan(_) | Work::Search(_) => None,
        }
    }
}

/// How a step of work ended.
enum Did {
    /// So many bytes came back; more is to be done.
    More(u64, Vec<Work>),
    /// A file is gone, with so many bytes.
    Removed(u64),
    /// Somebody holds it.
    Held(Work),
}

impl Did {
    fn nothing() -> Self {
        Did::More(0, Vec::new())
    }
}

/// A pass.
pub struct Reclaimer {
    core: Arc<Core>,
    memory: OwnedMutexGuard<Memory>,
    work: VecDeque<Work>,
    /// What somebody held, to be tried once more.
    held: Vec<Work>,
    is_last: bool,
    /// Whether all room is wanted that there is.
    is_thorough: bool,
    /// Whether uploads write to a closed segment, of which it is not known yet
    /// what is dead.
    is_written: bool,
    /// Whether segments are joined: until there is no room, or the disk errs.
    is_joining: bool,
    /// How often a thorough pass still comes back.
    rounds: u32,
    began: Duration,
    total: Reclaimed,
}

impl std::fmt::Debug for Reclaimer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reclaimer")
            .field("work", &self.work.len())
            .field("total", &self.total)
            .finish_non_exhaustive()
    }
}

impl Reclaimer {
    pub(crate) async fn begin(core: &Arc<Core>, is_thorough: bool) -> Result<Self> {
        core.poison.check()?;
        let memory = Arc::clone(&core.reclaim)
            .try_lock_owned()
            .map_err(|_| Error::Busy {
                what: "the reclaimer: another pass runs".to_owned(),
            })?;
        // What a pass whose caller went away had queued.
        core.queue.append(Vec::new(), Vec::new()).await?;
        let mut reclaimer = Self {
            core: Arc::clone(core),
            memory,
            work: VecDeque::new(),
            held: Vec::new(),
            is_last: false,
            is_thorough,
            is_written: false,
            is_joining: true,
            rounds: HELD_ROUNDS,
            began: core.runtime.now(),
            total: Reclaimed::default(),
        };
        reclaimer.close_open().await?;
        reclaimer.plan()?;
        Ok(reclaimer)
    }

    /// Does a part: at most [`RELEASE_STEP`] bytes, one segment or one page of
    /// rows. Says what came back by it; `None` at the end, which comes after
    /// [`PASS_TIME`] at the latest unless all room is wanted.
    ///
    /// # Errors
    /// [`Error::Poisoned`], [`Error::Busy`] when the store is closed, or when the
    /// index cannot be read: the pass is over.
    /// An error of one segment leaves that one as it is.
    pub async fn step(&mut self) -> Result<Option<Reclaimed>> {
        self.core.poison.check()?;
        let took = self.core.runtime.now().saturating_sub(self.began);
        if took >= PASS_TIME && !self.is_thorough {
            return Ok(None);
        }
        if self.work.is_empty() && !self.is_last {
            self.is_last = true;
            self.work.extend(self.held.drain(..));
        }
        let Some(work) = self.work.pop_front() else {
            return self.come_back().await;
        };
        let segment = work.segment();
        let is_scan = matches!(work, Work::Scan(_) | Work::Search(_));
        let mut done = Reclaimed::default();
        match self.work_on(work).await {
            Ok(Did::More(bytes, more)) => {
                done.bytes = bytes;
                more.into_iter()
                    .rev()
                    .for_each(|work| self.work.push_front(work));
            }
            Ok(Did::Removed(bytes)) => (done.segments, done.bytes) = (1, bytes),
            Ok(Did::Held(work)) if !self.is_last => self.held.push(work),
            Ok(Did::Held(_)) => done.held = 1,
            // The store takes nothing more.
            Err(error @ (Error::Poisoned { .. } | Error::Busy { .. })) => return Err(error),
            Err(error) if is_scan => return Err(error),
            Err(error) => {
                let path = segment.map(|id| self.core.segments.path(&id));
                tracing::warn!(%error, ?path, "the room of a segment could not be given back; a later pass tries again");
                done.failed = 1;
            }
        }
        self.core.metrics.released(done.bytes);
        self.total.add(done);
        Ok(Some(done))
    }

    /// All that came back until now.
    pub fn total(&self) -> Reclaimed {
        self.total
    }

    /// Looks again at what somebody held, if all room is wanted.
    async fn come_back(&mut self) -> Result<Option<Reclaimed>> {
        let is_held = self.total.held > 0 || self.is_written;
        if !self.is_thorough || !is_held || self.rounds == 0 {
            return Ok(None);
        }
        self.rounds = self.rounds.saturating_sub(1);
        self.core.runtime.sleep(HELD_PAUSE).await;
        (self.total.held, self.is_last) = (0, false);
        // What those who let go had queued.
        self.core.queue.append(Vec::new(), Vec::new()).await?;
        self.plan()?;
        Ok(Some(Reclaimed::default()))
    }

    /// Looks what there is to do.
    fn plan(&mut self) -> Result<()> {
        let core = Arc::clone(&self.core);
        self.is_written = false;
        let rows = account::rows(&core)?;
        let barrier = core.segments.holds.barrier();
        let (mut partly, mut closed) = (Vec::new(), BTreeSet::new());
        let (mut small, mut meta) = (Vec::new(), Vec::new());
        for class in [Class::Raw, Class::Small, Class::Meta] {
            for id in core.segments.list(class)? {
                let row = rows.get(&id);
                if row.is_some_and(|row| row.removed) {
                    let holes = 0;
                    self.work
                        .push_back(Work::Unlink(Unlink { id, barrier, holes }));
                    continue;
                }
                if !account::is_closed(&core, &id, row) {
                    continue;
                }
                if core.segments.holds.is_written(&id) {
                    self.is_written = true;
                    continue;
                }
                let (live, used) = row.map_or((0, 0), |row| (row.live, row.used));
                match class {
                    Class::Raw if live == 0 => self.work.push_back(Work::Remove(id)),
                    // One that refused is left alone.
                    Class::Raw if !self.memory.refused.contains(&id) => {
                        closed.insert(id);
                        let row = row.filter(|row| row.dead() > 0 || !row.sealed);
                        partly.extend(row.cloned());
                    }
                    Class::Small if live == 0 => {
                        self.work.push_back(Work::Clean(id, Lives::default()));
                    }
                    Class::Small if clean::is_sparse(live, used, self.is_thorough) => {
                        small.push(id);
                    }
                    Class::Meta => meta.push(id),
                    _ => {}
                }
            }
        }
        if !small.is_empty() {
            self.work
                .push_back(Work::Search(Box::new(Search::new(small))));
        }
        self.look(meta);
        let unfinished = rows
            .values()
            .filter(|row| row.punched > 0 && !self.memory.punched)
            .max_by_key(|row| row.punched);
        if let Some(row) = unfinished {
            let again = Work::Punch(Box::new(Partly::again(row)));
            self.work.push_front(again);
        } else {
            self.memory.punched = true;
        }
        self.plan_raw(&rows, partly, closed);
        Ok(())
    }

    /// Plans a look at raw segments: at those to be punched, and those to be joined.
    fn plan_raw(
        &mut self,
        rows: &Rows,
        mut partly: Vec<row::Segment>,
        mut closed: BTreeSet<SegmentId>,
    ) {
        let core = Arc::clone(&self.core);
        if self.memory.can_punch.is_none()
            && let Some(row) = partly.first()
            && let Ok(Some(file)) = core.segments.open_apart(&row.segment)
        {
            // A file that errs says nothing about the others.
            let _ = self.can_punch(&file);
        }
        let can_punch = self.memory.can_punch != Some(false);
        let stuck = &mut self.memory.stuck;
        stuck.retain(|id, stuck| rows.get(id).is_some_and(|row| stuck.is_still(&core, row)));
        closed.retain(|id| self.is_joining && !stuck.contains_key(id));
        let joined = match core.segments.may_move() {
            true => compact::choose(rows, &closed, can_punch, core.segments.size()),
            false => Vec::new(),
        };
        // One that an earlier process had open is sealed also where holes cannot be
        // made.
        let is_joined: BTreeSet<_> = joined.iter().collect();
        partly.retain(|row| (can_punch || !row.sealed) && !is_joined.contains(&row.segment));
        partly.extend(joined.iter().filter_map(|id| rows.get(id)).cloned());
        if !partly.is_empty() {
            let scan = Scan::new(partly, joined);
            self.work.push_back(Work::Scan(Box::new(scan)));
        }
    }

    /// Chooses the meta segments of which this pass looks how much still
    /// matters: some, in turn, if anything died since.
    fn look(&mut self, mut meta: Vec<SegmentId>) {
        let dead = self.core.metrics.counts().collected;
        let behind = match self.memory.looked {
            Some((_, before)) if before == dead => return,
            Some((behind, _)) => behind,
            None => 0,
        };
        meta.sort_by_key(|id| (id.id <= behind, id.id));
        meta.truncate(META_LOOKS);
        let last = meta.last().map_or(0, |id| id.id);
        self.memory.looked = Some((last, dead));
        let looks = meta.into_iter().map(|id| Work::Clean(id, Lives::default()));
        self.work.extend(looks);
    }

    async fn work_on(&mut self, work: Work) -> Result<Did> {
        match work {
            Work::Remove(id) => self.remove(id).await,
            Work::Unlink(unlink) => self.unlink(unlink).await,
            Work::Search(search) => self.search(search).await,
            Work::Clean(id, lives) => self.clean(id, &lives).await,
            Work::Scan(scan) => self.scan(scan).await,
            Work::Punch(partly) => self.punch(partly).await,
            Work::Compact(work) => self.compact(work).await,
        }
    }

    /// Lets older programs refuse the store before they meet what they do not
    /// know.
    async fn announce(&self, features: u64) -> Result<()> {
        let mut slots = self.core.superblock.lock().await;
        if slots.get().features & features == features {
            return Ok(());
        }
        slots
            .write(|slot| slot.features |= features)
            .await
            .map_err(|error| self.core.poison.set(&error))
    }

    /// Records that a segment is removed, if the writer finds that nothing
    /// counts on it.
    async fn remove(&mut self, id: SegmentId) -> Result<Did> {
        let holds = &self.core.segments.holds;
        if holds.is_written(&id) {
            return Ok(Did::Held(Work::Remove(id)));
        }
        let row = self.core.segment_row(&id)?;
        let holes = row.map_or(0, |row| row.released());
        self.announce(RELEASES).await?;
        if planted::is(Planted::UnlinkBeforeRecord) {
            self.core.segments.unlink(&id)?;
            self.core.segments.sync_names(&id)?;
        }
        let record = vec![(Record::Remove { segment: id }, Bytes::new())];
        let fates = self.core.queue.append(record, Vec::new()).await?;
        if !matches!(fates.first(), Some(Fate::Written { .. })) {
            return Ok(Did::nothing());
        }
        self.memory.opened.remove(&id);
        let barrier = self.core.segments.holds.barrier();
        let unlink = Unlink { id, barrier, holes };
        Ok(Did::More(0, vec![Work::Unlink(unlink)]))
    }

    /// Takes a file away, a part of a large one at a time.
    async fn unlink(&self, mut unlink: Unlink) -> Result<Did> {
        let (segments, id) = (&self.core.segments, unlink.id);
        if segments.holds.is_read(&id, unlink.barrier) {
            return Ok(Did::Held(Work::Unlink(unlink)));
        }
        let Some(file) = segments.open_apart(&id)? else {
            return Ok(Did::nothing());
        };
        let len = file.len()?;
        self.core.budget.take(len.min(RELEASE_STEP)).await;
        // A rebuild may still read the others, and then they must be whole.
        if id.class == Class::Raw && len > RELEASE_STEP {
            file.set_len(len.saturating_sub(RELEASE_STEP))?;
            let before = unlink.holes.min(RELEASE_STEP);
            unlink.holes = unlink.holes.saturating_sub(before);
            let more = vec![Work::Unlink(unlink)];
            return Ok(Did::More(RELEASE_STEP.saturating_sub(before), more));
        }
        drop(file);
        segments.unlink(&id)?;
        let synced = segments.sync_names(&id);
        match id.class {
            // A start takes one away again that comes back.
            Class::Raw => synced?,
            // What is let go next rests on this file being gone for good.
            _ => synced.map_err(|error| self.core.poison.set(&error))?,
        }
        self.core.metrics.removed_segment();
        self.core.room.came_back();
        Ok(Did::Removed(len.saturating_sub(unlink.holes)))
    }
}

/// Ends removals that an earlier process had recorded.
pub(crate) fn finish(core: &Core) -> Result<()> {
    let mut removed = account::rows(core)?;
    removed.retain(|_, row| row.removed);
    for class in [Class::Raw, Class::Small, Class::Meta] {
        let Some(any) = removed.keys().find(|id| id.class == class) else {
            continue;
        };
        for id in core.segments.list(class)? {
            if removed.contains_key(&id)
                && let Err(error) = core.segments.unlink(&id)
            {
                tracing::warn!(%error, "a removed segment is still there");
            }
        }
        // Also where the name is gone already: nobody may have lived to make that
        // durable, and what is let go next rests on it.
        core.segments.sync_names(any)?;
    }
    Ok(())
}

/// The segments by what the index says of them.
type Rows = BTreeMap<SegmentId, row::Segment>;
