//! A catalog that is not the one the store has seen, and `orlop catalog adopt`.

use std::path::Path;
use std::process::Command;

use orlop_tests::server::Server;
use orlop_tests::tools::{self, Ran};
use orlop_tests::{oci, place};
use serde_json::Value;

fn adopt(data_folder: &Path, output: &str) -> Ran {
    tools::try_run(
        Command::new(place::binary("orlop"))
            .env_clear()
            .args(["catalog", "adopt", "--output", output, "--data"])
            .arg(data_folder),
    )
}

fn document(ran: &Ran) -> Value {
    serde_json::from_str(&ran.out)
        .unwrap_or_else(|e| panic!("not one JSON document ({e}): {}{}", ran.out, ran.err))
}

/// Copies the catalog's files from one folder to another, over what is there.
fn copy_catalog(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for name in ["catalog.db", "catalog.db-wal", "catalog.db-shm"] {
        let _ = std::fs::remove_file(to.join(name));
        if from.join(name).exists() {
            std::fs::copy(from.join(name), to.join(name)).unwrap();
        }
    }
}

/// Pushes an image and says whether it was taken.
fn push(server: &Server, tag: &str) -> bool {
    let client = server.client();
    let reply = client.call("POST", "/v2/adopt/repo/blobs/uploads/", &[], "");
    if reply.status == 503 {
        reply.refused(503, "UNAVAILABLE");
        return false;
    }
    oci::image(&client, "adopt/repo", &[tag.as_bytes()]).put(&client, "adopt/repo", tag);
    true
}

#[test]
fn an_older_catalog_takes_no_push_until_it_is_adopted() {
    let folder = place::dir();
    let old = folder.path().join("old");
    let mut server = Server::start();
    let client = server.client();
    let image = oci::image(&client, "adopt/repo", &[b"layer"]);
    image.put(&client, "adopt/repo", "v1");
    server.stop();
    copy_catalog(server.data(), &old);
    server.start_again();
    for tag in ["v2", "v3", "v4"] {
        assert!(push(&server, tag));
    }
    // Killed, so that nothing but the running server told the store how far
    // its catalog was.
    std::thread::sleep(std::time::Duration::from_secs(3));
    server.kill();
    copy_catalog(&old, server.data());
    for _ in 0..2 {
        server.start_again();
        let client = server.client();
        image.is_at(&client, "adopt/repo", "v1");
        let ready: Value = serde_json::from_slice(&client.get("/readyz").expect(200).body).unwrap();
        assert_eq!(ready["writes"], "off");
        assert!(
            ready["reason"].as_str().unwrap().contains("older"),
            "{ready}"
        );
        for tag in ["v2", "v3", "v4", "v5", "v6", "v7", "v8", "v9"] {
            assert!(!push(&server, tag));
        }
        let put = client.put_manifest("adopt/repo", "v9", oci::IMAGE, &image.bytes);
        let put = put.expect(503);
        let told = String::from_utf8_lossy(&put.body);
        assert!(told.contains("orlop catalog adopt"), "{told}");
        let ran = adopt(server.data(), "json");
        let error = document(&ran)["error"].to_string();
        assert!(
            !ran.ok && error.contains(&server.pid().to_string()),
            "{error}"
        );
        assert!(error.contains("stop"), "{error}");
        server.stop();
    }
    let ran = adopt(server.data(), "json");
    let report = document(&ran);
    assert!(ran.ok, "{report}");
    assert_eq!(
        (&report["adopted"], &report["was"]),
        (&true.into(), &"older".into())
    );
    let ran = adopt(server.data(), "text");
    assert!(
        ran.ok && ran.out.contains("already"),
        "{}{}",
        ran.out,
        ran.err
    );
    for _ in 0..2 {
        server.start_again();
        assert!(push(&server, "v5"));
        image.is_at(&server.client(), "adopt/repo", "v1");
        server.stop();
    }
}

#[test]
fn adopting_where_there_is_no_catalog_makes_nothing() {
    let folder = place::dir();
    let missing = folder.path().join("missing");
    for (data_folder, output) in [(folder.path(), "text"), (missing.as_path(), "json")] {
        let ran = adopt(data_folder, output);
        assert!(!ran.ok);
        let said = format!("{}{}", ran.out, ran.err);
        assert!(said.contains("catalog.db"), "{said}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
