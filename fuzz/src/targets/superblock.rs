//! The superblock: slots, and which of four holds.
//!
//! Any bytes are read without a panic; with a checksum that holds, what reads
//! back is written as the same bytes, ignorable features apart. What was
//! written comes back, a flipped bit in what is covered is seen, and a write
//! that tears never takes the newest slot with it.

use arbitrary::{Result, Unstructured};
use orlop_format::BLOCK;
use orlop_format::superblock::{FILES, RELEASES, SLOTS, Superblock};

use crate::{make, repair};

/// Runs the target.
pub fn run(data: &[u8]) {
    let _ = Superblock::decode(data);
    let mut bytes = data.to_vec();
    if repair::block(&mut bytes, b"ORLB", 104).is_some() {
        if bytes[75] & 1 == 0 {
            // Features that are known, or none.
            bytes[73..88].fill(0);
            bytes[72] &= 1;
            let _ = repair::block(&mut bytes, b"ORLB", 104);
        }
        match Superblock::decode(&bytes) {
            Ok(slot) => {
                assert!(bytes[4] <= 1 && bytes[72] <= 1);
                assert!(bytes[73..88].iter().all(|byte| *byte == 0));
                assert_eq!(Superblock::decode(&slot.encode()), Ok(slot));
                if bytes[4] == 1 && bytes[88..96].iter().all(|byte| *byte == 0) {
                    assert_eq!(slot.encode()[..108], bytes[..108]);
                }
            }
            Err(_) => assert!(
                bytes[4] == 2 || bytes[72] > 1 || bytes[73..88].iter().any(|byte| *byte != 0)
            ),
        }
    }
    let _ = built(&mut Unstructured::new(data));
}

fn slot(u: &mut Unstructured<'_>, sequence: u64) -> Result<Superblock> {
    Ok(Superblock {
        sequence,
        store: u.arbitrary()?,
        catalog: u.arbitrary()?,
        catalog_sequence: u.arbitrary()?,
        epoch: u.arbitrary()?,
        recycled: u.arbitrary()?,
        journal: u.arbitrary()?,
        features: u.arbitrary::<u64>()? & RELEASES,
    })
}

fn built(u: &mut Unstructured<'_>) -> Result<()> {
    // Writes in a row, as the store does them, the last one torn.
    let first = u.arbitrary::<u32>()?;
    let count = u.int_in_range(1..=9u64)?;
    let mut files = [vec![0; 2 * BLOCK], vec![0; 2 * BLOCK]];
    let mut newest = None;
    for sequence in u64::from(first)..u64::from(first) + count {
        let slot = slot(u, sequence)?;
        let block = slot.encode();
        assert_eq!(Superblock::decode(&block), Ok(slot));
        let mut flipped = block.clone();
        make::flip(u, &mut flipped, 108)?;
        assert!(Superblock::decode(&flipped).is_err());

        let (file, offset) = Superblock::slot(sequence);
        assert!(file < FILES.len() && offset < SLOTS * BLOCK as u64);
        let at = usize::try_from(offset).unwrap();
        let before = files.clone();
        // Any mixture of old and new sectors.
        let sectors: u8 = u.arbitrary()?;
        for sector in (0..8).filter(|sector| sectors & (1 << sector) != 0) {
            let range = sector * 512..(sector + 1) * 512;
            files[file][at + range.start..at + range.end].copy_from_slice(&block[range]);
        }
        let found = best(&files);
        assert!(
            found == newest || found == Some(slot),
            "a torn write took the newest slot with it"
        );
        files = before;
        files[file][at..at + BLOCK].copy_from_slice(&block);
        newest = Some(slot);
        assert_eq!(best(&files), newest);
    }
    Ok(())
}

/// The valid slot with the highest sequence.
fn best(files: &[Vec<u8>; 2]) -> Option<Superblock> {
    files
        .iter()
        .flat_map(|file| file.chunks(BLOCK))
        .filter_map(|block| Superblock::decode(block).ok())
        .max_by_key(|slot| slot.sequence)
}
