//! podman: pull, run, push, lists of images, search.

use orlop_tests::image::{GREETING, Images, SECOND};
use orlop_tests::podman::Podman;
use orlop_tests::server::Server;
use orlop_tests::tools::{self, Skopeo};
use serde_json::Value;

use super::{image, transport};

#[test]
fn a_container_runs_from_what_podman_pulled() {
    let (Some(skopeo), Some(images)) = (Skopeo::find(), Images::shared()) else {
        return;
    };
    let Some(podman) = Podman::find() else { return };
    let server = Server::shared();
    let name = image(&server, "podman/run:v1");
    skopeo.copy(&images.single(), &transport(&server, "podman/run:v1"));
    assert_eq!(podman.pull(&name), images.config);
    assert_eq!(podman.run(&name, &[]), GREETING);
    let second = podman.run(&name, &["/bin/cat", "/etc/second"]);
    assert_eq!(second, SECOND);
    // The ballast of the third layer, hashed inside the container.
    let hash = podman.run(&name, &["/bin/sha256sum", "/ballast"]);
    let ballast = orlop_tests::data::sha256(&orlop_tests::data::bytes(3, 3 << 20));
    assert_eq!(
        hash.split_whitespace().next(),
        ballast.strip_prefix("sha256:")
    );
}

#[test]
fn what_podman_pushed_podman_pulls() {
    let (Some(skopeo), Some(images)) = (Skopeo::find(), Images::shared()) else {
        return;
    };
    let Some(podman) = Podman::find() else { return };
    let server = Server::shared();
    skopeo.copy(&images.single(), &transport(&server, "podman/from:v1"));
    let from = image(&server, "podman/from:v1");
    let to = image(&server, "podman/to:v2");
    let id = podman.pull(&from);
    let pushed = podman.push(&from, &to);
    let raw = skopeo.raw_manifest(&transport(&server, "podman/to:v2"));
    assert_eq!(orlop_tests::data::sha256(&raw), pushed);
    let Some(other) = Podman::find() else { return };
    assert_eq!(other.pull(&to), id);
    assert_eq!(other.run(&to, &[]), GREETING);
}

#[test]
fn a_list_made_by_podman_is_pushed_with_all_its_images() {
    let (Some(skopeo), Some(images)) = (Skopeo::find(), Images::shared()) else {
        return;
    };
    let Some(podman) = Podman::find() else { return };
    let server = Server::start();
    let there = transport(&server, "podman/multi:v1");
    skopeo.copy(&images.multi(), &there);
    let run = |words: &[&str]| tools::run(podman.command().args(words));
    let no_tls = "--tls-verify=false";
    run(&["manifest", "create", "list"]);
    run(&["manifest", "add", "--all", no_tls, "list", &there]);
    let list = transport(&server, "podman/list:v1");
    run(&["manifest", "push", "--all", no_tls, "list", &list]);
    let children = |name: &str| -> Vec<String> {
        let raw = skopeo.raw_manifest(&transport(&server, name));
        let index: Value = serde_json::from_slice(&raw).unwrap();
        let entries = index["manifests"].as_array().unwrap().clone();
        entries.iter().map(|e| e["digest"].to_string()).collect()
    };
    let (mut wanted, mut pushed) = (children("podman/multi:v1"), children("podman/list:v1"));
    wanted.sort();
    pushed.sort();
    assert_eq!(pushed, wanted);
    assert_eq!(
        podman.pull(&image(&server, "podman/list:v1")),
        images.config
    );

    // Found by name, and its tags.
    skopeo.copy(&images.single(), &transport(&server, "podman/list:v2"));
    let said = run(&[
        "search",
        "--list-tags",
        no_tls,
        &image(&server, "podman/list"),
    ]);
    let tags: Vec<_> = said
        .lines()
        .skip(1)
        .filter_map(|l| l.split_whitespace().nth(1))
        .collect();
    assert_eq!(tags, ["v1", "v2"]);
    let said = run(&["search", no_tls, &image(&server, "podman/l")]);
    assert!(said.contains(&image(&server, "podman/list")), "{said}");
    assert!(!said.contains("podman/multi"), "{said}");
}
