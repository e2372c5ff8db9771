//! Clients that no Debian package has: crane, regctl and helm, built by Go,
//! and the Python library oras.
//!
//! Owns: which versions, getting each once into the cache, and running them
//! with a home of their own. What cannot be had here is said as skipped. helm
//! takes minutes to build and is built only if `ORLOP_TEST_TOOLS` names it,
//! as in `ORLOP_TEST_TOOLS=helm`; one in `PATH` or in the cache is used.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use tempfile::TempDir;

use crate::place;
use crate::tools::{self, Ran};

/// A program that Go builds.
struct Built {
    name: &'static str,
    package: &'static str,
    version: &'static str,
    /// Whether it is quick enough to be built for whoever runs the tests.
    quick: bool,
}

const CRANE: Built = Built {
    name: "crane",
    package: "github.com/google/go-containerregistry/cmd/crane",
    version: "v0.22.1",
    quick: true,
};
const REGCTL: Built = Built {
    name: "regctl",
    package: "github.com/regclient/regclient/cmd/regctl",
    version: "v0.11.7",
    quick: true,
};
const HELM: Built = Built {
    name: "helm",
    package: "helm.sh/helm/v3/cmd/helm",
    version: "v3.22.0",
    quick: false,
};
/// The version of oras on PyPI.
const ORAS: &str = "0.2.43";
const PYTHON_VERSION: &str = "import platform; print(platform.python_version())";

/// One program is fetched at a time, and once: a failure is remembered.
static FAILED: Mutex<Vec<(String, String)>> = Mutex::new(Vec::new());

/// A client with a home of its own.
#[derive(Debug)]
pub struct Fetched {
    program: PathBuf,
    home: TempDir,
}

impl Fetched {
    /// crane, or nothing and why.
    #[must_use]
    pub fn crane() -> Option<Fetched> {
        Fetched::built(&CRANE)
    }

    /// regctl, or nothing and why.
    #[must_use]
    pub fn regctl() -> Option<Fetched> {
        Fetched::built(&REGCTL)
    }

    /// helm, or nothing and why.
    #[must_use]
    pub fn helm() -> Option<Fetched> {
        Fetched::built(&HELM)
    }

    /// A Python that has the library oras, or nothing and why.
    #[must_use]
    pub fn oras() -> Option<Fetched> {
        let python = tools::need("python3")?;
        // An environment belongs to the version of Python that made it.
        let version = tools::run(Command::new(&python).args(["-I", "-c", PYTHON_VERSION]));
        let folder = tools::cache().join(format!("tools/oras-{ORAS}-python-{version}"));
        let make = |to: &Path| install_oras(&python, to);
        fetch("oras", &folder, "bin/python3", make).map(Fetched::new)
    }

    fn built(tool: &Built) -> Option<Fetched> {
        if let Some(found) = tools::find(tool.name) {
            return Some(Fetched::new(found));
        }
        let folder = format!("tools/{}-{}", tool.name, tool.version);
        let folder = tools::cache().join(folder);
        let got = fetch(tool.name, &folder, tool.name, |to| build(tool, to));
        got.map(Fetched::new)
    }

    fn new(program: PathBuf) -> Fetched {
        Fetched {
            program,
            home: place::dir(),
        }
    }

    /// For regctl: tells it how to reach a server, by plain HTTP or by TLS
    /// with trust in this authority alone. It pings the server.
    #[track_caller]
    pub fn knows(&self, address: SocketAddr, authority: Option<&Path>, more: &[&str]) {
        let address = address.to_string();
        let mut words = vec!["registry", "set"];
        let authority = authority.map(|file| std::fs::read_to_string(file).expect("ca.crt"));
        match &authority {
            Some(authority) => words.extend(["--tls", "enabled", "--cacert", authority]),
            None => words.extend(["--tls", "disabled"]),
        }
        words.extend(more);
        words.push(&address);
        self.run(&words);
    }

