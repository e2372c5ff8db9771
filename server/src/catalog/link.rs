//! Links of blobs to repositories, as statements.

use orlop_format::digest::Digest;

use super::at_once;
use super::cache::Item;
use super::change;
use super::sql::{Arg, Connection};
use super::types::ChangeKind;
use super::verb::{Effect, deleted, ensure, find, touch};

type Result<T> = std::result::Result<T, sqlx::Error>;

/// Gives the repository a blob of this size and birth.
pub(super) async fn add(
    connection: &mut Connection,
    name: &str,
    digest: &Digest,
    (size, birth): (i64, i64),
    now: i64,
) -> Result<Effect> {
    let mut changes = Vec::new();
    let repository = ensure(connection, name, &mut changes, now).await?;
    // A link that says the same already is left alone: nothing to sync then.
    if !put(connection, repository.id, digest, (size, birth), now).await? {
        return Ok(Effect::default());
    }
    changes.push((ChangeKind::BlobLinked, digest.to_string()));
    let sequence = change::record(connection, repository.id, &changes, now).await?;
    Ok(Effect {
        sequence: Some(sequence),
        touched: vec![touch(name, Item::Link(digest))],
        ..Effect::default()
    })
}

/// Writes a link, unless there is one that says the same, or that is of a later
/// life. Whether it did. From now on leases keep that life again.
pub(super) async fn put(
    connection: &mut Connection,
    repository: i64,
    digest: &Digest,
    (size, birth): (i64, i64),
    now: i64,
) -> Result<bool> {
    at_once::linked(connection, birth).await?;
    let changed = connection
        .run(
            "INSERT INTO link (repository, digest, size, linked_at, birth) \
             VALUES ($1, $2, $3, $4, $5) ON CONFLICT (repository, digest) DO UPDATE SET \
             size = excluded.size, linked_at = excluded.linked_at, birth = excluded.birth \
             WHERE link.size <> excluded.size OR COALESCE(link.birth, -1) < excluded.birth",
            &[
                Arg::Int(repository),
                Arg::Bytes(&digest.encode()),
                Arg::Int(size),
                Arg::Int(now),
                Arg::Int(birth),
            ],
        )
        .await?;
    Ok(changed > 0)
}

/// Takes a blob from a repository; its row is kept apart.
pub(super) async fn take(
    connection: &mut Connection,
    name: &str,
    digest: &Digest,
    now: i64,
) -> Result<Effect> {
    let Some(repository) = find(connection, name).await? else {
        return Ok(Effect::default());
    };
    let encoded = digest.encode();
    let (id, of) = (Arg::Int(repository.id), Arg::Bytes(&encoded));
    let kept = connection
        .run(
            "INSERT INTO unlinked (repository, digest, size, deleted_at) \
             SELECT repository, digest, size, $3 FROM link \
             WHERE repository = $1 AND digest = $2 \
             ON CONFLICT (repository, digest) DO UPDATE SET \
             size = excluded.size, deleted_at = excluded.deleted_at",
            &[id, of, Arg::Int(now)],
        )
        .await?;
    if kept > 0 {
        let sql = "DELETE FROM link WHERE repository = $1 AND digest = $2";
        connection.run(sql, &[id, of]).await?;
    }
    let change = (ChangeKind::BlobUnlinked, digest.to_string());
    let touched = vec![touch(name, Item::Link(digest))];
    deleted(connection, repository.id, kept, change, touched, now).await
}
