//! A real containerd of the test's own, spoken to by `ctr`.
//!
//! Owns: starting it on its own socket and folders, and ending it. It never
//! touches the machine's daemon.

use std::fs::File;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::{place, tools};

/// How long the daemon may take to start.
const START: Duration = Duration::from_secs(30);
/// How long it may take to end before it is killed.
const STOP: Duration = Duration::from_secs(10);

/// A running containerd.
#[derive(Debug)]
pub struct Containerd {
    folder: TempDir,
    daemon: Child,
}

impl Containerd {
    /// Starts one, or says why that cannot be done here.
    #[must_use]
    pub fn start() -> Option<Containerd> {
        let (program, _) = (tools::need("containerd")?, tools::need("ctr")?);
        if !tools::is_root() {
            tools::skipped("containerd needs root");
            return None;
        }
        let folder = place::short_dir();
        let at = |name: &str| folder.path().join(name);
        // Of what Kubernetes wants, nothing.
        let settings = "version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n";
        std::fs::write(at("config.toml"), settings).expect("containerd's settings");
        let log = File::create(at("log")).expect("containerd's log");
        let daemon = Command::new(program)
            .arg("--config")
            .arg(at("config.toml"))
            .arg("--address")
            .arg(at("sock"))
            .arg("--root")
            .arg(at("root"))
            .arg("--state")
            .arg(at("state"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("handle of the log"))
            .stderr(log)
            .spawn()
            .expect("start containerd");
        let mut containerd = Containerd { folder, daemon };
        containerd.wait().then_some(containerd)
    }

    fn wait(&mut self) -> bool {
        let began = Instant::now();
        while began.elapsed() < START {
            if tools::try_run(&mut self.command(&["version"])).ok {
                return true;
            }
            if self.daemon.try_wait().expect("its state").is_some() {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        let why = log.lines().last().unwrap_or_default();
        tools::skipped(&format!("containerd does not start here: {why}"));
        false
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("ctr");
        command
            .arg("--address")
            .arg(self.folder.path().join("sock"))
            .args(arguments);
        command
    }

    /// Runs `ctr` with these arguments to a good end; returns its output,
    /// trimmed.
    #[track_caller]
    pub fn run(&self, arguments: &[&str]) -> String {
        tools::run(&mut self.command(arguments))
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.daemon), Signal::TERM);
        let began = Instant::now();
        while matches!(self.daemon.try_wait(), Ok(None)) {
            if began.elapsed() > STOP {
                let _ = self.daemon.kill();
                let _ = self.daemon.wait();
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
