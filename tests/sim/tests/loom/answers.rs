//! An answer's pieces: whoever waits until none is held is woken.

use std::task::{Context, Waker};

use loom::sync::Arc;
use loom::sync::atomic;
use loom::thread;

#[path = "../../../../server/src/api/piece/held.rs"]
mod held;

use held::Held;

/// Loom's waker cell, with the name of the one that is shipped.
#[derive(Default)]
struct AtomicWaker(loom::future::AtomicWaker);

impl AtomicWaker {
    fn register(&self, waker: &Waker) {
        self.0.register_by_ref(waker);
    }

    fn wake(&self) {
        self.0.wake();
    }
}

#[test]
fn whoever_waits_for_the_last_piece_is_woken() {
    crate::every_order(|| {
        let held = Arc::new(Held::default());
        held.add();
        held.add();
        let letters: Vec<_> = (0..2)
            .map(|_| {
                let held = Arc::clone(&held);
                thread::spawn(move || held.let_go())
            })
            .collect();
        // Blocks until woken; a wake that is lost is a deadlock, which loom
        // reports.
        loom::future::block_on(std::future::poll_fn(|context| held.poll_none(context)));
        for letter in letters {
            letter.join().unwrap();
        }
    });
}

#[test]
fn one_look_before_waiting_is_found_wrong() {
    crate::some_order_fails(|| {
        let held = Arc::new(Held::default());
        held.add();
        let letter = thread::spawn({
            let held = Arc::clone(&held);
            move || held.let_go()
        });
        let mut looked = false;
        loom::future::block_on(std::future::poll_fn(|context: &mut Context<'_>| {
            // Looks, and waits without leaving its waker.
            if std::mem::replace(&mut looked, true) {
                return held.poll_none(context);
            }
            let noop = Context::from_waker(Waker::noop());
            held.poll_none(&noop)
        }));
        letter.join().unwrap();
    });
}
