//! The rules of the protocol, without HTTP: what may be pushed, what a pull
//! finds, and in which order blobs and names become durable.
//!
//! Invariants: every verb asks [`access`] first; a blob is durable before a
//! name points to it; whatever tells a client that a blob is here has taken a
//! lease on it before it looks at the link; work that makes things durable
//! runs to its end even if the client goes away.
//!
//! Knows neither headers nor status codes, nor how blobs and names are kept:
//! it reaches them through the traits of [`seam`], and only `engine` and
//! `names` know which engine and which catalog stand behind those.

mod access;
mod blob;
mod engine;
mod error;
mod expunge;
mod maintenance;
mod manifest;
#[cfg(test)]
pub(crate) mod memory;
mod names;
pub mod note;
mod order;
mod page;
pub mod pulls;
mod referrer;
mod repository;
mod restore;
mod seam;
mod tag;
mod upload;

pub use access::{Subject, Verb};
pub use error::{Error, Unpaired};
pub use expunge::Alone;
pub use maintenance::{Maintenance, ReadOnly};
pub use manifest::{Pulled, Pushed};
pub use orlop_oci::{
    Algorithm, Digest, DigestError, MANIFEST_BYTES_MAX, ManifestError, NameError, Reference,
    ReferenceError, RepositoryName, Tag, TagError,
};
pub use page::{PAGE_MAX, Page};
pub use seam::{
    Blobs, Body, BodyFault, Content, ContentStream, Edge, Fault, Health, Hidden, HiddenRepository,
    Life, ManifestRow, Mismatch, Names, NewManifest, Pinned, Referrer, ReferrerPage, ReferrerQuery,
    Upload, UploadId,
};
pub use upload::Span;

use std::future::Future;
use std::sync::Arc;

use note::{Deletion, Note};
use order::Order;
use tokio::sync::{
    Mutex, MutexGuard, OwnedSemaphorePermit, RwLock, RwLockReadGuard, RwLockWriteGuard, Semaphore,
};

use crate::metrics::Verbs;
use pulls::Pulls;

/// Bytes of manifests that are being pushed, in memory at once.
const MANIFESTS_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The registry: every verb of the protocol. Cheap to clone.
#[derive(Clone)]
pub struct Registry {
    blobs: Arc<dyn Blobs>,
    names: Arc<dyn Names>,
    /// Held by work that has to reach its end, for reading.
    work: Arc<RwLock<()>>,
    order: Arc<Order>,
    /// Why nothing is written, if so.
    unpaired: Option<Unpaired>,
    maintenance: Maintenance,
    verbs: Arc<Verbs>,
    pulls: Arc<Pulls>,
    /// Bytes left of [`MANIFESTS_BYTES_MAX`].
    manifests: Arc<Semaphore>,
    /// Whether a manifest may name blobs and manifests that are not here.
    sparse_manifests: bool,
}

