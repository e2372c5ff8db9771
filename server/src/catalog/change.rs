//! The change table: what happened, in order, for backups, webhooks, caches of
//! other nodes and live pages.
//!
//! Invariants: a change is written in the transaction that makes it; numbers
//! rise by one; the table holds about the last [`KEPT`] of them. Who falls
//! further behind sees a gap and starts over.

use std::sync::LazyLock;

use super::many::OfRows;
use super::sql::{Arg, Connection};
use super::types::{Change, ChangeKind};

/// Changes that are kept, at least.
pub(super) const KEPT: i64 = 100_000;
/// Older ones are removed each time this many more have come.
const TRIM_EVERY: i64 = 256;

/// Kinds and their numbers in the table, which never change.
const KINDS: [(ChangeKind, i64); 14] = [
    (ChangeKind::RepositoryCreated, 1),
    (ChangeKind::RepositoryDeleted, 2),
    (ChangeKind::ManifestPut, 3),
    (ChangeKind::ManifestDeleted, 4),
    (ChangeKind::TagSet, 5),
    (ChangeKind::TagDeleted, 6),
    (ChangeKind::BlobLinked, 7),
    (ChangeKind::BlobUnlinked, 8),
    (ChangeKind::ManifestPurged, 9),
    (ChangeKind::RepositoryPurged, 10),
    (ChangeKind::Collected, 11),
    (ChangeKind::RepositoryUndeleted, 12),
    (ChangeKind::CollectionPaused, 13),
    (ChangeKind::CollectionResumed, 14),
];

impl ChangeKind {
    pub(super) fn number(self) -> i64 {
        let place = KINDS.iter().find(|(kind, _)| *kind == self);
        place.map_or(0, |(_, number)| *number)
    }

    fn from_number(number: i64) -> Option<ChangeKind> {
        let place = KINDS.iter().find(|(_, of)| *of == number);
        place.map(|(kind, _)| *kind)
    }
}

/// A change of a repository, by its number: its kind, and what it is about.
pub(super) type Of = (i64, ChangeKind, String);

static INSERT: LazyLock<OfRows> = LazyLock::new(|| {
    OfRows::new(
        "INSERT INTO change (sequence, kind, repository, object, at) VALUES {rows}",
        1,
        "({}, {}, {}, {}, $1)",
    )
});

/// Writes changes of one repository. Gives back the number of the last one.
/// The connection is in the transaction that makes them.
pub(super) async fn record(
    connection: &mut Connection,
    repository: i64,
    changes: &[(ChangeKind, String)],
    at: i64,
) -> Result<i64, sqlx::Error> {
    let changes = changes
        .iter()
        .map(|(kind, object)| (repository, *kind, object.as_str()));
    write(connection, changes, at).await
}

/// As [`record`], of any repositories.
pub(super) async fn record_all(
    connection: &mut Connection,
    changes: &[Of],
    at: i64,
) -> Result<i64, sqlx::Error> {
    let changes = changes
        .iter()
        .map(|(repository, kind, object)| (*repository, *kind, object.as_str()));
    write(connection, changes, at).await
}

async fn write<'a>(
    connection: &mut Connection,
    changes: impl ExactSizeIterator<Item = (i64, ChangeKind, &'a str)>,
    at: i64,
) -> Result<i64, sqlx::Error> {
    let count = i64::try_from(changes.len()).unwrap_or(i64::MAX);
    let last = connection
        .one(
            "UPDATE catalog SET sequence = sequence + $1 WHERE one = 1 RETURNING sequence",
            &[Arg::Int(count)],
        )
        .await?
        .int(0)?;
    let first = last.saturating_sub(count).saturating_add(1);
    let rows: Vec<_> = (first..=last)
        .zip(changes)
        .map(|(sequence, (repository, kind, object))| {
            [
                Arg::Int(sequence),
                Arg::Int(kind.number()),
                Arg::Int(repository),
                Arg::Text(object),
            ]
        })
        .collect();
    INSERT.run(connection, &[Arg::Int(at)], &rows).await?;
    if last / TRIM_EVERY != last.saturating_sub(count) / TRIM_EVERY {
        connection
            .run(
                "DELETE FROM change WHERE sequence <= $1",
                &[Arg::Int(last.saturating_sub(KEPT))],
            )
            .await?;
    }
    Ok(last)
}

/// Up to `limit` changes after a number, in order.
pub(super) async fn after(
    connection: &mut Connection,
    sequence: i64,
    limit: i64,
) -> Result<Vec<Change>, sqlx::Error> {
    let rows = connection
        .rows(
            "SELECT sequence, kind, repository, object, at FROM change \
             WHERE sequence > $1 ORDER BY sequence LIMIT $2",
            &[Arg::Int(sequence), Arg::Int(limit)],
        )
        .await?;
    rows.iter()
        .map(|row| {
            let unknown = || sqlx::Error::Decode("a change of an unknown kind".into());
            Ok(Change {
                sequence: row.int(0)?.unsigned_abs(),
                kind: ChangeKind::from_number(row.int(1)?).ok_or_else(unknown)?,
                repository: row.int(2)?,
                object: row.text(3)?,
                at: row.int(4)?,
            })
        })
        .collect()
}
