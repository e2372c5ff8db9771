//! What operators do to a running server by its control socket: purge what must
//! go now, delete and bring back repositories, pause collection, look at a plan.

use orlop_tests::client::{blob, manifest};
use orlop_tests::jobs::{ask, orlop};
use orlop_tests::server::{Server, Setup};
use orlop_tests::{data, oci};
use serde_json::Value;

/// Leases and windows that no test waits for.
fn patient() -> Server {
    Setup::default()
        .env("ORLOP_GC_LEASE", "1h")
        .env("ORLOP_GC_SCHEDULE", "off")
        .start()
}

fn digests(of: &Value) -> Vec<&str> {
    let list = of.as_array().unwrap();
    list.iter()
        .map(|of| of["digest"].as_str().unwrap())
        .collect()
}

#[test]
fn a_leaked_secret_goes_at_once_with_all_that_belongs_to_it() {
    let server = patient();
    let client = server.client();
    let (secret, harmless) = (data::bytes(901, 300_000), data::bytes(902, 4_000));
    let layer = data::sha256(&secret);
    let leaked = oci::image(&client, "leak/app", &[&secret, &harmless]);
    let amd = oci::image(&client, "leak/app", &[&harmless]);
    amd.put(&client, "leak/app", &amd.digest);
    leaked.put(&client, "leak/app", &leaked.digest);
    let index = oci::index(&[&leaked, &amd]);
    index.put(&client, "leak/app", "v1");
    let copy = oci::image(&client, "leak/copy", &[&secret, &harmless]);
    copy.put(&client, "leak/copy", "mine");

    // The image is needed by an index, and by that the layer.
    for of in [&leaked.digest, &layer] {
        let refused = orlop(server.data(), &["purge", of]);
        assert!(!refused.ok, "{}", refused.out);
        assert!(refused.err.contains("need it"), "{}", refused.err);
    }
    client.get(&manifest("leak/app", "v1")).expect(200);

    let would = ask(server.data(), &["purge", &index.digest, "--dry-run"]);
    assert_eq!(would["purged"]["dry_run"], true);
    assert_eq!(would["purged"]["manifest_count"], 3, "{would}");
    client.get(&manifest("leak/app", "v1")).expect(200);
    let took = ask(server.data(), &["purge", &index.digest]);
    assert_eq!(took["purged"]["manifests"], would["purged"]["manifests"]);
    assert_eq!(took["purged"]["manifests"][2]["tags"][0], "v1", "{took}");
    // The other repository has an image of the same bytes.
    let left = digests(&took["purged"]["left"]);
    assert!(left.contains(&layer.as_str()), "{took}");
    assert_eq!(
        took["purged"]["left"][0]["kept_by"][0]["repository"],
        "leak/copy"
    );
    for reference in ["v1", &index.digest, &leaked.digest, &amd.digest] {
        client.get(&manifest("leak/app", reference)).expect(404);
    }
    client.head(&blob("leak/app", &layer)).expect(404);
    client.get(&manifest("leak/copy", "mine")).expect(200);
    assert!(!orlop(server.data(), &["undelete", "leak/app:v1"]).ok);

    // By the layer: refused, until the image goes that needs it.
    let named = format!("leak/copy@{}", copy.digest);
    let text = orlop(server.data(), &["purge", &named]);
    assert!(text.ok, "{}", text.err);
    assert!(
        text.out.contains("gone for good: 1 manifests"),
        "{}",
        text.out
    );
    client.head(&blob("leak/copy", &layer)).expect(404);
    let why = ask(server.data(), &["blob", "why", &layer]);
    assert_eq!(why["why"]["size"], Value::Null, "{why}");
    let unknown = orlop(server.data(), &["purge", &layer]);
    assert!(
        !unknown.ok && unknown.err.contains("is not here"),
        "{}",
        unknown.err
    );
    let odd = orlop(server.data(), &["purge", "leak/copy"]);
    assert!(
        !odd.ok && odd.err.contains("is not a digest"),
        "{}",
        odd.err
    );
    // It may come again.
    let again = oci::image(&client, "leak/app", &[&secret]);
    again.put(&client, "leak/app", "v1");
    client.blob_is("leak/app", &layer, &secret);
}

