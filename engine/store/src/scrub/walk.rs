//! A walk over one file, frame by frame. What does not look right becomes a
//! suspect, and the walk goes on behind it.

use orlop_format::BLOCK;
use orlop_format::checksum::{SPAN, crc};
use orlop_format::hole::Hole;
use orlop_format::location::{Class, Home, SegmentId};
use orlop_format::segment::{ExtentHeader, FileHeader, Footer};

use super::FindingCode;
use super::blame::{Blame, Suspects};
use super::cursor::Cursor;
use super::inspect::{Inspector, Verdict};
use super::read::{Window, read};
use crate::error::Result;
use crate::inventory::is_needed;
use crate::journal::files::JournalFile;

/// Blocks that one step passes over where no frame begins.
const SKIPPED: usize = 256;

/// What ends with a walk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ends {
    File,
    /// All files of the stage.
    Stage,
}

/// What is walked.
pub(super) enum Source {
    Journal(JournalFile),
    Segment(FileHeader),
    /// A segment whose first block does not hold.
    Nothing(SegmentId),
}

/// The group that must come next.
#[derive(Debug, Clone, Copy)]
pub(super) struct Next {
    pub(super) number: u64,
    pub(super) chain: u32,
}

/// A walk over one file.
pub(super) struct Walk {
    pub(super) source: Source,
    pub(super) window: Option<Window>,
    pub(super) offset: u64,
    /// Where this walk began.
    began: u64,
    /// Where frames end.
    pub(super) end: u64,
    /// The hash that the footer must have; none where the log has none.
    hash: Option<[u8; 32]>,
    /// What was given back before this walk began.
    holes: Vec<Hole>,
    /// Offset and checksum of each frame that held.
    pub(super) frames: Vec<(u32, u32)>,
    pub(super) count: u64,
    /// Where something begins that is no frame.
    pub(super) gap: Option<u64>,
    pub(super) next: Option<Next>,
    /// In the journal: the record that must come, and the last that counts.
    pub(super) next_lsn: Option<u64>,
    pub(super) last_lsn: u64,
    pub(super) suspects: Suspects,
    pub(super) ends: Ends,
}

impl Walk {
    fn new(source: Source, window: Option<Window>, offset: u64, end: u64) -> Self {
        Self {
            source,
            window,
            offset,
            began: offset,
            end,
            hash: None,
            holes: Vec::new(),
            frames: Vec::new(),
            count: 0,
            gap: None,
            next: None,
            next_lsn: None,
            last_lsn: 0,
            suspects: Suspects::default(),
            ends: Ends::File,
        }
    }

    /// Of the journal file that is next; none when all that the scrub began
    /// with were walked.
    pub(super) fn journal(inspector: &Inspector, cursor: &Cursor) -> Option<Self> {
        let files = inspector.core.files.all();
        let at = files.iter().position(|file| {
            file.header.sequence >= cursor.file && file.header.first_lsn <= cursor.last_lsn
        })?;
        let file = files.get(at)?;
        let stop = files.get(at.saturating_add(1));
        let stop = stop.map(|next| u64::from(next.header.previous_end));
        let end = stop.unwrap_or(inspector.core.files.len());
        let is_begun = file.header.sequence == cursor.file && cursor.offset > 0;
        let offset = if is_begun {
            cursor.offset
        } else {
            BLOCK as u64
        };
        // The window may show what is written while it is read: the last record
        // that counts was durable before.
        let window = Window::new(file.shared.clone(), inspector.core.files.len());
        let mut walk = Self::new(Source::Journal(file.clone()), Some(window), offset, end);
        walk.last_lsn = cursor.last_lsn;
        if !is_begun {
            walk.next_lsn = Some(file.header.first_lsn);
            walk.next = Some(Next {
                number: file.header.first_group,
                chain: file.header.chain,
            });
        }
        Some(walk)
    }

