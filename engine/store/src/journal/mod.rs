//! The journal: the write-ahead log of the store.
//!
//! [`files`] creates, opens and recycles its files; [`scan`] reads them back
//! and tells a torn tail from corruption; [`writer`] is the one thread that
//! appends groups; [`queue`] is how everyone else reaches it.

pub(crate) mod files;
pub(crate) mod queue;
pub(crate) mod scan;
pub(crate) mod writer;
