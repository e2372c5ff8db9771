//! The purge: rows that were deleted long enough ago go for good.
//!
//! Invariants: a step removes a bounded number of rows, one at least; a manifest
//! goes whole, with its edges and the tags that point to it, and leaves the
//! totals right; what it named is remembered, so that a collection can say why
//! that is garbage; rows that are not hidden are never removed.
//!
//! The writer is held as long as a step takes. So it ends soon, and its rows go
//! by a statement for many of them.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use orlop_format::digest::Digest;

use super::Catalog;
use super::change;
use super::departed::{self, Named};
use super::error::CatalogError;
use super::many::OfList;
use super::read::within;
use super::sql::{Arg, Connection};
use super::totals::{Totals, read_totals, write_totals};
use super::types::{ChangeKind, PurgedRows};
use super::verb::{Effect, Progress, Verb};

/// Manifests that are looked for ahead, without holding the writer.
const AHEAD: i64 = 2048;
/// Manifests that one step is asked to remove.
const MANIFESTS: usize = 32;
/// Manifests, tags or links that one step removes at most. Other changes wait
/// meanwhile.
const STEP: i64 = 64;
/// Manifests that are removed together; then it is looked how long the step took.
/// What is read of them is read by one statement.
const TOGETHER: usize = MANIFESTS;
const _: () = assert!(TOGETHER <= super::many::WIDEST);
/// Rows after which a step goes on to no further manifest.
const STEP_ROWS: u64 = 500;
/// Time after which it does not either.
const STEP_TIME: Duration = Duration::from_millis(4);
/// Edges of manifests that are removed together. One alone may have more.
const EDGES: usize = 500;
/// Tags of them.
const TAGS: usize = 100;

type Result<T> = std::result::Result<T, sqlx::Error>;

/// Whether manifest `m` was deleted by then and a purge takes it.
macro_rules! due {
    ($until:literal) => {
        concat!(
            "m.deleted_at <= ",
            $until,
            " AND NOT EXISTS (SELECT 1 FROM tag t WHERE t.manifest = m.digest \
                 AND t.repository + 0 = m.repository AND t.deleted_at IS NULL) \
             AND NOT EXISTS (SELECT 1 FROM edge l JOIN manifest p \
                 ON p.repository = l.repository AND p.digest = l.manifest \
                 AND p.deleted_at IS NULL WHERE l.repository = m.repository \
                 AND l.digest = m.digest AND l.kind = 3)"
        )
    };
}
pub(super) use due;

impl Catalog {
    /// A purge of the rows that were deleted at `until` or earlier, in
    /// milliseconds since 1970.
    #[must_use]
    pub fn purge(&self, until: i64) -> Purge {
        Purge {
            catalog: self.clone(),
            until,
            due: Vec::new(),
        }
    }
}

/// A purge on its way. It looks ahead, so that manifests of one repository go
/// together however their deletes were mixed with others.
pub struct Purge {
    catalog: Catalog,
    until: i64,
    /// Manifests that were due when it was looked.
    due: Vec<(Place, Vec<Vec<u8>>)>,
}

impl Purge {
    /// Removes some rows. None when none was left.
    ///
    /// # Errors
    /// As [`Catalog::put_manifest`].
    pub async fn next(&mut self) -> std::result::Result<Option<PurgedRows>, CatalogError> {
        loop {
            if self.due.is_empty() {
                self.due = within(look_ahead(&self.catalog, self.until)).await?;
            }
            let Some((place, mut digests)) = self.due.pop() else {
                let verb = Verb::Purge { until: self.until };
                return Ok(match self.catalog.step(verb).await? {
                    Progress::Purged(rows) => Some(rows),
                    _ => None,
                });
            };
            let rest = digests.split_off(digests.len().min(MANIFESTS));
            let verb = Verb::PurgeManifests {
                until: self.until,
                place: place.clone(),
                digests: digests.clone(),
            };
            let done = self.catalog.step(verb).await?;
            if !rest.is_empty() {
                self.due.push((place.clone(), rest));
            }
            // None of them is due any more otherwise.
            if let Progress::Purged(rows) = done {
                if rows.manifests < digests.len() as u64 {
                    self.due.push((place, digests));
                }
                return Ok(Some(rows));
            }
        }
    }
}

