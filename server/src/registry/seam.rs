//! What the registry asks of the blob store and of the catalog, as two narrow
//! traits, and the groups of faults it tells apart.
//!
//! The engine and the catalog stand behind them in production; other nodes
//! and an object store can later, and memory does in tests.

use std::any::Any;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, ready};
use futures_util::stream::BoxStream;
use orlop_oci::{Algorithm, Digest, RefKind, Reference, RepositoryName};

use super::error::Unpaired;
use super::maintenance::ReadOnly;

pub use orlop_format::record::UploadId;

/// Why storage could not do what it was asked, grouped by what to do next.
/// The texts are for the log, never for a client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Proven not to be there.
    #[error("not found")]
    NotFound,
    /// The content is not what it was said to be.
    #[error(transparent)]
    Mismatch(Box<Mismatch>),
    /// The request cannot be right, whenever it is made.
    #[error("invalid: {0}")]
    Invalid(String),
    /// A manifest that was to be listed was deleted for good meanwhile.
    #[error("manifest {0} was deleted meanwhile")]
    Gone(Digest),
    /// No room: refused early, nothing was harmed.
    #[error("no space: {0}")]
    Full(String),
    /// Somebody else is at it, or there is too much to do. Try again.
    #[error("busy: {0}")]
    Busy(String),
    /// It cannot answer at the moment, which is its own fault. Try again.
    #[error("not available: {0}")]
    Unavailable(String),
    /// The stored content is damaged and was set aside.
    #[error("damaged: {0}")]
    Corrupt(String),
    /// Reading or writing failed.
    #[error("input or output failed: {0}")]
    Io(String),
    /// A write failed earlier: nothing is written until a restart.
    #[error("writes are off until a restart: {0}")]
    Poisoned(String),
}

/// Content and the digest it came under.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the content has digest {actual}, not {expected}")]
pub struct Mismatch {
    /// What was promised.
    pub expected: Digest,
    /// What came.
    pub actual: Digest,
}

/// What a request body can do instead of going on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyFault {
    /// The connection ended before the body did.
    #[error("the body ended early")]
    Cut,
    /// Nothing came for too long.
    #[error("the body stalled")]
    Idle,
    /// Its framing is wrong.
    #[error("the body is malformed")]
    Malformed,
}

/// A request body, in pieces as they come from the network.
pub type Body = BoxStream<'static, Result<Bytes, BodyFault>>;

/// Verified content, in order. After an error nothing more comes.
pub type ContentStream = BoxStream<'static, Result<Bytes, Fault>>;

/// How the blob store is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Why writes are off, if they are. For the log.
    pub poisoned: Option<String>,
    /// Whether pushes are refused for want of space.
    pub full: bool,
    /// How long a write has been waiting for the disk; zero when there is none.
    pub writing: Duration,
    /// Why nothing is written until the right catalog is back, if so.
    pub unpaired: Option<Unpaired>,
    /// Why an operator switched writes off, if so.
    pub read_only: Option<Arc<ReadOnly>>,
}

/// A life of a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    /// Its size in bytes.
    pub size: u64,
    /// Tells it from an earlier and a later life of the same digest, which
    /// have a lower and a higher one.
    pub birth: u64,
}

/// What was deleted and can come back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hidden {
    /// The manifest's digest.
    pub digest: Digest,
    /// Its type.
    pub media_type: String,
    /// The tags that come back.
    pub tags: Vec<String>,
}

/// A repository that was deleted and can come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HiddenRepository {
    /// Its row, which no other has or had.
    pub row: i64,
    /// How many manifests are in it.
    pub manifests: u64,
    /// How many there are in one that has its name by now.
    pub in_the_way: u64,
    /// The row of that one, if there is one: it makes way if it has none.
    pub makes_way: Option<i64>,
}

/// Blobs held against collection until this is dropped.
pub struct Pinned {
    /// For each digest asked for, the life of the blob; None if it is not there.
    pub found: Vec<Option<Life>>,
    /// Releases the pins when it is dropped.
    pub guard: Box<dyn Any + Send + Sync>,
}

