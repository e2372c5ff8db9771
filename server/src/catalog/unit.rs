//! What goes with a digest that is purged by an operator, and the changes that
//! take it away for good (docs/adr/0019-what-is-garbage.md).
//!
//! Invariants: a manifest goes with what is about it and with what it lists and
//! nothing else reaches; rows that are hidden and need it go too, since they
//! could not come back whole; rows that are not are blockers. The manifest that
//! was asked for goes last, so that a purge that was cut short is found again.
//!
//! Whoever reads a unit and takes it sees to it that nobody names anything in
//! that repository meanwhile. Refuses to know: blobs and whether they are here.

use std::collections::{HashMap, HashSet};

use orlop_format::digest::Digest;

use super::Catalog;
use super::cache::{Item, Touched};
use super::change;
use super::departed;
use super::error::CatalogError;
use super::namers::{Encoded, Namer, reason};
use super::purge;
use super::read::{whole, within};
use super::sql::{Arg, Connection};
use super::types::{ChangeKind, PurgePlace, PurgeUnit, PurgedManifest};
use super::verb::{Effect, Progress, Verb, touch};

/// Manifests of one unit, at most.
const UNIT_MAX: usize = 10_000;
/// Tags that are told of one manifest.
const TAGS: i64 = 100;

const CONFIG: i64 = 1;
const LAYER: i64 = 2;

type Result<T> = std::result::Result<T, CatalogError>;

/// A change that takes something away for good.
#[derive(Debug, Clone)]
pub(super) enum UnitVerb {
    /// A manifest with its tags.
    Manifest(PurgePlace, Digest),
    /// A repository's links of a blob.
    Link(PurgePlace, Digest),
    /// What keeps a blob from dying before its leases end.
    Lease(Digest),
}

impl UnitVerb {
    pub(super) async fn apply(
        &self,
        connection: &mut Connection,
        now: i64,
    ) -> std::result::Result<Effect, sqlx::Error> {
        match self {
            UnitVerb::Manifest(place, digest) => manifest(connection, place, digest, now).await,
            UnitVerb::Link(place, digest) => link(connection, place, digest, now).await,
            UnitVerb::Lease(digest) => lease(connection, digest, now).await,
        }
    }
}

async fn manifest(
    connection: &mut Connection,
    place: &PurgePlace,
    digest: &Digest,
    now: i64,
) -> std::result::Result<Effect, sqlx::Error> {
    let encoded = digest.encode();
    let (id, of) = (Arg::Int(place.id), Arg::Bytes(&encoded));
    let there = "SELECT 1 FROM manifest WHERE repository = $1 AND digest = $2";
    if connection.row(there, &[id, of]).await?.is_none() {
        return Ok(Effect::default());
    }
    // Those that this step removes.
    let tags = "SELECT name, COALESCE(deleted_at, -1) FROM tag \
         WHERE manifest = $2 AND repository + 0 = $1 LIMIT $3";
    let step = Arg::Int(i64::try_from(purge::TAGS).unwrap_or(i64::MAX));
    let mut changes = Vec::new();
    for tag in connection.rows(tags, &[id, of, step]).await? {
        if tag.int(1)? < 0 {
            changes.push((place.id, ChangeKind::TagDeleted, tag.text(0)?));
        }
    }
    let at = (place.id, place.name.as_str());
    let effect = purge::one(connection, at, &encoded, (changes, now)).await?;
    Ok(Effect {
        touched: vec![Touched::Repository(place.name.as_str().into())],
        ..effect
    })
}

async fn link(
    connection: &mut Connection,
    place: &PurgePlace,
    digest: &Digest,
    now: i64,
) -> std::result::Result<Effect, sqlx::Error> {
    let encoded = digest.encode();
    let arguments = [Arg::Int(place.id), Arg::Bytes(&encoded)];
    let mut unlinked = 0u64;
    for sql in [
        "DELETE FROM link WHERE repository = $1 AND digest = $2",
        "DELETE FROM unlinked WHERE repository = $1 AND digest = $2",
    ] {
        unlinked = unlinked.saturating_add(connection.run(sql, &arguments).await?);
    }
    if unlinked == 0 {
        return Ok(Effect::default());
    }
    // What a manifest says of it that went says more.
    let known = "SELECT 1 FROM departed WHERE digest = $1";
    if connection
        .row(known, &[Arg::Bytes(&encoded)])
        .await?
        .is_none()
    {
        remember(connection, &place.name, encoded, now).await?;
    }
    let changes = [(ChangeKind::BlobUnlinked, digest.to_string())];
    Ok(Effect {
        sequence: Some(change::record(connection, place.id, &changes, now).await?),
        touched: vec![touch(&place.name, Item::Link(digest))],
        ..Effect::default()
    })
}

