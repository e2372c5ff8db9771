//! Asking a running server, from a command.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use super::socket::Way;
use super::{ANSWER_BYTES_MAX, Answer, Outcome, REQUEST_BYTES_MAX, Request, Status, VERSION, Verb};

/// How long an answer may take.
const ANSWER_TIME: Duration = Duration::from_secs(30);
/// How long that of a purge may, which reads all references of the catalog.
const PURGE_TIME: Duration = Duration::from_secs(3600);

/// Why there is no good answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// No server offers a socket there.
    #[error("no server is running on this data folder")]
    Nobody,
    /// The way to the server or back failed.
    #[error("the server cannot be asked: {0}")]
    Io(#[from] io::Error),
    /// No server would read it to its end.
    #[error("the request is longer than {REQUEST_BYTES_MAX} bytes; a shorter reason makes it fit")]
    TooLong,
    /// It answered something else.
    #[error("the answer of the server is not one this release knows: {0}")]
    Malformed(String),
    /// It would or could not.
    #[error("{0}")]
    Refused(String),
}

/// Asks the server on this folder.
///
/// # Errors
/// `Nobody` when none is running.
pub fn ask(folder: &Path, verb: Verb) -> Result<Status, AskError> {
    use io::ErrorKind::{ConnectionRefused, NotFound};
    let way = match Way::into(folder) {
        Ok(way) => way,
        Err(error) if error.kind() == NotFound => return Err(AskError::Nobody),
        Err(error) => return Err(error.into()),
    };
    let mut stream = match UnixStream::connect(way.path()) {
        Ok(stream) => stream,
        Err(error) if matches!(error.kind(), NotFound | ConnectionRefused) => {
            return Err(AskError::Nobody);
        }
        Err(error) => return Err(error.into()),
    };
    let patience = match &verb {
        Verb::Purge { .. } => PURGE_TIME,
        _ => ANSWER_TIME,
    };
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(ANSWER_TIME))?;
    let request = Request {
        version: VERSION,
        ask: verb,
    };
    let mut line = serde_json::to_vec(&request).map_err(io::Error::from)?;
    line.push(b'\n');
    if line.len() > REQUEST_BYTES_MAX {
        return Err(AskError::TooLong);
    }
    stream.write_all(&line)?;
    let mut text = String::new();
    stream
        .take(ANSWER_BYTES_MAX as u64)
        .read_to_string(&mut text)?;
    let answer: Answer =
        serde_json::from_str(&text).map_err(|error| AskError::Malformed(error.to_string()))?;
    match answer.result {
        Outcome::Ok(status) => Ok(*status),
        Outcome::Error(why) => Err(AskError::Refused(why)),
    }
}
