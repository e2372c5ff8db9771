//! What the doctor asks of the machine: io_uring, ports, memory, open files,
//! the clock.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, SystemTime};

use orlop_disk::{Choice, probe};
use tokio::net::TcpSocket;

use super::check::Check;
use super::folder::show;

/// Memory below which a server is not comfortable, in bytes.
const MEMORY_LOW: u64 = 256 * 1024 * 1024;
/// Open files below which many connections cannot be served.
const FILES_LOW: u64 = 4096;
/// No clock that goes right shows less: the start of 2026.
const CLOCK_LEAST: Duration = Duration::from_secs(1_767_225_600);
/// How far a clock may be behind the newest file of the store.
const CLOCK_SLACK: Duration = Duration::from_secs(3600);
/// Files of the store that are written often.
const WRITTEN: [&str; 3] = ["superblock.0", "superblock.1", "catalog.db"];

/// Whether the ring works, and what follows from that.
pub(super) fn ring(choice: Choice) -> Check {
    const NAME: &str = "io_uring";
    const ADVICE: &str = "under Docker or containerd, allow io_uring in the seccomp profile; else see sysctl kernel.io_uring_disabled";
    match (probe::ring(), choice) {
        (Ok(()), Choice::Pool) => Check::pass(
            NAME,
            "it works; disk.backend is pool, so that it is not used",
        ),
        (Ok(()), _) => Check::pass(NAME, "it works and is used"),
        (Err(why), Choice::Uring) => Check::fail(
            NAME,
            format!("it cannot be used, but disk.backend asks for it: {why}"),
            format!("set disk.backend to auto; or {ADVICE}"),
        ),
        (Err(why), Choice::Pool) => Check::pass(
            NAME,
            format!("not used, since disk.backend is pool; it cannot be: {why}"),
        ),
        (Err(why), Choice::Auto) => Check::note(
            NAME,
            format!("it cannot be used, a pool of threads is instead: {why}"),
            ADVICE,
        ),
    }
}

/// Whether an address is free.
pub(super) fn port(name: &'static str, flag: &str, address: SocketAddr, is_served: bool) -> Check {
    if is_served {
        return Check::pass(name, "not tried: a server is running");
    }
    match try_port(address) {
        Ok(()) => Check::pass(name, format!("{address} is free")),
        Err(error) => Check::fail(
            name,
            format!("cannot listen on {address}: {error}"),
            format!("stop what listens there, or pass another {flag}"),
        ),
    }
}

/// Takes the port without listening on it, as is refused while another listens
/// and does not keep a server that starts meanwhile from it.
fn try_port(address: SocketAddr) -> io::Result<()> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)
}

/// How much memory there may be.
pub(super) fn memory(limit: Option<u64>) -> Check {
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

/// How many files may be open.
pub(super) fn files() -> Check {
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

/// Whether the clock can be right. Nothing is ordered by it, but certificates
/// and the ages of uploads are judged by it.
pub(super) fn clock(now: SystemTime, data: &Path) -> Check {
    const NAME: &str = "clock";
    const ADVICE: &str =
        "set the clock, and let something such as chrony or systemd-timesyncd keep it";
    let shown = humantime::format_rfc3339_seconds(now);
    if now < SystemTime::UNIX_EPOCH + CLOCK_LEAST {
        let message =
            format!("it shows {shown}, which is long past: certificates will not be valid");
        return Check::note(NAME, message, ADVICE);
    }
    let newest = WRITTEN
        .iter()
        .filter_map(|name| data.join(name).metadata().ok()?.modified().ok())
        .max();
    match newest {
        Some(newest) if newest > now + CLOCK_SLACK => {
            let newest = humantime::format_rfc3339_seconds(newest);
            let message = format!("it shows {shown}, but the store was written at {newest}");
            Check::note(NAME, message, ADVICE)
        }
        _ => Check::pass(NAME, format!("it shows {shown}")),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::super::check::Outcome;
    use super::*;

    #[test]
    fn a_taken_port_fails() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let outcome = |is_served| port("port", "--listen", address, is_served).result;
        assert_eq!(outcome(false), Outcome::Fail);
        assert_eq!(outcome(true), Outcome::Pass);
    }

    #[test]
    fn a_clock_that_is_behind_is_noted() {
        let folder = tempfile::tempdir().unwrap();
        let result = |now| clock(now, folder.path()).result;
        let now = SystemTime::now();
        assert_eq!(result(now), Outcome::Pass);
        assert_eq!(result(SystemTime::UNIX_EPOCH), Outcome::Note);
        std::fs::write(folder.path().join("superblock.1"), "").unwrap();
        assert_eq!(result(now), Outcome::Pass);
        assert_eq!(result(now - 2 * CLOCK_SLACK), Outcome::Note);
    }
}
