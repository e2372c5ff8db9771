//! Faults of the simulated disk that behave as the kernel's: error numbers,
//! short transfers, slowness, decay; and its snapshots.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod support;

use std::path::Path;
use std::sync::{Arc, Mutex};

use futures_util::FutureExt as _;
use orlop_disk::sim::{Crash, Errno, Fault, Parts, Plan, Sim, Verb};
use orlop_disk::{BLOCK, Disk, File, Kind, Pool};
use support::{B, SHARED, filled, now, read, write};

const FILE: &str = "/file";

fn pool() -> Pool {
    Pool::new(16 << 20)
}

fn file(sim: &Arc<Sim>) -> Arc<dyn File> {
    sim.open(Path::new(FILE), SHARED).unwrap()
}

fn put(file: &Arc<dyn File>, blocks: usize, byte: u8) -> Result<(), Kind> {
    let written = now(write(file, 0, filled(&pool(), blocks * BLOCK, byte)));
    written.map_err(|error| error.kind)
}

fn settle(sim: &Sim, file: &Arc<dyn File>) {
    now(Arc::clone(file).sync_data()).unwrap();
    sim.sync_dir(Path::new("/")).unwrap();
}

#[test]
fn errnos_go_through_the_classes_of_real_ones() {
    let classes = [
        (Errno::Eio, Kind::Io),
        (Errno::Enospc, Kind::Full),
        (Errno::Edquot, Kind::Full),
        (Errno::Efbig, Kind::Full),
        (Errno::Emfile, Kind::Exhausted),
        (Errno::Enfile, Kind::Exhausted),
        (Errno::Enomem, Kind::Exhausted),
        (Errno::Eintr, Kind::Interrupted),
        (Errno::Eagain, Kind::Interrupted),
        (Errno::Erofs, Kind::Denied),
    ];
    assert_eq!(classes.len(), Errno::ALL.len());
    for (errno, kind) in classes {
        let sim = Sim::new(1);
        sim.plan(Plan::new(Fault::Errno(errno)));
        let error = sim.open(Path::new(FILE), SHARED).err().unwrap();
        assert_eq!(error.kind, kind, "{errno:?}");
        assert_eq!(error.source.raw_os_error(), errno.error().raw_os_error());
        assert!(!sim.exists(Path::new(FILE)).unwrap(), "nothing was made");
    }
}

#[test]
fn an_interrupted_transfer_is_called_again_and_a_sync_is_not() {
    let sim = Sim::new(2);
    let file = file(&sim);
    for errno in [Errno::Eintr, Errno::Eagain] {
        sim.plan(Plan::new(Fault::Errno(errno)).on(Verb::Write));
        put(&file, 2, 7).unwrap();
        sim.plan(Plan::new(Fault::Errno(errno)).on(Verb::Read));
        let bytes = now(read(&file, &pool(), 0, 2 * BLOCK)).unwrap();
        assert_eq!(bytes, [7; 2 * BLOCK]);
        // What goes on for ever is given up.
        sim.plan(Plan::new(Fault::Errno(errno)).on(Verb::Write).sticky());
        assert_eq!(put(&file, 2, 8), Err(Kind::Interrupted));
        sim.clear_plans();
        assert_eq!(sim.peek(Path::new(FILE)).unwrap(), [7; 2 * BLOCK]);
        sim.plan(Plan::new(Fault::Errno(errno)).on(Verb::Sync));
        let error = now(Arc::clone(&file).sync_data()).unwrap_err();
        assert_eq!(error.kind, Kind::Interrupted);
        now(Arc::clone(&file).sync_data()).unwrap();
        sim.sync_dir(Path::new("/")).unwrap();
        let lost = sim.crash(Crash::Lost).peek(Path::new(FILE)).unwrap();
        assert!(
            lost.is_empty(),
            "a failed sync is not made good by the next"
        );
    }
    assert!(sim.struck() >= 8);
}

#[test]
fn short_transfers_go_on_and_the_power_may_fail_between_their_calls() {
    let mut parts = 0;
    for seed in 0..40 {
        let sim = Sim::new(seed);
        let file = file(&sim);
        put(&file, 8, 1).unwrap();
        settle(&sim, &file);
        sim.plan(Plan::new(Fault::Short).on(Verb::Write));
        put(&file, 8, 2).unwrap();
        sim.plan(Plan::new(Fault::Short).on(Verb::Read));
        let bytes = now(read(&file, &pool(), 0, 8 * BLOCK)).unwrap();
        assert_eq!(bytes, [2; 8 * BLOCK]);
        assert_eq!(sim.struck(), 2);
        let cut = sim
            .crash(Crash::Prefix(seed))
            .peek(Path::new(FILE))
            .unwrap();
        let new = cut.iter().take_while(|byte| **byte == 2).count();
        assert!(cut[new..].iter().all(|byte| *byte == 1), "in order");
        parts += usize::from(new > 0 && new < cut.len());
    }
    assert!(parts > 5, "{parts}");
}

