//! Small and meta segments: what of their records still matters goes to new
//! ones, as in recycling, and they are removed.
//!
//! Invariants: copies keep their LSN and are durable before the removal is
//! recorded; a segment of which anything does not hold stays as it is; what
//! ends something is kept as long as a file that is there may hold what it
//! ended.

use orlop_disk::Pool;
use orlop_format::BLOCK;
use orlop_format::group::{Entries, Entry, Head, footprint};
use orlop_format::location::{Class, SegmentId};
use orlop_format::record::{Kind, Moved, Record};
use orlop_format::row::State;

use super::account::rows;
use super::lives::Lives;
use super::{Did, Reclaimer, Work};
use crate::config::FLUSH_ROOM;
use crate::core::Core;
use crate::error::{Error, Result};
use crate::journal::files::read;
use crate::rebuild::{check_end, lost};
use crate::recycle::{Copier, Keep, announce, covered, flush, judge, place};
use crate::segment::SegmentFile;
use crate::space::Claim;

/// Whether so little of a small segment is live that it is worth to be copied: a
/// quarter, or half where all room is wanted.
pub(super) fn is_sparse(live: u64, used: u64, is_thorough: bool) -> bool {
    live.saturating_mul(if is_thorough { 2 } else { 4 }) <= used
}

/// What becomes of the records of a segment.
struct Pass<'a> {
    core: &'a Core,
    /// What is live in a small one.
    lives: Option<&'a Lives>,
    /// No other file that is there, and nothing that was kept, has a record
    /// below this LSN.
    floor: u64,
    /// Notes below this LSN are in copies of the catalog.
    covered: u64,
    small: Copier,
    meta: Copier,
    /// Only counts.
    is_look: bool,
    kept: u64,
    all: u64,
}

impl Pass<'_> {
    async fn take(&mut self, entry: &Entry<'_>) -> Result<()> {
        let bytes = footprint(entry.body.len(), entry.payload.len()) as u64;
        self.all = self.all.saturating_add(bytes);
        let keep = self.judge(entry)?;
        if matches!(keep, Keep::Drop) {
            return Ok(());
        }
        if matches!(keep, Keep::Small(_)) && !entry.payload_good {
            return Err(Error::corrupt(
                format!("the record with LSN {}", entry.lsn),
                "the checksum of its payload does not hold",
            ));
        }
        self.kept = self.kept.saturating_add(bytes);
        self.floor = self.floor.min(entry.lsn);
        if self.is_look {
            return Ok(());
        }
        place(self.core, entry, keep, &mut self.small, &mut self.meta).await
    }

    /// Recycling's rule, and beyond it: what ends something matters only as
    /// long as that is somewhere.
    fn judge(&self, entry: &Entry<'_>) -> Result<Keep> {
        let keep = match self.known(entry)? {
            Some(keep) => keep,
            None => judge(self.core, entry, self.covered)?,
        };
        if matches!(keep, Keep::Ended(_)) && entry.lsn < self.floor {
            return Ok(Keep::Drop);
        }
        // Tombstones stay for good: they alone tell what was ended from what
        // never was.
        if !matches!(entry.kind, Kind::Abandon | Kind::Quarantine) {
            return Ok(keep);
        }
        let is_needed = match decoded(entry)? {
            Record::Abandon { .. } => entry.lsn >= self.floor,
            Record::Quarantine { sha256, birth } => self
                .core
                .blob_row(&sha256)?
                .is_some_and(|row| row.birth == birth && row.state != State::Dead),
            _ => true,
        };
        Ok(if is_needed { keep } else { Keep::Drop })
    }

    /// What is known of a commit in a small segment without its row: one that died
    /// meanwhile is copied and counts for nothing.
    fn known(&self, entry: &Entry<'_>) -> Result<Option<Keep>> {
        let Some(lives) = self.lives.filter(|_| entry.kind == Kind::Commit) else {
            return Ok(None);
        };
        let record = decoded(entry)?;
        let Record::Commit(commit) = record else {
            return Ok(None);
        };
        if lives.has(entry.place.offset) {
            return Ok(Some(Keep::Small(Moved::Blob(commit.sha256, entry.lsn))));
        }
        // What it says of names may matter all the same.
        let is_noted = !commit.note.is_empty() && entry.lsn >= self.covered;
        if is_noted || !commit.aliases.is_empty() {
            return Ok(None);
        }
        Ok(Some(commit.upload.map_or(Keep::Drop, Keep::Ended)))
    }

    /// All groups up to the footer, which must name them.
    async fn walk(&mut self, pool: &Pool, segment: &SegmentFile) -> Result<()> {
        let volume = segment.volume();
        let len = segment.file.len()?;
        let mut offset = BLOCK as u64;
        let mut groups = Vec::new();
        while offset < len {
            let block = read(pool, &segment.file, offset, BLOCK).await?;
            let Ok(head) = Head::decode(&volume, &block) else {
                break;
            };
            let want = u64::from(head.bytes).min(len.saturating_sub(offset));
            self.core.budget.take(want).await;
            let want = usize::try_from(want).unwrap_or(BLOCK);
            let bytes = read(pool, &segment.file, offset, want).await?;
            let base = u32::try_from(offset).unwrap_or(u32::MAX);
            let mut entries = Entries::new(volume, &head, base, &bytes);
            for entry in entries.by_ref() {
                let entry = entry.map_err(|error| lost(segment, offset, error))?;
                self.take(&entry).await?;
            }
            groups.push((base, entries.last_crc()));
            offset = offset.saturating_add(u64::from(head.bytes));
        }
        check_end(pool, segment, offset, len, &groups).await
    }
}

