//! Error bodies: the specification's document, and nothing of the inside.

use orlop_tests::client::{blob, manifest};
use orlop_tests::data;
use orlop_tests::reply::Reply;
use orlop_tests::server::Server;

/// One refusal of every kind that needs no preparation.
fn refusals(server: &Server) -> Vec<Reply> {
    let client = server.client();
    client.push_blob("errors/repo", b"exists");
    let absent = data::sha256(b"absent");
    let location = client.open_upload("errors/repo");
    vec![
        client.get(&blob("errors/repo", &absent)),
        client.get(&manifest("errors/repo", "none")),
        client.get("/v2/errors/unknown/tags/list"),
        client.get(&blob("errors/repo", "sha256:zz")),
        server.raw("GET", "/v2/Errors/repo/manifests/v1", &[], b""),
        client.get("/v2/errors/repo/blobs/uploads/no-such-upload"),
        client.put_manifest("errors/repo", "v1", orlop_tests::oci::IMAGE, b"{"),
        client.finish(&location, &absent, "other bytes"),
        client.call("POST", "/v2/errors/repo/manifests/v1", &[], ""),
        client.get("/v2/errors/repo/nothing/of/the/kind"),
        client.range(&blob("errors/repo", &data::sha256(b"exists")), "bytes=99-"),
    ]
}

#[test]
fn every_refusal_is_the_specifications_document() {
    let server = Server::start();
    for reply in refusals(&server) {
        assert!(
            (400..500).contains(&reply.status),
            "{}: {}",
            reply.what,
            reply.status
        );
        let code = reply.code();
        let shaped = code.chars().all(|c| c.is_ascii_uppercase() || c == '_');
        assert!(shaped && !code.is_empty(), "{}: {code}", reply.what);
        let kind = reply.header("content-type");
        assert!(
            kind.starts_with("application/json"),
            "{}: {kind}",
            reply.what
        );
        let id = reply.header("x-request-id");
        let detail = reply.json()["errors"][0]["detail"].to_string();
        assert!(detail.contains(id), "{}: {detail}", reply.what);
    }
}

#[test]
fn a100_error_bodies_carry_no_sql_path_version_or_stack() {
    let server = Server::start();
    let folder = server.data().display().to_string();
    let version = env!("CARGO_PKG_VERSION");
    let inside = [
        folder.as_str(),
        version,
        "SELECT ",
        "INSERT ",
        "sqlx",
        "sqlite",
        "rocksdb",
        "panicked",
        ".rs:",
        "RUST_BACKTRACE",
        "os error",
        "catalog.db",
        "journal/",
    ];
    for reply in refusals(&server) {
        let text = String::from_utf8_lossy(&reply.body).into_owned();
        for word in inside {
            assert!(!text.contains(word), "{}: {word} in {text}", reply.what);
        }
        let agent = reply.find("server").unwrap_or_default();
        assert!(!agent.contains(version), "{}: {agent}", reply.what);
    }
}
