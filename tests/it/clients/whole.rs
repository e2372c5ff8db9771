//! A whole image, with all that is about it, copied: between instances, and
//! from a registry whose clients keep the list of referrers in tags.

use std::net::SocketAddr;
use std::process::Command;

use orlop_tests::client::Client;
use orlop_tests::fetched::Fetched;
use orlop_tests::oci::{self, Manifest};
use orlop_tests::peer::Peer;
use orlop_tests::server::Server;
use orlop_tests::tools::{self, Skopeo};
use orlop_tests::{data, place};
use serde_json::{Value, json};

const REPOSITORY: &str = "whole/app";
const SIGNATURE: &str = "application/vnd.example.signature.v1+json";
const SBOM: &str = "application/spdx+json";
const BUNDLE: &str = "application/vnd.example.bundle.v1";

/// An index of two platforms and everything about it.
struct Whole {
    /// Every manifest, each after those it contains or is about.
    manifests: Vec<Manifest>,
    /// Every layer.
    layers: Vec<Vec<u8>>,
    /// The index, under the tag `v1`.
    index: Manifest,
    /// The signature that cosign would find by its tag.
    tagged: (String, Manifest),
}

/// An artifact of a type with one file, which is pushed.
fn artifact(client: &Client, kind: &str, file: &[u8], subject: Option<&Manifest>) -> Manifest {
    let config = client.push_blob(REPOSITORY, b"{}");
    let layer = client.push_blob(REPOSITORY, file);
    let mut document = json!({
        "schemaVersion": 2,
        "mediaType": oci::IMAGE,
        "artifactType": kind,
        "config": oci::descriptor(oci::EMPTY, &config, 2),
        "layers": [oci::descriptor("application/octet-stream", &layer, file.len())],
        "annotations": {"org.example.of": String::from_utf8_lossy(file)},
    });
    if let Some(subject) = subject {
        document["subject"] = subject.descriptor();
    }
    Manifest::json(oci::IMAGE, &document)
}

impl Whole {
    /// Makes it and pushes it.
    fn push(client: &Client) -> Whole {
        let layers = [(1, 3_000_000), (2, 70_000), (3, 40)].map(|(s, n)| data::bytes(90 + s, n));
        let amd64 = oci::image(client, REPOSITORY, &[&layers[0], &layers[1]]);
        let arm64 = oci::image(client, REPOSITORY, &[&layers[0], &layers[2]]);
        let index = oci::index(&[&amd64, &arm64]);
        let signature = artifact(client, SIGNATURE, b"the index", Some(&index));
        let sbom = artifact(client, SBOM, b"packages of amd64", Some(&amd64));
        // About what is about the index.
        let countersigned = artifact(client, SIGNATURE, b"the signature", Some(&signature));
        // An index that is about the image, of an artifact about nothing.
        let inner = artifact(client, SBOM, b"packages of all", None);
        let bundle = Manifest::json(
            oci::INDEX,
            &json!({
                "schemaVersion": 2,
                "mediaType": oci::INDEX,
                "artifactType": BUNDLE,
                "manifests": [inner.descriptor()],
                "subject": index.descriptor(),
                "annotations": {"org.example.of": "both"},
            }),
        );
        let tagged = artifact(client, SIGNATURE, b"by a tag", None);
        let tag = format!("{}.sig", index.digest.replace(':', "-"));
        let all = [
            &amd64,
            &arm64,
            &index,
            &signature,
            &sbom,
            &countersigned,
            &inner,
            &bundle,
        ];
        for manifest in all {
            manifest.put(client, REPOSITORY, &manifest.digest);
        }
        index.put(client, REPOSITORY, "v1");
        tagged.put(client, REPOSITORY, &tag);
        Whole {
            manifests: all.map(Clone::clone).to_vec(),
            layers: layers.to_vec(),
            index,
            tagged: (tag, tagged),
        }
    }

