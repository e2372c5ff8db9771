//! Pushing manifests: what is taken, what is refused, and how it is said.

use orlop_tests::client::{Client, manifest};
use orlop_tests::data;
use orlop_tests::oci;
use serde_json::{Value, json};

use crate::case::Case;
use crate::content::{Maker, Pushed, index_document};

/// An image whose blobs are pushed; the manifest is not.
fn ready(case: &Case) -> (Value, Pushed) {
    let mut make = Maker::new(case);
    let document = make.image("amd64", 2);
    make.manifest(document.clone());
    for blob in &make.content.blobs {
        case.push(&case.repository, blob);
    }
    (document, make.content.manifests.pop().unwrap())
}

#[test]
fn the_exact_bytes_are_kept() {
    let case = Case::plain("manifests/exact");
    let (_, pushed) = ready(&case);
    let text = String::from_utf8(pushed.bytes.clone()).unwrap();
    for (number, form) in [
        format!("{text}\n"),
        format!("\t {text}"),
        text.replace("{\"", "{ \""),
        text.replace("schemaVersion", "schema\\u0056ersion"),
    ]
    .into_iter()
    .enumerate()
    {
        let bytes = form.into_bytes();
        let form = Pushed {
            digest: data::sha256(&bytes),
            bytes,
            ..pushed.clone()
        };
        let tag = format!("form-{number}");
        case.accepted(case.put_manifest(&tag, "", &form), &form);
        case.serves_manifest(&tag, &form);
    }
}

#[test]
fn a_digest_in_the_path_must_be_that_of_the_body() {
    let case = Case::plain("manifests/digest");
    let (_, pushed) = ready(&case);
    for wrong in [data::sha256(b"x"), data::sha512(b"x"), data::blake3(b"x")] {
        case.put_manifest(&wrong, "", &pushed)
            .refused(400, "DIGEST_INVALID");
        case.lacks_manifest(&wrong);
    }
    for malformed in ["sha256:baddigeststring", "sha256:"] {
        let path = manifest(&case.repository, malformed);
        let headers = [("Content-Type", oci::IMAGE)];
        case.server
            .raw("PUT", &path, &headers, &pushed.bytes)
            .refused(400, "DIGEST_INVALID");
        case.client.get(&path).expect_any(&[400, 404]);
    }
    case.push_manifest(&pushed, &[]);
}

#[test]
fn the_type_in_the_body_is_that_of_the_header() {
    let case = Case::plain("manifests/types");
    let (mut document, pushed) = ready(&case);
    for other in [oci::INDEX, oci::DOCKER_IMAGE, "application/json"] {
        case.client
            .put_manifest(&case.repository, "v1", other, &pushed.bytes)
            .refused(400, "MANIFEST_INVALID");
    }
    // Without a type in the body the header alone says it.
    document.as_object_mut().unwrap().remove("mediaType");
    let bytes = document.to_string().into_bytes();
    let untyped = Pushed {
        digest: data::sha256(&bytes),
        bytes,
        ..pushed
    };
    case.accepted(case.put_manifest("untyped", "", &untyped), &untyped);
    case.serves_manifest("untyped", &untyped);
}

#[test]
fn what_is_no_manifest_is_invalid() {
    let case = Case::plain("manifests/invalid");
    let (document, _) = ready(&case);
    let mut other_version = document.clone();
    other_version["schemaVersion"] = json!(3);
    let schema_1 = json!({
        "schemaVersion": 1, "name": "a/b", "tag": "v1", "architecture": "amd64",
        "fsLayers": [], "history": [], "signatures": [],
    });
    let signed = "application/vnd.docker.distribution.manifest.v1+prettyjws";
    for (media_type, body) in [
        (oci::IMAGE, "{".to_owned()),
        (oci::IMAGE, "[]".to_owned()),
        (oci::IMAGE, String::new()),
        (oci::IMAGE, "{\"schemaVersion\":2}".to_owned()),
        (oci::IMAGE, other_version.to_string()),
        (signed, schema_1.to_string()),
    ] {
        case.client
            .put_manifest(&case.repository, "v1", media_type, body.as_bytes())
            .refused(400, "MANIFEST_INVALID");
    }
    case.lacks_manifest("v1");
}

