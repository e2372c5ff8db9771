//! Abuse cases A10 to A15: numbers, sizes, depth.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use orlop_tests::client::{Client, manifest};
use orlop_tests::oci::{self, Manifest};
use orlop_tests::raw::Wire;
use orlop_tests::server::Server;
use serde_json::{Value, json};

/// The largest manifest that is accepted.
const LIMIT: usize = 4 << 20;

#[test]
fn a10_a_page_is_bounded_whatever_n_says() {
    let server = Server::start();
    let client = server.client();
    let image = oci::image(&client, "a10/many", &[b"layer"]);
    std::thread::scope(|scope| {
        for part in 0..8 {
            let (client, image) = (&client, &image);
            scope.spawn(move || {
                for i in (part..1005).step_by(8) {
                    image.put(client, "a10/many", &format!("v{i}"));
                }
            });
        }
    });
    let before = server.resident();
    for n in [
        "2147483647",
        "-1",
        "1e9",
        "NaN",
        "18446744073709551616",
        "99999999999999999999999999",
        "0x10",
        "%20",
        "1001",
        "",
    ] {
        let subject = &image.digest;
        for list in ["a10/many/referrers/", "_catalog"] {
            let subject = if list == "_catalog" { "" } else { subject };
            let path = format!("/v2/{list}{subject}?n={n}");
            let reply = client.get(&path).expect_any(&[200, 400]);
            assert!(reply.body.len() < 4 << 20);
        }
        let path = format!("/v2/a10/many/tags/list?n={n}");
        let reply = client.get(&path).expect_any(&[200, 400]);
        if reply.status == 200 {
            let count = reply.json()["tags"].as_array().map_or(0, Vec::len);
            assert!(count <= 1000, "n={n} answered {count} tags");
            assert!(
                reply.find("link").is_some(),
                "n={n} hides that there is more"
            );
        } else {
            assert!(!reply.code().is_empty());
        }
    }
    let grown = server.resident().saturating_sub(before);
    assert!(grown < 16 << 20, "lists left {} KiB", grown >> 10);
    let none = client.get("/v2/a10/many/tags/list?n=0").expect(200);
    assert_eq!(none.json()["tags"], json!([]));
    assert!(none.find("link").is_none());
    let none = client.get("/v2/_catalog?n=0").expect(200);
    assert_eq!(none.json(), json!({"repositories": []}));
    assert!(none.find("link").is_none());
}

#[test]
fn a11_an_endless_last_is_refused() {
    let server = Server::shared();
    let client = server.client();
    let image = oci::image(&client, "a11/list", &[b"layer"]);
    image.put(&client, "a11/list", "v1");
    let list = |length: usize| {
        let target = format!("/v2/a11/list/tags/list?last={}", "a".repeat(length));
        server.raw("GET", &target, &[], b"").status
    };
    for length in [129, 1000, 20_000] {
        let status = list(length);
        assert!(matches!(status, 200 | 400 | 431), "{length}: {status}");
    }
    // The refusal of what is not read to its end may be lost with the
    // connection (0).
    let status = list(1 << 20);
    assert!(matches!(status, 0 | 400 | 431), "{status}");
    client.get("/v2/a11/list/tags/list?last=zz").expect(200);
    let long = "a".repeat(1000);
    for list in [
        "_catalog".to_owned(),
        format!("a11/list/referrers/{}", image.digest),
    ] {
        client.get(&format!("/v2/{list}?last={long}")).expect(400);
    }
}

/// A valid manifest of exactly this many bytes.
fn manifest_of(client: &Client, repository: &str, size: usize) -> Manifest {
    let image = oci::image(client, repository, &[b"layer"]);
    let mut document: Value = serde_json::from_slice(&image.bytes).unwrap();
    document["annotations"] = json!({"pad": ""});
    let bare = document.to_string().len();
    document["annotations"]["pad"] = json!("x".repeat(size - bare));
    let bytes = document.to_string().into_bytes();
    assert_eq!(bytes.len(), size);
    Manifest::of(oci::IMAGE, bytes)
}

#[test]
fn a12_a_manifest_of_4_mib_is_the_largest() {
    let server = Server::shared();
    let client = server.client();
    let largest = manifest_of(&client, "a12/size", LIMIT);
    largest.put(&client, "a12/size", "v1");
    largest.is_at(&client, "a12/size", "v1");
    // One byte more is refused by its announced length, before it is sent.
    let mut wire = Wire::connect(server.address());
    let head = format!(
        "PUT {} HTTP/1.1\r\nHost: x\r\nContent-Type: {}\r\nContent-Length: {}\r\n\r\n",
        manifest("a12/size", "v2"),
        oci::IMAGE,
        LIMIT + 1
    );
    wire.send(head.as_bytes());
    wire.reply("PUT of 4 MiB and a byte").expect(413);
    client.get(&manifest("a12/size", "v2")).expect(404);
}

#[test]
fn a12_a_manifest_without_a_length_is_cut_at_the_limit() {
    let server = Server::start();
    server.client().push_blob("a12/chunked", b"x");
    let before = server.resident();
    let mut wire = Wire::connect(server.address());
    let head = format!(
        "PUT {} HTTP/1.1\r\nHost: x\r\nContent-Type: {}\r\nTransfer-Encoding: chunked\r\n\r\n",
        manifest("a12/chunked", "v1"),
        oci::IMAGE
    );
    wire.send(head.as_bytes());
    let piece = format!("{:x}\r\n{}\r\n", 64 << 10, " ".repeat(64 << 10));
    let mut sent = 0;
    // 64 MiB unless the server stops reading before, which it has to.
    while sent < 64 << 20 && wire.send(piece.as_bytes()) {
        sent += 64 << 10;
    }
    let reply = wire.reply("PUT of an endless manifest");
    assert!(
        reply.status == 413 || (reply.status == 0 && sent < 64 << 20),
        "{} after {sent} bytes",
        reply.status
    );
    let grown = server.resident().saturating_sub(before);
    assert!(
        grown < 32 << 20,
        "an endless manifest left {} KiB",
        grown >> 10
    );
    server.client().get("/v2/").expect(200);
}

