//! The oracle of the crash tests: a process that works on a server until that
//! is gone, and writes down, durably, what it attempts and what was
//! acknowledged.
//!
//! Reading order: `journal` is the file; `model` what follows from it, that
//! is what must be there and what may be; `work` the requests. The process is
//! `src/bin/orlop-oracle.rs`; who reads its journal is `tests/crash`.

mod content;
pub mod journal;
pub mod model;
mod steps;
mod work;

pub use content::{Content, Held};
pub use work::{fill, work};
