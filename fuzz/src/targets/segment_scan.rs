//! A walk over whole segments: groups in small and meta ones, extents in raw
//! ones, with payload that looks like records, and with damage.
//!
//! A walk gives what was written, in order, whatever clients put into payload;
//! no block that is not a group's first reads as one. After damage it gives a
//! prefix of that and nothing that was never written: not what a misdirected
//! write copied, not what is left of the file's last life.

use std::ops::Range;

use arbitrary::{Result, Unstructured};
use orlop_format::group::{Builder, Entries, Head, Volume};
use orlop_format::location::{Class, Extent, Home, SegmentId};
use orlop_format::record::{INLINE_LIMIT, Record};
use orlop_format::segment::{ExtentHeader, FileHeader};
use orlop_format::{BLOCK, checksum};

use crate::make;

/// A record: LSN, body, payload.
type Said = (u64, Vec<u8>, Vec<u8>);

/// Runs the target.
pub fn run(data: &[u8]) {
    let mut u = Unstructured::new(data);
    let _ = groups(&mut u);
    let _ = extents(&mut u);
}

fn header(u: &mut Unstructured<'_>, class: Class) -> Result<FileHeader> {
    Ok(FileHeader {
        store: u.arbitrary()?,
        segment: SegmentId {
            volume: 0,
            class,
            generation: u.arbitrary()?,
            id: u.arbitrary()?,
        },
        salt: u.arbitrary()?,
        opened: u.arbitrary()?,
    })
}

fn volume(file: &FileHeader) -> Volume {
    Volume {
        home: Home::Segment(file.segment),
        salt: file.salt,
    }
}

/// A segment with groups, and where they are.
struct Image {
    bytes: Vec<u8>,
    groups: Vec<(Range<usize>, Vec<Said>)>,
}

/// What a client sends: bytes of its own, or what it guesses of our layout.
fn payload(u: &mut Unstructured<'_>, file: &FileHeader) -> Result<Vec<u8>> {
    if u.arbitrary()? {
        return make::bytes(u, 600);
    }
    // The right file and generation, and a salt, which nobody knows, at random.
    let guess = Volume {
        salt: file.salt.wrapping_add(u.int_in_range(1..=u64::MAX)?),
        ..volume(file)
    };
    let mut builder = Builder::new(guess, u.arbitrary()?, u.arbitrary()?, u.arbitrary()?);
    builder.push(u.arbitrary()?, &make::record(u)?, b"");
    let (group, _) = builder.finish();
    // Any shift, so that some of it starts on a block.
    let shift = u.int_in_range(0..=BLOCK - 1)?;
    Ok([vec![0; shift], group].concat())
}

fn build(u: &mut Unstructured<'_>, file: &FileHeader, count: usize) -> Result<Image> {
    let mut image = Image {
        bytes: file.encode(),
        groups: Vec::new(),
    };
    let mut chain = 0;
    for number in 1..=count as u64 {
        let at = image.bytes.len();
        let offset = u32::try_from(at).unwrap();
        let mut builder = Builder::new(volume(file), offset, number, chain);
        let mut said = Vec::new();
        for _ in 0..u.int_in_range(1..=3)? {
            let (lsn, record) = (u.arbitrary()?, make::record(u)?);
            let payload = payload(u, file)?;
            assert!(payload.len() <= INLINE_LIMIT);
            builder.push(lsn, &record, &payload);
            said.push((lsn, record.encode(), payload));
        }
        let (group, crc) = builder.finish();
        chain = crc;
        image.bytes.extend_from_slice(&group);
        image.groups.push((at..image.bytes.len(), said));
    }
    Ok(image)
}

/// Groups in order until one does not follow. The last may be a part of one.
/// Records whose payload is damaged are left out.
fn walk(file: &FileHeader, bytes: &[u8]) -> Vec<Vec<Option<Said>>> {
    let (mut groups, mut at, mut chain) = (Vec::new(), BLOCK, 0);
    let volume = volume(file);
    while let Some(rest) = bytes.get(at..) {
        let Ok(head) = Head::decode(&volume, rest) else {
            break;
        };
        if head.number != groups.len() as u64 + 1 || head.chain != chain {
            break;
        }
        let base = u32::try_from(at).unwrap();
        let mut entries = Entries::new(volume, &head, base, rest);
        let (mut said, mut whole) = (Vec::new(), true);
        for entry in entries.by_ref() {
            match entry {
                Ok(entry) => {
                    assert!(Record::decode(entry.kind, entry.body).is_ok());
                    said.push(
                        entry
                            .payload_good
                            .then(|| (entry.lsn, entry.body.to_vec(), entry.payload.to_vec())),
                    );
                }
                Err(_) => whole = false,
            }
        }
        chain = entries.last_crc();
        groups.push(said);
        if !whole {
            break;
        }
        at += head.bytes as usize;
    }
    groups
}

