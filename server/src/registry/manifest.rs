//! Manifests: pushed under a tag or digest, pulled exactly as pushed, deleted.
//!
//! A manifest is accepted when everything it needs is in its repository. Its
//! bytes and all it names are pinned from that check until the catalog has
//! its row, so that a collection in between takes nothing away.

use std::collections::HashSet;

use bytes::Bytes;
use orlop_oci::{Algorithm, Digest, Manifest, RefKind, Reference, RepositoryName, Tag};

use super::access::{self, Subject, Verb};
use super::note::{Deletion, Note};
use super::seam::{Content, Edge, Fault, Life, ManifestRow, NewManifest};
use super::{Error, ManifestRoom, Registry};

/// A manifest that is pulled.
pub struct Pulled {
    /// What the catalog knows of it.
    pub row: ManifestRow,
    /// Exactly what was pushed.
    pub content: Box<dyn Content>,
}

/// A manifest that was stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// Digest by which it can be pulled.
    pub digest: Digest,
    /// What it is about, for which it is now listed as a referrer.
    pub subject: Option<Digest>,
}

impl Registry {
    /// What is known of a manifest, without its bytes.
    pub async fn manifest_stat(
        &self,
        subject: Subject,
        repository: &RepositoryName,
        reference: &Reference,
    ) -> Result<ManifestRow, Error> {
        let row = self.manifest_row(subject, repository, reference).await?;
        self.blobs.stat(&row.digest).map_err(manifest_error)?;
        Ok(row)
    }

    /// A manifest to read. Counts as a pull.
    pub async fn manifest_pull(
        &self,
        subject: Subject,
        repository: &RepositoryName,
        reference: &Reference,
    ) -> Result<Pulled, Error> {
        let row = self.manifest_row(subject, repository, reference).await?;
        let content = self.blobs.read(&row.digest).map_err(manifest_error)?;
        self.verbs.manifest_pulls.add(1);
        self.pulls
            .record(repository.as_str(), &row.digest, reference);
        Ok(Pulled { row, content })
    }

    /// Stores a manifest. Under a tag it is addressed by SHA-256, under a
    /// digest by that, which the bytes must have. It gets all of `tags` as
    /// well.
    pub async fn manifest_push(
        &self,
        subject: Subject,
        repository: &RepositoryName,
        (reference, tags): (&Reference, &[Tag]),
        content_type: Option<&str>,
        (bytes, room): (Bytes, ManifestRoom),
    ) -> Result<Pushed, Error> {
        self.may_push(subject, repository)?;
        let manifest = Manifest::parse(&bytes, content_type)?;
        let digest = digest_for(reference, &bytes)?;
        let new = NewManifest {
            repository: repository.clone(),
            digest,
            media_type: manifest.media_type.as_str().to_owned(),
            artifact_type: manifest.effective_artifact_type().map(str::to_owned),
            size: bytes.len() as u64,
            subject: manifest.subject.as_ref().map(|s| s.digest),
            edges: edges(&manifest),
            tags: reference
                .tag()
                .into_iter()
                .chain(tags)
                .map(ToString::to_string)
                .collect(),
            annotations: manifest.annotations.clone(),
            links: Vec::new(),
            children: Vec::new(),
        };
        let registry = self.clone();
        self.to_the_end(async move {
            let _room = room;
            let subject = new.subject;
            registry.store_manifest(&manifest, new, bytes).await?;
            registry.verbs.manifest_pushes.add(1);
            Ok(Pushed { digest, subject })
        })
        .await
    }

