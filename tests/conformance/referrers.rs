//! The list of referrers: who is in it, with what, in which pages.

use std::collections::BTreeSet;

use orlop_tests::data;
use orlop_tests::oci;
use serde_json::{Value, json};

use crate::case::Case;
use crate::check::next_page;
use crate::content::{Content, Maker, index_document};
use crate::kinds::attached;

const KIND: &str = "application/vnd.example.conformance.report";
const OTHER_KIND: &str = "application/vnd.example.conformance.other+json";

/// So many artifacts of a kind about a subject, pushed.
fn about(case: &Case, subject: &Value, kinds: &[&str]) -> Content {
    let mut make = Maker::new(case);
    for kind in kinds {
        let artifact = attached(&mut make, kind, subject);
        make.manifest(artifact);
    }
    case.push_all(&make.content);
    make.content
}

/// A descriptor of something that is not here.
fn absent(case: &Case) -> Value {
    oci::descriptor(oci::IMAGE, &case.blob(100).digest, 100)
}

fn digest(descriptor: &Value) -> &str {
    descriptor["digest"].as_str().unwrap()
}

#[test]
fn nobody_refers_is_an_empty_index_and_never_404() {
    let case = Case::plain("referrers/none");
    case.push(&case.repository, &case.blob(10));
    for repository in [case.repository.as_str(), "no/such/repository"] {
        for subject in [
            data::sha256(b"nobody"),
            data::sha512(b"nobody"),
            data::blake3(b"nobody"),
        ] {
            let path = format!("/v2/{repository}/referrers/{subject}");
            let reply = case.client.get(&path).expect(200);
            assert_eq!(reply.header("content-type"), oci::INDEX);
            assert_eq!(reply.find("link"), None);
            assert_eq!(reply.find("oci-filters-applied"), None);
            assert_eq!(reply.json(), index_document(&[]));
        }
    }
}

#[test]
fn a_subject_that_is_no_digest_is_a_bad_request() {
    let case = Case::plain("referrers/bad");
    for bad in [
        "sha256:baddigeststring",
        "sha256:",
        "latest",
        "md5:d41d8cd98f00b204e9800998ecf8427e",
    ] {
        let path = format!("/v2/{}/referrers/{bad}", case.repository);
        let reply = case.server.raw("GET", &path, &[], b"");
        reply.refused(400, "DIGEST_INVALID");
    }
}

#[test]
fn the_type_is_the_artifacts_or_its_configs_or_absent() {
    let case = Case::plain("referrers/types");
    let subject = absent(&case);
    let mut make = Maker::new(&case);
    let mut typed_image = make.image("amd64", 1);
    typed_image["artifactType"] = json!(KIND);
    let image = make.image("amd64", 1);
    let mut empty_type = make.image("arm64", 1);
    empty_type["artifactType"] = json!("");
    let mut typed_index = index_document(&[]);
    typed_index["artifactType"] = json!(KIND);
    let index = index_document(&[]);
    let mut wanted = Vec::new();
    for (mut document, kind) in [
        (typed_image, Some(KIND)),
        (image, Some(oci::CONFIG)),
        (empty_type, Some(oci::CONFIG)),
        (typed_index, Some(KIND)),
        (index, None),
    ] {
        document["subject"] = subject.clone();
        let descriptor = make.manifest(document);
        wanted.push((digest(&descriptor).to_owned(), kind));
    }
    case.push_all(&make.content);
    let (listed, _) = case.referrers(digest(&subject), "");
    assert_eq!(listed.len(), wanted.len());
    for (digest, kind) in wanted {
        let found = listed.iter().find(|d| d["digest"] == digest).unwrap();
        assert_eq!(found.get("artifactType").and_then(Value::as_str), kind);
    }
}

