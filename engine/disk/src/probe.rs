//! What this machine and this folder can keep: is io_uring usable, and does a
//! file system keep the promises the engine builds on.
//!
//! Owns: the questions and their answers. It tries the real thing and leaves
//! nothing behind.
//! Refuses to know: what is done about an answer.

mod folder;

pub use crate::uring::probe::ring;
pub use folder::{Fit, FolderReport, Unfit, folder, inspect};
