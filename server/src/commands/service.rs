//! What the service manager is told, in systemd's way. Where none asks to be
//! told, nothing is said.

use sd_notify::{NotifyState, notify, watchdog_enabled};
use tokio::time::sleep;

/// The server serves, or has reloaded.
pub(super) fn ready() {
    tell(&[NotifyState::Ready]);
}

/// The server reads again what it was told to, until this is dropped, however
/// that ends: the manager waits for it.
pub(super) struct Reloading;

impl Reloading {
    pub(super) fn begin() -> Reloading {
        // The manager wants to know when, to tell one reload from another.
        match NotifyState::monotonic_usec_now() {
            Ok(now) => tell(&[NotifyState::Reloading, now]),
            Err(error) => tracing::warn!(%error, "cannot read the clock for the service manager"),
        }
        Reloading
    }
}

impl Drop for Reloading {
    fn drop(&mut self) {
        ready();
    }
}

/// The server ends.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Says twice in the time it has that the server is alive: that its tasks
/// still run. Not that the disk answers, which a restart would not heal.
pub(super) async fn watchdog() {
    let Some(time) = watchdog_enabled().and_then(|time| time.checked_div(2)) else {
        return;
    };
    loop {
        tell(&[NotifyState::Watchdog]);
        sleep(time).await;
    }
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = notify(state) {
        tracing::warn!(%error, "cannot tell the service manager");
    }
}
