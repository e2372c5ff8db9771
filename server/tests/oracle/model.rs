//! What a registry is to hold, kept apart from it: rows with the times of their
//! deletion, tags, links, and a walk of its own that says what lives.
//!
//! Some things cannot be known from outside: whether a job that was cancelled
//! had purged a row, or what a job did that runs beside this. Those rows are not
//! `sure`: what they name may live, and need not.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use orlop::registry::Digest;

/// Times that two clocks of one machine may be apart, in milliseconds.
pub(crate) const SLACK: i64 = 5;

/// Something happened between these times.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span {
    pub(crate) from: i64,
    pub(crate) to: i64,
}

/// A deletion. Rows of one deletion have the same number.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Gone {
    pub(crate) at: Span,
    pub(crate) number: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Blob,
    Child,
    /// The manifest that this one is about. It may never have been here.
    Subject {
        was_here: bool,
    },
}

#[derive(Debug, Clone)]
pub(crate) struct Edge {
    pub(crate) kind: Kind,
    pub(crate) digest: Digest,
    pub(crate) sha256: Digest,
}

/// What it belonged to was purged. `at`: when that was deleted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Orphan {
    at: Span,
    sure: bool,
}

impl Orphan {
    /// Of two the later counts.
    fn and(self, other: Orphan) -> Orphan {
        let from = match (self.sure, other.sure) {
            (true, false) => self.at.from,
            (false, true) => other.at.from,
            (true, true) => self.at.from.max(other.at.from),
            (false, false) => self.at.from.min(other.at.from),
        };
        let to = self.at.to.max(other.at.to);
        Orphan {
            at: Span { from, to },
            sure: self.sure || other.sure,
        }
    }
}

/// A blob that was taken from a repository by its digest.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Unlinked {
    pub(crate) gone: Gone,
    /// Whether there certainly is such a row.
    pub(crate) sure: bool,
}

/// How long what nothing reaches stays, in milliseconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// After its last use, if it does not stay for good.
    pub(crate) untagged: Option<i64>,
    /// The undelete window of the store.
    pub(crate) window: i64,
    /// By then anything may have been pulled unseen.
    pub(crate) floor: i64,
}

#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) bytes: Bytes,
    pub(crate) kind: &'static str,
    pub(crate) sha256: Digest,
    pub(crate) edges: Vec<Edge>,
    pub(crate) hidden: Option<Gone>,
    /// Whether there certainly is such a row.
    pub(crate) sure: bool,
    pub(crate) orphan: Option<Orphan>,
    /// When it was pushed or lost a tag last.
    pub(crate) touched: Span,
    /// Not earlier than its last pull.
    pub(crate) pulled: i64,
}

impl Row {
    fn children(&self) -> impl Iterator<Item = &Edge> {
        self.edges.iter().filter(|edge| edge.kind == Kind::Child)
    }

