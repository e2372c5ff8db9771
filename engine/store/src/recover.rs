//! Opening a store: what the log says becomes what the index says.
//!
//! Order: superblock, journal files, index; a missing or damaged index is made
//! again from the segments first. Then the journal is synced and replayed from
//! the index's watermark, the torn tail is cut, and a mark is written before
//! anything is served.

use std::sync::Arc;

use orlop_disk::{Disk, Pool};
use orlop_format::group::{Entries, Entry, Head, Volume};
use orlop_format::location::Class;
use orlop_format::record::{Kind, Record};
use orlop_format::superblock::Superblock;
use orlop_index::{Batch, Index, IndexError};

use crate::error::{Error, Invalid, Result};
use crate::inventory;
use crate::journal::files::{Files, JournalFile};
use crate::journal::scan::{End, is_whole, scan};
use crate::layout::Layout;
use crate::rebuild;
use crate::runtime::Runtime;
use crate::segment::Segments;
use crate::superblock::Slots;
use crate::sync::counters::{AtomicBool, AtomicU64, Ordering};
use crate::view::View;

/// Rows that a replay collects before it applies them.
const REPLAY_ROWS: usize = 4096;

/// Makes the index.
pub trait IndexFactory: Send + Sync {
    /// Opens the index in `folder`, creating an empty one where there is none.
    ///
    /// # Errors
    /// [`IndexError::Damaged`] when it must be made again.
    fn open(&self, folder: &std::path::Path) -> std::result::Result<Arc<dyn Index>, IndexError>;
    /// Removes what is in `folder`.
    ///
    /// # Errors
    /// When it cannot be removed.
    fn destroy(&self, folder: &std::path::Path) -> std::result::Result<(), IndexError>;
}

/// How far opening has come, for whoever asks while it lasts, and the way to
/// cancel it.
#[derive(Debug, Default)]
pub struct Progress {
    cancelled: AtomicBool,
    done: AtomicU64,
    total: AtomicU64,
    stage: crate::sync::Mutex<&'static str>,
}

impl Progress {
    /// What is being done, and how many of how many bytes.
    pub fn get(&self) -> (&'static str, u64, u64) {
        (
            *self.stage.lock(),
            self.done.load(Ordering::Relaxed),
            self.total.load(Ordering::Relaxed),
        )
    }

    /// Ends an opening at the next record that it reads, with
    /// [`Error::Cancelled`]. One that has read them all comes to its end: the
    /// store is open then, and has to be closed.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// Whether to go on.
    pub(crate) fn check(&self) -> Result<()> {
        if self.cancelled.load(Ordering::Relaxed) {
            return Err(Error::Cancelled);
        }
        Ok(())
    }

    pub(crate) fn stage(&self, stage: &'static str, total: u64) {
        *self.stage.lock() = stage;
        self.done.store(0, Ordering::Relaxed);
        self.total.store(total, Ordering::Relaxed);
    }

