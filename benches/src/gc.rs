//! `orlop-bench gc`: how long collections take, and what they cost pulls and
//! pushes beside them.
//!
//! A store is filled through the registry protocol and half of it deleted,
//! once. Each pair then starts two servers on copies of it and waits for the
//! lease that everything has after a start. One collects beside load, the
//! other, which idles so far, alone behind it. What a collection says that it
//! did is compared with what there was to do, and images are pulled that have
//! to be there and looked for that have to be gone.

mod foreground;
mod memory;
mod offline;
pub(crate) mod report;
mod shape;
mod store;

use crate::document::{SCHEMA, Skipped};
use crate::error::{Context as _, Error, Result};
use crate::machine::{self, Machine};
use crate::server::{self, DATA, Kind, Programs, Server};
use crate::{contender, copy, process, quick, stop};
use foreground::{PULLS, PUSHES, Traffic};
use memory::Watch;
use report::{Collection, GcReport, Offline, Outcome, Pair};
use shape::{Counts, Shape};
use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};
use store::Filled;

/// The shortest lease that a server can be told. Everything has it after a
/// start.
const LEASE: Duration = Duration::from_secs(60);
/// What is waited longer than that.
const MARGIN: Duration = Duration::from_secs(1);
/// Longest wait for a start.
const START_LIMIT: Duration = Duration::from_secs(600);
/// How often it is looked whether a collection has ended.
const LOOK: Duration = Duration::from_millis(10);
/// Space an image takes, for the look at the disk.
const SPACE: u64 = 8 * 1024;
/// Space an image takes in a peer.
const PEER_SPACE: u64 = 128 * 1024;
/// Images of the store that the goals are meant for.
const GOALS_FOR: u64 = 1_000_000;
/// Bytes of one block as `stat` counts them.
const STAT_BLOCK: u64 = 512;

/// What `gc` is asked to do.
#[derive(Debug)]
pub(crate) struct Gc {
    /// Where the programs are.
    pub(crate) programs: Programs,
    /// Which server.
    pub(crate) kind: Kind,
    /// Folder that holds the data of the run.
    pub(crate) root: PathBuf,
    /// Images to push.
    pub(crate) manifests: u64,
    /// Images to push to a peer; 0 for none.
    pub(crate) peer_manifests: u64,
    /// Pairs of collections.
    pub(crate) pairs: usize,
    /// Time after which a collection leaves the rest, in seconds.
    pub(crate) limit: Option<u64>,
    /// Length of the load before a collection, in seconds.
    pub(crate) seconds: f64,
    /// Most that the pushes of a pair may store, in bytes.
    pub(crate) max_disk: u64,
    /// Folder of a filled store that stays there.
    pub(crate) store: Option<PathBuf>,
}

impl Gc {
    /// Fills, deletes and collects; returns the figures.
    pub(crate) fn run(&self) -> Result<GcReport> {
        let full = self.store.clone();
        let full = full.unwrap_or_else(|| self.root.join("full"));
        let filled = Filled::read(&full, self.manifests)?;
        // Two copies, and their growth; the store itself where it is not there.
        let need = match &filled {
            Some(filled) => filled.disk_bytes * 5 / 2,
            None => 3 * self.manifests * SPACE,
        };
        let need = need.max(self.peer_manifests * PEER_SPACE);
        machine::want_space(&self.root, need, "gc", "--manifests")?;
        let machine = Machine::read(&self.root)?;
        let versions = quick::versions(&self.programs);
        let filled = match filled {
            Some(filled) => filled,
            None => self.fill(&full)?,
        };
        let shape = filled.shape;
        let counts = shape.counts();

        let (mut pairs, mut verified) = (Vec::new(), 0);
        for number in 1..=self.pairs {
            eprintln!("orlop-bench: pair {number} of {} …", self.pairs);
            let (pair, looked_at) = self.pair(&full, shape, counts)?;
            pairs.push(pair);
            verified = looked_at;
        }
        if self.store.is_none() {
            remove(&full)?;
        }
        let peers = self.peers()?;
        Ok(GcReport {
            schema: SCHEMA,
            kind: "gc",
            machine,
            versions,
            server: self.kind,
            counts,
            goals_for: GOALS_FOR,
            fill_seconds: filled.fill_seconds,
            delete_seconds: filled.delete_seconds,
            disk_bytes: filled.disk_bytes,
            lease_seconds: LEASE.as_secs(),
            quiet_seconds: self.seconds,
            pull_connections: PULLS,
            push_connections: PUSHES,
            goals: report::goals(&pairs),
            pairs,
            verified,
            offline: peers.offline,
            skipped: peers.skipped,
            failed: peers.failed,
        })
    }

    /// Fills a store and deletes half of it.
    fn fill(&self, full: &Path) -> Result<Filled> {
        let shape = Shape::new(self.manifests);
        let (server, _) = self.start(full)?;
        let (fill_seconds, delete_seconds) = shape.make(&server)?;
        server.stop()?;
        let filled = Filled {
            shape,
            fill_seconds,
            delete_seconds,
            disk_bytes: disk_bytes(&full.join(DATA))?,
        };
        filled.write(full)?;
        Ok(filled)
    }

