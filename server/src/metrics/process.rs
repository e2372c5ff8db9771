//! This process, as the system sees it, under the names that Prometheus' own
//! clients use.

use std::time::{SystemTime, UNIX_EPOCH};

use super::text::Text;

/// What is known of the process from its start on.
#[derive(Debug)]
pub struct Process {
    /// Seconds since 1970.
    started: f64,
}

impl Process {
    /// The process starts now.
    pub fn start() -> Process {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Process {
            started: since.as_secs_f64(),
        }
    }

    /// Publishes start, memory, time and open files. What the system does not
    /// tell is left out.
    pub fn write(&self, text: &mut Text) {
        text.gauge(
            "process_start_time_seconds",
            "When the process started, in seconds since 1970.",
            self.started,
        );
        if let Some(bytes) = resident() {
            text.gauge(
                "process_resident_memory_bytes",
                "Memory of the process that is in use.",
                bytes,
            );
        }
        if let Some(seconds) = processor_time() {
            text.counter(
                "process_cpu_seconds_total",
                "Processor time of all threads.",
                seconds,
            );
        }
        if let Ok(entries) = std::fs::read_dir("/proc/self/fd") {
            // The folder itself is open while it is read.
            let open = entries.count().saturating_sub(1);
            text.gauge("process_open_fds", "Files and sockets that are open.", open);
        }
        if let Some(limit) = rustix::process::getrlimit(rustix::process::Resource::Nofile).current {
            text.gauge("process_max_fds", "The most that may be open.", limit);
        }
    }
}

fn resident() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = text.split(' ').nth(1)?.parse().ok()?;
    let page = u64::try_from(rustix::param::page_size()).ok()?;
    pages.checked_mul(page)
}

#[expect(clippy::cast_precision_loss, reason = "ticks are far below 2^53")]
fn processor_time() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name in parentheses may hold spaces. User and system time are fields
    // 14 and 15, and the field after the name is the third.
    let (_, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    let ticks = rustix::param::clock_ticks_per_second() as f64;
    Some(user.checked_add(system)? as f64 / ticks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_tells_all_of_it() {
        let mut text = Text::default();
        Process::start().write(&mut text);
        let page = text.finish();
        for (name, least) in [
            ("process_start_time_seconds", 1.7e9),
            ("process_resident_memory_bytes", 1e6),
            ("process_cpu_seconds_total", 0.0),
            ("process_open_fds", 3.0),
            ("process_max_fds", 64.0),
        ] {
            let line = page.lines().find(|line| line.starts_with(name));
            let value: f64 = line.unwrap().rsplit(' ').next().unwrap().parse().unwrap();
            assert!(value >= least, "{name} {value}");
        }
    }
}
