//! TLS on the registry's port: both protocols, certificates that change while
//! connections are served, starts that are refused, and the end.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use orlop_tests::client::{blob, with_digest};
use orlop_tests::raw::Wire;
use orlop_tests::server::{Server, Setup};
use orlop_tests::tls::{Certificates, Pair};
use orlop_tests::{data, h2, oci, tools};

/// How long a refusal may take.
const SOON: Duration = Duration::from_secs(10);
/// How long a new certificate may take: more than two looks of the server.
const NOTICED: Duration = Duration::from_secs(10);

fn start(certificates: &Arc<Certificates>) -> Server {
    Setup::default().tls(certificates).start()
}

#[test]
fn both_protocols_and_both_versions_are_spoken_on_one_port() {
    let Some(curl) = tools::need("curl") else {
        return;
    };
    let certificates = Certificates::new();
    let server = start(&certificates);
    let client = server.client();
    let bytes = data::bytes(70, 3 << 20);
    let digest = client.push_blob("tls/both", &bytes);
    client.blob_is("tls/both", &digest, &bytes);
    let image = oci::image(&client, "tls/both", &[&bytes]);
    image.put(&client, "tls/both", "v1");
    image.is_at(&client, "tls/both", "v1");
    for (options, version) in [
        (vec!["--http1.1"], "1.1"),
        (vec!["--http2"], "2"),
        (vec!["--no-alpn", "--http1.1"], "1.1"),
        (vec!["--http1.1", "--tls-max", "1.2"], "1.1"),
        (vec!["--http2", "--tls-max", "1.2"], "2"),
        (vec!["--http2", "--tlsv1.3"], "2"),
    ] {
        let ran = tools::try_run(
            Command::new(&curl)
                .args(["-sS", "--fail", "--max-time", "20", "--cacert"])
                .arg(certificates.authority())
                .args(&options)
                .args(["-o", "/dev/null"])
                .args(["-w", "%{http_version} %{size_download}"])
                .arg(format!(
                    "https://{}{}",
                    server.address(),
                    blob("tls/both", &digest)
                )),
        );
        assert!(ran.ok, "{options:?}: {}", ran.err);
        assert_eq!(ran.out, format!("{version} {}", bytes.len()), "{options:?}");
    }
    let log = server.log();
    assert!(
        log.contains(&format!("https://{}", server.address())),
        "{log}"
    );
}

#[test]
fn a_client_that_does_not_trust_the_certificate_does_not_come_in() {
    let certificates = Certificates::new();
    let server = start(&certificates);
    let strangers = Certificates::new();
    let client = orlop_tests::client::Client::over_tls(server.address(), &strangers);
    client.try_call("GET", "/v2/", &[], "").unwrap_err();
    server.wait_for_log("UnknownCA", 1);
    server.client().get("/v2/").expect(200);
}

#[test]
fn who_comes_with_the_wrong_protocol_is_told_so() {
    let certificates = Certificates::new();
    let server = start(&certificates);
    let mut wire = Wire::connect(server.address());
    // All of it is taken before the connection ends, so that the answer is
    // not lost with it.
    let head = format!(
        "GET /v2/ HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n",
        "x".repeat(1 << 20)
    );
    wire.send(head.as_bytes());
    let reply = wire.reply("GET without TLS").expect(400);
    assert!(reply.text().contains("https://"), "{}", reply.text());
    server.client().get("/v2/").expect(200);

    let plain = Server::shared();
    let mut wire = Wire::connect(plain.address());
    wire.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03");
    // One that is given up gets no answer. containerd takes the first bytes as a sign to try without TLS.
    let reply = wire.reply("a TLS hello without TLS").expect(400);
    assert!(reply.text().contains("http://"), "{}", reply.text());
}

