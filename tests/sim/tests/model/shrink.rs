//! From a sequence that fails to a short one that still does, and the command
//! that runs it again.

use crate::run::{STEPS, Sequence};

/// Runs that one failure may cost.
const TRIES: usize = 400;

/// Drops steps as long as the rest still fails: first all behind some step,
/// then halves, quarters and so on down to single ones.
pub fn shorten(mut kept: Vec<usize>, fails: &dyn Fn(&[usize]) -> bool) -> Vec<usize> {
    let (mut low, mut high) = (0, kept.len());
    while low < high {
        let middle = (low + high) / 2;
        if fails(&kept[..middle]) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    if fails(&kept[..high]) {
        kept.truncate(high);
    }
    let mut tries = 0;
    let mut size = kept.len().div_ceil(2);
    while size > 0 {
        let mut at = 0;
        while at < kept.len() && tries < TRIES {
            let mut fewer = kept.clone();
            fewer.drain(at..(at + size).min(kept.len()));
            tries += 1;
            if fails(&fewer) {
                kept = fewer;
            } else {
                at += size;
            }
        }
        size /= 2;
    }
    kept
}

/// Steps as `ORLOP_MODEL_STEPS` takes them.
pub fn list(kept: &[usize]) -> String {
    let numbers: Vec<_> = kept.iter().map(usize::to_string).collect();
    numbers.join(",")
}

/// What a person needs to know of a sequence that failed.
pub fn report(seed: u64, why: &str) -> String {
    let last = std::sync::Mutex::new(why.to_owned());
    let fails = |kept: &[usize]| {
        let result = Sequence::new(seed).only(Some(list(kept))).run();
        let failed = result.is_err();
        if let Err(why) = result {
            *last.lock().unwrap() = why;
        }
        failed
    };
    let kept = shorten((0..STEPS).collect(), &fails);
    let again = fails(&kept);
    let steps = Sequence::new(seed).only(Some(list(&kept))).steps;
    let why_now = last.into_inner().unwrap();
    format!(
        "seed {seed}: {why}\nshortened to {} steps (fails again: {again}): {why_now}\n{steps:#?}\n\
         run it again with: cd tests/sim && ORLOP_MODEL_SEED={seed} ORLOP_MODEL_STEPS={} cargo test --test model g1",
        kept.len(),
        list(&kept)
    )
}
