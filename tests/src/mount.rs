//! Small file systems, for tests that need a full or a read-only one.
//!
//! Owns: mounting and unmounting. Needs root; says so where it is missing.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::{place, tools};

/// A file system of its own, unmounted when the handle is dropped.
#[derive(Debug)]
pub struct Mount {
    folder: TempDir,
}

impl Mount {
    /// An ext4 of this size in a file, or nothing where that cannot be done.
    #[must_use]
    pub fn ext4(bytes: u64) -> Option<Mount> {
        let mkfs = tools::need("mkfs.ext4")?;
        if !tools::is_root() {
            tools::skipped("mounting needs root");
            return None;
        }
        let folder = place::dir();
        let image = folder.path().join("image");
        let file = std::fs::File::create(&image).expect("create the image");
        file.set_len(bytes).expect("size the image");
        tools::run(Command::new(mkfs).args(["-q", "-m", "0"]).arg(&image));
        let at = folder.path().join("at");
        std::fs::create_dir(&at).expect("create the mount point");
        let ran = tools::try_run(
            Command::new("mount")
                .args(["-o", "loop"])
                .arg(&image)
                .arg(&at),
        );
        if !ran.ok {
            tools::skipped(&format!(
                "no loop device can be mounted: {}",
                ran.err.trim()
            ));
            return None;
        }
        Some(Mount { folder })
    }

    /// A file system in memory with these options, such as `size=64m`, or
    /// nothing where that cannot be done.
    #[must_use]
    pub fn tmpfs(options: &str) -> Option<Mount> {
        if !tools::is_root() {
            tools::skipped("mounting needs root");
            return None;
        }
        let folder = place::dir();
        let at = folder.path().join("at");
        std::fs::create_dir(&at).expect("create the mount point");
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", options, "tmpfs"]);
        let ran = tools::try_run(command.arg(&at));
        if !ran.ok {
            tools::skipped(&format!("no tmpfs can be mounted: {}", ran.err.trim()));
            return None;
        }
        Some(Mount { folder })
    }

    /// Gives it other bounds.
    #[track_caller]
    pub fn resize(&self, options: &str) {
        let options = format!("remount,{options}");
        tools::run(
            Command::new("mount")
                .args(["-o", &options])
                .arg(self.path()),
        );
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("at")
    }

    /// Makes it read-only or writable again.
    #[track_caller]
    pub fn read_only(&self, yes: bool) {
        let mode = if yes { "remount,ro" } else { "remount,rw" };
        tools::run(Command::new("mount").args(["-o", mode]).arg(self.path()));
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        unmount(&self.path());
    }
}

fn unmount(path: &Path) {
    let _ = Command::new("umount").arg("--lazy").arg(path).output();
}
