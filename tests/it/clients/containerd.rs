//! containerd: a real one, and pulls in parallel as its newer versions make
//! them.

use std::thread;
use std::time::{Duration, Instant};

use orlop_tests::client::blob;
use orlop_tests::containerd::Containerd;
use orlop_tests::data;
use orlop_tests::image::Images;
use orlop_tests::raw::Wire;
use orlop_tests::server::{Server, Setup};
use orlop_tests::tls::Certificates;
use orlop_tests::tools::Skopeo;

use super::{image, transport};

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
    let authority = certificates.authority().display().to_string();
    let trusting = ["--tlscacert", authority.as_str()];
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
fn part(server: &Server, path: &str, first: usize) -> Vec<u8> {
    let mut wire = Wire::connect(server.address());
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nRange: bytes={first}-\r\n\r\n");
    wire.send(request.as_bytes());
    let mut body = Vec::new();
    let head = loop {
        let piece = wire.some(512);
        assert!(!piece.is_empty(), "no answer from byte {first} on");
        body.extend(piece);
        if let Some(end) = body.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&body[..end]).to_ascii_lowercase();
            body.drain(..end + 4);
            break head;
        }
    };
    assert!(head.starts_with("http/1.1 206 "), "{head}");
    for header in [
        format!("content-range: bytes {first}-{}/{SIZE}", SIZE - 1),
        format!("content-length: {}", SIZE - first),
    ] {
        assert!(head.lines().any(|line| line == header), "{header}: {head}");
    }
    body.extend(wire.some(PART.saturating_sub(body.len())));
    body.truncate(PART);
    body
}

fn assembled(server: &Server, path: &str) -> Vec<u8> {
    thread::scope(|scope| {
        let parts: Vec<_> = (0..PARTS)
            .map(|i| scope.spawn(move || part(server, path, i * PART)))
            .collect();
        parts.into_iter().flat_map(|p| p.join().unwrap()).collect()
    })
}

#[test]
fn parts_pulled_in_parallel_make_the_blob_and_leave_nothing_behind() {
    let server = Server::start();
    let client = server.client();
    let bytes = data::bytes(60, SIZE);
    let digest = client.push_blob("containerd/parallel", &bytes);
    let path = blob("containerd/parallel", &digest);
    // What is hot stays in memory; this is not what is measured.
    for _ in 0..2 {
        assert!(assembled(&server, &path) == bytes);
    }
    thread::sleep(Duration::from_secs(1));
    let (descriptors, resident) = (server.descriptors(), server.resident());
    for _ in 0..10 {
        // Two clients at once, on other borders than those of the store.
        thread::scope(|scope| {
            let other = scope.spawn(|| assembled(&server, &path));
            assert!(assembled(&server, &path) == bytes);
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
    assert!(grown < 32 << 20, "160 parts left {} MiB", grown >> 20);
}
