//! Looks through the manifest that CURRENT names before RocksDB does: RocksDB
//! reads some damaged ones without end.
//!
//! A manifest is RocksDB's log format: blocks of 32 KiB, records of a masked
//! CRC-32C, a length and a type. What is cut off at the end did not finish;
//! anything else that does not hold is damage.

use std::path::Path;

/// Records and their parts do not cross these, bytes.
const BLOCK: usize = 32 * 1024;
/// Checksum, length, type.
const HEADER: usize = 7;
/// The highest type that a manifest has: whole, first, middle, last.
const LAST: u8 = 4;
/// Bytes of a manifest that are read at most.
const MAX: u64 = 64 << 20;

/// Checks CURRENT and its manifest in a folder; says what is wrong.
pub(super) fn check(folder: &Path) -> Result<(), String> {
    let current = std::fs::read_to_string(folder.join("CURRENT"))
        .map_err(|error| format!("its file CURRENT cannot be read: {error}"))?;
    let name = current.trim_end_matches('\n');
    if !name.starts_with("MANIFEST-") || name.contains('/') {
        return Err("its file CURRENT names no manifest".to_owned());
    }
    let path = folder.join(name);
    let len = std::fs::metadata(&path).map_or(0, |metadata| metadata.len());
    if len > MAX {
        return Err(format!("{name} has {len} bytes"));
    }
    let bytes = std::fs::read(&path).map_err(|error| format!("{name} cannot be read: {error}"))?;
    records(&bytes).map_err(|at| format!("{name} does not hold at {at}"))
}

/// Checks all records; the error is the offset of the first that is damaged.
fn records(bytes: &[u8]) -> Result<(), usize> {
    let mut at = 0;
    while at < bytes.len() {
        let block_end = (at / BLOCK + 1) * BLOCK;
        let block = bytes
            .get(at..block_end.min(bytes.len()))
            .unwrap_or_default();
        let Some((header, rest)) = block.split_first_chunk::<HEADER>() else {
            at = block_end;
            continue;
        };
        let [c0, c1, c2, c3, l0, l1, kind] = *header;
        let len = usize::from(u16::from_le_bytes([l0, l1]));
        if kind == 0 && len == 0 {
            at = block_end; // allocated ahead, or the filling of a block
            continue;
        }
        let Some(payload) = rest.get(..len) else {
            let cut_off = block_end >= bytes.len();
            return if cut_off { Ok(()) } else { Err(at) };
        };
        let stored = u32::from_le_bytes([c0, c1, c2, c3]);
        let crc = stored.wrapping_sub(0xa282_ead8).rotate_right(17);
        if kind > LAST || crc != crc32c(std::iter::once(&kind).chain(payload)) {
            return Err(at);
        }
        at += HEADER + len;
    }
    Ok(())
}

/// CRC-32C, bit by bit: manifests are small.
fn crc32c<'a>(bytes: impl Iterator<Item = &'a u8>) -> u32 {
    !bytes.fold(!0u32, |mut crc, byte| {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg());
        }
        crc
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksum_is_the_known_one() {
        assert_eq!(crc32c(b"123456789".iter()), 0xe306_9283);
    }

    #[test]
    fn a_changed_record_is_found_and_a_cut_one_is_not() {
        let record = |kind: u8, payload: &[u8]| {
            let crc = crc32c(std::iter::once(&kind).chain(payload));
            let mut bytes = crc
                .rotate_left(17)
                .wrapping_add(0xa282_ead8)
                .to_le_bytes()
                .to_vec();
            bytes.extend((payload.len() as u16).to_le_bytes());
            bytes.push(kind);
            bytes.extend(payload);
            bytes
        };
        let whole = [record(1, b"first"), record(4, &[7; 40])].concat();
        assert_eq!(records(&whole), Ok(()));
        assert_eq!(records(&[&whole[..], &[0; 500]].concat()), Ok(()));
        assert_eq!(records(&whole[..20]), Ok(()));
        let mut flipped = whole.clone();
        flipped[8] ^= 1;
        assert_eq!(records(&flipped), Err(0));
        // A type of recycled logs, under a good checksum.
        assert_eq!(
            records(&[whole.clone(), record(5, b"x")].concat()),
            Err(whole.len())
        );
    }
}
