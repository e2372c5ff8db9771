//! Every way to push, mount, read and delete a blob, for each algorithm.

use orlop_tests::client::{blob, with_digest};
use orlop_tests::reply::Reply;

use crate::case::{Blob, Case};

scenarios![
    get_missing,
    single_post,
    post_then_put,
    one_chunk,
    stream,
    mount,
    mount_anonymous,
    mount_missing,
    cancel,
    chunks,
    chunks_with_last_in_put,
    chunks_out_of_order,
    chunks_out_of_order_with_last_in_put,
    ranges,
    empty,
    empty_json,
    bad_digest_single_post,
    bad_digest_post_then_put,
    bad_digest_chunks,
    bad_digest_chunks_with_last_in_put,
    bad_digest_stream,
];

fn get_missing(case: &Case) {
    let absent = case.blob(512);
    case.lacks(&case.repository, &absent.digest);
    // The same where the repository is there.
    case.push(&case.repository, &case.blob(512));
    case.lacks(&case.repository, &absent.digest);
}

fn single_post(case: &Case) {
    let blob = case.blob(512);
    let reply = post_whole(case, &blob);
    pushed(case, reply, &blob);
}

fn post_then_put(case: &Case) {
    let blob = case.blob(512);
    let location = open(case);
    pushed(case, finish(case, &location, &blob, &blob.bytes), &blob);
}

fn one_chunk(case: &Case) {
    let blob = case.blob(512);
    let location = chunk(case, &open(case), &blob, 0..512);
    pushed(case, finish(case, &location, &blob, b""), &blob);
}

fn stream(case: &Case) {
    let blob = case.blob(200_000);
    let location = send_stream(case, &blob);
    pushed(case, finish(case, &location, &blob, b""), &blob);
}

fn mount(case: &Case) {
    let blob = case.blob(512);
    case.push(&case.other, &blob);
    let reply = ask_mount(case, &blob, &format!("&from={}", case.other));
    case.created(reply, &blob);
    deleted_here_only(case, &blob);
}

fn mount_anonymous(case: &Case) {
    let blob = case.blob(512);
    case.push(&case.other, &blob);
    case.created(ask_mount(case, &blob, ""), &blob);
    deleted_here_only(case, &blob);
}

fn mount_missing(case: &Case) {
    // Known nowhere: an upload begins instead, and can be finished.
    let blob = case.blob(512);
    for from in [format!("&from={}", case.other), String::new()] {
        let location = ask_mount(case, &blob, &from).expect(202).location();
        case.lacks(&case.repository, &blob.digest);
        pushed(case, finish(case, &location, &blob, &blob.bytes), &blob);
    }
}

fn cancel(case: &Case) {
    let location = open(case);
    case.client.delete(&location).expect(204);
    case.client
        .get(&location)
        .refused(404, "BLOB_UPLOAD_UNKNOWN");
}

fn chunks(case: &Case) {
    for size in CHUNKS {
        let blob = case.blob(3 * size - 5);
        let mut location = open(case);
        for first in [0, size, 2 * size] {
            location = chunk(case, &location, &blob, part(&blob, first, size));
        }
        pushed(case, finish(case, &location, &blob, b""), &blob);
    }
}

fn chunks_with_last_in_put(case: &Case) {
    for size in CHUNKS {
        let blob = case.blob(3 * size - 5);
        let mut location = open(case);
        for first in [0, size] {
            location = chunk(case, &location, &blob, part(&blob, first, size));
        }
        let reply = finish_with_chunk(case, &location, &blob, 2 * size..blob.bytes.len());
        pushed(case, reply, &blob);
    }
}

fn chunks_out_of_order(case: &Case) {
    for size in CHUNKS {
        let blob = case.blob(3 * size - 5);
        let mut location = open(case);
        for first in [0, size, 2 * size] {
            let wrong = part(&blob, misplaced(&blob, first, size), size);
            let reply = case
                .client
                .patch_at(&location, wrong.start as u64, &blob.bytes[wrong]);
            location = recovered(case, reply, &location, first);
            location = chunk(case, &location, &blob, part(&blob, first, size));
        }
        pushed(case, finish(case, &location, &blob, b""), &blob);
    }
}