    pub(crate) fn advance(&self, bytes: u64) {
        self.done.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// Reads the superblock, or writes the first one of a new store.
pub(crate) async fn superblock(
    disk: &dyn Disk,
    runtime: &dyn Runtime,
    layout: &Layout,
    pool: &Pool,
) -> Result<Slots> {
    if let Some(mut slots) = Slots::load(disk, layout, pool).await? {
        layout.create(disk)?;
        slots
            .write(|slot| slot.epoch = slot.epoch.saturating_add(1))
            .await?;
        return Ok(slots);
    }
    refuse_orphans(disk, layout)?;
    layout.create_new(disk)?;
    let mut store = [0u8; 16];
    runtime.fill_random(&mut store);
    let first = Superblock {
        sequence: 0,
        store,
        catalog: [0; 16],
        catalog_sequence: 0,
        epoch: 1,
        recycled: 0,
        journal: 0,
        features: 0,
    };
    Slots::create(disk, layout, pool, first).await
}

/// A folder with a log but without a superblock is not a new store.
fn refuse_orphans(disk: &dyn Disk, layout: &Layout) -> Result<()> {
    let mut folders = vec![layout.journal()];
    folders.extend(Class::ALL.map(|class| layout.class(class)));
    for folder in folders {
        if disk.exists(&folder)?
            && disk
                .list(&folder)?
                .iter()
                .any(|name| !name.starts_with("spare-") && !name.starts_with("making-"))
        {
            return Err(Error::corrupt(
                layout.root().display(),
                format!("{} has files but there is no superblock", folder.display()),
            ));
        }
    }
    Ok(())
}

/// What recovery found.
pub(crate) struct Recovered {
    pub(crate) index: Arc<dyn Index>,
    /// Where the journal ends; `None` for a new store.
    pub(crate) end: Option<End>,
    /// Blobs whose inline payload was found damaged.
    pub(crate) damaged: Vec<Record>,
}

/// Brings the index to the end of the journal.
pub(crate) async fn recover(
    layout: &Layout,
    pool: &Pool,
    files: &Files,
    segments: &Segments,
    slot: &Superblock,
    factory: &dyn IndexFactory,
    progress: &Progress,
) -> Result<Recovered> {
    let journal = files.all();
    check_complete(&journal, slot)?;
    let (index, rebuilt) = match open_index(layout, factory, &journal, slot)? {
        Some(index) => (index, false),
        None => {
            factory.destroy(&layout.index())?;
            let index = factory.open(&layout.index())?;
            rebuild::from_segments(pool, segments, index.as_ref(), slot.recycled, progress).await?;
            // All that the journal does not have any more.
            (index, slot.recycled > 0)
        }
    };
    if journal.is_empty() {
        return Ok(Recovered {
            index,
            end: None,
            damaged: Vec::new(),
        });
    }
    // What is read below may still be on its way to the medium, names too.
    files.sync_names()?;
    for file in &journal {
        Arc::clone(&file.inline).sync_data().await?;
    }
    let watermark = if rebuilt {
        slot.recycled
    } else {
        index.watermark()?
    };
    progress.stage("replaying the journal", journal.len() as u64);
    let mut replay = Replay::new(index.as_ref(), progress, rebuilt);
    let end = scan(pool, &journal, watermark, &mut |entry: &Entry<'_>| {
        replay.record(entry)
    })
    .await?;
    let damaged = replay.finish()?;
    if watermark >= end.next_lsn {
        return Err(Error::corrupt(
            "the journal",
            format!(
                "it ends at LSN {}, before what the index has seen ({watermark})",
                end.next_lsn
            ),
        ));
    }
    inventory::check(segments, index.as_ref(), rebuilt)?;
    if rebuilt {
        let mut whole = Batch::new();
        whole.set_watermark(end.next_lsn.saturating_sub(1));
        index.apply(whole)?;
    }
    write_again(pool, files, &end).await?;
    files.settle()?;
    if end.torn > 0 {
        tracing::info!(
            file = end.sequence,
            offset = end.offset,
            bytes = end.torn,
            "the journal had a torn tail; it was cut, nothing acknowledged was in it"
        );
    }
    Ok(Recovered {
        index,
        end: Some(end),
        damaged,
    })
}

/// Writes the last group again, as it was read. If the sync of it failed in the
/// process before, the kernel calls it clean: no sync makes it durable any
/// more, and what follows it would be lost with it. No other group can be
/// like that, since nothing is written after a failed sync.
async fn write_again(pool: &Pool, files: &Files, end: &End) -> Result<()> {
    let (offset, len) = end.last;
    let Some(file) = files.get(end.sequence).filter(|_| len > 0) else {
        return Ok(());
    };
    let mut buf = pool.take_now(len as usize);
    buf.set_len(len as usize);
    let (read, buf) = Arc::clone(&file.inline)
        .read_at(u64::from(offset), buf)
        .await;
    read?;
    if !holds(&file.volume(), end, buf.as_slice()) {
        return Err(Error::Io {
            what: file.inline.path().display().to_string(),
            reason: format!(
                "the group at {offset} reads differently a second time, so nothing was written; \
                 look at the disk, then start again"
            ),
        });
    }
    let written = Arc::clone(&file.inline).write_at(u64::from(offset), buf);
    written.await.0?;
    Arc::clone(&file.inline).sync_data().await?;
    Ok(())
}

/// Whether the last group is what the scan read, up to where that ended.
fn holds(volume: &Volume, end: &End, bytes: &[u8]) -> bool {
    Head::decode(volume, bytes)
        .is_ok_and(|head| is_whole(Entries::new(*volume, &head, end.last.0, bytes), end.offset))
}

/// The journal must go back to what was recycled.
fn check_complete(journal: &[JournalFile], slot: &Superblock) -> Result<()> {
    let first = journal.first().map(|file| file.header);
    match first {
        Some(header) if header.first_lsn <= slot.recycled.saturating_add(1) => Ok(()),
        // The process that made the store never got to its first file.
        None if slot.journal == 0 => Ok(()),
        Some(header) => Err(Error::corrupt(
            "the journal",
            format!(
                "it begins at LSN {}, but only what is up to {} was moved out of it: a file is missing",
                header.first_lsn, slot.recycled
            ),
        )),
        None => Err(Error::corrupt("the journal", "all its files are missing")),
    }
}

/// The index, if it can be opened and the journal reaches it.
fn open_index(
    layout: &Layout,
    factory: &dyn IndexFactory,
    journal: &[JournalFile],
    slot: &Superblock,
) -> Result<Option<Arc<dyn Index>>> {
    let index = match factory.open(&layout.index()) {
        Ok(index) => index,
        Err(IndexError::Damaged { reason, .. }) => {
            tracing::warn!(%reason, "the index is damaged; it is made again from the log");
            return Ok(None);
        }
        Err(error @ IndexError::Newer { .. }) => {
            return Err(Invalid::Newer {
                what: error.to_string(),
            }
            .into());
        }
        Err(error) => return Err(error.into()),
    };
    let watermark = match index.watermark() {
        Ok(watermark) => watermark,
        Err(error) => {
            tracing::warn!(%error, "the index cannot be read; it is made again from the log");
            return Ok(None);
        }
    };
    let reach = journal.first().map_or(1, |file| file.header.first_lsn);
    if watermark.saturating_add(1) >= reach && watermark >= slot.recycled {
        return Ok(Some(index));
    }
    tracing::info!(
        watermark,
        journal = reach,
        "the index is missing or behind the journal; it is made again"
    );
    drop(index);
    Ok(None)
}

/// Applies records to the index in batches.
struct Replay<'a> {
    index: &'a dyn Index,
    view: View<'a>,
    lsn: u64,
    damaged: Vec<Record>,
    file: Option<orlop_format::location::Home>,
    progress: &'a Progress,
    /// Whether the index gets its watermark later, when all of it is known to
    /// be there: until then it counts as none.
    rebuilt: bool,
}

