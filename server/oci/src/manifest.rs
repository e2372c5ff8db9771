//! Manifests: what was pushed, read once, and what it refers to.
//!
//! Reads OCI image manifests, OCI indexes, Docker image manifests (schema 2)
//! and Docker manifest lists. The pushed bytes are what is stored and served;
//! the value here is a view of them and is never written out again.
//!
//! Refuses: bodies over [`MANIFEST_BYTES_MAX`], more than [`DESCRIPTORS_MAX`]
//! descriptors, a body whose `mediaType` is
//! not its `Content-Type`, both or neither of `layers` and `manifests`, keys
//! that appear twice, sizes that are not whole numbers, types whose
//! references it could not read, schema 1.

use std::borrow::Cow;
use std::collections::BTreeMap;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use orlop_format::digest::{Digest, DigestError};
use serde::Deserialize;

use crate::json;
use crate::media_type::{self, ManifestType};

/// The largest manifest, in bytes (the specification's minimum limit).
pub const MANIFEST_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Descriptors one manifest may have: config, layers, entries and subject.
pub const DESCRIPTORS_MAX: usize = 4096;

/// What a manifest stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A container image.
    Image,
    /// A list of manifests, one for each platform as a rule.
    Index,
    /// Anything else with a config and layers.
    Artifact,
}

/// A reference to content by digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// Type of the content, never empty.
    pub media_type: String,
    /// Digest of the content.
    pub digest: Digest,
    /// Size of the content in bytes, at most `i64::MAX`.
    pub size: u64,
}

/// The role of a descriptor in its manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RefKind {
    /// The config of an image or artifact: a blob.
    Config,
    /// A layer, or an entry of an index that is no manifest: a blob.
    Layer,
    /// A manifest listed by an index.
    Child,
    /// The manifest this one is about. It need not exist.
    Subject,
}

/// One descriptor of a manifest and its role.
#[derive(Clone, Copy, Debug)]
pub struct Ref<'a> {
    /// The role.
    pub kind: RefKind,
    /// The descriptor.
    pub descriptor: &'a Descriptor,
}

impl Ref<'_> {
    /// Whether the content must be in the registry before the manifest.
    /// Subjects and layers that may not be distributed need not be.
    pub fn is_required(&self) -> bool {
        match self.kind {
            RefKind::Config | RefKind::Child => true,
            RefKind::Layer => !media_type::is_non_distributable(&self.descriptor.media_type),
            RefKind::Subject => false,
        }
    }
}

/// A manifest that was read.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// What it stands for.
    pub kind: Kind,
    /// Its own type.
    pub media_type: ManifestType,
    /// The `artifactType` it declares.
    pub artifact_type: Option<String>,
    /// The config, of images and artifacts.
    pub config: Option<Descriptor>,
    /// The layers, in order, of images and artifacts.
    pub layers: Vec<Descriptor>,
    /// The entries of an index, in order.
    pub manifests: Vec<Descriptor>,
    /// The manifest this one is about.
    pub subject: Option<Descriptor>,
    /// Its own annotations, not those of its descriptors.
    pub annotations: BTreeMap<String, String>,
}

/// Why bytes are not a manifest that can be stored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// Over [`MANIFEST_BYTES_MAX`].
    #[error("the manifest is larger than {MANIFEST_BYTES_MAX} bytes")]
    TooLarge,
    /// Over [`DESCRIPTORS_MAX`].
    #[error("the manifest has {0} descriptors, at most {DESCRIPTORS_MAX} are allowed; split it up")]
    TooMany(usize),
    /// Not JSON, or not of the shape its type asks for.
    #[error("the manifest cannot be read: {0}")]
    Json(String),
    /// No type was given, neither by header nor in the body.
    #[error("the manifest has no type: set Content-Type, or mediaType in the body")]
    Untyped,
    /// A type the registry does not know.
    #[error("manifests of type {0:?} are not supported; push one of {supported}", supported = supported_types())]
    UnknownType(String),
    /// Docker's schema 1.
    #[error(
        "manifests of Docker's schema 1 are not supported: push the image again with a current client, which uses schema 2 or OCI"
    )]
    Schema1,
    /// Header and body disagree.
    #[error("Content-Type is {header:?} but the body's mediaType is {body:?}: they must be equal")]
    TypeMismatch {
        /// From the header.
        header: String,
        /// From the body.
        body: String,
    },
    /// A field that is wrong for this type.
    #[error("field {field} {reason}")]
    Field {
        /// Its path, such as `layers[3].size`.
        field: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A digest in the body is malformed or of an unknown algorithm.
    #[error("field {field}: {source}")]
    Digest {
        /// Its path, such as `layers[3].digest`.
        field: String,
        /// What is wrong with it.
        source: DigestError,
    },
}

fn supported_types() -> String {
    ManifestType::ALL.map(ManifestType::as_str).join(", ")
}