    /// Its home, which ends with it.
    #[must_use]
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// A command with these arguments.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .env("HOME", self.home())
            .env("DOCKER_CONFIG", self.home())
            .current_dir(self.home())
            .args(arguments);
        command
    }

    /// Runs it with these arguments to a good end; returns its output, trimmed.
    #[track_caller]
    pub fn run(&self, arguments: &[&str]) -> String {
        tools::run(&mut self.command(arguments))
    }

    /// Runs it with these arguments.
    #[track_caller]
    pub fn try_run(&self, arguments: &[&str]) -> Ran {
        tools::try_run(&mut self.command(arguments))
    }

    /// The lines of a run that ends well.
    #[track_caller]
    #[must_use]
    pub fn lines(&self, arguments: &[&str]) -> Vec<String> {
        self.run(arguments).lines().map(str::to_owned).collect()
    }
}

/// `program` in `folder`, which `make` fills if it is not there. Whole or not
/// at all: `make` gets a folder beside it.
fn fetch(
    name: &str,
    folder: &Path,
    program: &str,
    make: impl FnOnce(&Path) -> Result<(), String>,
) -> Option<PathBuf> {
    let path = folder.join(program);
    let mut failed = FAILED.lock().unwrap_or_else(PoisonError::into_inner);
    if path.is_file() {
        return Some(path);
    }
    let known = failed.iter().find(|(n, _)| n == name);
    let why = match known.map(|(_, why)| why.clone()) {
        Some(why) => why,
        None => match fill(folder, program, make) {
            Ok(()) => return Some(path),
            Err(why) => {
                failed.push((name.to_owned(), why.clone()));
                why
            }
        },
    };
    tools::skipped(&format!("{name} is not installed and {why}"));
    None
}

fn fill(
    folder: &Path,
    program: &str,
    make: impl FnOnce(&Path) -> Result<(), String>,
) -> Result<(), String> {
    let parent = folder.parent().unwrap_or(folder);
    std::fs::create_dir_all(parent).map_err(|e| e.to_string())?;
    let making = tempfile::tempdir_in(parent).map_err(|e| e.to_string())?;
    make(making.path())?;
    // Another process may have been quicker.
    if !folder.join(program).is_file() {
        let _ = std::fs::remove_dir_all(folder);
        std::fs::rename(making.path(), folder).map_err(|e| e.to_string())?;
    }
    Ok(())
}

fn build(tool: &Built, folder: &Path) -> Result<(), String> {
    let wanted = std::env::var("ORLOP_TEST_TOOLS").unwrap_or_default();
    if !tool.quick && !wanted.split(',').any(|name| name == tool.name) {
        return Err("ORLOP_TEST_TOOLS does not ask for it to be built".to_owned());
    }
    let go = tools::find("go").ok_or("Go is not present to build it")?;
    let ran = tools::install(
        Command::new(go)
            .env("GOBIN", folder)
            .env("GOFLAGS", "")
            .arg("install")
            .arg(format!("{}@{}", tool.package, tool.version)),
    );
    ended(&ran, "could not be built")
}

fn install_oras(python: &Path, folder: &Path) -> Result<(), String> {
    let made = tools::install(Command::new(python).args(["-m", "venv"]).arg(folder));
    ended(&made, "has no environment of its own")?;
    let installed = tools::install(
        Command::new(folder.join("bin/python3"))
            .args(["-m", "pip", "install", "--quiet"])
            .args(["--disable-pip-version-check", "--retries", "1"])
            .arg(format!("oras=={ORAS}")),
    );
    ended(&installed, "could not be installed")
}

fn ended(ran: &Ran, what: &str) -> Result<(), String> {
    if ran.ok {
        return Ok(());
    }
    let said = ran.err.lines().chain(ran.out.lines());
    let last = said.filter(|line| !line.trim().is_empty()).last();
    Err(format!("{what}: {}", last.unwrap_or("no reason given")))
}
