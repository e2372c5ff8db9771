//! The changes, as statements.
//!
//! Invariants: a change runs in a transaction or savepoint of its own and has
//! no effect outside of it, so that it may be run again; totals and change
//! rows are written with the rows they are about; deleting hides.

use std::sync::LazyLock;

use orlop_format::digest::Digest;

use super::at_once;
use super::cache::{Item, Key, KeyRef, Touched};
use super::change;
use super::departed;
use super::gc::GcVerb;
use super::job_verb::JobVerb;
use super::link;
use super::many::OfRows;
use super::pulls::{self, Pulls};
use super::purge;
use super::sql::{Arg, Connection};
use super::totals::{Totals, write_totals};
use super::types::{ChangeKind, Dead, PurgedRows, PutManifest};
use super::unit::UnitVerb;
use super::{undelete, untagged};

/// Tags that are hidden in one step. More would hold up other changes.
const TAGS_STEP: i64 = 1000;
static INSERT_EDGES: LazyLock<OfRows> = LazyLock::new(|| {
    OfRows::new(
        "INSERT INTO edge (repository, manifest, kind, digest, size, media_type) VALUES {rows}",
        2,
        "($1, $2, {}, {}, {}, {})",
    )
});

type Result<T> = std::result::Result<T, sqlx::Error>;

/// A change that waits for its turn. Sizes and the like fit their columns.
#[derive(Debug, Clone)]
pub(super) enum Verb {
    PutManifest(Box<PutManifest>),
    LinkBlob {
        repository: String,
        digest: Digest,
        size: i64,
        /// Of the life that it is linked to.
        birth: i64,
    },
    UnlinkBlob {
        repository: String,
        digest: Digest,
    },
    DeleteTag {
        repository: String,
        tag: String,
    },
    DeleteManifest {
        repository: String,
        digest: Digest,
        /// The time that its row and those of its tags get.
        at: i64,
    },
    DeleteRepository {
        repository: String,
    },
    UndeleteTag {
        repository: String,
        tag: String,
    },
    UndeleteManifest {
        repository: String,
        digest: Digest,
    },
    UndeleteRepository {
        row: i64,
        /// The name that it gets.
        name: String,
    },
    /// A step of the removal of what was deleted by then.
    Purge {
        until: i64,
    },
    /// The same, of manifests of one repository.
    PurgeManifests {
        until: i64,
        place: purge::Place,
        digests: Vec<Vec<u8>>,
    },
    ForgetDead(Vec<Dead>),
    /// What goes for good although nobody deleted it.
    Unit(UnitVerb),
    /// What is remembered of blobs that are named again.
    ForgetDeparted {
        digests: Vec<Vec<u8>>,
        /// The sequence before which it was written.
        before: i64,
    },
    /// What collection knows of itself.
    Gc(GcVerb),
    /// Manifests that a look found to belong to nothing that was purged.
    Settle(Vec<(String, Digest)>),
    Pulls(Box<Pulls>),
    Job(Box<JobVerb>),
}

/// What a change did.
#[derive(Debug, Default)]
pub(super) struct Effect {
    /// The number of its last change row; none when there was nothing to do.
    pub(super) sequence: Option<i64>,
    /// What caches must forget.
    pub(super) touched: Vec<Touched>,
    /// Whether the change is one step of several, and has to be run again.
    pub(super) unfinished: bool,
    /// A number to be told, of a change that has one.
    pub(super) number: Option<i64>,
    /// What a step of a purge removed.
    pub(super) purged: PurgedRows,
    /// Why nothing was done: this is gone.
    pub(super) gone: Option<Digest>,
    /// The tags that came back, of an undelete.
    pub(super) back: Option<Vec<String>>,
}