fn chunks_out_of_order_with_last_in_put(case: &Case) {
    for size in CHUNKS {
        let blob = case.blob(3 * size - 5);
        let mut location = open(case);
        for first in [0, size] {
            location = chunk(case, &location, &blob, part(&blob, first, size));
            // A last chunk that does not follow what is there.
            let wrong = size / 2..size;
            let reply = finish_with_chunk(case, &location, &blob, wrong);
            location = recovered(case, reply, &location, first + size);
        }
        let reply = finish_with_chunk(case, &location, &blob, 2 * size..blob.bytes.len());
        pushed(case, reply, &blob);
    }
}

fn ranges(case: &Case) {
    let expected = case.blob(2048);
    case.push(&case.repository, &expected);
    let path = blob(&case.repository, &expected.digest);
    for (range, first, last) in [
        ("500-1499", 500, 1499),
        ("500-", 500, 2047),
        ("-500", 1548, 2047),
        ("2000-5000", 2000, 2047),
    ] {
        let reply = case
            .client
            .range(&path, &format!("bytes={range}"))
            .expect(206);
        let shown = reply.header("content-range");
        assert_eq!(shown, format!("bytes {first}-{last}/2048"), "{range}");
        let length = reply.header("content-length");
        assert_eq!(length, (last - first + 1).to_string(), "{range}");
        assert!(reply.body == expected.bytes[first..=last], "{range}");
        assert_eq!(reply.header("docker-content-digest"), expected.digest);
    }
    let past = case.client.range(&path, "bytes=5000-10000").expect(416);
    assert_eq!(past.header("content-range"), "bytes */2048");
    // The end before the start is no range: refused, or as if not asked.
    let backwards = case
        .client
        .range(&path, "bytes=500-0")
        .expect_any(&[200, 416]);
    assert!(backwards.status == 416 || backwards.body == expected.bytes);
    case.deletes(&case.repository, &expected.digest);
}

fn empty(case: &Case) {
    let blob = case.blob_of("");
    let location = open(case);
    pushed(case, finish(case, &location, &blob, b""), &blob);
    pushed(case, post_whole(case, &blob), &blob);
}

fn empty_json(case: &Case) {
    let blob = case.blob_of("{}");
    let location = open(case);
    pushed(case, finish(case, &location, &blob, b"{}"), &blob);
}

fn bad_digest_single_post(case: &Case) {
    let blob = case.mislabelled(3067);
    refused(case, post_whole(case, &blob), &blob);
}

fn bad_digest_post_then_put(case: &Case) {
    let blob = case.mislabelled(3067);
    let location = open(case);
    refused(case, finish(case, &location, &blob, &blob.bytes), &blob);
}

fn bad_digest_chunks(case: &Case) {
    let blob = case.mislabelled(3067);
    let mut location = open(case);
    for first in (0..blob.bytes.len()).step_by(1030) {
        location = chunk(case, &location, &blob, part(&blob, first, 1030));
    }
    refused(case, finish(case, &location, &blob, b""), &blob);
}

fn bad_digest_chunks_with_last_in_put(case: &Case) {
    let blob = case.mislabelled(3067);
    let location = chunk(case, &open(case), &blob, 0..1024);
    let location = chunk(case, &location, &blob, 1024..2048);
    let reply = finish_with_chunk(case, &location, &blob, 2048..blob.bytes.len());
    refused(case, reply, &blob);
}

fn bad_digest_stream(case: &Case) {
    let blob = case.mislabelled(3067);
    let location = send_stream(case, &blob);
    refused(case, finish(case, &location, &blob, b""), &blob);
}

// --- steps ------------------------------------------------------------------

/// Sizes of chunks: one kept whole in the journal, one that is not.
const CHUNKS: [usize; 2] = [1024, 100 << 10];

const BINARY: (&str, &str) = ("Content-Type", "application/octet-stream");

