//! skopeo: images, indexes, Docker types, mounts, lists, deletes, sync.

use orlop_tests::image::{self, Images};
use orlop_tests::oci;
use orlop_tests::server::Server;
use orlop_tests::{data, place};

use super::{image as name_of, transport};
use orlop_tests::tools::{self, Skopeo};
use serde_json::{Value, json};

#[test]
fn an_image_goes_and_comes_back_unchanged() {
    let (Some(skopeo), Some(images)) = (Skopeo::find(), Images::shared()) else {
        return;
    };
    let server = Server::shared();
    let there = transport(&server, "skopeo/image:v1");
    let pushed = skopeo.copy(&images.single(), &there);
    assert_eq!(pushed, images.manifest);
    let folder = place::dir();
    let back = folder.path().join("back");
    let pulled = skopeo.copy(&there, &format!("oci:{}:v1", back.display()));
    assert_eq!(pulled, images.manifest);
    assert_eq!(image::only_entry(&back), images.manifest);
    assert_eq!(image::blobs(&back), image::blobs(&images.layout()));
    assert_eq!(
        data::sha256(&skopeo.raw_manifest(&there)),
        images.manifest,
        "the manifest is served as it was pushed"
    );
}

#[test]
fn an_index_of_two_platforms_goes_and_comes_back_whole() {
    let (Some(skopeo), Some(images)) = (Skopeo::find(), Images::shared()) else {
        return;
    };
    let server = Server::shared();
    let there = transport(&server, "skopeo/multi:v1");
    assert_eq!(skopeo.copy(&images.multi(), &there), images.index);
    let folder = place::dir();
    let back = folder.path().join("back");
    let pulled = skopeo.copy(&there, &format!("oci:{}:v1", back.display()));
    assert_eq!(pulled, images.index);
    // Two manifests, two configurations, three layers, the index.
    assert_eq!(image::blobs(&back).len(), 8);
    // One platform of it, by digest.
    let by_digest = transport(&server, &format!("skopeo/multi@{}", images.manifest));
    let one = folder.path().join("one");
    skopeo.copy(&by_digest, &format!("oci:{}:v1", one.display()));
    assert_eq!(image::blobs(&one), image::blobs(&images.layout()));
}

#[test]
fn docker_schema_2_images_and_lists() {
    let (Some(skopeo), Some(images)) = (Skopeo::find(), Images::shared()) else {
        return;
    };
    let server = Server::shared();
    let there = transport(&server, "skopeo/docker:v1");
    let pushed = skopeo.copy_with(&["--format", "v2s2"], &images.single(), &there);
    let raw = skopeo.raw_manifest(&there);
    assert_eq!(data::sha256(&raw), pushed);
    assert!(String::from_utf8_lossy(&raw).contains(oci::DOCKER_IMAGE));
    let list = transport(&server, "skopeo/docker:list");
    let pushed = skopeo.copy_with(&["--all", "--format", "v2s2"], &images.multi(), &list);
    let raw = skopeo.raw_manifest(&list);
    assert_eq!(data::sha256(&raw), pushed);
    assert!(String::from_utf8_lossy(&raw).contains(oci::DOCKER_LIST));
    // Between two repositories, without a change.
    let copy = transport(&server, "skopeo/docker-copy:list");
    assert_eq!(skopeo.copy(&list, &copy), pushed);
}

#[test]
fn a_second_repository_is_filled_by_mounts() {
    let (Some(skopeo), Some(images)) = (Skopeo::find(), Images::shared()) else {
        return;
    };
    let server = Server::start();
    let first = transport(&server, "mounts/first:v1");
    let second = transport(&server, "mounts/second:v1");
    skopeo.copy(&images.single(), &first);
    assert_eq!(skopeo.copy(&first, &second), images.manifest);
    let client = server.client();
    for blob in image::blobs(&images.layout()) {
        if blob != images.manifest {
            let path = orlop_tests::client::blob("mounts/second", &blob);
            client.head(&path).expect(200);
        }
    }
}

#[test]
fn tags_are_listed_and_images_deleted() {
    let (Some(skopeo), Some(images)) = (Skopeo::find(), Images::shared()) else {
        return;
    };
    let server = Server::start();
    let at = |reference: &str| transport(&server, &format!("skopeo/tags{reference}"));
    let run = |words: &[&str]| tools::run(skopeo.command().args(words));
    skopeo.copy(&images.single(), &at(":v1"));
    skopeo.copy(&images.single(), &at(":v2"));
    skopeo.copy(&images.multi(), &at(":multi"));
    let tags = || -> Value {
        let said = run(&["list-tags", "--tls-verify=false", &at("")]);
        serde_json::from_str(&said).unwrap()
    };
    assert_eq!(tags()["Tags"], json!(["multi", "v1", "v2"]));
    let said = run(&["inspect", "--tls-verify=false", &at(":v1")]);
    let about: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(about["Digest"], images.manifest.as_str());
    assert_eq!(about["RepoTags"], json!(["multi", "v1", "v2"]));
    assert_eq!(
        data::sha256(&skopeo.raw_manifest(&at(":multi"))),
        images.index
    );

    // skopeo deletes what a tag leads to, and so all its tags.
    run(&["delete", "--tls-verify=false", &at(":v1")]);
    assert_eq!(tags()["Tags"], json!(["multi"]));
    let mut again = skopeo.command();
    let gone = tools::try_run(again.args(["delete", "--tls-verify=false", &at(":v2")]));
    assert!(
        !gone.ok && gone.err.contains("manifest unknown"),
        "{}",
        gone.err
    );
    run(&["delete", "--tls-verify=false", &at(":multi")]);
    assert_eq!(tags()["Tags"], json!([]));
    // What is gone comes back by a push.
    assert_eq!(skopeo.copy(&images.single(), &at(":v1")), images.manifest);
    assert_eq!(tags()["Tags"], json!(["v1"]));
}

#[test]
fn a_repository_is_kept_in_step_with_another() {
    let (Some(skopeo), Some(images)) = (Skopeo::find(), Images::shared()) else {
        return;
    };
    let (here, there) = (Server::start(), Server::start());
    skopeo.copy(&images.single(), &transport(&here, "team/app:v1"));
    skopeo.copy(&images.multi(), &transport(&here, "team/app:v2"));
    let sync = |from: &str, kind: &str, to: &str| {
        let mut command = skopeo.command();
        command.args(["sync", "--all", "--preserve-digests"]);
        command.args(["--src-tls-verify=false", "--dest-tls-verify=false"]);
        tools::run(command.args(["--src", "docker", "--dest", kind, from, to]));
    };
    let (from, to) = (name_of(&here, "team/app"), name_of(&there, "mirror"));
    sync(&from, "docker", &to);
    let client = there.client();
    assert_eq!(client.digest_of("mirror/app", "v1"), images.manifest);
    assert_eq!(client.digest_of("mirror/app", "v2"), images.index);
    // Once more, after one tag was moved.
    skopeo.copy(&images.multi(), &transport(&here, "team/app:v1"));
    sync(&from, "docker", &to);
    assert_eq!(client.digest_of("mirror/app", "v1"), images.index);
    // And to a folder.
    let folder = place::dir();
    sync(
        &to.replace("mirror", "mirror/app"),
        "dir",
        &folder.path().display().to_string(),
    );
    let file = folder.path().join("app:v1/manifest.json");
    assert_eq!(data::sha256(&std::fs::read(file).unwrap()), images.index);
}