/// Waits until the server presents this certificate.
#[track_caller]
fn presents(server: &Server, certificates: &Certificates, pair: &Pair) {
    let began = Instant::now();
    while Wire::over_tls(server.address(), certificates, &[]).certificate() != pair.der {
        assert!(began.elapsed() < NOTICED, "never used:\n{}", server.log());
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_new_certificate_is_used_and_connections_under_way_go_on() {
    let certificates = Certificates::new();
    let server = start(&certificates);
    let mut old = server.wire();
    let before = old.certificate();
    let location = server.client().open_upload("tls/reload");
    let head = format!("PATCH {location} HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n12345");
    assert!(old.send(head.as_bytes()));

    let second = certificates.pair();
    certificates.write(&second);
    presents(&server, &certificates, &second);
    assert_ne!(before, second.der);
    assert!(old.send(b"67890"));
    old.reply("PATCH across the change").expect(202);

    // At once when asked.
    let third = certificates.pair();
    certificates.write(&third);
    server.hang_up();
    server.wait_for_log("another certificate is in use", 2);
    presents(&server, &certificates, &third);
    server.hang_up();
    server.wait_for_log("the certificate has not changed", 1);
}

#[test]
fn sighup_without_tls_is_harmless() {
    let server = Server::start();
    server.hang_up();
    server.wait_for_log("SIGHUP", 1);
    server.client().get("/v2/").expect(200);
}

/// As Kubernetes mounts a secret: files are links through one link, and that
/// one is exchanged.
#[test]
fn a_turned_symbolic_link_is_seen() {
    let certificates = Certificates::new();
    let folder = certificates.folder().join("secret");
    let put = |name: &str, pair: &Pair| {
        fs::create_dir_all(folder.join(name)).unwrap();
        fs::write(folder.join(name).join("tls.crt"), &pair.certificate).unwrap();
        fs::write(folder.join(name).join("tls.key"), &pair.key).unwrap();
    };
    let (first, second) = (certificates.pair(), certificates.pair());
    put("..1", &first);
    symlink("..1", folder.join("..data")).unwrap();
    for (link, target) in [
        (certificates.certificate(), "secret/..data/tls.crt"),
        (certificates.key(), "secret/..data/tls.key"),
    ] {
        fs::remove_file(&link).unwrap();
        symlink(target, &link).unwrap();
    }
    let server = start(&certificates);
    presents(&server, &certificates, &first);
    put("..2", &second);
    symlink("..2", folder.join("..data_tmp")).unwrap();
    fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
    presents(&server, &certificates, &second);
}

#[test]
fn a_new_pair_that_cannot_be_used_leaves_the_old_one() {
    let certificates = Certificates::new();
    let first = certificates.pair();
    certificates.write(&first);
    let server = start(&certificates);
    let other = certificates.pair();
    let half = |text: &str| text[..text.len() / 2].to_owned();
    let unusable = [
        (
            "does not belong",
            Pair {
                key: other.key.clone(),
                ..first.clone()
            },
        ),
        (
            "cut off",
            Pair {
                certificate: half(&other.certificate),
                ..other.clone()
            },
        ),
        (
            "cut off",
            Pair {
                key: half(&other.key),
                ..other.clone()
            },
        ),
        (
            "no certificate",
            Pair {
                certificate: String::new(),
                ..other.clone()
            },
        ),
        (
            "no private key",
            Pair {
                key: other.certificate.clone(),
                ..other.clone()
            },
        ),
    ];
    for (round, (why, pair)) in unusable.iter().enumerate() {
        certificates.write(pair);
        server.wait_for_log("the one before it stays in use", round + 1);
        let log = server.log();
        let line = log
            .lines()
            .rfind(|line| line.contains("stays in use"))
            .unwrap();
        assert!(line.contains(why), "{why}: {line}");
        assert!(line.contains("server."), "names no file: {line}");
        presents(&server, &certificates, &first);
    }
    fs::remove_file(certificates.key()).unwrap();
    server.wait_for_log("the one before it stays in use", unusable.len() + 1);
    presents(&server, &certificates, &first);
    certificates.write(&other);
    presents(&server, &certificates, &other);
    // Told once each, not at every look.
    assert_eq!(
        server.log().matches("stays in use").count(),
        unusable.len() + 1
    );
}

#[test]
fn starts_without_a_usable_pair_are_refused() {
    let certificates = Certificates::new();
    let (first, other) = (certificates.pair(), certificates.pair());
    let refused = |pair: &Pair, words: &[&str]| {
        certificates.write(pair);
        let refusal = Setup::default().tls(&certificates).start_refused(SOON);
        refusal.names(words);
    };
    let with_key = |key: &str| Pair {
        key: key.to_owned(),
        ..first.clone()
    };
    let with_certificate = |certificate: &str| Pair {
        certificate: certificate.to_owned(),
        ..first.clone()
    };
    refused(
        &with_key(&other.key),
        &["server.key", "server.crt", "does not belong"],
    );
    refused(&with_key("nothing"), &["server.key", "no private key"]);
    let encrypted =
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIB\n-----END ENCRYPTED PRIVATE KEY-----\n";
    refused(&with_key(encrypted), &["server.key", "openssl pkey"]);
    refused(
        &with_certificate("nothing"),
        &["server.crt", "no certificate"],
    );
    let garbage = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
    refused(&with_certificate(garbage), &["server.crt", "certificate 1"]);
    let both = format!("{}{garbage}", first.certificate);
    refused(&with_certificate(&both), &["server.crt", "certificate 2"]);
    certificates.write(&first);
    fs::remove_file(certificates.key()).unwrap();
    let missing = Setup::default().tls(&certificates).start_refused(SOON);
    missing.names(&["server.key", "No such file"]);
    fs::create_dir(certificates.key()).unwrap();
    let folder = Setup::default().tls(&certificates).start_refused(SOON);
    folder.names(&["server.key", "not a regular file"]);
    let half = Setup::default().env("ORLOP_TLS_KEY", "/nowhere/key");
    half.start_refused(SOON).names(&["certificate", "key"]);
}

#[test]
fn tls_alone_opens_no_other_address_than_loopback() {
    let certificates = Certificates::new();
    Setup::default()
        .tls(&certificates)
        .listen("0.0.0.0:0")
        .start_refused(SOON)
        .names(&["--insecure-anonymous"]);
}

/// An upload over HTTP/2 with half of its body sent, and the other half.
fn half_an_upload(
    server: &Server,
    certificates: &Certificates,
    repository: &str,
) -> (Wire, Vec<u8>) {
    let bytes = data::bytes(71, 20_000);
    let location = server.client().open_upload(repository);
    let target = with_digest(&location, &data::sha256(&bytes));
    let mut wire = Wire::http2(server.address(), certificates);
    let head = h2::head("PUT", &target, &[("content-length", "20000")]);
    assert!(wire.send(&h2::frame(h2::HEADERS, h2::END_HEADERS, 1, &head)));
    assert!(wire.send(&h2::frame(h2::DATA, 0, 1, &bytes[..10_000])));
    server.wait_until_read();
    (wire, bytes)
}

#[test]
fn a_request_over_http2_and_tls_is_finished_before_the_end() {
    let certificates = Certificates::new();
    let mut server = start(&certificates);
    let (mut wire, bytes) = half_an_upload(&server, &certificates, "tls/drain");
    let mut idle = Wire::http2(server.address(), &certificates);
    let mut quiet = server.wire();
    server.terminate();
    // Who has nothing under way is told to leave, and the other one too.
    while idle.frame().expect("a word before the end").kind != h2::GOAWAY {}
    assert!(quiet.rest().is_empty());
    while wire.frame().expect("a word before the end").kind != h2::GOAWAY {}
    assert!(wire.send(&h2::frame(h2::DATA, h2::END_STREAM, 1, &bytes[10_000..])));
    let mut has_answer = false;
    while let Some(frame) = wire.frame() {
        assert_ne!(frame.kind, h2::RST_STREAM);
        has_answer |= frame.kind == h2::HEADERS && frame.stream == 1;
    }
    assert!(has_answer, "the request was cut");
    server.ended();
    server.start_again();
    let digest = data::sha256(&bytes);
    server.client().blob_is("tls/drain", &digest, &bytes);
}

#[test]
fn a_request_over_http2_and_tls_that_takes_too_long_is_cut() {
    let certificates = Certificates::new();
    let mut server = Setup::default()
        .tls(&certificates)
        .env("ORLOP_DRAIN", "1s")
        .start();
    let (mut wire, _) = half_an_upload(&server, &certificates, "tls/cut");
    // Neither does one in the middle of a handshake hold the end up.
    let mut stalled = Wire::connect(server.address());
    stalled.send(b"\x16\x03\x01\x02\x00\x01");
    server.wait_until_read();
    let began = Instant::now();
    server.terminate();
    while let Some(frame) = wire.frame() {
        assert_ne!((frame.kind, frame.stream), (h2::HEADERS, 1));
    }
    server.ended();
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "{:?}",
        began.elapsed()
    );
}
