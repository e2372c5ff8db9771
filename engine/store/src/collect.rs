//! Collection: which blobs nobody names and nobody was told of, and their end
//! (docs/adr/0017-collection.md).
//!
//! [`Collector`] takes the live set; [`Sweep`] walks all blobs and gives those
//! that two full live sets in a row did not name. Invariants: nothing is
//! condemned and nothing dies by a live set that did not come whole; a blob
//! that was used since the barrier rose, or that is younger, is passed over;
//! only the journal's writer ends a life. Dropping either ends the cycle: it
//! condemns nothing, and what a live set that came whole named, or was used
//! meanwhile, is condemned no more.
//!
//! Knows no names and no reasons: those are the caller's.

pub(crate) mod further;

use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use orlop_format::digest::{Algorithm, Digest};
use orlop_format::record::Record;
use orlop_format::row::{self, State};
use orlop_index::Table;
use roaring::RoaringTreemap;

use self::further::Further;
use crate::config::{
    COLLECT_DELETES, COLLECT_MARKS, COLLECT_PAGE, COLLECT_ROWS, COLLECT_SKIPS, UNEXPLAINED_MIN,
    UNEXPLAINED_SHARE,
};
use crate::core::Core;
use crate::error::{Error, Invalid, Result};
use crate::journal::queue::Fate;
use crate::sync::OwnedMutexGuard;
use crate::view::unreadable;

/// What a cycle leaves to the next. In memory: after a start nothing is
/// condemned.
#[derive(Debug, Default)]
pub(crate) struct Condemned {
    /// Blobs that the last live set did not name, by ordinal.
    ordinals: RoaringTreemap,
    /// Blobs that there were.
    blobs: u64,
}

/// What a live set says of itself at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trailer {
    /// How many digests it named, each as often as it did.
    pub digests: u64,
    /// The catalog that it is from.
    pub catalog: [u8; 16],
    /// The catalog's sequence when it was read.
    pub sequence: u64,
}

/// A cycle that takes its live set.
pub struct Collector {
    core: Arc<Core>,
    last: OwnedMutexGuard<Condemned>,
    /// Lives with a later birth are not looked at.
    until: u64,
    live: RoaringTreemap,
    /// Named, and still to be looked up: in their order that takes a fraction of
    /// the reads.
    named: Vec<[u8; 32]>,
    /// What is being looked up, in order. Done from its end.
    sorted: Vec<[u8; 32]>,
    taken: u64,
    absent: u64,
    /// The store's catalog when the cycle began, and the last change of it that
    /// was seen then. What is seen later may be later than the live set.
    catalog: ([u8; 16], u64),
    /// Whether a part of the live set could not be taken.
    failed: bool,
}

impl Drop for Collector {
    /// Lowers the barrier, however the cycle ends. Whatever kept a blob in this
    /// cycle ends the verdict of the one before.
    fn drop(&mut self) {
        let touched = self.core.presence.leases.lower();
        self.last.ordinals -= touched;
        self.last.ordinals -= &self.live;
    }
}

impl std::fmt::Debug for Collector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Collector")
            .field("until", &self.until)
            .field("taken", &self.taken)
            .finish_non_exhaustive()
    }
}

impl Collector {
    pub(crate) async fn begin(core: &Arc<Core>) -> Result<Self> {
        core.poison.check()?;
        let last = Arc::clone(&core.collection)
            .try_lock_owned()
            .map_err(|_| Error::Busy {
                what: "the collector: another collection runs".to_owned(),
            })?;
        // Tombstones of a cycle whose caller went away may still wait.
        core.queue.append(Vec::new(), Vec::new()).await?;
        let until = core.index.watermark()?;
        let slot = core.superblock.lock().await.get();
        // From here on it does not wait, so that it lowers what it raised.
        let pinned = core.presence.leases.raise(core.runtime.now());
        let mut collector = Self {
            core: Arc::clone(core),
            catalog: (slot.catalog, slot.catalog_sequence),
            last,
            until,
            live: RoaringTreemap::new(),
            named: Vec::new(),
            sorted: Vec::new(),
            taken: 0,
            absent: 0,
            failed: false,
        };
        for part in pinned.chunks(COLLECT_ROWS) {
            for row in core.blob_rows(part)?.into_iter().flatten() {
                core.presence.leases.touch(row.ordinal);
            }
        }
        let copies = core.names()?.copies;
        collector.named = copies.iter().map(|copy| copy.sha256).collect();
        Ok(collector)
    }

