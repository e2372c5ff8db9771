//! Each kind of content a registry has to keep, through its whole life.

use orlop_tests::oci;
use serde_json::{Value, json};

use crate::case::Case;
use crate::content::{Content, Maker, PLAIN_LAYER, image_document, index_document};

scenarios![
    image,
    image_uncompressed,
    large_manifest,
    index,
    nested_index,
    empty_index,
    artifact,
    artifact_index,
    artifact_without_layers,
    artifacts_with_subject,
    index_with_subject,
    missing_subject,
    data_field,
    non_distributable_layers,
    custom_fields,
    no_layers,
    sparse_image,
    sparse_index,
    several_tags,
    bad_digest,
];

/// Two types of artifacts nobody else uses.
const FIRST: &str = "application/vnd.example.conformance.first";
const SECOND: &str = "application/vnd.example.conformance.second+json";

fn image(case: &Case) {
    let mut make = Maker::new(case);
    let image = make.image("amd64", 2);
    make.tagged(image, "image");
    case.lives(&make.content);
}

fn image_uncompressed(case: &Case) {
    let mut make = Maker::new(case);
    let (layer, id) = make.layer(false);
    assert_eq!(layer["mediaType"], PLAIN_LAYER);
    assert_eq!(layer["digest"], *id);
    let config = make.config("amd64", &[id]);
    make.tagged(image_document(&config, &[layer]), "plain");
    case.lives(&make.content);
}

/// A manifest of almost 4 MB, which every registry should take.
fn large_manifest(case: &Case) {
    let mut make = Maker::new(case);
    let mut image = make.image("amd64", 2);
    for number in 0..390 {
        image["annotations"][format!("org.example.{number}")] = json!("A".repeat(10_000));
    }
    make.tagged(image, "large");
    case.lives(&make.content);
}

fn index(case: &Case) {
    let mut make = Maker::new(case);
    let index = make.platforms();
    make.tagged(index, "index");
    case.lives(&make.content);
}

fn nested_index(case: &Case) {
    let mut make = Maker::new(case);
    let children = [(); 2].map(|()| {
        let index = make.platforms();
        make.manifest(index)
    });
    make.tagged(index_document(&children), "outer");
    case.lives(&make.content);
}

fn empty_index(case: &Case) {
    let mut make = Maker::new(case);
    make.tagged(index_document(&[]), "empty");
    case.lives(&make.content);
}

fn artifact(case: &Case) {
    let mut make = Maker::new(case);
    let file = make.file(FIRST);
    let artifact = make.artifact(FIRST, vec![file]);
    make.tagged(artifact, "artifact");
    case.lives(&make.content);
}

fn artifact_index(case: &Case) {
    let mut make = Maker::new(case);
    let children = [(); 2].map(|()| {
        let file = make.file(FIRST);
        let artifact = make.artifact(FIRST, vec![file]);
        make.manifest(artifact)
    });
    let mut index = index_document(&children);
    index["artifactType"] = json!(FIRST);
    make.tagged(index, "artifacts");
    case.lives(&make.content);
}

fn artifact_without_layers(case: &Case) {
    let mut make = Maker::new(case);
    let nothing = make.blob(oci::EMPTY, b"{}".to_vec());
    let artifact = make.artifact(FIRST, vec![nothing]);
    make.tagged(artifact, "nothing");
    case.lives(&make.content);
}

/// An image, an image about it whose type is that of its configuration, and
/// an artifact of each of two types.
fn artifacts_with_subject(case: &Case) {
    let mut make = Maker::new(case);
    let image = make.image("amd64", 2);
    let subject = make.tagged(image, "image");
    let mut about = make.image("amd64", 1);
    about["subject"] = subject.clone();
    make.manifest(about);
    for (kind, tag) in [(FIRST, "first"), (SECOND, "second")] {
        let artifact = attached(&mut make, kind, &subject);
        make.tagged(artifact, tag);
    }
    case.lives(&make.content);
}

/// An index about an index, with a type; and one without, which has none in
/// the list either.
fn index_with_subject(case: &Case) {
    let mut make = Maker::new(case);
    let index = make.platforms();
    let subject = make.tagged(index, "index");
    let mut typed = make.platforms();
    typed["artifactType"] = json!(FIRST);
    typed["annotations"] = make.annotations();
    typed["subject"] = subject.clone();
    make.tagged(typed, "typed");
    let mut untyped = index_document(&[]);
    untyped["annotations"] = make.annotations();
    untyped["subject"] = subject;
    make.manifest(untyped);
    case.lives(&make.content);
}

