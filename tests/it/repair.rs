//! `orlop-fsck --repair` on what a real server left: a lost or rotten catalog
//! is made again, a damaged blob comes back from a second source.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use orlop_tests::client::{self, Client};
use orlop_tests::damage::rot;
use orlop_tests::data;
use orlop_tests::oci;
use orlop_tests::place;
use orlop_tests::server::{Server, Setup};
use orlop_tests::tools::{self, Ran};
use serde_json::Value;

/// Longest time that a refused start may take.
const SOON: Duration = Duration::from_secs(20);
/// Long enough for notes to reach the journal, which nobody waits for.
const NOTED: Duration = Duration::from_millis(300);
const REPOSITORIES: [&str; 3] = ["repair/app", "repair/base", "repair/other"];

fn fsck(folder: &Path, arguments: &[&str]) -> Ran {
    tools::try_run(
        Command::new(place::binary("orlop-fsck"))
            .env_clear()
            .arg(folder)
            .args(arguments),
    )
}

/// Repairs and fails unless nothing is wrong after that.
#[track_caller]
fn repaired(folder: &Path, arguments: &[&str]) -> Value {
    let plan = fsck(folder, &[&["--repair"], arguments].concat());
    assert!(!plan.ok, "there is nothing to repair: {}", plan.out);
    assert!(plan.out.contains("--apply"), "{}{}", plan.out, plan.err);
    let apply = ["--repair", "--apply", "--output", "json"];
    let ran = fsck(folder, &[&apply[..], arguments].concat());
    assert!(ran.ok, "{}{}", ran.out, ran.err);
    let again = fsck(folder, &["--repair", "--apply"]);
    assert!(again.ok, "{}{}", again.out, again.err);
    assert!(again.out.contains("nothing that can"), "{}", again.out);
    serde_json::from_str(&ran.out).unwrap_or_else(|e| panic!("{e}: {}", ran.out))
}

/// What the registry says of a name.
type Seen = Vec<(String, u16, Vec<u8>)>;

/// Manifests and blobs of whatever state, by their digests.
struct Pushed {
    manifests: Vec<String>,
    blobs: Vec<String>,
}

/// All that can be asked of names: lists, tags, manifests, referrers, links.
fn seen(client: &Client, pushed: &Pushed) -> Seen {
    let mut seen = Vec::new();
    let mut ask = |path: String| {
        let reply = client.call("GET", &path, &[("Accept", "*/*")], "");
        seen.push((path, reply.status, reply.body));
    };
    ask("/v2/_catalog".to_owned());
    for repository in REPOSITORIES {
        ask(format!("/v2/{repository}/tags/list"));
        for tag in ["v1", "v2", "latest", "gone", "multi", "back"] {
            ask(client::manifest(repository, tag));
        }
        for digest in &pushed.manifests {
            ask(client::manifest(repository, digest));
            ask(format!("/v2/{repository}/referrers/{digest}"));
        }
        for digest in &pushed.blobs {
            ask(client::blob(repository, digest));
        }
    }
    seen
}

/// Pushes, tags, retags, mounts, refers, deletes and untags.
fn first_half(client: &Client) -> (Pushed, oci::Manifest) {
    let [app, base, _] = REPOSITORIES;
    let layers: Vec<Vec<u8>> = (0..4).map(|i| data::bytes(700 + i, 90_000)).collect();
    let one = oci::image(client, app, &[&layers[0], b"small"]);
    one.put(client, app, "v1");
    one.put(client, app, "latest");
    let two = oci::image(client, app, &[&layers[1]]);
    two.put(client, app, "v2");
    let multi = oci::index(&[&one, &two]);
    multi.put(client, app, "multi");
    let gone = oci::image(client, base, &[&layers[2]]);
    gone.put(client, base, "gone");
    client
        .call("DELETE", &client::manifest(base, "gone"), &[], "")
        .expect(202);
    let manifests = [&one, &two, &multi, &gone];
    let pushed = Pushed {
        manifests: manifests.iter().map(|m| m.digest.clone()).collect(),
        blobs: layers.iter().map(|bytes| data::sha256(bytes)).collect(),
    };
    (pushed, one)
}

