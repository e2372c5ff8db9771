//! A run is a pure function of its seed.

use orlop_sim::random::mix;
use orlop_sim::workload::WORKLOADS;
use orlop_sim::world::World;

/// Everything that a run did to its disk, to the last byte, and when.
fn trace(workload: &orlop_sim::workload::Workload, seed: u64) -> (Vec<String>, Vec<u64>) {
    let world = World::new(seed);
    world.machine.run(workload.run(&world)).unwrap();
    let log = world.sim.log();
    let log = log.iter().map(|record| format!("{record:?}")).collect();
    let files = world.sim.files(&orlop_sim::world::folder());
    let bytes = files.iter().map(|(path, len)| {
        let bytes = world.sim.peek(path).unwrap();
        let words = bytes.chunks(8).map(|word| {
            let mut whole = [0; 8];
            whole[..word.len()].copy_from_slice(word);
            u64::from_le_bytes(whole)
        });
        words.fold(*len, |sum, word| mix(&[sum, word]))
    });
    (log, bytes.collect())
}

#[test]
fn equal_seeds_give_equal_operations_and_equal_bytes() {
    for workload in WORKLOADS {
        for seed in [0, 1] {
            let (first, second) = (trace(workload, seed), trace(workload, seed));
            let differs = first.0.iter().zip(&second.0).position(|(a, b)| a != b);
            if let Some(at) = differs {
                panic!(
                    "{} with seed {seed} differs at operation {at}: {} and {}",
                    workload.name, first.0[at], second.0[at]
                );
            }
            assert!(first == second, "{} with seed {seed}", workload.name);
            assert!(first.0.len() > 30, "{}: {}", workload.name, first.0.len());
        }
    }
}

#[test]
fn other_seeds_give_other_runs() {
    for workload in WORKLOADS {
        assert_ne!(trace(workload, 0), trace(workload, 1), "{}", workload.name);
    }
}
