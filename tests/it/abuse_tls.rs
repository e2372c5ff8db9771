//! Abuse cases A18, A19, A30 to A32 and A39, over TLS and HTTP/2 as well as
//! without: heads, hellos, floods, and answers that have to break off.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use orlop_tests::client::blob;
use orlop_tests::damage::rot;
use orlop_tests::raw::{self, Wire};
use orlop_tests::server::{Server, Setup};
use orlop_tests::tls::Certificates;
use orlop_tests::{data, h2, tools};

/// How long an answer to nonsense may take.
const QUICKLY: Duration = Duration::from_secs(2);
/// Longer than the server waits for a hello, shorter than for a request.
const HELLO_GIVEN_UP: Duration = Duration::from_secs(15);
/// Memory that nonsense may leave behind.
const GROWTH_MAX: u64 = 32 << 20;

struct Both {
    certificates: Arc<Certificates>,
    tls: Server,
    plain: Server,
}

impl Both {
    fn start() -> Both {
        let certificates = Certificates::new();
        Both {
            tls: Setup::default().tls(&certificates).start(),
            plain: Server::start(),
            certificates,
        }
    }

    fn servers(&self) -> [&Server; 2] {
        [&self.plain, &self.tls]
    }

    fn http2(&self) -> Wire {
        Wire::http2(self.tls.address(), &self.certificates)
    }
}

/// Fails unless what `abuse` does leaves the server as it was.
fn survives(server: &Server, abuse: impl FnOnce()) {
    let before = server.resident();
    abuse();
    server.client().get("/v2/").expect(200);
    let grown = server.resident().saturating_sub(before);
    assert!(grown < GROWTH_MAX, "{} MiB are left", grown >> 20);
}

/// A value of this length, or so many fields.
fn headers(value: &str, fields: usize) -> String {
    let many: String = (0..fields).map(|n| format!("X-{n}: 1\r\n")).collect();
    format!("{many}Authorization: {value}\r\n")
}

#[test]
fn a19_heads_that_are_too_large_are_431() {
    let both = Both::start();
    for server in both.servers() {
        for (name, headers, status) in [
            ("31 KiB", headers(&"x".repeat(31 << 10), 0), 200),
            ("33 KiB", headers(&"x".repeat(33 << 10), 0), 431),
            (
                "Basic of 1 MB",
                headers(&format!("Basic {}", "x".repeat(1 << 20)), 0),
                431,
            ),
            ("127 fields", headers("x", 125), 200),
            ("129 fields", headers("x", 127), 431),
            ("10,000 fields", headers("x", 10_000), 431),
        ] {
            survives(server, || {
                let mut wire = server.wire();
                let began = Instant::now();
                wire.send(format!("GET /v2/ HTTP/1.1\r\nHost: x\r\n{headers}\r\n").as_bytes());
                let reply = wire.reply(&format!("GET with {name}"));
                assert_eq!(reply.status, status, "{name}");
                assert!(began.elapsed() < QUICKLY, "{name}");
            });
        }
    }
}

#[test]
fn a18_endless_tokens_are_refused_before_they_are_read() {
    let both = Both::start();
    for server in both.servers() {
        for (name, token) in [
            ("8 MB", "x".repeat(8 << 20)),
            ("100,000 dots", ".".repeat(100_000)),
        ] {
            survives(server, || {
                let authorization = format!("Bearer {token}");
                let began = Instant::now();
                let reply = server.raw("GET", "/v2/", &[("Authorization", &authorization)], b"");
                assert_eq!(reply.status, 431, "{name}");
                assert!(began.elapsed() < QUICKLY, "{name}: {:?}", began.elapsed());
            });
        }
    }
}

/// Asks over HTTP/2 with these fields; the status, or 0 when the stream or the
/// connection ended without one.
fn http2_status(both: &Both, fields: &[(&str, &str)]) -> u16 {
    let mut wire = both.http2();
    let head = h2::head("GET", "/v2/", fields);
    let mut pieces = head.chunks(16_000);
    let first = pieces.next().expect("a head");
    let mut sent = h2::frame(h2::HEADERS, h2::END_STREAM, 1, first);
    for piece in pieces {
        sent.extend(h2::frame(h2::CONTINUATION, 0, 1, piece));
    }
    sent.extend(h2::frame(h2::CONTINUATION, h2::END_HEADERS, 1, b""));
    wire.send(&sent);
    while let Some(frame) = wire.frame() {
        match (frame.kind, frame.stream) {
            (h2::HEADERS, 1) => return h2::status(&frame.payload),
            (h2::RST_STREAM | h2::GOAWAY, _) => return 0,
            _ => {}
        }
    }
    0
}

