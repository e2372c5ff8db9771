//! Scrub of a running server: finds what rotted, names it, and goes on after a
//! kill.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use orlop_tests::client::{Client, blob};
use orlop_tests::damage::rot;
use orlop_tests::jobs::{ask, orlop, scrub_is};
use orlop_tests::server::{Server, Setup};
use orlop_tests::{data, oci, place};

fn slow() -> Setup {
    Setup::default().env("ORLOP_SCRUB_RATE", "1MiB")
}

fn metric(ops: &Client, series: &str) -> f64 {
    let page = String::from_utf8(ops.get("/metrics").expect(200).body).unwrap();
    let line = page.lines().find(|line| {
        line.rsplit_once(' ')
            .is_some_and(|(name, _)| name == series)
    });
    let line = line.unwrap_or_else(|| panic!("{series} is not in {page}"));
    line.rsplit_once(' ').unwrap().1.parse().unwrap()
}

#[test]
fn a_byte_that_rots_while_the_server_runs_is_found_named_and_healed_by_a_push() {
    let ops = SocketAddr::from((Ipv4Addr::LOCALHOST, place::port()));
    let server = Setup::default()
        .env("ORLOP_OPS_LISTEN", ops.to_string())
        .start();
    let ops = Client::new(ops);
    let client = server.client();
    let blobs: Vec<Vec<u8>> = [300_000, 5_000, 2_000_000]
        .into_iter()
        .enumerate()
        .map(|(seed, len)| data::bytes(700 + seed as u64, len))
        .collect();
    let layers: Vec<&[u8]> = blobs.iter().map(Vec::as_slice).collect();
    let image = oci::image(&client, "scrub/repo", &layers);
    image.put(&client, "scrub/repo", "v1");

    let before = ask(server.data(), &["scrub", "status"]);
    assert_eq!(before["jobs"], serde_json::json!([]));
    assert_eq!(before["schedules"][0]["cron"], "0 3 * * 0");
    assert_eq!(
        ask(server.data(), &["scrub", "start"])["jobs"][0]["kind"],
        "scrub"
    );
    let status = scrub_is(server.data(), "done");
    assert_eq!(
        status["log"],
        serde_json::json!([]),
        "nothing is damaged yet"
    );
    assert!(metric(&ops, "orlop_scrub_frames_total") > 0.0);
    assert!(metric(&ops, "orlop_scrub_last_success_timestamp_seconds") > 1e9);

    for bytes in &blobs[..2] {
        rot(server.data(), bytes);
    }
    let _ = ask(server.data(), &["scrub", "start"]);
    let status = scrub_is(server.data(), "done");
    let outcome = status["jobs"][0]["outcome"].as_str().unwrap();
    assert!(outcome.contains("\"findings\":2"), "{status}");
    let lines = status["log"].as_array().unwrap();
    assert_eq!(lines.len(), 2, "{status}");
    let log = server.log();
    for bytes in &blobs[..2] {
        let digest = data::sha256(bytes);
        let line = lines
            .iter()
            .find(|line| line["text"].as_str().unwrap().contains(&digest));
        let line = line.unwrap_or_else(|| panic!("{digest} is not in {status}"));
        let text = line["text"].as_str().unwrap();
        assert!(
            text.starts_with("blob ") && text.contains("scrub/repo:v1"),
            "{text}"
        );
        let told = |line: &&str| line.contains("scrub found damage") && line.contains(&digest);
        let told = log.lines().find(told).unwrap_or_else(|| panic!("{log}"));
        assert!(told.contains("scrub/repo:v1"), "{told}");
        let path = blob("scrub/repo", &digest);
        client.get(&path).refused(500, "CORRUPT_BLOB");
        client.head(&path).expect(404);
    }
    assert!(metric(&ops, "orlop_scrub_findings_total{code=\"blob\"}") == 2.0);
    assert!(metric(&ops, "orlop_blobs_quarantined_total") == 2.0);
    assert!(metric(&ops, "orlop_jobs{kind=\"scrub\",state=\"done\"}") == 2.0);

    for bytes in &blobs[..2] {
        client.push_blob("scrub/repo", bytes);
    }
    for bytes in &blobs {
        client.blob_is("scrub/repo", &data::sha256(bytes), bytes);
    }
    image.is_at(&client, "scrub/repo", "v1");
    let _ = ask(server.data(), &["scrub", "start"]);
    let status = scrub_is(server.data(), "done");
    let outcome = status["jobs"][0]["outcome"].as_str().unwrap();
    assert!(outcome.contains("\"findings\":0"), "{status}");
}

