//! Maintenance: flushing the index, recycling journal files, sealing segments.
//!
//! A journal file is recycled only when every record in it that still matters
//! has been rewritten to small and meta segments, the moves are in the log,
//! and an atomic flush of the index covers it all. It never waits for the
//! catalog. A payload that fails its checksum is saved to `quarantine/` and
//! holds nothing up.

use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::future::{Either, select};
use orlop_disk::{Create, Lane, OpenOptions};
use orlop_format::BLOCK;
use orlop_format::group::{Builder, Entries, Entry, Head, footprint};
use orlop_format::location::Class;
use orlop_format::record::{Kind, MAX_MOVES, Moved, Record, Relocation, UploadId};
use orlop_format::row::{Form, State};

use orlop_index::{IndexError, Table};

use crate::config::{FLUSH_ROOM, GROUP_SOFT, JOURNAL_KEEP, MOVES_STEP};
use crate::core::Core;
use crate::error::{Error, Result};
use crate::holds::Writing;
use crate::journal::files::{JournalFile, read, read_lenient};
use crate::journal::scan::is_whole;
use crate::planted::{self, Planted};
use crate::segment::{Intake, Pen, Waiting};
use crate::space::Claim;

const _: () = assert!(MOVES_STEP <= MAX_MOVES, "one record says them");

/// Time between looks at what is to be done.
const TICK: Duration = Duration::from_secs(5);

/// Runs until the store is closed or dropped.
pub(crate) async fn run(core: Weak<Core>) {
    let mut flushed = 0;
    let mut said = None;
    loop {
        let Some(held) = core.upgrade() else { return };
        if held.closing() {
            return;
        }
        let tended = tend(&held, &mut flushed).await;
        let (rotated, mut sleep) = (Arc::clone(&held.rotated), held.runtime.sleep(TICK));
        drop(held);
        // The same reason is said once, not with every try.
        let reason = match &tended {
            Ok(()) | Err(Error::Poisoned { .. }) => None,
            Err(error) => Some(error.to_string()),
        };
        if let Some(error) = reason.as_ref().filter(|_| reason != said) {
            tracing::warn!(%error, "maintenance could not go on; it tries again");
        }
        said = reason;
        loop {
            let notified = std::pin::pin!(rotated.notified());
            match select(notified, sleep).await {
                // After a failure nothing but time helps, and a close ends it.
                Either::Left((_, left)) if tended.is_err() && !is_closing(&core) => sleep = left,
                _ => break,
            }
        }
    }
}

fn is_closing(core: &Weak<Core>) -> bool {
    core.upgrade().is_none_or(|core| core.closing())
}

/// One look at everything.
async fn tend(core: &Core, flushed: &mut u64) -> Result<()> {
    core.pool.trim();
    core.pages.trim();
    core.poison.check()?;
    // What finds no room for its seal waits; recycling may make some.
    let sealed = match seal(core).await {
        Err(error) if !matches!(error, Error::Full { .. }) => return Err(error),
        done => done,
    };
    // An index that flushed in vain takes no more writes.
    let now = core.runtime.now();
    if sealed.is_err() && !core.room.has(FLUSH_ROOM, Claim::Returns, now)? {
        return sealed;
    }
    // A flush for each file keeps the next start's replay short.
    let newest = core
        .files
        .all()
        .last()
        .map_or(0, |file| file.header.sequence);
    if newest != *flushed {
        if !planted::is(Planted::RecycleBeforeFlush) {
            flush(core)?;
        }
        *flushed = newest;
    }
    loop {
        let files = core.files.all();
        match files.first_chunk::<2>() {
            Some([oldest, next]) if files.len() > JOURNAL_KEEP && !core.closing() => {
                recycle(core, oldest, next).await?;
            }
            _ => break,
        }
    }
    // Last: it needs room, and recycling may have made a spare without any.
    core.files.prepare().await?;
    sealed
}

/// Flushes the index. A full disk is no reason to stop writing: the journal
/// still has it all.
pub(crate) fn flush(core: &Core) -> Result<u64> {
    core.index.flush().map_err(|error| match error {
        error @ IndexError::Full { .. } => error.into(),
        error => core.poison.set(&error),
    })
}

