//! Which bytes are recorded, and for what: a walk of its own over the format.
//!
//! Not recorded: padding and what was allocated ahead, groups that a start
//! cut, the last group of the journal (nothing proves it), tails of uploads
//! that a later checkpoint replaced, extents of nobody.

use std::collections::BTreeMap;
use std::ops::Range;

use orlop_format::BLOCK;
use orlop_format::checksum::SPAN;
use orlop_format::digest::{Algorithm, Digest};
use orlop_format::group::{Entries, Head, OVERHEAD, Volume};
use orlop_format::header::{Header, LEN};
use orlop_format::journal;
use orlop_format::location::{Class, Extent, Home, Place};
use orlop_format::record::{Record, UploadId};
use orlop_format::segment::{self, ExtentHeader};
use orlop_format::superblock::{FILES, Superblock};

/// Where the bytes of an upload are: its extents, and its tail in the journal.
type Pieces = (Vec<Extent>, Option<(usize, Place)>);

/// What a run of bytes is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// A slot of the superblock.
    Slot,
    /// The newest one, or the one that is written next: that write may not have
    /// ended, for all that is known, so that damage is noted and no finding.
    OpenSlot,
    JournalHeader,
    SegmentHeader,
    /// Header and body of a group.
    Group,
    /// Header and body of a record.
    Record,
    Footer,
    ExtentHeader,
    /// Payload of a record or an extent, of a blob or an upload.
    BlobRecord,
    UploadRecord,
    ExtentPayload,
}

impl What {
    pub fn is_payload(self) -> bool {
        matches!(
            self,
            What::BlobRecord | What::UploadRecord | What::ExtentPayload
        )
    }

    pub fn name(self) -> String {
        format!("{self:?}")
    }
}

/// A run of recorded bytes.
#[derive(Debug, Clone)]
pub struct Spot {
    /// Number of its file.
    pub file: usize,
    pub range: Range<usize>,
    pub what: What,
    /// The offset that names it.
    pub at: usize,
    /// The blob or upload whose it is.
    pub owner: Option<String>,
}

impl Spot {
    /// The offset that names damage to one of its bytes.
    pub fn named(&self, byte: usize) -> usize {
        match self.what {
            What::ExtentPayload => {
                let start = self.range.start;
                start + (byte - start) / SPAN * SPAN
            }
            _ => self.at,
        }
    }
}

type Files = [(String, Vec<u8>)];

/// A record and where it lies.
struct Item {
    lsn: u64,
    file: usize,
    place: Place,
    record: Record,
}

#[derive(Default)]
struct Walk {
    spots: Vec<Spot>,
    items: Vec<Item>,
}

impl Walk {
    fn spot(&mut self, file: usize, range: Range<usize>, what: What, at: usize) {
        self.spots.push(Spot {
            file,
            range,
            what,
            at,
            owner: None,
        });
    }

    /// Takes the groups from the first block on, up to `stop`. Gives the
    /// offset behind them.
    fn groups(
        &mut self,
        file: usize,
        bytes: &[u8],
        volume: Volume,
        stop: Option<usize>,
        last_counts: bool,
    ) -> usize {
        let mut base = BLOCK;
        while base < stop.unwrap_or(bytes.len()) {
            let Ok(head) = Head::decode(&volume, &bytes[base..]) else {
                break;
            };
            let end = base + head.bytes as usize;
            let follows = Head::decode(&volume, bytes.get(end..).unwrap_or_default()).is_ok();
            let counts = last_counts || follows;
            if counts {
                self.spot(file, base..base + OVERHEAD, What::Group, base);
            }
            let entries = Entries::new(volume, &head, base as u32, &bytes[base..end]);
            for entry in entries {
                // A record that was cut is damaged itself.
                let Ok(entry) = entry else { break };
                let at = entry.place.offset as usize;
                if stop.is_some_and(|stop| at >= stop) {
                    break;
                }
                let prefix = at..at + entry.place.prefix as usize;
                if counts {
                    self.spot(file, prefix, What::Record, at);
                }
                self.items.push(Item {
                    lsn: entry.lsn,
                    file,
                    place: entry.place,
                    record: entry.record().unwrap(),
                });
            }
            base = end;
        }
        base
    }
}

