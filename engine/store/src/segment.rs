//! Segment files: opening, creating, and the pen that fills small and meta ones.
//!
//! Owns: the handles of open files, the ids that were given out. Invariants: a segment is only appended to; a segment
//! that an earlier process may have been writing takes no more; its header
//! block is durable before anything refers to it. Knows no blobs.

mod raw;
mod release;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use orlop_disk::{Create, Disk, File, Lane, OpenOptions, Pool};
use orlop_format::BLOCK;
use orlop_format::group::{Builder, Volume};
use orlop_format::location::{Class, Home, SegmentId};
use orlop_format::record::Record;
use orlop_format::segment::{FileHeader, Footer, MAX_FRAMES, UNSEALED, file_name, parse_name};

use self::raw::Raw;
pub(crate) use self::raw::{Intake, Slot, Waiting};
use crate::config::{MAX_OPEN_SEGMENTS, SEGMENT_AHEAD};
use crate::error::{Error, Result};
use crate::holds::{Holds, Writing};
use crate::layout::Layout;
use crate::runtime::{Runtime, random_u64};
use crate::sync::Mutex;

/// Files of a class that tell its folder from that of another file system.
const WITNESSES: usize = 16;

/// An open segment.
pub(crate) struct SegmentFile {
    pub(crate) header: FileHeader,
    pub(crate) file: Arc<dyn File>,
}

impl SegmentFile {
    pub(crate) fn id(&self) -> SegmentId {
        self.header.segment
    }

    pub(crate) fn volume(&self) -> Volume {
        Volume {
            home: Home::Segment(self.header.segment),
            salt: self.header.salt,
        }
    }

    /// Makes finished writes durable.
    pub(crate) async fn sync(&self) -> Result<()> {
        Ok(Arc::clone(&self.file).sync_data().await?)
    }
}

/// The segment that takes new frames of one class.
struct Open {
    segment: Arc<SegmentFile>,
    tail: u64,
    allocated: u64,
    frames: Vec<(u32, u32)>,
    /// Groups written, for small and meta segments.
    groups: u64,
    chain: u32,
}

/// A segment that takes no more and is to be sealed.
pub(crate) struct Full {
    pub(crate) segment: Arc<SegmentFile>,
    pub(crate) used: u32,
    pub(crate) footer: Footer,
}

/// All segments.
pub(crate) struct Segments {
    disk: Arc<dyn Disk>,
    runtime: Arc<dyn Runtime>,
    layout: Layout,
    pool: Pool,
    store: [u8; 16],
    size: u64,
    handles: Mutex<BTreeMap<SegmentId, Arc<SegmentFile>>>,
    next_id: Mutex<u64>,
    /// The newest files of each class, at most [`WITNESSES`]: where none of them
    /// is, the folder is not the store's.
    newest: Mutex<BTreeMap<Class, BTreeSet<SegmentId>>>,
    raw: Raw,
    /// Who uses them.
    pub(crate) holds: Arc<Holds>,
}

impl Segments {
    /// Looks which segments there are; opens none.
    pub(crate) fn open(
        disk: Arc<dyn Disk>,
        runtime: Arc<dyn Runtime>,
        layout: Layout,
        pool: Pool,
        store: [u8; 16],
        size: u64,
    ) -> Result<Self> {
        let segments = Self {
            disk,
            runtime,
            layout,
            pool,
            store,
            size,
            handles: Mutex::default(),
            next_id: Mutex::new(1),
            newest: Mutex::default(),
            raw: Raw::default(),
            holds: Arc::default(),
        };
        for class in Class::ALL {
            segments.sweep(class)?;
            for segment in segments.list(class)? {
                segments.used(&segment);
                segments.made(segment);
            }
        }
        Ok(segments)
    }

