//! A filled store on disk, which another run can start from: a million images
//! take longer to push than to collect.
//!
//! Invariant: the file that describes a store is written when it is full and
//! its server has ended. A folder without it is nobody's store.

use super::shape::Shape;
use crate::error::{Context as _, Error, Result};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

/// Name of the file that describes a store.
const FILE: &str = "filled.json";

/// What a store was filled with.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Filled {
    /// Its images.
    pub(crate) shape: Shape,
    /// Time the pushes took, in seconds.
    pub(crate) fill_seconds: f64,
    /// Time the deletes took, in seconds.
    pub(crate) delete_seconds: f64,
    /// Bytes of the data folder behind them, as the file system counts.
    pub(crate) disk_bytes: u64,
}

impl Filled {
    /// The store in `folder`; none where nothing is.
    ///
    /// # Errors
    /// When it was not filled to the end, or with another number of images.
    pub(crate) fn read(folder: &Path, manifests: u64) -> Result<Option<Filled>> {
        let path = folder.join(FILE);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound && is_free(folder) => {
                return Ok(None);
            }
            Err(error) => return Err(error).context(|| format!("read {}", path.display())),
        };
        let wrong = |why: &dyn std::fmt::Display| {
            let folder = folder.display();
            Error::Usage(format!("{folder} is no store of this run: {why}"))
        };
        let filled: Filled = serde_json::from_str(&text).map_err(|error| wrong(&error))?;
        if filled.shape.manifests != manifests {
            let has = filled.shape.manifests;
            return Err(wrong(&format!("it has {has} images, not {manifests}")));
        }
        Ok(Some(filled))
    }

    /// Says that the store in `folder` is full.
    pub(crate) fn write(&self, folder: &Path) -> Result<()> {
        let path = folder.join(FILE);
        let text = serde_json::to_string(self).map_err(|error| Error::Usage(error.to_string()))?;
        fs::write(&path, text).context(|| format!("write {}", path.display()))
    }
}

/// Whether nothing is in a folder, or no such folder there.
fn is_free(folder: &Path) -> bool {
    match fs::read_dir(folder) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) => error.kind() == ErrorKind::NotFound,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_is_used_again_only_if_it_is_the_one_that_is_wanted() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("store");
        assert_eq!(Filled::read(&folder, 7).unwrap(), None);
        fs::create_dir(&folder).unwrap();
        assert_eq!(Filled::read(&folder, 7).unwrap(), None);
        fs::write(folder.join("rest"), "").unwrap();
        assert!(Filled::read(&folder, 7).is_err(), "not filled to the end");
        let filled = Filled {
            shape: Shape::new(7),
            fill_seconds: 1.5,
            delete_seconds: 0.25,
            disk_bytes: 4096,
        };
        filled.write(&folder).unwrap();
        assert_eq!(Filled::read(&folder, 7).unwrap(), Some(filled));
        assert!(Filled::read(&folder, 8).is_err(), "of another size");
    }
}
