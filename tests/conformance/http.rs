//! What HTTP says where the specification says nothing.

use orlop_tests::client::{blob, manifest};

use crate::case::Case;
use crate::content::Maker;

/// Paths of one image, pushed: its manifest, a blob, its tags, referrers.
fn paths(case: &Case) -> [String; 5] {
    let mut make = Maker::new(case);
    let document = make.image("amd64", 1);
    make.tagged(document, "v1");
    case.push_all(&make.content);
    let repository = &case.repository;
    let digest = &make.content.manifests[0].digest;
    [
        manifest(repository, "v1"),
        manifest(repository, digest),
        blob(repository, &make.content.blobs[0].digest),
        format!("/v2/{repository}/tags/list"),
        format!("/v2/{repository}/referrers/{digest}"),
    ]
}

#[test]
fn head_is_get_without_its_body() {
    let case = Case::plain("http/head");
    for path in paths(&case) {
        let get = case.client.get(&path).expect(200);
        let head = case.client.head(&path).expect(200);
        assert!(head.body.is_empty());
        for name in [
            "content-type",
            "content-length",
            "docker-content-digest",
            "etag",
        ] {
            assert_eq!(head.find(name), get.find(name), "{name} of {path}");
        }
        let size = get.header("content-length");
        assert_eq!(size, get.body.len().to_string(), "{path}");
    }
}

#[test]
fn a_method_that_a_path_has_not_is_answered_with_those_it_has() {
    let case = Case::plain("http/methods");
    for path in paths(&case) {
        for method in ["POST", "PATCH", "BREW"] {
            let reply = case.server.raw(method, &path, &[], b"");
            let reply = reply.refused(405, "UNSUPPORTED");
            let allowed: Vec<&str> = reply.header("allow").split(", ").collect();
            assert!(allowed.contains(&"GET") && allowed.contains(&"HEAD"));
            assert!(!allowed.contains(&method));
        }
    }
}

#[test]
fn parameters_nobody_knows_are_ignored() {
    let case = Case::plain("http/parameters");
    for path in paths(&case) {
        let plain = case.client.get(&path).expect(200);
        for query in ["?unknown=1", "?ns=docker.io", "?ns=", "?a&b=&=c"] {
            let reply = case.client.get(&format!("{path}{query}")).expect(200);
            assert!(reply.body == plain.body, "{path}{query}");
            // Only a registry that scopes by it says so.
            assert_eq!(reply.find("oci-namespace"), None);
        }
    }
}

#[test]
fn nobody_is_sent_elsewhere() {
    // No redirect, so that nothing a client sends reaches another host.
    let case = Case::plain("http/redirects");
    let secret = [("Authorization", "Basic c2VjcmV0OnNlY3JldA==")];
    for path in paths(&case) {
        let reply = case.client.call("GET", &path, &secret, "").expect(200);
        assert_eq!(reply.find("location"), None);
    }
}
