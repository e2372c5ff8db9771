//! Calls of the real server that fail, made to from outside by strace.
//!
//! strace is attached after the start and to single threads, since it counts
//! calls for each thread; the disk is the pool, since the ring's operations are
//! no system calls.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use orlop_tests::client::{Client, blob, manifest};
use orlop_tests::oci::{self, Manifest};
use orlop_tests::reply::Reply;
use orlop_tests::server::{Server, Setup};
use orlop_tests::{data, place, tools};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::must_run;

const REPOSITORY: &str = "errors/repo";
/// How long strace may take to attach, and a failure to show.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long no call may have failed before strace lets go.
const QUIET: Duration = Duration::from_millis(200);
const SMALL: usize = 20_000;
const LARGE: usize = 3_000_000;

/// strace on some threads. Ends when it is dropped.
struct Strace {
    child: Child,
    folder: TempDir,
}

impl Strace {
    /// Attaches to the threads whose names begin so, and makes their calls
    /// fail, or late. Nothing, and the reason is said, where that is not
    /// allowed; in CI as root that is a failure.
    fn attach(server: &Server, threads: &str, injections: &[&str]) -> Option<Strace> {
        let Some(program) = tools::need("strace") else {
            assert!(!must_run(), "strace is not installed");
            return None;
        };
        let folder = place::dir();
        let errors = fs::File::create(folder.path().join("err")).unwrap();
        let mut command = Command::new(program);
        command.arg("-o").arg(folder.path().join("trace"));
        for injection in injections {
            command.arg("-e").arg(format!("inject={injection}"));
        }
        let ids = threads_of(server, threads);
        assert!(!ids.is_empty(), "the server has no thread {threads}…");
        for id in &ids {
            command.args(["-p", id]);
        }
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(errors)
            .spawn()
            .expect("start strace");
        let mut strace = Strace { child, folder };
        let began = Instant::now();
        loop {
            let said = strace.said();
            if said.matches(" attached").count() >= ids.len() {
                return Some(strace);
            }
            let ended = strace.child.try_wait().unwrap().is_some();
            if ended && said.contains("not permitted") {
                let why = format!("strace may not attach: {}", said.trim());
                assert!(!must_run(), "{why}");
                tools::skipped(&why);
                return None;
            }
            assert!(!ended && began.elapsed() < PATIENCE, "strace: {said}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn said(&self) -> String {
        fs::read_to_string(self.folder.path().join("err")).unwrap_or_default()
    }

    /// Calls that were made to fail so far.
    fn injected(&self) -> usize {
        let trace = fs::read(self.folder.path().join("trace")).unwrap_or_default();
        String::from_utf8_lossy(&trace)
            .matches("(INJECTED)")
            .count()
    }

    /// Lets the server go on, once it makes no call that would fail: one that
    /// is let go between its entry and its exit answers ENOSYS, which nobody
    /// asked for.
    fn detach(mut self) -> usize {
        let began = Instant::now();
        let mut seen = self.injected();
        let mut since = began;
        while since.elapsed() < QUIET && began.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(10));
            let now = self.injected();
            if now != seen {
                (seen, since) = (now, Instant::now());
            }
        }
        self.stop();
        self.injected()
    }

    fn stop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.child), Signal::INT);
        let _ = self.child.wait();
    }
}

impl Drop for Strace {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Ids of the threads whose names begin so. The kernel cuts names after 15
/// letters.
fn threads_of(server: &Server, name: &str) -> Vec<String> {
    let tasks = PathBuf::from(format!("/proc/{}/task", server.pid()));
    let entries = fs::read_dir(tasks).expect("threads of the server");
    let ids = entries.filter_map(|entry| {
        let entry = entry.ok()?;
        let comm = fs::read_to_string(entry.path().join("comm")).ok()?;
        comm.starts_with(name)
            .then(|| entry.file_name().to_string_lossy().into_owned())
    });
    ids.collect()
}

/// A server with something in it.
struct Case {
    server: Server,
    ops: Client,
    blobs: Vec<Vec<u8>>,
    image: Manifest,
}

impl Case {
    fn start() -> Case {
        let address = format!("127.0.0.1:{}", place::port());
        let server = Setup::default()
            .env("ORLOP_DISK_BACKEND", "pool")
            .env("ORLOP_OPS_LISTEN", &address)
            .env("ORLOP_LOG_LEVEL", "info,access=off")
            .start();
        let client = server.client();
        let blobs = vec![data::bytes(1, SMALL), data::bytes(2, LARGE)];
        let image = oci::image(&client, REPOSITORY, &[&blobs[0], &blobs[1]]);
        image.put(&client, REPOSITORY, "before");
        Case {
            server,
            ops: Client::new(address.parse().unwrap()),
            blobs,
            image,
        }
    }

    /// What was acknowledged before is served.
    fn reads_go_on(&self) {
        let client = self.server.client();
        for bytes in &self.blobs {
            client.blob_is(REPOSITORY, &data::sha256(bytes), bytes);
        }
        self.image.is_at(&client, REPOSITORY, "before");
        self.image.is_at(&client, REPOSITORY, &self.image.digest);
        client.get("/livez").expect(200);
    }

    /// Pushes a blob; the last answer.
    fn push(&self, bytes: &[u8]) -> Reply {
        let client = self.server.client();
        let path = format!("/v2/{REPOSITORY}/blobs/uploads/");
        let opened = client.call("POST", &path, &[], "");
        if opened.status != 202 {
            return opened;
        }
        client.finish(&opened.location(), &data::sha256(bytes), bytes.to_vec())
    }

