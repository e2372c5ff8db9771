//! What a store holds before a collection: small images, every other one
//! deleted, and what has to be there and gone behind it.
//!
//! Each image has a config and two layers. Of every twenty, one that stays
//! and one that is deleted have the second layer in common with others of
//! their repository and of the repositories beside it. All bytes follow from a
//! seed and the image's number, so nothing is kept in mind for a million.

use crate::client::Connection;
use crate::error::Result;
use crate::load::{Object, runtime};
use crate::payload::{Noise, digest_of};
use crate::push::{self, BlobRef, ManifestPush};
use crate::server::Server;
use crate::workers::{self, Task};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Images of a repository.
const IMAGES: u64 = 100;
/// Of so many images two share a layer with others.
const SHARING: u64 = 20;
/// Repositories that share it.
const NEIGHBOURS: u64 = 8;
/// Size of each blob, in bytes.
const BLOB_SIZE: usize = 256;
/// Images that stay, and as many deleted ones, that are looked at in the end.
const VERIFIED: u64 = 100;
/// Images that are pulled again and again.
const PULLED: u64 = 1000;

/// Numbers of a shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Counts {
    /// Images that are pushed.
    pub(crate) manifests: u64,
    /// Their configs and layers, each counted once.
    pub(crate) blobs: u64,
    /// Repositories they are in.
    pub(crate) repositories: u64,
    /// Images that are deleted.
    pub(crate) deleted: u64,
    /// Manifests, configs and layers that nothing names after that.
    pub(crate) garbage: u64,
}

/// So many images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Shape {
    /// How many.
    pub(super) manifests: u64,
    seed: u64,
}

/// One image.
struct Image {
    repository: String,
    /// Config and layers that are pushed with it.
    own: Vec<Vec<u8>>,
    /// All that its manifest names.
    blobs: Vec<BlobRef>,
    body: String,
}

impl Image {
    fn digest(&self) -> String {
        digest_of(self.body.as_bytes())
    }

    fn by(&self, reference: &str) -> String {
        push::manifest_path(&self.repository, reference)
    }
}

impl Shape {
    /// So many images, of bytes that no other shape has.
    pub(crate) fn new(manifests: u64) -> Shape {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        Shape {
            manifests,
            seed: now.map_or(0, |now| now.as_nanos() as u64),
        }
    }

    /// What it comes to.
    pub(crate) fn counts(self) -> Counts {
        let repositories = self.manifests.div_ceil(IMAGES);
        let own = |number| if shares(number) { 2 } else { 3 };
        let deleted = (0..self.manifests).filter(|number| is_deleted(*number));
        let gone: u64 = deleted.clone().map(own).sum();
        let deleted = deleted.count() as u64;
        Counts {
            manifests: self.manifests,
            blobs: (0..self.manifests).map(own).sum::<u64>() + repositories.div_ceil(NEIGHBOURS),
            repositories,
            deleted,
            garbage: gone + deleted,
        }
    }

    /// Pushes all of it, deletes half and looks at the rest. The seconds that the
    /// pushes took, and the deletes.
    pub(crate) fn make(self, server: &Server) -> Result<(f64, f64)> {
        let begin = Instant::now();
        self.fill(server)?;
        let fill_seconds = begin.elapsed().as_secs_f64();
        let begin = Instant::now();
        self.delete(server)?;
        let delete_seconds = begin.elapsed().as_secs_f64();
        self.verify(server, false)?;
        Ok((fill_seconds, delete_seconds))
    }

    /// Pushes all of it.
    fn fill(self, server: &Server) -> Result<()> {
        let repositories = self.counts().repositories;
        workers::each(server.addr, repositories, &Arc::new(Bases(self)))?;
        workers::each(server.addr, self.manifests, &Arc::new(Images(self)))
    }

    /// Deletes every other image by the digest of its manifest.
    fn delete(self, server: &Server) -> Result<()> {
        let repositories = self.counts().repositories;
        workers::each(server.addr, repositories, &Arc::new(Deletes(self)))
    }

    /// Compares some of what stays with its digests, and looks whether the
    /// names of some of what was deleted are gone; with `collected` the blobs
    /// too. Returns the number of images looked at.
    pub(crate) fn verify(self, server: &Server, collected: bool) -> Result<u64> {
        runtime()?.block_on(async {
            let mut connection = Connection::open(server.addr).await?;
            let mut verified = 0;
            for number in self.sample(VERIFIED) {
                crate::stop::check()?;
                let image = self.image(number);
                let digest = image.digest();
                push::verify(&mut connection, &image.by(&tag(number)), &digest).await?;
                for (digest, _) in &image.blobs {
                    let path = push::blob_path(&image.repository, digest);
                    push::verify(&mut connection, &path, digest).await?;
                }
                verified += 1;
            }
            for number in self.sample(VERIFIED).map(|number| number + 1) {
                if number >= self.manifests {
                    continue;
                }
                let image = self.image(number);
                for reference in [tag(number), image.digest()] {
                    push::verify_gone(&mut connection, &image.by(&reference)).await?;
                }
                for bytes in image.own.iter().filter(|_| collected) {
                    let path = push::blob_path(&image.repository, &digest_of(bytes));
                    push::verify_gone(&mut connection, &path).await?;
                }
                verified += 1;
            }
            Ok(verified)
        })
    }

