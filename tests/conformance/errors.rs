//! The codes of the specification, each provoked; and the form of what is
//! answered with them.

use std::time::Duration;

use orlop_tests::client::{blob, manifest, with_digest};
use orlop_tests::data;
use orlop_tests::oci;
use orlop_tests::raw::Wire;
use orlop_tests::reply::Reply;
use orlop_tests::server::Server;
use serde_json::json;

use crate::case::Case;
use crate::content::Maker;

/// The codes the specification has.
const CODES: [&str; 14] = [
    "BLOB_UNKNOWN",
    "BLOB_UPLOAD_INVALID",
    "BLOB_UPLOAD_UNKNOWN",
    "DIGEST_INVALID",
    "MANIFEST_BLOB_UNKNOWN",
    "MANIFEST_INVALID",
    "MANIFEST_UNKNOWN",
    "NAME_INVALID",
    "NAME_UNKNOWN",
    "SIZE_INVALID",
    "UNAUTHORIZED",
    "DENIED",
    "UNSUPPORTED",
    "TOOMANYREQUESTS",
];

/// A case whose repository is there.
fn known(scenario: &str) -> Case {
    let case = Case::plain(scenario);
    case.push(&case.repository, &case.blob(10));
    case
}

fn absent() -> String {
    data::sha256(b"nobody pushed this")
}

fn put(case: &Case, body: &[u8]) -> Reply {
    case.client
        .put_manifest(&case.repository, "v1", oci::IMAGE, body)
}

/// An image manifest of which nothing is here.
fn nothing_of_it(case: &Case) -> String {
    let mut make = Maker::new(case);
    make.image("amd64", 1).to_string()
}

#[test]
fn blob_unknown() {
    let case = known("errors/blob");
    case.client
        .get(&blob(&case.repository, &absent()))
        .refused(404, "BLOB_UNKNOWN");
}

#[test]
fn blob_upload_invalid() {
    let case = known("errors/upload");
    let location = case.client.open_upload(&case.repository);
    let headers = [("Content-Range", "bytes 0-3/4")];
    case.client
        .call("PATCH", &location, &headers, "four")
        .refused(400, "BLOB_UPLOAD_INVALID");
}

#[test]
fn blob_upload_unknown() {
    let case = known("errors/session");
    let location = case.client.open_upload(&case.repository);
    case.client.delete(&location).expect(204);
    case.client
        .patch(&location, "bytes")
        .refused(404, "BLOB_UPLOAD_UNKNOWN");
}

#[test]
fn digest_invalid() {
    let case = known("errors/digest");
    let location = case.client.open_upload(&case.repository);
    case.client
        .finish(&location, &absent(), "other bytes")
        .refused(400, "DIGEST_INVALID");
}

#[test]
fn manifest_blob_unknown() {
    let case = known("errors/references");
    let document = nothing_of_it(&case);
    put(&case, document.as_bytes()).refused(400, "MANIFEST_BLOB_UNKNOWN");
}

#[test]
fn manifest_invalid() {
    let case = known("errors/manifest");
    put(&case, b"{").refused(400, "MANIFEST_INVALID");
}

#[test]
fn manifest_unknown() {
    let case = known("errors/unknown");
    case.client
        .get(&manifest(&case.repository, "none"))
        .refused(404, "MANIFEST_UNKNOWN");
}

#[test]
fn name_invalid() {
    let case = Case::plain("errors/name");
    case.client
        .get("/v2/Errors/tags/list")
        .refused(400, "NAME_INVALID");
}

#[test]
fn name_unknown() {
    let case = Case::plain("errors/nobody");
    case.client
        .get("/v2/errors/nobody/tags/list")
        .refused(404, "NAME_UNKNOWN");
}

#[test]
fn size_invalid() {
    let case = known("errors/size");
    let location = case.client.open_upload(&case.repository);
    let headers = [("Content-Range", "0-99")];
    case.client
        .call("PATCH", &location, &headers, "four")
        .refused(400, "SIZE_INVALID");
    // A descriptor of another size than what it names has.
    let config = case.client.push_blob(&case.repository, b"{}");
    let document = json!({
        "schemaVersion": 2, "mediaType": oci::IMAGE,
        "config": oci::descriptor(oci::EMPTY, &config, 3), "layers": [],
    });
    put(&case, document.to_string().as_bytes()).refused(400, "SIZE_INVALID");
}

