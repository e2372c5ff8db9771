//! Tags as parameters of a push by digest.

use std::collections::BTreeSet;

use orlop_tests::data::Algorithm;

use crate::case::{Case, Rules};
use crate::content::{Maker, Pushed};
use crate::life::accepted_tags;

/// An image whose blobs are pushed; the manifest is not.
fn ready(case: &Case) -> Pushed {
    let mut make = Maker::new(case);
    let document = make.image("amd64", 1);
    make.manifest(document);
    for blob in &make.content.blobs {
        case.push(&case.repository, blob);
    }
    make.content.manifests.pop().unwrap()
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("v{number:03}")).collect()
}

#[test]
fn ten_tags_and_more_are_set_at_once() {
    let case = Case::plain("tag-params/ten");
    let pushed = ready(&case);
    for count in [10, 40] {
        let tags = names(count);
        case.push_manifest(&pushed, &tags);
        for tag in &tags {
            case.serves_manifest(tag, &pushed);
        }
        assert_eq!(case.tags(""), tags);
    }
}

#[test]
fn oci_tag_names_each_tag_once() {
    let case = Case::plain("tag-params/header");
    let pushed = ready(&case);
    let query = "?tag=1.2.3&tag=1.2&tag=1&tag=latest&tag=1";
    let reply = case.put_manifest(&pushed.digest, query, &pushed);
    let mut named: Vec<&str> = accepted_tags(&reply).collect();
    named.sort_unstable();
    assert_eq!(named, ["1", "1.2", "1.2.3", "latest"]);
    case.accepted(reply, &pushed);
    // No parameter, no header.
    let plain = case.put_manifest(&pushed.digest, "", &pushed).expect(201);
    assert_eq!(plain.find("oci-tag"), None);
}

#[test]
fn too_many_tags_are_refused_as_a_whole() {
    let case = Case::plain("tag-params/many");
    let pushed = ready(&case);
    let query: Vec<String> = names(1000).iter().map(|t| format!("tag={t}")).collect();
    let query = format!("?{}", query.join("&"));
    let reply = case.put_manifest(&pushed.digest, &query, &pushed);
    assert!(!reply.expect(414).code().is_empty());
    case.lacks_manifest(&pushed.digest);
    case.lacks_manifest("v000");
}

#[test]
fn one_bad_tag_refuses_the_push() {
    let case = Case::plain("tag-params/bad");
    let pushed = ready(&case);
    for bad in ["-x", "a%20b", "", &"t".repeat(129)] {
        let query = format!("?tag=good&tag={bad}");
        let reply = case.put_manifest(&pushed.digest, &query, &pushed);
        assert!(!reply.expect(400).code().is_empty(), "{bad}");
        case.lacks_manifest("good");
    }
}

#[test]
fn parameters_go_with_a_digest_alone() {
    let case = Case::plain("tag-params/by-tag");
    let pushed = ready(&case);
    let reply = case.put_manifest("v1", "?tag=v2", &pushed);
    assert!(!reply.expect(400).code().is_empty());
    case.lacks_manifest("v1");
    case.lacks_manifest("v2");
}

#[test]
fn a_parameter_moves_a_tag() {
    let case = Case::plain("tag-params/moves");
    let (first, second) = (ready(&case), ready(&case));
    let tags = names(2);
    case.push_manifest(&first, &tags);
    case.push_manifest(&second, &tags[..1]);
    case.serves_manifest(&tags[0], &second);
    case.serves_manifest(&tags[1], &first);
}

#[test]
fn a_tag_serves_the_digest_it_was_pushed_with() {
    // The same bytes under three names; each tag knows which of them it has.
    let mut all = BTreeSet::new();
    let cases = [Algorithm::Sha256, Algorithm::Sha512, Algorithm::Blake3].map(|algorithm| {
        let case = Case::new("conformance::tag-params::each", Rules::Main, algorithm);
        case.within("tag-params/each")
    });
    let pushed = ready(&cases[0]);
    for case in &cases {
        let named = Pushed {
            digest: case.algorithm.of(&pushed.bytes),
            ..pushed.clone()
        };
        let tag = case.algorithm.name().to_owned();
        case.push_manifest(&named, std::slice::from_ref(&tag));
        all.insert((tag, named.digest));
    }
    for (tag, digest) in all {
        let named = Pushed {
            digest,
            ..pushed.clone()
        };
        cases[0].serves_manifest(&tag, &named);
        cases[0].serves_manifest(&named.digest, &named);
    }
}
