//! Groups: of the journal, and of small and meta segments.

use orlop_format::BLOCK;
use orlop_format::group::{Entries, Head, Volume};
use orlop_format::location::Place;
use orlop_format::record::{Record, UploadId};
use orlop_format::row::Form;
use orlop_format::segment::Footer;

use super::inspect::Inspector;
use super::read::Window;
use super::walk::{Ends, Next, Source, Walk};
use super::{FindingCode, blame};
use crate::error::Result;

/// Blocks that one step passes over where no group begins.
const SKIPPED: usize = 256;

/// A payload whose checksum does not hold, by what it belongs to.
enum Wrong {
    Blob([u8; 32], Place),
    Upload(UploadId, Place),
}

/// A group that was read.
struct Parsed {
    head: Head,
    wrong: Vec<Wrong>,
    /// Where a record's header does not hold.
    broken: Option<u64>,
    last_crc: u32,
    last_lsn: u64,
}

impl Walk {
    /// A group, or the blocks up to the next one; false when no more counts.
    pub(super) async fn group(
        &mut self,
        inspector: &mut Inspector,
        window: &mut Window,
    ) -> Result<bool> {
        if self.is_done() {
            self.ends = Ends::Stage;
            return Ok(false);
        }
        let mut parsed = self.parse(inspector, window).await?;
        let is_bad = parsed
            .as_ref()
            .is_none_or(|group| group.broken.is_some() || !group.wrong.is_empty());
        if is_bad && self.gap.is_none() {
            // Only what two reads say is believed.
            window.forget();
            parsed = self.parse(inspector, window).await?;
        }
        if !self.is_here(inspector) {
            // Recycled: all that counts was read and moved elsewhere.
            (self.gap, self.suspects) = (None, blame::Suspects::default());
            return Ok(false);
        }
        let Some(group) = parsed else {
            return self.skip(inspector, window).await;
        };
        self.close_gap(inspector, self.offset);
        let home = self.home();
        let end = self.offset.saturating_add(u64::from(group.head.bytes));
        if let Some(at) = group.broken {
            let reason = "the header of a record does not hold";
            inspector.report(FindingCode::Group, &home, at, reason);
            self.suspects.add(at, end);
        }
        for wrong in group.wrong {
            judge(inspector, wrong).await?;
        }
        self.next = (group.broken.is_none()).then(|| Next {
            number: group.head.number.saturating_add(1),
            chain: group.last_crc,
        });
        self.next_lsn = Some(group.last_lsn.saturating_add(1));
        if matches!(self.source, Source::Segment(_)) {
            let offset = u32::try_from(self.offset).unwrap_or(u32::MAX);
            self.frames.push((offset, group.last_crc));
        }
        self.count = self.count.saturating_add(1);
        self.offset = end;
        Ok(true)
    }

    /// Whether all records of the journal that count were seen.
    fn is_done(&self) -> bool {
        matches!(self.source, Source::Journal(_))
            && self.next_lsn.is_some_and(|lsn| lsn > self.last_lsn)
    }

    fn volume(&self) -> Option<Volume> {
        match &self.source {
            Source::Journal(file) => Some(file.volume()),
            Source::Segment(header) => Some(Volume {
                home: self.home(),
                salt: header.salt,
            }),
            Source::Nothing(_) => None,
        }
    }

    /// The group at the offset, if it is one that may lie there.
    async fn parse(&self, inspector: &Inspector, window: &mut Window) -> Result<Option<Parsed>> {
        let Some(volume) = self.volume() else {
            return Ok(None);
        };
        let (core, pool) = (&inspector.core, &inspector.pool);
        let block = window.at(core, pool, self.offset, BLOCK).await?;
        let expected = |head: &Head| match self.next {
            Some(next) => head.number == next.number && head.chain == next.chain,
            None => true,
        };
        let head = Head::decode(&volume, block).ok().filter(expected);
        let Some(head) = head else { return Ok(None) };
        let len = head.bytes as usize;
        let bytes = window.at(core, pool, self.offset, len).await?;
        let base = u32::try_from(self.offset).unwrap_or(u32::MAX);
        let mut entries = Entries::new(volume, &head, base, bytes);
        let mut parsed = Parsed {
            head,
            wrong: Vec::new(),
            broken: None,
            last_crc: head.crc,
            last_lsn: head.lsn,
        };
        loop {
            let at = u64::from(entries.offset());
            // A group that was cut by an earlier recovery ends early.
            let is_cut = matches!(self.source, Source::Journal(_)) && at >= self.end;
            let entry = match entries.next() {
                Some(entry) if !is_cut => entry,
                _ => break,
            };
            let Ok(entry) = entry else {
                parsed.broken = Some(at);
                break;
            };
            parsed.last_lsn = entry.lsn;
            parsed.last_crc = entries.last_crc();
            if entry.payload_good {
                continue;
            }
            match entry.record() {
                Ok(Record::Commit(commit)) => {
                    parsed.wrong.push(Wrong::Blob(commit.sha256, entry.place));
                }
                Ok(Record::Checkpoint(checkpoint)) => {
                    let wrong = Wrong::Upload(checkpoint.upload, entry.place);
                    parsed.wrong.push(wrong);
                }
                _ => {}
            }
        }
        Ok(Some(parsed))
    }

    /// No group begins here: on to where one may, or to the end.
    async fn skip(&mut self, inspector: &mut Inspector, window: &mut Window) -> Result<bool> {
        if self.gap.is_none() && self.ends_here(inspector, window).await? {
            self.end = self.offset;
            return Ok(false);
        }
        let Some(volume) = self.volume() else {
            return Ok(false);
        };
        self.gap.get_or_insert(self.offset);
        self.next = None;
        for _ in 0..SKIPPED {
            self.offset = self.offset.saturating_add(BLOCK as u64);
            if self.offset >= self.end {
                return Ok(false);
            }
            let (core, pool) = (&inspector.core, &inspector.pool);
            let block = window.at(core, pool, self.offset, BLOCK).await?;
            if Head::decode(&volume, block).is_ok() {
                break;
            }
        }
        Ok(true)
    }

    /// Whether the footer begins here, of a segment of which the log does not
    /// say where that is.
    async fn ends_here(&self, inspector: &Inspector, window: &mut Window) -> Result<bool> {
        let Source::Segment(header) = &self.source else {
            return Ok(false);
        };
        let len = usize::try_from(self.end.saturating_sub(self.offset)).unwrap_or(BLOCK);
        let (core, pool) = (&inspector.core, &inspector.pool);
        let bytes = window
            .at(core, pool, self.offset, len.min(MAX_FOOTER))
            .await?;
        Ok(Footer::decode(header, bytes).is_ok())
    }
}

/// Bytes of the largest footer, in whole blocks.
const MAX_FOOTER: usize = 132 * BLOCK;

/// Condemns what a damaged payload belongs to, if that still is its place.
async fn judge(inspector: &mut Inspector, wrong: Wrong) -> Result<()> {
    match wrong {
        Wrong::Blob(sha256, place) => match inspector.core.blob_row(&sha256)? {
            Some(row) if row.form == Form::Inline(place) => {
                blame::record(inspector, &sha256, &row, &place).await
            }
            _ => Ok(()),
        },
        Wrong::Upload(id, place) => match inspector.core.upload_row(&id)? {
            Some(row) if row.tail == Some(place) => {
                let verdict = inspector.place(&place, &mut |_| {}).await?;
                let offset = u64::from(place.offset);
                blame::tell(inspector, &place.home, offset, &id, &verdict)
            }
            _ => Ok(()),
        },
    }
}