    /// Of a segment; none when nothing refers to it, or there is nothing to read.
    pub(super) async fn segment(
        inspector: &mut Inspector,
        id: &SegmentId,
        offset: u64,
    ) -> Result<Option<Self>> {
        let offset = offset.max(BLOCK as u64);
        let row = inspector.core.segment_row(id)?;
        let is_removed = row.as_ref().is_some_and(|row| row.removed);
        if is_removed || (row.is_none() && id.class == Class::Raw) {
            return Ok(None);
        }
        let home = Home::Segment(*id);
        let opened = match inspector.segment(id).await? {
            Ok(opened) => opened,
            Err(verdict) => {
                let row = inspector.core.segment_row(id)?;
                if row.as_ref().is_some_and(|row| row.removed) {
                    return Ok(None);
                }
                let is_needed = row.is_some_and(|row| is_needed(&row));
                let says_nothing = matches!(verdict, Verdict::NoFile(_));
                let reason = match verdict {
                    Verdict::Damaged(reason) => reason,
                    Verdict::Unreadable(reason) | Verdict::NoFile(reason) if is_needed => reason,
                    _ => return Ok(None),
                };
                inspector.report(FindingCode::Segment, &home, 0, reason);
                if says_nothing {
                    return Ok(None);
                }
                let mut walk = Self::new(Source::Nothing(*id), None, offset, 0);
                walk.suspects.add(0, u64::MAX);
                return Ok(Some(walk));
            }
        };
        let len = opened.file.len()?;
        let (mut end, mut hash) = (len, None);
        match &row {
            Some(row) if row.sealed => (end, hash) = (row.used, Some(row.hash)),
            Some(row) if id.class == Class::Raw => end = row.used,
            _ => {}
        }
        let mut suspects = Suspects::default();
        if len < end {
            let reason = format!("it ends at {len}, before what it must hold up to {end}");
            inspector.report(FindingCode::Segment, &home, len, reason);
            suspects.add(len, end);
            end = len;
        }
        let window = Window::new(opened.file.clone(), len);
        let mut walk = Self::new(Source::Segment(opened.header), Some(window), offset, end);
        walk.hash = hash;
        walk.holes = row.map(|row| row.holes).unwrap_or_default();
        walk.suspects = suspects;
        if offset == BLOCK as u64 {
            walk.next = Some(Next {
                number: 1,
                chain: 0,
            });
        }
        Ok(Some(walk))
    }

    pub(super) fn home(&self) -> Home {
        match &self.source {
            Source::Journal(file) => Home::Journal(file.header.sequence),
            Source::Segment(header) => Home::Segment(header.segment),
            Source::Nothing(id) => Home::Segment(*id),
        }
    }

    /// The file's number.
    pub(super) fn number(&self) -> u64 {
        match self.home() {
            Home::Journal(sequence) => sequence,
            Home::Segment(id) => id.id,
        }
    }

    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    pub(super) fn frames(&self) -> u64 {
        self.count
    }

    pub(super) fn ends(&self) -> Ends {
        self.ends
    }

    /// Whether something waits to be judged at the end.
    pub(super) fn is_suspicious(&self) -> bool {
        !self.suspects.is_empty() || self.gap.is_some()
    }

    pub(super) fn into_blame(self: Box<Self>) -> Option<Blame> {
        let home = self.home();
        (!self.suspects.is_empty()).then(|| Blame::new(home, self.suspects))
    }

    /// The next frame; false behind the last.
    pub(super) async fn step(&mut self, inspector: &mut Inspector) -> Result<bool> {
        if self.is_removed(inspector)? {
            (self.gap, self.suspects) = (None, Suspects::default());
            return Ok(false);
        }
        let Some(mut window) = self.window.take() else {
            return Ok(false);
        };
        let raw = match &self.source {
            Source::Segment(header) if header.segment.class == Class::Raw => Some(*header),
            _ => None,
        };
        let more = match raw {
            _ if self.offset >= self.end => false,
            Some(header) => {
                self.extent(inspector, &mut window, &header).await?;
                true
            }
            None => self.group(inspector, &mut window).await?,
        };
        if let Some((at, error)) = window.take_passed() {
            let reason = format!("{error}; it was good when read again");
            inspector.report(FindingCode::ReadError, &self.home(), at, reason);
        }
        if !more {
            self.close_gap(inspector, self.offset.min(self.end));
            self.finish(inspector, &window).await?;
        }
        self.window = Some(window);
        Ok(more)
    }

