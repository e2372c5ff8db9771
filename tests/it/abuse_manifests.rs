//! Abuse cases A44 and A47 to A49: manifests that are two things at once, and
//! that say of what they refer to what is not so.

use orlop_tests::client::{Client, blob, manifest};
use orlop_tests::data;
use orlop_tests::oci::{self, Manifest};
use orlop_tests::server::Server;
use serde_json::{Value, json};

/// The JSON of an image whose parts are pushed, to be spoiled.
fn document(client: &Client, repository: &str) -> Value {
    let image = oci::image(client, repository, &[b"layer"]);
    serde_json::from_slice(&image.bytes).unwrap()
}

#[test]
fn a44_a_manifest_is_one_thing_and_what_it_is_called() {
    let client = Client::shared();
    let repository = "a44/kinds";
    let image = document(&client, repository);
    let child = oci::image(&client, repository, &[b"child"]);
    child.put(&client, repository, "child");
    let index: Value = serde_json::from_slice(&oci::index(&[&child]).bytes).unwrap();
    let change = |of: &Value, change: &dyn Fn(&mut Value)| {
        let mut document = of.clone();
        change(&mut document);
        document.to_string()
    };
    let untyped = |of: &Value| {
        change(of, &|d| {
            drop(d.as_object_mut().unwrap().remove("mediaType"))
        })
    };
    let both = |of: &Value| {
        change(of, &|d| {
            d["manifests"] = index["manifests"].clone();
            d["layers"] = image["layers"].clone();
            d["config"] = image["config"].clone();
        })
    };
    let neither = |kind: &str| json!({"schemaVersion": 2, "mediaType": kind}).to_string();
    for (kind, body) in [
        // Both layers and manifests, whatever it is called.
        (oci::IMAGE, both(&image)),
        (oci::INDEX, both(&index)),
        (oci::DOCKER_IMAGE, both(&image)),
        (oci::DOCKER_LIST, both(&index)),
        // One thing by its header, another by its body.
        (oci::INDEX, image.to_string()),
        (oci::IMAGE, index.to_string()),
        (oci::DOCKER_IMAGE, image.to_string()),
        (oci::DOCKER_LIST, index.to_string()),
        ("application/json", image.to_string()),
        ("application/octet-stream", image.to_string()),
        ("text/html", image.to_string()),
        // One thing by both, another by what is in it.
        (oci::INDEX, untyped(&image)),
        (oci::IMAGE, untyped(&index)),
        // Neither.
        (oci::IMAGE, neither(oci::IMAGE)),
        (oci::INDEX, neither(oci::INDEX)),
        (oci::DOCKER_IMAGE, neither(oci::DOCKER_IMAGE)),
        (oci::DOCKER_LIST, neither(oci::DOCKER_LIST)),
        (oci::IMAGE, "{}".to_owned()),
        (oci::IMAGE, change(&image, &|d| d["mediaType"] = json!(7))),
    ] {
        let digest = data::sha256(body.as_bytes());
        for reference in ["v1", digest.as_str()] {
            let reply = client.put_manifest(repository, reference, kind, body.as_bytes());
            assert_eq!(reply.status, 400, "{kind}: {body}");
            reply.refused(400, "MANIFEST_INVALID");
            client.get(&manifest(repository, reference)).expect(404);
        }
    }
    // What is right is taken, and what has no type of its own has the header's.
    for (kind, body) in [(oci::IMAGE, untyped(&image)), (oci::INDEX, untyped(&index))] {
        let manifest = Manifest::of(kind, body.into_bytes());
        manifest.put(&client, repository, "right");
        manifest.is_at(&client, repository, "right");
    }
}

#[test]
fn a47_what_is_only_elsewhere_is_as_absent_as_what_is_nowhere() {
    let server = Server::start();
    let client = server.client();
    let (theirs, mine) = ("a47/theirs", "a47/mine");
    let secret = data::bytes(47, 2000);
    let secret_digest = client.push_blob(theirs, &secret);
    let their_image = oci::image(&client, theirs, &[b"theirs"]);
    their_image.put(&client, theirs, "v1");
    let nothing = data::sha256(b"nowhere");
    let my_config = client.push_blob(mine, b"{}");
    // The same push, of what is elsewhere and of what is nowhere.
    let told = |kind: &str, document: &dyn Fn(&str) -> Value, elsewhere: &str| {
        let answer = |digest: &str| {
            let body = document(digest).to_string();
            let reply = client
                .put_manifest(mine, "v1", kind, body.as_bytes())
                .refused(400, "MANIFEST_BLOB_UNKNOWN");
            let id = reply.header("x-request-id").to_owned();
            let text = String::from_utf8(reply.body.clone()).unwrap();
            let text = text.replace(digest, "DIGEST").replace(&id, "ID");
            let passing = ["date", "x-request-id"];
            let headers = reply.headers.into_iter();
            let headers: Vec<_> = headers
                .filter(|(n, _)| !passing.contains(&n.as_str()))
                .collect();
            (text, headers)
        };
        assert_eq!(answer(elsewhere), answer(&nothing));
    };
    let config = oci::descriptor(oci::CONFIG, &my_config, 2);
    for size in [2000, 1, 0] {
        let part = |kind: &str, digest: &str| oci::descriptor(kind, digest, size);
        let image = |config: Value, layers: Value| json!({"schemaVersion": 2, "mediaType": oci::IMAGE, "config": config, "layers": layers});
        let as_layer = |digest: &str| image(config.clone(), json!([part(oci::LAYER, digest)]));
        let as_config = |digest: &str| image(part(oci::CONFIG, digest), json!([]));
        let as_child = |digest: &str| json!({"schemaVersion": 2, "mediaType": oci::INDEX, "manifests": [part(oci::IMAGE, digest)]});
        told(oci::IMAGE, &as_layer, &secret_digest);
        told(oci::IMAGE, &as_config, &secret_digest);
        told(oci::INDEX, &as_child, &their_image.digest);
    }
    for digest in [&secret_digest, &their_image.digest] {
        client.get(&blob(mine, digest)).expect(404);
        client.get(&manifest(mine, digest)).expect(404);
    }
}

