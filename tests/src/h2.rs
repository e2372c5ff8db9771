//! HTTP/2 by hand: frames no client library would send.
//!
//! Owns: writing frames and heads, and telling received frames apart. Heads
//! are written without compression; of those received only the status is read.

/// What a client sends first: the preface and its settings, all defaults.
pub const START: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// Types of frames.
pub const DATA: u8 = 0;
/// The start of a request or an answer.
pub const HEADERS: u8 = 1;
/// The end of one stream.
pub const RST_STREAM: u8 = 3;
/// Settings of a connection.
pub const SETTINGS: u8 = 4;
/// A question whether the other end is there.
pub const PING: u8 = 6;
/// The end of a connection.
pub const GOAWAY: u8 = 7;
/// Room for more data.
pub const WINDOW_UPDATE: u8 = 8;
/// More of a head.
pub const CONTINUATION: u8 = 9;

/// The stream ends with this frame.
pub const END_STREAM: u8 = 1;
/// This answers settings or a ping.
pub const ACK: u8 = 1;
/// The head ends with this frame.
pub const END_HEADERS: u8 = 4;

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Its type.
    pub kind: u8,
    /// Its flags.
    pub flags: u8,
    /// Its stream, 0 for the connection.
    pub stream: u32,
    /// The rest.
    pub payload: Vec<u8>,
}

/// The bytes of a frame.
#[must_use]
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short payload");
    let mut bytes = length.to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// The block of a request's head.
#[must_use]
pub fn head(method: &str, path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in [
        (":method", method),
        (":scheme", "https"),
        (":authority", "registry.test"),
        (":path", path),
    ]
    .iter()
    .chain(more)
    {
        field(&mut block, name, value);
    }
    block
}

/// Adds a field to a block: a literal that is not indexed.
pub fn field(block: &mut Vec<u8>, name: &str, value: &str) {
    block.push(0);
    for text in [name, value] {
        let mut rest = text.len();
        if rest < 127 {
            block.push(u8::try_from(rest).expect("below 127"));
        } else {
            block.push(127);
            rest -= 127;
            while rest >= 128 {
                block.push(u8::try_from(rest % 128).expect("below 128") | 128);
                rest /= 128;
            }
            block.push(u8::try_from(rest).expect("below 128"));
        }
        block.extend_from_slice(text.as_bytes());
    }
}

/// The status at the start of an answer's block: indexed, or a literal, plain
/// or in Huffman's code of digits.
#[must_use]
pub fn status(block: &[u8]) -> u16 {
    const INDEXED: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
    let first = *block.first().expect("a status");
    if (0x88..=0x8e).contains(&first) {
        return INDEXED[usize::from(first - 0x88)];
    }
    // A literal of the name `:status`, which is added to the table.
    assert_eq!(first & 0xc0, 0x40, "{block:?}");
    let length = usize::from(block[1] & 0x7f);
    let value = &block[2..2 + length];
    let digits = if block[1] & 0x80 == 0 {
        String::from_utf8_lossy(value).into_owned()
    } else {
        huffman_digits(value)
    };
    digits
        .parse()
        .unwrap_or_else(|_| panic!("{digits} is no status"))
}

/// Digits in Huffman's code: `0` to `2` have 5 bits, the others 6.
fn huffman_digits(bytes: &[u8]) -> String {
    let bits: String = bytes.iter().map(|byte| format!("{byte:08b}")).collect();
    let (mut rest, mut digits) = (bits.as_str(), String::new());
    while rest.len() >= 5 && !"11111111".starts_with(rest) {
        let short = u8::from_str_radix(&rest[..5], 2).expect("bits");
        let (digit, length) = match short {
            0..=2 => (short, 5),
            _ => {
                let long = u8::from_str_radix(&rest[..6], 2).expect("bits");
                (long - 0b01_1001 + 3, 6)
            }
        };
        digits.push(char::from(b'0' + digit));
        rest = &rest[length..];
    }
    digits
}

/// Takes a whole frame from the start of what was received.
#[must_use]
pub fn take(bytes: &mut Vec<u8>) -> Option<Frame> {
    let head = bytes.get(..9)?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
    let frame = Frame {
        kind: head[3],
        flags: head[4],
        stream: u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]),
        payload: bytes.get(9..9 + length)?.to_vec(),
    };
    bytes.drain(..9 + length);
    Some(frame)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_read_in_every_form() {
        assert_eq!(status(&[0x88, 0]), 200);
        assert_eq!(status(&[0x8d]), 404);
        assert_eq!(status(b"\x48\x03431"), 431);
        // 2 is 00010, 0 is 00000, 1 is 00001.
        assert_eq!(status(&[0x48, 0x82, 0b0001_0000, 0b0000_0011]), 201);
        // 4 is 011010, 3 is 011001, 1 is 00001.
        assert_eq!(
            status(&[0x48, 0x83, 0b0110_1001, 0b1001_0000, 0b1111_1111]),
            431
        );
    }

    #[test]
    fn long_fields_have_long_lengths() {
        let mut block = Vec::new();
        field(&mut block, "x", &"y".repeat(4000));
        assert_eq!(block[..6], [0, 1, b'x', 127, 0xa1, 0x1e]);
        assert_eq!(block.len(), 6 + 4000);
    }
}