/// Everything that is recorded in these files.
pub fn spots(files: &Files) -> Vec<Spot> {
    let mut walk = Walk::default();
    let slot = superblock(files, &mut walk);
    journal_files(files, slot.journal, &mut walk);
    let segments = segments(files, &mut walk);
    content(files, &segments, &mut walk);
    raw_headers(&segments, &mut walk);
    walk.spots
}

/// The headers of raw segments that something refers to. One that nothing
/// refers to may have lost its header to a crash, for all that is known.
fn raw_headers(segments: &Segments, walk: &mut Walk) {
    for (file, header) in segments.values() {
        let refers = |spot: &Spot| spot.file == *file;
        if header.segment.class == Class::Raw && walk.spots.iter().any(refers) {
            walk.spot(*file, 0..60, What::SegmentHeader, 0);
        }
    }
}

fn superblock(files: &Files, walk: &mut Walk) -> Superblock {
    let mut slots = Vec::new();
    for (file, (name, bytes)) in files.iter().enumerate() {
        if FILES.contains(&name.as_str()) {
            for at in [0, BLOCK] {
                let slot = Superblock::decode(&bytes[at..at + BLOCK]).unwrap();
                slots.push((slot, file, at));
            }
        }
    }
    let newest = slots.iter().map(|(slot, ..)| *slot);
    let newest = newest.max_by_key(|slot| slot.sequence).unwrap();
    for (slot, file, at) in slots {
        let age = newest.sequence - slot.sequence;
        let what = if matches!(age, 0 | 3) {
            What::OpenSlot
        } else {
            What::Slot
        };
        walk.spot(file, at..at + 108, what, at);
    }
    newest
}

fn journal_files(files: &Files, first: u64, walk: &mut Walk) {
    let mut found = BTreeMap::new();
    for (file, (name, bytes)) in files.iter().enumerate() {
        let sequence = name.strip_prefix("journal/").and_then(journal::parse_name);
        if let Some(sequence) = sequence.filter(|sequence| *sequence >= first) {
            let header = journal::FileHeader::decode(bytes).unwrap();
            assert_eq!(header.sequence, sequence);
            found.insert(sequence, (file, header));
        }
    }
    for (sequence, (file, header)) in &found {
        let next = found.get(&(sequence + 1));
        let stop = next.map(|(_, next)| next.previous_end as usize);
        let volume = Volume {
            home: Home::Journal(*sequence),
            salt: header.salt,
        };
        let end = walk.groups(*file, &files[*file].1, volume, stop, stop.is_some());
        // The last file without a group may be one that never came to life.
        if stop.is_some() || end > BLOCK {
            walk.spot(*file, 0..76, What::JournalHeader, 0);
        }
    }
}

type Segments = BTreeMap<u64, (usize, segment::FileHeader)>;

fn segments(files: &Files, walk: &mut Walk) -> Segments {
    let mut found = Segments::new();
    for (file, (name, bytes)) in files.iter().enumerate() {
        let Some(name) = name.strip_prefix("data/") else {
            continue;
        };
        let header = segment::FileHeader::decode(bytes).unwrap();
        let id = header.segment;
        found.insert(id.id, (file, header));
        if !name.starts_with("raw/") {
            walk.spot(file, 0..60, What::SegmentHeader, 0);
            let volume = Volume {
                home: Home::Segment(id),
                salt: header.salt,
            };
            let end = walk.groups(file, bytes, volume, None, true);
            footer(file, bytes, &header, end, walk);
        }
    }
    found
}