/// Manifests that are due, a repository's together.
async fn look_ahead(
    catalog: &Catalog,
    until: i64,
) -> std::result::Result<Vec<(Place, Vec<Vec<u8>>)>, CatalogError> {
    let mut connection = catalog.reader().await?;
    let sql = concat!(
        "SELECT m.repository, r.name, m.digest FROM manifest m \
         JOIN repository r ON r.id = m.repository WHERE ",
        due!("$1"),
        " ORDER BY m.deleted_at LIMIT $2"
    );
    let arguments = [Arg::Int(until), Arg::Int(AHEAD)];
    let mut of: BTreeMap<Place, Vec<Vec<u8>>> = BTreeMap::new();
    for row in connection.rows(sql, &arguments).await? {
        let (id, name) = (row.int(0)?, row.text(1)?);
        of.entry(Place { id, name })
            .or_default()
            .push(row.bytes(2)?);
    }
    Ok(of.into_iter().collect())
}

/// One step: whatever comes first of repositories, tags, blobs.
pub(super) async fn step(connection: &mut Connection, until: i64, now: i64) -> Result<Effect> {
    let mut step = Step::begin(connection, until, now);
    // What came first goes on until nothing of it is left.
    let is_done = step.repository().await? || step.tags().await? || step.unlinked().await?;
    if !is_done {
        departed::forget_outdated(step.connection, now).await?;
    }
    step.end().await
}

/// Removes those of some manifests of a repository that are due still, or the
/// first of them.
pub(super) async fn manifests(
    connection: &mut Connection,
    until: i64,
    (place, digests): (&Place, &[Vec<u8>]),
    now: i64,
) -> Result<Effect> {
    let mut step = Step::begin(connection, until, now);
    step.manifests(place, digests).await?;
    step.end().await
}

/// Removes one manifest that need not be hidden, and tells its tags; where it has
/// more tags than a step removes, only some of them go, and it is hidden.
pub(super) async fn one(
    connection: &mut Connection,
    (id, name): (i64, &str),
    digest: &[u8],
    now: i64,
) -> Result<Effect> {
    let mut step = Step::begin(connection, now, now);
    step.tells_tags = true;
    let name = name.to_owned();
    let of = Place { id, name };
    step.together(&of, &[(digest.to_vec(), now)]).await?;
    let unfinished = step.purged.manifests == 0;
    if unfinished {
        let sql = "UPDATE manifest SET deleted_at = COALESCE(deleted_at, $3) WHERE repository = $1 AND digest = $2";
        let arguments = [Arg::Int(id), Arg::Bytes(digest), Arg::Int(now)];
        step.connection.run(sql, &arguments).await?;
        let change = (id, ChangeKind::ManifestDeleted, text(digest));
        step.changes.push(change);
    }
    Ok(Effect {
        purged: PurgedRows::default(),
        unfinished,
        ..step.end().await?
    })
}

const CHILD: i64 = 3;

