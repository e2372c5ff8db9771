//! Upload sessions: what each answer says, and what ends a session.

use orlop_tests::client::with_digest;
use orlop_tests::data::{self, Algorithm};

use crate::case::{Case, Rules};

const ALGORITHMS: [Algorithm; 3] = [Algorithm::Sha256, Algorithm::Sha512, Algorithm::Blake3];

fn open(case: &Case) -> String {
    case.client.open_upload(&case.repository)
}

#[test]
fn each_session_has_an_id_of_its_own() {
    let case = Case::plain("uploads/id");
    let path = case.uploads(&case.repository);
    let [first, second] = [(); 2].map(|()| {
        // As the specification writes it: an empty body that says so.
        let reply = case.server.raw("POST", &path, &[], b"").expect(202);
        let location = reply.location();
        let id = location.rsplit('/').next().unwrap().to_owned();
        let digits: String = id.chars().filter(|c| *c != '-').collect();
        let is_uuid = digits.len() == 32 && digits.chars().all(|c| c.is_ascii_hexdigit());
        assert!(is_uuid, "{id} is no UUID");
        assert_eq!(reply.header("range"), "0-0");
        id
    });
    assert_ne!(first, second);
}

#[test]
fn each_answer_says_where_to_go_on() {
    let case = Case::plain("uploads/locations");
    let blob = case.blob(3000);
    let mut location = open(&case);
    for (first, last) in [(0, 999), (1000, 1000), (1001, 2999)] {
        let reply = case
            .client
            .patch_at(&location, first as u64, &blob.bytes[first..=last])
            .expect(202);
        assert_eq!(reply.header("range"), format!("0-{last}"));
        let status = case.client.get(&reply.location()).expect(204);
        assert_eq!(status.header("range"), format!("0-{last}"));
        assert!(status.body.is_empty());
        location = status.location();
    }
    let done = case.client.finish(&location, &blob.digest, "");
    case.created(done, &blob);
}

#[test]
fn nothing_is_there_before_the_closing_put() {
    let case = Case::plain("uploads/closing");
    let blob = case.blob(2000);
    let location = open(&case);
    let reply = case.client.patch_at(&location, 0, &blob.bytes).expect(202);
    case.lacks(&case.repository, &blob.digest);
    let done = case.client.finish(&reply.location(), &blob.digest, "");
    case.created(done, &blob);
    case.client
        .get(&location)
        .refused(404, "BLOB_UPLOAD_UNKNOWN");
}

#[test]
fn the_closing_put_needs_the_digest_of_the_whole() {
    let case = Case::plain("uploads/whole");
    let blob = case.blob(2000);
    let half = &blob.bytes[1000..];
    let begin = || {
        let location = open(&case);
        let sent = case.client.patch(&location, blob.bytes[..1000].to_vec());
        sent.expect(202).location()
    };
    let location = begin();
    case.client
        .call("PUT", &location, &[], half.to_vec())
        .refused(400, "DIGEST_INVALID");
    let location = begin();
    case.client
        .finish(&location, &data::sha256(half), half.to_vec())
        .refused(400, "DIGEST_INVALID");
    let location = begin();
    let done = case.client.finish(&location, &blob.digest, half.to_vec());
    case.created(done, &blob);
}

#[test]
fn the_first_chunk_begins_at_zero() {
    let case = Case::plain("uploads/first");
    let blob = case.blob(1000);
    let location = open(&case);
    case.client
        .patch_at(&location, 1, &blob.bytes[1..])
        .refused(416, "BLOB_UPLOAD_INVALID");
    case.client.patch_at(&location, 0, &blob.bytes).expect(202);
}

#[test]
fn a_range_names_first_and_last_byte() {
    let case = Case::plain("uploads/range");
    let blob = case.blob(1000);
    let location = open(&case);
    let send = |range: &str| {
        let headers = [("Content-Range", range)];
        let body = blob.bytes.clone();
        case.client.call("PATCH", &location, &headers, body)
    };
    for wrong in [
        "0-1000",
        "0-998",
        "0-",
        "-999",
        "0",
        "bytes 0-999/1000",
        "bytes=0-999",
    ] {
        send(wrong).expect(400);
    }
    assert_eq!(send("0-999").expect(202).header("range"), "0-999");
}

