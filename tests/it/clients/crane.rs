//! crane: copy, digest, list, blob; changes of an image; indexes; deletes.

use orlop_tests::client::manifest;
use orlop_tests::fetched::Fetched;
use orlop_tests::image::Images;
use orlop_tests::server::Server;
use orlop_tests::tools::{self, Skopeo};
use orlop_tests::{data, oci};
use serde_json::Value;

use super::{image, transport};

#[test]
fn crane_pushes_copies_lists_and_pulls() {
    let (Some(skopeo), Some(images)) = (Skopeo::find(), Images::shared()) else {
        return;
    };
    let Some(crane) = Fetched::crane() else {
        return;
    };
    let server = Server::shared();
    let crane = |arguments: &[&str]| crane.run(arguments);
    let first = image(&server, "crane/first:v1");
    skopeo.copy(&images.multi(), &transport(&server, "crane/first:v1"));
    assert_eq!(crane(&["digest", &first]), images.index);

    // An index with all it names, to another repository.
    let second = image(&server, "crane/second:v1");
    crane(&["copy", &first, &second]);
    assert_eq!(crane(&["digest", &second]), images.index);
    crane(&["tag", &second, "v2"]);
    let listed = crane(&["ls", &image(&server, "crane/second")]);
    assert_eq!(listed.lines().collect::<Vec<_>>(), ["v1", "v2"]);

    // A layout from disk, pushed by crane itself, pulled as a layout.
    let folder = orlop_tests::place::dir();
    let third = image(&server, "crane/third:v1");
    let layout = images.layout().display().to_string();
    crane(&["push", &layout, &third]);
    assert_eq!(crane(&["digest", &third]), images.manifest);
    let back = folder.path().join("back").display().to_string();
    crane(&["pull", "--format", "oci", &third, &back]);
    let config = image(&server, &format!("crane/third@{}", images.config));
    let blob = crane(&["blob", &config]);
    assert_eq!(blob.into_bytes(), images.blob(&images.config).trim_ascii());
}

#[test]
fn crane_copies_an_artifact_unchanged() {
    let Some(crane) = Fetched::crane() else {
        return;
    };
    let server = Server::shared();
    let client = server.client();
    let subject = oci::image(&client, "crane/artifact", &[b"subject"]);
    subject.put(&client, "crane/artifact", "subject");
    let file = data::bytes(12, 5000);
    let artifact = oci::artifact(
        &client,
        "crane/artifact",
        &file,
        Some(&subject.descriptor()),
    );
    artifact.put(&client, "crane/artifact", "report");
    let from = image(&server, "crane/artifact:report");
    let to = image(&server, "crane/artifact-copy:report");
    crane.run(&["copy", &from, &to]);
    artifact.is_at(&client, "crane/artifact-copy", "report");
    client.blob_is("crane/artifact-copy", &data::sha256(&file), &file);
}

/// A tar file with one file in it; returns its path.
fn tar(crane: &Fetched, name: &str, bytes: &[u8]) -> String {
    std::fs::write(crane.home().join(name), bytes).unwrap();
    let archive = crane.home().join(format!("{name}.tar"));
    let script = "tar -C \"$1\" -cf \"$2\" \"$3\"";
    let home = crane.home().as_os_str();
    tools::sh(script, &[home, archive.as_os_str(), name.as_ref()]);
    archive.display().to_string()
}

#[test]
fn crane_builds_changes_and_deletes_images() {
    let Some(crane) = Fetched::crane() else {
        return;
    };
    let server = Server::start();
    let client = server.client();
    let at = |reference: &str| image(&server, &format!("crane/built{reference}"));

    // Layers on nothing, then a platform and annotations, for two platforms.
    let (small, large) = (
        tar(&crane, "small", b"a small file"),
        tar(&crane, "large", &data::bytes(30, 3 << 20)),
    );
    for platform in ["amd64", "arm64"] {
        let tag = at(&format!(":{platform}"));
        crane.run(&[
            "append",
            "--oci-empty-base",
            "-f",
            &small,
            "-f",
            &large,
            "-t",
            &tag,
        ]);
        let before = crane.run(&["digest", &tag]);
        let platform = format!("linux/{platform}");
        let made_by = "org.example.made-by=crane";
        crane.run(&[
            "mutate",
            "--set-platform",
            &platform,
            "-a",
            made_by,
            "-l",
            "stage=test",
            "-t",
            &tag,
            &tag,
        ]);
        let after = crane.run(&["digest", &tag]);
        assert_ne!(before, after);
        // What it was before has no tag, and is there.
        client.get(&manifest("crane/built", &before)).expect(200);
        let document: Value = serde_json::from_str(&crane.run(&["manifest", &tag])).unwrap();
        assert_eq!(document["annotations"]["org.example.made-by"], "crane");
        let settings: Value = serde_json::from_str(&crane.run(&["config", &tag])).unwrap();
        assert_eq!(settings["config"]["Labels"]["stage"], "test");
    }
    let multi = at(":multi");
    crane.run(&[
        "index",
        "append",
        "-m",
        &at(":amd64"),
        "-m",
        &at(":arm64"),
        "-t",
        &multi,
    ]);
    let index: Value = serde_json::from_str(&crane.run(&["manifest", &multi])).unwrap();
    assert_eq!(index["manifests"].as_array().map(Vec::len), Some(2));

    // Every layer and configuration read and hashed by crane.
    for reference in [":amd64", ":arm64", ":multi"] {
        crane.run(&["validate", "--remote", &at(reference)]);
    }
    let exported = crane.home().join("exported.tar").display().to_string();
    crane.run(&["export", "--platform", "linux/arm64", &multi, &exported]);
    let listed = tools::run(std::process::Command::new("tar").args(["-tf", &exported]));
    assert_eq!(listed.lines().collect::<Vec<_>>(), ["large", "small"]);

    let registry = server.address().to_string();
    assert_eq!(crane.lines(&["catalog", &registry]), ["crane/built"]);
    crane.run(&["copy", "--all-tags", &at(""), &image(&server, "crane/all")]);
    let mut all = crane.lines(&["ls", &image(&server, "crane/all")]);
    all.sort();
    assert_eq!(all, ["amd64", "arm64", "multi"]);
    let catalog = crane.lines(&["catalog", &registry]);
    assert_eq!(catalog, ["crane/all", "crane/built"]);

    // A tag, then a manifest, which its index outlives.
    crane.run(&["delete", &at(":arm64")]);
    assert_eq!(crane.lines(&["ls", &at("")]), ["amd64", "multi"]);
    crane.run(&["validate", "--remote", &multi]);
    let digest = crane.run(&["digest", &at(":amd64")]);
    crane.run(&["delete", &at(&format!("@{digest}"))]);
    assert_eq!(crane.lines(&["ls", &at("")]), ["multi"]);
    assert!(!crane.try_run(&["digest", &at(":amd64")]).ok);
    assert!(!crane.try_run(&["validate", "--remote", &multi]).ok);
    // The copy elsewhere is whole.
    let copy = image(&server, "crane/all:multi");
    crane.run(&["validate", "--remote", &copy]);
}