    /// The segments of a class, by id. A name that is not ours is reported and
    /// left alone.
    pub(crate) fn list(&self, class: Class) -> Result<Vec<SegmentId>> {
        let mut found = Vec::new();
        for name in self.disk.list(&self.layout.class(class))? {
            match parse_name(&name) {
                None if name.starts_with(UNSEALED) => {}
                Some((id, generation)) => found.push(SegmentId {
                    volume: 0,
                    class,
                    generation,
                    id,
                }),
                None => tracing::warn!(
                    %name,
                    folder = class.folder(),
                    "a file in a segment folder is not the store's; it is left alone"
                ),
            }
        }
        Ok(found)
    }

    /// Where a segment lies.
    pub(crate) fn path(&self, id: &SegmentId) -> PathBuf {
        self.layout.segment(id)
    }

    /// Gives this id to no other segment.
    pub(crate) fn used(&self, segment: &SegmentId) {
        let mut next = self.next_id.lock();
        *next = (*next).max(segment.id.saturating_add(1));
    }

    /// Remembers a file that has its final name.
    fn made(&self, segment: SegmentId) {
        let mut newest = self.newest.lock();
        let known = newest.entry(segment.class).or_default();
        known.insert(segment);
        if known.len() > WITNESSES {
            known.pop_first();
        }
    }

    /// A new file belongs beside those that there were: without them its folder
    /// is that of another file system, which hides or takes away what is
    /// written. One that is lost beside others says nothing about the folder.
    fn check_folder(&self, class: Class) -> Result<()> {
        let known = self.newest.lock().get(&class).cloned().unwrap_or_default();
        let mut lost = Vec::new();
        for id in known.into_iter().rev() {
            if self.disk.exists(&self.path(&id))? {
                self.give_up(&lost);
                return Ok(());
            }
            lost.push(id);
        }
        let Some(path) = lost.first().map(|id| self.path(id)) else {
            return Ok(());
        };
        Err(Error::Io {
            what: path.display().to_string(),
            reason: "this segment file is missing, and so are those made before it, so that no \
                     new one is made in that folder; mount the file system that they are on, or \
                     put them back"
                .to_owned(),
        })
    }

    /// Says once that files are missing beside others that are there.
    fn give_up(&self, lost: &[SegmentId]) {
        for id in lost {
            let mut newest = self.newest.lock();
            if newest
                .get_mut(&id.class)
                .is_some_and(|known| known.remove(id))
            {
                tracing::error!(
                    file = %self.path(id).display(),
                    "a segment file is missing: what is in it is not served until it is back; \
                     new ones are made beside the others"
                );
            }
        }
    }

    /// Whether a segment's file is open or there.
    pub(crate) fn exists(&self, id: &SegmentId) -> Result<bool> {
        Ok(self.handles.lock().contains_key(id) || self.disk.exists(&self.path(id))?)
    }

    /// Bytes of one segment.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// The id that the next new segment gets.
    pub(crate) fn next_id(&self) -> u64 {
        *self.next_id.lock()
    }

    /// A handle of a segment.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when the file is not that segment. One that is missing
    /// or cannot be opened says nothing about its bytes: [`Error::Io`].
    pub(crate) async fn get(&self, id: &SegmentId) -> Result<Arc<SegmentFile>> {
        if let Some(segment) = self.handles.lock().get(id) {
            return Ok(Arc::clone(segment));
        }
        let path = self.layout.segment(id);
        let options = OpenOptions {
            create: Create::Never,
            lane: Lane::Shared,
            direct: true,
            write: true,
        };
        let file = self
            .disk
            .open(&path, options)
            .map_err(|error| match error.kind {
                orlop_disk::Kind::NotFound => Error::Io {
                    what: path.display().to_string(),
                    reason: "the segment file is missing; mount the file system that it is on, \
                             or put it back"
                        .to_owned(),
                },
                _ => error.into(),
            })?;
        let mut block = self.pool.take_now(BLOCK);
        block.set_len(BLOCK);
        let (done, block) = Arc::clone(&file).read_at(0, block).await;
        done.map_err(|error| match error.kind {
            // A sector that is gone is damage; a machine short of something
            // is not.
            orlop_disk::Kind::Io => Error::corrupt(path.display(), error),
            _ => error.into(),
        })?;
        let header = FileHeader::decode(block.as_slice())
            .map_err(|error| Error::corrupt(path.display(), error))?;
        if header.segment != *id || header.store != self.store {
            return Err(Error::corrupt(
                path.display(),
                "its header names another segment or store",
            ));
        }
        let segment = Arc::new(SegmentFile { header, file });
        self.remember(&segment);
        Ok(segment)
    }

