//! Abuse cases A27, A41 to A43, A45 and A46: content that is not what it is
//! called, that leads elsewhere, or that is asked for in a thousand parts.

use std::io::ErrorKind;
use std::net::TcpListener;
use std::thread;
use std::time::Duration;

use orlop_tests::client::{Client, blob, manifest, with_digest};
use orlop_tests::data;
use orlop_tests::oci::{self, Manifest};
use orlop_tests::raw::Wire;
use orlop_tests::reply::Reply;
use orlop_tests::server::Server;
use serde_json::{Value, json};

#[test]
fn a41_digest_mismatch_links_nothing() {
    let client = Client::shared();
    // Inline, and large enough to be on its way to a segment.
    for (seed, size) in [(41, 1000), (42, 3 << 20)] {
        let bytes = data::bytes(seed, size);
        let claimed = data::sha256(b"something else");
        let location = client.open_upload("a41/mismatch");
        client
            .finish(&location, &claimed, bytes.clone())
            .refused(400, "DIGEST_INVALID");
        for digest in [&claimed, &data::sha256(&bytes)] {
            client.get(&blob("a41/mismatch", digest)).expect(404);
            client.head(&blob("a41/mismatch", digest)).expect(404);
        }
        client.get(&location).refused(404, "BLOB_UPLOAD_UNKNOWN");
        // A right push heals it.
        client.push_blob("a41/mismatch", &bytes);
        client.blob_is("a41/mismatch", &data::sha256(&bytes), &bytes);
    }
}

#[test]
fn a41_a_mismatch_after_patches_ends_the_session() {
    let client = Client::shared();
    let bytes = data::bytes(43, 200_000);
    let location = client.open_upload("a41/patched");
    let location = client
        .patch(&location, bytes.clone())
        .expect(202)
        .location();
    client
        .finish(&location, &data::sha256(b"other"), "")
        .refused(400, "DIGEST_INVALID");
    client.get(&location).refused(404, "BLOB_UPLOAD_UNKNOWN");
    client
        .get(&blob("a41/patched", &data::sha256(&bytes)))
        .expect(404);
}

/// Pushes bytes under a SHA-512 digest, in the way asked.
fn push_512(client: &Client, repository: &str, query: &str, bytes: &[u8]) -> String {
    let digest = data::sha512(bytes);
    let path = format!("/v2/{repository}/blobs/uploads/{query}");
    let location = client.call("POST", &path, &[], "").expect(202).location();
    let (first, rest) = bytes.split_at(bytes.len() / 3);
    let location = client
        .patch(&location, first.to_vec())
        .expect(202)
        .location();
    let reply = client.finish(&location, &digest, rest.to_vec()).expect(201);
    assert_eq!(reply.header("docker-content-digest"), digest);
    digest
}

#[test]
fn a42_each_address_serves_its_own_digest() {
    let client = Client::shared();
    let repository = "a42/blobs";
    for (query, size) in [
        ("", 5000),
        ("?digest-algorithm=sha512", 6000),
        ("", 2 << 20),
        ("?digest-algorithm=sha512", 3 << 20),
    ] {
        let bytes = data::bytes(44, size);
        let long = push_512(&client, repository, query, &bytes);
        let short = client.push_blob(repository, &bytes);
        for digest in [&long, &short] {
            client.blob_is(repository, digest, &bytes);
            let head = client.head(&blob(repository, digest)).expect(200);
            assert_eq!(head.header("docker-content-digest"), digest);
            let range = client
                .range(&blob(repository, digest), "bytes=10-19")
                .expect(206);
            assert_eq!(range.header("docker-content-digest"), digest);
        }
    }
}

#[test]
fn a42_a_session_may_end_with_either_algorithm() {
    let client = Client::shared();
    let bytes = data::bytes(45, 100_000);
    let path = "/v2/a42/either/blobs/uploads/?digest-algorithm=sha512";
    let location = client.call("POST", path, &[], "").expect(202).location();
    let digest = data::sha256(&bytes);
    client.finish(&location, &digest, bytes.clone()).expect(201);
    client.blob_is("a42/either", &digest, &bytes);
}

