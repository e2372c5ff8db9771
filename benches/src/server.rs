//! The servers measured, as processes of their own: started on a free
//! loopback port with an empty data folder, awaited, stopped, deleted.
//!
//! A [`Server`] that goes out of scope kills its process. Nothing here knows
//! what is measured.

use crate::error::{Context as _, Error, Result};
use crate::http::{MAX_HEAD, parse_head};
use crate::process;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Longest wait for a server on an empty folder to be ready.
pub(crate) const READY_LIMIT: Duration = Duration::from_secs(30);
/// Longest wait for a clean stop.
const STOP_LIMIT: Duration = Duration::from_secs(60);
/// Pause between two looks at a server that is not ready yet.
const PROBE_PAUSE: Duration = Duration::from_millis(2);
/// How much of a failed server's log is shown, in bytes.
const LOG_TAIL: usize = 2000;

/// A server that can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// Orlop on io_uring.
    Uring,
    /// Orlop on its pread/pwrite pool.
    Pool,
    /// Debian's docker-registry, file system storage.
    Registry,
    /// Distribution 3, the version after it, file system storage.
    Registry3,
    /// A server without storage, answering from memory: what the client and
    /// loopback TCP can carry.
    Loopback,
}

impl Kind {
    /// Every server, in the order of the tables.
    pub(crate) const ALL: [Kind; 5] = [
        Kind::Uring,
        Kind::Pool,
        Kind::Registry,
        Kind::Registry3,
        Kind::Loopback,
    ];

    /// Name in tables.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Kind::Uring => "orlop (uring)",
            Kind::Pool => "orlop (pool)",
            Kind::Registry => "docker-registry",
            Kind::Registry3 => "distribution 3",
            Kind::Loopback => "loopback",
        }
    }

    /// Whether this is what the project builds.
    pub(crate) fn is_orlop(self) -> bool {
        matches!(self, Kind::Uring | Kind::Pool)
    }

    /// Whether it keeps what is pushed to it.
    pub(crate) fn stores(self) -> bool {
        self != Kind::Loopback
    }

    /// Whether both read the same data folders.
    pub(crate) fn shares_format(self, other: Kind) -> bool {
        self == other || self.is_orlop() && other.is_orlop()
    }

    fn ready_path(self) -> &'static str {
        match self {
            Kind::Uring | Kind::Pool => "/readyz",
            Kind::Registry | Kind::Registry3 => "/v2/",
            Kind::Loopback => "/bytes/0",
        }
    }
}

/// Where the programs are.
#[derive(Debug, Clone)]
pub(crate) struct Programs {
    /// `orlop`.
    pub(crate) orlop: PathBuf,
    /// `docker-registry`.
    pub(crate) registry: PathBuf,
    /// `registry` of distribution 3.
    pub(crate) registry3: PathBuf,
    /// This program, which is the loopback server too.
    pub(crate) own: PathBuf,
}

impl Programs {
    /// The program of `kind`, or why there is none.
    pub(crate) fn find(&self, kind: Kind) -> Result<&Path> {
        let (path, hint) = match kind {
            Kind::Uring | Kind::Pool => (&self.orlop, "build it with `./x build`"),
            Kind::Registry => (
                &self.registry,
                "install Debian's package docker-registry or name it with --registry",
            ),
            Kind::Registry3 => (
                &self.registry3,
                "install it with `go install \
                 github.com/distribution/distribution/v3/cmd/registry@v3.1.1` or name it with \
                 --registry3",
            ),
            Kind::Loopback => (&self.own, "run orlop-bench from a file that exists"),
        };
        if path.is_file() {
            Ok(path)
        } else {
            let path = path.display();
            Err(Error::Server(format!("{path} does not exist; {hint}")))
        }
    }
}

/// A running server. Dropping it kills the process; its folder stays.
#[derive(Debug)]
pub(crate) struct Server {
    /// What runs.
    pub(crate) kind: Kind,
    /// Where it listens.
    pub(crate) addr: SocketAddr,
    /// From the start of the process to the first answer that says ready.
    pub(crate) start_time: Duration,
    child: Child,
}

impl Server {
    /// Starts `kind` with its data in `folder` (made if missing) and waits
    /// until it is ready.
    pub(crate) fn start(
        kind: Kind,
        programs: &Programs,
        folder: &Path,
        limit: Duration,
    ) -> Result<Server> {
        Server::start_with(kind, programs, folder, limit, &[])
    }

