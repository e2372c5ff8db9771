//! Is the journal whole, from the first file that counts to its end?
//!
//! Walks every file, group by group and record by record. What lies in front
//! of a later valid group or a later file must hold; the last group may be
//! torn, which a crash leaves behind. After damage it goes on at the next
//! group that holds, so that one finding does not hide others.

use std::collections::BTreeMap;
use std::path::Path;

use orlop_format::group::{Entries, Entry, Head, Volume};
use orlop_format::journal::{FileHeader, file_name, parse_name};
use orlop_format::location::Home;
use orlop_format::superblock::Superblock;
use orlop_format::{BLOCK, Malformed};

use crate::file::{Source, Window, blank, names};
use crate::finding::{Code, Object};
use crate::log::Log;
use crate::progress::Progress;
use crate::report::Report;
use crate::trouble::{Result, Trouble};

/// What the names of files that wait for use begin with.
const SPARE: &str = "spare-";
/// What the name of one that is being written begins with.
const MAKING: &str = "making-";

/// The files that count, by sequence, with their length.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    pub(crate) files: BTreeMap<u64, FileHeader>,
    bytes: u64,
}

/// What must come next.
#[derive(Debug, Clone, Copy)]
struct Next {
    offset: u64,
    group: u64,
    /// Unknown behind damage.
    chain: Option<u32>,
    /// Unknown behind damage.
    lsn: Option<u64>,
}

/// Whether a file of this name waits for use, or is being made for it.
pub(crate) fn is_spare(name: &str) -> bool {
    name.starts_with(SPARE) || name.starts_with(MAKING)
}

/// Whether a file whose first block is `first` has neither header nor group.
/// With groups it lost its header, and what they hold is not known any more;
/// and no file gets its name before it has its full length.
pub(crate) fn untouched(source: &Source, first: &[u8]) -> Result<bool> {
    Ok(blank(first) && source.len() > BLOCK as u64 && blank(&source.block(BLOCK as u64)?))
}

fn name(sequence: u64) -> String {
    format!("journal/{}", file_name(sequence))
}

impl Journal {
    /// Finds the files that count. `young` says that the store has nothing
    /// that a journal would have had to name.
    pub(crate) fn open(
        folder: &Path,
        slot: &Superblock,
        young: bool,
        report: &mut Report,
    ) -> Result<Self> {
        let mut journal = Self::default();
        for name in names(&folder.join("journal"))? {
            journal.file(folder, &name, slot, report)?;
        }
        report.counts.journal_files = journal.files.len() as u64;
        journal.check_start(slot, young, report);
        Ok(journal)
    }

    fn file(
        &mut self,
        folder: &Path,
        name: &str,
        slot: &Superblock,
        report: &mut Report,
    ) -> Result<()> {
        let path = format!("journal/{name}");
        let object = || Object::file(&path);
        if name.starts_with(SPARE) {
            return Ok(());
        }
        if name.starts_with(MAKING) {
            report.note(
                Code::JournalUnused,
                object(),
                "a spare file that was being written",
            );
            return Ok(());
        }
        let Some(sequence) = parse_name(name) else {
            report.note(Code::FileForeign, object(), "not the store's");
            return Ok(());
        };
        if sequence < slot.journal {
            report.note(Code::JournalRecycled, object(), "recycled, and still there");
            return Ok(());
        }
        let Some(source) = Source::open(folder, &path)? else {
            return Ok(());
        };
        let block = source.block(0)?;
        source.report(report);
        match FileHeader::decode(&block) {
            Ok(header) if header.store != slot.store => {
                let expected = "the id of this store";
                report.find(Code::JournalHeader, object(), expected, "another store's");
            }
            Ok(header) if header.sequence == sequence => {
                self.bytes = self.bytes.saturating_add(source.len());
                self.files.insert(sequence, header);
            }
            Ok(header) if header.sequence < sequence => {
                let found = format!("never used: it has the header of file {}", header.sequence);
                report.note(Code::JournalUnused, object(), found);
            }
            Ok(header) => {
                let found = format!("that of file {}", header.sequence);
                report.find(Code::JournalHeader, object(), "its own header", found);
            }
            Err(Malformed::Newer(what)) => {
                return Err(Trouble::Newer(format!("the {what} of {path}")));
            }
            Err(_) if untouched(&source, &block)? => {
                report.note(
                    Code::JournalUnused,
                    object(),
                    "never used: it has no header",
                );
            }
            Err(error) => {
                report.find(Code::JournalHeader, object(), "a header that holds", error);
            }
        }
        Ok(())
    }

