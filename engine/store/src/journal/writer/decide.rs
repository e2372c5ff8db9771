//! What the writer makes of a record at its turn: whether a blob is here,
//! whether a life ends, whether a segment goes.

use std::sync::Arc;

use std::collections::HashSet;

use orlop_format::location::Extent;
use orlop_format::record::{Commit, Record};
use orlop_format::row::{Blob, Form, State};

use super::Writer;
use crate::error::{Invalid, Result};
use crate::journal::queue::Fate;
use crate::reach::Reach;
use crate::view::View;

impl Writer {
    /// What to write for a record; `true` with the one that takes its payload.
    pub(super) fn resolve(
        &mut self,
        view: &View<'_>,
        record: Record,
    ) -> Result<(Fate, Vec<(Record, bool)>)> {
        let written = Fate::Written { lsn: 0 };
        let commit = match record {
            Record::Commit(commit) => commit,
            Record::Tombstone { sha256, birth } => {
                return Ok(if self.doom(view, &sha256, birth)? {
                    (written, vec![(Record::Tombstone { sha256, birth }, true)])
                } else {
                    (Fate::Spared, Vec::new())
                });
            }
            // Its bytes are given away for good: only if nothing counts on them.
            Record::Remove { segment } => {
                let row = view.segment(&segment)?;
                return Ok(if row.removed || row.live > 0 {
                    (Fate::Spared, Vec::new())
                } else {
                    (written, vec![(Record::Remove { segment }, true)])
                });
            }
            Record::Remap {
                sha256,
                birth,
                extents,
            } => {
                return Ok(if self.lies(view, &sha256, birth, &extents)? {
                    let record = Record::Remap {
                        sha256,
                        birth,
                        extents,
                    };
                    (written, vec![(record, true)])
                } else {
                    (Fate::Spared, Vec::new())
                });
            }
            Record::Checkpoint(checkpoint) => {
                // What does not go on from the row would be passed over.
                let fits = view.upload(&checkpoint.upload)?.is_some_and(|row| {
                    row.checkpoint.extents.len() == checkpoint.extents_before as usize
                        && row.checkpoint.offset <= checkpoint.offset
                });
                if !fits {
                    return Err(Invalid::Stale.into());
                }
                return Ok((written, vec![(Record::Checkpoint(checkpoint), true)]));
            }
            other => return Ok((written, vec![(other, true)])),
        };
        // One that ended meanwhile has given its bytes up.
        if let Some(upload) = &commit.upload
            && view.upload(upload)?.is_none()
        {
            return Err(Invalid::Stale.into());
        }
        let here = self.here(view, &commit.sha256)?;
        // Either answer is a promise, kept from here on.
        let ordinal = match &here {
            Some(row) => row.ordinal,
            None => view.next_ordinal()?,
        };
        self.promise(&commit.sha256, ordinal);
        if here.is_none() {
            let commit = Commit { ordinal, ..commit };
            return Ok((written, vec![(Record::Commit(commit), true)]));
        }
        // It is there: only what is new about it is written.
        let mut write = Vec::new();
        for alias in commit.aliases {
            let known = view.alias(&alias.encode())?;
            if known.is_none() {
                write.push((
                    Record::Alias {
                        sha256: commit.sha256,
                        alias,
                    },
                    false,
                ));
            }
        }
        if !commit.note.is_empty() {
            write.push((Record::Note(commit.note), false));
        }
        if let Some(upload) = commit.upload {
            write.push((Record::Abandon { upload }, false));
        }
        Ok((Fate::Present, write))
    }

    /// The blob that a push need not store again: it is whole as far as anybody
    /// knows, and so are the files it lies in.
    fn here(&self, view: &View<'_>, sha256: &[u8; 32]) -> Result<Option<Blob>> {
        let Some(row) = view
            .blob(sha256)?
            .filter(|row| row.state == State::Live && !self.quarantine.contains(sha256, row.birth))
        else {
            return Ok(None);
        };
        let is_there = Reach::of_form(&row.form).is_there(&self.segments)?;
        Ok(is_there.then_some(row))
    }

    /// Whether a life of a blob is whole as far as anybody knows, and lies where a
    /// move says that it lay.
    fn lies(
        &self,
        view: &View<'_>,
        sha256: &[u8; 32],
        birth: u64,
        pairs: &[(Extent, Extent)],
    ) -> Result<bool> {
        let row = view.blob(sha256)?.filter(|row| {
            row.birth == birth
                && row.state == State::Live
                && !self.quarantine.contains(sha256, birth)
        });
        let Some(Form::Extents(extents)) = row.map(|row| row.form) else {
            return Ok(false);
        };
        let extents: HashSet<&Extent> = extents.iter().collect();
        Ok(pairs.iter().all(|(from, _)| extents.contains(from)))
    }

    /// Takes a lease on a blob that its pusher will be told of.
    fn promise(&self, sha256: &[u8; 32], ordinal: u64) {
        let _shard = self.presence.shard(sha256);
        self.presence.leases.take(ordinal, self.runtime.now());
    }

    /// Ends a life that a collection found to be garbage, unless it was used
    /// since, or the collection has ended.
    fn doom(&mut self, view: &View<'_>, sha256: &[u8; 32], birth: u64) -> Result<bool> {
        let presence = Arc::clone(&self.presence);
        let mut shard = presence.shard(sha256);
        let row = view.blob(sha256)?;
        let Some(row) = row.filter(|row| row.birth == birth && row.state != State::Dead) else {
            return Ok(false);
        };
        let now = self.runtime.now();
        if presence.leases.keeps(sha256, row.ordinal, now) {
            return Ok(false);
        }
        shard.doom((*sha256, birth));
        self.doomed.push((*sha256, birth));
        Ok(true)
    }
}
