//! The API over memory: requests in, answers out, no network.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::registry::memory::{self, Memory};
use crate::registry::{Algorithm, BodyFault, Digest, Fault, Unpaired};
use bytes::Bytes;
use http::{HeaderMap, Request};
use serde_json::Value;

mod bounds;
mod lists;

#[derive(Default)]
struct Server {
    memory: Memory,
    unpaired: Option<Unpaired>,
    /// A registry to use again, else each request has a new one.
    kept: Option<Registry>,
    starting: bool,
    stopping: AtomicBool,
}

impl Readiness for Server {
    fn state(&self) -> State {
        if self.starting {
            State::Starting("replaying the journal".into())
        } else {
            let registry = self.kept.clone();
            let registry = registry.unwrap_or_else(|| self.memory.registry());
            State::Ready(match self.unpaired {
                Some(why) => registry.without_writes(why),
                None => registry,
            })
        }
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }
}

struct Reply {
    status: u16,
    headers: HeaderMap,
    body: Result<Bytes, Fault>,
}

impl Reply {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |v| v.to_str().unwrap())
    }

    fn json(&self) -> Value {
        serde_json::from_slice(self.body.as_ref().unwrap()).unwrap()
    }

    fn code(&self) -> String {
        self.json()["errors"][0]["code"]
            .as_str()
            .unwrap()
            .to_owned()
    }
}

/// Sends `METHOD path`, with headers and a body in pieces.
async fn send(
    server: &Server,
    line: &str,
    headers: &[(&str, &str)],
    pieces: &[&[u8]],
    end: Option<BodyFault>,
) -> Reply {
    let (method, path) = line.split_once(' ').unwrap();
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let (head, ()) = request.body(()).unwrap().into_parts();
    let answer = match handle(server, &head, memory::body(pieces, end)).await {
        Ok(answer) => answer,
        Err(error) => error.answer("test"),
    };
    let (head, body) = answer.into_parts();
    Reply {
        status: head.status.as_u16(),
        headers: head.headers,
        body: body.taken().await,
    }
}

async fn get(server: &Server, line: &str) -> Reply {
    send(server, line, &[], &[], None).await
}

fn sha256(content: &[u8]) -> Digest {
    Digest::of(Algorithm::Sha256, content)
}

async fn open_upload(server: &Server) -> String {
    let reply = get(server, "POST /v2/a/blobs/uploads/").await;
    assert_eq!(reply.status, 202);
    let location = reply.header("location").to_owned();
    assert!(location.ends_with(reply.header("docker-upload-uuid")));
    assert_eq!(reply.header("range"), "0-0");
    location
}

#[tokio::test]
async fn base_and_health() {
    let server = Server::default();
    let reply = get(&server, "GET /v2/").await;
    assert_eq!(reply.status, 200);
    assert_eq!(
        reply.header("docker-distribution-api-version"),
        "registry/2.0"
    );
    assert_eq!(get(&server, "GET /livez").await.status, 200);
    let ready = get(&server, "GET /readyz").await;
    assert_eq!(
        (ready.status, ready.json()["writes"].as_str()),
        (200, Some("on"))
    );
    server.stopping.store(true, Ordering::Relaxed);
    assert_eq!(get(&server, "GET /readyz").await.status, 503);
    assert_eq!(get(&server, "GET /livez").await.status, 200);
    assert_eq!(get(&server, "GET /v2/").await.status, 200);
}

#[tokio::test]
async fn while_starting_only_health_answers() {
    let server = Server {
        starting: true,
        ..Server::default()
    };
    let ready = get(&server, "GET /readyz").await;
    assert_eq!(ready.status, 503);
    assert!(
        ready.json()["progress"]
            .as_str()
            .unwrap()
            .contains("journal")
    );
    assert_eq!(get(&server, "GET /livez").await.status, 200);
    let reply = get(&server, "GET /v2/").await;
    assert_eq!((reply.status, reply.header("retry-after")), (503, "1"));
}

