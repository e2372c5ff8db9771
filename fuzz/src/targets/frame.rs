//! The first blocks of files, the headers of extents, the footers of segments.
//!
//! Any bytes are read without a panic; with checksums made to hold, what reads
//! back is written as the same value. What was written comes back; a flipped
//! bit in what is covered is seen, and so is another file's salt, generation or
//! reference.

use arbitrary::{Result, Unstructured};
use orlop_format::header::{self, Header};
use orlop_format::location::SegmentId;
use orlop_format::record::Kind;
use orlop_format::segment::{self, ExtentHeader, Footer};
use orlop_format::{BLOCK, checksum, journal};

use crate::{make, repair};

const SALT: u64 = 0xfeed_beef_0bad_cafe;

/// Runs the target.
pub fn run(data: &[u8]) {
    let _ = Header::decode(SALT, data);
    let mut bytes = data.to_vec();
    if repair::block(&mut bytes, b"ORLS", 56).is_some()
        && let Ok(file) = segment::FileHeader::decode(&bytes)
    {
        assert_eq!(segment::FileHeader::decode(&file.encode()), Ok(file));
        if bytes[4] == 1 && bytes[27] == 0 {
            assert_eq!(file.encode()[..60], bytes[..60]);
        }
    }
    let mut bytes = data.to_vec();
    if repair::block(&mut bytes, b"ORLJ", 72).is_some()
        && let Ok(file) = journal::FileHeader::decode(&bytes)
    {
        assert_eq!(journal::FileHeader::decode(&file.encode()), Ok(file));
        if bytes[4] == 1 {
            assert_eq!(file.encode()[..76], bytes[..76]);
        }
    }
    names(data);
    repaired(data);
    let _ = built(&mut Unstructured::new(data));
}

/// Names of files say what they say in one way, upper-case hex apart.
fn names(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Some(sequence) = journal::parse_name(text) {
        let name = journal::file_name(sequence);
        assert_eq!(journal::parse_name(&name), Some(sequence));
        assert!(name.eq_ignore_ascii_case(text), "{text:?}");
    }
    if let Some((id, generation)) = segment::parse_name(text) {
        let name = format!("S-{id:016x}.{generation:08x}");
        assert!(name.eq_ignore_ascii_case(text), "{text:?}");
    }
}

fn file(segment: SegmentId) -> segment::FileHeader {
    segment::FileHeader {
        store: [3; 16],
        segment,
        salt: SALT,
        opened: 1,
    }
}

/// Headers of extents and footers behind checksums that hold.
fn repaired(data: &[u8]) {
    let mut u = Unstructured::new(&[]);
    let Ok(segment) = make::segment(&mut u) else {
        return;
    };
    let file = file(segment);
    for kind in [Kind::Extent, Kind::Footer] {
        let mut bytes = data.to_vec();
        let wanted = repair::Wanted {
            salt: SALT,
            kind: Some(kind.code()),
            file: segment.id,
            generation: segment.generation,
            chain: 0,
            body: BLOCK,
        };
        if repair::record(&mut bytes, wanted).is_none() {
            return;
        }
        if let Ok(extent) = ExtentHeader::decode(&file, &bytes, None) {
            let (block, crc) = extent.encode(&file, 1);
            assert_eq!(ExtentHeader::decode(&file, &block, Some(crc)), Ok(extent));
        }
        // The hash within the body is made to hold, too.
        let len = u32::from_le_bytes(bytes[40..44].try_into().unwrap()) as usize;
        if len >= 36 {
            let count = (len - 36) / 8;
            bytes[40..44].copy_from_slice(&u32::try_from(36 + count * 8).unwrap().to_le_bytes());
            let frames = &bytes[header::LEN + 36..header::LEN + 36 + count * 8];
            let crcs = frames
                .chunks(8)
                .map(|frame| u32::from_le_bytes(frame[4..].try_into().unwrap()));
            let hash = checksum::seal(crcs);
            bytes[header::LEN..header::LEN + 32].copy_from_slice(&hash);
            let count = u32::try_from(count).unwrap();
            bytes[header::LEN + 32..header::LEN + 36].copy_from_slice(&count.to_le_bytes());
            bytes.truncate(header::LEN + 36 + count as usize * 8);
            repair::record(&mut bytes, wanted);
            if let Ok(footer) = Footer::decode(&file, &bytes) {
                assert_eq!(Footer::decode(&file, &footer.encode(&file, 1)), Ok(footer));
            }
        }
    }
}