    /// Takes a part of the live set: digests of any algorithm, each as often as
    /// it comes. One that is not in the store is only counted.
    ///
    /// # Errors
    /// When it cannot be known what a digest means: the cycle is over then.
    pub fn mark(&mut self, digests: &[Digest]) -> Result<()> {
        let marked = digests
            .chunks(COLLECT_ROWS)
            .try_for_each(|part| self.mark_part(part));
        self.failed |= marked.is_err();
        self.taken = self.taken.saturating_add(digests.len() as u64);
        marked
    }

    fn mark_part(&mut self, digests: &[Digest]) -> Result<()> {
        // Whoever does not look up in steps.
        if self.named.len() >= COLLECT_MARKS {
            while self.look_up(false)? {}
        }
        for sha256 in self.core.resolve_all(digests)? {
            match sha256 {
                Some(sha256) => self.named.push(sha256),
                None => self.absent = self.absent.saturating_add(1),
            }
        }
        Ok(())
    }

    /// Looks up a part of what was named, once much of it was gathered, or is
    /// `all` there is. Whether there is more to look up now. Who takes the live
    /// set asks it to after each part, so that no step takes long; what was not
    /// looked up is at the end.
    ///
    /// # Errors
    /// When it cannot be known what a digest means: the cycle is over then.
    pub fn look_up(&mut self, all: bool) -> Result<bool> {
        let enough = if all { 1 } else { COLLECT_MARKS };
        if self.sorted.is_empty() && self.named.len() >= enough {
            self.sorted = std::mem::take(&mut self.named);
            self.sorted.sort_unstable();
            self.sorted.dedup();
        }
        if self.sorted.is_empty() {
            return Ok(false);
        }
        let rest = self.sorted.len().saturating_sub(COLLECT_ROWS);
        let part = self.sorted.split_off(rest);
        let looked = self.mark_rows(&part);
        self.failed |= looked.is_err();
        looked?;
        if self.sorted.is_empty() {
            // Its memory, too.
            self.sorted = Vec::new();
        }
        // What came meanwhile counts too: it may be all that is left.
        Ok(!self.sorted.is_empty() || self.named.len() >= enough)
    }

    fn mark_rows(&mut self, named: &[[u8; 32]]) -> Result<()> {
        for row in self.core.blob_rows(named)? {
            match row {
                Some(row) if row.state != State::Dead => {
                    self.live.insert(row.ordinal);
                }
                _ => self.absent = self.absent.saturating_add(1),
            }
        }
        Ok(())
    }

    /// Ends the live set, if it came whole and from the store's catalog.
    /// `unlimited` lifts the bound on deaths that nothing explains.
    ///
    /// # Errors
    /// [`Invalid::LiveSet`], or when it cannot be known what a digest means:
    /// nothing was condemned.
    pub fn whole(mut self, trailer: Trailer, unlimited: bool) -> Result<Sweep> {
        let refuse = |reason: String| Error::from(Invalid::LiveSet { reason });
        if self.failed {
            return Err(refuse("a part of it could not be taken".to_owned()));
        }
        if trailer.digests != self.taken {
            return Err(refuse(format!(
                "it says that it names {} digests, and {} came",
                trailer.digests, self.taken
            )));
        }
        while self.look_up(true)? {}
        if !self.sorted.is_empty() || !self.named.is_empty() {
            return Err(refuse("a part of it was not looked up".to_owned()));
        }
        let (catalog, sequence) = self.catalog;
        if catalog == [0; 16] || trailer.catalog != catalog {
            return Err(refuse("its catalog is not the store's".to_owned()));
        }
        if trailer.sequence < sequence {
            return Err(refuse(format!(
                "its catalog is at change {}, and change {sequence} was seen before",
                trailer.sequence
            )));
        }
        let bound = UNEXPLAINED_MIN.max(self.last.blobs / UNEXPLAINED_SHARE);
        Ok(Sweep {
            done: Collected {
                live: self.live.len(),
                absent: self.absent,
                ..Collected::default()
            },
            unexplained_left: if unlimited { u64::MAX } else { bound },
            cycle: self,
            next: Some(0),
            condemned: RoaringTreemap::new(),
            further: Further::default(),
            skipped: Vec::new(),
        })
    }
}