    /// An extent, or the blocks up to the next one.
    async fn extent(
        &mut self,
        inspector: &mut Inspector,
        window: &mut Window,
        file: &FileHeader,
    ) -> Result<()> {
        for _ in 0..SKIPPED {
            if let Some(hole) = self.hole_at(self.offset) {
                self.close_gap(inspector, self.offset);
                self.offset = hole.end();
            }
            if self.offset >= self.end {
                return Ok(());
            }
            let (core, pool) = (&inspector.core, &inspector.pool);
            let block = window.at(core, pool, self.offset, BLOCK).await?;
            let Ok(header) = ExtentHeader::decode(file, block, None) else {
                self.gap.get_or_insert(self.offset);
                self.offset = self.offset.saturating_add(BLOCK as u64);
                continue;
            };
            self.close_gap(inspector, self.offset);
            let len = header.len as usize;
            let whole = len.next_multiple_of(BLOCK).saturating_add(BLOCK);
            let (core, pool) = (&inspector.core, &inspector.pool);
            let bytes = window.at(core, pool, self.offset, whole).await?;
            let payload = bytes.get(BLOCK..BLOCK.saturating_add(len));
            let is_good = payload.is_some_and(|payload| {
                let mut spans = payload.chunks(SPAN).zip(&header.table);
                spans.all(|(span, sum)| crc(span) == *sum)
            });
            let end = self.offset.saturating_add(whole as u64);
            if !is_good || window.is_lost(self.offset, end) {
                self.suspects.add(self.offset, end);
            }
            let offset = u32::try_from(self.offset).unwrap_or(u32::MAX);
            self.frames.push((offset, header.checksum()));
            self.count = self.count.saturating_add(1);
            self.offset = end;
            return Ok(());
        }
        Ok(())
    }

    /// Whether it was given back meanwhile.
    fn is_removed(&self, inspector: &Inspector) -> Result<bool> {
        let Source::Segment(header) = &self.source else {
            return Ok(false);
        };
        let row = inspector.core.segment_row(&header.segment)?;
        Ok(row.is_some_and(|row| row.removed))
    }

    /// The hole that covers an offset.
    fn hole_at(&self, offset: u64) -> Option<Hole> {
        let behind = self
            .holes
            .partition_point(|hole| u64::from(hole.offset) <= offset);
        let hole = self.holes.get(behind.checked_sub(1)?)?;
        (offset < hole.end()).then_some(*hole)
    }

    /// What lies between a gap's begin and `to` is no frame.
    pub(super) fn close_gap(&mut self, inspector: &mut Inspector, to: u64) {
        let Some(from) = self.gap.take() else { return };
        let home = self.home();
        // Of extents only those count that somebody refers to.
        let is_raw = matches!(&home, Home::Segment(id) if id.class == Class::Raw);
        if !is_raw && self.is_here(inspector) {
            let reason = format!(
                "no group that holds begins in {} bytes from here",
                to.saturating_sub(from)
            );
            inspector.report(FindingCode::Group, &home, from, reason);
        }
        self.suspects.add(from, to);
    }

    /// Whether the file still is what it was when it was opened.
    pub(super) fn is_here(&self, inspector: &Inspector) -> bool {
        match &self.source {
            Source::Journal(file) => inspector
                .core
                .files
                .get(file.header.sequence)
                .is_some_and(|now| now.header.salt == file.header.salt),
            _ => true,
        }
    }

    /// The footer of a sealed segment, against the log and the frames.
    async fn finish(&mut self, inspector: &mut Inspector, window: &Window) -> Result<()> {
        let (Source::Segment(header), Some(hash)) = (&self.source, self.hash) else {
            return Ok(());
        };
        let (header, home) = (*header, self.home());
        let len = window.file.len()?.saturating_sub(self.end);
        let len = usize::try_from(len).unwrap_or(0);
        let mut footer = Err("it is missing".to_owned());
        for _ in 0..2 {
            let file = &window.file;
            let reading = read(&inspector.core, &inspector.pool, file, self.end, len).await?;
            footer = match Footer::decode(&header, &reading.bytes) {
                Ok(footer) if footer.hash() == hash => Ok(footer),
                Ok(_) => Err("its hash is not the one in the log".to_owned()),
                Err(error) => Err(error.to_string()),
            };
            if footer.is_ok() {
                break;
            }
        }
        let footer = match footer {
            Ok(footer) => footer,
            Err(_) if self.is_removed(inspector)? => {
                self.suspects = Suspects::default();
                return Ok(());
            }
            Err(reason) => {
                inspector.report(FindingCode::Footer, &home, self.end, reason);
                return Ok(());
            }
        };
        let is_raw = header.segment.class == Class::Raw;
        let was_good = self.suspects.is_empty();
        for frame in &footer.frames {
            if u64::from(frame.0) < self.began || self.frames.binary_search(frame).is_ok() {
                continue;
            }
            let from = u64::from(frame.0);
            if self.hole_at(from).is_some() {
                continue;
            }
            if !is_raw && was_good {
                let reason = "the footer names another group here";
                inspector.report(FindingCode::Group, &home, from, reason);
            }
            self.suspects.add(from, from.saturating_add(BLOCK as u64));
        }
        Ok(())
    }
}
