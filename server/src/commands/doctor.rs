//! `orlop doctor`: looks at machine and data folder, one question at a time,
//! and says of each what to do.
//!
//! Changes nothing that stays: trials are made in a folder of their own and
//! removed. Can run beside a server.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use orlop_disk::blocking::Blocking;
use orlop_disk::lock::{Lock, LockError};
use orlop_disk::probe::{self, Fit};
use orlop_disk::{Access, Disk};
use serde::Serialize;

use super::Output;
use crate::control::kept;
use crate::settings::{Loaded, Problem, ServeArgs, Settings, memory_limit};
use crate::storage::LOCK;

/// Memory below which a server is not comfortable, in bytes.
const MEMORY_LOW: u64 = 256 * 1024 * 1024;
/// Open files below which many connections cannot be served.
const FILES_LOW: u64 = 4096;
/// Threads of the disk that makes the trials.
const TRIAL_THREADS: usize = 1;
/// The default reserve: the larger of this and a fiftieth of the file system.
const RESERVE_MIN: u64 = 1024 * 1024 * 1024;
const RESERVE_FRACTION: u64 = 50;

/// Flags of `orlop doctor`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Settings that the server would have.
    #[command(flatten)]
    settings: ServeArgs,

    /// How to report
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    /// As it should be.
    Pass,
    /// Works, but could be better.
    Note,
    /// The server would not start, or not serve.
    Fail,
}

#[derive(Debug, Serialize)]
struct Check {
    name: &'static str,
    result: Outcome,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<String>,
}

impl Check {
    fn pass(name: &'static str, message: impl Into<String>) -> Check {
        Check {
            name,
            result: Outcome::Pass,
            message: message.into(),
            advice: None,
        }
    }

    fn note(name: &'static str, message: impl Into<String>, advice: impl Into<String>) -> Check {
        Check {
            result: Outcome::Note,
            advice: Some(advice.into()),
            ..Check::pass(name, message)
        }
    }

    fn fail(name: &'static str, message: impl Into<String>, advice: impl Into<String>) -> Check {
        Check {
            result: Outcome::Fail,
            ..Check::note(name, message, advice)
        }
    }
}

