//! Collection: which blobs nobody names and nobody was told of, and their end
//! (docs/adr/0017-collection.md).
//!
//! [`Collector`] takes the live set; [`Sweep`] walks all blobs and gives those
//! that two full live sets in a row did not name. Invariants: nothing is
//! condemned and nothing dies by a live set that did not come whole; a blob
//! that was used since the barrier rose, or that is younger, is passed over;
//! only the journal's writer ends a life. Dropping either ends the cycle, and
//! what it had not condemned or ended stays as it was.
//!
//! Knows no names and no reasons: those are the caller's.

use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use orlop_format::digest::{Algorithm, Digest};
use orlop_format::record::Record;
use orlop_format::row::{self, State};
use orlop_index::Table;
use roaring::RoaringTreemap;

use crate::config::{COLLECT_DELETES, COLLECT_PAGE, UNEXPLAINED_MIN, UNEXPLAINED_SHARE};
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

/// Lowers the barrier when a cycle ends, however it does.
struct Barrier(Arc<Core>);

impl Drop for Barrier {
    fn drop(&mut self) {
        self.0.presence.leases.lower();
    }
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
    barrier: Barrier,
    last: OwnedMutexGuard<Condemned>,
    /// Lives with a later birth are not looked at.
    until: u64,
    live: RoaringTreemap,
    taken: u64,
    absent: u64,
    /// The store's catalog when the cycle began, and the last change of it that
    /// was seen then. What is seen later may be later than the live set.
    catalog: ([u8; 16], u64),
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
        let pinned = core.presence.leases.raise(core.runtime.now());
        let barrier = Barrier(Arc::clone(core));
        for sha256 in pinned {
            if let Some(row) = core.blob_row(&sha256)? {
                core.presence.leases.touch(row.ordinal);
            }
        }
        let slot = core.superblock.lock().await.get();
        let mut collector = Self {
            catalog: (slot.catalog, slot.catalog_sequence),
            barrier,
            last,
            until,
            live: RoaringTreemap::new(),
            taken: 0,
            absent: 0,
        };
        for copy in core.names()?.copies {
            collector.mark_one(&copy.sha256)?;
        }
        Ok(collector)
    }

    fn core(&self) -> &Arc<Core> {
        &self.barrier.0
    }

    /// Takes a part of the live set: digests of any algorithm, each as often as
    /// it comes. One that is not in the store is only counted.
    ///
    /// # Errors
    /// When it cannot be known what a digest means: the cycle is over then.
    pub fn mark(&mut self, digests: &[Digest]) -> Result<()> {
        for digest in digests {
            match self.core().resolve(digest)? {
                Some(sha256) => self.mark_one(&sha256)?,
                None => self.absent = self.absent.saturating_add(1),
            }
        }
        self.taken = self.taken.saturating_add(digests.len() as u64);
        Ok(())
    }

    fn mark_one(&mut self, sha256: &[u8; 32]) -> Result<()> {
        match self.core().blob_row(sha256)? {
            Some(row) if row.state != State::Dead => {
                self.live.insert(row.ordinal);
            }
            _ => self.absent = self.absent.saturating_add(1),
        }
        Ok(())
    }

    /// Ends the live set, if it came whole and from the store's catalog.
    /// `unlimited` lifts the bound on deaths that nothing explains.
    ///
    /// # Errors
    /// [`Invalid::LiveSet`]: nothing was condemned.
    pub async fn whole(self, trailer: Trailer, unlimited: bool) -> Result<Sweep> {
        let refuse = |reason: String| Error::from(Invalid::LiveSet { reason });
        if trailer.digests != self.taken {
            return Err(refuse(format!(
                "it says that it names {} digests, and {} came",
                trailer.digests, self.taken
            )));
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
    /// Their bytes.
    pub condemned_bytes: u64,
    /// Blobs that died.
    pub dead: u64,
    /// Their bytes.
    pub dead_bytes: u64,
    /// Blobs that the bound on unexplained deaths kept.
    pub bounded: u64,
}

/// A cycle that walks the blobs.
#[derive(Debug)]
pub struct Sweep {
    cycle: Collector,
    /// The ordinal that comes next; `None` at the end.
    next: Option<u64>,
    condemned: RoaringTreemap,
    unexplained_left: u64,
    done: Collected,
}

impl Sweep {
    /// Walks on over some blobs. Gives those of them that may die; `None` when
    /// all were walked over. The rest of the garbage is condemned.
    ///
    /// # Errors
    /// When the index cannot be read: the cycle is over then.
    pub fn step(&mut self) -> Result<Option<Vec<Garbage>>> {
        let Some(from) = self.next else {
            return Ok(None);
        };
        let mut garbage = Vec::new();
        for (ordinal, sha256) in self.page(from)? {
            let Some(row) = self.garbage(ordinal, &sha256)? else {
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

    /// The next ordinals that are taken.
    fn page(&mut self, from: u64) -> Result<Vec<(u64, [u8; 32])>> {
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
        let index = &self.cycle.core().index;
        index.scan(Table::Ordinal, &from.to_be_bytes(), visit)?;
        if let Some(error) = broken {
            return Err(unreadable(Table::Ordinal, error));
        }
        self.next = match page.last() {
            Some((last, _)) if page.len() == COLLECT_PAGE => last.checked_add(1),
            _ => None,
        };
        Ok(page)
    }

    /// The row of a blob that nothing keeps.
    fn garbage(&mut self, ordinal: u64, sha256: &[u8; 32]) -> Result<Option<row::Blob>> {
        let core = &self.cycle.barrier.0;
        if self.cycle.live.contains(ordinal) {
            self.done.blobs = self.done.blobs.saturating_add(1);
            return Ok(None);
        }
        let Some(row) = core.blob_row(sha256)? else {
            return Ok(None);
        };
        if row.ordinal != ordinal || row.state == State::Dead || row.birth > self.cycle.until {
            return Ok(None);
        }
        self.done.blobs = self.done.blobs.saturating_add(1);
        let leases = &core.presence.leases;
        let kept = leases.keeps(sha256, ordinal, core.runtime.now());
        Ok((!kept).then_some(row))
    }

    fn condemn(&mut self, ordinal: u64, size: u64) {
        self.condemned.insert(ordinal);
        self.done.condemned_bytes = self.done.condemned_bytes.saturating_add(size);
    }

    /// Ends the lives of blobs that [`Sweep::step`] gave. `explained`: something
    /// that was recorded tells why they are garbage. Gives those that have died;
    /// one that was used meanwhile lives on, one that the bound kept stays
    /// condemned.
    ///
    /// # Errors
    /// As for any write. Those of them that died are dead.
    pub async fn end(&mut self, garbage: &[Garbage], explained: bool) -> Result<Vec<Garbage>> {
        let mut dead = Vec::new();
        for part in garbage.chunks(COLLECT_DELETES) {
            let mut batch = Vec::with_capacity(part.len());
            for blob in part {
                if !explained && !blob.internal {
                    if self.unexplained_left == 0 {
                        self.done.bounded = self.done.bounded.saturating_add(1);
                        self.condemn(blob.ordinal, blob.size);
                        continue;
                    }
                    self.unexplained_left = self.unexplained_left.saturating_sub(1);
                }
                batch.push(*blob);
            }
            self.tombstones(batch, &mut dead).await?;
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
        let core = &self.cycle.barrier.0;
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
            self.condemn(blob.ordinal, blob.size);
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
        self.done.condemned = self.condemned.len();
        self.done.touched = self.cycle.core().presence.leases.touched();
        *self.cycle.last = Condemned {
            ordinals: std::mem::take(&mut self.condemned),
            blobs: self.done.blobs,
        };
        Ok(self.done)
    }
}