/// Seals raw segments that take no more. Uploads may still write to them, and a
/// failed sync would be known to one of both only: it ends all writes. To one of
/// moves nobody writes, and what is in it is durable: it is written again. One that
/// finds no room, or is of moves and fails, holds up no other.
///
/// # Errors
/// [`Error::Full`] behind the others when a segment of clients found no room.
pub(crate) async fn seal(core: &Core) -> Result<()> {
    let _turn = core.segments.sealing().lock().await;
    let mut done = Ok(());
    for Waiting { intake, full, .. } in core.segments.full() {
        let id = full.segment.id();
        match core.segments.seal(&full, 0).await {
            Ok(record) => core.record(vec![record]).await?,
            Err(error) if intake == Intake::Moves => {
                if core.segments.not_sealed(&id) {
                    let path = core.segments.path(&id);
                    tracing::warn!(%error, ?path, "a segment of moved blobs could not be sealed; it is tried again, and no more are moved until then");
                }
                continue;
            }
            Err(error @ Error::Full { .. }) => {
                core.segments.not_sealed(&id);
                done = Err(error);
                continue;
            }
            Err(error) => return Err(core.poison.set(&error)),
        }
        core.segments.sealed(&id);
    }
    done
}

/// What becomes of a record that leaves its file.
pub(crate) enum Keep {
    /// Nothing needs it.
    Drop,
    /// Only that it ended an upload.
    Ended(UploadId),
    /// It is rewritten without its payload's place mattering.
    Meta,
    /// Only what it says of names and uploads, without its payload.
    Bare,
    /// Its payload moves with it.
    Small(Moved),
}

/// Collects records of one class into groups.
pub(crate) struct Copier {
    pen: Pen,
    builder: Option<Builder>,
    moves: Vec<Relocation>,
}

impl Copier {
    pub(crate) fn new(class: Class) -> Self {
        Self {
            pen: Pen::new(class),
            builder: None,
            moves: Vec::new(),
        }
    }

    async fn push(&mut self, core: &Core, entry: &Entry<'_>, moved: Option<Moved>) -> Result<()> {
        let more = footprint(entry.body.len(), entry.payload.len());
        let full = self
            .builder
            .as_ref()
            .is_some_and(|b| b.len().saturating_add(more) > GROUP_SOFT);
        if full {
            self.flush(core).await?;
        }
        let mut builder = match self.builder.take() {
            Some(builder) => builder,
            None => {
                let len = GROUP_SOFT.saturating_mul(2) as u64;
                self.pen.group(&core.segments, len, entry.lsn).await?
            }
        };
        let to = builder.push_encoded(
            entry.lsn,
            entry.kind,
            entry.body.to_vec(),
            entry.payload.to_vec(),
        );
        if let Some(what) = moved {
            self.moves.push(Relocation {
                what,
                from: entry.place,
                to,
            });
        }
        self.builder = Some(builder);
        Ok(())
    }

    async fn flush(&mut self, core: &Core) -> Result<()> {
        match self.builder.take() {
            Some(builder) => self.pen.write(&core.segments, builder).await,
            None => Ok(()),
        }
    }

    /// Removes what was copied.
    pub(crate) fn discard(self, core: &Core) {
        self.pen.discard(&core.segments);
    }

    /// Makes the copies durable. What could not be made durable is removed.
    async fn finish(mut self, core: &Core) -> Result<Copies> {
        if let Err(error) = self.flush(core).await {
            self.pen.discard(&core.segments);
            return Err(error);
        }
        let (seals, holds) = self.pen.finish(&core.segments).await?;
        // In the order of the index, of which one read then serves many.
        let mut moves = self.moves;
        moves.sort_unstable_by_key(|moved| match moved.what {
            Moved::Blob(sha256, birth) => (Some(sha256), birth),
            Moved::Upload(_) => (None, 0),
        });
        Ok(Copies {
            seals,
            moves,
            holds,
        })
    }
}

/// Copies that are durable and of which the log does not know yet.
struct Copies {
    seals: Vec<Record>,
    moves: Vec<Relocation>,
    /// Keep a segment that is sealed and to which nothing refers yet.
    holds: Vec<Writing>,
}

/// Makes all copies durable and records them: the seals first, since a move into a
/// segment is the end of every other copy, and whoever begins again would not make
/// up for a seal that is missing.
pub(crate) async fn announce(core: &Core, small: Copier, meta: Copier) -> Result<()> {
    let small = match small.finish(core).await {
        Ok(small) => small,
        Err(error) => {
            meta.discard(core);
            return Err(error);
        }
    };
    let meta = meta.finish(core).await?;
    for record in small.seals.into_iter().chain(meta.seals) {
        core.record(vec![record]).await?;
    }
    for moves in [&small.moves, &meta.moves] {
        for moves in moves.chunks(MOVES_STEP) {
            read_ahead(core, moves)?;
            core.record(vec![Record::Move(moves.to_vec())]).await?;
        }
    }
    drop((small.holds, meta.holds));
    Ok(())
}

