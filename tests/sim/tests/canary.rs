//! Planted bugs: each is found, and by the checker that is there for it.

use orlop_engine::{Planted, plant};
use orlop_figures as figures;
use orlop_sim::case::{Case, Model};
use orlop_sim::checker::{Checked, Checker, damage};
use orlop_sim::client::names_first;
use orlop_sim::simulation::{Failure, Recording, replay, replay_of, run};
use orlop_sim::sweep::models;
use orlop_sim::workload::{Workload, find};
use orlop_sim::world::folder;

/// Seeds that are tried.
const SEEDS: std::ops::Range<u64> = 0..3;

/// A run with a bug in it. What it leaves is looked at without the bug.
type Run = fn(&'static Workload, u64) -> Checked<Recording>;

/// The first failure of a workload that this checker finds, from its last
/// operation on backwards.
fn hunt(workload: &str, checker: Checker, run: Run) -> Option<Box<Failure>> {
    let workload = find(workload).unwrap();
    for seed in SEEDS {
        let recording = match run(workload, seed) {
            Ok(recording) => recording,
            Err(finding) => panic!("the fault shows without a crash: {finding}"),
        };
        for moment in recording.moments.iter().rev() {
            let facts = recording.facts(moment);
            for model in models(2) {
                if let Err(failure) = recording.check(moment, model, &facts)
                    && failure.finding.checker == checker
                {
                    return Some(failure);
                }
            }
        }
    }
    None
}

/// The bug is found by this checker, and the case that found it finds it again,
/// read back from what was printed. Without the bug it finds nothing.
fn found(workload: &str, checker: Checker, bug: Run) {
    let case = found_again(workload, checker, bug);
    replay(&case).unwrap_or_else(|failure| panic!("found without the bug: {failure}"));
}

fn found_again(workload: &str, checker: Checker, bug: Run) -> Case {
    let failure = hunt(workload, checker, bug).expect("the simulator has not found it");
    println!("{failure}");
    let text = failure.case.to_string();
    let case: Case = text.parse().unwrap();
    let again = replay_of(&case, bug).expect_err("the case does not find it again");
    assert_eq!(again.finding, failure.finding);
    assert!(
        failure
            .to_string()
            .contains(&format!("ORLOP_SIM={text} cargo test "))
    );
    figures::record("planted faults found", 1, &case.seed.to_string());
    case
}

#[test]
fn canary_a_skipped_sync_is_found() {
    found("inline", Checker::Acknowledged, |workload, seed| {
        let _bug = plant(Some(Planted::SkipSync));
        run(workload, seed)
    });
}

#[test]
fn canary_the_index_before_the_log_is_found() {
    found("inline", Checker::Opens, |workload, seed| {
        let _bug = plant(Some(Planted::IndexBeforeLog));
        run(workload, seed)
    });
}

#[test]
fn canary_an_answer_before_the_sync_is_found() {
    found("group", Checker::Acknowledged, |workload, seed| {
        let _bug = plant(Some(Planted::AckBeforeDurable));
        run(workload, seed)
    });
}

#[test]
fn canary_recycling_before_the_flush_is_found() {
    found("rotation", Checker::Bounded, |workload, seed| {
        let _bug = plant(Some(Planted::RecycleBeforeFlush));
        run(workload, seed)
    });
}

#[test]
fn canary_a_segment_that_goes_before_its_record_is_found() {
    found("room", Checker::Opens, |workload, seed| {
        let _bug = plant(Some(Planted::UnlinkBeforeRecord));
        run(workload, seed)
    });
}

/// An upload goes on in a hole. The run with the bug has operations that the
/// one without it does not get to.
#[test]
fn canary_room_given_back_under_an_upload_is_found() {
    found_again("room", Checker::Acknowledged, |workload, seed| {
        let _bug = plant(Some(Planted::ReclaimWithoutUploads));
        run(workload, seed)
    });
}

/// A copy that is lost with what it was made of. The run without the bug has syncs
/// that this one has not.
#[test]
fn canary_a_move_before_its_copy_is_durable_is_found() {
    found_again("moves", Checker::Acknowledged, |workload, seed| {
        let _bug = plant(Some(Planted::MoveWithoutSync));
        run(workload, seed)
    });
}

#[test]
fn canary_names_before_blobs_are_found() {
    found("manifests", Checker::Names, |workload, seed| {
        names_first::plant(true);
        let recording = run(workload, seed);
        names_first::plant(false);
        recording
    });
}

/// The one that needs a disk which loses the end of a file: the store that reads
/// must not take what is left for all there was.
#[test]
fn canary_a_checksum_without_the_length_is_found() {
    let recording = run(find("sealing").unwrap(), 0).unwrap();
    let moment = recording.moments.last().unwrap();
    let facts = recording.facts(moment);
    let case = recording.case(moment, Model::Kept);
    let look = |planted| {
        let image = recording.image(moment, &case);
        let raw = folder().join("data/raw");
        let files = image.sim.files(&raw);
        assert!(!files.is_empty());
        for (path, _) in files {
            let bytes = image.sim.peek(&path).unwrap();
            let end = bytes.iter().rposition(|byte| *byte != 0).unwrap();
            assert!(image.sim.cut(&path, (end * 3 / 4 / 4096 * 4096) as u64));
        }
        let _bug = plant(planted);
        damage::check(&image, &facts)
    };
    let finding = look(Some(Planted::ChecksumWithoutLength)).expect_err("not found");
    assert_eq!(finding.checker, Checker::Bytes, "{finding}");
    let harm = look(None).unwrap_or_else(|finding| panic!("{finding}"));
    assert!(harm.named > 0, "{harm:?}");
    figures::record("planted faults found", 1, "0");
}