/// What became of what a change was to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Progress {
    /// There was nothing to do.
    Nothing,
    /// It is done.
    Done,
    /// A step of it is done; it has to be run again.
    Step,
    /// It is done, and this is its number.
    Number(i64),
    /// These rows are gone.
    Purged(PurgedRows),
    /// Nothing was done, since this is gone.
    Gone(Digest),
    /// It is back with these tags.
    Back(Vec<String>),
}

impl Effect {
    pub(super) fn progress(self) -> Progress {
        if let Some(back) = self.back {
            return Progress::Back(back);
        }
        if let Some(number) = self.number {
            return Progress::Number(number);
        }
        if let Some(gone) = self.gone {
            return Progress::Gone(gone);
        }
        if self.purged != PurgedRows::default() {
            return Progress::Purged(self.purged);
        }
        match (self.sequence, self.unfinished) {
            (None, _) => Progress::Nothing,
            (Some(_), false) => Progress::Done,
            (Some(_), true) => Progress::Step,
        }
    }
}

impl Verb {
    /// Runs the change. `now` is in milliseconds since 1970.
    pub(super) async fn apply(&self, connection: &mut Connection, now: i64) -> Result<Effect> {
        match self {
            Verb::PutManifest(manifest) => put_manifest(connection, manifest, now).await,
            Verb::LinkBlob {
                repository,
                digest,
                size,
                birth,
            } => link::add(connection, repository, digest, (*size, *birth), now).await,
            Verb::UnlinkBlob { repository, digest } => {
                link::take(connection, repository, digest, now).await
            }
            Verb::DeleteTag { repository, tag } => {
                delete_tag(connection, repository, tag, now).await
            }
            Verb::DeleteManifest {
                repository,
                digest,
                at,
            } => delete_manifest(connection, repository, digest, (*at, now)).await,
            Verb::DeleteRepository { repository } => {
                delete_repository(connection, repository, now).await
            }
            Verb::UndeleteTag { repository, tag } => {
                undelete::tag(connection, repository, tag, now).await
            }
            Verb::UndeleteManifest { repository, digest } => {
                undelete::manifest(connection, repository, digest, now).await
            }
            Verb::UndeleteRepository { row, name } => {
                undelete::repository(connection, *row, name, now).await
            }
            Verb::Purge { until } => purge::step(connection, *until, now).await,
            Verb::PurgeManifests {
                until,
                place,
                digests,
            } => purge::manifests(connection, *until, (place, digests), now).await,
            Verb::Unit(verb) => verb.apply(connection, now).await,
            Verb::ForgetDead(dead) => departed::forget(connection, dead, now).await,
            Verb::ForgetDeparted { digests, before } => {
                departed::forget_departed(connection, digests, *before).await
            }
            Verb::Gc(verb) => verb.apply(connection, now).await,
            Verb::Settle(manifests) => untagged::settle(connection, manifests).await,
            Verb::Pulls(pulls) => pulls::write(connection, pulls).await,
            Verb::Job(verb) => verb.apply(connection, now).await,
        }
    }
}

/// A repository's number and totals, as the transaction sees them.
pub(super) struct Repository {
    pub(super) id: i64,
    totals: Totals,
}

pub(super) async fn find(connection: &mut Connection, name: &str) -> Result<Option<Repository>> {
    let row = connection
        .row(
            "SELECT id, manifests, manifest_sum, edges, edge_sum FROM repository \
             WHERE name = $1 AND deleted_at IS NULL",
            &[Arg::Text(name)],
        )
        .await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(Repository {
        id: row.int(0)?,
        totals: Totals {
            manifests: row.int(1)?,
            manifest_sum: row.int(2)?,
            edges: row.int(3)?,
            edge_sum: row.int(4)?,
        },
    }))
}

