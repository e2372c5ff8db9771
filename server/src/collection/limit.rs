//! The time that a collection may take (`gc.limit`).
//!
//! Owns the rule: purges and deletes of rows have the first half of it, so that
//! what they left behind dies in the same collection. A mark comes to its end,
//! since half a live set says nothing. Whoever begins to end blobs, or to give
//! their room back, may do so until the time is up, but at least for an eighth of
//! it, and at least once: so each collection gets further, even one whose mark
//! takes longer than its time.
//!
//! Refuses to know: what is done in that time.

use std::time::{Duration, Instant};

/// The part of the time that rows have at most: one in so many.
const ROWS: u32 = 2;
/// The part of the time that ends and room have at least: one in so many.
const LEAST: u32 = 8;

/// The time of one collection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limit {
    began: Instant,
    /// None: until all is done.
    time: Option<Duration>,
}

impl Limit {
    /// It begins now.
    pub(super) fn begin(time: Option<Duration>) -> Limit {
        Limit {
            began: Instant::now(),
            time,
        }
    }

    /// How long it goes on by now.
    pub(super) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Whether it is up.
    pub(super) fn is_over(&self) -> bool {
        self.time.is_some_and(|time| self.elapsed() > time)
    }

    /// The part of it for rows.
    pub(super) fn rows(&self) -> Part {
        self.part(|time| time / ROWS)
    }

    /// The part of it for ends, or for room, that begins now.
    pub(super) fn rest(&self) -> Part {
        let elapsed = self.elapsed();
        self.part(|time| time.max(elapsed.saturating_add(time / LEAST)))
    }

    fn part(&self, of: impl FnOnce(Duration) -> Duration) -> Part {
        let until = self.time.and_then(|time| self.began.checked_add(of(time)));
        Part {
            until,
            has_begun: false,
        }
    }
}

/// A part of the time. Its first piece of work is always done.
#[derive(Debug)]
pub(super) struct Part {
    until: Option<Instant>,
    has_begun: bool,
}

impl Part {
    /// Whether another piece of work may be begun.
    pub(super) fn goes_on(&mut self) -> bool {
        let is_first = !std::mem::replace(&mut self.has_begun, true);
        is_first || self.until.is_none_or(|until| Instant::now() < until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_have_half_of_it_and_ends_an_eighth_whenever_they_begin() {
        let second = Duration::from_secs(1);
        let at = |part: Part, limit: &Limit| part.until.map(|until| until - limit.began);
        let mut limit = Limit::begin(Some(80 * second));
        assert_eq!(at(limit.rows(), &limit), Some(40 * second));
        assert_eq!(at(limit.rest(), &limit), Some(80 * second));
        limit.began = Instant::now().checked_sub(200 * second).unwrap();
        assert!(limit.is_over());
        let rest = at(limit.rest(), &limit).unwrap();
        assert!(rest >= 210 * second && rest < 220 * second, "{rest:?}");
    }

    #[test]
    fn one_piece_is_done_however_little_time_there_is() {
        let limit = Limit::begin(Some(Duration::ZERO));
        for mut part in [limit.rows(), limit.rest()] {
            assert!(part.goes_on());
            assert!(!part.goes_on());
        }
    }

    #[test]
    fn without_a_limit_it_goes_on() {
        let limit = Limit::begin(None);
        let mut part = limit.rows();
        assert!(part.goes_on() && part.goes_on() && !limit.is_over());
        assert!(Limit::begin(Some(Duration::MAX)).rest().goes_on());
    }
}
