//! regctl: the client that uses all of the protocol, over plain HTTP and TLS.

use std::path::Path;

use orlop_tests::client::{blob, manifest};
use orlop_tests::fetched::Fetched;
use orlop_tests::image::Images;
use orlop_tests::server::{Server, Setup};
use orlop_tests::tls::Certificates;
use orlop_tests::tools::Skopeo;
use orlop_tests::{data, oci};
use serde_json::Value;

use super::image;

const SBOM: &str = "application/spdx+json";
const REPORT: &str = "application/vnd.example.report";
/// What makes it print the digest of what it pushed.
const DIGEST: &[&str] = &["--format", "{{.Manifest.GetDescriptor.Digest}}"];

#[test]
fn regctl_over_plain_http() {
    let Some(regctl) = Fetched::regctl() else {
        return;
    };
    let server = Server::start();
    // Large blobs in pieces.
    let pieces = ["--blob-max", "1000000", "--blob-chunk", "400000"];
    regctl.knows(server.address(), None, &pieces);
    every_verb(&regctl, &server);
}

#[test]
fn regctl_over_tls() {
    let Some(regctl) = Fetched::regctl() else {
        return;
    };
    let certificates = Certificates::new();
    let server = Setup::default().tls(&certificates).start();
    regctl.knows(server.address(), Some(&certificates.authority()), &[]);
    every_verb(&regctl, &server);
}

fn every_verb(regctl: &Fetched, server: &Server) {
    images(regctl, server);
    artifacts(regctl, server);
    blobs_and_manifests(regctl, server);
    let registry = server.address().to_string();
    let repositories = [
        "regctl/artifacts",
        "regctl/copy",
        "regctl/images",
        "regctl/parts",
    ];
    assert_eq!(regctl.lines(&["repo", "ls", &registry]), repositories);
    let first = regctl.lines(&["repo", "ls", "--limit", "2", &registry]);
    assert_eq!(first, &repositories[..2]);
    let rest = regctl.lines(&["repo", "ls", "--last", repositories[1], &registry]);
    assert_eq!(rest, &repositories[2..]);
}

fn images(regctl: &Fetched, server: &Server) {
    let client = server.client();
    let at = |reference: &str| image(server, &format!("regctl/images{reference}"));
    let layers = [data::bytes(50, 3_000_000), data::bytes(51, 100)];
    let one = oci::image(&client, "regctl/images", &[&layers[0], &layers[1]]);
    let other = oci::image(&client, "regctl/images", &[&layers[0]]);
    let index = oci::index(&[&one, &other]);
    for child in [&one, &other] {
        child.put(&client, "regctl/images", &child.digest);
    }
    index.put(&client, "regctl/images", "multi");

    // Digests, lists, copies within and across repositories.
    assert_eq!(
        regctl.run(&["image", "digest", &at(":multi")]),
        index.digest
    );
    regctl.run(&["image", "copy", &at(":multi"), &at(":again")]);
    let copy = image(server, "regctl/copy:multi");
    regctl.run(&["image", "copy", &at(":multi"), &copy]);
    for manifest in [&one, &other, &index] {
        manifest.is_at(&client, "regctl/copy", &manifest.digest);
    }
    client.blob_is("regctl/copy", &data::sha256(&layers[0]), &layers[0]);
    assert_eq!(regctl.lines(&["tag", "ls", &at("")]), ["again", "multi"]);
    assert_eq!(
        regctl.lines(&["tag", "ls", "--limit", "1", &at("")]),
        ["again"]
    );
    let rest = regctl.lines(&["tag", "ls", "--last", "again", &at("")]);
    assert_eq!(rest, ["multi"]);
    let body = regctl.run(&["manifest", "get", "--format", "body", &at(":multi")]);
    assert_eq!(body.as_bytes(), index.bytes.trim_ascii());
    let platform = regctl.run(&["image", "digest", "-p", "linux/arm64", &at(":multi")]);
    assert_eq!(platform, other.digest);

    // Out to a folder, and back under another tag: by pushes of regctl's own.
    let out = format!("ocidir://{}:multi", regctl.home().join("out").display());
    regctl.run(&["image", "copy", &at(":multi"), &out]);
    let back = image(server, "regctl/parts:back");
    regctl.run(&["image", "copy", &out, &back]);
    assert_eq!(client.digest_of("regctl/parts", "back"), index.digest);
    client.blob_is("regctl/parts", &data::sha256(&layers[0]), &layers[0]);

    // The same image with SHA-512 all the way down.
    let long = at(":sha512");
    regctl.run(&[
        "image",
        "mod",
        "--digest-algo",
        "sha512",
        "--create",
        &long,
        &at(":multi"),
    ]);
    let digest = regctl.run(&["image", "digest", &long]);
    assert!(digest.starts_with("sha512:"), "{digest}");
    let copy = image(server, "regctl/copy:sha512");
    regctl.run(&["image", "copy", &long, &copy]);
    assert_eq!(regctl.run(&["image", "digest", &copy]), digest);
    let index: Value = client
        .get(&manifest("regctl/copy", &digest))
        .expect(200)
        .json();
    let child = index["manifests"][0]["digest"].as_str().unwrap();
    let child = client
        .get(&manifest("regctl/copy", child))
        .expect(200)
        .json();
    let layer = data::sha512(&layers[0]);
    assert_eq!(child["layers"][0]["digest"], layer.as_str());
    client.blob_is("regctl/copy", &layer, &layers[0]);

    // A tag leaves, its manifest stays.
    regctl.run(&["tag", "rm", &at(":again")]);
    assert_eq!(regctl.lines(&["tag", "ls", &at("")]), ["multi", "sha512"]);
    assert!(!regctl.try_run(&["tag", "rm", &at(":again")]).ok);
    assert_eq!(
        client.digest_of("regctl/images", "multi"),
        regctl.run(&["image", "digest", &at(":multi")])
    );
}

