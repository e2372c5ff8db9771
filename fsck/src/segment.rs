//! Are the segment files what their names, headers, footers and the log say?
//!
//! Small and meta segments give the records that left the journal. Whether a
//! segment must be whole is known only once the log was replayed: a seal record
//! proves its footer; without one it may be what an interrupted pass left.

use std::collections::BTreeMap;
use std::path::Path;

use orlop_format::group::{Entries, Head, Volume};
use orlop_format::location::{Class, Home, SegmentId};
use orlop_format::segment::{FileHeader, Footer, UNSEALED, file_name, parse_name};
use orlop_format::superblock::Superblock;
use orlop_format::{BLOCK, Malformed};

use crate::file::{Source, Window, blank, names};
use crate::finding::{Code, Object};
use crate::log::{Log, Seal};
use crate::options::path;
use crate::progress::Progress;
use crate::release::Released;
use crate::report::Report;
use crate::trouble::{Result, Trouble};

/// A segment file with a header that holds.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) header: FileHeader,
    /// Bytes of the file.
    pub(crate) len: u64,
    /// What the walk over its groups found, of a small or meta segment.
    groups: Option<Groups>,
}

/// What a walk over groups found.
#[derive(Debug)]
struct Groups {
    /// Where they end, or where the first one that does not hold lies.
    end: u64,
    count: usize,
    /// A record that does not hold.
    broken: Option<(u32, Malformed)>,
    /// Hash of the footer at the end, if it names these groups.
    footer: std::result::Result<[u8; 32], String>,
}

/// A segment as the object of a finding.
pub(crate) fn object(id: &SegmentId) -> Object {
    Object::file(path(&Home::Segment(*id))).segment(file_name(id))
}

/// The segments.
#[derive(Debug, Default)]
pub(crate) struct Segments {
    pub(crate) files: BTreeMap<SegmentId, Segment>,
}

impl Segments {
    /// Reads the headers of all segments.
    pub(crate) fn open(folder: &Path, slot: &Superblock, report: &mut Report) -> Result<Self> {
        let mut segments = Self::default();
        for class in Class::ALL {
            let below = format!("data/{}", class.folder());
            for name in names(&folder.join(&below))? {
                let path = format!("{below}/{name}");
                if name.strip_prefix(UNSEALED).and_then(parse_name).is_some() {
                    let found = "an interrupted pass of recycling left it";
                    report.note(Code::SegmentUnsealed, Object::file(path), found);
                    continue;
                }
                // Nothing writes chunks yet.
                let parsed = parse_name(&name).filter(|_| class != Class::Chunk);
                let Some((id, generation)) = parsed else {
                    report.note(Code::FileForeign, Object::file(path), "not the store's");
                    continue;
                };
                let id = SegmentId {
                    volume: 0,
                    class,
                    generation,
                    id,
                };
                let Some(source) = Source::open(folder, &path)? else {
                    continue;
                };
                let header = header(&source, &id, slot, report)?;
                source.report(report);
                let Some(header) = header else { continue };
                let segment = Segment {
                    header,
                    len: source.len(),
                    groups: None,
                };
                segments.files.insert(id, segment);
                report.counts.segments = report.counts.segments.saturating_add(1);
            }
        }
        Ok(segments)
    }

    /// Walks small and meta segments, in the order of content, and hands their
    /// records to the log.
    pub(crate) fn walk(
        &mut self,
        folder: &Path,
        log: &mut Log,
        progress: &Progress,
        report: &mut Report,
    ) -> Result<()> {
        let total = self
            .files
            .iter()
            .filter(|(id, _)| id.class != Class::Raw)
            .map(|(_, segment)| segment.len)
            .fold(0, u64::saturating_add);
        progress.stage("small and meta segments", total);
        for class in [Class::Small, Class::Meta] {
            let files = self.files.iter_mut().filter(|(id, _)| id.class == class);
            for (id, segment) in files {
                let Some(source) = Source::open(folder, &path(&Home::Segment(*id)))? else {
                    continue;
                };
                segment.groups = Some(walk(&segment.header, &source, log, report)?);
                source.report(report);
                source.release(0, source.len());
                progress.advance(source.len());
            }
        }
        Ok(())
    }

    /// Passes over files that the log says are removed.
    pub(crate) fn let_go(&mut self, released: &Released, report: &mut Report) {
        self.files.retain(|id, _| {
            if !released.is_removed(id) {
                return true;
            }
            let found = "the log says that it is removed";
            report.note(Code::SegmentRemoved, object(id), found);
            false
        });
    }

    /// Holds the segments against the seals in the log.
    pub(crate) fn check(
        &self,
        folder: &Path,
        seals: &BTreeMap<SegmentId, Seal>,
        report: &mut Report,
    ) -> Result<()> {
        for (id, seal) in seals {
            match self.files.get(id) {
                Some(segment) => {
                    if let Some(groups) = &segment.groups {
                        grouped(folder, id, segment, groups, seal, report)?;
                    }
                }
                // Of a raw one that is missing something must be in use.
                None if id.class == Class::Raw => {}
                None => report.find(
                    Code::SegmentMissing,
                    object(id),
                    "a sealed segment",
                    "no file, or no header",
                ),
            }
        }
        for (id, segment) in self.files.iter().filter(|(id, _)| !seals.contains_key(id)) {
            let Some(groups) = &segment.groups else {
                continue;
            };
            // It got its name when its footer was durable, and is read by
            // whoever makes the index again.
            let wrong = match (&groups.broken, &groups.footer) {
                (Some((at, error)), _) => Some((u64::from(*at), error.to_string())),
                (None, Err(error)) => Some((groups.end, error.clone())),
                (None, Ok(_)) => None,
            };
            match wrong {
                Some((at, found)) => report.find(
                    Code::SegmentGroup,
                    object(id).at(at),
                    "groups and a footer that hold",
                    found,
                ),
                None => report.note(
                    Code::SegmentLeft,
                    object(id),
                    format!("{} groups, and no seal in the log", groups.count),
                ),
            }
        }
        Ok(())
    }
}