    /// Deletes a manifest and its tags, from this repository alone. What it
    /// refers to stays.
    pub async fn manifest_delete(
        &self,
        subject: Subject,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<(), Error> {
        self.may_delete(subject, repository)?;
        let reference = Reference::Digest(*digest);
        if self.names.manifest(repository, &reference).await?.is_none() {
            return Err(self.absent(repository, Error::ManifestUnknown).await);
        }
        self.delete(Deletion::Manifest {
            repository: repository.clone(),
            digest: *digest,
        })
        .await
    }

    async fn manifest_row(
        &self,
        subject: Subject,
        repository: &RepositoryName,
        reference: &Reference,
    ) -> Result<ManifestRow, Error> {
        access::allow(subject, Verb::Pull, repository)?;
        self.names
            .manifest(repository, reference)
            .await?
            .ok_or(Error::ManifestUnknown)
    }

    async fn store_manifest(
        &self,
        manifest: &Manifest,
        mut new: NewManifest,
        bytes: Bytes,
    ) -> Result<(), Error> {
        let mut digests: Vec<Digest> = new.edges.iter().map(|edge| edge.digest).collect();
        digests.push(new.digest);
        // The store can hold what is still to come by its SHA-256 only.
        digests.push(Digest::of(Algorithm::Sha256, &bytes));
        let pinned = self.blobs.pin(&digests)?;
        self.check_references(manifest, &mut new, &pinned.found)
            .await?;
        let note = Note::Manifest {
            repository: new.repository.clone(),
            digest: new.digest,
            media_type: new.media_type.clone(),
            tags: new.tags.clone(),
        };
        let order = self.order.give(&new.repository, &new.tags).await;
        let (repository, digest, tags) = (new.repository.clone(), new.digest, new.tags.clone());
        let (mut links, mut is_noted) = (Vec::new(), false);
        let named = async {
            self.note_links(&new, &mut links).await?;
            self.blobs.put(bytes, new.digest, note.encode()).await?;
            is_noted = true;
            self.names.put_manifest(new).await
        };
        let named = named.await;
        drop(pinned.guard);
        let Err(fault) = named else { return Ok(()) };
        drop(order);
        // After that one a restart may find that it was named: it is as noted. Of all
        // others the catalog knows.
        if (is_noted || !links.is_empty())
            && !matches!(fault, Fault::Poisoned(_))
            && let Err(error) = self.note_truth(&repository, (&digest, &tags), &links).await
        {
            tracing::warn!(%repository, %digest, %error, "that a push came to nothing is not noted");
        }
        match fault {
            Fault::Gone(gone) => Err(Error::references_unknown(vec![gone])),
            fault => Err(fault.into()),
        }
    }

    /// Notes those links that come back with a manifest, and says which: somebody took
    /// them since it was checked, and noted that.
    async fn note_links(&self, new: &NewManifest, noted: &mut Vec<Digest>) -> Result<(), Fault> {
        for (digest, life) in &new.links {
            if !self.names.blob_linked(&new.repository, digest).await? {
                let note = Note::Link {
                    repository: new.repository.clone(),
                    digest: *digest,
                    size: life.size,
                };
                self.blobs.note(note.encode())?;
                noted.push(*digest);
            }
        }
        Ok(())
    }

    /// Notes what is so of a manifest, of tags and of links after a push that was noted
    /// came to nothing.
    async fn note_truth(
        &self,
        repository: &RepositoryName,
        (digest, tags): (&Digest, &[String]),
        links: &[Digest],
    ) -> Result<(), Error> {
        let _order = self.order.take(repository).await;
        for link in links {
            if !self.names.blob_linked(repository, link).await? {
                let note = Note::Deletion(Deletion::Blob {
                    repository: repository.clone(),
                    digest: *link,
                });
                self.blobs.note(note.encode())?;
            }
        }
        let by_digest = Reference::Digest(*digest);
        if self.names.manifest(repository, &by_digest).await?.is_none() {
            let is_hidden = self.names.hidden(repository, &by_digest).await?.is_some();
            let (repository, digest) = (repository.clone(), *digest);
            let note = match self.names.repository(&repository).await? {
                Some(row) if !is_hidden => Note::Purge {
                    repository,
                    digest,
                    row,
                },
                _ => Note::Deletion(Deletion::Manifest { repository, digest }),
            };
            self.blobs.note(note.encode())?;
        }
        for tag in tags {
            let by_tag = Reference::parse(tag).ok();
            let found = match &by_tag {
                Some(by_tag) => self.names.manifest(repository, by_tag).await?,
                None => None,
            };
            let note = match found {
                Some(row) => Note::Manifest {
                    repository: repository.clone(),
                    digest: row.digest,
                    media_type: row.media_type,
                    tags: vec![tag.clone()],
                },
                None => Note::Deletion(Deletion::Tag {
                    repository: repository.clone(),
                    tag: tag.clone(),
                }),
            };
            self.blobs.note(note.encode())?;
        }
        Ok(())
    }

    /// Checks that what the manifest needs is in the repository, and has the
    /// size it says. `found` is what the store has, pinned, edge by edge. What is
    /// there is to stay there until the manifest is named.
    async fn check_references(
        &self,
        manifest: &Manifest,
        new: &mut NewManifest,
        found: &[Option<Life>],
    ) -> Result<(), Error> {
        let required: HashSet<(RefKind, Digest)> = manifest
            .references()
            .filter(|reference| reference.is_required())
            .map(|reference| (reference.kind, reference.descriptor.digest))
            .collect();
        let (mut missing, mut links, mut children) = (Vec::new(), Vec::new(), Vec::new());
        for (edge, life) in new.edges.iter().zip(found) {
            let may_miss = self.sparse_manifests || !required.contains(&(edge.kind, edge.digest));
            // What is here is checked all the same.
            match life {
                Some(life) if self.is_in(&new.repository, edge).await? => {
                    if life.size != edge.size {
                        return Err(Error::DescriptorSize {
                            digest: edge.digest,
                            declared: edge.size,
                            stored: life.size,
                        });
                    }
                    match edge.kind {
                        RefKind::Config | RefKind::Layer => links.push((edge.digest, *life)),
                        RefKind::Child => children.push(edge.digest),
                        RefKind::Subject => {}
                    }
                }
                _ if may_miss => {}
                _ => missing.push(edge.digest),
            }
        }
        if missing.is_empty() {
            (new.links, new.children) = (links, children);
            Ok(())
        } else {
            Err(Error::references_unknown(missing))
        }
    }

    async fn is_in(&self, repository: &RepositoryName, edge: &Edge) -> Result<bool, Error> {
        Ok(match edge.kind {
            RefKind::Config | RefKind::Layer => {
                self.names.blob_linked(repository, &edge.digest).await?
            }
            RefKind::Child | RefKind::Subject => {
                let child = Reference::Digest(edge.digest);
                self.names.manifest(repository, &child).await?.is_some()
            }
        })
    }
}

/// What the manifest refers to, each digest once per kind.
fn edges(manifest: &Manifest) -> Vec<Edge> {
    let mut seen = HashSet::new();
    manifest
        .references()
        .filter(|reference| seen.insert((reference.kind, reference.descriptor.digest)))
        .map(|reference| Edge {
            digest: reference.descriptor.digest,
            kind: reference.kind,
            size: reference.descriptor.size,
            media_type: reference.descriptor.media_type.clone(),
        })
        .collect()
}

fn digest_for(reference: &Reference, bytes: &[u8]) -> Result<Digest, Error> {
    match reference {
        Reference::Tag(_) => Ok(Digest::of(Algorithm::Sha256, bytes)),
        Reference::Digest(expected) => {
            let actual = Digest::of(expected.algorithm(), bytes);
            if actual == *expected {
                Ok(actual)
            } else {
                Err(Error::mismatch(*expected, actual))
            }
        }
    }
}

fn manifest_error(fault: Fault) -> Error {
    match fault {
        Fault::NotFound => Error::ManifestUnknown,
        other => Error::Storage(other),
    }
}

#[cfg(test)]
#[path = "manifest_tests.rs"]
mod tests;
