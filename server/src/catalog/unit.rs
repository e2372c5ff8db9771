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
use std::sync::Arc;

use orlop_format::digest::Digest;

use super::Catalog;
use super::at_once::{self, Leaving, Lives};
use super::cache::{Item, Touched};
use super::change;
use super::departed;
use super::error::CatalogError;
use super::namers::{Encoded, Namer, reason};
use super::purge;
use super::read::{whole, within};
use super::seen::Seen;
use super::sql::{Arg, Connection};
use super::types::{ChangeKind, PurgePlace, PurgeUnit, PurgedManifest};
use super::verb::{self, Effect, Progress, Verb, touch};

/// Manifests of one unit, at most.
const UNIT_MAX: usize = 10_000;
/// Tags that are told of one manifest.
const TAGS: i64 = 100;

const CONFIG: i64 = 1;
const LAYER: i64 = 2;
/// The number of no repository.
const NOWHERE: i64 = 0;

type Result<T> = std::result::Result<T, CatalogError>;

/// A change that takes something away for good.
#[derive(Debug, Clone)]
pub(super) enum UnitVerb {
    /// A manifest with its tags, and of these lives what keeps them from dying
    /// before their leases end, where it is one or names it.
    Manifest(PurgePlace, Digest, Arc<Lives>),
    /// Nothing for good: a manifest is hidden, also in a deleted repository, from this
    /// time on.
    Hide(PurgePlace, Digest, i64),
    /// A repository's links of a blob, and what keeps that life.
    Link(PurgePlace, Digest, Option<Arc<Leaving>>),
    /// What keeps a blob's life from dying before its leases end.
    AtOnce(Digest, Arc<Leaving>),
    /// Nothing: of these lives, leases are to count again.
    Leased(Vec<u64>),
}

impl UnitVerb {
    pub(super) async fn apply(
        &self,
        connection: &mut Connection,
        now: i64,
    ) -> std::result::Result<Effect, sqlx::Error> {
        match self {
            UnitVerb::Manifest(place, digest, lives) => {
                manifest(connection, (place, digest), lives, now).await
            }
            UnitVerb::Hide(place, digest, at) => {
                let of = (place.id, place.name.as_str());
                verb::hide(connection, of, digest, (*at, now)).await
            }
            UnitVerb::Link(place, digest, life) => {
                link(connection, (place, digest), life.as_deref(), now).await
            }
            UnitVerb::AtOnce(digest, life) => {
                at_once::begin(connection, (&digest.encode(), life), NOWHERE, now).await?;
                Ok(Effect::default())
            }
            UnitVerb::Leased(births) => at_once::end(connection, births).await,
        }
    }
}

async fn manifest(
    connection: &mut Connection,
    (place, digest): (&PurgePlace, &Digest),
    leaving: &Lives,
    now: i64,
) -> std::result::Result<Effect, sqlx::Error> {
    let encoded = digest.encode();
    let (id, of) = (Arg::Int(place.id), Arg::Bytes(&encoded));
    let there = "SELECT 1 FROM manifest WHERE repository = $1 AND digest = $2";
    if connection.row(there, &[id, of]).await?.is_none() {
        return Ok(Effect::default());
    }
    let named = "SELECT DISTINCT digest FROM edge WHERE repository = $1 AND manifest = $2 \
         AND kind IN (1, 2)";
    let mut lives = Vec::new();
    for row in connection.rows(named, &[id, of]).await? {
        lives.push(row.bytes(0)?);
    }
    lives.push(encoded.clone());
    let at = (place.id, place.name.as_str());
    let effect = purge::one(connection, at, &encoded, now).await?;
    // With the row that names them: no later purge would find them.
    for life in lives.iter().filter(|_| !effect.unfinished) {
        let digest = Digest::decode(life).ok();
        if let Some(of) = digest.and_then(|(digest, _)| leaving.get(&digest)) {
            at_once::begin(connection, (life, of), place.id, now).await?;
        }
    }
    Ok(Effect {
        touched: vec![Touched::Repository(place.name.as_str().into())],
        ..effect
    })
}

async fn link(
    connection: &mut Connection,
    (place, digest): (&PurgePlace, &Digest),
    life: Option<&Leaving>,
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
        let named = departed::Named::from([(encoded.clone(), (Vec::new(), now))]);
        departed::remember(connection, &place.name, &named, now).await?;
    }
    if let Some(life) = life {
        at_once::begin(connection, (&encoded, life), place.id, now).await?;
    }
    let changes = [(ChangeKind::BlobUnlinked, digest.to_string())];
    Ok(Effect {
        sequence: Some(change::record(connection, place.id, &changes, now).await?),
        touched: vec![touch(&place.name, Item::Link(digest))],
        ..Effect::default()
    })
}