/// Waits until the scrub's place is in the catalog, and says how far that is.
fn begun(folder: &Path) -> u64 {
    let began = Instant::now();
    loop {
        let job = &ask(folder, &["scrub", "status"])["jobs"][0];
        let done = job["done"].as_u64().unwrap();
        if done > 3 << 20 && job["heartbeat"] != job["started"] {
            return done;
        }
        assert!(began.elapsed() < Duration::from_secs(40), "{job}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_scrub_goes_on_from_its_place_after_a_kill_and_after_a_stop() {
    let mut server = slow().start();
    let client = server.client();
    for seed in 0..24 {
        client.push_blob("scrub/kill", &data::bytes(800 + seed, 1 << 20));
    }
    let id = ask(server.data(), &["scrub", "start"])["jobs"][0]["id"].clone();
    begun(server.data());
    server.kill();
    server.change(|setup| setup.env("ORLOP_SCRUB_RATE", "2MiB"));
    server.start_again();
    server.wait_for_log("\"again\":true", 1);
    let status = scrub_is(server.data(), "running");
    let job = &status["jobs"][0];
    assert_eq!(job["id"], id, "{job}");
    assert_eq!(job["taken"], 2, "{job}");
    assert!(job["done"].as_u64().unwrap() > 1 << 20, "{job}");
    // An orderly stop gives it back at once, and costs nothing.
    let stopping = Instant::now();
    server.stop();
    assert!(stopping.elapsed() < Duration::from_secs(10));
    server.change(|setup| setup.env("ORLOP_SCRUB_RATE", "100MiB"));
    server.start_again();
    let status = scrub_is(server.data(), "done");
    let job = &status["jobs"][0];
    assert_eq!(job["id"], id, "{job}");
    assert_eq!(job["taken"], 3, "{job}");
    assert_eq!(job["done"], job["total"]);
    assert!(job["done"].as_u64().unwrap() > 24 << 20, "{job}");
    let shown = orlop(server.data(), &["scrub", "status"]);
    assert!(
        shown.out.contains("100%") && shown.out.contains("done"),
        "{}",
        shown.out
    );
}

#[test]
fn a_scrub_that_is_cancelled_ends_and_a_schedule_begins_one_by_itself() {
    let mut server = slow().start();
    let client = server.client();
    for seed in 0..12 {
        client.push_blob("scrub/cancel", &data::bytes(900 + seed, 1 << 20));
    }
    let _ = ask(server.data(), &["scrub", "start"]);
    let _ = scrub_is(server.data(), "running");
    let again = orlop(server.data(), &["scrub", "start"]);
    assert!(!again.ok && again.err.contains("already"), "{}", again.err);
    let cancelling = Instant::now();
    let _ = ask(server.data(), &["scrub", "cancel"]);
    let _ = scrub_is(server.data(), "cancelled");
    assert!(cancelling.elapsed() < Duration::from_secs(10));
    let none = orlop(server.data(), &["scrub", "cancel"]);
    assert!(none.err.contains("no scrub waits or runs"), "{}", none.err);
    server.stop();
    server.change(|setup| {
        setup
            .env("ORLOP_SCRUB_RATE", "100MiB")
            .env("ORLOP_SCRUB_DIGESTS", "true")
            .env("ORLOP_SCRUB_SCHEDULE", "* * * * * *")
    });
    server.start_again();
    let status = scrub_is(server.data(), "done");
    assert!(status["jobs"][0]["id"].as_i64().unwrap() > 1);
    // Each blob is read a second time.
    assert!(
        status["jobs"][0]["done"].as_u64().unwrap() > 24 << 20,
        "{status}"
    );
    server.stop();
    server.change(|setup| setup.env("ORLOP_SCRUB_SCHEDULE", "off"));
    server.start_again();
    let status = ask(server.data(), &["jobs", "list"]);
    let schedules = status["schedules"].as_array().unwrap();
    assert_eq!(schedules.len(), 1, "{status}");
    assert_eq!(schedules[0]["kind"], "gc");
}

#[test]
fn jobs_of_a_stopped_server_cannot_be_asked_for_and_the_answer_says_why() {
    let mut server = Server::start();
    let missing = orlop(server.data(), &["jobs", "show", "77"]);
    assert!(
        missing.err.contains("there is no job 77"),
        "{}",
        missing.err
    );
    let log = orlop(server.data(), &["jobs", "log", "77"]);
    assert!(!log.ok, "{}", log.out);
    let list = orlop(server.data(), &["jobs", "list"]);
    assert!(
        list.ok && list.out.contains("no jobs so far"),
        "{}",
        list.out
    );
    assert!(list.out.contains("0 3 * * 0 UTC"), "{}", list.out);
    server.stop();
    let words: [&[&str]; 4] = [
        &["jobs", "list"],
        &["scrub", "start"],
        &["scrub", "status"],
        &["jobs", "cancel", "1"],
    ];
    for words in words {
        let ran = orlop(server.data(), words);
        assert!(!ran.ok, "{words:?}");
        assert!(ran.err.contains("no server is running"), "{}", ran.err);
        assert!(ran.err.contains("orlop serve"), "{}", ran.err);
        let ran = orlop(server.data(), &[words, &["--output", "json"]].concat());
        let report: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
        assert!(
            report["error"]
                .as_str()
                .unwrap()
                .contains("no server is running")
        );
        assert_eq!(
            report["data"].as_str().map(PathBuf::from).as_deref(),
            Some(server.data())
        );
    }
}
