//! How far a check is, for whoever wants to show it.
//!
//! Shows one line on standard error that is written over, at most a few times
//! a second, with rate and time left. Says nothing unless told to.

use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Time between two lines.
const EVERY: Duration = Duration::from_millis(250);

/// How far a check is.
#[derive(Debug, Default)]
pub struct Progress {
    shown: AtomicBool,
    done: AtomicU64,
    line: Mutex<Option<Line>>,
}

#[derive(Debug)]
struct Line {
    stage: &'static str,
    total: u64,
    began: Instant,
    last: Option<Instant>,
    width: usize,
}

impl Progress {
    /// One that is shown.
    #[must_use]
    pub fn shown() -> Self {
        let progress = Self::default();
        progress.shown.store(true, Ordering::Relaxed);
        progress
    }

    /// A stage begins, in which there are `total` bytes to read.
    pub(crate) fn stage(&self, stage: &'static str, total: u64) {
        if !self.shown.load(Ordering::Relaxed) {
            return;
        }
        self.done.store(0, Ordering::Relaxed);
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        let width = line.as_ref().map_or(0, |line| line.width);
        *line = Some(Line {
            stage,
            total,
            began: Instant::now(),
            last: None,
            width,
        });
        drop(line);
        self.advance(0);
    }

    /// So many bytes more were read.
    pub(crate) fn advance(&self, bytes: u64) {
        if !self.shown.load(Ordering::Relaxed) {
            return;
        }
        let done = self
            .done
            .fetch_add(bytes, Ordering::Relaxed)
            .saturating_add(bytes);
        // Somebody else is printing: no matter.
        let Ok(mut line) = self.line.try_lock() else {
            return;
        };
        let Some(line) = line.as_mut() else { return };
        let now = Instant::now();
        if line
            .last
            .is_some_and(|last| now.duration_since(last) < EVERY)
        {
            return;
        }
        line.last = Some(now);
        let text = text(line.stage, done, line.total, now.duration_since(line.began));
        print(&text, &mut line.width);
    }

    /// Takes the line away.
    pub(crate) fn clear(&self) {
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mut line) = line.take() {
            print("", &mut line.width);
            let _ = std::io::stderr().write_all(b"\r");
        }
    }
}

fn print(text: &str, width: &mut usize) {
    let padded = format!("\r{text:<width$}", width = *width);
    *width = text.len();
    // Nobody has to look.
    let _ = std::io::stderr().write_all(padded.as_bytes());
}

/// One line: stage, share, bytes, rate, time left.
fn text(stage: &str, done: u64, total: u64, spent: Duration) -> String {
    let mut text = stage.to_owned();
    if total == 0 {
        return text;
    }
    let share = done
        .saturating_mul(100)
        .checked_div(total)
        .unwrap_or(0)
        .min(100);
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let seconds = spent.as_secs_f64();
    let _ = write!(text, ": {share} % of {:.0} MiB", mib(total));
    if seconds > 0.5 && done > 0 {
        let rate = done as f64 / seconds;
        let left = total.saturating_sub(done) as f64 / rate;
        let _ = write!(
            text,
            ", {:.0} MiB/s, {} left",
            mib(rate as u64),
            clock(left as u64)
        );
    }
    text
}

fn clock(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_rate_and_time_left() {
        let mib = 1 << 20;
        assert_eq!(
            text("content", 100 * mib, 400 * mib, Duration::from_secs(2)),
            "content: 25 % of 400 MiB, 50 MiB/s, 6 s left"
        );
        assert_eq!(text("index", 0, 0, Duration::from_secs(2)), "index");
        assert_eq!(clock(3_725), "1 h 2 min");
    }
}
