//! The simulated disk: what survives a crash, and what faults do.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]
#![allow(
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod support;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use orlop_disk::sim::{Crash, Fault, Plan, SECTOR, Sim, Verb};
use orlop_disk::{BLOCK, Create, Disk, File, Kind, OpenOptions, Pool};
use support::{B, SHARED, block_on, filled, now, read, write};

const DIR: &str = "/data";

fn at(name: &str) -> PathBuf {
    Path::new(DIR).join(name)
}

/// A disk with a durable folder.
fn disk() -> Arc<Sim> {
    let sim = Sim::new(1);
    sim.create_dir(Path::new(DIR)).unwrap();
    sim.sync_dir(Path::new("/")).unwrap();
    sim
}

fn pool() -> Pool {
    Pool::new(16 << 20)
}

fn open(sim: &Sim, name: &str) -> Arc<dyn File> {
    sim.open(&at(name), SHARED).unwrap()
}

/// A file of durable bytes under a durable name.
fn durable(sim: &Sim, name: &str, blocks: usize, byte: u8) -> Arc<dyn File> {
    let file = open(sim, name);
    put(&file, 0, blocks, byte);
    now(Arc::clone(&file).sync_data()).unwrap();
    sim.sync_dir(Path::new(DIR)).unwrap();
    file
}

fn put(file: &Arc<dyn File>, block: u64, blocks: usize, byte: u8) {
    now(write(
        file,
        block * B,
        filled(&pool(), blocks * BLOCK, byte),
    ))
    .unwrap();
}

fn get(sim: &Sim, name: &str) -> Option<Vec<u8>> {
    sim.peek(&at(name))
}

#[test]
fn bytes_and_length_are_durable_after_a_sync_only() {
    let sim = disk();
    let file = durable(&sim, "file", 1, 1);
    put(&file, 0, 2, 2);
    let lost = sim.crash(Crash::Lost);
    assert_eq!(get(&lost, "file").unwrap(), [1; BLOCK]);
    let kept = sim.crash(Crash::Kept);
    assert_eq!(get(&kept, "file").unwrap(), [2; 2 * BLOCK]);
    assert_eq!(
        get(&kept.crash(Crash::Lost), "file").unwrap(),
        [2; 2 * BLOCK]
    );
    now(Arc::clone(&file).sync_data()).unwrap();
    assert_eq!(
        get(&sim.crash(Crash::Lost), "file").unwrap(),
        [2; 2 * BLOCK]
    );
    file.set_len(B).unwrap();
    file.punch(0, B).unwrap();
    assert_eq!(
        get(&sim.crash(Crash::Lost), "file").unwrap(),
        [2; 2 * BLOCK]
    );
    assert_eq!(get(&sim.crash(Crash::Kept), "file").unwrap(), [0; BLOCK]);
}

#[test]
fn names_are_durable_after_a_sync_of_their_folder_only() {
    let sim = disk();
    let file = open(&sim, "new");
    put(&file, 0, 1, 1);
    now(Arc::clone(&file).sync_data()).unwrap();
    assert_eq!(
        get(&sim.crash(Crash::Lost), "new"),
        None,
        "a synced file without a name"
    );
    sim.sync_dir(Path::new(DIR)).unwrap();
    assert!(get(&sim.crash(Crash::Lost), "new").is_some());
    sim.rename(&at("new"), &at("final")).unwrap();
    let lost = sim.crash(Crash::Lost);
    assert_eq!(lost.list(Path::new(DIR)).unwrap(), ["new"]);
    assert_eq!(
        sim.crash(Crash::Kept).list(Path::new(DIR)).unwrap(),
        ["final"]
    );
    sim.sync_dir(Path::new(DIR)).unwrap();
    sim.remove(&at("final")).unwrap();
    assert_eq!(get(&sim.crash(Crash::Lost), "final").unwrap(), [1; BLOCK]);
    sim.sync_dir(Path::new(DIR)).unwrap();
    assert_eq!(get(&sim.crash(Crash::Lost), "final"), None);
    sim.create_dir(&at("folder")).unwrap();
    drop(open(&sim, "folder/file"));
    sim.sync_dir(&at("folder")).unwrap();
    let lost = sim.crash(Crash::Lost);
    assert!(
        !lost.exists(&at("folder")).unwrap(),
        "the folder's own name was not synced"
    );
}

