//! Which row of the catalog had a name when a note was written, and what became
//! of it: read from all notes before any is applied.
//!
//! Most notes name a repository, and a name passes from row to row: deleted
//! repositories keep theirs, can come back under another one, and a push makes
//! a new one. Notes of that say the row. Who deleted a name had it since the
//! note before that was about it, and who came back has it until the one after.
//! What is left belongs to the row that has the name at the end.
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

/// How the notes leave a row.
#[derive(Debug, Clone)]
pub(super) struct End {
    /// Of the last note of it.
    pub(super) lsn: u64,
    /// The name that it has, or had when it was deleted.
    pub(super) name: String,
    pub(super) is_deleted: bool,
    /// How many others got to theirs before.
    pub(super) rank: i64,
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
        }
        Ok(holders)
    }

    fn add(&mut self, lsn: u64, note: Note, known: i64) {
        let (row, held, turn, end) = match note {
            Note::Drop { repository, row } => {
                // A return that came to nothing is taken back with the old name.
                let held = match self.ends.get(&row) {
                    Some(end) if !end.is_deleted => end.name.clone(),
                    _ => repository.clone(),
                };
                (row, held, Turn::Left(row), Some((repository, true)))
            }
            Note::Restore { name, row, .. } => {
                (row, name.clone(), Turn::Came(row), Some((name, false)))
            }
            Note::Purge {
                repository, row, ..
            }
            | Note::PurgeBlob {
                repository, row, ..
            } => {
                self.highest = self.highest.max(row);
                let is_deleted = self.ends.get(&row).is_some_and(|end| end.is_deleted);
                if row <= known || is_deleted {
                    return;
                }
                (row, repository, Turn::Had(row), None)
            }
            Note::Kept {
                digest,
                row,
                purged,
            } => {
                self.kept.insert((row, digest, purged));
                return;
            }
            _ => return,
        };
        self.highest = self.highest.max(row);
        let turns = self.turns.entry(held).or_default();
        let last = turns.last().map(|(_, turn)| *turn);
        // Once more says no more.
        if !matches!(turn, Turn::Had(_))
            || !matches!(last, Some(Turn::Had(of) | Turn::Came(of)) if of == row)
        {
            turns.push((lsn, turn));
        }
        if let Some((name, is_deleted)) = end {
            let end = End {
                lsn,
                name,
                is_deleted,
                rank: 0,
            };
            self.ends.insert(row, end);
        }
    }

    /// Finds the notes of purges that came to nothing: those before a note that says
    /// so, back to the push that what was kept is from.
    fn find_void(&mut self, log: &Log, after: u64) -> Result<()> {
        if self.kept.is_empty() {
            return Ok(());
        }
        let mut tried: HashMap<Kept, Vec<u64>> = HashMap::new();
        log.notes(after, &mut |lsn, body| {
            let purge = match Note::decode(body) {
                Ok(Note::Purge { digest, row, .. }) => (row, digest, Purged::Manifest),
                Ok(Note::PurgeBlob { digest, row, .. }) => (row, digest, Purged::Blob),
                Ok(Note::Manifest { digest, .. }) => {
                    tried.retain(|(_, of, purged), _| *of != digest || *purged == Purged::Blob);
                    return Ok(());
                }
                Ok(Note::Kept {
                    digest,
                    row,
                    purged,
                }) => {
                    let notes = tried.remove(&(row, digest, purged));
                    self.void.extend(notes.into_iter().flatten());
                    return Ok(());
                }
                Ok(_) | Err(_) => return Ok(()),
            };
            if self.kept.contains(&purge) {
                tried.entry(purge).or_default().push(lsn);
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

    /// The row that a name stands for in the note with this LSN. None: the one
    /// that has the name at the end, or a new one.
    pub(super) fn row(&self, lsn: u64, name: &str) -> Option<i64> {
        let turns = self.turns.get(name)?;
        let next = turns.partition_point(|(of, _)| *of <= lsn);
        let before = next.checked_sub(1).and_then(|at| turns.get(at));
        match (turns.get(next), before) {
            (Some((_, Turn::Left(row) | Turn::Had(row))), _)
            | (_, Some((_, Turn::Came(row) | Turn::Had(row)))) => Some(*row),
            _ => None,
        }
    }

    /// The name that a repository has at the end that a name stands for in the
    /// note with this LSN. None: it was deleted.
    pub(super) fn name_of(&self, lsn: u64, name: &str) -> Option<String> {
        let end = self.row(lsn, name).and_then(|row| self.ends.get(&row));
        match end {
            Some(end) => (!end.is_deleted).then(|| end.name.clone()),
            None => Some(name.to_owned()),
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

    /// How many those are.
    pub(super) fn count(&self) -> i64 {
        i64::try_from(self.ends.len()).unwrap_or(i64::MAX)
    }

    /// Says that a row did not come back: what followed was another's.
    pub(super) fn void(&mut self, row: i64) {
        let Some(end) = self.ends.get_mut(&row) else {
            return;
        };
        end.is_deleted = true;
        if let Some(turns) = self.turns.get_mut(&end.name) {
            turns.retain(|(lsn, _)| *lsn != end.lsn);
        }
    }
}
