//! Which row of the catalog had a name when a note was written, and what became
//! of it: read from all notes before any is applied.
//!
//! Most notes name a repository, and a name passes from row to row: deleted
//! repositories keep theirs, can come back under another one, and a push makes
//! a new one. Notes of that say the row. Who deleted a name had it since the
//! note before that was about it, and who came back has it until the one after.
//! What is left belongs to the row that has the name at the end.
//!
//! A note is written before it is done, and a kill may come between. What
//! follows tells: who comes back twice did not the first time, and nobody has a
//! name while another one does.
//!
//! Refuses to know: the catalog.

use std::collections::{HashMap, HashSet};

use orlop_format::digest::Digest;

use super::log::Log;
use crate::catalog::note::{Note, Purged};
use crate::trouble::Result;

/// What a note says of a row and a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// It came back and has it.
    Came(i64),
    /// It has it.
    Had(i64),
    /// It was deleted.
    Left(i64),
}

/// Whom a name stands for in a note.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holder {
    Row(i64),
    /// The one that has the name at the end, or a new one.
    Last,
    /// One that was not made: it would have been in the way of who came then.
    Nobody,
}

/// How the notes leave a row.
#[derive(Debug, Clone)]
pub(super) struct End {
    /// Of the last note of it.
    pub(super) lsn: u64,
    /// The name that it has, or had when it was deleted.
    pub(super) name: String,
    pub(super) is_deleted: bool,
    /// A note after it says that it was done.
    pub(super) is_proven: bool,
    /// Another one that came to its name was deleted after that, or was not there.
    pub(super) is_followed: bool,
    /// It came back twice, and no note says that it was deleted in between: the first
    /// was not done, or a power cut took that note.
    pub(super) is_second: bool,
    /// How many others got to theirs before.
    pub(super) rank: i64,
    /// Of a delete: the LSN of the return before it.
    pub(super) was_back: Option<u64>,
    /// Of a return: the delete before it.
    before: Option<Box<End>>,
}

/// Something of a row that was to go for good.
type Kept = (i64, Digest, Purged);

/// The rows that notes speak of.
#[derive(Debug, Default)]
pub(super) struct Holders {
    turns: HashMap<String, Vec<(u64, Turn)>>,
    ends: HashMap<i64, End>,
    /// What a purge left in a row after all.
    kept: HashSet<Kept>,
    /// Notes of purges that came to nothing.
    void: HashSet<u64>,
    highest: i64,
    count: i64,
}

impl Holders {
    /// Of the notes behind an LSN. Rows above `known` were made after what they
    /// are applied to, so that all that was done to them is noted there.
    pub(super) fn of(log: &Log, after: u64, known: i64) -> Result<Self> {
        let mut holders = Self::default();
        log.notes(after, &mut |lsn, body| {
            if let Ok(note) = Note::decode(body) {
                holders.add(lsn, note, known);
            }
            Ok(())
        })?;
        holders.find_void(log, after)?;
        let mut ends: Vec<&mut End> = holders.ends.values_mut().collect();
        ends.sort_unstable_by_key(|end| end.lsn);
        for (rank, end) in (0..).zip(ends) {
            end.rank = rank;
            holders.count = rank.saturating_add(1);
        }
        Ok(holders)
    }

    fn add(&mut self, lsn: u64, note: Note, known: i64) {
        match note {
            Note::Drop { repository, row } => self.left(lsn, repository, row),
            Note::Restore { name, row, .. } => self.came(lsn, name, row),
            Note::Purge {
                repository, row, ..
            }
            | Note::PurgeBlob {
                repository, row, ..
            } => {
                self.highest = self.highest.max(row);
                // It has another name than it came back under.
                let end = self.ends.get(&row);
                if end.is_some_and(|end| !end.is_deleted && end.name != repository) {
                    self.undo(row);
                }
                let is_deleted = self.ends.get(&row).is_some_and(|end| end.is_deleted);
                if row > known && !is_deleted {
                    self.had(lsn, &repository, row);
                }
            }
            Note::Kept {
                digest,
                row,
                purged,
            } => {
                self.kept.insert((row, digest, purged));
            }
            _ => {}
        }
    }

    fn left(&mut self, lsn: u64, name: String, row: i64) {
        self.highest = self.highest.max(row);
        let end = self.ends.get(&row);
        let back = end.filter(|end| !end.is_deleted);
        let is_proven = back.is_some_and(|end| end.name != name);
        // Deleted twice: it was not the first time.
        let was_back = back.map(|end| end.lsn);
        let was_back = was_back.or_else(|| end.and_then(|end| end.was_back));
        if is_proven {
            // A return that came to nothing, taken back with the old name.
            self.undo(row);
        } else {
            self.holds(&name, row);
            let turns = self.turns.entry(name.clone()).or_default();
            turns.push((lsn, Turn::Left(row)));
        }
        let end = End {
            lsn,
            name,
            is_deleted: true,
            is_proven,
            is_followed: false,
            is_second: false,
            rank: 0,
            was_back,
            before: None,
        };
        self.ends.insert(row, end);
    }

    fn came(&mut self, lsn: u64, name: String, row: i64) {
        self.highest = self.highest.max(row);
        let is_second = self.ends.get(&row).is_some_and(|end| !end.is_deleted);
        if is_second {
            self.undo(row);
        }
        // Who had the name would have been in its way.
        if let Some((_, Turn::Came(other))) = self.last(&name) {
            self.undo(other);
        }
        let before = self.ends.remove(&row).map(|end| {
            Box::new(End {
                is_proven: true,
                ..end
            })
        });
        let turns = self.turns.entry(name.clone()).or_default();
        turns.push((lsn, Turn::Came(row)));
        let end = End {
            lsn,
            name,
            is_deleted: false,
            is_proven: false,
            is_followed: false,
            is_second,
            rank: 0,
            was_back: None,
            before,
        };
        self.ends.insert(row, end);
    }

