//! `orlop purge`: what goes now and skips every window, as an operator says
//! (docs/adr/0019-what-is-garbage.md).
//!
//! Invariants: nothing that was not deleted is left broken; each name is noted
//! before its rows go, while nobody else changes names of its repository; who
//! is told of a purge is told all that it took along, as far as lists reach.
//!
//! Refuses to know: SQL, and how bytes die. A collection sees to that after it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use orlop_oci::{Digest, RepositoryName};
use tokio::task::spawn_blocking;

use super::Gc;
use super::expunged::Expunged;
use crate::catalog::{
    CatalogError, Leaving, Lives, Namers, PurgePlace, PurgeUnit, PurgedManifest, Reason, Seen,
};
use crate::registry::note::Purged;
use crate::registry::{Alone, Subject};

/// Lives that one read or change of the catalog is about.
const LIVES: usize = 128;
/// How often it is looked under which name a repository is by now.
const LOOKS: usize = 8;

/// What is to be purged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// From this repository alone; None: from all.
    pub repository: Option<String>,
    /// A manifest or a blob.
    pub digest: Digest,
}

/// Why a purge did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum ExpungeError {
    /// Manifests that were not deleted need it.
    #[error("manifests that are not deleted need it")]
    Needed(Vec<Reason>),
    /// Neither a manifest nor a blob has this digest.
    #[error("{0} is not here: no manifest and no blob has it, deleted or not")]
    Unknown(String),
    /// The store keeps it for itself.
    #[error("{0} is a copy of the catalog, which the store keeps for itself")]
    Internal(Digest),
    /// It failed.
    #[error("{0}")]
    Failed(String),
}

impl From<CatalogError> for ExpungeError {
    fn from(error: CatalogError) -> ExpungeError {
        ExpungeError::Failed(error.to_string())
    }
}

impl From<crate::registry::Error> for ExpungeError {
    fn from(error: crate::registry::Error) -> ExpungeError {
        ExpungeError::Failed(error.to_string())
    }
}

impl From<orlop_engine::Error> for ExpungeError {
    fn from(error: orlop_engine::Error) -> ExpungeError {
        ExpungeError::Failed(error.to_string())
    }
}

/// What is known of a purge.
struct Plan {
    units: Vec<PurgeUnit>,
    /// Links of blobs that go, of repositories that have nothing else of it, and by
    /// other digests of theirs.
    links: Vec<(PurgePlace, Digest)>,
    /// Of the blobs that go.
    lives: Lives,
    told: Expunged,
    /// What was read of references, so that less is read while others wait.
    seen: Seen,
}

impl Gc {
    /// Says what a purge would take.
    ///
    /// # Errors
    /// As [`Gc::expunge`].
    pub async fn would_expunge(&self, target: &Target) -> Result<Expunged, ExpungeError> {
        Ok(self.plan_of(target).await?.told)
    }

    /// Takes it: names are gone on return, bytes after the next collection. Says
    /// what it took. It comes to its end even if nobody waits for that any more.
    ///
    /// # Errors
    /// `Needed`: nothing was done, or what was done already stays so. `Failed`:
    /// done again it goes on.
    pub async fn expunge(self: &Arc<Self>, target: &Target) -> Result<Expunged, ExpungeError> {
        self.may_expunge()?;
        let plan = self.plan_of(target).await?;
        let (gc, target) = (Arc::clone(self), target.clone());
        let taken = self
            .registry
            .to_the_end(async move { Ok(gc.take(plan, &target).await) });
        taken.await?
    }

    /// Whether anything may be taken, now.
    fn may_expunge(&self) -> Result<(), ExpungeError> {
        let maintenance = self.maintenance.get();
        match maintenance.and_then(crate::registry::Maintenance::read_only) {
            Some(why) => Err(crate::registry::Error::ReadOnly(why).into()),
            None => Ok(()),
        }
    }

