//! skopeo: images, indexes, Docker types, mounts.

use orlop_tests::image::{self, Images};
use orlop_tests::oci;
use orlop_tests::server::Server;
use orlop_tests::{data, place};

use super::transport;
use orlop_tests::tools::Skopeo;

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
