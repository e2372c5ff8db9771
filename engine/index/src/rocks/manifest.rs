//! A look at the manifest before RocksDB reads it.
//!
//! RocksDB 11.8 reads a manifest without end when the type of a record in it
//! was changed to one of the types of recycled logs. A damaged index must not
//! hang a start, so records are checked here first, by the same rule: what is
//! cut off at the end is a write that did not finish, anything else that does
//! not match its checksum is damage.
//!
//! Refuses to know: what records say.

/// Records do not cross blocks of this many bytes; their parts do not either.
const BLOCK: usize = 32 << 10;
/// CRC-32C masked (4), length (2), type (1), little endian.
const HEADER: usize = 7;
/// Whole, first, middle, last: all that a manifest is written with.
const TYPES: std::ops::RangeInclusive<u8> = 1..=4;

/// Checks the records of a manifest. The error says what is wrong, and where.
pub(super) fn check(bytes: &[u8]) -> Result<(), String> {
    let blocks = bytes.len().div_ceil(BLOCK);
    for (number, block) in bytes.chunks(BLOCK).enumerate() {
        let last = number + 1 == blocks;
        let mut rest = block;
        while let Some((header, tail)) = rest.split_first_chunk::<HEADER>() {
            let at = number * BLOCK + (block.len() - rest.len());
            let [c0, c1, c2, c3, l0, l1, kind] = *header;
            let length = usize::from(u16::from_le_bytes([l0, l1]));
            if kind == 0 && length == 0 {
                break;
            }
            let Some((payload, next)) = tail.split_at_checked(length) else {
                if last {
                    return Ok(());
                }
                return Err(format!("the record at byte {at} leaves its block"));
            };
            if crc32c(kind, payload) != unmask(u32::from_le_bytes([c0, c1, c2, c3])) {
                return Err(format!("the record at byte {at} has a wrong checksum"));
            }
            if !TYPES.contains(&kind) {
                return Err(format!("the record at byte {at} has the type {kind}"));
            }
            rest = next;
        }
    }
    Ok(())
}

/// RocksDB stores checksums turned and shifted, so that a checksum over bytes
/// that hold checksums stays good.
const fn unmask(masked: u32) -> u32 {
    masked.wrapping_sub(0xa282_ead8).rotate_right(17)
}

fn crc32c(kind: u8, payload: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        let [low, ..] = (crc ^ u32::from(*byte)).to_le_bytes();
        // The table has an entry for every byte.
        TABLE.get(usize::from(low)).copied().unwrap_or_default() ^ (crc >> 8)
    };
    !payload.iter().fold(step(!0, &kind), step)
}

const TABLE: [u32; 256] = table();

#[expect(
    clippy::indexing_slicing,
    reason = "evaluated by the compiler, which checks it"
)]
const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < table.len() {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 {
                0x82f6_3b78 ^ (crc >> 1)
            } else {
                crc >> 1
            };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: u8, payload: &[u8]) -> Vec<u8> {
        let masked = crc32c(kind, payload)
            .rotate_left(17)
            .wrapping_add(0xa282_ead8);
        let mut bytes = masked.to_le_bytes()[..4].to_vec();
        bytes.extend((payload.len() as u16).to_le_bytes());
        bytes.push(kind);
        bytes.extend(payload);
        bytes
    }

    #[test]
    fn checksum_is_the_known_one() {
        // The check value of CRC-32C is that of "123456789".
        assert_eq!(crc32c(b'1', b"23456789"), 0xe306_9283);
    }

    #[test]
    fn every_changed_bit_is_found_or_cuts_the_end() {
        let whole: Vec<u8> = [record(1, b"first"), record(2, &[7; 40]), record(4, b"end")].concat();
        check(&whole).unwrap();
        let mut cuts = 0;
        for bit in 0..whole.len() * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            // Only a length may pass: it makes the rest look cut off.
            if check(&bytes).is_ok() {
                assert!(
                    [4, 5, 16, 17, 63, 64].contains(&(bit / 8)),
                    "byte {}",
                    bit / 8
                );
                cuts += 1;
            }
        }
        assert!(cuts > 0);
        for len in 0..whole.len() {
            check(&whole[..len]).unwrap();
        }
    }

    #[test]
    fn records_of_recycled_logs_are_refused() {
        let bytes = [record(1, b"first"), record(5, b"second")].concat();
        let reason = check(&bytes).unwrap_err();
        assert_eq!(reason, "the record at byte 12 has the type 5");
    }

    #[test]
    fn a_record_that_leaves_a_block_is_damage_unless_it_is_the_last() {
        let mut bytes = record(1, &vec![1; BLOCK - HEADER - 20]);
        let at = bytes.len();
        bytes.extend(record(1, &[1; 100]));
        check(&bytes[..BLOCK]).unwrap();
        let reason = check(&bytes).unwrap_err();
        assert_eq!(reason, format!("the record at byte {at} leaves its block"));
    }
}