    async fn take(&self, mut plan: Plan, target: &Target) -> Result<Expunged, ExpungeError> {
        let lives = Arc::new(std::mem::take(&mut plan.lives));
        let mut seen = std::mem::take(&mut plan.seen);
        let taken = self.take_names(&plan.units, target, &lives, &mut seen);
        plan.units = taken.await?;
        // Of what was taken, which may be more than was planned. Rows that are there by
        // now name what they name, also those that were taken before.
        self.tell(&mut plan, target, true).await?;
        // Behind the names, which may be refused; with the last row that named a blob
        // no lease kept it, since these go as well.
        self.take_links(&plan.links, &plan.lives).await?;
        let stays = |digest: &&Digest| !plan.lives.contains_key(digest);
        let stay: Vec<Digest> = lives.keys().filter(stays).copied().collect();
        self.end_at_once(&lives, &stay).await?;
        self.begin_at_once(&plan.lives).await?;
        self.tell_what_stays(&mut plan).await?;
        tracing::warn!(
            digest = %target.digest,
            repository = target.repository.as_deref().unwrap_or("all"),
            manifests = plan.told.manifest_count,
            blobs = plan.told.blobs.len(),
            left = plan.told.left_count,
            "an operator purged what no undelete brings back"
        );
        Ok(plan.told)
    }

    /// Says of lives that no lease keeps them, but of those of which a repository
    /// has a link by now that leases do.
    async fn begin_at_once(&self, lives: &Lives) -> Result<(), ExpungeError> {
        let mut said = HashSet::new();
        for (digest, life) in lives.iter().filter(|(_, life)| said.insert(life.birth)) {
            self.may_expunge()?;
            let alone = Leaving {
                places: HashSet::new(),
                ..Leaving::clone(life)
            };
            self.catalog.begin_at_once(digest, &Arc::new(alone)).await?;
        }
        Ok(())
    }

    /// Says of lives of these digests that leases keep them.
    async fn end_at_once(&self, lives: &Lives, digests: &[Digest]) -> Result<(), ExpungeError> {
        let lives = digests.iter().filter_map(|digest| lives.get(digest));
        let births: BTreeSet<u64> = lives.map(|life| life.birth).collect();
        let births: Vec<u64> = births.into_iter().collect();
        for part in births.chunks(LIVES) {
            self.catalog.end_at_once(part.to_vec()).await?;
        }
        Ok(())
    }

    /// Counts those blobs as staying that somebody has named since it was looked.
    async fn tell_what_stays(&self, plan: &mut Plan) -> Result<(), ExpungeError> {
        // A manifest that was pushed again has no link by which that is known.
        let digests: Vec<Digest> = plan.lives.keys().copied().collect();
        let again = self.catalog.manifests_of(&digests).await?;
        let again: Vec<Digest> = again.into_iter().collect();
        self.end_at_once(&plan.lives, &again).await?;
        let births: BTreeSet<u64> = plan.lives.values().map(|life| life.birth).collect();
        let births: Vec<u64> = births.into_iter().collect();
        let mut go = HashSet::new();
        for part in births.chunks(LIVES) {
            go.extend(self.catalog.still_at_once(part).await?);
        }
        let (mut gone, mut stay, mut counted) = (Vec::new(), Vec::new(), HashSet::new());
        for blob in std::mem::take(&mut plan.told.blobs) {
            let life = plan.lives.get(&blob).filter(|of| !go.contains(&of.birth));
            // A collection may have ended it meanwhile.
            let here = self.store.look(&blob)?;
            let stat = here.filter(|stat| life.is_some_and(|life| life.birth == stat.birth));
            let Some(stat) = stat else {
                gone.push(blob);
                continue;
            };
            if counted.insert(stat.birth) {
                plan.told.bytes = plan.told.bytes.saturating_sub(stat.size);
            }
            stay.push(blob);
        }
        plan.told.blobs = gone;
        if stay.is_empty() {
            return Ok(());
        }
        let digests = self.digests_of(stay).await?;
        let all: Vec<Digest> = digests.values().flatten().copied().collect();
        let namers = self.catalog.named_beside(&[], &all).await?;
        for (blob, names) in digests {
            plan.told.leave(blob, reasons(&namers, &names));
        }
        Ok(())
    }