/// Remembers a blob that goes by its own digest.
async fn remember(
    connection: &mut Connection,
    repository: &str,
    blob: Encoded,
    now: i64,
) -> std::result::Result<(), sqlx::Error> {
    let named = departed::Named::from([(blob, (Vec::new(), now))]);
    departed::remember(connection, repository, &named, now).await
}

async fn lease(
    connection: &mut Connection,
    digest: &Digest,
    now: i64,
) -> std::result::Result<Effect, sqlx::Error> {
    let encoded = digest.encode();
    let of = [Arg::Bytes(&encoded)];
    let at_once = "UPDATE departed SET at_once = 1 WHERE digest = $1";
    if connection.run(at_once, &of).await? == 0 {
        // No row had it: bytes of a push that came to nothing.
        remember(connection, "", encoded.clone(), now).await?;
        connection.run(at_once, &of).await?;
    }
    Ok(Effect::default())
}

impl Catalog {
    /// What goes with a digest from a repository.
    ///
    /// # Errors
    /// When it cannot be known, or `Refused` when it is too much for one purge.
    pub async fn purge_unit(&self, place: PurgePlace, digest: &Digest) -> Result<PurgeUnit> {
        let target = digest.encode();
        let namers = self
            .scan(Some(place.id), &HashSet::from([target.clone()]))
            .await?
            .remove(&target)
            .unwrap_or_default();
        let is_namer = |of: &Namer| matches!(of.2, CONFIG | LAYER);
        let namers = namers.into_iter().filter(is_namer).map(|of| of.1).collect();
        let mut connection = self.reader().await?;
        let mut look = Look::begin(&mut connection, &place, target, namers).await?;
        look.close(&mut connection).await?;
        let Look {
            members, blockers, ..
        } = look;
        let mut manifests = Vec::with_capacity(members.order.len());
        let mut blobs: HashMap<Encoded, u64> = HashMap::new();
        // What was asked for, and what is about it, last.
        for member in members.order.iter().rev() {
            let of = self.purged_manifest(&mut connection, &place, member, &mut blobs);
            manifests.push(of.await?);
        }
        blobs.entry(digest.encode()).or_insert(0);
        let wanted: HashSet<Encoded> = blobs.keys().cloned().collect();
        let named = self.scan(Some(place.id), &wanted).await?;
        let is_free = |blob: &Encoded| {
            let namers = named.get(blob).map(Vec::as_slice).unwrap_or_default();
            namers.iter().all(|(_, by, _)| members.set.contains(by))
        };
        let mut unlinked = Vec::new();
        for blob in blobs.keys().filter(|blob| is_free(blob)) {
            unlinked.push(whole(blob)?);
        }
        unlinked.sort();
        let mut sized = Vec::with_capacity(blobs.len());
        for (blob, size) in blobs {
            sized.push((whole(&blob)?, size));
        }
        sized.sort();
        let mut reasons = Vec::with_capacity(blockers.len());
        for blocker in blockers {
            reasons.push(reason(&mut connection, &place, &blocker).await?);
        }
        Ok(PurgeUnit {
            place,
            manifests,
            blobs: sized,
            unlinked,
            blockers: reasons,
        })
    }

    async fn purged_manifest(
        &self,
        connection: &mut Connection,
        place: &PurgePlace,
        member: &Encoded,
        blobs: &mut HashMap<Encoded, u64>,
    ) -> Result<PurgedManifest> {
        let (id, of) = (Arg::Int(place.id), Arg::Bytes(member));
        within(async {
            let sql = "SELECT size FROM manifest WHERE repository = $1 AND digest = $2";
            if let Some(row) = connection.row(sql, &[id, of]).await? {
                blobs.insert(member.clone(), row.int(0)?.unsigned_abs());
            }
            let sql = "SELECT digest, size FROM edge WHERE repository = $1 AND manifest = $2 \
                 AND kind IN (1, 2)";
            for row in connection.rows(sql, &[id, of]).await? {
                blobs.insert(row.bytes(0)?, row.int(1)?.unsigned_abs());
            }
            let sql = "SELECT name FROM tag WHERE manifest = $2 AND repository + 0 = $1 \
                 AND deleted_at IS NULL ORDER BY name LIMIT $3";
            let tags = connection.rows(sql, &[id, of, Arg::Int(TAGS)]).await?;
            let tags: std::result::Result<_, sqlx::Error> =
                tags.iter().map(|tag| tag.text(0)).collect();
            Ok(PurgedManifest {
                digest: whole(member)?,
                tags: tags?,
            })
        })
        .await
    }