fn header(
    source: &Source,
    id: &SegmentId,
    slot: &Superblock,
    report: &mut Report,
) -> Result<Option<FileHeader>> {
    let block = source.block(0)?;
    match FileHeader::decode(&block) {
        Ok(header) if header.segment == *id && header.store == slot.store => {
            return Ok(Some(header));
        }
        Ok(header) => {
            let found = if header.store == slot.store {
                path(&Home::Segment(header.segment))
            } else {
                "another store's id".to_owned()
            };
            let expected = "a header of this segment and store";
            report.find(Code::SegmentHeader, object(id), expected, found);
        }
        Err(Malformed::Newer(what)) => {
            return Err(Trouble::Newer(format!("the {what} of {}", source.name())));
        }
        // Only a raw segment gets its name before its header.
        Err(_) if blank(&block) && id.class == Class::Raw => {
            let found = "never used: it has no header";
            report.note(Code::SegmentUnused, object(id), found);
        }
        Err(error) => {
            report.find(
                Code::SegmentHeader,
                object(id),
                "a header that holds",
                error,
            );
        }
    }
    Ok(None)
}

/// Walks the groups of a small or meta segment up to its footer.
fn walk(
    header: &FileHeader,
    source: &Source,
    log: &mut Log,
    report: &mut Report,
) -> Result<Groups> {
    let volume = Volume {
        home: Home::Segment(header.segment),
        salt: header.salt,
    };
    let mut window = Window::new(source);
    let mut frames = Vec::new();
    let mut broken = None;
    let (mut end, mut number, mut chain) = (BLOCK as u64, 1u64, Some(0u32));
    while end < source.len() {
        let block = window.at(end, BLOCK as u64)?;
        let head = Head::decode(&volume, block)
            .ok()
            .filter(|head| head.number == number && chain.is_none_or(|chain| chain == head.chain));
        let Some(head) = head else { break };
        let bytes = window.at(end, u64::from(head.bytes))?;
        let base = u32::try_from(end).unwrap_or(u32::MAX);
        let mut entries = Entries::new(volume, &head, base, bytes);
        loop {
            let at = entries.offset();
            match entries.next() {
                None => break,
                Some(Ok(entry)) => log.take(&entry, source, report)?,
                Some(Err(error)) => {
                    broken.get_or_insert((at, error));
                    break;
                }
            }
        }
        frames.push((base, entries.last_crc()));
        end = end.saturating_add(u64::from(head.bytes));
        // Behind a record that does not hold the chain is not known.
        chain = broken.is_none().then(|| entries.last_crc());
        number = number.saturating_add(1);
    }
    let rest = source.len().saturating_sub(end);
    let footer = match Footer::decode(header, window.at(end, rest.min(FOOTER))?) {
        Ok(footer) if footer.frames == frames || broken.is_some() => Ok(footer.hash()),
        Ok(footer) => Err(format!(
            "a footer that names {} groups, of which not all are these {}",
            footer.frames.len(),
            frames.len()
        )),
        Err(error) => Err(error.to_string()),
    };
    Ok(Groups {
        end,
        count: frames.len(),
        broken,
        footer,
    })
}

/// Bytes that a footer takes at most: a header, a hash, a count, and two
/// numbers for each frame.
pub(crate) const FOOTER: u64 =
    (64 + 36 + 8 * orlop_format::segment::MAX_FRAMES as u64).next_multiple_of(BLOCK as u64);

/// A sealed small or meta segment has the footer that its seal names, and is
/// whole.
fn grouped(
    folder: &Path,
    id: &SegmentId,
    segment: &Segment,
    groups: &Groups,
    seal: &Seal,
    report: &mut Report,
) -> Result<()> {
    if let Some((at, error)) = groups.broken {
        report.find(
            Code::SegmentGroup,
            object(id).at(at),
            "a record that holds",
            error,
        );
    }
    let used = u64::from(seal.used);
    if groups.end != used {
        report.find(
            Code::SegmentGroup,
            object(id).at(groups.end),
            format_args!("groups up to {used}"),
            "no group that holds",
        );
        // The walk did not get to the footer.
        return footer(folder, id, segment, seal, report).map(drop);
    }
    match &groups.footer {
        Ok(hash) if *hash == seal.hash => {}
        Ok(_) => other_hash(id, report),
        Err(found) => {
            let object = object(id).at(used);
            report.find(Code::SegmentFooter, object, "a footer that holds", found);
        }
    }
    Ok(())
}

fn other_hash(id: &SegmentId, report: &mut Report) {
    report.find(
        Code::SegmentFooter,
        object(id),
        "the hash in its seal record",
        "another hash",
    );
}

/// The footer of a sealed segment, if it holds and is the one its seal names.
pub(crate) fn footer(
    folder: &Path,
    id: &SegmentId,
    segment: &Segment,
    seal: &Seal,
    report: &mut Report,
) -> Result<Option<Footer>> {
    let used = u64::from(seal.used);
    let Some(source) = Source::open(folder, &path(&Home::Segment(*id)))? else {
        return Ok(None);
    };
    let bytes = source.read(used, FOOTER)?;
    source.report(report);
    match Footer::decode(&segment.header, &bytes) {
        Ok(footer) if footer.hash() == seal.hash => return Ok(Some(footer)),
        Ok(_) => other_hash(id, report),
        Err(error) => {
            let object = object(id).at(used);
            report.find(Code::SegmentFooter, object, "a footer that holds", error);
        }
    }
    Ok(None)
}
