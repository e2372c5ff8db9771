//! The pace of a collection: how long it pauses after a piece of work, so that
//! clients keep the machine.
//!
//! Owns the rule: [`WEIGHT`] times as long as it worked, times the part of the
//! time since the last pause in which somebody was being served. With nobody
//! there it does not pause; beside load that never ends it works one part in
//! `1 + WEIGHT` of the time, a fifth, and never less. What a long piece of work
//! owes is paid in pauses of [`PAUSE_MAX`] at most, and what was not paid when
//! clients go is forgiven.
//!
//! Refuses to know: what the work is, and what clients ask for.

use std::time::{Duration, Instant};

use crate::metrics::Busy;

/// How much longer it pauses than it worked, while somebody is served all the
/// time.
const WEIGHT: u32 = 4;
/// The longest pause after a piece of work.
const PAUSE_MAX: Duration = Duration::from_millis(500);
/// Pauses that are owed at most.
const OWED_MAX: Duration = Duration::from_secs(5);

/// The pace.
#[derive(Debug)]
pub(super) struct Pace {
    busy: Busy,
    /// When it was looked last how busy the server is, and how long it had been
    /// by then.
    looked: (Instant, Duration),
    /// Pauses that are still to be made.
    owed: Duration,
}

impl Pace {
    /// Yields to those who are served there.
    pub(super) fn beside(busy: Busy) -> Pace {
        Pace {
            looked: (Instant::now(), busy.total()),
            busy,
            owed: Duration::ZERO,
        }
    }

    /// How long to pause after a piece of work that took so long.
    pub(super) fn pause(&mut self, worked: Duration) -> Duration {
        let (now, busy) = (Instant::now(), self.busy.total());
        let (at, before) = std::mem::replace(&mut self.looked, (now, busy));
        self.after(worked, share(busy - before, now - at))
    }

    fn after(&mut self, worked: Duration, share: f64) -> Duration {
        let owed = self.owed.saturating_add(worked.saturating_mul(WEIGHT));
        let owed = owed.min(OWED_MAX).mul_f64(share);
        let pause = owed.min(PAUSE_MAX);
        self.owed = owed.saturating_sub(pause);
        pause
    }
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

    fn pace() -> Pace {
        Pace::beside(Busy::default())
    }

    #[test]
    fn nobody_is_no_pause_and_everybody_a_fifth_of_the_time() {
        let mut pace = pace();
        assert_eq!(pace.after(50 * MS, 0.0), Duration::ZERO);
        assert_eq!(pace.after(10 * MS, 1.0), 40 * MS);
        assert_eq!(pace.after(10 * MS, 0.25), 10 * MS);
        assert_eq!(pace.after(Duration::ZERO, 1.0), Duration::ZERO);
    }

    #[test]
    fn a_long_piece_is_paid_in_bounded_pauses_unless_clients_go() {
        let mut pace = pace();
        let mut paused = pace.after(1000 * MS, 1.0);
        assert_eq!(paused, PAUSE_MAX);
        for _ in 0..20 {
            paused += pace.after(Duration::ZERO, 1.0);
        }
        assert_eq!(paused, 4000 * MS);
        // However long it was, the collection goes on.
        pace.after(Duration::MAX, 1.0);
        assert!(pace.owed <= OWED_MAX);
        assert_eq!(pace.after(MS, 0.0), Duration::ZERO);
        assert_eq!(pace.after(MS, 1.0), 4 * MS);
    }

    #[test]
    fn under_load_without_end_it_works_a_fifth_of_the_time() {
        let mut pace = pace();
        let (mut worked, mut paused) = (Duration::ZERO, Duration::ZERO);
        for piece in (0..1000).map(|number| (number % 37) * MS) {
            worked += piece;
            paused += pace.after(piece, 1.0);
        }
        let all = worked + paused + pace.owed;
        assert!(
            worked * 5 >= all && worked * 4 <= paused + pace.owed,
            "{worked:?} of {all:?}"
        );
    }

    #[test]
    fn it_looks_at_who_is_served_since_the_last_pause() {
        let busy = Busy::default();
        let mut pace = Pace::beside(busy.clone());
        let serving = busy.enter();
        std::thread::sleep(20 * MS);
        let pause = pace.pause(10 * MS);
        assert!(pause > 30 * MS && pause <= 40 * MS, "{pause:?}");
        drop(serving);
        pace.pause(Duration::ZERO);
        std::thread::sleep(20 * MS);
        let pause = pace.pause(10 * MS);
        assert!(pause < 5 * MS, "{pause:?}");
    }
}
