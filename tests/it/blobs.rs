//! Blobs: HEAD, GET, ranges, early close, mounts.

use orlop_tests::client::{Client, blob};
use orlop_tests::data;
use orlop_tests::raw::Wire;
use orlop_tests::server::Server;

#[test]
fn blobs_of_every_size_come_back_byte_for_byte() {
    // Around the borders of the store: empty, inline, one page, one extent.
    let server = Server::shared();
    let client = server.client();
    let k = 1 << 10;
    let sizes = [
        0,
        1,
        4095,
        4096,
        4097,
        64 * k - 1,
        64 * k,
        64 * k + 1,
        k * k,
        8 * k * k - 1,
        8 * k * k,
        8 * k * k + 1,
        20 * k * k + 17,
    ];
    for (seed, size) in (100..).zip(sizes) {
        let bytes = data::bytes(seed, size);
        let digest = client.push_blob("blobs/sizes", &bytes);
        client.blob_is("blobs/sizes", &digest, &bytes);
        let head = client.head(&blob("blobs/sizes", &digest)).expect(200);
        assert_eq!(head.header("content-length"), size.to_string());
        assert_eq!(head.header("docker-content-digest"), digest);
    }
}

#[test]
fn get_says_what_it_serves() {
    let client = Client::shared();
    let digest = client.push_blob("blobs/headers", b"some bytes");
    let reply = client.get(&blob("blobs/headers", &digest)).expect(200);
    assert_eq!(reply.header("docker-content-digest"), digest);
    assert_eq!(reply.header("content-length"), "10");
    assert_eq!(reply.header("content-type"), "application/octet-stream");
    assert_eq!(reply.header("accept-ranges"), "bytes");
    assert_eq!(reply.header("x-content-type-options"), "nosniff");
    assert!(reply.header("etag").contains(&digest));
}

#[test]
fn absent_blobs_are_unknown() {
    let client = Client::shared();
    client.push_blob("blobs/known", b"known");
    let absent = data::sha256(b"never pushed");
    client
        .get(&blob("blobs/known", &absent))
        .refused(404, "BLOB_UNKNOWN");
    client
        .head(&blob("blobs/known", &absent))
        .refused(404, "BLOB_UNKNOWN");
}

#[test]
fn a_blob_is_served_only_where_it_was_pushed() {
    let client = Client::shared();
    let digest = client.push_blob("blobs/here", b"only here");
    client.push_blob("blobs/there", b"something else");
    let elsewhere = client.get(&blob("blobs/there", &digest)).expect(404);
    assert_eq!(elsewhere.code(), "BLOB_UNKNOWN");
    client.head(&blob("blobs/there", &digest)).expect(404);
}

#[test]
fn a_range_is_exact_at_every_border() {
    let client = Client::shared();
    // 200 KiB + 3: several checksummed pages, an odd end.
    let bytes = data::bytes(5, 200 * 1024 + 3);
    let digest = client.push_blob("blobs/range", &bytes);
    let path = blob("blobs/range", &digest);
    let size = bytes.len();
    let page = 64 * 1024;
    let ranges = [
        (0, 0),
        (0, 1),
        (1, 4096),
        (4095, 4096),
        (page - 1, page),
        (page, 2 * page - 1),
        (page - 1, 2 * page),
        (size - 1, size - 1),
        (0, size - 1),
        (size / 3, size / 2),
    ];
    for (first, last) in ranges {
        let reply = client
            .range(&path, &format!("bytes={first}-{last}"))
            .expect(206);
        assert_eq!(
            reply.header("content-range"),
            format!("bytes {first}-{last}/{size}")
        );
        assert_eq!(
            reply.header("content-length"),
            (last - first + 1).to_string()
        );
        assert!(reply.body == bytes[first..=last], "{first}-{last}");
    }
}

#[test]
fn a_range_may_be_open_or_a_suffix_or_reach_too_far() {
    let client = Client::shared();
    let bytes = data::bytes(6, 100_000);
    let digest = client.push_blob("blobs/open", &bytes);
    let path = blob("blobs/open", &digest);
    let cases = [
        ("bytes=70000-", 70_000, 99_999),
        ("bytes=0-", 0, 99_999),
        ("bytes=-10", 99_990, 99_999),
        ("bytes=-200000", 0, 99_999),
        ("bytes=99999-500000", 99_999, 99_999),
        ("bytes=10-18446744073709551615", 10, 99_999),
    ];
    for (range, first, last) in cases {
        let reply = client.range(&path, range).expect(206);
        assert_eq!(
            reply.header("content-range"),
            format!("bytes {first}-{last}/100000"),
            "{range}"
        );
        assert!(reply.body == bytes[first..=last], "{range}");
    }
}

#[test]
fn a_range_past_the_end_names_the_size() {
    let client = Client::shared();
    let digest = client.push_blob("blobs/past", &data::bytes(7, 1000));
    let path = blob("blobs/past", &digest);
    for range in ["bytes=1000-", "bytes=1000-1001", "bytes=5000-6000"] {
        let reply = client.range(&path, range).expect(416);
        assert_eq!(reply.header("content-range"), "bytes */1000", "{range}");
    }
}

#[test]
fn a_reader_that_goes_away_early_costs_nothing() {
    let server = Server::start();
    let client = server.client();
    let bytes = data::bytes(8, 48 << 20);
    let digest = client.push_blob("blobs/early", &bytes);
    let before = server.resident();
    for _ in 0..40 {
        let mut wire = Wire::connect(server.address());
        let request = format!(
            "GET {} HTTP/1.1\r\nHost: x\r\n\r\n",
            blob("blobs/early", &digest)
        );
        wire.send(request.as_bytes());
        let head = wire.some(1000);
        assert!(head.starts_with(b"HTTP/1.1 200"));
    }
    client.blob_is("blobs/early", &digest, &bytes);
    let grown = server.resident().saturating_sub(before);
    assert!(
        grown < 200 << 20,
        "40 readers that went away left {} MiB",
        grown >> 20
    );
}

#[test]
fn a_mount_links_without_a_second_push() {
    let client = Client::shared();
    let bytes = data::bytes(9, 300_000);
    let digest = client.push_blob("blobs/source", &bytes);
    let path = format!("/v2/blobs/target/blobs/uploads/?mount={digest}&from=blobs/source");
    let reply = client.call("POST", &path, &[], "").expect(201);
    assert_eq!(reply.location(), blob("blobs/target", &digest));
    assert_eq!(reply.header("docker-content-digest"), digest);
    client.blob_is("blobs/target", &digest, &bytes);
}

#[test]
fn a_mount_of_what_is_not_there_opens_an_upload() {
    let client = Client::shared();
    client.push_blob("blobs/empty-source", b"something else");
    let bytes = data::bytes(10, 5000);
    let digest = data::sha256(&bytes);
    let path = format!("/v2/blobs/target2/blobs/uploads/?mount={digest}&from=blobs/empty-source");
    let reply = client.call("POST", &path, &[], "").expect(202);
    let location = reply.location();
    client.finish(&location, &digest, bytes.clone()).expect(201);
    client.blob_is("blobs/target2", &digest, &bytes);
}

#[test]
fn pushing_what_is_there_already_is_accepted() {
    let client = Client::shared();
    let bytes = data::bytes(11, 2 << 20);
    for _ in 0..3 {
        client.push_blob("blobs/again", &bytes);
    }
    client.blob_is("blobs/again", &data::sha256(&bytes), &bytes);
}