/// A blob that may die: two live sets in a row did not name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Garbage {
    /// Its SHA-256.
    pub digest: Digest,
    /// LSN of the commit that made it.
    pub birth: u64,
    /// Bytes.
    pub size: u64,
    /// Whether the store itself made it: that explains it.
    pub internal: bool,
    sha256: [u8; 32],
    ordinal: u64,
}

/// What a cycle came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Collected {
    /// Blobs that there were, younger ones left out.
    pub blobs: u64,
    /// Blobs that the live set named.
    pub live: u64,
    /// Digests of the live set that are not in the store.
    pub absent: u64,
    /// Blobs that were used since the cycle began.
    pub touched: u64,
    /// Blobs that are condemned now.
    pub condemned: u64,
    /// Their bytes, with those of blobs that were used after that.
    pub condemned_bytes: u64,
    /// Blobs that died.
    pub dead: u64,
    /// Their bytes.
    pub dead_bytes: u64,
    /// Blobs that the bound on unexplained deaths kept.
    pub bounded: u64,
    /// Blobs that were passed over, since their rows could not be read.
    pub skipped: u64,
}

/// Ordinals with their blobs, and the ordinal that comes next.
type Page = (Vec<(u64, [u8; 32])>, Option<u64>);

/// A cycle that walks the blobs.
#[derive(Debug)]
pub struct Sweep {
    cycle: Collector,
    /// The ordinal that comes next; `None` at the end.
    next: Option<u64>,
    condemned: RoaringTreemap,
    unexplained_left: u64,
    further: Further,
    skipped: Vec<Digest>,
    done: Collected,
}

impl Sweep {
    /// Says that so many blobs died without an explanation lately: the bound has
    /// that many less.
    pub fn spend(&mut self, dead: u64) {
        if self.unexplained_left != u64::MAX {
            self.unexplained_left = self.unexplained_left.saturating_sub(dead);
        }
    }

    /// Of each digest, whether the live set named it.
    ///
    /// # Errors
    /// When it cannot be known.
    pub fn names(&self, digests: &[Digest]) -> Result<Vec<bool>> {
        let core = &self.cycle.core;
        let mut named = Vec::with_capacity(digests.len());
        for part in digests.chunks(COLLECT_ROWS) {
            let known = core.resolve_all(part)?;
            let present: Vec<[u8; 32]> = known.iter().flatten().copied().collect();
            let mut rows = core.blob_rows(&present)?.into_iter();
            let is_live = |row: row::Blob| self.cycle.live.contains(row.ordinal);
            let each = known.into_iter().map(|known| {
                let row = known.and_then(|_| rows.next().flatten());
                row.is_some_and(is_live)
            });
            named.extend(each);
        }
        Ok(named)
    }

