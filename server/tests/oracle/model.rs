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

/// What it belonged to was purged.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Orphan {
    at: Span,
    sure: bool,
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

    fn may_purge(&self, gone: &Gone) -> bool {
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

    /// A manifest came back, with these tags.
    pub(crate) fn undelete(&mut self, digest: &Digest, tags: &[String], now: i64) {
        for tag in tags {
            if let Some(tag) = self.tags.get_mut(tag) {
                (tag.hidden, tag.sure) = (None, true);
            }
        }
        if let Some(row) = self.rows.get_mut(digest) {
            (row.hidden, row.sure, row.orphan) = (None, true, None);
            row.pulled = now;
        }
    }

    /// What belonged to a row that is purged, or may be.
    pub(crate) fn orphan(&mut self, of: &Digest, at: Span, sure: bool) {
        let children: BTreeSet<Digest> = self.rows.get(of).map_or_else(BTreeSet::new, |row| {
            row.children().map(|edge| edge.digest).collect()
        });
        for (digest, row) in &mut self.rows {
            let belongs = children.contains(digest) || row.subject() == Some(of);
            let is_newer = row.orphan.is_none_or(|orphan| orphan.at.from < at.from);
            if belongs && is_newer {
                row.orphan = Some(Orphan { at, sure });
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
    pub(crate) fn has_to_go(&self, digest: &Digest, at: Collection, untagged: Option<i64>) -> bool {
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
        let is_orphan = row
            .orphan
            .is_some_and(|orphan| orphan.sure && used <= orphan.at.from);
        let is_idle = untagged.is_some_and(|time| used + time <= at.at.from);
        at.whole && row.sure && !is_reached && (is_orphan || is_idle)
    }

    /// Whether a collection may delete a manifest that is soft.
    pub(crate) fn may_go(&self, digest: &Digest, at: Collection, untagged: Option<i64>) -> bool {
        let Some(row) = self.rows.get(digest) else {
            return true;
        };
        let is_idle = untagged.is_some_and(|time| row.touched.from + time <= at.at.to + SLACK);
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
}

/// Contents by their SHA-256, and the digests by which they are named.
pub(crate) type Named = BTreeMap<Digest, BTreeSet<Digest>>;

impl Model {
    pub(crate) fn new(names: &[&str]) -> Model {
        Model {
            repos: names.iter().map(|name| Repo::new(name)).collect(),
            dangling: BTreeSet::new(),
            buried: BTreeSet::new(),
        }
    }

    /// Removes what a collection purges, and doubts what it may have purged.
    pub(crate) fn purge(&mut self, at: Collection) {
        for repo in &mut self.repos {
            let mut due = Vec::new();
            for (digest, row) in &mut repo.rows {
                let Some(gone) = row.hidden.filter(|gone| at.may_purge(gone)) else {
                    continue;
                };
                row.sure = false;
                due.push((*digest, gone.at, at.purges(&gone)));
            }
            for (digest, gone, sure) in due {
                repo.orphan(&digest, gone, sure);
                if sure && let Some(row) = repo.rows.remove(&digest) {
                    repo.tags.retain(|_, tag| tag.digest != digest);
                    self.buried.insert(row.sha256);
                }
            }
            repo.tags.retain(|_, tag| {
                let gone = tag.hidden.filter(|gone| at.may_purge(gone));
                tag.sure &= gone.is_none();
                gone.is_none_or(|gone| !at.purges(&gone))
            });
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
