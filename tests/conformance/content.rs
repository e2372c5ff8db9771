//! Content of a case: blobs and manifests that name each other, ready to push.
//!
//! Owns: what descriptors, configurations, manifests and indexes look like,
//! and what a list of referrers has to say of each. Pushes nothing.

use orlop_tests::oci;
use serde_json::{Value, json};

use crate::case::{Blob, Case};
use crate::layer;

/// A layer that is not compressed.
pub(crate) const PLAIN_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// Blobs and manifests that belong together.
#[derive(Debug, Default)]
pub(crate) struct Content {
    pub(crate) blobs: Vec<Blob>,
    /// In the order in which they can be pushed.
    pub(crate) manifests: Vec<Pushed>,
    pub(crate) referrers: Vec<Referrer>,
}

/// A manifest as it is pushed and has to come back.
#[derive(Debug, Clone)]
pub(crate) struct Pushed {
    pub(crate) media_type: String,
    pub(crate) digest: String,
    pub(crate) bytes: Vec<u8>,
    pub(crate) tags: Vec<String>,
    /// Digest of its subject.
    pub(crate) subject: Option<String>,
}

/// What the list of a subject's referrers has to hold.
#[derive(Debug)]
pub(crate) struct Referrer {
    pub(crate) subject: String,
    pub(crate) descriptor: Value,
}

/// Makes content from a case's seed.
pub(crate) struct Maker<'a> {
    case: &'a Case,
    /// Whether descriptors carry the content in `data`, too.
    pub(crate) embed: bool,
    /// Whether documents carry a field nobody knows.
    pub(crate) custom: bool,
    pub(crate) content: Content,
}

impl<'a> Maker<'a> {
    pub(crate) fn new(case: &'a Case) -> Maker<'a> {
        Maker {
            case,
            embed: false,
            custom: false,
            content: Content::default(),
        }
    }

    /// Adds a blob; returns its descriptor.
    pub(crate) fn blob(&mut self, media_type: &str, bytes: Vec<u8>) -> Value {
        let blob = self.case.blob_of(bytes);
        let descriptor = self.descriptor(media_type, &blob.digest, &blob.bytes);
        if !self.content.blobs.iter().any(|b| b.digest == blob.digest) {
            self.content.blobs.push(blob);
        }
        descriptor
    }

    /// Adds a new blob of this type.
    pub(crate) fn file(&mut self, media_type: &str) -> Value {
        let bytes = self.case.bytes(2048);
        self.blob(media_type, bytes)
    }

    /// Adds a layer; returns its descriptor and the digest of its archive.
    pub(crate) fn layer(&mut self, compressed: bool) -> (Value, String) {
        let archive = layer::tar("note.txt", self.case.word().as_bytes());
        let id = self.case.algorithm.of(&archive);
        let descriptor = if compressed {
            self.blob(oci::LAYER, layer::gzip(&archive))
        } else {
            self.blob(PLAIN_LAYER, archive)
        };
        (descriptor, id)
    }

    /// Adds an image's configuration.
    pub(crate) fn config(&mut self, architecture: &str, ids: &[String]) -> Value {
        let mut config = json!({
            "architecture": architecture,
            "os": "linux",
            "author": self.case.word(),
            "rootfs": {"type": "layers", "diff_ids": ids},
        });
        self.customize(&mut config);
        self.blob(oci::CONFIG, config.to_string().into_bytes())
    }

    /// An image of so many layers; the document, not yet added.
    pub(crate) fn image(&mut self, architecture: &str, layers: usize) -> Value {
        let (layers, ids): (Vec<_>, Vec<_>) = (0..layers).map(|_| self.layer(true)).unzip();
        let config = self.config(architecture, &ids);
        image_document(&config, &layers)
    }

    /// An artifact of this type with these files; the document, not yet added.
    pub(crate) fn artifact(&mut self, artifact_type: &str, files: Vec<Value>) -> Value {
        let config = self.blob(oci::EMPTY, b"{}".to_vec());
        let mut document = image_document(&config, &files);
        document["artifactType"] = json!(artifact_type);
        document
    }

    /// Adds two images for two platforms; returns an index of them, not yet
    /// added.
    pub(crate) fn platforms(&mut self) -> Value {
        let children = ["amd64", "arm64"].map(|architecture| {
            let image = self.image(architecture, 2);
            let mut entry = self.manifest(image);
            entry["platform"] = json!({"architecture": architecture, "os": "linux"});
            entry
        });
        index_document(&children)
    }

    /// Adds a manifest or an index; returns its descriptor.
    pub(crate) fn manifest(&mut self, mut document: Value) -> Value {
        self.customize(&mut document);
        let media_type = document["mediaType"].as_str().expect("a type").to_owned();
        let bytes = document.to_string().into_bytes();
        let digest = self.case.algorithm.of(&bytes);
        let plain = oci::descriptor(&media_type, &digest, bytes.len());
        let subject = document["subject"]["digest"].as_str().map(str::to_owned);
        if let Some(subject) = &subject {
            self.content.referrers.push(Referrer {
                subject: subject.clone(),
                descriptor: listed(plain, &document),
            });
        }
        let descriptor = self.descriptor(&media_type, &digest, &bytes);
        self.content.manifests.push(Pushed {
            media_type,
            digest,
            bytes,
            tags: Vec::new(),
            subject,
        });
        descriptor
    }

    /// Adds a manifest under a tag.
    pub(crate) fn tagged(&mut self, document: Value, tag: &str) -> Value {
        let descriptor = self.manifest(document);
        self.last().tags.push(tag.to_owned());
        descriptor
    }

    /// The manifest added last.
    pub(crate) fn last(&mut self) -> &mut Pushed {
        self.content.manifests.last_mut().expect("a manifest")
    }

    /// Annotations that no other manifest of the case has.
    pub(crate) fn annotations(&self) -> Value {
        json!({
            "org.example.conformance": "hello",
            format!("org.example.{}", self.case.word()): self.case.word(),
        })
    }

    fn descriptor(&self, media_type: &str, digest: &str, bytes: &[u8]) -> Value {
        let mut descriptor = oci::descriptor(media_type, digest, bytes.len());
        if self.embed {
            descriptor["data"] = json!(layer::base64(bytes));
        }
        descriptor
    }

    fn customize(&self, document: &mut Value) {
        if self.custom {
            document[format!("org.example.{}", self.case.word())] = json!(self.case.word());
        }
    }
}

/// An image manifest.
pub(crate) fn image_document(config: &Value, layers: &[Value]) -> Value {
    json!({
        "schemaVersion": 2,
        "mediaType": oci::IMAGE,
        "config": config,
        "layers": layers,
    })
}

/// An image index.
pub(crate) fn index_document(children: &[Value]) -> Value {
    json!({
        "schemaVersion": 2,
        "mediaType": oci::INDEX,
        "manifests": children,
    })
}

/// A descriptor as the list of referrers has it: with the artifact's type, or
/// that of its configuration, or none for an index without; and annotations.
fn listed(mut descriptor: Value, document: &Value) -> Value {
    let of_config = &document["config"]["mediaType"];
    for kind in [&document["artifactType"], of_config] {
        if descriptor.get("artifactType").is_none() && kind.is_string() {
            descriptor["artifactType"] = kind.clone();
        }
    }
    if document["annotations"].is_object() {
        descriptor["annotations"] = document["annotations"].clone();
    }
    descriptor
}
