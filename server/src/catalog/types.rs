//! What goes into the catalog and what comes out of it. Data only.

use std::time::{Duration, UNIX_EPOCH};

use orlop_format::digest::Digest;

/// A time of a row, in milliseconds since 1970, for people: RFC 3339 in UTC.
#[must_use]
pub fn rfc3339(at: i64) -> String {
    let since = Duration::from_millis(at.max(0).unsigned_abs());
    humantime::format_rfc3339_seconds(UNIX_EPOCH + since).to_string()
}

/// What the catalog knows of a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestRow {
    /// Digest by which it was pushed.
    pub digest: Digest,
    /// Its type.
    pub media_type: String,
    /// Its size in bytes.
    pub size: u64,
}

/// As what a manifest refers to something. The numbers are those in the
/// catalog and never change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EdgeKind {
    /// The config of an image or artifact: a blob.
    Config = 1,
    /// A layer: a blob.
    Layer = 2,
    /// A manifest listed by an index.
    Child = 3,
    /// The manifest this one is about.
    Subject = 4,
}

/// One thing a manifest refers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edge {
    /// What it refers to.
    pub digest: Digest,
    /// As what.
    pub kind: EdgeKind,
    /// Size in bytes, as declared.
    pub size: u64,
    /// Type, as declared.
    pub media_type: String,
}

/// A manifest whose bytes are durable, to be named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PutManifest {
    /// Where. The repository is made if there is none of this name.
    pub repository: String,
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
    /// Its annotations as a JSON object, for lists of referrers.
    pub annotations: Option<String>,
    /// Blobs of the repository that it names and that are held: their links
    /// stay, whatever happened meanwhile.
    pub links: Vec<LinkedBlob>,
    /// Manifests of the repository that it lists: they stay, too.
    pub children: Vec<Digest>,
}

/// A blob of a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkedBlob {
    /// By which the repository has it.
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
    /// Of the life that is here.
    pub birth: u64,
}

/// A manifest that is about another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Referrer {
    /// Its digest.
    pub digest: Digest,
    /// Its type.
    pub media_type: String,
    /// The type under which it is listed.
    pub artifact_type: Option<String>,
    /// Its size in bytes.
    pub size: u64,
    /// Its annotations as a JSON object.
    pub annotations: Option<String>,
}

/// What was done to what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// A repository was made. The object is its name.
    RepositoryCreated,
    /// A repository was hidden. The object is its name.
    RepositoryDeleted,
    /// A manifest was pushed, new or again. The object is its digest.
    ManifestPut,
    /// A manifest was hidden. The object is its digest.
    ManifestDeleted,
    /// A tag was set. The object is the tag.
    TagSet,
    /// A tag was hidden. The object is the tag.
    TagDeleted,
    /// A repository was given a blob. The object is its digest.
    BlobLinked,
    /// A repository gave a blob up, or the blob has died. The object is its
    /// digest.
    BlobUnlinked,
    /// A hidden manifest is gone for good. The object is its digest.
    ManifestPurged,
    /// A hidden repository is gone for good. The object is the name it had.
    RepositoryPurged,
    /// A cycle of collection ended. It is of no repository; the object says in
    /// JSON what it came to.
    Collected,
    /// A hidden repository is back. The object is the name it has.
    RepositoryUndeleted,
    /// An operator paused collection, or gave another reason for that. It is of no
    /// repository; the object is the reason.
    CollectionPaused,
    /// An operator ended that. It is of no repository; the object is empty.
    CollectionResumed,
}

/// One change. Sequences rise without gaps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Its number.
    pub sequence: u64,
    /// What was done.
    pub kind: ChangeKind,
    /// In which repository: its number in the catalog.
    pub repository: i64,
    /// To what.
    pub object: String,
    /// When, in milliseconds since 1970.
    pub at: i64,
}

/// What was pulled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PullOf {
    /// A manifest, by whatever reference.
    Manifest(Digest),
    /// A tag.
    Tag(String),
}

/// Pulls of one manifest or tag, to be added to those before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pull {
    /// Where.
    pub repository: String,
    /// Of what.
    pub of: PullOf,
    /// How often.
    pub count: u64,
    /// When last, in milliseconds since 1970.
    pub last: i64,
}

/// How often something was pulled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PullCount {
    /// How often, as far as it was counted.
    pub pulls: u64,
    /// When last, in milliseconds since 1970, or when counts were lost if that
    /// was later; None: never.
    pub last: Option<i64>,
}

/// How much the catalog has done since it was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Changes that were kept.
    pub verbs: u64,
    /// Transactions that carried them.
    pub commits: u64,
    /// Times the write-ahead file was emptied.
    pub checkpoints: u64,
    /// Lookups answered from memory.
    pub hits: u64,
    /// Lookups that asked the database.
    pub misses: u64,
    /// Changes that wait now.
    pub queued: u64,
}

/// A life of a blob that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dead {
    /// Its SHA-256.
    pub digest: Digest,
    /// Log sequence number of the commit that made it.
    pub birth: u64,
}

