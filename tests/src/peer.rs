//! Debian's docker-registry as a process: where images come from.
//!
//! Owns: starting and ending it. It has no list of referrers, so clients keep
//! one of their own there, in tags.

use std::fs::File;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::client::Client;
use crate::{place, server, tools};

/// How long a start may take.
const START: Duration = Duration::from_secs(30);

/// A running docker-registry.
#[derive(Debug)]
pub struct Peer {
    address: SocketAddr,
    child: Child,
    _folder: TempDir,
}

impl Peer {
    /// Starts one on a fresh folder, or says that it is missing.
    ///
    /// # Panics
    /// When it does not listen in time.
    #[must_use]
    pub fn start() -> Option<Peer> {
        let program = tools::need("docker-registry")?;
        let folder = place::dir();
        let address = SocketAddr::from(([127, 0, 0, 1], place::port()));
        let log = File::create(folder.path().join("log")).expect("the peer's log");
        let settings = server::peer_settings(&folder.path().join("data"), address);
        let child = Command::new(program)
            .args(["serve", &settings])
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("handle of the log"))
            .stderr(log)
            .spawn()
            .expect("start docker-registry");
        let peer = Peer {
            address,
            child,
            _folder: folder,
        };
        let began = Instant::now();
        while std::net::TcpStream::connect(address).is_err() {
            assert!(began.elapsed() < START, "docker-registry does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
        Some(peer)
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A client of it.
    #[must_use]
    pub fn client(&self) -> Client {
        Client::new(self.address)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
