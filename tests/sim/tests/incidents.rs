//! What happened to others, by the numbers of storage-tests.md, at every
//! operation of the workloads.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use orlop_disk::sim::{Errno, Fault, Plan, Verb};
use orlop_engine::{Error, Runtime as _};
use orlop_figures as figures;
use orlop_sim::case::Model;
use orlop_sim::checker::damage::{self, Harm};
use orlop_sim::checker::{self, Image};
use orlop_sim::client::{Client, sha256};
use orlop_sim::index::Indexes;
use orlop_sim::model::Facts;
use orlop_sim::random::{Random, content};
use orlop_sim::runtime::Machine;
use orlop_sim::simulation::{Recording, run};
use orlop_sim::workload::{WORKLOADS, find};
use orlop_sim::world::{self, World, folder};

/// Checks crashes of all workloads by these models, at every so many-th
/// operation.
fn crash_all(models: &[Model], seed: u64) -> u64 {
    let step = figures::choose(29, 5, 1);
    let mut images = 0;
    for workload in WORKLOADS {
        let recording = run(workload, seed).unwrap_or_else(|finding| panic!("{finding}"));
        for moment in recording
            .moments
            .iter()
            .skip(usize::try_from(seed).unwrap() % step)
            .step_by(step)
        {
            let facts = recording.facts(moment);
            for model in models {
                let checked = recording.check(moment, *model, &facts);
                checked.unwrap_or_else(|failure| panic!("{failure}"));
                images += 1;
            }
        }
    }
    println!("{images} images");
    images
}

/// Names survive without the bytes behind them, and bytes without their names.
#[test]
fn i01_names_and_bytes_are_lost_apart() {
    assert!(crash_all(&[Model::Parts(1), Model::Parts(6)], 11) > 0);
}

/// A process is killed after it has given a file its name and before it has made
/// that durable. The next start uses the file, is told to keep a blob, and then
/// the power fails.
#[test]
fn i01_a_start_makes_the_names_durable_that_a_killed_process_left() {
    for seed in 0..4 {
        let recording = run(find("inline").unwrap(), seed).unwrap();
        for moment in &recording.moments {
            let facts = recording.facts(moment);
            let checked = recording.check(moment, Model::Killed, &facts);
            checked.unwrap_or_else(|failure| panic!("{failure}"));
        }
    }
}

/// A length survives without the bytes, and bytes without the length that would
/// show them.
#[test]
fn i37_lengths_and_bytes_are_lost_apart() {
    assert!(crash_all(&[Model::Parts(3), Model::Parts(5)], 12) > 0);
}

/// The end of a workload without index, as its clients know it.
fn ended(name: &str, seed: u64) -> (Recording, Facts) {
    let recording = run(find(name).unwrap(), seed).unwrap();
    let facts = recording.facts(recording.moments.last().unwrap());
    (recording, facts)
}

fn image(recording: &Recording, keep_index: bool) -> Image {
    let moment = recording.moments.last().unwrap();
    let mut image = recording.image(moment, &recording.case(moment, Model::Killed));
    let index = if keep_index {
        Indexes::new(moment.index.crash(), moment.whole)
    } else {
        Indexes::new(orlop_index::mem::Memory::new(), false)
    };
    image.index = Arc::new(index);
    image
}

/// Every block that holds something is zeroed, one at a time: what lay there is
/// named, never served as zeros.
#[test]
fn i33_zeros_never_pass_for_what_was_acknowledged() {
    let step = figures::choose(37, 5, 1);
    for name in ["inline", "extents"] {
        let (recording, facts) = ended(name, 5);
        let (mut harm, mut blocks) = (Harm::default(), 0);
        for (path, _) in image(&recording, true).sim.files(&folder()) {
            let bytes = image(&recording, true).sim.peek(&path).unwrap();
            let filled = bytes.chunks(4096).enumerate();
            let filled = filled.filter(|(_, block)| block.iter().any(|byte| *byte != 0));
            for (block, old) in filled.step_by(step) {
                let image = image(&recording, block % 2 == 0);
                assert!(
                    image
                        .sim
                        .poke(&path, block as u64 * 4096, &vec![0; old.len()])
                );
                let what = format!("{name}, block {block} of {}", path.display());
                let done = damage::check(&image, &facts);
                harm = harm.and(done.unwrap_or_else(|finding| panic!("{what}: {finding}")));
                blocks += 1;
            }
        }
        println!("{name}: {blocks} blocks zeroed, {harm:?}");
        assert!(harm.named > 0 && harm.served > 0, "{harm:?}");
    }
}

