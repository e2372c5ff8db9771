//! SIGTERM: what is under way is finished or kept, and the exit is 0.

use std::time::{Duration, Instant};

use orlop_tests::client::blob;
use orlop_tests::data;
use orlop_tests::raw::Wire;
use orlop_tests::server::Server;

#[test]
fn an_idle_server_stops_at_once() {
    let mut server = Server::start();
    let client = server.client();
    client.push_blob("stop/idle", b"bytes");
    let began = Instant::now();
    server.stop();
    assert!(began.elapsed() < Duration::from_secs(5));
    server.start_again();
    server
        .client()
        .blob_is("stop/idle", &data::sha256(b"bytes"), b"bytes");
}

#[test]
fn an_upload_in_flight_is_finished_before_the_end() {
    let mut server = Server::start();
    let client = server.client();
    let bytes = data::bytes(60, 4 << 20);
    let digest = data::sha256(&bytes);
    let location = client.open_upload("stop/flight");
    let target = orlop_tests::client::with_digest(&location, &digest);
    let (first, rest) = bytes.split_at(bytes.len() / 2);
    let mut wire = Wire::connect(server.address());
    let head = format!(
        "PUT {target} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n",
        bytes.len()
    );
    assert!(wire.send(head.as_bytes()) && wire.send(first));
    std::thread::sleep(Duration::from_millis(100));
    server.terminate();
    std::thread::sleep(Duration::from_millis(300));
    assert!(wire.send(rest), "the drain cut an upload under way");
    wire.reply("PUT during the drain").expect(201);
    server.ended();
    server.start_again();
    server.client().blob_is("stop/flight", &digest, &bytes);
}

#[test]
fn a_draining_server_takes_no_new_connection_for_work() {
    let mut server = Server::start();
    let client = server.client();
    let location = client.open_upload("stop/new");
    let mut wire = Wire::connect(server.address());
    let head = format!("PATCH {location} HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n12345");
    wire.send(head.as_bytes());
    std::thread::sleep(Duration::from_millis(100));
    server.terminate();
    std::thread::sleep(Duration::from_millis(500));
    let late = server
        .client()
        .try_call("POST", "/v2/stop/new/blobs/uploads/", &[], "");
    if let Ok(reply) = late {
        assert_eq!(reply.status, 503, "{}", reply.what);
    }
    wire.send(b"67890");
    wire.reply("PATCH during the drain").expect(202);
    server.ended();
}

#[test]
fn an_unfinished_upload_goes_on_after_a_restart() {
    let mut server = Server::start();
    let bytes = data::bytes(61, 3_000_000);
    let digest = data::sha256(&bytes);
    let client = server.client();
    let location = client.open_upload("stop/resume");
    let location = client
        .patch_at(&location, 0, &bytes[..2_000_000])
        .expect(202)
        .location();
    server.stop();
    server.start_again();
    let client = server.client();
    let status = client.get(&location).expect(204);
    assert_eq!(status.header("range"), "0-1999999");
    client
        .finish(&status.location(), &digest, bytes[2_000_000..].to_vec())
        .expect(201);
    client.blob_is("stop/resume", &digest, &bytes);
    assert_eq!(client.get(&blob("stop/resume", &digest)).status, 200);
}

#[test]
fn a_stop_while_recovering_ends_well() {
    let mut server = Server::start();
    let client = server.client();
    for seed in 600..700 {
        client.push_blob("stop/recovering", &data::bytes(seed, 40_000));
    }
    let kept = data::bytes(600, 40_000);
    server.stop();
    for turn in 0..24 {
        std::fs::remove_dir_all(server.data().join("index")).unwrap();
        server.launch();
        // From here on a signal is a request to stop.
        server.wait_for_log("\"message\":\"starting\"", turn + 2);
        std::thread::sleep(Duration::from_millis(4 * turn as u64));
        server.stop();
    }
    server.start_again();
    let digest = data::sha256(&kept);
    server.client().blob_is("stop/recovering", &digest, &kept);
}

/// A server that stays at its start, since another has its catalog.
fn held_up() -> Option<(Server, std::process::Child)> {
    let python = orlop_tests::tools::need("python3")?;
    let mut server = Server::start();
    server.stop();
    let script = "import sqlite3, sys\n\
        c = sqlite3.connect(sys.argv[1], isolation_level=None)\n\
        c.execute('pragma locking_mode=exclusive')\n\
        c.execute('begin exclusive')\n\
        print('held', flush=True)\n\
        sys.stdin.read()\n";
    let mut holder = std::process::Command::new(python)
        .args(["-c", script])
        .arg(server.data().join("catalog.db"))
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = [0; 4];
    std::io::Read::read_exact(holder.stdout.as_mut().unwrap(), &mut said).unwrap();
    server.launch();
    server.wait_for_log("\"message\":\"starting\"", 2);
    Some((server, holder))
}

#[test]
fn signals_are_answered_while_starting() {
    let Some((mut server, mut holder)) = held_up() else {
        return;
    };
    server.hang_up();
    server.wait_for_log("SIGHUP", 1);
    let began = Instant::now();
    server.terminate();
    server.wait_for_log("stopped while starting", 1);
    assert_ne!(server.client().get("/readyz").status, 200);
    drop(holder.stdin.take());
    holder.wait().unwrap();
    server.ended();
    assert!(began.elapsed() < Duration::from_secs(20));
    server.start_again();
}
