//! Where a scrub is: small, and kept by the caller as bytes.

use orlop_format::Malformed;
use orlop_format::codec::{Reader, Writer};
use orlop_format::location::Class;

const VERSION: u8 = 1;

/// What is being read. The journal comes first: what leaves it meanwhile goes
/// to segments that began after the scrub, which do not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Journal,
    Segments(Class),
    Digests,
    End,
}

impl Stage {
    const ORDER: [Stage; 6] = [
        Stage::Journal,
        Stage::Segments(Class::Meta),
        Stage::Segments(Class::Small),
        Stage::Segments(Class::Raw),
        Stage::Digests,
        Stage::End,
    ];

    fn code(self) -> u8 {
        let at = Self::ORDER.iter().position(|stage| *stage == self);
        at.and_then(|at| u8::try_from(at).ok()).unwrap_or(u8::MAX)
    }

    fn from_code(code: u8) -> Result<Self, Malformed> {
        Self::ORDER
            .get(usize::from(code))
            .copied()
            .ok_or(Malformed::Field("stage of a scrub"))
    }

    /// What comes after it.
    pub(super) fn next(self) -> Self {
        Self::from_code(self.code().saturating_add(1)).unwrap_or(Stage::End)
    }
}

/// Where a scrub is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cursor {
    pub(super) stage: Stage,
    /// Segments with this id, or a higher one, began after the scrub.
    pub(super) below: u64,
    /// The journal's last record when the scrub began.
    pub(super) last_lsn: u64,
    /// The journal file or segment to go on in, or the first one after it.
    pub(super) file: u64,
    /// Where in it; 0 when it was not begun.
    pub(super) offset: u64,
    /// The blob whose digest was checked last.
    pub(super) key: Option<[u8; 32]>,
    pub(super) done: u64,
    pub(super) total: u64,
    pub(super) frames: u64,
    pub(super) findings: u64,
}

impl Cursor {
    pub(super) fn begin(below: u64, last_lsn: u64, total: u64) -> Self {
        Self {
            stage: Stage::Journal,
            below,
            last_lsn,
            file: 0,
            offset: 0,
            key: None,
            done: 0,
            total,
            frames: 0,
            findings: 0,
        }
    }

    /// Goes on with what comes after this stage.
    pub(super) fn turn(&mut self) {
        self.stage = self.stage.next();
        (self.file, self.offset) = (0, 0);
    }

    /// Goes on with the file after this one.
    pub(super) fn turn_file(&mut self, file: u64) {
        (self.file, self.offset) = (file.saturating_add(1), 0);
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.u8(VERSION).u8(self.stage.code());
        w.u64(self.below).u64(self.last_lsn);
        w.u64(self.file).u64(self.offset);
        w.u8(u8::from(self.key.is_some()))
            .raw(&self.key.unwrap_or_default());
        w.u64(self.done).u64(self.total);
        w.u64(self.frames).u64(self.findings);
        w.finish()
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut r = Reader::new(bytes);
        if r.u8()? != VERSION {
            return Err(Malformed::Newer("cursor of a scrub"));
        }
        let stage = Stage::from_code(r.u8()?)?;
        let (below, last_lsn, file, offset) = (r.u64()?, r.u64()?, r.u64()?, r.u64()?);
        let (has_key, key) = (r.u8()? != 0, r.array()?);
        let cursor = Self {
            stage,
            below,
            last_lsn,
            file,
            offset,
            key: has_key.then_some(key),
            done: r.u64()?,
            total: r.u64()?,
            frames: r.u64()?,
            findings: r.u64()?,
        };
        r.end()?;
        Ok(cursor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_comes_back_and_nothing_else_passes_for_one() {
        let mut cursor = Cursor::begin(9, 70, 1 << 40);
        for stage in Stage::ORDER {
            assert_eq!(cursor.stage, stage);
            cursor.offset = 8192;
            cursor.key = Some([7; 32]);
            let bytes = cursor.encode();
            assert_eq!(Cursor::decode(&bytes), Ok(cursor));
            for len in 0..bytes.len() {
                assert!(Cursor::decode(&bytes[..len]).is_err(), "{len}");
            }
            cursor.turn();
        }
        assert_eq!(cursor.stage, Stage::End);
        assert!(Cursor::decode(&[2; 90]).is_err());
    }
}