    /// The journal must go back to what was recycled.
    fn check_start(&self, slot: &Superblock, young: bool, report: &mut Report) {
        let begin = slot.recycled.saturating_add(1);
        let wanted = format!("a file that begins at LSN {begin} or before");
        let object = Object::file("journal");
        match self.files.values().next() {
            Some(first) if first.first_lsn <= begin => {}
            Some(first) => {
                let name = file_name(first.sequence);
                let found = format!("{name} begins at LSN {}", first.first_lsn);
                report.find(Code::JournalMissing, object, wanted, found);
            }
            None if young => report.note(Code::JournalYoung, object, "no file yet"),
            None => report.find(Code::JournalMissing, object, wanted, "no file"),
        }
    }

    /// Walks all files in order and hands their records to the log.
    pub(crate) fn walk(
        &self,
        folder: &Path,
        log: &mut Log,
        progress: &Progress,
        report: &mut Report,
    ) -> Result<()> {
        progress.stage("journal", self.bytes);
        let mut files = self.files.values().peekable();
        while let Some(header) = files.next() {
            let next = files.peek().copied();
            let follows = next.filter(|next| next.previous == header.sequence);
            if let (Some(next), None) = (next, follows) {
                report.find(
                    Code::JournalMissing,
                    Object::file(name(next.previous)),
                    format_args!("the file before {}", file_name(next.sequence)),
                    "no such file, or none with a header that holds",
                );
            }
            let Some(source) = Source::open(folder, &name(header.sequence))? else {
                continue;
            };
            let end = Walk {
                header,
                source: &source,
                window: Window::new(&source),
                ahead: Window::new(&source),
                stop: follows.map(|next| next.previous_end),
                report,
                log,
            }
            .run()?;
            source.report(report);
            source.release(0, source.len());
            if let Some(next) = follows {
                meet(header, &end, next, report);
            }
            progress.advance(source.len());
        }
        if !self.files.is_empty() && !log.closed && log.end > 0 {
            let found = "a start will replay the end of the journal";
            report.note(Code::JournalUnclean, Object::file("journal"), found);
        }
        Ok(())
    }
}

/// A file must end as the next one's header says.
fn meet(file: &FileHeader, end: &Next, next: &FileHeader, report: &mut Report) {
    let found = (
        end.group,
        end.chain.unwrap_or(next.chain),
        end.lsn.unwrap_or(next.first_lsn),
    );
    let wanted = (next.first_group, next.chain, next.first_lsn);
    if end.lsn.is_some() && found != wanted {
        let say = |(group, chain, lsn): (u64, u32, u64)| {
            format!("group {group}, chain {chain:08x} and LSN {lsn} to follow")
        };
        let object = Object::file(name(file.sequence));
        report.find(Code::JournalChain, object, say(wanted), say(found));
    }
}

struct Walk<'a> {
    header: &'a FileHeader,
    source: &'a Source,
    window: Window<'a>,
    /// Looks for groups further on, without moving the other.
    ahead: Window<'a>,
    /// Where the next file says that this one ends.
    stop: Option<u32>,
    report: &'a mut Report,
    log: &'a mut Log,
}

