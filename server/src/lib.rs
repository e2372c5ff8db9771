//! The Orlop container registry: HTTP, the rules of the protocol, the catalog
//! of names, and what starts and stops them around the blob store.
//!
//! A request goes [`listen`] → [`api`] → [`registry`] → engine or [`catalog`],
//! and its outcome comes back the same way as a value. [`storage`] opens and
//! closes what is behind the registry, [`jobs`] are its work in the background,
//! [`supervisor`] keeps its loops alive, [`settings`] says how, and [`commands`]
//! are what a person runs.

// They panic when nobody reads.
#![deny(clippy::print_stdout, clippy::print_stderr)]

pub mod api;
pub mod catalog;
pub mod collection;
pub mod commands;
pub mod control;
pub mod jobs;
pub mod listen;
pub mod logging;
pub mod metrics;
pub mod ops;
pub mod registry;
pub mod settings;
pub mod storage;
pub mod supervisor;
