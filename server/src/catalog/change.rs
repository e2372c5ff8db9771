//! The change table: what happened, in order, for backups, webhooks, caches of
//! other nodes and live pages.
//!
//! Invariants: a change is written in the transaction that makes it; numbers
//! rise by one; the table holds about the last [`KEPT`] of them. Who falls
//! further behind sees a gap and starts over.

use super::sql::{Arg, Connection};
use super::types::{Change, ChangeKind};

/// Changes that are kept, at least.
pub(super) const KEPT: i64 = 100_000;
/// Older ones are removed each time this many more have come.
const TRIM_EVERY: i64 = 256;

/// Kinds and their numbers in the table, which never change.
const KINDS: [(ChangeKind, i64); 10] = [
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
];

impl ChangeKind {
    fn number(self) -> i64 {
        let place = KINDS.iter().find(|(kind, _)| *kind == self);
        place.map_or(0, |(_, number)| *number)
    }

    fn from_number(number: i64) -> Option<ChangeKind> {
        let place = KINDS.iter().find(|(_, of)| *of == number);
        place.map(|(kind, _)| *kind)
    }
}

/// Rows that one statement writes. What changes much at once is written so:
/// each statement is a way to the database and back.
const AT_ONCE: usize = 8;
const INSERT_ONE: &str = "INSERT INTO change (sequence, at, kind, repository, object) \
    VALUES ($1, $2, $3, $4, $5)";
const INSERT_MANY: &str = "INSERT INTO change (sequence, at, kind, repository, object) VALUES \
    ($1, $2, $3, $4, $5), ($1 + 1, $2, $6, $7, $8), ($1 + 2, $2, $9, $10, $11), \
    ($1 + 3, $2, $12, $13, $14), ($1 + 4, $2, $15, $16, $17), ($1 + 5, $2, $18, $19, $20), \
    ($1 + 6, $2, $21, $22, $23), ($1 + 7, $2, $24, $25, $26)";

/// Writes changes of one repository. Gives back the number of the last one.
/// The connection is in the transaction that makes them.
pub(super) async fn record(
    connection: &mut Connection,
    repository: i64,
    changes: &[(ChangeKind, String)],
    at: i64,
) -> Result<i64, sqlx::Error> {
    let changes: Vec<(ChangeKind, i64, &str)> = changes
        .iter()
        .map(|(kind, object)| (*kind, repository, object.as_str()))
        .collect();
    record_all(connection, &changes, at).await
}

/// The same for changes of several repositories.
pub(super) async fn record_all(
    connection: &mut Connection,
    changes: &[(ChangeKind, i64, &str)],
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
    let mut sequence = last.saturating_sub(count).saturating_add(1);
    let (groups, rest) = changes.as_chunks::<AT_ONCE>();
    let groups = groups.iter().map(|group| (INSERT_MANY, group.as_slice()));
    let rest = rest
        .iter()
        .map(|one| (INSERT_ONE, std::slice::from_ref(one)));
    for (sql, group) in groups.chain(rest) {
        let mut arguments = vec![Arg::Int(sequence), Arg::Int(at)];
        for (kind, repository, object) in group {
            let (kind, repository) = (Arg::Int(kind.number()), Arg::Int(*repository));
            arguments.extend([kind, repository, Arg::Text(object)]);
        }
        connection.run(sql, &arguments).await?;
        sequence = sequence.saturating_add(i64::try_from(group.len()).unwrap_or(i64::MAX));
    }
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