    /// Takes what was planned, one name after the other, from all repositories that
    /// have or had it by then, and says what that was. A repository that came back
    /// under another name meanwhile is looked for under that.
    async fn take_names(
        &self,
        planned: &[PurgeUnit],
        target: &Target,
        lives: &Arc<Lives>,
        seen: &mut Seen,
    ) -> Result<Vec<PurgeUnit>, ExpungeError> {
        let places = planned.iter().map(|unit| &unit.place);
        let mut looked: HashMap<i64, String> =
            places.map(|place| (place.id, place.name.clone())).collect();
        let mut names: BTreeSet<String> = looked.values().cloned().collect();
        let mut taken = Vec::new();
        for _ in 0..LOOKS {
            while let Some(name) = names.pop_first() {
                let parsed = parse(&name)?;
                // All that takes long to read, before others wait for it.
                self.units_of(&name, target, seen).await?;
                let alone = self.registry.alone(Subject::Operator, &parsed).await?;
                // Repositories may have been deleted, brought back or made since
                // the plan, and somebody may have pushed.
                let fresh = self.units_of(&name, target, seen).await?;
                taken.append(&mut self.take_units(&alone, fresh, target, lives).await?);
            }
            if target.repository.is_some() {
                return Ok(taken);
            }
            for (id, name) in &mut looked {
                let place = self.catalog.purge_place(*id).await?;
                if let Some(place) = place.filter(|place| place.name != *name) {
                    name.clone_from(&place.name);
                    names.insert(place.name);
                }
            }
            if names.is_empty() {
                return Ok(taken);
            }
        }
        Err(ExpungeError::Failed(
            "repositories get other names all the while; purge it again".to_owned(),
        ))
    }

    /// What goes from all repositories that have or had a name. Refused if something
    /// needs it.
    async fn units_of(
        &self,
        name: &str,
        target: &Target,
        seen: &mut Seen,
    ) -> Result<Vec<PurgeUnit>, ExpungeError> {
        let digest = &target.digest;
        let places = self.catalog.purge_places(digest, Some(name), seen).await?;
        let mut units = Vec::with_capacity(places.len());
        for place in places {
            let unit = self.catalog.purge_unit(place, digest, seen).await?;
            if !unit.blockers.is_empty() {
                return Err(ExpungeError::Needed(unit.blockers));
            }
            units.push(unit);
        }
        Ok(units)
    }

    async fn take_links(
        &self,
        links: &[(PurgePlace, Digest)],
        lives: &Lives,
    ) -> Result<(), ExpungeError> {
        let mut by_name: BTreeMap<&str, Vec<&(PurgePlace, Digest)>> = BTreeMap::new();
        for link in links {
            by_name.entry(&link.0.name).or_default().push(link);
        }
        for (name, links) in by_name {
            let parsed = parse(name)?;
            let mut of: BTreeMap<i64, (&PurgePlace, Vec<Digest>)> = BTreeMap::new();
            for (place, digest) in links {
                let (_, digests) = of.entry(place.id).or_insert((place, Vec::new()));
                digests.push(*digest);
            }
            let mut seen = Seen::default();
            // All that takes long to read, before others wait for it.
            for (place, digests) in of.values() {
                self.catalog.unnamed_in(place, digests, &mut seen).await?;
            }
            let alone = self.registry.alone(Subject::Operator, &parsed).await?;
            for (place, digests) in of.values() {
                // One that has another name by now keeps them, and so does one that
                // names them by now.
                let place = self.catalog.purge_place(place.id).await?;
                let Some(place) = place.filter(|place| place.name == name) else {
                    continue;
                };
                let unnamed = self.catalog.unnamed_in(&place, digests, &mut seen).await?;
                for digest in &unnamed {
                    self.take_link(&alone, &place, digest, lives.get(digest))
                        .await?;
                }
            }
        }
        Ok(())
    }

