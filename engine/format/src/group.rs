//! Groups: how records lie in the journal and in small and meta segments.
//!
//! A group starts on a fresh block with a header of kind [`Kind::Group`],
//! whose body says its number, how many records follow and how many bytes it
//! takes; the records follow back to back, each on a multiple of 8 bytes;
//! zeros fill the last block. What was synced is never written again, so only
//! the last group of a file can be torn.
//!
//! Group body, 16 bytes: `number` u64 · `records` u32 · `bytes` u32 (whole
//! group, blocks).
//!
//! Owns the layout of a group and the walk over one; it decides nothing about
//! torn or corrupt, which needs to know what follows.

use crate::checksum;
use crate::codec::{Reader, Writer};
use crate::header::{self, Header};
use crate::location::{Home, Place};
use crate::record::{Kind, Record};
use crate::{BLOCK, Malformed};

/// Most bytes a group may take.
pub const MAX_GROUP: usize = 4 * 1024 * 1024;
/// Records start on multiples of this, bytes.
const ALIGN: usize = 8;
const BODY: usize = 16;

/// The file a group lies in: what its headers repeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Volume {
    /// The file, by its kind and number.
    pub home: Home,
    /// Random number that salts its header checksums.
    pub salt: u64,
}

impl Volume {
    fn file(&self) -> u64 {
        match self.home {
            Home::Journal(sequence) => sequence,
            Home::Segment(segment) => segment.id,
        }
    }

    fn generation(&self) -> u32 {
        match self.home {
            Home::Journal(_) => 0,
            Home::Segment(segment) => segment.generation,
        }
    }
}

/// Bytes that a record takes in a group.
pub fn footprint(body: usize, payload: usize) -> usize {
    header::LEN
        .saturating_add(body)
        .saturating_add(payload)
        .next_multiple_of(ALIGN)
}

/// Bytes that the header of a group takes.
pub const OVERHEAD: usize = header::LEN + BODY;

/// Builds one group.
#[derive(Debug)]
pub struct Builder {
    volume: Volume,
    offset: u32,
    number: u64,
    chain: u32,
    records: Vec<(Header, Vec<u8>, Vec<u8>)>,
    bytes: usize,
}

impl Builder {
    /// A group number `number` at `offset` in the file, chained to the last
    /// header of the group before it.
    pub fn new(volume: Volume, offset: u32, number: u64, chain: u32) -> Self {
        Self {
            volume,
            offset,
            number,
            chain,
            records: Vec::new(),
            bytes: OVERHEAD,
        }
    }

    /// Whether nothing was pushed.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Bytes the group would take now, in whole blocks.
    pub fn len(&self) -> usize {
        self.bytes.next_multiple_of(BLOCK)
    }

    /// Adds a record; returns where it will lie.
    pub fn push(&mut self, lsn: u64, record: &Record, payload: &[u8]) -> Place {
        self.push_encoded(lsn, record.kind(), record.encode(), payload.to_vec())
    }

    /// Adds a record whose body is encoded already.
    pub fn push_encoded(&mut self, lsn: u64, kind: Kind, body: Vec<u8>, payload: Vec<u8>) -> Place {
        let header = Header {
            kind: kind.code(),
            lsn,
            file: self.volume.file(),
            generation: self.volume.generation(),
            chain: 0,
            body_len: u32::try_from(body.len()).unwrap_or(u32::MAX),
            payload_len: u32::try_from(payload.len()).unwrap_or(u32::MAX),
            body_crc: checksum::crc(&body),
            payload_crc: checksum::crc(&payload),
        };
        let offset = self
            .offset
            .saturating_add(u32::try_from(self.bytes).unwrap_or(u32::MAX));
        let place = Place {
            home: self.volume.home,
            offset,
            prefix: header.prefix(),
            payload: header.payload_len,
        };
        self.bytes = self
            .bytes
            .saturating_add(footprint(body.len(), payload.len()));
        self.records.push((header, body, payload));
        place
    }

    /// The group's bytes, in whole blocks, and the checksum of its last header,
    /// which through the chain stands for all of them: the next group chains to
    /// it, and a segment's footer lists it.
    pub fn finish(self) -> (Vec<u8>, u32) {
        let total = self.bytes.next_multiple_of(BLOCK);
        let mut body = Writer::new();
        body.u64(self.number);
        body.u32(u32::try_from(self.records.len()).unwrap_or(u32::MAX));
        body.u32(u32::try_from(total).unwrap_or(u32::MAX));
        let head = Header {
            kind: Kind::Group.code(),
            lsn: self.records.first().map_or(0, |(header, _, _)| header.lsn),
            file: self.volume.file(),
            generation: self.volume.generation(),
            chain: self.chain,
            body_len: BODY as u32,
            payload_len: 0,
            body_crc: checksum::crc(body.as_slice()),
            payload_crc: 0,
        };
        let mut w = Writer::new();
        let crc = head.encode(self.volume.salt, &mut w);
        w.raw(body.as_slice());
        let mut chain = crc;
        for (mut header, body, payload) in self.records {
            header.chain = chain;
            chain = header.encode(self.volume.salt, &mut w);
            w.raw(&body).raw(&payload);
            let end = w.len().next_multiple_of(ALIGN);
            w.pad_to(end);
        }
        w.pad_to(total);
        (w.finish(), chain)
    }
}

