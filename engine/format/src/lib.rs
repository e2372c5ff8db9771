//! Every byte of an Orlop store that outlives the process.
//!
//! Pure and total: no I/O, no clock, no panic on any input. The engine writes
//! with it, fsck reads with it; `docs/format.md` describes it field by field.
//!
//! Reading order: [`codec`] · [`checksum`] · [`digest`] · [`header`] ·
//! [`record`] · [`commit`] · [`checkpoint`] · [`hole`] · [`group`] · [`journal`] · [`segment`] · [`superblock`] ·
//! [`location`] · [`row`].

#![deny(clippy::arithmetic_side_effects)]

pub mod checkpoint;
pub mod checksum;
pub mod codec;
pub mod commit;
pub mod digest;
pub mod group;
pub mod header;
pub mod hole;
pub mod journal;
pub mod location;
pub mod record;
pub mod remap;
pub mod row;
pub mod segment;
pub mod superblock;

/// Unit of alignment of everything on disk, bytes.
pub const BLOCK: usize = 4096;

/// The newest format this crate writes, and the newest it reads.
pub const FORMAT: u32 = 1;

/// Why bytes are not what they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// They end too soon.
    #[error("it ends too soon")]
    Truncated,
    /// A checksum, a magic number or an identity does not hold.
    #[error("its checksum or identity does not hold")]
    Checksum,
    /// A field has a value that cannot be.
    #[error("its {0} cannot be")]
    Field(&'static str),
    /// A newer version wrote them.
    #[error("its {0} is newer than this program")]
    Newer(&'static str),
}
