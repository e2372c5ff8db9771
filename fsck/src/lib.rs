//! Says whether a stopped store is what the format says, as a library: the
//! program `orlop-fsck`, `orlop fsck` and the tests are its callers.
//!
//! Reads the data folder with `orlop-format` and plain files, never with the
//! engine, and changes nothing unless it is asked to repair. Memory is bounded
//! whatever the store holds: what grows with it is sorted through scratch files.
//!
//! Reading order: `command` is what a person types, `options` what a caller
//! chooses; `check` puts the questions in order; `superblock`, `journal` and
//! `segment` ask them of files; `log`, `event` and `replay` make the state that
//! the log stands for, `state` puts it together with the rest, `sort` and
//! `scratch` keep it small; `content` reads every live blob, `space` accounts
//! for segments, `index` compares RocksDB's rows, `catalog` the names; `repair`
//! mends what was found; `finding`, `object` and `report` are what comes out.

mod blobs;
mod catalog;
mod check;
mod command;
mod content;
mod event;
mod file;
mod finding;
mod index;
mod journal;
mod lock;
mod log;
mod object;
mod options;
mod progress;
mod release;
pub mod repair;
mod replay;
mod report;
mod scratch;
mod segment;
mod sort;
mod space;
mod state;
mod superblock;
mod trouble;

pub use crate::check::{store as check, with as check_with};
pub use crate::command::{Args, Flags};
pub use crate::finding::{Affected, Code, Finding, Level, Object};
pub use crate::options::{Content, Options, Position};
pub use crate::progress::Progress;
pub use crate::report::{Counts, Coverage, FORMAT, IndexState, KEPT, Report};
pub use crate::trouble::{Result, Trouble};
