//! Real programs the tests use, and what happens where they are absent.
//!
//! Owns: finding programs, running them with a time limit, and saying which
//! are missing. A test that needs an absent program passes and says so on the
//! terminal: `skipped: podman is not installed`.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::place;

/// How long one run of a program may take.
const LIMIT: Duration = Duration::from_secs(240);

/// How long a program may take to be built or installed.
const INSTALL_LIMIT: Duration = Duration::from_secs(900);

/// Looks for a program in `PATH` and in the folders of system programs.
#[must_use]
pub fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

/// As [`find`], and says so when it is missing.
#[must_use]
pub fn need(name: &str) -> Option<PathBuf> {
    let found = find(name);
    if found.is_none() {
        skipped(&format!("{name} is not installed"));
    }
    found
}

/// Says on the terminal that a test does not run here, past the test
/// harness, which keeps the output of passing tests to itself.
pub fn skipped(why: &str) {
    let test = std::thread::current();
    let name = test.name().unwrap_or("a test");
    let _ = writeln!(std::io::stderr(), "skipped: {why} ({name})");
}

/// Whether the tests run as root: mounts and dockerd need it.
#[must_use]
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// What a program printed, and whether it ended well.
#[derive(Debug)]
pub struct Ran {
    /// Exit with 0.
    pub ok: bool,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

/// Runs a program to its end.
///
/// # Panics
/// When it cannot be started or takes longer than the limit.
#[track_caller]
pub fn try_run(command: &mut Command) -> Ran {
    run_within(LIMIT, command)
}

/// Runs what builds or installs a program.
#[track_caller]
pub(crate) fn install(command: &mut Command) -> Ran {
    run_within(INSTALL_LIMIT, command)
}

#[track_caller]
fn run_within(limit: Duration, command: &mut Command) -> Ran {
    let folder = place::dir();
    let (out, err) = (folder.path().join("out"), folder.path().join("err"));
    let mut child = command
        .stdin(Stdio::null())
        .stdout(File::create(&out).expect("file for output"))
        .stderr(File::create(&err).expect("file for errors"))
        .spawn()
        .unwrap_or_else(|e| panic!("start {command:?}: {e}"));
    let began = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().expect("state of the program") {
            break status;
        }
        if began.elapsed() > limit {
            let _ = child.kill();
            let _ = child.wait();
            let text = std::fs::read_to_string(&err).unwrap_or_default();
            panic!("{command:?} took longer than {limit:?}:\n{text}");
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    let text = |path| String::from_utf8_lossy(&std::fs::read(path).expect("output")).into_owned();
    Ran {
        ok: status.success(),
        out: text(out),
        err: text(err),
    }
}

/// Runs a program that has to end well; returns its output, trimmed.
#[track_caller]
pub fn run(command: &mut Command) -> String {
    let ran = try_run(command);
    assert!(ran.ok, "{command:?} failed:\n{}{}", ran.out, ran.err);
    ran.out.trim().to_owned()
}

/// skopeo with a home of its own.
#[derive(Debug)]
pub struct Skopeo {
    program: PathBuf,
    home: TempDir,
    trusted: Option<PathBuf>,
}

impl Skopeo {
    /// Finds it, or says that it is missing.
    #[must_use]
    pub fn find() -> Option<Skopeo> {
        let program = need("skopeo")?;
        let home = place::dir();
        std::fs::write(home.path().join("auth.json"), "{}").expect("write auth.json");
        Some(Skopeo {
            program,
            home,
            trusted: None,
        })
    }

    /// The same over TLS, with trust in the authorities of this folder.
    #[must_use]
    pub fn trusting(mut self, folder: &Path) -> Skopeo {
        self.trusted = Some(folder.to_path_buf());
        self
    }

    /// How it speaks to a registry.
    fn transport(&self, side: &str) -> String {
        match &self.trusted {
            Some(folder) => format!("--{side}cert-dir={}", folder.display()),
            None => format!("--{side}tls-verify=false"),
        }
    }

    /// A command with the options every use needs.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command
            .env("HOME", self.home.path())
            .env("REGISTRY_AUTH_FILE", self.home.path().join("auth.json"))
            .args(["--insecure-policy", "--tmpdir"])
            .arg(self.home.path());
        command
    }

    /// Copies without changing a byte; returns the manifest's digest.
    #[track_caller]
    pub fn copy(&self, from: &str, to: &str) -> String {
        self.copy_with(&["--all", "--preserve-digests"], from, to)
    }

    /// Copies with these options; returns the digest of what was written.
    #[track_caller]
    pub fn copy_with(&self, options: &[&str], from: &str, to: &str) -> String {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let file = self
            .home
            .path()
            .join(format!("digest-{}", NEXT.fetch_add(1, Ordering::Relaxed)));
        let mut command = self.command();
        command.arg("copy").args(options);
        if from.starts_with("docker://") {
            command.arg(self.transport("src-"));
        }
        if to.starts_with("docker://") {
            command.arg(self.transport("dest-"));
        }
        command.arg("--digestfile").arg(&file).args([from, to]);
        run(&mut command);
        std::fs::read_to_string(file)
            .expect("digest written by skopeo")
            .trim()
            .to_owned()
    }

    /// The manifest as the registry serves it, byte for byte.
    #[track_caller]
    #[must_use]
    pub fn raw_manifest(&self, image: &str) -> Vec<u8> {
        let mut command = self.command();
        command.args(["inspect", "--raw", &self.transport(""), image]);
        let ran = try_run(&mut command);
        assert!(ran.ok, "{command:?} failed:\n{}", ran.err);
        ran.out.into_bytes()
    }
}

/// The folder where things that outlive `target/` are kept.
pub(crate) fn cache() -> PathBuf {
    let from = |name: &str| std::env::var_os(name).map(PathBuf::from);
    from("ORLOP_CACHE")
        .or_else(|| from("XDG_CACHE_HOME").map(|p| p.join("orlop")))
        .or_else(|| from("HOME").map(|p| p.join(".cache/orlop")))
        .unwrap_or_else(|| std::env::temp_dir().join("orlop-cache"))
}

/// Bytes an ordinary user may still write below this folder, by `df`.
#[must_use]
pub fn free_bytes(folder: &Path) -> u64 {
    let out = run(Command::new("df")
        .args(["-B1", "--output=avail"])
        .arg(folder));
    out.lines()
        .last()
        .and_then(|line| line.trim().parse().ok())
        .expect("df prints a number")
}

/// A shell script, run by `sh -eu`; the arguments become `$1` and so on.
#[track_caller]
pub fn sh<S: AsRef<OsStr>>(script: &str, arguments: &[S]) -> String {
    run(Command::new("sh")
        .args(["-euc", script, "sh"])
        .args(arguments))
}
