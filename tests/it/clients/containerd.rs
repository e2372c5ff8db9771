//! containerd: a real one, and pulls in parallel as its newer versions make
//! them.

use std::thread;
use std::time::{Duration, Instant};

use orlop_tests::client::{Client, blob};
use orlop_tests::containerd::Containerd;
use orlop_tests::image::Images;
use orlop_tests::server::{Server, Setup};
use orlop_tests::tls::Certificates;
use orlop_tests::tools::Skopeo;
use orlop_tests::{data, place};
use tempfile::TempDir;

use super::{image, transport};

/// A folder as containerd has them, which says that a server on loopback
/// speaks TLS all the same, and whom to trust for it.
fn hosts_of(server: &Server, certificates: &Certificates) -> TempDir {
    let (folder, address) = (place::dir(), server.address());
    let host = folder.path().join(address.to_string());
    std::fs::create_dir(&host).unwrap();
    let authority = certificates.authority();
    let text = format!(
        "server = \"https://{address}\"\n[host.\"https://{address}\"]\nca = {:?}\n",
        authority.display().to_string()
    );
    std::fs::write(host.join("hosts.toml"), text).unwrap();
    folder
}

#[test]
fn containerd_pulls_and_pushes_over_plain_http_and_tls() {
    let (Some(skopeo), Some(images)) = (Skopeo::find(), Images::shared()) else {
        return;
    };
    let Some(containerd) = Containerd::start() else {
        return;
    };
    let plain = Server::start();
    let certificates = Certificates::new();
    let tls = Setup::default().tls(&certificates).start();
    let hosts = hosts_of(&tls, &certificates);
    let hosts = hosts.path().display().to_string();
    let trusting = ["--hosts-dir", hosts.as_str()];
    let (from, to) = (
        image(&plain, "containerd/multi:v1"),
        image(&tls, "containerd/multi:v2"),
    );
    skopeo.copy(&images.multi(), &transport(&plain, "containerd/multi:v1"));
    let run = |verb: &str, options: &[&str], names: &[&str]| {
        let mut words = vec!["images", verb];
        words.extend(options);
        words.extend(names);
        containerd.run(&words)
    };
    let digest_of = |name: &str| {
        let listed = run("ls", &[], &[&format!("name=={name}")]);
        let mut fields = listed.lines().nth(1).unwrap_or_default().split_whitespace();
        fields.nth(2).map(str::to_owned)
    };
    // Unpacked, all platforms; pushed with all it has; pulled from there.
    let unpacked = ["--snapshotter", "native", "--all-platforms"];
    run(
        "pull",
        &[&unpacked[..], &["--plain-http"]].concat(),
        &[&from],
    );
    assert_eq!(digest_of(&from), Some(images.index.clone()));
    run("push", &trusting, &[&to, &from]);
    assert_eq!(
        tls.client().digest_of("containerd/multi", "v2"),
        images.index
    );
    run("rm", &["--sync"], &[&from]);
    run("pull", &[&unpacked[..], &trusting].concat(), &[&to]);
    assert_eq!(digest_of(&to), Some(images.index.clone()));
}

/// Of the blob that is pulled in parallel.
const SIZE: usize = 64 << 20;
/// Connections at a time, each for one part.
const PARTS: usize = 8;
const PART: usize = SIZE / PARTS;
/// How long connections may take to be let go.
const SETTLE: Duration = Duration::from_secs(10);

/// Asks for all from `first` on, reads one part of it and goes away, as a
/// client does that does not know how much its siblings have got.
fn part(client: &Client, path: &str, first: usize) -> Vec<u8> {
    let reply = client.range_left(path, &format!("bytes={first}-"), PART);
    let reply = reply.expect(206);
    let range = format!("bytes {first}-{}/{SIZE}", SIZE - 1);
    assert_eq!(reply.header("content-range"), range);
    let length = (SIZE - first).to_string();
    assert_eq!(reply.header("content-length"), length);
    reply.body
}

fn assembled(client: &Client, path: &str) -> Vec<u8> {
    thread::scope(|scope| {
        let parts: Vec<_> = (0..PARTS)
            .map(|i| scope.spawn(move || part(client, path, i * PART)))
            .collect();
        parts.into_iter().flat_map(|p| p.join().unwrap()).collect()
    })
}

/// Two clients at once pull a blob in parts, some times over.
fn leave_nothing_behind(server: &Server) {
    let client = server.client();
    let bytes = data::bytes(60, SIZE);
    let digest = client.push_blob("containerd/parallel", &bytes);
    let path = blob("containerd/parallel", &digest);
    // What is hot stays in memory; this is not what is measured.
    for _ in 0..2 {
        assert!(assembled(&client, &path) == bytes);
    }
    thread::sleep(Duration::from_secs(1));
    let (descriptors, resident) = (server.descriptors(), server.resident());
    for _ in 0..4 {
        let other = server.client();
        thread::scope(|scope| {
            let other = scope.spawn(|| assembled(&other, &path));
            assert!(assembled(&client, &path) == bytes);
            assert!(other.join().unwrap() == bytes);
        });
    }
    let began = Instant::now();
    while server.descriptors() > descriptors {
        let left = server.descriptors();
        let waited = began.elapsed();
        assert!(waited < SETTLE, "{left} descriptors, {descriptors} before");
        thread::sleep(Duration::from_millis(20));
    }
    let grown = server.resident().saturating_sub(resident);
    assert!(grown < 32 << 20, "64 parts left {} MiB", grown >> 20);
    // And the client's connections are as good as before.
    client.blob_is("containerd/parallel", &digest, &bytes);
}

#[test]
fn parts_pulled_in_parallel_make_the_blob_and_leave_nothing_behind() {
    leave_nothing_behind(&Server::start());
}

/// Here all parts are streams of one connection, which outlives them.
#[test]
fn parts_pulled_in_parallel_over_http2_leave_nothing_behind() {
    let certificates = Certificates::new();
    leave_nothing_behind(&Setup::default().tls(&certificates).start());
}
