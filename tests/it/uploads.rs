//! Uploads: every way to push a blob, and what may be asked in between.

use orlop_tests::client::{Client, blob, with_digest};
use orlop_tests::data::{self, Stream};
use orlop_tests::raw::Wire;
use orlop_tests::server::Server;

#[test]
fn post_then_put_answers_where_the_blob_is() {
    let client = Client::shared();
    let bytes = data::bytes(1, 70_000);
    let digest = data::sha256(&bytes);
    let opened = client
        .call("POST", "/v2/uploads/monolithic/blobs/uploads/", &[], "")
        .expect(202);
    assert!(
        opened
            .find("docker-upload-uuid")
            .is_some_and(|id| !id.is_empty())
    );
    let done = client
        .finish(&opened.location(), &digest, bytes.clone())
        .expect(201);
    assert_eq!(done.header("docker-content-digest"), digest);
    assert_eq!(done.location(), blob("uploads/monolithic", &digest));
    client.blob_is("uploads/monolithic", &digest, &bytes);
}

#[test]
fn a_single_post_may_carry_the_whole_blob() {
    let client = Client::shared();
    let bytes = data::bytes(2, 9000);
    let digest = data::sha256(&bytes);
    let path = with_digest("/v2/uploads/single/blobs/uploads/", &digest);
    let headers = [("Content-Type", "application/octet-stream")];
    let reply = client
        .call("POST", &path, &headers, bytes.clone())
        .expect_any(&[201, 202]);
    if reply.status == 202 {
        client
            .finish(&reply.location(), &digest, bytes.clone())
            .expect(201);
    }
    client.blob_is("uploads/single", &digest, &bytes);
}

#[test]
fn a_stream_of_unknown_length_then_put() {
    let client = Client::shared();
    let size = 21 << 20;
    let (_, digest) = data::sha256_of_reader(Stream::new(3, size));
    client.push_stream("uploads/stream", &digest, Stream::new(3, size));
    let reply = client.get(&blob("uploads/stream", &digest)).expect(200);
    assert_eq!(data::sha256(&reply.body), digest);
}

#[test]
fn chunks_in_order_then_put_with_the_last() {
    let client = Client::shared();
    let bytes = data::bytes(4, 250_000);
    let mut location = client.open_upload("uploads/chunks");
    let mut sent = 0;
    for size in [1, 4095, 65_536, 100_000] {
        let reply = client
            .patch_at(&location, sent as u64, &bytes[sent..sent + size])
            .expect(202);
        sent += size;
        assert_eq!(reply.header("range"), format!("0-{}", sent - 1));
        location = reply.location();
    }
    let digest = data::sha256(&bytes);
    client
        .finish(&location, &digest, bytes[sent..].to_vec())
        .expect(201);
    client.blob_is("uploads/chunks", &digest, &bytes);
}

#[test]
fn the_last_chunk_may_name_its_range_in_the_put() {
    let client = Client::shared();
    let bytes = data::bytes(14, 100_000);
    let location = client.open_upload("uploads/last");
    let location = client
        .patch_at(&location, 0, &bytes[..60_000])
        .expect(202)
        .location();
    let digest = data::sha256(&bytes);
    let path = with_digest(&location, &digest);
    let wrong = [("Content-Range", "10-40009")];
    client
        .call("PUT", &path, &wrong, bytes[60_000..].to_vec())
        .expect(416);
    let right = [("Content-Range", "60000-99999")];
    client
        .call("PUT", &path, &right, bytes[60_000..].to_vec())
        .expect(201);
    client.blob_is("uploads/last", &digest, &bytes);
}

#[test]
fn status_names_the_bytes_received() {
    let client = Client::shared();
    let location = client.open_upload("uploads/status");
    let fresh = client.get(&location).expect(204);
    assert_eq!(fresh.header("range"), "0-0");
    let location = client
        .patch(&location, data::bytes(5, 123_456))
        .expect(202)
        .location();
    let reply = client.get(&location).expect(204);
    assert_eq!(reply.header("range"), "0-123455");
    assert!(!reply.location().is_empty());
    assert!(reply.find("docker-upload-uuid").is_some());
}

