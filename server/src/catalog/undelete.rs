//! What was deleted comes back, as long as no purge has taken it.
//!
//! Invariants: a tag comes back with its manifest, and a manifest with the
//! tags that were deleted along with it, with what it lists and with its blobs;
//! a name that was given again since is left alone. What comes back counts as
//! used now.

use std::collections::HashSet;

use orlop_format::digest::Digest;
use orlop_oci::Reference;

use super::Catalog;
use super::cache::Touched;
use super::change;
use super::error::CatalogError;
use super::read::{whole, within};
use super::sql::{Arg, Connection};
use super::types::{ChangeKind, Hidden, HiddenRepository};
use super::verb::{Effect, Progress, Verb, find};

/// Tags that come back with one manifest.
const TAGS: i64 = 10_000;
/// Manifests that come back with one, by way of those that list them.
const LISTED: usize = 10_000;

type Result<T> = std::result::Result<T, sqlx::Error>;

impl Catalog {
    /// What would come back with a deleted tag or manifest. None: it is not
    /// deleted, or was purged.
    ///
    /// # Errors
    /// When it cannot be known.
    pub async fn hidden(
        &self,
        repository: &str,
        reference: &Reference,
    ) -> std::result::Result<Option<Hidden>, CatalogError> {
        within(async {
            let mut connection = self.reader().await?;
            let name = Arg::Text(repository);
            let row = match reference {
                Reference::Tag(tag) => {
                    let sql = "SELECT r.id, m.digest, m.media_type, COALESCE(m.deleted_at, -1) \
                         FROM repository r JOIN tag t ON t.repository = r.id AND t.name = $2 \
                         AND t.deleted_at IS NOT NULL \
                         JOIN manifest m ON m.repository = r.id AND m.digest = t.manifest \
                         WHERE r.name = $1 AND r.deleted_at IS NULL";
                    connection
                        .row(sql, &[name, Arg::Text(tag.as_str())])
                        .await?
                }
                Reference::Digest(digest) => {
                    let sql = "SELECT r.id, m.digest, m.media_type, m.deleted_at \
                         FROM repository r JOIN manifest m ON m.repository = r.id \
                         AND m.digest = $2 AND m.deleted_at IS NOT NULL \
                         WHERE r.name = $1 AND r.deleted_at IS NULL";
                    connection
                        .row(sql, &[name, Arg::Bytes(&digest.encode())])
                        .await?
                }
            };
            let Some(row) = row else { return Ok(None) };
            let (id, encoded, at) = (row.int(0)?, row.bytes(1)?, row.int(3)?);
            let tags = match reference {
                Reference::Tag(tag) => vec![tag.to_string()],
                Reference::Digest(_) => tags(&mut connection, id, &encoded, at).await?,
            };
            Ok(Some(Hidden {
                digest: whole(&encoded)?,
                media_type: row.text(2)?,
                tags,
            }))
        })
        .await
    }

    /// Brings a deleted tag or manifest back, and says with which tags. None: there
    /// is none.
    ///
    /// # Errors
    /// As [`Catalog::put_manifest`].
    pub async fn undelete(
        &self,
        repository: &str,
        reference: &Reference,
    ) -> std::result::Result<Option<Vec<String>>, CatalogError> {
        let repository = repository.to_owned();
        let verb = match reference {
            Reference::Tag(tag) => Verb::UndeleteTag {
                repository,
                tag: tag.to_string(),
            },
            Reference::Digest(digest) => Verb::UndeleteManifest {
                repository,
                digest: *digest,
            },
        };
        Ok(match self.step(verb).await? {
            Progress::Back(tags) => Some(tags),
            _ => None,
        })
    }

    /// The row of a repository that is not deleted.
    ///
    /// # Errors
    /// When it cannot be known.
    pub async fn repository_row(
        &self,
        repository: &str,
    ) -> std::result::Result<Option<i64>, CatalogError> {
        within(async {
            let mut connection = self.reader().await?;
            let found = find(&mut connection, repository).await?;
            Ok(found.map(|repository| repository.id))
        })
        .await
    }