/// How many rows a purge removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PurgedRows {
    /// Repositories.
    pub repositories: u64,
    /// Manifests.
    pub manifests: u64,
    /// Tags, those of manifests aside.
    pub tags: u64,
    /// Blobs that were deleted by their digest.
    pub blobs: u64,
}

impl std::ops::AddAssign for PurgedRows {
    fn add_assign(&mut self, other: PurgedRows) {
        self.repositories = self.repositories.saturating_add(other.repositories);
        self.manifests = self.manifests.saturating_add(other.manifests);
        self.tags = self.tags.saturating_add(other.tags);
        self.blobs = self.blobs.saturating_add(other.blobs);
    }
}

/// Why a blob is garbage: the purged row that named it last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Departed {
    /// Where.
    pub repository: String,
    /// The manifest that named it, or that it was; None: it was deleted by its
    /// own digest.
    pub manifest: Option<Digest>,
    /// When that was deleted, in milliseconds since 1970.
    pub deleted_at: i64,
    /// When that was purged, in milliseconds since 1970.
    pub purged_at: i64,
}

/// A deleted manifest that can come back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hidden {
    /// Its digest.
    pub digest: Digest,
    /// Its type.
    pub media_type: String,
    /// The tags that come back too.
    pub tags: Vec<String>,
}

/// A deleted repository that can come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HiddenRepository {
    /// Its number in the catalog.
    pub row: i64,
    /// How many manifests are in it.
    pub manifests: u64,
    /// How many there are in the one that has its new name by now.
    pub in_the_way: u64,
    /// The number of that one, if there is one.
    pub makes_way: Option<i64>,
}

/// A manifest that no tag, no index and no subject reaches. Times are
/// milliseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unreached {
    /// When it was pushed, lost a tag or was pulled last, whichever was latest, as
    /// far as that is known.
    pub used_at: i64,
    /// Before this pulls were lost, or tags were not watched: it may have been
    /// used until then.
    pub floor: i64,
    /// When what it belonged to was deleted, if a purge took that.
    pub orphaned_at: Option<i64>,
}

/// A row that keeps a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// Where.
    pub repository: String,
    /// The manifest that names the blob, or that it is.
    pub manifest: Digest,
    /// Some of the tags that this has.
    pub tags: Vec<String>,
    /// When it was deleted, in milliseconds since 1970, if it was.
    pub deleted_at: Option<i64>,
}

/// A repository that an operator purges something from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PurgePlace {
    /// Its number in the catalog.
    pub id: i64,
    /// Its name, which others may have had before it.
    pub name: String,
    /// Whether all of it was deleted.
    pub is_deleted: bool,
}

/// A manifest that goes for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PurgedManifest {
    /// Its digest.
    pub digest: Digest,
    /// Whether it lists others.
    pub is_index: bool,
    /// Some of its tags.
    pub tags: Vec<String>,
    /// How many it has.
    pub tag_count: u64,
}

/// What goes for good with a digest, from one repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PurgeUnit {
    /// From where.
    pub place: PurgePlace,
    /// The manifests, in the order in which they go.
    pub manifests: Vec<PurgedManifest>,
    /// The blobs that they are and name, with their sizes as far as those are
    /// known.
    pub blobs: Vec<(Digest, u64)>,
    /// Those of them that nothing else of the repository names.
    pub unlinked: Vec<Digest>,
    /// Manifests that need it and were not deleted: it is not to go before them.
    pub blockers: Vec<Reason>,
}

/// A manifest that would go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Doomed {
    /// Where.
    pub repository: String,
    /// Its digest.
    pub digest: Digest,
    /// When it was deleted, in milliseconds since 1970, if it was.
    pub deleted_at: Option<i64>,
    /// Its bytes and those of the config and layers that it names, as declared;
    /// others may name those too.
    pub bytes: u64,
    /// When it was pulled last, in milliseconds since 1970, or when counts were
    /// lost if that was later; None: never.
    pub last_pulled: Option<i64>,
}

/// A repository that was deleted as a whole and would go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DoomedRepository {
    /// Its name.
    pub name: String,
    /// When it was deleted, in milliseconds since 1970.
    pub deleted_at: i64,
    /// Manifests in it.
    pub manifests: u64,
}

/// Which rows name blobs: some of each.
pub type Namers = std::collections::HashMap<Digest, Vec<Reason>>;

/// That no collection runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GcPause {
    /// Since when, in milliseconds since 1970.
    pub since: i64,
    /// Why.
    pub why: String,
}

/// What collection knows of itself. Times are milliseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GcState {
    /// The latest time that is believed.
    pub clock: Option<i64>,
    /// Since when blobs are counted that died without an explanation.
    pub unexplained_since: Option<i64>,
    /// How many did.
    pub unexplained: u64,
    /// Why nothing is collected, if so.
    pub hold: Option<String>,
    /// That an operator wants none, if so.
    pub pause: Option<GcPause>,
}