impl<'a> Replay<'a> {
    fn new(index: &'a dyn Index, progress: &'a Progress, rebuilt: bool) -> Self {
        let view = View::new(index);
        Self {
            index,
            view,
            lsn: 0,
            damaged: Vec::new(),
            file: None,
            progress,
            rebuilt,
        }
    }

    fn record(&mut self, entry: &Entry<'_>) -> Result<()> {
        self.progress.check()?;
        if self.file.replace(entry.place.home) != Some(entry.place.home) {
            self.progress.advance(1);
        }
        let record = entry.record().map_err(|error| {
            let what = format!(
                "the record with LSN {} at {}",
                entry.lsn, entry.place.offset
            );
            match error {
                orlop_format::Malformed::Newer(_) => Invalid::Newer { what }.into(),
                error => Error::corrupt(what, error),
            }
        })?;
        self.view.apply(entry.lsn, &record, &entry.place)?;
        if !entry.payload_good {
            self.damage(entry, &record)?;
        }
        self.lsn = entry.lsn;
        if self.view.len() >= REPLAY_ROWS {
            self.flush()?;
        }
        Ok(())
    }

    /// A proven record with a damaged payload costs that blob or upload only.
    fn damage(&mut self, entry: &Entry<'_>, record: &Record) -> Result<()> {
        let repair = match record {
            Record::Commit(commit) => Record::Quarantine {
                sha256: commit.sha256,
                birth: entry.lsn,
            },
            Record::Checkpoint(checkpoint) => Record::Abandon {
                upload: checkpoint.upload,
            },
            _ => return Ok(()),
        };
        tracing::error!(
            lsn = entry.lsn,
            offset = entry.place.offset,
            kind = ?Kind::from_code(entry.kind.code()),
            "a payload in the journal is damaged; its blob is in quarantine"
        );
        self.view.apply(entry.lsn, &repair, &entry.place)?;
        self.damaged.push(repair);
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        let view = std::mem::replace(&mut self.view, View::new(self.index));
        if self.lsn > 0 {
            let watermark = if self.rebuilt { 0 } else { self.lsn };
            self.index.apply(view.into_batch(watermark))?;
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Vec<Record>> {
        self.flush()?;
        Ok(self.damaged)
    }
}
