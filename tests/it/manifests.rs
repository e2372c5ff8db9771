//! Manifests: every kind, by tag and by digest, with their exact bytes.

use orlop_tests::client::{Client, manifest};
use orlop_tests::data;
use orlop_tests::oci::{self, Manifest};
use serde_json::json;

#[test]
fn an_image_by_tag_and_by_digest() {
    let client = Client::shared();
    let image = oci::image(&client, "manifests/image", &[b"one", b"two"]);
    let reply = client
        .put_manifest("manifests/image", "v1", oci::IMAGE, &image.bytes)
        .expect(201);
    assert_eq!(reply.header("docker-content-digest"), image.digest);
    assert_eq!(reply.location(), manifest("manifests/image", &image.digest));
    for reference in ["v1", image.digest.as_str()] {
        image.is_at(&client, "manifests/image", reference);
        let path = manifest("manifests/image", reference);
        let head = client.head(&path).expect(200);
        assert_eq!(head.header("content-type"), oci::IMAGE);
        assert_eq!(head.header("docker-content-digest"), image.digest);
        assert_eq!(head.header("content-length"), image.bytes.len().to_string());
    }
}

#[test]
fn a_manifest_put_by_digest_has_no_tag() {
    let client = Client::shared();
    let image = oci::image(&client, "manifests/untagged", &[b"one"]);
    image.put(&client, "manifests/untagged", &image.digest);
    image.is_at(&client, "manifests/untagged", &image.digest);
    let tags = client.get("/v2/manifests/untagged/tags/list").expect(200);
    assert_eq!(tags.json()["tags"], json!([]));
}

#[test]
fn a_tag_moves_and_the_old_manifest_stays() {
    let client = Client::shared();
    let repository = "manifests/moves";
    let first = oci::image(&client, repository, &[b"first"]);
    let second = oci::image(&client, repository, &[b"second"]);
    first.put(&client, repository, "latest");
    second.put(&client, repository, "latest");
    second.is_at(&client, repository, "latest");
    first.is_at(&client, repository, &first.digest);
}

#[test]
fn an_index_and_its_children() {
    let client = Client::shared();
    let repository = "manifests/index";
    let children = [b"amd64 layer", b"arm64 layer"]
        .map(|layer| oci::image(&client, repository, &[layer.as_slice()]));
    for child in &children {
        child.put(&client, repository, &child.digest);
    }
    let index = oci::index(&[&children[0], &children[1]]);
    index.put(&client, repository, "multi");
    index.is_at(&client, repository, "multi");
    // An index of an index.
    let outer = oci::index(&[&index]);
    outer.put(&client, repository, "nested");
    outer.is_at(&client, repository, "nested");
    // No children at all is allowed by the specification.
    let empty = oci::index(&[]);
    empty.put(&client, repository, "empty");
    empty.is_at(&client, repository, "empty");
}

#[test]
fn docker_schema_2_and_its_list() {
    let client = Client::shared();
    let repository = "manifests/docker";
    let image = oci::docker_image(&client, repository, &[b"docker layer"]);
    image.put(&client, repository, "v1");
    image.is_at(&client, repository, "v1");
    let list = oci::docker_list(&[&image]);
    list.put(&client, repository, "list");
    list.is_at(&client, repository, "list");
}

#[test]
fn an_artifact_with_a_subject() {
    let client = Client::shared();
    let repository = "manifests/artifact";
    let image = oci::image(&client, repository, &[b"subject"]);
    image.put(&client, repository, "v1");
    let subject = image.descriptor();
    let artifact = oci::artifact(&client, repository, b"{\"findings\":0}", Some(&subject));
    let reply = client
        .put_manifest(repository, &artifact.digest, oci::IMAGE, &artifact.bytes)
        .expect(201);
    assert_eq!(reply.header("oci-subject"), image.digest);
    let path = format!("/v2/{repository}/referrers/{}", image.digest);
    let list = client.get(&path).expect(200).json();
    assert_eq!(list["manifests"][0]["digest"], artifact.digest.as_str());
    assert_eq!(list["manifests"].as_array().unwrap().len(), 1);
    artifact.is_at(&client, repository, &artifact.digest);
}

#[test]
fn a_subject_may_be_pushed_later() {
    let client = Client::shared();
    let repository = "manifests/early";
    let image = oci::image(&client, repository, &[b"later"]);
    let artifact = oci::artifact(&client, repository, b"early", Some(&image.descriptor()));
    artifact.put(&client, repository, &artifact.digest);
    image.put(&client, repository, "v1");
    artifact.is_at(&client, repository, &artifact.digest);
}

#[test]
fn an_artifact_without_layers_of_an_image() {
    let client = Client::shared();
    let artifact = oci::artifact(&client, "manifests/plain", b"any file", None);
    artifact.put(&client, "manifests/plain", "report");
    artifact.is_at(&client, "manifests/plain", "report");
}

#[test]
fn what_a_manifest_names_must_be_there() {
    let client = Client::shared();
    let repository = "manifests/missing";
    let image = oci::image(&client, repository, &[b"there"]);
    let mut document: serde_json::Value = serde_json::from_slice(&image.bytes).unwrap();
    let absent = data::sha256(b"a layer nobody pushed");
    document["layers"][0]["digest"] = json!(absent);
    let broken = Manifest::json(oci::IMAGE, &document);
    let reply = client
        .put_manifest(repository, "v1", oci::IMAGE, &broken.bytes)
        .expect_any(&[400, 404]);
    assert_eq!(reply.code(), "MANIFEST_BLOB_UNKNOWN");
    assert!(reply.text().contains(&absent), "{}", reply.text());
    client.get(&manifest(repository, "v1")).expect(404);
    client
        .get(&manifest(repository, &broken.digest))
        .expect(404);
    let index = oci::index(&[&image]);
    client
        .put_manifest(repository, "multi", oci::INDEX, &index.bytes)
        .expect_any(&[400, 404]);
}

#[test]
fn a_layer_pushed_elsewhere_is_not_here() {
    let client = Client::shared();
    let image = oci::image(&client, "manifests/owner", &[b"owned layer"]);
    let reply = client
        .put_manifest("manifests/thief", "v1", oci::IMAGE, &image.bytes)
        .expect_any(&[400, 404]);
    assert_eq!(reply.code(), "MANIFEST_BLOB_UNKNOWN");
}

#[test]
fn absent_manifests_are_unknown() {
    let client = Client::shared();
    client.push_blob("manifests/none", b"a blob");
    let digest = data::sha256(b"no manifest");
    for reference in ["v1", digest.as_str()] {
        let path = manifest("manifests/none", reference);
        client.get(&path).refused(404, "MANIFEST_UNKNOWN");
        client.head(&path).refused(404, "MANIFEST_UNKNOWN");
    }
}

#[test]
fn the_same_bytes_put_twice_are_accepted() {
    let client = Client::shared();
    let image = oci::image(&client, "manifests/twice", &[b"one"]);
    for tag in ["a", "b", "a"] {
        image.put(&client, "manifests/twice", tag);
    }
    image.is_at(&client, "manifests/twice", "b");
}

#[test]
fn a_manifest_is_no_blob_of_another_repository() {
    let client = Client::shared();
    let image = oci::image(&client, "manifests/a", &[b"one"]);
    image.put(&client, "manifests/a", "v1");
    client.push_blob("manifests/b", b"something");
    client
        .get(&manifest("manifests/b", &image.digest))
        .expect(404);
}