#[test]
fn a42_a_wrong_sha512_is_a_mismatch() {
    let client = Client::shared();
    let location = client.open_upload("a42/wrong");
    client
        .finish(&location, &data::sha512(b"other"), "bytes")
        .refused(400, "DIGEST_INVALID");
    let unknown = client
        .call(
            "POST",
            "/v2/a42/wrong/blobs/uploads/?digest-algorithm=md5",
            &[],
            "",
        )
        .expect_any(&[202, 400]);
    assert!(unknown.status == 202 || !unknown.code().is_empty());
}

#[test]
fn a42_a_manifest_under_sha512() {
    let client = Client::shared();
    let repository = "a42/manifest";
    let image = oci::image(&client, repository, &[b"layer"]);
    let digest = data::sha512(&image.bytes);
    let reply = client
        .put_manifest(repository, &digest, oci::IMAGE, &image.bytes)
        .expect(201);
    assert_eq!(reply.header("docker-content-digest"), digest);
    let got = client.get(&manifest(repository, &digest)).expect(200);
    assert_eq!(got.header("docker-content-digest"), digest);
    assert!(got.body == image.bytes);
    image.put(&client, repository, "v1");
    image.is_at(&client, repository, "v1");
    image.is_at(&client, repository, &image.digest);
    let again = client.get(&manifest(repository, &digest)).expect(200);
    assert_eq!(again.header("docker-content-digest"), digest);
}

#[test]
fn a43_a_manifest_under_a_foreign_digest_is_refused() {
    let client = Client::shared();
    let repository = "a43/foreign";
    let image = oci::image(&client, repository, &[b"layer"]);
    for digest in [data::sha256(b"other"), data::sha512(b"other")] {
        client
            .put_manifest(repository, &digest, oci::IMAGE, &image.bytes)
            .refused(400, "DIGEST_INVALID");
        client.get(&manifest(repository, &digest)).expect(404);
    }
    client.get(&manifest(repository, &image.digest)).expect(404);
}

#[test]
fn a43_the_pushed_bytes_come_back_exactly() {
    let client = Client::shared();
    let repository = "a43/exact";
    let image = oci::image(&client, repository, &[b"layer"]);
    let text = String::from_utf8(image.bytes).unwrap();
    let forms = [
        format!("{text} "),
        format!("{text}\r\n\t "),
        format!("  {text}"),
        text.replace('\n', "").replace("  ", ""),
        text.replace("schemaVersion", "schema\\u0056ersion"),
        text.replace("vnd.oci.image.manifest", "vnd\\u002eoci.image.manifest"),
    ];
    for (i, form) in forms.into_iter().enumerate() {
        let manifest = Manifest::of(oci::IMAGE, form.into_bytes());
        let tag = format!("form{i}");
        manifest.put(&client, repository, &tag);
        manifest.is_at(&client, repository, &tag);
        manifest.is_at(&client, repository, &manifest.digest);
    }
}

#[test]
fn a43_a_digest_in_the_query_of_a_single_post_is_checked() {
    let client = Client::shared();
    let path = with_digest("/v2/a43/post/blobs/uploads/", &data::sha256(b"other"));
    let reply = client
        .call("POST", &path, &[], "bytes")
        .expect_any(&[202, 400]);
    assert!(reply.status == 202 || reply.code() == "DIGEST_INVALID");
    client
        .get(&blob("a43/post", &data::sha256(b"other")))
        .expect(404);
}

