//! The vocabulary of a container registry: repository names, tags,
//! references, media types, and manifests with what they refer to.
//!
//! Pure: text and bytes in, typed values or a reason out. It does no I/O, and
//! knows neither HTTP nor where anything is stored. Everything here faces
//! input of strangers, so every function is total and every size is bounded.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

mod json;
pub mod manifest;
pub mod media_type;
pub mod name;
pub mod reference;
pub mod tag;

pub use manifest::{
    DESCRIPTORS_MAX, Descriptor, Kind, MANIFEST_BYTES_MAX, Manifest, ManifestError, RefKind,
};
pub use media_type::ManifestType;
pub use name::{NameError, RepositoryName};
pub use orlop_format::digest::{Algorithm, Digest, DigestError};
pub use reference::{Reference, ReferenceError};
pub use tag::{Tag, TagError};