    /// The repository that had this name and was deleted last, and what is in its
    /// way if it is to have the other name. None: none was deleted, or a purge has
    /// begun with it.
    ///
    /// # Errors
    /// When it cannot be known.
    pub async fn hidden_repository(
        &self,
        repository: &str,
        name: &str,
    ) -> std::result::Result<Option<HiddenRepository>, CatalogError> {
        within(async {
            let mut connection = self.reader().await?;
            let row = connection.row(NEWEST, &[Arg::Text(repository)]).await?;
            let Some(row) = row else { return Ok(None) };
            let row = row.int(0)?;
            let manifests = visible(&mut connection, row).await?;
            let live = find(&mut connection, name).await?;
            let in_the_way = match &live {
                Some(live) => visible(&mut connection, live.id).await?,
                None => 0,
            };
            Ok(Some(HiddenRepository {
                row,
                manifests,
                in_the_way,
                makes_way: live.map(|live| live.id),
            }))
        })
        .await
    }

    /// Brings the deleted repository of this row back, under this name. One of
    /// that name without manifests makes way. False: it is not deleted or a purge
    /// has begun with it, or one that has manifests is in its way.
    ///
    /// # Errors
    /// As [`Catalog::put_manifest`].
    pub async fn undelete_repository(
        &self,
        row: i64,
        name: &str,
    ) -> std::result::Result<bool, CatalogError> {
        self.submit(Verb::UndeleteRepository {
            row,
            name: name.to_owned(),
        })
        .await
    }
}

/// The repository of a name that was deleted last, if it can come back whole.
const NEWEST: &str = "SELECT id FROM repository WHERE name = $1 AND deleted_at IS NOT NULL \
     AND purging = 0 ORDER BY deleted_at DESC, id DESC LIMIT 1";

/// How many manifests a repository has that are not hidden.
async fn visible(connection: &mut Connection, repository: i64) -> Result<u64> {
    let sql = "SELECT count(*) FROM manifest WHERE repository = $1 AND deleted_at IS NULL";
    let row = connection.one(sql, &[Arg::Int(repository)]).await?;
    Ok(row.int(0)?.unsigned_abs())
}

pub(super) async fn repository(
    connection: &mut Connection,
    row: i64,
    new: &str,
    now: i64,
) -> Result<Effect> {
    let id = Arg::Int(row);
    let hidden = "SELECT 1 FROM repository WHERE id = $1 AND deleted_at IS NOT NULL \
         AND purging = 0";
    if connection.row(hidden, &[id]).await?.is_none() {
        return Ok(Effect::default());
    }
    if let Some(live) = find(connection, new).await? {
        if visible(connection, live.id).await? > 0 {
            return Ok(Effect::default());
        }
        // Before whatever is deleted after this.
        let sql = "UPDATE repository SET deleted_at = $2 WHERE id = $1";
        let at = now.saturating_sub(1);
        connection
            .run(sql, &[Arg::Int(live.id), Arg::Int(at)])
            .await?;
        let change = [(ChangeKind::RepositoryDeleted, new.to_owned())];
        change::record(connection, live.id, &change, now).await?;
    }
    let sql = "UPDATE repository SET deleted_at = NULL, name = $2 WHERE id = $1";
    connection.run(sql, &[id, Arg::Text(new)]).await?;
    let change = [(ChangeKind::RepositoryUndeleted, new.to_owned())];
    let sequence = change::record(connection, row, &change, now).await?;
    Ok(Effect {
        sequence: Some(sequence),
        touched: vec![Touched::Repository(new.into())],
        ..Effect::default()
    })
}

/// Tags that were hidden together with a manifest.
async fn tags(
    connection: &mut Connection,
    repository: i64,
    digest: &[u8],
    at: i64,
) -> Result<Vec<String>> {
    let rows = connection
        .rows(
            "SELECT name FROM tag WHERE manifest = $2 AND repository + 0 = $1 \
             AND deleted_at = $3 ORDER BY name LIMIT $4",
            &[
                Arg::Int(repository),
                Arg::Bytes(digest),
                Arg::Int(at),
                Arg::Int(TAGS),
            ],
        )
        .await?;
    rows.iter().map(|row| row.text(0)).collect()
}