/// The blob store: digests, bytes, uploads, leases.
pub trait Blobs: Send + Sync + 'static {
    /// Opens an upload session of this owner. `also` names a second digest
    /// to compute beside SHA-256.
    fn upload_open(&self, owner: &str, also: Option<Algorithm>) -> Result<UploadId, Fault>;

    /// Bytes of an upload that would survive a crash. NotFound also for
    /// another owner's.
    fn upload_status(&self, id: UploadId, owner: &str) -> Result<u64, Fault>;

    /// Takes hold of an upload. Busy while somebody else does.
    fn upload_resume<'a>(
        &'a self,
        id: UploadId,
        owner: &'a str,
    ) -> BoxFuture<'a, Result<Box<dyn Upload>, Fault>>;

    /// Stores something small in one go. Durable when it returns.
    fn put(
        &self,
        bytes: Bytes,
        expected: Digest,
        note: Vec<u8>,
    ) -> BoxFuture<'_, Result<(), Fault>>;

    /// The life of a blob that is here. Takes a lease. NotFound also when it is
    /// damaged, so that a push heals it.
    fn stat(&self, digest: &Digest) -> Result<Life, Fault>;

    /// A blob to read. Takes a lease.
    fn read(&self, digest: &Digest) -> Result<Box<dyn Content>, Fault>;

    /// Holds blobs, and those still to come, until the result is dropped.
    fn pin(&self, digests: &[Digest]) -> Result<Pinned, Fault>;

    /// Writes a note that rides with the next group of the journal.
    fn note(&self, note: Vec<u8>) -> Result<(), Fault>;

    /// How the store is.
    fn health(&self) -> BoxFuture<'_, Health>;
}

/// An upload session that is held by one request. Dropping it keeps what the
/// last checkpoint made durable.
pub trait Upload: Send {
    /// Bytes received so far.
    fn offset(&self) -> u64;

    /// Takes in the next bytes. Waits while the disk is behind.
    fn append(&mut self, bytes: Bytes) -> BoxFuture<'_, Result<(), Fault>>;

    /// Makes what was received durable and says how much that is.
    fn checkpoint(&mut self) -> BoxFuture<'_, Result<u64, Fault>>;

    /// Ends the upload as a durable blob, and says which life of it that is. The
    /// upload is gone after a Mismatch.
    fn commit(self: Box<Self>, expected: Digest) -> BoxFuture<'static, Result<Life, Fault>>;

    /// Ends the upload without a blob.
    fn cancel(self: Box<Self>) -> BoxFuture<'static, Result<(), Fault>>;
}

/// A blob that was found.
pub trait Content: Send + Sync {
    /// Its size in bytes.
    fn size(&self) -> u64;

    /// A part of it, read ahead as it is consumed.
    fn stream(&self, range: Range<u64>) -> ContentStream;

    /// All of it, if it is not larger than `limit` bytes.
    fn bytes(&self, limit: usize) -> BoxFuture<'_, Result<Bytes, Fault>>;
}

/// What the catalog knows of a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestRow {
    /// Digest by which it was pushed.
    pub digest: Digest,
    /// Its type.
    pub media_type: String,
    /// Its size in bytes.
    pub size: u64,
}

/// One thing a manifest refers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edge {
    /// What it refers to.
    pub digest: Digest,
    /// As what.
    pub kind: RefKind,
    /// Size in bytes, as declared.
    pub size: u64,
    /// Type, as declared.
    pub media_type: String,
}

/// A manifest whose bytes are durable, to be named.
#[derive(Clone, Debug)]
pub struct NewManifest {
    /// Where.
    pub repository: RepositoryName,
    /// Digest of the bytes.
    pub digest: Digest,
    /// Its type.
    pub media_type: String,
    /// The type under which it is listed as a referrer.
    pub artifact_type: Option<String>,
    /// Its size in bytes.
    pub size: u64,
    /// The manifest it is about.
    pub subject: Option<Digest>,
    /// What it refers to, each digest once per kind.
    pub edges: Vec<Edge>,
    /// Tags to set to it.
    pub tags: Vec<String>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// Blobs of the repository that it names, held until it is named.
    pub links: Vec<(Digest, Life)>,
    /// Manifests of the repository that it lists.
    pub children: Vec<Digest>,
}

/// A manifest that is about another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Referrer {
    /// Its digest.
    pub digest: Digest,
    /// Its type.
    pub media_type: String,
    /// The type under which it is listed.
    pub artifact_type: Option<String>,
    /// Its size in bytes.
    pub size: u64,
    /// Its annotations, as the JSON object they are kept as.
    pub annotations: Option<String>,
}

/// Referrers, and the digest after which there are more, if there are.
pub type ReferrerPage = (Vec<Referrer>, Option<Digest>);

/// Which referrers are wanted.
#[derive(Clone, Copy, Debug)]
pub struct ReferrerQuery<'a> {
    /// What they are about.
    pub subject: &'a Digest,
    /// Only those of this type.
    pub artifact_type: Option<&'a str>,
    /// Only those after this digest, in the order of digests.
    pub last: Option<&'a Digest>,
    /// As many at most.
    pub limit: usize,
    /// Bytes that their manifests may have together, where there are several.
    pub bytes: u64,
}