fn built(u: &mut Unstructured<'_>) -> Result<()> {
    let mut file = file(make::segment(u)?);
    (file.store, file.salt, file.opened) = (u.arbitrary()?, u.arbitrary()?, u.arbitrary()?);
    let block = file.encode();
    assert_eq!(segment::FileHeader::decode(&block), Ok(file));
    assert_eq!(
        segment::parse_name(&segment::file_name(&file.segment)),
        Some((file.segment.id, file.segment.generation))
    );
    let mut flipped = block;
    make::flip(u, &mut flipped, 60)?;
    assert!(segment::FileHeader::decode(&flipped).is_err());

    let log = journal::FileHeader {
        store: u.arbitrary()?,
        sequence: u.arbitrary()?,
        salt: u.arbitrary()?,
        first_lsn: u.arbitrary()?,
        first_group: u.arbitrary()?,
        previous: u.arbitrary()?,
        previous_end: u.arbitrary()?,
        chain: u.arbitrary()?,
    };
    let block = log.encode();
    assert_eq!(journal::FileHeader::decode(&block), Ok(log));
    assert_eq!(
        journal::parse_name(&journal::file_name(log.sequence)),
        Some(log.sequence)
    );
    let mut flipped = block;
    make::flip(u, &mut flipped, 76)?;
    assert!(journal::FileHeader::decode(&flipped).is_err());

    extent(u, &file)?;
    footer(u, &file)
}

/// The same file in its next life.
fn recycled(file: &segment::FileHeader) -> segment::FileHeader {
    let mut other = *file;
    other.segment.generation = other.segment.generation.wrapping_add(1);
    other
}

fn extent(u: &mut Unstructured<'_>, file: &segment::FileHeader) -> Result<()> {
    let payload = make::bytes(u, 2000)?;
    let header = ExtentHeader {
        upload: make::upload(u)?,
        offset: u.arbitrary()?,
        len: u32::try_from(payload.len()).unwrap(),
        table: checksum::table(&payload),
    };
    let lsn = u.arbitrary()?;
    let (block, crc) = header.encode(file, lsn);
    assert_eq!((block.len(), crc), (BLOCK, header.checksum()));
    assert_eq!(
        ExtentHeader::decode(file, &block, Some(crc)),
        Ok(header.clone())
    );
    assert!(ExtentHeader::decode(file, &block, Some(crc ^ 1)).is_err());
    assert!(ExtentHeader::decode(&recycled(file), &block, None).is_err());
    let salted = segment::FileHeader {
        salt: !file.salt,
        ..*file
    };
    assert!(ExtentHeader::decode(&salted, &block, None).is_err());
    let mut flipped = block;
    make::flip(u, &mut flipped, header::LEN + 24 + header.table.len() * 4)?;
    assert!(ExtentHeader::decode(file, &flipped, Some(crc)).is_err());
    Ok(())
}

fn footer(u: &mut Unstructured<'_>, file: &segment::FileHeader) -> Result<()> {
    let footer = Footer {
        frames: make::list(u, 40, |u| Ok((u.arbitrary()?, u.arbitrary()?)))?,
    };
    let lsn = u.arbitrary()?;
    let bytes = footer.encode(file, lsn);
    assert_eq!(bytes.len() % BLOCK, 0);
    assert!(Footer::decode(&recycled(file), &bytes).is_err());
    let mut flipped = bytes.clone();
    make::flip(u, &mut flipped, header::LEN + 36 + footer.frames.len() * 8)?;
    assert!(Footer::decode(file, &flipped).is_err());
    assert_eq!(Footer::decode(file, &bytes), Ok(footer));
    Ok(())
}
