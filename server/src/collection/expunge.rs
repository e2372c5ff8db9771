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

use super::Gc;
use crate::catalog::{Births, CatalogError, PurgePlace, PurgeUnit, Reason};
use crate::registry::{Alone, Subject};

/// Entries of a list that are told; the rest is counted.
pub const TOLD: usize = 100;
/// Tags that are told of all manifests together.
const TAGS_TOLD: usize = 400;
/// How often it is looked under which name a repository is by now.
const LOOKS: usize = 8;

/// What a purge takes, or would take.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expunged {
    /// Repositories that it takes something from.
    pub repositories: BTreeSet<String>,
    /// Some of the manifests.
    pub manifests: Vec<ExpungedManifest>,
    /// How many manifests there are.
    pub manifest_count: u64,
    /// How many tags they have.
    pub tag_count: u64,
    /// Blobs that nothing names any more.
    pub blobs: Vec<Digest>,
    /// Their bytes, as far as they are here.
    pub bytes: u64,
    /// Blobs of it that stay, and what names them: some of them.
    pub left: Vec<(Digest, Vec<Reason>)>,
    /// How many stay.
    pub left_count: u64,
}

/// A manifest that a purge takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpungedManifest {
    /// Where.
    pub repository: String,
    /// Its digest.
    pub digest: Digest,
    /// Some of its tags.
    pub tags: Vec<String>,
    /// How many it has.
    pub tag_count: u64,
}

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
    /// Links of blobs that go, of repositories that have nothing else of it.
    links: Vec<(PurgePlace, Digest)>,
    /// Of the blobs that go.
    births: Births,
    told: Expunged,
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
        let births = Arc::new(std::mem::take(&mut plan.births));
        // First, so that with the last row that names a blob no lease keeps it.
        self.take_links(&plan.links, &births).await?;
        plan.units = self.take_names(&plan.units, target, &births).await?;
        // Of what was taken, which may be more than was planned.
        self.tell(&mut plan, target).await?;
        self.take_links(&plan.links, &plan.births).await?;
        for (digest, birth) in &plan.births {
            self.may_expunge()?;
            self.catalog.begin_at_once(digest, *birth).await?;
        }
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

    /// Takes what was planned, one name after the other, from all repositories that
    /// have or had it by then, and says what that was. A repository that came back
    /// under another name meanwhile is looked for under that.
    async fn take_names(
        &self,
        planned: &[PurgeUnit],
        target: &Target,
        births: &Arc<Births>,
    ) -> Result<Vec<PurgeUnit>, ExpungeError> {
        let places = planned.iter().map(|unit| &unit.place);
        let mut looked: HashMap<i64, String> =
            places.map(|place| (place.id, place.name.clone())).collect();
        let mut names: BTreeSet<String> = looked.values().cloned().collect();
        let mut taken = Vec::new();
        for _ in 0..LOOKS {
            while let Some(name) = names.pop_first() {
                let parsed = parse(&name)?;
                let alone = self.registry.alone(Subject::Operator, &parsed).await?;
                // Repositories may have been deleted, brought back or made since
                // the plan.
                let places = self.catalog.purge_places(&target.digest, Some(&name));
                let places = places.await?;
                taken.append(&mut self.take_units(&alone, places, target, births).await?);
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

    async fn take_links(
        &self,
        links: &[(PurgePlace, Digest)],
        births: &Births,
    ) -> Result<(), ExpungeError> {
        let mut by_name: BTreeMap<&str, Vec<&(PurgePlace, Digest)>> = BTreeMap::new();
        for link in links {
            by_name.entry(&link.0.name).or_default().push(link);
        }
        for (name, links) in by_name {
            let parsed = parse(name)?;
            let alone = self.registry.alone(Subject::Operator, &parsed).await?;
            for (place, digest) in links {
                self.may_expunge()?;
                let place = self.catalog.purge_place(place.id).await?;
                // One that has another name by now keeps it.
                if let Some(place) = place.filter(|place| place.name == name) {
                    let birth = births.get(digest).copied();
                    self.take_link(&alone, &place, (digest, birth)).await?;
                }
            }
        }
        Ok(())
    }

    /// Takes the units of repositories of one name, and says what they were.
    async fn take_units(
        &self,
        alone: &Alone<'_>,
        places: Vec<PurgePlace>,
        target: &Target,
        births: &Arc<Births>,
    ) -> Result<Vec<PurgeUnit>, ExpungeError> {
        let mut fresh = Vec::with_capacity(places.len());
        for place in places {
            // Somebody may have pushed since it was looked at.
            let unit = self.catalog.purge_unit(place, &target.digest).await?;
            if !unit.blockers.is_empty() {
                return Err(ExpungeError::Needed(unit.blockers));
            }
            fresh.push(unit);
        }
        // Hidden before what it lists goes: a purge that is cut short leaves nothing
        // behind that is broken, and the next one finds it.
        for unit in fresh.iter().filter(|unit| !unit.place.is_deleted) {
            if unit.manifests.iter().any(|of| of.digest == target.digest) {
                alone.deletes(&target.digest)?;
                let hidden = self
                    .catalog
                    .delete_manifest(&unit.place.name, &target.digest);
                hidden.await?;
            }
        }
        for unit in &fresh {
            for manifest in &unit.manifests {
                self.may_expunge()?;
                alone.purges(unit.place.id, &manifest.digest)?;
                let catalog = &self.catalog;
                let purged = catalog.expunge_manifest(&unit.place, &manifest.digest, births);
                if let Err(error) = purged.await {
                    if !unit.place.is_deleted {
                        alone.stays(&manifest.digest, &manifest.tags).await?;
                    }
                    return Err(error.into());
                }
            }
            for blob in &unit.unlinked {
                self.may_expunge()?;
                alone.purges_blob(unit.place.id, blob)?;
                let birth = births.get(blob).copied();
                let unlinked = self.catalog.expunge_link(&unit.place, blob, birth);
                unlinked.await?;
            }
        }
        Ok(fresh)
    }

    /// Takes a link of a repository, unless something there names it by now.
    async fn take_link(
        &self,
        alone: &Alone<'_>,
        place: &PurgePlace,
        (digest, birth): (&Digest, Option<u64>),
    ) -> Result<(), ExpungeError> {
        if self.catalog.is_named_in(place, digest).await? {
            return Ok(());
        }
        alone.purges_blob(place.id, digest)?;
        Ok(self.catalog.expunge_link(place, digest, birth).await?)
    }

    async fn plan_of(&self, target: &Target) -> Result<Plan, ExpungeError> {
        let Target { repository, digest } = target;
        let repository = repository.as_deref();
        let places = self.catalog.purge_places(digest, repository).await?;
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
            let mut unit = self.catalog.purge_unit(place, digest).await?;
            blockers.append(&mut unit.blockers);
            units.push(unit);
        }
        if !blockers.is_empty() {
            return Err(ExpungeError::Needed(blockers));
        }
        let mut plan = Plan {
            units,
            links: Vec::new(),
            births: Births::new(),
            told: Expunged::default(),
        };
        self.tell(&mut plan, target).await?;
        Ok(plan)
    }

    /// Adds up what goes and what stays.
    async fn tell(&self, plan: &mut Plan, target: &Target) -> Result<(), ExpungeError> {
        let namers = self.catalog.named_beside(&plan.units).await?;
        let mut blobs: BTreeSet<Digest> = BTreeSet::from([target.digest]);
        plan.told = Expunged::default();
        plan.births.clear();
        let mut tags_left = TAGS_TOLD;
        for unit in &plan.units {
            let told = &mut plan.told;
            if unit.manifests.is_empty() && unit.unlinked.is_empty() {
                continue;
            }
            told.repositories.insert(unit.place.name.clone());
            for manifest in &unit.manifests {
                told.manifest_count = told.manifest_count.saturating_add(1);
                told.tag_count = told.tag_count.saturating_add(manifest.tag_count);
                if told.manifests.len() < TOLD {
                    let tags: Vec<String> = manifest.tags.iter().take(tags_left).cloned().collect();
                    tags_left = tags_left.saturating_sub(tags.len());
                    told.manifests.push(ExpungedManifest {
                        repository: unit.place.name.clone(),
                        digest: manifest.digest,
                        tags,
                        tag_count: manifest.tag_count,
                    });
                }
            }
            blobs.extend(unit.blobs.iter().map(|(blob, _)| *blob));
        }
        let all: Vec<Digest> = blobs.iter().copied().collect();
        let taken: HashSet<i64> = plan.units.iter().map(|unit| unit.place.id).collect();
        let links = self.catalog.link_places(&all).await?;
        let links = links.into_iter().filter(|(of, _)| !taken.contains(&of.id));
        let links: Vec<(PurgePlace, Digest)> = links.collect();
        for blob in all {
            let Some(stat) = self.store.look(&blob)? else {
                continue;
            };
            let named = namers.get(&blob).cloned().unwrap_or_default();
            // Who asks for one repository leaves to others what they have.
            let is_linked = links.iter().any(|(_, of)| *of == blob);
            if named.is_empty() && !(is_linked && target.repository.is_some()) {
                plan.told.bytes = plan.told.bytes.saturating_add(stat.size);
                plan.told.blobs.push(blob);
                plan.births.insert(blob, stat.birth);
                continue;
            }
            plan.told.left_count = plan.told.left_count.saturating_add(1);
            if plan.told.left.len() < TOLD {
                plan.told.left.push((blob, named));
            }
        }
        let gone: HashSet<Digest> = plan.told.blobs.iter().copied().collect();
        plan.links = links
            .into_iter()
            .filter(|(_, of)| gone.contains(of))
            .collect();
        Ok(())
    }
}

fn parse(name: &str) -> Result<RepositoryName, ExpungeError> {
    RepositoryName::parse(name).map_err(|error| {
        ExpungeError::Failed(format!(
            "the catalog has a repository {name:?}, whose name is none: {error}"
        ))
    })
}
