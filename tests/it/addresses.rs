//! Addresses in answers, and whom the log names: A35 and the settings
//! `server.public_url` and `server.trusted_proxies`.

use orlop_tests::client::{Client, blob, with_digest};
use orlop_tests::reply::Reply;
use orlop_tests::server::{Server, Setup};
use orlop_tests::{data, oci};

const PUBLIC: &str = "https://registry.example.org:8443";

/// What a client could say to be believed to be, or to come through, another.
const SPOOFED: [(&str, &str); 8] = [
    ("Host", "evil.example"),
    ("X-Forwarded-Host", "evil.example"),
    ("X-Forwarded-Proto", "gopher"),
    ("X-Forwarded-Port", "666"),
    ("X-Forwarded-For", "127.0.0.1, 203.0.113.66"),
    ("X-Real-IP", "203.0.113.66"),
    ("X-Original-URL", "https://evil.example/v2/"),
    (
        "Forwarded",
        "for=203.0.113.66;host=evil.example;proto=gopher",
    ),
];

/// Every kind of answer that names an address, asked for with these headers.
fn answers(client: &Client, repository: &str, headers: &[(&str, &str)]) -> Vec<Reply> {
    let bytes = data::bytes(80, 2000);
    let digest = data::sha256(&bytes);
    let uploads = format!("/v2/{repository}/blobs/uploads/");
    let started = client.call("POST", &uploads, headers, "").expect(202);
    let location = started.location();
    let patched = client
        .call("PATCH", &location, headers, bytes[..1000].to_vec())
        .expect(202);
    let placed = [headers, &[("Content-Range", "5000-5999")]].concat();
    let misplaced = client
        .call("PATCH", &location, &placed, bytes[1000..].to_vec())
        .expect(416);
    let status = client.call("GET", &location, headers, "").expect(204);
    let target = with_digest(&location, &digest);
    let finished = client
        .call("PUT", &target, headers, bytes[1000..].to_vec())
        .expect(201);
    let mount = format!("/v2/{repository}/other/blobs/uploads/?mount={digest}&from={repository}");
    let mounted = client.call("POST", &mount, headers, "").expect(201);
    let whole = format!("{uploads}?digest={digest}");
    let at_once = client.call("POST", &whole, headers, bytes).expect(201);
    let image = oci::image(client, repository, &[b"layer"]);
    let typed = [headers, &[("Content-Type", oci::IMAGE)]].concat();
    let mut replies = vec![
        started, patched, misplaced, status, finished, mounted, at_once,
    ];
    for tag in ["v1", "v2"] {
        let path = orlop_tests::client::manifest(repository, tag);
        let put = client.call("PUT", &path, &typed, image.bytes.clone());
        replies.push(put.expect(201));
    }
    let list = format!("/v2/{repository}/tags/list?n=1");
    replies.push(client.call("GET", &list, headers, "").expect(200));
    replies
}

/// The address in an answer.
fn address(reply: &Reply) -> String {
    match reply.find("link") {
        Some(link) => {
            let link = link.strip_prefix('<').expect("a link in brackets");
            let (address, relation) = link.split_once('>').expect("a link in brackets");
            assert_eq!(relation, "; rel=\"next\"");
            address.to_owned()
        }
        None => reply.header("location").to_owned(),
    }
}

/// No header and no byte of an answer repeats what a client claimed.
fn believes_nothing(reply: &Reply) {
    let all = format!("{:?}{}", reply.headers, reply.text());
    for word in ["evil", "gopher", "203.0.113.66"] {
        assert!(!all.contains(word), "{}: {word} in {all}", reply.what);
    }
}

#[test]
fn a35_addresses_are_paths_whatever_a_request_says() {
    let server = Server::shared();
    for reply in answers(&server.client(), "a35/paths", &SPOOFED) {
        let address = address(&reply);
        assert!(address.starts_with("/v2/a35/"), "{}: {address}", reply.what);
        believes_nothing(&reply);
    }
}

#[test]
fn a35_addresses_begin_with_the_public_url_and_nothing_else() {
    let server = Setup::default()
        .env("ORLOP_SERVER_PUBLIC_URL", format!("{PUBLIC}/"))
        // Not even from a proxy that is believed about its client.
        .env("ORLOP_SERVER_TRUSTED_PROXIES", "127.0.0.0/8")
        .start();
    let client = server.client();
    for headers in [&[][..], &SPOOFED] {
        for reply in answers(&client, "a35/public", headers) {
            let address = address(&reply);
            let path = address.strip_prefix(PUBLIC);
            let path = path.unwrap_or_else(|| panic!("{}: {address}", reply.what));
            assert!(path.starts_with("/v2/a35/"), "{}: {address}", reply.what);
            believes_nothing(&reply);
        }
    }
    // What is asked for directly is served as ever.
    let digest = data::sha256(&data::bytes(80, 2000));
    client.blob_is("a35/public", &digest, &data::bytes(80, 2000));
    client.head(&blob("a35/public", &digest)).expect(200);
}

/// The peer in the access line of one request with these headers.
fn logged_peer(server: &Server, headers: &[(&str, &str)]) -> String {
    let reply = server.raw("GET", "/v2/", headers, b"").expect(200);
    let id = format!("\"request\":\"{}\"", reply.header("x-request-id"));
    server.wait_for_log(&id, 1);
    let log = server.log();
    let line = log.lines().find(|line| line.contains(&id)).unwrap();
    let line: serde_json::Value = serde_json::from_str(line).unwrap();
    line["peer"].as_str().unwrap().to_owned()
}

#[test]
fn a35_the_log_names_the_peer_unless_a_trusted_proxy_names_another() {
    let server = Server::start();
    let peer = logged_peer(&server, &SPOOFED[1..]);
    assert!(peer.starts_with("127.0.0.1:"), "{peer}");
    let server = Setup::default()
        .env("ORLOP_SERVER_TRUSTED_PROXIES", "10.0.0.0/8,127.0.0.1/32")
        .start();
    let forwarded = |value| logged_peer(&server, &[("X-Forwarded-For", value)]);
    assert_eq!(forwarded("203.0.113.66, 198.51.100.4"), "198.51.100.4");
    assert_eq!(forwarded("198.51.100.4, 10.1.1.1"), "198.51.100.4");
    assert!(forwarded("203.0.113.66, a\"b").starts_with("127.0.0.1:"));
    let peer = logged_peer(&server, &[("X-Real-IP", "203.0.113.66")]);
    assert!(peer.starts_with("127.0.0.1:"), "{peer}");
}

#[test]
fn a_public_url_with_more_than_scheme_and_host_is_refused() {
    for (url, told) in [
        ("registry.example.org", "registry.example.org"),
        ("https://a/b", "https://a/b"),
        ("ftp://a", "ftp://a"),
        ("https://u@a", "…@a"), // a password may stand before it
    ] {
        Setup::default()
            .env("ORLOP_SERVER_PUBLIC_URL", url)
            .start_refused(std::time::Duration::from_secs(10))
            .names(&[told]);
    }
}