#[tokio::test]
async fn a40_methods_are_refused_with_those_there_are() {
    let server = Server::default();
    for line in [
        "TRACE /v2/",
        "CONNECT /v2/a/tags/list",
        "CONNECT example.org:443",
        "BREW /v2/a/manifests/x",
        "POST /v2/a/manifests/x",
        "DELETE /livez",
        "GET /v2/a/blobs/uploads/",
    ] {
        let reply = send(
            &server,
            line,
            &[("x-http-method-override", "GET")],
            &[],
            None,
        )
        .await;
        assert_eq!(
            (reply.status, reply.code().as_str()),
            (405, "UNSUPPORTED"),
            "{line}"
        );
        assert!(!reply.header("allow").is_empty());
    }
}

#[tokio::test]
async fn blobs_whole_and_in_parts() {
    let server = Server::default();
    let digest = server.memory.add("a", b"0123456789");
    let path = format!("/v2/a/blobs/{digest}");
    let head = get(&server, &format!("HEAD {path}")).await;
    assert_eq!((head.status, head.header("content-length")), (200, "10"));
    assert_eq!(head.body.unwrap(), "");
    let whole = get(&server, &format!("GET {path}")).await;
    assert_eq!(whole.status, 200);
    assert_eq!(whole.body.as_ref().unwrap(), "0123456789");
    assert_eq!(whole.header("docker-content-digest"), digest.to_string());
    assert_eq!(whole.header("accept-ranges"), "bytes");
    assert_eq!(whole.header("x-content-type-options"), "nosniff");
    assert_eq!(whole.header("content-type"), "application/octet-stream");
    let line = format!("GET {path}");
    for (range, part, expected) in [
        ("bytes=2-4", "bytes 2-4/10", "234"),
        ("bytes=7-", "bytes 7-9/10", "789"),
        ("bytes=-3", "bytes 7-9/10", "789"),
        ("bytes=0-0", "bytes 0-0/10", "0"),
    ] {
        let reply = send(&server, &line, &[("range", range)], &[], None).await;
        assert_eq!(reply.status, 206);
        assert_eq!(reply.header("content-range"), part);
        assert_eq!(reply.header("content-length"), expected.len().to_string());
        assert_eq!(reply.body.unwrap(), expected);
    }
    let reply = send(&server, &line, &[("range", "bytes=10-")], &[], None).await;
    assert_eq!(
        (reply.status, reply.header("content-range")),
        (416, "bytes */10")
    );
    let other = [("range", "bytes=0-0"), ("if-range", "\"other\"")];
    assert_eq!(send(&server, &line, &other, &[], None).await.status, 200);
    let etag = format!("\"{digest}\"");
    let known = [("if-none-match", etag.as_str())];
    let reply = send(&server, &line, &known, &[], None).await;
    assert_eq!((reply.status, reply.body.unwrap().len()), (304, 0));
}

#[tokio::test]
async fn blobs_of_other_repositories_are_unknown() {
    let server = Server::default();
    let digest = server.memory.add("a", b"x");
    for method in ["HEAD", "GET"] {
        let reply = get(&server, &format!("{method} /v2/b/blobs/{digest}")).await;
        assert_eq!(reply.status, 404);
    }
    let reply = get(&server, &format!("GET /v2/b/blobs/{digest}")).await;
    assert_eq!(reply.code(), "BLOB_UNKNOWN");
}

#[tokio::test]
async fn a39_damage_cuts_the_answer() {
    let server = Server::default();
    let digest = server.memory.add("a", b"0123456789");
    server.memory.damage(digest);
    let reply = get(&server, &format!("GET /v2/a/blobs/{digest}")).await;
    assert_eq!(reply.status, 200);
    assert!(matches!(reply.body, Err(Fault::Corrupt(_))));
    // At the very start it is an answer of its own.
    let line = format!("GET /v2/a/blobs/{digest}");
    let reply = send(&server, &line, &[("range", "bytes=0-0")], &[], None).await;
    assert_eq!((reply.status, reply.code().as_str()), (500, "CORRUPT_BLOB"));
}