    /// The same with more arguments at the end of the command line.
    pub(crate) fn start_with(
        kind: Kind,
        programs: &Programs,
        folder: &Path,
        limit: Duration,
        arguments: &[String],
    ) -> Result<Server> {
        let pushes = Pushes::Taken;
        Server::launch((kind, pushes), programs, folder, limit, arguments)
    }

    /// Starts a peer that takes no pushes, as its collector wants it.
    pub(crate) fn start_read_only(
        kind: Kind,
        programs: &Programs,
        folder: &Path,
    ) -> Result<Server> {
        let pushes = Pushes::Refused;
        Server::launch((kind, pushes), programs, folder, READY_LIMIT, &[])
    }

    fn launch(
        (kind, pushes): (Kind, Pushes),
        programs: &Programs,
        folder: &Path,
        limit: Duration,
        arguments: &[String],
    ) -> Result<Server> {
        let program = programs.find(kind)?;
        fs::create_dir_all(folder).context(|| format!("create {}", folder.display()))?;
        let addr = free_address()?;
        let mut command = command((kind, pushes), program, folder, addr)?;
        command.args(arguments);
        let log_path = folder.join("server.log");
        let log = File::create(&log_path).context(|| format!("create {}", log_path.display()))?;
        let log_too = log.try_clone().context(|| "share a log file".to_owned())?;
        command.stdin(Stdio::null()).stdout(log).stderr(log_too);
        let begin = Instant::now();
        let child = command
            .spawn()
            .context(|| format!("start {}", program.display()))?;
        let mut server = Server {
            kind,
            addr,
            start_time: Duration::ZERO,
            child,
        };
        server.await_ready(begin, limit, &log_path)?;
        server.start_time = begin.elapsed();
        Ok(server)
    }

    fn await_ready(&mut self, begin: Instant, limit: Duration, log: &Path) -> Result<()> {
        loop {
            if probe(self.addr, self.kind.ready_path()) == Some(200) {
                return Ok(());
            }
            let ended = self.child.try_wait();
            if let Some(status) = ended.context(|| "look at a child process".to_owned())? {
                let reason = format!("ended with {status}");
                return Err(self.did_not_start(&reason, log));
            }
            if begin.elapsed() > limit {
                let reason = format!("was not ready within {} s", limit.as_secs());
                return Err(self.did_not_start(&reason, log));
            }
            crate::stop::check()?;
            std::thread::sleep(PROBE_PAUSE);
        }
    }

    fn did_not_start(&self, reason: &str, log: &Path) -> Error {
        let log = fs::read_to_string(log).unwrap_or_default();
        let from = log.len().saturating_sub(LOG_TAIL);
        let tail = (from..=log.len())
            .find_map(|at| log.get(at..))
            .unwrap_or_default();
        let label = self.kind.label();
        Error::Server(format!("{label} {reason}; its log ends:\n{}", tail.trim()))
    }

    /// Process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// CPU time so far.
    pub(crate) fn cpu_time(&self) -> Result<Duration> {
        process::cpu_time(self.pid())
    }

    /// Asks for a clean stop and waits for exit status 0.
    pub(crate) fn stop(mut self) -> Result<()> {
        let label = self.kind.label();
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)
            .map_err(std::io::Error::from)
            .context(|| format!("signal {label}"))?;
        let begin = Instant::now();
        loop {
            let ended = self.child.try_wait();
            match ended.context(|| format!("wait for {label}"))? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => {
                    let message = format!("{label} was asked to stop and ended with {status}");
                    return Err(Error::Server(message));
                }
                None if begin.elapsed() > STOP_LIMIT => {
                    let limit = STOP_LIMIT.as_secs();
                    let message = format!("{label} did not stop within {limit} s of SIGTERM");
                    return Err(Error::Server(message));
                }
                None => std::thread::sleep(PROBE_PAUSE),
            }
        }
    }

    /// Ends the process at once, as a power cut would.
    pub(crate) fn kill(mut self) -> Result<()> {
        let label = self.kind.label();
        self.child.kill().context(|| format!("kill {label}"))?;
        self.child.wait().context(|| format!("wait for {label}"))?;
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Fails only when the process has ended, which is what is wanted.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Folder of a server's data in its own folder.
pub(crate) const DATA: &str = "data";

/// A peer's file of settings in its folder.
pub(crate) const CONFIG: &str = "config.yml";

/// Whether a server takes pushes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pushes {
    Taken,
    Refused,
}

