//! What `Manifest::parse` accepts, what it makes of it, and what it refuses.

use super::*;
use orlop_format::digest::Algorithm;
use proptest::prelude::*;
use serde_json::{Value, json};

const OCI: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER: &str = "application/vnd.docker.distribution.manifest.v2+json";
const LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

fn digest(text: &str) -> Digest {
    Digest::of(Algorithm::Sha256, text.as_bytes())
}

fn descriptor(media_type: &str, name: &str) -> Value {
    json!({"mediaType": media_type, "digest": digest(name).to_string(), "size": name.len()})
}

fn an_image() -> Value {
    json!({
        "schemaVersion": 2,
        "mediaType": OCI,
        "config": descriptor(media_type::OCI_CONFIG, "config"),
        "layers": [descriptor(LAYER, "one"), descriptor(LAYER, "two")],
    })
}

fn an_index() -> Value {
    json!({
        "schemaVersion": 2,
        "mediaType": INDEX,
        "manifests": [descriptor(OCI, "amd64"), descriptor(DOCKER, "arm64")],
    })
}

fn with(mut body: Value, key: &str, value: Value) -> Value {
    body[key] = value;
    body
}

fn without(mut body: Value, key: &str) -> Value {
    body.as_object_mut().unwrap().remove(key);
    body
}

fn parse(body: &Value, content_type: &str) -> Result<Manifest, ManifestError> {
    Manifest::parse(body.to_string().as_bytes(), Some(content_type))
}

fn refused(body: &Value, content_type: &str) -> String {
    parse(body, content_type).unwrap_err().to_string()
}

fn kinds(manifest: &Manifest) -> Vec<(RefKind, bool)> {
    manifest
        .references()
        .map(|r| (r.kind, r.is_required()))
        .collect()
}

#[test]
fn an_oci_image() {
    let manifest = parse(&an_image(), OCI).unwrap();
    assert_eq!(manifest.kind, Kind::Image);
    assert_eq!(manifest.media_type, ManifestType::OciImage);
    assert_eq!(manifest.config.as_ref().unwrap().digest, digest("config"));
    assert_eq!(manifest.layers.len(), 2);
    assert_eq!(manifest.layers[1].digest, digest("two"));
    assert_eq!(manifest.layers[1].size, 3);
    assert_eq!(
        kinds(&manifest),
        [
            (RefKind::Config, true),
            (RefKind::Layer, true),
            (RefKind::Layer, true)
        ]
    );
}

#[test]
fn the_type_comes_from_either_side() {
    let untyped = without(an_image(), "mediaType");
    assert!(parse(&untyped, OCI).is_ok());
    assert!(parse(&untyped, &format!("{OCI}; charset=utf-8")).is_ok());
    assert!(Manifest::parse(an_image().to_string().as_bytes(), None).is_ok());
    assert_eq!(
        Manifest::parse(untyped.to_string().as_bytes(), None).unwrap_err(),
        ManifestError::Untyped
    );
}

#[test]
fn an_index_and_its_entries() {
    let manifest = parse(&an_index(), INDEX).unwrap();
    assert_eq!(manifest.kind, Kind::Index);
    assert_eq!(
        kinds(&manifest),
        [(RefKind::Child, true), (RefKind::Child, true)]
    );
    // An entry that is no manifest is a blob, as in build caches.
    let cache = with(
        an_index(),
        "manifests",
        json!([
            descriptor(LAYER, "l"),
            descriptor("application/vnd.buildkit.cacheconfig.v0", "c")
        ]),
    );
    assert_eq!(
        kinds(&parse(&cache, INDEX).unwrap()),
        [(RefKind::Layer, true), (RefKind::Layer, true)]
    );
    let empty = with(an_index(), "manifests", Value::Null);
    assert!(parse(&empty, INDEX).unwrap().manifests.is_empty());
}

#[test]
fn dockers_own_types() {
    let image = with(an_image(), "mediaType", json!(DOCKER));
    let image = with(
        image,
        "config",
        descriptor(media_type::DOCKER_CONFIG, "config"),
    );
    assert_eq!(parse(&image, DOCKER).unwrap().kind, Kind::Image);
    assert!(refused(&without(image, "mediaType"), DOCKER).contains("mediaType"));
    let list = with(an_index(), "mediaType", json!(LIST));
    assert_eq!(parse(&list, LIST).unwrap().kind, Kind::Index);
}