impl Walk<'_> {
    fn volume(&self) -> Volume {
        Volume {
            home: Home::Journal(self.header.sequence),
            salt: self.header.salt,
        }
    }

    fn limit(&self) -> u64 {
        self.stop.map_or(self.source.len(), u64::from)
    }

    fn object(&self, offset: u64) -> Object {
        Object::file(self.source.name()).at(offset)
    }

    /// The first group of this file with a number above `number` at `from` or
    /// behind.
    fn later(&mut self, number: u64, from: u64) -> Result<Option<(u64, Head)>> {
        let (volume, limit) = (self.volume(), self.limit());
        self.ahead.search(from, limit, |block| {
            Head::decode(&volume, block)
                .ok()
                .filter(|head| head.number > number)
        })
    }

    fn run(&mut self) -> Result<Next> {
        let mut next = Next {
            offset: BLOCK as u64,
            group: self.header.first_group,
            chain: Some(self.header.chain),
            lsn: Some(self.header.first_lsn),
        };
        let volume = self.volume();
        while next.offset < self.limit() {
            let block = self.window.at(next.offset, BLOCK as u64)?;
            let head = Head::decode(&volume, block).ok().filter(|head| {
                head.number == next.group
                    && next.chain.is_none_or(|chain| chain == head.chain)
                    && next.lsn.is_none_or(|lsn| lsn == head.lsn)
            });
            let torn = match head {
                Some(head) => self.group(&head, &mut next)?,
                None => self.no_group(&mut next)?,
            };
            if torn {
                break;
            }
        }
        Ok(next)
    }

    /// Where a group must begin, none does. True when the file ends there.
    fn no_group(&mut self, next: &mut Next) -> Result<bool> {
        let later = self.later(next.group, next.offset)?;
        if later.is_none() && self.stop.is_none() {
            return Ok(true);
        }
        let found = match &later {
            Some((offset, head)) => format!(
                "no header that holds; group {} follows at {offset}",
                head.number
            ),
            None => "no header that holds".to_owned(),
        };
        let object = self.object(next.offset);
        let expected = format!("group {}", next.group);
        self.report
            .find(Code::JournalGroup, object, expected, found);
        next.lsn = None;
        let Some((offset, head)) = later else {
            return Ok(true);
        };
        *next = Next {
            offset,
            group: head.number,
            chain: Some(head.chain),
            lsn: None,
        };
        Ok(false)
    }

    /// Takes the records of a group. True when it is torn: the file ends.
    fn group(&mut self, head: &Head, next: &mut Next) -> Result<bool> {
        let base = next.offset;
        let volume = self.volume();
        // The window moves on only with the next group.
        let mut window = std::mem::replace(&mut self.window, Window::new(self.source));
        let bytes = window.at(base, u64::from(head.bytes))?;
        let behind = base.saturating_add(u64::from(head.bytes));
        let start = u32::try_from(base).unwrap_or(u32::MAX);
        let mut entries = Entries::new(volume, head, start, bytes);
        let mut read = Vec::new();
        loop {
            let at = entries.offset();
            let Some(entry) = entries.next() else { break };
            read.push((at, entry.map(|entry| (entry, entries.last_crc()))));
        }
        let whole = read
            .iter()
            .all(|(_, entry)| matches!(entry, Ok((entry, _)) if entry.payload_good));
        let proven = self.stop.is_some() || whole || self.later(head.number, behind)?.is_some();
        *next = Next {
            offset: behind,
            group: head.number.saturating_add(1),
            chain: Some(head.crc),
            lsn: Some(head.lsn),
        };
        let mut torn = false;
        for (at, entry) in read {
            if self.stop.is_some_and(|stop| at >= stop) {
                let object = self.object(u64::from(at));
                let found = "a torn tail was cut here by the next file";
                self.report.note(Code::JournalCut, object, found);
                break;
            }
            match entry {
                Ok((entry, crc)) if proven || entry.payload_good => {
                    self.take(&entry, next)?;
                    next.chain = Some(crc);
                }
                Err(error) if proven => {
                    let object = self.object(u64::from(at));
                    let expected = format!("a record of group {} that holds", head.number);
                    self.report
                        .find(Code::JournalRecord, object, expected, error);
                    next.lsn = None;
                    next.chain = None;
                    break;
                }
                _ => {
                    let object = self.object(u64::from(at));
                    let found = "torn tail; nothing in it was acknowledged";
                    self.report.note(Code::JournalTorn, object, found);
                    torn = true;
                    break;
                }
            }
        }
        self.window = window;
        Ok(torn)
    }

    fn take(&mut self, entry: &Entry<'_>, next: &mut Next) -> Result<()> {
        if let Some(lsn) = next.lsn.filter(|lsn| *lsn != entry.lsn) {
            let object = self.object(u64::from(entry.place.offset));
            let (expected, found) = (format!("LSN {lsn}"), format!("LSN {}", entry.lsn));
            self.report
                .find(Code::JournalRecord, object, expected, found);
        }
        next.lsn = Some(entry.lsn.saturating_add(1));
        self.log.take(entry, self.source, self.report)
    }
}