    /// Takes the units of repositories of one name, and says what they were.
    async fn take_units(
        &self,
        alone: &Alone<'_>,
        units: Vec<PurgeUnit>,
        target: &Target,
        lives: &Arc<Lives>,
    ) -> Result<Vec<PurgeUnit>, ExpungeError> {
        for unit in &units {
            self.hide(alone, unit, &target.digest).await?;
        }
        for unit in &units {
            for manifest in &unit.manifests {
                self.take_manifest(alone, &unit.place, manifest, lives)
                    .await?;
            }
            for blob in &unit.unlinked {
                self.take_link(alone, &unit.place, blob, lives.get(blob))
                    .await?;
            }
        }
        Ok(units)
    }

    /// Hides what lists others before they go, and what was asked for: a purge that is
    /// cut short leaves nothing behind that is broken, and the next one finds it. In a
    /// deleted repository too, since that can come back.
    async fn hide(
        &self,
        alone: &Alone<'_>,
        unit: &PurgeUnit,
        target: &Digest,
    ) -> Result<(), ExpungeError> {
        let place = &unit.place;
        for manifest in unit.manifests.iter().rev() {
            let digest = &manifest.digest;
            self.may_expunge()?;
            if place.is_deleted && manifest.is_index {
                // No note says that it is hidden there: that it goes has to do.
                alone.purges(place.id, digest)?;
                let hidden = self.catalog.hide_in(place, digest).await;
                if let Err(error) = hidden {
                    if let Ok(Some(false)) = self.catalog.is_hidden_in(place, digest).await {
                        alone.keeps(place.id, digest, Purged::Manifest)?;
                    }
                    return Err(error.into());
                }
            } else if !place.is_deleted && (manifest.is_index || digest == target) {
                alone.delete(digest).await?;
            }
        }
        Ok(())
    }

    async fn take_manifest(
        &self,
        alone: &Alone<'_>,
        place: &PurgePlace,
        manifest: &PurgedManifest,
        lives: &Arc<Lives>,
    ) -> Result<(), ExpungeError> {
        let digest = &manifest.digest;
        self.may_expunge()?;
        alone.purges(place.id, digest)?;
        let purged = self.catalog.expunge_manifest(place, digest, lives).await;
        let Err(error) = purged else { return Ok(()) };
        // Where that cannot be known, it is as noted; and where what it lists may have
        // gone and no note could say that it is hidden.
        if let Ok(Some(is_hidden)) = self.catalog.is_hidden_in(place, digest).await
            && !(manifest.is_index && place.is_deleted)
        {
            alone.keeps(place.id, digest, Purged::Manifest)?;
            // What it was to lose one step after the other it has lost in part.
            if is_hidden && !place.is_deleted {
                alone.deletes(digest)?;
            }
        }
        Err(error.into())
    }

    async fn take_link(
        &self,
        alone: &Alone<'_>,
        place: &PurgePlace,
        digest: &Digest,
        life: Option<&Arc<Leaving>>,
    ) -> Result<(), ExpungeError> {
        self.may_expunge()?;
        alone.purges_blob(place.id, digest)?;
        let unlinked = self.catalog.expunge_link(place, digest, life).await;
        let Err(error) = unlinked else { return Ok(()) };
        if let Ok(true) = self.catalog.is_linked_in(place, digest).await {
            alone.keeps(place.id, digest, Purged::Blob)?;
        }
        Err(error.into())
    }

    async fn plan_of(&self, target: &Target) -> Result<Plan, ExpungeError> {
        let Target { repository, digest } = target;
        let repository = repository.as_deref();
        let mut seen = Seen::default();
        let places = self.catalog.purge_places(digest, repository, &mut seen);
        let places = places.await?;
        let stat = self.store.look(digest)?;
        if places.is_empty() && (repository.is_some() || stat.is_none()) {
            let where_to = repository.map_or_else(String::new, |name| format!("{name}@"));
            return Err(ExpungeError::Unknown(format!("{where_to}{digest}")));
        }
        let copies = self.store.names().await?.copies;
        if copies.iter().any(|(copy, _)| copy == digest) {
            return Err(ExpungeError::Internal(*digest));
        }
        let mut units = Vec::with_capacity(places.len());
        let mut blockers = Vec::new();
        for place in places {
            let mut unit = self.catalog.purge_unit(place, digest, &mut seen).await?;
            blockers.append(&mut unit.blockers);
            units.push(unit);
        }
        if !blockers.is_empty() {
            return Err(ExpungeError::Needed(blockers));
        }
        let mut plan = Plan {
            units,
            links: Vec::new(),
            lives: Lives::new(),
            told: Expunged::default(),
            seen,
        };
        self.tell(&mut plan, target, false).await?;
        Ok(plan)
    }

