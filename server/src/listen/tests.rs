//! A connection over HTTP/2, frame by frame; and a handler that panics.

use super::opening::HTTP2_PREFACE;
use super::*;
use crate::api::{AnswerBody, Readiness, State};
use http::Response;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::time::Instant;

const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const ACK: u8 = 1;

/// Answers what a living client answers, and sends nothing else. Returns the
/// types of the frames that came before the connection ended.
async fn live(mut wire: DuplexStream) -> Vec<u8> {
    let mut seen = Vec::new();
    let mut head = [0; 9];
    while wire.read_exact(&mut head).await.is_ok() {
        let len = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; len as usize];
        wire.read_exact(&mut payload).await.unwrap();
        let (kind, flags) = (head[3], head[4]);
        seen.push(kind);
        if matches!(kind, SETTINGS | PING) && flags & ACK == 0 {
            if kind == SETTINGS {
                payload.clear();
                head[2] = 0;
            }
            head[4] = ACK;
            // Sent to nobody when the end is near.
            let _ = wire.write_all(&[&head[..], &payload].concat()).await;
        }
    }
    seen
}

#[tokio::test(start_paused = true)]
async fn an_http2_connection_without_requests_is_closed() {
    let (mut client, server) = tokio::io::duplex(64 * 1024);
    let (_phase, phases) = watch::channel(Phase::Serving);
    let streams = Streams::new();
    let opened = streams.clone();
    let service = service_fn(move |_| {
        let stream = opened.open();
        async move {
            let answer = Response::new(AnswerBody::empty());
            Ok::<_, Infallible>(stream.answer(answer, Allowance::default()))
        }
    });
    let io = TokioIo::new(Frames::new(WriteDeadline::new(server)));
    let connection = http2_builder().serve_connection(io, service);
    client.write_all(HTTP2_PREFACE).await.unwrap();
    client
        .write_all(&[0, 0, 0, SETTINGS, 0, 0, 0, 0, 0])
        .await
        .unwrap();
    let client = tokio::spawn(live(client));
    let began = Instant::now();
    let peer = (std::net::Ipv4Addr::LOCALHOST, 1).into();
    let driven = drive(connection, peer, phases, Some(&streams));
    timeout(KEEP_ALIVE * 10, driven)
        .await
        .expect("never closed");
    let took = began.elapsed();
    assert!(took >= KEEP_ALIVE && took < KEEP_ALIVE * 2, "{took:?}");
    let seen = client.await.unwrap();
    assert!(seen.contains(&GOAWAY), "{seen:?}");
}

/// A defect: whoever asks how far the server is, panics.
struct Defect;

impl Readiness for Defect {
    fn state(&self) -> State {
        panic!("a defect, for the test");
    }

    fn is_stopping(&self) -> bool {
        false
    }
}

#[tokio::test]
async fn a101_a_panic_in_a_handler_is_a_500_and_its_connection_lives_on() {
    let listener = bind((std::net::Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let address = listener.local_addr().unwrap();
    let (phase, phases) = watch::channel(Phase::Serving);
    let layers = Arc::new(Layers::new(Arc::new(Defect)));
    let server = tokio::spawn(serve(listener, None, layers, phases));
    let mut client = TcpStream::connect(address).await.unwrap();
    for (path, status) in [
        ("/v2/", "500"),
        ("/livez", "200"),
        ("/readyz", "500"),
        ("/v2/a/tags/list", "500"),
        ("/livez", "200"),
    ] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
        client.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"}") {
            let read = client.read_buf(&mut answer).await.unwrap();
            assert!(read > 0, "{path}: the connection ended");
        }
        let answer = String::from_utf8(answer).unwrap();
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{path}: {answer}"
        );
        assert!(!answer.contains("for the test"), "{path}: {answer}");
    }
    phase.send_replace(Phase::Draining);
    timeout(CLOSE_TIME, server).await.unwrap().unwrap();
}
