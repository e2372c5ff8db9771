//! Many at once: the same blob, the same tag, readers among writers.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Barrier;
use std::thread;

use orlop_tests::client::{Client, blob, manifest};
use orlop_tests::server::{Server, Setup};
use orlop_tests::{data, oci, place};

#[test]
fn i08_64_pushers_of_one_blob_at_one_moment() {
    let ops = SocketAddr::from((Ipv4Addr::LOCALHOST, place::port()));
    let server = Setup::default()
        .env("ORLOP_OPS_LISTEN", ops.to_string())
        .start();
    let ops = Client::new(ops);
    for (round, size) in [(1, 1000), (2, 60_000), (3, 2 << 20)] {
        let before = deduplicated(&ops);
        let bytes = data::bytes(round, size);
        let digest = data::sha256(&bytes);
        let start = Barrier::new(64);
        thread::scope(|scope| {
            for i in 0..64 {
                let (server, bytes, digest, start) = (&server, &bytes, &digest, &start);
                scope.spawn(move || {
                    let client = server.client();
                    let repository = format!("i08/r{}", i % 4);
                    let location = client.open_upload(&repository);
                    start.wait();
                    client.finish(&location, digest, bytes.clone()).expect(201);
                    client.blob_is(&repository, digest, bytes);
                });
            }
        });
        let (pushes, bytes) = deduplicated(&ops);
        assert_eq!(pushes - before.0, 63, "one of 64 pushes brings the blob");
        assert_eq!(bytes - before.1, 63 * size as u64);
    }
}

/// Pushes of blobs that were here already, and their bytes.
fn deduplicated(ops: &Client) -> (u64, u64) {
    let page = String::from_utf8(ops.get("/metrics").expect(200).body).unwrap();
    let value = |name: &str| {
        let line = page.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap().trim().parse().unwrap()
    };
    (
        value("orlop_blobs_deduplicated_total "),
        value("orlop_blobs_deduplicated_bytes_total "),
    )
}

#[test]
fn one_tag_pushed_by_many_is_always_one_of_them() {
    let server = Server::start();
    let client = server.client();
    let images: Vec<oci::Manifest> = (0..8_u8)
        .map(|i| oci::image(&client, "race/tag", &[&[i]]))
        .collect();
    images[0].put(&client, "race/tag", "latest");
    thread::scope(|scope| {
        for image in &images {
            let client = &client;
            scope.spawn(move || {
                for _ in 0..20 {
                    image.put(client, "race/tag", "latest");
                    let seen = client.get(&manifest("race/tag", "latest")).expect(200);
                    assert_eq!(
                        data::sha256(&seen.body),
                        seen.header("docker-content-digest")
                    );
                }
            });
        }
    });
    let last = client.get(&manifest("race/tag", "latest")).expect(200);
    assert!(images.iter().any(|image| image.bytes == last.body));
}

#[test]
fn readers_among_writers_see_whole_blobs() {
    let server = Server::start();
    let client = server.client();
    let old = data::bytes(70, 6 << 20);
    let digest = client.push_blob("mixed/repo", &old);
    thread::scope(|scope| {
        for writer in 0..3 {
            let server = &server;
            scope.spawn(move || {
                let client = server.client();
                for i in 0..10 {
                    let bytes = data::bytes(700 + writer * 100 + i, 1_500_000);
                    let digest = client.push_blob("mixed/repo", &bytes);
                    client.blob_is("mixed/repo", &digest, &bytes);
                }
            });
        }
        for _ in 0..3 {
            let (client, old, digest) = (&client, &old, &digest);
            scope.spawn(move || {
                for i in 0..10 {
                    client.blob_is("mixed/repo", digest, old);
                    let first = i * 500_001;
                    let part = client
                        .range(&blob("mixed/repo", digest), &format!("bytes={first}-"))
                        .expect(206);
                    assert!(part.body == old[first..]);
                }
            });
        }
    });
}

#[test]
fn one_upload_is_taken_by_one_request_at_a_time() {
    let server = Server::start();
    let bytes = data::bytes(71, 2_000_000);
    let digest = data::sha256(&bytes);
    let location = server.client().open_upload("race/upload");
    let start = Barrier::new(8);
    let accepted: usize = thread::scope(|scope| {
        let pushers: Vec<_> = (0..8)
            .map(|_| {
                let (server, bytes, location, start) = (&server, &bytes, &location, &start);
                scope.spawn(move || {
                    let client = server.client();
                    start.wait();
                    let reply = client
                        .patch_at(location, 0, bytes)
                        .expect_any(&[202, 409, 416, 429, 503]);
                    usize::from(reply.status == 202)
                })
            })
            .collect();
        pushers.into_iter().map(|p| p.join().unwrap()).sum()
    });
    assert_eq!(accepted, 1, "the same range was taken {accepted} times");
    let client = server.client();
    let status = client.get(&location).expect(204);
    assert_eq!(status.header("range"), "0-1999999");
    client.finish(&status.location(), &digest, "").expect(201);
    client.blob_is("race/upload", &digest, &bytes);
}
