//! Abuse cases A15 to A17 on the list of referrers: long chains, shared
//! graphs, and more than fits on a page.

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use orlop_tests::client::{Client, manifest};
use orlop_tests::oci::{self, Manifest};
use orlop_tests::reply::Reply;
use orlop_tests::server::Server;
use serde_json::{Value, json};

/// The most bytes a page may have.
const PAGE: usize = 4 << 20;
/// The most entries a page may have.
const ENTRIES: usize = 1000;

/// A manifest about `subject`, with one annotation. Its configuration is
/// the empty one, which is in the repository.
fn about(subject: &Manifest, kind: &str, note: &str) -> Manifest {
    let empty = oci::descriptor(oci::EMPTY, &orlop_tests::data::sha256(b"{}"), 2);
    Manifest::json(
        oci::IMAGE,
        &json!({
            "schemaVersion": 2,
            "mediaType": oci::IMAGE,
            "artifactType": kind,
            "config": empty,
            "layers": [empty],
            "subject": subject.descriptor(),
            "annotations": {"org.example.note": note},
        }),
    )
}

fn path(repository: &str, subject: &Manifest) -> String {
    format!("/v2/{repository}/referrers/{}", subject.digest)
}

/// The digests on a page.
#[track_caller]
fn digests(page: &Reply) -> Vec<String> {
    let list = page.json();
    let entries = list["manifests"].as_array().expect("a list").iter();
    entries
        .map(|entry| entry["digest"].as_str().expect("a digest").to_owned())
        .collect()
}

/// Where a list goes on.
fn next(page: &Reply) -> Option<String> {
    let link = page.find("link")?;
    let (path, _) = link.strip_prefix('<')?.split_once(">; rel=\"next\"")?;
    Some(path.to_owned())
}

#[test]
fn a16_a_chain_of_subjects_is_walked_by_nobody() {
    let server = Server::start();
    let client = server.client();
    let repository = "a16/chain";
    client.push_blob(repository, b"{}");
    let first = oci::image(&client, repository, &[b"the first"]);
    first.put(&client, repository, &first.digest);
    let mut chain = vec![first];
    for i in 0..1000 {
        let link = about(chain.last().unwrap(), "application/x", &i.to_string());
        link.put(&client, repository, &link.digest);
        chain.push(link);
    }
    // Each is about the one before, and a list goes no further than that.
    let began = Instant::now();
    for pair in chain.windows(2) {
        let page = client.get(&path(repository, &pair[0])).expect(200);
        assert_eq!(digests(&page), [pair[1].digest.as_str()]);
    }
    let took = began.elapsed();
    assert!(took < Duration::from_secs(20), "1000 lists took {took:?}");
    let last = chain.last().unwrap();
    let page = client.get(&path(repository, last)).expect(200);
    assert!(digests(&page).is_empty());
    // One in the middle goes: the others stay, and so do their places.
    let (before, gone, after) = (&chain[499], &chain[500], &chain[501]);
    client
        .delete(&manifest(repository, &gone.digest))
        .expect(202);
    assert!(digests(&client.get(&path(repository, before)).expect(200)).is_empty());
    let page = client.get(&path(repository, gone)).expect(200);
    assert_eq!(digests(&page), [after.digest.as_str()]);
    last.is_at(&client, repository, &last.digest);
}

#[test]
fn a16_subjects_that_go_in_a_circle_cannot_be_made_but_a_tag_can() {
    // A digest cannot be known before its content: a circle needs tags of the
    // fallback schema, which are tags like any other.
    let client = Client::shared();
    let repository = "a16/circle";
    client.push_blob(repository, b"{}");
    let image = oci::image(&client, repository, &[b"in a circle"]);
    image.put(&client, repository, "v1");
    let report = about(&image, "application/x", "1");
    report.put(&client, repository, "report");
    for (of, list) in [(&image, &report), (&report, &image)] {
        let tag = of.digest.replace(':', "-");
        oci::index(&[list]).put(&client, repository, &tag);
    }
    let page = client.get(&path(repository, &image)).expect(200);
    assert_eq!(digests(&page), [report.digest.as_str()]);
    let page = client.get(&path(repository, &report)).expect(200);
    assert!(digests(&page).is_empty(), "the image is about nothing");
}

