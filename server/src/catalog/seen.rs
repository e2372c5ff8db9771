//! References of repositories as far as a purge has read them. There is no index
//! over them, so all of a repository's are read once, which takes long and holds
//! nobody up; from then on only those of manifests that changed since.
//!
//! Invariant: whoever names nothing in a repository meanwhile finds with the second
//! look what a whole read would. What changed is told by the change table; where that
//! does not reach back, all is read anew.
//!
//! Refuses to know: what is done about them.

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

use orlop_format::digest::Digest;

use super::Catalog;
use super::error::CatalogError;
use super::many::OfList;
use super::namers::{Encoded, Namer};
use super::read::within;
use super::sql::Arg;
use super::types::ChangeKind;

/// Manifests that changed and are read again one by one; more of them are a reason to
/// read all.
const CHANGED: usize = 2048;
/// Kinds of changes after which a manifest names other things, or is hidden or not.
const KINDS: [ChangeKind; 3] = [
    ChangeKind::ManifestPut,
    ChangeKind::ManifestDeleted,
    ChangeKind::ManifestPurged,
];

static EDGES_OF: LazyLock<OfList> = LazyLock::new(|| {
    OfList::new(
        "SELECT manifest, kind, digest FROM edge WHERE repository = $1 AND manifest IN ({list})",
        1,
    )
});
static HIDDEN_OF: LazyLock<OfList> = LazyLock::new(|| {
    OfList::new(
        "SELECT digest, subject FROM manifest WHERE repository = $1 AND digest IN ({list}) \
         AND subject IS NOT NULL AND deleted_at IS NOT NULL",
        1,
    )
});

type Result<T> = std::result::Result<T, CatalogError>;

/// What was read of references, by repository.
#[derive(Debug, Default)]
pub struct Seen(HashMap<i64, Sight>);

/// What was read of one repository's.
#[derive(Debug, Default)]
struct Sight {
    /// The catalog's sequence before the read began.
    since: u64,
    /// Digests whose namers were looked for.
    wanted: HashSet<Encoded>,
    /// Which manifests name them, and as what.
    namers: HashMap<Encoded, Vec<Namer>>,
    /// Hidden manifests, by what they are about.
    hidden: HashMap<Encoded, Vec<Encoded>>,
}

impl Seen {
    /// Hidden manifests of a repository that was looked at, by what they are about.
    pub(super) fn hidden(&self, repository: i64) -> HashMap<Encoded, Vec<Encoded>> {
        let sight = self.0.get(&repository);
        sight.map(|sight| sight.hidden.clone()).unwrap_or_default()
    }
}

impl Sight {
    /// Forgets what was read of manifests.
    fn without(&mut self, changed: &HashSet<Encoded>) {
        for namers in self.namers.values_mut() {
            namers.retain(|(_, manifest, _)| !changed.contains(manifest));
        }
        for hidden in self.hidden.values_mut() {
            hidden.retain(|manifest| !changed.contains(manifest));
        }
    }

    fn of(&self, wanted: &HashSet<Encoded>) -> HashMap<Encoded, Vec<Namer>> {
        let of = |digest: &Encoded| Some((digest.clone(), self.namers.get(digest)?.clone()));
        let found = wanted.iter().filter_map(of);
        found.filter(|(_, namers)| !namers.is_empty()).collect()
    }
}

impl Catalog {
    /// Which manifests of a repository name these digests, and as what.
    pub(super) async fn namers_in(
        &self,
        repository: i64,
        wanted: &HashSet<Encoded>,
        seen: &mut Seen,
    ) -> Result<HashMap<Encoded, Vec<Namer>>> {
        // Before anything is read: what comes later is read again.
        let now = self.sequence();
        let sight = match seen.0.remove(&repository) {
            Some(sight) => self.again(repository, sight).await?,
            None => None,
        };
        let mut sight = match sight {
            Some(sight) => sight,
            None => Sight {
                hidden: self.hidden_in(repository).await?,
                ..Sight::default()
            },
        };
        let new: HashSet<Encoded> = wanted.difference(&sight.wanted).cloned().collect();
        if !new.is_empty() {
            sight
                .namers
                .extend(self.scan(Some(repository), &new).await?);
            sight.wanted.extend(new);
        }
        sight.since = now;
        let found = sight.of(wanted);
        seen.0.insert(repository, sight);
        Ok(found)
    }