fn decoded(entry: &Entry<'_>) -> Result<Record> {
    let what = || format!("the record with LSN {}", entry.lsn);
    entry
        .record()
        .map_err(|error| Error::corrupt(what(), error))
}

impl Reclaimer {
    /// Copies what matters out of a segment, if that is little enough; it is
    /// removed next.
    pub(super) async fn clean(&mut self, id: SegmentId, lives: &Lives) -> Result<Did> {
        if id.class == Class::Small && lives.is_empty() {
            // It was found dead, perhaps before what was moved into it was known.
            let row = self.core.segment_row(&id)?;
            if row.is_some_and(|row| row.live > 0) {
                return Ok(Did::nothing());
            }
        }
        let floor = self.floor(&id).await?;
        let lives = Some(lives).filter(|_| id.class == Class::Small);
        if id.class == Class::Meta {
            let looked = self.pass(&id, lives, floor, true).await?;
            if looked.kept.saturating_mul(2) > looked.all {
                return Ok(Did::nothing());
            }
        }
        let pass = self.pass(&id, lives, floor, false).await?;
        announce(&self.core, pass.small, pass.meta).await?;
        self.flush_before()?;
        Ok(Did::More(0, vec![Work::Remove(id)]))
    }

    /// A segment goes only behind a flush of the index that covers all by which its
    /// records were judged, and the moves of those that were copied: before it the
    /// index may have rows of which the log has the end and not the beginning, or
    /// which lie in the file that goes. A full disk cannot flush, and an index that
    /// tried in vain takes no more writes, so it is not asked to: room comes back all
    /// the same, and a start replays the rest.
    fn flush_before(&mut self) -> Result<()> {
        let applied = self.core.index.watermark()?;
        let has_room = self
            .core
            .room
            .has(FLUSH_ROOM, Claim::Returns, self.core.runtime.now())?;
        if !has_room || self.memory.flushed == Some(applied) {
            return Ok(());
        }
        match flush(&self.core) {
            Ok(flushed) => self.memory.flushed = Some(flushed),
            Err(Error::Full { .. }) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    async fn pass<'a>(
        &'a self,
        id: &SegmentId,
        lives: Option<&'a Lives>,
        floor: u64,
        is_look: bool,
    ) -> Result<Pass<'a>> {
        let core = self.core.as_ref();
        let segment = core.segments.get(id).await?;
        let mut pass = Pass {
            core,
            lives,
            floor,
            covered: covered(core)?,
            small: Copier::new(Class::Small),
            meta: Copier::new(Class::Meta),
            is_look,
            kept: 0,
            all: 0,
        };
        match pass.walk(&core.pool, &segment).await {
            Ok(()) => Ok(pass),
            Err(error) => {
                pass.small.discard(core);
                pass.meta.discard(core);
                Err(error)
            }
        }
    }

    /// The lowest LSN that a record in another small or meta segment may have, 0
    /// where one is missing that may be put back.
    async fn floor(&mut self, but: &SegmentId) -> Result<u64> {
        let mut floor = u64::MAX;
        let mut wanted = rows(&self.core)?;
        wanted.retain(|id, row| {
            id.class != Class::Raw && !row.removed && (row.sealed || row.live > 0)
        });
        for class in [Class::Small, Class::Meta] {
            for id in self.core.segments.list(class)? {
                wanted.remove(&id);
                if id == *but {
                    continue;
                }
                let opened = match self.memory.opened.get(&id) {
                    Some(opened) => *opened,
                    None => {
                        let opened = self.core.segments.get(&id).await?.header.opened;
                        self.memory.opened.insert(id, opened);
                        opened
                    }
                };
                floor = floor.min(opened);
            }
        }
        Ok(if wanted.is_empty() { floor } else { 0 })
    }
}