fn second_half(client: &Client, pushed: &mut Pushed, one: &oci::Manifest) {
    let [app, base, other] = REPOSITORIES;
    let [zero, first, second, third] = [0, 1, 2, 3].map(|at| pushed.blobs[at].clone());
    // A moved tag, a referrer, a mount, and deletes of each kind.
    let three = oci::docker_image(client, app, &[&data::bytes(703, 90_000)]);
    three.put(client, app, "latest");
    let report = oci::artifact(client, app, b"report", Some(&one.descriptor()));
    report.put(client, app, &report.digest);
    let mount = format!("/v2/{other}/blobs/uploads/?mount={zero}&from={app}");
    client.call("POST", &mount, &[], "").expect(201);
    let copy = oci::image(client, other, &[&data::bytes(700, 90_000)]);
    copy.put(client, other, "v1");
    let back = oci::image(client, base, &[b"back"]);
    back.put(client, base, "back");
    let delete = |path: String| {
        client.call("DELETE", &path, &[], "").expect(202);
    };
    delete(client::manifest(base, &back.digest));
    back.put(client, base, "back");
    delete(client::manifest(app, "v2"));
    delete(client::manifest(app, &pushed.manifests[2]));
    delete(client::blob(base, &second));
    for manifest in [&three, &report, &copy, &back] {
        pushed.manifests.push(manifest.digest.clone());
    }
    pushed.blobs = vec![zero, first, second, third];
}

/// A stopped store whose newest copy of the catalog lacks half of the names,
/// and what it said.
fn stopped() -> (Server, Pushed, Seen) {
    let mut server = Server::start();
    let (mut pushed, one) = first_half(&server.client());
    std::thread::sleep(NOTED);
    server.stop();
    server.start_again();
    second_half(&server.client(), &mut pushed, &one);
    let before = seen(&server.client(), &pushed);
    std::thread::sleep(NOTED);
    server.kill();
    (server, pushed, before)
}

fn remove_catalog(folder: &Path) {
    for name in ["catalog.db", "catalog.db-wal", "catalog.db-shm"] {
        let _ = fs::remove_file(folder.join(name));
    }
}

/// Fails unless the server says the same of every name as before, and takes
/// pushes.
#[track_caller]
fn same_names(server: &mut Server, pushed: &Pushed, before: &Seen) {
    server.start_again();
    let client = server.client();
    for (then, now) in before.iter().zip(seen(&client, pushed)) {
        assert_eq!(then.1, now.1, "{}", then.0);
        assert!(
            then.2 == now.2 || then.1 != 200,
            "{}: {} before, {} now",
            then.0,
            String::from_utf8_lossy(&then.2),
            String::from_utf8_lossy(&now.2)
        );
    }
    let more = oci::image(&client, "repair/app", &[b"after"]);
    more.put(&client, "repair/app", "after");
    more.is_at(&client, "repair/app", "after");
    server.stop();
    let ran = fsck(server.data(), &[]);
    assert!(ran.ok, "{}{}", ran.out, ran.err);
}

#[test]
fn a_lost_catalog_is_made_again_with_every_name() {
    let (mut server, pushed, before) = stopped();
    let whole = fsck(server.data(), &[]);
    assert!(whole.ok, "{}{}", whole.out, whole.err);
    remove_catalog(server.data());
    let data = server.data().to_path_buf();
    for _ in 0..2 {
        let refused = Setup::default().data(&data).start_refused(SOON);
        refused.names(&["catalog.db", "orlop-fsck", "--repair"]);
    }
    let report = repaired(&data, &[]);
    let done = report["outcome"]["done"].to_string();
    assert!(done.contains("its copy at change"), "{done}");
    same_names(&mut server, &pushed, &before);
}

#[test]
fn a_catalog_without_any_copy_is_made_again_from_notes() {
    let mut server = Server::start();
    let client = server.client();
    let (mut pushed, one) = first_half(&client);
    second_half(&client, &mut pushed, &one);
    let before = seen(&client, &pushed);
    std::thread::sleep(NOTED);
    server.kill();
    remove_catalog(server.data());
    let report = repaired(server.data(), &[]);
    let done = report["outcome"]["done"].to_string();
    assert!(
        done.contains("made again from") && !done.contains("copy"),
        "{done}"
    );
    same_names(&mut server, &pushed, &before);
}