#[test]
fn a19_heads_that_are_too_large_are_refused_over_http2() {
    let both = Both::start();
    let names: Vec<String> = (0..10_000).map(|n| format!("x-{n}")).collect();
    let many = |count: usize| -> Vec<(&str, &str)> {
        names[..count]
            .iter()
            .map(|name| (name.as_str(), "1"))
            .collect()
    };
    survives(&both.tls, || {
        assert_eq!(http2_status(&both, &many(127)), 200);
        assert_eq!(http2_status(&both, &many(129)), 431);
        assert!(matches!(http2_status(&both, &many(10_000)), 0 | 431));
        for (length, fine) in [(30 << 10, true), (33 << 10, false), (1 << 20, false)] {
            let value = "x".repeat(length);
            let status = http2_status(&both, &[("authorization", &value)]);
            let expected: &[u16] = if fine { &[200] } else { &[0, 431] };
            assert!(expected.contains(&status), "{length} bytes: {status}");
        }
    });
}

#[test]
fn a30_stalled_hellos_are_cut_while_others_are_served() {
    let certificates = Certificates::new();
    let server = Setup::default().tls(&certificates).start();
    let began = Instant::now();
    // Nothing, a byte, half a record's head, half a hello.
    let hello: &[u8] = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
    let mut wires: Vec<Wire> = (0..200)
        .map(|n| {
            let mut wire = Wire::connect(server.address());
            assert!(wire.send(&hello[..n % hello.len()]));
            wire
        })
        .collect();
    // One that sends a byte a second never gets anywhere either.
    let mut slow = Wire::connect(server.address());
    let slowly = std::thread::spawn(move || {
        for byte in [0x16, 3, 1, 2].into_iter().chain([0; 16]) {
            if !slow.send(&[byte]) {
                break;
            }
            std::thread::sleep(Duration::from_secs(1));
        }
        slow.rest();
        began.elapsed()
    });
    let client = server.client();
    for _ in 0..20 {
        let asked = Instant::now();
        client.get("/v2/").expect(200);
        assert!(asked.elapsed() < QUICKLY);
    }
    for wire in &mut wires {
        wire.rest();
    }
    assert!(began.elapsed() < HELLO_GIVEN_UP, "{:?}", began.elapsed());
    let slow = slowly.join().unwrap();
    assert!(slow < HELLO_GIVEN_UP + Duration::from_secs(10), "{slow:?}");
}

#[test]
fn a30_slow_heads_are_cut_behind_tls() {
    let certificates = Certificates::new();
    let server = Setup::default().tls(&certificates).start();
    let began = Instant::now();
    let http2 = || Wire::over_tls(server.address(), &certificates, &["h2"]);
    let half_a_head = h2::frame(h2::HEADERS, 0, 1, &h2::head("GET", "/v2/", &[]));
    let mut wires = [server.wire(), http2(), http2(), http2()];
    let starts: [&[u8]; 4] = [
        b"GET /v2/ HT",
        b"",
        &h2::START[..10],
        &[h2::START, &half_a_head].concat(),
    ];
    for (wire, start) in wires.iter_mut().zip(starts) {
        assert!(wire.send(start));
    }
    for wire in &mut wires {
        wire.rest();
        let took = began.elapsed();
        assert!(took < HELLO_GIVEN_UP, "{took:?}");
    }
}

/// Sends until the server ends the connection or takes no more; whether it
/// ended it.
fn flood(both: &Both, start: &[u8], mut next: impl FnMut(u32) -> Vec<u8>, count: u32) -> bool {
    let mut wire = both.http2();
    wire.set_patience(Duration::from_secs(3));
    wire.send(start);
    for n in 0..count {
        if !wire.send(&next(n)) {
            break;
        }
    }
    // Whatever it sent meanwhile is read to the end, or until it is quiet.
    let rest = AssertUnwindSafe(|| while wire.frame().is_some_and(|f| f.kind != h2::GOAWAY) {});
    catch_unwind(rest).is_ok()
}

#[test]
fn a31_resets_end_the_connection_and_harm_no_other() {
    let both = Both::start();
    survives(&both.tls, || {
        let head = h2::head("GET", "/v2/", &[]);
        let ended = flood(
            &both,
            b"",
            |n| {
                let stream = 2 * n + 1;
                let mut both =
                    h2::frame(h2::HEADERS, h2::END_HEADERS | h2::END_STREAM, stream, &head);
                both.extend(h2::frame(h2::RST_STREAM, 0, stream, &[0, 0, 0, 8]));
                both
            },
            100_000,
        );
        assert!(ended, "the connection goes on");
    });
}

