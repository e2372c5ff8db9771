//! G6: kill −9 of the real server under mixed load. The oracle is another
//! process; what must be there follows from its journal alone.

use std::fs;
use std::time::Duration;

use orlop_figures::{choose, record};
use orlop_tests::server::Setup;
use orlop_tests::tools;

use crate::rig::{Rig, seed};

/// Kills on one data folder.
const FOLDER: u64 = 13;
/// fsck looks at the store after every so many kills.
const FSCK: u64 = 3;

fn backend(name: &str) -> Setup {
    Setup::default().env("ORLOP_DISK_BACKEND", name)
}

/// Kills so often; the seed of a folder is that of the run and its number.
fn kills(test: &'static str, backend: impl Fn() -> Setup, count: u64) {
    let first = seed(test);
    let mut done = 0;
    let (mut names, mut acknowledged, mut recoveries) = (0, 0, 0);
    for folder in 0.. {
        let mut rig = Rig::start(test, first + folder, backend());
        let rounds = FOLDER.min(count - done);
        // Half of the stores have seen some use.
        if folder % 2 == 1 {
            rig.fill();
        }
        for round in 1..=rounds {
            rig.kill_under_load();
            done += 1;
            if done % FSCK == 0 {
                rig.is_clean(rig.server.data());
            }
            while rig.random.percent(30) {
                let after = Duration::from_millis(rig.random.below(120));
                rig.server.start_and_kill(after);
                recoveries += 1;
            }
            rig.start_again();
            rig.all_is_right(round == rounds);
        }
        // And once more from the log alone, after a stop.
        rig.server.stop();
        rig.is_clean(rig.server.data());
        fs::remove_dir_all(rig.server.data().join("index")).expect("remove the index");
        rig.server.start_again();
        rig.all_is_right(true);
        let model = rig.model();
        names += model.blobs.len() + model.held.len() + model.tags.len();
        acknowledged += model.acknowledged;
        assert!(
            model.acknowledged > 10 * rounds,
            "only {} requests were acknowledged: too little to show anything",
            model.acknowledged
        );
        if done >= count {
            break;
        }
    }
    println!(
        "{done} kills, {recoveries} more while it recovered: {acknowledged} acknowledged requests, {names} names"
    );
    record("kills of the real process", done, &first.to_string());
}

#[test]
fn g6_kills_with_io_uring() {
    if let Err(log) = backend("uring").try_start() {
        assert!(log.contains("io_uring"), "{log}");
        tools::skipped("io_uring is not available here: these kills are with the pool");
        return kills(
            "kills::g6_kills_with_io_uring",
            || backend("pool"),
            choose(2, 26, 1000),
        );
    }
    kills(
        "kills::g6_kills_with_io_uring",
        || backend("uring"),
        choose(2, 26, 1000),
    );
}

#[test]
fn g6_kills_with_the_pool() {
    kills(
        "kills::g6_kills_with_the_pool",
        || backend("pool"),
        choose(1, 26, 1000),
    );
}
