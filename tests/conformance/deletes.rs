//! Deleting: at once, only here, and only what was named.

use orlop_tests::client::{blob, manifest};
use orlop_tests::data;

use crate::case::Case;
use crate::content::{Maker, Pushed};

/// An image under these tags, pushed.
fn image(case: &Case, tags: &[&str]) -> Pushed {
    let mut make = Maker::new(case);
    let document = make.image("amd64", 1);
    make.manifest(document);
    make.last().tags = tags.iter().map(ToString::to_string).collect();
    case.push_all(&make.content);
    make.content.manifests.pop().unwrap()
}

#[test]
fn a_deleted_tag_leaves_manifest_and_other_tags() {
    let case = Case::plain("deletes/tag");
    let pushed = image(&case, &["a", "b"]);
    case.deletes_manifest("a");
    case.serves_manifest("b", &pushed);
    case.serves_manifest(&pushed.digest, &pushed);
    assert_eq!(case.tags(""), ["b"]);
}

#[test]
fn a_deleted_manifest_takes_its_tags_along() {
    let case = Case::plain("deletes/manifest");
    let pushed = image(&case, &["a", "b"]);
    let other = image(&case, &["c"]);
    case.deletes_manifest(&pushed.digest);
    case.lacks_manifest("a");
    case.lacks_manifest("b");
    case.serves_manifest("c", &other);
    assert_eq!(case.tags(""), ["c"]);
}

#[test]
fn a_manifest_of_another_repository_stays() {
    let case = Case::plain("deletes/here");
    let other = Case::plain("deletes/here").within(&case.other);
    let mut make = Maker::new(&case);
    let document = make.image("amd64", 1);
    make.tagged(document, "v1");
    case.push_all(&make.content);
    other.push_all(&make.content);
    case.delete_all(&make.content);
    other.serves_all(&make.content);
}

#[test]
fn a_blob_deleted_here_is_served_elsewhere() {
    let case = Case::plain("deletes/blob");
    let shared = case.blob(100_000);
    case.push(&case.repository, &shared);
    case.push(&case.other, &shared);
    case.deletes(&case.repository, &shared.digest);
    case.serves(&case.other, &shared);
}

#[test]
fn what_is_not_there_cannot_be_deleted() {
    let case = Case::plain("deletes/absent");
    let pushed = image(&case, &["v1"]);
    let absent = data::sha256(b"nobody pushed this");
    let delete = |path: String| case.client.delete(&path);
    delete(blob(&case.repository, &absent)).refused(404, "BLOB_UNKNOWN");
    delete(manifest(&case.repository, &absent)).refused(404, "MANIFEST_UNKNOWN");
    delete(manifest(&case.repository, "none")).refused(404, "MANIFEST_UNKNOWN");
    for path in [
        blob("no/such/repository", &absent),
        manifest("no/such/repository", &pushed.digest),
        manifest("no/such/repository", "v1"),
    ] {
        delete(path).refused(404, "NAME_UNKNOWN");
    }
    // Nor twice.
    case.deletes_manifest("v1");
    delete(manifest(&case.repository, "v1")).refused(404, "MANIFEST_UNKNOWN");
}

#[test]
fn what_was_deleted_can_be_pushed_again() {
    let case = Case::plain("deletes/again");
    let mut make = Maker::new(&case);
    let document = make.image("amd64", 2);
    make.tagged(document, "v1");
    for _ in 0..3 {
        case.lives(&make.content);
    }
}

#[test]
fn a_manifest_cannot_be_pushed_on_deleted_blobs() {
    let case = Case::plain("deletes/layers");
    let mut make = Maker::new(&case);
    let document = make.image("amd64", 1);
    make.manifest(document);
    case.push_all(&make.content);
    let pushed = &make.content.manifests[0];
    case.deletes_manifest(&pushed.digest);
    // The layer stays where it is when its image goes.
    let layer = &make.content.blobs[0];
    case.serves(&case.repository, layer);
    let config = &make.content.blobs[1];
    case.deletes(&case.repository, &config.digest);
    let reply = case.put_manifest("v1", "", pushed);
    reply.refused(400, "MANIFEST_BLOB_UNKNOWN");
}