/// Makes all checks and reports them.
pub fn run(args: &Args) -> ExitCode {
    let loaded = Loaded::new(&args.settings);
    let folder = &loaded.unchecked().data;
    let mut checks = settings_checks(&loaded);
    checks.extend(examine(loaded.unchecked()));
    let is_well = checks.iter().all(|check| check.result != Outcome::Fail);
    match args.output {
        Output::Text => print_text(folder, &checks),
        Output::Json => {
            let report = serde_json::json!({ "data": folder, "ok": is_well, "checks": checks });
            println!("{report}");
        }
    }
    if is_well {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// What was written, one check for each problem.
fn settings_checks(loaded: &Loaded) -> Vec<Check> {
    const NAME: &str = "settings";
    let what = |problem: &Problem| match &problem.key {
        Some(key) => format!("{}: {key}: {}", problem.origin, problem.message),
        None => format!("{}: {}", problem.origin, problem.message),
    };
    let hint = |problem: &Problem| {
        let hint = problem.hint.as_deref();
        hint.unwrap_or("correct it; `orlop config check` tells when it is right")
            .to_owned()
    };
    let mut checks: Vec<Check> = loaded
        .problems
        .iter()
        .map(|problem| Check::fail(NAME, what(problem), hint(problem)))
        .collect();
    if checks.is_empty() {
        checks.push(match loaded.file() {
            Some(file) => Check::pass(NAME, format!("{} can be used", file.display())),
            None => Check::pass(NAME, "there is no file; flags and variables can be used"),
        });
    }
    let notes = loaded.notes.iter();
    checks.extend(notes.map(|note| Check::note(NAME, what(note), hint(note))));
    checks
}

fn examine(settings: &Settings) -> Vec<Check> {
    let folder = &settings.data;
    let mut checks = Vec::new();
    let (place, check) = data_folder(folder);
    checks.push(check);
    let holder = place.as_deref().and_then(|place| holder(&place.join(LOCK)));
    checks.extend(holder.as_ref().map(lock));
    if let Some(place) = place {
        match Blocking::new(TRIAL_THREADS) {
            Ok(disk) => {
                checks.extend(file_system(disk.as_ref(), &place));
                checks.push(space(disk.as_ref(), &place, settings.space_reserve));
            }
            Err(error) => checks.push(Check::fail(
                "file system",
                format!("no thread can be started for the trials: {error}"),
                "raise the limit of processes of this user",
            )),
        }
    }
    checks.push(maintenance(folder));
    checks.push(ring());
    let is_served = matches!(holder, Some(LockError::Held { .. }));
    checks.push(port("port", "--listen", settings.listen, is_served));
    if let Some(address) = settings.ops_listen {
        checks.push(port("ops port", "--ops-listen", address, is_served));
    }
    checks.push(memory(memory_limit()));
    checks.push(files());
    checks
}

/// The folder in which trials can be made: the data folder, or the one in
/// which it would be made.
fn data_folder(folder: &Path) -> (Option<PathBuf>, Check) {
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

/// Why the lock cannot be taken, if there is one and it cannot.
fn holder(path: &Path) -> Option<LockError> {
    if !path.exists() {
        return None;
    }
    Lock::acquire(path).err()
}

fn lock(error: &LockError) -> Check {
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

fn file_system(disk: &dyn Disk, place: &Path) -> Vec<Check> {
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

fn space(disk: &dyn Disk, place: &Path, reserve: Option<u64>) -> Check {
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

fn maintenance(folder: &Path) -> Check {
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

fn ring() -> Check {
    match probe::ring() {
        Ok(()) => Check::pass("io_uring", "it works and is used"),
        Err(why) => Check::note(
            "io_uring",
            format!("it cannot be used, a pool of threads is instead: {why}"),
            "under Docker or containerd, allow io_uring in the seccomp profile; else see sysctl kernel.io_uring_disabled",
        ),
    }
}

fn port(name: &'static str, flag: &str, address: SocketAddr, is_served: bool) -> Check {
    if is_served {
        return Check::pass(name, "not tried: a server is running");
    }
    match TcpListener::bind(address) {
        Ok(_) => Check::pass(name, format!("{address} is free")),
        Err(error) => Check::fail(
            name,
            format!("cannot listen on {address}: {error}"),
            format!("stop what listens there, or pass another {flag}"),
        ),
    }
}

fn memory(limit: Option<u64>) -> Check {
    const NAME: &str = "memory";
    match limit {
        None => Check::pass(NAME, "no limit is set for this process"),
        Some(limit) if limit < MEMORY_LOW => Check::note(
            NAME,
            format!("limited to {}", show(limit)),
            format!("{} or more serve many pulls at once", show(MEMORY_LOW)),
        ),
        Some(limit) => Check::pass(NAME, format!("limited to {}", show(limit))),
    }
}

fn files() -> Check {
    const NAME: &str = "open files";
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    match limit {
        Some(limit) if limit < FILES_LOW => Check::note(
            NAME,
            format!("limited to {limit}"),
            format!("raise the hard limit to {FILES_LOW} or more (LimitNOFILE= in a service)"),
        ),
        Some(limit) => Check::pass(NAME, format!("limited to {limit}")),
        None => Check::pass(NAME, "not limited"),
    }
}

fn show(bytes: u64) -> String {
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

fn print_text(folder: &Path, checks: &[Check]) {
    println!("data folder {}", folder.display());
    for check in checks {
        let sign = match check.result {
            Outcome::Pass => "ok  ",
            Outcome::Note => "note",
            Outcome::Fail => "FAIL",
        };
        println!("{sign}  {:14} {}", check.name, check.message);
        if let Some(advice) = &check.advice {
            println!("      {:14} -> {advice}", "");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let path = folder.path().join(LOCK);
        assert!(holder(&path).is_none());
        let held = Lock::acquire(&path).unwrap();
        let error = holder(&path).unwrap();
        let check = lock(&error);
        assert!(
            check.message.contains(&std::process::id().to_string()),
            "{check:?}"
        );
        drop(held);
        assert!(holder(&path).is_none());
    }

    #[test]
    fn a_taken_port_fails() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let outcome = |is_served| port("port", "--listen", address, is_served).result;
        assert_eq!(outcome(false), Outcome::Fail);
        assert_eq!(outcome(true), Outcome::Pass);
    }

    #[test]
    fn too_little_space_fails() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Blocking::new(TRIAL_THREADS).unwrap();
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
