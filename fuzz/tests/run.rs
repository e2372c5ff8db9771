//! Every target over its corpus and over changes of it, without a fuzzer and on
//! the stable compiler.
//!
//! Each run has a seed, which it prints; `ORLOP_FUZZ_SEED` gives it again. An
//! input that fails is kept, and the message has the command that replays it.
#![expect(
    clippy::panic,
    reason = "support of tests: a mistake here fails the test with its message"
)]

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, Once, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use orlop_fuzz::mutate::{Random, mutate};
use orlop_fuzz::{ALL, Target, corpus, target};

/// The variable that gives a seed.
const SEED: &str = "ORLOP_FUZZ_SEED";
/// No input takes longer.
const LONGEST: Duration = Duration::from_secs(20);

thread_local! {
    static IN_TARGET: Cell<bool> = const { Cell::new(false) };
}

/// A panic of a thread that no target waits for.
static BEHIND: Mutex<Option<String>> = Mutex::new(None);

fn watch_threads() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !IN_TARGET.get()
                && info
                    .location()
                    .is_none_or(|at| !at.file().contains("tests/run"))
            {
                *BEHIND.lock().unwrap_or_else(PoisonError::into_inner) = Some(info.to_string());
            }
            usual(info);
        }));
    });
}

fn seed() -> u64 {
    match std::env::var(SEED) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("{SEED} must be a number, not {text:?}")),
        Err(_) => SystemTime::UNIX_EPOCH.elapsed().map_or(0, |time| {
            time.as_secs() ^ u64::from(time.subsec_nanos()) << 20
        }),
    }
}

fn one(target: &Target, input: &[u8], seed: u64) {
    let start = Instant::now();
    IN_TARGET.set(true);
    let outcome = catch_unwind(AssertUnwindSafe(|| (target.run)(input)));
    IN_TARGET.set(false);
    let behind = BEHIND.lock().unwrap_or_else(PoisonError::into_inner).take();
    let slow = start.elapsed() > LONGEST;
    if outcome.is_ok() && behind.is_none() && !slow {
        return;
    }
    let path = corpus::keep(target.name, input).unwrap_or_default();
    let name = target.name;
    panic!(
        "target {name} failed (seed {seed}, {:?}, {behind:?}); replay: \
         cargo run --manifest-path fuzz/Cargo.toml -- {name} {}",
        start.elapsed(),
        path.display()
    );
}

fn run(name: &str) {
    watch_threads();
    let target = target(name).unwrap_or_else(|| panic!("no target {name}"));
    let inputs = corpus::load(name).unwrap_or_else(|error| panic!("the corpus of {name}: {error}"));
    assert!(!inputs.is_empty(), "the corpus of {name} is empty");
    let seed = seed();
    println!("target {name}: {SEED}={seed}");
    one(&target, b"", seed);
    for (_, input) in &inputs {
        one(&target, input, seed);
    }
    let time = orlop_figures::choose(
        Duration::from_millis(400),
        Duration::from_secs(8),
        Duration::from_secs(120),
    );
    let (start, mut random, mut count) = (Instant::now(), Random::new(seed), 0u64);
    while start.elapsed() < time {
        let mut pick = || {
            inputs
                .get(random.below(inputs.len()))
                .map_or(&[][..], |(_, bytes)| bytes)
        };
        let (input, other) = (pick(), pick());
        let changed = mutate(&target, input, other, &mut random);
        one(&target, &changed, seed);
        count += 1;
    }
    println!(
        "target {name}: {} inputs of the corpus, {count} changed ones",
        inputs.len()
    );
    orlop_figures::record("fuzz targets", 1, &seed.to_string());
}

macro_rules! tests {
    ($($name:ident),+ $(,)?) => {
        const TESTED: &[&str] = &[$(stringify!($name)),+];
        $(#[test]
        fn $name() {
            run(stringify!($name));
        })+
    };
}

tests! {
    checkpoint, digest, frame, fsck, group, manifest, media_type, name, note, range, record, route, row,
    segment_scan, settings, store, superblock,
}

#[test]
fn every_target_has_a_test_a_program_and_a_small_corpus() {
    let names: Vec<_> = ALL.iter().map(|target| target.name).collect();
    assert_eq!(names, TESTED);
    for name in names {
        let program = format!("{}/fuzz_targets/{name}.rs", env!("CARGO_MANIFEST_DIR"));
        assert!(std::path::Path::new(&program).is_file(), "{program}");
        let inputs = corpus::load(name).unwrap();
        let bytes: u64 = inputs.iter().map(|(_, bytes)| bytes.len() as u64).sum();
        assert!(
            inputs.len() <= corpus::FILES_MAX,
            "{name}: {} files",
            inputs.len()
        );
        assert!(bytes <= corpus::BYTES_MAX, "{name}: {bytes} bytes");
    }
}
