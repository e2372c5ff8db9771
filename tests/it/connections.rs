//! Connections: HTTP/2 without TLS, heads that never end, and heads that the
//! parser refuses.

use std::process::Command;
use std::time::{Duration, Instant};

use orlop_tests::client::{blob, manifest};
use orlop_tests::data;
use orlop_tests::raw::Wire;
use orlop_tests::server::Server;
use orlop_tests::tools;

/// Longer than the server waits for a head, shorter than for a request.
const HEAD_GIVEN_UP: Duration = Duration::from_secs(15);

#[test]
fn head_over_http2_has_no_body_whatever_the_answer() {
    let Some(curl) = tools::need("curl") else {
        return;
    };
    let features = tools::run(Command::new(&curl).arg("--version"));
    if !features.contains("HTTP2") {
        tools::skipped("curl speaks no HTTP/2");
        return;
    }
    let server = Server::shared();
    let here = server.client().push_blob("http2/head", b"here");
    let absent = data::sha256(b"absent");
    for (path, status) in [
        ("/v2/".to_owned(), "200"),
        ("/livez".to_owned(), "200"),
        (blob("http2/head", &here), "200"),
        (blob("http2/head", &absent), "404"),
        (manifest("http2/head", "none"), "404"),
        (manifest("http2/head", "-bad-"), "400"),
        ("/nothing".to_owned(), "404"),
    ] {
        let ran = tools::try_run(
            Command::new(&curl)
                .args(["-sS", "-I", "--http2-prior-knowledge", "--max-time", "10"])
                .args(["-o", "/dev/null", "-w", "%{http_version} %{http_code}"])
                .arg(format!("http://{}{path}", server.address())),
        );
        assert!(ran.ok, "HEAD {path}: {}{}", ran.out, ran.err);
        assert_eq!(ran.out, format!("2 {status}"), "HEAD {path}");
    }
}

#[test]
fn head_of_an_error_tells_the_length_of_its_body() {
    let server = Server::shared();
    let path = manifest("head/none", "v1");
    let asked = server.client().get(&path).expect(404);
    let told = server.raw("HEAD", &path, &[], b"");
    assert_eq!(told.status, 404);
    assert_eq!(told.header("content-length"), asked.body.len().to_string());
}

#[test]
fn a_head_that_never_ends_is_given_up_in_either_protocol() {
    let server = Server::shared();
    let began = Instant::now();
    let mut wires: Vec<(Wire, &str)> = ["PRI", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r", "GET / HT"]
        .map(|start| {
            let mut wire = Wire::connect(server.address());
            assert!(wire.send(start.as_bytes()));
            (wire, start)
        })
        .into();
    for (wire, start) in &mut wires {
        wire.rest();
        assert!(began.elapsed() < HEAD_GIVEN_UP, "{start:?}");
    }
}

#[test]
fn a_head_that_the_parser_refuses_is_logged_with_its_peer() {
    let server = Server::start();
    let mut wire = Wire::connect(server.address());
    let head = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(40 << 10));
    wire.send(head.as_bytes());
    let reply = wire.reply("GET with a large head").expect(431);
    assert_eq!(reply.find("x-request-id"), None);
    let began = Instant::now();
    while !server.log().contains("refused before it was read") {
        assert!(began.elapsed() < HEAD_GIVEN_UP, "{}", server.log());
        std::thread::sleep(Duration::from_millis(10));
    }
    let log = server.log();
    let line = log.lines().find(|line| line.contains("refused before"));
    assert!(line.unwrap().contains("\"peer\":\"127.0.0.1:"), "{line:?}");
}