    /// Removes a manifest and its tags for good.
    ///
    /// # Errors
    /// As [`Catalog::put_manifest`].
    pub async fn expunge_manifest(&self, place: &PurgePlace, digest: &Digest) -> Result<()> {
        let verb = Verb::Unit(UnitVerb::Manifest(place.clone(), *digest));
        while self.step(verb.clone()).await? == Progress::Step {}
        Ok(())
    }

    /// Removes a repository's links of a blob.
    ///
    /// # Errors
    /// As [`Catalog::put_manifest`].
    pub async fn expunge_link(&self, place: &PurgePlace, digest: &Digest) -> Result<()> {
        let verb = Verb::Unit(UnitVerb::Link(place.clone(), *digest));
        self.submit(verb).await.map(|_| ())
    }

    /// Says that no lease keeps a blob.
    ///
    /// # Errors
    /// As [`Catalog::put_manifest`].
    pub async fn expunge_lease(&self, digest: &Digest) -> Result<()> {
        let verb = Verb::Unit(UnitVerb::Lease(*digest));
        self.submit(verb).await.map(|_| ())
    }

    /// Some of the blobs that no lease keeps, after one, in order.
    ///
    /// # Errors
    /// When it cannot be known.
    pub async fn at_once(&self, after: Option<Digest>) -> Result<Vec<Digest>> {
        within(async {
            let mut connection = self.reader().await?;
            let after = after.map(|digest| digest.encode()).unwrap_or_default();
            let sql = "SELECT digest FROM departed WHERE at_once = 1 AND digest > $1 \
                 ORDER BY digest LIMIT 512";
            let rows = connection.rows(sql, &[Arg::Bytes(&after)]).await?;
            rows.iter().map(|row| whole(&row.bytes(0)?)).collect()
        })
        .await
    }
}

/// Members of a unit, in the order in which they were found.
#[derive(Default)]
struct Members {
    set: HashSet<Encoded>,
    order: Vec<Encoded>,
}

impl Members {
    fn add(&mut self, digest: Encoded) -> Result<bool> {
        if !self.set.insert(digest.clone()) {
            return Ok(false);
        }
        if self.order.len() >= UNIT_MAX {
            return Err(CatalogError::Refused(format!(
                "more than {UNIT_MAX} manifests belong to it; purge some of those that are about it first"
            )));
        }
        self.order.push(digest);
        Ok(true)
    }
}

/// A unit while it is looked for.
struct Look {
    id: i64,
    is_deleted: bool,
    members: Members,
    /// Those whose children and referrers are looked at, so far up to `done`.
    downs: Vec<Encoded>,
    done: usize,
    /// Children that something else may reach.
    doubtful: Vec<Encoded>,
    /// Those that nobody may list: the manifest and what is about it.
    exposed: Vec<Encoded>,
    /// What names the blob, and lists what goes.
    above: Vec<Encoded>,
    blockers: Vec<Encoded>,
    /// Hidden manifests that are about one.
    hidden_referrers: HashMap<Encoded, Vec<Encoded>>,
}

impl Look {
    async fn begin(
        connection: &mut Connection,
        place: &PurgePlace,
        target: Encoded,
        namers: Vec<Encoded>,
    ) -> Result<Look> {
        let mut look = Look {
            id: place.id,
            is_deleted: place.is_deleted,
            members: Members::default(),
            downs: Vec::new(),
            done: 0,
            doubtful: Vec::new(),
            exposed: Vec::new(),
            above: namers,
            blockers: Vec::new(),
            hidden_referrers: HashMap::new(),
        };
        let (id, of) = (Arg::Int(place.id), Arg::Bytes(&target));
        let is_manifest = within(async {
            let sql = "SELECT digest, subject FROM manifest WHERE repository = $1 \
                 AND subject IS NOT NULL AND deleted_at IS NOT NULL";
            for row in connection.rows(sql, &[id]).await? {
                let of = look.hidden_referrers.entry(row.bytes(1)?).or_default();
                of.push(row.bytes(0)?);
            }
            let sql = "SELECT 1 FROM manifest WHERE repository = $1 AND digest = $2";
            Ok(connection.row(sql, &[id, of]).await?.is_some())
        })
        .await?;
        if is_manifest {
            look.members.add(target.clone())?;
            look.downs.push(target.clone());
            look.exposed.push(target);
        }
        Ok(look)
    }

