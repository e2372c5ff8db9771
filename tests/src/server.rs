//! The real server as a process.
//!
//! Owns: starting `orlop serve`, waiting until it is ready, ending it by
//! SIGTERM or SIGKILL, starting it again on the same data, and its log.
//!
//! Invariants: the process is gone when its handle is; a panic in the server
//! fails the test that used it, whatever the test looked at.
//!
//! `ORLOP_TEST_PEER=docker-registry` starts Debian's registry instead: a test
//! of the tests, for the part of the protocol both speak.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::client::Client;
use crate::place;
use crate::raw::{self, Wire};
use crate::tls::Certificates;

/// How long a start may take until `/readyz` answers 200.
const START: Duration = Duration::from_secs(60);
/// How long a stop may take: the drain of 30 s and some.
const STOP: Duration = Duration::from_secs(45);

/// What a server is started with.
#[derive(Debug, Clone, Default)]
pub struct Setup {
    data: Option<PathBuf>,
    listen: Option<String>,
    env: Vec<(String, String)>,
    args: Vec<String>,
    under: Vec<String>,
    bare: bool,
    tls: Option<Arc<Certificates>>,
}

impl Setup {
    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl Into<String>) -> Setup {
        self.env.push((name.to_owned(), value.into()));
        self
    }

    /// Adds an argument after `serve`.
    #[must_use]
    pub fn arg(mut self, arg: &str) -> Setup {
        self.args.push(arg.to_owned());
        self
    }

    /// Uses this data folder, which the caller keeps, instead of a fresh one.
    #[must_use]
    pub fn data(mut self, path: impl Into<PathBuf>) -> Setup {
        self.data = Some(path.into());
        self
    }

    /// Listens there instead of on a free loopback port.
    #[must_use]
    pub fn listen(mut self, address: &str) -> Setup {
        self.listen = Some(address.to_owned());
        self
    }

    /// Speaks TLS with the pair of these certificates.
    #[must_use]
    pub fn tls(mut self, certificates: &Arc<Certificates>) -> Setup {
        self.tls = Some(Arc::clone(certificates));
        self.env("ORLOP_TLS_CERTIFICATE", text(&certificates.certificate()))
            .env("ORLOP_TLS_KEY", text(&certificates.key()))
    }

    /// Starts without `--data` and `--listen`, which the caller sets by
    /// variables.
    #[must_use]
    pub fn bare(mut self) -> Setup {
        self.bare = true;
        self
    }

    /// Starts the server through another program, such as `setpriv`.
    #[must_use]
    pub fn under(mut self, command: &[&str]) -> Setup {
        self.under = command.iter().map(ToString::to_string).collect();
        self
    }

    /// Starts the server and waits until it is ready.
    ///
    /// # Panics
    /// When it does not get ready.
    #[must_use]
    #[track_caller]
    pub fn start(self) -> Server {
        self.try_start()
            .unwrap_or_else(|log| panic!("the server did not start:\n{log}"))
    }

    /// Starts the server, or returns what it printed when it refused to.
    ///
    /// # Errors
    /// The log of a server that ended at start.
    pub fn try_start(self) -> Result<Server, String> {
        let folder = place::dir();
        let data = self
            .data
            .clone()
            .unwrap_or_else(|| folder.path().join("data"));
        // A listener on every address is reached on loopback.
        let asked = self.listen.as_deref().and_then(|l| l.rsplit(':').next());
        let port = asked.and_then(|port| port.parse().ok());
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port.unwrap_or_else(place::port)));
        let mut server = Server {
            setup: self,
            data,
            address,
            log: folder.path().join("server.log"),
            child: None,
            _folder: folder,
        };
        server.try_start_again().map_err(|_| server.log())?;
        Ok(server)
    }

    /// Starts a server that is expected to end by itself.
    ///
    /// # Panics
    /// When it still runs after `limit`.
    #[must_use]
    pub fn start_refused(self, limit: Duration) -> Refusal {
        let folder = place::dir();
        let data = self
            .data
            .clone()
            .unwrap_or_else(|| folder.path().join("data"));
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, place::port()));
        let log = folder.path().join("server.log");
        let began = Instant::now();
        let mut child = self.spawn(&data, address, &log);
        let Some(status) = wait(&mut child, limit) else {
            let _ = child.kill();
            let _ = child.wait();
            panic!(
                "the server still ran after {limit:?}, but had to refuse:\n{}",
                read(&log)
            );
        };
        Refusal {
            status,
            took: began.elapsed(),
            log: read(&log),
        }
    }

    fn spawn(&self, data: &Path, address: SocketAddr, log: &Path) -> Child {
        let out = File::options()
            .create(true)
            .append(true)
            .open(log)
            .expect("open the server's log");
        let mut words: Vec<String> = self.under.clone();
        match std::env::var("ORLOP_TEST_PEER").as_deref() {
            Ok("docker-registry") => {
                words.extend(["docker-registry".into(), "serve".into()]);
                words.push(peer_settings(data, address));
            }
            Ok(other) => panic!("ORLOP_TEST_PEER={other} is not known; docker-registry is"),
            Err(_) => {
                words.push(place::binary("orlop").display().to_string());
                words.push("serve".into());
                if !self.bare {
                    words.extend(["--data".into(), data.display().to_string()]);
                    let listen = self.listen.clone().unwrap_or_else(|| address.to_string());
                    words.extend(["--listen".into(), listen]);
                }
                words.extend(self.args.iter().cloned());
            }
        }
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("ORLOP_") {
                command.env_remove(name);
            }
        }
        command
            .env("ORLOP_LOG_FORMAT", "json")
            .env("ORLOP_OPS_LISTEN", "off")
            .envs(self.env.iter().map(|(n, v)| (n, v)))
            .stdin(Stdio::null())
            .stdout(out.try_clone().expect("a second handle of the log"))
            .stderr(out)
            .spawn()
            .unwrap_or_else(|e| panic!("start {}: {e}", words[0]))
    }
}

