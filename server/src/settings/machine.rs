//! What the machine and the way this process was started say about defaults.
//!
//! Refuses to know: files of settings, flags, variables.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use orlop_format::superblock;

/// Where a service keeps its data.
const SERVICE_DATA: &str = "/var/lib/orlop";
/// Where anything else does, below the working folder.
const LOCAL_DATA: &str = "orlop-data";
/// The smallest cache, so that a zero is no surprise.
pub(crate) const CACHE_MIN: u64 = 8 * MIB;
const MIB: u64 = 1024 * 1024;
/// The fraction of the machine's memory, or of the control group's limit, that
/// the cache may take by default.
const CACHE_FRACTION: u64 = 4;

/// The data folder where none is set, as a path from the working folder. The
/// same for a service and for the commands that an operator types beside it.
pub(crate) fn data_folder() -> PathBuf {
    data_folder_of(Path::new(SERVICE_DATA), is_service())
}

fn data_folder_of(service_data: &Path, is_service: bool) -> PathBuf {
    if (is_service && is_writable(service_data)) || may_hold_store(service_data) {
        service_data.into()
    } else {
        LOCAL_DATA.into()
    }
}

/// Whether a store is in a folder. One that this user may not enter counts: a
/// command that fails for that is better than one that works on another store.
fn may_hold_store(folder: &Path) -> bool {
    let may_be = |name| match folder.join(name).try_exists() {
        Ok(is_there) => is_there,
        Err(error) => error.kind() == ErrorKind::PermissionDenied,
    };
    superblock::FILES.into_iter().any(may_be)
}

/// Bytes of cache where no number is set, in whole MiB.
pub(crate) fn cache_size() -> u64 {
    cache_of(memory_limit().unwrap_or(u64::MAX).min(memory()))
}

/// Whether a service manager or a container started this process.
fn is_service() -> bool {
    std::process::id() == 1 || std::env::var_os("INVOCATION_ID").is_some()
}

fn is_writable(path: &Path) -> bool {
    rustix::fs::access(
        path,
        rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK,
    )
    .is_ok()
}

fn cache_of(memory: u64) -> u64 {
    (memory / CACHE_FRACTION / MIB * MIB).max(CACHE_MIN)
}

/// Bytes of memory the machine has.
fn memory() -> u64 {
    let info = rustix::system::sysinfo();
    let unit = u64::from(info.mem_unit.max(1));
    (info.totalram as u64).saturating_mul(unit)
}

/// Bytes of memory this process may use, if its control group sets a limit.
pub fn memory_limit() -> Option<u64> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let group = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    let root = Path::new("/sys/fs/cgroup");
    let mut folder = root.join(group.trim_start_matches('/'));
    let mut lowest: Option<u64> = None;
    // The limit of each group above counts too.
    loop {
        let limit = std::fs::read_to_string(folder.join("memory.max"))
            .ok()
            .and_then(|text| text.trim().parse().ok());
        lowest = lowest.into_iter().chain(limit).min();
        if folder == root || !folder.pop() {
            return lowest;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_and_its_operator_mean_the_same_folder() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("orlop");
        let local = PathBuf::from(LOCAL_DATA);
        assert_eq!(data_folder_of(&data, false), local);
        assert_eq!(data_folder_of(&data, true), local);
        std::fs::create_dir(&data).unwrap();
        assert_eq!(data_folder_of(&data, false), local);
        assert_eq!(data_folder_of(&data, true), data);
        std::fs::write(data.join(superblock::FILES[1]), "").unwrap();
        assert_eq!(data_folder_of(&data, false), data);
    }

    #[test]
    fn the_cache_leaves_memory_to_others() {
        assert_eq!(cache_of(400 * MIB), 100 * MIB);
        assert_eq!(cache_of(400 * MIB + 1000), 100 * MIB);
        assert_eq!(cache_of(1), CACHE_MIN);
        assert!(memory() > 64 * MIB);
    }
}
