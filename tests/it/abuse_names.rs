//! Abuse cases A01 to A07 and A09: names, paths, digests, ids.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use orlop_tests::client::{Client, blob, manifest};
use orlop_tests::oci::{self, Manifest};
use orlop_tests::server::Server;
use orlop_tests::{data, place, tools};
use serde_json::json;

/// Names that must never reach storage, as they stand in a request's target.
const BAD_NAMES: &[&str] = &[
    "A/b",
    "a//b",
    "a/../b",
    "../b",
    "a/./b",
    "_blobstore",
    "-x",
    "x-",
    ".x",
    "x.",
    "a___b",
    "a..b",
    "a/-b",
    "a%00b",
    "a%0d%0ab",
    "a%0ab",
    "a%20b",
    "a:b",
    "a@b",
    "a%5cb",
    "%d0%b0/b",
    "a%ef%bc%8fb",
    "caf%c3%a9",
    "%ff%fe",
    "a%2f%2e%2e%2fb",
];

fn long(length: usize) -> String {
    "a".repeat(length)
}

/// Every way to use a repository's name.
fn uses(server: &Server, name: &str) -> Vec<orlop_tests::reply::Reply> {
    let absent = data::sha256(b"absent");
    let manifest = b"{}".as_slice();
    [
        ("GET", format!("/v2/{name}/tags/list"), b"".as_slice()),
        ("GET", format!("/v2/{name}/manifests/v1"), b""),
        ("PUT", format!("/v2/{name}/manifests/v1"), manifest),
        ("GET", format!("/v2/{name}/blobs/{absent}"), b""),
        ("POST", format!("/v2/{name}/blobs/uploads/"), b""),
    ]
    .into_iter()
    .map(|(method, target, body)| server.raw(method, &target, &[], body))
    .collect()
}

/// strace on a running server, to see which files it opens.
struct Trace {
    strace: Child,
    out: tempfile::TempDir,
}