#[tokio::test]
async fn uploads_in_every_form() {
    let server = Server::default();
    let digest = sha256(b"hello world");
    let blob = format!("/v2/a/blobs/{digest}");

    // POST then PUT.
    let location = open_upload(&server).await;
    let line = format!("PUT {location}?digest={digest}");
    let reply = send(&server, &line, &[], &[b"hello ", b"world"], None).await;
    assert_eq!(
        (reply.status, reply.header("location")),
        (201, blob.as_str())
    );
    assert_eq!(reply.header("docker-content-digest"), digest.to_string());
    assert_eq!(get(&server, &format!("HEAD {blob}")).await.status, 200);

    // A stream, then PUT without a body.
    let location = open_upload(&server).await;
    let reply = send(
        &server,
        &format!("PATCH {location}"),
        &[],
        &[b"hello world"],
        None,
    )
    .await;
    assert_eq!((reply.status, reply.header("range")), (202, "0-10"));
    let escaped = digest.to_string().replace(':', "%3A");
    let reply = get(&server, &format!("PUT {location}?digest={escaped}")).await;
    assert_eq!(reply.status, 201);

    // Chunks, the last with the PUT.
    let location = open_upload(&server).await;
    let line = format!("PATCH {location}");
    let chunk = |range| [("content-range", range), ("content-length", "6")];
    let reply = send(&server, &line, &chunk("0-5"), &[b"hello "], None).await;
    assert_eq!((reply.status, reply.header("range")), (202, "0-5"));
    let reply = get(&server, &format!("GET {location}")).await;
    assert_eq!((reply.status, reply.header("range")), (204, "0-5"));
    let line = format!("PUT {location}?digest={digest}");
    let reply = send(
        &server,
        &line,
        &[("content-range", "6-10")],
        &[b"world"],
        None,
    )
    .await;
    assert_eq!(reply.status, 201);

    // All in one POST.
    let line = format!("POST /v2/b/blobs/uploads/?digest={digest}");
    let length = [("content-length", "11")];
    let reply = send(&server, &line, &length, &[b"hello world"], None).await;
    assert_eq!(reply.status, 201);
    assert_eq!(server.memory.uploads(), 0);

    // A digest without a body starts a session, unless it is that of nothing.
    let reply = send(&server, &line, &[("content-length", "0")], &[], None).await;
    assert_eq!(reply.status, 202);
    let line = format!("POST /v2/b/blobs/uploads/?digest={}", sha256(b""));
    let reply = send(&server, &line, &[("content-length", "0")], &[], None).await;
    assert_eq!(reply.status, 201);
}

#[tokio::test]
async fn a36_chunks_out_of_order() {
    let server = Server::default();
    let location = open_upload(&server).await;
    let line = format!("PATCH {location}");
    let first = [("content-range", "0-3")];
    assert_eq!(
        send(&server, &line, &first, &[b"0123"], None).await.status,
        202
    );
    for range in ["0-3", "2-5", "5-8", "5-3", "0-18446744073709551615"] {
        let reply = send(
            &server,
            &line,
            &[("content-range", range)],
            &[b"xxxx"],
            None,
        )
        .await;
        assert_eq!(
            (reply.status, reply.header("range")),
            (416, "0-3"),
            "{range}"
        );
        assert_eq!(reply.header("location"), location);
    }
    let reply = get(&server, &format!("GET {location}")).await;
    assert_eq!(reply.header("range"), "0-3");
}

#[tokio::test]
async fn a37_a_cut_body_and_what_the_session_says() {
    let server = Server::default();
    let location = open_upload(&server).await;
    let line = format!("PATCH {location}");
    let reply = send(&server, &line, &[], &[b"0123"], Some(BodyFault::Cut)).await;
    assert_eq!(
        (reply.status, reply.code().as_str()),
        (400, "BLOB_UPLOAD_INVALID")
    );
    let reply = get(&server, &format!("GET {location}")).await;
    assert_eq!((reply.status, reply.header("range")), (204, "0-3"));
    let headers = [("content-range", "4-7"), ("content-length", "3")];
    let reply = send(&server, &line, &headers, &[b"456"], None).await;
    assert_eq!((reply.status, reply.code().as_str()), (400, "SIZE_INVALID"));
}

