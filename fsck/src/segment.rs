//! Are the segment files what their names, headers, footers and the log say?
//!
//! Small and meta segments give the records that left the journal. Whether a
//! segment must be whole is known only once the log was replayed: a seal record
//! proves its footer; without one it may be what an interrupted pass left.

use std::collections::BTreeMap;
use std::path::Path;

use orlop_format::group::{Entries, Head, Volume};
use orlop_format::location::{Class, Home, SegmentId};
use orlop_format::segment::{FileHeader, Footer, parse_name};
use orlop_format::superblock::Superblock;
use orlop_format::{BLOCK, Malformed};

use crate::file::{Source, blank, names};
use crate::finding::{Code, Report, Result, Trouble};
use crate::journal::Item;
use crate::replay::Seal;

/// Classes that the store writes.
const CLASSES: [Class; 3] = [Class::Raw, Class::Small, Class::Meta];

/// A segment file with a header that holds.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) source: Source,
    pub(crate) header: FileHeader,
    /// Where its groups end, or where the first one that does not hold lies.
    end: u64,
    /// Offset and checksum of each group.
    groups: Vec<(u32, u32)>,
    /// A record in it that does not hold.
    broken: Option<(u32, Malformed)>,
    footer: Option<Footer>,
}

impl Segment {
    pub(crate) fn volume(&self) -> Volume {
        Volume {
            home: Home::Segment(self.header.segment),
            salt: self.header.salt,
        }
    }

    /// Its frames, if it has a footer that holds.
    pub(crate) fn frames(&self) -> Option<&[(u32, u32)]> {
        self.footer.as_ref().map(|footer| footer.frames.as_slice())
    }
}

/// How a segment is named in a report.
pub(crate) fn name(id: &SegmentId) -> String {
    format!(
        "data/{}/{}",
        id.class.folder(),
        orlop_format::segment::file_name(id)
    )
}

/// The segments, and the records in them.
#[derive(Debug, Default)]
pub(crate) struct Segments {
    pub(crate) files: BTreeMap<SegmentId, Segment>,
    /// Records of small and meta segments.
    pub(crate) items: Vec<Item>,
}

/// Reads the headers of all segments and the records of small and meta ones.
pub(crate) fn load(folder: &Path, slot: &Superblock, report: &mut Report) -> Result<Segments> {
    let mut segments = Segments::default();
    for class in CLASSES {
        let below = folder.join("data").join(class.folder());
        for file in names(&below)? {
            let object = format!("data/{}/{file}", class.folder());
            let Some((id, generation)) = parse_name(&file) else {
                report.note(format_args!("{object} is not the store's"));
                continue;
            };
            let id = SegmentId {
                volume: 0,
                class,
                generation,
                id,
            };
            let Some(source) = Source::open(&below.join(&file))? else {
                continue;
            };
            let Some(header) = header(&source, &id, slot, &object, report)? else {
                continue;
            };
            let mut segment = Segment {
                source,
                header,
                end: BLOCK as u64,
                groups: Vec::new(),
                broken: None,
                footer: None,
            };
            if class != Class::Raw {
                records(&mut segment, &mut segments.items, report)?;
            }
            segments.files.insert(id, segment);
            report.counts.segments = report.counts.segments.saturating_add(1);
        }
    }
    Ok(segments)
}

fn header(
    source: &Source,
    id: &SegmentId,
    slot: &Superblock,
    object: &str,
    report: &mut Report,
) -> Result<Option<FileHeader>> {
    let block = source.block(0)?;
    match FileHeader::decode(&block) {
        Ok(header) if header.segment == *id && header.store == slot.store => {
            return Ok(Some(header));
        }
        Ok(header) => {
            let found = if header.store == slot.store {
                name(&header.segment)
            } else {
                "another store's id".to_owned()
            };
            report.find(
                Code::SegmentHeader,
                object,
                "a header of this segment and store",
                found,
            );
        }
        Err(Malformed::Newer(what)) => {
            return Err(Trouble::Newer(format!("the {what} of {object}")));
        }
        Err(_) if blank(&block) => {
            report.note(format_args!("{object} was never used: it has no header"))
        }
        Err(error) => report.find(Code::SegmentHeader, object, "a header that holds", error),
    }
    Ok(None)
}

