//! Support for the tests of Orlop through its public interfaces.
//!
//! Owns: starting, stopping and killing the real `orlop` binary, a small
//! registry client, raw HTTP for requests no client would send, finding real
//! clients, and making real images without a network.
//!
//! Invariants: every test gets its own folder and port; every process started
//! here is ended when its handle is dropped; nothing here is read from Orlop's
//! own crates, so that a mistake there cannot hide itself in the test.
//!
//! Refuses to know: disk formats, SQL, the engine.
#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "support code of tests: a failure here fails the test with its message"
)]

pub mod client;
pub mod containerd;
pub mod damage;
pub mod data;
pub mod docker;
pub mod fetched;
pub mod h2;
pub mod image;
pub mod jobs;
pub mod mount;
pub mod oci;
pub mod oracle;
pub mod peer;
pub mod place;
pub mod podman;
pub mod random;
pub mod raw;
pub mod release;
pub mod reply;
pub mod server;
pub mod tls;
pub mod tools;
