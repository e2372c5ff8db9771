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
use orlop_format::location::{Home, Place};
use orlop_format::record::Record;
use orlop_format::superblock::Superblock;
use orlop_format::{BLOCK, Malformed};

use crate::file::{Source, blank, names};
use crate::finding::{Code, Report, Result, Trouble};

/// A record of the log.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) lsn: u64,
    pub(crate) place: Place,
    /// Whether its payload's checksum held.
    pub(crate) good: bool,
    pub(crate) record: Record,
}

impl Item {
    /// Reads an entry's body. Damage that a checksum missed is a finding, a
    /// newer kind ends the check.
    pub(crate) fn read(
        entry: &Entry<'_>,
        file: &Source,
        report: &mut Report,
    ) -> Result<Option<Self>> {
        let object = || format!("{} at {}", file.path().display(), entry.place.offset);
        match entry.record() {
            Ok(record) => {
                report.counts.records = report.counts.records.saturating_add(1);
                Ok(Some(Self {
                    lsn: entry.lsn,
                    place: entry.place,
                    good: entry.payload_good,
                    record,
                }))
            }
            Err(Malformed::Newer(what)) => {
                Err(Trouble::Newer(format!("the {what} in {}", object())))
            }
            Err(error) => {
                report.find(
                    Code::RecordBody,
                    object(),
                    format!("a body of kind {:?}", entry.kind),
                    error,
                );
                Ok(None)
            }
        }
    }
}

/// A journal file.
#[derive(Debug)]
pub(crate) struct File {
    pub(crate) source: Source,
    pub(crate) header: FileHeader,
}

impl File {
    pub(crate) fn volume(&self) -> Volume {
        Volume {
            home: Home::Journal(self.header.sequence),
            salt: self.header.salt,
        }
    }
}

/// The journal.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    /// Its files, by sequence.
    pub(crate) files: BTreeMap<u64, File>,
    /// Its records, in order.
    pub(crate) items: Vec<Item>,
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

/// Reads and checks the journal. `young` says that the store has nothing that
/// a journal would have had to name.
pub(crate) fn load(
    folder: &Path,
    slot: &Superblock,
    young: bool,
    report: &mut Report,
) -> Result<Journal> {
    let mut journal = Journal {
        files: open(&folder.join("journal"), slot, report)?,
        items: Vec::new(),
    };
    report.counts.journal_files = journal.files.len() as u64;
    check_start(&journal, slot, young, report);
    let headers: Vec<FileHeader> = journal.files.values().map(|file| file.header).collect();
    for (index, file) in journal.files.values().enumerate() {
        let next = headers.get(index.saturating_add(1));
        if let Some(next) = next.filter(|next| next.previous != file.header.sequence) {
            report.find(
                Code::JournalMissing,
                format_args!("journal/{}", file_name(next.previous)),
                format_args!("the file before {}", file_name(next.sequence)),
                "no such file, or none with a header that holds",
            );
        }
        let next = next.filter(|next| next.previous == file.header.sequence);
        let mut walk = Walk {
            file,
            stop: next.map(|next| next.previous_end),
            report,
            items: &mut journal.items,
        };
        let end = walk.run()?;
        if let Some(next) = next {
            meet(file, &end, next, report);
        }
    }
    if let Some(last) = journal.items.last()
        && !matches!(last.record, Record::Mark { clean: true })
    {
        report
            .note("the store was not closed in order; a start will replay the end of the journal");
    }
    Ok(journal)
}

/// Opens the files that count.
fn open(folder: &Path, slot: &Superblock, report: &mut Report) -> Result<BTreeMap<u64, File>> {
    let mut files = BTreeMap::new();
    for name in names(folder)? {
        let object = format!("journal/{name}");
        if name.starts_with("spare-") {
            continue;
        }
        let Some(sequence) = parse_name(&name) else {
            report.note(format_args!("{object} is not the store's"));
            continue;
        };
        if sequence < slot.journal {
            report.note(format_args!("{object} was recycled and is still there"));
            continue;
        }
        let Some(source) = Source::open(&folder.join(&name))? else {
            continue;
        };
        let block = source.block(0)?;
        match FileHeader::decode(&block) {
            Ok(header) if header.store != slot.store => {
                report.find(
                    Code::JournalHeader,
                    object,
                    "the id of this store",
                    "another store's",
                );
            }
            Ok(header) if header.sequence == sequence => {
                files.insert(sequence, File { source, header });
            }
            Ok(header) => {
                report.note(format_args!(
                    "{object} was never used: it has the header of file {}",
                    header.sequence
                ));
            }
            Err(Malformed::Newer(what)) => {
                return Err(Trouble::Newer(format!("the {what} of {object}")));
            }
            Err(_) if blank(&block) => {
                report.note(format_args!("{object} was never used: it has no header"))
            }
            Err(error) => report.find(Code::JournalHeader, object, "a header that holds", error),
        }
    }
    Ok(files)
}