    fn metric(&self, line: &str) -> bool {
        let reply = self.ops.get("/metrics").expect(200);
        String::from_utf8_lossy(&reply.body)
            .lines()
            .any(|other| other == line)
    }

    /// Writes are off, and everything that tells so tells so.
    fn writes_are_off(&self) {
        let client = self.server.client();
        let refused = self.push(&data::bytes(3, SMALL)).expect(503);
        assert_eq!(refused.code(), "UNAVAILABLE", "{}", refused.text());
        client
            .put_manifest(REPOSITORY, "t", &self.image.media_type, &self.image.bytes)
            .expect(503);
        client.delete(&manifest(REPOSITORY, "before")).expect(503);
        let ready = client.get("/readyz").expect(200);
        assert_eq!(ready.json()["writes"], "off until a restart");
        let health = client.get("/health").expect(503);
        assert_eq!(health.json()["Healthy"], false, "{}", health.text());
        assert!(self.metric("orlop_poisoned 1"), "no metric tells it");
    }

    /// A start makes it good: what was acknowledged is there, what was not is
    /// whole or absent, and pushes go on.
    fn a_restart_recovers(&mut self, unsure: &[u8]) {
        self.server.kill();
        let ran = tools::try_run(Command::new(place::binary("orlop-fsck")).arg(self.server.data()));
        assert!(ran.ok, "fsck has findings:\n{}{}", ran.out, ran.err);
        self.server.start_again();
        self.reads_go_on();
        let client = self.server.client();
        let digest = data::sha256(unsure);
        let reply = client.get(&blob(REPOSITORY, &digest));
        match reply.status {
            404 => {}
            _ => client.blob_is(REPOSITORY, &digest, unsure),
        }
        self.push(unsure).expect(201);
        client.blob_is(REPOSITORY, &digest, unsure);
        assert!(self.metric("orlop_poisoned 0"));
    }
}

/// Calls of these threads fail during a push: it is not acknowledged, writes
/// are off until a restart, nothing is lost.
fn poisons(threads: &str, injection: &str, size: usize) {
    let mut case = Case::start();
    let Some(strace) = Strace::attach(&case.server, threads, &[injection]) else {
        return;
    };
    let bytes = data::bytes(9, size);
    let reply = case.push(&bytes);
    let injected = strace.detach();
    assert!(injected > 0, "no call was made to fail");
    assert!(
        matches!(reply.status, 500..=599),
        "{injection} in {threads}: the push was answered {} {}",
        reply.status,
        reply.text()
    );
    case.writes_are_off();
    case.reads_go_on();
    case.a_restart_recovers(&bytes);
}

/// The same with a disk that is full for the moment: 507, and it goes on.
fn is_full(threads: &str, injection: &str, size: usize) {
    let mut case = Case::start();
    let Some(strace) = Strace::attach(&case.server, threads, &[injection]) else {
        return;
    };
    let bytes = data::bytes(9, size);
    let reply = case.push(&bytes);
    let injected = strace.detach();
    assert!(injected > 0, "no call was made to fail");
    assert_eq!(
        reply.status,
        507,
        "{injection} in {threads}: {}",
        reply.text()
    );
    assert!(case.metric("orlop_poisoned 0"), "a full disk is no poison");
    case.reads_go_on();
    case.push(&bytes).expect(201);
    let client = case.server.client();
    client.blob_is(REPOSITORY, &data::sha256(&bytes), &bytes);
    case.a_restart_recovers(&bytes);
}

#[test]
fn g4_eio_of_the_journals_sync() {
    poisons("journal", "fdatasync:error=EIO", SMALL);
}

#[test]
fn g4_eio_of_the_journals_sync_after_a_segments() {
    poisons("journal", "fdatasync:error=EIO", LARGE);
}

#[test]
fn g4_eio_of_the_journals_write() {
    poisons("journal", "pwrite64:error=EIO", SMALL);
}

#[test]
fn g4_eio_of_a_segments_sync() {
    poisons("disk-pool", "fdatasync:error=EIO", LARGE);
}

#[test]
fn g4_eio_of_a_segments_write() {
    poisons("disk-pool", "pwrite64:error=EIO", LARGE);
}

#[test]
fn g4_enospc_of_a_segments_write() {
    is_full("disk-pool", "pwrite64:error=ENOSPC", LARGE);
}

#[test]
fn g4_eio_of_the_catalogs_sync() {
    poisons("catalog-writer", "fsync,fdatasync:error=EIO", SMALL);
}

#[test]
fn g4_eio_of_the_catalogs_write() {
    poisons("catalog-writer", "pwrite64:error=EIO", SMALL);
}

#[test]
fn g4_enospc_of_the_catalogs_write() {
    is_full("catalog-writer", "pwrite64:error=ENOSPC", SMALL);
}

/// RocksDB's threads write at a flush, such as that of a stop. The log has
/// everything that they could not write.
#[test]
fn g4_eio_of_the_indexs_writes_at_a_stop() {
    for injection in [
        "fsync,fdatasync,sync_file_range:error=EIO",
        "write,pwrite64:error=EIO",
    ] {
        let mut case = Case::start();
        let Some(strace) = Strace::attach(&case.server, "rocksdb", &[injection]) else {
            return;
        };
        case.server.terminate();
        let began = Instant::now();
        // A process that has ended maps nothing, though nobody waited for it.
        let maps = format!("/proc/{}/maps", case.server.pid());
        while fs::read(&maps).is_ok_and(|maps| !maps.is_empty()) {
            assert!(began.elapsed() < Duration::from_secs(40), "it does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
        let injected = strace.detach();
        assert!(injected > 0, "{injection}: no call was made to fail");
        case.a_restart_recovers(&data::bytes(9, SMALL));
    }
}