#[test]
fn a_short_transfer_that_moves_less_than_a_block_twice_has_ended() {
    let sim = Sim::new(3);
    let file = file(&sim);
    put(&file, 1, 1).unwrap();
    sim.plan(Plan::new(Fault::Short).on(Verb::Read).sticky());
    let done = now(read(&file, &pool(), 0, BLOCK));
    // One sector of eight, again and again, or all at once.
    assert!(done.is_ok() || done.is_err_and(|error| error.kind == Kind::Io));
}

#[test]
fn a_stalled_operation_waits_and_takes_effect_when_it_is_dropped() {
    let sim = Sim::new(4);
    let file = file(&sim);
    let (open, gate) = tokio::sync::oneshot::channel::<()>();
    let gate = gate.map(|_| ()).shared();
    let hold = gate.clone();
    sim.plan(Plan::stall(move || hold.clone().boxed()).on(Verb::Write));
    let before = sim.operations();
    let mut writing = Box::pin(write(&file, 0, filled(&pool(), BLOCK, 5)));
    assert!(writing.as_mut().now_or_never().is_none());
    assert_eq!(sim.operations(), before, "it has not begun");
    put(&file, 1, 4).unwrap();
    open.send(()).unwrap();
    now(writing).unwrap();
    assert_eq!(sim.peek(Path::new(FILE)).unwrap(), [5; BLOCK]);

    sim.plan(Plan::stall(|| futures_util::future::pending().boxed()).on(Verb::Write));
    let mut writing = Box::pin(write(&file, 0, filled(&pool(), BLOCK, 6)));
    assert!(writing.as_mut().now_or_never().is_none());
    drop(writing);
    assert_eq!(sim.peek(Path::new(FILE)).unwrap(), [6; BLOCK]);
    assert_eq!(sim.struck(), 2);
}

#[test]
fn decay_flips_durable_bits_that_the_seed_chooses() {
    let decayed = |seed| {
        let sim = Sim::new(seed);
        let file = file(&sim);
        put(&file, 4, 9).unwrap();
        settle(&sim, &file);
        let places = sim.decay(Path::new("/"), 3);
        assert_eq!(places.len(), 3);
        let bytes = sim.crash(Crash::Lost).peek(Path::new(FILE)).unwrap();
        let wrong = bytes.iter().filter(|byte| **byte != 9).count();
        assert!((1..=3).contains(&wrong), "{wrong}");
        (places, bytes)
    };
    assert!(decayed(1) == decayed(1) && decayed(1) != decayed(2));
    assert!(Sim::new(1).decay(Path::new("/"), 3).is_empty());
}

#[test]
fn kinds_of_changes_survive_apart() {
    let sim = Sim::new(5);
    let file = file(&sim);
    put(&file, 1, 1).unwrap();
    settle(&sim, &file);
    put(&file, 2, 2).unwrap();
    sim.rename(Path::new(FILE), Path::new("/other")).unwrap();
    let after = |names, lengths, bytes| {
        let crashed = sim.crash(Crash::Parts(Parts {
            names,
            lengths,
            bytes,
        }));
        let name = if names { "/other" } else { FILE };
        crashed.peek(Path::new(name)).unwrap()
    };
    assert_eq!(after(false, false, false), [1; BLOCK]);
    assert_eq!(after(true, false, false), [1; BLOCK]);
    assert_eq!(
        after(false, false, true),
        [2; BLOCK],
        "not beyond its length"
    );
    let long = after(false, true, false);
    assert_eq!(
        (&long[..BLOCK], &long[BLOCK..]),
        (&[1; BLOCK][..], &[0; BLOCK][..])
    );
    assert_eq!(after(true, true, true), [2; 2 * BLOCK]);
}

#[test]
fn snapshots_show_the_disk_before_each_change() {
    let sim = Sim::new(6);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&seen);
    sim.observe(move |snapshot| kept.lock().unwrap().push(snapshot));
    let file = file(&sim);
    put(&file, 1, 1).unwrap();
    settle(&sim, &file);
    put(&file, 1, 2).unwrap();
    sim.unobserve();
    put(&file, 1, 3).unwrap();
    let seen = seen.lock().unwrap();
    // Open, write, sync, sync of the folder, write.
    assert_eq!(seen.len(), 5);
    let last = seen.last().unwrap();
    assert_eq!(last.operation(), 4);
    assert_eq!(
        last.crash(Crash::Lost).peek(Path::new(FILE)).unwrap(),
        [1; BLOCK]
    );
    assert_eq!(seen[0].crash(Crash::Kept).peek(Path::new(FILE)), None);
    assert!(
        seen.windows(2)
            .all(|pair| pair[0].version() < pair[1].version())
    );
    assert_eq!(B, 4096);
}

#[test]
fn a_cut_file_has_lost_its_end() {
    let sim = Sim::new(7);
    let file = file(&sim);
    put(&file, 3, 1).unwrap();
    settle(&sim, &file);
    assert!(sim.cut(Path::new(FILE), B) && !sim.cut(Path::new(FILE), 2 * B));
    assert_eq!(sim.len(Path::new(FILE)), Some(B));
    assert_eq!(sim.files(Path::new("/")), [(FILE.into(), B)]);
    assert!(now(read(&file, &pool(), B, BLOCK)).is_err());
}