    /// Walks on over some blobs. Gives those of them that may die; `None` when
    /// all were walked over. The rest of the garbage is condemned. A blob whose
    /// row cannot be read is passed over, which keeps it.
    ///
    /// # Errors
    /// When the index cannot be read. The next call tries the same blobs again.
    pub fn step(&mut self) -> Result<Option<Vec<Garbage>>> {
        let Some(from) = self.next else {
            return Ok(None);
        };
        let (page, next) = self.page(from)?;
        let all = page.len();
        let is_unnamed = |(ordinal, _): &(u64, [u8; 32])| !self.cycle.live.contains(*ordinal);
        let unnamed: Vec<(u64, [u8; 32])> = page.into_iter().filter(is_unnamed).collect();
        let names: Vec<[u8; 32]> = unnamed.iter().map(|(_, sha256)| *sha256).collect();
        let last = unnamed.iter().rev().map(|(ordinal, _)| *ordinal);
        let mut candidates = last.filter(|ordinal| self.cycle.last.ordinals.contains(*ordinal));
        if let Some(last) = candidates.next() {
            let Self { further, cycle, .. } = self;
            further.reach(&cycle.core, (from, last), &cycle.last.ordinals)?;
        }
        let rows = self.rows(&names)?;
        self.next = next;
        let named = all.saturating_sub(unnamed.len()) as u64;
        self.done.blobs = self.done.blobs.saturating_add(named);
        let mut garbage = Vec::new();
        for ((ordinal, sha256), row) in unnamed.into_iter().zip(rows) {
            let Some(row) = row.filter(|row| self.is_garbage(ordinal, &sha256, row)) else {
                continue;
            };
            if !self.cycle.last.ordinals.contains(ordinal) {
                self.condemn(ordinal, row.size);
                continue;
            }
            let digest = Digest::new(Algorithm::Sha256, &sha256)
                .map_err(|error| Error::corrupt("a row of the index", error))?;
            garbage.push(Garbage {
                digest,
                birth: row.birth,
                size: row.size,
                internal: row.internal,
                sha256,
                ordinal,
            });
        }
        Ok(Some(garbage))
    }

    /// Rows of blobs. Where they cannot be read together they are one by one, and
    /// those that still cannot are passed over.
    fn rows(&mut self, names: &[[u8; 32]]) -> Result<Vec<Option<row::Blob>>> {
        let core = Arc::clone(&self.cycle.core);
        match core.blob_rows(names) {
            Err(Error::Io { .. }) => {}
            rows => return rows,
        }
        let (mut rows, mut skipped) = (Vec::with_capacity(names.len()), Vec::new());
        for sha256 in names {
            match core.blob_rows(std::slice::from_ref(sha256)) {
                Ok(row) => rows.extend(row),
                Err(Error::Io { .. })
                    if self.skipped.len().saturating_add(skipped.len()) < COLLECT_SKIPS =>
                {
                    rows.push(None);
                    skipped.push(
                        Digest::new(Algorithm::Sha256, sha256)
                            .map_err(|error| Error::corrupt("a row of the index", error))?,
                    );
                }
                Err(error) => return Err(error),
            }
        }
        self.done.skipped = self.done.skipped.saturating_add(skipped.len() as u64);
        self.skipped.append(&mut skipped);
        Ok(rows)
    }

    /// The blobs that were passed over since their rows could not be read.
    #[must_use]
    pub fn skipped(&self) -> &[Digest] {
        &self.skipped
    }

    /// The further digests of a blob that the last step gave.
    #[must_use]
    pub fn further(&self, blob: &Garbage) -> &[Digest] {
        self.further.of(&blob.sha256)
    }

