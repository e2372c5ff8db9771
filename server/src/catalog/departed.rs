//! What purged rows named: it tells why a blob is garbage, until it is gone.
//!
//! Invariants: what named a blob last counts; what is named again explains
//! nothing, and is forgotten; a blob that has died takes its links along, and
//! what was remembered of it.
//!
//! Refuses to know: which rows are purged, and which blobs die.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use orlop_format::digest::Digest;

use super::Catalog;
use super::cache::Item;
use super::change;
use super::error::CatalogError;
use super::many::{OfList, OfRows};
use super::read::{digest, within};
use super::sql::{Arg, Connection, Row};
use super::types::{ChangeKind, Dead, Departed};
use super::verb::{Effect, Progress, Verb, touch};

/// Dead blobs whose links one change removes.
pub const DEAD_MAX: usize = 128;
/// Digests that [`Catalog::departed_after`] gives, and that
/// [`Catalog::forget_departed`] takes.
const PAGE: i64 = 512;
/// Links of dead blobs that one step removes at most.
const LINKS: usize = 256;
/// Names that a purge forgets since they are too old.
const OUTDATED: i64 = 1000;
/// How long it is remembered what purged rows named, if the blobs do not die.
const KEPT: i64 = 90 * 24 * 3_600_000;

type Result<T> = std::result::Result<T, sqlx::Error>;

/// What named blobs that a purge leaves without it: by a blob's encoded digest,
/// the manifest's, which is empty for a blob that was deleted by its own, and
/// when that was deleted.
pub(super) type Named = BTreeMap<Vec<u8>, (Vec<u8>, i64)>;

static LOOK_UP: LazyLock<OfList> = LazyLock::new(|| {
    OfList::new(
        "SELECT digest, repository, manifest, deleted_at, purged_at FROM departed \
         WHERE digest IN ({list})",
        0,
    )
});
static REMEMBER: LazyLock<OfRows> = LazyLock::new(|| {
    OfRows::new(
        "INSERT INTO departed (digest, repository, manifest, deleted_at, purged_at, sequence) \
         VALUES {rows} ON CONFLICT (digest) DO UPDATE SET \
         repository = CASE WHEN departed.deleted_at <= excluded.deleted_at \
         THEN excluded.repository ELSE departed.repository END, \
         manifest = CASE WHEN departed.deleted_at <= excluded.deleted_at \
         THEN excluded.manifest ELSE departed.manifest END, \
         deleted_at = CASE WHEN departed.deleted_at <= excluded.deleted_at \
         THEN excluded.deleted_at ELSE departed.deleted_at END, \
         purged_at = excluded.purged_at, sequence = excluded.sequence",
        3,
        "({}, $1, {}, {}, $2, $3)",
    )
});
// Not what was said of a later life, which somebody purged before this was done.
static FORGET: LazyLock<OfList> = LazyLock::new(|| {
    OfList::new(
        "DELETE FROM departed WHERE digest IN ({list}) AND at_once <= $1",
        1,
    )
});
static FORGET_BEFORE: LazyLock<OfList> = LazyLock::new(|| {
    OfList::new(
        "DELETE FROM departed WHERE sequence < $1 AND digest IN ({list})",
        1,
    )
});
static LINKS_OF: LazyLock<OfList> = LazyLock::new(|| {
    OfList::new(
        "SELECT l.digest, l.repository, r.name, COALESCE(l.birth, -1) FROM link l \
         JOIN repository r ON r.id = l.repository WHERE l.digest IN ({list}) \
         ORDER BY l.digest, l.repository LIMIT $1",
        1,
    )
});
static UNLINK: LazyLock<OfList> =
    LazyLock::new(|| OfList::new("DELETE FROM link WHERE digest IN ({list})", 0));
static UNLINK_FROM: LazyLock<OfList> = LazyLock::new(|| {
    OfList::new(
        "DELETE FROM link WHERE digest = $1 AND repository IN ({list})",
        1,
    )
});

impl Catalog {
    /// Removes the links of blobs that have died, at most [`DEAD_MAX`], and
    /// what was remembered of them. Links that were made for a later life stay.
    ///
    /// # Errors
    /// As [`Catalog::put_manifest`].
    pub async fn forget_dead(&self, dead: Vec<Dead>) -> std::result::Result<(), CatalogError> {
        if dead.len() > DEAD_MAX {
            let text = format!("more than {DEAD_MAX} dead blobs at once");
            return Err(CatalogError::Refused(text));
        }
        while self.step(Verb::ForgetDead(dead.clone())).await? == Progress::Step {}
        Ok(())
    }