    /// Adds up what goes and what stays. Rows of units name nothing, unless those are
    /// taken: then they have come since.
    async fn tell(
        &self,
        plan: &mut Plan,
        target: &Target,
        is_taken: bool,
    ) -> Result<(), ExpungeError> {
        plan.told = Expunged::default();
        let mut blobs: BTreeSet<Digest> = BTreeSet::from([target.digest]);
        for unit in &plan.units {
            plan.told.add(unit);
            blobs.extend(unit.blobs.iter().map(|(blob, _)| *blob));
        }
        let digests = self.digests_of(blobs.into_iter().collect()).await?;
        let all: Vec<Digest> = digests.values().flatten().copied().collect();
        let beside = if is_taken { &[] } else { plan.units.as_slice() };
        let namers = self.catalog.named_beside(beside, &all).await?;
        // What a unit takes of itself is not looked for again.
        let units = plan.units.iter();
        let own: HashMap<i64, HashSet<Digest>> = units
            .map(|unit| (unit.place.id, unit.unlinked.iter().copied().collect()))
            .collect();
        let links = self.catalog.link_places(&all).await?.into_iter();
        let is_others = |(of, digest): &(PurgePlace, Digest)| {
            own.get(&of.id).is_none_or(|own| !own.contains(digest))
        };
        let links: Vec<(PurgePlace, Digest)> = links.filter(is_others).collect();
        plan.links.clear();
        plan.lives.clear();
        let mut counted = HashSet::new();
        for (blob, names) in digests {
            let Some(stat) = self.store.look(&blob)? else {
                continue;
            };
            let named = reasons(&namers, &names);
            let of_it: Vec<_> = links.iter().filter(|(_, of)| names.contains(of)).collect();
            // Who asks for one repository leaves to others what they have.
            let is_linked = of_it.iter().any(|(of, _)| !own.contains_key(&of.id));
            if named.is_empty() && !(is_linked && target.repository.is_some()) {
                if counted.insert(stat.birth) {
                    plan.told.bytes = plan.told.bytes.saturating_add(stat.size);
                }
                plan.told.blobs.push(blob);
                let life = Arc::new(Leaving {
                    birth: stat.birth,
                    places: of_it.iter().map(|(of, _)| of.id).collect(),
                    further: names,
                });
                for name in &life.further {
                    plan.lives.insert(*name, Arc::clone(&life));
                }
                plan.links.extend(of_it.into_iter().cloned());
                continue;
            }
            plan.told.leave(blob, named);
        }
        plan.links
            .sort_by(|(a, of_a), (b, of_b)| (a.id, of_a).cmp(&(b.id, of_b)));
        plan.links.dedup();
        Ok(())
    }

    /// All digests that blobs have: rows and links may know them by any.
    async fn digests_of(
        &self,
        blobs: Vec<Digest>,
    ) -> Result<BTreeMap<Digest, Vec<Digest>>, ExpungeError> {
        let store = self.store.clone();
        let read = spawn_blocking(move || {
            let all = store.digests_of(&blobs)?;
            Ok::<_, orlop_engine::Error>(blobs.into_iter().zip(all).collect())
        });
        let read = read.await;
        Ok(read.map_err(|error| ExpungeError::Failed(error.to_string()))??)
    }
}

/// What names a blob, by any of its digests.
fn reasons(namers: &Namers, digests: &[Digest]) -> Vec<Reason> {
    let of = digests.iter().filter_map(|digest| namers.get(digest));
    of.flatten().cloned().collect()
}

fn parse(name: &str) -> Result<RepositoryName, ExpungeError> {
    RepositoryName::parse(name).map_err(|error| {
        ExpungeError::Failed(format!(
            "the catalog has a repository {name:?}, whose name is none: {error}"
        ))
    })
}