#[test]
fn a_cancelled_upload_is_gone() {
    let client = Client::shared();
    let location = client.open_upload("uploads/cancel");
    let bytes = data::bytes(6, 100_000);
    let location = client
        .patch(&location, bytes.clone())
        .expect(202)
        .location();
    client.delete(&location).expect(204);
    client.get(&location).refused(404, "BLOB_UPLOAD_UNKNOWN");
    client
        .patch(&location, "more")
        .refused(404, "BLOB_UPLOAD_UNKNOWN");
    client
        .finish(&location, &data::sha256(&bytes), "")
        .refused(404, "BLOB_UPLOAD_UNKNOWN");
    client.delete(&location).refused(404, "BLOB_UPLOAD_UNKNOWN");
    client
        .get(&blob("uploads/cancel", &data::sha256(&bytes)))
        .expect(404);
}

#[test]
fn a_finished_upload_is_gone() {
    let client = Client::shared();
    let location = client.open_upload("uploads/finished");
    let digest = data::sha256(b"done");
    client.finish(&location, &digest, "done").expect(201);
    client.get(&location).refused(404, "BLOB_UPLOAD_UNKNOWN");
}

#[test]
fn an_upload_belongs_to_its_repository() {
    let client = Client::shared();
    let location = client.open_upload("uploads/mine");
    let foreign = location.replace("uploads/mine", "uploads/yours");
    assert_ne!(foreign, location);
    client.get(&foreign).expect(404);
    client.patch(&foreign, "bytes").expect(404);
    client.delete(&foreign).expect(404);
    client.get(&location).expect(204);
}

#[test]
fn i07_a_chunk_sent_again_or_from_a_wrong_offset_is_refused_and_doubles_nothing() {
    let client = Client::shared();
    let bytes = data::bytes(7, 300_000);
    let location = client.open_upload("i07/retry");
    let location = client
        .patch_at(&location, 0, &bytes[..100_000])
        .expect(202)
        .location();
    // The answer was lost: the client sends the chunk again, then guesses.
    for first in [0, 50_000, 100_001, 250_000] {
        let part = &bytes[first..(first + 50_000).min(bytes.len())];
        client.patch_at(&location, first as u64, part).expect(416);
        let status = client.get(&location).expect(204);
        assert_eq!(status.header("range"), "0-99999", "{first}");
    }
    let location = client
        .patch_at(&location, 100_000, &bytes[100_000..])
        .expect(202)
        .location();
    let digest = data::sha256(&bytes);
    client.finish(&location, &digest, "").expect(201);
    client.blob_is("i07/retry", &digest, &bytes);
}

#[test]
fn put_needs_a_digest() {
    let client = Client::shared();
    let location = client.open_upload("uploads/nodigest");
    client
        .call("PUT", &location, &[], "bytes")
        .refused(400, "DIGEST_INVALID");
}

#[test]
fn uploads_interleave_without_mixing() {
    let client = Client::shared();
    let contents: Vec<Vec<u8>> = (20..26).map(|seed| data::bytes(seed, 300_000)).collect();
    let mut locations: Vec<String> = contents
        .iter()
        .map(|_| client.open_upload("uploads/interleave"))
        .collect();
    for step in 0..3 {
        for (location, bytes) in locations.iter_mut().zip(&contents) {
            let piece = bytes[step * 100_000..(step + 1) * 100_000].to_vec();
            *location = client.patch(location, piece).expect(202).location();
        }
    }
    for (location, bytes) in locations.iter().zip(&contents) {
        let digest = data::sha256(bytes);
        client.finish(location, &digest, "").expect(201);
        client.blob_is("uploads/interleave", &digest, bytes);
    }
}

#[test]
fn expect_100_continue_is_answered() {
    let server = Server::shared();
    let client = server.client();
    let location = client.open_upload("uploads/continue");
    let digest = data::sha256(b"continued");
    let mut wire = Wire::connect(server.address());
    let head = format!(
        "PUT {} HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n",
        with_digest(&location, &digest)
    );
    wire.send(head.as_bytes());
    let interim = wire.some("HTTP/1.1 100 Continue\r\n\r\n".len());
    assert!(interim.starts_with(b"HTTP/1.1 100"), "{interim:?}");
    wire.send(b"continued");
    wire.reply("PUT after 100").expect(201);
}