fn artifacts(regctl: &Fetched, server: &Server) {
    let client = server.client();
    let at = |reference: &str| image(server, &format!("regctl/artifacts{reference}"));
    let subject = oci::image(&client, "regctl/artifacts", &[b"subject"]);
    subject.put(&client, "regctl/artifacts", "v1");
    let put = |kind: &str, file: &str, bytes: &[u8], more: &[&str]| -> String {
        std::fs::write(regctl.home().join(file), bytes).unwrap();
        let mut words = vec!["artifact", "put", "--artifact-type", kind, "--file", file];
        words.extend(more);
        words.extend(DIGEST);
        regctl.run(&words)
    };
    let subject_at = at(":v1");
    let about = ["--subject", subject_at.as_str()];
    let sbom = put(SBOM, "sbom.json", b"{\"packages\": []}", &about);
    let with_note = [about[0], about[1], "--annotation", "org.example.by=regctl"];
    let report = put(REPORT, "report.json", b"{\"findings\": 0}", &with_note);
    let on_it = at(&format!("@{sbom}"));
    let signature = put(REPORT, "signature", b"signed", &["--subject", &on_it]);
    put(REPORT, "alone", b"about nothing", &[&at(":alone")]);
    // No tag was made for any that is about something: the list is asked for.
    assert_eq!(regctl.lines(&["tag", "ls", &at("")]), ["alone", "v1"]);

    let list = |reference: &str, more: &[&str]| -> Vec<String> {
        let mut words = vec!["artifact", "list", "--format", "body", reference];
        words.extend(more);
        let body: Value = serde_json::from_str(&regctl.run(&words)).unwrap();
        let entries = body["manifests"].as_array().unwrap().clone();
        entries
            .iter()
            .map(|e| e["digest"].as_str().unwrap().to_owned())
            .collect()
    };
    let mut both = [sbom.clone(), report.clone()];
    both.sort();
    assert_eq!(list(&subject_at, &[]), both);
    assert_eq!(
        list(&subject_at, &["--filter-artifact-type", SBOM]),
        [sbom.as_str()]
    );
    assert_eq!(list(&on_it, &[]), [signature.as_str()]);
    let none: [&str; 0] = [];
    assert_eq!(
        list(&subject_at, &["--filter-artifact-type", "application/x"]),
        none
    );
    assert_eq!(list(&at(":alone"), &[]), none);
    let noted = regctl.run(&[
        "artifact",
        "list",
        "--filter-annotation",
        "org.example.by=regctl",
        &subject_at,
    ]);
    assert!(noted.contains(&report) && !noted.contains(&sbom), "{noted}");
    let tree = regctl.run(&["artifact", "tree", &subject_at]);
    for digest in [&sbom, &report, &signature] {
        assert!(tree.contains(digest.as_str()), "{tree}");
    }
    let got = regctl.run(&[
        "artifact",
        "get",
        "--subject",
        &subject_at,
        "--filter-artifact-type",
        SBOM,
    ]);
    assert_eq!(got, "{\"packages\": []}");

    regctl.run(&["manifest", "delete", &at(&format!("@{report}"))]);
    assert_eq!(list(&subject_at, &[]), [sbom.as_str()]);
}