    /// Everything is there, byte for byte, and found from its subject.
    #[track_caller]
    fn is_at(&self, client: &Client, source: &Client) {
        self.index.is_at(client, REPOSITORY, "v1");
        for manifest in &self.manifests {
            manifest.is_at(client, REPOSITORY, &manifest.digest);
            let listed = referrers(client, &manifest.digest, "");
            assert_eq!(listed, referrers(source, &manifest.digest, ""));
        }
        for layer in &self.layers {
            client.blob_is(REPOSITORY, &data::sha256(layer), layer);
        }
        // The source's list is what was pushed, and not just the same here.
        assert_eq!(referrers(client, &self.index.digest, "").len(), 2);
        let filter = format!("?artifactType={}", SBOM.replace('+', "%2B"));
        assert_eq!(
            referrers(client, &self.index.digest, &filter),
            [] as [Value; 0]
        );
        let filter = format!("?artifactType={BUNDLE}");
        let bundles = referrers(client, &self.index.digest, &filter);
        assert_eq!(bundles.len(), 1);
        assert_eq!(bundles[0]["annotations"]["org.example.of"], "both");
    }
}

#[track_caller]
fn referrers(client: &Client, digest: &str, query: &str) -> Vec<Value> {
    let path = format!("/v2/{REPOSITORY}/referrers/{digest}{query}");
    let list = client.get(&path).expect(200).json();
    list["manifests"].as_array().expect("a list").clone()
}

fn tags(client: &Client) -> Vec<String> {
    let path = format!("/v2/{REPOSITORY}/tags/list");
    let list = client.get(&path).expect(200).json();
    let tags = list["tags"].as_array().expect("tags").iter();
    tags.map(|tag| tag.as_str().unwrap().to_owned()).collect()
}

fn name(address: SocketAddr, reference: &str) -> String {
    format!("{address}/{REPOSITORY}{reference}")
}

/// regctl, which knows these registries.
fn regctl(addresses: &[SocketAddr]) -> Option<Fetched> {
    let regctl = Fetched::regctl()?;
    for address in addresses {
        regctl.knows(*address, None, &[]);
    }
    Some(regctl)
}

const ALL: [&str; 4] = ["image", "copy", "--referrers", "--digest-tags"];

#[test]
fn regctl_copies_a_whole_image_between_instances() {
    let (here, there) = (Server::start(), Server::start());
    let Some(regctl) = regctl(&[here.address(), there.address()]) else {
        return;
    };
    let (source, client) = (here.client(), there.client());
    let whole = Whole::push(&source);
    let v1 = |server: &Server| name(server.address(), ":v1");
    regctl.run(&[&ALL[..], &[&v1(&here), &v1(&there)]].concat());
    whole.is_at(&client, &source);
    let (tag, tagged) = &whole.tagged;
    tagged.is_at(&client, REPOSITORY, tag);
    // No list is kept in a tag where the registry keeps it.
    assert_eq!(tags(&client), [tag.as_str(), "v1"]);
    let tree = |server| regctl.run(&["artifact", "tree", &v1(server)]);
    let (here, there) = (
        tree(&here).replace(&here.address().to_string(), "registry"),
        tree(&there).replace(&there.address().to_string(), "registry"),
    );
    assert_eq!(here, there);
}

#[test]
fn crane_and_skopeo_copy_a_whole_image_piece_by_piece() {
    let here = Server::start();
    let source = here.client();
    let whole = Whole::push(&source);
    let copies = |copy: &dyn Fn(&str, &str)| {
        let there = Server::start();
        copy(&name(here.address(), ":v1"), &name(there.address(), ":v1"));
        for manifest in &whole.manifests {
            let at = format!("@{}", manifest.digest);
            copy(&name(here.address(), &at), &name(there.address(), &at));
        }
        whole.is_at(&there.client(), &source);
    };
    if let Some(crane) = Fetched::crane() {
        copies(&|from, to| {
            crane.run(&["copy", from, to]);
        });
    }
    if let Some(skopeo) = Skopeo::find() {
        copies(&|from, to| {
            skopeo.copy(&format!("docker://{from}"), &format!("docker://{to}"));
        });
    }
}

