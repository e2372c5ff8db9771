//! Where everything lies in a data folder.

use std::path::{Path, PathBuf};

use orlop_disk::Disk;
use orlop_format::location::{Class, SegmentId};
use orlop_format::{journal, segment, superblock};

use crate::error::Result;

/// The paths of a store.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    root: PathBuf,
}

impl Layout {
    pub(crate) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn superblock(&self, file: usize) -> PathBuf {
        self.root.join(
            superblock::FILES
                .get(file)
                .copied()
                .unwrap_or(superblock::FILES[0]),
        )
    }

    pub(crate) fn journal(&self) -> PathBuf {
        self.root.join("journal")
    }

    pub(crate) fn journal_file(&self, sequence: u64) -> PathBuf {
        self.journal().join(journal::file_name(sequence))
    }

    pub(crate) fn class(&self, class: Class) -> PathBuf {
        self.root.join("data").join(class.folder())
    }

    pub(crate) fn segment(&self, id: &SegmentId) -> PathBuf {
        self.class(id.class).join(segment::file_name(id))
    }

    pub(crate) fn index(&self) -> PathBuf {
        self.root.join("index")
    }

    pub(crate) fn quarantine(&self) -> PathBuf {
        self.root.join("quarantine")
    }

    /// Creates the folders and makes their names durable.
    pub(crate) fn create(&self, disk: &dyn Disk) -> Result<()> {
        disk.create_dir(&self.journal())?;
        disk.create_dir(&self.root.join("data"))?;
        for class in Class::ALL {
            disk.create_dir(&self.class(class))?;
        }
        disk.create_dir(&self.quarantine())?;
        disk.sync_dir(&self.root.join("data"))?;
        disk.sync_dir(&self.root)?;
        Ok(())
    }
}