    /// The next ordinals that are taken, and where it goes on behind them.
    fn page(&self, from: u64) -> Result<Page> {
        let mut page: Vec<(u64, [u8; 32])> = Vec::new();
        let mut broken = None;
        let visit = &mut |key: &[u8], value: &[u8]| {
            let row = (<[u8; 8]>::try_from(key), <[u8; 32]>::try_from(value));
            let (Ok(ordinal), Ok(sha256)) = row else {
                broken = Some(orlop_format::Malformed::Field("length"));
                return ControlFlow::Break(());
            };
            page.push((u64::from_be_bytes(ordinal), sha256));
            if page.len() < COLLECT_PAGE {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        };
        let index = &self.cycle.core.index;
        index.scan(Table::Ordinal, &from.to_be_bytes(), visit)?;
        if let Some(error) = broken {
            return Err(unreadable(Table::Ordinal, error));
        }
        let next = match page.last() {
            Some((last, _)) if page.len() == COLLECT_PAGE => last.checked_add(1),
            _ => None,
        };
        Ok((page, next))
    }

    /// Whether nothing keeps a blob that the live set does not name.
    fn is_garbage(&mut self, ordinal: u64, sha256: &[u8; 32], row: &row::Blob) -> bool {
        if row.ordinal != ordinal || row.state == State::Dead || row.birth > self.cycle.until {
            return false;
        }
        self.done.blobs = self.done.blobs.saturating_add(1);
        let core = &self.cycle.core;
        let leases = &core.presence.leases;
        !leases.keeps(sha256, ordinal, core.runtime.now())
    }

    /// Whether this live set may condemn a blob: another sweep's garbage may be
    /// what it names, or younger.
    fn may_condemn(&self, blob: &Garbage) -> bool {
        blob.birth <= self.cycle.until && !self.cycle.live.contains(blob.ordinal)
    }

    fn condemn(&mut self, ordinal: u64, size: u64) {
        self.condemned.insert(ordinal);
        self.done.condemned_bytes = self.done.condemned_bytes.saturating_add(size);
    }

    /// Ends the lives of blobs that [`Sweep::step`] gave. `explained`: something
    /// that was recorded tells why they are garbage. Gives those that have died;
    /// one that was used meanwhile lives on, one that the bound kept stays
    /// condemned. Garbage that another sweep gave is passed over unless this one
    /// comes to the same.
    ///
    /// # Errors
    /// As for any write. Those of them that died are dead.
    pub async fn end(&mut self, garbage: &[Garbage], explained: bool) -> Result<Vec<Garbage>> {
        let mut dead = Vec::new();
        for part in garbage.chunks(COLLECT_DELETES) {
            let (mut batch, mut bounded) = (Vec::with_capacity(part.len()), Vec::new());
            let mut left = self.unexplained_left;
            for blob in part {
                if !self.may_condemn(blob) || !self.cycle.last.ordinals.contains(blob.ordinal) {
                    continue;
                }
                if !explained && !blob.internal {
                    if left == 0 {
                        bounded.push(*blob);
                        continue;
                    }
                    left = left.saturating_sub(1);
                }
                batch.push(*blob);
            }
            self.tombstones(batch, &mut dead).await?;
            self.unexplained_left = left;
            self.done.bounded = self.done.bounded.saturating_add(bounded.len() as u64);
            self.keep(&bounded);
        }
        Ok(dead)
    }

    async fn tombstones(&mut self, batch: Vec<Garbage>, dead: &mut Vec<Garbage>) -> Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        let records = batch
            .iter()
            .map(|blob| {
                let (sha256, birth) = (blob.sha256, blob.birth);
                (Record::Tombstone { sha256, birth }, Bytes::new())
            })
            .collect();
        let core = &self.cycle.core;
        let fates = core.queue.append(records, Vec::new()).await?;
        for (blob, fate) in batch.into_iter().zip(fates) {
            if matches!(fate, Fate::Written { .. }) {
                self.done.dead = self.done.dead.saturating_add(1);
                self.done.dead_bytes = self.done.dead_bytes.saturating_add(blob.size);
                core.metrics.collected(blob.size);
                dead.push(blob);
            }
        }
        Ok(())
    }

    /// What the cycle came to so far; [`Sweep::finish`] has the rest.
    #[must_use]
    pub fn so_far(&self) -> Collected {
        Collected {
            condemned: self.condemned.len(),
            ..self.done
        }
    }

    /// Leaves blobs condemned that [`Sweep::step`] gave and that are not to die
    /// now.
    pub fn keep(&mut self, garbage: &[Garbage]) {
        for blob in garbage {
            if self.may_condemn(blob) {
                self.condemn(blob.ordinal, blob.size);
            }
        }
    }

    /// Ends the cycle. What it condemned may die in the next.
    ///
    /// # Errors
    /// [`Error::Cancelled`] when not all blobs were walked over: nothing more is
    /// condemned than before.
    pub fn finish(mut self) -> Result<Collected> {
        if self.next.is_some() {
            return Err(Error::Cancelled);
        }
        let touched = self.cycle.core.presence.leases.touched();
        self.condemned -= &touched;
        self.done.condemned = self.condemned.len();
        self.done.touched = touched.len();
        *self.cycle.last = Condemned {
            ordinals: std::mem::take(&mut self.condemned),
            blobs: self.done.blobs,
        };
        Ok(self.done)
    }
}
