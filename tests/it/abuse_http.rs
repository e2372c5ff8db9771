//! Abuse cases A33, A34, A36 to A38, A40, A97 and A102: the wire.

use std::time::{Duration, Instant};

use orlop_tests::client::{Client, blob, with_digest};
use orlop_tests::data;
use orlop_tests::oci;
use orlop_tests::raw::Wire;
use orlop_tests::reply::Reply;
use orlop_tests::server::{Server, Setup};

/// A request that a second reader of the bytes could take for the next one.
const SMUGGLED: &str = "GET /v2/ HTTP/1.1\r\nHost: smuggled\r\n\r\n";

/// Sends bytes as they are and demands one 400 and a closed connection.
#[track_caller]
fn refused_and_closed(server: &Server, name: &str, bytes: &str) {
    let mut wire = Wire::connect(server.address());
    wire.send(bytes.as_bytes());
    wire.finish();
    let all = wire.rest();
    let text = String::from_utf8_lossy(&all).into_owned();
    assert!(
        text.starts_with("HTTP/1.1 400") || text.starts_with("HTTP/1.0 400"),
        "{name}: wanted 400, got {text:?}"
    );
    assert_eq!(text.matches("HTTP/1.").count(), 1, "{name}: {text:?}");
}

#[test]
fn a33_requests_two_readers_could_read_differently_are_refused() {
    let server = Server::shared();
    let client = server.client();
    let location = client.open_upload("a33/upload");
    let patch = format!("PATCH {location} HTTP/1.1\r\nHost: x\r\n");
    let get = "GET /v2/ HTTP/1.1\r\nHost: x\r\n";
    let chunked = "Transfer-Encoding: chunked\r\n";
    let end = "0\r\n\r\n";
    let cases = [
        (
            "length and chunks",
            format!("{patch}Content-Length: 5\r\n{chunked}\r\n{end}{SMUGGLED}"),
        ),
        (
            "chunks and length",
            format!("{patch}{chunked}Content-Length: 5\r\n\r\n{end}{SMUGGLED}"),
        ),
        (
            "two lengths",
            format!("{patch}Content-Length: 0\r\nContent-Length: 38\r\n\r\n{SMUGGLED}"),
        ),
        (
            "a list of lengths",
            format!("{patch}Content-Length: 0, 38\r\n\r\n{SMUGGLED}"),
        ),
        (
            "a signed length",
            format!("{patch}Content-Length: +5\r\n\r\nbytes{SMUGGLED}"),
        ),
        (
            "a negative length",
            format!("{patch}Content-Length: -5\r\n\r\nbytes{SMUGGLED}"),
        ),
        (
            "a length that is no number",
            format!("{patch}Content-Length: 0x5\r\n\r\nbytes{SMUGGLED}"),
        ),
        (
            "a length beyond 64 bits",
            format!("{patch}Content-Length: 18446744073709551617\r\n\r\nb{SMUGGLED}"),
        ),
        (
            "chunked is not last",
            format!("{patch}Transfer-Encoding: chunked, identity\r\n\r\n{end}{SMUGGLED}"),
        ),
        (
            "an unknown coding",
            format!("{patch}Transfer-Encoding: xchunked\r\n\r\n{end}{SMUGGLED}"),
        ),
        (
            "a folded header",
            format!("{get}X-Folded: one\r\n two\r\n\r\n"),
        ),
        (
            "a space before the colon",
            format!("{patch}Content-Length : 0\r\n\r\n{SMUGGLED}"),
        ),
        (
            "a line that ends with LF alone",
            "GET /v2/ HTTP/1.1\nHost: x\n\n".to_owned(),
        ),
        (
            "a header that ends with LF alone",
            format!("{get}X-One: 1\nX-Two: 2\r\n\r\n"),
        ),
        ("a NUL in a header", format!("{get}X-Nul: a\0b\r\n\r\n")),
        ("a CR in a header", format!("{get}X-Cr: a\rb\r\n\r\n")),
    ];
    for (name, bytes) in cases {
        refused_and_closed(&server, name, &bytes);
    }
    // At once also where the head comes in pieces, and nothing after it.
    let mut wire = Wire::connect(server.address());
    assert!(wire.send(format!("{patch}Content-Length: 5\r\n").as_bytes()));
    server.wait_until_read();
    assert!(wire.send(format!("{chunked}\r\n").as_bytes()));
    wire.reply("PATCH in pieces").expect(400);
    client.get(&location).expect(204);
}

