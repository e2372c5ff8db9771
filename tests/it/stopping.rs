//! SIGTERM: what is under way is finished or kept, and the exit is 0.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use orlop_tests::client::blob;
use orlop_tests::data;
use orlop_tests::h2;
use orlop_tests::raw::Wire;
use orlop_tests::server::{Server, Setup};
use orlop_tests::tls::Certificates;

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
    server.wait_until_read();
    server.terminate();
    server.wait_for_log("finishing requests under way", 1);
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
    server.wait_until_read();
    server.terminate();
    server.wait_for_log("finishing requests under way", 1);
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

/// Stops of a server for each kind of connection.
const ROUNDS: usize = 8;
/// Connections at each stop.
const CONNECTIONS: usize = 16;

/// Asks over HTTP/1.1 again and again, until the server says that the
/// connection ends. Returns how many requests were sent before the stop, or on
/// a connection that was not told to end, and got no answer.
fn ask_until_told(mut wire: Wire, may_rest: bool) -> usize {
    loop {
        if !wire.send(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n") {
            return 1;
        }
        let reply = wire.reply("GET while the server stops");
        if reply.status != 200 {
            return 1;
        }
        if reply.find("connection") == Some("close") {
            return 0;
        }
        if may_rest {
            std::thread::sleep(Duration::from_millis(3));
        }
    }
}

fn none_is_lost(setup: impl Fn() -> Setup) {
    let mut server = setup().start();
    let (mut lost, mut took) = (0, Duration::ZERO);
    for _ in 0..ROUNDS {
        let wires: Vec<Wire> = (0..CONNECTIONS).map(|_| server.wire()).collect();
        let askers: Vec<_> = wires
            .into_iter()
            .enumerate()
            .map(|(n, wire)| std::thread::spawn(move || ask_until_told(wire, n % 2 == 0)))
            .collect();
        std::thread::sleep(Duration::from_millis(30));
        let began = Instant::now();
        server.terminate();
        lost += askers.into_iter().map(|a| a.join().unwrap()).sum::<usize>();
        server.ended();
        took = took.max(began.elapsed());
        server.start_again();
    }
    assert_eq!(lost, 0, "requests without an answer");
    assert!(took < Duration::from_secs(10), "{took:?}");
}

#[test]
fn requests_on_kept_connections_are_answered_during_a_stop() {
    none_is_lost(Setup::default);
}

#[test]
fn requests_on_kept_connections_are_answered_during_a_stop_over_tls() {
    let certificates = Certificates::new();
    none_is_lost(|| Setup::default().tls(&certificates));
}

#[test]
fn requests_on_new_connections_are_answered_during_a_stop() {
    let mut server = Server::start();
    for _ in 0..ROUNDS {
        // All sent before the signal, whether or not they were accepted.
        let mut wires: Vec<Wire> = (0..CONNECTIONS * 4)
            .map(|_| {
                let mut wire = Wire::connect(server.address());
                assert!(wire.send(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"));
                wire
            })
            .collect();
        server.terminate();
        for wire in &mut wires {
            wire.reply("GET just before the stop").expect(200);
        }
        drop(wires);
        server.ended();
        server.start_again();
    }
}

#[test]
fn requests_over_http2_are_answered_until_the_client_is_told() {
    let certificates = Certificates::new();
    let mut server = Setup::default().tls(&certificates).start();
    let head = h2::head("HEAD", "/livez", &[]);
    for _ in 0..ROUNDS {
        let is_over = Arc::new(AtomicBool::new(false));
        let askers: Vec<_> = (0..CONNECTIONS)
            .map(|_| {
                let mut wire = Wire::http2(server.address(), &certificates);
                let (head, is_over) = (head.clone(), Arc::clone(&is_over));
                std::thread::spawn(move || {
                    for stream in (1..).step_by(2) {
                        let flags = h2::END_HEADERS | h2::END_STREAM;
                        let sent = wire.send(&h2::frame(h2::HEADERS, flags, stream, &head));
                        let mut was_told = false;
                        loop {
                            match wire.frame() {
                                Some(frame) if frame.kind == h2::GOAWAY => was_told = true,
                                Some(frame) if frame.kind == h2::HEADERS => break,
                                Some(_) => {}
                                None => {
                                    assert!(!sent || is_over.load(Ordering::Relaxed));
                                    return 1;
                                }
                            }
                        }
                        if was_told {
                            return 0;
                        }
                    }
                    0
                })
            })
            .collect();
        std::thread::sleep(Duration::from_millis(30));
        is_over.store(true, Ordering::Relaxed);
        server.terminate();
        let lost: usize = askers.into_iter().map(|a| a.join().unwrap()).sum();
        assert_eq!(lost, 0, "requests without an answer");
        server.ended();
        server.start_again();
    }
}

#[test]
fn connections_without_a_request_hold_up_no_stop() {
    let mut server = Server::start();
    let mut kept = Wire::connect(server.address());
    assert!(kept.send(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"));
    kept.reply("GET").expect(200);
    let silent = Wire::connect(server.address());
    let mut begun = Wire::connect(server.address());
    assert!(begun.send(b"P"));
    let began = Instant::now();
    server.stop();
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
    drop((kept, silent, begun));
}