fn missing_subject(case: &Case) {
    let mut make = Maker::new(case);
    let absent = case.blob(123);
    let subject = oci::descriptor(oci::IMAGE, &absent.digest, 123);
    let artifact = attached(&mut make, FIRST, &subject);
    make.tagged(artifact, "early");
    case.lives(&make.content);
}

fn data_field(case: &Case) {
    let mut make = Maker::new(case);
    make.embed = true;
    let index = make.platforms();
    assert!(index["manifests"][0]["data"].is_string());
    make.tagged(index, "data");
    case.lives(&make.content);
}

/// Layers that are elsewhere, beside one that is here.
fn non_distributable_layers(case: &Case) {
    let mut make = Maker::new(case);
    let (layer, id) = make.layer(true);
    let elsewhere = ["tar+gzip", "tar"].map(|form| {
        let kind = format!("application/vnd.oci.image.layer.nondistributable.v1.{form}");
        let absent = case.blob(256);
        let mut layer = oci::descriptor(&kind, &absent.digest, 123_456);
        layer["urls"] = json!([format!("https://store.example.com/{}", absent.digest)]);
        layer
    });
    let config = make.config("amd64", &[id]);
    let [first, second] = elsewhere;
    make.tagged(
        image_document(&config, &[first, second, layer]),
        "elsewhere",
    );
    case.lives(&make.content);
}

fn custom_fields(case: &Case) {
    let mut make = Maker::new(case);
    make.custom = true;
    let index = make.platforms();
    make.tagged(index, "custom");
    case.lives(&make.content);
}

fn no_layers(case: &Case) {
    let mut make = Maker::new(case);
    let image = make.image("amd64", 0);
    make.tagged(image, "bare");
    case.lives(&make.content);
}

/// An image of which one layer is not here, with the setting that allows it.
fn sparse_image(case: &Case) {
    let case = &case.sparse();
    let mut make = Maker::new(case);
    let image = make.image("amd64", 2);
    let absent = image["layers"][0]["digest"].clone();
    make.content.blobs.retain(|blob| absent != *blob.digest);
    make.tagged(image, "sparse");
    case.lives(&make.content);
}

/// An index of which one platform is not here, with the setting that allows it.
fn sparse_index(case: &Case) {
    let case = &case.sparse();
    let mut make = Maker::new(case);
    let mut index = make.platforms();
    let absent = case.blob(1024);
    index["manifests"][1] = oci::descriptor(oci::IMAGE, &absent.digest, 1024);
    make.tagged(index, "sparse");
    case.lives(&make.content);
}

/// Each manifest of an index under a tag of its own, and the index under two.
fn several_tags(case: &Case) {
    let mut make = Maker::new(case);
    let index = make.platforms();
    make.tagged(index, "all");
    for (number, pushed) in make.content.manifests.iter_mut().enumerate() {
        pushed.tags.push(format!("part-{number}"));
    }
    case.lives(&make.content);
}

/// A manifest under a digest that is not its own is not stored.
fn bad_digest(case: &Case) {
    let mut make = Maker::new(case);
    let image = make.image("amd64", 2);
    make.manifest(image);
    make.last().bytes.extend_from_slice(b"  ");
    let Content {
        blobs, manifests, ..
    } = make.content;
    for blob in &blobs {
        case.push(&case.repository, blob);
    }
    let pushed = &manifests[0];
    case.put_manifest(&pushed.digest, "", pushed)
        .refused(400, "DIGEST_INVALID");
    case.lacks_manifest(&pushed.digest);
    case.lacks_manifest(&case.algorithm.of(&pushed.bytes));
}

/// An annotated artifact about a subject, not yet added.
pub(crate) fn attached(make: &mut Maker, kind: &str, subject: &Value) -> Value {
    let file = make.file(kind);
    let mut artifact = make.artifact(kind, vec![file]);
    artifact["annotations"] = make.annotations();
    artifact["subject"] = subject.clone();
    artifact
}