    fn remember(&self, segment: &Arc<SegmentFile>) {
        let mut handles = self.handles.lock();
        if handles.len() >= MAX_OPEN_SEGMENTS {
            let idle = handles
                .iter()
                .find(|(_, open)| Arc::strong_count(open) == 1)
                .map(|(id, _)| *id);
            if let Some(idle) = idle {
                handles.remove(&idle);
            }
        }
        handles.insert(segment.id(), Arc::clone(segment));
    }

    /// Creates a segment; its header block and name are durable on return.
    async fn create(&self, class: Class, lsn: u64) -> Result<Open> {
        self.check_folder(class)?;
        let id = {
            let mut next = self.next_id.lock();
            let id = *next;
            *next = next.saturating_add(1);
            id
        };
        let segment = SegmentId {
            volume: 0,
            class,
            generation: 0,
            id,
        };
        let salt = random_u64(self.runtime.as_ref());
        let header = FileHeader {
            store: self.store,
            segment,
            salt,
            opened: lsn,
        };
        let path = match class {
            Class::Raw | Class::Chunk => self.layout.segment(&segment),
            Class::Small | Class::Meta => self.unsealed(&segment),
        };
        let options = OpenOptions {
            create: Create::New,
            lane: Lane::Shared,
            direct: true,
            write: true,
        };
        let file = self.disk.open(&path, options)?;
        let prepared = async {
            file.allocate(0, SEGMENT_AHEAD.min(self.size))?;
            let mut buf = self.pool.take_now(BLOCK);
            buf.clear();
            buf.extend(&header.encode());
            Arc::clone(&file).write_at(0, buf).await.0?;
            Arc::clone(&file).sync_data().await?;
            self.disk.sync_dir(&self.layout.class(class))?;
            Ok(())
        };
        // Also after a failed sync nothing is poisoned by this: the file is used
        // by nobody, and no later one gets its id.
        if let Err(error) = prepared.await {
            let _ = self.disk.remove(&path);
            return Err(error);
        }
        if class == Class::Raw {
            self.made(segment);
        }
        let segment = Arc::new(SegmentFile { header, file });
        self.remember(&segment);
        Ok(Open {
            segment,
            tail: BLOCK as u64,
            allocated: SEGMENT_AHEAD.min(self.size),
            frames: Vec::new(),
            groups: 0,
            chain: 0,
        })
    }

    /// The path of a small or meta segment before it is sealed.
    fn unsealed(&self, id: &SegmentId) -> PathBuf {
        self.layout
            .class(id.class)
            .join(format!("{UNSEALED}{}", file_name(id)))
    }

    /// Removes what interrupted passes of recycling left.
    fn sweep(&self, class: Class) -> Result<()> {
        let folder = self.layout.class(class);
        for name in self.disk.list(&folder)? {
            if name.starts_with(UNSEALED) {
                self.disk.remove(&folder.join(name))?;
            }
        }
        Ok(())
    }

    fn fits(&self, open: &Open, len: u64) -> bool {
        open.tail.saturating_add(len) <= self.size && open.frames.len() < MAX_FRAMES
    }

    /// Allocates ahead so that `len` more bytes have room.
    fn extend(&self, open: &mut Open, len: u64) -> Result<()> {
        let end = open.tail.saturating_add(len);
        if end > open.allocated {
            let target = end.next_multiple_of(SEGMENT_AHEAD).min(self.size).max(end);
            open.segment
                .file
                .allocate(open.allocated, target.saturating_sub(open.allocated))?;
            open.allocated = target;
        }
        Ok(())
    }
}