#[test]
fn a_rename_in_one_folder_is_whole_and_between_two_is_not() {
    let sim = disk();
    durable(&sim, "a", 1, 1);
    durable(&sim, "b", 1, 2);
    sim.create_dir(&at("other")).unwrap();
    sim.sync_dir(Path::new(DIR)).unwrap();
    sim.rename(&at("a"), &at("b")).unwrap();
    for seed in 0..50 {
        let torn = sim.crash(Crash::Torn(seed));
        match (get(&torn, "a"), get(&torn, "b")) {
            (Some(a), Some(b)) => assert_eq!((a[0], b[0]), (1, 2)),
            (None, Some(b)) => assert_eq!(b[0], 1),
            other => panic!("seed {seed}: {other:?}"),
        }
    }
    sim.sync_dir(Path::new(DIR)).unwrap();
    sim.rename(&at("b"), &at("other/b")).unwrap();
    let found: BTreeSet<_> = (0..50)
        .map(|seed| sim.crash(Crash::Torn(seed)))
        .map(|torn| (get(&torn, "b").is_some(), get(&torn, "other/b").is_some()))
        .collect();
    assert_eq!(found.len(), 4, "each half goes for itself: {found:?}");
}

#[test]
fn a_failed_sync_leaves_bytes_that_no_later_sync_saves() {
    let sim = disk();
    let file = durable(&sim, "file", 2, 1);
    put(&file, 0, 1, 2);
    sim.plan(Plan::new(Fault::Fail(Kind::Io)).on(Verb::Sync));
    assert_eq!(
        now(Arc::clone(&file).sync_data()).unwrap_err().kind,
        Kind::Io
    );
    assert_eq!(sim.struck(), 1);
    assert_eq!(
        now(read(&file, &pool(), 0, BLOCK)).unwrap(),
        [2; BLOCK],
        "it reads as written"
    );
    put(&file, 1, 1, 3);
    now(Arc::clone(&file).sync_data()).unwrap();
    for crash in [Crash::Lost, Crash::Kept] {
        let bytes = get(&sim.crash(crash), "file").unwrap();
        assert_eq!((bytes[0], bytes[BLOCK]), (1, 3), "{crash:?}");
    }
    let survivors: BTreeSet<u8> = (0..50)
        .map(|seed| get(&sim.crash(Crash::Torn(seed)), "file").unwrap()[0])
        .collect();
    assert_eq!(
        survivors,
        BTreeSet::from([1, 2]),
        "they may have reached the disk"
    );
    drop(open(&sim, "name"));
    sim.plan(Plan::new(Fault::Fail(Kind::Io)).on(Verb::SyncDir));
    sim.sync_dir(Path::new(DIR)).unwrap_err();
    sim.sync_dir(Path::new(DIR)).unwrap();
    assert!(get(&sim, "name").is_some());
    assert_eq!(get(&sim.crash(Crash::Kept), "name"), None);
}

#[test]
fn a_torn_crash_mixes_sectors_of_old_and_new() {
    let sim = disk();
    let file = durable(&sim, "file", 2, 1);
    put(&file, 0, 2, 2);
    put(&file, 0, 1, 3);
    let mut mixed = 0;
    let mut seen = BTreeSet::new();
    for seed in 0..100 {
        let bytes = get(&sim.crash(Crash::Torn(seed)), "file").unwrap();
        assert_eq!(
            bytes,
            get(&sim.crash(Crash::Torn(seed)), "file").unwrap(),
            "seed {seed}"
        );
        let sectors: Vec<u8> = bytes
            .chunks(usize::try_from(SECTOR).unwrap())
            .map(|sector| {
                assert!(
                    sector.iter().all(|byte| byte == &sector[0]),
                    "a sector is whole"
                );
                sector[0]
            })
            .collect();
        assert!(
            sectors[8..].iter().all(|&byte| byte < 3),
            "only the first block was 3"
        );
        mixed += usize::from(sectors.iter().collect::<BTreeSet<_>>().len() > 1);
        seen.extend(sectors);
    }
    assert_eq!(seen, BTreeSet::from([1, 2, 3]));
    assert!(mixed > 50, "{mixed}");
}

#[test]
fn a_torn_crash_separates_length_from_bytes() {
    let sim = disk();
    let file = durable(&sim, "file", 1, 1);
    put(&file, 1, 1, 2);
    let found: BTreeSet<_> = (0..100)
        .map(|seed| get(&sim.crash(Crash::Torn(seed)), "file").unwrap())
        .map(|bytes| {
            bytes
                .get(BLOCK..2 * BLOCK)
                .and_then(|tail| tail.first().copied())
        })
        .collect();
    assert_eq!(found, BTreeSet::from([None, Some(0), Some(2)]));
}