#[test]
fn a15_a_shared_graph_of_subjects_costs_its_size() {
    let client = Client::shared();
    let repository = "a15/subjects";
    client.push_blob(repository, b"{}");
    let image = oci::image(&client, repository, &[b"shared"]);
    image.put(&client, repository, &image.digest);
    let began = Instant::now();
    let mut below = image;
    // Indexes about what they contain twice: 2^40 ways lead down.
    for _ in 0..40 {
        let index = Manifest::json(
            oci::INDEX,
            &json!({
                "schemaVersion": 2,
                "mediaType": oci::INDEX,
                "artifactType": "application/x",
                "manifests": [below.descriptor(), below.descriptor()],
                "subject": below.descriptor(),
            }),
        );
        index.put(&client, repository, &index.digest);
        let page = client.get(&path(repository, &below)).expect(200);
        assert_eq!(digests(&page), [index.digest.as_str()]);
        below = index;
    }
    client
        .delete(&manifest(repository, &below.digest))
        .expect(202);
    let took = began.elapsed();
    assert!(took < Duration::from_secs(20), "40 levels took {took:?}");
}

#[test]
fn a17_thousands_of_referrers_come_in_pages_of_4_mib() {
    const SMALL: usize = 1900;
    const LARGE: usize = 100;
    let server = Server::start();
    let client = server.client();
    let repository = "a17/many";
    client.push_blob(repository, b"{}");
    let image = oci::image(&client, repository, &[b"popular"]);
    image.put(&client, repository, "v1");
    // One in twenty carries 100 KiB, which its descriptor carries as well.
    let note = "n".repeat(100 << 10);
    let referrer = |i: usize| match i % 20 {
        0 => about(&image, "application/large", &format!("{i} {note}")),
        _ => about(&image, "application/small", &i.to_string()),
    };
    thread::scope(|scope| {
        for part in 0..8 {
            let (client, referrer) = (&client, &referrer);
            scope.spawn(move || {
                for i in (part..SMALL + LARGE).step_by(8) {
                    let one = referrer(i);
                    one.put(client, repository, &one.digest);
                }
            });
        }
    });
    let before = server.resident();
    let every = |query: &str, wanted: &BTreeSet<String>, least: usize| {
        let mut seen = Vec::new();
        let mut pages = 0;
        let mut at = Some(path(repository, &image) + query);
        while let Some(here) = at {
            let page = client.get(&here).expect(200);
            assert!(page.body.len() <= PAGE, "{here}: {} bytes", page.body.len());
            let listed = digests(&page);
            assert!(
                listed.is_empty() == wanted.is_empty(),
                "{here}: an empty page"
            );
            assert!(listed.len() <= ENTRIES, "{here}: {} entries", listed.len());
            seen.extend(listed);
            pages += 1;
            at = next(&page);
        }
        assert!(pages >= least, "{pages} pages");
        assert!(seen.is_sorted(), "{query}: out of order");
        assert_eq!(seen.len(), wanted.len(), "{query}");
        assert_eq!(
            &seen.into_iter().collect::<BTreeSet<_>>(),
            wanted,
            "{query}"
        );
    };
    let all = |kind: usize| -> BTreeSet<String> {
        let of = (0..SMALL + LARGE).filter(|i| kind == 2 || usize::from(i % 20 == 0) == kind);
        of.map(|i| referrer(i).digest).collect()
    };
    // 10 MiB of annotations: cut by size, and not by number alone.
    every("", &all(2), 3);
    every("?n=7", &all(2), 2000 / 7);
    every("?n=1000000", &all(2), 3);
    every("?artifactType=application/large", &all(1), 3);
    every("?artifactType=application/small&n=500", &all(0), 4);
    every("?artifactType=application/none", &BTreeSet::new(), 0);
    let grown = server.resident().saturating_sub(before);
    assert!(grown < 64 << 20, "lists left {} MiB", grown >> 20);
    // A descriptor carries its annotation unchanged.
    let page = client
        .get(&(path(repository, &image) + "?n=40"))
        .expect(200);
    let list: Value = page.json();
    for entry in list["manifests"].as_array().unwrap() {
        let at = manifest(repository, entry["digest"].as_str().unwrap());
        let document = client.get(&at).expect(200).json();
        assert_eq!(entry["annotations"], document["annotations"]);
        assert_eq!(entry["artifactType"], document["artifactType"]);
    }
}