#[test]
fn an_artifact_with_a_subject() {
    let body = with(
        an_image(),
        "artifactType",
        json!("application/vnd.example+type"),
    );
    let body = with(body, "config", descriptor(media_type::OCI_EMPTY, "{}"));
    let body = with(body, "subject", descriptor(OCI, "subject"));
    let body = with(body, "annotations", json!({"k": "v"}));
    let manifest = parse(&body, OCI).unwrap();
    assert_eq!(manifest.kind, Kind::Artifact);
    assert_eq!(
        manifest.effective_artifact_type(),
        Some("application/vnd.example+type")
    );
    assert_eq!(manifest.annotations["k"], "v");
    assert_eq!(kinds(&manifest).last(), Some(&(RefKind::Subject, false)));

    let helm = "application/vnd.cncf.helm.config.v1+json";
    let chart = with(an_image(), "config", descriptor(helm, "chart"));
    let manifest = parse(&chart, OCI).unwrap();
    assert_eq!(manifest.kind, Kind::Artifact);
    assert_eq!(manifest.effective_artifact_type(), Some(helm));
}

#[test]
fn foreign_layers_are_not_required() {
    let foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
    let body = with(
        an_image(),
        "layers",
        json!([descriptor(foreign, "windows")]),
    );
    assert_eq!(
        kinds(&parse(&body, OCI).unwrap()),
        [(RefKind::Config, true), (RefKind::Layer, false)]
    );
}

#[test]
fn a44_type_and_shape_must_agree() {
    assert!(matches!(
        parse(&an_image(), DOCKER).unwrap_err(),
        ManifestError::TypeMismatch { .. }
    ));
    assert!(refused(&with(an_image(), "manifests", json!([])), OCI).contains("manifests"));
    assert!(refused(&with(an_index(), "layers", json!([])), INDEX).contains("layers"));
    assert!(refused(&without(an_image(), "layers"), OCI).contains("layers"));
    assert!(refused(&without(an_image(), "config"), OCI).contains("config"));
    assert!(refused(&without(an_index(), "manifests"), INDEX).contains("manifests"));
    assert!(refused(&without(an_image(), "schemaVersion"), OCI).contains("schemaVersion"));
    assert!(refused(&with(an_image(), "schemaVersion", json!(3)), OCI).contains("schemaVersion"));
}

#[test]
fn unknown_types_and_schema_1_are_named() {
    let other = with(an_image(), "mediaType", json!("application/vnd.other+json"));
    let message = refused(&other, "application/vnd.other+json");
    assert!(message.contains("application/vnd.other+json") && message.contains(OCI));
    for name in [
        "application/vnd.docker.distribution.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
    ] {
        let body = json!({"schemaVersion": 1, "name": "a", "fsLayers": [], "history": []});
        assert_eq!(parse(&body, name).unwrap_err(), ManifestError::Schema1);
    }
}

#[test]
fn a03_digests_inside_manifests() {
    let hex = digest("x").hex();
    for bad in [
        "sha256:../../x".to_owned(),
        format!("sha256:{}", hex.to_uppercase()),
        "sha256:".to_owned(),
        "md5:d41d8cd98f00b204e9800998ecf8427e".to_owned(),
        format!("sha256:{}", "a".repeat(10_000)),
    ] {
        let mut body = an_image();
        body["layers"][1]["digest"] = json!(bad);
        match parse(&body, OCI).unwrap_err() {
            ManifestError::Digest { field, .. } => assert_eq!(field, "layers[1].digest"),
            other => panic!("{bad:.40}: {other}"),
        }
    }
}

#[test]
fn a12_size_limit_is_exact() {
    let text = an_image().to_string();
    let padded = |len: usize| format!("{text}{}", " ".repeat(len - text.len()));
    assert!(Manifest::parse(padded(MANIFEST_BYTES_MAX).as_bytes(), Some(OCI)).is_ok());
    assert_eq!(
        Manifest::parse(padded(MANIFEST_BYTES_MAX + 1).as_bytes(), Some(OCI)).unwrap_err(),
        ManifestError::TooLarge
    );
}

#[test]
fn descriptors_are_counted() {
    let text = |layers: usize, subject: bool| {
        let mut manifest = an_image();
        let layer = manifest["layers"][0].clone();
        manifest["layers"] = vec![layer.clone(); layers].into();
        if subject {
            manifest["subject"] = layer;
        }
        manifest.to_string()
    };
    // The config counts too.
    let most = DESCRIPTORS_MAX - 1;
    Manifest::parse(text(most, false).as_bytes(), Some(OCI)).unwrap();
    for (layers, subject) in [(most + 1, false), (most, true)] {
        assert_eq!(
            Manifest::parse(text(layers, subject).as_bytes(), Some(OCI)).unwrap_err(),
            ManifestError::TooMany(DESCRIPTORS_MAX + 1)
        );
    }
}

