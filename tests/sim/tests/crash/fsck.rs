//! A store that lost power at any moment is clean: fsck notes torn tails and
//! has no finding. Nothing of the engine is asked.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use orlop_disk::Disk as _;
use orlop_disk::sim::Sim;
use orlop_figures as figures;
use orlop_format::BLOCK;
use orlop_sim::case::{Case, Model};
use orlop_sim::random::mix;
use orlop_sim::simulation::{Recording, run};
use orlop_sim::sweep::models;
use orlop_sim::workload::WORKLOADS;
use orlop_sim::world;

use crate::CASE;
use crate::support::clock::simulate;
use crate::support::contents::fresh;
use crate::support::workers::sweep;
use crate::support::world::{World, pull, push};

/// The folders of a store, below its own.
const FOLDERS: [&str; 5] = ["", "journal", "data/raw", "data/small", "data/meta"];

/// Puts the files of a simulated disk into a real folder.
fn export(sim: &Sim, to: &Path) {
    for folder in FOLDERS {
        let from = world::folder().join(folder);
        let Ok(names) = sim.list(&from) else {
            continue;
        };
        fs::create_dir_all(to.join(folder)).unwrap();
        for name in names {
            let Some(bytes) = sim.peek(&from.join(&name)) else {
                continue; // a folder
            };
            let file = File::create(to.join(folder).join(&name)).unwrap();
            file.set_len(bytes.len() as u64).unwrap();
            for (number, block) in bytes.chunks(BLOCK).enumerate() {
                if block.iter().any(|byte| *byte != 0) {
                    file.write_all_at(block, (number * BLOCK) as u64).unwrap();
                }
            }
        }
    }
}

/// What fsck has against the image of a case. `None` when no store had come to
/// be.
fn look(recording: &Recording, case: &Case) -> Option<Result<(), String>> {
    let moment = recording.at(case.cut.operation).unwrap();
    let image = recording.image(moment, case);
    let memory = Path::new("/dev/shm");
    let place = match memory.is_dir() {
        true => tempfile::tempdir_in(memory).unwrap(),
        false => tempfile::tempdir().unwrap(),
    };
    export(&image.sim, place.path());
    let clean = match orlop_fsck::check(place.path()) {
        Ok(report) if report.clean() => Ok(()),
        Ok(report) => Err(report.to_string()),
        Err(_) if moment.events == 0 => return None,
        Err(trouble) => Err(trouble.to_string()),
    };
    Some(clean.map_err(|said| {
        format!(
            "fsck has findings in the store that case {case} left:\n{said}\n\
             run it again: {CASE}={case} cargo test --manifest-path tests/sim/Cargo.toml --test crash g2_fsck"
        )
    }))
}

/// Looks at every so many-th image of one run. How many there were.
fn all(workload: usize, seed: u64, step: usize) -> Result<u64, String> {
    let recording = run(&WORKLOADS[workload], seed).unwrap();
    let models: Vec<Model> = models(2).collect();
    let first = mix(&[seed, 60, workload as u64]) as usize % step;
    let images = recording.moments.len() * models.len();
    let mut count = 0;
    for number in (first..images).step_by(step) {
        let moment = &recording.moments[number / models.len()];
        let case = recording.case(moment, models[number % models.len()]);
        if let Some(clean) = look(&recording, &case) {
            clean?;
            count += 1;
        }
    }
    Ok(count)
}

#[test]
fn g2_fsck_calls_a_store_clean_after_a_power_cut_at_any_operation() {
    if let Ok(text) = std::env::var(CASE) {
        let case: Case = text.parse().unwrap();
        let workload = orlop_sim::workload::find(&case.workload).unwrap();
        let recording = run(workload, case.seed).unwrap();
        if let Some(clean) = look(&recording, &case) {
            clean.unwrap_or_else(|said| panic!("{said}"));
        }
        return;
    }
    // Coprime with the number of models, so that each is met everywhere.
    let step = figures::choose(97, 5, 1);
    let seeds = figures::choose(1, 1, 20);
    let counts = sweep(WORKLOADS.len() as u64 * seeds, |number| {
        let number = number as usize;
        let seed = 1 + (number / WORKLOADS.len()) as u64;
        all(number % WORKLOADS.len(), seed, step).unwrap_or_else(|said| panic!("{said}"))
    });
    let count = counts.iter().sum::<u64>();
    assert!(count > 0);
    figures::record("crash images read by fsck", count, &format!("1..={seeds}"));
}

/// What is pushed again while its segment file is missing has two commits in the
/// log and no end between them. That is no finding, whether the file comes back
/// or not.
#[test]
fn a_store_that_was_healed_beside_a_lost_file_is_clean() {
    simulate(async {
        let world = World::new(8);
        let (lost, other) = (fresh(1, 300_000), fresh(2, 300_000));
        for content in [&lost, &other] {
            let store = world.open().await.unwrap();
            push(&store, &content.bytes, content.sha256).await.unwrap();
            store.close().await.unwrap();
        }
        let raw = orlop_sim::world::folder().join("data/raw");
        let name = world.sim.list(&raw).unwrap().into_iter().min().unwrap();
        let (here, away) = (raw.join(&name), orlop_sim::world::folder().join("away"));
        world.sim.rename(&here, &away).unwrap();
        let store = world.open().await.unwrap();
        assert!(push(&store, &lost.bytes, lost.sha256).await.unwrap());
        assert_eq!(pull(&store, &lost.sha256).await.unwrap(), lost.bytes);
        store.close().await.unwrap();
        for is_back in [false, true] {
            if is_back {
                world.sim.rename(&away, &here).unwrap();
            }
            let place = tempfile::tempdir().unwrap();
            export(&world.sim, place.path());
            let report = orlop_fsck::check(place.path()).unwrap();
            assert!(report.clean(), "{is_back}: {report}");
        }
        let store = world.open().await.unwrap();
        assert!(!push(&store, &lost.bytes, lost.sha256).await.unwrap());
    });
}
