//! What a figure depends on: processor, cores, memory, kernel, file system,
//! commit, versions, date. Read once per run and stored with every result.

use crate::error::{Context as _, Error, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Where and of what a run was made.
#[derive(Debug, Clone, serde::Serialize)]
pub(crate) struct Machine {
    /// Time of the start, UTC, RFC 3339.
    pub(crate) started: String,
    /// Processor model as the kernel names it.
    pub(crate) cpu: String,
    /// Processors this process may use; client and server share them.
    pub(crate) cores: usize,
    /// Main memory, in bytes.
    pub(crate) memory: u64,
    /// Kernel release.
    pub(crate) kernel: String,
    /// Type of the file system that holds the data of the run.
    pub(crate) file_system: String,
    /// Commit of the working folder, with `-dirty` when it has changes.
    pub(crate) commit: Option<String>,
    /// Load average over one minute at the start; noise shows here.
    pub(crate) load: Option<f64>,
}

impl Machine {
    /// Looks at this machine; `data` is the folder the servers write to.
    pub(crate) fn read(data: &Path) -> Result<Machine> {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let data = fs::canonicalize(data).context(|| format!("resolve {}", data.display()))?;
        Ok(Machine {
            started: timestamp(now()),
            cpu: value_of(&cpuinfo, "model name").unwrap_or_else(|| "unknown".to_owned()),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory: value_of(&meminfo, "MemTotal")
                .and_then(|text| text.strip_suffix("kB")?.trim().parse::<u64>().ok())
                .map_or(0, |kib| kib * 1024),
            kernel: rustix::system::uname()
                .release()
                .to_string_lossy()
                .into_owned(),
            file_system: file_system(&mounts, &data).unwrap_or_else(|| "unknown".to_owned()),
            commit: commit(),
            load: load
                .split_ascii_whitespace()
                .next()
                .and_then(|text| text.parse().ok()),
        })
    }

    /// `DATE-CPU-NAME.json`, safe on every file system.
    pub(crate) fn run_name(&self, name: &str) -> String {
        let date = self.started.get(..10).unwrap_or_default();
        format!("{date}-{}-{}.json", slug(&self.cpu), slug(name))
    }
}

/// First line a program prints for `args`; `None` when it cannot be run.
pub(crate) fn version_line(program: &Path, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find(|line| !line.trim().is_empty())?;
    output.status.success().then(|| line.trim().to_owned())
}

/// Space that must stay free beside what a run may store, in bytes.
const SPARE: u64 = 4 << 30;

/// An error unless `folder` has room for `stored` bytes and some to spare.
/// `what` wants them, and `option` makes them fewer.
pub(crate) fn want_space(folder: &Path, stored: u64, what: &str, option: &str) -> Result<()> {
    let free = free_space(folder)?;
    let need = stored.saturating_add(SPARE);
    if free >= need {
        return Ok(());
    }
    Err(Error::Usage(format!(
        "{} has {:.1} GB free, {what} wants {:.1} GB; name another folder with --dir or lower \
         {option}",
        folder.display(),
        free as f64 / 1e9,
        need as f64 / 1e9
    )))
}

/// Bytes free for this user in the file system of `folder`.
fn free_space(folder: &Path) -> Result<u64> {
    let stat = rustix::fs::statvfs(folder)
        .map_err(std::io::Error::from)
        .context(|| format!("ask for the free space of {}", folder.display()))?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Value of the first `name : value` line.
fn value_of(text: &str, name: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim().to_owned())
    })
}

/// Type of the file system of `path`: that of the longest mount point that
/// is a prefix of it; of equal ones the last, which lies on top.
fn file_system(mountinfo: &str, path: &Path) -> Option<String> {
    let mut best: Option<(usize, &str)> = None;
    for line in mountinfo.lines() {
        let Some((left, right)) = line.split_once(" - ") else {
            continue;
        };
        let (Some(point), Some(kind)) = (
            left.split(' ').nth(4).map(PathBuf::from),
            right.split(' ').next(),
        ) else {
            continue;
        };
        let depth = point.components().count();
        if path.starts_with(&point) && best.is_none_or(|(most, _)| depth >= most) {
            best = Some((depth, kind));
        }
    }
    best.map(|(_, kind)| kind.to_owned())
}

fn commit() -> Option<String> {
    let head = version_line(Path::new("git"), &["rev-parse", "--short=12", "HEAD"])?;
    let dirty = version_line(Path::new("git"), &["status", "--porcelain"]).is_some();
    Some(if dirty { format!("{head}-dirty") } else { head })
}

/// Lower-case letters and digits, everything else a single dash; trademark
/// signs are dropped.
fn slug(text: &str) -> String {
    let text = text
        .to_ascii_lowercase()
        .replace("(r)", " ")
        .replace("(tm)", " ");
    let words: Vec<&str> = text
        .split(|sign: char| !sign.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty())
        .collect();
    if words.is_empty() {
        "unnamed".to_owned()
    } else {
        words.join("-")
    }
}

fn now() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

/// Seconds since 1970 as an RFC 3339 time in UTC.
fn timestamp(since_epoch: Duration) -> String {
    let seconds = since_epoch.as_secs();
    let (mut days, rest) = (seconds / 86_400, seconds % 86_400);
    let leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let mut year = 1970;
    while days >= 365 + u64::from(leap(year)) {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let february = 28 + u64::from(leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    let day = days + 1;
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(timestamp(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn slugs() {
        assert_eq!(slug("Intel(R) Xeon(R) Processor"), "intel-xeon-processor");
        assert_eq!(slug("../../etc"), "etc");
        assert_eq!(slug("???"), "unnamed");
    }

    #[test]
    fn the_deepest_and_topmost_mount_counts() {
        let mounts = "1 0 8:1 / / rw shared:1 - ext4 /dev/a rw\n\
                      2 1 0:5 / /tmp rw - tmpfs tmpfs rw\n\
                      3 1 0:6 / /tmp/deep rw - xfs /dev/b rw\n\
                      4 1 0:7 / /tmp/deep rw - btrfs /dev/c rw\n";
        let kind = |path: &str| file_system(mounts, Path::new(path));
        assert_eq!(kind("/home").as_deref(), Some("ext4"));
        assert_eq!(kind("/tmp/x").as_deref(), Some("tmpfs"));
        assert_eq!(kind("/tmp/deeper").as_deref(), Some("tmpfs"));
        assert_eq!(kind("/tmp/deep/x").as_deref(), Some("btrfs"));
        assert_eq!(file_system("", Path::new("/")), None);
    }

    #[test]
    fn this_machine_can_be_read() {
        let machine = Machine::read(Path::new(".")).unwrap();
        assert!(machine.cores >= 1 && machine.memory > 0);
        assert!(!machine.kernel.is_empty());
        assert!(free_space(Path::new(".")).unwrap() > 0);
    }
}
