//! Where everything lies in a data folder.

use std::path::{Path, PathBuf};

use orlop_disk::{Disk, Kind};
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
        self.data().join(class.folder())
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

    /// Creates the folders of a store that is there, as far as they are
    /// missing, and makes their names durable.
    pub(crate) fn create(&self, disk: &dyn Disk) -> Result<()> {
        for folder in self.folders() {
            disk.create_dir(&folder)?;
        }
        self.sync(disk)
    }

    /// Creates the folders of a new store. Where one is there already, a start
    /// before may have failed to sync its name, and no later sync alone makes
    /// that durable: the folder gets its name anew.
    pub(crate) fn create_new(&self, disk: &dyn Disk) -> Result<()> {
        for folder in self.folders() {
            let aside = folder.with_extension("new");
            if !disk.exists(&folder)? && disk.exists(&aside)? {
                disk.rename(&aside, &folder)?;
            } else if disk.exists(&folder)? {
                match disk.rename(&folder, &aside) {
                    Ok(()) => disk.rename(&aside, &folder)?,
                    // A mount point: whoever mounted it made its name.
                    Err(error) if error.kind == Kind::Busy => {}
                    Err(error) => return Err(error.into()),
                }
            } else {
                disk.create_dir(&folder)?;
            }
        }
        self.sync(disk)
    }

    /// Every folder of its own that the store makes, parents first.
    fn folders(&self) -> Vec<PathBuf> {
        let mut folders = vec![self.journal(), self.data()];
        folders.extend(Class::ALL.map(|class| self.class(class)));
        folders.push(self.quarantine());
        folders
    }

    fn sync(&self, disk: &dyn Disk) -> Result<()> {
        disk.sync_dir(&self.data())?;
        disk.sync_dir(&self.root)?;
        Ok(())
    }

    fn data(&self) -> PathBuf {
        self.root.join("data")
    }
}