    /// A server that collects only when told to, with the shortest lease, and
    /// where its metrics are.
    fn start(&self, folder: &Path) -> Result<(Server, SocketAddr)> {
        let lease = format!("{}s", LEASE.as_secs());
        let ops = server::free_address()?;
        let mut arguments: Vec<String> = [
            "--ops-listen",
            &ops.to_string(),
            "--gc-lease",
            &lease,
            "--gc-schedule",
            "off",
            "--scrub-schedule",
            "off",
        ]
        .map(str::to_owned)
        .into();
        if let Some(limit) = self.limit {
            arguments.extend(["--gc-limit".to_owned(), format!("{limit}s")]);
        }
        let server =
            Server::start_with(self.kind, &self.programs, folder, START_LIMIT, &arguments)?;
        Ok((server, ops))
    }

    fn pair(&self, full: &Path, shape: Shape, counts: Counts) -> Result<(Pair, u64)> {
        let (beside, alone) = (self.root.join("beside"), self.root.join("alone"));
        for folder in [&beside, &alone] {
            copy::folder(&full.join(DATA), &folder.join(DATA))?;
        }
        contender::sync(&self.root)?;
        let (loaded, loaded_ops) = self.start(&beside)?;
        let (idle, idle_ops) = self.start(&alone)?;
        let ready = Instant::now();
        let traffic = Traffic::prepare(&loaded, shape, self.max_disk)?;
        // The load without a collection runs right before that with one.
        let length = Duration::from_secs_f64(self.seconds);
        wait_until(ready + (LEASE + MARGIN).saturating_sub(length))?;
        let quiet = traffic.during(&loaded, length)?;
        let (beside_load, first) = traffic.beside(&loaded, || {
            let watch = Watch::begin(loaded.pid(), loaded_ops)?;
            self.collect(&loaded, &beside, counts, watch)
        })?;
        shape.verify(&loaded, !first.outcome.cut)?;
        loaded.stop()?;
        contender::sync(&self.root)?;
        let watch = Watch::begin(idle.pid(), idle_ops)?;
        let second = self.collect(&idle, &alone, counts, watch)?;
        let verified = shape.verify(&idle, !second.outcome.cut)?;
        idle.stop()?;
        remove(&beside)?;
        remove(&alone)?;
        let pair = Pair {
            quiet,
            beside: beside_load,
            loaded: first,
            alone: second,
        };
        Ok((pair, verified))
    }

    /// Collects all there is, as an operator would.
    fn collect(
        &self,
        server: &Server,
        folder: &Path,
        counts: Counts,
        mut watch: Watch,
    ) -> Result<Collection> {
        let path = folder.join("gc.json");
        let answer = File::create(&path).context(|| format!("create {}", path.display()))?;
        let program = &self.programs.orlop;
        let mut command = server::bare(program);
        command.args(["gc", "run", "--wait", "--undelete-window", "0s"]);
        command.args(["--output", "json", "--data"]);
        command.arg(folder.join(DATA));
        command.stdin(Stdio::null()).stdout(answer);
        let before = process::memory(server.pid())?.resident;
        process::reset_peak(server.pid());
        let cpu = server.cpu_time()?;
        let begin = Instant::now();
        let mut child = command
            .spawn()
            .context(|| format!("start {}", program.display()))?;
        let ended = loop {
            let ended = child.try_wait();
            if let Some(status) = ended.context(|| "wait for a collection".to_owned())? {
                break status;
            }
            if stop::asked() {
                // Fails only when it has ended, which is what is wanted.
                child.kill().ok();
                child.wait().ok();
                return Err(Error::Interrupted);
            }
            watch.look()?;
            std::thread::sleep(LOOK);
        };
        let seconds = begin.elapsed().as_secs_f64();
        let cpu = server.cpu_time()?.saturating_sub(cpu);
        let peak = process::memory(server.pid())?.peak;
        let (own_before, own_peak) = watch.end()?;
        let text = fs::read_to_string(&path).context(|| format!("read {}", path.display()))?;
        if !ended.success() {
            let message = format!("`orlop gc run` ended with {ended}: {}", text.trim());
            return Err(Error::Server(message));
        }
        let outcome = outcome(&text)?;
        check(&outcome, counts)?;
        let mark = outcome.mark_ms.iter().copied().max().unwrap_or(0);
        Ok(Collection {
            seconds,
            mark_seconds: mark as f64 / 1e3,
            deaths_per_minute: outcome.dead as f64 / seconds.max(1e-9) * 60.0,
            before,
            peak,
            own_before,
            own_peak,
            server_cpu_seconds: cpu.as_secs_f64(),
            outcome,
        })
    }

