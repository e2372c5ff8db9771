//! Groups of records, as they lie in journal files and small and meta segments.
//!
//! Any bytes are walked without a panic, and so are they with their checksums
//! made to hold; what a walk gives, built again, gives the same walk. What was
//! built comes back, and one flipped bit in what is covered is seen.

use arbitrary::{Result, Unstructured};
use orlop_format::group::{Builder, Entries, Head, OVERHEAD, Volume, check};
use orlop_format::location::Home;
use orlop_format::record::{Kind, Record};
use orlop_format::{BLOCK, header};

use crate::{make, repair};

const VOLUME: Volume = Volume {
    home: Home::Journal(7),
    salt: 0x0123_4567_89ab_cdef,
};
const BASE: u32 = 8192;

/// What a record says: LSN, kind, body, payload.
type Said = (u64, u8, Vec<u8>, Vec<u8>);

/// Runs the target.
pub fn run(data: &[u8]) {
    let _ = walk(data);
    let mut repaired = data.to_vec();
    repair_group(&mut repaired);
    rebuilt(&repaired);
    let _ = built(&mut Unstructured::new(data));
}

/// Everything up to the first error, and whether there was one.
fn walk(bytes: &[u8]) -> Option<(Vec<Said>, bool)> {
    let head = Head::decode(&VOLUME, bytes).ok()?;
    assert!((head.bytes as usize).is_multiple_of(BLOCK) && head.bytes > 0);
    let (mut said, mut whole) = (Vec::new(), true);
    let mut entries = Entries::new(VOLUME, &head, BASE, bytes);
    let mut behind = BASE + u32::try_from(OVERHEAD).unwrap();
    while let Some(entry) = entries.next() {
        let Ok(entry) = entry else {
            whole = false;
            break;
        };
        assert_eq!(entry.place.offset, behind, "records lie back to back");
        behind = entries.offset();
        assert_eq!(behind % 8, 0);
        let at = (entry.place.offset - BASE) as usize;
        let checked = check(&VOLUME, &entry.place, &bytes[at..]);
        assert_eq!(checked.is_ok(), entry.payload_good);
        if let Ok(range) = checked {
            assert_eq!(&bytes[at..][range], entry.payload);
        }
        let _ = entry.record();
        whole &= entry.payload_good;
        said.push((
            entry.lsn,
            entry.kind.code(),
            entry.body.to_vec(),
            entry.payload.to_vec(),
        ));
    }
    assert!(said.len() <= head.records as usize);
    Some((said, whole))
}

fn repair_group(bytes: &mut [u8]) {
    let wanted = repair::Wanted {
        salt: VOLUME.salt,
        kind: Some(Kind::Group.code()),
        file: 7,
        generation: 0,
        chain: 0,
        body: 16,
    };
    if bytes.len() < OVERHEAD {
        return;
    }
    // The group's body: 16 bytes, without payload.
    bytes[40..44].copy_from_slice(&16u32.to_le_bytes());
    bytes[44..48].fill(0);
    bytes[header::LEN + 10] = 0;
    bytes[header::LEN + 11] = 0;
    let blocks = u32::from(bytes[header::LEN + 12] % 4 + 1) * 4096;
    bytes[header::LEN + 12..header::LEN + 16].copy_from_slice(&blocks.to_le_bytes());
    let Some((mut chain, _)) = repair::record(&mut bytes[..OVERHEAD], wanted) else {
        return;
    };
    let mut at = OVERHEAD;
    while let Some(rest) = bytes.get_mut(at..) {
        let wanted = repair::Wanted {
            kind: None,
            chain,
            body: 600,
            ..wanted
        };
        let Some((crc, len)) = repair::record(rest, wanted) else {
            return;
        };
        chain = crc;
        at += len.next_multiple_of(8);
    }
}

/// What a walk gives, built again, gives the same walk.
fn rebuilt(bytes: &[u8]) {
    let Some((said, true)) = walk(bytes) else {
        return;
    };
    let mut builder = Builder::new(VOLUME, BASE, 0, 0);
    for (lsn, kind, body, payload) in &said {
        let kind = Kind::from_code(*kind).unwrap();
        builder.push_encoded(*lsn, kind, body.clone(), payload.clone());
    }
    let (again, _) = builder.finish();
    assert_eq!(walk(&again), Some((said, true)));
}

fn built(u: &mut Unstructured<'_>) -> Result<()> {
    let (number, chain) = (u.arbitrary()?, u.arbitrary()?);
    let mut builder = Builder::new(VOLUME, BASE, number, chain);
    let (mut said, mut covered) = (Vec::<Said>::new(), Vec::new());
    covered.push(0..OVERHEAD);
    for _ in 0..u.int_in_range(0..=5)? {
        let record: Record = make::record(u)?;
        let (lsn, payload) = (u.arbitrary()?, make::bytes(u, 3000)?);
        let place = builder.push(lsn, &record, &payload);
        let at = (place.offset - BASE) as usize;
        covered.push(at..at + usize::try_from(place.len()).unwrap());
        said.push((lsn, record.kind().code(), record.encode(), payload));
    }
    let len = builder.len();
    let (bytes, _) = builder.finish();
    assert_eq!((bytes.len(), bytes.len() % BLOCK), (len, 0));
    let head = Head::decode(&VOLUME, &bytes).unwrap();
    assert_eq!((head.number, head.chain), (number, chain));
    assert_eq!(
        (head.records as usize, head.bytes as usize),
        (said.len(), len)
    );
    assert_eq!(walk(&bytes), Some((said.clone(), true)));

    let mut flipped = bytes.clone();
    let at = make::flip(u, &mut flipped, len)?;
    let seen = walk(&flipped);
    if covered.iter().any(|range| range.contains(&at)) {
        assert!(
            !seen.is_some_and(|(_, whole)| whole),
            "byte {at} was flipped unseen"
        );
    } else {
        assert_eq!(seen, Some((said.clone(), true)), "byte {at} is padding");
    }

    // A torn group gives its first records and no others.
    let cut = u.int_in_range(0..=len)?;
    if let Some((torn, _)) = walk(&bytes[..cut]) {
        assert!(said.starts_with(&torn));
    }
    Ok(())
}
