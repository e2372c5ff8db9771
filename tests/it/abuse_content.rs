//! Abuse cases A41 to A43: content that is not what it is called.

use orlop_tests::client::{Client, blob, manifest, with_digest};
use orlop_tests::data;
use orlop_tests::oci::{self, Manifest};

#[test]
fn a41_digest_mismatch_links_nothing() {
    let client = Client::shared();
    // Inline, and large enough to be on its way to a segment.
    for (seed, size) in [(41, 1000), (42, 3 << 20)] {
        let bytes = data::bytes(seed, size);
        let claimed = data::sha256(b"something else");
        let location = client.open_upload("a41/mismatch");
        client
            .finish(&location, &claimed, bytes.clone())
            .refused(400, "DIGEST_INVALID");
        for digest in [&claimed, &data::sha256(&bytes)] {
            client.get(&blob("a41/mismatch", digest)).expect(404);
            client.head(&blob("a41/mismatch", digest)).expect(404);
        }
        client.get(&location).refused(404, "BLOB_UPLOAD_UNKNOWN");
        // A right push heals it.
        client.push_blob("a41/mismatch", &bytes);
        client.blob_is("a41/mismatch", &data::sha256(&bytes), &bytes);
    }
}

#[test]
fn a41_a_mismatch_after_patches_ends_the_session() {
    let client = Client::shared();
    let bytes = data::bytes(43, 200_000);
    let location = client.open_upload("a41/patched");
    let location = client
        .patch(&location, bytes.clone())
        .expect(202)
        .location();
    client
        .finish(&location, &data::sha256(b"other"), "")
        .refused(400, "DIGEST_INVALID");
    client.get(&location).refused(404, "BLOB_UPLOAD_UNKNOWN");
    client
        .get(&blob("a41/patched", &data::sha256(&bytes)))
        .expect(404);
}

/// Pushes bytes under a SHA-512 digest, in the way asked.
fn push_512(client: &Client, repository: &str, query: &str, bytes: &[u8]) -> String {
    let digest = data::sha512(bytes);
    let path = format!("/v2/{repository}/blobs/uploads/{query}");
    let location = client.call("POST", &path, &[], "").expect(202).location();
    let (first, rest) = bytes.split_at(bytes.len() / 3);
    let location = client
        .patch(&location, first.to_vec())
        .expect(202)
        .location();
    let reply = client.finish(&location, &digest, rest.to_vec()).expect(201);
    assert_eq!(reply.header("docker-content-digest"), digest);
    digest
}

#[test]
fn a42_each_address_serves_its_own_digest() {
    let client = Client::shared();
    let repository = "a42/blobs";
    for (query, size) in [
        ("", 5000),
        ("?digest-algorithm=sha512", 6000),
        ("", 2 << 20),
        ("?digest-algorithm=sha512", 3 << 20),
    ] {
        let bytes = data::bytes(44, size);
        let long = push_512(&client, repository, query, &bytes);
        let short = client.push_blob(repository, &bytes);
        for digest in [&long, &short] {
            client.blob_is(repository, digest, &bytes);
            let head = client.head(&blob(repository, digest)).expect(200);
            assert_eq!(head.header("docker-content-digest"), digest);
            let range = client
                .range(&blob(repository, digest), "bytes=10-19")
                .expect(206);
            assert_eq!(range.header("docker-content-digest"), digest);
        }
    }
}

#[test]
fn a42_a_session_may_end_with_either_algorithm() {
    let client = Client::shared();
    let bytes = data::bytes(45, 100_000);
    let path = "/v2/a42/either/blobs/uploads/?digest-algorithm=sha512";
    let location = client.call("POST", path, &[], "").expect(202).location();
    let digest = data::sha256(&bytes);
    client.finish(&location, &digest, bytes.clone()).expect(201);
    client.blob_is("a42/either", &digest, &bytes);
}

#[test]
fn a42_a_wrong_sha512_is_a_mismatch() {
    let client = Client::shared();
    let location = client.open_upload("a42/wrong");
    client
        .finish(&location, &data::sha512(b"other"), "bytes")
        .refused(400, "DIGEST_INVALID");
    let unknown = client
        .call(
            "POST",
            "/v2/a42/wrong/blobs/uploads/?digest-algorithm=md5",
            &[],
            "",
        )
        .expect_any(&[202, 400]);
    assert!(unknown.status == 202 || !unknown.code().is_empty());
}

#[test]
fn a42_a_manifest_under_sha512() {
    let client = Client::shared();
    let repository = "a42/manifest";
    let image = oci::image(&client, repository, &[b"layer"]);
    let digest = data::sha512(&image.bytes);
    let reply = client
        .put_manifest(repository, &digest, oci::IMAGE, &image.bytes)
        .expect(201);
    assert_eq!(reply.header("docker-content-digest"), digest);
    let got = client.get(&manifest(repository, &digest)).expect(200);
    assert_eq!(got.header("docker-content-digest"), digest);
    assert!(got.body == image.bytes);
    image.put(&client, repository, "v1");
    image.is_at(&client, repository, "v1");
    image.is_at(&client, repository, &image.digest);
    let again = client.get(&manifest(repository, &digest)).expect(200);
    assert_eq!(again.header("docker-content-digest"), digest);
}

#[test]
fn a43_a_manifest_under_a_foreign_digest_is_refused() {
    let client = Client::shared();
    let repository = "a43/foreign";
    let image = oci::image(&client, repository, &[b"layer"]);
    for digest in [data::sha256(b"other"), data::sha512(b"other")] {
        client
            .put_manifest(repository, &digest, oci::IMAGE, &image.bytes)
            .refused(400, "DIGEST_INVALID");
        client.get(&manifest(repository, &digest)).expect(404);
    }
    client.get(&manifest(repository, &image.digest)).expect(404);
}

#[test]
fn a43_the_pushed_bytes_come_back_exactly() {
    let client = Client::shared();
    let repository = "a43/exact";
    let image = oci::image(&client, repository, &[b"layer"]);
    let text = String::from_utf8(image.bytes).unwrap();
    let forms = [
        format!("{text} "),
        format!("{text}\r\n\t "),
        format!("  {text}"),
        text.replace('\n', "").replace("  ", ""),
        text.replace("schemaVersion", "schema\\u0056ersion"),
        text.replace("vnd.oci.image.manifest", "vnd\\u002eoci.image.manifest"),
    ];
    for (i, form) in forms.into_iter().enumerate() {
        let manifest = Manifest::of(oci::IMAGE, form.into_bytes());
        let tag = format!("form{i}");
        manifest.put(&client, repository, &tag);
        manifest.is_at(&client, repository, &tag);
        manifest.is_at(&client, repository, &manifest.digest);
    }
}

#[test]
fn a43_a_digest_in_the_query_of_a_single_post_is_checked() {
    let client = Client::shared();
    let path = with_digest("/v2/a43/post/blobs/uploads/", &data::sha256(b"other"));
    let reply = client
        .call("POST", &path, &[], "bytes")
        .expect_any(&[202, 400]);
    assert!(reply.status == 202 || reply.code() == "DIGEST_INVALID");
    client
        .get(&blob("a43/post", &data::sha256(b"other")))
        .expect(404);
}
