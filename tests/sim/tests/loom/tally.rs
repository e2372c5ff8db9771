//! The disk's counters: whoever has an answer sees that it was counted.

use loom::sync::Arc;
use loom::sync::mpsc;
use loom::thread;
use orlop_disk::model::Tally;

#[test]
fn an_answer_comes_after_its_count() {
    crate::every_order(|| {
        let tally = Arc::new(Tally::default());
        let (answer, landed) = mpsc::channel();
        let threads: Vec<_> = [10, 20]
            .into_iter()
            .map(|len| {
                let (tally, answer) = (Arc::clone(&tally), answer.clone());
                thread::spawn(move || {
                    tally.read(len);
                    answer.send(len).unwrap();
                })
            })
            .collect();
        let first = landed.recv().unwrap();
        let seen = tally.counters();
        assert!(seen.reads >= 1);
        assert!(seen.bytes_read >= first, "an answer came before its count");
        let second = landed.recv().unwrap();
        let seen = tally.counters();
        assert_eq!((seen.reads, seen.bytes_read), (2, first + second));
        for thread in threads {
            thread.join().unwrap();
        }
    });
}

#[test]
fn a_count_after_the_answer_is_found_wrong() {
    crate::some_order_fails(|| {
        let tally = Arc::new(Tally::default());
        let (answer, landed) = mpsc::channel();
        let writer = thread::spawn({
            let tally = Arc::clone(&tally);
            move || {
                answer.send(()).unwrap();
                tally.write(10);
            }
        });
        landed.recv().unwrap();
        assert_eq!(tally.counters().writes, 1);
        writer.join().unwrap();
    });
}
