//! The container image of this release: made by the project's own tool, always
//! the same, and taken by podman and skopeo.

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use orlop_tests::place;
use orlop_tests::podman::Podman;
use orlop_tests::release::{self, Release};
use orlop_tests::tools::{self, Skopeo};
use serde_json::Value;

#[test]
fn the_same_binaries_make_the_same_image_and_every_tool_takes_it() {
    let release = Release::shared();
    let folder = place::dir();
    let again = folder.path().join("again.tar");
    assert_eq!(release::make(&again), release.digest);
    let bytes = |path| std::fs::read(path).expect("read an image");
    assert!(bytes(again) == bytes(release.archive()), "not reproducible");
    let layout = folder.path().join("layout");
    assert_eq!(release::make(&layout), release.digest);

    let archive = release.archive().display().to_string();
    if let Some(skopeo) = Skopeo::find() {
        let inspect = |from: &str| -> Value {
            let out = tools::run(skopeo.command().args(["inspect", from]));
            serde_json::from_str(&out).expect("JSON of skopeo")
        };
        for from in [
            format!("oci-archive:{archive}:{}", release.version),
            format!("oci:{}:{}", layout.display(), release.version),
        ] {
            assert_eq!(inspect(&from)["Digest"], release.digest.as_str(), "{from}");
        }
        let as_docker = inspect(&format!("docker-archive:{archive}:{}", release.name()));
        let label = &as_docker["Labels"]["org.opencontainers.image.version"];
        assert_eq!(label, &release.version, "{as_docker}");
    }
    if let Some(podman) = Podman::find() {
        tools::run(podman.command().args(["load", "--input", &archive]));
        let version = podman.run(&release.name(), &["version"]);
        assert_eq!(version, format!("orlop {}", release.version));
    }
}

/// Folders below a setgid one inherit the bit, which is none of the image's.
#[test]
fn the_image_is_the_same_below_a_setgid_folder() {
    let folder = place::dir();
    let shared = folder.path().join("shared");
    std::fs::create_dir(&shared).expect("make a folder");
    let is_setgid = std::fs::Permissions::from_mode(0o2775);
    std::fs::set_permissions(&shared, is_setgid).expect("set the bit");
    let probe = shared.join("probe");
    std::fs::create_dir(&probe).expect("make a folder");
    let inherited = std::fs::metadata(&probe).expect("its mode").mode();
    if inherited & 0o2000 == 0 {
        tools::skipped("the file system passes no setgid bit on");
        return;
    }
    let digest = release::make(&shared.join("image.tar"));
    assert_eq!(digest, Release::shared().digest);
}

/// A program that the image cannot run makes no image.
#[test]
fn a_program_without_its_libraries_makes_no_image() {
    let folder = place::dir();
    let (bin, out) = (folder.path().join("bin"), folder.path().join("out"));
    for made in [&bin, &out] {
        std::fs::create_dir(made).expect("make a folder");
    }
    std::fs::copy(place::binary("orlop"), bin.join("orlop")).expect("copy a program");
    let whole = std::fs::read(place::binary("orlop-fsck")).expect("read a program");
    let library = b"libgcc_s.so.1\0";
    let mut without = whole.clone();
    let mut windows = whole.windows(library.len());
    let Some(at) = windows.position(|window| window == library) else {
        tools::skipped("orlop-fsck does not need libgcc here");
        return;
    };
    without[at..at + 6].copy_from_slice(b"absent");
    for (what, content, says) in [
        (
            "without a library",
            &without[..],
            "absent_s.so.1 => not found",
        ),
        ("cut off", &whole[..3000], "cannot name the libraries"),
        ("a script", b"#!/bin/sh\n", "cannot name the libraries"),
    ] {
        let program = bin.join("orlop-fsck");
        std::fs::write(&program, content).expect("write a program");
        std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755))
            .expect("make it a program");
        let ran = tools::try_run(&mut release::tool(&bin, &out.join("image.tar")));
        assert!(!ran.ok && ran.err.contains(says), "{what}: {}", ran.err);
        let mut left = std::fs::read_dir(&out).expect("list a folder");
        assert!(left.next().is_none(), "{what}: something is left");
    }
}
