//! crane: copy, digest, list, blob.

use std::process::Command;

use orlop_tests::image::Images;
use orlop_tests::server::Server;
use orlop_tests::tools::{self, Skopeo};
use orlop_tests::{data, oci};

use super::{image, transport};

#[test]
fn crane_pushes_copies_lists_and_pulls() {
    let (Some(skopeo), Some(images)) = (Skopeo::find(), Images::shared()) else {
        return;
    };
    let Some(program) = tools::crane() else {
        return;
    };
    let server = Server::shared();
    let crane = |arguments: &[&str]| {
        let home = orlop_tests::place::dir();
        let mut command = Command::new(&program);
        command
            .env("HOME", home.path())
            .env("DOCKER_CONFIG", home.path());
        tools::run(command.args(arguments))
    };
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
    let Some(program) = tools::crane() else {
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
    let home = orlop_tests::place::dir();
    let from = image(&server, "crane/artifact:report");
    let to = image(&server, "crane/artifact-copy:report");
    let mut command = Command::new(&program);
    command
        .env("HOME", home.path())
        .env("DOCKER_CONFIG", home.path());
    tools::run(command.args(["copy", &from, &to]));
    artifact.is_at(&client, "crane/artifact-copy", "report");
    client.blob_is("crane/artifact-copy", &data::sha256(&file), &file);
}
