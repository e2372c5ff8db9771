//! What the kernel counts of a process: CPU time and resident memory, read
//! from `/proc`. Only Linux has it.

use crate::error::{Context as _, Error, Result};
use std::fs;
use std::time::Duration;

/// Resident memory of a process, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Memory {
    /// Resident now (VmRSS), file pages of the binary included.
    pub(crate) resident: u64,
    /// The part of it that is the process's own (RssAnon).
    pub(crate) anonymous: u64,
    /// Greatest since the start or the last [`reset_peak`] (VmHWM).
    pub(crate) peak: u64,
}

/// CPU time used by all threads of `pid`, user and system, in steps of the
/// kernel's clock tick (10 ms as a rule).
pub(crate) fn cpu_time(pid: u32) -> Result<Duration> {
    let path = format!("/proc/{pid}/stat");
    let stat = fs::read_to_string(&path).context(|| format!("read {path}"))?;
    let ticks = parse_stat(&stat)
        .ok_or_else(|| Error::Server(format!("{path} has no CPU times where they are expected")))?;
    let per_second = rustix::param::clock_ticks_per_second().max(1);
    Ok(Duration::from_secs_f64(ticks as f64 / per_second as f64))
}

/// CPU time used by this process, to the nanosecond.
pub(crate) fn own_cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// User and system ticks of a `/proc/PID/stat` line. The command's name may
/// hold spaces and brackets, so fields are counted from the last bracket.
fn parse_stat(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// Resident memory of `pid`.
pub(crate) fn memory(pid: u32) -> Result<Memory> {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).context(|| format!("read {path}"))?;
    parse_memory(&status)
        .ok_or_else(|| Error::Server(format!("{path} has no VmRSS; has the process ended?")))
}

fn parse_memory(status: &str) -> Option<Memory> {
    let field = |name: &str| -> Option<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(kib * 1024)
    };
    Some(Memory {
        resident: field("VmRSS:")?,
        anonymous: field("RssAnon:")?,
        peak: field("VmHWM:")?,
    })
}

/// Starts the peak anew from what is resident now. Best effort: where it is
/// not allowed the peak goes back to the start of the process.
pub(crate) fn reset_peak(pid: u32) -> bool {
    fs::write(format!("/proc/{pid}/clear_refs"), "5").is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_behind_a_hostile_name() {
        let stat = "42 (a) b (c)) S 1 2 3 4 5 6 7 8 9 10 111 222 13 14 20 0";
        assert_eq!(parse_stat(stat), Some(333));
        assert_eq!(parse_stat("42 (a) S 1 2 3"), None);
        assert_eq!(parse_stat(""), None);
    }

    #[test]
    fn memory_fields() {
        let status = "Name:\tx\nVmHWM:\t    3000 kB\nVmRSS:\t    2000 kB\nRssAnon:\t 500 kB\n";
        assert_eq!(
            parse_memory(status),
            Some(Memory {
                resident: 2000 * 1024,
                anonymous: 500 * 1024,
                peak: 3000 * 1024
            })
        );
        assert_eq!(parse_memory("VmRSS:\t1 kB\n"), None);
    }

    #[test]
    fn the_kernel_counts_this_process() {
        let before = own_cpu_time();
        let mut sum = 0_u64;
        while own_cpu_time() < before + Duration::from_millis(60) {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        let pid = std::process::id();
        assert!(cpu_time(pid).unwrap() >= Duration::from_millis(40));
        let memory = memory(pid).unwrap();
        assert!(memory.resident > 0 && memory.anonymous <= memory.resident);
    }
}