#[test]
fn a_rotten_page_of_the_catalog_is_found_and_the_catalog_made_again() {
    let (mut server, pushed, before) = stopped();
    // All is in the database itself once a server has stopped in order.
    server.start_again();
    server.stop();
    let path = server.data().join("catalog.db");
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2 / 4096 * 4096;
    bytes[middle..middle + 4096].copy_from_slice(&data::bytes(60, 4096));
    fs::write(&path, bytes).unwrap();
    let ran = fsck(server.data(), &["--output", "json"]);
    let report: Value = serde_json::from_str(&ran.out).unwrap();
    let codes = report["findings"].to_string();
    assert!(!ran.ok && codes.contains("\"catalog."), "{codes}");
    repaired(server.data(), &[]);
    let kept = server.data().join("quarantine/repair-1");
    assert!(kept.join("catalog.db").exists() && kept.join("moved.json").exists());
    same_names(&mut server, &pushed, &before);
}

#[test]
fn a_catalog_is_made_again_beside_a_lost_index() {
    let (mut server, pushed, before) = stopped();
    fs::remove_dir_all(server.data().join("index")).unwrap();
    remove_catalog(server.data());
    repaired(server.data(), &[]);
    same_names(&mut server, &pushed, &before);
}

/// Damages a blob in the journal, one in a segment, and a manifest; repairs
/// them from `source`, and pulls them.
fn healed(name: &str, source: impl FnOnce(&Client, &[Vec<u8>], &oci::Manifest) -> Held) {
    let mut server = Server::start();
    let client = server.client();
    let blobs: Vec<Vec<u8>> = [3_000, 300_000, 20 << 20]
        .into_iter()
        .zip(900..)
        .map(|(size, seed)| data::bytes(seed, size))
        .collect();
    let layers: Vec<&[u8]> = blobs.iter().map(Vec::as_slice).collect();
    let image = oci::image(&client, "heal/repo", &layers);
    image.put(&client, "heal/repo", "v1");
    let held = source(&client, &blobs, &image);
    server.stop();
    for bytes in &blobs {
        rot(server.data(), bytes);
    }
    // What lies in its middle is in the copies of the catalog, too.
    let at = image
        .bytes
        .windows(9)
        .position(|w| w == b"\"layers\":")
        .unwrap();
    rot(server.data(), &image.bytes[at - 32..at + 32]);
    let folder = server.data().to_path_buf();
    let none = fsck(&folder, &["--repair"]);
    assert!(none.out.contains("--source"), "{name}: {}", none.out);
    let report = repaired(&folder, &["--source", &held.place]);
    let done = report["outcome"]["done"].as_array().unwrap();
    let restored = |line: &&Value| line.to_string().contains("was restored from");
    assert_eq!(
        done.iter().filter(restored).count(),
        4,
        "{name}: {report:#}"
    );
    drop(held);
    for _ in 0..2 {
        server.start_again();
        let client = server.client();
        image.is_at(&client, "heal/repo", "v1");
        for bytes in &blobs {
            client.blob_is("heal/repo", &data::sha256(bytes), bytes);
        }
        // What was restored is what a push of it finds.
        client.push_blob("heal/other", &blobs[1]);
        server.stop();
        // Nothing of this comes from the index alone.
        fs::remove_dir_all(folder.join("index")).unwrap();
    }
    let ran = fsck(&folder, &[]);
    assert!(ran.ok, "{name}: {}{}", ran.out, ran.err);
}

