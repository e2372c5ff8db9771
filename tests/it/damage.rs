//! Bytes that rot on disk: one blob is named, the rest goes on, a push heals.

use orlop_tests::client::blob;
use orlop_tests::damage::rot;
use orlop_tests::data;
use orlop_tests::oci;
use orlop_tests::server::Server;

/// Damages one of several blobs of this size, and checks what each answers.
fn one_rots(size: usize) {
    let mut server = Server::start();
    let client = server.client();
    let blobs: Vec<Vec<u8>> = (0..3).map(|i| data::bytes(500 + i, size)).collect();
    for bytes in &blobs {
        client.push_blob("damage/repo", bytes);
    }
    let image = oci::image(&client, "damage/repo", &[&blobs[0]]);
    image.put(&client, "damage/repo", "v1");
    server.stop();
    rot(server.data(), &blobs[1]);
    server.start_again();

    let client = server.client();
    let digest = data::sha256(&blobs[1]);
    let path = blob("damage/repo", &digest);
    for _ in 0..2 {
        // A cut body is an error of the client's library; a whole one with
        // status 200 would be corrupt bytes served as good.
        if let Ok(reply) = client.try_call("GET", &path, &[], "") {
            assert_eq!(reply.status, 500, "corrupt bytes were served");
            assert!(!reply.code().is_empty());
            assert_ne!(reply.code(), "BLOB_UNKNOWN");
        }
    }
    client.head(&path).expect(404);
    let mount = format!("/v2/damage/other/blobs/uploads/?mount={digest}&from=damage/repo");
    client.call("POST", &mount, &[], "").expect(202);
    for bytes in [&blobs[0], &blobs[2]] {
        client.blob_is("damage/repo", &data::sha256(bytes), bytes);
    }
    image.is_at(&client, "damage/repo", "v1");

    // The next push heals it, for good.
    client.push_blob("damage/repo", &blobs[1]);
    client.blob_is("damage/repo", &digest, &blobs[1]);
    server.stop();
    server.start_again();
    let client = server.client();
    client.blob_is("damage/repo", &digest, &blobs[1]);
    client.head(&path).expect(200);
}

#[test]
fn a_rotten_small_blob_in_the_journal() {
    one_rots(5000);
}

#[test]
fn a_rotten_blob_in_a_segment() {
    one_rots(300_000);
}

#[test]
fn a_rotten_blob_of_several_extents() {
    one_rots(20 << 20);
}
