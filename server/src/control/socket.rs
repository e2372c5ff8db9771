//! The socket `control.sock` in the data folder: bound, served, removed.
//!
//! Invariants: only the folder's owner (and root) may connect, by the socket's
//! mode and by what the system says of the peer; a socket is only taken away
//! by who holds the folder's lock, or made it. Reached through the open
//! folder, so that the length of the folder's path does not matter: a socket's
//! path has 107 bytes at most.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{Mode, fchmod};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, sink};
use tokio::net::{UnixListener, UnixSocket, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::{Answer, Operator, Outcome, REQUEST_BYTES_MAX, Request, VERSION};
use crate::storage::CONTROL_SOCKET;

/// Connections served at once. More wait to be accepted.
const CONNECTIONS_MAX: usize = 8;
/// Connections that wait to be accepted.
const BACKLOG: u32 = 16;
/// From a connection to the end of its request, and of its answer.
const LINE_TIME: Duration = Duration::from_secs(5);
/// Bytes behind a request that are read away, within [`LINE_TIME`], so that its
/// answer is not lost with them.
const REST_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Pause after accepting failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why the socket cannot be offered.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot offer the control socket {path}: {source}; move away what is there, or choose a data folder on a file system with Unix sockets"
)]
pub struct SocketError {
    path: PathBuf,
    source: io::Error,
}

/// The way to a folder's socket, whatever the length of its path.
pub(super) struct Way {
    folder: File,
}

impl Way {
    pub(super) fn into(folder: &Path) -> io::Result<Way> {
        Ok(Way {
            folder: File::open(folder)?,
        })
    }

    pub(super) fn path(&self) -> PathBuf {
        PathBuf::from(format!(
            "/proc/self/fd/{}/{CONTROL_SOCKET}",
            self.folder.as_raw_fd()
        ))
    }
}

/// The socket, served until this is dropped.
pub struct Control {
    task: JoinHandle<()>,
    way: Way,
    /// Device and number of the socket, so that no other is removed.
    file: (u64, u64),
}

impl Control {
    /// Offers the socket. The caller holds the folder's lock: what is left of
    /// a server that was killed is taken away.
    ///
    /// # Errors
    /// What is at its place is no socket, or the system says no.
    pub fn offer(folder: &Path, operator: Operator) -> Result<Control, SocketError> {
        let fail = |source| SocketError {
            path: folder.join(CONTROL_SOCKET),
            source,
        };
        let way = Way::into(folder).map_err(fail)?;
        let listener = bind(&way.path()).map_err(fail)?;
        let made = way.path().symlink_metadata().map_err(fail)?;
        Ok(Control {
            task: tokio::spawn(serve(listener, operator)),
            way,
            file: (made.dev(), made.ino()),
        })
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.task.abort();
        let path = self.way.path();
        let is_ours = path
            .symlink_metadata()
            .is_ok_and(|data| (data.dev(), data.ino()) == self.file);
        if is_ours && let Err(error) = std::fs::remove_file(&path) {
            tracing::warn!(%error, "the control socket could not be removed");
        }
    }
}

fn bind(path: &Path) -> io::Result<UnixListener> {
    match path.symlink_metadata() {
        Ok(data) if data.file_type().is_socket() => std::fs::remove_file(path)?,
        Ok(_) => {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "something else has its name",
            ));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let socket = UnixSocket::new_stream()?;
    // The file that binding makes gets the socket's own mode, from its first
    // moment on.
    fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    socket.bind(path)?;
    socket.listen(BACKLOG)
}

async fn serve(listener: UnixListener, operator: Operator) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let operator = operator.clone();
                tokio::spawn(async move {
                    let _place = place;
                    if let Err(error) = converse(stream, &operator).await {
                        tracing::debug!(%error, "a control connection failed");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a control connection; trying again");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// One request and its answer.
async fn converse(mut stream: UnixStream, operator: &Operator) -> io::Result<()> {
    let peer = stream.peer_cred()?.uid();
    let result = if peer == 0 || peer == rustix::process::geteuid().as_raw() {
        let line = timeout(LINE_TIME, line_of(&mut stream)).await??;
        match read(&line) {
            Ok(request) => operator.perform(request.ask).await,
            Err(why) => Err(why),
        }
    } else {
        Err("the control socket is for the owner of the data folder only".to_owned())
    };
    let answer = Answer {
        version: VERSION,
        result: result.map_or_else(Outcome::Error, |status| Outcome::Ok(Box::new(status))),
    };
    let mut line = serde_json::to_vec(&answer)?;
    line.push(b'\n');
    timeout(LINE_TIME, stream.write_all(&line)).await??;
    stream.shutdown().await?;
    // A socket that is closed with bytes unread in it takes the answer along.
    let mut rest = stream.take(REST_BYTES_MAX);
    timeout(LINE_TIME, tokio::io::copy(&mut rest, &mut sink())).await??;
    Ok(())
}

/// The first line, without its end. One that is too long ends at the bound.
async fn line_of(stream: &mut UnixStream) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    let bounded = stream.take(REQUEST_BYTES_MAX as u64);
    BufReader::new(bounded).read_until(b'\n', &mut line).await?;
    Ok(line)
}

fn read(line: &[u8]) -> Result<Request, String> {
    #[derive(serde::Deserialize)]
    struct Versioned {
        version: u32,
    }
    if !line.ends_with(b"\n") {
        return Err(format!(
            "a request is one line of at most {REQUEST_BYTES_MAX} bytes"
        ));
    }
    let malformed = |error| format!("the request is not one this server knows: {error}");
    let Versioned { version } = serde_json::from_slice(line).map_err(malformed)?;
    if version != VERSION {
        return Err(format!(
            "the request has version {version}, this server speaks {VERSION}; use its own `orlop`"
        ));
    }
    serde_json::from_slice(line).map_err(malformed)
}