fn groups(u: &mut Unstructured<'_>) -> Result<()> {
    let class = *u.choose(&[Class::Small, Class::Meta])?;
    let file = header(u, class)?;
    let count = u.int_in_range(1..=4)?;
    let image = build(u, &file, count)?;
    assert_eq!(FileHeader::decode(&image.bytes), Ok(file));
    let found = walk(&file, &image.bytes);
    assert_eq!(found.len(), image.groups.len());
    for (found, (_, said)) in found.iter().zip(&image.groups) {
        let found: Vec<_> = found.iter().map(|said| said.clone().unwrap()).collect();
        assert_eq!(found, *said);
    }
    for at in (BLOCK..image.bytes.len()).step_by(BLOCK) {
        let is_group = image.groups.iter().any(|(range, _)| range.start == at);
        let reads = Head::decode(&volume(&file), &image.bytes[at..]).is_ok();
        assert_eq!(reads, is_group, "at {at}");
    }
    // The file's life before, under another salt and generation.
    let mut before = file;
    before.segment.generation = before.segment.generation.wrapping_sub(1);
    before.salt = !before.salt;
    let stale = build(u, &before, count)?;
    assert!(walk(&file, &stale.bytes).is_empty());

    let mut damaged = image.bytes.clone();
    for _ in 0..u.int_in_range(1..=3)? {
        damage(u, &mut damaged, &stale.bytes)?;
    }
    let found = walk(&file, &damaged);
    assert!(found.len() <= image.groups.len(), "a group was made up");
    for (found, (_, said)) in found.iter().zip(&image.groups) {
        assert!(found.len() <= said.len(), "a record was made up");
        for (found, said) in found.iter().zip(said) {
            assert!(found.as_ref().is_none_or(|found| found == said));
        }
    }
    Ok(())
}

fn damage(u: &mut Unstructured<'_>, bytes: &mut Vec<u8>, stale: &[u8]) -> Result<()> {
    if bytes.len() <= BLOCK {
        return Ok(());
    }
    let blocks = bytes.len() / BLOCK;
    let at = u.int_in_range(1..=blocks.max(2) - 1)? * BLOCK;
    let end = (at + BLOCK).min(bytes.len());
    match u.int_in_range(0..=5)? {
        0 => {
            make::flip(u, &mut bytes[BLOCK..], usize::MAX / 16)?;
        }
        1 => bytes[at..end].fill(0),
        2 => {
            let from = u.int_in_range(1..=blocks.max(2) - 1)? * BLOCK;
            let block = bytes[from..(from + BLOCK).min(bytes.len())].to_vec();
            let len = block.len().min(end - at);
            bytes[at..at + len].copy_from_slice(&block[..len]);
        }
        3 => {
            if let Some(block) = stale.get(at..end) {
                bytes[at..end].copy_from_slice(block);
            }
        }
        4 => bytes.truncate(u.int_in_range(BLOCK..=bytes.len())?),
        _ => {
            let sector = at + u.int_in_range(0..=7)? * 512;
            let end = (sector + 512).min(bytes.len());
            if sector < end {
                bytes[sector..end].fill(u.arbitrary()?);
            }
        }
    }
    Ok(())
}

/// Extents are found by who refers to them, and only as what they were.
fn extents(u: &mut Unstructured<'_>) -> Result<()> {
    let file = header(u, Class::Raw)?;
    let mut bytes = file.encode();
    let mut all = Vec::new();
    for _ in 0..u.int_in_range(1..=4)? {
        let content = payload(u, &file)?;
        let header = ExtentHeader {
            upload: make::upload(u)?,
            offset: u.arbitrary()?,
            len: u32::try_from(content.len()).unwrap(),
            table: checksum::table(&content),
        };
        let (block, body) = header.encode(&file, u.arbitrary()?);
        let extent = Extent {
            segment: file.segment,
            offset: u32::try_from(bytes.len()).unwrap(),
            len: header.len,
            body,
        };
        bytes.extend_from_slice(&block);
        bytes.extend_from_slice(&content);
        bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
        assert_eq!(
            u64::from(extent.offset) + extent.footprint(),
            bytes.len() as u64
        );
        all.push((extent, header, content));
    }
    let read = |bytes: &[u8], extent: &Extent| {
        let at = extent.offset as usize;
        let found =
            ExtentHeader::decode(&file, bytes.get(at..at + BLOCK)?, Some(extent.body)).ok()?;
        let start = at + BLOCK;
        let content = bytes.get(start..start + found.len as usize)?;
        (checksum::table(content) == found.table).then(|| (found, content.to_vec()))
    };
    for (extent, header, content) in &all {
        assert_eq!(
            read(&bytes, extent),
            Some((header.clone(), content.clone()))
        );
    }
    for _ in 0..u.int_in_range(1..=3)? {
        damage(u, &mut bytes, &[])?;
    }
    for (extent, header, content) in &all {
        if let Some((found, bytes)) = read(&bytes, extent) {
            assert!(found == *header && bytes == *content, "another extent");
        }
    }
    Ok(())
}