    /// The collectors of the peers that are there.
    fn peers(&self) -> Result<Peers> {
        let mut peers = Peers::default();
        let kinds = [Kind::Registry, Kind::Registry3];
        for server in kinds.into_iter().filter(|_| self.peer_manifests > 0) {
            let why = |error: Error| Skipped {
                server,
                reason: error.to_string(),
            };
            if let Err(error) = self.programs.find(server) {
                peers.skipped.push(why(error));
                continue;
            }
            eprintln!("orlop-bench: {} …", server.label());
            let folder = self.root.join(format!("{server:?}"));
            let shape = Shape::new(self.peer_manifests);
            match offline::measure(server, &self.programs, &folder, shape) {
                Ok(measured) => peers.offline.push(measured),
                Err(Error::Interrupted) => return Err(Error::Interrupted),
                Err(error) => peers.failed.push(why(error)),
            }
            remove(&folder)?;
        }
        Ok(peers)
    }
}

/// What came of the peers.
#[derive(Default)]
struct Peers {
    offline: Vec<Offline>,
    skipped: Vec<Skipped>,
    failed: Vec<Skipped>,
}

/// What the command's document says of the collection.
fn outcome(text: &str) -> Result<Outcome> {
    let wrong = |why: &dyn std::fmt::Display| {
        Error::Answer(format!(
            "`orlop gc run` printed no outcome that this program reads ({why}): {}",
            text.trim()
        ))
    };
    let mut document: serde_json::Value =
        serde_json::from_str(text).map_err(|error| wrong(&error))?;
    let outcome = document.get_mut("outcome").map(serde_json::Value::take);
    serde_json::from_value(outcome.unwrap_or_default()).map_err(|error| wrong(&error))
}

/// Whether all garbage died, and nothing else; of one that was cut, whether no
/// more did.
fn check(outcome: &Outcome, counts: Counts) -> Result<()> {
    let [_, manifests, ..] = outcome.purged;
    let done = (manifests, outcome.dead, outcome.absent);
    let is_less =
        manifests <= counts.deleted && outcome.dead <= counts.garbage && outcome.absent == 0;
    if done == (counts.deleted, counts.garbage, 0) || (outcome.cut && is_less) {
        return Ok(());
    }
    Err(Error::Server(format!(
        "a collection purged {manifests} manifests and {} blobs died, {} are missing, {} were \
         held; {} manifests had been deleted and {} blobs were garbage",
        outcome.dead, outcome.absent, outcome.held, counts.deleted, counts.garbage
    )))
}

fn wait_until(time: Instant) -> Result<()> {
    while Instant::now() < time {
        stop::check()?;
        std::thread::sleep(LOOK);
    }
    Ok(())
}

fn remove(folder: &Path) -> Result<()> {
    fs::remove_dir_all(folder).context(|| format!("delete {}", folder.display()))
}

/// What the files in `folder` take, as the file system counts.
fn disk_bytes(folder: &Path) -> Result<u64> {
    let mut bytes = 0;
    let entries = fs::read_dir(folder).context(|| format!("list {}", folder.display()))?;
    for entry in entries {
        let entry = entry.context(|| format!("list {}", folder.display()))?;
        let path = entry.path();
        let metadata = entry.metadata();
        let metadata = metadata.context(|| format!("look at {}", path.display()))?;
        bytes += if metadata.is_dir() {
            disk_bytes(&path)?
        } else {
            metadata.blocks() * STAT_BLOCK
        };
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const COUNTS: Counts = Counts {
        manifests: 4,
        blobs: 11,
        repositories: 1,
        deleted: 2,
        garbage: 7,
    };

    fn document(manifests: u64, dead: u64, absent: u64) -> String {
        format!(
            r#"{{"data":"/d","job":null,"outcome":{{"purged":[0,{manifests},2,0],"retired":0,
            "cycles":2,"blobs":15,"live":8,"absent":{absent},"held":0,"condemned":0,
            "condemned_bytes":0,"dead":{dead},"dead_bytes":9,"bounded":0,
            "purge_ms":1,"mark_ms":[2,3],"sweep_ms":[4,5]}},"log":[]}}"#
        )
    }

    #[test]
    fn a_collection_that_did_less_or_more_than_there_was_is_an_error() {
        let good = outcome(&document(2, 7, 0)).unwrap();
        assert_eq!(good.mark_ms, [2, 3]);
        check(&good, COUNTS).unwrap();
        for (manifests, dead, absent) in [(1, 7, 0), (2, 6, 0), (2, 8, 0), (2, 7, 1)] {
            let other = outcome(&document(manifests, dead, absent)).unwrap();
            assert!(check(&other, COUNTS).is_err());
            let cut = Outcome { cut: true, ..other };
            let is_less = (manifests, dead, absent) <= (2, 7, 0) && absent == 0 && dead <= 7;
            assert_eq!(check(&cut, COUNTS).is_ok(), is_less);
        }
    }

    #[test]
    fn what_is_no_outcome_is_shown() {
        for text in [
            "",
            "{}",
            r#"{"outcome":null}"#,
            r#"{"outcome":{"idle":true}}"#,
        ] {
            let error = outcome(text).unwrap_err().to_string();
            assert!(error.ends_with(text), "{error}");
        }
    }
}