#[tokio::test]
async fn a41_a_wrong_digest_ends_the_session() {
    let server = Server::default();
    let location = open_upload(&server).await;
    let line = format!("PUT {location}?digest={}", sha256(b"good"));
    let reply = send(&server, &line, &[], &[b"evil"], None).await;
    assert_eq!(
        (reply.status, reply.code().as_str()),
        (400, "DIGEST_INVALID")
    );
    assert_eq!(get(&server, &format!("GET {location}")).await.status, 404);
    let location = open_upload(&server).await;
    for query in [
        "",
        "?digest=",
        "?digest=x",
        "?digest=sha256:zz",
        "?digest=%zz",
    ] {
        let reply = get(&server, &format!("PUT {location}{query}")).await;
        assert_eq!(
            (reply.status, reply.code().as_str()),
            (400, "DIGEST_INVALID"),
            "{query}"
        );
    }
    assert_eq!(
        get(&server, &format!("DELETE {location}")).await.status,
        204
    );
    assert_eq!(
        get(&server, &format!("DELETE {location}")).await.status,
        404
    );
}

#[tokio::test]
async fn a09_mounts_fall_back_to_a_session() {
    let server = Server::default();
    let digest = server.memory.add("a", b"x");
    let line = |from: &str| format!("POST /v2/b/blobs/uploads/?mount={digest}{from}");
    for from in [
        "&from=",
        "&from=..%2f..%2fa",
        "&from=c",
        "&from=%zz",
        "&from=A",
    ] {
        let reply = get(&server, &line(from)).await;
        assert_eq!(reply.status, 202, "{from}");
        assert!(reply.body.unwrap().is_empty());
    }
    for (from, target) in [("&from=a", "b"), ("", "d")] {
        let line = line(from).replace("/v2/b/", &format!("/v2/{target}/"));
        let reply = get(&server, &line).await;
        assert_eq!(reply.status, 201);
        let location = format!("/v2/{target}/blobs/{digest}");
        assert_eq!(reply.header("location"), location);
    }
    let reply = get(&server, "POST /v2/b/blobs/uploads/?mount=md5:00&from=a").await;
    assert_eq!(
        (reply.status, reply.code().as_str()),
        (400, "DIGEST_INVALID")
    );
}

const OCI: &str = "application/vnd.oci.image.manifest.v1+json";

fn manifest(server: &Server) -> String {
    let config = server.memory.add("a", b"{}");
    format!(
        r#"{{"schemaVersion":2,"mediaType":"{OCI}","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{config}","size":2}},"layers":[]}}  "#
    )
}

#[tokio::test]
async fn manifests_by_tag_and_digest() {
    let server = Server::default();
    let body = manifest(&server);
    let digest = sha256(body.as_bytes());
    let typed = [("content-type", OCI)];
    let line = "PUT /v2/a/manifests/latest";
    let reply = send(&server, line, &typed, &[body.as_bytes()], None).await;
    assert_eq!(reply.status, 201);
    assert_eq!(
        reply.header("location"),
        format!("/v2/a/manifests/{digest}")
    );
    assert_eq!(reply.header("docker-content-digest"), digest.to_string());
    for at in ["latest".to_owned(), digest.to_string()] {
        let reply = get(&server, &format!("GET /v2/a/manifests/{at}")).await;
        assert_eq!((reply.status, reply.header("content-type")), (200, OCI));
        assert_eq!(reply.header("docker-content-digest"), digest.to_string());
        assert_eq!(reply.body.unwrap(), body);
        let reply = get(&server, &format!("HEAD /v2/a/manifests/{at}")).await;
        assert_eq!(reply.header("content-length"), body.len().to_string());
    }
    let etag = format!("\"{digest}\"");
    let known = [("if-none-match", etag.as_str())];
    let reply = send(&server, "GET /v2/a/manifests/latest", &known, &[], None).await;
    assert_eq!(reply.status, 304);
    let reply = get(&server, "GET /v2/a/manifests/other").await;
    assert_eq!(
        (reply.status, reply.code().as_str()),
        (404, "MANIFEST_UNKNOWN")
    );

    let line = format!("PUT /v2/a/manifests/{}", sha256(b"other"));
    let reply = send(&server, &line, &typed, &[body.as_bytes()], None).await;
    assert_eq!(
        (reply.status, reply.code().as_str()),
        (400, "DIGEST_INVALID")
    );
    let wrong = [("content-type", "application/vnd.oci.image.index.v1+json")];
    let line = "PUT /v2/a/manifests/latest";
    let reply = send(&server, line, &wrong, &[body.as_bytes()], None).await;
    assert_eq!(
        (reply.status, reply.code().as_str()),
        (400, "MANIFEST_INVALID")
    );
}