/// Brings rows that are to change into the cache of the index, so that the
/// journal's writer, for whom all wait, need not read them from the disk.
fn read_ahead(core: &Core, moves: &[Relocation]) -> Result<()> {
    let keys = moves.iter().filter_map(|moved| match moved.what {
        Moved::Blob(sha256, _) => Some(sha256.to_vec()),
        Moved::Upload(_) => None,
    });
    let keys: Vec<Vec<u8>> = keys.collect();
    core.index.multi_get(Table::Blob, &keys)?;
    Ok(())
}

/// Moves what matters out of the oldest file and lets it go.
async fn recycle(core: &Core, file: &JournalFile, next: &JournalFile) -> Result<()> {
    let mut small = Copier::new(Class::Small);
    let mut meta = Copier::new(Class::Meta);
    let end = next.header.previous_end;
    if let Err(error) = copy(core, file, end, &mut small, &mut meta).await {
        small.pen.discard(&core.segments);
        meta.pen.discard(&core.segments);
        return Err(error);
    }
    announce(core, small, meta).await?;
    let recycled = next.header.first_lsn.saturating_sub(1);
    let durable = if planted::is(Planted::RecycleBeforeFlush) {
        recycled
    } else {
        flush(core)?
    };
    if durable < recycled {
        return Err(Error::Busy {
            what: format!("the index: it is durable to LSN {durable} only"),
        });
    }
    core.superblock
        .lock()
        .await
        .write(|slot| {
            slot.recycled = slot.recycled.max(recycled);
            slot.journal = slot.journal.max(next.header.sequence);
        })
        .await
        .map_err(|error| core.poison.set(&error))?;
    core.files.retire(file.header.sequence)?;
    core.metrics.recycled();
    Ok(())
}

/// Copies what matters of a file's records up to `end`.
async fn copy(
    core: &Core,
    file: &JournalFile,
    end: u32,
    small: &mut Copier,
    meta: &mut Copier,
) -> Result<()> {
    let volume = file.volume();
    let covered = covered(core)?;
    let mut offset = BLOCK as u32;
    while offset < end {
        let block = read(&core.pool, &file.shared, u64::from(offset), BLOCK).await?;
        let head = Head::decode(&volume, &block).map_err(|error| damage(file, offset, error))?;
        let len = head.bytes as usize;
        let from = u64::from(offset);
        let (mut bytes, _) = read_lenient(&core.pool, &file.shared, from, len).await?;
        // What is condemned here is given away for good, so that only what two
        // reads say is believed.
        if !is_whole(Entries::new(volume, &head, offset, &bytes), end) {
            (bytes, _) = read_lenient(&core.pool, &file.shared, from, len).await?;
        }
        let mut entries = Entries::new(volume, &head, offset, &bytes);
        loop {
            if entries.offset() >= end {
                break;
            }
            let Some(entry) = entries.next() else { break };
            let entry = entry.map_err(|error| damage(file, offset, error))?;
            let keep = judge(core, &entry, covered)?;
            place(core, &entry, keep, small, meta).await?;
        }
        offset = offset.saturating_add(head.bytes);
    }
    Ok(())
}

/// Puts one record where it belongs.
pub(crate) async fn place(
    core: &Core,
    entry: &Entry<'_>,
    keep: Keep,
    small: &mut Copier,
    meta: &mut Copier,
) -> Result<()> {
    match keep {
        Keep::Drop => Ok(()),
        Keep::Meta => meta.push(core, entry, None).await,
        Keep::Bare => {
            let bare = Entry {
                payload: &[],
                ..entry.clone()
            };
            meta.push(core, &bare, None).await
        }
        Keep::Ended(upload) => {
            let body = Record::Abandon { upload }.encode();
            let ended = Entry {
                kind: Kind::Abandon,
                body: &body,
                payload: &[],
                ..entry.clone()
            };
            meta.push(core, &ended, None).await
        }
        Keep::Small(Moved::Upload(upload)) if !entry.payload_good => {
            // Without its tail the upload can never be finished.
            set_aside(core, entry).await?;
            core.record(vec![Record::Abandon { upload }]).await
        }
        Keep::Small(Moved::Blob(sha256, birth)) if !entry.payload_good => {
            // In the log before the only copy goes.
            core.record(vec![Record::Quarantine { sha256, birth }])
                .await?;
            core.metrics.quarantined();
            set_aside(core, entry).await?;
            // The commit stays known, so that the blob stays named.
            let bare = Entry {
                payload: &[],
                ..entry.clone()
            };
            meta.push(core, &bare, None).await
        }
        Keep::Small(moved) => small.push(core, entry, Some(moved)).await,
    }
}

