//! One server in one row: started on an empty folder or on a copy of a full
//! one, filled, warmed up, then measured round by round. Its failure ends its
//! side of the row and nothing else; a signal ends everything.

use crate::client::Connection;
use crate::error::{Context as _, Error, Result};
use crate::load::{self, Plan, Tally, Work};
use crate::report::{Round, Side};
use crate::rows::Row;
use crate::server::{Kind, Programs, READY_LIMIT, Server};
use crate::template::Templates;
use crate::{process, push};
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

/// Load before the first timed round.
const WARM_UP: Duration = Duration::from_millis(300);
/// Longest round of the loopback server, which varies little.
const LOOPBACK_ROUND: Duration = Duration::from_millis(500);
/// Pause after each round, so that what a server still does for it is counted
/// as its own and does not disturb the next.
const SETTLE_PAUSE: Duration = Duration::from_millis(100);

/// What all servers of a row have in common.
pub(crate) struct Setting<'a> {
    /// The row.
    pub(crate) row: &'a Row,
    /// Where the programs are.
    pub(crate) programs: &'a Programs,
    /// Folder that holds the servers' folders.
    pub(crate) root: &'a Path,
    /// What servers with a full repository start from.
    pub(crate) templates: &'a Templates,
    /// Client threads.
    pub(crate) threads: usize,
    /// Length of a round.
    pub(crate) length: Duration,
    /// Bytes that each server may store.
    pub(crate) share: u64,
}

impl Setting<'_> {
    fn plan(&self, duration: Duration) -> Plan {
        Plan {
            connections: self.row.connections,
            threads: self.threads,
            duration,
        }
    }

    /// Lets a round end in peace: what the server left in the page cache is
    /// written out now, so that the next server's round does not pay for it.
    /// Returns how long that took, for rows that store.
    fn settle(&self) -> Result<Option<Duration>> {
        let begin = Instant::now();
        if self.row.stores() {
            sync(self.root)?;
        }
        let time = begin.elapsed();
        std::thread::sleep(SETTLE_PAUSE);
        Ok(self.row.stores().then_some(time))
    }
}

/// Writes out everything the file system of `root` has in memory.
pub(crate) fn sync(root: &Path) -> Result<()> {
    let folder = File::open(root).context(|| format!("open {}", root.display()))?;
    rustix::fs::syncfs(&folder)
        .map_err(std::io::Error::from)
        .context(|| format!("sync the file system of {}", root.display()))
}

/// A server of a row, and whether its repository is full.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entrant {
    /// Which server.
    pub(crate) kind: Kind,
    /// Whether it starts from a template.
    pub(crate) populated: bool,
}

/// A filled server and its work.
struct Running {
    server: Server,
    work: Arc<Work>,
    budget: Arc<AtomicU64>,
}

/// One side of a row while it is measured.
pub(crate) struct Contender {
    running: Option<Running>,
    side: Side,
}

impl Contender {
    /// Starts, fills and warms up a server.
    pub(crate) fn start(setting: &Setting<'_>, entrant: Entrant) -> Result<Contender> {
        let mut contender = Contender {
            running: None,
            side: Side {
                server: entrant.kind,
                populated: entrant.populated,
                rounds: Vec::new(),
                median: None,
                peak_memory: None,
                error: None,
            },
        };
        match Running::start(setting, entrant) {
            Ok(running) => contender.running = Some(running),
            Err(error) => contender.fail(error)?,
        }
        Ok(contender)
    }

    /// Runs one round, unless this side has failed.
    pub(crate) fn round(&mut self, setting: &Setting<'_>) -> Result<()> {
        let Some(running) = &self.running else {
            return Ok(());
        };
        match running.round(setting) {
            Ok(done) => {
                let peak = process::memory(running.server.pid()).map(|memory| memory.peak);
                self.side.rounds.push(done);
                self.side.peak_memory = self.side.peak_memory.max(peak.ok());
                Ok(())
            }
            Err(error) => self.fail(error),
        }
    }

    fn fail(&mut self, error: Error) -> Result<()> {
        if matches!(error, Error::Interrupted) {
            return Err(error);
        }
        self.side.error = Some(error.to_string());
        self.running = None;
        Ok(())
    }

    /// Kills the server and hands over the figures.
    pub(crate) fn finish(mut self) -> Side {
        self.running = None;
        self.side.summarise();
        self.side
    }
}

impl Running {
    fn start(setting: &Setting<'_>, entrant: Entrant) -> Result<Running> {
        let Entrant { kind, populated } = entrant;
        let state = if populated { "full" } else { "empty" };
        let folder = setting.root.join(format!("{kind:?}-{state}"));
        if populated {
            setting.templates.copy(kind, &folder)?;
        }
        let server = Server::start(kind, setting.programs, &folder, READY_LIMIT)?;
        let work = Arc::new(setting.row.prepare(&server)?);
        let share = if kind.stores() {
            setting.share
        } else {
            u64::MAX
        };
        let running = Running {
            server,
            work,
            budget: Arc::new(AtomicU64::new(share)),
        };
        running.load(setting.plan(WARM_UP))?;
        setting.settle()?;
        process::reset_peak(running.server.pid());
        Ok(running)
    }

    fn load(&self, plan: Plan) -> Result<Tally> {
        load::round(&self.work, self.server.addr, plan, &self.budget)
    }

    fn round(&self, setting: &Setting<'_>) -> Result<Round> {
        let server = &self.server;
        let length = if server.kind.stores() {
            setting.length
        } else {
            setting.length.min(LOOPBACK_ROUND)
        };
        let plan = setting.plan(length);
        let (server_before, client_before) = (server.cpu_time()?, process::own_cpu_time());
        let tally = self.load(plan)?;
        let client_cpu = process::own_cpu_time().saturating_sub(client_before);
        let settle = setting.settle()?;
        let server_cpu = server.cpu_time()?.saturating_sub(server_before);
        self.verify(&tally)?;
        let seconds = tally.elapsed.as_secs_f64().max(1e-9);
        let requests = tally.latency.count();
        let threads = plan.threads.clamp(1, plan.connections) as f64;
        Ok(Round {
            requests,
            bytes: tally.bytes,
            seconds,
            rate: requests as f64 / seconds,
            bytes_per_second: tally.bytes as f64 / seconds,
            p50_ms: tally.latency.quantile(0.50) as f64 / 1e6,
            p99_ms: tally.latency.quantile(0.99) as f64 / 1e6,
            server_cpu_seconds: server_cpu.as_secs_f64(),
            client_cpu_seconds: client_cpu.as_secs_f64(),
            client_busy: client_cpu.as_secs_f64() / seconds / threads,
            settle_seconds: settle.map(|time| time.as_secs_f64()),
            cut_short: tally.cut_short,
        })
    }

    /// Reads back and compares one object that the round pushed.
    fn verify(&self, tally: &Tally) -> Result<()> {
        let Some((path, digest)) = tally.last.as_ref().filter(|_| self.server.kind.stores()) else {
            return Ok(());
        };
        load::runtime()?.block_on(async {
            let mut connection = Connection::open(self.server.addr).await?;
            push::verify(&mut connection, path, digest).await
        })
    }
}