impl Catalog {
    /// What goes with a digest from a repository. Reads every reference of that, or
    /// what changed since it was `seen`.
    ///
    /// # Errors
    /// When it cannot be known, or `Refused` when it is too much for one purge.
    pub async fn purge_unit(
        &self,
        place: PurgePlace,
        digest: &Digest,
        seen: &mut Seen,
    ) -> Result<PurgeUnit> {
        let target = digest.encode();
        let namers = self
            .namers_in(place.id, &HashSet::from([target.clone()]), seen)
            .await?
            .remove(&target)
            .unwrap_or_default();
        let is_namer = |of: &Namer| matches!(of.2, CONFIG | LAYER);
        let namers = namers.into_iter().filter(is_namer).map(|of| of.1).collect();
        let mut connection = self.reader().await?;
        let hidden = seen.hidden(place.id);
        let mut look = Look::begin(&mut connection, &place, target, (namers, hidden)).await?;
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
        // Nobody holds a connection while it waits for another one.
        drop(connection);
        let wanted: HashSet<Encoded> = blobs.keys().cloned().collect();
        let named = self.namers_in(place.id, &wanted, seen).await?;
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
        let mut connection = self.reader().await?;
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
            let sql = "SELECT count(*) FROM tag WHERE manifest = $2 AND repository + 0 = $1 \
                 AND deleted_at IS NULL";
            let tag_count = connection.one(sql, &[id, of]).await?.int(0)?;
            let sql = "SELECT 1 FROM edge WHERE repository = $1 AND manifest = $2 \
                 AND kind = 3 LIMIT 1";
            let is_index = connection.row(sql, &[id, of]).await?.is_some();
            Ok(PurgedManifest {
                digest: whole(member)?,
                is_index,
                tags: tags?,
                tag_count: tag_count.unsigned_abs(),
            })
        })
        .await
    }

    /// Removes a manifest and its tags for good. From then on no lease keeps those
    /// lives of what it is and names that no other repository has a link of which
    /// stays.
    ///
    /// # Errors
    /// As [`Catalog::put_manifest`].
    pub async fn expunge_manifest(
        &self,
        place: &PurgePlace,
        digest: &Digest,
        lives: &Arc<Lives>,
    ) -> Result<()> {
        let lives = Arc::clone(lives);
        let verb = Verb::Unit(UnitVerb::Manifest(place.clone(), *digest, lives));
        while self.step(verb.clone()).await? == Progress::Step {}
        Ok(())
    }

    /// Hides a manifest, also one of a repository that was deleted.
    ///
    /// # Errors
    /// As [`Catalog::put_manifest`].
    pub async fn hide_in(&self, place: &PurgePlace, digest: &Digest) -> Result<()> {
        let at = self.time();
        let verb = Verb::Unit(UnitVerb::Hide(place.clone(), *digest, at));
        while self.step(verb.clone()).await? == Progress::Step {}
        Ok(())
    }

    /// Whether a manifest is in a repository, and if so whether it is hidden.
    ///
    /// # Errors
    /// When it cannot be known.
    pub async fn is_hidden_in(&self, place: &PurgePlace, digest: &Digest) -> Result<Option<bool>> {
        within(async {
            let mut connection = self.reader().await?;
            let sql = "SELECT COALESCE(deleted_at, -1) FROM manifest \
                 WHERE repository = $1 AND digest = $2";
            let arguments = [Arg::Int(place.id), Arg::Bytes(&digest.encode())];
            let row = connection.row(sql, &arguments).await?;
            Ok(row.map(|row| row.int(0)).transpose()?.map(|at| at >= 0))
        })
        .await
    }

    /// Whether a repository has a link of a blob, deleted or not.
    ///
    /// # Errors
    /// When it cannot be known.
    pub async fn is_linked_in(&self, place: &PurgePlace, digest: &Digest) -> Result<bool> {
        within(async {
            let mut connection = self.reader().await?;
            let sql = "SELECT 1 FROM link WHERE repository = $1 AND digest = $2 UNION ALL \
                 SELECT 1 FROM unlinked WHERE repository = $1 AND digest = $2";
            let arguments = [Arg::Int(place.id), Arg::Bytes(&digest.encode())];
            Ok(connection.row(sql, &arguments).await?.is_some())
        })
        .await
    }

    /// Removes a repository's links of a blob. From then on no lease keeps it, if
    /// its life is given and no other repository has a link of it that stays.
    ///
    /// # Errors
    /// As [`Catalog::put_manifest`].
    pub async fn expunge_link(
        &self,
        place: &PurgePlace,
        digest: &Digest,
        life: Option<&Arc<Leaving>>,
    ) -> Result<()> {
        let life = life.map(Arc::clone);
        let verb = Verb::Unit(UnitVerb::Link(place.clone(), *digest, life));
        self.submit(verb).await.map(|_| ())
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
        (namers, hidden_referrers): (Vec<Encoded>, HashMap<Encoded, Vec<Encoded>>),
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
            hidden_referrers,
        };
        let (id, of) = (Arg::Int(place.id), Arg::Bytes(&target));
        let is_manifest = within(async {
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
