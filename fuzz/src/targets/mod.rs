//! The targets, one a file. Each file's comment says which properties it holds.

pub mod checkpoint;
pub mod digest;
pub mod frame;
pub mod fsck;
pub mod group;
pub mod manifest;
pub mod media_type;
pub mod name;
pub mod note;
pub mod range;
pub mod record;
pub mod route;
pub mod row;
pub mod segment_scan;
pub mod settings;
pub mod store;
pub mod superblock;
