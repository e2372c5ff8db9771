//! Files for what does not fit into memory. The folder is made when the first
//! of them is, so that a small store needs none, and goes when the check ends;
//! files have no name, so that nothing is left when it is killed.
//!
//! Never in the data folder, unless the operator says so.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::trouble::{Result, Trouble};

/// Where scratch files go.
#[derive(Debug, Clone)]
pub(crate) struct Scratch {
    folder: Arc<PathBuf>,
}

impl Scratch {
    /// Below the folder that was asked for, else where large temporary files
    /// belong on this machine.
    pub(crate) fn new(asked: Option<&Path>) -> Self {
        let folder = match (asked, std::env::var_os("TMPDIR")) {
            (Some(asked), _) => asked.to_owned(),
            (None, Some(set)) if !set.is_empty() => PathBuf::from(set),
            (None, _) => ["/var/tmp", "/tmp"]
                .into_iter()
                .map(PathBuf::from)
                .find(|folder| folder.is_dir())
                .unwrap_or_else(|| PathBuf::from("/var/tmp")),
        };
        Self {
            folder: Arc::new(folder),
        }
    }

    /// An error of a scratch file.
    pub(crate) fn trouble(&self, source: std::io::Error) -> Trouble {
        Trouble::Scratch {
            folder: self.folder.as_ref().clone(),
            source,
        }
    }

    /// A file without a name.
    pub(crate) fn file(&self) -> Result<File> {
        tempfile::tempfile_in(self.folder.as_ref()).map_err(|error| self.trouble(error))
    }

    /// A folder that goes away.
    pub(crate) fn folder(&self) -> Result<tempfile::TempDir> {
        tempfile::Builder::new()
            .prefix("orlop-fsck-")
            .tempdir_in(self.folder.as_ref())
            .map_err(|error| self.trouble(error))
    }
}