/// How a refused start ended.
#[derive(Debug)]
pub struct Refusal {
    /// Exit status.
    pub status: ExitStatus,
    /// From start to end.
    pub took: Duration,
    /// Everything it printed.
    pub log: String,
}

impl Refusal {
    /// Fails the test unless the exit was an ordinary error and the output
    /// names every one of these, in any case.
    #[track_caller]
    pub fn names(&self, words: &[&str]) {
        let code = self.status.code();
        assert!(
            code.is_some_and(|c| c != 0 && c != 101),
            "a refused start has to end with an error code, got {:?}:\n{}",
            self.status,
            self.log
        );
        assert_no_panic(&self.log);
        let log = self.log.to_lowercase();
        for word in words {
            assert!(
                log.contains(&word.to_lowercase()),
                "the refusal does not name {word:?}:\n{}",
                self.log
            );
        }
    }
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    setup: Setup,
    data: PathBuf,
    address: SocketAddr,
    log: PathBuf,
    child: Option<Child>,
    _folder: TempDir,
}

impl Server {
    /// A server with default settings on a fresh folder and a free port.
    #[must_use]
    pub fn start() -> Server {
        Setup::default().start()
    }

    /// One server for every test that asks while another still uses it. For
    /// tests that need nothing of their own but a repository name.
    #[must_use]
    pub fn shared() -> Arc<Server> {
        static SHARED: Shared = Shared::new(Setup::default);
        SHARED.get()
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its data folder.
    #[must_use]
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("the server runs").id()
    }

    /// Everything it printed since its first start.
    #[must_use]
    pub fn log(&self) -> String {
        read(&self.log)
    }

    /// A client of it, over TLS if it speaks that.
    #[must_use]
    pub fn client(&self) -> Client {
        match &self.setup.tls {
            Some(trust) => Client::over_tls(self.address, trust),
            None => Client::new(self.address),
        }
    }

    /// A connection to it, over TLS if it speaks that.
    #[must_use]
    pub fn wire(&self) -> Wire {
        match &self.setup.tls {
            Some(trust) => Wire::over_tls(self.address, trust, &["http/1.1"]),
            None => Wire::connect(self.address),
        }
    }