#[test]
fn a_prefix_crash_keeps_changes_in_order() {
    let sim = disk();
    let (a, b) = (durable(&sim, "a", 1, 0), durable(&sim, "b", 1, 0));
    for byte in 1..=5 {
        put(&a, 0, 1, byte);
        put(&b, 0, 1, byte);
    }
    sim.rename(&at("a"), &at("c")).unwrap();
    let mut renamed = 0;
    let mut torn = 0;
    for seed in 0..200 {
        let crash = sim.crash(Crash::Prefix(seed));
        let first = get(&crash, "a").or(get(&crash, "c")).unwrap();
        let second = get(&crash, "b").unwrap();
        let (newest, oldest) = (first[0], second[BLOCK - 1]);
        assert!(
            newest == second[0] || newest == second[0] + 1,
            "{newest} {}",
            second[0]
        );
        torn += usize::from(first[0] != first[BLOCK - 1] || second[0] != oldest);
        if get(&crash, "c").is_some() {
            assert_eq!((newest, oldest), (5, 5), "the rename came last");
            renamed += 1;
        }
    }
    assert!(renamed > 0 && torn > 0, "{renamed} {torn}");
}

#[test]
fn a_killed_process_loses_nothing_and_makes_nothing_durable() {
    let sim = disk();
    let file = durable(&sim, "file", 1, 1);
    put(&file, 0, 1, 2);
    let killed = sim.crash(Crash::Killed);
    assert_eq!(get(&killed, "file").unwrap(), [2; BLOCK]);
    assert_eq!(get(&killed.crash(Crash::Lost), "file").unwrap(), [1; BLOCK]);
    let again = open(&killed, "file");
    now(again.sync_data()).unwrap();
    assert_eq!(get(&killed.crash(Crash::Lost), "file").unwrap(), [2; BLOCK]);
    assert_eq!(
        get(&sim.crash(Crash::Lost), "file").unwrap(),
        [1; BLOCK],
        "the other lives on"
    );
}

#[test]
fn a_removed_file_that_is_open_is_gone_after_a_crash() {
    let sim = disk();
    let file = durable(&sim, "file", 4, 1);
    let used = |sim: &Sim| {
        let space = sim.space(Path::new(DIR)).unwrap();
        space.total - space.available
    };
    sim.remove(&at("file")).unwrap();
    sim.sync_dir(Path::new(DIR)).unwrap();
    assert_eq!(now(read(&file, &pool(), 0, BLOCK)).unwrap(), [1; BLOCK]);
    assert_eq!(used(&sim), 4 * B);
    assert_eq!(used(&sim.crash(Crash::Killed)), 0);
    drop(file);
    assert_eq!(used(&sim), 0);
}

#[test]
fn faults_strike_the_operation_that_was_planned() {
    let sim = disk();
    let file = durable(&sim, "file", 2, 1);
    let other = durable(&sim, "other", 2, 1);
    sim.plan(
        Plan::new(Fault::Fail(Kind::Full))
            .on(Verb::Write)
            .under(at("file"))
            .after(1),
    );
    put(&other, 0, 1, 2);
    put(&file, 0, 1, 2);
    put(&other, 0, 1, 3);
    let error = now(write(&file, 0, filled(&pool(), BLOCK, 3))).unwrap_err();
    assert_eq!(
        (error.kind, error.path.as_path()),
        (Kind::Full, at("file").as_path())
    );
    assert_eq!(get(&sim, "file").unwrap()[0], 2);
    put(&file, 0, 1, 4);
    sim.plan(Plan::new(Fault::Fail(Kind::Exhausted)).sticky());
    for _ in 0..3 {
        assert_eq!(sim.list(Path::new(DIR)).unwrap_err().kind, Kind::Exhausted);
    }
    sim.clear_plans();
    sim.list(Path::new(DIR)).unwrap();
    assert_eq!(sim.struck(), 4);
    let log = sim.log();
    assert_eq!(log.len() as u64, sim.operations());
    let failed: Vec<_> = log
        .iter()
        .filter(|record| record.failed.is_some())
        .collect();
    assert_eq!(failed.len(), 4);
    assert_eq!(
        (failed[0].verb, failed[0].offset, failed[0].len),
        (Verb::Write, 0, B)
    );
    assert_eq!(failed[0].fault, Some(Fault::Fail(Kind::Full)));
}