/// The repository of this name, made if there is none.
pub(super) async fn ensure(
    connection: &mut Connection,
    name: &str,
    changes: &mut Vec<(ChangeKind, String)>,
    now: i64,
) -> Result<Repository> {
    if let Some(repository) = find(connection, name).await? {
        return Ok(repository);
    }
    let row = connection
        .one(
            "INSERT INTO repository (name, created_at) VALUES ($1, $2) RETURNING id",
            &[Arg::Text(name), Arg::Int(now)],
        )
        .await?;
    changes.push((ChangeKind::RepositoryCreated, name.to_owned()));
    Ok(Repository {
        id: row.int(0)?,
        totals: Totals::default(),
    })
}

async fn put_manifest(
    connection: &mut Connection,
    manifest: &PutManifest,
    now: i64,
) -> Result<Effect> {
    let mut changes = Vec::new();
    // Before anything is written.
    if let Some(gone) = gone_child(connection, manifest).await? {
        return Ok(Effect {
            gone: Some(gone),
            ..Effect::default()
        });
    }
    let mut repository = ensure(connection, &manifest.repository, &mut changes, now).await?;
    let digest = manifest.digest.encode();
    if insert_manifest(connection, repository.id, &digest, manifest, now).await? {
        repository.totals.add_manifest(&digest);
        insert_edges(connection, &mut repository, &digest, manifest).await?;
        write_totals(connection, repository.id, &repository.totals).await?;
    }
    at_once::named(connection, &digest).await?;
    changes.push((ChangeKind::ManifestPut, manifest.digest.to_string()));
    revive(connection, repository.id, manifest, &mut changes, now).await?;
    let mut touched = vec![touch(
        &manifest.repository,
        Item::Manifest(&manifest.digest),
    )];
    for tag in &manifest.tags {
        untag(connection, repository.id, tag, Some(&digest), now).await?;
        connection
            .run(
                "INSERT INTO tag (repository, name, manifest, updated_at) \
                 VALUES ($1, $2, $3, $4) ON CONFLICT (repository, name) DO UPDATE SET \
                 manifest = excluded.manifest, updated_at = excluded.updated_at, \
                 deleted_at = NULL",
                &[
                    Arg::Int(repository.id),
                    Arg::Text(tag),
                    Arg::Bytes(&digest),
                    Arg::Int(now),
                ],
            )
            .await?;
        changes.push((ChangeKind::TagSet, tag.clone()));
        touched.push(touch(&manifest.repository, Item::Tag(tag)));
    }
    let sequence = change::record(connection, repository.id, &changes, now).await?;
    Ok(Effect {
        sequence: Some(sequence),
        touched,
        ..Effect::default()
    })
}

/// Inserts a manifest row, or brings back the one there is. True when it is
/// new. The same bytes have the same edges, so those stay as they are.
async fn insert_manifest(
    connection: &mut Connection,
    repository: i64,
    digest: &[u8],
    manifest: &PutManifest,
    now: i64,
) -> Result<bool> {
    let subject = manifest.subject.map(|subject| subject.encode());
    let arguments = [
        Arg::Int(repository),
        Arg::Bytes(digest),
        Arg::Text(&manifest.media_type),
        Arg::MaybeText(manifest.artifact_type.as_deref()),
        Arg::Int(clamp(manifest.size)),
        Arg::MaybeBytes(subject.as_deref()),
        Arg::MaybeText(manifest.annotations.as_deref()),
        Arg::Int(now),
    ];
    let inserted = connection
        .run(
            "INSERT INTO manifest (repository, digest, media_type, artifact_type, size, \
             subject, annotations, pushed_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8) \
             ON CONFLICT (repository, digest) DO NOTHING",
            &arguments,
        )
        .await?;
    if inserted > 0 {
        return Ok(true);
    }
    connection
        .run(
            "UPDATE manifest SET media_type = $3, artifact_type = $4, size = $5, subject = $6, \
             annotations = $7, pushed_at = $8, deleted_at = NULL, orphaned_at = NULL \
             WHERE repository = $1 AND digest = $2",
            &arguments,
        )
        .await?;
    Ok(false)
}

