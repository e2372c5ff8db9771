//! What goes into the catalog and what comes out of it. Data only.

use orlop_format::digest::Digest;

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
    /// A repository gave a blob up. The object is its digest.
    BlobUnlinked,
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
