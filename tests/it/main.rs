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
mod addresses;
mod blobs;
mod connections;
mod deletes;
mod errors;
mod gc;
mod health;
mod manifests;
mod operators;
mod tags;
mod tls;
mod uploads;

// Abuse cases, by the number in their names.
mod abuse_content;
mod abuse_http;
mod abuse_limits;
mod abuse_manifests;
mod abuse_names;
mod abuse_referrers;
mod abuse_tls;

// Starting, stopping, and what goes wrong in between.
mod catalog;
mod commands;
mod concurrency;
mod config;
mod damage;
mod disk_full;
mod kill;
mod maintenance;
mod notify;
mod ops;
mod recovery;
mod repair;
mod scrub;
mod starting;
mod stopping;
mod storm;

// As it is released.
mod container;
mod image;
mod service;

// Real clients.
mod clients;
