//! What a caller of a check may choose.

use std::cmp::Ordering;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use orlop_format::location::{Class, Home, SegmentId};
use orlop_format::{journal, segment};

use crate::progress::Progress;

/// How much content is compared with its digests.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Content {
    /// Every live blob.
    All,
    /// None.
    None,
    /// This share of the blobs, in percent.
    Sample(f64),
}

impl fmt::Display for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Content::All => f.write_str("all"),
            Content::None => f.write_str("none"),
            Content::Sample(percent) => write!(f, "sample={percent}"),
        }
    }
}

impl FromStr for Content {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "all" => return Ok(Content::All),
            "none" => return Ok(Content::None),
            _ => {}
        }
        let percent = text
            .strip_prefix("sample=")
            .and_then(|percent| percent.trim_end_matches('%').parse::<f64>().ok())
            .filter(|percent| (0.0..=100.0).contains(percent));
        percent
            .map(Content::Sample)
            .ok_or_else(|| "use all, none or sample=PERCENT, such as sample=5".to_owned())
    }
}

/// A place in the order in which content is read: small segments, meta
/// segments, the journal, raw segments; in each by number, then by offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    home: Home,
    offset: u64,
}

impl Position {
    pub(crate) fn new(home: Home, offset: u64) -> Self {
        Self { home, offset }
    }

    fn key(&self) -> (u8, u64, u32, u64) {
        match self.home {
            Home::Segment(id) => {
                let rank = match id.class {
                    Class::Small => 0,
                    Class::Meta => 1,
                    Class::Raw => 3,
                    Class::Chunk => 4,
                };
                (rank, id.id, id.generation, self.offset)
            }
            Home::Journal(sequence) => (2, sequence, 0, self.offset),
        }
    }

    /// Bytes that sort as positions do.
    pub(crate) fn sort_key(&self) -> [u8; 21] {
        let (rank, id, generation, offset) = self.key();
        let mut key = [0; 21];
        let parts = [rank]
            .into_iter()
            .chain(id.to_be_bytes())
            .chain(generation.to_be_bytes())
            .chain(offset.to_be_bytes());
        for (to, from) in key.iter_mut().zip(parts) {
            *to = from;
        }
        key
    }
}

impl PartialOrd for Position {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Position {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

/// The path of a file below the data folder.
pub(crate) fn path(home: &Home) -> String {
    match home {
        Home::Journal(sequence) => format!("journal/{}", journal::file_name(*sequence)),
        Home::Segment(id) => format!("data/{}/{}", id.class.folder(), segment::file_name(id)),
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", path(&self.home), self.offset)
    }
}

impl FromStr for Position {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            "use a position as a report gives it, such as data/raw/S-0000000000000001.00000000@4096"
                .to_owned()
        };
        let (file, offset) = text.rsplit_once('@').ok_or_else(wrong)?;
        let offset = offset.parse().map_err(|_| wrong())?;
        let (folder, name) = file.rsplit_once('/').ok_or_else(wrong)?;
        if folder == "journal" {
            let sequence = journal::parse_name(name).ok_or_else(wrong)?;
            return Ok(Self::new(Home::Journal(sequence), offset));
        }
        let class = folder.strip_prefix("data/").ok_or_else(wrong)?;
        let class = Class::ALL
            .into_iter()
            .find(|known| known.folder() == class)
            .ok_or_else(wrong)?;
        let (id, generation) = segment::parse_name(name).ok_or_else(wrong)?;
        let segment = SegmentId {
            volume: 0,
            class,
            generation,
            id,
        };
        Ok(Self::new(Home::Segment(segment), offset))
    }
}

/// What a check looks at, and with what.
#[derive(Debug, Clone)]
pub struct Options {
    /// How much content is compared.
    pub content: Content,
    /// What a sample is drawn by.
    pub seed: u64,
    /// Where the comparison of content begins; what lies before is passed
    /// over.
    pub from: Option<Position>,
    /// Time after which no more content is begun. The log, the index and the
    /// accounts are always looked at.
    pub budget: Option<Duration>,
    /// Folder for what does not fit into memory.
    pub scratch: Option<PathBuf>,
    /// Threads that read and hash beside the one that walks; 0: that one does
    /// it all.
    pub threads: usize,
    /// Whether the index is compared with the log.
    pub index: bool,
    /// Whether the catalog is compared with the store.
    pub catalog: bool,
    /// Who is told how far it is.
    pub progress: Arc<Progress>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            content: Content::All,
            seed: 0,
            from: None,
            budget: None,
            scratch: None,
            threads: 0,
            index: true,
            catalog: true,
            progress: Arc::default(),
        }
    }
}

