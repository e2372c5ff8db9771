//! Read-only maintenance, and the control socket it is switched over.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use orlop_tests::client::{Client, blob, manifest};
use orlop_tests::raw::Wire;
use orlop_tests::reply::Reply;
use orlop_tests::server::{Server, Setup};
use orlop_tests::{data, oci, place, tools};
use serde_json::{Value, json};

const REASON: &str = "moving to \"new\" disks";

fn orlop(args: &[&str], folder: &Path) -> tools::Ran {
    let mut command = Command::new(place::binary("orlop"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("ORLOP_") {
            command.env_remove(name);
        }
    }
    tools::try_run(command.args(args).arg("--data").arg(folder))
}

/// Runs the command, which has to succeed, and gives back its document.
fn read_only(folder: &Path, args: &[&str]) -> Value {
    let start = ["maintenance", "read-only", "--output", "json"];
    let ran = orlop(&[&start, args].concat(), folder);
    assert!(ran.ok, "{args:?}: {}{}", ran.out, ran.err);
    serde_json::from_str(&ran.out).unwrap()
}

/// The answer of a server that is read-only, whatever it answers.
#[track_caller]
fn warned(reply: Reply) -> Reply {
    let warning = reply.header("warning");
    let expected = "299 - \"read-only for maintenance: moving to \\\"new\\\" disks\"";
    assert_eq!(warning, expected, "{}", reply.what);
    reply
}

#[track_caller]
fn refused(reply: Reply) {
    let reply = warned(reply.refused(503, "UNAVAILABLE"));
    assert!(reply.find("retry-after").is_some(), "{}", reply.what);
    let error = &reply.json()["errors"][0];
    assert!(error["message"].as_str().unwrap().contains(REASON));
    assert_eq!(error["detail"]["reason"], REASON);
    assert!(error["detail"]["since"].is_string());
}

/// Fails unless pushes are refused and pulls go on.
fn is_read_only(client: &Client, image: &oci::Manifest, layer: &[u8], upload: &str) {
    let repository = "maintenance/repo";
    let digest = data::sha256(layer);
    for post in [
        format!("/v2/{repository}/blobs/uploads/"),
        format!("/v2/{repository}/blobs/uploads/?digest={digest}"),
        format!("/v2/maintenance/other/blobs/uploads/?mount={digest}&from={repository}"),
    ] {
        refused(client.call("POST", &post, &[], ""));
    }
    refused(client.patch(upload, "more"));
    refused(client.finish(upload, &digest, ""));
    refused(client.delete(upload));
    refused(client.put_manifest(repository, "v2", &image.media_type, &image.bytes));
    warned(client.get("/v2/").expect(200));
    let pulled = warned(client.get(&manifest(repository, "v1")).expect(200));
    assert!(pulled.body == image.bytes);
    warned(client.head(&manifest(repository, "v1")).expect(200));
    let pulled = warned(client.get(&blob(repository, &digest)).expect(200));
    assert!(pulled.body == layer);
    warned(
        client
            .get(&format!("/v2/{repository}/tags/list"))
            .expect(200),
    );
    warned(client.get(&manifest(repository, "none")).expect(404));
    warned(client.get(upload).expect(204));
    let ready = client.get("/readyz").expect(200);
    assert!(ready.find("warning").is_none());
    assert_eq!(ready.json()["writes"], "read-only");
    assert_eq!(ready.json()["reason"], REASON);
    assert_eq!(client.get("/health").expect(200).json()["Healthy"], true);
}

#[test]
fn writes_are_refused_with_the_reason_and_pulls_go_on_until_it_is_off() {
    let ops = SocketAddr::from((Ipv4Addr::LOCALHOST, place::port()));
    let mut server = Setup::default()
        .env("ORLOP_OPS_LISTEN", ops.to_string())
        .start();
    let ops = Client::new(ops);
    let client = server.client();
    let layer = data::bytes(90, 100_000);
    let image = oci::image(&client, "maintenance/repo", &[&layer]);
    image.put(&client, "maintenance/repo", "v1");
    let upload = client.open_upload("maintenance/repo");
    let upload = client
        .patch_at(&upload, 0, &layer[..60_000])
        .expect(202)
        .location();

    let status = read_only(server.data(), &["status"]);
    assert_eq!(status["read_only"], Value::Null);
    assert_eq!(status["running"], true);
    let status = read_only(server.data(), &["on", "--reason", REASON]);
    assert_eq!(status["read_only"]["reason"], REASON);
    is_read_only(&client, &image, &layer, &upload);
    let text = ops.get("/metrics").expect(200).body;
    assert!(
        String::from_utf8(text)
            .unwrap()
            .contains("\norlop_read_only 1\n")
    );

    // It holds over a stop and over a kill.
    server.stop();
    server.start_again();
    is_read_only(&server.client(), &image, &layer, &upload);
    server.kill();
    server.start_again();
    let client = server.client();
    is_read_only(&client, &image, &layer, &upload);
    let doctor = orlop(&["doctor", "--output", "json"], server.data());
    assert!(doctor.out.contains("read-only since"), "{}", doctor.out);
    assert_eq!(
        read_only(server.data(), &["status"])["read_only"]["reason"],
        REASON
    );

    let status = read_only(server.data(), &["off"]);
    assert_eq!(status["read_only"], Value::Null);
    assert!(client.get("/v2/").expect(200).find("warning").is_none());
    assert_eq!(client.get("/readyz").expect(200).json()["writes"], "on");
    // The upload goes on where it was.
    let digest = data::sha256(&layer);
    client
        .finish(&upload, &digest, layer[60_000..].to_vec())
        .expect(201);
    image.put(&client, "maintenance/repo", "v2");
    server.stop();
    server.start_again();
    image.put(&server.client(), "maintenance/repo", "v3");
}

#[test]
fn a_request_under_way_is_finished() {
    let server = Server::start();
    let location = server.client().open_upload("maintenance/under-way");
    let mut wire = Wire::connect(server.address());
    let head = format!("PATCH {location} HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n12345");
    assert!(wire.send(head.as_bytes()));
    std::thread::sleep(Duration::from_millis(200));
    read_only(server.data(), &["on"]);
    let client = server.client();
    let late = client.call("POST", "/v2/maintenance/late/blobs/uploads/", &[], "");
    late.refused(503, "UNAVAILABLE");
    assert!(wire.send(b"67890"));
    wire.reply("PATCH that began before").expect(202);
    let status = client.get(&location).expect(204);
    assert_eq!(status.header("range"), "0-9");
}

#[test]
fn without_a_server_the_next_start_is_read_only() {
    let mut server = Server::start();
    server.client().push_blob("maintenance/stopped", b"bytes");
    server.stop();
    let status = read_only(server.data(), &["on", "--reason", "restored from a backup"]);
    assert_eq!(status["running"], false);
    assert_eq!(read_only(server.data(), &["status"])["running"], false);
    server.start_again();
    let client = server.client();
    let refused = client.call("POST", "/v2/maintenance/stopped/blobs/uploads/", &[], "");
    refused.refused(503, "UNAVAILABLE");
    assert!(server.log().contains("restored from a backup"));
    server.stop();
    let status = read_only(server.data(), &["off"]);
    assert_eq!(status["read_only"], Value::Null);
    server.start_again();
    server.client().push_blob("maintenance/stopped", b"more");
    // A folder that is not there is not made.
    let nowhere = server.data().join("nowhere");
    assert!(!orlop(&["maintenance", "read-only", "on"], &nowhere).ok);
    assert!(!nowhere.exists());
}

#[test]
fn reasons_that_no_header_can_carry_are_refused() {
    let server = Server::start();
    let ran = orlop(
        &["maintenance", "read-only", "on", "--reason"]
            .into_iter()
            .chain(["x".repeat(100_000).as_str()])
            .collect::<Vec<_>>(),
        server.data(),
    );
    assert!(!ran.ok && ran.err.contains("longer than"), "{}", ran.err);
    let long = "x".repeat(513);
    for reason in ["two\r\nlines", "bell\u{7}", long.as_str()] {
        let ran = orlop(
            &["maintenance", "read-only", "on", "--reason", reason],
            server.data(),
        );
        assert!(!ran.ok && ran.err.contains("reason"), "{}", ran.err);
    }
    let ran = orlop(
        &["maintenance", "read-only", "off", "--reason", "x"],
        server.data(),
    );
    assert!(!ran.ok, "{}", ran.out);
    server.client().open_upload("maintenance/reasons");
    // The longest there is fits, and no character breaks the header.
    let long = "\"ü".repeat(256);
    read_only(server.data(), &["on", "--reason", &long]);
    let reply = server.client().get("/v2/").expect(200);
    let warning = reply.header("warning");
    assert!(warning.len() <= 4096 && warning.is_ascii(), "{warning}");
    assert!(warning.ends_with("?\""), "{warning}");
}

#[test]
fn the_socket_is_its_owners_and_comes_and_goes_with_the_server() {
    let folder = place::dir();
    // Longer than the path of a socket may be.
    let data_folder = folder.path().join("long-".repeat(40));
    let mut server = Setup::default().data(&data_folder).start();
    let socket = data_folder.join("control.sock");
    let check = || {
        let found = std::fs::symlink_metadata(&socket).unwrap();
        assert!(found.file_type().is_socket());
        assert_eq!(found.permissions().mode() & 0o7777, 0o600);
        read_only(&data_folder, &["status"]);
    };
    check();
    server.kill();
    assert!(socket.exists(), "a killed server cannot remove it");
    assert_eq!(read_only(&data_folder, &["status"])["running"], false);
    server.start_again();
    check();
    server.stop();
    assert!(!socket.exists());
    // What is no socket is not taken away.
    std::fs::write(&socket, "mine").unwrap();
    Setup::default()
        .data(&data_folder)
        .start_refused(Duration::from_secs(10))
        .names(&["control.sock"]);
    assert_eq!(std::fs::read_to_string(&socket).unwrap(), "mine");
    std::fs::remove_file(&socket).unwrap();
}

/// Sends these bytes over the socket and reads what comes back.
fn over_socket(path: &Path, bytes: &[u8]) -> String {
    let mut stream = UnixStream::connect(path).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    stream.write_all(bytes).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn the_socket_bounds_what_is_sent_and_answers_in_one_line() {
    let folder = place::short_dir();
    let server = Setup::default().data(folder.path().join("d")).start();
    let socket = server.data().join("control.sock");
    let status = "{\"version\":1,\"ask\":{\"verb\":\"read-only-status\"}}\n";
    let answer = over_socket(&socket, status.as_bytes());
    assert_eq!(
        serde_json::from_str::<Value>(&answer).unwrap(),
        json!({ "version": 1, "ok": { "read_only": null } })
    );
    assert!(answer.ends_with('\n') && answer.matches('\n').count() == 1);
    let long = format!("{{\"version\":1,\"x\":\"{}\"}}\n", "x".repeat(1 << 20));
    for (request, word) in [
        ("\n", "not one this server knows"),
        ("{}\n", "version"),
        ("[[[[[[[[\n", "not one this server knows"),
        ("{\"version\":2,\"ask\":{}}\n", "version 2"),
        (
            "{\"version\":1,\"ask\":{\"verb\":\"format-disk\"}}\n",
            "format-disk",
        ),
        (
            "{\"version\":1,\"ask\":{\"verb\":\"read-only-off\"},\"as\":\"root\"}\n",
            "as",
        ),
        (long.as_str(), "one line"),
    ] {
        let answer = over_socket(&socket, request.as_bytes());
        let answer: Value = serde_json::from_str(&answer).unwrap();
        let error = answer["error"].as_str().unwrap();
        assert!(error.contains(word), "{error}");
    }
    // Silent ones hold nobody up for long, however many.
    let silent: Vec<UnixStream> = (0..16)
        .filter_map(|_| UnixStream::connect(&socket).ok())
        .collect();
    let began = Instant::now();
    read_only(server.data(), &["status"]);
    assert!(began.elapsed() < Duration::from_secs(20));
    drop(silent);
    server.client().get("/v2/").expect(200);
}

#[test]
fn a_folder_without_a_store_is_refused_and_left_as_it_is() {
    let folder = place::dir();
    std::fs::write(folder.path().join("mine"), "").unwrap();
    for to in ["on", "off", "status"] {
        let ran = orlop(&["maintenance", "read-only", to], folder.path());
        assert!(!ran.ok && ran.err.contains("no store"), "{}", ran.err);
        assert!(ran.err.contains(&folder.path().display().to_string()));
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn a_stopped_store_of_another_user_is_refused_and_left_as_it_is() {
    if !tools::is_root() {
        tools::skipped("giving files away needs root");
        return;
    }
    let mut server = Server::start();
    server.stop();
    let owned_by = |owner: &str| {
        tools::sh(
            "chown -R \"$2\" \"$1\"",
            &[server.data().to_str().unwrap(), owner],
        )
    };
    let lock = server.data().join("LOCK");
    std::fs::remove_file(&lock).unwrap();
    owned_by("12345");
    for to in ["on", "off"] {
        let ran = orlop(&["maintenance", "read-only", to], server.data());
        assert!(
            !ran.ok && ran.err.contains("12345") && ran.err.contains("runuser"),
            "{}",
            ran.err
        );
    }
    assert!(!lock.exists() && !server.data().join("maintenance.json").exists());
    assert_eq!(
        read_only(server.data(), &["status"])["read_only"],
        Value::Null
    );
    owned_by("0");
    read_only(server.data(), &["on"]);
}

#[test]
fn what_was_switched_half_way_is_told_and_holds() {
    if !tools::is_root() || tools::need("setpriv").is_none() {
        tools::skipped("a server that may do less than this test needs root");
        return;
    }
    let less = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"];
    let server = Setup::default().under(&less).start();
    read_only(server.data(), &["on"]);
    let mode = |bits| {
        let permissions = std::fs::Permissions::from_mode(bits);
        std::fs::set_permissions(server.data(), permissions).unwrap();
    };
    // Names can be taken away in it, but it cannot be opened to be synced.
    mode(0o300);
    let ran = orlop(&["maintenance", "read-only", "off"], server.data());
    assert!(
        !ran.ok && ran.err.contains("writes are taken"),
        "{}",
        ran.err
    );
    mode(0o700);
    assert!(!server.data().join("maintenance.json").exists());
    let client = server.client();
    assert_eq!(client.get("/readyz").expect(200).json()["writes"], "on");
    let status = read_only(server.data(), &["status"]);
    assert_eq!(status["read_only"], Value::Null);
}