/// Puts the whole image into Debian's registry, whose lists of referrers
/// regctl keeps in tags.
fn filled(peer: &Peer, regctl: &Fetched, here: &Server) -> Vec<String> {
    let to = name(peer.address(), ":v1");
    regctl.run(&[&ALL[..], &[&name(here.address(), ":v1"), &to]].concat());
    let client = peer.client();
    let kept = tags(&client);
    let lists = kept.iter().filter(|tag| tag.len() == "sha256-".len() + 64);
    assert_eq!(lists.count(), 3, "one for each subject: {kept:?}");
    kept
}

#[test]
fn lists_kept_in_tags_elsewhere_are_lists_of_referrers_here() {
    let Some(peer) = Peer::start() else { return };
    let (here, by_regctl, by_tags) = (Server::start(), Server::start(), Server::start());
    let addresses = [here.address(), by_regctl.address(), peer.address()];
    let Some(regctl) = regctl(&addresses) else {
        return;
    };
    let source = here.client();
    let whole = Whole::push(&source);
    let kept = filled(&peer, &regctl, &here);

    // A client that knows of referrers reads the tags and pushes no such tag.
    let to = name(by_regctl.address(), ":v1");
    regctl.run(&[&ALL[..], &[&name(peer.address(), ":v1"), &to]].concat());
    let client = by_regctl.client();
    whole.is_at(&client, &source);
    assert!(
        tags(&client)
            .iter()
            .all(|tag| tag.len() != "sha256-".len() + 64)
    );

    // One that does not copies every tag, lists included.
    let Some(crane) = Fetched::crane() else {
        return;
    };
    let repository = |address| name(address, "");
    crane.run(&[
        "copy",
        "--all-tags",
        &repository(peer.address()),
        &repository(by_tags.address()),
    ]);
    let client = by_tags.client();
    let mut came = tags(&client);
    came.sort();
    let mut kept = kept;
    kept.sort();
    assert_eq!(came, kept);
    whole.is_at(&client, &source);
    let (tag, tagged) = &whole.tagged;
    tagged.is_at(&client, REPOSITORY, tag);

    // The tags may go: the lists stay.
    for tag in kept.iter().filter(|tag| tag.len() == "sha256-".len() + 64) {
        client
            .delete(&orlop_tests::client::manifest(REPOSITORY, tag))
            .expect(202);
    }
    whole.is_at(&client, &source);
}

#[test]
fn skopeo_brings_an_index_from_another_registry_by_way_of_a_folder() {
    let (Some(skopeo), Some(peer)) = (Skopeo::find(), Peer::start()) else {
        return;
    };
    let (here, there) = (Server::start(), Server::start());
    let source = here.client();
    let whole = Whole::push(&source);
    let v1 = |address| format!("docker://{}", name(address, ":v1"));
    assert_eq!(
        skopeo.copy(&v1(here.address()), &v1(peer.address())),
        whole.index.digest
    );
    let folder = place::dir();
    let mut command: Command = skopeo.command();
    command.args([
        "sync",
        "--all",
        "--preserve-digests",
        "--src-tls-verify=false",
    ]);
    command.args([
        "--src",
        "docker",
        "--dest",
        "dir",
        &name(peer.address(), ""),
    ]);
    tools::run(command.arg(folder.path()));
    let from = format!("dir:{}", folder.path().join("app:v1").display());
    assert_eq!(skopeo.copy(&from, &v1(there.address())), whole.index.digest);
    let client = there.client();
    for manifest in &whole.manifests[..3] {
        manifest.is_at(&client, REPOSITORY, &manifest.digest);
    }
}
