//! Manifests of every kind the tests push, made as plain JSON.
//!
//! Owns: media types and the JSON of images, indexes and artifacts. Builds
//! text by hand so that its exact bytes are known to the test.

use serde_json::{Value, json};

use crate::client::Client;
use crate::data;

/// OCI image manifest.
pub const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
/// OCI image index.
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// OCI image configuration.
pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// OCI layer, compressed with gzip.
pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// The empty JSON object as a configuration.
pub const EMPTY: &str = "application/vnd.oci.empty.v1+json";
/// Docker schema 2 manifest.
pub const DOCKER_IMAGE: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Docker schema 2 manifest list.
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Docker configuration.
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
/// Docker layer.
pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";

/// Bytes of a manifest with their type and digest.
#[derive(Debug, Clone)]
pub struct Manifest {
    /// Media type.
    pub media_type: String,
    /// `sha256:…` of the bytes.
    pub digest: String,
    /// What is pushed and has to come back.
    pub bytes: Vec<u8>,
}

impl Manifest {
    /// Keeps these exact bytes.
    #[must_use]
    pub fn of(media_type: &str, bytes: Vec<u8>) -> Manifest {
        Manifest {
            media_type: media_type.to_owned(),
            digest: data::sha256(&bytes),
            bytes,
        }
    }

    /// Keeps this JSON, printed with indentation.
    #[must_use]
    pub fn json(media_type: &str, value: &Value) -> Manifest {
        let bytes = serde_json::to_vec_pretty(value).expect("JSON");
        Manifest::of(media_type, bytes)
    }

    /// A descriptor of it.
    #[must_use]
    pub fn descriptor(&self) -> Value {
        descriptor(&self.media_type, &self.digest, self.bytes.len())
    }

    /// Puts it under a tag or, with the digest, under none.
    #[track_caller]
    pub fn put(&self, client: &Client, repository: &str, reference: &str) {
        let reply = client
            .put_manifest(repository, reference, &self.media_type, &self.bytes)
            .expect(201);
        assert_eq!(reply.header("docker-content-digest"), self.digest);
    }

    /// Fails the test unless the server gives it back exactly.
    #[track_caller]
    pub fn is_at(&self, client: &Client, repository: &str, reference: &str) {
        let path = crate::client::manifest(repository, reference);
        let reply = client
            .call("GET", &path, &[("Accept", &self.media_type)], "")
            .expect(200);
        assert_eq!(reply.header("content-type"), self.media_type, "{path}");
        assert_eq!(reply.header("docker-content-digest"), self.digest, "{path}");
        assert!(
            reply.body == self.bytes,
            "{path}: other bytes than were pushed"
        );
    }
}

/// A descriptor.
#[must_use]
pub fn descriptor(media_type: &str, digest: &str, size: usize) -> Value {
    json!({"mediaType": media_type, "digest": digest, "size": size})
}

/// Pushes a configuration and these layers, and makes the image's manifest
/// without pushing it.
#[track_caller]
#[must_use]
pub fn image(client: &Client, repository: &str, layers: &[&[u8]]) -> Manifest {
    image_of(client, repository, layers, [IMAGE, CONFIG, LAYER])
}

/// The same with Docker's media types.
#[track_caller]
#[must_use]
pub fn docker_image(client: &Client, repository: &str, layers: &[&[u8]]) -> Manifest {
    let types = [DOCKER_IMAGE, DOCKER_CONFIG, DOCKER_LAYER];
    image_of(client, repository, layers, types)
}

#[track_caller]
fn image_of(
    client: &Client,
    repository: &str,
    layers: &[&[u8]],
    [manifest, config, layer]: [&str; 3],
) -> Manifest {
    let ids: Vec<String> = layers.iter().map(|l| data::sha256(l)).collect();
    let settings = json!({
        "architecture": "amd64",
        "os": "linux",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": ids},
    })
    .to_string();
    let digest = client.push_blob(repository, settings.as_bytes());
    let layers: Vec<Value> = layers
        .iter()
        .map(|l| descriptor(layer, &client.push_blob(repository, l), l.len()))
        .collect();
    let value = json!({
        "schemaVersion": 2,
        "mediaType": manifest,
        "config": descriptor(config, &digest, settings.len()),
        "layers": layers,
    });
    Manifest::json(manifest, &value)
}

/// An index of these manifests.
#[must_use]
pub fn index(children: &[&Manifest]) -> Manifest {
    index_of(INDEX, children)
}

/// A Docker manifest list of these manifests.
#[must_use]
pub fn docker_list(children: &[&Manifest]) -> Manifest {
    index_of(DOCKER_LIST, children)
}

fn index_of(media_type: &str, children: &[&Manifest]) -> Manifest {
    let architectures = ["amd64", "arm64", "riscv64", "s390x"];
    let entries: Vec<Value> = children
        .iter()
        .zip(architectures.iter().cycle())
        .map(|(child, architecture)| {
            let mut entry = child.descriptor();
            entry["platform"] = json!({"architecture": architecture, "os": "linux"});
            entry
        })
        .collect();
    let value = json!({
        "schemaVersion": 2,
        "mediaType": media_type,
        "manifests": entries,
    });
    Manifest::json(media_type, &value)
}

/// Pushes the empty configuration and one file, and makes an artifact's
/// manifest, with a subject if there is one.
#[track_caller]
#[must_use]
pub fn artifact(
    client: &Client,
    repository: &str,
    file: &[u8],
    subject: Option<&Value>,
) -> Manifest {
    let config = client.push_blob(repository, b"{}");
    let layer = client.push_blob(repository, file);
    let mut value = json!({
        "schemaVersion": 2,
        "mediaType": IMAGE,
        "artifactType": "application/vnd.example.report.v1+json",
        "config": descriptor(EMPTY, &config, 2),
        "layers": [descriptor("application/json", &layer, file.len())],
        "annotations": {"org.example.made-by": "orlop tests"},
    });
    if let Some(subject) = subject {
        value["subject"] = subject.clone();
    }
    Manifest::json(IMAGE, &value)
}
