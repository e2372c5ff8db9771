//! Crash tests of the real process, with the real RocksDB and SQLite.
//!
//! Reading order: `rig` is a server under the oracle's load, `verify` compares
//! it with what was acknowledged; `kills` are the kills; `volatile` is a disk
//! that loses its power, `cuts` are these power cuts, and `slow` is the same
//! disk when it is slow; `sync_errors` are calls that strace makes fail; `full`
//! are full file systems. The oracle is in `tests/src/oracle`.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failure in a test's helper fails the test with its message"
)]

mod cuts;
mod full;
mod kills;
mod rig;
mod slow;
mod sync_errors;
mod verify;
mod volatile;

/// Whether what a test needs must be there: in CI, as root, nothing is skipped.
fn must_run() -> bool {
    std::env::var("CI").as_deref() == Ok("true") && orlop_tests::tools::is_root()
}
