//! The ops port: health and `/metrics`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use orlop_tests::client::{Client, blob, manifest};
use orlop_tests::raw::Wire;
use orlop_tests::server::{Server, Setup};
use orlop_tests::{data, oci, place, release};
use serde_json::Value;

/// How soon what is counted has to be seen.
const SOON: Duration = Duration::from_secs(15);

/// Starts of which one has to be seen recovering.
const RECOVERIES: usize = 10;

fn with_ops() -> (Server, Client) {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, place::port()));
    let server = Setup::default()
        .env("ORLOP_OPS_LISTEN", address.to_string())
        .start();
    (server, Client::new(address))
}

/// All samples by name and labels. Fails on anything that is not the text
/// form, or has no help and type.
fn samples(ops: &Client) -> BTreeMap<String, f64> {
    let reply = ops.get("/metrics").expect(200);
    assert_eq!(reply.header("content-type"), "text/plain; version=0.0.4");
    let text = String::from_utf8(reply.body).unwrap();
    let (mut family, mut found) = (String::new(), BTreeMap::new());
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, help) = help.split_once(' ').unwrap();
            assert!(!help.is_empty(), "{line}");
            family = name.to_owned();
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            assert_eq!(name, family);
            let is_total = name.ends_with("_total");
            assert_eq!(kind == "counter", is_total, "{line}");
        } else {
            let (series, value) = line.rsplit_once(' ').unwrap();
            assert!(series.starts_with(&family), "{line} without help");
            let before = found.insert(series.to_owned(), value.parse().unwrap());
            assert!(before.is_none(), "{series} is there twice");
        }
    }
    found
}

fn sample(ops: &Client, series: &str) -> f64 {
    let all = samples(ops);
    *all.get(series)
        .unwrap_or_else(|| panic!("{series} is not in {:#?}", all.keys()))
}

#[test]
fn health_has_the_form_of_docker_trusted_registry_on_both_ports() {
    let (server, ops) = with_ops();
    for client in [server.client(), ops] {
        client.get("/livez").expect(200);
        client.get("/readyz").expect(200);
        let reply = client.get("/health").expect(200);
        assert_eq!(reply.header("content-type"), "application/json");
        let health = reply.json();
        assert_eq!(health["Error"], "");
        assert_eq!(
            (&health["Healthy"], &health["Health"]),
            (&true.into(), &true.into())
        );
        client.head("/health").expect(200);
        client.delete("/health").expect_any(&[404, 405]);
    }
}

#[test]
fn a65_metrics_are_on_the_ops_port_only_and_nothing_else_is() {
    let (server, ops) = with_ops();
    let client = server.client();
    for path in [
        "/metrics",
        "/metrics/",
        "/debug/pprof/",
        "/debug/vars",
        "/debug/health",
    ] {
        client.get(path).refused(404, "UNSUPPORTED");
    }
    ops.get("/metrics").expect(200);
    ops.head("/metrics").expect(200);
    ops.delete("/metrics").refused(405, "UNSUPPORTED");
    for path in ["/v2/", "/v2/_catalog", "/v2/a/tags/list", "/", "/metrics/x"] {
        ops.get(path).refused(404, "UNSUPPORTED");
    }
    // What anyone may read of health names nothing of the inside.
    let health = client.get("/health").text() + &client.get("/readyz").text();
    assert!(
        !health.contains('/') && !health.contains("sqlite"),
        "{health}"
    );
}