static DUE: LazyLock<OfList> = LazyLock::new(|| {
    OfList::new(
        concat!(
            "SELECT m.digest, m.deleted_at FROM manifest m \
             WHERE m.repository = $1 AND m.digest IN ({list}) AND ",
            due!("$2")
        ),
        2,
    )
});
// By the manifests alone: beside the repository, SQLite may rather read all of
// that one's tags.
static TAGS_OF: LazyLock<OfList> = LazyLock::new(|| {
    OfList::new(
        "SELECT name, COALESCE(deleted_at, -1) FROM tag WHERE manifest IN ({list}) AND repository + 0 = $1 LIMIT $2",
        2,
    )
});
static EDGES_OF: LazyLock<OfList> = LazyLock::new(|| {
    OfList::new(
        "SELECT manifest, kind, digest FROM edge WHERE repository = $1 \
         AND manifest IN ({list}) ORDER BY manifest, kind, digest LIMIT $2",
        2,
    )
});
static SUBJECTS: LazyLock<OfList> = LazyLock::new(|| {
    OfList::new(
        "SELECT DISTINCT subject FROM manifest WHERE repository = $1 \
         AND subject IN ({list}) AND deleted_at IS NULL",
        1,
    )
});
static CHILDREN_ORPHANED: LazyLock<OfList> = LazyLock::new(|| {
    OfList::new(
        "UPDATE manifest SET orphaned_at = $2 WHERE repository = $1 \
         AND digest IN ({list}) AND COALESCE(orphaned_at, -1) < $2",
        2,
    )
});
const REFERRERS_ORPHANED: &str = "UPDATE manifest SET orphaned_at = $3 \
    WHERE repository = $1 AND subject = $2 AND subject IS NOT NULL AND deleted_at IS NULL \
    AND COALESCE(orphaned_at, -1) < $3";
/// Of manifests, in the order in which they refer to each other.
static MANIFESTS_GONE: LazyLock<[OfList; 3]> = LazyLock::new(|| {
    [
        "DELETE FROM pulled_manifest WHERE repository = $1 AND digest IN ({list})",
        "DELETE FROM edge WHERE repository = $1 AND manifest IN ({list})",
        "DELETE FROM manifest WHERE repository = $1 AND digest IN ({list})",
    ]
    .map(|sql| OfList::new(sql, 1))
});
static TAGS_GONE: LazyLock<[OfList; 2]> = LazyLock::new(|| {
    [
        "DELETE FROM pulled_tag WHERE repository = $1 AND name IN ({list})",
        "DELETE FROM tag WHERE repository = $1 AND name IN ({list})",
    ]
    .map(|sql| OfList::new(sql, 1))
});
static UNLINKED_GONE: LazyLock<OfList> = LazyLock::new(|| {
    OfList::new(
        "DELETE FROM unlinked WHERE repository = $1 AND digest IN ({list})",
        1,
    )
});

/// A repository as rows name it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    id: i64,
    name: String,
}

/// A manifest that goes, by its encoded digest, and when it was deleted.
type Due = (Vec<u8>, i64);

/// An edge: its manifest, its kind and what it names.
type EdgeRow = (Vec<u8>, i64, Vec<u8>);

/// A step on its way.
struct Step<'a> {
    connection: &'a mut Connection,
    until: i64,
    now: i64,
    began: Instant,
    /// Edges and tags that went so far.
    rows: u64,
    purged: PurgedRows,
    /// Of repositories that lost manifests.
    totals: BTreeMap<i64, Totals>,
    changes: Vec<change::Of>,
    /// Whether each tag that goes is told, since nothing was said of it yet.
    tells_tags: bool,
}