    fn had(&mut self, lsn: u64, name: &str, row: i64) {
        self.holds(name, row);
        // Once more says no more.
        if !matches!(self.last(name), Some((_, Turn::Had(of) | Turn::Came(of))) if of == row) {
            let turns = self.turns.entry(name.to_owned()).or_default();
            turns.push((lsn, Turn::Had(row)));
        }
    }

    fn last(&self, name: &str) -> Option<(u64, Turn)> {
        self.turns.get(name)?.last().copied()
    }

    /// A row has a name, so that no other one has: who came back to it did not, and
    /// who left it before this one was made is gone.
    fn holds(&mut self, name: &str, row: i64) {
        if let Some((_, Turn::Came(other))) = self.last(name)
            && other != row
        {
            self.undo(other);
        }
        let turns = self.turns.get(name).map(Vec::as_slice).unwrap_or_default();
        let (left, is_proof) = match turns {
            [.., left, (_, Turn::Came(_))] => (left, false),
            [.., left] => (left, true),
            [] => return,
        };
        if let (lsn, Turn::Left(other)) = *left
            && other != row
            && let Some(end) = self.ends.get_mut(&other).filter(|end| end.lsn == lsn)
        {
            end.is_proven |= is_proof;
            end.is_followed = true;
        }
    }

    /// Finds the notes of purges that came to nothing: those before a note that says
    /// so, back to the push that what was kept is from.
    fn find_void(&mut self, log: &Log, after: u64) -> Result<()> {
        if self.kept.is_empty() {
            return Ok(());
        }
        let mut tried: HashMap<Kept, (String, Vec<u64>)> = HashMap::new();
        log.notes(after, &mut |lsn, body| {
            let (name, purge) = match Note::decode(body) {
                Ok(Note::Purge {
                    repository,
                    digest,
                    row,
                }) => (repository, (row, digest, Purged::Manifest)),
                Ok(Note::PurgeBlob {
                    repository,
                    digest,
                    row,
                }) => (repository, (row, digest, Purged::Blob)),
                Ok(Note::Manifest {
                    repository, digest, ..
                }) => {
                    // Of this name alone: it has one lock.
                    tried.retain(|(_, of, purged), (name, _)| {
                        *of != digest || *purged == Purged::Blob || *name != repository
                    });
                    return Ok(());
                }
                Ok(Note::Kept {
                    digest,
                    row,
                    purged,
                }) => {
                    if let Some((_, notes)) = tried.remove(&(row, digest, purged)) {
                        self.void.extend(notes);
                    }
                    return Ok(());
                }
                Ok(_) | Err(_) => return Ok(()),
            };
            if self.kept.contains(&purge) {
                let (of, notes) = tried.entry(purge).or_default();
                *of = name;
                notes.push(lsn);
            }
            Ok(())
        })
    }

    /// Whether the note with this LSN is of a purge that came to nothing.
    pub(super) fn is_void(&self, lsn: u64) -> bool {
        self.void.contains(&lsn)
    }

    /// The highest row that a note speaks of.
    pub(super) fn highest(&self) -> i64 {
        self.highest
    }

    /// Whom a name stands for in the note with this LSN.
    pub(super) fn holder(&self, lsn: u64, name: &str) -> Holder {
        let Some(turns) = self.turns.get(name) else {
            return Holder::Last;
        };
        let next = turns.partition_point(|(of, _)| *of <= lsn);
        let before = next.checked_sub(1).and_then(|at| turns.get(at));
        match (turns.get(next), before) {
            (Some((_, Turn::Left(row) | Turn::Had(row))), _)
            | (_, Some((_, Turn::Came(row) | Turn::Had(row)))) => Holder::Row(*row),
            (Some((_, Turn::Came(_))), _) => Holder::Nobody,
            (None, _) => Holder::Last,
        }
    }

    /// How the notes leave a row, if they say so.
    pub(super) fn end(&self, row: i64) -> Option<&End> {
        self.ends.get(&row)
    }

    /// All rows of which the notes say it, in the order in which they got there.
    pub(super) fn ends(&self) -> Vec<(i64, End)> {
        let ends = self.ends.iter().map(|(row, end)| (*row, end.clone()));
        let mut ends: Vec<(i64, End)> = ends.collect();
        ends.sort_unstable_by_key(|(_, end)| end.rank);
        ends
    }

    /// How many those were.
    pub(super) fn count(&self) -> i64 {
        self.count
    }

    /// Says that the last note of a row was not done: who came back did not, and who
    /// left has its name still.
    pub(super) fn undo(&mut self, row: i64) {
        let Some(end) = self.ends.remove(&row) else {
            return;
        };
        let turns = self.turns.entry(end.name).or_default();
        if end.is_deleted {
            let left = turns.iter_mut().find(|(lsn, _)| *lsn == end.lsn);
            if let Some((_, turn)) = left {
                *turn = Turn::Had(row);
            }
        } else {
            turns.retain(|(lsn, _)| *lsn != end.lsn);
            if let Some(before) = end.before {
                self.ends.insert(row, *before);
            }
        }
    }
}