#[test]
fn a13_deep_json_is_invalid_and_overflows_no_stack() {
    let client = Client::shared();
    let deep = 100_000;
    let arrays = format!("{}{}", "[".repeat(deep), "]".repeat(deep));
    let objects = format!("{}1{}", "{\"a\":".repeat(deep), "}".repeat(deep));
    for inner in [&arrays, &objects] {
        for document in [
            inner.clone(),
            format!("{{\"schemaVersion\":2,\"config\":{inner}}}"),
            format!("{{\"schemaVersion\":2,\"annotations\":{inner}}}"),
            format!("{{\"schemaVersion\":2,\"unknown\":{inner}}}"),
        ] {
            for media_type in [oci::IMAGE, oci::INDEX, oci::DOCKER_IMAGE] {
                client
                    .put_manifest("a13/deep", "v1", media_type, document.as_bytes())
                    .refused(400, "MANIFEST_INVALID");
            }
        }
    }
    client.get("/v2/").expect(200);
}

#[test]
fn a14_too_many_of_anything_is_refused() {
    let server = Server::start();
    let client = server.client();
    client.push_blob("a14/many", b"x");
    let before = server.resident();
    let config = json!({
        "mediaType": oci::CONFIG,
        "digest": orlop_tests::data::sha256(b"x"),
        "size": 1,
    });
    let layers = "{},".repeat(1_000_000);
    let layers = format!(
        "{{\"schemaVersion\":2,\"mediaType\":\"{}\",\"config\":{config},\"layers\":[{}]}}",
        oci::IMAGE,
        layers.trim_end_matches(',')
    );
    let mut annotations = String::new();
    for i in 0..1_000_000 {
        write!(annotations, "\"{i:x}\":\"\",").unwrap();
    }
    let annotations = format!(
        "{{\"schemaVersion\":2,\"mediaType\":\"{}\",\"config\":{config},\"layers\":[],\
         \"annotations\":{{{}}}}}",
        oci::IMAGE,
        annotations.trim_end_matches(',')
    );
    let kind = [("Content-Type", oci::IMAGE)];
    let path = manifest("a14/many", "v1");
    assert!(layers.len() < LIMIT, "refused for its size, not its count");
    server
        .raw("PUT", &path, &kind, layers.as_bytes())
        .refused(400, "MANIFEST_INVALID");
    // A million annotations are more than 4 MiB: the refusal comes before
    // they are read, and may be lost with the connection (0).
    let reply = server.raw("PUT", &path, &kind, annotations.as_bytes());
    assert!(matches!(reply.status, 0 | 400 | 413), "{}", reply.status);
    client.get(&path).expect(404);
    let grown = server.resident().saturating_sub(before);
    assert!(grown < 64 << 20, "a refusal left {} MiB", grown >> 20);
}

#[test]
fn a14_nonsense_in_fields_is_refused() {
    let client = Client::shared();
    let image = oci::image(&client, "a14/fields", &[b"layer"]);
    let text = String::from_utf8(image.bytes).unwrap();
    let size = text.find("\"size\": ").expect("a size") + "\"size\": ".len();
    let end = size + text[size..].find(|c: char| !c.is_ascii_digit()).unwrap();
    let with_size = |value: &str| format!("{}{value}{}", &text[..size], &text[end..]);
    let mut documents: Vec<String> = ["NaN", "1e999", "-1", "1.5", "\"5\"", "null", "[]"]
        .map(with_size)
        .to_vec();
    documents.push(with_size("18446744073709551616"));
    documents.push(with_size("9223372036854775808"));
    // Twice the same key: two readers could see two documents.
    documents.push(text.replacen('{', "{\"schemaVersion\": 2,", 1));
    documents.push(text.replacen('{', "{\"layers\": [],", 1));
    documents.push(text.replacen("\"schemaVersion\": 2", "\"schemaVersion\": 1", 1));
    documents.push(text.replacen("\"schemaVersion\": 2", "\"schemaVersion\": \"2\"", 1));
    documents.push(format!("{text}{text}"));
    documents.push(format!("{text}x"));
    documents.push(format!("\u{feff}{text}"));
    documents.push(String::new());
    documents.push("null".to_owned());
    documents.push("[]".to_owned());
    for document in documents {
        let reply = client
            .put_manifest("a14/fields", "v1", oci::IMAGE, document.as_bytes())
            .expect(400);
        assert_eq!(reply.code(), "MANIFEST_INVALID", "{document:.200}");
    }
    client.get(&manifest("a14/fields", "v1")).expect(404);
}

#[test]
fn a15_a_shared_index_graph_costs_its_size_and_not_its_paths() {
    let client = Client::shared();
    let repository = "a15/graph";
    let leaf = oci::image(&client, repository, &[b"leaf"]);
    leaf.put(&client, repository, &leaf.digest);
    let began = Instant::now();
    let mut below = leaf;
    // 2^40 paths lead from the top to the leaf.
    for _ in 0..40 {
        let index = oci::index(&[&below, &below]);
        index.put(&client, repository, &index.digest);
        below = index;
    }
    below.put(&client, repository, "top");
    let took = began.elapsed();
    assert!(took < Duration::from_secs(20), "41 pushes took {took:?}");
    below.is_at(&client, repository, "top");
}
