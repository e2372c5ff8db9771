//! Which rows name digests, found by reading every reference: there is no index
//! over them, since that would double what a push writes.
//!
//! A read takes a page and lets go, so that it may take as long as it needs. One of a
//! single repository goes on from what was seen of it before (seen.rs).
//! Refuses to know: what is done about them.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use orlop_format::digest::Digest;

use super::Catalog;
use super::error::CatalogError;
use super::read::{whole, within};
use super::seen::Seen;
use super::sql::{Arg, Connection};
use super::types::{Namers, PurgePlace, PurgeUnit, Reason};

/// Rows in one read.
const PAGE: i64 = 4096;
/// Manifests that are told of one blob which they name.
const NAMERS: usize = 4;
/// Manifests that are kept of one blob: more than one purge takes, so that one
/// which stays is among them.
const KEPT: usize = 20_000;

type Result<T> = std::result::Result<T, CatalogError>;
/// A digest as it is in a row.
pub(super) type Encoded = Vec<u8>;
/// A manifest of a repository, and as what it names something.
pub(super) type Namer = (i64, Encoded, i64);

impl Catalog {
    /// Repositories, deleted ones too, that have a manifest or a blob of this
    /// digest; only those of this name, if one is given.
    ///
    /// # Errors
    /// When it cannot be known.
    pub async fn purge_places(
        &self,
        digest: &Digest,
        repository: Option<&str>,
        seen: &mut Seen,
    ) -> Result<Vec<PurgePlace>> {
        let encoded = digest.encode();
        let wanted = HashSet::from([encoded.clone()]);
        let mut named: HashSet<i64> = HashSet::new();
        if repository.is_none() {
            let found = self.scan(None, &wanted).await?;
            named.extend(found.into_values().flatten().map(|(id, _, _)| id));
        }
        let rows = within(async {
            // Nobody holds a connection while it waits for another one.
            let mut connection = self.reader().await?;
            let rows = connection
                .rows(
                    "SELECT r.id, r.name, COALESCE(r.deleted_at, -1), CASE WHEN EXISTS \
                     (SELECT 1 FROM manifest m WHERE m.repository = r.id AND m.digest = $1) \
                     OR EXISTS (SELECT 1 FROM link l WHERE l.digest = $1 AND l.repository = r.id) \
                     OR EXISTS (SELECT 1 FROM unlinked u WHERE u.repository = r.id \
                     AND u.digest = $1) THEN CAST(1 AS BIGINT) ELSE CAST(0 AS BIGINT) END \
                     FROM repository r WHERE COALESCE($2, r.name) = r.name \
                     ORDER BY r.name, r.id",
                    &[Arg::Bytes(&encoded), Arg::MaybeText(repository)],
                )
                .await?;
            Ok(rows)
        })
        .await?;
        let mut places = Vec::new();
        for row in rows {
            let place = PurgePlace {
                id: row.int(0)?,
                name: row.text(1)?,
                is_deleted: row.int(2)? >= 0,
            };
            let mut has = row.int(3)? != 0 || named.contains(&place.id);
            if !has && repository.is_some() {
                has = !self.namers_in(place.id, &wanted, seen).await?.is_empty();
            }
            if has {
                places.push(place);
            }
        }
        Ok(places)
    }

    /// A repository, deleted or not, by its number. None: it is gone.
    ///
    /// # Errors
    /// When it cannot be known.
    pub async fn purge_place(&self, id: i64) -> Result<Option<PurgePlace>> {
        within(async {
            let mut connection = self.reader().await?;
            name_of(&mut connection, id).await
        })
        .await
    }

