//! What the sweeps share: a store on a simulated disk under a clock of its
//! own, contents with their digests, seeds and the workers that try them.
#![allow(
    dead_code,
    reason = "each sweep is a program of its own and uses a part of this"
)]

pub mod clock;
pub mod contents;
pub mod random;
pub mod workers;
pub mod world;