/// The catalog: repositories, manifests, tags, links.
pub trait Names: Send + Sync + 'static {
    /// The manifest of a tag or digest, if the repository has it.
    fn manifest<'a>(
        &'a self,
        repository: &'a RepositoryName,
        reference: &'a Reference,
    ) -> BoxFuture<'a, Result<Option<ManifestRow>, Fault>>;

    /// Whether the repository has this blob.
    fn blob_linked<'a>(
        &'a self,
        repository: &'a RepositoryName,
        digest: &'a Digest,
    ) -> BoxFuture<'a, Result<bool, Fault>>;

    /// Gives the repository a blob. Durable when it returns.
    fn link_blob<'a>(
        &'a self,
        repository: &'a RepositoryName,
        digest: &'a Digest,
        life: Life,
    ) -> BoxFuture<'a, Result<(), Fault>>;

    /// Takes a blob from this repository alone. False: it did not have it.
    /// Durable when it returns, as all that follows.
    fn unlink_blob<'a>(
        &'a self,
        repository: &'a RepositoryName,
        digest: &'a Digest,
    ) -> BoxFuture<'a, Result<bool, Fault>>;

    /// Up to `n` repositories that have this blob, in no order.
    fn holders<'a>(
        &'a self,
        digest: &'a Digest,
        n: usize,
    ) -> BoxFuture<'a, Result<Vec<RepositoryName>, Fault>>;

    /// Names a manifest and sets its tags.
    fn put_manifest(&self, manifest: NewManifest) -> BoxFuture<'_, Result<(), Fault>>;

    /// Deletes a manifest with its tags. False: there was none.
    fn delete_manifest<'a>(
        &'a self,
        repository: &'a RepositoryName,
        digest: &'a Digest,
    ) -> BoxFuture<'a, Result<bool, Fault>>;

    /// The row of a repository, which no other has or had. None: there is none,
    /// as where this is not provided.
    fn repository<'a>(
        &'a self,
        _repository: &'a RepositoryName,
    ) -> BoxFuture<'a, Result<Option<i64>, Fault>> {
        ready(Ok(None)).boxed()
    }

    /// Deletes a repository with all that is in it. False: there was none, as
    /// where this is not provided.
    fn delete_repository<'a>(
        &'a self,
        _repository: &'a RepositoryName,
    ) -> BoxFuture<'a, Result<bool, Fault>> {
        ready(Ok(false)).boxed()
    }

    /// The repository of this name that was deleted last, and what stands in its
    /// way if it is to have that name from now on. None: there is none, or it
    /// cannot come back whole.
    fn hidden_repository<'a>(
        &'a self,
        _repository: &'a RepositoryName,
        _name: &'a RepositoryName,
    ) -> BoxFuture<'a, Result<Option<HiddenRepository>, Fault>> {
        ready(Ok(None)).boxed()
    }

    /// Brings the repository of a row back under that name. False: it is not
    /// deleted, or cannot come back whole, or another one is in its way.
    fn undelete_repository<'a>(
        &'a self,
        _row: i64,
        _name: &'a RepositoryName,
    ) -> BoxFuture<'a, Result<bool, Fault>> {
        ready(Ok(false)).boxed()
    }

    /// Deletes a tag. False: there was none.
    fn delete_tag<'a>(
        &'a self,
        repository: &'a RepositoryName,
        tag: &'a str,
    ) -> BoxFuture<'a, Result<bool, Fault>>;

    /// What would come back with a deleted tag or manifest. None: it is not
    /// deleted, or cannot come back, as nothing can where this is not provided.
    fn hidden<'a>(
        &'a self,
        _repository: &'a RepositoryName,
        _reference: &'a Reference,
    ) -> BoxFuture<'a, Result<Option<Hidden>, Fault>> {
        ready(Ok(None)).boxed()
    }

    /// Brings a deleted tag or manifest back, and says with which tags. None:
    /// there is none.
    fn undelete<'a>(
        &'a self,
        _repository: &'a RepositoryName,
        _reference: &'a Reference,
    ) -> BoxFuture<'a, Result<Option<Vec<String>>, Fault>> {
        ready(Ok(None)).boxed()
    }

    /// Manifests about another one, in the order of their digests, and the
    /// digest after which there are more, if there are. An unknown repository has
    /// none.
    fn referrers<'a>(
        &'a self,
        repository: &'a RepositoryName,
        query: ReferrerQuery<'a>,
    ) -> BoxFuture<'a, Result<ReferrerPage, Fault>>;

    /// Up to `n` repositories after `last`, in byte order of their names.
    fn repositories<'a>(
        &'a self,
        last: Option<&'a str>,
        n: usize,
    ) -> BoxFuture<'a, Result<Vec<RepositoryName>, Fault>>;

    /// Up to `n` tags after `last`, in order. None: no such repository.
    fn tags<'a>(
        &'a self,
        repository: &'a RepositoryName,
        last: Option<&'a str>,
        n: usize,
    ) -> BoxFuture<'a, Result<Option<Vec<String>>, Fault>>;

    /// Why nothing is written until a restart, if so. For the log.
    fn poisoned(&self) -> Option<String>;

    /// How long a change has been being written; zero when there is none.
    fn writing(&self) -> Duration;
}