/// Whether a record still matters, if notes below the LSN `covered` do not.
pub(crate) fn judge(core: &Core, entry: &Entry<'_>, covered: u64) -> Result<Keep> {
    let record = entry
        .record()
        .map_err(|error| Error::corrupt(format!("the record with LSN {}", entry.lsn), error))?;
    Ok(match record {
        Record::Commit(commit) => match core.blob_row(&commit.sha256)? {
            Some(row) if row.birth == entry.lsn && row.state != State::Dead => match row.form {
                Form::Extents(_) => Keep::Meta,
                Form::Inline(place) if place == entry.place => {
                    Keep::Small(Moved::Blob(commit.sha256, entry.lsn))
                }
                // All that is left of a blob whose payload did not hold.
                Form::Inline(_)
                    if row.state == State::Quarantined
                        && entry.payload.is_empty()
                        && commit.size > 0 =>
                {
                    Keep::Bare
                }
                Form::Inline(_) => commit.upload.map_or(Keep::Drop, Keep::Ended),
            },
            // An earlier life of the blob, and names that were given with it: a
            // further digest goes on naming the blob.
            _ if !commit.aliases.is_empty() => Keep::Bare,
            _ if !commit.note.is_empty() && entry.lsn >= covered => Keep::Bare,
            _ => commit.upload.map_or(Keep::Drop, Keep::Ended),
        },
        Record::Checkpoint(checkpoint) => match core.upload_row(&checkpoint.upload)? {
            Some(row) if row.tail == Some(entry.place) => {
                Keep::Small(Moved::Upload(checkpoint.upload))
            }
            Some(_) => Keep::Meta,
            None => Keep::Drop,
        },
        Record::Open { upload, .. } => match core.upload_row(&upload)? {
            Some(_) => Keep::Meta,
            None => Keep::Drop,
        },
        Record::Note(_) if entry.lsn < covered => Keep::Drop,
        Record::Note(_) => Keep::Meta,
        Record::Copy { .. } => {
            let names = core.names()?;
            if names.copies.iter().any(|copy| copy.lsn == entry.lsn) {
                Keep::Meta
            } else {
                Keep::Drop
            }
        }
        Record::Seal { segment, .. } => match core.segment_row(&segment)? {
            Some(row) if row.removed => Keep::Drop,
            _ => Keep::Meta,
        },
        // The commit says where the extents were in the beginning.
        Record::Remap { sha256, birth, .. } => match core.blob_row(&sha256)? {
            Some(row) if row.birth == birth && row.state != State::Dead => Keep::Meta,
            _ => Keep::Drop,
        },
        Record::Punch { segment, .. } => match core.segment_row(&segment)? {
            Some(row) if row.punched == entry.lsn => Keep::Meta,
            _ => Keep::Drop,
        },
        Record::Alias { .. }
        | Record::Abandon { .. }
        | Record::Tombstone { .. }
        | Record::Quarantine { .. }
        | Record::Remove { .. } => Keep::Meta,
        // A copy stands in its new place with the LSN of the original.
        Record::Move(_) | Record::Mark { .. } => Keep::Drop,
    })
}

/// Notes below this LSN are in both copies of the catalog: 0 while there are not
/// two, or one is in quarantine or lacks a file.
pub(crate) fn covered(core: &Core) -> Result<u64> {
    let copies = core.names()?.copies;
    let Some(oldest) = copies.first().filter(|_| copies.len() >= 2) else {
        return Ok(0);
    };
    for copy in &copies {
        match core.blob_row(&copy.sha256)? {
            Some(row) if core.is_whole(&row)? => {}
            _ => return Ok(0),
        }
    }
    Ok(oldest.lsn)
}

fn damage(file: &JournalFile, offset: u32, error: orlop_format::Malformed) -> Error {
    Error::corrupt(
        format!("journal file {} at offset {offset}", file.header.sequence),
        error,
    )
}

/// Saves a record with a damaged payload for whoever wants to look at it.
async fn set_aside(core: &Core, entry: &Entry<'_>) -> Result<()> {
    let path = core
        .layout
        .quarantine()
        .join(format!("record-{:016x}", entry.lsn));
    let options = OpenOptions {
        create: Create::IfMissing,
        lane: Lane::Shared,
        direct: true,
        write: true,
    };
    let file = core.disk.open(&path, options)?;
    let len = entry.payload.len().next_multiple_of(BLOCK).max(BLOCK);
    let mut buf = core.pool.take_now(len);
    buf.clear();
    buf.extend(entry.payload);
    buf.pad_to_block();
    if !buf.is_empty() {
        Arc::clone(&file).write_at(0, buf).await.0?;
    }
    file.set_len(entry.payload.len() as u64)?;
    file.sync_data().await?;
    core.disk.sync_dir(&core.layout.quarantine())?;
    Ok(())
}
