//! Connections: accepted, bounded, served over HTTP/1.1 or HTTP/2 without
//! TLS, and ended in order.
//!
//! Knows no route. Every bound on a connection stands in this file or in
//! [`guard`].

mod guard;
mod layers;

pub use layers::Layers;

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::timeout;

use guard::{Guard, HEAD_TIME};

/// Connections served at once. More wait to be accepted.
const CONNECTIONS_MAX: u32 = 4096;
/// Bytes of the head of a request.
const HEADER_BYTES_MAX: u32 = 32 * 1024;
/// Fields in the head of a request.
pub(crate) const HEADERS_MAX: usize = 128;
/// A connection without a request is closed after this.
const KEEP_ALIVE: Duration = Duration::from_secs(60);
/// Bytes read ahead of a handler, and written ahead of a client.
const BUFFER_MAX: usize = 256 * 1024;
/// Requests at once on one HTTP/2 connection.
const STREAMS_MAX: u32 = 128;
/// Bytes in flight on one HTTP/2 stream, and on its connection.
const STREAM_WINDOW: u32 = 1024 * 1024;
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;
/// Resets by the peer that wait to be accepted on one HTTP/2 connection.
const RESETS_MAX: usize = 64;
/// Pause after accepting failed, as it does without free descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Pause between looks at a connection that has sent a byte or two.
const SNIFF_PAUSE: Duration = Duration::from_millis(10);

/// How far serving is. Only goes forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// New connections are accepted.
    Serving,
    /// Requests under way are finished, nothing new is accepted.
    Draining,
    /// Connections are cut.
    Ended,
}

/// Accepts and serves connections until the phase says otherwise. When it
/// returns, no connection is left.
pub async fn serve(listener: TcpListener, layers: Arc<Layers>, mut phase: watch::Receiver<Phase>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX as usize));
    loop {
        let accepted = tokio::select! {
            biased;
            _ = phase.wait_for(|phase| *phase > Phase::Serving) => break,
            accepted = accept(&listener, &places) => accepted,
        };
        match accepted {
            Ok((stream, peer, place)) => {
                let task = connection(stream, peer, Arc::clone(&layers), phase.clone(), place);
                tokio::spawn(task);
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection; trying again");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    // Every place is free again when the last connection has ended.
    let _all = places.acquire_many(CONNECTIONS_MAX).await;
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let place = Arc::clone(places)
        .acquire_owned()
        .await
        .map_err(io::Error::other)?;
    let (stream, peer) = listener.accept().await?;
    Ok((stream, peer, place))
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    layers: Arc<Layers>,
    mut phase: watch::Receiver<Phase>,
    _place: OwnedSemaphorePermit,
) {
    // Answers are written whole; waiting for more only delays them.
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let first = tokio::select! {
        first = timeout(HEAD_TIME, speaks_http2(&stream)) => first,
        _ = phase.wait_for(|phase| *phase > Phase::Serving) => return,
    };
    let Ok(Ok(is_http2)) = first else {
        return;
    };
    let service = service_fn(move |request| {
        let layers = Arc::clone(&layers);
        async move { layers.serve(peer, request).await }
    });
    if is_http2 {
        let io = TokioIo::new(stream);
        drive(http2_builder().serve_connection(io, service), phase).await;
    } else {
        let io = TokioIo::new(Guard::new(stream));
        drive(http1_builder().serve_connection(io, service), phase).await;
    }
}

/// Serves a connection to its end, or to the end of serving.
async fn drive<C>(connection: C, phase: watch::Receiver<Phase>)
where
    C: GracefulConnection,
    C::Error: std::fmt::Display,
{
    let (mut draining, mut ended) = (phase.clone(), phase);
    let mut connection = pin!(connection);
    let finished = tokio::select! {
        result = connection.as_mut() => Some(result),
        _ = draining.wait_for(|phase| *phase > Phase::Serving) => None,
    };
    let result = match finished {
        Some(result) => result,
        None => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                result = connection.as_mut() => result,
                _ = ended.wait_for(|phase| *phase > Phase::Draining) => return,
            }
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "a connection failed");
    }
}

/// Whether a client opens with the preface of HTTP/2. Looks without reading.
async fn speaks_http2(stream: &TcpStream) -> io::Result<bool> {
    const PREFACE: &[u8; 3] = b"PRI";
    let mut first = [0; PREFACE.len()];
    loop {
        let seen = stream.peek(&mut first).await?;
        let seen = first.get(..seen).unwrap_or_default();
        if seen.is_empty() || !PREFACE.starts_with(seen) {
            return Ok(false);
        }
        if seen.len() == PREFACE.len() {
            return Ok(true);
        }
        tokio::time::sleep(SNIFF_PAUSE).await;
    }
}

fn http1_builder() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(KEEP_ALIVE)
        .max_headers(HEADERS_MAX)
        .max_header_size(HEADER_BYTES_MAX as usize)
        .max_buf_size(BUFFER_MAX)
        // A client that has said all it has to say may still be answered.
        .half_close(true);
    builder
}

fn http2_builder() -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(HEAD_TIME)
        .max_concurrent_streams(STREAMS_MAX)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(HEADER_BYTES_MAX)
        .max_send_buf_size(BUFFER_MAX)
        .max_pending_accept_reset_streams(RESETS_MAX);
    builder
}
