//! The container image of the binaries under test.
//!
//! Owns: making it by the project's own tool, once for as many tests as use it
//! at the same time, and finding files of the repository that are released.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tempfile::TempDir;

use crate::{place, tools};

/// An archive that `docker load`, `podman load` and skopeo take.
#[derive(Debug)]
pub struct Release {
    folder: TempDir,
    /// Digest of the image's manifest, as the tool printed it.
    pub digest: String,
    /// Version of the binaries: the image's tag.
    pub version: String,
}

impl Release {
    /// Makes it, or takes the one another test uses just now.
    #[must_use]
    pub fn shared() -> Arc<Release> {
        static SHARED: Mutex<Weak<Release>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(release) = shared.upgrade() {
            return release;
        }
        let folder = place::dir();
        let digest = make(&folder.path().join("image.tar"));
        let version = tools::run(Command::new(place::binary("orlop")).arg("version"));
        let release = Arc::new(Release {
            folder,
            digest,
            version: version.trim_start_matches("orlop ").to_owned(),
        });
        *shared = Arc::downgrade(&release);
        release
    }

    /// Where the archive is.
    #[must_use]
    pub fn archive(&self) -> PathBuf {
        self.folder.path().join("image.tar")
    }

    /// What docker and podman call the image once they have loaded it.
    #[must_use]
    pub fn name(&self) -> String {
        format!("orlop:{}", self.version)
    }
}

/// Makes the image as an archive or a folder; returns the manifest's digest.
///
/// # Panics
/// When the tool fails.
#[must_use]
#[track_caller]
pub fn make(output: &Path) -> String {
    let orlop = place::binary("orlop");
    let folder = orlop.parent().expect("folder of the binaries");
    let printed = tools::run(&mut tool(folder, output));
    assert!(printed.starts_with("sha256:"), "{printed}");
    printed
}

/// The tool that makes the image of the binaries in this folder.
#[must_use]
pub fn tool(folder: &Path, output: &Path) -> Command {
    let mut command = Command::new(file("packaging/image.sh"));
    command.arg("--bin").arg(folder).arg("--output").arg(output);
    command
}

/// A file of the repository, by its path from the root.
#[must_use]
pub fn file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// The text of a file of the repository.
///
/// # Panics
/// When it cannot be read.
#[must_use]
#[track_caller]
pub fn text(path: &str) -> String {
    std::fs::read_to_string(file(path)).unwrap_or_else(|error| panic!("read {path}: {error}"))
}

/// The one line of a page that starts with these words, as its reader would
/// copy it.
///
/// # Panics
/// When there is none, or more than one.
#[must_use]
#[track_caller]
pub fn line(page: &str, start: &str) -> String {
    let text = text(page);
    let mut found = text.lines().filter(|line| line.starts_with(start));
    let line = found.next();
    let line = line.unwrap_or_else(|| panic!("{page} has no line that starts with {start:?}"));
    assert_eq!(found.next(), None, "{page} has several lines {start:?}");
    line.to_owned()
}
