//! Bytes that rot on disk: one blob is named, the rest goes on, a push heals.

use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use orlop_tests::client::blob;
use orlop_tests::data;
use orlop_tests::oci;
use orlop_tests::server::Server;

/// Finds where these bytes lie in the files below a folder.
fn find(folder: &Path, needle: &[u8]) -> Option<(PathBuf, u64)> {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let found = if path.is_dir() {
            find(&path, needle)
        } else {
            find_in(&path, needle).map(|at| (path, at))
        };
        if found.is_some() {
            return found;
        }
    }
    None
}

/// Reads a file in steps and passes over what was never written.
fn find_in(path: &Path, needle: &[u8]) -> Option<u64> {
    const STEP: usize = 64 << 10;
    let zeros = vec![0; STEP];
    let mut file = File::open(path).unwrap();
    // The end of the step before, where the needle may begin.
    let mut window = Vec::new();
    let mut start = 0;
    loop {
        let kept = window.len();
        let read = file
            .by_ref()
            .take(STEP as u64)
            .read_to_end(&mut window)
            .unwrap();
        if read == 0 {
            return None;
        }
        if window[kept..] != zeros[..read] {
            let found = window.windows(needle.len()).position(|w| w == needle);
            if let Some(at) = found {
                return Some(start + at as u64);
            }
        }
        let cut = window.len().saturating_sub(needle.len() - 1);
        window.drain(..cut);
        start += cut as u64;
    }
}

/// Flips one bit of a blob's payload on disk.
fn rot(server: &Server, bytes: &[u8]) {
    // Somewhere inside, within one page.
    let middle = bytes.len() / 2;
    let needle = &bytes[middle..(middle + 32).min(bytes.len())];
    let place = ["data", "journal"]
        .iter()
        .find_map(|folder| find(&server.data().join(folder), needle));
    let (path, at) = place.expect("the blob's bytes lie in the store");
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at + 5).unwrap();
    byte[0] ^= 0x10;
    file.write_all_at(&byte, at + 5).unwrap();
}

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
    rot(&server, &blobs[1]);
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