    /// Some of the digests that purged rows named, after one, in order.
    ///
    /// # Errors
    /// When it cannot be known.
    pub async fn departed_after(
        &self,
        after: Option<Digest>,
    ) -> std::result::Result<Vec<Digest>, CatalogError> {
        within(async {
            let mut connection = self.reader().await?;
            let after = after.map(|digest| digest.encode()).unwrap_or_default();
            let sql = "SELECT digest FROM departed WHERE digest > $1 ORDER BY digest LIMIT $2";
            let arguments = [Arg::Bytes(&after), Arg::Int(PAGE)];
            let rows = connection.rows(sql, &arguments).await?;
            rows.iter().map(|row| digest(row, 0)).collect()
        })
        .await
    }

    /// Forgets what named blobs that are named again: it explains nothing any
    /// more. As many of them as [`Catalog::departed_after`] gives, at most. What was
    /// purged after the catalog's sequence was `before` stays: whoever read names
    /// since then may have read what was purged.
    ///
    /// # Errors
    /// As [`Catalog::put_manifest`].
    pub async fn forget_departed(
        &self,
        digests: &[Digest],
        before: u64,
    ) -> std::result::Result<(), CatalogError> {
        let digests = digests.iter().map(|digest| digest.encode()).collect();
        let before = i64::try_from(before).unwrap_or(i64::MAX);
        let verb = Verb::ForgetDeparted { digests, before };
        self.submit(verb).await.map(|_| ())
    }

    /// Why blobs are garbage, where a purge has taken what named them.
    ///
    /// # Errors
    /// When it cannot be known.
    pub async fn departed(
        &self,
        digests: &[Digest],
    ) -> std::result::Result<Vec<Option<Departed>>, CatalogError> {
        within(async {
            let mut connection = self.reader().await?;
            let encoded: Vec<Vec<u8>> = digests.iter().map(Digest::encode).collect();
            let list = encoded.iter().map(|digest| Arg::Bytes(digest));
            let mut found = BTreeMap::new();
            for row in LOOK_UP.rows(&mut connection, &[], list).await? {
                let manifest = row.bytes(2)?;
                let departed = Departed {
                    repository: row.text(1)?,
                    manifest: Digest::decode(&manifest).ok().map(|(digest, _)| digest),
                    deleted_at: row.int(3)?,
                    purged_at: row.int(4)?,
                };
                found.insert(row.bytes(0)?, departed);
            }
            Ok(encoded
                .iter()
                .map(|digest| found.get(digest).cloned())
                .collect())
        })
        .await
    }
}

/// Remembers what named blobs in a repository. The last one counts.
pub(super) async fn remember(
    connection: &mut Connection,
    repository: &str,
    named: &Named,
    now: i64,
) -> Result<()> {
    let rows: Vec<_> = named
        .iter()
        .map(|(blob, (manifest, deleted_at))| {
            [
                Arg::Bytes(blob),
                Arg::Bytes(manifest),
                Arg::Int(*deleted_at),
            ]
        })
        .collect();
    if rows.is_empty() {
        return Ok(());
    }
    let sql = "SELECT sequence FROM catalog WHERE one = 1";
    let sequence = connection.one(sql, &[]).await?.int(0)?;
    let own = [Arg::Text(repository), Arg::Int(now), Arg::Int(sequence)];
    REMEMBER.run(connection, &own, &rows).await
}

/// Forgets some of what was remembered too long.
pub(super) async fn forget_outdated(connection: &mut Connection, now: i64) -> Result<()> {
    let sql = "DELETE FROM departed WHERE digest IN \
         (SELECT digest FROM departed WHERE purged_at < $1 LIMIT $2)";
    let arguments = [Arg::Int(now.saturating_sub(KEPT)), Arg::Int(OUTDATED)];
    connection.run(sql, &arguments).await.map(|_| ())
}

/// Forgets what named blobs that are named again.
pub(super) async fn forget_departed(
    connection: &mut Connection,
    digests: &[Vec<u8>],
    before: i64,
) -> Result<Effect> {
    let list = digests.iter().map(|digest| Arg::Bytes(digest));
    let own = [Arg::Int(before)];
    FORGET_BEFORE.run(connection, &own, list).await?;
    Ok(Effect::default())
}

/// A link of a blob that has died.
struct Link {
    digest: Vec<u8>,
    repository: i64,
    name: String,
    birth: i64,
}

/// Dead blobs by their encoded digest, with their birth.
type Ended = BTreeMap<Vec<u8>, i64>;