fn open(case: &Case) -> String {
    let path = case.uploads(&case.repository);
    let reply = case.client.call("POST", &path, &[], "");
    reply.expect(202).location()
}

fn post_whole(case: &Case, blob: &Blob) -> Reply {
    let path = format!("/v2/{}/blobs/uploads/", case.repository);
    let path = with_digest(&path, &blob.digest);
    case.client
        .call("POST", &path, &[BINARY], blob.bytes.clone())
}

fn ask_mount(case: &Case, blob: &Blob, from: &str) -> Reply {
    let repository = &case.repository;
    let path = format!(
        "/v2/{repository}/blobs/uploads/?mount={}{from}",
        blob.digest
    );
    case.client.call("POST", &path, &[], "")
}

/// Sends the blob in one PATCH of unknown length; returns where to go on.
fn send_stream(case: &Case, blob: &Blob) -> String {
    let from = std::io::Cursor::new(blob.bytes.clone());
    let reply = case
        .client
        .patch(&open(case), reqwest::blocking::Body::new(from));
    reply.expect(202).location()
}

/// Bytes from `first` on, at most `size` of them.
fn part(blob: &Blob, first: usize, size: usize) -> std::ops::Range<usize> {
    first..(first + size).min(blob.bytes.len())
}

/// Where a chunk must not start when `first` is next: ahead, or at the front.
fn misplaced(blob: &Blob, first: usize, size: usize) -> usize {
    let ahead = first + size;
    if ahead < blob.bytes.len() { ahead } else { 0 }
}

/// Sends the chunk that is next; returns where to go on.
#[track_caller]
fn chunk(case: &Case, location: &str, blob: &Blob, part: std::ops::Range<usize>) -> String {
    let last = part.end - 1;
    let reply = case
        .client
        .patch_at(location, part.start as u64, &blob.bytes[part])
        .expect(202);
    assert_eq!(reply.header("range"), format!("0-{last}"));
    reply.location()
}

/// Closes the session with these bytes as the rest.
fn finish(case: &Case, location: &str, blob: &Blob, rest: &[u8]) -> Reply {
    case.client.finish(location, &blob.digest, rest.to_vec())
}

/// Closes the session with a chunk that says where it belongs.
fn finish_with_chunk(
    case: &Case,
    location: &str,
    blob: &Blob,
    part: std::ops::Range<usize>,
) -> Reply {
    let range = format!("{}-{}", part.start, part.end - 1);
    let headers = [BINARY, ("Content-Range", range.as_str())];
    let path = with_digest(location, &blob.digest);
    case.client
        .call("PUT", &path, &headers, blob.bytes[part].to_vec())
}

/// After a chunk was out of order, GET says where to go on: after `have` bytes.
#[track_caller]
fn recovered(case: &Case, reply: Reply, location: &str, have: usize) -> String {
    reply.refused(416, "BLOB_UPLOAD_INVALID");
    let status = case.client.get(location).expect(204);
    let last = have.saturating_sub(1);
    assert_eq!(status.header("range"), format!("0-{last}"));
    status.location()
}

/// The blob was made, is served, and can be deleted.
#[track_caller]
fn pushed(case: &Case, reply: Reply, blob: &Blob) {
    case.created(reply, blob);
    case.serves(&case.repository, blob);
    case.deletes(&case.repository, &blob.digest);
}

/// What has another digest than it was given is not stored.
#[track_caller]
fn refused(case: &Case, reply: Reply, blob: &Blob) {
    reply.refused(400, "DIGEST_INVALID");
    case.lacks(&case.repository, &blob.digest);
    case.lacks(&case.repository, &case.algorithm.of(&blob.bytes));
}

/// A delete ends here at once though the blob lives on in its other
/// repository, and there as well.
#[track_caller]
fn deleted_here_only(case: &Case, blob: &Blob) {
    case.serves(&case.repository, blob);
    case.deletes(&case.repository, &blob.digest);
    case.serves(&case.other, blob);
    case.deletes(&case.other, &blob.digest);
}