/// Walks the groups of a small or meta segment up to its footer.
fn records(segment: &mut Segment, items: &mut Vec<Item>, report: &mut Report) -> Result<()> {
    let volume = segment.volume();
    let (mut number, mut chain) = (1u64, Some(0u32));
    while segment.end < segment.source.len() {
        let block = segment.source.block(segment.end)?;
        let head = Head::decode(&volume, &block)
            .ok()
            .filter(|head| head.number == number && chain.is_none_or(|chain| chain == head.chain));
        let Some(head) = head else { break };
        let bytes = segment.source.read(segment.end, u64::from(head.bytes))?;
        let base = u32::try_from(segment.end).unwrap_or(u32::MAX);
        let mut entries = Entries::new(volume, &head, base, &bytes);
        loop {
            let at = entries.offset();
            match entries.next() {
                None => break,
                Some(Ok(entry)) => items.extend(Item::read(&entry, &segment.source, report)?),
                Some(Err(error)) => {
                    segment.broken.get_or_insert((at, error));
                    break;
                }
            }
        }
        segment.groups.push((base, entries.last_crc()));
        segment.end = segment.end.saturating_add(u64::from(head.bytes));
        // Behind a record that does not hold the chain is not known.
        chain = segment.broken.is_none().then(|| entries.last_crc());
        number = number.saturating_add(1);
    }
    Ok(())
}

impl Segments {
    /// Holds the segments against the seals in the log.
    pub(crate) fn check(
        &mut self,
        seals: &BTreeMap<SegmentId, Seal>,
        report: &mut Report,
    ) -> Result<()> {
        for (id, seal) in seals {
            match self.files.get_mut(id) {
                Some(segment) => sealed(segment, seal, report)?,
                None => report.find(
                    Code::SegmentMissing,
                    name(id),
                    "a sealed segment",
                    "no file, or no header",
                ),
            }
        }
        for (id, segment) in self
            .files
            .iter()
            .filter(|(id, _)| id.class != Class::Raw && !seals.contains_key(id))
        {
            report.note(format_args!(
                "{} was never sealed: an interrupted recycling left it; the journal has its {} groups",
                name(id),
                segment.groups.len()
            ));
        }
        Ok(())
    }
}

/// A sealed segment has the footer that its seal names, and is whole.
fn sealed(segment: &mut Segment, seal: &Seal, report: &mut Report) -> Result<()> {
    let object = name(&segment.header.segment);
    if let Some((at, error)) = segment.broken {
        report.find(
            Code::SegmentGroup,
            format_args!("{object} at {at}"),
            "a record that holds",
            error,
        );
    }
    let grouped = segment.header.segment.class != Class::Raw;
    if grouped && segment.end != u64::from(seal.used) {
        report.find(
            Code::SegmentGroup,
            format_args!("{object} at {}", segment.end),
            format_args!("groups up to {}", seal.used),
            "no group that holds",
        );
    }
    let used = u64::from(seal.used);
    let rest = segment.source.len().saturating_sub(used);
    let footer = match Footer::decode(&segment.header, &segment.source.read(used, rest)?) {
        Ok(footer) => footer,
        Err(error) => {
            report.find(
                Code::SegmentFooter,
                format_args!("{object} at {used}"),
                "a footer that holds",
                error,
            );
            return Ok(());
        }
    };
    if footer.hash() != seal.hash {
        report.find(
            Code::SegmentFooter,
            &object,
            "the hash in its seal record",
            "another hash",
        );
    }
    if grouped && segment.end == used && footer.frames != segment.groups {
        report.find(
            Code::SegmentFooter,
            &object,
            format_args!("{} groups as they are in the file", segment.groups.len()),
            format_args!("{} others", footer.frames.len()),
        );
    }
    segment.footer = Some(footer);
    Ok(())
}