    /// Repositories, deleted ones too, that have links of blobs.
    ///
    /// # Errors
    /// When it cannot be known.
    pub async fn link_places(&self, blobs: &[Digest]) -> Result<Vec<(PurgePlace, Digest)>> {
        let mut places = Vec::new();
        for digest in blobs {
            let encoded = digest.encode();
            let mut after = i64::MIN;
            loop {
                let rows = within(async {
                    let mut connection = self.reader().await?;
                    let sql = "SELECT r.id, r.name, COALESCE(r.deleted_at, -1) FROM link l \
                         JOIN repository r ON r.id = l.repository \
                         WHERE l.digest = $1 AND l.repository > $2 \
                         ORDER BY l.repository LIMIT $3";
                    let arguments = [Arg::Bytes(&encoded), Arg::Int(after), Arg::Int(PAGE)];
                    Ok(connection.rows(sql, &arguments).await?)
                })
                .await?;
                for row in &rows {
                    let place = PurgePlace {
                        id: row.int(0)?,
                        name: row.text(1)?,
                        is_deleted: row.int(2)? >= 0,
                    };
                    after = place.id;
                    places.push((place, *digest));
                }
                if i64::try_from(rows.len()).is_ok_and(|rows| rows < PAGE) {
                    break;
                }
            }
        }
        Ok(places)
    }

    /// Which of these blobs no manifest of a repository names.
    ///
    /// # Errors
    /// When it cannot be known.
    pub async fn unnamed_in(
        &self,
        place: &PurgePlace,
        blobs: &[Digest],
        seen: &mut Seen,
    ) -> Result<Vec<Digest>> {
        let wanted = blobs.iter().map(Digest::encode).collect();
        let named = self.namers_in(place.id, &wanted, seen).await?;
        let is_unnamed = |blob: &&Digest| !named.contains_key(&blob.encode());
        Ok(blobs.iter().filter(is_unnamed).copied().collect())
    }

    /// Of the blobs of these units and of others, which rows name them apart from those
    /// of the units, which are there still: some of each. Reads every reference there is.
    ///
    /// # Errors
    /// When it cannot be known.
    pub async fn named_beside(&self, units: &[PurgeUnit], others: &[Digest]) -> Result<Namers> {
        let mut wanted: HashSet<Encoded> = others.iter().map(Digest::encode).collect();
        let mut taken = HashSet::new();
        for unit in units {
            wanted.extend(unit.blobs.iter().map(|(blob, _)| blob.encode()));
            let of = unit.manifests.iter();
            taken.extend(of.map(|manifest| (unit.place.id, manifest.digest.encode())));
        }
        let mut names = HashMap::new();
        let mut namers = Namers::new();
        let mut found = self.scan(None, &wanted).await?;
        for (id, manifest) in self.rows_of(&wanted).await? {
            let itself = found.entry(manifest.clone()).or_default();
            itself.push((id, manifest, 0));
        }
        let mut connection = self.reader().await?;
        for (blob, by) in found {
            let mut reasons = Vec::new();
            for (id, manifest, _) in by {
                if reasons.len() >= NAMERS || taken.contains(&(id, manifest.clone())) {
                    continue;
                }
                if let Entry::Vacant(of) = names.entry(id) {
                    of.insert(name_of(&mut connection, id).await?);
                }
                let place = names.get(&id).cloned().flatten();
                if let Some(place) = place {
                    reasons.push(reason(&mut connection, &place, &manifest).await?);
                }
            }
            if !reasons.is_empty() {
                namers.insert(whole(&blob)?, reasons);
            }
        }
        Ok(namers)
    }

    /// Which of these are manifests of repositories. Reads all manifests there are.
    ///
    /// # Errors
    /// When it cannot be known.
    pub async fn manifests_of(&self, digests: &[Digest]) -> Result<HashSet<Digest>> {
        let wanted = digests.iter().map(Digest::encode).collect();
        let rows = self.rows_of(&wanted).await?.into_iter();
        rows.map(|(_, digest)| whole(&digest)).collect()
    }

    /// Manifests of these digests, by repository.
    async fn rows_of(&self, wanted: &HashSet<Encoded>) -> Result<Vec<(i64, Encoded)>> {
        let mut found = Vec::new();
        let mut after = (i64::MIN, Encoded::new());
        loop {
            let mut connection = self.reader().await?;
            let rows = within(async {
                let sql = "SELECT repository, digest FROM manifest \
                     WHERE (repository, digest) > ($1, $2) ORDER BY repository, digest LIMIT $3";
                let arguments = [Arg::Int(after.0), Arg::Bytes(&after.1), Arg::Int(PAGE)];
                Ok(connection.rows(sql, &arguments).await?)
            })
            .await?;
            for row in &rows {
                after = (row.int(0)?, row.bytes(1)?);
                if wanted.contains(&after.1) {
                    found.push(after.clone());
                }
            }
            if i64::try_from(rows.len()).is_ok_and(|rows| rows < PAGE) {
                return Ok(found);
            }
        }
    }

