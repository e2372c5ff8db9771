//! A real Docker daemon of the test's own.
//!
//! Owns: starting dockerd on its own socket and folders, and ending it with
//! the containerd it started. It never touches the machine's daemon.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::{place, tools};

/// How long the daemon may take to start.
const START: Duration = Duration::from_secs(60);

/// Puts a folder over the one where docker looks for authorities.
const WITH_TRUST: &str = r#"
trusted=$1
shift
mkdir -p /etc/docker
mount -t tmpfs none /etc/docker
mkdir /etc/docker/certs.d
mount --bind "$trusted" /etc/docker/certs.d
exec "$@"
"#;

/// A running dockerd.
#[derive(Debug)]
pub struct Docker {
    program: PathBuf,
    folder: TempDir,
    daemon: Child,
}

/// A command that starts dockerd with trust in these authorities.
fn with_trust(dockerd: &Path, trusted: &Path, authorities: &[(&str, &Path)]) -> Command {
    if authorities.is_empty() {
        return Command::new(dockerd);
    }
    for (registry, authority) in authorities {
        let folder = trusted.join(registry);
        std::fs::create_dir_all(&folder).expect("a folder of trust");
        std::fs::copy(authority, folder.join("ca.crt")).expect("an authority");
    }
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-euc", WITH_TRUST, "sh"]);
    command.arg(trusted).arg(dockerd);
    command
}

impl Docker {
    /// Starts one, or says why that cannot be done here.
    #[must_use]
    pub fn start() -> Option<Docker> {
        Docker::start_trusting(&[])
    }

    /// Starts one that trusts these authorities, each for one registry. It
    /// reads them from where docker looks for them, in a view of the file
    /// system of its own, so that the machine's folder stays as it is.
    #[must_use]
    pub fn start_trusting(authorities: &[(&str, &Path)]) -> Option<Docker> {
        let (program, dockerd) = (tools::need("docker")?, tools::need("dockerd")?);
        if !tools::is_root() {
            tools::skipped("dockerd needs root");
            return None;
        }
        let folder = place::short_dir();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("daemon.json"), "{}").expect("dockerd's settings");
        let log = File::create(at("log")).expect("dockerd's log");
        let mut command = with_trust(&dockerd, &at("certs.d"), authorities);
        let daemon = command
            .arg("--host")
            .arg(format!("unix://{}", at("sock").display()))
            .arg("--data-root")
            .arg(at("data"))
            .arg("--exec-root")
            .arg(at("exec"))
            .arg("--pidfile")
            .arg(at("pid"))
            .arg("--config-file")
            .arg(at("daemon.json"))
            .args(["--bridge=none", "--iptables=false", "--ip6tables=false"])
            .args(["--ip-forward=false", "--storage-driver=vfs"])
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("handle of the log"))
            .stderr(log)
            .spawn();
        let daemon = daemon.expect("start dockerd");
        let mut docker = Docker {
            program,
            folder,
            daemon,
        };
        docker.wait().then_some(docker)
    }

    fn wait(&mut self) -> bool {
        let began = Instant::now();
        while began.elapsed() < START {
            if tools::try_run(self.command().arg("version")).ok {
                return true;
            }
            if self.daemon.try_wait().expect("state of dockerd").is_some() {
                break;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        let why = log.lines().last().unwrap_or_default();
        tools::skipped(&format!("dockerd does not start here: {why}"));
        false
    }

    /// A `docker` command that speaks to this daemon.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command
            .arg("--config")
            .arg(self.folder.path().join("config"))
            .arg("--host")
            .arg(format!(
                "unix://{}",
                self.folder.path().join("sock").display()
            ));
        command
    }

    /// Runs `docker` with these arguments; returns its output, trimmed.
    #[track_caller]
    pub fn run(&self, arguments: &[&str]) -> String {
        tools::run(self.command().args(arguments))
    }

    /// Pushes; returns the digest of the manifest that docker reports.
    #[track_caller]
    pub fn push(&self, image: &str) -> String {
        digest_in(&self.run(&["push", image]), "digest: ")
    }

    /// Pulls; returns the digest of the manifest that docker reports.
    #[track_caller]
    pub fn pull(&self, image: &str) -> String {
        digest_in(&self.run(&["pull", image]), "Digest: ")
    }

    /// The image's id: the digest of its configuration.
    #[track_caller]
    #[must_use]
    pub fn id(&self, image: &str) -> String {
        self.run(&["image", "inspect", "--format", "{{.Id}}", image])
    }
}

#[track_caller]
fn digest_in(output: &str, before: &str) -> String {
    let (_, rest) = output
        .split_once(before)
        .unwrap_or_else(|| panic!("docker names no digest: {output}"));
    rest.split_whitespace()
        .next()
        .unwrap_or_default()
        .to_owned()
}

impl Drop for Docker {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.daemon), Signal::TERM);
        let began = Instant::now();
        while matches!(self.daemon.try_wait(), Ok(None)) {
            if began.elapsed() > Duration::from_secs(20) {
                let _ = self.daemon.kill();
                let _ = self.daemon.wait();
                self.end_containerd();
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Docker {
    /// A daemon that had to be killed leaves its containerd behind.
    fn end_containerd(&self) {
        let file = self.folder.path().join("exec/containerd/containerd.pid");
        let id = std::fs::read_to_string(file)
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .and_then(Pid::from_raw);
        if let Some(id) = id {
            let _ = kill_process(id, Signal::KILL);
        }
    }
}
