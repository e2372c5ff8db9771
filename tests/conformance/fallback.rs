//! The schema of referrers in a tag: what clients keep themselves at
//! registries without a list, and bring along.

use orlop_tests::client::manifest;
use orlop_tests::data::Algorithm;
use orlop_tests::oci;
use serde_json::{Value, json};

use crate::case::{Case, Rules};
use crate::content::{Maker, index_document};
use crate::kinds::attached;

const KIND: &str = "application/vnd.example.conformance.signature";

/// The tag of a subject: algorithm and digest, each cut to its length.
fn tag_of(subject: &str) -> String {
    let (algorithm, encoded) = subject.split_once(':').unwrap();
    let cut = |text: &str, length: usize| text.chars().take(length).collect::<String>();
    format!("{}-{}", cut(algorithm, 32), cut(encoded, 64))
}

/// What a client does that found no `OCI-Subject`: reads the list in the tag
/// or begins one, adds what is not in it, writes it back.
#[track_caller]
fn keep(case: &Case, subject: &str, descriptor: &Value) {
    let tag = tag_of(subject);
    let found = case.manifest_call("GET", &tag).expect_any(&[200, 404]);
    let mut list = match found.status {
        404 => index_document(&[]),
        _ => found.json(),
    };
    assert_eq!(list["mediaType"], oci::INDEX);
    let entries = list["manifests"].as_array_mut().unwrap();
    if !entries.iter().any(|e| e["digest"] == descriptor["digest"]) {
        entries.push(descriptor.clone());
    }
    let bytes = list.to_string();
    case.client
        .put_manifest(&case.repository, &tag, oci::INDEX, bytes.as_bytes())
        .expect(201);
}

#[test]
fn a_client_can_keep_the_list_in_a_tag() {
    for algorithm in [Algorithm::Sha256, Algorithm::Sha512, Algorithm::Blake3] {
        let case = Case::new("conformance::fallback::keep", Rules::Main, algorithm);
        let mut make = Maker::new(&case);
        let image = make.image("amd64", 1);
        let subject = make.manifest(image);
        for _ in 0..2 {
            let artifact = attached(&mut make, KIND, &subject);
            make.manifest(artifact);
        }
        case.push_all(&make.content);
        let subject = subject["digest"].as_str().unwrap();
        case.lacks_manifest(&tag_of(subject));
        for referrer in make.content.referrers.iter().chain(&make.content.referrers) {
            keep(&case, subject, &referrer.descriptor);
        }
        let list = case.manifest_call("GET", &tag_of(subject)).expect(200);
        let entries: Vec<_> = make
            .content
            .referrers
            .iter()
            .map(|r| &r.descriptor)
            .collect();
        assert_eq!(list.json()["manifests"], json!(entries));
        assert_eq!(case.tags(""), [tag_of(subject)]);
        // The list of the registry is the same, and each entry in it once.
        case.lists_referrers(&make.content);
        // A client that deletes an artifact takes it out and writes it back.
        let gone = make.content.manifests.pop().unwrap();
        case.deletes_manifest(&gone.digest);
        let rest = index_document(&[entries[0].clone()]).to_string();
        case.client
            .put_manifest(
                &case.repository,
                &tag_of(subject),
                oci::INDEX,
                rest.as_bytes(),
            )
            .expect(201);
        case.client
            .delete(&manifest(&case.repository, &tag_of(subject)))
            .expect(202);
        case.lacks_manifest(&tag_of(subject));
    }
}

#[test]
fn what_a_tag_of_the_schema_names_is_in_the_list() {
    let case = Case::plain("fallback/backfill");
    let mut make = Maker::new(&case);
    let image = make.image("amd64", 1);
    let subject = make.manifest(image);
    let artifact = attached(&mut make, KIND, &subject);
    let artifact = make.manifest(artifact);
    case.push_all(&make.content);
    let subject = subject["digest"].as_str().unwrap();
    // An entry without a type, as some clients wrote them, and one that is
    // about nothing: only what is about the subject is listed.
    let other = make.image("arm64", 1);
    let other = make.manifest(other);
    case.push_all(&make.content);
    let bare = oci::descriptor(
        oci::IMAGE,
        artifact["digest"].as_str().unwrap(),
        usize::try_from(artifact["size"].as_u64().unwrap()).unwrap(),
    );
    let list = index_document(&[bare, other]);
    let tag = tag_of(subject);
    case.client
        .put_manifest(
            &case.repository,
            &tag,
            oci::INDEX,
            list.to_string().as_bytes(),
        )
        .expect(201);
    case.lists_referrers(&make.content);
}