impl Trace {
    fn start(server: &Server) -> Option<Trace> {
        let program = tools::need("strace")?;
        let out = place::dir();
        let mut strace = Command::new(program)
            .args(["-f", "-qq", "-s", "4096", "-e", "trace=%file", "-o"])
            .arg(out.path().join("trace"))
            .args(["-p", &server.pid().to_string()])
            .stderr(Stdio::null())
            .spawn()
            .expect("start strace");
        let began = Instant::now();
        let status = format!("/proc/{}/status", server.pid());
        while fs::read_to_string(&status)
            .expect("status of the server")
            .contains("TracerPid:\t0")
        {
            let ended = strace.try_wait().expect("state of strace").is_some();
            if ended || began.elapsed() > Duration::from_secs(10) {
                let _ = strace.kill();
                let _ = strace.wait();
                tools::skipped("strace may not attach here");
                return None;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Some(Trace { strace, out })
    }

    /// The quoted paths of every file call so far.
    fn paths(mut self) -> Vec<String> {
        // SIGTERM makes strace detach and write out what it has.
        let pid = self.strace.id().to_string();
        tools::run(Command::new("kill").args(["-TERM", &pid]));
        let _ = self.strace.wait();
        let trace = fs::read(self.out.path().join("trace")).expect("the trace");
        String::from_utf8_lossy(&trace)
            .lines()
            .flat_map(|line| line.split('"').skip(1).step_by(2).map(str::to_owned))
            .collect()
    }
}

#[test]
fn a01_traversal_in_the_path_opens_nothing_outside_the_root() {
    let server = Server::start();
    let client = server.client();
    let trace = Trace::start(&server);
    // A harmless push, so that the trace is known to see file calls.
    let image = oci::image(&client, "a01/ok", &[&data::bytes(1, 3 << 20)]);
    image.put(&client, "a01/ok", "v1");
    for target in [
        "/v2/..%2f..%2fetc%2fpasswd/manifests/x",
        "/v2/%2F%2F%2Fetc%2Fpasswd/manifests/x",
        "/v2/%2F%2F%2Fetc/passwd/tags/list",
        "/v2/../../../../etc/passwd/tags/list",
        "/v2/a/../../../etc/passwd/blobs/uploads/",
        "/v2/a/manifests/..%2f..%2f..%2f..%2fetc%2fpasswd",
        "/v2/a/blobs/sha256:..%2f..%2f..%2fetc%2fpasswd",
        "/v2/a/blobs/uploads/..%2f..%2f..%2fetc%2fpasswd",
        "/v2/%2e%2e/%2e%2e/etc/passwd/tags/list",
        "/..%2f..%2fetc%2fpasswd",
        "//etc/passwd",
        "/v2//etc/passwd",
    ] {
        for method in ["GET", "HEAD", "DELETE", "PUT", "POST", "PATCH"] {
            let reply = server.raw(method, target, &[], b"");
            assert!(
                matches!(reply.status, 400 | 404 | 405),
                "{}: {} {}",
                reply.what,
                reply.status,
                reply.text()
            );
            assert!(!reply.text().contains("root:"), "{}", reply.what);
        }
    }
    let Some(trace) = trace else { return };
    let root = server.data().display().to_string();
    for path in trace.paths() {
        assert!(!path.contains("passwd"), "the server looked at {path}");
        // SQLite looks at each folder on the way to its file.
        let on_the_way = Path::new(&root).starts_with(&path);
        let inside = path.starts_with(&root) || !path.starts_with('/') || on_the_way;
        let kernel = ["/proc/", "/sys/", "/dev/"]
            .iter()
            .any(|p| path.starts_with(p));
        let clock = path == "/etc/localtime" || path.starts_with("/usr/share/zoneinfo");
        assert!(inside || kernel || clock, "{path} is outside of {root}");
        assert!(!path.contains(".."), "the server built the path {path}");
    }
}

#[test]
fn a02_bad_repository_names_are_invalid() {
    let server = Server::shared();
    let too_long = long(256);
    let too_deep = format!("{}b", "a/".repeat(128));
    let generated = [too_long.as_str(), too_deep.as_str()];
    for name in BAD_NAMES.iter().copied().chain(generated) {
        for reply in uses(&server, name) {
            reply.refused(400, "NAME_INVALID");
        }
    }
    // The longest good name is good.
    for reply in uses(&server, &long(255)) {
        assert_ne!(reply.code_or_none().as_deref(), Some("NAME_INVALID"));
    }
}

#[test]
fn a02_raw_control_bytes_in_the_target_are_refused() {
    let server = Server::shared();
    for bad in ["a\0b", "a\rb", "a\x1bb", "a\tb", "a b"] {
        let reply = server.raw("GET", &format!("/v2/{bad}/tags/list"), &[], b"");
        assert!(
            matches!(reply.status, 0 | 400 | 505),
            "{bad:?}: {}",
            reply.status
        );
    }
}

/// Digests that are none, as text and as they stand in a target.
fn bad_digests() -> Vec<(String, String)> {
    let hex = data::sha256(b"x")["sha256:".len()..].to_owned();
    let forms = [
        "sha256:../../x".to_owned(),
        format!("sha256:{}", hex.to_uppercase()),
        format!("sha256:{}", &hex[1..]),
        format!("sha256:{hex}0"),
        format!("sha256:{}g", &hex[1..]),
        "sha256:".to_owned(),
        format!("SHA256:{hex}"),
        format!("sha-256:{hex}"),
        format!("sha512:{hex}"),
        "md5:d41d8cd98f00b204e9800998ecf8427e".to_owned(),
        format!("sha256:{}", "0".repeat(10_000)),
        format!("{}:{hex}", "a".repeat(10_000)),
        format!("sha256:{hex}\0"),
        format!(":{hex}"),
    ];
    forms
        .into_iter()
        .map(|form| {
            let target = form.replace('/', "%2f").replace('\0', "%00");
            (form, target)
        })
        .collect()
}

#[test]
fn a03_bad_digests_in_the_path_are_invalid() {
    let server = Server::shared();
    server.client().push_blob("a03/path", b"exists");
    for (form, target) in bad_digests() {
        for method in ["GET", "HEAD"] {
            let path = format!("/v2/a03/path/blobs/{target}");
            server
                .raw(method, &path, &[], b"")
                .refused(400, "DIGEST_INVALID");
        }
        let path = format!("/v2/a03/path/manifests/{target}");
        let reply = server.raw("GET", &path, &[], b"");
        assert!(
            matches!(reply.status, 400 | 404),
            "{form:.80}: {}",
            reply.status
        );
    }
    // With real slashes the path is another one: refused, never a 5xx.
    let reply = server.raw("GET", "/v2/a03/path/blobs/sha256:../../x", &[], b"");
    assert!(matches!(reply.status, 400 | 404), "{}", reply.status);
}

#[test]
fn a03_bad_digests_in_a_query_are_invalid() {
    let server = Server::shared();
    let client = server.client();
    for (_, target) in bad_digests() {
        let location = client.open_upload("a03/query");
        let path = orlop_tests::client::with_digest(&location, &target);
        server
            .raw("PUT", &path, &[], b"bytes")
            .refused(400, "DIGEST_INVALID");
        let path = format!("/v2/a03/query/blobs/uploads/?mount={target}&from=a03/query");
        let reply = server.raw("POST", &path, &[], b"");
        assert!(
            matches!(reply.status, 202 | 400),
            "{} {}",
            reply.what,
            reply.status
        );
    }
}

#[test]
fn a03_bad_digests_inside_manifests_are_invalid() {
    let client = Client::shared();
    let image = oci::image(&client, "a03/inside", &[b"layer"]);
    let document: serde_json::Value = serde_json::from_slice(&image.bytes).unwrap();
    for (form, _) in bad_digests() {
        for place in ["config", "layer", "subject"] {
            let mut bad = document.clone();
            match place {
                "config" => bad["config"]["digest"] = json!(form),
                "layer" => bad["layers"][0]["digest"] = json!(form),
                _ => bad["subject"] = oci::descriptor(oci::IMAGE, &form, 3),
            }
            let bad = Manifest::json(oci::IMAGE, &bad);
            let reply = client
                .put_manifest("a03/inside", "v1", oci::IMAGE, &bad.bytes)
                .expect(400);
            let code = reply.code();
            assert!(
                code == "DIGEST_INVALID" || code == "MANIFEST_INVALID",
                "{place} {form:.80}: {code}"
            );
        }
    }
    client.get(&manifest("a03/inside", "v1")).expect(404);
}

#[test]
fn a04_bad_tags_are_refused() {
    let server = Server::shared();
    let client = server.client();
    let image = oci::image(&client, "a04/tags", &[b"layer"]);
    let too_long = long(129);
    let kind = [("Content-Type", oci::IMAGE)];
    for tag in [
        too_long.as_str(),
        "v1:2",
        "v1%00",
        "v1%2f2",
        "-v1",
        ".v1",
        "v%201",
        "v%0a1",
        "v+1",
        "%c3%a9",
        "latest%40x",
    ] {
        let path = manifest("a04/tags", tag);
        let reply = server.raw("PUT", &path, &kind, &image.bytes).expect(400);
        assert!(!reply.code().is_empty());
        let reply = server.raw("GET", &path, &[], b"");
        assert!(matches!(reply.status, 400 | 404), "{tag}: {}", reply.status);
    }
    image.put(&client, "a04/tags", &long(128));
    image.is_at(&client, "a04/tags", &long(128));
    let tags = client.get("/v2/a04/tags/tags/list").expect(200);
    assert_eq!(tags.json()["tags"], json!([long(128)]));
}

#[test]
fn a04_a_tag_that_parses_as_a_digest_is_a_digest() {
    let client = Client::shared();
    let image = oci::image(&client, "a04/digest", &[b"layer"]);
    let other = data::sha256(b"other");
    client
        .put_manifest("a04/digest", &other, oci::IMAGE, &image.bytes)
        .refused(400, "DIGEST_INVALID");
    client.get(&manifest("a04/digest", &other)).expect(404);
}

#[test]
fn a05_foreign_upload_ids_are_unknown() {
    let server = Server::shared();
    let client = server.client();
    let own = client.open_upload("a05/uploads");
    let id = own.rsplit('/').next().unwrap_or_default();
    let id = id.split('?').next().unwrap_or_default().to_owned();
    let digest = data::sha256(b"bytes");
    let long_id = long(10_000);
    let mut upper = id.to_uppercase();
    if upper == id {
        upper.push('0');
    }
    let longer = format!("{id}0");
    for bad in [
        "x",
        "..",
        "%2e%2e",
        "..%2f..%2fetc%2fpasswd",
        "%00",
        "00000000-0000-4000-8000-000000000000",
        "00000000000000000000000000000000",
        "-1",
        "%ff",
        &long_id,
        &upper,
        &longer,
        &id[1..],
    ] {
        let path = format!("/v2/a05/uploads/blobs/uploads/{bad}");
        let done = format!("{path}?digest={digest}");
        for (method, target) in [
            ("GET", &path),
            ("PATCH", &path),
            ("DELETE", &path),
            ("PUT", &done),
        ] {
            server
                .raw(method, target, &[], b"")
                .refused(404, "BLOB_UPLOAD_UNKNOWN");
        }
    }
    client.get(&own).expect(204);
}

#[test]
fn a06_escapes_are_decoded_once() {
    let server = Server::shared();
    for name in ["%252e%252e", "a%252fb", "a%2500b", "%252e%252e%252fetc"] {
        for reply in uses(&server, name) {
            reply.refused(400, "NAME_INVALID");
        }
    }
    // Broken escapes are no names either.
    for name in ["a%", "a%2", "a%zz"] {
        for reply in uses(&server, name) {
            assert!(matches!(reply.status, 400 | 404), "{}", reply.what);
        }
    }
    // A good name, escaped once, is that name.
    let client = server.client();
    let image = oci::image(&client, "a06/ok", &[b"layer"]);
    image.put(&client, "a06/ok", "v1");
    server
        .raw("GET", "/v2/a06%2fok/manifests/v%31", &[], b"")
        .expect(200);
}

#[test]
fn a07_names_that_differ_in_case_are_never_aliased() {
    let client = Client::shared();
    let lower = oci::image(&client, "a07/repo", &[b"lower"]);
    let upper = oci::image(&client, "a07/repo", &[b"upper"]);
    lower.put(&client, "a07/repo", "latest");
    upper.put(&client, "a07/repo", "LATEST");
    lower.is_at(&client, "a07/repo", "latest");
    upper.is_at(&client, "a07/repo", "LATEST");
    client
        .get(&manifest("a07/repo", "Latest"))
        .refused(404, "MANIFEST_UNKNOWN");
    client
        .get(&manifest("A07/repo", "latest"))
        .refused(400, "NAME_INVALID");
    // Composed and decomposed forms are both no names.
    for name in ["caf%c3%a9", "cafe%cc%81"] {
        client
            .get(&manifest(name, "latest"))
            .refused(400, "NAME_INVALID");
    }
}

#[test]
fn a09_a_mount_from_a_bad_source_is_a_plain_upload() {
    let client = Client::shared();
    let bytes = data::bytes(9, 1000);
    let digest = client.push_blob("a09/source", &bytes);
    for from in [
        "&from=",
        "&from=..%2f..%2fetc",
        "&from=../../etc",
        "&from=A09%2fsource",
        "&from=a09/nothing/here",
        "&from=%00",
        "&from=_blobstore",
    ] {
        let path = format!("/v2/a09/target/blobs/uploads/?mount={digest}{from}");
        let reply = client.call("POST", &path, &[], "").expect(202);
        assert!(reply.body.is_empty(), "{from}: {}", reply.text());
        assert!(!reply.location().is_empty());
    }
    client.get(&blob("a09/target", &digest)).expect(404);
}
