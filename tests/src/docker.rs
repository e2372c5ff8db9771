//! A real Docker daemon of the test's own.
//!
//! Owns: starting dockerd on its own socket and folders, with or without a
//! network of its own, and ending it with the containerd it started. It never
//! touches the machine's daemon.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::fs::PermissionsExt;
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

/// Settings of a daemon without networks for containers.
const NO_NETWORK: &[&str] = &[
    "--bridge=none",
    "--iptables=false",
    "--ip6tables=false",
    "--ip-forward=false",
];

/// A running dockerd.
#[derive(Debug)]
pub struct Docker {
    program: PathBuf,
    folder: TempDir,
    daemon: Child,
}

impl Docker {
    /// Starts one without networks for containers, or says why that cannot be
    /// done here.
    #[must_use]
    pub fn start() -> Option<Docker> {
        Docker::start_in(place::short_dir(), &[], NO_NETWORK)
    }

    /// Starts one without networks that trusts these authorities, each for one
    /// registry. It reads them from where docker looks for them, in a view of
    /// the file system of its own, so that the machine's folder stays as it is.
    #[must_use]
    pub fn start_trusting(authorities: &[(&str, &Path)]) -> Option<Docker> {
        let folder = place::short_dir();
        let trusted = folder.path().join("certs.d");
        for (registry, authority) in authorities {
            let folder = trusted.join(registry);
            std::fs::create_dir_all(&folder).expect("a folder of trust");
            std::fs::copy(authority, folder.join("ca.crt")).expect("an authority");
        }
        let trusted = trusted.to_str().expect("a path of plain text").to_owned();
        let through = [
            "unshare", "--mount", "sh", "-euc", WITH_TRUST, "sh", &trusted,
        ];
        Docker::start_in(folder, &through, NO_NETWORK)
    }

    /// Starts one in a network namespace of its own, with Docker's usual
    /// bridge: containers publish any port there, also one that is taken on
    /// this machine. [`Docker::inside`] runs programs in there.
    #[must_use]
    pub fn start_with_network() -> Option<Docker> {
        tools::need("ip")?;
        let script = r#"ip link set lo up && exec "$0" "$@""#;
        let through = ["unshare", "--net", "sh", "-ec", script];
        Docker::start_in(place::short_dir(), &through, &[])
    }

    /// Starts dockerd in a folder, through another program, which it takes the
    /// place of.
    fn start_in(folder: TempDir, through: &[&str], options: &[&str]) -> Option<Docker> {
        let (program, dockerd) = (tools::need("docker")?, tools::need("dockerd")?);
        if !tools::is_root() {
            tools::skipped("dockerd needs root");
            return None;
        }
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("daemon.json"), "{}").expect("dockerd's settings");
        let log = File::create(at("log")).expect("dockerd's log");
        let mut words: Vec<&OsStr> = through.iter().map(OsStr::new).collect();
        words.push(dockerd.as_os_str());
        let daemon = Command::new(words[0])
            .args(&words[1..])
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
            .arg("--storage-driver=vfs")
            .args(options)
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
            .arg(self.host());
        command
    }

    /// A command that runs in the daemon's network namespace.
    #[must_use]
    pub fn inside(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net=/proc/{}/ns/net", self.daemon.id()))
            .arg("--")
            .arg(program);
        command
    }

    /// A command that runs a line of shell as a reader of a page would type
    /// it: `docker` in it speaks to this daemon.
    #[must_use]
    pub fn shell(&self, line: &str) -> Command {
        let folder = self.folder.path().join("bin");
        let script = folder.join("docker");
        let text = format!(
            "#!/bin/sh\nexec '{}' --config '{}' --host '{}' \"$@\"\n",
            self.program.display(),
            self.folder.path().join("config").display(),
            self.host(),
        );
        std::fs::create_dir_all(&folder).expect("folder for docker's script");
        std::fs::write(&script, text).expect("write docker's script");
        std::fs::set_permissions(&script, PermissionsExt::from_mode(0o755))
            .expect("make docker's script a program");
        let old = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::join_paths(std::iter::once(folder).chain(std::env::split_paths(&old)));
        let mut command = Command::new("sh");
        command
            .args(["-euc", line])
            .env("PATH", path.expect("PATH"));
        command
    }

    fn host(&self) -> String {
        format!("unix://{}", self.folder.path().join("sock").display())
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