#[test]
fn silent_faults_tell_success_and_do_harm() {
    let sim = disk();
    let file = durable(&sim, "file", 8, 1);
    let ones = |bytes: &[u8], wanted: u8| bytes.iter().filter(|&&byte| byte != wanted).count();
    let strike = |fault, verb| sim.plan(Plan::new(fault).on(verb));

    strike(Fault::Flip, Verb::Write);
    put(&file, 0, 1, 1);
    let bytes = get(&sim, "file").unwrap();
    assert_eq!(ones(&bytes, 1), 1);
    let harmed = bytes.iter().find(|&&byte| byte != 1).unwrap();
    assert_eq!((harmed ^ 1).count_ones(), 1);
    put(&file, 0, 1, 1);

    strike(Fault::Flip, Verb::Read);
    assert_eq!(ones(&now(read(&file, &pool(), 0, BLOCK)).unwrap(), 1), 1);
    assert_eq!(
        ones(&now(read(&file, &pool(), 0, BLOCK)).unwrap(), 1),
        0,
        "only that read"
    );

    strike(Fault::Lose, Verb::Write);
    put(&file, 0, 1, 9);
    assert_eq!(ones(&get(&sim, "file").unwrap(), 1), 0);

    strike(Fault::Misdirect, Verb::Write);
    put(&file, 2, 1, 9);
    let bytes = get(&sim, "file").unwrap();
    assert_eq!(ones(&bytes, 1), BLOCK);
    assert_eq!(bytes[2 * BLOCK], 1, "its own place is unchanged");
    assert_eq!(bytes.len(), 8 * BLOCK);

    strike(Fault::Lose, Verb::Sync);
    put(&file, 0, 8, 5);
    now(Arc::clone(&file).sync_data()).unwrap();
    assert_eq!(ones(&get(&sim.crash(Crash::Lost), "file").unwrap(), 1), 0);
    assert_eq!(sim.struck(), 5);
}

#[test]
fn rot_lasts_until_the_sectors_are_written_again() {
    let sim = disk();
    let file = durable(&sim, "file", 4, 1);
    sim.plan(Plan::new(Fault::Rot).on(Verb::Write));
    put(&file, 1, 1, 2);
    assert_eq!(
        now(read(&file, &pool(), B, BLOCK)).unwrap_err().kind,
        Kind::Io
    );
    assert_eq!(
        now(read(&file, &pool(), 0, 4 * BLOCK)).unwrap_err().kind,
        Kind::Io
    );
    now(read(&file, &pool(), 2 * B, BLOCK)).unwrap();
    now(Arc::clone(&file).sync_data()).unwrap();
    let crashed = sim.crash(Crash::Lost);
    let reopened = open(&crashed, "file");
    assert_eq!(
        now(read(&reopened, &pool(), B, BLOCK)).unwrap_err().kind,
        Kind::Io
    );
    put(&reopened, 1, 1, 3);
    assert_eq!(now(read(&reopened, &pool(), B, BLOCK)).unwrap(), [3; BLOCK]);
    assert!(sim.spoil(&at("file"), 3 * B, 1));
    assert_eq!(
        now(read(&file, &pool(), 3 * B, BLOCK)).unwrap_err().kind,
        Kind::Io
    );
    assert!(sim.poke(&at("file"), 10, b"odd"));
    assert_eq!(
        &get(&sim.crash(Crash::Lost), "file").unwrap()[9..14],
        b"\x01odd\x01"
    );
    assert!(!sim.poke(&at("file"), 4 * B, b"x"), "past the end");
}

#[test]
fn a_partial_write_moves_whole_sectors_and_fails() {
    let lens: BTreeSet<u64> = (0..50)
        .map(|seed| {
            let sim = Sim::new(seed);
            let file = sim.open(Path::new("/file"), SHARED).unwrap();
            sim.plan(Plan::new(Fault::Partial(Kind::Full)).on(Verb::Write));
            let error = now(write(&file, 0, filled(&pool(), 2 * BLOCK, 1))).unwrap_err();
            assert_eq!(error.kind, Kind::Full);
            file.len().unwrap()
        })
        .collect();
    assert!(
        lens.iter().all(|len| len % SECTOR == 0 && *len < 2 * B),
        "{lens:?}"
    );
    assert!(lens.len() > 5, "{lens:?}");
}

#[test]
fn the_disk_fills_up_and_frees() {
    let sim = disk();
    let file = open(&sim, "file");
    sim.set_capacity(8 * B);
    file.allocate(0, 6 * B).unwrap();
    put(&file, 0, 6, 1);
    let error = now(write(&file, 6 * B, filled(&pool(), 3 * BLOCK, 1))).unwrap_err();
    assert_eq!(error.kind, Kind::Full);
    assert_eq!(file.allocate(0, 9 * B).unwrap_err().kind, Kind::Full);
    file.punch(0, 4 * B).unwrap();
    put(&file, 6, 3, 1);
    let space = sim.space(Path::new(DIR)).unwrap();
    assert_eq!((space.total, space.available), (8 * B, 3 * B));
}