    /// Looks until nothing more is found.
    async fn close(&mut self, connection: &mut Connection) -> Result<()> {
        loop {
            let before = (self.members.order.len(), self.above.len(), self.done);
            within(self.down(connection)).await?;
            within(self.up(connection)).await?;
            if (self.members.order.len(), self.above.len(), self.done) == before {
                self.blockers.sort();
                self.blockers.dedup();
                return Ok(());
            }
        }
    }

    /// What belongs to what goes.
    async fn down(&mut self, connection: &mut Connection) -> Result<()> {
        let id = Arg::Int(self.id);
        while let Some(member) = self.downs.get(self.done).cloned() {
            self.done = self.done.saturating_add(1);
            let of = Arg::Bytes(&member);
            let sql = "SELECT digest FROM manifest WHERE repository = $1 AND subject = $2 \
                 AND subject IS NOT NULL AND deleted_at IS NULL";
            let mut referrers = self.hidden_referrers.remove(&member).unwrap_or_default();
            for row in connection.rows(sql, &[id, of]).await? {
                referrers.push(row.bytes(0)?);
            }
            for referrer in referrers {
                if self.members.add(referrer.clone())? {
                    self.downs.push(referrer.clone());
                    self.exposed.push(referrer);
                }
            }
            let sql = "SELECT e.digest FROM edge e JOIN manifest m ON m.repository = e.repository \
                 AND m.digest = e.digest WHERE e.repository = $1 AND e.manifest = $2 \
                 AND e.kind = 3";
            for row in connection.rows(sql, &[id, of]).await? {
                self.doubtful.push(row.bytes(0)?);
            }
        }
        for child in std::mem::take(&mut self.doubtful) {
            if self.members.set.contains(&child) {
                continue;
            }
            if self.is_reached(connection, &child).await? {
                self.doubtful.push(child);
            } else if self.members.add(child.clone())? {
                self.downs.push(child);
            }
        }
        Ok(())
    }

    /// Whether something that stays reaches a child.
    async fn is_reached(&self, connection: &mut Connection, child: &[u8]) -> Result<bool> {
        let (id, of) = (Arg::Int(self.id), Arg::Bytes(child));
        let tagged = "SELECT 1 FROM tag WHERE manifest = $2 AND repository + 0 = $1 \
             AND deleted_at IS NULL LIMIT 1";
        if connection.row(tagged, &[id, of]).await?.is_some() {
            return Ok(true);
        }
        let subject = "SELECT s.digest FROM manifest m JOIN manifest s \
             ON s.repository = m.repository AND s.digest = m.subject \
             WHERE m.repository = $1 AND m.digest = $2";
        if let Some(row) = connection.row(subject, &[id, of]).await?
            && !self.members.set.contains(&row.bytes(0)?)
        {
            return Ok(true);
        }
        let listed = "SELECT manifest FROM edge WHERE repository = $1 AND digest = $2 \
             AND kind = 3";
        for row in connection.rows(listed, &[id, of]).await? {
            if !self.members.set.contains(&row.bytes(0)?) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// What needs what goes: it goes too if it is hidden, and is a blocker if not.
    async fn up(&mut self, connection: &mut Connection) -> Result<()> {
        let id = Arg::Int(self.id);
        loop {
            for exposed in std::mem::take(&mut self.exposed) {
                let sql = "SELECT manifest FROM edge WHERE repository = $1 AND digest = $2 \
                     AND kind = 3";
                for row in connection.rows(sql, &[id, Arg::Bytes(&exposed)]).await? {
                    self.above.push(row.bytes(0)?);
                }
            }
            let Some(above) = self.above.pop() else {
                return Ok(());
            };
            if self.members.set.contains(&above) {
                continue;
            }
            let sql = "SELECT COALESCE(deleted_at, -1) FROM manifest \
                 WHERE repository = $1 AND digest = $2";
            let row = connection.row(sql, &[id, Arg::Bytes(&above)]).await?;
            let Some(row) = row else { continue };
            if !self.is_deleted && row.int(0)? < 0 {
                self.blockers.push(above);
            } else if self.members.add(above.clone())? {
                self.exposed.push(above);
            }
        }
    }
}