/// Decides which content is compared, and knows where the time ran out.
#[derive(Debug)]
pub(crate) struct Choice {
    content: Content,
    seed: u64,
    from: Option<Position>,
    deadline: Option<Instant>,
    /// The first content that was due when the time had run out.
    pub(crate) stopped: Option<Position>,
}

impl Choice {
    pub(crate) fn new(options: &Options, started: Instant) -> Self {
        Self {
            content: options.content,
            seed: options.seed,
            from: options.from,
            deadline: options
                .budget
                .and_then(|budget| started.checked_add(budget)),
            stopped: None,
        }
    }

    /// Whether a blob is one of those that are compared.
    pub(crate) fn chosen(&self, sha256: &[u8; 32]) -> bool {
        match self.content {
            Content::All => true,
            Content::None => false,
            Content::Sample(percent) => {
                let front = sha256.first_chunk::<8>().copied().unwrap_or_default();
                // Digests are spread evenly; mixing in the seed gives another
                // even spread for each.
                let mut mixed = u64::from_le_bytes(front) ^ self.seed;
                mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
                mixed ^= mixed >> 31;
                (mixed as f64) < percent / 100.0 * (u64::MAX as f64)
            }
        }
    }

    /// Whether content at a position, which come in order, is read now.
    pub(crate) fn due(&mut self, position: &Position) -> bool {
        if self.content == Content::None || !self.covers(position) {
            return false;
        }
        if self.deadline.is_some_and(|end| Instant::now() >= end) {
            self.stopped = Some(*position);
            return false;
        }
        true
    }

    /// Whether what lies at a position was due, now that all of it came by.
    pub(crate) fn covers(&self, position: &Position) -> bool {
        self.from.as_ref().is_none_or(|from| position >= from)
            && self.stopped.as_ref().is_none_or(|stop| position < stop)
    }

    /// Whether every blob is compared, if time allows.
    pub(crate) fn whole(&self) -> bool {
        self.content == Content::All && self.from.is_none()
    }

    /// Whether any is.
    pub(crate) fn any(&self) -> bool {
        self.content != Content::None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_read_as_they_are_written_and_sort_as_content_is_read() {
        let texts = [
            "data/small/S-0000000000000009.00000000@4096",
            "data/meta/S-0000000000000002.00000000@0",
            "journal/J-0000000000000001@8192",
            "data/raw/S-0000000000000001.00000000@4096",
            "data/raw/S-0000000000000001.00000001@0",
        ];
        let positions: Vec<Position> = texts.iter().map(|text| text.parse().unwrap()).collect();
        for (text, position) in texts.iter().zip(&positions) {
            assert_eq!(position.to_string(), *text);
        }
        assert!(positions.is_sorted());
        assert!(positions.iter().map(Position::sort_key).is_sorted());
        for bad in [
            "",
            "data/raw/x@1",
            "data/raw/S-0000000000000001.00000000",
            "S@1",
        ] {
            assert!(bad.parse::<Position>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_sample_has_about_its_share_and_another_seed_another_one() {
        let draw = |seed| {
            let options = Options {
                content: "sample=10".parse().unwrap(),
                seed,
                ..Options::default()
            };
            let choice = Choice::new(&options, Instant::now());
            (0..10_000u64)
                .filter(|i| {
                    let mut sha256 = [0; 32];
                    sha256[..8]
                        .copy_from_slice(&i.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
                    choice.chosen(&sha256)
                })
                .collect::<Vec<_>>()
        };
        let (one, two) = (draw(1), draw(2));
        assert!((800..1_200).contains(&one.len()), "{}", one.len());
        assert_ne!(one, two);
        assert_eq!(one, draw(1));
    }
}
