//! Lists, referrers and deletes over memory.

use super::*;
use serde_json::json;

const OCI: &str = "application/vnd.oci.image.manifest.v1+json";

/// An artifact about `subject`, with an annotation.
fn artifact(config: &Digest, subject: &Digest, kind: &str) -> String {
    json!({
        "schemaVersion": 2,
        "mediaType": OCI,
        "artifactType": kind,
        "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": config.to_string(), "size": 2},
        "layers": [],
        "subject": {"mediaType": OCI, "digest": subject.to_string(), "size": 7},
        "annotations": {"org.example": "ä\"\u{1}"},
    })
    .to_string()
}

async fn put(server: &Server, path: &str, body: &str) -> Reply {
    let headers = [("content-type", OCI)];
    let line = format!("PUT {path}");
    send(server, &line, &headers, &[body.as_bytes()], None).await
}

#[tokio::test]
async fn referrers_are_an_index_in_pages() {
    let server = Server::default();
    let config = server.memory.add("a", b"{}");
    let subject = sha256(b"subject");
    let path = format!("/v2/a/referrers/{subject}");
    for unknown in ["a", "no/such/repository"] {
        let reply = get(&server, &format!("GET /v2/{unknown}/referrers/{subject}")).await;
        assert_eq!(reply.status, 200);
        let empty = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [],
        });
        assert_eq!(reply.json(), empty);
    }
    let kinds = ["application/vnd.x+json", "application/vnd.y"];
    for kind in kinds {
        let body = artifact(&config, &subject, kind);
        let reply = put(
            &server,
            &format!("/v2/a/manifests/{}", sha256(body.as_bytes())),
            &body,
        )
        .await;
        assert_eq!(reply.status, 201);
        assert_eq!(reply.header("oci-subject"), subject.to_string());
    }
    let reply = get(&server, &format!("GET {path}")).await;
    assert_eq!(
        reply.header("content-type"),
        "application/vnd.oci.image.index.v1+json"
    );
    assert_eq!(reply.header("oci-filters-applied"), "");
    let json = reply.json();
    let listed = json["manifests"].as_array().unwrap();
    assert_eq!(listed.len(), 2);
    for descriptor in listed {
        assert!(kinds.contains(&descriptor["artifactType"].as_str().unwrap()));
        assert_eq!(descriptor["mediaType"], OCI);
        assert_eq!(descriptor["annotations"]["org.example"], "ä\"\u{1}");
    }
    // One a page; and of one type, whose plus sign has to be escaped.
    let first = get(&server, &format!("GET {path}?n=1")).await;
    let link = first.header("link").to_owned();
    let next = link.strip_prefix('<').unwrap().split('>').next().unwrap();
    let second = get(&server, &format!("GET {next}")).await;
    assert_eq!(second.header("link"), "");
    let of = |reply: &Reply| reply.json()["manifests"][0]["digest"].clone();
    assert_eq!(
        json!([of(&first), of(&second)]),
        json!([listed[0]["digest"], listed[1]["digest"]])
    );
    let filtered = get(
        &server,
        &format!("GET {path}?artifactType=application/vnd.x%2Bjson"),
    )
    .await;
    assert_eq!(filtered.header("oci-filters-applied"), "artifactType");
    assert_eq!(filtered.json()["manifests"].as_array().unwrap().len(), 1);
    let none = get(&server, &format!("GET {path}?artifactType=none/such&n=1")).await;
    assert_eq!(none.header("oci-filters-applied"), "artifactType");
    assert!(none.json()["manifests"].as_array().unwrap().is_empty());
    for bad in [
        "n=x",
        "n=-1",
        "last=x",
        "last=sha256:zz",
        "artifactType=%zz",
        "artifactType=%00",
    ] {
        let reply = get(&server, &format!("GET {path}?{bad}")).await;
        assert_eq!(
            (reply.status, reply.code().as_str()),
            (400, "UNSUPPORTED"),
            "{bad}"
        );
    }
    let bad = get(&server, "GET /v2/a/referrers/sha256:x").await;
    assert_eq!((bad.status, bad.code().as_str()), (400, "DIGEST_INVALID"));
}

