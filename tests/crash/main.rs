//! Crash tests of the real process, with the real RocksDB and SQLite.
//!
//! Reading order: `rig` is a server under the oracle's load, `verify` compares
//! it with what was acknowledged; `kills` are the kills. The oracle is in
//! `tests/src/oracle`.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failure in a test's helper fails the test with its message"
)]

mod kills;
mod rig;
mod verify;