#[test]
fn what_happens_is_counted() {
    let (server, ops) = with_ops();
    let client = server.client();
    let layer = data::bytes(77, 300_000);
    let image = oci::image(&client, "ops/counted", &[&layer]);
    image.put(&client, "ops/counted", "v1");
    client.push_blob("ops/other", &layer);
    for _ in 0..3 {
        image.is_at(&client, "ops/counted", "v1");
    }
    client.head(&manifest("ops/counted", "v1")).expect(200);
    client.blob_is("ops/counted", &data::sha256(&layer), &layer);
    client.get("/v2/ops/counted/manifests/none").expect(404);
    let all = samples(&ops);
    let at_least = |series: &str, least: f64| {
        let value = all.get(series).copied().unwrap_or(-1.0);
        assert!(
            value >= least,
            "{series} is {value}, not {least} or more: {all:#?}"
        );
    };
    at_least("orlop_manifest_pulls_total", 3.0);
    assert_eq!(all["orlop_manifest_pulls_total"], 3.0, "HEAD counted");
    at_least("orlop_manifest_pushes_total", 1.0);
    at_least("orlop_blob_pulls_total", 1.0);
    at_least("orlop_blob_pushes_total", 3.0);
    at_least("orlop_blob_push_bytes_total", 600_000.0);
    at_least("orlop_blobs_deduplicated_total", 1.0);
    at_least("orlop_blobs_deduplicated_bytes_total", 300_000.0);
    let requests = |method, route, status| {
        format!(
            "orlop_http_requests_total{{method=\"{method}\",route=\"{route}\",status=\"{status}\"}}"
        )
    };
    at_least(&requests("GET", "manifest", "2xx"), 3.0);
    at_least(&requests("HEAD", "manifest", "2xx"), 1.0);
    at_least(&requests("GET", "manifest", "4xx"), 1.0);
    at_least(&requests("PUT", "manifest", "2xx"), 1.0);
    at_least(&requests("POST", "upload", "2xx"), 3.0);
    at_least(
        "orlop_http_request_bytes_total{route=\"upload\"}",
        600_000.0,
    );
    at_least("orlop_http_response_bytes_total{route=\"blob\"}", 300_000.0);
    at_least(
        "orlop_http_request_duration_seconds_count{route=\"manifest\"}",
        6.0,
    );
    at_least("orlop_http_connections_accepted_total", 1.0);
    at_least("orlop_http_connections", 1.0);
    at_least("orlop_journal_groups_total", 3.0);
    at_least("orlop_journal_records_total", 3.0);
    at_least("orlop_journal_sync_seconds_total", 1e-6);
    at_least("orlop_space_available_bytes", 1.0);
    at_least("orlop_space_reserved_bytes", 1.0);
    at_least("orlop_catalog_verbs_total", 3.0);
    at_least("orlop_catalog_commits_total", 1.0);
    at_least("process_resident_memory_bytes", 1e6);
    at_least("process_open_fds", 5.0);
    at_least("process_start_time_seconds", 1.7e9);
    for series in [
        "orlop_poisoned",
        "orlop_full",
        "orlop_unpaired",
        "orlop_read_only",
    ] {
        assert_eq!(all[series], 0.0, "{series}");
    }
    assert_eq!(all["orlop_ready"], 1.0);
    let version = format!(
        "orlop_build_info{{version=\"{}\"}}",
        env!("CARGO_PKG_VERSION")
    );
    at_least(&version, 1.0);
    let is_backend = |series: &&String| series.starts_with("orlop_disk_backend_info{backend=\"");
    assert_eq!(all.keys().filter(is_backend).count(), 1);
    // Pulls reach the catalog by themselves, within seconds.
    let began = Instant::now();
    while sample(&ops, "orlop_pull_statistics_written_total") < 3.0 {
        assert!(began.elapsed() < SOON, "pulls were not written");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(sample(&ops, "orlop_pull_statistics_dropped_total"), 0.0);
}

/// The names of metrics in a text, of ours and of the process.
fn named(text: &str) -> BTreeSet<&str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| word.starts_with("orlop_") || word.starts_with("process_"))
        .collect()
}

/// Every expression of a dashboard, at whatever depth.
fn expressions<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::Array(values) => values.iter().for_each(|value| expressions(value, found)),
        Value::Object(members) => {
            found.extend(members.get("expr").and_then(Value::as_str));
            members.values().for_each(|value| expressions(value, found));
        }
        _ => {}
    }
}

#[test]
fn the_page_the_alerts_and_the_dashboard_name_what_is_there() {
    let (server, ops) = with_ops();
    let client = server.client();
    let image = oci::image(&client, "ops/named", &[&data::bytes(78, 3_000)]);
    image.put(&client, "ops/named", "v1");
    image.is_at(&client, "ops/named", "v1");
    let all = samples(&ops);
    let is_part = |name: &&str| !name.ends_with("_sum") && !name.ends_with("_count");
    let families: BTreeSet<&str> = all
        .keys()
        .filter_map(|series| series.split('{').next())
        .filter(is_part)
        .map(|name| name.trim_end_matches("_bucket"))
        .collect();
    let labels: BTreeSet<&str> = all
        .keys()
        .flat_map(|series| series.split(['{', ',']).skip(1))
        .filter_map(|label| label.split_once("=\"").map(|(name, _)| name))
        .chain(["instance"])
        .collect();

    let page = release::text("docs/metrics.md");
    assert_eq!(named(&page), families, "page and server");
    let (_, alerts) = page.split_once("```yaml\ngroups:").expect("alert rules");
    let (alerts, _) = alerts.split_once("```").expect("end of the rules");
    let rules: Vec<&str> = alerts
        .lines()
        .filter_map(|line| line.trim().strip_prefix("expr: "))
        .collect();
    assert_eq!(rules.len(), alerts.matches("- alert: ").count());

    let dashboard = release::text("packaging/grafana.json");
    let dashboard: Value = serde_json::from_str(&dashboard).expect("JSON");
    let mut shown = Vec::new();
    expressions(&dashboard, &mut shown);
    assert!(shown.len() > 20 && rules.len() > 5);
    for expression in shown.into_iter().chain(rules) {
        let names = named(expression);
        assert!(!names.is_empty(), "{expression}");
        for name in names {
            let is_there = families.contains(name.trim_end_matches("_bucket"));
            assert!(is_there, "{name} is no metric: {expression}");
        }
        for by in expression.split("by (").skip(1) {
            let (by, _) = by.split_once(')').expect("end of the labels");
            for label in by.split(", ") {
                assert!(
                    label == "le" || labels.contains(label),
                    "{label}: {expression}"
                );
            }
        }
    }
}