#[test]
fn after_the_power_is_off_nothing_happens() {
    let sim = disk();
    let file = durable(&sim, "file", 1, 1);
    sim.plan(Plan::new(Fault::PowerOff).on(Verb::Write));
    now(write(&file, 0, filled(&pool(), BLOCK, 2))).unwrap_err();
    let before = sim.operations();
    now(Arc::clone(&file).sync_data()).unwrap_err();
    now(read(&file, &pool(), 0, BLOCK)).unwrap_err();
    sim.list(Path::new(DIR)).unwrap_err();
    assert_eq!(sim.operations(), before + 3);
    assert_eq!(get(&sim.crash(Crash::Lost), "file").unwrap(), [1; BLOCK]);
    let torn: BTreeSet<u8> = (0..50)
        .map(|seed| get(&sim.crash(Crash::Torn(seed)), "file").unwrap()[0])
        .collect();
    assert_eq!(
        torn,
        BTreeSet::from([1, 2]),
        "the last write may have arrived"
    );
}

/// Replaces a file as it should be done, and says what was acknowledged.
fn replace(sim: &Sim, byte: u8) -> Result<(), orlop_disk::DiskError> {
    let new = OpenOptions {
        create: Create::IfMissing,
        ..SHARED
    };
    let file = sim.open(&at("tmp"), new)?;
    now(write(&file, 0, filled(&pool(), 2 * BLOCK, byte)))?;
    now(Arc::clone(&file).sync_data())?;
    sim.rename(&at("tmp"), &at("final"))?;
    sim.sync_dir(Path::new(DIR))
}

/// The method of the next layer up, small: the power fails at every operation,
/// every kind of crash, and what was acknowledged is there, whole.
#[test]
fn a_careful_replace_survives_the_power_at_every_operation() {
    let total = {
        let sim = disk();
        let start = sim.operations();
        replace(&sim, 1).unwrap();
        replace(&sim, 2).unwrap();
        sim.operations() - start
    };
    assert_eq!(total, 10);
    let mut images = 0;
    for after in 0..=total {
        let sim = disk();
        sim.plan(Plan::new(Fault::PowerOff).after(after));
        let acknowledged = (1..=2)
            .take_while(|&byte| replace(&sim, byte).is_ok())
            .last();
        let crashes = (0..20).flat_map(|seed| [Crash::Torn(seed), Crash::Prefix(seed)]);
        for crash in crashes.chain([Crash::Lost, Crash::Kept]) {
            let found = get(&sim.crash(crash), "final");
            images += 1;
            let Some(bytes) = found else {
                assert_eq!(acknowledged, None, "{crash:?} at {after}");
                continue;
            };
            assert_eq!(bytes.len(), 2 * BLOCK, "{crash:?} at {after}");
            assert!(
                bytes.iter().all(|byte| byte == &bytes[0]),
                "{crash:?} at {after}"
            );
            assert!(
                bytes[0] >= acknowledged.unwrap_or(1),
                "{crash:?} at {after}"
            );
        }
    }
    assert_eq!(images, 11 * 42);
}

/// The same without the sync of the data must be caught, or the disk is kind.
#[test]
fn a_careless_replace_is_caught() {
    let sim = disk();
    durable(&sim, "final", 1, 1);
    let file = open(&sim, "tmp");
    put(&file, 0, 1, 2);
    sim.rename(&at("tmp"), &at("final")).unwrap();
    sim.sync_dir(Path::new(DIR)).unwrap();
    assert_eq!(get(&sim.crash(Crash::Lost), "final").unwrap(), [0; 0]);
}

#[test]
fn equal_seeds_and_calls_give_equal_disks() {
    let run = |seed| {
        let sim = Sim::new(seed);
        sim.delay(50);
        sim.plan(Plan::new(Fault::Flip).on(Verb::Write).after(3).sticky());
        let file = sim.open(Path::new("/file"), SHARED).unwrap();
        for block in 0..8 {
            block_on(write(&file, block * B, filled(&pool(), BLOCK, 1))).unwrap();
        }
        let crashed = sim.crash(Crash::Torn(seed)).peek(Path::new("/file"));
        (sim.peek(Path::new("/file")), crashed, sim.log())
    };
    assert_eq!(run(5), run(5));
    assert_ne!(run(5).0, run(6).0);
}