/// Memory for a manifest that is being pushed.
#[derive(Debug)]
pub struct ManifestRoom(#[expect(dead_code, reason = "it is held")] OwnedSemaphorePermit);

impl Registry {
    /// A registry over these blobs and names.
    pub fn new(blobs: Arc<dyn Blobs>, names: Arc<dyn Names>) -> Registry {
        Registry {
            blobs,
            names,
            work: Arc::default(),
            order: Arc::default(),
            unpaired: None,
            maintenance: Maintenance::default(),
            verbs: Arc::default(),
            pulls: Arc::default(),
            manifests: Arc::new(Semaphore::new(MANIFESTS_BYTES_MAX)),
            sparse_manifests: false,
        }
    }

    /// The same, accepting manifests that name blobs and manifests which are
    /// not here.
    #[must_use]
    pub fn with_sparse_manifests(mut self, accepted: bool) -> Registry {
        self.sparse_manifests = accepted;
        self
    }

    /// The same, refusing every push.
    #[must_use]
    pub fn without_writes(mut self, why: Unpaired) -> Registry {
        self.unpaired = Some(why);
        self
    }

    /// The same, refusing writes while this switch is on.
    #[must_use]
    pub fn with_maintenance(mut self, maintenance: Maintenance) -> Registry {
        self.maintenance = maintenance;
        self
    }

    /// The same, counting what it does there.
    #[must_use]
    pub fn counting(mut self, verbs: Arc<Verbs>) -> Registry {
        self.verbs = verbs;
        self
    }

    /// The same, remembering pulls there.
    #[must_use]
    pub fn remembering(mut self, pulls: Arc<Pulls>) -> Registry {
        self.pulls = pulls;
        self
    }

    /// Takes memory for `bytes` of a manifest that is to be pushed, until the
    /// result is dropped.
    ///
    /// # Errors
    /// `Busy` when all of it is taken; what a push would be refused for.
    pub fn manifest_room(
        &self,
        subject: Subject,
        repository: &RepositoryName,
        bytes: usize,
    ) -> Result<ManifestRoom, Error> {
        self.may_push(subject, repository)?;
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        Arc::clone(&self.manifests)
            .try_acquire_many_owned(bytes)
            .map(ManifestRoom)
            .map_err(|_| Fault::Busy("too many manifests are being pushed".to_owned()).into())
    }

    /// How blob store and catalog are.
    pub async fn health(&self) -> Health {
        let mut health = self.blobs.health().await;
        health.poisoned = health.poisoned.or_else(|| self.names.poisoned());
        health.writing = health.writing.max(self.names.writing());
        health.unpaired = self.unpaired;
        health.read_only = self.maintenance.read_only();
        health
    }

    /// Whether the subject may push to the repository, now.
    fn may_push(&self, subject: Subject, repository: &RepositoryName) -> Result<(), Error> {
        self.may(subject, Verb::Push, repository)
    }

    /// Whether the subject may delete from the repository, now.
    fn may_delete(&self, subject: Subject, repository: &RepositoryName) -> Result<(), Error> {
        self.may(subject, Verb::Delete, repository)
    }

    fn may(&self, subject: Subject, verb: Verb, repository: &RepositoryName) -> Result<(), Error> {
        access::allow(subject, verb, repository)?;
        self.unpaired
            .map_or(Ok(()), |why| Err(Error::Unpaired(why)))?;
        self.may_write()
    }

    /// Whether anything may be written, now: every verb that writes asks, also
    /// those that only take away.
    fn may_write(&self) -> Result<(), Error> {
        self.maintenance
            .read_only()
            .map_or(Ok(()), |why| Err(Error::ReadOnly(why)))
    }

    /// Deletes something that is there: a note, then the row. That somebody else
    /// deleted it just now is as good.
    async fn delete(&self, what: Deletion) -> Result<(), Error> {
        let registry = self.clone();
        self.to_the_end(async move {
            let _order = registry.order.take(what.repository()).await;
            let note = Note::Deletion(what.clone());
            registry.blobs.note(note.encode())?;
            let names = &registry.names;
            match &what {
                Deletion::Tag { repository, tag } => names.delete_tag(repository, tag).await?,
                Deletion::Manifest { repository, digest } => {
                    names.delete_manifest(repository, digest).await?
                }
                Deletion::Blob { repository, digest } => {
                    names.unlink_blob(repository, digest).await?
                }
            };
            Ok(())
        })
        .await
    }

    /// Waits until all work that has to reach its end has done so.
    pub async fn settle(&self) {
        drop(self.work.write().await);
    }

    /// Runs work that has to reach its end even if nobody waits for it any
    /// more: a connection that breaks drops the future that serves it.
    pub(crate) async fn to_the_end<T, F>(&self, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let under_way = Arc::clone(&self.work).read_owned().await;
        let task = tokio::spawn(async move {
            let _under_way = under_way;
            work.await
        });
        task.await.unwrap_or(Err(Error::Panicked))
    }
}