    /// Manifests and blobs that stay, to be pulled in turns.
    pub(crate) fn pulled(self) -> Vec<Object> {
        let mut objects = Vec::new();
        for number in self.sample(PULLED) {
            let image = self.image(number);
            let path = image.by(&tag(number));
            objects.push(object(path, image.body.len() as u64, image.digest()));
            for (digest, size) in image.blobs {
                let path = push::blob_path(&image.repository, &digest);
                objects.push(object(path, size, digest));
            }
        }
        objects
    }

    /// Numbers of images that stay, spread evenly: at most `most`.
    fn sample(self, most: u64) -> impl Iterator<Item = u64> {
        let stay = self.manifests.div_ceil(2);
        let taken = stay.min(most);
        (0..taken).map(move |at| at * stay / taken.max(1) * 2)
    }

    fn image(self, number: u64) -> Image {
        let repository = number / IMAGES;
        let parts = if shares(number) { 2 } else { 3 };
        let own: Vec<Vec<u8>> = (0..parts).map(|part| self.bytes(part, number)).collect();
        let mut blobs: Vec<BlobRef> = own.iter().map(|bytes| named(bytes)).collect();
        if shares(number) {
            blobs.push(named(&self.base(repository)));
        }
        let repository = name(repository);
        Image {
            body: ManifestPush::new(&repository, &blobs).body(number),
            repository,
            own,
            blobs,
        }
    }

    /// The layer that images of a repository share.
    fn base(self, repository: u64) -> Vec<u8> {
        self.bytes(3, repository / NEIGHBOURS)
    }

    fn bytes(self, part: u64, number: u64) -> Vec<u8> {
        let seed = Noise::new(self.seed ^ (number << 2 | part)).word();
        Noise::new(seed).bytes(BLOB_SIZE)
    }
}

fn is_deleted(number: u64) -> bool {
    number % 2 == 1
}

fn shares(number: u64) -> bool {
    number % SHARING < 2
}

fn name(repository: u64) -> String {
    format!("bench/gc/{repository:06}")
}

fn tag(number: u64) -> String {
    push::tag(number)
}

fn named(bytes: &[u8]) -> BlobRef {
    (digest_of(bytes), bytes.len() as u64)
}

fn object(path: String, size: u64, digest: String) -> Object {
    Object {
        request: push::get_request(&path),
        path,
        size,
        digest: Some(digest),
    }
}

/// Pushes the shared layer of each repository.
struct Bases(Shape);

impl Task for Bases {
    const WHAT: &'static str = "repositories";

    async fn run(&self, connection: &mut Connection, number: u64) -> Result<()> {
        push::push_bytes(connection, &name(number), &self.0.base(number)).await?;
        Ok(())
    }
}

/// Pushes each image.
struct Images(Shape);

impl Task for Images {
    const WHAT: &'static str = "images";

    async fn run(&self, connection: &mut Connection, number: u64) -> Result<()> {
        let image = self.0.image(number);
        for bytes in &image.own {
            push::push_bytes(connection, &image.repository, bytes).await?;
        }
        push::put_manifest(connection, &image.by(&tag(number)), &image.body).await?;
        Ok(())
    }
}

/// Deletes images of each repository, one after the other: peers look through
/// all tags of the repository for each.
struct Deletes(Shape);

impl Task for Deletes {
    const WHAT: &'static str = "repositories with deletes";

    async fn run(&self, connection: &mut Connection, repository: u64) -> Result<()> {
        let from = repository * IMAGES;
        let until = (from + IMAGES).min(self.0.manifests);
        for number in (from..until).filter(|number| is_deleted(*number)) {
            let image = self.0.image(number);
            push::delete(connection, &image.by(&image.digest())).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn the_counts_are_those_of_the_images() {
        for manifests in [2, 3, 99, 100, 101, 1000, 1701] {
            let shape = Shape::new(manifests);
            let (mut all, mut kept) = (HashSet::new(), HashSet::new());
            for repository in 0..manifests.div_ceil(IMAGES) {
                all.insert(digest_of(&shape.base(repository)));
            }
            let mut images = HashSet::new();
            for number in 0..manifests {
                let image = shape.image(number);
                assert_eq!(image.blobs.len(), 3);
                let blobs: Vec<String> = image.blobs.iter().map(|blob| blob.0.clone()).collect();
                if !is_deleted(number) {
                    kept.extend(blobs.iter().cloned());
                }
                all.extend(blobs);
                images.insert(image.digest());
            }
            let counts = shape.counts();
            assert_eq!(images.len() as u64, manifests);
            assert_eq!(counts.blobs, all.len() as u64);
            let gone = all.difference(&kept).count() as u64;
            assert_eq!(counts.garbage, gone + counts.deleted, "{manifests}");
        }
    }

    #[test]
    fn samples_stay_and_reach_over_all() {
        for manifests in [2, 3, 10, 1001] {
            let numbers: Vec<u64> = Shape::new(manifests).sample(100).collect();
            let different: HashSet<u64> = numbers.iter().copied().collect();
            assert_eq!(different.len(), numbers.len());
            assert!(numbers.iter().all(|n| !is_deleted(*n) && *n < manifests));
            assert_eq!(numbers.first(), Some(&0));
            assert_eq!(numbers.len() as u64, manifests.div_ceil(2).min(100));
        }
    }
}