#[test]
fn a48_embedded_data_that_is_not_the_content_is_refused() {
    let client = Client::shared();
    let repository = "a48/data";
    let image = document(&client, repository);
    let config = client.push_blob(repository, b"{}");
    let child = oci::image(&client, repository, &[b"child"]);
    child.put(&client, repository, "child");
    let push = |tag: &str, kind: &str, document: &Value| {
        client.put_manifest(repository, tag, kind, document.to_string().as_bytes())
    };
    // "layer" and "{}" are "bGF5ZXI=" and "e30=".
    let mut right = image.clone();
    right["layers"][0]["data"] = json!("bGF5ZXI=");
    right["config"] = oci::descriptor(oci::EMPTY, &config, 2);
    right["config"]["data"] = json!("e30=");
    push("right", oci::IMAGE, &right).expect(201);
    let got = client.get(&manifest(repository, "right")).expect(200);
    assert_eq!(got.body, right.to_string().into_bytes());

    let index: Value = serde_json::from_slice(&oci::index(&[&child]).bytes).unwrap();
    for data in [
        "b3RoZXI=",
        "bGF5ZXIg",
        "bGF5ZXI",
        "",
        "%%%",
        "bGF5\nZXI=",
        "bGF5ZXI=bGF5ZXI=",
    ] {
        for place in ["/layers/0", "/config", "/subject"] {
            let mut wrong = image.clone();
            wrong["subject"] = child.descriptor();
            wrong.pointer_mut(place).unwrap()["data"] = json!(data);
            push("wrong", oci::IMAGE, &wrong).refused(400, "MANIFEST_INVALID");
        }
        let mut wrong = index.clone();
        wrong["manifests"][0]["data"] = json!(data);
        push("wrong", oci::INDEX, &wrong).refused(400, "MANIFEST_INVALID");
    }
    // The right bytes under a size that is not theirs.
    let mut wrong = right.clone();
    wrong["layers"][0]["size"] = json!(6);
    push("wrong", oci::IMAGE, &wrong).refused(400, "MANIFEST_INVALID");
    // Data of what nobody pushed is no push of it.
    let mut unpushed = image;
    unpushed["layers"][0] = oci::descriptor(oci::LAYER, &data::sha256(b"other"), 5);
    unpushed["layers"][0]["data"] = json!("b3RoZXI=");
    push("wrong", oci::IMAGE, &unpushed).refused(400, "MANIFEST_BLOB_UNKNOWN");
    client.get(&manifest(repository, "wrong")).expect(404);
}

#[test]
fn a49_sizes_that_are_not_those_of_the_content_are_refused() {
    let client = Client::shared();
    let repository = "a49/sizes";
    let image = document(&client, repository);
    let child = oci::image(&client, repository, &[b"child"]);
    child.put(&client, repository, "child");
    let index: Value = serde_json::from_slice(&oci::index(&[&child]).bytes).unwrap();
    for (kind, document, place) in [
        (oci::IMAGE, &image, "/layers/0/size"),
        (oci::IMAGE, &image, "/config/size"),
        (oci::INDEX, &index, "/manifests/0/size"),
    ] {
        let stored = document.pointer(place).unwrap().as_u64().unwrap();
        for size in [0, 1, stored - 1, stored + 1, 1 << 40, (1 << 63) - 1] {
            let mut wrong = document.clone();
            *wrong.pointer_mut(place).unwrap() = json!(size);
            let body = wrong.to_string();
            let reply = client.put_manifest(repository, "v1", kind, body.as_bytes());
            let reply = reply.expect(400);
            let code = reply.code();
            assert!(
                matches!(code.as_str(), "SIZE_INVALID" | "MANIFEST_INVALID"),
                "{code}"
            );
            client.get(&manifest(repository, "v1")).expect(404);
            client
                .get(&manifest(repository, &data::sha256(body.as_bytes())))
                .expect(404);
        }
    }
}