/// A manifest that an index lists and that was purged since its push began.
async fn gone_child(connection: &mut Connection, manifest: &PutManifest) -> Result<Option<Digest>> {
    for child in &manifest.children {
        let sql = "SELECT 1 FROM manifest m JOIN repository r ON r.id = m.repository \
             WHERE r.name = $1 AND r.deleted_at IS NULL AND m.digest = $2";
        let arguments = [Arg::Text(&manifest.repository), Arg::Bytes(&child.encode())];
        if connection.row(sql, &arguments).await?.is_none() {
            return Ok(Some(*child));
        }
    }
    Ok(None)
}

/// Brings back what was deleted since the push began: it was there when that was
/// checked.
async fn revive(
    connection: &mut Connection,
    repository: i64,
    manifest: &PutManifest,
    changes: &mut Vec<(ChangeKind, String)>,
    now: i64,
) -> Result<()> {
    for child in &manifest.children {
        let revived = connection
            .run(
                "UPDATE manifest SET deleted_at = NULL \
                 WHERE repository = $1 AND digest = $2 AND deleted_at IS NOT NULL",
                &[Arg::Int(repository), Arg::Bytes(&child.encode())],
            )
            .await?;
        if revived > 0 {
            changes.push((ChangeKind::ManifestPut, child.to_string()));
        }
    }
    for blob in &manifest.links {
        let place = (clamp(blob.size), clamp(blob.birth));
        if link::put(connection, repository, &blob.digest, place, now).await? {
            changes.push((ChangeKind::BlobLinked, blob.digest.to_string()));
        }
    }
    Ok(())
}

/// Notes that a manifest loses this tag now, unless it is `unless`.
async fn untag(
    connection: &mut Connection,
    repository: i64,
    tag: &str,
    unless: Option<&[u8]>,
    now: i64,
) -> Result<()> {
    let sql = "SELECT manifest FROM tag WHERE repository = $1 AND name = $2 \
         AND deleted_at IS NULL";
    let arguments = [Arg::Int(repository), Arg::Text(tag)];
    let Some(row) = connection.row(sql, &arguments).await? else {
        return Ok(());
    };
    let had = row.bytes(0)?;
    if unless == Some(had.as_slice()) {
        return Ok(());
    }
    connection
        .run(
            "UPDATE manifest SET untagged_at = $3 WHERE repository = $1 AND digest = $2",
            &[Arg::Int(repository), Arg::Bytes(&had), Arg::Int(now)],
        )
        .await
        .map(|_| ())
}

async fn insert_edges(
    connection: &mut Connection,
    repository: &mut Repository,
    digest: &[u8],
    manifest: &PutManifest,
) -> Result<()> {
    let targets: Vec<Vec<u8>> = manifest.edges.iter().map(|e| e.digest.encode()).collect();
    let rows: Vec<_> = manifest
        .edges
        .iter()
        .zip(&targets)
        .map(|(edge, target)| {
            [
                Arg::Int(edge.kind as i64),
                Arg::Bytes(target),
                Arg::Int(clamp(edge.size)),
                Arg::Text(&edge.media_type),
            ]
        })
        .collect();
    let own = [Arg::Int(repository.id), Arg::Bytes(digest)];
    INSERT_EDGES.run(connection, &own, &rows).await?;
    for (edge, target) in manifest.edges.iter().zip(&targets) {
        repository.totals.add_edge(digest, edge.kind as i64, target);
    }
    Ok(())
}

async fn delete_tag(
    connection: &mut Connection,
    name: &str,
    tag: &str,
    now: i64,
) -> Result<Effect> {
    let Some(repository) = find(connection, name).await? else {
        return Ok(Effect::default());
    };
    untag(connection, repository.id, tag, None, now).await?;
    let hidden = connection
        .run(
            "UPDATE tag SET deleted_at = $3 \
             WHERE repository = $1 AND name = $2 AND deleted_at IS NULL",
            &[Arg::Int(repository.id), Arg::Text(tag), Arg::Int(now)],
        )
        .await?;
    let change = (ChangeKind::TagDeleted, tag.to_owned());
    let touched = vec![touch(name, Item::Tag(tag))];
    deleted(connection, repository.id, hidden, change, touched, now).await
}

