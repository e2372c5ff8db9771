//! Saved hash states, as crate `sha2` lays them out, and which of them cannot
//! be: a count of blocks that is not that of the bytes, or would overflow.
//!
//! Refuses to know: the header before a state.

use sha2::digest::common::hazmat::{SerializableState, SerializedState};

use super::Algorithm;

/// The most bytes that a saved state may have seen, so that going on from it
/// never overflows the count of bits.
const HASHED_MAX: u64 = 1 << 60;

/// None if this state has not seen `len` bytes, or more than can be.
pub(super) fn check(algorithm: Algorithm, len: u64, state: &[u8]) -> Option<()> {
    let whole = u128::from(len).checked_div(block(algorithm)?)?;
    (len <= HASHED_MAX && blocks(algorithm, state)? == whole).then_some(())
}

/// Bytes of a block, of algorithms whose state can be saved.
fn block(algorithm: Algorithm) -> Option<u128> {
    match algorithm {
        Algorithm::Sha256 => Some(64),
        Algorithm::Sha512 => Some(128),
        Algorithm::Blake3 => None,
    }
}

/// Blocks that a saved state says it has seen: the number behind its eight
/// words. Crate `sha2` counts on from there, whatever it is.
fn blocks(algorithm: Algorithm, state: &[u8]) -> Option<u128> {
    match algorithm {
        Algorithm::Sha256 => {
            let count = state.get(32..40)?.try_into().ok()?;
            Some(u128::from(u64::from_le_bytes(count)))
        }
        Algorithm::Sha512 => {
            let count = state.get(64..80)?.try_into().ok()?;
            Some(u128::from_le_bytes(count))
        }
        Algorithm::Blake3 => None,
    }
}

/// A hasher of this state.
pub(super) fn restore<H: SerializableState>(state: &[u8]) -> Option<H> {
    let state = SerializedState::<H>::try_from(state).ok()?;
    H::deserialize(&state).ok()
}

#[cfg(test)]
mod tests {
    use crate::digest::{Algorithm, Hasher};

    /// Found by fuzzing: `sha2` overflowed where it finished such a state.
    #[test]
    fn a_saved_state_with_an_impossible_count_is_refused() {
        for (algorithm, count) in [(Algorithm::Sha256, 10 + 32), (Algorithm::Sha512, 10 + 64)] {
            let mut hasher = Hasher::new(algorithm);
            hasher.update(&[7; 1000]);
            let saved = hasher.save().unwrap();
            assert!(Hasher::restore(algorithm, &saved).is_some());
            let mut other = saved.clone();
            other[count + 7] = 0xff;
            assert!(Hasher::restore(algorithm, &other).is_none());
            let mut other = saved;
            other[9] = 0xff;
            assert!(Hasher::restore(algorithm, &other).is_none());
        }
    }
}