pub(super) async fn tag(
    connection: &mut Connection,
    name: &str,
    tag: &str,
    now: i64,
) -> Result<Effect> {
    let Some(repository) = find(connection, name).await? else {
        return Ok(Effect::default());
    };
    let row = connection
        .row(
            "UPDATE tag SET deleted_at = NULL WHERE repository = $1 AND name = $2 \
             AND deleted_at IS NOT NULL RETURNING manifest",
            &[Arg::Int(repository.id), Arg::Text(tag)],
        )
        .await?;
    let Some(row) = row else {
        return Ok(Effect::default());
    };
    let mut changes = Vec::new();
    revive(
        connection,
        repository.id,
        row.bytes(0)?,
        (&mut changes, now),
    )
    .await?;
    changes.push((ChangeKind::TagSet, tag.to_owned()));
    let back = vec![tag.to_owned()];
    done(connection, repository.id, (&changes, back), now).await
}

pub(super) async fn manifest(
    connection: &mut Connection,
    name: &str,
    digest: &Digest,
    now: i64,
) -> Result<Effect> {
    let Some(repository) = find(connection, name).await? else {
        return Ok(Effect::default());
    };
    let (id, encoded) = (repository.id, digest.encode());
    let sql = "SELECT deleted_at FROM manifest WHERE repository = $1 AND digest = $2 \
         AND deleted_at IS NOT NULL";
    let arguments = [Arg::Int(id), Arg::Bytes(&encoded)];
    let Some(row) = connection.row(sql, &arguments).await? else {
        return Ok(Effect::default());
    };
    let mut changes = Vec::new();
    let back = tags(connection, id, &encoded, row.int(0)?).await?;
    for tag in &back {
        let sql = "UPDATE tag SET deleted_at = NULL WHERE repository = $1 AND name = $2";
        connection.run(sql, &[Arg::Int(id), Arg::Text(tag)]).await?;
        changes.push((ChangeKind::TagSet, tag.clone()));
    }
    revive(connection, id, encoded, (&mut changes, now)).await?;
    done(connection, id, (&changes, back), now).await
}

/// Brings a manifest back, and what it lists, and their blobs.
async fn revive(
    connection: &mut Connection,
    repository: i64,
    digest: Vec<u8>,
    (changes, now): (&mut Vec<(ChangeKind, String)>, i64),
) -> Result<()> {
    let id = Arg::Int(repository);
    let mut seen = HashSet::from([digest.clone()]);
    let mut next = vec![digest];
    while let Some(digest) = next.pop() {
        let of = Arg::Bytes(&digest);
        let revived = connection
            .run(
                "UPDATE manifest SET deleted_at = NULL, orphaned_at = NULL, untagged_at = $3 \
                 WHERE repository = $1 AND digest = $2 AND deleted_at IS NOT NULL",
                &[id, of, Arg::Int(now)],
            )
            .await?;
        if revived > 0 {
            let text = Digest::decode(&digest).map(|(digest, _)| digest.to_string());
            changes.push((ChangeKind::ManifestPut, text.unwrap_or_default()));
        }
        for sql in [
            "INSERT INTO link (repository, digest, size, linked_at) \
             SELECT u.repository, u.digest, u.size, $3 FROM edge e JOIN unlinked u \
             ON u.repository = e.repository AND u.digest = e.digest \
             WHERE e.repository = $1 AND e.manifest = $2 AND e.kind IN (1, 2) \
             ON CONFLICT (repository, digest) DO NOTHING",
            "DELETE FROM unlinked WHERE repository = $1 AND digest IN \
             (SELECT digest FROM edge WHERE repository = $1 AND manifest = $2 \
             AND kind IN (1, 2)) AND $3 = $3",
        ] {
            connection.run(sql, &[id, of, Arg::Int(now)]).await?;
        }
        let sql = "SELECT digest FROM edge WHERE repository = $1 AND manifest = $2 AND kind = 3";
        for row in connection.rows(sql, &[id, of]).await? {
            let child = row.bytes(0)?;
            if seen.len() < LISTED && seen.insert(child.clone()) {
                next.push(child);
            }
        }
    }
    Ok(())
}

/// Nothing that was found is untrue by this: caches have what was found only.
async fn done(
    connection: &mut Connection,
    repository: i64,
    (changes, back): (&[(ChangeKind, String)], Vec<String>),
    now: i64,
) -> Result<Effect> {
    let sequence = change::record(connection, repository, changes, now).await?;
    Ok(Effect {
        sequence: Some(sequence),
        back: Some(back),
        ..Effect::default()
    })
}