async fn delete_manifest(
    connection: &mut Connection,
    name: &str,
    digest: &Digest,
    times: (i64, i64),
) -> Result<Effect> {
    match find(connection, name).await? {
        Some(repository) => hide(connection, (repository.id, name), digest, times).await,
        None => Ok(Effect::default()),
    }
}

/// Hides a manifest with its tags; or, while it has more than [`TAGS_STEP`],
/// that many of them alone.
pub(super) async fn hide(
    connection: &mut Connection,
    (repository, name): (i64, &str),
    digest: &Digest,
    (at, now): (i64, i64),
) -> Result<Effect> {
    let encoded = digest.encode();
    let (id, of) = (Arg::Int(repository), Arg::Bytes(&encoded));
    // By the manifest alone: beside the repository, SQLite would rather read all
    // of that one's tags.
    let tags = connection
        .rows(
            "SELECT name FROM tag WHERE manifest = $2 AND repository + 0 = $1 \
             AND deleted_at IS NULL LIMIT $3",
            &[id, of, Arg::Int(TAGS_STEP)],
        )
        .await?;
    let mut touched = vec![touch(name, Item::Manifest(digest))];
    let mut changes = Vec::new();
    for tag in &tags {
        let tag = tag.text(0)?;
        let sql = "UPDATE tag SET deleted_at = $3 WHERE repository = $1 AND name = $2";
        connection
            .run(sql, &[id, Arg::Text(&tag), Arg::Int(at)])
            .await?;
        touched.push(touch(name, Item::Tag(&tag)));
        changes.push((ChangeKind::TagDeleted, tag));
    }
    let is_last = i64::try_from(tags.len()).is_ok_and(|tags| tags < TAGS_STEP);
    if is_last {
        let hidden = connection
            .run(
                "UPDATE manifest SET deleted_at = $3 \
                 WHERE repository = $1 AND digest = $2 AND deleted_at IS NULL",
                &[id, of, Arg::Int(at)],
            )
            .await?;
        if hidden > 0 {
            changes.push((ChangeKind::ManifestDeleted, digest.to_string()));
        }
    }
    if changes.is_empty() {
        return Ok(Effect::default());
    }
    let sequence = change::record(connection, repository, &changes, now).await?;
    Ok(Effect {
        sequence: Some(sequence),
        touched,
        unfinished: !is_last,
        ..Effect::default()
    })
}

async fn delete_repository(connection: &mut Connection, name: &str, now: i64) -> Result<Effect> {
    let Some(repository) = find(connection, name).await? else {
        return Ok(Effect::default());
    };
    let hidden = connection
        .run(
            "UPDATE repository SET deleted_at = $2 WHERE id = $1",
            &[Arg::Int(repository.id), Arg::Int(now)],
        )
        .await?;
    let change = (ChangeKind::RepositoryDeleted, name.to_owned());
    let touched = vec![Touched::Repository(name.into())];
    deleted(connection, repository.id, hidden, change, touched, now).await
}

pub(super) async fn deleted(
    connection: &mut Connection,
    repository: i64,
    hidden: u64,
    change: (ChangeKind, String),
    touched: Vec<Touched>,
    now: i64,
) -> Result<Effect> {
    if hidden == 0 {
        return Ok(Effect::default());
    }
    let sequence = change::record(connection, repository, &[change], now).await?;
    Ok(Effect {
        sequence: Some(sequence),
        touched,
        ..Effect::default()
    })
}

pub(super) fn touch(repository: &str, item: Item<'_>) -> Touched {
    Touched::Key(Key::from(KeyRef { repository, item }))
}

/// Sizes are checked when a change is taken; this only satisfies the types.
fn clamp(size: u64) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}
