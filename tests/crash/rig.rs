//! One server under the oracle's load: loads, ends, starts again, compares.
//!
//! Owns: the oracle's process and its journal, the choice of moments, and the
//! message with which a failure is played again.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use orlop_tests::client::Client;
use orlop_tests::oracle::journal::{self, Journal};
use orlop_tests::oracle::model::Model;
use orlop_tests::place;
use orlop_tests::random::Random;
use orlop_tests::server::{Server, Setup};
use orlop_tests::tools;
use tempfile::TempDir;

use crate::verify::{Found, verify};

/// Set it to have the choices of a failed run again.
pub(crate) const SEED: &str = "ORLOP_CRASH_SEED";
/// A start takes no longer, whatever came before, also on a machine that is busy.
pub(crate) const START: Duration = Duration::from_secs(15);
/// How long the oracle may take to see that its server is gone.
const ORACLE: Duration = Duration::from_secs(60);
/// How long a counter may take to get as far as a moment wants.
const MOMENT: Duration = Duration::from_secs(3);
/// Small blobs that fill what the journal keeps before it is recycled, but for
/// a little.
const FILL: u64 = 2_950;
/// Threads of the oracle.
const THREADS: u64 = 4;

/// The seed of this run: of [`SEED`], or of the clock. Prints how it is played
/// again.
pub(crate) fn seed(test: &str) -> u64 {
    let set = std::env::var(SEED).ok();
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_millis());
    let clock = u64::try_from(now % 1_000_000_000).unwrap_or(0);
    let seed = set.map_or(clock, |text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{SEED}={text} is not a number"))
    });
    println!("{}", replay(test, seed));
    seed
}

fn replay(test: &str, seed: u64) -> String {
    let size = std::env::var(orlop_figures::SIZE).unwrap_or_else(|_| "quick".to_owned());
    format!(
        "again: {SEED}={seed} {}={size} ./x cargo test -p orlop-tests --test crash -- --exact {test} --nocapture",
        orlop_figures::SIZE
    )
}

/// When the server is ended.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Moment {
    /// After this time of load.
    After(Duration),
    /// At once when this counter of `/metrics` has grown by so much.
    Counter(&'static str, u64),
}

impl Moment {
    /// One of them; a counter of the work that a start has to look at again.
    pub(crate) fn any(random: &mut Random) -> Moment {
        if random.percent(40) {
            return Moment::After(Duration::from_millis(60 + random.below(900)));
        }
        let (name, most) = *random
            .one(&[
                ("orlop_journal_groups_total", 300),
                ("orlop_journal_records_total", 600),
                ("orlop_catalog_commits_total", 150),
                ("orlop_disk_extent_bytes_total", 40_000_000),
                ("orlop_blob_mounts_total", 12),
                ("orlop_journal_recycled_total", 1),
            ])
            .expect("a counter");
        Moment::Counter(name, 1 + random.below(most))
    }
}

/// A server, its oracle, and what was found so far.
pub(crate) struct Rig {
    /// The server.
    pub(crate) server: Server,
    /// The choices.
    pub(crate) random: Random,
    test: &'static str,
    seed: u64,
    ops: Client,
    folder: TempDir,
    /// What the journal was filled with.
    filled: Option<Model>,
    since: usize,
    rounds: u64,
    notes: Vec<String>,
}

impl Rig {
    /// A fresh server with these settings.
    pub(crate) fn start(test: &'static str, seed: u64, setup: Setup) -> Rig {
        let port = place::port();
        let address = format!("127.0.0.1:{port}");
        let server = setup
            .env("ORLOP_OPS_LISTEN", &address)
            .env("ORLOP_LOG_LEVEL", "info,access=off")
            .start();
        Rig {
            server,
            random: Random::new(seed),
            test,
            seed,
            ops: Client::new(address.parse().expect("an address")),
            folder: place::dir(),
            filled: None,
            since: 0,
            rounds: 0,
            notes: Vec::new(),
        }
    }

    /// The oracle's journal.
    fn journal(&self) -> PathBuf {
        self.folder.path().join("oracle.journal")
    }

    /// Fails the test, saying how it is played again.
    #[track_caller]
    pub(crate) fn fail(&self, what: &str) -> ! {
        panic!(
            "round {} of seed {}, {}: {what}\n{}",
            self.rounds,
            self.seed,
            self.notes.join(", then "),
            replay(self.test, self.seed)
        )
    }

    /// Says with the next failure what was done.
    pub(crate) fn note(&mut self, what: String) {
        self.notes.push(what);
    }

    /// A value of `/metrics`.
    pub(crate) fn metric(&self, name: &str) -> Option<u64> {
        let reply = self.ops.try_call("GET", "/metrics", &[], "").ok()?;
        let text = String::from_utf8_lossy(&reply.body).into_owned();
        let line = text.lines().find(|line| {
            let rest = line.strip_prefix(name);
            rest.is_some_and(|rest| rest.starts_with(' '))
        })?;
        line.rsplit(' ').next()?.parse().ok()
    }

