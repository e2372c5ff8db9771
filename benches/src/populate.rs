//! One repository filled as years of use would fill it: many manifests, each
//! with a config and a layer of its own beside shared layers, and many tags.
//!
//! Tags go into the PUT of their manifest where the server takes them there
//! (it names them in `OCI-Tag`), else each into a PUT of its own.

use crate::client::Connection;
use crate::error::Result;
use crate::load::runtime;
use crate::payload::{Payload, digest_of};
use crate::push::{self, BlobPush, BlobRef, LAYERS, ManifestPush};
use crate::server::Server;
use crate::workers::{self, Task};
use serde::Serialize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Tags in one PUT.
const TAGS_PER_PUT: usize = 64;
/// Size of each blob, in bytes.
const BLOB_SIZE: u64 = 1024;
/// Blobs that belong to one manifest only: its config and one layer.
const OWN_BLOBS: u64 = 2;
/// Layers that every manifest names.
const SHARED: u64 = LAYERS as u64 - 1;
/// Manifests that are fetched and compared when all is pushed.
const VERIFIED: u64 = 50;

/// How full a repository is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Population {
    /// Manifests, at least one.
    pub(crate) manifests: u64,
    /// Tags, spread evenly over the manifests.
    pub(crate) tags: u64,
}

impl Population {
    /// Blobs in the repository.
    pub(crate) fn blobs(self) -> u64 {
        self.manifests * OWN_BLOBS + SHARED
    }

    /// The tags of manifest `number`.
    fn tags_of(self, number: u64) -> Vec<String> {
        let upto = |number: u64| number * self.tags / self.manifests.max(1);
        (upto(number)..upto(number + 1)).map(tag).collect()
    }
}

/// Name of the tag with this index; names sort as indexes do.
pub(crate) fn tag(index: u64) -> String {
    format!("p{index:08}")
}

/// Fills `repository`; returns the time it took, in seconds.
pub(crate) fn fill(server: &Server, repository: &str, population: Population) -> Result<f64> {
    let begin = Instant::now();
    let task = Arc::new(Filler {
        repository: repository.to_owned(),
        population,
        blobs: BlobPush::new(repository, Payload::new(BLOB_SIZE)),
        shared: runtime()?.block_on(shared(server, repository))?,
        tag_by_tag: AtomicBool::new(false),
        sample: Mutex::new(Vec::new()),
    });
    workers::each(server.addr, population.manifests, &task)?;
    let seconds = begin.elapsed().as_secs_f64();
    runtime()?.block_on(task.verify(server))?;
    Ok(seconds)
}

/// Pushes the layers that every manifest names.
async fn shared(server: &Server, repository: &str) -> Result<Vec<BlobRef>> {
    let mut connection = Connection::open(server.addr).await?;
    let push = BlobPush::new(repository, Payload::new(BLOB_SIZE));
    let mut shared = Vec::new();
    for _ in 0..SHARED {
        shared.push((push.push_at_once(&mut connection).await?, push.size()));
    }
    Ok(shared)
}

struct Filler {
    repository: String,
    population: Population,
    blobs: BlobPush,
    shared: Vec<BlobRef>,
    /// Whether the server was seen to take no tags beside a digest.
    tag_by_tag: AtomicBool,
    /// Manifests to be compared in the end: number and digest.
    sample: Mutex<Vec<(u64, String)>>,
}

impl Task for Filler {
    const WHAT: &'static str = "manifests";

    async fn run(&self, connection: &mut Connection, number: u64) -> Result<()> {
        let mut blobs = Vec::with_capacity(LAYERS + 1);
        for _ in 0..OWN_BLOBS {
            let digest = self.blobs.push_at_once(connection).await?;
            blobs.push((digest, self.blobs.size()));
        }
        blobs.extend(self.shared.iter().cloned());
        let body = ManifestPush::new(&self.repository, &blobs).body(number);
        let digest = digest_of(body.as_bytes());
        let tags = self.population.tags_of(number);
        if tags.is_empty() {
            let path = push::manifest_path(&self.repository, &digest);
            push::put_manifest(connection, &path, &body).await?;
        }
        for group in tags.chunks(TAGS_PER_PUT) {
            self.put(connection, &digest, &body, group).await?;
        }
        let every = (self.population.manifests / VERIFIED).max(1);
        if number.is_multiple_of(every) || number + 1 == self.population.manifests {
            self.sample().push((number, digest));
        }
        Ok(())
    }
}

impl Filler {
    /// Pushes a manifest under some tags.
    async fn put(
        &self,
        connection: &mut Connection,
        digest: &str,
        body: &str,
        tags: &[String],
    ) -> Result<()> {
        if tags.len() > 1 && !self.tag_by_tag.load(Ordering::Relaxed) {
            let path = push::manifest_path(&self.repository, digest);
            let path = format!("{path}?tag={}", tags.join("&tag="));
            let head = push::put_manifest(connection, &path, body).await?;
            if head.tags == tags.len() {
                return Ok(());
            }
            self.tag_by_tag.store(true, Ordering::Relaxed);
        }
        for tag in tags {
            let path = push::manifest_path(&self.repository, tag);
            push::put_manifest(connection, &path, body).await?;
        }
        Ok(())
    }

    fn sample(&self) -> MutexGuard<'_, Vec<(u64, String)>> {
        self.sample.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fetches some manifests by their last tag, those with the first and
    /// the last number among them, and compares.
    async fn verify(&self, server: &Server) -> Result<()> {
        let mut connection = Connection::open(server.addr).await?;
        let sample = std::mem::take(&mut *self.sample());
        for (number, digest) in sample {
            let reference = match self.population.tags_of(number).last() {
                Some(tag) => tag.clone(),
                None => digest.clone(),
            };
            let path = push::manifest_path(&self.repository, &reference);
            push::verify(&mut connection, &path, &digest).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tag_is_on_one_manifest() {
        for (manifests, tags) in [(10, 100), (7, 30), (30, 7), (1, 5), (3, 0)] {
            let population = Population { manifests, tags };
            let all: Vec<String> = (0..manifests)
                .flat_map(|number| population.tags_of(number))
                .collect();
            let expected: Vec<String> = (0..tags).map(tag).collect();
            assert_eq!(all, expected, "{manifests} manifests, {tags} tags");
        }
    }
}