#[test]
fn a24_invented_names_make_no_series() {
    let (server, ops) = with_ops();
    let client = server.client();
    let ask = |name: &str| {
        let digest = data::sha256(name.as_bytes());
        client.get(&manifest(name, "latest"));
        client.get(&blob(name, &digest));
        client.get(&format!("/v2/{name}/tags/list"));
        client.get(&format!("/{name}"));
        client.call("GET", "/v2/", &[("User-Agent", name)], "");
        let _ = server.raw("INVENTED", &format!("/v2/{name}/x"), &[], b"");
    };
    ask("a24/invented-first");
    let before = samples(&ops);
    for number in 0..500 {
        ask(&format!("a24/invented-{number}"));
    }
    let after = samples(&ops);
    let names = |all: &BTreeMap<String, f64>| all.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&before), names(&after));
    assert!(after.keys().all(|series| !series.contains("invented")));
}

#[test]
fn the_ops_port_answers_while_the_store_recovers() {
    let (mut server, ops) = with_ops();
    let client = server.client();
    for seed in 0..1_500 {
        client.push_blob("ops/recover", &data::bytes(seed, 3000));
    }
    // One recovery may be over before anybody has asked.
    let mut seen_starting = 0;
    for _ in 0..RECOVERIES {
        server.kill();
        // A rebuild of the index makes the recovery long enough to be seen.
        std::fs::remove_dir_all(server.data().join("index")).unwrap();
        server.launch();
        let began = Instant::now();
        loop {
            assert!(began.elapsed() < Duration::from_secs(60), "never ready");
            let Ok(reply) = ops.try_call("GET", "/health", &[], "") else {
                std::thread::sleep(Duration::from_millis(1));
                continue;
            };
            if reply.status == 200 {
                break;
            }
            let reply = reply.expect(503);
            assert_eq!(reply.json()["Healthy"], false);
            assert!(reply.text().contains("starting"), "{}", reply.text());
            seen_starting += 1;
            let ready = sample(&ops, "orlop_ready");
            assert!(ready == 0.0 || ops.get("/health").status == 200);
        }
        if seen_starting > 0 {
            break;
        }
    }
    assert!(seen_starting > 0, "no recovery was seen");
    assert_eq!(sample(&ops, "orlop_ready"), 1.0);
}

#[test]
fn the_ops_port_answers_during_the_drain() {
    let (mut server, ops) = with_ops();
    let location = server.client().open_upload("ops/drain");
    let mut wire = Wire::connect(server.address());
    let head = format!("PATCH {location} HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n12345");
    wire.send(head.as_bytes());
    server.wait_until_read();
    server.terminate();
    server.wait_for_log("finishing requests under way", 1);
    ops.get("/livez").expect(200);
    assert_eq!(ops.get("/readyz").expect(503).json()["status"], "stopping");
    assert_eq!(ops.get("/health").expect(503).json()["Health"], false);
    assert_eq!(sample(&ops, "orlop_ready"), 0.0);
    assert!(sample(&ops, "orlop_http_connections") >= 1.0);
    wire.send(b"67890");
    wire.reply("PATCH during the drain").expect(202);
    server.ended();
    assert!(ops.try_call("GET", "/livez", &[], "").is_err());
}

#[test]
fn an_ops_port_in_use_is_named() {
    let server = Server::start();
    let address = server.address().to_string();
    Setup::default()
        .env("ORLOP_OPS_LISTEN", &address)
        .start_refused(Duration::from_secs(10))
        .names(&[&address, "--ops-listen"]);
}