impl<'a> Step<'a> {
    fn begin(connection: &'a mut Connection, until: i64, now: i64) -> Step<'a> {
        Step {
            connection,
            until,
            now,
            began: Instant::now(),
            rows: 0,
            purged: PurgedRows::default(),
            totals: BTreeMap::new(),
            changes: Vec::new(),
            tells_tags: false,
        }
    }

    /// Writes what goes with the rows that went.
    async fn end(self) -> Result<Effect> {
        for (repository, totals) in &self.totals {
            write_totals(self.connection, *repository, totals).await?;
        }
        let sequence = match self.changes.is_empty() {
            true => None,
            false => Some(change::record_all(self.connection, &self.changes, self.now).await?),
        };
        Ok(Effect {
            sequence,
            purged: self.purged,
            ..Effect::default()
        })
    }

    /// Whether it has held the writer for long enough.
    fn is_over(&self) -> bool {
        self.rows >= STEP_ROWS || self.began.elapsed() >= STEP_TIME
    }

    /// A step of a repository that goes whole, if there is one.
    async fn repository(&mut self) -> Result<bool> {
        let sql = "SELECT id, name, deleted_at FROM repository \
             WHERE deleted_at <= $1 ORDER BY deleted_at LIMIT 1";
        let Some(row) = self.connection.row(sql, &[Arg::Int(self.until)]).await? else {
            return Ok(false);
        };
        let (id, name, deleted_at) = (row.int(0)?, row.text(1)?, row.int(2)?);
        let place = Place { id, name };
        let sql = "SELECT digest FROM manifest WHERE repository = $1 ORDER BY digest LIMIT $2";
        let arguments = [Arg::Int(id), Arg::Int(STEP)];
        let rows = self.connection.rows(sql, &arguments).await?;
        self.began = Instant::now();
        let due = rows.iter().map(|row| Ok((row.bytes(0)?, deleted_at)));
        let due = due.collect::<Result<Vec<Due>>>()?;
        // From now on it cannot come back whole.
        let sql = "UPDATE repository SET purging = 1 WHERE id = $1 AND purging = 0";
        self.connection.run(sql, &[Arg::Int(id)]).await?;
        if due.is_empty() {
            self.empty(place).await?;
        } else {
            self.take(&place, due).await?;
        }
        Ok(true)
    }

    /// Removes a repository without manifests.
    async fn empty(&mut self, place: Place) -> Result<()> {
        // Its links are found by reading all there are; a repository goes rarely.
        for sql in [
            "DELETE FROM tag WHERE repository = $1",
            "DELETE FROM link WHERE repository = $1",
            "DELETE FROM unlinked WHERE repository = $1",
            "DELETE FROM pulled_tag WHERE repository = $1",
            "DELETE FROM pulled_manifest WHERE repository = $1",
            "DELETE FROM repository WHERE id = $1",
        ] {
            self.connection.run(sql, &[Arg::Int(place.id)]).await?;
        }
        self.purged.repositories = 1;
        self.changes
            .push((place.id, ChangeKind::RepositoryPurged, place.name));
        Ok(())
    }

    /// Hidden manifests, unless an index that is not hidden lists them: who pulls
    /// that needs them, so that they stay for an undelete.
    async fn manifests(&mut self, place: &Place, digests: &[Vec<u8>]) -> Result<()> {
        let own = [Arg::Int(place.id), Arg::Int(self.until)];
        let list = digests.iter().map(|digest| Arg::Bytes(digest));
        let rows = DUE.rows(self.connection, &own, list).await?;
        let due = rows.iter().map(|row| Ok((row.bytes(0)?, row.int(1)?)));
        let mut due = due.collect::<Result<Vec<Due>>>()?;
        due.sort_unstable();
        self.take(place, due).await
    }

    /// Removes manifests of one repository, in the order of their digests, until
    /// the step is over: some at least, or tags of theirs.
    async fn take(&mut self, place: &Place, due: Vec<Due>) -> Result<()> {
        for part in due.chunks(TOGETHER) {
            self.together(place, part).await?;
            if self.is_over() {
                break;
            }
        }
        Ok(())
    }

    /// Removes a few manifests, or those of them that are first and have as many
    /// edges together as a step may remove; or, where they have more tags than
    /// that, only tags.
    async fn together(&mut self, place: &Place, due: &[Due]) -> Result<()> {
        let list = due.iter().map(|(digest, _)| Arg::Bytes(digest));
        let own = [Arg::Int(place.id), Arg::Int(limit(TAGS))];
        let rows = TAGS_OF.rows(self.connection, &own, list).await?;
        let mut tags = Vec::with_capacity(rows.len());
        for row in &rows {
            tags.push(row.text(0)?);
            if self.tells_tags && row.int(1)? < 0 {
                let change = (place.id, ChangeKind::TagDeleted, row.text(0)?);
                self.changes.push(change);
            }
        }
        self.remove_tags(place.id, &tags).await?;
        self.count(tags.len());
        if tags.len() >= TAGS {
            self.purged.tags = self.purged.tags.saturating_add(tags.len() as u64);
            return Ok(());
        }
        let (due, edges) = self.edges(place, due).await?;
        self.count(edges.len());
        self.name(place, due, &edges).await?;
        self.sum(place, due, &edges).await?;
        for statement in MANIFESTS_GONE.iter() {
            let list = due.iter().map(|(digest, _)| Arg::Bytes(digest));
            let own = [Arg::Int(place.id)];
            statement.run(self.connection, &own, list).await?;
        }
        for (digest, _) in due {
            self.changes
                .push((place.id, ChangeKind::ManifestPurged, text(digest)));
        }
        self.purged.manifests = self.purged.manifests.saturating_add(due.len() as u64);
        Ok(())
    }

    fn count(&mut self, rows: usize) {
        self.rows = self.rows.saturating_add(rows as u64);
    }

    /// The edges of the first of these, and which they are: one at least.
    async fn edges<'b>(
        &mut self,
        place: &Place,
        due: &'b [Due],
    ) -> Result<(&'b [Due], Vec<EdgeRow>)> {
        let list = due.iter().map(|(digest, _)| Arg::Bytes(digest));
        let own = [Arg::Int(place.id), Arg::Int(limit(EDGES))];
        let rows = EDGES_OF.rows(self.connection, &own, list).await?;
        let mut edges = Vec::with_capacity(rows.len());
        for row in &rows {
            edges.push((row.bytes(0)?, row.int(1)?, row.bytes(2)?));
        }
        let Some((last, _, _)) = edges.last().filter(|_| edges.len() >= EDGES) else {
            return Ok((due, edges));
        };
        // The last one may have more.
        let last = last.clone();
        let (whole, rest) = due.split_at(due.partition_point(|(digest, _)| *digest < last));
        if !whole.is_empty() {
            edges.retain(|(manifest, _, _)| *manifest < last);
            return Ok((whole, edges));
        }
        let sql = "SELECT kind, digest FROM edge WHERE repository = $1 AND manifest = $2";
        let arguments = [Arg::Int(place.id), Arg::Bytes(&last)];
        let rows = self.connection.rows(sql, &arguments).await?;
        let edges = rows
            .iter()
            .map(|row| Ok((last.clone(), row.int(0)?, row.bytes(1)?)));
        let edges = edges.collect::<Result<_>>()?;
        let first = rest.split_at_checked(1).map_or(rest, |(first, _)| first);
        Ok((first, edges))
    }