/// Removes links of dead blobs, so many in a step.
pub(super) async fn forget(connection: &mut Connection, dead: &[Dead], now: i64) -> Result<Effect> {
    let mut ended = Ended::new();
    for blob in dead {
        let birth = i64::try_from(blob.birth).unwrap_or(i64::MAX);
        let latest = ended.entry(blob.digest.encode()).or_insert(birth);
        *latest = birth.max(*latest);
    }
    let links = match all_links(connection, &ended).await? {
        Some(links) => unlink(connection, &ended, links).await?,
        None => unlink_some(connection, &ended).await?,
    };
    let unfinished = links.len() >= LINKS;
    if !unfinished {
        let list = ended.keys().map(|digest| Arg::Bytes(digest));
        let last = ended.values().max().copied().unwrap_or_default();
        FORGET.run(connection, &[Arg::Int(last)], list).await?;
    }
    let mut effect = Effect {
        unfinished,
        ..Effect::default()
    };
    let mut changes = Vec::with_capacity(links.len());
    for link in &links {
        let Ok((digest, _)) = Digest::decode(&link.digest) else {
            continue;
        };
        changes.push((
            link.repository,
            ChangeKind::BlobUnlinked,
            digest.to_string(),
        ));
        effect.touched.push(touch(&link.name, Item::Link(&digest)));
    }
    if !changes.is_empty() {
        effect.sequence = Some(change::record_all(connection, &changes, now).await?);
    }
    Ok(effect)
}

/// The links of all of these, older and later ones. None: they are more than one
/// step removes.
async fn all_links(connection: &mut Connection, ended: &Ended) -> Result<Option<Vec<Link>>> {
    let limit = i64::try_from(LINKS).unwrap_or(i64::MAX);
    let list = ended.keys().map(|digest| Arg::Bytes(digest));
    let rows = LINKS_OF.rows(connection, &[Arg::Int(limit)], list).await?;
    if rows.len() >= LINKS {
        return Ok(None);
    }
    rows.iter().map(link).collect::<Result<_>>().map(Some)
}

fn link(row: &Row) -> Result<Link> {
    Ok(Link {
        digest: row.bytes(0)?,
        repository: row.int(1)?,
        name: row.text(2)?,
        birth: row.int(3)?,
    })
}

/// Removes those of all links of these that were made for a life which has
/// ended, and gives them.
async fn unlink(connection: &mut Connection, ended: &Ended, links: Vec<Link>) -> Result<Vec<Link>> {
    let is_older = |link: &Link| ended.get(&link.digest).is_some_and(|of| link.birth <= *of);
    let (gone, later): (Vec<Link>, Vec<Link>) = links.into_iter().partition(is_older);
    let later: BTreeSet<&[u8]> = later.iter().map(|link| link.digest.as_slice()).collect();
    let has_later = |link: &&Link| later.contains(link.digest.as_slice());
    let whole = gone.iter().filter(|link| !has_later(link));
    let whole: BTreeSet<&[u8]> = whole.map(|link| link.digest.as_slice()).collect();
    let list = whole.into_iter().map(Arg::Bytes);
    UNLINK.run(connection, &[], list).await?;
    for link in gone.iter().filter(has_later) {
        let own = [Arg::Bytes(&link.digest)];
        UNLINK_FROM
            .run(connection, &own, [Arg::Int(link.repository)])
            .await?;
    }
    Ok(gone)
}

/// Removes some links of the first of these, [`LINKS`] if there are as many.
async fn unlink_some(connection: &mut Connection, ended: &Ended) -> Result<Vec<Link>> {
    let mut gone = Vec::new();
    for (digest, birth) in ended {
        let left = i64::try_from(LINKS.saturating_sub(gone.len())).unwrap_or(i64::MAX);
        if left == 0 {
            break;
        }
        let sql = "SELECT l.digest, l.repository, r.name, COALESCE(l.birth, -1) FROM link l \
             JOIN repository r ON r.id = l.repository \
             WHERE l.digest = $1 AND COALESCE(l.birth, -1) <= $2 LIMIT $3";
        let own = [Arg::Bytes(digest), Arg::Int(*birth), Arg::Int(left)];
        let links = connection.rows(sql, &own).await?;
        let links = links.iter().map(link).collect::<Result<Vec<_>>>()?;
        let list = links.iter().map(|link| Arg::Int(link.repository));
        UNLINK_FROM
            .run(connection, &[Arg::Bytes(digest)], list)
            .await?;
        gone.extend(links);
    }
    Ok(gone)
}