/// The header of a group, read and checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Its number, one above that of the group before.
    pub number: u64,
    /// LSN of its first record.
    pub lsn: u64,
    /// How many records follow.
    pub records: u32,
    /// Bytes of the whole group, in blocks.
    pub bytes: u32,
    /// Checksum of the last header of the group before.
    pub chain: u32,
    /// Its own header checksum.
    pub crc: u32,
}

impl Head {
    /// Reads the header of a group at the front of `bytes` (one block is
    /// enough).
    pub fn decode(volume: &Volume, bytes: &[u8]) -> Result<Self, Malformed> {
        let (header, crc) = Header::decode(volume.salt, bytes)?;
        if header.kind != Kind::Group.code()
            || header.file != volume.file()
            || header.generation != volume.generation()
        {
            return Err(Malformed::Checksum);
        }
        let body = bytes
            .get(header::LEN..OVERHEAD)
            .ok_or(Malformed::Truncated)?;
        if header.body_len as usize != BODY || checksum::crc(body) != header.body_crc {
            return Err(Malformed::Checksum);
        }
        let mut r = Reader::new(body);
        let (number, records, total) = (r.u64()?, r.u32()?, r.u32()?);
        let len = total as usize;
        if len == 0 || !len.is_multiple_of(BLOCK) || len > MAX_GROUP {
            return Err(Malformed::Field("length of a group"));
        }
        Ok(Self {
            number,
            lsn: header.lsn,
            records,
            bytes: total,
            chain: header.chain,
            crc,
        })
    }
}

/// One record of a group.
#[derive(Debug, Clone)]
pub struct Entry<'a> {
    /// Its log sequence number.
    pub lsn: u64,
    /// Its kind.
    pub kind: Kind,
    /// Its body, checked.
    pub body: &'a [u8],
    /// Its payload.
    pub payload: &'a [u8],
    /// Whether the payload's checksum held.
    pub payload_good: bool,
    /// Where it lies.
    pub place: Place,
}

impl Entry<'_> {
    /// Its body as a value.
    pub fn record(&self) -> Result<Record, Malformed> {
        Record::decode(self.kind, self.body)
    }
}

/// Walks the records of one group.
#[derive(Debug)]
pub struct Entries<'a> {
    volume: Volume,
    base: u32,
    bytes: &'a [u8],
    at: usize,
    left: u32,
    chain: u32,
}

impl<'a> Entries<'a> {
    /// Over the group with `head` whose bytes, from its header on, are
    /// `bytes`, and which lies at `base` in its file.
    pub fn new(volume: Volume, head: &Head, base: u32, bytes: &'a [u8]) -> Self {
        Self {
            volume,
            base,
            bytes,
            at: OVERHEAD,
            left: head.records,
            chain: head.crc,
        }
    }

    /// Checksum of the last header that was read: the group's own at first.
    pub fn last_crc(&self) -> u32 {
        self.chain
    }

    /// Offset in the file behind the last record that was returned.
    pub fn offset(&self) -> u32 {
        self.base
            .saturating_add(u32::try_from(self.at).unwrap_or(u32::MAX))
    }

    fn read(&mut self) -> Result<Entry<'a>, Malformed> {
        let rest = self.bytes.get(self.at..).ok_or(Malformed::Truncated)?;
        let (header, crc) = Header::decode(self.volume.salt, rest)?;
        if header.file != self.volume.file()
            || header.generation != self.volume.generation()
            || header.chain != self.chain
        {
            return Err(Malformed::Checksum);
        }
        let mut r = Reader::new(rest);
        let _header = r.raw(header::LEN)?;
        let body = r.raw(header.body_len as usize)?;
        let payload = r.raw(header.payload_len as usize)?;
        if checksum::crc(body) != header.body_crc {
            return Err(Malformed::Checksum);
        }
        let place = Place {
            home: self.volume.home,
            offset: self.offset(),
            prefix: header.prefix(),
            payload: header.payload_len,
        };
        self.at = self.at.saturating_add(footprint(body.len(), payload.len()));
        self.chain = crc;
        Ok(Entry {
            lsn: header.lsn,
            kind: Kind::from_code(header.kind)?,
            body,
            payload,
            payload_good: checksum::crc(payload) == header.payload_crc,
            place,
        })
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<Entry<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let entry = self.read();
        if entry.is_err() {
            self.left = 0;
        }
        Some(entry)
    }
}

