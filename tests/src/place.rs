//! Where tests put their files, and which ports they use.
//!
//! Owns: the choice of folder and port. Folders lie under `target/tmp`, on the
//! disk of the checkout, because `/tmp` is memory on some machines.

use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU16, Ordering};

use tempfile::TempDir;

/// A fresh folder, removed when the handle is dropped.
#[must_use]
pub fn dir() -> TempDir {
    let parent = target().join("tmp");
    std::fs::create_dir_all(&parent).expect("create target/tmp");
    tempfile::Builder::new()
        .prefix("t-")
        .tempdir_in(parent)
        .expect("create a folder under target/tmp")
}

/// A fresh folder with a short path, for programs whose Unix sockets live
/// inside (a socket's path may be 107 bytes long).
#[must_use]
pub fn short_dir() -> TempDir {
    tempfile::Builder::new()
        .prefix("orlop-")
        .tempdir()
        .expect("create a folder under the system's temporary folder")
}

/// The binary `name`, built beside the test executable.
///
/// # Panics
/// When it is not there, saying how to build it.
#[must_use]
pub fn binary(name: &str) -> PathBuf {
    let variable = format!("{}_BIN", name.to_uppercase().replace('-', "_"));
    if let Some(path) = std::env::var_os(&variable) {
        return PathBuf::from(path);
    }
    let path = profile_dir().join(name);
    assert!(
        path.exists(),
        "{} is not built. Run `./x test`, or `./x cargo build --workspace --bins` \
         before `cargo test`, or name a binary with {variable}.",
        path.display()
    );
    path
}

/// A free port on loopback, below the range the kernel hands out to outgoing
/// connections, so that nothing else takes it before the server does.
#[must_use]
pub fn port() -> u16 {
    const FIRST: u16 = 12_000;
    const COUNT: u16 = 18_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = u16::try_from(std::process::id() % u32::from(COUNT)).unwrap_or(0);
    for _ in 0..COUNT {
        let step = NEXT.fetch_add(1, Ordering::Relaxed) % COUNT;
        // 97 and COUNT have no common factor: every port is tried once.
        let offset = (u32::from(start) + u32::from(step) * 97) % u32::from(COUNT);
        let port = FIRST + u16::try_from(offset).unwrap_or(0);
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("no free port between {FIRST} and {}", FIRST + COUNT);
}

/// `target/<profile>`: the test executable lies in its `deps`.
fn profile_dir() -> PathBuf {
    let exe = std::env::current_exe().expect("path of the test executable");
    let deps = exe.parent().expect("folder of the test executable");
    deps.parent().unwrap_or(deps).to_path_buf()
}

fn target() -> PathBuf {
    let profile = profile_dir();
    profile
        .parent()
        .map_or_else(|| profile.clone(), PathBuf::from)
}
