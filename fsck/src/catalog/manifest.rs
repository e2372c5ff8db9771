//! Is what the catalog says of a manifest what its bytes say?
//!
//! Owns how a manifest becomes rows: the media type, the subject, the type
//! under which it is listed, what it refers to. Repair writes rows from the
//! same value that the check holds them against.

use std::collections::BTreeSet;

use orlop_format::digest::Digest;
use orlop_oci::{Manifest, RefKind};

/// One thing a manifest refers to, as a row.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Edge {
    /// 1 config, 2 layer, 3 child, 4 subject.
    pub(crate) kind: i64,
    /// Encoded digest.
    pub(crate) digest: Vec<u8>,
    pub(crate) size: i64,
    pub(crate) media_type: String,
}

/// A manifest as rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rows {
    pub(crate) media_type: String,
    pub(crate) artifact_type: Option<String>,
    pub(crate) size: i64,
    /// Encoded digest.
    pub(crate) subject: Option<Vec<u8>>,
    /// A JSON object, of manifests with a subject only.
    pub(crate) annotations: Option<String>,
    /// What it refers to, each digest once per kind, in order.
    pub(crate) edges: Vec<Edge>,
}

impl Rows {
    /// Reads a manifest that was pushed as `media_type`. The text says why
    /// that cannot be.
    pub(crate) fn of(bytes: &[u8], media_type: &str) -> Result<Self, String> {
        let manifest =
            Manifest::parse(bytes, Some(media_type)).map_err(|error| error.to_string())?;
        let subject = manifest.subject.as_ref().map(|of| of.digest.encode());
        let annotations = (subject.is_some() && !manifest.annotations.is_empty())
            .then(|| serde_json::json!(manifest.annotations).to_string());
        let mut seen = BTreeSet::new();
        let mut edges: Vec<Edge> = manifest
            .references()
            .map(|of| Edge {
                kind: number(of.kind),
                digest: of.descriptor.digest.encode(),
                size: i64::try_from(of.descriptor.size).unwrap_or(i64::MAX),
                media_type: of.descriptor.media_type.clone(),
            })
            .filter(|edge| seen.insert((edge.kind, edge.digest.clone())))
            .collect();
        edges.sort();
        Ok(Self {
            media_type: manifest.media_type.as_str().to_owned(),
            artifact_type: manifest.effective_artifact_type().map(str::to_owned),
            size: i64::try_from(bytes.len()).unwrap_or(i64::MAX),
            subject,
            annotations,
            edges,
        })
    }

    /// In which columns `found` is something else.
    pub(crate) fn differ(&self, found: &Self) -> Vec<&'static str> {
        let mut columns = Vec::new();
        let mut compare = |same: bool, column| {
            if !same {
                columns.push(column);
            }
        };
        compare(self.media_type == found.media_type, "media type");
        compare(self.artifact_type == found.artifact_type, "artifact type");
        compare(self.size == found.size, "size");
        compare(self.subject == found.subject, "subject");
        compare(
            parsed(self.annotations.as_deref()) == parsed(found.annotations.as_deref()),
            "annotations",
        );
        columns
    }
}

/// Texts of one object may differ in the order of its keys.
fn parsed(text: Option<&str>) -> Option<serde_json::Value> {
    text.map(|text| serde_json::from_str(text).unwrap_or_else(|_| text.into()))
}

/// Whether bytes have a digest.
pub(crate) fn is_of(bytes: &[u8], digest: &Digest) -> bool {
    Digest::of(digest.algorithm(), bytes) == *digest
}

fn number(kind: RefKind) -> i64 {
    match kind {
        RefKind::Config => 1,
        RefKind::Layer => 2,
        RefKind::Child => 3,
        RefKind::Subject => 4,
    }
}