/// The journal must go back to what was recycled.
fn check_start(journal: &Journal, slot: &Superblock, young: bool, report: &mut Report) {
    let wanted = format!(
        "a file that begins at LSN {} or before",
        slot.recycled.saturating_add(1)
    );
    match journal.files.values().next().map(|file| file.header) {
        Some(first) if first.first_lsn <= slot.recycled.saturating_add(1) => {}
        Some(first) => {
            let found = format!(
                "{} begins at LSN {}",
                file_name(first.sequence),
                first.first_lsn
            );
            report.find(Code::JournalMissing, "the journal", wanted, found);
        }
        None if young => report.note("the store has no journal yet"),
        None => report.find(Code::JournalMissing, "the journal", wanted, "no file"),
    }
}

/// A file must end as the next one's header says.
fn meet(file: &File, end: &Next, next: &FileHeader, report: &mut Report) {
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
        report.find(
            Code::JournalChain,
            file.source.path().display(),
            say(wanted),
            say(found),
        );
    }
}

struct Walk<'a> {
    file: &'a File,
    /// Where the next file says that this one ends.
    stop: Option<u32>,
    report: &'a mut Report,
    items: &'a mut Vec<Item>,
}

impl Walk<'_> {
    fn limit(&self) -> u64 {
        self.stop.map_or(self.file.source.len(), u64::from)
    }

    fn object(&self, offset: u64) -> String {
        format!("{} at {offset}", self.file.source.path().display())
    }

    /// The first group of this file with a number above `number` at `from` or
    /// behind.
    fn later(&self, number: u64, from: u64) -> Result<Option<(u64, Head)>> {
        let volume = self.file.volume();
        self.file.source.search(from, self.limit(), |block| {
            Head::decode(&volume, block)
                .ok()
                .filter(|head| head.number > number)
        })
    }

    fn run(&mut self) -> Result<Next> {
        let header = self.file.header;
        let mut next = Next {
            offset: BLOCK as u64,
            group: header.first_group,
            chain: Some(header.chain),
            lsn: Some(header.first_lsn),
        };
        while next.offset < self.limit() {
            let block = self.file.source.block(next.offset)?;
            let head = Head::decode(&self.file.volume(), &block)
                .ok()
                .filter(|head| {
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
        self.report.find(
            Code::JournalGroup,
            object,
            format_args!("group {}", next.group),
            found,
        );
        next.lsn = None;
        match later {
            Some((offset, head)) => {
                *next = Next {
                    offset,
                    group: head.number,
                    chain: Some(head.chain),
                    lsn: None,
                };
                Ok(false)
            }
            None => Ok(true),
        }
    }

    /// Takes the records of a group. True when it is torn: the file ends.
    fn group(&mut self, head: &Head, next: &mut Next) -> Result<bool> {
        let base = next.offset;
        let volume = self.file.volume();
        let bytes = self.file.source.read(base, u64::from(head.bytes))?;
        let behind = base.saturating_add(u64::from(head.bytes));
        let entries = || {
            Entries::new(
                volume,
                head,
                u32::try_from(base).unwrap_or(u32::MAX),
                &bytes,
            )
        };
        let whole = || entries().all(|entry| entry.is_ok_and(|entry| entry.payload_good));
        let proven = self.stop.is_some() || whole() || self.later(head.number, behind)?.is_some();
        *next = Next {
            offset: behind,
            group: head.number.saturating_add(1),
            chain: Some(head.crc),
            lsn: Some(head.lsn),
        };
        let mut entries = entries();
        loop {
            let at = entries.offset();
            if self.stop.is_some_and(|stop| at >= stop) {
                if entries.next().is_some() {
                    let object = self.object(u64::from(at));
                    self.report.note(format_args!(
                        "{object}: a torn tail was cut here by the next file"
                    ));
                }
                return Ok(false);
            }
            match entries.next() {
                None => return Ok(false),
                Some(Ok(entry)) if proven || entry.payload_good => {
                    self.take(&entry, next)?;
                    next.chain = Some(entries.last_crc());
                }
                Some(Err(error)) if proven => {
                    let object = self.object(u64::from(at));
                    let expected = format!("a record of group {} that holds", head.number);
                    self.report
                        .find(Code::JournalRecord, object, expected, error);
                    next.lsn = None;
                    next.chain = None;
                    return Ok(false);
                }
                Some(_) => {
                    let object = self.object(u64::from(at));
                    self.report.note(format_args!(
                        "{object}: torn tail; nothing in it was acknowledged"
                    ));
                    return Ok(true);
                }
            }
        }
    }

    fn take(&mut self, entry: &Entry<'_>, next: &mut Next) -> Result<()> {
        if let Some(lsn) = next.lsn.filter(|lsn| *lsn != entry.lsn) {
            let object = self.object(u64::from(entry.place.offset));
            let (expected, found) = (format!("LSN {lsn}"), format!("LSN {}", entry.lsn));
            self.report
                .find(Code::JournalRecord, object, expected, found);
        }
        next.lsn = Some(entry.lsn.saturating_add(1));
        self.items
            .extend(Item::read(entry, &self.file.source, self.report)?);
        Ok(())
    }
}
