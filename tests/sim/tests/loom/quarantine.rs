//! The quarantine: its count spares lookups the lock, and hides nothing.

use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread;
use orlop_engine::model::Quarantine;

const ONE: [u8; 32] = [1; 32];
const TWO: [u8; 32] = [2; 32];

#[test]
fn whoever_was_told_of_damage_finds_the_blob_in() {
    crate::every_order(|| {
        let quarantine = Arc::new(Quarantine::default());
        let told = Arc::new(AtomicBool::new(false));
        let reader = thread::spawn({
            let (quarantine, told) = (Arc::clone(&quarantine), Arc::clone(&told));
            move || {
                quarantine.add(ONE, 7);
                told.store(true, Ordering::Release);
            }
        });
        // Another blob comes and goes: its count must not hide the first.
        let other = thread::spawn({
            let quarantine = Arc::clone(&quarantine);
            move || {
                quarantine.add(TWO, 8);
                quarantine.settle(&TWO, 8);
            }
        });
        if told.load(Ordering::Acquire) {
            assert!(quarantine.contains(&ONE, 7));
        }
        reader.join().unwrap();
        other.join().unwrap();
        assert!(quarantine.contains(&ONE, 7));
        assert!(!quarantine.contains(&TWO, 8));
    });
}

#[test]
fn one_of_two_readers_who_see_damage_puts_it_in() {
    crate::every_order(|| {
        let quarantine = Arc::new(Quarantine::default());
        let other = thread::spawn({
            let quarantine = Arc::clone(&quarantine);
            move || {
                let first = quarantine.add(ONE, 7);
                assert!(quarantine.contains(&ONE, 7));
                first
            }
        });
        let first = quarantine.add(ONE, 7);
        assert!(quarantine.contains(&ONE, 7));
        assert!(first != other.join().unwrap(), "exactly one records it");
    });
}

#[test]
fn a_word_that_orders_nothing_is_found_wrong() {
    crate::some_order_fails(|| {
        let quarantine = Arc::new(Quarantine::default());
        let told = Arc::new(AtomicBool::new(false));
        let reader = thread::spawn({
            let (quarantine, told) = (Arc::clone(&quarantine), Arc::clone(&told));
            move || {
                quarantine.add(ONE, 7);
                told.store(true, Ordering::Relaxed);
            }
        });
        if told.load(Ordering::Relaxed) {
            assert!(quarantine.contains(&ONE, 7));
        }
        reader.join().unwrap();
    });
}