#[test]
fn a33_broken_chunks_end_the_connection_and_store_nothing() {
    let server = Server::shared();
    let client = server.client();
    let cases = [
        ("LF in an extension", "5;a\nb\r\nbytes\r\n0\r\n\r\n"),
        ("LF after the size", "5\nbytes\r\n0\r\n\r\n"),
        ("a signed size", "+5\r\nbytes\r\n0\r\n\r\n"),
        ("a size with 0x", "0x5\r\nbytes\r\n0\r\n\r\n"),
        (
            "a size beyond 64 bits",
            "10000000000000005\r\nbytes\r\n0\r\n\r\n",
        ),
        ("no line end after a chunk", "5\r\nbytes0\r\n\r\n"),
        ("an empty size", "\r\nbytes\r\n0\r\n\r\n"),
    ];
    for (name, body) in cases {
        let location = client.open_upload("a33/chunks");
        let digest = data::sha256(b"bytes");
        let target = with_digest(&location, &digest);
        let mut wire = Wire::connect(server.address());
        let head =
            format!("PUT {target} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
        wire.send(format!("{head}{body}{SMUGGLED}").as_bytes());
        wire.finish();
        let text = String::from_utf8_lossy(&wire.rest()).into_owned();
        assert!(
            text.is_empty() || text.starts_with("HTTP/1.1 400"),
            "{name}: {text:?}"
        );
        assert!(text.matches("HTTP/1.").count() <= 1, "{name}: {text:?}");
        client.get(&blob("a33/chunks", &digest)).expect(404);
    }
}

/// Names of the headers of an answer, sorted.
fn names(reply: &Reply) -> Vec<&str> {
    let mut names: Vec<&str> = reply
        .headers
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    names.sort_unstable();
    names
}

#[test]
fn a34_line_ends_in_names_never_become_headers() {
    let server = Server::shared();
    let client = server.client();
    let digest = client.push_blob("a34/lines", b"bytes");
    let image = oci::image(&client, "a34/lines", &[b"layer"]);
    image.put(&client, "a34/lines", "v1");
    image.put(&client, "a34/lines", "v2");
    let upload = client.open_upload("a34/lines");
    let uploads = "/v2/a34/lines/blobs/uploads/";
    for (method, before, after) in [
        ("GET", "/v2/a34", "/tags/list".to_owned()),
        ("GET", "/v2/a34/lines/manifests/v1", String::new()),
        ("GET", "/v2/a34/lines/blobs/sha256:", String::new()),
        ("POST", "/v2/a34", "/blobs/uploads/".to_owned()),
        (
            "POST",
            &format!("{uploads}?mount={digest}&from=a34/lines"),
            String::new(),
        ),
        (
            "POST",
            &format!("{uploads}?mount="),
            "&from=a34/lines".to_owned(),
        ),
        (
            "POST",
            &format!("{uploads}?digest-algorithm=sha256"),
            String::new(),
        ),
        ("GET", "/v2/a34/lines/blobs/uploads/", String::new()),
        ("PUT", &format!("{upload}?digest={digest}"), String::new()),
        ("GET", "/v2/a34/lines/tags/list?n=1&last=", String::new()),
        ("GET", "/v2/a34/lines/tags/list?n=1", String::new()),
        ("GET", "/", String::new()),
    ] {
        let ask = |what: &str| server.raw(method, &format!("{before}{what}{after}"), &[], b"");
        // Answered for a like reason, and without any line end.
        let tame = ["%00", "%01", "%21", "%7e"].map(ask);
        for lines in ["%0d%0a", "%0a", "%0D", "%00", "%E5%98%8A%E5%98%8D"] {
            let reply = ask(&format!("{lines}X-Evil:%201{lines}Set-Cookie:%20evil=1"));
            let what = &reply.what;
            let is_twin =
                |tame: &Reply| tame.status == reply.status && names(tame) == names(&reply);
            assert!(
                tame.iter().any(is_twin),
                "{what}: {} {:?}",
                reply.status,
                names(&reply)
            );
            for (name, value) in &reply.headers {
                assert!(
                    !value.to_lowercase().contains("evil"),
                    "{what}: {name}: {value}"
                );
            }
        }
    }
}

#[test]
fn a102_numbers_at_the_edge_of_64_bits_are_refused_or_exact() {
    let server = Server::shared();
    let client = server.client();
    let location = client.open_upload("a102/edge");
    let location = client
        .patch_at(&location, 0, b"0123456789")
        .expect(202)
        .location();
    // An offset and a length whose sum is beyond.
    for framing in [
        "Content-Length: 18446744073709551615",
        "Content-Length: 18446744073709551615\r\nContent-Range: 10-18446744073709551615",
        "Content-Length: 9223372036854775807\r\nContent-Range: 10-9223372036854775816",
    ] {
        let mut wire = Wire::connect(server.address());
        wire.send(format!("PATCH {location} HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n").as_bytes());
        wire.finish();
        let status = wire.reply("PATCH at the edge").status;
        assert!(
            status == 0 || (400..500).contains(&status),
            "{framing}: {status}"
        );
    }
    assert_eq!(client.get(&location).expect(204).header("range"), "0-9");
    let digest = client.push_blob("a102/edge", b"0123456789");
    let range = client.range(&blob("a102/edge", &digest), "bytes=1-18446744073709551615");
    assert_eq!(range.expect(206).header("content-range"), "bytes 1-9/10");
    // Sizes that are fine alone, and whose sum is not.
    let size = i64::MAX;
    let layer = format!(
        "{{\"mediaType\":\"{}\",\"digest\":\"{digest}\",\"size\":{size}}}",
        oci::LAYER
    );
    let layers = [layer.as_str(); 4].join(",");
    let config = layer.replace(oci::LAYER, oci::CONFIG);
    let document = format!(
        "{{\"schemaVersion\":2,\"mediaType\":\"{}\",\"config\":{config},\"layers\":[{layers}]}}",
        oci::IMAGE
    );
    let put = client.put_manifest("a102/edge", "v1", oci::IMAGE, document.as_bytes());
    put.expect_any(&[201, 400]);
    client
        .get("/v2/a102/edge/tags/list")
        .expect_any(&[200, 404]);
}

#[test]
fn a36_content_ranges_that_do_not_fit_are_refused_with_the_offset() {
    let client = Client::shared();
    let location = client.open_upload("a36/ranges");
    let bytes = data::bytes(36, 3000);
    let location = client
        .patch_at(&location, 0, &bytes[..1000])
        .expect(202)
        .location();
    let piece = &bytes[1000..2000];
    let misplaced = [
        "5-3",
        "0-18446744073709551615",
        "1001-2000",
        "2000-2999",
        "999-1998",
        "0-999",
    ];
    // Right in front, but of another length than the body, or no range.
    let malformed = [
        "1000-1000",
        "1000-2500",
        "1000-18446744073709551616",
        "18446744073709551615-18446744073709551615",
        "-1000",
        "1000-",
        "a-b",
        "",
    ];
    for range in misplaced.into_iter().chain(malformed) {
        let headers = [("Content-Range", range)];
        let reply = client
            .call("PATCH", &location, &headers, piece.to_vec())
            .expect_any(&[400, 416]);
        assert!(
            reply.status == 416 || malformed.contains(&range),
            "{range}: {}",
            reply.status
        );
        if reply.status == 416 {
            assert_eq!(reply.header("range"), "0-999", "{range}");
        }
        let status = client.get(&location).expect(204);
        assert_eq!(status.header("range"), "0-999", "{range}");
    }
    let location = client
        .patch_at(&location, 1000, &bytes[1000..])
        .expect(202)
        .location();
    let digest = data::sha256(&bytes);
    client.finish(&location, &digest, "").expect(201);
    client.blob_is("a36/ranges", &digest, &bytes);
}

/// Asks what the server has and sends the rest; returns the next location.
/// The cut request may hold the session for a moment: then it is asked again.
fn resume(client: &Client, location: &str, bytes: &[u8]) -> String {
    let began = Instant::now();
    loop {
        let status = client.get(location).expect(204);
        let last: usize = status
            .header("range")
            .strip_prefix("0-")
            .and_then(|n| n.parse().ok())
            .expect("a range from 0");
        // `0-0` is both nothing and one byte: no test here sends one.
        let offset = if last == 0 { 0 } else { last + 1 };
        assert!(offset <= bytes.len(), "{offset} of {} bytes", bytes.len());
        let reply = client
            .patch_at(&status.location(), offset as u64, &bytes[offset..])
            .expect_any(&[202, 409, 416]);
        if reply.status == 202 {
            return reply.location();
        }
        assert!(
            began.elapsed() < Duration::from_secs(5),
            "the cut request holds the session: {}",
            reply.text()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Sends a body that is cut short, then resumes and finishes.
fn cut_and_resume(repository: &str, framing: &str, sent: &[u8], bytes: &[u8]) {
    let server = Server::shared();
    let client = server.client();
    let location = client.open_upload(repository);
    let mut wire = Wire::connect(server.address());
    wire.send(format!("PATCH {location} HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n").as_bytes());
    wire.send(sent);
    // Time for the server to read it: what is cut is a body under way.
    std::thread::sleep(Duration::from_millis(200));
    drop(wire);
    let location = resume(&client, &location, bytes);
    let digest = data::sha256(bytes);
    client.finish(&location, &digest, "").expect(201);
    client.blob_is(repository, &digest, bytes);
}

#[test]
fn a37_a_body_shorter_than_its_length_can_be_resumed() {
    let bytes = data::bytes(37, 1_000_000);
    cut_and_resume(
        "a37/length",
        "Content-Length: 1000000",
        &bytes[..600_001],
        &bytes,
    );
}

#[test]
fn a37_chunks_without_an_end_can_be_resumed() {
    let bytes = data::bytes(38, 1_000_000);
    let mut sent = format!("{:x}\r\n", 500_000).into_bytes();
    sent.extend_from_slice(&bytes[..500_000]);
    sent.extend_from_slice(b"\r\n7a120\r\n");
    sent.extend_from_slice(&bytes[500_000..700_000]);
    cut_and_resume("a37/chunks", "Transfer-Encoding: chunked", &sent, &bytes);
}

#[test]
fn a37_a_cut_put_commits_nothing() {
    let server = Server::shared();
    let client = server.client();
    let bytes = data::bytes(39, 500_000);
    // The digest of what arrives: the length alone says that more was meant.
    let digest = data::sha256(&bytes[..300_000]);
    let location = client.open_upload("a37/put");
    let mut wire = Wire::connect(server.address());
    let target = with_digest(&location, &digest);
    let head = format!("PUT {target} HTTP/1.1\r\nHost: x\r\nContent-Length: 500000\r\n\r\n");
    wire.send(head.as_bytes());
    wire.send(&bytes[..300_000]);
    std::thread::sleep(Duration::from_millis(200));
    drop(wire);
    std::thread::sleep(Duration::from_millis(200));
    client.get(&blob("a37/put", &digest)).expect(404);
}

#[test]
fn a37_a_range_unlike_the_body_is_refused() {
    let client = Client::shared();
    let location = client.open_upload("a37/range");
    for range in ["0-9", "0-98", "0-100"] {
        let headers = [("Content-Range", range)];
        client
            .call("PATCH", &location, &headers, data::bytes(1, 100))
            .expect_any(&[400, 416]);
    }
    let status = client.get(&location).expect(204);
    assert_eq!(status.header("range"), "0-0");
}

#[test]
fn a38_impossible_ranges_never_answer_a_cut_206() {
    let client = Client::shared();
    let bytes = data::bytes(40, 4096);
    let digest = client.push_blob("a38/range", &bytes);
    let path = blob("a38/range", &digest);
    for range in [
        "bytes=500-0",
        "bytes=4096-",
        "bytes=4096-8191",
        "bytes=-0",
        "bytes=18446744073709551615-",
        "bytes=18446744073709551616-18446744073709551617",
        "bytes=-",
        "bytes=",
        "bytes",
        "bytes=a-b",
        "bytes=1-2-3",
        "bytes=+1-2",
        "lines=0-1",
    ] {
        let reply = client.range(&path, range).expect_any(&[200, 416]);
        if reply.status == 200 {
            assert!(reply.body == bytes, "{range}");
        } else {
            assert_eq!(reply.header("content-range"), "bytes */4096", "{range}");
        }
    }
    // Several parts: the whole body or one refusal, never more bytes.
    for range in ["bytes=0-1,5-6", "bytes=0-,0-,0-,0-", "bytes=0-4095,0-4095"] {
        let reply = client.range(&path, range).expect_any(&[200, 416]);
        assert!(reply.status == 416 || reply.body == bytes, "{range}");
    }
}

#[test]
fn a38_every_range_of_an_empty_blob_is_past_its_end() {
    let client = Client::shared();
    let digest = client.push_blob("a38/empty", b"");
    let path = blob("a38/empty", &digest);
    for range in ["bytes=0-", "bytes=0-0", "bytes=-1"] {
        let reply = client.range(&path, range).expect_any(&[200, 416]);
        assert!(reply.status == 416 || reply.body.is_empty(), "{range}");
    }
}

#[test]
fn a40_other_methods_are_not_allowed() {
    let server = Server::shared();
    let client = server.client();
    let digest = client.push_blob("a40/methods", b"stays");
    let image = oci::image(&client, "a40/methods", &[b"layer"]);
    image.put(&client, "a40/methods", "v1");
    let upload = client.open_upload("a40/methods");
    let paths = [
        "/v2/",
        "/v2/a40/methods/manifests/v1",
        "/v2/a40/methods/tags/list",
        "/v2/a40/methods/blobs/uploads/",
        &blob("a40/methods", &digest),
        &upload,
    ];
    for path in paths {
        for method in ["TRACE", "PROPFIND", "BREW", "LINK", "MKCOL"] {
            let reply = server.raw(method, path, &[], b"");
            assert_eq!(reply.status, 405, "{}", reply.what);
            assert_eq!(reply.code(), "UNSUPPORTED", "{}", reply.what);
        }
    }
    for (method, path) in [
        ("POST", "/v2/a40/methods/manifests/v1"),
        ("PATCH", "/v2/a40/methods/manifests/v1"),
        ("PUT", "/v2/a40/methods/tags/list"),
        ("DELETE", "/v2/a40/methods/tags/list"),
        ("PUT", "/v2/"),
        ("POST", &blob("a40/methods", &digest)),
        ("PUT", &blob("a40/methods", &digest)),
        ("GET", "/v2/a40/methods/blobs/uploads/"),
    ] {
        let reply = server.raw(method, path, &[], b"");
        assert_eq!(reply.status, 405, "{}", reply.what);
    }
    let connect = server.raw("CONNECT", "example.org:443", &[], b"");
    assert!(matches!(connect.status, 400 | 405), "{}", connect.status);
    // A header does not change the method.
    for header in [
        "X-HTTP-Method-Override",
        "X-HTTP-Method",
        "X-Method-Override",
    ] {
        let path = blob("a40/methods", &digest);
        let reply = server.raw("GET", &path, &[(header, "DELETE")], b"");
        assert_eq!(reply.body, b"stays");
    }
    image.is_at(&client, "a40/methods", "v1");
}

/// Requests whose names and headers try to write lines of their own.
fn hostile(server: &Server) -> Vec<Reply> {
    let agents: [&[u8]; 4] = [
        b"plain",
        b"quote\" backslash\\ {\"level\":\"error\"}",
        b"high \xff\xfe bytes",
        b"tab\there",
    ];
    let targets = [
        "/v2/a97%0d%0a%7b%22forged%22:true%7d/tags/list",
        "/v2/a97/manifests/v1%1b%5b31m",
        "/v2/a97%00/tags/list",
        "/v2/a97/tags/list?last=%0aforged",
    ];
    let mut replies = Vec::new();
    for agent in agents {
        for target in targets {
            let mut wire = Wire::connect(server.address());
            let mut bytes =
                format!("GET {target} HTTP/1.1\r\nHost: x\r\nUser-Agent: ").into_bytes();
            bytes.extend_from_slice(agent);
            bytes.extend_from_slice(b"\r\nConnection: close\r\n\r\n");
            wire.send(&bytes);
            replies.push(wire.reply(&format!("GET {target}")));
        }
    }
    replies
}

#[test]
fn a97_hostile_text_stays_inside_one_json_line() {
    let mut server = Server::start();
    let replies = hostile(&server);
    server.stop();
    let log = server.log();
    assert!(
        log.chars().all(|c| c == '\n' || !c.is_control()),
        "control characters in the log"
    );
    for reply in replies {
        assert!((400..500).contains(&reply.status), "{}", reply.what);
        let id = reply.header("x-request-id");
        let lines: Vec<&str> = log.lines().filter(|line| line.contains(id)).collect();
        assert!(!lines.is_empty(), "{} is not in the log", reply.what);
        for line in lines {
            let parsed: serde_json::Value =
                serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
            assert!(parsed.get("forged").is_none());
        }
    }
}

#[test]
fn a97_hostile_text_stays_inside_one_plain_line() {
    let mut server = Setup::default().env("ORLOP_LOG_FORMAT", "text").start();
    let replies = hostile(&server);
    server.stop();
    let log = server.log();
    let bad = log
        .lines()
        .find(|line| line.chars().any(char::is_control) || line.starts_with("forged"));
    assert!(bad.is_none(), "{bad:?}");
    for reply in replies {
        let id = reply.header("x-request-id");
        assert!(log.contains(id), "{} is not in the log", reply.what);
    }
}
