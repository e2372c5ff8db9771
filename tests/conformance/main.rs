//! Conformance: the OCI distribution specification, scenario by scenario.
//!
//! The list below is the index. [trace.md](trace.md) leads from each duty of
//! the specification to the tests that hold it.
//!
//! A scenario that depends on rules or algorithm is listed in `scenarios!` and
//! becomes one test for each pair of them: `blobs::mount::main_sha512`.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a failure in a test's helper fails the test with its message"
)]

// What scenarios are made of: the table, content, and one check per idea.
#[macro_use]
mod case;
mod check;
mod content;
mod layer;
mod life;

// Every way to push a blob, and each kind of content from push to delete.
mod blobs;
mod kinds;

// The duties, by what they are about.
mod deletes;
mod errors;
mod fallback;
mod http;
mod manifests;
mod pulls;
mod referrers;
mod tag_params;
mod tags;
mod uploads;

// From each duty to its test.
mod trace;
