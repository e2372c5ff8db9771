//! Choices from a seed, the same on every machine.

/// SplitMix64: small, and good enough to choose by.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// Choices that depend on this seed alone.
    #[must_use]
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// Choices of a part of a run: of one round, or one thread.
    #[must_use]
    pub fn part(seed: u64, number: u64) -> Random {
        let mut random = Random(seed ^ number.rotate_left(40));
        random.any();
        random
    }

    /// Any number.
    pub fn any(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below this one, which must not be 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.any() % end
    }

    /// The same as an index or a size.
    pub fn index(&mut self, end: usize) -> usize {
        usize::try_from(self.below(end as u64)).unwrap_or(0)
    }

    /// True so many times of a hundred.
    pub fn percent(&mut self, times: u64) -> bool {
        self.below(100) < times
    }

    /// One of them; nothing of none.
    pub fn one<'a, T>(&mut self, of: &'a [T]) -> Option<&'a T> {
        if of.is_empty() {
            return None;
        }
        let at = self.index(of.len());
        of.get(at)
    }
}