    pub(crate) fn subject(&self) -> Option<&Digest> {
        let subject = |edge: &&Edge| matches!(edge.kind, Kind::Subject { .. });
        self.edges.iter().find(subject).map(|edge| &edge.digest)
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Tag {
    pub(crate) digest: Digest,
    pub(crate) hidden: Option<Gone>,
    pub(crate) sure: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct Repo {
    pub(crate) name: String,
    pub(crate) rows: BTreeMap<Digest, Row>,
    pub(crate) tags: BTreeMap<String, Tag>,
    /// Blobs that it has, and whether that is certain as long as they live.
    pub(crate) links: BTreeMap<Digest, bool>,
    /// Blobs that were taken from it and that an undelete brings back.
    pub(crate) unlinked: BTreeMap<Digest, Unlinked>,
}

/// A collection: when, and what it purges.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Collection {
    pub(crate) at: Span,
    /// Milliseconds.
    pub(crate) window: i64,
    /// Whether it came to its end.
    pub(crate) whole: bool,
}

impl Collection {
    fn purges(&self, gone: &Gone) -> bool {
        self.whole && gone.at.to + self.window + SLACK <= self.at.from
    }

    pub(crate) fn may_purge(&self, gone: &Gone) -> bool {
        gone.at.from + self.window <= self.at.to + SLACK
    }
}

impl Repo {
    pub(crate) fn new(name: &str) -> Repo {
        Repo {
            name: name.to_owned(),
            rows: BTreeMap::new(),
            tags: BTreeMap::new(),
            links: BTreeMap::new(),
            unlinked: BTreeMap::new(),
        }
    }

    pub(crate) fn visible(&self) -> impl Iterator<Item = (&Digest, &Row)> {
        self.rows.iter().filter(|(_, row)| row.hidden.is_none())
    }

    pub(crate) fn visible_tags(&self) -> impl Iterator<Item = (&String, &Tag)> {
        self.tags.iter().filter(|(_, tag)| tag.hidden.is_none())
    }

    fn is_tagged(&self, digest: &Digest) -> bool {
        self.visible_tags().any(|(_, tag)| tag.digest == *digest)
    }

    /// A manifest was pushed.
    pub(crate) fn put(&mut self, digest: Digest, row: Row, tag: Option<&str>) {
        for child in row.children() {
            if let Some(child) = self.rows.get_mut(&child.digest) {
                (child.hidden, child.sure) = (None, true);
            }
        }
        for edge in row.edges.iter().filter(|edge| edge.kind == Kind::Blob) {
            self.links.insert(edge.digest, true);
        }
        let at = row.touched;
        self.rows.insert(digest, row);
        if let Some(tag) = tag {
            self.lose_tag(tag, Some(&digest), at);
            let set = Tag {
                digest,
                hidden: None,
                sure: true,
            };
            self.tags.insert(tag.to_owned(), set);
        }
    }

    fn lose_tag(&mut self, tag: &str, unless: Option<&Digest>, at: Span) {
        let had = self.tags.get(tag).filter(|tag| tag.hidden.is_none());
        let had = had.map(|tag| tag.digest).filter(|had| Some(had) != unless);
        if let Some(row) = had.and_then(|had| self.rows.get_mut(&had)) {
            row.touched = at;
        }
    }

    pub(crate) fn untag(&mut self, tag: &str, gone: Gone) {
        self.lose_tag(tag, None, gone.at);
        if let Some(tag) = self.tags.get_mut(tag) {
            tag.hidden = Some(gone);
        }
    }

    pub(crate) fn hide(&mut self, digest: &Digest, gone: Gone) {
        for tag in self.tags.values_mut() {
            if tag.digest == *digest && tag.hidden.is_none() {
                tag.hidden = Some(gone);
            }
        }
        if let Some(row) = self.rows.get_mut(digest) {
            row.hidden = Some(gone);
        }
    }

    /// Tags came back.
    pub(crate) fn undelete_tags(&mut self, tags: &[String]) {
        for tag in tags {
            if let Some(tag) = self.tags.get_mut(tag) {
                (tag.hidden, tag.sure) = (None, true);
            }
        }
    }

    /// A manifest came back, if it was deleted. That counts as use.
    pub(crate) fn revive(&mut self, digest: &Digest, at: Span, sure: bool) {
        if let Some(row) = self.rows.get_mut(digest) {
            row.sure |= sure;
            if row.hidden.take().is_some() {
                (row.orphan, row.touched) = (None, at);
            }
        }
    }

    /// Blobs of a manifest that came back: what was deleted by digest comes too.
    pub(crate) fn relink(&mut self, of: &Digest, sure: bool, dangling: &BTreeSet<Digest>) {
        let Some(row) = self.rows.get(of) else {
            return;
        };
        for edge in row.edges.iter().filter(|edge| edge.kind == Kind::Blob) {
            let Some(unlinked) = self.unlinked.get_mut(&edge.digest) else {
                continue;
            };
            let is_sure = sure && unlinked.sure && !dangling.contains(&edge.sha256);
            *self.links.entry(edge.digest).or_insert(is_sure) |= is_sure;
            unlinked.sure = false;
            if sure {
                self.unlinked.remove(&edge.digest);
            }
        }
    }

    /// A manifest and what it lists, and so on: what comes back with it. `sure`:
    /// by way of rows that are certain to be there.
    pub(crate) fn unit(&self, of: &Digest, sure: bool) -> BTreeSet<Digest> {
        let is_there = |row: &&Row| row.sure || !sure;
        let (mut unit, mut next) = (BTreeSet::new(), vec![*of]);
        while let Some(digest) = next.pop() {
            if let Some(row) = self.rows.get(&digest).filter(is_there)
                && unit.insert(digest)
            {
                next.extend(row.children().map(|edge| edge.digest));
            }
        }
        unit
    }

    /// What belonged to a row that is purged, or may be.
    pub(crate) fn orphan(&mut self, of: &Digest, at: Span, sure: bool) {
        let children: BTreeSet<Digest> = self.rows.get(of).map_or_else(BTreeSet::new, |row| {
            row.children().map(|edge| edge.digest).collect()
        });
        let orphan = Orphan { at, sure };
        for (digest, row) in &mut self.rows {
            if children.contains(digest) || row.subject() == Some(of) {
                row.orphan = Some(row.orphan.map_or(orphan, |before| before.and(orphan)));
            }
        }
    }

    /// What indexes that are not deleted list: no purge takes it. Without those
    /// of `except`.
    fn held(&self, except: &BTreeSet<Digest>) -> BTreeSet<Digest> {
        let rows = self.visible();
        let rows = rows.filter(|(digest, _)| !except.contains(digest));
        rows.flat_map(|(_, row)| row.children().map(|edge| edge.digest))
            .collect()
    }

    /// Removes what a collection purges, and doubts what it may have purged.
    /// What is gone is `buried`.
    pub(crate) fn purge(&mut self, at: Collection, buried: &mut BTreeSet<Digest>) {
        let unsure = self.rows.iter().filter(|(_, row)| !row.sure);
        let unsure = unsure.map(|(digest, _)| *digest).collect();
        let (held, may_be_held) = (self.held(&unsure), self.held(&BTreeSet::new()));
        let mut due = Vec::new();
        for (digest, row) in &mut self.rows {
            let gone = row.hidden.filter(|gone| at.may_purge(gone));
            let Some(gone) = gone.filter(|_| !held.contains(digest)) else {
                continue;
            };
            row.sure = false;
            let sure = at.purges(&gone) && !may_be_held.contains(digest);
            due.push((*digest, gone.at, sure));
        }
        for (digest, gone, sure) in due {
            self.orphan(&digest, gone, sure);
            if sure && let Some(row) = self.rows.remove(&digest) {
                self.tags.retain(|_, tag| tag.digest != digest);
                buried.insert(row.sha256);
            }
        }
        self.tags.retain(|_, tag| {
            let gone = tag.hidden.filter(|gone| at.may_purge(gone));
            tag.sure &= gone.is_none();
            gone.is_none_or(|gone| !at.purges(&gone))
        });
        self.unlinked.retain(|_, of| {
            of.sure &= !at.may_purge(&of.gone);
            !at.purges(&of.gone)
        });
    }

    /// What is deleted may be purged at any moment, except for what an index
    /// lists that is certain to stay.
    pub(crate) fn doubt(&mut self, any: bool) {
        loop {
            let held = self.held(&self.soft(any));
            let mut hidden = Vec::new();
            for (digest, row) in &mut self.rows {
                if let Some(gone) = row.hidden
                    && !held.contains(digest)
                    && std::mem::take(&mut row.sure)
                {
                    hidden.push((*digest, gone.at));
                }
            }
            for (digest, at) in &hidden {
                self.orphan(digest, *at, false);
            }
            if hidden.is_empty() {
                break;
            }
        }
        for tag in self.tags.values_mut() {
            tag.sure &= tag.hidden.is_none();
        }
        for unlinked in self.unlinked.values_mut() {
            unlinked.sure = false;
        }
    }

    /// A whole collection has looked at all orphans: those that it left have a
    /// life of their own, unless it could not know that.
    pub(crate) fn settle(&mut self, at: Collection, limits: Limits, is_again: bool) {
        let is_known = !is_again && limits.floor + limits.window + SLACK <= at.at.from;
        for row in self.rows.values_mut().filter(|row| row.hidden.is_none()) {
            match &mut row.orphan {
                orphan if is_known => *orphan = None,
                Some(orphan) => orphan.sure = false,
                None => {}
            }
        }
    }

    /// Rows that nobody can be sure of while a collection runs: what nothing
    /// reaches that is certain to be there, and belonged to something.
    /// `any`: also what never belonged to anything.
    pub(crate) fn soft(&self, any: bool) -> BTreeSet<Digest> {
        let unsure = self.rows.iter().filter(|(_, row)| !row.sure);
        let mut soft: BTreeSet<Digest> = unsure.map(|(digest, _)| *digest).collect();
        loop {
            let children = |is_soft: bool| -> BTreeSet<Digest> {
                let rows = self.rows.iter();
                rows.filter(|(digest, _)| soft.contains(digest) == is_soft)
                    .flat_map(|(_, row)| row.children().map(|edge| edge.digest))
                    .collect()
            };
            let (reached, doubted) = (children(false), children(true));
            let more: Vec<Digest> = self
                .visible()
                .filter(|(digest, row)| {
                    let subject = row.subject();
                    let is_about = |here: bool| {
                        subject.is_some_and(|subject| {
                            self.rows.contains_key(subject) && soft.contains(subject) != here
                        })
                    };
                    let is_held =
                        self.is_tagged(digest) || reached.contains(digest) || is_about(true);
                    let is_suspect =
                        any || row.orphan.is_some() || doubted.contains(digest) || is_about(false);
                    !soft.contains(digest) && !is_held && is_suspect
                })
                .map(|(digest, _)| *digest)
                .collect();
            if more.is_empty() {
                return soft;
            }
            soft.extend(more);
        }
    }

    /// Whether a whole collection has to delete a manifest: nothing can reach it
    /// and nobody used it since it lost what it belonged to, or for so long.
    pub(crate) fn has_to_go(&self, digest: &Digest, at: Collection, limits: Limits) -> bool {
        let Some(row) = self.rows.get(digest) else {
            return false;
        };
        let is_reached = self.is_tagged(digest)
            || self
                .rows
                .values()
                .any(|row| row.children().any(|edge| edge.digest == *digest))
            || row
                .subject()
                .is_some_and(|subject| self.rows.contains_key(subject));
        let used = row.touched.to.max(row.pulled) + SLACK;
        let floor = limits.floor + SLACK;
        let is_orphan = row.orphan.is_some_and(|orphan| {
            let is_known = floor <= orphan.at.from || floor + limits.window <= at.at.from;
            orphan.sure && used <= orphan.at.from && is_known
        });
        let is_idle = limits
            .untagged
            .is_some_and(|time| used.max(floor) + time <= at.at.from);
        at.whole && row.sure && !is_reached && (is_orphan || is_idle)
    }

    /// Whether a collection may delete a manifest that is soft.
    pub(crate) fn may_go(&self, digest: &Digest, at: Collection, limits: Limits) -> bool {
        let Some(row) = self.rows.get(digest) else {
            return true;
        };
        let since = row.touched.from;
        let is_idle = limits
            .untagged
            .is_some_and(|time| since + time <= at.at.to + SLACK);
        is_idle || self.soft(false).contains(digest)
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Model {
    pub(crate) repos: Vec<Repo>,
    /// Contents that rows of an older catalog name and that had died.
    pub(crate) dangling: BTreeSet<Digest>,
    /// Manifests whose rows went and whose bytes were not yet seen to be gone.
    pub(crate) buried: BTreeSet<Digest>,
    /// By then anything may have been pulled unseen.
    pub(crate) floor: i64,
}

/// Contents by their SHA-256, and the digests by which they are named.
pub(crate) type Named = BTreeMap<Digest, BTreeSet<Digest>>;

impl Model {
    pub(crate) fn new(names: &[&str]) -> Model {
        Model {
            repos: names.iter().map(|name| Repo::new(name)).collect(),
            dangling: BTreeSet::new(),
            buried: BTreeSet::new(),
            floor: 0,
        }
    }

    /// As [`Repo::purge`].
    pub(crate) fn purge(&mut self, at: Collection) {
        for repo in &mut self.repos {
            repo.purge(at, &mut self.buried);
        }
    }

    /// What lives for certain.
    pub(crate) fn must_live(&self) -> Named {
        let mut named = self.named(true);
        named.retain(|sha256, _| !self.dangling.contains(sha256));
        named
    }

    /// What may live.
    pub(crate) fn may_live(&self) -> Named {
        self.named(false)
    }

    fn named(&self, sure: bool) -> Named {
        let mut named = Named::new();
        let rows = self.repos.iter().flat_map(|repo| &repo.rows);
        for (digest, row) in rows.filter(|(_, row)| row.sure || !sure) {
            named.entry(row.sha256).or_default().insert(*digest);
            let was_here = |edge: &&Edge| edge.kind != Kind::Subject { was_here: false };
            for edge in row.edges.iter().filter(|edge| !sure || was_here(edge)) {
                named.entry(edge.sha256).or_default().insert(edge.digest);
            }
        }
        named
    }

    /// Every manifest that was pushed and may still be in the store.
    pub(crate) fn manifests(&self) -> BTreeSet<Digest> {
        let rows = self.repos.iter().flat_map(|repo| repo.rows.values());
        rows.map(|row| row.sha256)
            .chain(self.buried.iter().copied())
            .collect()
    }
}