    /// Which manifests name these digests, as what, in one repository or in all.
    /// Every reference is read, a page at a time.
    pub(super) async fn scan(
        &self,
        repository: Option<i64>,
        wanted: &HashSet<Encoded>,
    ) -> Result<HashMap<Encoded, Vec<Namer>>> {
        let mut found: HashMap<Encoded, Vec<Namer>> = HashMap::new();
        let mut after = (
            repository.unwrap_or(i64::MIN),
            Encoded::new(),
            0,
            Encoded::new(),
        );
        loop {
            let mut connection = self.reader().await?;
            let rows = within(async {
                let sql = match repository {
                    Some(_) => {
                        "SELECT repository, manifest, kind, digest FROM edge \
                         WHERE repository = $1 AND (manifest, kind, digest) > ($2, $3, $4) \
                         ORDER BY manifest, kind, digest LIMIT $5"
                    }
                    None => {
                        "SELECT repository, manifest, kind, digest FROM edge \
                         WHERE (repository, manifest, kind, digest) > ($1, $2, $3, $4) \
                         ORDER BY repository, manifest, kind, digest LIMIT $5"
                    }
                };
                let arguments = [
                    Arg::Int(after.0),
                    Arg::Bytes(&after.1),
                    Arg::Int(after.2),
                    Arg::Bytes(&after.3),
                    Arg::Int(PAGE),
                ];
                Ok(connection.rows(sql, &arguments).await?)
            })
            .await?;
            for row in &rows {
                after = (row.int(0)?, row.bytes(1)?, row.int(2)?, row.bytes(3)?);
                if wanted.contains(&after.3) {
                    let of = found.entry(after.3.clone()).or_default();
                    if of.len() < KEPT {
                        of.push((after.0, after.1.clone(), after.2));
                    }
                }
            }
            if i64::try_from(rows.len()).is_ok_and(|rows| rows < PAGE) {
                return Ok(found);
            }
        }
    }
}

/// A manifest as somebody is told of it.
pub(super) async fn reason(
    connection: &mut Connection,
    place: &PurgePlace,
    manifest: &[u8],
) -> Result<Reason> {
    let (id, of) = (Arg::Int(place.id), Arg::Bytes(manifest));
    let sql = "SELECT COALESCE(m.deleted_at, r.deleted_at, -1) FROM manifest m \
         JOIN repository r ON r.id = m.repository WHERE m.repository = $1 AND m.digest = $2";
    let row = connection.row(sql, &[id, of]).await?;
    let deleted_at = row.map(|row| row.int(0)).transpose()?;
    let sql = "SELECT name FROM tag WHERE manifest = $2 AND repository + 0 = $1 \
         AND deleted_at IS NULL ORDER BY name LIMIT 4";
    let tags = connection.rows(sql, &[id, of]).await?;
    let tags: std::result::Result<_, sqlx::Error> = tags.iter().map(|tag| tag.text(0)).collect();
    Ok(Reason {
        repository: place.name.clone(),
        manifest: whole(manifest)?,
        tags: tags?,
        deleted_at: deleted_at.filter(|at| *at >= 0),
    })
}

async fn name_of(connection: &mut Connection, id: i64) -> Result<Option<PurgePlace>> {
    let sql = "SELECT name, COALESCE(deleted_at, -1) FROM repository WHERE id = $1";
    let Some(row) = connection.row(sql, &[Arg::Int(id)]).await? else {
        return Ok(None);
    };
    Ok(Some(PurgePlace {
        id,
        name: row.text(0)?,
        is_deleted: row.int(1)? >= 0,
    }))
}
