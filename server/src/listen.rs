//! Connections: accepted, bounded, served over HTTP/1.1 or HTTP/2, with TLS
//! or without, and ended in order.
//!
//! From the socket up: a deadline on writes, TLS, what watches over heads (a
//! guard of HTTP/1, frames of HTTP/2), HTTP, layers. Knows no route. Every bound on a connection stands in this file or in one
//! below it.

mod addresses;
mod certificate;
mod forwarded;
mod frames;
mod guard;
mod layers;
mod linger;
mod opening;
mod patience;
mod peers;
mod streams;
mod tls;

pub use certificate::{CertificateError, load as load_certificate};
pub use layers::Layers;
pub use tls::{Tls, TlsError};

use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::header::{self, HeaderValue};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{sleep, timeout};
use tokio_rustls::server::TlsStream;

use crate::api::Allowance;
use frames::Frames;
use guard::{Guard, HEAD_TIME};
use opening::{NO_TLS_HERE, Protocol, Replay, TLS_HERE, refuse, sniff};
use patience::WriteDeadline;
use peers::{PeerPlace, Peers};
use streams::{End, Streams};

/// Connections served at once. More wait to be accepted.
const CONNECTIONS_MAX: u32 = 4096;
/// Connections of one peer. More are closed at once.
const PEER_CONNECTIONS_MAX: u32 = CONNECTIONS_MAX / 4;
/// Bytes of the head of a request.
const HEADER_BYTES_MAX: u32 = 32 * 1024;
/// Fields in the head of a request.
pub(crate) const HEADERS_MAX: usize = 128;
/// A connection without a request is closed after this.
const KEEP_ALIVE: Duration = Duration::from_secs(60);
/// Bytes read ahead of a handler, and written ahead of a client.
const BUFFER_MAX: usize = 256 * 1024;
/// Requests at once on one HTTP/2 connection.
const STREAMS_MAX: u32 = 32;
/// Bytes in flight on one HTTP/2 stream, and on its connection.
const STREAM_WINDOW: u32 = 1024 * 1024;
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;
/// Resets by the peer that wait to be accepted on one HTTP/2 connection.
const RESETS_MAX: usize = 64;
/// Pause after accepting failed, as it does without free descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long a connection that was told to close may take.
const CLOSE_TIME: Duration = Duration::from_secs(10);
/// How long a drain listens to connections without a request: one may be on
/// its way. Its answer then ends the connection.
const LAST_TIME: Duration = Duration::from_secs(1);

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

/// Listens there, for as many at once as may be served: the usual 128 that wait
/// to be accepted are few for a burst, and one that is dropped waits a second.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(CONNECTIONS_MAX)
}