#[test]
fn the_smallest_chunk_is_a_wish() {
    // The header asks for larger chunks; smaller ones are taken all the same.
    let case = Case::plain("uploads/small");
    let path = case.uploads(&case.repository);
    let opened = case.client.call("POST", &path, &[], "").expect(202);
    if let Some(asked) = opened.find("oci-chunk-min-length") {
        let asked: usize = asked.parse().expect("a number of bytes");
        assert!((1..=1 << 20).contains(&asked), "{asked}");
    }
    let blob = case.blob(3);
    let mut location = opened.location();
    for first in 0..3 {
        let byte = &blob.bytes[first..=first];
        let reply = case.client.patch_at(&location, first as u64, byte);
        location = reply.expect(202).location();
    }
    case.created(case.client.finish(&location, &blob.digest, ""), &blob);
}

#[test]
fn what_is_no_digest_is_refused_everywhere() {
    let case = Case::plain("uploads/invalid");
    let path = format!("/v2/{}/blobs/uploads/", case.repository);
    for digest in [
        "sha256:short",
        "sha256:",
        "md5:d41d8cd98f00b204e9800998ecf8427e",
        "sha512:00",
        "none",
    ] {
        let whole = with_digest(&path, digest);
        let headers = [("Content-Type", "application/octet-stream")];
        case.client
            .call("POST", &whole, &headers, "bytes")
            .refused(400, "DIGEST_INVALID");
        case.client
            .finish(&open(&case), digest, "bytes")
            .refused(400, "DIGEST_INVALID");
        let mount = format!("{path}?mount={digest}&from={}", case.other);
        case.client
            .call("POST", &mount, &[], "")
            .refused(400, "DIGEST_INVALID");
    }
    for algorithm in ["md5", "sha-256", ""] {
        let announced = format!("{path}?digest-algorithm={algorithm}");
        case.client
            .call("POST", &announced, &[], "")
            .refused(400, "DIGEST_INVALID");
    }
}

#[test]
fn a_session_may_end_with_another_algorithm_than_announced() {
    for announced in ALGORITHMS {
        for used in ALGORITHMS {
            let name = format!("uploads/{}-{}", announced.name(), used.name());
            let case = Case::new(&format!("conformance::{name}"), Rules::Main, used);
            let blob = case.blob(5000);
            let path = format!(
                "/v2/{}/blobs/uploads/?digest-algorithm={}",
                case.repository,
                announced.name()
            );
            let location = case.client.call("POST", &path, &[], "").expect(202);
            let location = case
                .client
                .patch(&location.location(), blob.bytes[..2000].to_vec())
                .expect(202)
                .location();
            let rest = blob.bytes[2000..].to_vec();
            case.created(case.client.finish(&location, &blob.digest, rest), &blob);
        }
    }
}

#[test]
fn a_single_post_is_as_long_as_it_says() {
    let case = Case::plain("uploads/length");
    let blob = case.blob(1000);
    let path = with_digest(&case.uploads(&case.repository), &blob.digest);
    // One byte less than the blob has arrives: it is another blob.
    case.server
        .raw("POST", &path, &[], &blob.bytes[..999])
        .refused(400, "DIGEST_INVALID");
    case.lacks(&case.repository, &blob.digest);
    let whole = case.server.raw("POST", &path, &[], &blob.bytes);
    case.created(whole, &blob);
}

#[test]
fn a_session_can_be_cancelled_at_any_time() {
    let case = Case::plain("uploads/cancel");
    let fresh = open(&case);
    let begun = case.client.patch(&open(&case), case.bytes(100_000));
    for location in [fresh, begun.expect(202).location()] {
        assert!(case.client.delete(&location).expect(204).body.is_empty());
        // What a client may ignore: there is nothing left to cancel.
        case.client
            .delete(&location)
            .refused(404, "BLOB_UPLOAD_UNKNOWN");
    }
}

#[test]
fn a_mount_that_cannot_be_done_starts_an_upload() {
    let case = Case::plain("uploads/mount");
    let blob = case.blob(700);
    case.push(&case.other, &case.blob(700));
    let path = format!(
        "/v2/{}/blobs/uploads/?mount={}",
        case.repository, blob.digest
    );
    for from in [
        format!("&from={}", case.other),
        "&from=no/such/repository".to_owned(),
        "&from=Not%20a%20name".to_owned(),
        "&from=".to_owned(),
        String::new(),
    ] {
        let path = format!("{path}{from}");
        let reply = case.client.call("POST", &path, &[], "").expect(202);
        case.client.get(&reply.location()).expect(204);
        case.lacks(&case.repository, &blob.digest);
    }
}