/// Checks a record that was read from `place` and returns its payload's range
/// in `bytes`, which start with the record's header.
///
/// # Errors
/// [`Malformed::Checksum`] when it is not that record or its payload is
/// damaged.
pub fn check(
    volume: &Volume,
    place: &Place,
    bytes: &[u8],
) -> Result<std::ops::Range<usize>, Malformed> {
    let (header, _) = Header::decode(volume.salt, bytes)?;
    if header.file != volume.file()
        || header.generation != volume.generation()
        || header.prefix() != place.prefix
        || header.payload_len != place.payload
    {
        return Err(Malformed::Checksum);
    }
    let start = place.prefix as usize;
    let range = start..start.saturating_add(place.payload as usize);
    let payload = bytes.get(range.clone()).ok_or(Malformed::Truncated)?;
    if checksum::crc(payload) == header.payload_crc {
        Ok(range)
    } else {
        Err(Malformed::Checksum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume() -> Volume {
        Volume {
            home: Home::Journal(5),
            salt: 0x1234,
        }
    }

    fn sample() -> (Vec<u8>, u32, Vec<Place>) {
        let mut builder = Builder::new(volume(), 8192, 3, 42);
        let places = vec![
            builder.push(10, &Record::Note(b"first".to_vec()), b""),
            builder.push(11, &Record::Mark { clean: false }, b""),
            builder.push(12, &Record::Note(b"with payload".to_vec()), &[9; 5000]),
        ];
        assert_eq!(builder.len() % BLOCK, 0);
        let (bytes, crc) = builder.finish();
        (bytes, crc, places)
    }

    #[test]
    fn a_group_comes_back_with_its_places() {
        let (bytes, crc, places) = sample();
        let head = Head::decode(&volume(), &bytes).unwrap();
        assert_eq!(
            (head.number, head.lsn, head.records, head.chain),
            (3, 10, 3, 42)
        );
        assert_eq!(head.bytes as usize, bytes.len());
        let entries: Vec<_> = Entries::new(volume(), &head, 8192, &bytes)
            .collect::<Result<_, _>>()
            .unwrap();
        assert_eq!(
            entries.iter().map(|e| e.lsn).collect::<Vec<_>>(),
            [10, 11, 12]
        );
        assert!(entries.iter().all(|e| e.payload_good));
        let mut walk = Entries::new(volume(), &head, 8192, &bytes);
        assert_eq!(walk.by_ref().count(), 3);
        assert_eq!(walk.last_crc(), crc, "the last header stands for the group");
        assert_eq!(entries.iter().map(|e| e.place).collect::<Vec<_>>(), places);
        let at = (places[2].offset - 8192) as usize;
        let range = check(&volume(), &places[2], &bytes[at..]).unwrap();
        assert_eq!(&bytes[at..][range], &[9; 5000][..]);
    }

    #[test]
    fn damage_to_a_payload_spares_its_neighbours_and_damage_to_a_header_ends_the_walk() {
        let (bytes, _, places) = sample();
        let head = Head::decode(&volume(), &bytes).unwrap();
        let payload = (places[2].offset - 8192 + places[2].prefix) as usize;
        let mut bad = bytes.clone();
        bad[payload + 7] ^= 1;
        let entries: Vec<_> = Entries::new(volume(), &head, 8192, &bad)
            .map(Result::unwrap)
            .collect();
        assert_eq!(
            entries.iter().map(|e| e.payload_good).collect::<Vec<_>>(),
            [true, true, false]
        );
        assert!(
            check(
                &volume(),
                &places[2],
                &bad[(places[2].offset - 8192) as usize..]
            )
            .is_err()
        );

        let mut bad = bytes;
        bad[(places[1].offset - 8192) as usize + 20] ^= 1;
        let entries: Vec<_> = Entries::new(volume(), &head, 8192, &bad).collect();
        assert_eq!(entries.len(), 2);
        assert!(entries[0].is_ok() && entries[1].is_err());
    }

    #[test]
    fn a_group_of_another_file_or_life_is_not_ours() {
        let (bytes, _, _) = sample();
        let other = Volume {
            home: Home::Journal(6),
            salt: 0x1234,
        };
        assert!(Head::decode(&other, &bytes).is_err());
        let recycled = Volume {
            home: Home::Journal(5),
            salt: 0x9999,
        };
        assert!(Head::decode(&recycled, &bytes).is_err());
    }
}