#[test]
fn a31_endless_heads_end_the_connection_and_harm_no_other() {
    let both = Both::start();
    survives(&both.tls, || {
        let head = h2::head("GET", "/v2/", &[]);
        let start = h2::frame(h2::HEADERS, h2::END_STREAM, 1, &head);
        let mut more = Vec::new();
        h2::field(&mut more, "x", &"x".repeat(16_000));
        let more = h2::frame(h2::CONTINUATION, 0, 1, &more);
        let began = Instant::now();
        flood(&both, &start, |_| more.clone(), 10_000);
        let empty = h2::frame(h2::CONTINUATION, 0, 1, b"");
        flood(&both, &start, |_| empty.repeat(100), 10_000);
        assert!(began.elapsed() < Duration::from_secs(20));
    });
}

#[test]
fn a31_pings_settings_and_empty_data_harm_nobody() {
    let both = Both::start();
    survives(&both.tls, || {
        let ping = h2::frame(h2::PING, 0, 0, &[7; 8]).repeat(100);
        flood(&both, b"", |_| ping.clone(), 2000);
        let settings = h2::frame(h2::SETTINGS, 0, 0, b"").repeat(100);
        flood(&both, b"", |_| settings.clone(), 2000);
        let head = h2::head("PUT", "/v2/a31/flood/manifests/v1", &[]);
        let start = h2::frame(h2::HEADERS, h2::END_HEADERS, 1, &head);
        let empty = h2::frame(h2::DATA, 0, 1, b"").repeat(100);
        flood(&both, &start, |_| empty.clone(), 2000);
        // One short field that stands for a long one, over and over.
        let mut bomb = h2::head("GET", "/v2/", &[]);
        bomb.extend([0x40, 1, b'x', 0x7f, 0xa1, 0x1e]);
        bomb.extend([b'x'; 4000]);
        bomb.extend([0xbe; 12_000]);
        let bomb = h2::frame(h2::HEADERS, h2::END_HEADERS | h2::END_STREAM, 1, &bomb);
        flood(&both, &bomb, |_| Vec::new(), 1);
    });
}

/// A hello of this version that offers nothing newer.
fn hello(version: [u8; 2], suites: &[[u8; 2]]) -> Vec<u8> {
    let mut body = version.to_vec();
    body.extend([7; 32]);
    body.push(0);
    body.extend((suites.len() as u16 * 2).to_be_bytes());
    body.extend(suites.concat());
    body.extend([1, 0]);
    let mut message = vec![1];
    message.extend(&(body.len() as u32).to_be_bytes()[1..]);
    message.extend(body);
    let mut record = vec![22, 3, 1];
    record.extend((message.len() as u16).to_be_bytes());
    record.extend(message);
    record
}

