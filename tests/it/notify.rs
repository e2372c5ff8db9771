//! What systemd is told, over a socket of the test's own.

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use orlop_tests::place;
use orlop_tests::server::Setup;

/// The next message that is none of the watchdog's.
fn told(socket: &UnixDatagram) -> String {
    let mut buffer = [0; 512];
    loop {
        let read = socket.recv(&mut buffer).expect("a message in time");
        let text = String::from_utf8_lossy(&buffer[..read]).into_owned();
        if !text.contains("WATCHDOG=1") {
            return text;
        }
    }
}

#[test]
fn systemd_is_told_of_readiness_reload_and_end() {
    let folder = place::short_dir();
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    let patience = Some(Duration::from_secs(10));
    socket.set_read_timeout(patience).unwrap();
    let mut server = Setup::default()
        .env("NOTIFY_SOCKET", path.display().to_string())
        .env("WATCHDOG_USEC", "200000")
        .start();
    assert_eq!(told(&socket).trim(), "READY=1");
    server.hang_up();
    let reloading = told(&socket);
    assert!(reloading.contains("RELOADING=1"), "{reloading}");
    assert!(reloading.contains("MONOTONIC_USEC="), "{reloading}");
    assert_eq!(told(&socket).trim(), "READY=1");
    let mut buffer = [0; 512];
    for _ in 0..3 {
        let read = socket.recv(&mut buffer).unwrap();
        assert_eq!(buffer[..read].trim_ascii(), b"WATCHDOG=1");
    }
    server.terminate();
    assert_eq!(told(&socket).trim(), "STOPPING=1");
    server.ended();
}

#[test]
fn a_socket_nobody_listens_on_keeps_nothing_from_starting() {
    let mut server = Setup::default()
        .env("NOTIFY_SOCKET", "/nonexistent/notify")
        .start();
    server.client().get("/v2/").expect(200);
    server.stop();
}
