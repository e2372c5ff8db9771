//! End-to-end tests: the real `orlop` process, through its public interfaces.
//!
//! The list below is the index. Support is in `tests/src`; a test needs only
//! a repository name of its own when it uses `Server::shared()`.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failure in a test's helper fails the test with its message"
)]

// The protocol, one file per resource.
mod blobs;
mod connections;
mod errors;
mod health;
mod manifests;
mod tags;
mod uploads;

// Abuse cases, by the number in their names.
mod abuse_content;
mod abuse_http;
mod abuse_limits;
mod abuse_names;

// Starting, stopping, and what goes wrong in between.
mod catalog;
mod commands;
mod concurrency;
mod config;
mod damage;
mod disk_full;
mod kill;
mod recovery;
mod starting;
mod stopping;

// Real clients.
mod clients;
