//! Makes checksums hold, so that arbitrary bytes get past them and to the code
//! behind. Nothing that was flipped on purpose passes through here.

use orlop_format::checksum;
use orlop_format::header::{LEN, MAGIC};

/// Writes a little-endian number.
fn put(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

fn get(bytes: &[u8], at: usize) -> usize {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize
}

/// What the header of a record is to say.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    pub(crate) salt: u64,
    pub(crate) kind: Option<u8>,
    pub(crate) file: u64,
    pub(crate) generation: u32,
    pub(crate) chain: u32,
    /// Most bytes of body; what the bytes say is cut to it.
    pub(crate) body: usize,
}

/// Repairs the record at the front of `bytes`; returns its header checksum and
/// the bytes of header, body and payload. None if there is no room for one.
pub(crate) fn record(bytes: &mut [u8], wanted: Wanted) -> Option<(u32, usize)> {
    let room = bytes.len().checked_sub(LEN)?;
    put(bytes, 0, MAGIC);
    bytes[4] = 1;
    if let Some(kind) = wanted.kind {
        bytes[5] = kind;
    }
    // Flags that must be understood are refused by name; half of all inputs
    // may try.
    if bytes[8] & 1 == 0 {
        bytes[6..8].fill(0);
        bytes[12..16].fill(0);
    }
    bytes[24..32].copy_from_slice(&wanted.file.to_le_bytes());
    put(bytes, 32, wanted.generation);
    put(bytes, 36, wanted.chain);
    let body = get(bytes, 40) % (room.min(wanted.body) + 1);
    let payload = get(bytes, 44) % (room - body + 1);
    put(bytes, 40, u32::try_from(body).unwrap());
    put(bytes, 44, u32::try_from(payload).unwrap());
    let crc = checksum::crc(&bytes[LEN..LEN + body]);
    put(bytes, 48, crc);
    if bytes[8] & 2 == 0 {
        let crc = checksum::crc(&bytes[LEN + body..LEN + body + payload]);
        put(bytes, 52, crc);
    }
    let crc = checksum::salted(wanted.salt, &bytes[..60]);
    put(bytes, 60, crc);
    Some((crc, LEN + body + payload))
}

/// Repairs a block that begins with a magic number and a format, and whose
/// checksum over `covered` bytes follows them. None if it is too short.
pub(crate) fn block(bytes: &mut [u8], magic: &[u8; 4], covered: usize) -> Option<()> {
    bytes.get(..covered + 4)?;
    bytes[..4].copy_from_slice(magic);
    // Formats: 0, 1 and a newer one.
    bytes[4] %= 3;
    bytes[5..8].fill(0);
    let crc = checksum::crc(&bytes[..covered]);
    put(bytes, covered, crc);
    Some(())
}