    /// One request with an exact target, not made tidy by a library.
    #[must_use]
    pub fn raw(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> crate::reply::Reply {
        raw::request(self.wire(), method, target, headers, body)
    }

    /// Resident memory now, in bytes. Linux only.
    #[must_use]
    pub fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()))
            .expect("status of the server's process");
        status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .and_then(|rest| rest.trim().strip_suffix(" kB"))
            .and_then(|kib| kib.trim().parse::<u64>().ok())
            .expect("VmRSS of the server's process")
            * 1024
    }

    /// Open descriptors now. Linux only.
    #[must_use]
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid()))
            .expect("descriptors of the server's process")
            .count()
    }

    /// Sends SIGTERM without waiting.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Sends SIGHUP.
    pub fn hang_up(&self) {
        self.signal(Signal::HUP);
    }

    fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("the server runs");
        kill_process(Pid::from_child(child), signal).expect("send a signal");
    }

    /// Waits until the log has had this so many times.
    ///
    /// # Panics
    /// When it takes longer than ten seconds.
    #[track_caller]
    pub fn wait_for_log(&self, text: &str, times: usize) {
        let began = Instant::now();
        while self.log().matches(text).count() < times {
            assert!(
                began.elapsed() < Duration::from_secs(10),
                "the log never had {text:?} {times} times:\n{}",
                self.tail()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until no request, or connection, waits in the kernel to be read:
    /// until what was sent so far was taken. Linux only.
    ///
    /// # Panics
    /// When it takes longer than ten seconds.
    #[track_caller]
    pub fn wait_until_read(&self) {
        let port = format!(":{:04X}", self.address.port());
        let waits = |line: &str| {
            let mut fields = line.split_whitespace().skip(1);
            let is_ours = fields.next().is_some_and(|local| local.ends_with(&port));
            let queues = fields.nth(2).unwrap_or_default();
            is_ours && !queues.ends_with(":00000000")
        };
        let began = Instant::now();
        loop {
            let table = std::fs::read_to_string("/proc/net/tcp").expect("sockets");
            if !table.lines().any(waits) {
                return;
            }
            assert!(
                began.elapsed() < Duration::from_secs(10),
                "the server never read what was sent:\n{}",
                self.tail()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits for the end after [`Server::terminate`] and expects exit 0.
    #[track_caller]
    pub fn ended(&mut self) {
        let mut child = self.child.take().expect("the server runs");
        let Some(status) = wait(&mut child, STOP) else {
            let _ = child.kill();
            let _ = child.wait();
            panic!("the server did not end within {STOP:?}:\n{}", self.tail());
        };
        assert!(
            status.code() == Some(0),
            "SIGTERM has to end with exit 0, got {status}:\n{}",
            self.tail()
        );
    }

    /// SIGTERM, then exit 0.
    #[track_caller]
    pub fn stop(&mut self) {
        self.terminate();
        self.ended();
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("the server runs");
        child.kill().expect("send SIGKILL");
        child.wait().expect("wait for the killed server");
    }

    /// Starts on the same folder and address, after a stop or a kill.
    #[track_caller]
    pub fn start_again(&mut self) {
        if let Err(why) = self.try_start_again() {
            panic!("the server {why}:\n{}", self.tail());
        }
    }

    fn try_start_again(&mut self) -> Result<(), String> {
        self.launch();
        self.get_ready()
    }

    /// Starts the process after a stop or a kill, and waits for nothing.
    pub fn launch(&mut self) {
        assert!(self.child.is_none(), "the server runs already");
        self.child = Some(self.setup.spawn(&self.data, self.address, &self.log));
    }

    /// Waits until a launched server is ready.
    ///
    /// # Errors
    /// How it ended, or that it took too long.
    pub fn get_ready(&mut self) -> Result<(), String> {
        let began = Instant::now();
        loop {
            if self.is_ready() {
                return Ok(());
            }
            let child = self.child.as_mut().expect("launched");
            if let Some(status) = child.try_wait().expect("state of the server") {
                self.child = None;
                return Err(format!("ended with {status} at start"));
            }
            if began.elapsed() > START {
                return Err(format!("was not ready after {START:?}"));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Starts after a stop or a kill, and kills after this time, ready or not.
    pub fn start_and_kill(&mut self, after: Duration) {
        self.launch();
        std::thread::sleep(after);
        self.kill();
    }

    /// Starts the same data with other settings. The server must be stopped.
    pub fn change(&mut self, change: impl FnOnce(Setup) -> Setup) {
        assert!(self.child.is_none(), "stop the server first");
        self.setup = change(std::mem::take(&mut self.setup));
    }

    fn is_ready(&self) -> bool {
        if std::net::TcpStream::connect(self.address).is_err() {
            return false;
        }
        let path = match std::env::var_os("ORLOP_TEST_PEER") {
            Some(_) => "/v2/",
            None => "/readyz",
        };
        self.raw("GET", path, &[], b"").status == 200
    }

    /// The last lines of the log.
    fn tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}

/// A server that tests share: started by the first that asks, ended when the
/// last that uses it is done.
#[derive(Debug)]
pub struct Shared {
    running: Mutex<Weak<Server>>,
    setup: fn() -> Setup,
}

impl Shared {
    /// Nothing runs yet; this says how to start it.
    #[must_use]
    pub const fn new(setup: fn() -> Setup) -> Shared {
        Shared {
            running: Mutex::new(Weak::new()),
            setup,
        }
    }

    /// The server, for as long as the handle is kept.
    #[must_use]
    pub fn get(&self) -> Arc<Server> {
        let lock = self.running.lock();
        let mut running = lock.unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(server) = running.upgrade() {
            return server;
        }
        let server = Arc::new((self.setup)().start());
        *running = Arc::downgrade(&server);
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("the server's last lines:\n{}", self.tail());
        } else {
            assert_no_panic(&self.log());
        }
    }
}

fn assert_no_panic(log: &str) {
    let line = log.lines().find(|line| line.contains("panicked"));
    assert!(line.is_none(), "the server panicked: {line:?}\n{log}");
}

fn wait(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let began = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("state of the process") {
            return Some(status);
        }
        if began.elapsed() > limit {
            return None;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
}

pub(crate) fn peer_settings(data: &Path, address: SocketAddr) -> String {
    std::fs::create_dir_all(data).expect("create the peer's folder");
    let path = data.with_extension("yml");
    let text = format!(
        "version: 0.1\nlog: {{level: warn}}\nstorage:\n  delete: {{enabled: true}}\n  \
         filesystem: {{rootdirectory: {}}}\nhttp: {{addr: '{address}'}}\n",
        data.display()
    );
    std::fs::write(&path, text).expect("write the peer's settings");
    path.display().to_string()
}
