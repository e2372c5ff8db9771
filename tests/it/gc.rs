//! The commands about garbage, on a running server: what would go, what keeps
//! a blob, what comes back. Deaths take a lease of a minute at least and are
//! tested in the server's own suite; here a store is used whose leases ended.

use std::thread::sleep;
use std::time::{Duration, Instant};

use orlop_tests::client::{blob, manifest};
use orlop_tests::jobs::{ask, orlop};
use orlop_tests::server::Setup;
use orlop_tests::{data, oci};

#[test]
fn what_was_deleted_is_explained_comes_back_and_goes_in_the_end() {
    let server = Setup::default()
        .env("ORLOP_GC_LEASE", "1m")
        .env("ORLOP_GC_SCHEDULE", "off")
        .start();
    let client = server.client();
    let layer = data::bytes(900, 300_000);
    let digest = data::sha256(&layer);
    let image = oci::image(&client, "gc/repo", &[&layer]);
    image.put(&client, "gc/repo", "v1");
    let why = |server: &orlop_tests::server::Server| {
        ask(server.data(), &["blob", "why", &digest])["why"].clone()
    };
    let kept = why(&server);
    assert_eq!(kept["size"], 300_000);
    assert_eq!(kept["kept_by"][0]["repository"], "gc/repo");
    assert_eq!(kept["kept_by"][0]["manifest"], image.digest.as_str());
    assert_eq!(kept["kept_by"][0]["tags"][0], "v1");
    assert_eq!(kept["deleted_from"], serde_json::Value::Null);

    // Deleted, shown, brought back.
    client
        .delete(&manifest("gc/repo", &image.digest))
        .expect(202);
    let hidden = why(&server);
    assert!(hidden["kept_by"][0]["deleted"].is_string(), "{hidden}");
    let text = orlop(server.data(), &["blob", "why", &digest]);
    assert!(
        text.ok && text.out.contains("not purged yet"),
        "{}",
        text.out
    );
    let back = ask(server.data(), &["undelete", "gc/repo:v1"]);
    assert_eq!(back["undeleted"]["digest"], image.digest.as_str());
    client.get(&manifest("gc/repo", "v1")).expect(200);
    client.blob_is("gc/repo", &digest, &layer);
    let again = orlop(server.data(), &["undelete", "gc/repo:v1"]);
    assert!(
        !again.ok && again.err.contains("can come back"),
        "{}",
        again.err
    );
    let odd = orlop(server.data(), &["undelete", "gc"]);
    assert!(
        !odd.ok && odd.err.contains("no repository gc was deleted"),
        "{}",
        odd.err
    );
    let odd = orlop(server.data(), &["blob", "why", "sha256:12"]);
    assert!(
        !odd.ok && odd.err.contains("is not a digest"),
        "{}",
        odd.err
    );

    // The window of a day keeps it, one of nothing does not: then a lease does.
    client
        .delete(&manifest("gc/repo", &image.digest))
        .expect(202);
    let run = ask(server.data(), &["gc", "run", "--wait"]);
    assert_eq!(run["outcome"]["purged"][1], 0);
    let plan = ask(server.data(), &["gc", "plan", "--undelete-window", "0s"]);
    assert_eq!(plan["outcome"]["plan"], true);
    assert_eq!(plan["outcome"]["purged"][1], 0);
    let count = |of: &str| plan["outcome"][of].as_u64().unwrap();
    let would_go = count("held") + count("condemned") + count("dead");
    assert_eq!(would_go, 3, "{plan}");
    client.get(&manifest("gc/repo", "v1")).expect(404);
    let now = ["gc", "run", "--wait", "--undelete-window", "0s"];
    let run = ask(server.data(), &now);
    assert_eq!(run["outcome"]["purged"][1], 1, "{run}");
    assert!(!orlop(server.data(), &["undelete", "gc/repo:v1"]).ok);
    let doomed = why(&server);
    assert_eq!(doomed["deleted_from"], "gc/repo");
    assert_eq!(doomed["deleted_manifest"], image.digest.as_str());

    // A lease lasts for two terms at most, and nobody asks for it any more.
    let until = Instant::now() + Duration::from_secs(300);
    let mut dead = run["outcome"]["dead"].as_u64().unwrap();
    while dead < 3 && Instant::now() < until {
        sleep(Duration::from_secs(2));
        dead += ask(server.data(), &now)["outcome"]["dead"]
            .as_u64()
            .unwrap();
    }
    assert_eq!(dead, 3, "config, layer and manifest");
    client.head(&blob("gc/repo", &digest)).expect(404);
    assert_eq!(why(&server)["size"], serde_json::Value::Null);
    let status = ask(server.data(), &["gc", "status"]);
    assert_eq!(status["job"]["state"], "done");
    // Nothing failed, and nobody is warned.
    let log = server.log();
    assert!(!log.contains("\"WARN\""), "{log}");
    // What died can be pushed again.
    let image = oci::image(&client, "gc/repo", &[&layer]);
    image.put(&client, "gc/repo", "v1");
    client.blob_is("gc/repo", &digest, &layer);
}
