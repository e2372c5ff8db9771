//! The pace of a collection: how long it pauses after a piece of work, so that
//! clients keep the machine.
//!
//! Owns the rule: [`WEIGHT`] times as long as the piece took, times the part of
//! the time since the last pause in which somebody was being served. With nobody
//! there it does not pause. A piece is short by itself: one that takes longer than
//! [`PIECE_MAX`] has waited, for changes of clients that are committed with it, for
//! a core or for the disk. That is not work, and is not paid for. So no pause is
//! longer than [`PAUSE_MAX`], and a collection comes to its end however busy the
//! server is: beside load that never ends it does at least one piece for each
//! such pause.
//!
//! Refuses to know: what the work is, and what clients ask for.

use std::time::{Duration, Instant};

use crate::metrics::Busy;

/// How much longer it pauses than it worked, while somebody is served all the
/// time.
const WEIGHT: u32 = 8;
/// The longest that a piece of work takes.
const PIECE_MAX: Duration = Duration::from_millis(10);
/// The longest pause.
const PAUSE_MAX: Duration = PIECE_MAX.saturating_mul(WEIGHT);

/// The pace.
#[derive(Debug)]
pub(super) struct Pace {
    busy: Busy,
    /// When it was looked last how busy the server is, and how long it had been
    /// by then.
    looked: (Instant, Duration),
}

impl Pace {
    /// Yields to those who are served there.
    pub(super) fn beside(busy: Busy) -> Pace {
        Pace {
            looked: (Instant::now(), busy.total()),
            busy,
        }
    }

    /// How long to pause after a piece of work that took so long.
    pub(super) fn pause(&mut self, worked: Duration) -> Duration {
        let (now, busy) = (Instant::now(), self.busy.total());
        let (at, before) = std::mem::replace(&mut self.looked, (now, busy));
        let busy = busy.saturating_sub(before);
        after(worked, share(busy, now.saturating_duration_since(at)))
    }
}

fn after(worked: Duration, share: f64) -> Duration {
    let pause = worked.saturating_mul(WEIGHT).min(PAUSE_MAX);
    pause.mul_f64(share)
}

/// Which part of a time another one is; all of it at most.
fn share(part: Duration, of: Duration) -> f64 {
    if of.is_zero() {
        return 0.0;
    }
    part.div_duration_f64(of).clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn nobody_is_no_pause_and_load_without_end_leaves_a_ninth_of_the_time() {
        assert_eq!(after(5 * MS, 0.0), Duration::ZERO);
        assert_eq!(after(5 * MS, 1.0), 40 * MS);
        assert_eq!(after(5 * MS, 0.25), 10 * MS);
        assert_eq!(after(Duration::ZERO, 1.0), Duration::ZERO);
    }

    #[test]
    fn a_piece_that_waits_for_clients_does_not_stop_the_collection() {
        assert_eq!(after(PIECE_MAX, 1.0), PAUSE_MAX);
        assert_eq!(after(1000 * MS, 1.0), PAUSE_MAX);
        assert_eq!(after(Duration::MAX, 1.0), PAUSE_MAX);
        assert_eq!(after(Duration::MAX, 0.0), Duration::ZERO);
    }

    #[test]
    fn it_looks_at_who_is_served_since_the_last_pause() {
        let busy = Busy::default();
        let mut pace = Pace::beside(busy.clone());
        let serving = busy.enter();
        std::thread::sleep(20 * MS);
        let pause = pace.pause(10 * MS);
        assert!(pause > 60 * MS && pause <= 80 * MS, "{pause:?}");
        drop(serving);
        pace.pause(Duration::ZERO);
        std::thread::sleep(20 * MS);
        let pause = pace.pause(10 * MS);
        assert!(pause < 10 * MS, "{pause:?}");
    }
}