#[test]
fn a_repository_is_deleted_and_comes_back_also_under_another_name() {
    let server = patient();
    let client = server.client();
    let old = oci::image(&client, "team/app", &[b"old"]);
    old.put(&client, "team/app", "v1");
    let deleted = ask(server.data(), &["delete", "repository", "team/app"]);
    assert_eq!(deleted["repository"]["deleted"], true);
    client.get(&manifest("team/app", "v1")).expect(404);
    client.get("/v2/team/app/tags/list").expect(404);
    let again = orlop(server.data(), &["delete", "repository", "team/app"]);
    assert!(!again.ok && again.err.contains("there is no repository"));
    let back = ask(server.data(), &["undelete", "team/app"]);
    assert_eq!(back["repository"]["manifests"], 1, "{back}");
    old.is_at(&client, "team/app", "v1");

    let plan = ["gc", "plan", "--undelete-window", "0s"];
    let _ = ask(server.data(), &["delete", "repository", "team/app"]);
    let planned = ask(server.data(), &plan);
    assert_eq!(planned["plan"]["repositories"][0]["name"], "team/app");
    assert_eq!(planned["plan"]["repositories"][0]["manifests"], 1);
    let new = oci::image(&client, "team/app", &[b"new"]);
    new.put(&client, "team/app", "v2");
    let taken = orlop(server.data(), &["undelete", "team/app"]);
    assert!(!taken.ok && taken.err.contains("--as"), "{}", taken.err);
    let _ = ask(server.data(), &["undelete", "team/app", "--as", "team/old"]);
    old.is_at(&client, "team/old", "v1");
    new.is_at(&client, "team/app", "v2");
    let none = orlop(server.data(), &["undelete", "team/app"]);
    assert!(
        !none.ok && none.err.contains("can come back"),
        "{}",
        none.err
    );
    let odd = orlop(server.data(), &["undelete", "team/app:v1", "--as", "other"]);
    assert!(
        !odd.ok && odd.err.contains("whole repository"),
        "{}",
        odd.err
    );
}

#[test]
fn a_pause_holds_over_a_restart_and_a_plan_lists_what_would_go() {
    let mut server = Setup::default()
        .env("ORLOP_GC_LEASE", "1m")
        .env("ORLOP_GC_SCHEDULE", "off")
        .env("ORLOP_GC_UNTAGGED", "keep,ci/**=7d")
        .start();
    let client = server.client();
    for repository in ["ci/app", "team/app"] {
        let image = oci::image(&client, repository, &[repository.as_bytes()]);
        image.put(&client, repository, &image.digest);
    }
    let gone = oci::image(&client, "team/app", &[b"gone"]);
    gone.put(&client, "team/app", "gone");
    client.get(&manifest("team/app", "gone")).expect(200);
    client
        .delete(&manifest("team/app", &gone.digest))
        .expect(202);

    let pause = ["gc", "pause", "--reason", "moving disks"];
    let paused = ask(server.data(), &pause);
    assert_eq!(paused["paused"]["reason"], "moving disks");
    let refused = orlop(server.data(), &["gc", "run", "--wait"]);
    assert!(
        !refused.ok && refused.err.contains("moving disks"),
        "{}",
        refused.err
    );
    // Nothing goes while writes are switched off.
    let _ = ask(server.data(), &["maintenance", "read-only", "on"]);
    for words in [
        ["purge", &gone.digest].as_slice(),
        &["delete", "repository", "ci/app"],
    ] {
        let refused = orlop(server.data(), words);
        assert!(
            !refused.ok && refused.err.contains("read-only"),
            "{}",
            refused.err
        );
    }
    let _ = ask(server.data(), &["maintenance", "read-only", "off"]);
    // Names go all the same while collection is paused; bytes wait.
    let refused = orlop(server.data(), &["purge", &gone.digest]);
    assert!(
        !refused.ok && refused.err.contains("the names are gone"),
        "{}",
        refused.err
    );
    server.stop();
    server.start_again();
    let client = server.client();
    let status = ask(server.data(), &["gc", "status"]);
    assert_eq!(status["paused"]["reason"], "moving disks", "{status}");
    let resumed = ask(server.data(), &["gc", "resume"]);
    assert_eq!(resumed["paused"], Value::Null);
    assert!(!orlop(server.data(), &["gc", "resume"]).ok);
    let run = ask(server.data(), &["gc", "run", "--wait"]);
    assert_eq!(run["outcome"]["at_once"], 3, "{run}");

    let other = oci::image(&client, "team/app", &[b"other"]);
    other.put(&client, "team/app", "other");
    client
        .delete(&manifest("team/app", &other.digest))
        .expect(202);
    let plan = ask(server.data(), &["gc", "plan", "--undelete-window", "0s"]);
    let plan = &plan["plan"];
    assert_eq!(plan["manifest_count"], 1, "{plan}");
    assert_eq!(digests(&plan["manifests"]), [other.digest.as_str()]);
    assert!(plan["manifests"][0]["bytes"].as_u64().unwrap() > 0);
    assert!(plan["manifests"][0]["deleted"].is_string(), "{plan}");
    assert_eq!(
        (&plan["untagged_count"], &plan["untagged_due"]),
        (&2.into(), &0.into())
    );
    assert_eq!(plan["untagged"][0]["repository"], "ci/app");
    assert!(plan["untagged"][0]["due"].is_string(), "{plan}");
    assert_eq!(plan["untagged"][1]["due"], Value::Null);
    let text = orlop(server.data(), &["gc", "plan", "--undelete-window", "0s"]);
    assert!(
        text.out.contains("untagged, and nothing reaches them: 2"),
        "{}",
        text.out
    );
}
