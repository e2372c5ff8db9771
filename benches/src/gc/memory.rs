//! What a collection takes of a server's memory, apart from caches: those have
//! a bound of their own, which whoever runs the server has set, and fill by use.

use crate::client::Connection;
use crate::error::{Error, Result};
use crate::load::runtime;
use crate::process;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Gauges of memory that is a cache's.
const CACHES: [&str; 2] = ["orlop_cache_bytes", "orlop_index_memory_bytes"];
/// How often it is looked.
const LOOK: Duration = Duration::from_secs(1);
/// Longest document that is read, in bytes.
const LONGEST: u64 = 1 << 20;

/// Memory of a server while something runs.
#[derive(Debug)]
pub(crate) struct Watch {
    pid: u32,
    ops: SocketAddr,
    before: u64,
    peak: u64,
    last: Instant,
}

impl Watch {
    /// Begins with what the process has now, whose metrics are at `ops`.
    pub(crate) fn begin(pid: u32, ops: SocketAddr) -> Result<Watch> {
        let before = own(pid, ops)?;
        Ok(Watch {
            pid,
            ops,
            before,
            peak: before,
            last: Instant::now(),
        })
    }

    /// Looks at it again, unless it did just now.
    pub(crate) fn look(&mut self) -> Result<()> {
        if self.last.elapsed() >= LOOK {
            self.peak = self.peak.max(own(self.pid, self.ops)?);
            self.last = Instant::now();
        }
        Ok(())
    }

    /// Without caches: before, and the most that was seen since, in bytes.
    pub(crate) fn end(mut self) -> Result<(u64, u64)> {
        self.peak = self.peak.max(own(self.pid, self.ops)?);
        Ok((self.before, self.peak))
    }
}

/// Resident memory without caches, in bytes.
fn own(pid: u32, ops: SocketAddr) -> Result<u64> {
    let text = runtime()?.block_on(async {
        let mut connection = Connection::open(ops).await?;
        let request = b"GET /metrics HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n";
        connection.send(&[request]).await?;
        let head = connection.receive_head().await?;
        if head.status != 200 || head.length > LONGEST {
            let (status, length) = (head.status, head.length);
            return Err(Error::Answer(format!(
                "GET /metrics was answered with {status} and {length} bytes"
            )));
        }
        let mut body = Vec::new();
        let sink = |part: &[u8]| body.extend_from_slice(part);
        connection.read_body(head.length, sink).await?;
        Ok::<_, Error>(String::from_utf8_lossy(&body).into_owned())
    })?;
    let caches = CACHES
        .into_iter()
        .map(|name| {
            gauge(&text, name).ok_or_else(|| Error::Answer(format!("/metrics has no {name}")))
        })
        .sum::<Result<u64>>()?;
    let resident = process::memory(pid)?.resident;
    Ok(resident.saturating_sub(caches))
}

/// The value of a gauge without labels.
fn gauge(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| {
        let (of, value) = line.split_once(' ')?;
        (of == name).then_some(value)
    })?;
    value.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gauge_is_found_by_its_whole_name() {
        let text = "# HELP a b\na_total 3\na 17\nb{c=\"d\"} 4\n";
        assert_eq!(gauge(text, "a"), Some(17));
        assert_eq!(gauge(text, "a_"), None);
        assert_eq!(gauge(text, "b"), None);
    }
}