#[tokio::test]
async fn a12_manifests_of_exactly_the_limit() {
    let server = Server::default();
    let mut body = manifest(&server).into_bytes();
    body.resize(4 * 1024 * 1024, b' ');
    let line = "PUT /v2/a/manifests/large";
    let typed = [("content-type", OCI)];
    let reply = send(&server, line, &typed, &[&body], None).await;
    assert_eq!(reply.status, 201);
    let reply = send(&server, line, &typed, &[&body, b" "], None).await;
    assert_eq!(
        (reply.status, reply.code().as_str()),
        (413, "MANIFEST_INVALID")
    );
    let announced = [("content-type", OCI), ("content-length", "4194305")];
    let reply = send(&server, line, &announced, &[], None).await;
    assert_eq!(reply.status, 413);
}

#[tokio::test]
async fn a10_a11_tags_in_pages() {
    let server = Server::default();
    server.memory.add("a", b"x");
    for i in 0..5 {
        server.memory.set_tag("a", &format!("t{i}"), sha256(b"x"));
    }
    let all = get(&server, "GET /v2/a/tags/list").await;
    assert_eq!(all.json()["tags"].as_array().unwrap().len(), 5);
    assert_eq!(all.json()["name"], "a");
    assert_eq!(all.header("link"), "");
    let page = get(&server, "GET /v2/a/tags/list?n=2").await;
    assert_eq!(
        page.header("link"),
        "</v2/a/tags/list?n=2&last=t1>; rel=\"next\""
    );
    let page = get(&server, "GET /v2/a/tags/list?n=2&last=t3").await;
    assert_eq!(page.json()["tags"], serde_json::json!(["t4"]));
    assert_eq!(page.header("link"), "");
    let none = get(&server, "GET /v2/a/tags/list?n=0").await;
    assert_eq!((none.status, none.header("link")), (200, ""));
    assert_eq!(none.json()["tags"], serde_json::json!([]));
    for n in ["2147483647", "99999999999999999999999"] {
        let reply = get(&server, &format!("GET /v2/a/tags/list?n={n}")).await;
        assert_eq!(reply.status, 200);
    }
    for n in ["-1", "1e9", "NaN", "", "0x10", "%zz", "1.5"] {
        let reply = get(&server, &format!("GET /v2/a/tags/list?n={n}")).await;
        assert_eq!(reply.status, 400, "n={n}");
    }
    let long = format!("GET /v2/a/tags/list?last={}", "x".repeat(60_000));
    assert_eq!(get(&server, &long).await.status, 400);
    let reply = get(&server, "GET /v2/b/tags/list").await;
    assert_eq!((reply.status, reply.code().as_str()), (404, "NAME_UNKNOWN"));
}

#[tokio::test]
async fn full_and_poisoned_stores() {
    let server = Server::default();
    let digest = server.memory.add("a", b"x");
    for (fault, status) in [
        (Fault::Full("x".into()), 507),
        (Fault::Poisoned("x".into()), 503),
        (Fault::Io("x".into()), 500),
    ] {
        server.memory.fail_writes(Some(fault));
        let reply = get(&server, "POST /v2/a/blobs/uploads/").await;
        assert_eq!(reply.status, status);
        let reply = get(&server, &format!("GET /v2/a/blobs/{digest}")).await;
        assert_eq!(reply.status, 200);
    }
}
