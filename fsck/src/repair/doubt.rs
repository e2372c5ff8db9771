//! What notes say and a kill may have kept from being done.
//!
//! A note is written before the catalog's change. A copy of the catalog has what
//! was noted before the copy before it: of that it says what was done. What was
//! noted since then and before the copy was in the store it may have or not. What
//! it shows although a note took it away was not taken, or after the copy was
//! made: it stays, and is told.
//!
//! Refuses to know: SQL, and how a note is applied.

use std::collections::BTreeSet;

use orlop_format::digest::Digest;

/// How far a copy of the catalog has what notes say, as LSNs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Reach {
    /// It says of all notes up to here what was done.
    pub(crate) has: u64,
    /// It says nothing of notes behind this.
    pub(crate) until: u64,
}

/// Why it is not known of a repository whether it is as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Doubt {
    /// It was deleted, and the copy has it: it stays.
    Stays,
    /// It was deleted, and the copy cannot say whether that was done: it goes.
    Goes,
    /// It came back twice, and was not deleted in between.
    Twice,
}

impl Doubt {
    /// What is told of a repository.
    pub(super) fn says(self) -> &'static str {
        match self {
            Doubt::Stays => STAYS,
            Doubt::Goes => {
                "its delete was noted, and whether it was done is not known; it is deleted now: if it was not to go, bring it back with orlop undelete, under another name if there is one of that name"
            }
            Doubt::Twice => {
                "it was brought back twice, and no note says that it was deleted in between; what was pushed in between to the name that it had first may be in another repository"
            }
        }
    }
}

/// Of what the copy has and a note takes.
pub(super) const STAYS: &str = "its delete was noted, and the copy of the catalog has it; it is there now: delete it again if it was to go";
/// Of what the copy has and a note takes for good.
pub(super) const PURGED: &str = "it is purged, as was noted; the copy of the catalog has it, so that this may not have been done before";

/// What a note gives to a repository or takes from it, with the repository's row.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Thing {
    Manifest(i64, Digest),
    Tag(i64, String),
    Link(i64, Digest),
}

impl Thing {
    /// The repository's row.
    pub(super) fn row(&self) -> i64 {
        match self {
            Thing::Manifest(row, _) | Thing::Tag(row, _) | Thing::Link(row, _) => *row,
        }
    }

    /// As it is told, of a repository of this name.
    pub(super) fn of(&self, repository: &str) -> String {
        match self {
            Thing::Manifest(_, digest) => format!("manifest {repository}@{digest}"),
            Thing::Tag(_, tag) => format!("tag {repository}:{tag}"),
            Thing::Link(_, digest) => format!("{repository}'s link to {digest}"),
        }
    }
}

/// What is in doubt while notes are applied in their order. Holds as many things
/// as there are notes up to the end of the copy.
#[derive(Debug)]
pub(super) struct Doubts {
    copy: Reach,
    /// Notes gave it, and the copy does not show it.
    given: BTreeSet<Thing>,
    /// The copy shows it, and the last note about it takes it away.
    kept: BTreeSet<Thing>,
    /// The copy shows it, and the last note about it takes it away for good.
    purged: BTreeSet<Thing>,
}

impl Doubts {
    pub(super) fn new(copy: Reach) -> Self {
        Self {
            copy,
            given: BTreeSet::new(),
            kept: BTreeSet::new(),
            purged: BTreeSet::new(),
        }
    }

    /// Whether the copy may have the note with this LSN.
    pub(super) fn may_have(&self, lsn: u64) -> bool {
        lsn <= self.copy.until
    }

    /// Takes note of what is given, and whether it is shown before that.
    pub(super) fn give(&mut self, lsn: u64, thing: Thing, is_shown: bool) {
        self.kept.remove(&thing);
        self.purged.remove(&thing);
        if self.may_have(lsn) && !is_shown {
            self.given.insert(thing);
        }
    }

    /// Whether a thing that may be shown is to be taken away.
    pub(super) fn take(&mut self, lsn: u64, thing: Thing, is_shown: bool) -> bool {
        let is_unsure = self.is_unsure(lsn, &thing, is_shown);
        if is_unsure {
            self.kept.insert(thing);
        } else {
            self.kept.remove(&thing);
        }
        !is_unsure
    }

    /// Takes note of what goes for good: that is done in any case.
    pub(super) fn purge(&mut self, lsn: u64, thing: Thing, is_shown: bool) {
        let is_unsure = self.is_unsure(lsn, &thing, is_shown);
        self.kept.remove(&thing);
        if is_unsure {
            self.purged.insert(thing);
        }
    }

    fn is_unsure(&self, lsn: u64, thing: &Thing, is_shown: bool) -> bool {
        is_shown && self.may_have(lsn) && !self.given.contains(thing)
    }

    /// What stays although a note took it away, and what goes although it may not
    /// have gone.
    pub(super) fn end(self) -> (BTreeSet<Thing>, BTreeSet<Thing>) {
        (self.kept, self.purged)
    }
}
