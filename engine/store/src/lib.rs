//! The blob store of Orlop: log-structured, content-addressed, deduplicating.
//!
//! It knows digests, bytes, leases and opaque notes. It knows no HTTP, no
//! JSON, no repository and no user.
//!
//! The log (journal and segments) is the truth; the index is a view of it.
//! Reading order: [`store`](Store) is the front; `upload` is the way in, `blob`
//! and `pages` the way out; `journal` is the log, `view` what a record does to
//! the index; `recover`, `rebuild` and `inventory` are the start, `recycle` the
//! upkeep, `scrub` looks after what lies there; `presence` says who is here, `lease`
//! what was promised, `reach` whether the files are there, `collect` ends what
//! nobody needs, `reclaim` gives its room back, `holds` says what is in use.

mod blob;
mod budget;
mod collect;
pub mod config;
mod core;
mod error;
mod expire;
mod factory;
mod flight;
mod holds;
mod inventory;
mod journal;
mod layout;
mod lease;
mod metrics;
#[cfg(feature = "loom")]
pub mod model;
mod pages;
mod planted;
mod presence;
mod quarantine;
mod reach;
mod rebuild;
mod reclaim;
mod recover;
mod recycle;
mod runtime;
mod scrub;
mod segment;
mod session;
mod space;
mod store;
mod superblock;
mod sync;
mod upload;
mod view;

pub use crate::blob::{Blob, BlobStream};
pub use crate::collect::{Collected, Collector, Garbage, Sweep, Trailer};
pub use crate::config::Config;
pub use crate::core::Stat;
pub use crate::error::{Error, Invalid, Result};
pub use crate::factory::MemoryIndex;
#[cfg(feature = "rocks")]
pub use crate::factory::RocksIndex;
pub use crate::lease::Pin;
pub use crate::metrics::Counts;
#[cfg(feature = "planted")]
pub use crate::planted::{Guard as PlantedGuard, Planted, plant};
pub use crate::reclaim::{Reclaimed, Reclaimer, Space};
pub use crate::recover::{IndexFactory, Progress};
pub use crate::runtime::{Runtime, System};
pub use crate::scrub::{Finding, FindingCode, Scrub, ScrubPosition};
pub use crate::store::{CatalogMatch, Health, Names, Store};
pub use crate::upload::{Committed, Upload};
pub use orlop_format::digest::{Algorithm, Digest};
pub use orlop_format::record::UploadId;
