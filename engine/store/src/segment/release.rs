//! Taking a segment's file away.

use orlop_disk::{Create, File, Kind, Lane, OpenOptions};
use orlop_format::location::SegmentId;
use std::sync::Arc;

use super::Segments;
use crate::error::Result;

impl Segments {
    /// A file to be cut down, apart from the handles of readers; none when it
    /// is not there.
    pub(crate) fn open_apart(&self, id: &SegmentId) -> Result<Option<Arc<dyn File>>> {
        let options = OpenOptions {
            create: Create::Never,
            lane: Lane::Shared,
            direct: true,
            write: true,
        };
        match self.disk.open(&self.path(id), options) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind == Kind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes a file. Its name is gone for good after
    /// [`Segments::sync_names`].
    pub(crate) fn unlink(&self, id: &SegmentId) -> Result<()> {
        self.forget(id)?;
        match self.disk.remove(&self.path(id)) {
            Err(error) if error.kind != Kind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Makes the names of a segment's folder durable.
    pub(crate) fn sync_names(&self, id: &SegmentId) -> Result<()> {
        Ok(self.disk.sync_dir(&self.layout.class(id.class))?)
    }

    /// Lets go of what is known of a file, before that goes: others tell that its
    /// folder is the store's.
    fn forget(&self, id: &SegmentId) -> Result<()> {
        self.handles.lock().remove(id);
        let others = self.newest.lock().get(&id.class).cloned();
        let mut is_told = false;
        for other in others.iter().flatten().rev().filter(|other| *other != id) {
            is_told |= self.disk.exists(&self.path(other))?;
            if is_told {
                break;
            }
        }
        if !is_told {
            let others = self.list(id.class)?;
            if let Some(newest) = others.into_iter().filter(|other| other != id).max() {
                self.made(newest);
            }
        }
        if let Some(known) = self.newest.lock().get_mut(&id.class) {
            known.remove(id);
        }
        Ok(())
    }
}