    /// What was read, brought up to date. None: too much changed for that.
    async fn again(&self, repository: i64, mut sight: Sight) -> Result<Option<Sight>> {
        let Some(changed) = self.changed_in(repository, sight.since).await? else {
            return Ok(None);
        };
        if changed.is_empty() {
            return Ok(Some(sight));
        }
        sight.without(&changed);
        within(async {
            let mut connection = self.reader().await?;
            let own = [Arg::Int(repository)];
            let list = changed.iter().map(|digest| Arg::Bytes(digest));
            for row in EDGES_OF.rows(&mut connection, &own, list).await? {
                let (manifest, kind, digest) = (row.bytes(0)?, row.int(1)?, row.bytes(2)?);
                if sight.wanted.contains(&digest) {
                    let namers = sight.namers.entry(digest).or_default();
                    namers.push((repository, manifest, kind));
                }
            }
            let list = changed.iter().map(|digest| Arg::Bytes(digest));
            for row in HIDDEN_OF.rows(&mut connection, &own, list).await? {
                let of = sight.hidden.entry(row.bytes(1)?).or_default();
                of.push(row.bytes(0)?);
            }
            Ok(Some(sight))
        })
        .await
    }

    /// Manifests of a repository that changed after the catalog's sequence was that.
    /// None: they are too many, or that is not known any more.
    async fn changed_in(&self, repository: i64, since: u64) -> Result<Option<HashSet<Encoded>>> {
        let limit = CHANGED.saturating_add(1);
        let after = i64::try_from(since).unwrap_or(i64::MAX);
        within(async {
            let mut connection = self.reader().await?;
            let [put, deleted, purged] = KINDS.map(ChangeKind::number);
            let sql = "SELECT DISTINCT object FROM change WHERE sequence > $1 \
                 AND repository = $2 AND kind IN ($3, $4, $5) LIMIT $6";
            let arguments = [
                Arg::Int(after),
                Arg::Int(repository),
                Arg::Int(put),
                Arg::Int(deleted),
                Arg::Int(purged),
                Arg::Int(i64::try_from(limit).unwrap_or(i64::MAX)),
            ];
            let rows = connection.rows(sql, &arguments).await?;
            // After that: what was there until now was there when they were read.
            let sql = "SELECT sequence FROM change ORDER BY sequence LIMIT 1";
            let first = connection.row(sql, &[]).await?;
            let first = first.map(|row| row.int(0)).transpose()?;
            let is_whole = match first {
                Some(first) => first <= after.saturating_add(1),
                None => self.sequence() == since,
            };
            if !is_whole || rows.len() >= limit {
                return Ok(None);
            }
            let mut changed = HashSet::with_capacity(rows.len());
            for row in &rows {
                let Ok(digest) = row.text(0)?.parse::<Digest>() else {
                    return Ok(None);
                };
                changed.insert(digest.encode());
            }
            Ok(Some(changed))
        })
        .await
    }

    /// Hidden manifests of a repository, by what they are about.
    async fn hidden_in(&self, repository: i64) -> Result<HashMap<Encoded, Vec<Encoded>>> {
        within(async {
            let mut connection = self.reader().await?;
            let sql = "SELECT digest, subject FROM manifest WHERE repository = $1 \
                 AND subject IS NOT NULL AND deleted_at IS NOT NULL";
            let mut hidden: HashMap<Encoded, Vec<Encoded>> = HashMap::new();
            for row in connection.rows(sql, &[Arg::Int(repository)]).await? {
                let of = hidden.entry(row.bytes(1)?).or_default();
                of.push(row.bytes(0)?);
            }
            Ok(hidden)
        })
        .await
    }
}