#[test]
fn a32_old_versions_and_weak_ciphers_are_refused() {
    let certificates = Certificates::new();
    let server = Setup::default().tls(&certificates).start();
    // RSA with AES, ECDHE with AES in CBC, RC4, 3DES, and what is good.
    let old: &[[u8; 2]] = &[[0, 0x2f], [0xc0, 0x13], [0xc0, 0x09], [0, 5], [0, 10]];
    let weak: &[[u8; 2]] = &[[0, 4], [0, 5], [0, 10], [0xc0, 0x11], [0xc0, 0x12], [0, 0]];
    survives(&server, || {
        for (name, bytes) in [
            ("SSL 3.0", hello([3, 0], old)),
            ("TLS 1.0", hello([3, 1], old)),
            ("TLS 1.1", hello([3, 2], old)),
            ("TLS 1.2 with weak ciphers", hello([3, 3], weak)),
            ("TLS 1.2 without ciphers", hello([3, 3], &[])),
        ] {
            let mut wire = Wire::connect(server.address());
            let began = Instant::now();
            wire.send(&bytes);
            let answer = wire.rest();
            // An alert, and a fatal one, or nothing.
            let is_alert = answer.is_empty() || (answer[0] == 21 && answer[5] == 2);
            assert!(is_alert, "{name}: {answer:?}");
            assert!(began.elapsed() < QUICKLY, "{name}");
        }
        // The hello of SSL 2.0.
        let mut wire = Wire::connect(server.address());
        wire.send(b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10\x01\x00\x80\x02\x00\x80");
        wire.finish();
        let answer = wire.rest();
        assert_ne!(answer.first(), Some(&22), "{answer:?}");
    });
    let Some(openssl) = tools::need("openssl") else {
        return;
    };
    for (version, fine) in [
        ("-tls1", false),
        ("-tls1_1", false),
        ("-tls1_2", true),
        ("-tls1_3", true),
    ] {
        let mut command = Command::new(&openssl);
        command.args(["s_client", "-connect", &server.address().to_string()]);
        command.args([version, "-cipher", "ALL:@SECLEVEL=0", "-CAfile"]);
        command
            .arg(certificates.authority())
            .arg("-verify_return_error");
        assert_eq!(tools::try_run(&mut command).ok, fine, "{version}");
    }
}

#[test]
fn a32_random_and_broken_hellos_harm_nobody() {
    let certificates = Certificates::new();
    let server = Setup::default().tls(&certificates).start();
    let good = hello([3, 3], &[[0xc0, 0x2b], [0xc0, 0x2f], [0x13, 1]]);
    survives(&server, || {
        let began = Instant::now();
        for n in 0..600_usize {
            let noise = data::bytes(n as u64, 64 + n);
            let bytes = match n % 4 {
                // Noise, noise in a record, a hello cut off, and one with a
                // byte changed.
                0 => noise,
                1 => [&good[..5], &noise].concat(),
                2 => good[..(n * 7) % good.len()].to_vec(),
                _ => {
                    let mut bytes = good.clone();
                    bytes[n % good.len()] ^= noise[0] | 1;
                    bytes
                }
            };
            let mut wire = Wire::connect(server.address());
            wire.send(&bytes);
            wire.finish();
            let answer = wire.rest();
            assert!(answer.len() < 16 << 10, "{} bytes", answer.len());
        }
        assert!(
            began.elapsed() < Duration::from_secs(30),
            "{:?}",
            began.elapsed()
        );
    });
}

#[test]
fn a39_a_read_fault_ends_the_connection_with_tls_and_without() {
    let Both { tls, plain, .. } = Both::start();
    for mut server in [plain, tls] {
        let repository = "a39/fault";
        let bytes = data::bytes(390, 40 << 20);
        let digest = server.client().push_blob(repository, &bytes);
        let sound = data::bytes(391, 100_000);
        let other = server.client().push_blob(repository, &sound);
        server.stop();
        rot(server.data(), &bytes);
        server.start_again();
        let reply = raw::request(server.wire(), "GET", &blob(repository, &digest), &[], b"");
        assert_eq!(reply.status, 200, "the fault is in the middle");
        assert_eq!(reply.header("content-length"), bytes.len().to_string());
        assert!(!reply.body.is_empty() && reply.body.len() < bytes.len());
        assert!(bytes.starts_with(&reply.body), "something else was sent");
        server.client().blob_is(repository, &other, &sound);
    }
}

#[test]
fn a39_a_read_fault_resets_one_stream_of_http2() {
    let certificates = Certificates::new();
    let mut server = Setup::default().tls(&certificates).start();
    let repository = "a39/stream";
    let bytes = data::bytes(392, 40 << 20);
    let digest = server.client().push_blob(repository, &bytes);
    server.stop();
    rot(server.data(), &bytes);
    server.start_again();
    let mut wire = Wire::http2(server.address(), &certificates);
    let window = |stream, more: u32| h2::frame(h2::WINDOW_UPDATE, 0, stream, &more.to_be_bytes());
    let get = |path: &str, stream| {
        let head = h2::head("GET", path, &[]);
        h2::frame(h2::HEADERS, h2::END_HEADERS | h2::END_STREAM, stream, &head)
    };
    wire.send(&window(0, 1 << 30));
    wire.send(&get(&blob(repository, &digest), 1));
    wire.send(&window(1, 1 << 30));
    let mut body = Vec::new();
    loop {
        let frame = wire.frame().expect("the connection goes on");
        assert_ne!(frame.kind, h2::GOAWAY);
        match (frame.kind, frame.stream) {
            (h2::HEADERS, 1) => assert_eq!(h2::status(&frame.payload), 200),
            (h2::DATA, 1) => {
                assert_eq!(frame.flags & h2::END_STREAM, 0, "a cut body ended well");
                body.extend(frame.payload);
            }
            (h2::RST_STREAM, 1) => break,
            _ => {}
        }
    }
    assert!(
        !body.is_empty() && bytes.starts_with(&body),
        "something else was sent"
    );
    // The connection serves on.
    wire.send(&get("/v2/", 3));
    let answer = loop {
        let frame = wire.frame().expect("the connection goes on");
        if frame.kind == h2::HEADERS && frame.stream == 3 {
            break frame;
        }
    };
    assert_eq!(h2::status(&answer.payload), 200);
}
