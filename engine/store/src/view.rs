//! What a record does to the index.
//!
//! [`View`] is the index with the changes of the group at hand laid over it,
//! so that one batch carries them all. The same rules serve the running store,
//! replay and rebuild, so every one of them can be applied twice: a row knows
//! the LSN it stands for, and an older record never undoes a newer one.

use std::collections::HashMap;

use orlop_format::location::{Extent, Home, Place, SegmentId};
use orlop_format::record::{Checkpoint, Commit, Moved, Record, Relocation, UploadId};
use orlop_format::row::{self, Blob, Form, Names, Segment, State, Upload};
use orlop_index::{Batch, Index, Table};

use crate::error::{Error, Result};

/// The index under a batch that is being made.
pub(crate) struct View<'a> {
    index: &'a dyn Index,
    changes: HashMap<(Table, Vec<u8>), Option<Vec<u8>>>,
    order: Vec<(Table, Vec<u8>)>,
}

/// A row of the index that cannot be read is damage to the index.
pub(crate) fn unreadable(table: Table, error: orlop_format::Malformed) -> Error {
    Error::Io {
        what: "index".to_owned(),
        reason: format!(
            "a row of table {table} cannot be read: {error}; stop the server and remove the folder index/, it is made again at the next start"
        ),
    }
}

