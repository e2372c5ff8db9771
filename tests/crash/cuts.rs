//! G7: power cuts below the real server, through a file system that keeps what
//! is written and what is durable apart.

use std::time::{Duration, Instant};

use orlop_figures::{choose, record};
use orlop_tests::random::Random;
use orlop_tests::server::Setup;

use crate::rig::{Rig, seed};
use crate::verify::Found;
use crate::volatile::{Loss, Volatile};

/// Cuts of one data folder.
const FOLDER: u64 = 8;
/// fsck looks at the store after every so many cuts, before it is started.
const FSCK: u64 = 3;
/// A cut comes so many changes after the load began, at most.
const CHANGES: u64 = 1500;
/// Stores that are cut at most, of one cut each, until enough was acknowledged.
const FURTHER: u64 = 8;
/// How long it may take until that many changes have come.
const MOMENT: Duration = Duration::from_secs(10);

/// A server on a disk that can lose its power. The server goes first.
struct Cuts {
    rig: Rig,
    disk: Option<Volatile>,
}

impl Cuts {
    fn start(test: &'static str, seed: u64, backend: &str) -> Option<Cuts> {
        let disk = Volatile::empty()?;
        let setup = Setup::default()
            .data(disk.path().join("data"))
            .env("ORLOP_DISK_BACKEND", backend);
        let rig = Rig::start(test, seed, setup);
        Some(Cuts {
            rig,
            disk: Some(disk),
        })
    }

    fn disk(&self) -> &Volatile {
        self.disk.as_ref().expect("a disk")
    }

    /// Waits until the power is gone, by itself after so many changes.
    fn lose_power_after(&self, changes: u64) {
        let began = Instant::now();
        self.disk().cut_after(changes);
        while !self.disk().is_cut() && began.elapsed() < MOMENT {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.disk().cut();
    }

    /// After the cut: the process goes, and what was not synced.
    fn go_down(&mut self, loss: Loss) -> u64 {
        self.disk().cut();
        self.rig.server.kill();
        let mut unsynced = 0;
        let disk = self.disk.take().expect("a disk");
        let random = &mut self.rig.random;
        self.disk = Some(disk.remount(|state| {
            let (left, count) = state.cut(loss, random);
            unsynced = count;
            left
        }));
        unsynced
    }

    /// One cut under load. Says how many changes were not synced.
    fn cut_under_load(&mut self) -> u64 {
        let oracle = self.rig.load();
        if self.rig.random.percent(75) {
            let changes = 1 + self.rig.random.below(CHANGES);
            self.lose_power_after(changes);
        } else {
            let time = Duration::from_millis(50 + self.rig.random.below(700));
            std::thread::sleep(time);
            self.disk().cut();
        }
        let loss = Loss::any(&mut self.rig.random);
        self.rig.note(format!("{loss:?}"));
        let unsynced = self.go_down(loss);
        let wrong = oracle.end();
        self.rig.answers_were_right(wrong);
        unsynced
    }

    /// A cut while the server recovers.
    fn cut_in_recovery(&mut self) {
        self.rig.server.launch();
        let changes = self.rig.random.below(60);
        self.disk().cut_after(changes);
        let time = Duration::from_millis(self.rig.random.below(250));
        std::thread::sleep(time);
        let loss = Loss::any(&mut self.rig.random);
        self.rig.note(format!("in recovery {loss:?}"));
        self.go_down(loss);
    }
}

fn cuts(test: &'static str, backend: &str, count: u64) {
    let first = seed(test);
    let (mut done, mut unsynced, mut recoveries, mut acknowledged) = (0, 0, 0, 0);
    for folder in 0.. {
        let Some(mut cuts) = Cuts::start(test, first + folder, backend) else {
            return;
        };
        let rounds = FOLDER.min(count.saturating_sub(done)).max(1);
        // Half of the stores that are wanted have seen some use.
        if folder % 2 == 1 && done < count {
            cuts.rig.fill();
        }
        for round in 1..=rounds {
            unsynced += cuts.cut_under_load();
            done += 1;
            while cuts.rig.random.percent(30) {
                cuts.cut_in_recovery();
                recoveries += 1;
            }
            if done % FSCK == 0 {
                cuts.rig.is_clean(cuts.rig.server.data());
            }
            cuts.rig.start_again();
            cuts.rig.all_is_right(round == rounds);
        }
        cuts.rig.server.stop();
        cuts.rig.is_clean(cuts.rig.server.data());
        cuts.rig.server.start_again();
        cuts.rig.all_is_right(true);
        acknowledged += cuts.rig.model().acknowledged;
        // A single cut may come before anything was acknowledged.
        if done >= count && (acknowledged > 5 * done || done >= count + FURTHER) {
            break;
        }
    }
    println!(
        "{done} power cuts, {recoveries} more while it recovered: {acknowledged} acknowledged requests, {unsynced} changes were not synced"
    );
    assert!(
        acknowledged > 5 * done,
        "too little was acknowledged to show anything"
    );
    record("power cuts of the real process", done, &first.to_string());
}

#[test]
fn g7_power_cuts_with_io_uring() {
    cuts(
        "cuts::g7_power_cuts_with_io_uring",
        "auto",
        choose(1, 16, 2500),
    );
}

#[test]
fn g7_power_cuts_with_the_pool() {
    cuts(
        "cuts::g7_power_cuts_with_the_pool",
        "pool",
        choose(1, 16, 2500),
    );
}

/// Found by the cuts above: the folder was made and its name never synced, so
/// that a cut could take the whole store.
#[test]
fn a_new_data_folder_keeps_its_name_over_a_power_cut() {
    let Some(disk) = Volatile::empty() else {
        return;
    };
    let data = disk.path().join("made").join("data");
    let mut server = Setup::default().data(data).start();
    let bytes = orlop_tests::data::bytes(5, 100_000);
    let digest = server.client().push_blob("cut/repo", &bytes);
    disk.cut();
    server.kill();
    let random = &mut Random::new(0);
    let disk = disk.remount(|state| state.cut(Loss::All, random).0);
    server.start_again();
    server.client().blob_is("cut/repo", &digest, &bytes);
    server.kill();
    drop(disk);
}

/// The rig must see losses: on a disk that answers syncs and does not do them.
#[test]
fn canary_a_disk_that_lies_about_syncs_is_found_out() {
    const TEST: &str = "cuts::canary_a_disk_that_lies_about_syncs_is_found_out";
    let Some(mut cuts) = Cuts::start(TEST, seed(TEST), "pool") else {
        return;
    };
    let oracle = cuts.rig.load();
    let began = Instant::now();
    let acknowledged = |cuts: &Cuts| cuts.rig.model().acknowledged;
    let wait_for = |cuts: &Cuts, count: u64| {
        while acknowledged(cuts) < count && began.elapsed() < Duration::from_secs(30) {
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    wait_for(&cuts, 20);
    cuts.disk().lie();
    let before = acknowledged(&cuts);
    wait_for(&cuts, before + 40);
    cuts.go_down(Loss::All);
    let wrong = oracle.end();
    cuts.rig.answers_were_right(wrong);
    cuts.rig.start_again();
    let Found { failures, .. } = cuts.rig.compare(true);
    let lost = |what: &&String| what.contains("although it was acknowledged");
    assert!(
        failures.iter().filter(lost).count() >= 5,
        "acknowledged writes were thrown away, and only this was seen: {failures:#?}"
    );
}