impl Manifest {
    /// Reads a pushed manifest. `content_type` is the request's header.
    pub fn parse(bytes: &[u8], content_type: Option<&str>) -> Result<Manifest, ManifestError> {
        if bytes.len() > MANIFEST_BYTES_MAX {
            return Err(ManifestError::TooLarge);
        }
        json::check(bytes).map_err(unreadable)?;
        let body: Body<'_> = serde_json::from_slice(bytes).map_err(unreadable)?;
        let count = body.descriptors();
        if count > DESCRIPTORS_MAX {
            return Err(ManifestError::TooMany(count));
        }
        let media_type = agree_on_type(content_type, &body)?;
        if body.schema_version != 2 {
            return Err(field("schemaVersion", "must be 2"));
        }
        if media_type.is_index() {
            index(media_type, body)
        } else {
            image(media_type, body)
        }
    }

    /// Everything it refers to, in the order of the document: config, layers
    /// or entries, subject. The same digest may come more than once.
    pub fn references(&self) -> impl Iterator<Item = Ref<'_>> {
        let with = |kind| move |descriptor| Ref { kind, descriptor };
        let entry = |descriptor: &'_ Descriptor| {
            // Build caches list layers in an index. They are blobs.
            match ManifestType::from_name(&descriptor.media_type) {
                Some(_) => RefKind::Child,
                None => RefKind::Layer,
            }
        };
        let config = self.config.iter().map(with(RefKind::Config));
        let layers = self.layers.iter().map(with(RefKind::Layer));
        let manifests = self.manifests.iter().map(move |descriptor| Ref {
            kind: entry(descriptor),
            descriptor,
        });
        let subject = self.subject.iter().map(with(RefKind::Subject));
        config.chain(layers).chain(manifests).chain(subject)
    }

    /// The artifact type under which it is listed as a referrer: what it
    /// declares, else the type of its config.
    pub fn effective_artifact_type(&self) -> Option<&str> {
        self.artifact_type
            .as_deref()
            .or_else(|| self.config.as_ref().map(|c| c.media_type.as_str()))
    }
}

/// The fields of all four types, as written.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    #[serde(default)]
    schema_version: u64,
    #[serde(borrow, default)]
    media_type: Option<Cow<'a, str>>,
    #[serde(default)]
    artifact_type: Option<String>,
    #[serde(borrow, default)]
    config: Option<RawDescriptor<'a>>,
    #[serde(borrow, default, deserialize_with = "present")]
    layers: Option<Vec<RawDescriptor<'a>>>,
    #[serde(borrow, default, deserialize_with = "present")]
    manifests: Option<Vec<RawDescriptor<'a>>>,
    #[serde(borrow, default)]
    subject: Option<RawDescriptor<'a>>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

impl Body<'_> {
    fn descriptors(&self) -> usize {
        let listed = [&self.layers, &self.manifests].map(|list| list.as_ref().map_or(0, Vec::len));
        let single = [&self.config, &self.subject].map(|one| usize::from(one.is_some()));
        listed
            .into_iter()
            .chain(single)
            .fold(0, usize::saturating_add)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDescriptor<'a> {
    #[serde(borrow)]
    media_type: Cow<'a, str>,
    #[serde(borrow)]
    digest: Cow<'a, str>,
    size: u64,
    #[serde(borrow, default)]
    data: Option<Cow<'a, str>>,
}

/// A list that is present, where `null`, as some clients write an empty list,
/// counts as empty.
fn present<'de, D, T>(deserializer: D) -> Result<Option<Vec<T>>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de>,
{
    let list = Option::<Vec<T>>::deserialize(deserializer)?;
    Ok(Some(list.unwrap_or_default()))
}

/// The one type that header and body agree on.
fn agree_on_type(
    content_type: Option<&str>,
    body: &Body<'_>,
) -> Result<ManifestType, ManifestError> {
    let header = content_type
        .map(media_type::essence)
        .filter(|t| !t.is_empty());
    let in_body = body.media_type.as_deref().filter(|t| !t.is_empty());
    let name = match (header, in_body) {
        (Some(header), Some(body)) if header != body => {
            return Err(ManifestError::TypeMismatch {
                header,
                body: shorten(body),
            });
        }
        (Some(header), _) => header,
        (None, Some(body)) => body.to_owned(),
        (None, None) => return Err(ManifestError::Untyped),
    };
    if media_type::is_schema_1(&name) || body.schema_version == 1 {
        return Err(ManifestError::Schema1);
    }
    let Some(known) = ManifestType::from_name(&name) else {
        return Err(ManifestError::UnknownType(shorten(&name)));
    };
    if known.is_docker() && in_body.is_none() {
        return Err(field("mediaType", "is missing"));
    }
    Ok(known)
}