#[tokio::test]
async fn the_catalog_comes_in_pages() {
    let server = Server::default();
    for name in ["b", "a/x", "a", "c"] {
        server.memory.add(name, b"x");
    }
    let mut seen = Vec::new();
    let mut path = "/v2/_catalog?n=3".to_owned();
    loop {
        let reply = get(&server, &format!("GET {path}")).await;
        assert_eq!(reply.status, 200);
        let json = reply.json();
        let names = json["repositories"].as_array().unwrap();
        seen.extend(names.iter().map(|name| name.as_str().unwrap().to_owned()));
        let link = reply.header("link");
        let Some(next) = link.strip_prefix('<') else {
            break;
        };
        path = next.split('>').next().unwrap().to_owned();
    }
    assert_eq!(seen, ["a", "a/x", "b", "c"]);
    let none = get(&server, "GET /v2/_catalog?n=0").await;
    assert_eq!(
        (none.json()["repositories"].clone(), none.header("link")),
        (json!([]), "")
    );
}

#[tokio::test]
async fn tags_by_parameters() {
    let server = Server::default();
    let config = server.memory.add("a", b"{}");
    let body = artifact(&config, &sha256(b"s"), "a/b");
    let path = format!("/v2/a/manifests/{}", sha256(body.as_bytes()));
    let reply = put(
        &server,
        &format!("{path}?tag=1.2&tag=1&tag=latest&tag=1"),
        &body,
    )
    .await;
    assert_eq!(reply.status, 201);
    let tags: Vec<_> = reply.headers.get_all("oci-tag").iter().collect();
    assert_eq!(tags, ["1.2", "1", "latest"]);
    for tag in ["1.2", "1", "latest"] {
        assert_eq!(
            get(&server, &format!("HEAD /v2/a/manifests/{tag}"))
                .await
                .status,
            200
        );
    }
    let many: String = (0..65).map(|i| format!("tag=t{i}&")).collect();
    for (at, query, status) in [
        (path.as_str(), "tag=.x", 400),
        (path.as_str(), "tag=", 400),
        (path.as_str(), "tag=%zz", 400),
        (path.as_str(), many.as_str(), 414),
        ("/v2/a/manifests/t", "tag=u", 400),
    ] {
        let reply = put(&server, &format!("{at}?{query}"), &body).await;
        assert_eq!(
            (reply.status, reply.code().as_str()),
            (status, "MANIFEST_INVALID")
        );
    }
    assert_eq!(get(&server, "HEAD /v2/a/manifests/t").await.status, 404);
}

#[tokio::test]
async fn deletes_are_accepted_once() {
    let server = Server::default();
    let blob = server.memory.add("a", b"x");
    let manifest = server.memory.push_image("a", &["t", "u"]);
    for path in [
        "/v2/a/manifests/t".to_owned(),
        format!("/v2/a/manifests/{manifest}"),
        format!("/v2/a/blobs/{blob}"),
    ] {
        let reply = get(&server, &format!("DELETE {path}")).await;
        assert_eq!(
            (reply.status, reply.body.unwrap().len()),
            (202, 0),
            "{path}"
        );
        assert_eq!(get(&server, &format!("HEAD {path}")).await.status, 404);
        let again = get(&server, &format!("DELETE {path}")).await;
        assert_eq!(again.status, 404);
        assert!(again.code().ends_with("_UNKNOWN"));
        assert_eq!(again.json()["errors"][0]["detail"]["name"], "a");
        let elsewhere = path.replace("/v2/a/", "/v2/b/");
        let unknown = get(&server, &format!("DELETE {elsewhere}")).await;
        assert_eq!(
            (unknown.status, unknown.code().as_str()),
            (404, "NAME_UNKNOWN")
        );
    }
    assert_eq!(get(&server, "HEAD /v2/a/manifests/u").await.status, 404);
}

#[tokio::test]
async fn a45_content_is_never_a_page() {
    let server = Server::default();
    let page = server.memory.add("a", b"<script>alert(1)</script>");
    let config = server.memory.add("a", b"{}");
    let body = artifact(&config, &sha256(b"s"), "text/html");
    assert_eq!(put(&server, "/v2/a/manifests/t", &body).await.status, 201);
    for path in [format!("/v2/a/blobs/{page}"), "/v2/a/manifests/t".into()] {
        for method in ["GET", "HEAD"] {
            let reply = get(&server, &format!("{method} {path}")).await;
            assert_eq!(reply.header("content-disposition"), "attachment");
            assert_eq!(reply.header("x-content-type-options"), "nosniff");
            assert!(reply.header("content-security-policy").contains("sandbox"));
        }
    }
    // Not even a type of the pusher's choice.
    let headers = [("content-type", "text/html")];
    let line = "PUT /v2/a/manifests/u";
    let reply = send(&server, line, &headers, &[body.as_bytes()], None).await;
    assert_eq!(
        (reply.status, reply.code().as_str()),
        (400, "MANIFEST_INVALID")
    );
}
