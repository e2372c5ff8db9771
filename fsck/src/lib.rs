//! Says whether a stopped store is what the format says, as a library: the
//! program `orlop-fsck`, `orlop fsck` and the tests are its callers.
//!
//! Reads the data folder with `orlop-format` and plain files, never with the
//! engine, and changes nothing.
//!
//! Reading order: `command` is what a person types; `check` puts the questions
//! in order; `superblock`, `journal` and `segment` ask them of files; `replay`
//! makes the state the log stands for; `content` reads every live blob;
//! `finding` is what comes out.

mod catalog;
mod check;
mod command;
mod content;
mod file;
mod finding;
mod journal;
mod lock;
pub mod repair;
mod replay;
mod segment;
mod superblock;

pub use crate::check::store as check;
pub use crate::command::Args;
pub use crate::finding::{Counts, Finding, Level, Report, Result, Trouble};