/// The end of the journal became zeros, as in a copy made from a bad disk: the
/// index has seen what the log lost, and a start refuses.
#[test]
fn a_journal_that_lost_its_end_is_gone_on_with_after_a_repair() {
    let mut server = Server::start();
    let client = server.client();
    let image = oci::image(&client, "end/repo", &[b"layer"]);
    image.put(&client, "end/repo", "v1");
    server.stop();
    let folder = server.data().to_path_buf();
    let path = folder.join("journal/J-0000000000000001");
    let mut bytes = fs::read(&path).unwrap();
    // The last group is the mark of the stop.
    let is_group = |block: &[u8]| block.starts_with(b"ORLR") && block[5] == 1;
    let last = bytes.chunks(4096).rposition(is_group).unwrap() * 4096;
    bytes[last..last + 4096].fill(0);
    fs::write(&path, bytes).unwrap();
    let refused = Setup::default().data(&folder).start_refused(SOON);
    refused.names(&["journal", "index"]);
    let plan = fsck(&folder, &["--repair"]);
    assert!(plan.out.contains("gives up"), "{}", plan.out);
    repaired(&folder, &[]);
    for _ in 0..2 {
        server.start_again();
        image.is_at(&server.client(), "end/repo", "v1");
        server.client().push_blob("end/repo", b"more");
        server.stop();
    }
    let ran = fsck(&folder, &[]);
    assert!(ran.ok, "{}{}", ran.out, ran.err);
}

/// A second source, as long as it is needed.
struct Held {
    place: String,
    _folder: Option<tempfile::TempDir>,
    _server: Option<Server>,
}

#[test]
fn a_damaged_blob_comes_back_from_another_store() {
    healed("store", |_, blobs, image| {
        let mut second = Server::start();
        let client = second.client();
        for bytes in blobs {
            client.push_blob("copy/repo", bytes);
        }
        // A manifest is a blob to the store.
        client.push_blob("copy/repo", &image.bytes);
        second.stop();
        Held {
            place: second.data().display().to_string(),
            _folder: None,
            _server: Some(second),
        }
    });
}

#[test]
fn a_damaged_blob_comes_back_from_a_registry() {
    healed("registry", |_, blobs, image| {
        let second = Server::start();
        let client = second.client();
        let layers: Vec<&[u8]> = blobs.iter().map(Vec::as_slice).collect();
        let same = oci::image(&client, "copy/repo", &layers);
        assert_eq!(same.digest, image.digest);
        same.put(&client, "copy/repo", "v1");
        Held {
            place: format!("http://{}/copy/repo", second.address()),
            _folder: None,
            _server: Some(second),
        }
    });
}

#[test]
fn a_damaged_blob_comes_back_from_an_oci_layout() {
    healed("layout", |_, blobs, image| {
        let folder = place::dir();
        let below = folder.path().join("blobs/sha256");
        fs::create_dir_all(&below).unwrap();
        let version = r#"{"imageLayoutVersion":"1.0.0"}"#;
        fs::write(folder.path().join("oci-layout"), version).unwrap();
        for bytes in blobs.iter().chain([&image.bytes]) {
            let digest = data::sha256(bytes);
            let name = digest.strip_prefix("sha256:").unwrap();
            fs::write(below.join(name), bytes).unwrap();
        }
        Held {
            place: folder.path().display().to_string(),
            _folder: Some(folder),
            _server: None,
        }
    });
}

#[test]
fn a_source_with_other_bytes_heals_nothing() {
    let mut server = Server::start();
    let client = server.client();
    let bytes = data::bytes(950, 300_000);
    let digest = client.push_blob("heal/repo", &bytes);
    server.stop();
    rot(server.data(), &bytes);
    let folder = place::dir();
    let below = folder.path().join("blobs/sha256");
    fs::create_dir_all(&below).unwrap();
    fs::write(folder.path().join("oci-layout"), "{}").unwrap();
    let wrong = data::bytes(951, 300_000);
    fs::write(below.join(digest.strip_prefix("sha256:").unwrap()), wrong).unwrap();
    let source = folder.path().display().to_string();
    let ran = fsck(server.data(), &["--repair", "--apply", "--source", &source]);
    assert!(!ran.ok && ran.out.contains("other bytes"), "{}", ran.out);
    server.start_again();
    let client = server.client();
    client.head(&client::blob("heal/repo", &digest)).expect(404);
    client.push_blob("heal/repo", &bytes);
    client.blob_is("heal/repo", &digest, &bytes);
}
