//! Changes to inputs, for the stable run: a small mutator without feedback.
//!
//! Invariant: equal seeds and equal inputs give equal changes.
//! Refuses to know: what the bytes mean, but for a target's words.

use crate::Target;

/// A small random number generator (splitmix64), so that a seed is the whole
/// input.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// Starts from a seed.
    #[must_use]
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// A random number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// One below `bound`, which is not 0.
    pub fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.number() % bound as u64).unwrap()
    }
}

/// Numbers at borders.
const BORDERS: [u64; 10] = [
    0,
    1,
    0x7f,
    0xff,
    0x7fff,
    0xffff,
    0x7fff_ffff,
    0xffff_ffff,
    i64::MAX as u64,
    u64::MAX,
];

/// Most changes at a time.
const CHANGES: usize = 5;

/// A changed copy of `input`; `other` is another input, to take parts of.
#[must_use]
pub fn mutate(target: &Target, input: &[u8], other: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..=random.below(CHANGES) {
        change(target, &mut bytes, other, random);
    }
    bytes.truncate(target.longest);
    bytes
}

fn change(target: &Target, bytes: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    let at = random.below(bytes.len() + 1);
    let rest = bytes.len() - at;
    let len = random.below(rest.min(64) + 1);
    match random.below(10) {
        0 | 1 if rest > 0 => bytes[at] ^= 1 << random.below(8),
        2 if rest > 0 => bytes[at] = u8::try_from(random.below(256)).unwrap(),
        3 => {
            let border = BORDERS[random.below(BORDERS.len())].to_le_bytes();
            let width = 1 << random.below(4);
            for (to, from) in bytes[at..].iter_mut().zip(&border[..width]) {
                *to = *from;
            }
        }
        4 => {
            bytes.drain(at..at + len);
        }
        5 => {
            let copy = bytes[at..at + len].to_vec();
            let to = random.below(bytes.len() + 1);
            bytes.splice(to..to, copy);
        }
        6 if !other.is_empty() => {
            let from = random.below(other.len());
            let part = &other[from..(from + random.below(128) + 1).min(other.len())];
            bytes.splice(at..at + len, part.iter().copied());
        }
        7 | 8 if !target.words.is_empty() => {
            let word = target.words[random.below(target.words.len())];
            let over = if random.below(2) == 0 { len } else { 0 };
            bytes.splice(at..at + over, word.bytes());
        }
        _ => {
            let new: Vec<u8> = (0..=random.below(16))
                .map(|_| u8::try_from(random.below(256)).unwrap())
                .collect();
            bytes.splice(at..at, new);
        }
    }
}