fn image(media_type: ManifestType, body: Body<'_>) -> Result<Manifest, ManifestError> {
    if body.manifests.is_some() {
        return Err(field("manifests", "does not belong into an image manifest"));
    }
    let config = body.config.ok_or_else(|| field("config", "is missing"))?;
    let config = config.check("config")?;
    let layers = body.layers.ok_or_else(|| field("layers", "is missing"))?;
    let (artifact_type, subject) =
        oci_fields(media_type, body.artifact_type, body.subject.as_ref())?;
    let is_image = artifact_type.is_none() && media_type::is_image_config(&config.media_type);
    Ok(Manifest {
        kind: if is_image {
            Kind::Image
        } else {
            Kind::Artifact
        },
        media_type,
        artifact_type,
        config: Some(config),
        layers: check_all("layers", &layers)?,
        manifests: Vec::new(),
        subject,
        annotations: body.annotations.unwrap_or_default(),
    })
}

fn index(media_type: ManifestType, body: Body<'_>) -> Result<Manifest, ManifestError> {
    if body.layers.is_some() {
        return Err(field("layers", "does not belong into an index"));
    }
    if body.config.is_some() {
        return Err(field("config", "does not belong into an index"));
    }
    let manifests = body
        .manifests
        .ok_or_else(|| field("manifests", "is missing"))?;
    let (artifact_type, subject) =
        oci_fields(media_type, body.artifact_type, body.subject.as_ref())?;
    Ok(Manifest {
        kind: Kind::Index,
        media_type,
        artifact_type,
        config: None,
        layers: Vec::new(),
        manifests: check_all("manifests", &manifests)?,
        subject,
        annotations: body.annotations.unwrap_or_default(),
    })
}

/// `artifactType` and `subject`, which Docker's types do not have.
fn oci_fields(
    media_type: ManifestType,
    artifact_type: Option<String>,
    subject: Option<&RawDescriptor<'_>>,
) -> Result<(Option<String>, Option<Descriptor>), ManifestError> {
    if media_type.is_docker() {
        return Ok((None, None));
    }
    let artifact_type = artifact_type.filter(|t| !t.is_empty());
    if artifact_type
        .as_deref()
        .is_some_and(|t| !media_type::is_well_formed(t))
    {
        return Err(field("artifactType", "is not a media type"));
    }
    let subject = subject.map(|s| s.check("subject")).transpose()?;
    Ok((artifact_type, subject))
}

fn check_all(name: &str, raw: &[RawDescriptor<'_>]) -> Result<Vec<Descriptor>, ManifestError> {
    raw.iter()
        .enumerate()
        .map(|(i, descriptor)| {
            descriptor
                .parse()
                .map_err(|fault| fault.at(&format!("{name}[{i}]")))
        })
        .collect()
}

/// What is wrong with a descriptor, before it is known which one it is.
enum Fault {
    MediaType,
    Size,
    Digest(DigestError),
    Data(&'static str),
}

impl Fault {
    fn at(self, path: &str) -> ManifestError {
        match self {
            Fault::MediaType => field(&format!("{path}.mediaType"), "is not a media type"),
            Fault::Size => field(&format!("{path}.size"), "is too large"),
            Fault::Digest(source) => ManifestError::Digest {
                field: format!("{path}.digest"),
                source,
            },
            Fault::Data(reason) => field(&format!("{path}.data"), reason),
        }
    }
}

impl RawDescriptor<'_> {
    fn check(&self, path: &str) -> Result<Descriptor, ManifestError> {
        self.parse().map_err(|fault| fault.at(path))
    }

    fn parse(&self) -> Result<Descriptor, Fault> {
        if !media_type::is_well_formed(&self.media_type) {
            return Err(Fault::MediaType);
        }
        if i64::try_from(self.size).is_err() {
            return Err(Fault::Size);
        }
        let digest = Digest::parse(&self.digest).map_err(Fault::Digest)?;
        if let Some(data) = &self.data {
            self.check_data(data, &digest).map_err(Fault::Data)?;
        }
        Ok(Descriptor {
            media_type: self.media_type.clone().into_owned(),
            digest,
            size: self.size,
        })
    }

    /// Embedded content must be the content: a client may take it instead of
    /// the blob. Never larger than the manifest that has it.
    fn check_data(&self, data: &str, digest: &Digest) -> Result<(), &'static str> {
        let content = BASE64_STANDARD
            .decode(data)
            .map_err(|_| "is not base64 with padding (RFC 4648, section 4)")?;
        if content.len() as u64 != self.size {
            return Err("has another length than size says");
        }
        if Digest::of(digest.algorithm(), &content) != *digest {
            return Err("has another digest than digest says");
        }
        Ok(())
    }
}

fn field(field: &str, reason: &'static str) -> ManifestError {
    ManifestError::Field {
        field: field.to_owned(),
        reason,
    }
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "it is the shape that map_err wants"
)]
fn unreadable(error: serde_json::Error) -> ManifestError {
    ManifestError::Json(shorten(&error.to_string()))
}

/// What is named back to a client stays short.
fn shorten(text: &str) -> String {
    text.chars().take(200).collect()
}

#[cfg(test)]
mod tests;
