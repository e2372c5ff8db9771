//! Seeded numbers: SplitMix64. A seed is the whole input of what it decides.

/// A generator.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// A number below `bound`; 0 when that is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.number().checked_rem(bound).unwrap_or(0)
    }

    /// True in `percent` of 100 cases.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// One of them.
    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len() as u64) as usize]
    }
}

/// A seed made of two.
pub fn mix(one: u64, two: u64) -> u64 {
    Random::new(one ^ two.rotate_left(32) ^ 0x6f72_6c6f_7000_0000).number()
}

/// The seed that a whole sweep starts from: `ORLOP_SEED`, 0 without it.
pub fn base() -> u64 {
    number("ORLOP_SEED").unwrap_or(0)
}

/// A number from the environment.
///
/// # Panics
/// When the variable is there and holds something else.
pub fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    match text.parse() {
        Ok(number) => Some(number),
        Err(_) => panic!("{name} must be a number, not {text:?}"),
    }
}