fn footer(file: usize, bytes: &[u8], header: &segment::FileHeader, at: usize, walk: &mut Walk) {
    let (head, _) = Header::decode(header.salt, &bytes[at..]).unwrap();
    assert!(segment::Footer::decode(header, &bytes[at..]).is_ok());
    let end = at + LEN + head.body_len as usize;
    walk.spot(file, at..end, What::Footer, at);
}

/// The bytes of live blobs and of open uploads, and the footers of raw
/// segments.
fn content(files: &Files, segments: &Segments, walk: &mut Walk) {
    let mut items = std::mem::take(&mut walk.items);
    items.sort_by_key(|item| item.lsn);
    assert!(
        items.windows(2).all(|pair| pair[0].lsn != pair[1].lsn),
        "a record lies in two places"
    );
    let mut uploads: BTreeMap<UploadId, Pieces> = BTreeMap::new();
    for item in items {
        match item.record {
            Record::Open { upload, .. } => drop(uploads.insert(upload, Default::default())),
            Record::Abandon { upload } => drop(uploads.remove(&upload)),
            Record::Checkpoint(checkpoint) => {
                if let Some(upload) = uploads.get_mut(&checkpoint.upload) {
                    upload.0.extend(checkpoint.extents);
                    upload.1 = (item.place.payload > 0).then_some((item.file, item.place));
                }
            }
            Record::Commit(commit) => {
                if let Some(upload) = commit.upload {
                    uploads.remove(&upload);
                }
                let digest = Digest::new(Algorithm::Sha256, &commit.sha256).unwrap();
                let owner = digest.to_string();
                if commit.extents.is_empty() {
                    payload(item.file, &item.place, What::BlobRecord, owner, walk);
                } else {
                    extents(files, segments, &commit.extents, &owner, walk);
                }
            }
            Record::Seal { segment, used, .. } => {
                let (file, header) = &segments[&segment.id];
                if files[*file].0.starts_with("data/raw/") {
                    footer(*file, &files[*file].1, header, used as usize, walk);
                }
            }
            _ => {}
        }
    }
    assert_eq!(uploads.len(), 1);
    for (id, (list, tail)) in uploads {
        let owner = format!("upload {id}");
        extents(files, segments, &list, &owner, walk);
        if let Some((file, place)) = tail {
            payload(file, &place, What::UploadRecord, owner, walk);
        }
    }
}

fn payload(file: usize, place: &Place, what: What, owner: String, walk: &mut Walk) {
    let at = place.offset as usize;
    let start = at + place.prefix as usize;
    let range = start..start + place.payload as usize;
    if !range.is_empty() {
        walk.spot(file, range, what, at);
        walk.spots.last_mut().unwrap().owner = Some(owner);
    }
}

fn extents(files: &Files, segments: &Segments, list: &[Extent], owner: &str, walk: &mut Walk) {
    for extent in list {
        let (file, header) = &segments[&extent.segment.id];
        let at = extent.offset as usize;
        let block = &files[*file].1[at..at + BLOCK];
        let table = ExtentHeader::decode(header, block, Some(extent.body)).unwrap();
        let end = at + LEN + 24 + 4 * table.table.len();
        walk.spot(*file, at..end, What::ExtentHeader, at);
        walk.spots.last_mut().unwrap().owner = Some(owner.to_owned());
        let start = at + BLOCK;
        let range = start..start + extent.len as usize;
        walk.spot(*file, range, What::ExtentPayload, start);
        walk.spots.last_mut().unwrap().owner = Some(owner.to_owned());
    }
}

/// Offset of the last group of a journal file, and how many records it has.
pub fn last_group(bytes: &[u8]) -> (usize, u32) {
    let header = journal::FileHeader::decode(bytes).unwrap();
    let volume = Volume {
        home: Home::Journal(header.sequence),
        salt: header.salt,
    };
    let (mut at, mut last) = (BLOCK, None);
    while let Ok(head) = Head::decode(&volume, bytes.get(at..).unwrap_or_default()) {
        last = Some((at, head.records));
        at += head.bytes as usize;
    }
    last.unwrap()
}