#[test]
fn a27_ranges_of_many_parts_send_no_more_than_the_blob() {
    let server = Server::shared();
    let client = server.client();
    let bytes = data::bytes(27, 300_000);
    let digest = client.push_blob("a27/parts", &bytes);
    let path = blob("a27/parts", &digest);
    let (many, overlapping) = ("0-0,".repeat(10_000), "0-,".repeat(5_000));
    let nested: String = (0..2_000)
        .map(|i| format!("{i}-{},", 299_999 - i))
        .collect();
    let backwards: String = (0..2_000).rev().map(|i| format!("{i}-{i},")).collect();
    for parts in [
        &many,
        &overlapping,
        &nested,
        &backwards,
        "0-9,10-19",
        "-1,-1",
        "0-,-1",
    ] {
        let range = format!("bytes={}", parts.trim_end_matches(','));
        let mut wire = Wire::connect(server.address());
        let head = format!(
            "GET {path} HTTP/1.1\r\nHost: x\r\nRange: {range}\r\nConnection: close\r\n\r\n"
        );
        wire.send(head.as_bytes());
        // Everything that is sent, to the end of the connection.
        let sent = wire.rest();
        let end = sent
            .windows(4)
            .position(|four| four == b"\r\n\r\n")
            .expect("a head");
        let status = String::from_utf8_lossy(&sent[9..12]).into_owned();
        let body = &sent[end + 4..];
        assert!(
            body.len() <= bytes.len(),
            "{range:.40}: {} bytes",
            body.len()
        );
        match status.as_str() {
            "200" => assert!(body == bytes, "{range:.40}"),
            "416" | "431" => {}
            other => panic!("{range:.40}: {other}"),
        }
    }
}

/// Fails the test unless a browser would keep this for a file.
#[track_caller]
fn is_inert(reply: &Reply) {
    assert_eq!(
        reply.header("x-content-type-options"),
        "nosniff",
        "{}",
        reply.what
    );
    assert_eq!(
        reply.header("content-disposition"),
        "attachment",
        "{}",
        reply.what
    );
    let policy = reply.header("content-security-policy");
    assert!(policy.contains("sandbox"), "{}: {policy}", reply.what);
    let kind = reply.header("content-type");
    for page in ["html", "xml", "svg", "javascript", "text/"] {
        assert!(!kind.contains(page), "{}: {kind}", reply.what);
    }
}

#[test]
fn a45_pages_and_pictures_are_files_to_whoever_asks() {
    let client = Client::shared();
    let repository = "a45/pages";
    let page = b"<!doctype html><script>fetch('/v2/_catalog')</script>".as_slice();
    let picture = br#"<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>"#.as_slice();
    for (content, kind) in [(page, "text/html"), (picture, "image/svg+xml")] {
        // Pushed as what it is, and listed as a layer and a configuration.
        let digest = data::sha256(content);
        let location = client.open_upload(repository);
        let path = with_digest(&location, &digest);
        let claimed = [("Content-Type", kind)];
        client
            .call("PUT", &path, &claimed, content.to_vec())
            .expect(201);
        let part = oci::descriptor(kind, &digest, content.len());
        let value = json!({
            "schemaVersion": 2,
            "mediaType": oci::IMAGE,
            "artifactType": kind,
            "config": part,
            "layers": [part],
            "annotations": {"title": String::from_utf8_lossy(content)},
        });
        let artifact = Manifest::json(oci::IMAGE, &value);
        artifact.put(&client, repository, "page");
        // However nicely a browser asks.
        let accept = ("Accept", "text/html,image/svg+xml;q=0.9,*/*;q=0.8");
        for path in [
            blob(repository, &digest),
            manifest(repository, "page"),
            manifest(repository, &artifact.digest),
        ] {
            for method in ["GET", "HEAD"] {
                is_inert(&client.call(method, &path, &[accept], "").expect(200));
            }
            let range = client.call("GET", &path, &[accept, ("Range", "bytes=0-9")], "");
            is_inert(&range.expect_any(&[200, 206]));
        }
        // Not as a manifest of its own kind either.
        client
            .put_manifest(repository, "raw", kind, content)
            .refused(400, "MANIFEST_INVALID");
    }
    // Errors repeat what was asked for, and are no page.
    let reply = client.get("/v2/a45/pages/manifests/%3Cscript%3Ealert(1)%3C%2Fscript%3E");
    assert!((400..500).contains(&reply.status));
    assert_eq!(reply.header("x-content-type-options"), "nosniff");
    assert!(reply.header("content-type").starts_with("application/json"));
}