impl<'a> View<'a> {
    pub(crate) fn new(index: &'a dyn Index) -> Self {
        Self {
            index,
            changes: HashMap::new(),
            order: Vec::new(),
        }
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>> {
        // A lookup key without a copy is not worth a second map.
        match self.changes.get(&(table, key.to_vec())) {
            Some(changed) => Ok(changed.clone()),
            None => Ok(self.index.get(table, key)?),
        }
    }

    fn set(&mut self, table: Table, key: &[u8], value: Option<Vec<u8>>) {
        let key = (table, key.to_vec());
        if self.changes.insert(key.clone(), value).is_none() {
            self.order.push(key);
        }
    }

    /// The changes as one batch that brings the index to `lsn`.
    pub(crate) fn into_batch(mut self, lsn: u64) -> Batch {
        let mut batch = Batch::new();
        for (table, key) in self.order {
            match self.changes.remove(&(table, key.clone())) {
                Some(Some(value)) => batch.put(table, key, value),
                Some(None) => batch.delete(table, key),
                None => {}
            }
        }
        batch.set_watermark(lsn);
        batch
    }

    /// How many rows were changed.
    pub(crate) fn len(&self) -> usize {
        self.order.len()
    }

    /// A blob's row.
    pub(crate) fn blob(&self, sha256: &[u8; 32]) -> Result<Option<Blob>> {
        self.get(Table::Blob, sha256)?
            .map(|bytes| Blob::decode(&bytes).map_err(|error| unreadable(Table::Blob, error)))
            .transpose()
    }

    /// An upload's row.
    pub(crate) fn upload(&self, id: &UploadId) -> Result<Option<Upload>> {
        self.get(Table::Upload, &id.0)?
            .map(|bytes| Upload::decode(&bytes).map_err(|error| unreadable(Table::Upload, error)))
            .transpose()
    }

    /// Whether a further digest is known.
    pub(crate) fn alias(&self, key: &[u8]) -> Result<Option<[u8; 32]>> {
        Ok(self
            .get(Table::Alias, key)?
            .and_then(|bytes| bytes.try_into().ok()))
    }

    /// The row about names.
    pub(crate) fn names(&self) -> Result<Names> {
        Ok(self
            .get(Table::Meta, Names::KEY)?
            .map(|bytes| Names::decode(&bytes).map_err(|error| unreadable(Table::Meta, error)))
            .transpose()?
            .unwrap_or_default())
    }

    /// The next free ordinal.
    pub(crate) fn next_ordinal(&self) -> Result<u64> {
        Ok(self
            .get(Table::Meta, row::NEXT_ORDINAL)?
            .and_then(|bytes| bytes.try_into().ok())
            .map_or(1, u64::from_le_bytes))
    }

    /// A segment's row; of one that is unknown, an empty one.
    pub(crate) fn segment(&self, id: &SegmentId) -> Result<Segment> {
        let key = Segment::key(id.class, id.id);
        Ok(self
            .get(Table::Segment, &key)?
            .map(|bytes| Segment::decode(&bytes).map_err(|error| unreadable(Table::Segment, error)))
            .transpose()?
            .unwrap_or_else(|| Segment::new(*id)))
    }

    fn put_segment(&mut self, row: &Segment) {
        let key = Segment::key(row.segment.class, row.segment.id);
        self.set(Table::Segment, &key, Some(row.encode()));
    }

    fn put_blob(&mut self, sha256: &[u8; 32], row: &Blob) {
        self.set(Table::Blob, sha256, Some(row.encode()));
    }

    /// Counts bytes of a segment as referred to, or no longer.
    fn count(&mut self, id: &SegmentId, end: u64, bytes: u64, add: bool) -> Result<()> {
        let mut row = self.segment(id)?;
        if row.removed {
            return Ok(()); // nothing is in it any more
        }
        row.used = row.used.max(end);
        row.live = if add {
            row.live.saturating_add(bytes)
        } else {
            row.live.saturating_sub(bytes)
        };
        self.put_segment(&row);
        Ok(())
    }

    fn count_extents(&mut self, extents: &[Extent], add: bool) -> Result<()> {
        for extent in extents {
            let bytes = extent.footprint();
            self.count(
                &extent.segment,
                u64::from(extent.offset).saturating_add(bytes),
                bytes,
                add,
            )?;
        }
        Ok(())
    }

    fn count_place(&mut self, place: &Place, add: bool) -> Result<()> {
        match &place.home {
            Home::Journal(_) => Ok(()),
            Home::Segment(segment) => {
                let end = u64::from(place.offset).saturating_add(place.len());
                self.count(segment, end, place.len(), add)
            }
        }
    }

    fn count_form(&mut self, form: &Form, add: bool) -> Result<()> {
        match form {
            Form::Inline(place) => self.count_place(place, add),
            Form::Extents(extents) => self.count_extents(extents, add),
        }
    }

    /// Applies a record that lies at `place`.
    pub(crate) fn apply(&mut self, lsn: u64, record: &Record, place: &Place) -> Result<()> {
        match record {
            Record::Open {
                upload,
                owner,
                also,
            } => self.open(upload, owner, *also),
            Record::Checkpoint(checkpoint) => self.checkpoint(checkpoint, place),
            Record::Abandon { upload } => self.end_upload(upload),
            Record::Commit(commit) => self.commit(lsn, commit, place),
            Record::Alias { sha256, alias } => {
                self.set(Table::Alias, &alias.encode(), Some(sha256.to_vec()));
                Ok(())
            }
            Record::Tombstone { sha256, birth } => self.tombstone(lsn, sha256, *birth),
            Record::Move(moves) => moves.iter().try_for_each(|item| self.relocate(item)),
            Record::Seal {
                segment,
                used,
                hash,
            } => {
                let mut row = self.segment(segment)?;
                if row.removed {
                    return Ok(());
                }
                row.sealed = true;
                row.used = row.used.max(u64::from(*used));
                row.hash = *hash;
                self.put_segment(&row);
                Ok(())
            }
            Record::Punch { segment, holes } => {
                let mut row = self.segment(segment)?;
                if !row.removed && row.punched < lsn {
                    (row.holes, row.punched) = (holes.clone(), lsn);
                    self.put_segment(&row);
                }
                Ok(())
            }
            Record::Remove { segment } => {
                self.put_segment(&Segment::gone(*segment));
                Ok(())
            }
            Record::Remap {
                sha256,
                birth,
                extents,
            } => self.remap(sha256, *birth, extents),
            Record::Note(_) => self.noted(lsn),
            Record::Mark { .. } => Ok(()),
            Record::Quarantine { sha256, birth } => self.quarantine(sha256, *birth),
            Record::Copy {
                sha256,
                catalog,
                sequence,
            } => {
                let mut names = self.names()?;
                if names.copies.iter().all(|copy| copy.lsn != lsn) {
                    let copy = row::Copy {
                        sha256: *sha256,
                        catalog: *catalog,
                        sequence: *sequence,
                        lsn,
                    };
                    names.copies.push(copy);
                    names.copies.sort_by_key(|copy| copy.lsn);
                    let extra = names.copies.len().saturating_sub(2);
                    names.copies.drain(..extra);
                }
                self.set(Table::Meta, Names::KEY, Some(names.encode()));
                Ok(())
            }
        }
    }

    fn noted(&mut self, lsn: u64) -> Result<()> {
        let mut names = self.names()?;
        names.notes = names.notes.max(lsn);
        self.set(Table::Meta, Names::KEY, Some(names.encode()));
        Ok(())
    }

    fn open(&mut self, upload: &UploadId, owner: &[u8], also: u8) -> Result<()> {
        if self.upload(upload)?.is_some() {
            return Ok(());
        }
        let checkpoint = Checkpoint {
            upload: *upload,
            offset: 0,
            extents_before: 0,
            extents: Vec::new(),
            hashes: Vec::new(),
        };
        let row = Upload {
            owner: owner.to_vec(),
            also,
            tail: None,
            checkpoint,
        };
        self.set(Table::Upload, &upload.0, Some(row.encode()));
        Ok(())
    }

    fn checkpoint(&mut self, checkpoint: &Checkpoint, place: &Place) -> Result<()> {
        // An upload that is unknown has ended already.
        let Some(mut row) = self.upload(&checkpoint.upload)? else {
            return Ok(());
        };
        let before = checkpoint.extents_before as usize;
        if before != row.checkpoint.extents.len() || checkpoint.offset < row.checkpoint.offset {
            return Ok(()); // applied before
        }
        self.count_extents(&checkpoint.extents, true)?;
        if let Some(tail) = row.tail.take() {
            self.count_place(&tail, false)?;
        }
        row.tail = (place.payload > 0).then_some(*place);
        if let Some(tail) = &row.tail {
            self.count_place(tail, true)?;
        }
        row.checkpoint.offset = checkpoint.offset;
        row.checkpoint
            .extents
            .extend_from_slice(&checkpoint.extents);
        row.checkpoint.hashes.clone_from(&checkpoint.hashes);
        self.set(Table::Upload, &checkpoint.upload.0, Some(row.encode()));
        Ok(())
    }

    /// Forgets an upload; its extents are nobody's until a commit counts them.
    fn end_upload(&mut self, upload: &UploadId) -> Result<()> {
        if let Some(row) = self.upload(upload)? {
            self.count_extents(&row.checkpoint.extents, false)?;
            if let Some(tail) = &row.tail {
                self.count_place(tail, false)?;
            }
            self.set(Table::Upload, &upload.0, None);
        }
        Ok(())
    }

    fn commit(&mut self, lsn: u64, commit: &Commit, place: &Place) -> Result<()> {
        if let Some(upload) = &commit.upload {
            self.end_upload(upload)?;
        }
        if !commit.note.is_empty() {
            self.noted(lsn)?;
        }
        let old = self.blob(&commit.sha256)?;
        if old.as_ref().is_some_and(|row| row.birth >= lsn) {
            return Ok(()); // this commit or a newer one stands already
        }
        if let Some(row) = &old {
            if row.state != State::Dead {
                self.count_form(&row.form, false)?;
            }
            if row.ordinal != commit.ordinal {
                self.set(Table::Ordinal, &row.ordinal.to_be_bytes(), None);
            }
        }
        let form = if commit.extents.is_empty() {
            Form::Inline(*place)
        } else {
            Form::Extents(commit.extents.clone())
        };
        self.count_form(&form, true)?;
        let row = Blob {
            state: State::Live,
            internal: commit.internal,
            ordinal: commit.ordinal,
            size: commit.size,
            birth: lsn,
            form,
        };
        self.put_blob(&commit.sha256, &row);
        self.set(
            Table::Ordinal,
            &commit.ordinal.to_be_bytes(),
            Some(commit.sha256.to_vec()),
        );
        for alias in &commit.aliases {
            self.set(Table::Alias, &alias.encode(), Some(commit.sha256.to_vec()));
        }
        let next = self.next_ordinal()?.max(commit.ordinal.saturating_add(1));
        self.set(
            Table::Meta,
            row::NEXT_ORDINAL,
            Some(next.to_le_bytes().to_vec()),
        );
        Ok(())
    }

    fn tombstone(&mut self, lsn: u64, sha256: &[u8; 32], birth: u64) -> Result<()> {
        let old = self.blob(sha256)?;
        if old.as_ref().is_some_and(|row| row.birth > birth) {
            return Ok(());
        }
        if let Some(row) = &old {
            if row.state != State::Dead {
                self.count_form(&row.form, false)?;
            }
            self.set(Table::Ordinal, &row.ordinal.to_be_bytes(), None);
        }
        let row = Blob {
            state: State::Dead,
            internal: false,
            ordinal: 0,
            size: 0,
            birth: lsn,
            form: Form::Extents(Vec::new()),
        };
        self.put_blob(sha256, &row);
        Ok(())
    }

    fn quarantine(&mut self, sha256: &[u8; 32], birth: u64) -> Result<()> {
        if let Some(mut row) = self.blob(sha256)?
            && row.birth == birth
            && row.state == State::Live
        {
            row.state = State::Quarantined;
            self.put_blob(sha256, &row);
        }
        Ok(())
    }

    /// Moves extents of a blob that still are where the move says they were.
    fn remap(&mut self, sha256: &[u8; 32], birth: u64, pairs: &[(Extent, Extent)]) -> Result<()> {
        let Some(mut row) = self.blob(sha256)? else {
            return Ok(());
        };
        if row.birth != birth || row.state == State::Dead {
            return Ok(());
        }
        let Form::Extents(extents) = &mut row.form else {
            return Ok(());
        };
        let (from, to): (Vec<_>, Vec<_>) = row::remap(extents, pairs).into_iter().unzip();
        self.count_extents(&from, false)?;
        self.count_extents(&to, true)?;
        self.put_blob(sha256, &row);
        Ok(())
    }

    /// Moves a record, if it still is where the move says it was.
    fn relocate(&mut self, item: &Relocation) -> Result<()> {
        match &item.what {
            Moved::Blob(sha256, birth) => {
                let Some(mut row) = self.blob(sha256)? else {
                    return Ok(());
                };
                if row.birth != *birth || row.form != Form::Inline(item.from) {
                    return Ok(());
                }
                self.count_place(&item.from, false)?;
                self.count_place(&item.to, true)?;
                row.form = Form::Inline(item.to);
                self.put_blob(sha256, &row);
            }
            Moved::Upload(id) => {
                let Some(mut row) = self.upload(id)? else {
                    return Ok(());
                };
                if row.tail != Some(item.from) {
                    return Ok(());
                }
                self.count_place(&item.from, false)?;
                self.count_place(&item.to, true)?;
                row.tail = Some(item.to);
                self.set(Table::Upload, &id.0, Some(row.encode()));
            }
        }
        Ok(())
    }
}