#[test]
fn annotations_are_those_of_the_manifest() {
    let case = Case::plain("referrers/annotations");
    let subject = absent(&case);
    let mut make = Maker::new(&case);
    let mut index = index_document(&[]);
    index["annotations"] = json!({"b": "2", "a": "\u{fc}\"\\ \n", "empty": ""});
    index["subject"] = subject.clone();
    make.manifest(index.clone());
    let mut image = make.image("amd64", 1);
    image["subject"] = subject.clone();
    make.manifest(image);
    case.push_all(&make.content);
    let (listed, _) = case.referrers(digest(&subject), "");
    let of = |kind: &str| listed.iter().find(|d| d["mediaType"] == kind).unwrap();
    assert_eq!(of(oci::INDEX)["annotations"], index["annotations"]);
    assert!(
        of(oci::IMAGE)["annotations"]
            .as_object()
            .is_none_or(serde_json::Map::is_empty)
    );
}

#[test]
fn a_filter_is_applied_and_said_to_be() {
    let case = Case::plain("referrers/filter");
    let subject = absent(&case);
    about(&case, &subject, &[KIND, OTHER_KIND, KIND]);
    let ask = |query: &str| case.referrers(digest(&subject), query);
    for (kind, count) in [
        (KIND, 2),
        ("application/vnd.example.conformance.other%2Bjson", 1),
        ("application/vnd.example.nobody", 0),
    ] {
        let (listed, reply) = ask(&format!("?artifactType={kind}"));
        assert_eq!(listed.len(), count, "{kind}");
        assert_eq!(reply.header("oci-filters-applied"), "artifactType");
    }
    let (all, reply) = ask("");
    assert_eq!(all.len(), 3);
    assert_eq!(reply.find("oci-filters-applied"), None);
}

#[test]
fn pages_hold_different_referrers_and_together_all() {
    let case = Case::plain("referrers/pages");
    let subject = absent(&case);
    let content = about(&case, &subject, &[KIND, OTHER_KIND, KIND, KIND, KIND]);
    for kind in ["", KIND] {
        let filter = if kind.is_empty() {
            String::new()
        } else {
            format!("&artifactType={kind}")
        };
        let mut seen = BTreeSet::new();
        let mut count = 0;
        let mut query = format!("?n=2{filter}");
        loop {
            let (page, reply) = case.referrers(digest(&subject), &query);
            assert!(page.len() <= 2);
            let applied = reply.find("oci-filters-applied");
            assert_eq!(applied, (!kind.is_empty()).then_some("artifactType"));
            count += page.len();
            seen.extend(page.iter().map(|d| digest(d).to_owned()));
            let Some(next) = next_page(&reply) else {
                break;
            };
            query = next[next.find('?').expect("parameters")..].to_owned();
            assert!(count <= 5, "the pages do not end");
        }
        assert_eq!(seen.len(), count, "a referrer is on two pages");
        let of_kind = |d: &&Value| kind.is_empty() || d["artifactType"] == kind;
        let all = content.referrers.iter().map(|r| &r.descriptor);
        let wanted: BTreeSet<String> = all.filter(of_kind).map(|d| digest(d).to_owned()).collect();
        assert_eq!(seen, wanted);
    }
}

#[test]
fn referrers_of_another_repository_are_not_listed() {
    let case = Case::plain("referrers/here");
    let other = Case::plain("referrers/here").within(&case.other);
    let subject = absent(&case);
    let content = about(&case, &subject, &[KIND]);
    let (there, _) = other.referrers(digest(&subject), "");
    assert_eq!(there, [Value::Null; 0]);
    case.lists_referrers(&content);
}

#[test]
fn a_push_is_listed_at_once_and_once() {
    let case = Case::plain("referrers/once");
    let mut make = Maker::new(&case);
    let image = make.image("amd64", 1);
    let subject = make.manifest(image);
    let artifact = attached(&mut make, KIND, &subject);
    make.manifest(artifact);
    for _ in 0..2 {
        case.push_all(&make.content);
        case.lists_referrers(&make.content);
    }
    // Under a tag, too, it stays one.
    let pushed = make.content.manifests.last().unwrap();
    case.push_manifest(pushed, &["tagged".to_owned()]);
    case.lists_referrers(&make.content);
    // The list outlives its subject, and not its entries.
    case.deletes_manifest(digest(&subject));
    case.lists_referrers(&make.content);
    case.deletes_manifest(&pushed.digest);
    let (left, _) = case.referrers(digest(&subject), "");
    assert_eq!(left, [Value::Null; 0]);
}