/// Accepts and serves connections, over TLS if there is any, until the phase
/// says otherwise. When it returns, no connection is left.
pub async fn serve(
    listener: TcpListener,
    tls: Option<Arc<Tls>>,
    layers: Arc<Layers>,
    phases: watch::Receiver<Phase>,
) {
    let mut phase = phases.clone();
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX as usize));
    let peers = Peers::new(PEER_CONNECTIONS_MAX);
    let allowance = Allowance::default();
    let begin = |stream, peer: SocketAddr, place| {
        let Some(of_peer) = peers.admit(peer.ip()) else {
            layers.counts().refused();
            return;
        };
        let client = Client {
            peer,
            layers: Arc::clone(&layers),
            allowance: allowance.for_another(),
            phase: phases.clone(),
            _places: (place, of_peer),
        };
        tokio::spawn(client.connection(stream, tls.clone()));
    };
    loop {
        let accepted = tokio::select! {
            biased;
            _ = phase.wait_for(|phase| *phase > Phase::Serving) => break,
            accepted = accept(&listener, &places) => accepted,
        };
        match accepted {
            Ok((stream, peer, place)) => begin(stream, peer, place),
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection; trying again");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    if *phases.borrow() == Phase::Draining
        && let Err(error) = rest(listener, &places, begin)
    {
        tracing::debug!(%error, "connections that waited to be accepted may be lost");
    }
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

/// Takes what waits to be accepted, without waiting for more, and listens no
/// longer: a client that has connected may have sent its request already.
fn rest(
    listener: TcpListener,
    places: &Arc<Semaphore>,
    begin: impl Fn(TcpStream, SocketAddr, OwnedSemaphorePermit),
) -> io::Result<()> {
    let listener = listener.into_std()?;
    while let Ok(place) = Arc::clone(places).try_acquire_owned() {
        match listener.accept() {
            Ok((stream, peer)) => {
                stream.set_nonblocking(true)?;
                begin(TcpStream::from_std(stream)?, peer, place);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The other end of a connection, and what its requests go to.
struct Client {
    peer: SocketAddr,
    layers: Arc<Layers>,
    /// What its answers may hold.
    allowance: Allowance,
    phase: watch::Receiver<Phase>,
    _places: (OwnedSemaphorePermit, PeerPlace),
}

impl Client {
    async fn connection(self, stream: TcpStream, tls: Option<Arc<Tls>>) {
        let layers = Arc::clone(&self.layers);
        let _open = layers.counts().connection();
        // Answers are written whole; waiting for more only delays them.
        if stream.set_nodelay(true).is_err() {
            return;
        }
        let peer = self.peer;
        let opened = tokio::select! {
            biased;
            opened = timeout(HEAD_TIME, open(stream, tls.as_deref())) => opened,
            () = last_time(self.phase.clone()) => return,
        };
        match opened {
            Ok(Ok(Opened::Plain(stream, protocol))) => self.speak(stream, protocol).await,
            Ok(Ok(Opened::Tls(stream, protocol))) => self.speak(*stream, protocol).await,
            Ok(Ok(Opened::Wrong(stream, text))) => {
                tracing::info!(%peer, has_tls = tls.is_some(), "a client spoke the wrong protocol");
                let refused = refuse(stream, text);
                let _in_time = timeout(HEAD_TIME, refused).await;
            }
            // Whoever looks whether the port is open ends like that.
            Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {}
            Ok(Err(error)) => tracing::info!(%peer, %error, "a connection could not be opened"),
            Err(_) => tracing::debug!(%peer, "a connection said nothing in time"),
        }
    }

    async fn speak<S>(self, stream: S, protocol: Protocol)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Client {
            peer,
            layers,
            allowance,
            phase,
            _places,
        } = self;
        if protocol == Protocol::Http2 {
            let streams = Streams::new();
            let opened = streams.clone();
            let service = service_fn(move |request| {
                let (layers, stream) = (Arc::clone(&layers), opened.open());
                let allowance = allowance.clone();
                async move {
                    let answer = layers.serve(peer, request).await;
                    Ok::<_, Infallible>(stream.answer(answer, allowance))
                }
            });
            let io = TokioIo::new(Frames::new(stream));
            let connection = http2_builder().serve_connection(io, service);
            drive(connection, peer, phase, Some(&streams)).await;
        } else {
            let phases = phase.clone();
            let service = service_fn(move |request| {
                let (layers, allowance) = (Arc::clone(&layers), allowance.clone());
                let phases = phases.clone();
                async move {
                    let mut answer = layers.serve(peer, request).await;
                    if *phases.borrow() > Phase::Serving {
                        let close = HeaderValue::from_static("close");
                        answer.headers_mut().insert(header::CONNECTION, close);
                    }
                    answer.body_mut().keep_to(allowance, None);
                    Ok::<_, Infallible>(answer)
                }
            });
            let io = TokioIo::new(Guard::new(stream));
            let connection = http1_builder().serve_connection(io, service);
            // Its parser sees to it.
            drive(connection, peer, phase, None).await;
        }
    }
}

/// A connection on which HTTP can begin, or must not.
enum Opened {
    Plain(Deadlined, Protocol),
    Tls(Box<TlsStream<Deadlined>>, Protocol),
    /// Its client has to be told this.
    Wrong(Replay<TcpStream>, &'static str),
}

/// The deadline is below TLS: what is above hands bytes over and is done.
type Deadlined = WriteDeadline<Replay<TcpStream>>;

async fn open(stream: TcpStream, tls: Option<&Tls>) -> io::Result<Opened> {
    let mut stream = Replay::new(stream);
    Ok(match (sniff(&mut stream).await?, tls) {
        (Some(protocol), None) => Opened::Plain(WriteDeadline::new(stream), protocol),
        (None, Some(tls)) => {
            let (stream, protocol) = tls.handshake(WriteDeadline::new(stream)).await?;
            Opened::Tls(Box::new(stream), protocol)
        }
        (Some(_), Some(_)) => Opened::Wrong(stream, TLS_HERE),
        (None, None) => Opened::Wrong(stream, NO_TLS_HERE),
    })
}

/// Serves a connection to its end, to the end of serving, or until there is
/// nothing more to expect of it.
async fn drive<C>(
    connection: C,
    peer: SocketAddr,
    phase: watch::Receiver<Phase>,
    streams: Option<&Streams>,
) where
    C: GracefulConnection<Error = hyper::Error>,
{
    let mut ended = phase.clone();
    let draining = async {
        match streams {
            // The peer is told first, and what it sends until it knows is
            // answered.
            Some(_) => after(phase, Phase::Serving).await,
            None => last_time(phase).await,
        }
    };
    let mut connection = pin!(connection);
    let finished = tokio::select! {
        biased;
        result = connection.as_mut() => Some(result),
        () = draining => None,
        end = end_of(streams) => match end {
            End::Idle => None,
            End::Stalled => return,
        },
    };
    let result = match finished {
        Some(result) => result,
        None => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                result = connection.as_mut() => result,
                // Whatever it began since may still be done.
                _ = async { sleep(CLOSE_TIME).await; end_of(streams).await } => return,
                _ = ended.wait_for(|phase| *phase > Phase::Draining) => return,
            }
        }
    };
    match result {
        Ok(()) => {}
        // Such a request got no id, and no access line.
        Err(error) if error.is_parse() => {
            tracing::info!(%peer, %error, "a request was refused before it was read");
        }
        Err(error) => tracing::debug!(%peer, %error, "a connection failed"),
    }
}

/// Waits until serving is further than this.
async fn after(mut phase: watch::Receiver<Phase>, this: Phase) {
    // Who sets it may be gone: then nothing is served any more either.
    let _ = phase.wait_for(|phase| *phase > this).await;
}

/// Waits until draining has begun and a client that has just sent a request
/// was heard, or until connections are cut.
async fn last_time(phase: watch::Receiver<Phase>) {
    after(phase.clone(), Phase::Serving).await;
    let _cut = timeout(LAST_TIME, after(phase, Phase::Draining)).await;
}

/// When a connection should end, if its streams say so.
async fn end_of(streams: Option<&Streams>) -> End {
    match streams {
        Some(streams) => streams.end().await,
        None => pending().await,
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

#[cfg(test)]
mod tests;