    /// Starts the oracle.
    pub(crate) fn load(&mut self) -> Oracle {
        self.notes.clear();
        self.rounds += 1;
        let child = self
            .oracle(&self.journal())
            .spawn()
            .expect("start the oracle");
        Oracle(child)
    }

    fn oracle(&self, journal: &Path) -> Command {
        let seed = Random::part(self.seed, self.rounds).any();
        let mut command = Command::new(env!("CARGO_BIN_EXE_orlop-oracle"));
        command
            .arg(self.server.address().to_string())
            .arg(journal)
            .arg(seed.to_string())
            .arg(THREADS.to_string())
            .stdin(Stdio::null());
        command
    }

    /// Fills the journal so far that the load which follows has it recycled.
    pub(crate) fn fill(&mut self) {
        let journal = self.folder.path().join("fill.journal");
        let status = self.oracle(&journal).arg(FILL.to_string()).status();
        if !status.is_ok_and(|status| status.success()) {
            self.fail("the journal could not be filled");
        }
        self.filled = Some(Model::of(&journal::read(&journal)));
    }

    /// Waits until a moment has come.
    pub(crate) fn wait(&self, moment: Moment) {
        match moment {
            Moment::After(time) => std::thread::sleep(time),
            Moment::Counter(name, by) => {
                let began = Instant::now();
                let from = self.metric(name).unwrap_or(0);
                while began.elapsed() < MOMENT {
                    match self.metric(name) {
                        Some(now) if now < from + by => {}
                        _ => return,
                    }
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
        }
    }

    /// Loads, and kills at a moment of the rig's choice.
    pub(crate) fn kill_under_load(&mut self) {
        let oracle = self.load();
        let moment = Moment::any(&mut self.random);
        self.note(format!("{moment:?}"));
        self.wait(moment);
        self.server.kill();
        let wrong = oracle.end();
        let refused = self.answers_were_right(wrong).refused;
        if !refused.is_empty() {
            self.fail(&format!("refused before any kill: {refused:?}"));
        }
    }

    /// Fails if the oracle had an answer that must never be.
    pub(crate) fn answers_were_right(&self, wrong: bool) -> Model {
        let model = self.model();
        if wrong || !model.wrong.is_empty() {
            self.fail(&format!("wrong answers: {:#?}", model.wrong));
        }
        model
    }

    /// Starts again, within the time that a start may take.
    pub(crate) fn start_again(&mut self) {
        let began = Instant::now();
        self.server.start_again();
        let took = began.elapsed();
        if took > START {
            self.fail(&format!("the start took {took:?}"));
        }
    }

    /// What follows from the journal.
    pub(crate) fn model(&self) -> Model {
        Model::of(&journal::read(&self.journal()))
    }

    /// Compares what changed since the last time, or all.
    pub(crate) fn compare(&mut self, all: bool) -> Found {
        let model = self.model();
        let since = if all { 0 } else { self.since };
        let client = self.server.client();
        let mut found = verify(&client, &model, since, &mut self.random);
        if let Some(filled) = &self.filled {
            let sample = verify(&client, filled, filled.lines, &mut self.random);
            found.failures.extend(sample.failures);
        }
        let journal = Journal::open(&self.journal());
        for line in &found.saw {
            journal.write(line);
        }
        self.since = model.lines + found.saw.len();
        found
    }

    /// The same, and fails if there is anything.
    pub(crate) fn all_is_right(&mut self, all: bool) {
        let found = self.compare(all);
        if !found.failures.is_empty() {
            let kept = self.keep();
            self.fail(&format!(
                "{} failures, everything kept in {}:\n{}",
                found.failures.len(),
                kept.display(),
                found.failures.join("\n")
            ));
        }
    }

    /// fsck of the stopped store has no finding.
    pub(crate) fn is_clean(&self, folder: &Path) {
        let ran = tools::try_run(Command::new(place::binary("orlop-fsck")).arg(folder));
        if !ran.ok {
            let kept = self.keep();
            self.fail(&format!(
                "orlop-fsck has findings, everything kept in {}:\n{}{}",
                kept.display(),
                ran.out,
                ran.err
            ));
        }
    }

    /// Copies data and journal to where they stay, for whoever looks into it.
    fn keep(&self) -> PathBuf {
        let to = place::dir().keep();
        let mut copy = Command::new("cp");
        copy.args(["-a", "--sparse=always"]);
        copy.arg(self.server.data()).arg(self.journal()).arg(&to);
        let _ = copy.status();
        to
    }
}

/// The running oracle.
pub(crate) struct Oracle(Child);

impl Oracle {
    /// Waits until it has seen that the server is gone. True if it had an
    /// answer that must never be.
    pub(crate) fn end(mut self) -> bool {
        let began = Instant::now();
        loop {
            if let Some(status) = self.0.try_wait().expect("state of the oracle") {
                return !status.success();
            }
            if began.elapsed() > ORACLE {
                let _ = self.0.kill();
                let _ = self.0.wait();
                panic!("the oracle still ran {ORACLE:?} after its server was gone");
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}