/// A server as it starts by default takes nothing that is not whole.
#[test]
fn what_is_missing_is_named_unless_sparse_manifests_are_allowed() {
    let client = Client::shared();
    let image = oci::image(&client, "sparse/refused", &[b"one", b"two"]);
    let absent = data::sha256(b"absent");
    let refused = |client: &Client, document: &Value| {
        let media_type = document["mediaType"].as_str().unwrap();
        let bytes = document.to_string();
        let reply = client
            .put_manifest("sparse/refused", "v1", media_type, bytes.as_bytes())
            .refused(400, "MANIFEST_BLOB_UNKNOWN");
        assert!(reply.text().contains(&absent), "{}", reply.text());
        client.get(&manifest("sparse/refused", "v1")).expect(404);
    };
    let whole: Value = serde_json::from_slice(&image.bytes).unwrap();
    for field in ["/layers/0/digest", "/layers/1/digest", "/config/digest"] {
        let mut document = whole.clone();
        *document.pointer_mut(field).unwrap() = json!(absent);
        refused(&client, &document);
    }
    image.put(&client, "sparse/refused", &image.digest);
    let missing = oci::descriptor(oci::IMAGE, &absent, 1024);
    let index = index_document(&[image.descriptor(), missing]);
    refused(&client, &index);
}

#[test]
fn a_blob_of_another_repository_is_not_here() {
    let case = Case::plain("manifests/elsewhere");
    let (_, pushed) = ready(&case);
    let path = manifest(&case.other, "v1");
    let headers = [("Content-Type", oci::IMAGE)];
    let reply = case
        .client
        .call("PUT", &path, &headers, pushed.bytes.clone());
    reply.refused(400, "MANIFEST_BLOB_UNKNOWN");
}

#[test]
fn a_subject_may_be_pushed_later() {
    let case = Case::plain("manifests/subject");
    let mut make = Maker::new(&case);
    let image = make.image("amd64", 1);
    let subject = make.manifest(image);
    let later = make.content.manifests.pop().unwrap();
    let mut about = make.image("amd64", 1);
    about["subject"] = subject.clone();
    make.manifest(about);
    let mut index = index_document(&[]);
    index["subject"] = subject;
    make.manifest(index);
    // `push_all` demands OCI-Subject of both, the image and the index.
    case.push_all(&make.content);
    case.lists_referrers(&make.content);
    case.lacks_manifest(&later.digest);
    case.push_manifest(&later, &[]);
    case.lists_referrers(&make.content);
}

#[test]
fn a_manifest_over_the_limit_is_too_large() {
    let case = Case::plain("manifests/limit");
    let (mut document, pushed) = ready(&case);
    let sized = |document: &mut Value, size: usize| {
        document["annotations"] = json!({"pad": ""});
        let bare = document.to_string().len();
        document["annotations"]["pad"] = json!("x".repeat(size - bare));
        let bytes = document.to_string().into_bytes();
        assert_eq!(bytes.len(), size);
        Pushed {
            digest: data::sha256(&bytes),
            bytes,
            ..pushed.clone()
        }
    };
    let largest = sized(&mut document, 4 << 20);
    case.accepted(case.put_manifest("largest", "", &largest), &largest);
    let larger = sized(&mut document, (4 << 20) + 1);
    case.put_manifest("larger", "", &larger)
        .refused(413, "MANIFEST_INVALID");
    case.lacks_manifest("larger");
}

#[test]
fn a_tag_moves_and_manifests_stay() {
    let case = Case::plain("manifests/moves");
    let (_, first) = ready(&case);
    let (_, second) = ready(&case);
    for pushed in [&first, &second, &first] {
        case.accepted(case.put_manifest("latest", "", pushed), pushed);
        case.serves_manifest("latest", pushed);
    }
    case.serves_manifest(&second.digest, &second);
}
