//! What the doctor asks of the data folder: can it be written, who holds it,
//! what does its file system promise, is there space. Trials are made in a
//! folder of their own and removed.

use std::path::{Path, PathBuf};

use orlop_disk::lock::{Lock, LockError};
use orlop_disk::probe::{self, Fit};
use orlop_disk::{Access, Disk};

use super::check::Check;
use crate::control::kept;
use crate::storage::LOCK;

/// The default reserve: the larger of this and a fiftieth of the file system.
const RESERVE_MIN: u64 = 1024 * 1024 * 1024;
const RESERVE_FRACTION: u64 = 50;

/// Whether the server refuses writes because it was told to.
pub(super) fn maintenance(folder: &Path) -> Check {
    const NAME: &str = "maintenance";
    const OFF: &str = "`orlop maintenance read-only off` takes writes again";
    match kept::read(folder) {
        Ok(None) => Check::pass(NAME, "none: writes are taken"),
        Ok(Some(why)) => {
            let message = format!("read-only since {}: {}", why.since, why.reason);
            Check::note(NAME, message, OFF)
        }
        Err(error) => Check::note(NAME, format!("{error}: writes are refused"), OFF),
    }
}

/// The folder in which trials can be made: the data folder, or the one in
/// which it would be made.
pub(super) fn data_folder(folder: &Path) -> (Option<PathBuf>, Check) {
    const NAME: &str = "data folder";
    let Some(place) = folder.ancestors().find(|path| path.exists()) else {
        let message = format!("{} cannot be made", folder.display());
        return (None, Check::fail(NAME, message, "pass another --data"));
    };
    if !place.is_dir() {
        let message = format!("{} is not a folder", place.display());
        return (None, Check::fail(NAME, message, "pass another --data"));
    }
    let wanted = rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
    if let Err(error) = rustix::fs::access(place, wanted) {
        let message = format!("{} cannot be written: {error}", place.display());
        let advice = "give this user the right to write there, or pass another --data";
        return (None, Check::fail(NAME, message, advice));
    }
    let message = if place == folder {
        format!("{} can be written", folder.display())
    } else {
        format!("{} will be made in {}", folder.display(), place.display())
    };
    (Some(place.to_owned()), Check::pass(NAME, message))
}

/// Why a server could not take the data folder, if it could not.
pub(super) fn holder(data: &Path) -> Option<LockError> {
    Lock::look(&data.join(LOCK)).err()
}

pub(super) fn lock(error: &LockError) -> Check {
    match error {
        LockError::Held { pid, .. } => Check::pass(
            "lock",
            format!("a server is running on this folder: process {pid}"),
        ),
        LockError::Disk(error) => Check::fail(
            "lock",
            error.to_string(),
            "give this user the right to write in the data folder",
        ),
    }
}

pub(super) fn file_system(disk: &dyn Disk, place: &Path) -> Vec<Check> {
    const NAME: &str = "file system";
    let report = match probe::inspect(disk, place) {
        Ok(report) => report,
        Err(error) => {
            let advice = "free some space and see the log of the kernel, or pass another --data";
            return vec![Check::fail(NAME, error.to_string(), advice)];
        }
    };
    let kind = &report.file_system;
    let mut checks = vec![if report.refusals.is_empty() {
        Check::pass(NAME, format!("{kind} keeps the promises that were tried"))
    } else {
        let advice = "choose a folder on a local file system such as ext4 or xfs";
        Check::fail(
            NAME,
            format!("{kind}: {}", report.refusals.join(" ")),
            advice,
        )
    }];
    checks.extend(report.notes.iter().map(|note| {
        Check::note(
            NAME,
            note,
            "choose another folder if this is not what you want",
        )
    }));
    checks.push(match report.access {
        Access::Direct => Check::pass("direct I/O", "reads and writes pass by the page cache"),
        Access::DontCache => Check::note(
            "direct I/O",
            "not offered here; pages are dropped after use instead",
            "ext4 and xfs offer it, and cost less processor time",
        ),
        Access::Buffered => Check::note(
            "direct I/O",
            "not offered here; everything goes through the page cache",
            "ext4 and xfs offer it, and cost less processor time",
        ),
    });
    if report.punch == Fit::Missing {
        checks.push(Check::note(
            "hole punching",
            "not offered here; space comes back only by rewriting",
            "ext4 and xfs offer it",
        ));
    }
    checks
}

pub(super) fn space(disk: &dyn Disk, place: &Path, reserve: Option<u64>) -> Check {
    const NAME: &str = "space";
    let space = match disk.space(place) {
        Ok(space) => space,
        Err(error) => return Check::fail(NAME, error.to_string(), "pass another --data"),
    };
    let default = RESERVE_MIN.max(space.total / RESERVE_FRACTION);
    let reserve = reserve.unwrap_or(default);
    let message = format!(
        "{} of {} free, {} of it kept back from pushes",
        show(space.available),
        show(space.total),
        show(reserve)
    );
    if space.available > reserve {
        Check::pass(NAME, message)
    } else {
        let advice = "pushes would be refused: free some space, or set a smaller --space-reserve";
        Check::fail(NAME, message, advice)
    }
}

/// A number of bytes for people.
pub(super) fn show(bytes: u64) -> String {
    const UNITS: [(&str, u32); 4] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
    for (unit, shift) in UNITS {
        let whole = bytes >> shift;
        if whole > 0 {
            // One digit after the point, rounded down.
            let tenths = (bytes >> (shift.saturating_sub(10))).saturating_mul(10) >> 10;
            return format!("{whole}.{} {unit}", tenths % 10);
        }
    }
    format!("{bytes} bytes")
}

#[cfg(test)]
mod tests {
    use super::super::check::Outcome;
    use super::*;
    use orlop_disk::blocking::Blocking;

    #[test]
    fn a_good_folder_passes() {
        let folder = tempfile::tempdir().unwrap();
        let (place, check) = data_folder(folder.path());
        assert_eq!(
            (place.as_deref(), check.result),
            (Some(folder.path()), Outcome::Pass)
        );
        let (place, check) = data_folder(&folder.path().join("a/b"));
        assert_eq!(
            (place.as_deref(), check.result),
            (Some(folder.path()), Outcome::Pass)
        );
    }

    #[test]
    fn a_file_is_no_folder() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        let (place, check) = data_folder(&file);
        assert_eq!((place, check.result), (None, Outcome::Fail));
    }

    #[test]
    fn a_held_lock_names_its_holder() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path();
        assert!(holder(data).is_none());
        let held = Lock::acquire(&data.join(LOCK)).unwrap();
        let error = holder(data).unwrap();
        let check = lock(&error);
        assert!(
            check.message.contains(&std::process::id().to_string()),
            "{check:?}"
        );
        drop(held);
        assert!(holder(data).is_none());
    }

    #[test]
    fn too_little_space_fails() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Blocking::new(1).unwrap();
        let check = |reserve| space(disk.as_ref(), folder.path(), Some(reserve)).result;
        assert_eq!(check(u64::MAX), Outcome::Fail);
        assert_eq!(check(0), Outcome::Pass);
    }

    #[test]
    fn sizes_for_people() {
        assert_eq!(show(12), "12 bytes");
        assert_eq!(show(1536), "1.5 KiB");
        assert_eq!(show(10 << 30), "10.0 GiB");
        assert_eq!(show(u64::MAX), "16777215.9 TiB");
    }
}