fn filled(open: Open) -> Full {
    let used = u32::try_from(open.tail).unwrap_or(u32::MAX);
    Full {
        segment: open.segment,
        used,
        footer: Footer {
            frames: open.frames,
        },
    }
}

/// Appends groups of records to small or meta segments: the recycler's pen.
/// Each pass of it fills segments of its own and seals them, so that what a
/// pass wrote is complete or does not count.
pub(crate) struct Pen {
    class: Class,
    open: Option<Open>,
    filled: Vec<Full>,
}

impl Pen {
    pub(crate) fn new(class: Class) -> Self {
        Self {
            class,
            open: None,
            filled: Vec::new(),
        }
    }

    /// A builder for the next group of at most `len` bytes.
    pub(crate) async fn group(
        &mut self,
        segments: &Segments,
        len: u64,
        lsn: u64,
    ) -> Result<Builder> {
        let fits = self
            .open
            .as_ref()
            .is_some_and(|open| segments.fits(open, len));
        if !fits {
            if let Some(open) = self.open.take() {
                self.filled.push(filled(open));
            }
            self.open = Some(segments.create(self.class, lsn).await?);
        }
        let Some(open) = &self.open else {
            return Err(Error::Busy {
                what: "a segment".to_owned(),
            });
        };
        let offset = u32::try_from(open.tail).unwrap_or(u32::MAX);
        Ok(Builder::new(
            open.segment.volume(),
            offset,
            open.groups.saturating_add(1),
            open.chain,
        ))
    }

    /// Writes a group that [`Pen::group`] began. Durable after
    /// [`Pen::finish`].
    pub(crate) async fn write(&mut self, segments: &Segments, builder: Builder) -> Result<()> {
        let Some(open) = &mut self.open else {
            return Err(Error::Busy {
                what: "a segment".to_owned(),
            });
        };
        let (bytes, crc) = builder.finish();
        let len = bytes.len() as u64;
        segments.extend(open, len)?;
        let mut buf = segments.pool.take_now(bytes.len());
        buf.clear();
        buf.extend(&bytes);
        Arc::clone(&open.segment.file)
            .write_at(open.tail, buf)
            .await
            .0?;
        open.frames
            .push((u32::try_from(open.tail).unwrap_or(u32::MAX), crc));
        open.tail = open.tail.saturating_add(len);
        open.groups = open.groups.saturating_add(1);
        open.chain = crc;
        Ok(())
    }

    /// Removes what was written: the pass did not come to its end.
    pub(crate) fn discard(mut self, segments: &Segments) {
        self.filled.extend(self.open.take().map(filled));
        for full in &self.filled {
            let id = full.segment.id();
            segments.handles.lock().remove(&id);
            if let Err(error) = segments.disk.remove(&segments.unsealed(&id)) {
                tracing::warn!(%error, "what an interrupted pass of recycling left goes at the next start");
            }
        }
    }

    /// Seals what was written: durable and complete on return. Returns the
    /// records that say so, and what keeps the segments until more refers to them.
    pub(crate) async fn finish(
        mut self,
        segments: &Segments,
    ) -> Result<(Vec<Record>, Vec<Writing>)> {
        self.filled.extend(self.open.take().map(filled));
        let mut records = Vec::with_capacity(self.filled.len());
        let mut holds = Vec::with_capacity(self.filled.len());
        for full in &self.filled {
            let id = full.segment.id();
            holds.push(segments.holds.write(id));
            records.push(segments.seal(full, 0).await?);
            let sealed = segments.layout.segment(&id);
            segments.disk.rename(&segments.unsealed(&id), &sealed)?;
            segments.made(id);
        }
        segments.disk.sync_dir(&segments.layout.class(self.class))?;
        Ok((records, holds))
    }
}
