//! Damage that hardware does (G5): every recorded byte of metadata flipped,
//! one at a time, flipped bits of payload, and blocks that are zeroed, lost,
//! doubled or swapped. The engine never gives a wrong byte and loses no other
//! blob; `orlop-fsck` finds each and names it.
//!
//! Recorded is what a checksum covers and the log refers to, before the last
//! durable mark: `map` finds that out from the format, not from fsck.

#[path = "../support/mod.rs"]
mod support;

mod blocks; // whole blocks
mod damage; // one piece of damage, tried on both
mod map; // which bytes are recorded, and for what
mod store; // the store that is damaged

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::damage::{Change, Place};
use crate::map::Spot;
use crate::store::{Base, base};
use crate::support::random::{Random, base as seed, mix, number};
use crate::support::workers::sweep;

/// Changes that one copy of the store lives through.
const BATCH: u64 = 100;

/// One sweep at a time: each takes both cores.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Tries changes number 0 to `count`.
fn try_all(count: u64, change: impl Fn(u64) -> Change + Sync) {
    if let Some(one) = number("ORLOP_FLIP") {
        Place::new(base()).check(&change(one), one);
        return;
    }
    sweep(count.div_ceil(BATCH), |batch| {
        let place = Place::new(base());
        for number in batch * BATCH..((batch + 1) * BATCH).min(count) {
            place.check(&change(number), number);
        }
    });
}

fn metadata(base: &Base) -> Vec<(&Spot, usize)> {
    let spots = base.spots.iter().filter(|spot| !spot.what.is_payload());
    spots
        .flat_map(|spot| spot.range.clone().map(move |at| (spot, at)))
        .collect()
}

#[test]
fn g5_every_recorded_byte_of_metadata_is_guarded() {
    let _alone = alone();
    let bytes = metadata(base());
    let step = orlop_figures::choose(61, 1, 1);
    let count = (bytes.len() as u64).div_ceil(step);
    try_all(count, |number| {
        let (spot, at) = bytes[(number * step) as usize];
        let mask = 1 + Random::new(mix(seed(), number)).below(255) as u8;
        Change::flip("metadata", spot, at, mask)
    });
    let from = format!("ORLOP_SEED={}", seed());
    orlop_figures::record("metadata bytes flipped", count, &from);
}

#[test]
fn g5_flipped_payload_costs_that_blob_alone_and_is_named() {
    let _alone = alone();
    let payload: Vec<_> = base()
        .spots
        .iter()
        .filter(|spot| spot.what.is_payload())
        .collect();
    let total: usize = payload.iter().map(|spot| spot.range.len()).sum();
    let count = orlop_figures::choose(200, 20_000, 1_000_000);
    try_all(count, |number| {
        let mut random = Random::new(mix(seed(), !number));
        let mask = 1 << random.below(8);
        // Half of them by blob, so that small ones are met as well.
        if number % 2 == 0 {
            let spot = *random.pick(&payload);
            let at = spot.range.start + random.below(spot.range.len() as u64) as usize;
            return Change::flip("payload", spot, at, mask);
        }
        let mut at = random.below(total as u64) as usize;
        let spot = payload.iter().find(|spot| {
            let hit = at < spot.range.len();
            if !hit {
                at -= spot.range.len();
            }
            hit
        });
        let spot = spot.unwrap();
        Change::flip("payload", spot, spot.range.start + at, mask)
    });
    let from = format!("ORLOP_SEED={}", seed());
    orlop_figures::record("payload flips", count, &from);
}

#[test]
fn g5_zeroed_lost_doubled_and_swapped_blocks_are_found() {
    let _alone = alone();
    let changes = blocks::all(base());
    let step = orlop_figures::choose(19, 1, 1);
    let count = (changes.len() as u64).div_ceil(step);
    assert!(changes.len() > 500, "{} blocks", changes.len());
    try_all(count, |number| changes[(number * step) as usize].clone());
    println!("g5: {count} changes of whole blocks");
}

#[test]
fn the_store_that_is_damaged_has_every_kind() {
    let _alone = alone();
    let base = base();
    let kinds: std::collections::BTreeSet<_> =
        base.spots.iter().map(|spot| spot.what.name()).collect();
    println!("{kinds:?}");
    assert_eq!(kinds.len(), 11, "{kinds:?}");
    let report = orlop_fsck::check(Place::new(base).folder()).unwrap();
    assert!(report.clean(), "{report}");
}