    /// Remembers what these named, and marks what belonged to them: it may have
    /// nothing else.
    async fn name(&mut self, place: &Place, due: &[Due], edges: &[EdgeRow]) -> Result<()> {
        let mut named = Named::new();
        let mut children: BTreeMap<i64, Vec<&[u8]>> = BTreeMap::new();
        for (digest, deleted_at) in due {
            named.insert(digest.clone(), (digest.clone(), *deleted_at));
        }
        let deleted_at: BTreeMap<&[u8], i64> = due
            .iter()
            .map(|(digest, at)| (digest.as_slice(), *at))
            .collect();
        for (manifest, kind, target) in edges {
            let Some(at) = deleted_at.get(manifest.as_slice()) else {
                continue;
            };
            if *kind == CHILD {
                children.entry(*at).or_default().push(target);
            }
            // Manifests too: of one whose row went before, this was the last name.
            let of = named.entry(target.clone());
            let of = of.or_insert_with(|| (manifest.clone(), *at));
            if of.1 < *at {
                *of = (manifest.clone(), *at);
            }
        }
        departed::remember(self.connection, &place.name, &named, self.now).await?;
        for (at, children) in children {
            let own = [Arg::Int(place.id), Arg::Int(at)];
            let list = children.into_iter().map(Arg::Bytes);
            CHILDREN_ORPHANED.run(self.connection, &own, list).await?;
        }
        let list = due.iter().map(|(digest, _)| Arg::Bytes(digest));
        let own = [Arg::Int(place.id)];
        for row in SUBJECTS.rows(self.connection, &own, list).await? {
            let subject = row.bytes(0)?;
            let Some(at) = deleted_at.get(subject.as_slice()) else {
                continue;
            };
            let arguments = [Arg::Int(place.id), Arg::Bytes(&subject), Arg::Int(*at)];
            self.connection.run(REFERRERS_ORPHANED, &arguments).await?;
        }
        Ok(())
    }

