//! Every change that repair makes to a data folder, one by one.
//!
//! Invariants: nothing is written in place and nothing is removed but what
//! repair itself made in its own folder; a file appears under its name only
//! after its bytes are durable; a name is durable before the next step. A
//! watcher is told before each step and may stop there, which is how tests
//! interrupt a repair anywhere.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use crate::file::trouble;
use crate::trouble::Result;

/// One change to a data folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A folder is made.
    MakeFolder(PathBuf),
    /// A file is written, in repair's own folder.
    Write(PathBuf),
    /// A file's bytes are made durable.
    Sync(PathBuf),
    /// A file or folder gets another name.
    Rename(PathBuf, PathBuf),
    /// A file gets a second name.
    Link(PathBuf, PathBuf),
    /// A file that has another name loses this one.
    Unlink(PathBuf),
    /// The names in a folder are made durable.
    SyncFolder(PathBuf),
    /// Repair's own folder goes away.
    Clear(PathBuf),
}

/// Is told of each step before it is done; an error ends the repair there.
pub type Watcher<'a> = dyn FnMut(&Step) -> io::Result<()> + 'a;

/// The one way in which repair changes a data folder.
pub(crate) struct Hands<'a> {
    watcher: &'a mut Watcher<'a>,
}

impl<'a> Hands<'a> {
    pub(crate) fn new(watcher: &'a mut Watcher<'a>) -> Self {
        Self { watcher }
    }

    fn tell(&mut self, op: &'static str, path: &Path, step: &Step) -> Result<()> {
        (self.watcher)(step).map_err(trouble(op, path))
    }

    /// Makes a folder, and its name durable; one that is there is left alone.
    pub(crate) fn make_folder(&mut self, path: &Path) -> Result<()> {
        if path.is_dir() {
            return Ok(());
        }
        self.tell("make", path, &Step::MakeFolder(path.to_owned()))?;
        std::fs::create_dir(path).map_err(trouble("make", path))?;
        match path.parent() {
            Some(parent) => self.sync_folder(parent),
            None => Ok(()),
        }
    }

    /// Writes a new file by `fill` and makes its bytes durable.
    pub(crate) fn write(
        &mut self,
        path: &Path,
        fill: impl FnOnce(&mut File) -> Result<()>,
    ) -> Result<()> {
        self.tell("write", path, &Step::Write(path.to_owned()))?;
        let mut file = File::create(path).map_err(trouble("make", path))?;
        fill(&mut file)?;
        self.sync(path)
    }

    /// Makes a file durable that something else wrote.
    pub(crate) fn sync(&mut self, path: &Path) -> Result<()> {
        self.tell("sync", path, &Step::Sync(path.to_owned()))?;
        File::open(path)
            .and_then(|file| file.sync_all())
            .map_err(trouble("sync", path))
    }

    /// Gives a file or folder another name, durably in both folders. What is
    /// there under that name must have been moved away before.
    pub(crate) fn rename(&mut self, from: &Path, to: &Path) -> Result<()> {
        let step = Step::Rename(from.to_owned(), to.to_owned());
        self.tell("rename", from, &step)?;
        if to.symlink_metadata().is_ok() {
            let error = io::Error::new(ErrorKind::AlreadyExists, "something is there");
            return Err(trouble("rename a file to", to)(error));
        }
        std::fs::rename(from, to).map_err(trouble("rename", from))?;
        let folders = [to.parent(), from.parent()];
        if let Some(folder) = folders.first().copied().flatten() {
            self.sync_folder(folder)?;
        }
        match folders {
            [Some(to), Some(from)] if to != from => self.sync_folder(from),
            _ => Ok(()),
        }
    }

    /// Moves a file or folder out of the way. A file has its new name, durably,
    /// before it loses the old one: a rename between folders may be half
    /// there after a loss of power.
    pub(crate) fn move_away(&mut self, from: &Path, to: &Path) -> Result<()> {
        if from.is_dir() {
            return self.rename(from, to);
        }
        let step = Step::Link(from.to_owned(), to.to_owned());
        self.tell("link", from, &step)?;
        match std::fs::hard_link(from, to) {
            // A file system without second names.
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::Unsupported | ErrorKind::PermissionDenied
                ) =>
            {
                return self.rename(from, to);
            }
            linked => linked.map_err(trouble("link", from))?,
        }
        if let Some(folder) = to.parent() {
            self.sync_folder(folder)?;
        }
        self.tell("unlink", from, &Step::Unlink(from.to_owned()))?;
        std::fs::remove_file(from).map_err(trouble("unlink", from))?;
        match from.parent() {
            Some(folder) => self.sync_folder(folder),
            None => Ok(()),
        }
    }

    fn sync_folder(&mut self, path: &Path) -> Result<()> {
        self.tell("sync", path, &Step::SyncFolder(path.to_owned()))?;
        File::open(path)
            .and_then(|folder| folder.sync_all())
            .map_err(trouble("sync", path))
    }

    /// Removes repair's own folder and what is left in it.
    pub(crate) fn clear(&mut self, path: &Path) -> Result<()> {
        if path.symlink_metadata().is_err() {
            return Ok(());
        }
        self.tell("remove", path, &Step::Clear(path.to_owned()))?;
        std::fs::remove_dir_all(path).map_err(trouble("remove", path))
    }
}