fn blobs_and_manifests(regctl: &Fetched, server: &Server) {
    let client = server.client();
    let repository = image(server, "regctl/parts");
    let bytes = data::bytes(52, 2_500_000);
    let file = regctl.home().join("bytes");
    std::fs::write(&file, &bytes).unwrap();
    let put = |more: &[&str]| -> String {
        let mut words = vec!["blob", "put"];
        words.extend(more);
        words.push(&repository);
        from_file(regctl, &words, &file)
    };
    let digest = put(&[]);
    assert_eq!(digest, data::sha256(&bytes));
    client.blob_is("regctl/parts", &digest, &bytes);
    let long = data::sha512(&bytes);
    assert_eq!(put(&["--digest", &long]), long);
    client.blob_is("regctl/parts", &long, &bytes);
    let head = regctl.run(&["blob", "head", &repository, &digest]);
    assert!(head.contains("Content-Length: 2500000"), "{head}");
    let mut command = regctl.command(&["blob", "get", &repository, &digest]);
    let got = command.output().unwrap();
    assert!(got.status.success() && got.stdout == bytes);
    regctl.run(&["blob", "delete", &repository, &digest]);
    client.get(&blob("regctl/parts", &digest)).expect(404);
    assert!(!regctl.try_run(&["blob", "head", &repository, &digest]).ok);
    client.blob_is("regctl/parts", &long, &bytes);

    let image = oci::image(&client, "regctl/parts", &[b"of a manifest"]);
    std::fs::write(&file, &image.bytes).unwrap();
    let (a, b) = (format!("{repository}:a"), format!("{repository}:b"));
    for tag in [&a, &b] {
        from_file(
            regctl,
            &["manifest", "put", "--content-type", oci::IMAGE, tag],
            &file,
        );
    }
    image.is_at(&client, "regctl/parts", "a");
    let by_digest = format!("{repository}@{}", image.digest);
    // It asks for a digest, unless it is told to follow the tag.
    assert!(!regctl.try_run(&["manifest", "delete", &a]).ok);
    regctl.run(&["manifest", "delete", &by_digest]);
    assert_eq!(regctl.lines(&["tag", "ls", &repository]), ["back"]);
    for gone in [&a, &b, &by_digest] {
        assert!(!regctl.try_run(&["manifest", "head", gone]).ok, "{gone}");
    }
}

/// Runs regctl with a file as its input; returns its output, trimmed.
fn from_file(regctl: &Fetched, words: &[&str], file: &Path) -> String {
    let mut command = regctl.command(words);
    command.stdin(std::fs::File::open(file).unwrap());
    let ran = command.output().unwrap();
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{words:?}: {said}");
    String::from_utf8_lossy(&ran.stdout).trim().to_owned()
}

#[test]
fn regctl_copies_a_real_image_between_two_servers() {
    let (Some(skopeo), Some(images)) = (Skopeo::find(), Images::shared()) else {
        return;
    };
    let Some(regctl) = Fetched::regctl() else {
        return;
    };
    let certificates = Certificates::new();
    let (here, there) = (Server::start(), Setup::default().tls(&certificates).start());
    regctl.knows(here.address(), None, &[]);
    regctl.knows(there.address(), Some(&certificates.authority()), &[]);
    skopeo.copy(&images.multi(), &super::transport(&here, "real/app:v1"));
    regctl.run(&[
        "image",
        "copy",
        &image(&here, "real/app:v1"),
        &image(&there, "real/app:v1"),
    ]);
    assert_eq!(there.client().digest_of("real/app", "v1"), images.index);
    let trusting = skopeo.trusting(&certificates.trusted());
    let folder = orlop_tests::place::dir();
    let back = folder.path().join("back");
    let pulled = trusting.copy(
        &super::transport(&there, "real/app:v1"),
        &format!("oci:{}:v1", back.display()),
    );
    assert_eq!(pulled, images.index);
}
