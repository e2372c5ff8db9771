//! `orlop-bench quick`: every row, all servers side by side.
//!
//! A row starts its servers on empty folders, and if asked to the same once
//! more on full ones; it fills them, warms them up, runs rounds in turns, and
//! deletes everything. While one server is measured the others run without
//! requests.

use crate::contender::{self, Contender, Entrant, Setting};
use crate::document::{Idle, QuickReport, QuickSettings, SCHEMA, Skipped, Versions};
use crate::error::{Context as _, Error, Result};
use crate::machine::{self, Machine};
use crate::report::{RowReport, Side};
use crate::rows::{ROWS, Row};
use crate::server::{Kind, Programs, READY_LIMIT, Server};
use crate::template::Templates;
use crate::{process, stop, table};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a fresh server is left alone before its memory is read.
const IDLE_PAUSE: Duration = Duration::from_secs(2);
/// What a server takes in a row beside its rounds, in seconds, for keeping to
/// the time limit.
const OVERHEAD: f64 = 1.5;
/// Rounds are never cut below this, in seconds.
const SHORTEST: f64 = 0.3;
/// A load average above this part of the cores at the start is noted.
const BUSY: f64 = 0.5;

/// What `quick` is asked to do.
#[derive(Debug)]
pub(crate) struct Quick {
    /// Where the programs are.
    pub(crate) programs: Programs,
    /// Servers to measure.
    pub(crate) kinds: Vec<Kind>,
    /// Rows whose name holds one of these; all when empty.
    pub(crate) rows: Vec<String>,
    /// Folder that holds the data of the run.
    pub(crate) root: PathBuf,
    /// How to run.
    pub(crate) settings: QuickSettings,
    /// Whether rows are printed when they are done.
    pub(crate) print: bool,
}

impl Quick {
    /// Runs everything. A row or server that fails is reported as such; only
    /// what makes the whole run pointless is an error.
    pub(crate) fn run(&self) -> Result<QuickReport> {
        let begin = Instant::now();
        let rows = self.chosen_rows()?;
        let mut report = QuickReport {
            schema: SCHEMA,
            kind: "quick",
            machine: Machine::read(&self.root)?,
            versions: versions(&self.programs),
            settings: self.settings.clone(),
            notes: Vec::new(),
            skipped: Vec::new(),
            idle: Vec::new(),
            filled: Vec::new(),
            rows: Vec::new(),
            seconds: 0.0,
        };
        self.show(&table::heading(&report.machine, &report.versions));
        let kinds = self.idle(&mut report)?;
        self.show(&table::idle(&report.idle));
        let (entrants, templates) = self.fill(&kinds, &mut report)?;
        self.show(&table::filled(&report.filled));
        let storing = entrants.iter().filter(|one| one.kind.stores()).count();
        for (number, row) in rows.iter().enumerate() {
            stop::check()?;
            eprintln!("orlop-bench: {} …", row.name);
            let rows_left = (rows.len() - number) as f64;
            let left = self.settings.limit - begin.elapsed().as_secs_f64();
            let rounds = self.settings.rounds * storing;
            let fitting = left / rows_left - OVERHEAD * entrants.len() as f64;
            let length = round_length(fitting, rounds, self.settings.seconds);
            let done = self.row(row, &entrants, &templates, length)?;
            self.show(&table::row(&done));
            report.rows.push(done);
        }
        report.notes = notes(&report);
        report.seconds = begin.elapsed().as_secs_f64();
        self.show(&table::closing(&report));
        Ok(report)
    }

