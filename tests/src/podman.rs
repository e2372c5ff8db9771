//! podman with storage of its own.
//!
//! Owns: the options that keep podman away from the machine's containers, and
//! the choice of a runtime that works where the tests run.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::{place, tools};

/// podman, its images and its containers, all in one folder.
#[derive(Debug)]
pub struct Podman {
    program: PathBuf,
    folder: TempDir,
    transport: String,
}

impl Podman {
    /// Finds it, or says why it cannot be used here.
    #[must_use]
    pub fn find() -> Option<Podman> {
        let podman = Podman {
            program: tools::need("podman")?,
            folder: place::short_dir(),
            transport: "--tls-verify=false".to_owned(),
        };
        let settings = podman.folder.path().join("home/.config/containers");
        std::fs::create_dir_all(&settings).expect("create podman's home");
        let policy = r#"{"default": [{"type": "insecureAcceptAnything"}]}"#;
        std::fs::write(settings.join("policy.json"), policy).expect("write policy.json");
        std::fs::write(podman.folder.path().join("auth.json"), "{}").expect("write auth.json");
        let works = tools::try_run(podman.command().arg("info"));
        if !works.ok {
            let why = works.err.lines().last().unwrap_or_default().to_owned();
            tools::skipped(&format!("podman does not work here: {why}"));
            return None;
        }
        Some(podman)
    }

    /// The same over TLS, with trust in the authorities of this folder.
    #[must_use]
    pub fn trusting(mut self, folder: &Path) -> Podman {
        self.transport = format!("--cert-dir={}", folder.display());
        self
    }

    /// A command with the options every use needs.
    #[must_use]
    pub fn command(&self) -> Command {
        let at = |name: &str| self.folder.path().join(name);
        let mut command = Command::new(&self.program);
        command
            .env("HOME", at("home"))
            .env("REGISTRY_AUTH_FILE", at("auth.json"))
            .arg("--root")
            .arg(at("store"))
            .arg("--runroot")
            .arg(at("run"))
            .arg("--tmpdir")
            .arg(at("tmp"))
            .args(["--storage-driver", "vfs", "--cgroup-manager", "cgroupfs"])
            .args(["--events-backend", "none", "--log-level", "error"]);
        command
    }

    /// Pulls; returns the image's id, the digest of its configuration.
    #[track_caller]
    pub fn pull(&self, image: &str) -> String {
        let id = tools::run(self.command().args(["pull", "-q", &self.transport, image]));
        format!("sha256:{id}")
    }

    /// Pushes; returns the digest of the manifest it wrote.
    #[track_caller]
    pub fn push(&self, image: &str, to: &str) -> String {
        let file = self.folder.path().join("digest");
        let mut command = self.command();
        command.args(["push", &self.transport, "--digestfile"]);
        tools::run(command.arg(&file).args([image, to]));
        std::fs::read_to_string(file)
            .expect("digest written by podman")
            .trim()
            .to_owned()
    }

    /// Runs a container to its end without a network; returns its output.
    ///
    /// # Panics
    /// When neither crun nor runc can run it. crun refuses some layouts of
    /// cgroups, runc cannot do without cgroups: the machine decides.
    #[track_caller]
    pub fn run(&self, image: &str, command: &[&str]) -> String {
        let mut failures = String::new();
        for (runtime, cgroups) in [("crun", "disabled"), ("runc", "enabled")] {
            if tools::find(runtime).is_none() {
                failures.push_str(&format!("{runtime} is not installed\n"));
                continue;
            }
            let mut podman = self.command();
            podman.args(["--runtime", runtime, "run", "--rm", "--pull=never"]);
            podman.args(["--network=none", &format!("--cgroups={cgroups}")]);
            // Limits above one's own need a right that a confined root lacks.
            podman.args([
                "--ulimit",
                "nofile=1024:1024",
                "--ulimit",
                "nproc=1024:1024",
            ]);
            let ran = tools::try_run(podman.arg(image).args(command));
            if ran.ok {
                return ran.out.trim().to_owned();
            }
            failures.push_str(&format!("{runtime}: {}\n", ran.err.trim()));
        }
        panic!("podman could not run {image}:\n{failures}");
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        // Its storage may hold mounts, which a plain removal does not undo.
        let _ = self.command().args(["system", "reset", "--force"]).output();
    }
}
