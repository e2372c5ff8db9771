//! `/livez`, `/readyz`, `/v2/` and the request id.

use std::io::Write;
use std::time::{Duration, Instant};

use orlop_tests::client::{Client, blob};
use orlop_tests::data;
use orlop_tests::server::Server;

#[test]
fn livez_and_readyz_answer_once_started() {
    let server = Server::shared();
    let client = server.client();
    client.get("/livez").expect(200);
    client.get("/readyz").expect(200);
    client.head("/livez").expect(200);
}

#[test]
fn livez_answers_at_once_and_readyz_when_recovery_is_done() {
    let mut server = Server::start();
    let client = server.client();
    let bytes = data::bytes(1, 8 << 20);
    let digest = client.push_blob("health/start", &bytes);
    for seed in 2..1_500 {
        client.push_blob("health/start", &data::bytes(seed, 3000));
    }
    server.kill();
    // A rebuild of the index makes the recovery long enough to be seen.
    std::fs::remove_dir_all(server.data().join("index")).unwrap();
    server.launch();
    let began = Instant::now();
    let (mut alive, mut not_ready) = (0, 0);
    loop {
        assert!(began.elapsed() < Duration::from_secs(60), "never ready");
        let Ok(live) = client.try_call("GET", "/livez", &[], "") else {
            assert_eq!(alive, 0, "the port was open and closed again");
            std::thread::sleep(Duration::from_millis(1));
            continue;
        };
        live.expect(200);
        alive += 1;
        let ready = client.get("/readyz").expect_any(&[200, 503]);
        if ready.status == 200 {
            break;
        }
        not_ready += 1;
        assert!(!ready.body.is_empty(), "503 without progress");
        let early = client.get(&blob("health/start", &digest));
        if early.status == 503 {
            assert!(early.find("retry-after").is_some());
        } else {
            assert!(early.expect(200).body == bytes);
        }
    }
    client.blob_is("health/start", &digest, &bytes);
    let _ = writeln!(
        std::io::stderr(),
        "recovery of 1,500 blobs: {not_ready} answers before ready, {:?}",
        began.elapsed()
    );
}

#[test]
fn base_answers_the_version_of_the_api() {
    let client = Client::shared();
    for path in ["/v2/", "/v2"] {
        let reply = client.get(path).expect_any(&[200, 301, 307, 308]);
        assert!(path == "/v2" || reply.status == 200, "/v2/ redirects");
    }
    let reply = client.get("/v2/");
    let version = reply.find("docker-distribution-api-version");
    assert!(
        matches!(version, None | Some("registry/2.0")),
        "{version:?}"
    );
    client.head("/v2/").expect(200);
}

#[test]
fn every_answer_carries_a_request_id_that_the_log_knows() {
    let server = Server::start();
    let client = server.client();
    let first = client.get("/v2/").header("x-request-id").to_owned();
    let second = client.get("/v2/").header("x-request-id").to_owned();
    assert_ne!(first, second);
    let refused = client.get("/v2/ids/x/manifests/none").expect(404);
    let id = refused.header("x-request-id");
    assert!(server.log().contains(id), "the log does not name {id}");
}

#[test]
fn a_request_id_of_the_client_is_kept_when_it_is_harmless() {
    let server = Server::shared();
    let kept = server.raw("GET", "/v2/", &[("X-Request-Id", "build-17.a_b")], b"");
    assert_eq!(kept.header("x-request-id"), "build-17.a_b");
    let long = "x".repeat(5000);
    for bad in ["a b", "a\"b", "<x>", "{}", long.as_str()] {
        let reply = server.raw("GET", "/v2/", &[("X-Request-Id", bad)], b"");
        assert_ne!(reply.header("x-request-id"), bad);
    }
}
