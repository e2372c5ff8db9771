//! SIGINT and SIGTERM set one flag. Loops look at it and end by returning, so
//! that servers are killed and data folders deleted on the way out.

use crate::error::{Context as _, Error, Result};
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::signal::unix::{SignalKind, signal};

static STOP: AtomicBool = AtomicBool::new(false);

/// Whether a signal asked to stop.
pub(crate) fn asked() -> bool {
    STOP.load(Ordering::Relaxed)
}

/// An error once a signal asked to stop.
pub(crate) fn check() -> Result<()> {
    if asked() {
        Err(Error::Interrupted)
    } else {
        Ok(())
    }
}

/// Starts to watch for the signals on a thread of its own.
pub(crate) fn watch() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .context(|| "start the signal watcher".to_owned())?;
    let guard = runtime.enter();
    let mut interrupt =
        signal(SignalKind::interrupt()).context(|| "watch for SIGINT".to_owned())?;
    let mut terminate =
        signal(SignalKind::terminate()).context(|| "watch for SIGTERM".to_owned())?;
    drop(guard);
    std::thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        });
        STOP.store(true, Ordering::Relaxed);
    });
    Ok(())
}
