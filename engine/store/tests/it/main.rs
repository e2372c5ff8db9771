//! The store through its public interface.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail like tests"
)]

mod blobs; // every verb, restarts, damage, a full disk
mod clock; // a clock that tests stop and set
mod collect; // what dies, what lives, and that doubt keeps it
mod collect_errors; // an index that cannot be read while blobs die, and what a cycle reads
mod compaction; // raw segments that are joined
mod compaction_errors; // a move on a disk that is full or errs, beside readers, seals and uploads
mod damage; // flipped bytes and torn tails, case by case
mod lost; // pushes of what lies in a segment file that is missing
mod mounts; // segment files that are missing, one by one or all of them
mod open_segment; // what died where bytes still come in
mod reading; // slow readers, a disk that errs while it reads
mod real; // real files, RocksDB, ring and pool
mod rebuild; // an index made again agrees with the one that was lost
mod room_errors; // a pass on a disk that errs costs no more than it must
mod scrub; // what a scrub finds, and what it leaves alone
mod scrub_errors; // a scrub on a disk that errs, its rate, its end
mod space; // room that comes back, over crashes, failures and readers
mod support; // a store on a simulated disk
mod upkeep; // full disks, lost sectors, starts that fail
mod uploads; // uploads that are many, slow, abandoned or broken off