#[test]
fn unsupported() {
    let case = known("errors/methods");
    let path = format!("/v2/{}/tags/list", case.repository);
    let reply = case.client.call("PUT", &path, &[], "");
    let reply = reply.refused(405, "UNSUPPORTED");
    assert_eq!(reply.header("allow"), "GET, HEAD");
}

/// On a server of its own: while it is busy, nobody else can push.
#[test]
fn too_many_requests() {
    let server = Server::start();
    let client = server.client();
    client.push_blob("errors/busy", b"x");
    let path = manifest("errors/busy", "v1");
    let head = format!(
        "PUT {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {}\r\nContent-Length: 4194304\r\n\r\n",
        oci::IMAGE
    );
    // Manifests under way are bounded by their bytes; these never arrive.
    let mut held = Vec::new();
    let busy = (0..200).find_map(|_| {
        let mut wire = Wire::connect(server.address());
        wire.send(head.as_bytes());
        held.push(wire);
        let reply = client.put_manifest("errors/busy", "v1", oci::IMAGE, b"{");
        (reply.status == 429).then_some(reply)
    });
    let busy = busy.expect("a bound").refused(429, "TOOMANYREQUESTS");
    let seconds: u32 = busy.header("retry-after").parse().expect("seconds");
    assert!((1..=60).contains(&seconds), "{seconds}");
    // It ends with what it was about.
    drop(held);
    let image = oci::image(&client, "errors/busy", &[b"layer"]);
    let done = (0..200).any(|_| {
        std::thread::sleep(Duration::from_millis(20));
        let reply = client.put_manifest("errors/busy", "v1", oci::IMAGE, &image.bytes);
        reply.expect_any(&[201, 429]).status == 201
    });
    assert!(done, "still busy");
}

#[test]
fn every_refusal_has_the_form_and_a_code_of_the_table() {
    let case = known("errors/form");
    let repository = &case.repository;
    let location = case.client.open_upload(repository);
    let (client, server) = (&case.client, &case.server);
    let replies = [
        client.get(&blob(repository, &absent())),
        client.get(&blob(repository, "sha256:zz")),
        client.get(&manifest(repository, "none")),
        client.get(&manifest(repository, &"t".repeat(129))),
        client.delete(&manifest(repository, "none")),
        client.delete(&blob(repository, &absent())),
        client.get(&format!("/v2/{repository}/referrers/none")),
        client.get(&format!("/v2/{repository}/tags/list?n=-1")),
        client.get(&format!("/v2/{repository}/tags/list?last=%ff")),
        client.get("/v2/_catalog?n=x"),
        client.get("/v2/Bad/tags/list"),
        client.get("/v2/nobody/tags/list"),
        client.get("/v2/nothing/of/the/kind"),
        client.get("/nothing"),
        server.raw("BREW", "/v2/", &[], b""),
        client.patch_at(&location, 7, b"misplaced"),
        client.call("PUT", &location, &[], ""),
        client.get(&format!("{location}0")),
        client.range(&blob(repository, &data::sha256(b"")), "bytes=9-"),
        put(&case, b"{"),
        put(&case, nothing_of_it(&case).as_bytes()),
        put(&case, &vec![b' '; (4 << 20) + 1]),
        client.call(
            "POST",
            &with_digest(&case.uploads(repository), "md5:0"),
            &[],
            "x",
        ),
    ];
    for reply in replies {
        let what = &reply.what;
        assert!(
            (400..500).contains(&reply.status),
            "{what}: {}",
            reply.status
        );
        assert_eq!(reply.header("content-type"), "application/json", "{what}");
        let document = reply.json();
        let errors = document["errors"].as_array().expect("a list of errors");
        assert!(!errors.is_empty(), "{what}");
        for error in errors {
            let code = error["code"].as_str().expect("a code");
            assert!(CODES.contains(&code), "{what}: {code} is not in the table");
            let message = error["message"].as_str().expect("a message");
            assert!(message.contains(' '), "{what}: {message:?} is no sentence");
        }
    }
}