/// Beginnings of the names of the servers' variables.
const VARIABLES: [&str; 3] = ["ORLOP_", "REGISTRY_", "OTEL_"];

/// A command without the settings of the caller's environment, so that a run
/// measures defaults.
pub(crate) fn bare(program: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if VARIABLES.iter().any(|start| text.starts_with(start)) {
            command.env_remove(&name);
        }
    }
    command
}

/// The command line.
fn command(
    (kind, pushes): (Kind, Pushes),
    program: &Path,
    folder: &Path,
    addr: SocketAddr,
) -> Result<Command> {
    let mut command = bare(program);
    let listen = addr.to_string();
    match kind {
        Kind::Uring | Kind::Pool => {
            let backend = if kind == Kind::Uring { "uring" } else { "pool" };
            command.arg("serve").arg("--data").arg(folder.join(DATA));
            command.args(["--listen", &listen]);
            command.env("ORLOP_DISK_BACKEND", backend);
            command.env("ORLOP_OPS_LISTEN", "off");
        }
        Kind::Registry | Kind::Registry3 => {
            let config = folder.join(CONFIG);
            let text = registry_config(&folder.join(DATA), addr, pushes);
            fs::write(&config, text).context(|| format!("write {}", config.display()))?;
            command.arg("serve").arg(config);
            // Version 3 sends traces to a collector on this machine unless told
            // not to.
            command.env("OTEL_TRACES_EXPORTER", "none");
        }
        Kind::Loopback => {
            command.args(["loopback", "--listen", &listen]);
        }
    }
    Ok(command)
}

/// Debian's own settings without accounts, and with logs that cost nothing.
/// Both versions of the format have them in the same places.
fn registry_config(data: &Path, addr: SocketAddr, pushes: Pushes) -> String {
    let read_only = pushes == Pushes::Refused;
    // JSON strings are YAML strings, whatever the path holds.
    let root = serde_json::Value::from(data.to_string_lossy());
    format!(
        "version: 0.1\n\
         log:\n  level: error\n  accesslog:\n    disabled: true\n\
         storage:\n  cache:\n    blobdescriptor: inmemory\n  \
         filesystem:\n    rootdirectory: {root}\n  \
         delete:\n    enabled: true\n  \
         maintenance:\n    readonly:\n      enabled: {read_only}\n\
         http:\n  addr: {addr}\n  secret: bench\n"
    )
}

/// A loopback address nobody listens on now. Another process may take it
/// before the server does; the server then fails to start and says so.
pub(crate) fn free_address() -> Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .context(|| "find a free loopback port".to_owned())
}

/// Status that `path` answers now; `None` while nobody answers.
fn probe(addr: SocketAddr, path: &str) -> Option<u16> {
    let mut stream = TcpStream::connect(addr).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = Vec::new();
    let mut piece = [0; 1024];
    while answer.len() <= MAX_HEAD {
        let read = stream.read(&mut piece).ok()?;
        answer.extend_from_slice(piece.get(..read)?);
        match parse_head(&answer).ok()? {
            Some((head, _)) => return Some(head.status),
            None if read == 0 => return None,
            None => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_config_survives_an_odd_path() {
        let addr = "127.0.0.1:5001".parse().unwrap();
        let config = registry_config(Path::new("/a \"b\": c"), addr, Pushes::Refused);
        assert!(config.contains("rootdirectory: \"/a \\\"b\\\": c\"\n"));
        assert!(config.contains("\n    readonly:\n      enabled: true\n"));
        assert!(config.contains("\nhttp:\n  addr: 127.0.0.1:5001\n"));
    }

    #[test]
    fn a_program_that_ends_is_reported_with_its_log() {
        let folder = tempfile::tempdir().unwrap();
        let script = folder.path().join("orlop");
        fs::write(&script, "#!/bin/sh\necho no ring here >&2\nexit 3\n").unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(&script, mode).unwrap();
        let programs = Programs {
            orlop: script,
            registry: PathBuf::from("/nonexistent/docker-registry"),
            registry3: PathBuf::from("/nonexistent/registry"),
            own: PathBuf::from("/nonexistent/own"),
        };
        let data = folder.path().join("d");
        let error = Server::start(Kind::Uring, &programs, &data, READY_LIMIT).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("exit status: 3") && text.contains("no ring here"),
            "{text}"
        );
        for kind in [Kind::Registry, Kind::Registry3] {
            let error = programs.find(kind).unwrap_err().to_string();
            assert!(error.contains("install"), "{error}");
        }
    }
}
