//! Pulling: names, headers, ranges, and what is not there.

use orlop_tests::client::{blob, manifest};
use orlop_tests::data;
use orlop_tests::oci;

use crate::case::Case;
use crate::content::{Maker, Pushed};

/// An image with this tag, pushed.
fn image(case: &Case, tag: &str) -> Pushed {
    let mut make = Maker::new(case);
    let document = make.image("amd64", 1);
    make.tagged(document, tag);
    case.push_all(&make.content);
    make.content.manifests.pop().unwrap()
}

#[test]
fn the_base_says_that_this_is_a_registry() {
    let case = Case::plain("pulls/base");
    case.client.get("/v2/").expect(200);
    case.client.head("/v2/").expect(200);
}

#[test]
fn a_reference_is_a_tag_or_a_digest_and_nothing_else() {
    let case = Case::plain("pulls/references");
    let pushed = image(&case, "v1");
    case.serves_manifest("v1", &pushed);
    case.serves_manifest(&pushed.digest, &pushed);
    for wrong in [
        ".dot",
        "-dash",
        "a:b",
        "a+b",
        "a%20b",
        "%C3%A4",
        "sha256:baddigeststring",
        "md5:d41d8cd98f00b204e9800998ecf8427e",
    ] {
        let path = manifest(&case.repository, wrong);
        for method in ["GET", "HEAD"] {
            case.server
                .raw(method, &path, &[], b"")
                .expect_any(&[400, 404]);
        }
        let headers = [("Content-Type", oci::IMAGE)];
        case.server
            .raw("PUT", &path, &headers, &pushed.bytes)
            .expect(400);
    }
}

#[test]
fn a_tag_has_at_most_128_characters_of_the_alphabet() {
    let case = Case::plain("pulls/tags");
    let pushed = image(&case, "v1");
    for tag in ["_", "0", "A.b-C_d", &"t".repeat(128)] {
        case.put_manifest(tag, "", &pushed).expect(201);
        case.serves_manifest(tag, &pushed);
    }
    case.put_manifest(&"t".repeat(129), "", &pushed).expect(400);
    case.manifest_call("GET", &"t".repeat(129))
        .expect_any(&[400, 404]);
}

#[test]
fn repository_names_follow_the_pattern() {
    let case = Case::plain("pulls/names");
    let blob = case.blob(100);
    for good in [
        "a", "0", "a.b", "a_b", "a__b", "a-b", "a---b", "a/b/c/d", "a1/b2.c3",
    ] {
        let name = format!("{}/{good}", case.repository);
        case.push(&name, &blob);
        case.serves(&name, &blob);
    }
    for bad in [
        "A", "a..b", "a___b", "_a", "a_", "-a", "a-", ".a", "a.", "a//b", "a/", "a%20b", "a+b",
    ] {
        let path = format!("/v2/{}/{bad}/tags/list", case.repository);
        case.server
            .raw("GET", &path, &[], b"")
            .refused(400, "NAME_INVALID");
    }
}

#[test]
fn content_type_is_what_was_pushed_without_parameters() {
    let case = Case::plain("pulls/types");
    let pushed = image(&case, "v1");
    for written in ["; charset=utf-8", ";q=1", " ; a=b; c=\"d\""] {
        let headers = [("Content-Type", format!("{}{written}", oci::IMAGE))];
        let headers = headers.each_ref().map(|(n, v)| (*n, v.as_str()));
        let path = manifest(&case.repository, "written");
        let bytes = pushed.bytes.clone();
        case.client.call("PUT", &path, &headers, bytes).expect(201);
        case.serves_manifest("written", &pushed);
    }
}

#[test]
fn accept_neither_converts_nor_hides() {
    let case = Case::plain("pulls/accept");
    let pushed = image(&case, "v1");
    let path = manifest(&case.repository, "v1");
    for accept in [
        oci::IMAGE,
        oci::INDEX,
        oci::DOCKER_IMAGE,
        "*/*",
        "application/vnd.oci.image.manifest.v1+json;q=0.1, */*;q=0",
        "text/html",
        "",
    ] {
        let reply = case.client.call("GET", &path, &[("Accept", accept)], "");
        let reply = reply.expect(200);
        assert_eq!(reply.header("content-type"), oci::IMAGE, "{accept}");
        assert!(reply.body == pushed.bytes, "{accept}");
    }
    let none = case.server.raw("GET", &path, &[], b"").expect(200);
    assert!(none.body == pushed.bytes);
}

#[test]
fn what_is_not_there_is_not_found() {
    let case = Case::plain("pulls/absent");
    let pushed = image(&case, "v1");
    let absent = data::sha256(b"nobody pushed this");
    case.lacks_manifest("missing");
    case.lacks_manifest(&absent);
    case.lacks(&case.repository, &absent);
    for path in [
        manifest("no/such/repository", "v1"),
        manifest("no/such/repository", &pushed.digest),
        blob("no/such/repository", &absent),
        "/v2/no/such/repository/tags/list".to_owned(),
    ] {
        case.client.get(&path).expect(404);
        case.client.head(&path).expect(404);
    }
    // There under its other algorithm's name is not there under this one.
    case.lacks_manifest(&data::sha512(&pushed.bytes));
}

#[test]
fn a_range_is_served_as_http_says() {
    let case = Case::plain("pulls/ranges");
    let expected = case.blob(300_000);
    case.push(&case.repository, &expected);
    let path = blob(&case.repository, &expected.digest);
    let whole = case.client.get(&path).expect(200);
    assert_eq!(whole.header("accept-ranges"), "bytes");
    let etag = whole.header("etag").to_owned();
    let ask = |method: &str, headers: &[(&str, &str)]| case.client.call(method, &path, headers, "");
    // A range of one representation is not asked of another.
    let range = ("Range", "bytes=1-2");
    let same = ask("GET", &[range, ("If-Range", &etag)]).expect(206);
    assert!(same.body == expected.bytes[1..=2]);
    let other = ask("GET", &[range, ("If-Range", "\"other\"")]).expect(200);
    assert!(other.body == expected.bytes);
    // It is for GET alone.
    let head = ask("HEAD", &[range]).expect(200);
    assert_eq!(head.header("content-length"), "300000");
    // What is no range of bytes is as if not asked.
    let lines = ask("GET", &[("Range", "lines=1-2")]).expect(200);
    assert!(lines.body == expected.bytes);
    // Without a byte in it: 416, with the size.
    let past = ask("GET", &[("Range", "bytes=300000-")]).expect(416);
    assert_eq!(past.header("content-range"), "bytes */300000");
}

#[test]
fn what_the_client_has_is_not_sent_again() {
    let case = Case::plain("pulls/etag");
    let pushed = image(&case, "v1");
    let expected = case.blob(500);
    case.push(&case.repository, &expected);
    for path in [
        manifest(&case.repository, "v1"),
        manifest(&case.repository, &pushed.digest),
        blob(&case.repository, &expected.digest),
    ] {
        let etag = case.client.get(&path).expect(200).header("etag").to_owned();
        let known = [("If-None-Match", etag.as_str())];
        let reply = case.client.call("GET", &path, &known, "").expect(304);
        assert!(reply.body.is_empty());
        let other = [("If-None-Match", "\"other\"")];
        case.client.call("GET", &path, &other, "").expect(200);
    }
}
