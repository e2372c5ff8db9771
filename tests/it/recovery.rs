//! What any start repairs by itself: a missing or damaged index.

use std::fs;

use orlop_tests::data;
use orlop_tests::oci;
use orlop_tests::server::{Server, Setup};
use orlop_tests::tools;

/// Pushes blobs of many sizes and an image; returns what has to be there.
fn filled() -> (Server, Vec<Vec<u8>>, oci::Manifest) {
    let server = Server::start();
    let client = server.client();
    let sizes = [0, 1, 4096, 65_536, 65_537, 1 << 20, 9 << 20];
    let blobs: Vec<Vec<u8>> = (80..)
        .zip(sizes)
        .map(|(seed, size)| data::bytes(seed, size))
        .collect();
    for bytes in &blobs {
        client.push_blob("rebuild/repo", bytes);
    }
    let image = oci::image(&client, "rebuild/repo", &[&blobs[5], b"another"]);
    image.put(&client, "rebuild/repo", "v1");
    (server, blobs, image)
}

fn all_there(server: &Server, blobs: &[Vec<u8>], image: &oci::Manifest) {
    let client = server.client();
    for bytes in blobs {
        client.blob_is("rebuild/repo", &data::sha256(bytes), bytes);
    }
    image.is_at(&client, "rebuild/repo", "v1");
    image.is_at(&client, "rebuild/repo", &image.digest);
}

#[test]
fn a_missing_index_is_rebuilt_at_start() {
    let (mut server, blobs, image) = filled();
    server.stop();
    fs::remove_dir_all(server.data().join("index")).unwrap();
    server.start_again();
    all_there(&server, &blobs, &image);
    // Pushes go on, and a second start has nothing to rebuild.
    let more = data::bytes(90, 100_000);
    server.client().push_blob("rebuild/repo", &more);
    server.stop();
    server.start_again();
    all_there(&server, &blobs, &image);
    all_there(&server, &[more], &image);
}

#[test]
fn a_missing_index_is_rebuilt_after_a_kill() {
    let (mut server, blobs, image) = filled();
    server.kill();
    fs::remove_dir_all(server.data().join("index")).unwrap();
    server.start_again();
    all_there(&server, &blobs, &image);
}

#[test]
fn a_damaged_index_is_rebuilt_at_start() {
    let (mut server, blobs, image) = filled();
    server.stop();
    let mut damaged = 0;
    for entry in fs::read_dir(server.data().join("index")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if name.starts_with("MANIFEST") || name == "CURRENT" {
            let size = usize::try_from(fs::metadata(&path).unwrap().len()).unwrap();
            fs::write(&path, data::bytes(91, size)).unwrap();
            damaged += 1;
        }
    }
    assert!(
        damaged >= 2,
        "the index has other files than this test knows"
    );
    server.start_again();
    all_there(&server, &blobs, &image);
}

#[test]
fn both_backends_serve_what_the_other_wrote() {
    let backend = |name: &str| Setup::default().env("ORLOP_DISK_BACKEND", name);
    if let Err(log) = backend("uring").try_start() {
        assert!(log.contains("io_uring"), "{log}");
        tools::skipped("io_uring is not available here");
        return;
    }
    let mut server = backend("pool").start();
    let client = server.client();
    let first = data::bytes(92, 5 << 20);
    let image = oci::image(&client, "rebuild/repo", &[&first, b"small"]);
    image.put(&client, "rebuild/repo", "v1");
    server.stop();
    server.change(|_| backend("uring"));
    server.start_again();
    all_there(&server, std::slice::from_ref(&first), &image);
    let second = data::bytes(93, 5 << 20);
    server.client().push_blob("rebuild/repo", &second);
    server.stop();
    server.change(|_| backend("pool"));
    server.start_again();
    all_there(&server, &[first, second], &image);
}