    fn chosen_rows(&self) -> Result<Vec<&'static Row>> {
        let wanted = |row: &&Row| {
            let name = row.name.to_lowercase();
            self.rows.is_empty()
                || self
                    .rows
                    .iter()
                    .any(|part| name.contains(&part.to_lowercase()))
        };
        let rows: Vec<&Row> = ROWS.iter().filter(wanted).collect();
        if rows.is_empty() {
            let names: Vec<&str> = ROWS.iter().map(|row| row.name).collect();
            return Err(Error::Usage(format!(
                "--rows matches no row; rows are: {}",
                names.join(", ")
            )));
        }
        Ok(rows)
    }

    /// Reads the memory of fresh servers; those that do not start are skipped
    /// for the whole run.
    fn idle(&self, report: &mut QuickReport) -> Result<Vec<Kind>> {
        let mut servers = Vec::new();
        for kind in self.kinds.iter().copied() {
            let folder = self.scratch().join(format!("idle-{kind:?}"));
            match Server::start(kind, &self.programs, &folder, READY_LIMIT) {
                Ok(server) => servers.push(server),
                Err(Error::Interrupted) => return Err(Error::Interrupted),
                Err(error) => report.skipped.push(Skipped {
                    server: kind,
                    reason: error.to_string(),
                }),
            }
        }
        if servers.is_empty() {
            let reasons: Vec<String> = report
                .skipped
                .iter()
                .map(|skipped| format!("{}: {}", skipped.server.label(), skipped.reason))
                .collect();
            return Err(Error::Server(format!(
                "no server could be started\n{}",
                reasons.join("\n")
            )));
        }
        std::thread::sleep(IDLE_PAUSE);
        for server in &servers {
            report.idle.push(Idle {
                server: server.kind,
                memory: process::memory(server.pid())?,
                start_seconds: server.start_time.as_secs_f64(),
            });
        }
        let kinds = servers.iter().map(|server| server.kind).collect();
        drop(servers);
        self.clear()?;
        Ok(kinds)
    }

    /// Who takes part in the rows, and what full servers start from.
    fn fill(&self, kinds: &[Kind], report: &mut QuickReport) -> Result<(Vec<Entrant>, Templates)> {
        let mut templates = Templates::default();
        if let Some(populations) = self.settings.populated {
            let root = self.root.join("full");
            let population = |kind| populations.of(kind);
            (templates, report.filled) = Templates::make(&self.programs, &root, kinds, population)?;
        }
        let is_populated = self.settings.populated.is_some();
        let mut entrants = Vec::new();
        for kind in kinds.iter().copied() {
            entrants.push(Entrant {
                kind,
                populated: false,
            });
            if is_populated && kind.stores() {
                entrants.push(Entrant {
                    kind,
                    populated: true,
                });
            }
        }
        Ok((entrants, templates))
    }

    fn row(
        &self,
        row: &Row,
        entrants: &[Entrant],
        templates: &Templates,
        length: f64,
    ) -> Result<RowReport> {
        let storing = entrants.iter().filter(|one| one.kind.stores()).count();
        let root = self.scratch();
        let setting = Setting {
            row,
            programs: &self.programs,
            root: &root,
            templates,
            threads: self.settings.client_threads,
            length: Duration::from_secs_f64(length),
            share: self.guard(row, storing)?,
        };
        let mut contenders: Vec<Contender> = Vec::new();
        for entrant in entrants {
            contenders.push(Contender::start(&setting, *entrant)?);
        }
        for round in 0..self.settings.rounds {
            // There and back, so that no server always follows the same one.
            let mut order: Vec<&mut Contender> = contenders.iter_mut().collect();
            if round % 2 == 1 {
                order.reverse();
            }
            for contender in order {
                stop::check()?;
                contender.round(&setting)?;
            }
        }
        let sides = contenders.into_iter().map(Contender::finish).collect();
        self.clear()?;
        let mut report = RowReport {
            name: row.name,
            connections: row.connections,
            objects: row.objects,
            cpu_per_gb: row.cpu_per_gb(),
            sides,
            comparisons: Vec::new(),
        };
        report.compare();
        Ok(report)
    }

    /// Bytes each server may store in this row, after a look at the disk.
    fn guard(&self, row: &Row, storing: usize) -> Result<u64> {
        if storing > 0 {
            let need = if row.stores() {
                self.settings.max_disk
            } else {
                0
            };
            let what = format!("the row `{}`", row.name);
            machine::want_space(&self.root, need, &what, "--max-disk")?;
        }
        Ok(self.settings.max_disk / storing.max(1) as u64)
    }

    /// Folder of the data of a row.
    fn scratch(&self) -> PathBuf {
        self.root.join("row")
    }

    /// Deletes the data of all servers of a row; none may run.
    fn clear(&self) -> Result<()> {
        let path = self.scratch();
        fs::remove_dir_all(&path).context(|| format!("delete {}", path.display()))?;
        contender::sync(&self.root)
    }

    fn show(&self, text: &str) {
        if self.print {
            print!("{text}");
        }
    }
}

/// Length of a round in seconds: `wanted`, or less so that `rounds` of them
/// fit into `left` seconds.
fn round_length(left: f64, rounds: usize, wanted: f64) -> f64 {
    (left / rounds.max(1) as f64).max(SHORTEST).min(wanted)
}

/// Versions as the programs tell them.
pub(crate) fn versions(programs: &Programs) -> Versions {
    let ask = |path: &Path, argument: &str| machine::version_line(path, &[argument]);
    Versions {
        bench: env!("CARGO_PKG_VERSION"),
        orlop: ask(&programs.orlop, "version"),
        registry: ask(&programs.registry, "--version"),
        registry3: ask(&programs.registry3, "--version"),
    }
}

/// What limits the figures of this run.
fn notes(report: &QuickReport) -> Vec<String> {
    let mut notes = vec![
        format!(
            "client and servers share {} cores over loopback; absolute figures are lower than \
             with a client of its own, ratios are what counts",
            report.machine.cores
        ),
        "an answered push to orlop is durable; docker-registry syncs the contents of its files, \
         not the folders that name them"
            .to_owned(),
    ];
    if let Some(full) = report.settings.populated {
        let (ours, peers) = (full.orlop, full.peers);
        notes.push(format!(
            "full means {} manifests and {} tags in the rows' repository, for peers {} and {}",
            ours.manifests, ours.tags, peers.manifests, peers.tags
        ));
    }
    let cores = report.machine.cores as f64;
    if let Some(load) = report.machine.load.filter(|load| *load > BUSY * cores) {
        notes.push(format!(
            "the machine was busy (load {load:.2} at the start): repeat this on a quiet one"
        ));
    }
    let full = |row: &&RowReport| {
        let busy = |side: &Side| side.median.as_ref().is_some_and(|m| m.client_busy > 0.95);
        row.sides.iter().any(busy)
    };
    let bound: Vec<&str> = report
        .rows
        .iter()
        .filter(full)
        .map(|row| row.name)
        .collect();
    if !bound.is_empty() {
        notes.push(format!(
            "the client's threads were the limit of at least one server in: {}",
            bound.join(", ")
        ));
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_get_shorter_when_time_runs_out() {
        assert_eq!(round_length(1000.0, 9, 2.0), 2.0);
        assert_eq!(round_length(1000.0, 0, 2.0), 2.0);
        assert_eq!(round_length(9.0, 9, 2.0), 1.0);
        assert_eq!(round_length(-5.0, 9, 2.0), SHORTEST);
        assert_eq!(round_length(-5.0, 9, 0.1), 0.1);
    }
}