    /// Takes these from the repository's totals.
    async fn sum(&mut self, place: &Place, due: &[Due], edges: &[EdgeRow]) -> Result<()> {
        let mut totals = match self.totals.get(&place.id) {
            Some(totals) => *totals,
            None => read_totals(self.connection, place.id).await?,
        };
        for (manifest, kind, target) in edges {
            totals.take_edge(manifest, *kind, target);
        }
        for (digest, _) in due {
            totals.take_manifest(digest);
        }
        self.totals.insert(place.id, totals);
        Ok(())
    }

    async fn remove_tags(&mut self, repository: i64, tags: &[String]) -> Result<()> {
        for statement in TAGS_GONE.iter() {
            let list = tags.iter().map(|tag| Arg::Text(tag));
            let own = [Arg::Int(repository)];
            statement.run(self.connection, &own, list).await?;
        }
        Ok(())
    }

    /// Hidden tags whose manifest stays.
    async fn tags(&mut self) -> Result<bool> {
        let sql = "SELECT repository, name FROM tag WHERE deleted_at <= $1 \
             ORDER BY deleted_at LIMIT $2";
        let arguments = [Arg::Int(self.until), Arg::Int(STEP)];
        let rows = self.connection.rows(sql, &arguments).await?;
        let mut of: BTreeMap<i64, Vec<String>> = BTreeMap::new();
        for row in &rows {
            of.entry(row.int(0)?).or_default().push(row.text(1)?);
        }
        for (repository, tags) in of {
            self.remove_tags(repository, &tags).await?;
        }
        self.purged.tags = self.purged.tags.saturating_add(rows.len() as u64);
        Ok(!rows.is_empty())
    }

    /// Blobs that were deleted by their own digest.
    async fn unlinked(&mut self) -> Result<bool> {
        let sql = "SELECT u.repository, r.name, u.digest, u.deleted_at FROM unlinked u \
             JOIN repository r ON r.id = u.repository \
             WHERE u.deleted_at <= $1 ORDER BY u.deleted_at LIMIT $2";
        let arguments = [Arg::Int(self.until), Arg::Int(STEP)];
        let rows = self.connection.rows(sql, &arguments).await?;
        let mut of: BTreeMap<Place, Named> = BTreeMap::new();
        for row in &rows {
            let (id, name) = (row.int(0)?, row.text(1)?);
            let named = of.entry(Place { id, name }).or_default();
            named.insert(row.bytes(2)?, (Vec::new(), row.int(3)?));
        }
        for (place, named) in of {
            departed::remember(self.connection, &place.name, &named, self.now).await?;
            let list = named.keys().map(|digest| Arg::Bytes(digest));
            let own = [Arg::Int(place.id)];
            UNLINKED_GONE.run(self.connection, &own, list).await?;
        }
        self.purged.blobs = self.purged.blobs.saturating_add(rows.len() as u64);
        Ok(!rows.is_empty())
    }
}

fn limit(rows: usize) -> i64 {
    i64::try_from(rows).unwrap_or(i64::MAX)
}

fn text(digest: &[u8]) -> String {
    Digest::decode(digest).map_or_else(|_| "?".to_owned(), |(digest, _)| digest.to_string())
}