#[test]
fn a13_nesting_is_bounded() {
    let nested = format!(r#"{{"schemaVersion":2,"x":{}"#, "[".repeat(100_000));
    let thread = std::thread::Builder::new()
        .stack_size(256 * 1024)
        .spawn(move || Manifest::parse(nested.as_bytes(), Some(OCI)).unwrap_err())
        .unwrap();
    assert!(matches!(thread.join().unwrap(), ManifestError::Json(_)));
}

#[test]
fn a14_numbers_counts_and_double_keys() {
    let text = an_image().to_string();
    let config = format!("\"size\":{}", "config".len());
    for size in [
        "-1",
        "1.5",
        "1e999",
        "NaN",
        "\"6\"",
        "null",
        "18446744073709551615",
        "1e3",
    ] {
        let bad = text.replacen(&config, &format!("\"size\":{size}"), 1);
        assert_ne!(bad, text);
        assert!(
            Manifest::parse(bad.as_bytes(), Some(OCI)).is_err(),
            "size {size}"
        );
    }
    let double = text.replacen(
        "\"schemaVersion\":2",
        "\"schemaVersion\":2,\"schemaVersion\":2",
        1,
    );
    assert_ne!(double, text);
    assert!(Manifest::parse(double.as_bytes(), Some(OCI)).is_err());

    let annotations: serde_json::Map<String, Value> =
        (0..100_000).map(|i| (i.to_string(), json!(""))).collect();
    assert!(refused(&with(an_image(), "annotations", annotations.into()), OCI).contains("keys"));
}

#[test]
fn errors_stay_short() {
    let long = "x".repeat(100_000);
    let message = refused(&with(an_image(), "mediaType", json!(long)), OCI);
    assert!(message.len() < 1000, "{} bytes", message.len());
    let message = refused(&with(an_image(), "layers", json!(long)), OCI);
    assert!(message.len() < 1000, "{} bytes", message.len());
}

#[test]
fn other_json_is_refused() {
    for text in [
        "",
        "[]",
        "null",
        "1",
        "\"x\"",
        "{",
        "{}",
        "{\"schemaVersion\":2}",
        "\u{feff}{}",
    ] {
        assert!(
            Manifest::parse(text.as_bytes(), Some(OCI)).is_err(),
            "{text:?}"
        );
    }
    assert!(Manifest::parse(b"\xff\xfe{}", Some(OCI)).is_err());
}

proptest! {
    /// A damaged manifest is refused or read, and never a panic; what is read
    /// has only whole digests.
    #[test]
    fn damaged_bytes_never_panic(at in 0usize..600, byte: u8, cut in 0usize..700) {
        let mut bytes = an_image().to_string().into_bytes();
        let at = at % bytes.len();
        bytes[at] = byte;
        bytes.truncate(cut.max(1));
        if let Ok(manifest) = Manifest::parse(&bytes, Some(OCI)) {
            for reference in manifest.references() {
                prop_assert_eq!(reference.descriptor.digest.bytes().len(), 32);
            }
        }
    }

    #[test]
    fn every_descriptor_is_a_reference(layers in 0usize..50) {
        let list: Vec<Value> = (0..layers).map(|i| descriptor(LAYER, &i.to_string())).collect();
        let manifest = parse(&with(an_image(), "layers", list.into()), OCI).unwrap();
        let seen: Vec<Digest> = manifest.references().map(|r| r.descriptor.digest).collect();
        let mut expected = vec![digest("config")];
        expected.extend((0..layers).map(|i| digest(&i.to_string())));
        prop_assert_eq!(seen, expected);
    }
}

#[test]
fn a48_embedded_data_must_be_the_content() {
    use base64::Engine as _;
    let encode = |text: &str| base64::prelude::BASE64_STANDARD.encode(text);
    let image = |data: Value| {
        let config = with(descriptor(media_type::OCI_CONFIG, "config"), "data", data);
        with(an_image(), "config", config)
    };
    parse(&image(json!(encode("config"))), OCI).unwrap();
    for (data, reason) in [
        (encode("confit"), "has another digest"),
        (encode("config "), "has another length"),
        (String::new(), "has another length"),
        ("Y29uZmln=".to_owned(), "is not base64"),
        ("%%%".to_owned(), "is not base64"),
        ("Y29u\nZmln".to_owned(), "is not base64"),
    ] {
        let message = refused(&image(json!(data)), OCI);
        assert!(message.contains("config.data"), "{message}");
        assert!(message.contains(reason), "{message}");
    }
    // In every place, and under every algorithm.
    let mut layer = json!({
        "mediaType": LAYER,
        "digest": Digest::of(Algorithm::Sha512, b"one").to_string(),
        "size": 3,
        "data": encode("one"),
    });
    parse(&with(an_image(), "layers", json!([layer])), OCI).unwrap();
    layer["data"] = json!(encode("two"));
    let message = refused(&with(an_image(), "layers", json!([layer])), OCI);
    assert!(message.contains("layers[0].data"), "{message}");
    let entry = with(descriptor(OCI, "amd64"), "data", json!(encode("arm64")));
    let message = refused(&with(an_index(), "manifests", json!([entry])), INDEX);
    assert!(message.contains("manifests[0].data"), "{message}");
    let subject = with(descriptor(OCI, "subject"), "data", json!(encode("x")));
    let message = refused(&with(an_image(), "subject", subject), OCI);
    assert!(message.contains("subject.data"), "{message}");
}