/// A listener that nobody has a reason to speak to.
struct Trap(TcpListener);

impl Trap {
    fn set() -> Trap {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        Trap(listener)
    }

    fn url(&self) -> String {
        format!("http://{}/content", self.0.local_addr().unwrap())
    }

    /// Whether somebody came, within a while.
    fn caught(&self, wait: Duration) -> bool {
        thread::sleep(wait);
        match self.0.accept() {
            Ok(_) => true,
            Err(e) if e.kind() == ErrorKind::WouldBlock => false,
            Err(e) => panic!("the trap: {e}"),
        }
    }
}

#[test]
fn a46_addresses_in_content_are_never_fetched() {
    let server = Server::start();
    let client = server.client();
    let repository = "a46/foreign";
    let trap = Trap::set();
    let url = trap.url();
    let with_urls = |mut descriptor: Value| {
        descriptor["urls"] = json!([url, "file:///etc/passwd", "gopher://127.0.0.1:6379/"]);
        descriptor
    };
    let absent = data::bytes(46, 1000);
    let absent_digest = data::sha256(&absent);
    let config = json!({
        "architecture": "amd64", "os": "linux",
        "config": {"Image": url, "Labels": {"org.opencontainers.image.source": url}},
        "remote": url, "urls": [url],
        "rootfs": {"type": "layers", "diff_ids": [absent_digest]},
    })
    .to_string();
    let config_digest = client.push_blob(repository, config.as_bytes());
    let layer = client.push_blob(repository, b"layer");
    for (kind, config_kind, foreign) in [
        (
            oci::IMAGE,
            oci::CONFIG,
            "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        ),
        (
            oci::DOCKER_IMAGE,
            oci::DOCKER_CONFIG,
            "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        ),
    ] {
        let image = Manifest::json(
            kind,
            &json!({
                "schemaVersion": 2,
                "mediaType": kind,
                "config": with_urls(oci::descriptor(config_kind, &config_digest, config.len())),
                "layers": [
                    with_urls(oci::descriptor(foreign, &absent_digest, absent.len())),
                    with_urls(oci::descriptor(oci::LAYER, &layer, 5)),
                ],
                "annotations": {"org.opencontainers.image.url": url},
            }),
        );
        image.put(&client, repository, "v1");
        image.is_at(&client, repository, "v1");
        // Nor sent to where it says: it is not here, and that is all.
        let path = blob(repository, &absent_digest);
        client.get(&path).refused(404, "BLOB_UNKNOWN");
        client.head(&path).expect(404);
        let subject = with_urls(image.descriptor());
        let index = Manifest::json(
            oci::INDEX,
            &json!({
                "schemaVersion": 2, "mediaType": oci::INDEX,
                "manifests": [with_urls(image.descriptor())], "subject": subject,
            }),
        );
        index.put(&client, repository, "index");
        let list = format!("/v2/{repository}/referrers/{}", image.digest);
        client.get(&list).expect(200);
    }
    // An address makes an ordinary layer no foreign one: it must be here.
    let image = json!({
        "schemaVersion": 2,
        "mediaType": oci::IMAGE,
        "config": oci::descriptor(oci::CONFIG, &config_digest, config.len()),
        "layers": [with_urls(oci::descriptor(oci::LAYER, &absent_digest, absent.len()))],
    })
    .to_string();
    client
        .put_manifest(repository, "v2", oci::IMAGE, image.as_bytes())
        .refused(400, "MANIFEST_BLOB_UNKNOWN");
    // A client may push a foreign layer's bytes, which are then served.
    client.push_blob(repository, &absent);
    client.blob_is(repository, &absent_digest, &absent);
    assert!(
        !trap.caught(Duration::from_secs(1)),
        "somebody followed an address"
    );
    // The trap works.
    drop(std::net::TcpStream::connect(trap.0.local_addr().unwrap()).unwrap());
    assert!(trap.caught(Duration::from_millis(100)));
}
