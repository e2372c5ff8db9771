//! A layer of 3 GB, by skopeo and curl.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use orlop_tests::client::blob;
use orlop_tests::data::{self, Stream};
use orlop_tests::image;
use orlop_tests::oci::{self, Manifest};
use orlop_tests::server::Setup;
use orlop_tests::tools::Skopeo;
use orlop_tests::{place, tools};
use serde_json::json;

use super::transport;

const SIZE: u64 = 3_000_000_000;
/// The layout, the store, and one upload of the same again, with some room.
const NEEDED: u64 = 4 * SIZE;

/// An OCI layout with one layer of [`SIZE`] bytes; returns the layer's digest.
fn make_layout(at: &Path) -> String {
    let blobs = at.join("blobs/sha256");
    std::fs::create_dir_all(&blobs).unwrap();
    let layer_file = blobs.join("layer");
    let mut out = BufWriter::with_capacity(1 << 20, File::create(&layer_file).unwrap());
    std::io::copy(&mut Stream::new(3_000, SIZE), &mut out).unwrap();
    out.flush().unwrap();
    let (size, layer) = data::sha256_of_reader(File::open(&layer_file).unwrap());
    assert_eq!(size, SIZE);
    let place_of = |digest: &str| blobs.join(&digest["sha256:".len()..]);
    std::fs::rename(&layer_file, place_of(&layer)).unwrap();
    let config = Manifest::json(
        oci::CONFIG,
        &json!({"architecture": "amd64", "os": "linux",
                "rootfs": {"type": "layers", "diff_ids": [layer]}}),
    );
    let manifest = Manifest::json(
        oci::IMAGE,
        &json!({"schemaVersion": 2, "mediaType": oci::IMAGE,
                "config": config.descriptor(),
                "layers": [{"mediaType": oci::LAYER, "digest": layer, "size": SIZE}]}),
    );
    for blob in [&config, &manifest] {
        std::fs::write(place_of(&blob.digest), &blob.bytes).unwrap();
    }
    let mut entry = manifest.descriptor();
    entry["annotations"] = json!({"org.opencontainers.image.ref.name": "v1"});
    let index = json!({"schemaVersion": 2, "manifests": [entry]});
    std::fs::write(at.join("index.json"), index.to_string()).unwrap();
    std::fs::write(at.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    layer
}

/// The path in the `Location` of printed headers.
fn location_in(headers: &str) -> String {
    let is_location = |line: &&str| line.to_lowercase().starts_with("location:");
    let line = headers.lines().find(is_location).expect("a location");
    line[line.find("/v2/").expect("a path")..].trim().to_owned()
}

#[test]
fn a_layer_of_3_gb_is_pushed_and_pulled() {
    let Some(skopeo) = Skopeo::find() else { return };
    let Some(curl) = tools::need("curl") else {
        return;
    };
    let folder = place::dir();
    let free = tools::free_bytes(folder.path());
    if free < NEEDED {
        tools::skipped(&format!(
            "a 3 GB layer needs {NEEDED} bytes of disk, {free} are free"
        ));
        return;
    }
    // What is hot may stay in memory; the rest of the layer may not.
    let server = Setup::default().env("ORLOP_CACHE_SIZE", "256MiB").start();
    let layout = folder.path().join("layout");
    let layer = make_layout(&layout);
    let resident = server.resident();

    // skopeo pushes.
    let there = transport(&server, "large/image:v1");
    let pushed = skopeo.copy(&format!("oci:{}:v1", layout.display()), &there);
    assert_eq!(pushed, image::only_entry(&layout));
    std::fs::remove_dir_all(&layout).unwrap();

    // curl pulls, hashed as it comes.
    let url = format!("http://{}{}", server.address(), blob("large/image", &layer));
    let mut pull = Command::new(&curl)
        .args(["-fsS", &url])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let got = data::sha256_of_reader(pull.stdout.take().unwrap());
    assert!(pull.wait().unwrap().success());
    assert_eq!(got, (SIZE, layer.clone()));

    // A range far inside.
    let client = server.client();
    let first = SIZE - 1_234_567_890;
    let last = first + 99_999;
    let part = client
        .range(
            &blob("large/image", &layer),
            &format!("bytes={first}-{last}"),
        )
        .expect(206);
    assert_eq!(
        part.header("content-range"),
        format!("bytes {first}-{last}/{SIZE}")
    );
    assert_eq!(part.body.len(), 100_000);

    // curl pushes other bytes from a pipe, of a length it does not know.
    let location = client.open_upload("large/curl");
    let mut push = Command::new(&curl)
        .args([
            "-fsS",
            "-X",
            "PATCH",
            "-T",
            "-",
            "-D",
            "-",
            "-o",
            "/dev/null",
        ])
        .args(["-H", "Content-Type: application/octet-stream"])
        .arg(format!("http://{}{location}", server.address()))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let size = SIZE / 3;
    let mut pipe = BufWriter::with_capacity(1 << 20, push.stdin.take().unwrap());
    std::io::copy(&mut Stream::new(3_001, size), &mut pipe).unwrap();
    drop(pipe);
    let answer = push.wait_with_output().unwrap();
    assert!(answer.status.success());
    let headers = String::from_utf8_lossy(&answer.stdout).to_lowercase();
    let range = format!("range: 0-{}\r\n", size - 1);
    assert!(headers.contains(&range), "{headers}");
    let location = location_in(&String::from_utf8_lossy(&answer.stdout));
    let (_, digest) = data::sha256_of_reader(Stream::new(3_001, size));
    client.finish(&location, &digest, "").expect(201);

    // skopeo pulls the large image; its layer's hash is checked by skopeo.
    let back = folder.path().join("back");
    let pulled = skopeo.copy(&there, &format!("oci:{}:v1", back.display()));
    assert_eq!(pulled, pushed);
    let grown = server.resident().saturating_sub(resident);
    assert!(
        grown < 1 << 30,
        "moving 3 GB left {} MiB in memory",
        grown >> 20
    );
}
