//! Which disk to use: the ring where it works, else the pool.
//!
//! Invariant: a forced choice is kept or refused, never changed silently.
//! Refuses to know: where the choice was configured.

use std::io;
use std::str::FromStr;
use std::sync::Arc;

use crate::blocking::Blocking;
use crate::uring::Uring;
use crate::{Disk, probe};

/// Threads of the pool: the number of requests that the device sees at once.
pub const POOL_THREADS: usize = 8;

/// Ring threads. One keeps [`crate::uring::IN_FLIGHT`] requests in flight.
pub const RING_THREADS: usize = 1;

/// What was asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// The ring where it works, else the pool.
    #[default]
    Auto,
    /// The ring or nothing.
    Uring,
    /// The pool.
    Pool,
}

impl FromStr for Choice {
    type Err = String;

    fn from_str(word: &str) -> Result<Choice, String> {
        match word {
            "auto" => Ok(Choice::Auto),
            "uring" => Ok(Choice::Uring),
            "pool" => Ok(Choice::Pool),
            _ => Err(format!(
                "unknown disk backend {word:?}: use auto, uring or pool"
            )),
        }
    }
}

/// Makes the chosen disk and says why it is this one.
///
/// # Errors
/// When the ring was asked for and cannot be used, or no thread can be started.
pub fn select(choice: Choice) -> io::Result<(Arc<dyn Disk>, String)> {
    let refused = match choice {
        Choice::Pool => {
            return Ok((
                Blocking::new(POOL_THREADS)?,
                "the pool was asked for".to_owned(),
            ));
        }
        Choice::Uring | Choice::Auto => {
            match probe::ring().and_then(|()| Uring::new(RING_THREADS).map_err(|e| e.to_string())) {
                Ok(disk) if choice == Choice::Uring => {
                    return Ok((disk, "io_uring was asked for".to_owned()));
                }
                Ok(disk) => return Ok((disk, "io_uring works".to_owned())),
                Err(why) => why,
            }
        }
    };
    if choice == Choice::Uring {
        let message = format!("io_uring was asked for but cannot be used: {refused}");
        return Err(io::Error::new(io::ErrorKind::Unsupported, message));
    }
    Ok((
        Blocking::new(POOL_THREADS)?,
        format!("io_uring cannot be used: {refused}"),
    ))
}
