//! The contents that are pushed: few of them, so that what has died is pushed
//! again, and by two digests.

use bytes::Bytes;
use orlop::registry::{Algorithm, Digest};
use serde_json::{Value, json};

use crate::random::Random;

pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// Layers there are, and configs.
const LAYERS: usize = 20;
const CONFIGS: usize = 24;
/// Images there are, beside those with a subject.
const RECIPES: u64 = 60;

#[derive(Debug, Clone)]
pub(crate) struct Blob {
    pub(crate) bytes: Bytes,
    pub(crate) sha256: Digest,
    pub(crate) sha512: Digest,
}

impl Blob {
    pub(crate) fn new(bytes: Bytes) -> Blob {
        Blob {
            sha256: Digest::of(Algorithm::Sha256, &bytes),
            sha512: Digest::of(Algorithm::Sha512, &bytes),
            bytes,
        }
    }

    pub(crate) fn digest(&self, of: Algorithm) -> Digest {
        match of {
            Algorithm::Sha512 => self.sha512,
            _ => self.sha256,
        }
    }
}

pub(crate) struct Pool {
    pub(crate) layers: Vec<Blob>,
    pub(crate) configs: Vec<Blob>,
}

/// An image to be pushed: its blobs by the digests that it names them by.
pub(crate) struct Image {
    pub(crate) config: Blob,
    pub(crate) layers: Vec<(Blob, Digest)>,
    pub(crate) bytes: Bytes,
}

impl Pool {
    pub(crate) fn new() -> Pool {
        let content = |random: &mut Random, of: &str, number: usize, len: usize| {
            let mut bytes = format!("{of} {number} ").into_bytes();
            bytes.extend((0..len).map(|_| random.any() as u8));
            Blob::new(bytes.into())
        };
        let mut random = Random::new(1);
        let layers = (0..LAYERS).map(|number| {
            let len = match number % 7 {
                0 => 100_000 + random.index(200_000),
                1 => 5_000 + random.index(60_000),
                _ => random.index(3_000),
            };
            content(&mut random, "layer", number, len)
        });
        let layers = layers.collect();
        let configs = (0..CONFIGS).map(|number| {
            let len = random.index(500);
            content(&mut random, "config", number, len)
        });
        let configs = configs.collect();
        Pool { layers, configs }
    }

    pub(crate) fn blobs(&self) -> impl Iterator<Item = &Blob> {
        self.layers.iter().chain(&self.configs)
    }

    pub(crate) fn of(&self, digest: &Digest) -> Option<&Blob> {
        self.blobs()
            .find(|blob| blob.sha256 == *digest || blob.sha512 == *digest)
    }

    /// One of the images, about a subject if one is given.
    pub(crate) fn image(&self, random: &mut Random, subject: Option<(&Digest, usize)>) -> Image {
        let recipe = random.below(RECIPES);
        let mut choice = Random::new(recipe);
        let config = self.configs[choice.index(CONFIGS)].clone();
        let mut layers = Vec::new();
        for _ in 0..=choice.below(3) {
            let layer = self.layers[choice.index(LAYERS)].clone();
            let digest = if choice.percent(10) {
                layer.sha512
            } else {
                layer.sha256
            };
            if layers.iter().all(|(_, other)| *other != digest) {
                layers.push((layer, digest));
            }
        }
        let mut text = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": descriptor("application/vnd.oci.image.config.v1+json",
                &config.sha256, config.bytes.len()),
            "layers": layers.iter().map(|(layer, digest)| descriptor(
                "application/vnd.oci.image.layer.v1.tar", digest, layer.bytes.len(),
            )).collect::<Vec<_>>(),
            "annotations": { "recipe": recipe.to_string() },
        });
        if let Some((digest, size)) = subject {
            text["subject"] = descriptor(MANIFEST, digest, size);
        }
        Image {
            config,
            layers,
            bytes: text.to_string().into(),
        }
    }
}

/// An image of one layer.
pub(crate) fn plain(config: &Blob, layer: &Blob) -> Bytes {
    let part = |kind: &str, blob: &Blob| descriptor(kind, &blob.sha256, blob.bytes.len());
    let text = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": part("application/vnd.oci.image.config.v1+json", config),
        "layers": [part("application/vnd.oci.image.layer.v1.tar", layer)],
    });
    text.to_string().into()
}

pub(crate) fn index(children: &[(&str, Digest, usize)]) -> Bytes {
    let children: Vec<_> = children
        .iter()
        .map(|(kind, digest, size)| descriptor(kind, digest, *size))
        .collect();
    let text = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": children });
    text.to_string().into()
}

fn descriptor(kind: &str, digest: &Digest, size: usize) -> Value {
    json!({ "mediaType": kind, "digest": digest.to_string(), "size": size })
}