/// A disk that loses, misdirects or flips a write and says that it is done.
#[test]
fn i10_a_disk_that_lies_is_found_out_before_a_wrong_byte_is_served() {
    let step = figures::choose(9, 2, 1);
    for name in ["inline", "extents", "resume"] {
        let workload = find(name).unwrap();
        let mut harm = Harm::default();
        for fault in [Fault::Lose, Fault::Misdirect, Fault::Flip] {
            for nth in (0..).step_by(step) {
                let world = World::new(nth);
                world.sim.plan(Plan::new(fault).on(Verb::Write).after(nth));
                // A resumed upload may be found damaged, which ends it.
                drop(world.machine.run(workload.run(&world)));
                if world.sim.struck() == 0 {
                    break;
                }
                world.machine.runtime().kill();
                let mut facts = Facts::default();
                world
                    .ledger
                    .events()
                    .iter()
                    .for_each(|event| facts.apply(event));
                for keeps in [true, false] {
                    let index = if keeps {
                        Indexes::new(world.index.current().crash(), world.index.is_whole())
                    } else {
                        Indexes::new(orlop_index::mem::Memory::new(), false)
                    };
                    let image = Image {
                        seed: nth,
                        sim: world.sim.crash(orlop_disk::sim::Crash::Killed),
                        index: Arc::new(index),
                        names: world.catalog.rows(0),
                    };
                    let done = damage::check(&image, &facts);
                    let done = done.unwrap_or_else(|finding| {
                        panic!("{name}, {fault:?} at write {nth}: {finding}")
                    });
                    harm = harm.and(done);
                }
            }
        }
        println!("{name}: {harm:?}");
        assert!(harm.named + harm.refused > 0 && harm.served > 0, "{harm:?}");
    }
}

/// Every read of a start, of a rebuild and of the blobs fails once: what cannot
/// be read is not called absent, and nothing is dropped because of it.
#[test]
fn i19_a_read_error_is_never_taken_for_absent() {
    let step = figures::choose(3, 1, 1);
    for name in ["rotation", "resume"] {
        let (recording, facts) = ended(name, 7);
        for verb in [Verb::Read, Verb::Open, Verb::List, Verb::Len, Verb::Exists] {
            for errno in [Errno::Eio, Errno::Enomem] {
                for nth in (0..).step_by(step) {
                    let image = image(&recording, nth % 2 == 0);
                    let what = format!("{name}, {errno:?} at {verb:?} {nth}");
                    image
                        .sim
                        .plan(Plan::new(Fault::Errno(errno)).on(verb).after(nth));
                    let machine = Machine::new(nth);
                    let runtime = machine.runtime();
                    let harm = machine.run(async {
                        match world::open(&image.sim, &image.index, &runtime).await {
                            Ok(store) => damage::read(&store, &facts).await,
                            Err(Error::NotFound { .. }) => panic!("{what}: called absent"),
                            Err(_) => Ok(Harm::default()),
                        }
                    });
                    let harm = harm.unwrap_or_else(|finding| panic!("{what}: {finding}"));
                    assert_eq!(harm.absent, 0, "{what}: {harm:?}");
                    drop(machine);
                    let struck = image.sim.struck();
                    image.sim.clear_plans();
                    // The disk is well again, and so is the store.
                    let after = Image {
                        seed: nth,
                        sim: image.sim.crash(orlop_disk::sim::Crash::Lost),
                        index: Arc::new(Indexes::new(
                            image.index.current().crash(),
                            image.index.is_whole(),
                        )),
                        names: image.names.clone(),
                    };
                    checker::check(&after, &facts)
                        .unwrap_or_else(|finding| panic!("{what}: {finding}"));
                    if struck == 0 {
                        break;
                    }
                }
            }
        }
    }
}

/// A disk that takes up to two seconds for each transfer, and one that hangs for
/// half a minute in a sync: pushes wait and are kept, reads do not wait.
#[test]
fn g11_a_slow_disk_loses_nothing_and_a_stalled_sync_holds_up_no_reader() {
    for name in ["group", "interleaved"] {
        let world = World::new(3);
        let clock = world.machine.runtime();
        let random = Mutex::new(Random::new(3));
        let slow = move || clock.sleep(Duration::from_millis(random.lock().unwrap().below(2_000)));
        world.sim.plan(Plan::stall(slow).sticky());
        let done = world.machine.run(find(name).unwrap().run(&world));
        done.unwrap_or_else(|error| panic!("{name}: {error}"));
        let took = world.machine.runtime().now();
        assert!(took > Duration::from_secs(10), "{took:?}");
    }
    let world = World::new(4);
    let clock = world.machine.runtime();
    world.machine.run(async {
        let store = world.open().await.unwrap();
        let client = Client::new(&world, &store);
        let (first, second) = (content(1, 200_000), content(2, 30_000));
        client.push(&first).await.unwrap();
        let stalled = world.machine.runtime();
        let hang = move || stalled.sleep(Duration::from_secs(30));
        world.sim.plan(Plan::stall(hang).on(Verb::Sync));
        let began = clock.now();
        let read = async {
            clock.sleep(Duration::from_secs(1)).await;
            let found = store.read(&sha256(&first)).unwrap().bytes(1 << 20).await;
            assert_eq!(found.unwrap(), first);
            assert!(clock.now() - began < Duration::from_secs(2), "it waited");
        };
        let (pushed, ()) = futures_util::future::join(client.push(&second), read).await;
        pushed.unwrap();
        assert!(clock.now() - began >= Duration::from_secs(30));
        assert_eq!(world.sim.struck(), 1);
        let left = Indexes::new(world.index.current().crash(), true);
        let cut = world.sim.crash(orlop_disk::sim::Crash::Lost);
        drop(store);
        let store = world::open(&cut, &left, &clock).await.unwrap();
        for bytes in [first, second] {
            let found = store.read(&sha256(&bytes)).unwrap().bytes(1 << 20).await;
            assert_eq!(found.unwrap(), bytes);
        }
    });
}
